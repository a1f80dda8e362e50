//! All files of a sandbox, on their way out: an image here, a registry, a stream, an object in a bucket.
//!
//! ```text
//! sandbox ─ saved files ─▶ a twin that nobody sees ─ its worker: tar ─┬▶ one layer ─┬▶ the store           commit
//!                                                                     │             ├▶ a registry          push
//!                                                                     │             └▶ tar of a layout ─┐
//!                                                                     └▶ zstd ──────────────────────────┴▶ age ─▶ a stream
//! ```
//! Of a bucket serve knows nothing: another sandbox that nobody sees, of this host's programs, has it mounted as any sandbox
//! has, and an object is a file in it. So the keys stay where they are, and only that server can be reached.
//!
//! Whoever asks and goes away ends it; both hidden sandboxes go with it, or when serve begins again.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::super::catalog::{Catalog, Image, Progress, PullSpec, Pushed};
use super::super::compress::{Chunks, compressed};
use super::super::files::{Files, WriteSpec};
use super::super::mounts::MountRequest;
use super::super::{Caller, Sandbox, SandboxSpec, Sandboxes};
use super::must_keep_files;
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::journal::feed::Kind;
use crate::limits::UNMOUNT_MS_MAX;
use crate::seal::{Recipient, Sealer};
use crate::wire::fetch::ImageConfig;
use crate::wire::launch::Root;
use crate::wire::worker::{Condition, Kind as FileKind, Selection, Stat};

/// Chunks on their way out.
const CHUNKS: usize = 16;

/// Where a bucket is in the sandbox that carries to it.
pub const BUCKET_PATH: &str = "/bucket";

/// What the files become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A tar of an OCI layout: files, variables, user and working directory.
    #[default]
    Oci,
    /// A tar of the files alone, compressed with zstd.
    Tar,
}

/// How files leave.
#[derive(Clone, Debug, Default)]
pub struct ExportSpec {
    /// As what.
    pub format: ExportFormat,
    /// The name that the image has in its layout.
    pub reference: Option<String>,
    /// Who alone can read it.
    pub recipient: Option<Recipient>,
}

/// An object that was written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StoredObject {
    /// Its key, below the prefix.
    pub key: String,
    /// Its bytes.
    pub size_bytes: u64,
}

type ByteStream = ReceiverStream<Result<Bytes, Error>>;

/// A sandbox and the twin that has its files.
struct Pair {
    sandbox: Arc<Sandbox>,
    twin: Arc<Sandbox>,
}

