//! Archives that come sealed or compressed, made plain by a fetch process before anybody here looks at them.
//!
//! ```text
//! body ─pipe─▶ fetch: age, gzip, zstd ─pipe─▶ whoever wants the plain bytes
//! ```

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::io::StreamReader;

use super::failed::{Failed, Outcome};
use super::work::{feed, pipe_from, pipe_to_fetch};
use super::{Catalog, Image, Progress};
use crate::error::Error;
use crate::sandbox::Caller;
use crate::sys::channel::Channel;
use crate::wire::fetch::{FetchEvent, FetchJob, ImageConfig, OpenJob};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Plain bytes on their way here.
struct Plain {
    reader: pipe::Receiver,
    channel: Channel,
    /// Pours the archive in; gone when it has ended.
    feeding: Option<JoinHandle<Outcome<()>>>,
}

impl Plain {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
        match self.reader.read_buf(&mut bytes).await {
            Ok(0) => {
                let feeding = self.feeding.take()?;
                self.ended(feeding)
                    .await
                    .err()
                    .map(|failed| Err(io::Error::new(io::ErrorKind::InvalidData, failed.into_error())))
            }
            Ok(_) => Some(Ok(bytes.freeze())),
            Err(error) => Some(Err(error)),
        }
    }

    /// The end of the pipe is that of the process, which says how it came to it; and an archive that was cut short is none.
    async fn ended(&self, feeding: JoinHandle<Outcome<()>>) -> Outcome<()> {
        self.said().await?;
        feeding.await.map_err(|error| Failed::caused("read the archive", error))?
    }

    async fn said(&self) -> Outcome<()> {
        match self.channel.receive::<FetchEvent>().await?.0 {
            FetchEvent::Progress { .. } | FetchEvent::Done => Ok(()),
            FetchEvent::Failed(failure) => Err(failure.into()),
            _ => Err(Failed::bug("fetch speaks out of turn")),
        }
    }
}

/// What is told of an archive that broke.
pub fn plainly(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Failed::unarrived(error).into_error(),
    }
}

/// An archive that is to become images.
#[derive(Clone)]
pub struct Arrival {
    /// The image's name here; what the archive says when absent.
    pub reference: Option<String>,
    /// It is a tar of files.
    pub rootfs: bool,
    /// The identity of age that it is encrypted to.
    pub identity: Option<String>,
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Makes images of an archive, whatever it is.
    ///
    /// # Errors
    /// As [`import`](Self::import) and [`commit`](Self::commit).
    pub async fn take_in(
        &self,
        caller: &Caller,
        arrival: Arrival,
        archive: impl AsyncRead + Send + 'static,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Vec<Image>, Error> {
        let Arrival { reference, rootfs, identity } = arrival;
        if rootfs {
            let tar = self.opened(identity, true, archive).await?.map_err(plainly);
            let image = self.commit(caller, reference.as_deref(), ImageConfig::default(), tar).await?;
            return Ok(vec![image]);
        }
        match identity {
            None => self.import(caller, reference, archive, progress).await,
            Some(identity) => {
                let plain = self.opened(Some(identity), false, archive).await?;
                self.import(caller, reference, StreamReader::new(plain), progress).await
            }
        }
    }

    /// Makes an archive plain: decrypts it with an identity of age, if one is given, and unpacks it if that is wanted.
    ///
    /// # Errors
    /// `IMAGE_INVALID` when the identity does not fit. What is found later comes with the stream.
    pub async fn opened(
        &self,
        identity: Option<String>,
        inflate: bool,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        let plain = self.plain(OpenJob { identity, inflate }, archive).await.map_err(Failed::into_error)?;
        Ok(stream::unfold(plain, async |mut plain| plain.next().await.map(|item| (item, plain))).boxed())
    }

    async fn plain(&self, job: OpenJob, archive: impl AsyncRead + Send + 'static) -> Outcome<Plain> {
        let (from, writer) = pipe_to_fetch()?;
        let (reader, to) = pipe_from()?;
        let channel = self.0.fetch(FetchJob::Open(job), from, Some(to)).await?;
        // It ends when the archive does, or the process.
        let feeding = Some(tokio::spawn(feed(archive, writer)));
        let plain = Plain { reader, channel, feeding };
        plain.said().await?;
        Ok(plain)
    }
}
