//! How sandboxes end, rest and begin again, by themselves or when asked.
//!
//! ```text
//!               create                         stop, idle for too long
//!   (none) ──────────────▶ running ⇄ paused ─────────────────────────▶ stopped
//!                            │ ▲          the next call that needs it     │
//!                            │ └──────────────────────────────────────────┤
//!   its first process ends   ▼ start                                      │
//!                          dead ───────────── destroy, ttl ◀──────────────┘
//! ```
//!
//! - A stopped sandbox is its files, its entry in the index and what lies in its work directory: environment, ports,
//!   logs. Whoever asks what it is wakes nothing; whoever needs it running finds it so.
//! - It rests when nobody has used it for its idle timeout: a command that runs, a file that is read, an open stream,
//!   a connection to a port are use. Background processes are only if it was asked for.
//! - A sandbox that ended by itself is dead and not stopped: that a call begins it again would hide why it ended.
//! - A paused sandbox is frozen with its memory, all but our own agent in it, and goes on with the next call that needs
//!   it. Until then its idle timeout does not run: its memory would be gone. Its time to live does.
//! - Files that the kernel keeps in memory end with it: such a sandbox cannot be stopped. Files of a volatile one that
//!   ran when the host went down are not known to be whole, and are never shown again.
//!
//! Crash-only: the mark of a stop says first that it is being done, which counts in the same boot alone, and that it is
//! done when launch has written the files out. It is gone, on the disk too, before anybody can write to a volatile sandbox that
//! was woken. What of a sandbox can be changed is written while the map has this very sandbox, and nobody is at it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::index::{Facts, cannot_record};
use super::launcher::{LauncherError, launcher_error};
use super::rest::{DONE, Rest, STOPPING, WAKING, keeps_files, mark, said, say, unmark};
use super::{Caller, Changing, Entry, Inner, Sandbox, SandboxView, Sandboxes, State, not_found, remove_work};
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::journal::feed::Kind;
use crate::limits::{LIFECYCLE_MS_MAX, LIFECYCLE_MS_MIN};
use crate::wire::launch::{Call, Failure, FailureKind, Resources};

/// How long a stop or an end that failed is left alone.
const AGAIN: Duration = Duration::from_secs(60);

/// How long a look at the clock may be put off when nothing is due sooner.
const LOOK: Duration = Duration::from_secs(3600);

/// When a sandbox ends or rests by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lifecycle {
    /// Stop it when nobody has used it for so many milliseconds, those that it is paused not counted. The next call that
    /// needs it wakes it. Never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 315_360_000_000_u64)]
    pub idle_timeout_ms: Option<u64>,
    /// Destroy it so many milliseconds after its creation. Never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 315_360_000_000_u64)]
    pub ttl_ms: Option<u64>,
    /// Do neither, whatever the other two say.
    pub keep_alive: bool,
    /// Background processes that run are use.
    pub processes_hold: bool,
}

/// Refuses what cannot be done or makes no sense.
///
/// # Errors
/// `INVALID_REQUEST` names the field; `STOP_UNSUPPORTED`.
pub(super) fn check(lifecycle: Lifecycle, resources: &Resources) -> Result<(), Error> {
    for (field, value) in
        [("lifecycle.idle_timeout_ms", lifecycle.idle_timeout_ms), ("lifecycle.ttl_ms", lifecycle.ttl_ms)]
    {
        if value.is_some_and(|value| !(LIFECYCLE_MS_MIN..=LIFECYCLE_MS_MAX).contains(&value)) {
            let rule = format!("{field} must be between {LIFECYCLE_MS_MIN} and {LIFECYCLE_MS_MAX}");
            return Err(Error::new(ErrorCode::InvalidRequest, rule)
                .hint("give milliseconds, or leave it out for never")
                .context(serde_json::json!({ "field": field })));
        }
    }
    if lifecycle.idle_timeout_ms.is_some() && !keeps_files(resources) {
        return Err(cannot_stop().context(serde_json::json!({ "field": "lifecycle.idle_timeout_ms" })));
    }
    Ok(())
}

fn cannot_stop() -> Error {
    Error::new(
        ErrorCode::StopUnsupported,
        "a sandbox with a limit on its disk space cannot be stopped: its files would end with it",
    )
    .hint("leave resources.disk_bytes and disk_files out, or destroy it")
}