impl Sandboxes {
    /// Does something with a sandbox's files as they are now. It ends early when the caller goes away.
    async fn with_files<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        caller: &Caller,
        id: &SandboxId,
        work: impl FnOnce(Self, Pair) -> F + Send + 'static,
    ) -> Result<T, Error> {
        let (sandbox, claim) = self.take(caller, id).await?;
        must_keep_files(&sandbox)?;
        must_have_image(&sandbox.facts.plan.root)?;
        let (this, of) = (self.clone(), Arc::clone(&sandbox));
        let twin = async move { this.twin(&of, claim).await };
        let this = self.clone();
        self.with_unseen(twin, move |twin| work(this, Pair { sandbox, twin })).await
    }

    /// Does something with a sandbox that nobody sees, which ends with that. It ends early when the caller goes away.
    async fn with_unseen<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        make: impl Future<Output = Result<Arc<Sandbox>, Error>> + Send + 'static,
        work: impl FnOnce(Arc<Sandbox>) -> F + Send + 'static,
    ) -> Result<T, Error> {
        let (this, gone) = (self.clone(), CancellationToken::new());
        let _guard = gone.clone().drop_guard();
        let task = tokio::spawn(async move {
            let unseen = make.await?;
            let worked = tokio::select! {
                worked = work(Arc::clone(&unseen)) => worked,
                () = gone.cancelled() => Err(Error::new(ErrorCode::InvalidRequest, "the caller has gone")),
            };
            // What is mounted there has others' files.
            unseen.files.cleared().await;
            // What cannot be destroyed now is when serve begins again.
            let _ = this.destroy(&Caller::daemon(), &unseen.facts.id).await;
            worked
        });
        task.await.map_err(|error| Error::internal("moving the sandbox's files failed", error))?
    }

    /// Makes an image of all files of a sandbox, under this name.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot); `SNAPSHOT_UNSUPPORTED` for a sandbox of `host`; what an import can fail by.
    pub async fn commit(&self, caller: &Caller, id: &SandboxId, reference: String) -> Result<Image, Error> {
        let by = caller.clone();
        let work = async move |this: Self, pair: Pair| {
            let (config, tar) = (this.config_of(&pair.sandbox), pair.tar().await?);
            this.0.catalog.commit(&by, Some(&reference), config, tar).await
        };
        self.with_files(caller, id, work).await
    }

    /// Sends an image of all files of a sandbox to a registry. Nothing of it stays here.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and what a pull can fail by.
    pub async fn push(
        &self,
        caller: &Caller,
        id: &SandboxId,
        to: PullSpec,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Pushed, Error> {
        // Before anybody makes a layer for it.
        Catalog::pushable(&to.reference)?;
        let work = async move |this: Self, pair: Pair| {
            let (config, tar) = (this.config_of(&pair.sandbox), pair.tar().await?);
            let draft = this.0.catalog.draft(None, config, tar).await?;
            let pushed = this.0.catalog.push(&draft, to, progress).await?;
            pair.sandbox
                .voice
                .say(Kind::Exported, json!({ "to": pushed.reference, "digest": pushed.digest }));
            Ok(pushed)
        };
        self.with_files(caller, id, work).await
    }

    /// All files of a sandbox as a stream.
    ///
    /// # Errors
    /// As [`commit`](Self::commit). Whatever is known before the first byte comes as the first item.
    pub fn export(&self, caller: &Caller, id: &SandboxId, spec: ExportSpec) -> ByteStream {
        let (this, caller, id) = (self.clone(), caller.clone(), id.clone());
        streamed(async move |out| {
            let work = async move |this: Self, pair: Pair| this.leave(pair, spec, out).await;
            this.with_files(&caller, &id, work).await
        })
    }

    /// All files of a snapshot as a stream, as those of a sandbox that is made of it.
    ///
    /// # Errors
    /// As [`find_snapshot`](Self::find_snapshot); `SNAPSHOT_MISMATCH` for one of a directory; `SNAPSHOT_UNSUPPORTED` for
    /// one of a sandbox of `host`.
    pub fn export_snapshot(
        &self,
        caller: &Caller,
        id: &SnapshotId,
        spec: ExportSpec,
    ) -> Result<ByteStream, Error> {
        must_have_image(&self.whole(caller, id)?.facts.root)?;
        let (this, id) = (self.clone(), id.clone());
        Ok(streamed(async move |out| {
            let (maker, worker) = (this.clone(), this.clone());
            let made = SandboxSpec { snapshot: Some(id), ..SandboxSpec::of_host(Vec::new()) };
            let make = async move { maker.create_unseen(made).await };
            let work = async move |twin: Arc<Sandbox>| {
                let pair = Pair { sandbox: Arc::clone(&twin), twin };
                worker.leave(pair, spec, out).await
            };
            this.with_unseen(make, work).await
        }))
    }

    async fn leave(&self, pair: Pair, spec: ExportSpec, out: Chunks) -> Result<(), Error> {
        let (tar, sandbox) = (pair.tar().await?, Arc::clone(&pair.sandbox));
        let out = blocking(move || match &spec.recipient {
            None => Ok(Out::Plain(out)),
            Some(recipient) => Sealer::new(out, recipient).map(Box::new).map(Out::Sealed),
        });
        let out = out.await?;
        let out = match spec.format {
            ExportFormat::Tar => compressed(tar, out, |_| ()).await?,
            ExportFormat::Oci => {
                let config = self.config_of(&pair.sandbox);
                let draft = self.0.catalog.draft(spec.reference.as_deref(), config, tar).await?;
                let mut out = out;
                blocking(move || draft.write(&mut out).map(|()| out)).await?
            }
        };
        blocking(move || out.finish()).await?;
        sandbox.voice.say(Kind::Exported, json!({ "format": spec.format }));
        Ok(())
    }

    /// How to run what a sandbox has become.
    fn config_of(&self, sandbox: &Sandbox) -> ImageConfig {
        let digest = sandbox.facts.image.digest.as_deref();
        // Replaced meanwhile, it has nothing to say.
        let of = digest.and_then(|digest| self.0.catalog.inspect(digest).ok()).map(|image| image.config);
        let ImageConfig { entrypoint, cmd, .. } = of.unwrap_or_default();
        let env = sandbox.environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (user, working_dir) = (sandbox.facts.user.clone(), sandbox.facts.cwd.clone());
        ImageConfig { entrypoint, cmd, env, user, working_dir }
    }

    /// Writes all files of a sandbox to an object in a bucket. When this returns the bucket has it.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and what a mount can fail by.
    pub async fn store(
        &self,
        caller: &Caller,
        id: &SandboxId,
        spec: ExportSpec,
        (bucket, key): (MountRequest, String),
    ) -> Result<StoredObject, Error> {
        // Whoever may not, or asks for what is not there, mounts nothing.
        self.get(caller, id)?;
        let (this, caller, id) = (self.clone(), caller.clone(), id.clone());
        self.with_bucket(bucket, async move |carrier: Arc<Sandbox>| {
            let path = format!("{BUCKET_PATH}/{key}").into_bytes();
            let place = WriteSpec { path, mode: None, owner: None, parents: true, condition: Condition::Any };
            let mut broken = Ok(());
            let archive = this.export(&caller, &id, spec).peekable();
            let mut archive = std::pin::pin!(archive);
            // What cannot be exported begins no object.
            if let Some(Err(_)) = archive.as_mut().peek().await {
                archive.next().await.transpose()?;
            }
            let archive = archive.map_err(|error| {
                broken = Err(error);
                std::io::Error::from(std::io::ErrorKind::UnexpectedEof)
            });
            let files = carrier.files(Some("0"))?;
            // Before anything is read that could not be written there.
            object_at(&files, &key).await?;
            let parents = files.parents(BUCKET_PATH, &key).await?;
            let written = files.write(place, archive).await;
            // That the body was cut short is not why.
            broken?;
            let written = written?;
            parents.keep();
            // Where a link was put on the way meanwhile it is elsewhere.
            if object_at(&files, &key).await?.is_none_or(|there| there.kind != FileKind::File) {
                return Err(Error::new(
                    ErrorCode::BucketUnreachable,
                    "the object is not where it was written",
                )
                .hint("see who else writes to the bucket, and store it again"));
            }
            // A write that fails in the bucket is told to whoever wrote; what is still on its way is waited for.
            let within = Duration::from_millis(UNMOUNT_MS_MAX);
            let left = this.unmount(&Caller::daemon(), &carrier.facts.id, "m1", within).await?;
            match left.lost_count {
                0 => Ok(StoredObject { key, size_bytes: written.tag.size }),
                _ => Err(Error::new(ErrorCode::BucketUnreachable, "the object did not reach the bucket")
                    .hint("see whether its server can be reached, and store it again")),
            }
        })
        .await
    }

    /// Does something with an object of a bucket, as a stream.
    ///
    /// # Errors
    /// What a mount can fail by; `FILE_NOT_FOUND` when there is no such object.
    pub async fn with_object<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        (bucket, key): (MountRequest, String),
        work: impl FnOnce(ByteStream) -> F + Send + 'static,
    ) -> Result<T, Error> {
        self.with_bucket(bucket, async move |carrier: Arc<Sandbox>| {
            let files = carrier.files(Some("0"))?;
            let path = format!("{BUCKET_PATH}/{key}").into_bytes();
            match object_at(&files, &key).await?.map(|there| there.kind) {
                Some(FileKind::File) => {}
                Some(FileKind::Directory) => return Err(of_object(ErrorCode::IsDirectory, &key)),
                Some(_) => return Err(of_object(ErrorCode::FileNotRegular, &key)),
                None => return Err(of_object(ErrorCode::FileNotFound, &key)),
            }
            let (sender, receiver) = mpsc::channel(CHUNKS);
            let reading = async {
                let stream = files.stream(path).await?;
                pour(stream, sender).await
            };
            let (read, worked) = tokio::join!(reading, work(ReceiverStream::new(receiver)));
            read.and(worked)
        })
        .await
    }

    /// Does something in a sandbox that nobody sees, which has this mounted. It ends early when the caller goes away.
    async fn with_bucket<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        bucket: MountRequest,
        work: impl FnOnce(Arc<Sandbox>) -> F + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        let carrier = async move { this.create_unseen(SandboxSpec::of_host(vec![bucket])).await };
        self.with_unseen(carrier, work).await
    }
}

