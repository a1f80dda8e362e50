//! The images that sandboxes can be made of: how they come, stay and go.
//!
//! ```text
//! pull ──▶ one job per image ─▶ fetch process: image, then the blobs asked for
//!                      │
//!                      └─ per layer, under its lock: there already? ─ blob ─▶ launch: unpack ─▶ drop the blob
//! ```
//! - Callers who want the same image share one job; it ends early only when the last of them has gone.
//! - A layer has one lock for all jobs: whoever comes second finds it done, or does it when the first failed.
//! - An image is entered in the index when all its layers are in place, so a kill at any moment leaves an index
//!   that is true, and garbage that [`Catalog::collect`] removes.
//! - Garbage is collected when no job runs: what a job has fetched is in no index yet. Images and leases of
//!   sandboxes keep layers; both are looked at under one lock.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::future::{try_join, try_join_all};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use utoipa::ToSchema;

use crate::error::{Error, ErrorCode};
use crate::id::Digest;
use crate::image::import::compression;
use crate::image::reference::{self, InvalidReference, Reference};
pub use crate::image::store::Image;
use crate::image::store::{Store, StoreError};
use crate::limits::{CA_PEM_BYTES_MAX, LAYERS_UNPACKING};
use crate::sandbox::launcher::{Launcher, LauncherError};
use crate::sys::channel::{Channel, ChannelError};
use crate::wire::fetch::{
    Credentials, FetchEvent, FetchFailure, FetchFailureKind, FetchJob, FetchRequest, FetchedImage,
    ImageConfig, ImportJob, Layer, Platform, PullJob,
};
use crate::wire::launch::{Answer, Call, FailureKind};

/// An image to pull.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullSpec {
    /// As the user wrote it.
    pub reference: String,
    /// `os/architecture[/variant]`; the host's without it.
    pub platform: Option<String>,
    /// What to show the registry.
    pub credentials: Credentials,
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// Certificates to trust beside the host's, PEM.
    pub ca_pem: Option<String>,
}

/// How far a pull or import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// To which layer's blob; absent for the image or archive as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub layer: Option<Digest>,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 when that is not known.
    pub total_bytes: u64,
}

/// What is being done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The registry is asked what the reference names.
    Resolve,
    /// Bytes arrive.
    Download,
    /// A layer is written out; bytes are those of its blob.
    Unpack,
}

/// An image that a sandbox is going to be made of.
#[derive(Debug)]
pub struct Resolved {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The image's full name.
    pub reference: String,
    /// Diff-ids of its layers, the lowest first.
    pub layers: Vec<Digest>,
    /// How to run it.
    pub config: ImageConfig,
    /// Keeps the layers while it lives.
    pub lease: Lease,
}

/// A sandbox's hold on an image: while it lives, its layers stay.
#[derive(Debug)]
pub struct Lease {
    catalog: Catalog,
    image: Digest,
    layers: Vec<Digest>,
}

/// The images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    launcher: Launcher,
    state: Mutex<State>,
    /// Read: a job runs. Written: garbage is collected.
    gate: RwLock<()>,
    garbage: AtomicBool,
    unpacking: Semaphore,
    loaded: OnceCell<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Layers that launch has.
    present: HashSet<Digest>,
    leases: HashMap<Digest, u32>,
    leased_layers: HashMap<Digest, u32>,
    layer_locks: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
    pulls: HashMap<PullSpec, Weak<Job>>,
}

/// A failure that every caller of a shared job can be told.
#[derive(Clone, Debug)]
struct Failed {
    code: ErrorCode,
    message: String,
    hint: Option<&'static str>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

type Outcome<T> = Result<T, Failed>;

#[derive(Debug)]
struct Job {
    progress: broadcast::Sender<Progress>,
    outcome: watch::Receiver<Option<Outcome<Image>>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Job {
    fn drop(&mut self) {
        // The last caller is gone, or has its answer: then this does nothing.
        self.task.abort();
    }
}

/// Messages of progress that a slow caller can be behind before it misses some.
const PROGRESS_QUEUED: usize = 64;

impl Catalog {
    /// A catalog over a store, with launch to fetch and unpack.
    pub fn new(store: Store, launcher: Launcher) -> Self {
        Self(Arc::new(Inner {
            store,
            launcher,
            state: Mutex::default(),
            gate: RwLock::new(()),
            garbage: AtomicBool::new(false),
            unpacking: Semaphore::new(LAYERS_UNPACKING),
            loaded: OnceCell::new(),
        }))
    }

