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

mod commit;
mod failed;
mod opened;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde::Serialize;
use tokio::io::AsyncRead;
use tokio::sync::{OnceCell, RwLock, Semaphore, broadcast, mpsc, watch};
use utoipa::ToSchema;

pub use self::commit::{Draft, Pushed};
use self::failed::{Failed, Outcome};
pub use self::opened::{Arrival, plainly};
use crate::error::{Error, ErrorCode};
use crate::id::Digest;
use crate::image::reference::{self, Reference};
pub use crate::image::store::Image;
use crate::image::store::Store;
use crate::limits::{CA_PEM_BYTES_MAX, FETCHES_MAX, LAYERS_UNPACKING};
use crate::sandbox::Caller;
use crate::sandbox::launcher::Launcher;
use crate::wire::fetch::{Credentials, ImageConfig};
use crate::wire::launch::Quotas;

/// The image that is there without any: the host's own /usr. No other can have this name.
pub const HOST_IMAGE: &str = "host";

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
    /// Bytes leave.
    Upload,
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
    quotas: Quotas,
    state: Mutex<State>,
    /// Read: a job runs. Written: garbage is collected.
    gate: Arc<RwLock<()>>,
    garbage: AtomicBool,
    fetching: Semaphore,
    unpacking: Arc<Semaphore>,
    loaded: OnceCell<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Layers that launch has.
    present: HashSet<Digest>,
    leases: HashMap<Digest, u32>,
    leased_layers: HashMap<Digest, u32>,
    layer_locks: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
    pulls: HashMap<(PullSpec, Maker), Weak<Job>>,
}

/// Who gives an image its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Maker {
    uid: u32,
    operator: bool,
}

impl Maker {
    fn of(caller: &Caller) -> Self {
        Self { uid: caller.uid, operator: caller.operator }
    }

    fn may_replace(self, image: &Image) -> bool {
        self.operator || self.uid == image.owner_uid
    }

    fn must_own(self, image: &Image) -> Outcome<()> {
        if self.may_replace(image) {
            return Ok(());
        }
        let message = format!("the name '{}' belongs to another user", image.reference);
        Err(Failed::new(ErrorCode::PermissionDenied, message)
            .hint("use another name; whoever made this one, or root, may replace and remove it"))
    }
}

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
    /// A catalog over a store, with launch to fetch and unpack, for users who may have so much.
    pub fn new(store: Store, launcher: Launcher, quotas: Quotas) -> Self {
        Self(Arc::new(Inner {
            store,
            launcher,
            quotas,
            state: Mutex::default(),
            gate: Arc::default(),
            garbage: AtomicBool::new(false),
            fetching: Semaphore::new(FETCHES_MAX),
            unpacking: Arc::new(Semaphore::new(LAYERS_UNPACKING as usize)),
            loaded: OnceCell::new(),
        }))
    }

    /// All images by name.
    pub fn list(&self) -> Vec<Image> {
        self.0.store.list()
    }

    /// Bytes of the layers of a user's images, each layer once, compressed as they came.
    pub(super) fn image_bytes(&self, uid: u32) -> u64 {
        self.0.owned_bytes(uid)
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
        let layers = stack(&image);
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
    /// When there is none of that name, it is somebody else's, or a sandbox uses it and it has no other name.
    pub async fn remove(&self, caller: &Caller, name: &str) -> Result<(), Error> {
        {
            let state = self.0.state();
            let image = self.inspect(name)?;
            Maker::of(caller).must_own(&image).map_err(Failed::into_error)?;
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
    /// One code per kind of failure: see [`ErrorCode`]. `PERMISSION_DENIED` when somebody else has another image of this name.
    pub async fn pull(
        &self,
        caller: &Caller,
        spec: PullSpec,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Image, Error> {
        let job = self.job(spec, Maker::of(caller)).map_err(Failed::into_error)?;
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
        caller: &Caller,
        reference: Option<String>,
        archive: impl AsyncRead + Send,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Vec<Image>, Error> {
        let (sender, mut updates) = broadcast::channel(PROGRESS_QUEUED);
        let gate = self.0.gate.read().await;
        let work = self.0.import((reference, Maker::of(caller)), archive, sender);
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
        if images.is_err() {
            self.0.garbage.store(true, Ordering::Release);
        }
        // An archive goes through megabytes of buffers, and none may come for days.
        crate::sys::heap::trim();
        drop(gate);
        self.0.collect_if_idle().await;
        images.map_err(Failed::into_error)
    }

    fn job(&self, spec: PullSpec, by: Maker) -> Outcome<Arc<Job>> {
        let platform = match &spec.platform {
            None => reference::host_platform(),
            Some(platform) => reference::parse_platform(platform)?,
        };
        let name = parse_new(&spec.reference)?;
        if spec.ca_pem.as_ref().is_some_and(|pem| pem.len() > CA_PEM_BYTES_MAX) {
            let message = format!("ca_pem is larger than {CA_PEM_BYTES_MAX} bytes");
            return Err(Failed::new(ErrorCode::InvalidRequest, message)
                .hint("name only the certificates that this registry needs"));
        }
        let spec = (PullSpec { reference: name.to_string(), ..spec }, by);
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
            // What else fails may be tried again, and then finds what was fetched.
            if matches!(&outcome, Err(failed) if failed.code == ErrorCode::ImageInvalid) {
                inner.garbage.store(true, Ordering::Release);
            }
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
        // Only an image that was replaced or removed meanwhile leaves garbage: most sandboxes do not.
        if self.catalog.0.store.contains(self.image) {
            return;
        }
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

/// The name of an image that is to come here.
fn parse_new(name: &str) -> Outcome<Reference> {
    if name == HOST_IMAGE {
        let message = format!("the name `{HOST_IMAGE}` is taken: it means this host's own files");
        return Err(Failed::new(ErrorCode::InvalidReference, message)
            .hint("write it with a registry, a repository or a tag, like `host:latest`"));
    }
    Ok(Reference::parse(name)?)
}

/// The name of an image that is made here. Whoever asks for a digest is to get those bytes and no others: only a pull,
/// which compares them, enters an image under a name with one.
fn parse_own(name: &str) -> Outcome<Reference> {
    let reference = parse_new(name)?;
    if reference.digest().is_none() && Digest::parse(name).is_err() {
        return Ok(reference);
    }
    let message = format!("'{name}' names a digest, which only the image itself decides");
    Err(Failed::new(ErrorCode::InvalidReference, message).hint("name a tag"))
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

/// The layers to mount, the lowest first, each once: overlayfs takes no directory twice (ELOOP), and many images
/// have the empty layer several times. The topmost stays, because it shows its files over all below.
fn stack(image: &Image) -> Vec<Digest> {
    let mut seen = HashSet::new();
    let mut layers: Vec<_> =
        image.layers.iter().rev().map(|layer| layer.diff_id).filter(|layer| seen.insert(*layer)).collect();
    layers.reverse();
    layers
}
