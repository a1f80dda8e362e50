//! Role `fetch`: one process per pull, push or import. It speaks to registries and reads archives, and can write blobs; or it
//! asks for keys for buckets, or opens what is sealed, and can write no file.
//!
//! All that comes from a stranger is parsed here, in a process that has the directory of blobs and nothing else of
//! the file system, and that does not live longer than the job. What it tells serve is typed; what it stores is
//! named by its digest.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;

use crate::confine::{self, ConfineError, Network};
use crate::id::Digest;
use crate::image::blobs::{BlobError, Blobs};
use crate::image::identity::{self, IdentityError};
use crate::image::import::{self, ImportError};
use crate::image::manifest::{self, Document, Link, ManifestError};
use crate::image::open::{self, OpenError};
use crate::image::reference::{InvalidReference, Reference};
use crate::image::registry::{RawManifest, Registry, RegistryError};
use crate::limits::{FRAME_BYTES_MAX, IMAGE_CONFIG_BYTES_MAX, LAYERS_IN_FLIGHT};
use crate::seal::OpenError::Stranger;
use crate::sys::channel::{Channel, ChannelError};
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::fetch::{
    FetchEvent, FetchFailure, FetchFailureKind, FetchJob, FetchRequest, FetchedImage, ImportJob, PullJob,
    PushJob,
};

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The name of the image.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A document of the image.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The archive.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Something sealed or compressed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The service that gives keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Landlock.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// serve asked for something that the image does not have.
    #[error("blob {0} is not one of the image")]
    Foreign(Digest),
    /// serve sent something else than a job.
    #[error("the job: {0}")]
    Job(&'static str),
    /// The socket to serve.
    #[error("socket to the daemon: {0}")]
    Socket(#[from] Errno),
    /// The same, in the middle of the job.
    #[error("socket to the daemon: {0}")]
    Channel(#[from] ChannelError),
    /// The runtime did not start.
    #[error("start the runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

impl FetchError {
    fn kind(&self) -> FetchFailureKind {
        match self {
            Self::Reference(_) => FetchFailureKind::Reference,
            Self::Registry(error) => registry_kind(error),
            Self::Manifest(ManifestError::Platform { .. }) => FetchFailureKind::Platform,
            Self::Manifest(_) => FetchFailureKind::Invalid,
            Self::Import(error) => import_kind(error),
            Self::Open(OpenError::NoIdentity | OpenError::Identity | OpenError::Sealed(Stranger)) => {
                FetchFailureKind::Sealed
            }
            Self::Open(_) => FetchFailureKind::Invalid,
            Self::Blob(error) => blob_kind(error),
            Self::Identity(IdentityError::Refused { .. }) => FetchFailureKind::Denied,
            Self::Identity(_) => FetchFailureKind::Unreachable,
            Self::Confine(_)
            | Self::Foreign(_)
            | Self::Job(_)
            | Self::Socket(_)
            | Self::Channel(_)
            | Self::Runtime(_) => FetchFailureKind::Internal,
        }
    }
}

fn registry_kind(error: &RegistryError) -> FetchFailureKind {
    match error {
        RegistryError::Auth(_) | RegistryError::Denied { .. } => FetchFailureKind::Denied,
        RegistryError::NotFound { .. } => FetchFailureKind::NotFound,
        RegistryError::Address(_) => FetchFailureKind::Reference,
        RegistryError::Blob(error) => blob_kind(error),
        RegistryError::Http(_) | RegistryError::Status { .. } | RegistryError::Redirect { .. } => {
            FetchFailureKind::Unreachable
        }
    }
}

fn import_kind(error: &ImportError) -> FetchFailureKind {
    match error {
        ImportError::Blob(error) => blob_kind(error),
        ImportError::Manifest(ManifestError::Platform { .. }) => FetchFailureKind::Platform,
        ImportError::Reference(_) => FetchFailureKind::Reference,
        ImportError::NotAnImage => FetchFailureKind::NotImage,
        ImportError::NoIdentity => FetchFailureKind::Sealed,
        _ => FetchFailureKind::Invalid,
    }
}

fn blob_kind(error: &BlobError) -> FetchFailureKind {
    match error {
        error if error.is_full() => FetchFailureKind::Full,
        BlobError::Io { .. } => FetchFailureKind::Internal,
        BlobError::Digest { .. } | BlobError::Size { .. } | BlobError::Missing(_) => {
            FetchFailureKind::Invalid
        }
    }
}

/// The role's main function: takes its job from `control`, does it, answers, and is done.
pub fn run(control: OwnedFd) -> ExitCode {
    match start(&control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = FetchFailure { kind: error.kind(), detail: error.to_string() };
            if let Ok(bytes) = wire::encode(&FetchEvent::Failed(failure)) {
                // serve is gone when this fails, and nobody is left to tell.
                let _ = rustix::io::ioctl_fionbio(&control, false);
                let _ = socket::send(&control, &bytes, &[]);
            }
            ExitCode::FAILURE
        }
    }
}

fn start(control: &OwnedFd) -> Result<(), FetchError> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let received = socket::receive(control, &mut buffer)?;
    let job = wire::decode(&buffer[..received.length]).map_err(|_| FetchError::Job("not a valid message"))?;
    let mut fds = received.fds.into_iter();
    let first = fds.next().ok_or(FetchError::Job("comes without the directory of blobs, or the token"))?;
    let archive = fds.next();
    // One thread until Landlock holds: it binds the calling thread and what it starts afterwards.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ours = control.try_clone()?;
    match job {
        FetchJob::Pull(job) => runtime.block_on(async {
            let reference = Reference::parse(&job.reference)?;
            let registry = Registry::new(&reference, &job, "pull")?;
            confine::to_directories(&[first.as_fd()], Network::Connect)?;
            pull(Channel::new(ours)?, registry, reference, &job, Blobs::new(first)).await
        }),
        FetchJob::Import(job) => {
            let archive = archive.ok_or(FetchError::Job("comes without the archive"))?;
            confine::to_directories(&[first.as_fd()], Network::None)?;
            import(control, &job, File::from(archive), &Blobs::new(first))
        }
        FetchJob::Push(job) => runtime.block_on(async {
            let reference = Reference::parse(&job.to.reference)?;
            let registry = Registry::new(&reference, &job.to, "pull,push")?;
            confine::to_directories(&[first.as_fd()], Network::Connect)?;
            push(Channel::new(ours)?, registry, &reference, &job, &Blobs::new(first)).await
        }),
        FetchJob::Open(job) => {
            let to = archive.ok_or(FetchError::Job("comes without the end to write to"))?;
            confine::to_directories(&[], Network::None)?;
            let opened = FetchEvent::Progress { digest: None, done_bytes: 0, total_bytes: 0 };
            open::run(File::from(first), File::from(to), &job, || {
                // A daemon that is gone is noticed at the next event that matters.
                let _ = send(control, &opened);
            })?;
            send(control, &FetchEvent::Done)
        }
        FetchJob::Identify(job) => runtime.block_on(async {
            let service = identity::Sts::new(&job)?;
            confine::to_directories(&[], Network::Connect)?;
            let keys = service.keys(&job, File::from(first)).await?;
            Ok(Channel::new(ours)?.send(&FetchEvent::Keys(keys), &[]).await?)
        }),
    }
}

fn send(control: &OwnedFd, event: &FetchEvent) -> Result<(), FetchError> {
    let bytes = wire::encode(event).map_err(|_| FetchError::Job("the event is too large"))?;
    Ok(socket::send(control, &bytes, &[])?)
}

fn import(control: &OwnedFd, job: &ImportJob, archive: File, blobs: &Blobs) -> Result<(), FetchError> {
    let send = |event: &FetchEvent| send(control, event);
    let mut pace = Pace::default();
    let progress = |done_bytes: u64| {
        if pace.due(done_bytes, 0) {
            // A daemon that is gone is noticed at the next event that matters.
            let _ = send(&FetchEvent::Progress { digest: None, done_bytes, total_bytes: 0 });
        }
    };
    for image in import::read(archive, blobs, job, progress)? {
        send(&FetchEvent::Image(Box::new(image)))?;
    }
    send(&FetchEvent::Done)
}

async fn pull(
    channel: Channel,
    mut registry: Registry,
    reference: Reference,
    job: &PullJob,
    blobs: Blobs,
) -> Result<(), FetchError> {
    registry.settle_scheme().await;
    let image = resolve(&registry, &reference, job, &blobs).await?;
    let layers: HashMap<Digest, u64> =
        image.layers.iter().map(|layer| (layer.digest, layer.size_bytes)).collect();
    channel.send(&FetchEvent::Image(Box::new(image)), &[]).await?;
    let shared = Arc::new((registry, blobs, channel, Semaphore::new(LAYERS_IN_FLIGHT)));
    let mut running: FuturesUnordered<LocalBoxFuture<'static, Result<(), FetchError>>> =
        FuturesUnordered::new();
    loop {
        // Both arms are cancel-safe: a message is received whole or not at all, `next` loses no future.
        tokio::select! {
            request = shared.2.receive::<FetchRequest>() => match request {
                Ok((FetchRequest::Blob { digest }, _)) => {
                    let size = *layers.get(&digest).ok_or(FetchError::Foreign(digest))?;
                    running.push(Box::pin(download(Arc::clone(&shared), Link { digest, size })));
                }
                // Nothing more is wanted.
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            Some(done) = running.next() => done?,
        }
    }
}

async fn push(
    channel: Channel,
    mut registry: Registry,
    reference: &Reference,
    job: &PushJob,
    blobs: &Blobs,
) -> Result<(), FetchError> {
    registry.settle_scheme().await;
    for &(digest, size) in &job.blobs {
        let link = Link { digest, size };
        let (progress, receiver) = progress_of(link);
        let (sent, reported) =
            tokio::join!(registry.push_blob(blobs, link, progress), report(&channel, link, receiver));
        sent?;
        reported?;
    }
    registry.push_manifest(blobs, &reference.tag_or_digest(), job.manifest).await?;
    Ok(channel.send(&FetchEvent::Done, &[]).await?)
}

type Shared = (Registry, Blobs, Channel, Semaphore);

async fn download(shared: Arc<Shared>, link: Link) -> Result<(), FetchError> {
    let (registry, blobs, channel, slots) = &*shared;
    // The semaphore is never closed.
    let _slot = slots.acquire().await;
    let (progress, receiver) = progress_of(link);
    let work = registry.blob(blobs, link, progress);
    let reports = report(channel, link, receiver);
    let (worked, reported) = tokio::join!(work, reports);
    worked?;
    reported?;
    channel.send(&FetchEvent::Blob(link.digest), &[]).await?;
    Ok(())
}

/// What is told how a transfer goes, and where that is heard as often as people look.
fn progress_of(link: Link) -> (impl Fn(u64), tokio::sync::watch::Receiver<u64>) {
    let pace = std::cell::RefCell::new(Pace::default());
    let (sender, receiver) = tokio::sync::watch::channel(0);
    let progress = move |done_bytes| {
        if pace.borrow_mut().due(done_bytes, link.size) {
            sender.send_replace(done_bytes);
        }
    };
    (progress, receiver)
}

/// Tells serve how a transfer goes, without holding it up.
async fn report(
    channel: &Channel,
    link: Link,
    mut receiver: tokio::sync::watch::Receiver<u64>,
) -> Result<(), FetchError> {
    while receiver.changed().await.is_ok() {
        let done_bytes = *receiver.borrow_and_update();
        let event = FetchEvent::Progress { digest: Some(link.digest), done_bytes, total_bytes: link.size };
        channel.send(&event, &[]).await?;
    }
    Ok(())
}

/// From a reference to an image: through an index, and one more, to a manifest and its configuration.
async fn resolve(
    registry: &Registry,
    reference: &Reference,
    job: &PullJob,
    blobs: &Blobs,
) -> Result<FetchedImage, FetchError> {
    let mut raw = registry.manifest(&reference.tag_or_digest()).await?;
    let mut nested = true;
    let manifest = loop {
        match manifest::parse_document(&raw.bytes, raw.media_type.as_deref())? {
            Document::Manifest(manifest) => break manifest,
            Document::Index(index) => {
                let link = manifest::select(&index, &job.platform, nested)?;
                raw = sized(registry.manifest(&link.digest.to_string()).await?, link)?;
                if !nested && matches!(manifest::parse_document(&raw.bytes, None)?, Document::Index(_)) {
                    return Err(ManifestError::Ambiguous("its index leads to an index too often").into());
                }
                nested = false;
            }
        }
    };
    let config = manifest::config_link(&manifest)?;
    registry.blob(blobs, config, |_| {}).await?;
    let bytes = blobs.read(config.digest, IMAGE_CONFIG_BYTES_MAX)?;
    let name = Some(reference.to_string());
    let image = manifest::assemble(name, (raw.digest, &manifest), (config.digest, &bytes), &job.platform)?;
    let digest = blobs.store(&raw.bytes)?;
    blobs.sync(&[digest, config.digest])?;
    Ok(image)
}

fn sized(raw: RawManifest, link: Link) -> Result<RawManifest, BlobError> {
    let found = raw.bytes.len() as u64;
    if found == link.size {
        Ok(raw)
    } else {
        Err(BlobError::Size { digest: link.digest, expected: link.size, found })
    }
}

/// Keeps progress to what a person can see.
#[derive(Debug, Default)]
struct Pace(Option<Instant>);

impl Pace {
    fn due(&mut self, done: u64, total: u64) -> bool {
        let now = Instant::now();
        let due = done == total || self.0.is_none_or(|last| now - last >= Duration::from_millis(100));
        if due {
            self.0 = Some(now);
        }
        due
    }
}