    /// All images by name.
    pub fn list(&self) -> Vec<Image> {
        self.0.store.list()
    }

    /// The image of this name or digest.
    ///
    /// # Errors
    /// When the name is no name, or names nothing here.
    pub fn inspect(&self, name: &str) -> Result<Image, Error> {
        if Digest::parse(name).is_err() {
            Reference::parse(name).map_err(|error| Failed::from(error).into_error())?;
        }
        self.0.store.find(name).ok_or_else(|| {
            Error::new(ErrorCode::ImageNotFound, format!("there is no image '{name}' here"))
                .hint("pull or import it first; GET /v1/images lists what is here")
        })
    }

    /// An image for a sandbox, with a hold on its layers.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub fn resolve(&self, name: &str) -> Result<Resolved, Error> {
        // Collecting looks at index and leases under this lock too: an image found here keeps its layers.
        let mut state = self.0.state();
        let image = self.inspect(name)?;
        let layers: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
        state.lease(image.digest, &layers);
        drop(state);
        let lease = Lease { catalog: self.clone(), image: image.digest, layers: layers.clone() };
        Ok(Resolved { digest: image.digest, reference: image.reference, layers, config: image.config, lease })
    }

    /// A hold on the layers of a sandbox that already runs. Take it before [`collect`](Self::collect).
    pub fn adopt(&self, image: Digest, layers: Vec<Digest>) -> Lease {
        self.0.state().lease(image, &layers);
        Lease { catalog: self.clone(), image, layers }
    }

    /// Takes an image out of the index and collects what nothing needs any more.
    ///
    /// # Errors
    /// When there is none of that name, or a sandbox uses it and it has no other name.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        {
            let state = self.0.state();
            let image = self.inspect(name)?;
            let others = self.0.store.list().iter().filter(|other| other.digest == image.digest).count() - 1;
            if others == 0 && state.leases.contains_key(&image.digest) {
                let message = format!("image '{}' is used by a sandbox", image.reference);
                return Err(
                    Error::new(ErrorCode::ImageInUse, message).hint("delete the sandboxes made of it first")
                );
            }
            self.0.store.remove(&image.reference).map_err(|error| Failed::from(error).into_error())?;
        }
        self.0.garbage.store(true, Ordering::Release);
        self.0.collect_if_idle().await;
        Ok(())
    }

    /// Removes layers and blobs that no image and no sandbox uses. For the start; later it happens by itself.
    ///
    /// # Errors
    /// When launch or the store cannot do it.
    pub async fn collect(&self) -> Result<(), Error> {
        let gate = self.0.gate.write().await;
        let result = self.0.collect().await;
        drop(gate);
        result.map_err(Failed::into_error)
    }

    /// Pulls an image from a registry, or joins those who are doing it. Dropping the future leaves; the pull goes
    /// on while anybody waits for it.
    ///
    /// # Errors
    /// One code per kind of failure: see [`ErrorCode`].
    pub async fn pull(
        &self,
        spec: PullSpec,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Image, Error> {
        let job = self.job(spec).map_err(Failed::into_error)?;
        let mut outcome = job.outcome.clone();
        let mut updates = job.progress.subscribe();
        loop {
            // Cancel-safe: both arms wait on channels, and what one misses does not matter.
            tokio::select! {
                biased;
                ended = outcome.wait_for(Option::is_some) => {
                    let outcome = ended.ok().and_then(|outcome| outcome.clone());
                    return outcome.unwrap_or_else(|| Err(Failed::bug("the pull ended without a result")))
                        .map_err(Failed::into_error);
                }
                Ok(update) = next_update(&mut updates) => {
                    if let Some(progress) = &progress {
                        // A caller that does not keep up misses some: the next one says it all again.
                        let _ = progress.try_send(update);
                    }
                }
            }
        }
    }

    /// Reads images from an archive: a tar of an OCI layout or of `docker save`, perhaps compressed.
    ///
    /// # Errors
    /// As [`pull`](Self::pull); `INVALID_REQUEST` when the archive stops arriving.
    pub async fn import(
        &self,
        reference: Option<String>,
        archive: impl AsyncRead + Send,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Vec<Image>, Error> {
        let (sender, mut updates) = broadcast::channel(PROGRESS_QUEUED);
        let gate = self.0.gate.read().await;
        let work = self.0.import(reference, archive, sender);
        tokio::pin!(work);
        let images = loop {
            tokio::select! {
                biased;
                images = &mut work => break images,
                Ok(update) = next_update(&mut updates) => {
                    if let Some(progress) = &progress {
                        let _ = progress.try_send(update);
                    }
                }
            }
        };
        drop(gate);
        self.0.collect_if_idle().await;
        images.map_err(Failed::into_error)
    }

    fn job(&self, spec: PullSpec) -> Outcome<Arc<Job>> {
        let platform = match &spec.platform {
            None => reference::host_platform(),
            Some(platform) => reference::parse_platform(platform)?,
        };
        let name = Reference::parse(&spec.reference)?;
        if spec.ca_pem.as_ref().is_some_and(|pem| pem.len() > CA_PEM_BYTES_MAX) {
            let message = format!("ca_pem is larger than {CA_PEM_BYTES_MAX} bytes");
            return Err(Failed { code: ErrorCode::InvalidRequest, message, hint: None, cause: None });
        }
        let spec = PullSpec { reference: name.to_string(), ..spec };
        let mut state = self.0.state();
        if let Some(job) = state.pulls.get(&spec).and_then(Weak::upgrade)
            && job.outcome.borrow().is_none()
        {
            return Ok(job);
        }
        state.pulls.retain(|_, job| job.strong_count() > 0);
        let (sender, outcome) = watch::channel(None);
        let (progress, _) = broadcast::channel(PROGRESS_QUEUED);
        let (inner, reports, pull) = (Arc::clone(&self.0), progress.clone(), spec.clone());
        let task = tokio::spawn(async move {
            let gate = inner.gate.read().await;
            let outcome = inner.pull(pull, platform, reports).await;
            drop(gate);
            sender.send_replace(Some(outcome));
            inner.collect_if_idle().await;
        });
        let job = Arc::new(Job { progress, outcome, task: task.abort_handle() });
        state.pulls.insert(spec, Arc::downgrade(&job));
        Ok(job)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.catalog.0.state();
        state.release(self.image, &self.layers);
        drop(state);
        // Its image may have been replaced by a newer one of its name meanwhile.
        self.catalog.0.garbage.store(true, Ordering::Release);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inner = Arc::clone(&self.catalog.0);
            runtime.spawn(async move { inner.collect_if_idle().await });
        }
    }
}