impl Pair {
    async fn tar(&self) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        // What is mounted there is each sandbox's own, and not all of it may be read.
        let exclude = ["dev/*", "proc/*", "sys/*"].map(str::to_owned).to_vec();
        self.twin
            .files(Some("0"))?
            .pack(b"/".to_vec(), Selection { exclude, layer: true, ..Selection::default() })
            .await
    }
}

/// Where compressed bytes go.
enum Out {
    Plain(Chunks),
    Sealed(Box<Sealer<Chunks>>),
}

impl Out {
    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Plain(mut chunks) => chunks.flush(),
            Self::Sealed(sealer) => sealer.finish()?.flush(),
        }
    }
}

impl std::io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(chunks) => chunks.write(bytes),
            Self::Sealed(sealer) => sealer.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(chunks) => chunks.flush(),
            Self::Sealed(sealer) => sealer.flush(),
        }
    }
}

/// Refuses what is not of an image.
fn must_have_image(root: &Root) -> Result<(), Error> {
    match root {
        Root::Layers(_) => Ok(()),
        Root::Host => Err(Error::new(
            ErrorCode::SnapshotUnsupported,
            "a sandbox of `host` makes no image: its programs are this host's",
        )
        .hint("make the sandbox of an image, or keep a snapshot of a directory")),
    }
}

