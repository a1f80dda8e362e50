//! The work behind a pull or an import: a fetch process for the bytes, launch for the layers, the index at last.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, oneshot};

use super::failed::{Failed, Outcome};
use super::{Image, Inner, Maker, Phase, Progress, PullSpec, State};
use crate::error::ErrorCode;
use crate::id::Digest;
use crate::image::import::compression;
use crate::image::reference;
use crate::limits::LAYERS_UNPACKING;
use crate::sandbox::quota::exceeded;
use crate::sys::channel::Channel;
use crate::wire::fetch::{
    FetchEvent, FetchJob, FetchRequest, FetchedImage, ImportJob, Layer, Platform, PullJob,
};
use crate::wire::launch::{Answer, Call};
use crate::wire::unpack::UnpackJob;

/// Where a layer comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A registry, which has its blob.
    Registry(&'a Session),
    /// An archive of images.
    Archive,
    /// Files that were made one layer of here.
    Files,
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Valid after any panic: no operation leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn collect_if_idle(&self) {
        // Again when it is over: whoever made garbage meanwhile found the gate closed and left it to us.
        while self.garbage.load(Ordering::Acquire) {
            // A job that runs collects when it ends.
            let Ok(_gate) = self.gate.try_write() else { return };
            self.garbage.store(false, Ordering::Release);
            if let Err(failed) = self.collect().await {
                tracing::warn!(cause = ?failed.cause, "cannot collect garbage: {}", failed.message);
            }
        }
    }

    /// With the gate held for writing.
    pub(super) async fn collect(&self) -> Outcome<()> {
        self.load().await?;
        // Asked again: a layer may have been finished for a caller who had gone.
        let layers = self.launch_layers().await?;
        let unused: Vec<Digest> = {
            let mut state = self.state();
            state.present = layers;
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
    pub(super) async fn load(&self) -> Outcome<()> {
        let load = || async {
            let present = self.launch_layers().await?;
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

    async fn launch_layers(&self) -> Outcome<HashSet<Digest>> {
        let mut layers = HashSet::new();
        let mut after = None;
        loop {
            let (answer, _) = self.launcher.call(Call::Layers { after }, &[]).await?;
            let Answer::Layers(more) = answer else {
                return Err(Failed::bug("launch answers something else"));
            };
            after = more.last().copied();
            if after.is_none() {
                return Ok(layers);
            }
            layers.extend(more);
        }
    }

    /// A fetch process with a job, and what it works on.
    pub(super) async fn fetch(&self, job: FetchJob, one: OwnedFd, two: Option<OwnedFd>) -> Outcome<Channel> {
        let (answer, fds) = self.launcher.call(Call::Fetch, &[]).await?;
        let (Answer::Connected, Ok([control])) = (answer, <[OwnedFd; 1]>::try_from(fds)) else {
            return Err(Failed::bug("launch answers something else"));
        };
        let channel = Channel::new(control).map_err(|error| Failed::caused("talk to fetch", error))?;
        let fds: Vec<_> = std::iter::once(&one).chain(&two).map(AsFd::as_fd).collect();
        channel.send(&job, &fds).await?;
        Ok(channel)
    }

    pub(super) fn pull_job(spec: PullSpec, platform: Platform) -> PullJob {
        PullJob {
            reference: spec.reference,
            platform,
            credentials: spec.credentials,
            plain_http: spec.plain_http,
            ca_pem: spec.ca_pem,
        }
    }

    pub(super) async fn pull(
        &self,
        (spec, by): (PullSpec, Maker),
        platform: Platform,
        progress: broadcast::Sender<Progress>,
    ) -> Outcome<Image> {
        self.load().await?;
        // Nobody listening is no reason not to pull.
        let _ = progress.send(Progress { phase: Phase::Resolve, layer: None, done_bytes: 0, total_bytes: 0 });
        let job = Self::pull_job(spec, platform);
        let _place =
            self.fetching.acquire().await.map_err(|_| Failed::bug("nothing closes this semaphore"))?;
        let channel = self.fetch(FetchJob::Pull(Box::new(job)), self.store.blobs_directory()?, None).await?;
        let image = match channel.receive::<FetchEvent>().await?.0 {
            FetchEvent::Image(image) => *image,
            FetchEvent::Failed(failure) => return Err(failure.into()),
            _ => return Err(Failed::bug("fetch speaks out of turn")),
        };
        let session = Session { channel, waiting: Mutex::default(), progress: progress.clone() };
        // Nothing has been downloaded yet.
        self.must_have_room(by, image.reference.as_deref(), &image.layers)?;
        let layers = try_join_all(
            image.layers.iter().map(|layer| self.layer(*layer, Origin::Registry(&session), &progress)),
        );
        // Reading ends only in failure; the layers' end ends it.
        tokio::select! {
            done = layers => done.map(|_| ())?,
            failed = session.read() => return Err(failed),
        }
        self.enter(image, by)
    }

    pub(super) async fn import(
        self: &Arc<Self>,
        (reference, by): (Option<String>, Maker),
        archive: impl AsyncRead + Send,
        progress: broadcast::Sender<Progress>,
    ) -> Outcome<Vec<Image>> {
        self.load().await?;
        if let Some(reference) = &reference {
            super::parse_own(reference)?;
        }
        self.must_have_any_room(by)?;
        let (reader, writer) = pipe_to_fetch()?;
        let _place =
            self.fetching.acquire().await.map_err(|_| Failed::bug("nothing closes this semaphore"))?;
        let job = ImportJob { reference, platform: reference::host_platform() };
        let channel = self.fetch(FetchJob::Import(job), self.store.blobs_directory()?, Some(reader)).await?;
        let mut unfinished = Unfinished { inner: Arc::clone(self), channel: Some(channel) };
        let Some(channel) = &unfinished.channel else { return Err(Failed::bug("the channel is gone")) };
        let (images, ()) = try_join(receive_images(channel, &progress), feed(archive, writer)).await?;
        let mut entered = Vec::new();
        for image in images {
            self.must_have_room(by, image.reference.as_deref(), &image.layers)?;
            try_join_all(image.layers.iter().map(|layer| self.layer(*layer, Origin::Archive, &progress)))
                .await?;
            entered.push(self.enter(image, by)?);
        }
        unfinished.channel = None;
        Ok(entered)
    }

    /// Sees to it that a layer is in the store.
    pub(super) async fn layer(
        &self,
        layer: Layer,
        origin: Origin<'_>,
        progress: &broadcast::Sender<Progress>,
    ) -> Outcome<()> {
        let lock = self.layer_lock(layer.diff_id);
        let _held = lock.lock().await;
        if self.state().present.contains(&layer.diff_id) {
            return Ok(());
        }
        if let Origin::Registry(session) = origin {
            session.blob(layer.digest).await?;
        }
        let alone = matches!(origin, Origin::Files);
        let unpacked = self.unpack(layer, alone, progress).await;
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

    async fn unpack(&self, layer: Layer, alone: bool, progress: &broadcast::Sender<Progress>) -> Outcome<()> {
        let slot = Arc::clone(&self.unpacking).acquire_owned().await;
        let slot = slot.map_err(|_| Failed::bug("nothing closes this semaphore"))?;
        let compression = compression(self.store.blobs(), layer.digest)
            .map_err(|error| Failed::caused("look at the layer's blob", error))?;
        let blob = self.store.blobs().open(layer.digest);
        let blob = blob.map_err(|error| Failed::caused("open the layer's blob", error))?;
        let (reader, writer) = pipe_from()?;
        let fds = [OwnedFd::from(blob), writer];
        let launcher = self.launcher.clone();
        // Launch goes on when nobody waits any more; the place is taken for as long as it does.
        let mut call = tokio::spawn(async move {
            let job = UnpackJob { diff_id: layer.diff_id, compression, alone };
            let answer = launcher.call(Call::Unpack(job), &fds).await;
            drop(slot);
            answer
        });
        let answer = tokio::select! {
            answer = &mut call => answer,
            // The pipe ends with the call, for which its other end is held.
            () = report_unpacking(reader, layer, progress) => call.await,
        };
        match answer.map_err(|error| Failed::caused("unpack a layer", error))??.0 {
            Answer::Unpacked(_) => Ok(()),
            _ => Err(Failed::bug("launch answers something else")),
        }
    }

    /// Bytes of the layers of a user's images.
    pub(super) fn owned_bytes(&self, uid: u32) -> u64 {
        distinct_bytes(self.store.list().iter().filter(|image| image.owner_uid == uid).flat_map(layers_of))
    }

    /// Refuses an image that is too much for whoever its name will belong to.
    pub(super) fn must_have_room(&self, by: Maker, name: Option<&str>, layers: &[Layer]) -> Outcome<()> {
        let there = name.and_then(|name| self.store.named(name));
        let owner = there.as_ref().map_or(by.uid, |there| there.owner_uid);
        let Some(allowed) = self.quotas.of(owner).image_bytes else { return Ok(()) };
        let images = self.store.list();
        let owned = || images.iter().filter(|image| image.owner_uid == owner);
        let others = || owned().filter(|image| Some(image.reference.as_str()) != name).flat_map(layers_of);
        let wanted = distinct_bytes(others().chain(layers));
        // Less than before is never too much.
        if wanted <= allowed || wanted <= distinct_bytes(owned().flat_map(layers_of)) {
            return Ok(());
        }
        let rest = distinct_bytes(others());
        Err(exceeded("image_bytes", rest, wanted.saturating_sub(rest), allowed).into())
    }

    /// Refuses whoever has no room for an image of any size, before it is brought.
    pub(super) fn must_have_any_room(&self, by: Maker) -> Outcome<()> {
        let Some(allowed) = self.quotas.of(by.uid).image_bytes else { return Ok(()) };
        let used = self.owned_bytes(by.uid);
        if used < allowed { Ok(()) } else { Err(exceeded("image_bytes", used, 1, allowed).into()) }
    }

    pub(super) fn enter(&self, fetched: FetchedImage, by: Maker) -> Outcome<Image> {
        let reference = fetched.reference.unwrap_or_else(|| fetched.manifest.to_string());
        // Whoever else enters one waits: the name is somebody's from here on.
        let state = self.state();
        let owner_uid = match self.store.named(&reference) {
            Some(there) if !by.may_replace(&there) && there.digest == fetched.manifest => return Ok(there),
            Some(there) => {
                by.must_own(&there)?;
                there.owner_uid
            }
            None => by.uid,
        };
        // Under the lock of whoever else enters one: two never get what only one may have.
        self.must_have_room(by, Some(&reference), &fetched.layers)?;
        let image = Image {
            reference,
            digest: fetched.manifest,
            config_digest: fetched.config_digest,
            platform: fetched.platform,
            created: fetched.created,
            size_bytes: fetched.layers.iter().map(|layer| layer.size_bytes).sum(),
            layers: fetched.layers,
            config: fetched.config,
            pulled_at: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            owner_uid,
        };
        self.store.put(image.clone())?;
        drop(state);
        // It may have replaced another of its name.
        self.garbage.store(true, Ordering::Release);
        Ok(image)
    }
}

fn layers_of(image: &Image) -> &[Layer] {
    &image.layers
}

/// Bytes of layers, each counted once.
fn distinct_bytes<'a>(layers: impl Iterator<Item = &'a Layer>) -> u64 {
    layers.map(|layer| (layer.diff_id, layer.size_bytes)).collect::<HashMap<Digest, u64>>().values().sum()
}

/// How long the processes of an import that failed or was given up may take to end.
const UNFINISHED: Duration = Duration::from_secs(30);

/// An import. When it is dropped with its channel, what it has brought so far is garbage, and is collected as soon as
/// nobody adds to it: the client that would have come back for it is gone.
struct Unfinished {
    inner: Arc<Inner>,
    channel: Option<Channel>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(channel), Ok(runtime)) = (self.channel.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let inner = Arc::clone(&self.inner);
        runtime.spawn(async move {
            let ended = async {
                // fetch finds its archive cut short, removes what it was writing, and closes.
                while channel.receive::<FetchEvent>().await.is_ok() {}
                // An unpack process that runs commits its layer at its end.
                inner.unpacking.acquire_many(LAYERS_UNPACKING).await.is_ok()
            };
            // After that the next collection finds it.
            let _ = tokio::time::timeout(UNFINISHED, ended).await;
            inner.garbage.store(true, Ordering::Release);
            inner.collect_if_idle().await;
        });
    }
}

/// A running pull: who waits for which blob.
#[derive(Debug)]
pub(super) struct Session {
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
            let sent = self.channel.send(&FetchRequest::Blob { digest }, &[]).await;
            if sent.is_err() {
                // It is gone, and why is still to be read: `read` ends this pull with the reason.
                return std::future::pending().await;
            }
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
                // A process that ends with a request of ours unread resets the connection, and the kernel tells
                // that before what the process said last.
                Err(error) => match self.channel.receive::<FetchEvent>().await {
                    Ok((FetchEvent::Failed(failure), _)) => return failure.into(),
                    _ => return error.into(),
                },
            }
        }
    }
}