impl State {
    fn lease(&mut self, image: Digest, layers: &[Digest]) {
        *self.leases.entry(image).or_default() += 1;
        for layer in layers {
            *self.leased_layers.entry(*layer).or_default() += 1;
        }
    }

    fn release(&mut self, image: Digest, layers: &[Digest]) {
        let release = |counts: &mut HashMap<Digest, u32>, digest| {
            if let Some(count) = counts.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&digest);
                }
            }
        };
        release(&mut self.leases, image);
        for layer in layers {
            release(&mut self.leased_layers, *layer);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Valid after any panic: no operation leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn collect_if_idle(&self) {
        if !self.garbage.load(Ordering::Acquire) {
            return;
        }
        // A job that runs collects when it ends.
        let Ok(_gate) = self.gate.try_write() else { return };
        if self.garbage.swap(false, Ordering::AcqRel)
            && let Err(failed) = self.collect().await
        {
            tracing::warn!(cause = ?failed.cause, "cannot collect garbage: {}", failed.message);
        }
    }

    /// With the gate held for writing.
    async fn collect(&self) -> Outcome<()> {
        self.load().await?;
        let unused: Vec<Digest> = {
            let mut state = self.state();
            let used = self.store.layers();
            let keep = |layer: &Digest| used.contains(layer) || state.leased_layers.contains_key(layer);
            let unused: Vec<_> = state.present.iter().copied().filter(|layer| !keep(layer)).collect();
            for layer in &unused {
                state.present.remove(layer);
            }
            unused
        };
        // A message holds a thousand names easily.
        for some in unused.chunks(1000) {
            let call = Call::RemoveLayers { diff_ids: some.to_vec() };
            let (answer, _) = self.launcher.call(call, &[]).await?;
            if let Answer::Removed(gone) = answer {
                let kept: Vec<_> = some.iter().filter(|layer| !gone.contains(layer)).copied().collect();
                self.state().present.extend(kept);
            }
        }
        self.store.collect_blobs()?;
        Ok(())
    }

    /// Asks launch which layers there are, once, and forgets images that lack some.
    async fn load(&self) -> Outcome<()> {
        let load = || async {
            let (answer, _) = self.launcher.call(Call::Layers, &[]).await?;
            let Answer::Layers(layers) = answer else {
                return Err(Failed::bug("launch answers something else"));
            };
            let present: HashSet<_> = layers.into_iter().collect();
            for image in self.store.list() {
                if let Some(layer) = image.layers.iter().find(|layer| !present.contains(&layer.diff_id)) {
                    tracing::warn!(image = image.reference, layer = %layer.diff_id, "layer is missing: forgetting the image");
                    self.store.remove(&image.reference)?;
                }
            }
            self.state().present = present;
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.map(|_| ())
    }

    async fn fetch(&self, job: FetchJob, archive: Option<OwnedFd>) -> Outcome<Channel> {
        let (answer, fds) = self.launcher.call(Call::Fetch, &[]).await?;
        let (Answer::Connected, Ok([control])) = (answer, <[OwnedFd; 1]>::try_from(fds)) else {
            return Err(Failed::bug("launch answers something else"));
        };
        let channel = Channel::new(control).map_err(|error| Failed::caused("talk to fetch", error))?;
        let directory = self.store.blobs_directory()?;
        let fds: Vec<_> = std::iter::once(&directory).chain(&archive).map(AsFd::as_fd).collect();
        channel.send(&job, &fds).await?;
        Ok(channel)
    }

    async fn pull(
        &self,
        spec: PullSpec,
        platform: Platform,
        progress: broadcast::Sender<Progress>,
    ) -> Outcome<Image> {
        self.load().await?;
        // Nobody listening is no reason not to pull.
        let _ = progress.send(Progress { phase: Phase::Resolve, layer: None, done_bytes: 0, total_bytes: 0 });
        let job = PullJob {
            reference: spec.reference,
            platform,
            credentials: spec.credentials,
            plain_http: spec.plain_http,
            ca_pem: spec.ca_pem,
        };
        let channel = self.fetch(FetchJob::Pull(Box::new(job)), None).await?;
        let image = match channel.receive::<FetchEvent>().await?.0 {
            FetchEvent::Image(image) => *image,
            FetchEvent::Failed(failure) => return Err(failure.into()),
            _ => return Err(Failed::bug("fetch speaks out of turn")),
        };
        let session = Session { channel, waiting: Mutex::default(), progress: progress.clone() };
        let layers =
            try_join_all(image.layers.iter().map(|layer| self.layer(*layer, Some(&session), &progress)));
        // Reading ends only in failure; the layers' end ends it.
        tokio::select! {
            done = layers => done.map(|_| ())?,
            failed = session.read() => return Err(failed),
        }
        self.enter(image)
    }

    async fn import(
        &self,
        reference: Option<String>,
        archive: impl AsyncRead + Send,
        progress: broadcast::Sender<Progress>,
    ) -> Outcome<Vec<Image>> {
        self.load().await?;
        if let Some(reference) = &reference {
            Reference::parse(reference)?;
        }
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Failed::caused("make a pipe", error))?;
        rustix::io::ioctl_fionbio(&writer, true).map_err(|error| Failed::caused("set up a pipe", error))?;
        let writer =
            pipe::Sender::from_owned_fd(writer).map_err(|error| Failed::caused("set up a pipe", error))?;
        let job = ImportJob { reference, platform: reference::host_platform() };
        let channel = self.fetch(FetchJob::Import(job), Some(reader)).await?;
        let (images, ()) = try_join(receive_images(channel, &progress), feed(archive, writer)).await?;
        let mut entered = Vec::new();
        for image in images {
            try_join_all(image.layers.iter().map(|layer| self.layer(*layer, None, &progress))).await?;
            entered.push(self.enter(image)?);
        }
        Ok(entered)
    }

    /// Sees to it that a layer is in the store.
    async fn layer(
        &self,
        layer: Layer,
        session: Option<&Session>,
        progress: &broadcast::Sender<Progress>,
    ) -> Outcome<()> {
        let lock = self.layer_lock(layer.diff_id);
        let _held = lock.lock().await;
        if self.state().present.contains(&layer.diff_id) {
            return Ok(());
        }
        if let Some(session) = session {
            session.blob(layer.digest).await?;
        }
        let unpacked = self.unpack(layer, progress).await;
        if !matches!(&unpacked, Err(failed) if failed.code != ErrorCode::ImageInvalid) {
            // Done with, or not worth keeping. After another failure it can be used again.
            self.store.drop_blob(layer.digest);
        }
        unpacked?;
        self.state().present.insert(layer.diff_id);
        Ok(())
    }

    fn layer_lock(&self, diff_id: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        if let Some(lock) = state.layer_locks.get(&diff_id).and_then(Weak::upgrade) {
            return lock;
        }
        state.layer_locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        state.layer_locks.insert(diff_id, Arc::downgrade(&lock));
        lock
    }

    async fn unpack(&self, layer: Layer, progress: &broadcast::Sender<Progress>) -> Outcome<()> {
        let _slot =
            self.unpacking.acquire().await.map_err(|_| Failed::bug("nothing closes this semaphore"))?;
        let compression = compression(self.store.blobs(), layer.digest)
            .map_err(|error| Failed::caused("look at the layer's blob", error))?;
        let blob = self.store.blobs().open(layer.digest);
        let blob = blob.map_err(|error| Failed::caused("open the layer's blob", error))?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Failed::caused("make a pipe", error))?;
        rustix::io::ioctl_fionbio(&reader, true).map_err(|error| Failed::caused("set up a pipe", error))?;
        let reader =
            pipe::Receiver::from_owned_fd(reader).map_err(|error| Failed::caused("set up a pipe", error))?;
        let fds = [OwnedFd::from(blob), writer];
        let call = self.launcher.call(Call::Unpack { diff_id: layer.diff_id, compression }, &fds);
        tokio::select! {
            // Reading never ends by itself as long as `fds` holds the other end too.
            () = report_unpacking(reader, layer, progress) => Err(Failed::bug("the progress pipe ended")),
            answer = call => match answer?.0 {
                Answer::Unpacked(_) => Ok(()),
                _ => Err(Failed::bug("launch answers something else")),
            },
        }
    }

    fn enter(&self, fetched: FetchedImage) -> Outcome<Image> {
        let image = Image {
            reference: fetched.reference.unwrap_or_else(|| fetched.manifest.to_string()),
            digest: fetched.manifest,
            config_digest: fetched.config_digest,
            platform: fetched.platform,
            created: fetched.created,
            size_bytes: fetched.layers.iter().map(|layer| layer.size_bytes).sum(),
            layers: fetched.layers,
            config: fetched.config,
            pulled_at: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        };
        self.store.put(image.clone())?;
        // It may have replaced another of its name.
        self.garbage.store(true, Ordering::Release);
        Ok(image)
    }
}

