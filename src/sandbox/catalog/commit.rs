//! An image of what a sandbox has: one layer, with all of its files as they are seen in it.
//!
//! ```text
//! tar ─▶ zstd ─▶ blob, under its digest ─▶ configuration, manifest ─┬▶ launch: unpack, as any layer ─▶ index
//!                                                                   └▶ fetch: push; a layout as a tar
//! ```
//! The tar is untrusted code's, and is unpacked as a stranger's layer is.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, broadcast, mpsc};
use utoipa::ToSchema;

use super::failed::{Failed, Outcome};
use super::work::Origin;
use super::{Catalog, Image, Inner, Maker, PROGRESS_QUEUED, Phase, Progress, PullSpec, parse_own};
use crate::error::Error;
use crate::id::Digest;
use crate::image::blobs::{BlobError, Partial};
use crate::image::{documents, reference};
use crate::sandbox::Caller;
use crate::sandbox::compress::compressed;
use crate::wire::fetch::{FetchEvent, FetchJob, FetchedImage, ImageConfig, Layer, PushJob};

/// A blob as something to write to. What is not taken out of it is removed.
struct Sink(Option<Partial>);

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(partial) = &self.0 {
            partial.discard();
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(partial) = &mut self.0 else { return Ok(0) };
        match partial.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) if error.is_full() => Err(std::io::ErrorKind::StorageFull.into()),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(error: BlobError) -> Error {
    Error::internal("cannot store the image", error)
}

/// An image that nobody was told of: its blobs stay while this lives.
#[derive(Debug)]
pub struct Draft {
    inner: Arc<Inner>,
    image: FetchedImage,
    gate: Option<OwnedRwLockReadGuard<()>>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.inner.garbage.store(true, Ordering::Release);
        self.gate = None;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inner = Arc::clone(&self.inner);
            runtime.spawn(async move { inner.collect_if_idle().await });
        }
    }
}

impl Draft {
    /// Writes it as a tar of an OCI layout.
    ///
    /// # Errors
    /// When a blob cannot be read, or nobody takes the bytes.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        documents::write_layout(self.inner.store.blobs(), &self.image, out)
    }
}

impl Catalog {
    /// Makes an image of one layer, of a tar that is a stranger's.
    ///
    /// # Errors
    /// What the stream says when it breaks; `CAPACITY_EXHAUSTED`.
    pub async fn draft(
        &self,
        reference: Option<&str>,
        config: ImageConfig,
        tar: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<Draft, Error> {
        let name = reference.map(parse_own).transpose().map_err(Failed::into_error)?;
        self.0.load().await.map_err(Failed::into_error)?;
        let gate = Arc::clone(&self.0.gate).read_owned().await;
        let blobs = self.0.store.blobs();
        let sum = Arc::new(Mutex::new(Sha256::new()));
        let seen = Arc::clone(&sum);
        let see = move |chunk: &[u8]| seen.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
        let partial = blobs.anonymous().map_err(failed)?;
        let mut sink = compressed(tar, Sink(Some(partial)), see).await?;
        let Some(partial) = sink.0.take() else { return Err(Failed::bug("the layer is gone").into_error()) };
        let (digest, size_bytes) = partial.commit_as_found().map_err(failed)?;
        let sum = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let layer = Layer { digest, diff_id: Digest::from_bytes(sum.finalize().into()), size_bytes };
        let image = documents::store(blobs, name.map(|name| name.to_string()), config, layer);
        Ok(Draft { inner: Arc::clone(&self.0), image: image.map_err(failed)?, gate: Some(gate) })
    }

    /// Enters an image of one layer under a name, or under its digest.
    ///
    /// # Errors
    /// As [`draft`](Self::draft); `IMAGE_INVALID` when its files make no layer, `PERMISSION_DENIED` when the name is
    /// somebody else's.
    pub async fn commit(
        &self,
        caller: &Caller,
        reference: Option<&str>,
        config: ImageConfig,
        tar: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<Image, Error> {
        // Before anybody makes a layer for it.
        let by = Maker::of(caller);
        let name = reference.map(parse_own).transpose().map_err(Failed::into_error)?;
        if let Some(there) = name.and_then(|name| self.0.store.named(&name.to_string())) {
            by.must_own(&there).map_err(Failed::into_error)?;
        }
        self.0.must_have_any_room(by).map_err(Failed::into_error)?;
        let draft = self.draft(reference, config, tar).await?;
        let (progress, _) = broadcast::channel(PROGRESS_QUEUED);
        for layer in &draft.image.layers {
            self.0.layer(*layer, Origin::Files, &progress).await.map_err(Failed::into_error)?;
        }
        self.0.enter(draft.image.clone(), by).map_err(Failed::into_error)
    }

    /// The name that an image is pushed under, in full.
    ///
    /// # Errors
    /// `INVALID_REFERENCE`.
    pub fn pushable(reference: &str) -> Result<String, Error> {
        Ok(parse_own(reference).map_err(Failed::into_error)?.to_string())
    }

    /// Sends an image to a registry, where it has the name that `to` says.
    ///
    /// # Errors
    /// One code per kind of failure, as for a pull.
    pub async fn push(
        &self,
        draft: &Draft,
        to: PullSpec,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Pushed, Error> {
        let name = Self::pushable(&to.reference)?;
        let image = &draft.image;
        let mut blobs: Vec<_> = image.layers.iter().map(|layer| (layer.digest, layer.size_bytes)).collect();
        let config = self.0.store.blobs().open(image.config_digest).map_err(failed)?;
        let size = config.metadata().map_err(|error| Error::internal("cannot read the image", error))?.len();
        blobs.push((image.config_digest, size));
        let size_bytes = blobs.iter().map(|(_, size)| size).sum();
        let to = Inner::pull_job(PullSpec { reference: name.clone(), ..to }, reference::host_platform());
        let job = PushJob { to, manifest: image.manifest, blobs };
        self.0.push(job, progress).await.map_err(Failed::into_error)?;
        Ok(Pushed { reference: name, digest: image.manifest, size_bytes })
    }
}

impl Inner {
    async fn push(&self, job: PushJob, progress: Option<mpsc::Sender<Progress>>) -> Outcome<()> {
        let _place =
            self.fetching.acquire().await.map_err(|_| Failed::bug("nothing closes this semaphore"))?;
        let channel = self.fetch(FetchJob::Push(Box::new(job)), self.store.blobs_directory()?, None).await?;
        loop {
            match channel.receive::<FetchEvent>().await?.0 {
                FetchEvent::Progress { digest, done_bytes, total_bytes } => {
                    let update = Progress { phase: Phase::Upload, layer: digest, done_bytes, total_bytes };
                    if let Some(progress) = &progress {
                        // A caller that does not keep up misses some: the next one says it all again.
                        let _ = progress.try_send(update);
                    }
                }
                FetchEvent::Done => return Ok(()),
                FetchEvent::Failed(failure) => return Err(failure.into()),
                _ => return Err(Failed::bug("fetch speaks out of turn")),
            }
        }
    }
}

/// What a registry has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pushed {
    /// Its name there, in full.
    pub reference: String,
    /// Digest of its manifest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Bytes of its layers and its configuration.
    pub size_bytes: u64,
}