/// What work writes, as a stream. Whatever it fails by is the last item. It ends early when nobody reads any more.
fn streamed<F>(work: impl FnOnce(Chunks) -> F) -> ByteStream
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let working = work(Chunks::new(sender.clone()));
    tokio::spawn(async move {
        tokio::select! {
            worked = working => if let Err(error) = worked {
                // Absent when it has gone.
                let _ = sender.send(Err(error)).await;
            },
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Error::internal("writing the archive failed", error))?;
    done.map_err(|error| Error::writing("cannot write the archive", error))
}

/// What is at a key, if anything. In a directory of this host others may put symbolic links; what one leads to is not in
/// the bucket, and what was written there would be gone with whoever carries it.
async fn object_at(files: &Files, key: &str) -> Result<Option<Stat>, Error> {
    let mut found = None;
    for end in key.match_indices('/').map(|(end, _)| end).chain([key.len()]) {
        let part = &key[..end];
        let here = files.stat(format!("{BUCKET_PATH}/{part}").into_bytes(), false, false).await;
        found = match here {
            Ok(stat) if stat.kind == FileKind::Symlink => {
                let message =
                    format!("{part:?} in the bucket is a symbolic link, and those are not followed");
                return Err(Error::new(ErrorCode::PathInvalid, message)
                    .hint("choose a key that leads through none, or remove the link")
                    .context(json!({ "field": "object.key" })));
            }
            Ok(stat) => Some(stat),
            Err(error) if error.code == ErrorCode::FileNotFound => return Ok(None),
            Err(error) if error.code == ErrorCode::NotDirectory => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(found)
}

/// Why what is at a key is no object to read.
fn of_object(code: ErrorCode, key: &str) -> Error {
    let (code, message, hint) = match code {
        ErrorCode::IsDirectory => (
            ErrorCode::FileNotFound,
            format!("{key:?} is no object, and keys begin with it"),
            "name one of these objects by its whole key",
        ),
        ErrorCode::FileNotRegular => (
            code,
            format!("{key:?} is no object: it is a pipe, a socket or a device"),
            "name a regular file of that directory",
        ),
        _ => (
            ErrorCode::FileNotFound,
            format!("the bucket has no object {key:?}"),
            "check the bucket, its prefix and the key",
        ),
    };
    Error::new(code, message).hint(hint).context(json!({ "field": "object.key" }))
}

/// Hands on what comes. Whoever takes it hears of a failure too, so that nobody believes to have all.
async fn pour(
    from: impl Stream<Item = Result<Bytes, Error>> + Send,
    to: mpsc::Sender<Result<Bytes, Error>>,
) -> Result<(), Error> {
    let mut from = std::pin::pin!(from);
    while let Some(chunk) = from.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                // Absent when it has gone.
                let _ = to.send(Err(Error::new(error.code, "the object broke off"))).await;
                return Err(error);
            }
        };
        // Whoever reads has enough, or has gone.
        if to.send(Ok(chunk)).await.is_err() {
            break;
        }
    }
    Ok(())
}