/// A running pull: who waits for which blob.
#[derive(Debug)]
struct Session {
    channel: Channel,
    waiting: Mutex<HashMap<Digest, Vec<oneshot::Sender<()>>>>,
    progress: broadcast::Sender<Progress>,
}

impl Session {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Digest, Vec<oneshot::Sender<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn blob(&self, digest: Digest) -> Outcome<()> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting();
            let waiters = waiting.entry(digest).or_default();
            waiters.push(sender);
            waiters.len() == 1
        };
        if first {
            self.channel.send(&FetchRequest::Blob { digest }, &[]).await?;
        }
        receiver.await.map_err(|_| Failed::bug("the pull ended before its layers"))
    }

    /// Passes on what fetch says. Returns why it says nothing more.
    async fn read(&self) -> Failed {
        loop {
            match self.channel.receive::<FetchEvent>().await {
                Ok((FetchEvent::Progress { digest, done_bytes, total_bytes }, _)) => {
                    let update = Progress { phase: Phase::Download, layer: digest, done_bytes, total_bytes };
                    let _ = self.progress.send(update);
                }
                Ok((FetchEvent::Blob(digest), _)) => {
                    for waiter in self.waiting().remove(&digest).into_iter().flatten() {
                        // Its task was cancelled together with this one.
                        let _ = waiter.send(());
                    }
                }
                Ok((FetchEvent::Failed(failure), _)) => return failure.into(),
                Ok(_) => return Failed::bug("fetch speaks out of turn"),
                Err(error) => return error.into(),
            }
        }
    }
}