/// Who uses a sandbox, and since when nobody does.
#[derive(Debug)]
pub(super) struct Activity {
    uses: AtomicUsize,
    last: Mutex<Instant>,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { uses: AtomicUsize::new(0), last: Mutex::new(Instant::now()) })
    }

    pub(super) fn hold(self: &Arc<Self>) -> Use {
        self.uses.fetch_add(1, Ordering::AcqRel);
        Use(Arc::clone(self))
    }

    pub(super) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long nobody has used it; nothing while somebody does.
    fn idle(&self) -> Option<Duration> {
        let last = || *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.uses.load(Ordering::Acquire) == 0).then(|| last().elapsed())
    }
}

/// Somebody uses a sandbox: while this lives it does not rest.
#[derive(Debug)]
pub struct Use(Arc<Activity>);

impl Drop for Use {
    fn drop(&mut self) {
        // In this order: whoever sees no use sees when the last one ended.
        self.0.touch();
        self.0.uses.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Clone for Use {
    fn clone(&self) -> Self {
        self.0.hold()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Busy {
    /// Closes when that is over.
    pub(super) done: watch::Receiver<()>,
    pub(super) owner_uid: u32,
    /// Ends a creation that waits for something.
    pub(super) cancel: CancellationToken,
    /// The sandbox, as it can still be looked at.
    pub(super) shown: Option<Arc<Sandbox>>,
}

impl Busy {
    pub(super) async fn over(mut self) {
        while self.done.changed().await.is_ok() {}
    }
}

/// A busy entry: replaced by its outcome when dropped, whatever way the owner ends. Then those who wait look again.
pub(super) struct Claim {
    inner: Arc<Inner>,
    id: SandboxId,
    pub(super) outcome: Option<Arc<Sandbox>>,
    _busy: watch::Sender<()>,
}

impl Claim {
    pub(super) fn new(
        inner: &Arc<Inner>,
        id: &SandboxId,
        outcome: Option<Arc<Sandbox>>,
        busy: watch::Sender<()>,
    ) -> Self {
        Self { inner: Arc::clone(inner), id: id.clone(), outcome, _busy: busy }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut entries = self.inner.lock();
        match self.outcome.take() {
            Some(sandbox) => entries.insert(self.id.clone(), Entry::Here(sandbox)),
            None => entries.remove(&self.id),
        };
    }
}

impl Sandbox {
    /// Keeps it from resting.
    pub fn hold(&self) -> Use {
        self.activity.hold()
    }

    /// What it is now. The kernel's word: an agent whose connection is closed is gone.
    pub fn state(&self) -> State {
        match (self.agent().is_some(), self.rest) {
            (true, _) if self.paused.load(Ordering::Acquire) => State::Paused,
            (true, _) => State::Running,
            (false, Rest::Stopped) => State::Stopped,
            (false, Rest::Ended | Rest::Lost) => State::Dead,
        }
    }

    /// When it is to be stopped or destroyed next, from now.
    fn due(&self) -> Option<(Duration, Due)> {
        let Lifecycle { idle_timeout_ms, ttl_ms, keep_alive, processes_hold } = self.lifecycle();
        if keep_alive {
            return None;
        }
        let ttl = ttl_ms.map(Duration::from_millis).map(|ttl| {
            let age =
                self.facts.created_at.parse::<jiff::Timestamp>().ok().and_then(|created| {
                    Duration::try_from(jiff::Timestamp::now().duration_since(created)).ok()
                });
            (ttl.saturating_sub(age.unwrap_or_default()), Due::Destroy)
        });
        // One that is paused is to keep its memory.
        let idle = idle_timeout_ms.filter(|_| self.state() == State::Running).map(|timeout| {
            let timeout = Duration::from_millis(timeout);
            let held = processes_hold && self.processes.any_runs();
            let idle = self.activity.idle().filter(|_| !held);
            (timeout.saturating_sub(idle.unwrap_or_default()), Due::Stop)
        });
        let (left, due) = ttl.into_iter().chain(idle).min_by_key(|(left, _)| *left)?;
        let rest = self.changing().not_before.map(|then| then.saturating_duration_since(Instant::now()));
        Some((left.max(rest.unwrap_or_default()), due))
    }

    /// As it is now.
    pub(super) fn lifecycle(&self) -> Lifecycle {
        self.changing().lifecycle
    }

    /// What is to be in the index.
    pub(super) fn facts_now(&self) -> Facts {
        let changing = self.changing().clone();
        self.facts_with(&changing)
    }

    fn facts_with(&self, changing: &Changing) -> Facts {
        let mut facts = self.facts.clone();
        facts.lifecycle = changing.lifecycle;
        facts.plan.network.clone_from(&changing.network);
        facts.plan.resources.clone_from(&changing.resources);
        facts
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Stop,
    Destroy,
}

impl Sandboxes {
    /// Finds a sandbox that runs, and wakes it when it was stopped.
    ///
    /// # Errors
    /// As [`get`](Self::get), and everything that can prevent a sandbox from being made.
    pub async fn awake(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        self.awake_if(id, |owner| caller.may_see(owner)).await
    }

    pub(super) async fn awake_if(
        &self,
        id: &SandboxId,
        may_see: impl Fn(u32) -> bool,
    ) -> Result<Arc<Sandbox>, Error> {
        loop {
            let sandbox = self.at_rest(id, &may_see).await?;
            if sandbox.state() != State::Stopped {
                self.go_on(&sandbox).await?;
                return Ok(sandbox);
            }
            self.begin_again(id, |sandbox| sandbox.state() == State::Stopped).await?;
        }
    }

    /// Finds a sandbox when nobody stops or wakes it.
    pub(super) async fn at_rest(
        &self,
        id: &SandboxId,
        may_see: impl Fn(u32) -> bool,
    ) -> Result<Arc<Sandbox>, Error> {
        loop {
            let busy = match self.0.lock().get(id) {
                Some(Entry::Here(sandbox)) if may_see(sandbox.facts.owner_uid) => {
                    // Under the lock of the map, under which a sandbox is found idle too.
                    sandbox.activity.touch();
                    return Ok(Arc::clone(sandbox));
                }
                // One that is being created is waited for too, and one that is being destroyed is not there after that.
                Some(Entry::Busy(busy)) if may_see(busy.owner_uid) => busy.clone(),
                _ => return Err(not_found(id)),
            };
            busy.over().await;
        }
    }

    /// Whether the map has this very sandbox, and nobody is at it.
    pub(super) fn has(&self, sandbox: &Arc<Sandbox>) -> bool {
        self.0.lock().get(&sandbox.facts.id).is_some_and(|entry| entry.is(sandbox))
    }

    /// Finds a sandbox that runs, and keeps others from changing it.
    ///
    /// # Errors
    /// As [`awake`](Self::awake).
    pub(super) async fn turn(
        &self,
        caller: &Caller,
        id: &SandboxId,
    ) -> Result<(Arc<Sandbox>, OwnedMutexGuard<()>), Error> {
        loop {
            let sandbox = self.awake(caller, id).await?;
            let turn = Arc::clone(&sandbox.turn).lock_owned().await;
            if self.has(&sandbox) {
                return Ok((sandbox, turn));
            }
        }
    }

    /// Changes what of a sandbox can be changed, on disk first. False when somebody is at the sandbox, or it is gone:
    /// then nothing is changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn change(
        &self,
        sandbox: &Arc<Sandbox>,
        change: impl FnOnce(&mut Changing),
    ) -> Result<bool, Error> {
        // Held while it is written: whoever destroys or stops the sandbox comes before, and then it is not here, or
        // after, and then removes or replaces what was written.
        let entries = self.0.lock();
        let id = &sandbox.facts.id;
        if !entries.get(id).is_some_and(|entry| entry.is(sandbox)) {
            return Ok(false);
        }
        let mut changed = sandbox.changing().clone();
        change(&mut changed);
        let (entry, facts) = (self.0.index.entry(id), sandbox.facts_with(&changed));
        entry.draft(&facts).and_then(|()| entry.commit()).map_err(cannot_record)?;
        *sandbox.changing() = changed;
        Ok(true)
    }

    /// Begins a sandbox again that was stopped or has ended by itself. One that runs is left as it is.
    ///
    /// # Errors
    /// `SANDBOX_DEAD` when its files are lost.
    pub async fn start_again(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        let sandbox = self.awake(caller, id).await?;
        if sandbox.agent().is_some() {
            return Ok(sandbox);
        }
        if sandbox.rest == Rest::Lost {
            return Err(Error::new(ErrorCode::SandboxDead, "the sandbox has ended, and its files with it")
                .hint("delete it and create it again"));
        }
        self.begin_again(id, |sandbox| sandbox.agent().is_none() && sandbox.rest != Rest::Lost).await?;
        self.awake(caller, id).await
    }

    /// Takes a sandbox for a while: others find it busy. Nothing when it is not there, or not what is wanted.
    pub(super) fn claim(
        &self,
        id: &SandboxId,
        wanted: impl Fn(&Sandbox) -> bool,
    ) -> Option<(Arc<Sandbox>, Claim)> {
        let (sender, done) = watch::channel(());
        let mut entries = self.0.lock();
        let Some(Entry::Here(sandbox)) =
            entries.get(id).filter(|entry| matches!(entry, Entry::Here(sandbox) if wanted(sandbox)))
        else {
            return None;
        };
        let sandbox = Arc::clone(sandbox);
        let busy = Busy {
            done,
            owner_uid: sandbox.facts.owner_uid,
            cancel: CancellationToken::new(),
            shown: Some(Arc::clone(&sandbox)),
        };
        entries.insert(id.clone(), Entry::Busy(busy));
        drop(entries);
        let claim = Claim::new(&self.0, id, Some(Arc::clone(&sandbox)), sender);
        Some((sandbox, claim))
    }

    /// Wakes it. Whoever finds it busy or changed in the meantime looks again.
    async fn begin_again(&self, id: &SandboxId, wanted: impl Fn(&Sandbox) -> bool) -> Result<(), Error> {
        let Some((sandbox, claim)) = self.claim(id, wanted) else { return Ok(()) };
        let this = self.clone();
        // A caller that goes away does not leave it half-made.
        let task = tokio::spawn(async move { this.wake(&sandbox, claim).await });
        task.await.map_err(|error| Error::internal("waking the sandbox failed", error))?
    }

    async fn wake(&self, sandbox: &Sandbox, mut claim: Claim) -> Result<(), Error> {
        let _turn = sandbox.turn.lock().await;
        let mut facts = sandbox.facts_now();
        facts.boot.clone_from(&self.0.boot);
        let id = facts.id.clone();
        let entry = self.0.index.entry(&id);
        let mut plan = facts.plan.clone();
        // They were made when it was created. What has become of them is the sandbox's affair: a command that wants
        // its working directory says that it is not there.
        plan.directories.clear();
        let share = self.0.ledger.run(facts.owner_uid, &plan.resources)?;
        let call = Call::Wake(Box::new(plan));
        // What is left of processes of former runs has their numbers.
        let launch = self.launch(call, None, super::first_number());
        let work = self.0.work.join(id.as_str());
        let was = said(&work);
        let mark_it = {
            let work = work.clone();
            // Beside the other, because it waits for the disk.
            tokio::task::spawn_blocking(move || mark(&work, Some(WAKING)))
        };
        let (launched, drafted, marked) = tokio::join!(launch, async { entry.draft(&facts) }, mark_it);
        let marked = marked.map_err(std::io::Error::other).flatten();
        let (running, agent) = match (launched, drafted.and(marked).and_then(|()| entry.commit())) {
            (Ok(launched), Ok(())) => launched,
            (Ok(_), Err(error)) => {
                let _ = self.0.launcher.call(Call::Stop { id }, &[]).await;
                let _ = mark(&work, was.as_deref());
                return Err(cannot_record(error));
            }
            (Err(error), _) => {
                let _ = mark(&work, was.as_deref());
                return Err(error);
            }
        };
        let held_by = (sandbox.lease.clone(), Arc::clone(&sandbox.place), Some(share));
        let woken = self.0.sandbox(facts, Some((running, agent)), held_by, Rest::Ended);
        woken.take_up(Vec::new()).await;
        self.trust_anew(&woken, false).await;
        self.remount(&woken).await;
        if let Err(error) = woken.start_declared().await {
            // Whoever called has a use for it all the same, and sees in the list what does not run.
            tracing::warn!(%id, %error, "cannot start what the sandbox declares");
        }
        // Until here whoever takes it over does the rest.
        unmark(&work);
        let woken = Arc::new(woken);
        woken.voice.say(Kind::Woken, serde_json::Value::Null);
        claim.outcome = Some(Arc::clone(&woken));
        drop(claim);
        self.stay_with(&woken);
        self.0.clock.notify_one();
        Ok(())
    }

    /// Stops a sandbox: its processes end, its files stay and are on the disk when this returns. One that does not run
    /// is left as it is.
    ///
    /// # Errors
    /// As [`get`](Self::get); `STOP_UNSUPPORTED` when its files would end with it.
    pub async fn stop(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        loop {
            let sandbox = self.at_rest(id, |owner| caller.may_see(owner)).await?;
            if sandbox.agent().is_none() {
                return Ok(sandbox);
            }
            if !keeps_files(&sandbox.facts.plan.resources) {
                return Err(cannot_stop());
            }
            self.rest(id, |sandbox| sandbox.agent().is_some()).await?;
        }
    }

    async fn rest(&self, id: &SandboxId, wanted: impl Fn(&Sandbox) -> bool) -> Result<(), Error> {
        let Some((sandbox, claim)) = self.claim(id, wanted) else { return Ok(()) };
        let this = self.clone();
        let task = tokio::spawn(async move { this.put_to_rest(&sandbox, claim, None).await });
        task.await.map_err(|error| Error::internal("stopping the sandbox failed", error))?
    }

    /// Stops a sandbox, or, when it is given the files of a snapshot, sees to it that it is stopped and has those.
    pub(super) async fn put_to_rest(
        &self,
        sandbox: &Sandbox,
        mut claim: Claim,
        files: Option<SnapshotId>,
    ) -> Result<(), Error> {
        // Whoever was changing it has done so, and whoever wants to finds another.
        let _turn = sandbox.turn.lock().await;
        let mut facts = sandbox.facts_now();
        if sandbox.agent().is_some() {
            // launch knows it best: a daemon before this one may have changed it and died.
            facts.plan.network = Some(self.policy(&facts.id).await?.0);
        }
        let (id, work) = (facts.id.clone(), self.0.work.join(facts.id.as_str()));
        let was = said(&work);
        let entry = self.0.index.entry(&id);
        if let Err(error) = say(&work, STOPPING).and_then(|_| entry.update(&facts)) {
            let _ = mark(&work, was.as_deref());
            return Err(cannot_record(error));
        }
        self.drain_mounts(sandbox).await;
        let call = match files {
            Some(snapshot) => Call::Restore { id: id.clone(), snapshot },
            None => Call::Stop { id: id.clone() },
        };
        let unsynced = match self.0.launcher.call(call, &[]).await {
            Ok(_) => None,
            // It is stopped all the same, and safe as long as the host is.
            Err(error @ LauncherError::Refused(Failure { kind: FailureKind::Unsynced, .. })) => Some(error),
            Err(error) => {
                // When launch is gone nobody knows, and what the next one finds counts.
                if matches!(error, LauncherError::Refused(_)) {
                    let _ = mark(&work, was.as_deref());
                }
                return Err(launcher_error(error));
            }
        };
        // The disk has all of it before the mark that says so. Mostly there is nothing left to wait for.
        let settle = move || entry.settle().and_then(|()| mark(&work, Some(DONE)));
        if unsynced.is_none()
            && let Err(error) =
                tokio::task::spawn_blocking(settle).await.map_err(std::io::Error::other).flatten()
        {
            tracing::warn!(%id, %error, "a stopped sandbox is not safe from a crash of the host");
        }
        sandbox.processes.ended().await;
        sandbox.give_back_share();
        let held_by = (sandbox.lease.clone(), Arc::clone(&sandbox.place), None);
        let stopped = self.0.sandbox(facts, None, held_by, Rest::Stopped);
        stopped.take_up(Vec::new()).await;
        stopped.voice.say(Kind::Stopped, serde_json::Value::Null);
        claim.outcome = Some(Arc::new(stopped));
        tracing::info!(%id, "stopped");
        unsynced.map_or(Ok(()), |error| Err(launcher_error(error)))
    }

    /// Changes when a sandbox ends or rests by itself.
    ///
    /// # Errors
    /// `INVALID_REQUEST` names the field; `STOP_UNSUPPORTED`.
    pub async fn set_lifecycle(
        &self,
        caller: &Caller,
        id: &SandboxId,
        lifecycle: Lifecycle,
    ) -> Result<SandboxView, Error> {
        loop {
            let sandbox = self.at_rest(id, |owner| caller.may_see(owner)).await?;
            check(lifecycle, &sandbox.facts.plan.resources)?;
            let changed = self.change(&sandbox, |changing| {
                (changing.lifecycle, changing.not_before) = (lifecycle, None);
            });
            // Otherwise somebody was quicker, and is waited for.
            if changed? {
                let said = serde_json::to_value(lifecycle).unwrap_or_default();
                sandbox.voice.say(Kind::LifecycleChanged, said);
                self.0.clock.notify_one();
                return Ok(sandbox.view());
            }
        }
    }

    /// Stops and destroys sandboxes when their time has come. Does not end.
    pub(super) async fn keep_time(self) {
        loop {
            let mut next = self.expire_snapshots().await.unwrap_or(LOOK).min(LOOK);
            for (id, left, due) in self.dues() {
                if !left.is_zero() {
                    next = next.min(left);
                    continue;
                }
                let this = self.clone();
                tokio::spawn(async move { this.carry_out(&id, due).await });
                // What could not be done now is looked at again soon, and not at once.
                next = next.min(Duration::from_millis(LIFECYCLE_MS_MIN));
            }
            let changed = self.0.clock.notified();
            // Both may be missed: the next look is at the clock as it is then.
            let _ = tokio::time::timeout(next, changed).await;
        }
    }

    fn dues(&self) -> Vec<(SandboxId, Duration, Due)> {
        let entries = self.0.lock();
        let here = entries.values().filter_map(|entry| match entry {
            Entry::Here(sandbox) => Some(sandbox),
            Entry::Busy(_) => None,
        });
        here.filter_map(|sandbox| {
            let (left, due) = sandbox.due()?;
            Some((sandbox.facts.id.clone(), left, due))
        })
        .collect()
    }

    async fn carry_out(&self, id: &SandboxId, due: Due) {
        let done = match due {
            // Used again since it was found idle: then it goes on.
            Due::Stop => {
                let idle = |sandbox: &Sandbox| {
                    sandbox.due().is_some_and(|(left, due)| left.is_zero() && due == Due::Stop)
                };
                self.rest(id, idle).await
            }
            Due::Destroy => {
                tracing::info!(%id, "its time to live is over");
                self.destroy(&Caller::daemon(), id).await
            }
        };
        if let Err(error) = done
            && error.code != ErrorCode::SandboxNotFound
        {
            if let Ok(sandbox) = self.get(&Caller::daemon(), id) {
                sandbox.changing().not_before = Some(Instant::now() + AGAIN);
            }
            tracing::warn!(%id, %error, "cannot stop or destroy a sandbox whose time is over");
        }
    }

    /// Ends a sandbox and removes everything of it. When this returns, nothing of it runs. One that is being created
    /// is not waited for any longer than launch is at it.
    ///
    /// # Errors
    /// As [`get`](Self::get), and when launch is gone.
    pub async fn destroy(&self, caller: &Caller, id: &SandboxId) -> Result<(), Error> {
        let (busy, done) = watch::channel(());
        let mut waited = false;
        let sandbox = loop {
            let other = {
                let mut entries = self.0.lock();
                match entries.get(id) {
                    Some(Entry::Here(sandbox)) if caller.may_see(sandbox.facts.owner_uid) => {
                        let sandbox = Arc::clone(sandbox);
                        let owner_uid = sandbox.facts.owner_uid;
                        let mine = Busy { done, owner_uid, cancel: CancellationToken::new(), shown: None };
                        entries.insert(id.clone(), Entry::Busy(mine));
                        break sandbox;
                    }
                    Some(Entry::Busy(busy)) if caller.may_see(busy.owner_uid) => busy.clone(),
                    // Whoever was at it has destroyed it, or could not make it.
                    _ if waited => return Ok(()),
                    _ => return Err(not_found(id)),
                }
            };
            other.cancel.cancel();
            other.over().await;
            waited = true;
        };
        sandbox.mounts.end();
        let claim = Claim::new(&self.0, id, Some(sandbox), busy);
        // A caller that goes away does not leave it half-destroyed.
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        let task = tokio::spawn(async move {
            let mut claim = claim;
            // Forgotten first: one that the launcher still knows and the index does not is destroyed at the next start,
            // and one that only the index knew would be there without its files.
            inner.index.entry(&id).remove();
            let destroyed = inner.launcher.call(Call::Destroy { id: id.clone() }, &[]).await;
            if destroyed.is_ok() {
                if let Some(sandbox) = claim.outcome.take() {
                    sandbox.give_back_share();
                    sandbox.place.give_back();
                    sandbox.voice.say(Kind::Destroyed, serde_json::Value::Null);
                    sandbox.ports.end(&id, &inner.former);
                    sandbox.processes.ended().await;
                }
                remove_work(&inner.work.join(id.as_str()));
            }
            destroyed
        });
        match task.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(launcher_error(error)),
            Err(error) => Err(Error::internal("destroying the sandbox failed", error)),
        }
    }
}
