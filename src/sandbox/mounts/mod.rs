//! Mounts of a sandbox: buckets, and directories of the host.
//!
//! ```text
//! mount ─▶ mounts.json ─▶ launch: Start ─▶ worker ─ Ready ─▶ launch: Show     the bucket is in the tree
//!                                            └ its end ─▶ attend: again, from Start, until the sandbox stops
//! unmount ─ Unmount ─▶ worker: uploads ─ Drained, Lost ─▶ launch: End
//! ```
//!
//! - What is mounted is written down first, so that neither a crash nor a stop forgets it: a sandbox that is woken, or
//!   taken up by another daemon, has its mounts again. One that cannot be had answers ENOTCONN instead of showing the
//!   empty directory below it, and is tried again.
//! - A worker that ends is replaced, with a mount of its own in the place of the old one; what it had not uploaded yet
//!   lies in the mount's directory, and the next one uploads it.
//! - Credentials that came with a request go to launch in a sealed file and to the worker, and are read back from there
//!   when it must be started again; nothing here keeps them. Like those of network policies they survive stop and a
//!   restart of the daemon, and not one of the host.

mod keys;
mod spec;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::launcher::{LauncherError, launcher_error};
use super::{Caller, Sandbox, SandboxSpec, Sandboxes, command};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::journal::feed::Kind;
use crate::limits::MOUNTS_MAX;
use crate::wire;
use crate::wire::bucket::Credentials;
use crate::wire::launch::{Answer, Call};
use crate::wire::mount::{MountCall, Source};
pub use spec::{
    BucketSpec, CredentialSource, MountRequest, MountSpec, MountState, MountTrouble, MountView, Unmounted,
    What,
};
use worker::{Worker, probed};

/// Pauses between attempts at a mount that fails: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// How long a sandbox that is stopped waits for each of its buckets. What is not uploaded then is when it is woken.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A mount as it lies on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    number: u32,
    spec: MountSpec,
}

/// The mounts of one sandbox, in one of its runs.
#[derive(Debug)]
pub(super) struct Mounts {
    path: PathBuf,
    all: Mutex<BTreeMap<u32, Arc<Mount>>>,
}

/// A mount in this run of its sandbox.
#[derive(Debug)]
struct Mount {
    number: u32,
    spec: MountSpec,
    now: Mutex<Now>,
    /// Cancelled when nobody is to start its worker again.
    over: CancellationToken,
}

#[derive(Clone, Debug)]
enum Now {
    /// The sandbox does not run, or its turn has not come.
    Idle,
    Mounting,
    Mounted(Option<Arc<Worker>>),
    Failed(MountTrouble),
}

impl Mount {
    fn new(number: u32, spec: MountSpec) -> Arc<Self> {
        Arc::new(Self { number, spec, now: Mutex::new(Now::Idle), over: CancellationToken::new() })
    }

    fn now(&self) -> Now {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, now: Now) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn fail(&self, error: &Error) {
        self.set(Now::Failed(MountTrouble { code: error.code, message: error.message.to_string() }));
    }

    async fn view(&self, runs: bool) -> MountView {
        let mut view = self.spec.view(self.number);
        match self.now() {
            _ if !runs => view.state = MountState::Stopped,
            Now::Idle | Now::Mounting => view.state = MountState::Mounting,
            Now::Failed(trouble) => (view.state, view.error) = (MountState::Failed, Some(trouble)),
            Now::Mounted(None) => {}
            Now::Mounted(Some(worker)) => view.status = worker.status().await,
        }
        view
    }
}