async fn receive_images(
    channel: Channel,
    progress: &broadcast::Sender<Progress>,
) -> Outcome<Vec<FetchedImage>> {
    let mut images = Vec::new();
    loop {
        match channel.receive::<FetchEvent>().await?.0 {
            FetchEvent::Image(image) => images.push(*image),
            FetchEvent::Progress { digest, done_bytes, total_bytes } => {
                let _ = progress.send(Progress {
                    phase: Phase::Download,
                    layer: digest,
                    done_bytes,
                    total_bytes,
                });
            }
            FetchEvent::Done => return Ok(images),
            FetchEvent::Failed(failure) => return Err(failure.into()),
            FetchEvent::Blob(_) => return Err(Failed::bug("fetch speaks out of turn")),
        }
    }
}

/// Pours an archive into the pipe to fetch.
async fn feed(archive: impl AsyncRead + Send, mut writer: pipe::Sender) -> Outcome<()> {
    tokio::pin!(archive);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = archive.read(&mut buffer).await.map_err(|error| Failed {
            code: ErrorCode::InvalidRequest,
            message: "the archive stopped arriving".to_owned(),
            hint: None,
            cause: Some(Arc::new(error)),
        })?;
        if length == 0 {
            return Ok(());
        }
        if tokio::io::AsyncWriteExt::write_all(&mut writer, &buffer[..length]).await.is_err() {
            // fetch reads no more: it has said why, or is about to.
            return Ok(());
        }
    }
}