async fn receive_images(
    channel: &Channel,
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
            FetchEvent::Blob(_) | FetchEvent::Keys(_) => {
                return Err(Failed::bug("fetch speaks out of turn"));
            }
        }
    }
}

/// Bytes of the pipe to fetch: the most that pipe-max-size grants without privilege (pipe(7)).
const IMPORT_PIPE_BYTES: usize = 1024 * 1024;

/// A pipe of which a fetch process reads.
pub(super) fn pipe_to_fetch() -> Outcome<(OwnedFd, pipe::Sender)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failed::caused("make a pipe", error))?;
    // Fewer turns between the three who handle each byte; where the host does not grant it, more.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, IMPORT_PIPE_BYTES);
    rustix::io::ioctl_fionbio(&writer, true).map_err(|error| Failed::caused("set up a pipe", error))?;
    let writer =
        pipe::Sender::from_owned_fd(writer).map_err(|error| Failed::caused("set up a pipe", error))?;
    Ok((reader, writer))
}

/// A pipe that another process writes to.
pub(super) fn pipe_from() -> Outcome<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failed::caused("make a pipe", error))?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|error| Failed::caused("set up a pipe", error))?;
    let reader =
        pipe::Receiver::from_owned_fd(reader).map_err(|error| Failed::caused("set up a pipe", error))?;
    Ok((reader, writer))
}

/// Pours an archive into the pipe to fetch.
pub(super) async fn feed(archive: impl AsyncRead + Send, mut writer: pipe::Sender) -> Outcome<()> {
    tokio::pin!(archive);
    let mut buffer = vec![0; IMPORT_PIPE_BYTES / 2];
    loop {
        let length = archive.read(&mut buffer).await.map_err(Failed::unarrived)?;
        if length == 0 {
            return Ok(());
        }
        if writer.write_all(&buffer[..length]).await.is_err() {
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