impl Mounts {
    /// What lies in the file.
    pub(super) fn new(path: PathBuf) -> Self {
        let kept = std::fs::read(&path).ok();
        let kept = kept.and_then(|text| serde_json::from_slice::<Vec<Kept>>(&text).ok());
        let all = kept.into_iter().flatten().map(|kept| (kept.number, Mount::new(kept.number, kept.spec)));
        Self { path, all: Mutex::new(all.collect()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Mount>>> {
        // Each change of the map is one insert or one remove.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> Vec<Arc<Mount>> {
        self.lock().values().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Mount>, Error> {
        let number = name.strip_prefix('m').and_then(|number| number.parse().ok());
        number
            .and_then(|number: u32| self.lock().get(&number).cloned())
            .ok_or_else(|| Error::new(ErrorCode::MountNotFound, "the sandbox has no such mount"))
    }

    fn save(&self, all: &BTreeMap<u32, Arc<Mount>>) -> Result<(), Error> {
        let kept: Vec<_> =
            all.values().map(|mount| Kept { number: mount.number, spec: mount.spec.clone() }).collect();
        let save = || super::ports::replace(&self.path, &serde_json::to_vec(&kept)?);
        save().map_err(|error| Error::internal("cannot record the mounts", error))
    }

    fn add(&self, spec: MountSpec) -> Result<Arc<Mount>, Error> {
        let mut all = self.lock();
        if let Some(other) = all.values().find(|other| other.spec.meets(&spec)) {
            return Err(Error::new(
                ErrorCode::MountInUse,
                format!("{} is mounted there, in it, or above it", other.spec.view(other.number).id),
            )
            .hint("choose another path, or unmount it first")
            .context(serde_json::json!({ "field": "path", "mount": other.spec.view(other.number).id })));
        }
        let free = (1..=MOUNTS_MAX).find(|number| !all.contains_key(number)).ok_or_else(|| {
            Error::new(ErrorCode::CapacityExhausted, format!("the sandbox has {MOUNTS_MAX} mounts"))
                .hint("unmount one that is not needed any more")
        })?;
        let mount = Mount::new(free, spec);
        mount.set(Now::Mounting);
        let mut changed = all.clone();
        changed.insert(free, Arc::clone(&mount));
        self.save(&changed)?;
        *all = changed;
        Ok(mount)
    }

    fn remove(&self, mount: &Mount) -> Result<(), Error> {
        let mut all = self.lock();
        let mut changed = all.clone();
        changed.remove(&mount.number);
        self.save(&changed)?;
        *all = changed;
        Ok(())
    }

    /// Where something is mounted at this path or below it, if anything is.
    pub(super) fn at_or_below(&self, path: &str) -> Option<String> {
        let below = |mount: &Arc<Mount>| {
            mount.spec.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.list().into_iter().find(below).map(|mount| mount.spec.path.clone())
    }

    /// Nobody starts a worker again from here on.
    pub(super) fn end(&self) {
        for mount in self.list() {
            mount.over.cancel();
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes the credentials out of a specification, which is kept and shown.
pub(super) fn begin(spec: &mut SandboxSpec) -> Vec<MountRequest> {
    let mounts = spec.mounts.clone();
    for mount in &mut spec.mounts {
        mount.credentials = None;
    }
    mounts
}

/// What the caller is told when launch could not.
fn refused(error: LauncherError) -> Error {
    let error = launcher_error(error);
    let field = match error.code {
        ErrorCode::MountInUse | ErrorCode::MountPointInvalid => "path",
        ErrorCode::DirectoryDenied => "endpoint",
        _ => return error,
    };
    error.context(serde_json::json!({ "field": field }))
}

impl Sandboxes {
    /// The mounts of a sandbox.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn mounts(&self, caller: &Caller, id: &SandboxId) -> Result<Vec<MountView>, Error> {
        let sandbox = self.get(caller, id)?;
        let (all, runs) = (sandbox.mounts.list(), sandbox.agent().is_some());
        Ok(futures_util::future::join_all(all.iter().map(|mount| mount.view(runs))).await)
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `MOUNT_NOT_FOUND`.
    pub async fn get_mount(&self, caller: &Caller, id: &SandboxId, name: &str) -> Result<MountView, Error> {
        let sandbox = self.get(caller, id)?;
        Ok(sandbox.mounts.find(name)?.view(sandbox.agent().is_some()).await)
    }

    /// Mounts something in a sandbox, which is woken for it. When this returns it can be used.
    ///
    /// # Errors
    /// Every code that a bucket, its server, a directory or the path can cause. Nothing is left behind.
    pub async fn mount(
        &self,
        caller: &Caller,
        id: &SandboxId,
        request: MountRequest,
    ) -> Result<MountView, Error> {
        let (sandbox, _turn) = self.turn(caller, id).await?;
        let mount = self.add_mount(&sandbox, request).await?;
        Ok(mount.view(true).await)
    }

    pub(super) async fn mount_all(
        &self,
        sandbox: &Sandbox,
        requests: Vec<MountRequest>,
    ) -> Result<(), Error> {
        for request in requests {
            self.add_mount(sandbox, request).await?;
        }
        Ok(())
    }

    async fn add_mount(&self, sandbox: &Sandbox, request: MountRequest) -> Result<Arc<Mount>, Error> {
        let MountRequest { spec, credentials } = request;
        let place = Place::of(sandbox)?;
        let mount = sandbox.mounts.add(spec)?;
        match self.bring_up(&place, &mount, credentials).await {
            Ok(worker) => {
                self.attend(place, Arc::clone(&mount), worker);
                let said =
                    serde_json::json!({"mount": format!("m{}", mount.number), "path": mount.spec.path});
                sandbox.voice.say(Kind::MountAdded, said);
                Ok(mount)
            }
            Err(error) => {
                // What is left is ended with the sandbox.
                let _ = self.end_mount(&place.id, &mount).await;
                sandbox.mounts.remove(&mount)?;
                Err(error)
            }
        }
    }

    /// Takes a mount away, after its worker has uploaded what is left, for so long at most. One of a sandbox that does
    /// not run is forgotten.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `MOUNT_NOT_FOUND`.
    pub async fn unmount(
        &self,
        caller: &Caller,
        id: &SandboxId,
        name: &str,
        within: Duration,
    ) -> Result<Unmounted, Error> {
        let sandbox = self.get(caller, id)?;
        let turn = Arc::clone(&sandbox.turn).lock_owned().await;
        if !self.has(&sandbox) {
            drop(turn);
            // Somebody has stopped or woken it meanwhile: then it is another.
            return Box::pin(self.unmount(caller, id, name, within)).await;
        }
        let mount = sandbox.mounts.find(name)?;
        mount.over.cancel();
        let lost = match mount.now() {
            Now::Mounted(Some(worker)) => worker.drain(within).await.unwrap_or_default(),
            _ => Unmounted::default(),
        };
        self.end_mount(&sandbox.facts.id, &mount).await?;
        sandbox.mounts.remove(&mount)?;
        let said = serde_json::json!({"mount": name, "path": mount.spec.path, "lost": lost.lost_count});
        sandbox.voice.say(Kind::MountRemoved, said);
        Ok(lost)
    }

    async fn end_mount(&self, id: &SandboxId, mount: &Mount) -> Result<(), Error> {
        let call = Call::Mount { id: id.clone(), mount: mount.number, call: MountCall::End };
        self.0.launcher.call(call, &[]).await.map(drop).map_err(launcher_error)
    }

    /// Uploads what is left before a sandbox is stopped.
    pub(super) async fn drain_mounts(&self, sandbox: &Sandbox) {
        let drain = async |mount: Arc<Mount>| {
            mount.over.cancel();
            if let Now::Mounted(Some(worker)) = mount.now()
                && let Some(lost) = worker.drain(STOP_WITHIN).await.filter(|lost| lost.lost_count > 0)
            {
                let (id, count) = (&sandbox.facts.id, lost.lost_count);
                tracing::warn!(%id, mount = mount.number, count, "files of a bucket are uploaded when the sandbox is woken");
            }
        };
        futures_util::future::join_all(sandbox.mounts.list().into_iter().map(drain)).await;
    }

    /// Mounts everything again in a sandbox that was woken. What cannot be had now is tried again.
    pub(super) async fn remount(&self, sandbox: &Sandbox) {
        let Ok(place) = Place::of(sandbox) else { return };
        let again = async |mount: Arc<Mount>| match self.bring_up(&place, &mount, None).await {
            Ok(worker) => self.attend(place.clone(), mount, worker),
            Err(error) => {
                tracing::warn!(id = %place.id, mount = mount.number, %error, "cannot mount again");
                mount.fail(&error);
                self.block(&place, &mount).await;
                self.attend(place.clone(), mount, None);
            }
        };
        futures_util::future::join_all(sandbox.mounts.list().into_iter().map(again)).await;
    }

    /// Takes up the mounts of a sandbox that ran on while there was no serve.
    pub(super) async fn adopt_mounts(&self, sandbox: &Sandbox) {
        let Ok(place) = Place::of(sandbox) else { return };
        for mount in sandbox.mounts.list() {
            let connected = match mount.spec.what {
                What::Directory { .. } => None,
                What::Bucket(_) => self.call(&place, &mount, MountCall::Connect, &[]).await.ok().flatten(),
            };
            match connected.map(Worker::new) {
                Some(Ok((worker, _))) if worker.status().await.is_some() => {
                    // Shown already, unless serve died in between.
                    let _ = self.show(&place, &mount).await;
                    mount.set(Now::Mounted(Some(Arc::clone(&worker))));
                    self.attend(place.clone(), mount, Some(worker));
                }
                _ => match mount.spec.what {
                    What::Directory { .. } => {
                        // Busy is its own mount, from before.
                        match self.show(&place, &mount).await {
                            Err(error) if error.code != ErrorCode::MountInUse => mount.fail(&error),
                            _ => mount.set(Now::Mounted(None)),
                        }
                    }
                    What::Bucket(_) => self.attend(place.clone(), mount, None),
                },
            }
        }
    }

    async fn call(
        &self,
        place: &Place,
        mount: &Mount,
        call: MountCall,
        fds: &[std::os::fd::OwnedFd],
    ) -> Result<Option<std::os::fd::OwnedFd>, Error> {
        let call = Call::Mount { id: place.id.clone(), mount: mount.number, call };
        match self.0.launcher.call(call, fds).await {
            Ok((Answer::Done | Answer::Connected, mut fds)) => Ok(fds.pop()),
            Ok(_) => Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(error) => Err(refused(error)),
        }
    }

    async fn show(&self, place: &Place, mount: &Mount) -> Result<(), Error> {
        let source = match &mount.spec.what {
            What::Directory { path } => Source::Directory(mount.spec.directory(path)),
            What::Bucket(_) => Source::Bucket,
        };
        let show = MountCall::Show { path: mount.spec.path.clone(), source };
        self.call(place, mount, show, &[]).await.map(drop)
    }

    /// Starts the worker, if there is one, and attaches the mount when the bucket has answered.
    async fn bring_up(
        &self,
        place: &Place,
        mount: &Mount,
        given: Option<Credentials>,
    ) -> Result<Option<Arc<Worker>>, Error> {
        mount.set(Now::Mounting);
        let What::Bucket(bucket) = &mount.spec.what else {
            self.show(place, mount).await?;
            mount.set(Now::Mounted(None));
            return Ok(None);
        };
        let credentials = self.credentials((&place.id, mount.number), &bucket.credentials, given).await?;
        let start = mount.spec.start(bucket, credentials, place.host_first, &self.0.settings);
        let start = wire::encode(&start).map_err(|error| Error::internal("cannot tell the worker", error))?;
        let file =
            command::sealed(&start).map_err(|errno| Error::internal("cannot tell the worker", errno))?;
        let socket = self.call(place, mount, MountCall::Start(bucket.server()), &[file]).await?;
        let socket =
            socket.ok_or_else(|| Error::new(ErrorCode::Internal, "the launcher sent no connection"))?;
        let (worker, ready) = Worker::new(socket)
            .map_err(|error| Error::internal("cannot talk to the bucket's worker", error))?;
        probed(ready).await?;
        self.show(place, mount).await?;
        mount.set(Now::Mounted(Some(Arc::clone(&worker))));
        Ok(Some(worker))
    }

    /// Shows a mount without a server, so that nobody takes the directory below it for what is missing.
    async fn block(&self, place: &Place, mount: &Mount) {
        let show = MountCall::Show { path: mount.spec.path.clone(), source: Source::Nothing };
        if let Err(error) = self.call(place, mount, show, &[]).await {
            tracing::warn!(id = %place.id, mount = mount.number, %error, "a mount's path shows the directory below it");
        }
    }

    /// Looks after a bucket until it is unmounted or its sandbox stops.
    fn attend(&self, place: Place, mount: Arc<Mount>, worker: Option<Arc<Worker>>) {
        if matches!(mount.spec.what, What::Bucket(_)) {
            let this = self.clone();
            tokio::spawn(async move {
                let over = mount.over.clone();
                tokio::select! {
                    () = over.cancelled() => {}
                    () = this.keep_up(&place, &mount, worker) => {}
                }
            });
        }
    }

    async fn keep_up(&self, place: &Place, mount: &Mount, mut worker: Option<Arc<Worker>>) {
        let mut pause = PAUSES[0];
        loop {
            if let Some(worker) = worker.take() {
                self.serve_worker(place, mount, &worker).await;
                tracing::warn!(id = %place.id, mount = mount.number, "a bucket's worker ended; it is started again");
                pause = PAUSES[0];
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES[1]);
            }
            match self.bring_up(place, mount, None).await {
                Ok(begun) => worker = begun,
                // Whoever begins the sandbox again begins with its mounts.
                Err(error) if error.code == ErrorCode::SandboxDead => return,
                Err(error) => {
                    tracing::warn!(id = %place.id, mount = mount.number, %error, "cannot mount again");
                    mount.fail(&error);
                }
            }
        }
    }

    /// Until the worker is gone.
    async fn serve_worker(&self, place: &Place, mount: &Mount, worker: &Worker) {
        loop {
            tokio::select! {
                () = worker.gone.cancelled() => return,
                () = worker.wants_credentials.notified() => {}
            }
            let What::Bucket(bucket) = &mount.spec.what else { return };
            match self.credentials((&place.id, mount.number), &bucket.credentials, None).await {
                Ok(credentials) => worker.renew(credentials).await,
                Err(error) => {
                    tracing::warn!(id = %place.id, mount = mount.number, %error, "no new credentials for a bucket");
                }
            }
        }
    }
}

/// A run of a sandbox.
#[derive(Clone, Debug)]
struct Place {
    id: SandboxId,
    /// Its first host id.
    host_first: u32,
}

impl Place {
    fn of(sandbox: &Sandbox) -> Result<Self, Error> {
        let running = sandbox.running.as_ref().filter(|_| sandbox.agent().is_some());
        let running = running.ok_or_else(|| command::dead(super::agent::Gone))?;
        Ok(Self { id: sandbox.facts.id.clone(), host_first: running.isolation.host_id_first })
    }
}