async fn report_unpacking(mut reader: pipe::Receiver, layer: Layer, progress: &broadcast::Sender<Progress>) {
    // Written whole, 8 bytes at a time (pipe(7): up to PIPE_BUF).
    while let Ok(done_bytes) = reader.read_u64_le().await {
        let update = Progress {
            phase: Phase::Unpack,
            layer: Some(layer.digest),
            done_bytes: done_bytes.min(layer.size_bytes),
            total_bytes: layer.size_bytes,
        };
        let _ = progress.send(update);
    }
}

/// The next update; those missed are skipped.
async fn next_update(
    updates: &mut broadcast::Receiver<Progress>,
) -> Result<Progress, broadcast::error::RecvError> {
    loop {
        match updates.recv().await {
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            other => return other,
        }
    }
}

impl Failed {
    fn bug(message: &'static str) -> Self {
        Self { code: ErrorCode::Internal, message: message.to_owned(), hint: None, cause: None }
    }

    fn caused(operation: &str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        let message = format!("cannot {operation}");
        Self { code: ErrorCode::Internal, message, hint: None, cause: Some(Arc::new(error)) }
    }

    fn into_error(self) -> Error {
        let mut error = Error::new(self.code, self.message);
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        match self.cause {
            Some(cause) => error.source(cause as Arc<dyn std::error::Error + Send + Sync>),
            None => error,
        }
    }
}

impl From<FetchFailure> for Failed {
    fn from(failure: FetchFailure) -> Self {
        let (code, hint) = match failure.kind {
            FetchFailureKind::Reference => (ErrorCode::InvalidReference, None),
            FetchFailureKind::Denied => (
                ErrorCode::RegistryDenied,
                Some("give username and password, or a token, that may pull this image"),
            ),
            FetchFailureKind::NotFound => (
                ErrorCode::RegistryNotFound,
                Some("check the repository and the tag; private ones may need credentials"),
            ),
            FetchFailureKind::Unreachable => (
                ErrorCode::RegistryUnreachable,
                Some("check the registry's name, the network and the certificates"),
            ),
            FetchFailureKind::Invalid => (ErrorCode::ImageInvalid, None),
            FetchFailureKind::Platform => {
                (ErrorCode::PlatformNotFound, Some("ask for a platform that the image has"))
            }
            FetchFailureKind::Full => {
                (ErrorCode::CapacityExhausted, Some("the disk under the state directory is full"))
            }
            FetchFailureKind::Internal => (ErrorCode::Internal, None),
        };
        Self { code, message: failure.detail, hint, cause: None }
    }
}

impl From<LauncherError> for Failed {
    fn from(error: LauncherError) -> Self {
        let LauncherError::Refused(failure) = error else {
            return Self {
                code: ErrorCode::ShuttingDown,
                message: error.to_string(),
                hint: None,
                cause: None,
            };
        };
        let code = match failure.kind {
            FailureKind::LayerInvalid => ErrorCode::ImageInvalid,
            FailureKind::Capacity => ErrorCode::CapacityExhausted,
            FailureKind::HostUnsupported => ErrorCode::HostUnsupported,
            _ => ErrorCode::Internal,
        };
        let message = if code == ErrorCode::Internal { failure.what.clone() } else { failure.to_string() };
        Self { code, message, hint: None, cause: Some(Arc::new(failure)) }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::caused("use the image store", error)
    }
}

impl From<ChannelError> for Failed {
    fn from(error: ChannelError) -> Self {
        Self::caused("talk to the fetch process", error)
    }
}

impl From<InvalidReference> for Failed {
    fn from(error: InvalidReference) -> Self {
        let hint = Some("a reference is [registry/]repository[:tag][@sha256:…], a platform os/architecture");
        Self { code: ErrorCode::InvalidReference, message: error.to_string(), hint, cause: None }
    }
}
