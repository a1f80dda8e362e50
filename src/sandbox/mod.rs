//! The life of sandboxes, seen from serve: who owns which, what they are, and the commands in them.
//!
//! ```text
//!            create                     agent's connection closes
//!   (none) ─────────▶ creating ─▶ running ─────────────────────────▶ dead
//!      ▲                 │ failed   ▲ │ ├─ destroy                     │ destroy
//!      │                 │     wake │ ▼ stop                           │
//!      ├─────────────────┘        stopped                              │
//!      └──────────────────────────── destroy ──────────────────────────┘
//! ```
//!
//! The kernel's truth is launch's: at start serve asks it which sandboxes run and reconnects to their agents.
//! What serve itself knows of a sandbox, its specification and owner, lies in `state_dir/index`; a running
//! sandbox without that file was never handed to anybody, and is destroyed.

mod agent;
mod caller;
pub mod catalog;
mod command;
mod compress;
mod context;
mod create;
mod environment;
pub mod files;
mod git;
mod index;
pub mod launcher;
mod lifecycle;
mod memory;
mod mounts;
mod network;
mod pause;
mod ports;
mod process;
mod quota;
mod random;
mod recording;
mod records;
mod resources;
mod rest;
mod session;
mod snapshot;
mod spec;
mod startup;
mod strict;
mod terminal;
#[cfg(test)]
pub(crate) mod twin;
mod usage;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use caller::Caller;
pub use command::{Command, CommandExit, CommandSpec, CommandView};
pub use context::{
    CodeError, CodeRun, ContextEvent, ContextSpec, ContextView, KeptRun, Language, Outcome, Prompt, RunEnd,
    RunSpec, Shown,
};
pub use git::{CloneSpec, Cloned, Login, RepositoryUrl};
pub use lifecycle::{Lifecycle, Use};
pub use mounts::{
    BucketSpec, CredentialSource, MountRequest, MountSpec, MountState, MountTrouble, MountView, Unmounted,
    What,
};
pub use network::{
    AwsCredential, BasicCredential, Egress, HeaderCredential, NetworkChange, NetworkEvents, NetworkHost,
    NetworkLimits, NetworkPolicy, NetworkView, parse_policy,
};
pub use ports::{PortConnection, PortSpec, PortView, Preview};
pub use process::log::{Extent, Piece, Reader, Stream};
pub use process::probe::{HttpProbe, PortMatch, Probe};
pub use process::wait::{Condition, LogMatch, Matcher, Met};
pub use process::{CommandUsage, OnExit, Process, ProcessSpec, ProcessState, ProcessView};
pub use quota::{QuotaView, Share};
pub use recording::{RecordSpec, Recorded, Recorder, RecordingFile, RecordingView};
pub use resources::{LimitChange, ResourcesChange};
pub use session::{SessionCommand, SessionScript, SessionSpec, SessionView, Work};
pub use snapshot::{
    BUCKET_PATH, DirectorySpec, ExportFormat, ExportSpec, ForkSpec, SnapshotSpec, SnapshotView, StoredObject,
};
pub use spec::{ResourcesSpec, SandboxSpec};
pub use startup::StartupSpec;
pub(crate) use strict::{object, some_object};
pub use terminal::{Sight, Terminal, TerminalSpec, TerminalView, Viewer, exit_code};
pub use usage::{NetworkUsage, SandboxStats, Unmeasured};
pub use view::{ImageView, SandboxView, State};

use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::journal::feed::{Feed, Kind, Voice};
use crate::wire::agent::Held;
use crate::wire::agent::User;
use crate::wire::gateway::Policy;
use crate::wire::launch::{Answer, Call, Host, Limit, Resources, Root, Running, Settings};
use agent::Agent;
use catalog::{Catalog, Lease};
use command::{Listed, Resolved};
use environment::Environment;
pub use environment::EnvironmentChange;
use index::{Facts, Index};
use launcher::{Launcher, LauncherError};
use lifecycle::{Activity, Busy};
use memory::Memory;
use process::Processes;
use quota::{Ledger, Taken};
use rest::Rest;

/// What a sandbox holds for as long as it is there: its layers, its place among its owner's, and what it may use while it
/// runs.
type HeldBy = (Option<Arc<Lease>>, Arc<Taken>, Option<Taken>);

/// How long looking up a new sandbox's user may take.
const TRY_USER: std::time::Duration = std::time::Duration::from_secs(10);

/// How often one command wakes a sandbox that somebody else stops at the same time.
const WAKES_MAX: usize = 5;

/// PATH of commands when neither the image nor the request has one.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All sandboxes of this daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandboxes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    launcher: Launcher,
    gateway: network::Peer,
    catalog: Catalog,
    settings: Settings,
    host: Host,
    index: Index,
    snapshots: snapshot::Snapshots,
    /// The host's present boot (`/proc/sys/kernel/random/boot_id`).
    boot: String,
    /// Walks over sandboxes' files at the same time.
    counting: tokio::sync::Semaphore,
    feed: Feed,
    ledger: Ledger,
    /// Rings when somebody's time may have changed.
    clock: tokio::sync::Notify,
    /// What serve keeps of sandboxes beside the index: a directory for each that needs one.
    work: PathBuf,
    /// Tokens of sandboxes that were destroyed.
    former: ports::Former,
    entries: Mutex<HashMap<SandboxId, Entry>>,
}

#[derive(Clone, Debug)]
enum Entry {
    /// Somebody creates, wakes, stops or destroys it.
    Busy(Busy),
    Here(Arc<Sandbox>),
}

impl Entry {
    /// The sandbox, as it can be looked at.
    fn shown(&self) -> Option<&Arc<Sandbox>> {
        match self {
            Self::Here(sandbox) => Some(sandbox),
            Self::Busy(busy) => busy.shown.as_ref(),
        }
    }

    /// Whether it is this very sandbox, and nobody is at it.
    fn is(&self, sandbox: &Arc<Sandbox>) -> bool {
        matches!(self, Self::Here(here) if Arc::ptr_eq(here, sandbox))
    }
}

/// One sandbox.
#[derive(Debug)]
pub struct Sandbox {
    facts: Facts,
    /// What of it can be changed.
    changing: Mutex<Changing>,
    running: Option<Running>,
    agent: Option<Arc<Agent>>,
    /// What it is when its agent is gone.
    rest: Rest,
    activity: Arc<Activity>,
    /// For what happens to it.
    voice: Voice,
    /// Whether it is frozen, as launch has said last.
    paused: AtomicBool,
    /// One change of that at a time.
    pausing: tokio::sync::Mutex<()>,
    memory: Arc<Memory>,
    commands: Mutex<BTreeMap<u32, CommandView>>,
    files: files::Held,
    environment: Environment,
    /// One change of it at a time: of its network, and of whether it runs.
    turn: Arc<tokio::sync::Mutex<()>>,
    processes: Arc<Processes>,
    ports: ports::Ports,
    mounts: mounts::Mounts,
    sessions: session::Sessions,
    contexts: context::Contexts,
    terminals: terminal::Terminals,
    recordings: recording::Recordings,
    /// Keeps the image's layers in the store.
    lease: Option<Arc<Lease>>,
    /// What it takes of its owner's quota as long as it exists.
    place: Arc<Taken>,
    /// And while it runs.
    share: Option<Taken>,
}

/// What of a sandbox can be changed, as it is now.
#[derive(Clone, Debug)]
struct Changing {
    lifecycle: Lifecycle,
    network: Option<Policy>,
    /// Its limits, as it is to run with them next.
    resources: Resources,
    /// As the kernel has them, while it runs.
    limits: BTreeMap<String, Limit>,
    /// Not to be stopped or destroyed by the clock before: it could not be.
    not_before: Option<std::time::Instant>,
}

fn not_found(id: &SandboxId) -> Error {
    Error::new(ErrorCode::SandboxNotFound, format!("there is no sandbox {id}"))
        .hint("`stockade ps` lists the sandboxes that you own")
}

impl Sandboxes {
    /// Starts with what launch says is running.
    ///
    /// # Errors
    /// When launch cannot be asked.
    pub async fn start(
        launcher: Launcher,
        catalog: Catalog,
        settings: Settings,
        host: Host,
        boot: String,
    ) -> Result<Self, LauncherError> {
        let index = Index::new(std::path::Path::new(&settings.state_dir));
        let snapshots = snapshot::Snapshots::new(std::path::Path::new(&settings.state_dir));
        let work = PathBuf::from(&settings.state_dir).join("work");
        let (entries, gateway) = (Mutex::default(), network::Peer::default());
        let former = ports::Former::open(&work);
        let clock = tokio::sync::Notify::new();
        let feed = Feed::open(Some(&PathBuf::from(&settings.state_dir).join("journal")));
        let ledger = Ledger::new(settings.quotas.clone());
        let counting = tokio::sync::Semaphore::new(usage::COUNTING_MAX);
        let inner = Inner {
            launcher,
            gateway,
            catalog,
            settings,
            host,
            index,
            snapshots,
            boot,
            counting,
            feed,
            ledger,
            clock,
            work,
            former,
            entries,
        };
        let this = Self(Arc::new(inner));
        let mut running: Vec<Running> = Vec::new();
        loop {
            let after = running.last().map(|last| last.id.clone());
            match this.0.launcher.call(Call::List { after }, &[]).await? {
                (Answer::Sandboxes(more), _) if !more.is_empty() => running.extend(more),
                _ => break,
            }
        }
        this.0.snapshots.load(
            |image, root| this.lease(image, root),
            |uid, bytes| this.0.ledger.found_snapshot(uid, bytes),
        );
        this.adopt(running).await;
        // What a daemon that died was about to keep.
        this.collect_saved().await;
        tokio::spawn(this.clone().keep_time());
        Ok(this)
    }

    async fn adopt(&self, running: Vec<Running>) {
        let mut running: HashMap<_, _> = running.into_iter().map(|one| (one.id.clone(), one)).collect();
        let (known, unreadable) = self.0.index.read();
        let (known, unseen): (Vec<_>, Vec<_>) = known.into_iter().partition(|facts| !facts.unseen);
        for facts in unseen {
            self.0.index.entry(&facts.id).remove();
            running.remove(&facts.id);
            let _ = self.0.launcher.call(Call::Destroy { id: facts.id }, &[]).await;
        }
        for facts in known {
            let running = running.remove(&facts.id);
            let sandbox = Arc::new(self.adopt_one(facts, running).await);
            self.0.lock().insert(sandbox.facts.id.clone(), Entry::Here(Arc::clone(&sandbox)));
            self.stay_with(&sandbox);
        }
        self.0.clear_work(&unreadable);
        // What nobody was ever told of.
        for id in running.into_keys().filter(|id| !unreadable.contains(id)) {
            tracing::warn!(%id, "destroying a sandbox that was never handed out");
            let _ = self.0.launcher.call(Call::Destroy { id }, &[]).await;
        }
    }

    async fn adopt_one(&self, facts: Facts, running: Option<Running>) -> Sandbox {
        let (agent, held) = match &running {
            Some(running) => self.connect(&running.id).await.unzip(),
            None => (None, None),
        };
        if agent.is_none() {
            self.0.give_up(running.as_ref()).await;
        }
        let lease = self.lease(&facts.image, &facts.plan.root);
        let work = self.0.work.join(facts.id.as_str());
        let runs = running.is_some();
        let half_woken = runs && rest::said(&work).as_deref() == Some(rest::WAKING);
        let rest = match &running {
            Some(_) => Rest::when_it_ends(&facts),
            None => Rest::found(&facts, &work, &self.0.boot),
        };
        let resources = &facts.plan.resources;
        let (place, share) = self.0.ledger.found(facts.owner_uid, resources, agent.is_some());
        let held_by = (lease.map(Arc::new), Arc::new(place), share);
        let sandbox = self.0.sandbox(facts, running.zip(agent), held_by, rest);
        if sandbox.agent.is_some() {
            sandbox.memory.look().await;
            let call = Call::Paused { id: sandbox.facts.id.clone() };
            if let Ok((Answer::Paused(paused), _)) = self.0.launcher.call(call, &[]).await {
                sandbox.paused.store(paused, Ordering::Release);
            }
        }
        sandbox.take_up(held.unwrap_or_default()).await;
        self.adopt_mounts(&sandbox).await;
        if half_woken && let Err(error) = sandbox.start_declared().await {
            tracing::warn!(id = %sandbox.facts.id, %error, "cannot start what the sandbox declares");
        }
        if runs {
            // Left by a daemon that died while it stopped or woke it. One that cannot be taken away is what the next
            // stop writes over.
            let _ = rest::mark(&work, None);
        }
        sandbox
    }

    /// A hold on the layers of what is there already.
    fn lease(&self, image: &ImageView, root: &Root) -> Option<Lease> {
        let (Root::Layers(layers), Some(digest)) = (root, &image.digest) else { return None };
        let digest = crate::id::Digest::parse(digest).ok()?;
        Some(self.0.catalog.adopt(digest, layers.clone()))
    }

    async fn connect(&self, id: &SandboxId) -> Option<(Arc<Agent>, Vec<Held>)> {
        let answer = self.0.launcher.call(Call::Connect { id: id.clone() }, &[]).await;
        let answer =
            answer.inspect_err(|error| tracing::warn!(%id, %error, "cannot reach a sandbox that runs"));
        let socket = answer.ok()?.1.pop()?;
        match Agent::adopt(socket, first_number()).await {
            Ok(adopted) => Some(adopted),
            Err(error) => {
                tracing::warn!(%id, %error, "cannot talk to a sandbox that runs");
                None
            }
        }
    }

    /// How much a caller may have, and has.
    pub fn quota(&self, caller: &Caller) -> QuotaView {
        self.0.ledger.view(caller.uid, self.0.catalog.image_bytes(caller.uid))
    }

    /// What happens.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Says so when a sandbox ends that nobody stops or destroys.
    fn stay_with(&self, sandbox: &Arc<Sandbox>) {
        let (Some(agent), this) = (&sandbox.agent, self.clone()) else { return };
        let (gone, sandbox) = (agent.gone(), Arc::downgrade(sandbox));
        tokio::spawn(async move {
            gone.await;
            let Some(sandbox) = sandbox.upgrade() else { return };
            sandbox.give_back_share();
            if this.has(&sandbox) {
                sandbox.voice.say(Kind::Died, serde_json::Value::Null);
                this.0.give_up(sandbox.running.as_ref()).await;
            }
        });
    }

    /// The sandboxes that the caller may see, by id.
    pub fn list(&self, caller: &Caller) -> Vec<Arc<Sandbox>> {
        let mut sandboxes: Vec<_> = self
            .0
            .lock()
            .values()
            .filter_map(Entry::shown)
            .filter(|sandbox| caller.may_see(sandbox.facts.owner_uid) && !sandbox.facts.unseen)
            .cloned()
            .collect();
        sandboxes.sort_unstable_by(|a, b| a.facts.id.cmp(&b.facts.id));
        sandboxes
    }

    /// Finds a sandbox.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, also for somebody else's: that it exists is not the caller's business.
    pub fn get(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        let entries = self.0.lock();
        let found =
            entries.get(id).and_then(Entry::shown).filter(|sandbox| caller.may_see(sandbox.facts.owner_uid));
        found.cloned().ok_or_else(|| not_found(id))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Entry>> {
        // Every operation on the map is one insert, remove or look-up: valid after any panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that what is said to be dead does not run: an agent that cannot be spoken to may live.
    async fn give_up(&self, running: Option<&Running>) {
        let Some(Running { id, pid, .. }) = running else { return };
        // When launch is gone the next one is asked for what runs.
        let _ = self.launcher.call(Call::GiveUp { id: id.clone(), pid: *pid }, &[]).await;
    }

    fn sandbox(
        &self,
        facts: Facts,
        runs: Option<(Running, Arc<Agent>)>,
        (lease, place, share): HeldBy,
        rest: Rest,
    ) -> Sandbox {
        let (running, agent) = runs.unzip();
        let work = self.work.join(facts.id.as_str());
        let voice =
            if facts.unseen { Voice::mute() } else { self.feed.voice(facts.id.as_str(), facts.owner_uid) };
        Sandbox {
            environment: Environment::new(work.join("env.json"), &facts.env),
            turn: Arc::default(),
            processes: Arc::new(Processes::new(work.join("processes"), voice.clone())),
            mounts: mounts::Mounts::new(work.join("mounts.json")),
            ports: ports::Ports::new(work.join("ports.json"), facts.created_at.clone()),
            memory: Arc::new(Memory::new(self.launcher.clone(), facts.id.clone(), voice.clone())),
            changing: Mutex::new(Changing {
                lifecycle: facts.lifecycle,
                network: facts.plan.network.clone(),
                resources: facts.plan.resources.clone(),
                limits: running.as_ref().map(|running| running.isolation.limits.clone()).unwrap_or_default(),
                not_before: None,
            }),
            facts,
            running,
            agent,
            rest,
            activity: Activity::new(),
            voice,
            paused: AtomicBool::new(false),
            pausing: tokio::sync::Mutex::default(),
            commands: Mutex::default(),
            files: files::Held::default(),
            sessions: session::Sessions::new(work.join("sessions.json")),
            contexts: context::Contexts::new(work.join("contexts.json")),
            terminals: terminal::Terminals::default(),
            recordings: recording::Recordings::new(work.join("recordings")),
            lease,
            place,
            share,
        }
    }

    /// Removes what is left of sandboxes that went while serve did not look.
    fn clear_work(&self, unreadable: &[SandboxId]) {
        let entries = self.lock();
        for found in std::fs::read_dir(&self.work).into_iter().flatten().flatten() {
            let known = found.file_name().to_str().and_then(|name| SandboxId::parse(name).ok());
            if !known.is_some_and(|id| entries.contains_key(&id) || unreadable.contains(&id))
                && !self.former.is(&found.path())
            {
                remove_work(&found.path());
            }
        }
    }
}

fn remove_work(directory: &std::path::Path) {
    match std::fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, directory = %directory.display(), "cannot remove a directory"),
    }
}

impl Sandboxes {
    /// Starts a command in a sandbox, which is woken for it. When it was stopped right before the command could begin it is
    /// woken again.
    ///
    /// # Errors
    /// As [`awake`](Self::awake) and [`Sandbox::run`].
    pub async fn run(&self, caller: &Caller, id: &SandboxId, spec: CommandSpec) -> Result<Command, Error> {
        let mut attempts = 0;
        loop {
            let sandbox = self.awake(caller, id).await?;
            attempts += 1;
            match sandbox.run(spec.clone()).await {
                // One that ended by itself is still the one that is there.
                Err(error)
                    if command::is_not_begun(&error) && attempts < WAKES_MAX && !self.has(&sandbox) => {}
                ran => return ran,
            }
        }
    }
}

impl Sandbox {
    /// Starts a command.
    ///
    /// # Errors
    /// When it makes no sense, cannot be started, or the sandbox has ended.
    pub async fn run(self: &Arc<Self>, spec: CommandSpec) -> Result<Command, Error> {
        let agent = self.agent().ok_or_else(|| command::not_begun(agent::Gone))?;
        let (argv, record) = (spec.argv.clone(), spec.record);
        let resolved = self.complete(spec)?;
        let recorder = record.map(|how| self.record_command(how, argv.first(), &resolved.env)).transpose()?;
        let started =
            Command::start(Arc::clone(agent), Arc::clone(&self.memory), resolved, |number, id, pid| {
                self.enlist(number, id, pid, argv)
            });
        let mut command = started.await?;
        command.recorder = recorder.inspect(|recorder| recorder.keep(true));
        Ok(command)
    }

    /// A specification with what the sandbox adds to it.
    fn complete(&self, spec: CommandSpec) -> Result<Resolved, Error> {
        let user = match &spec.user {
            Some(user) => spec::user(user)?,
            None => self.user()?,
        };
        let cwd = spec.cwd.unwrap_or_else(|| self.facts.cwd.clone());
        spec::cwd(&cwd)?;
        let mut env = self.environment.get();
        env.extend(spec.env);
        spec::strings(&spec.argv, &env)?;
        let CommandSpec { timeout, stdin, secret, .. } = spec;
        Ok(Resolved { argv: spec.argv, env, cwd, user, timeout, stdin, secret })
    }

    fn enlist(self: &Arc<Self>, number: u32, id: &str, pid: i32, argv: Vec<String>) -> Listed {
        let started_at = jiff::Timestamp::now().to_string();
        // Arguments may hold what is nobody else's business.
        self.voice
            .say(Kind::CommandStarted, serde_json::json!({"id": id, "program": argv.first(), "pid": pid}));
        self.lock_commands().insert(number, CommandView { id: id.to_owned(), argv, pid, started_at });
        let (sandbox, used, id) = (Arc::clone(self), self.hold(), id.to_owned());
        Listed::new(move |exit| {
            let _ = &used;
            sandbox.lock_commands().remove(&number);
            sandbox.voice.say(Kind::CommandExited, command::exited(&id, exit));
        })
    }

    /// Goes on with what the agent kept for the daemon before this one, and ends what nobody knows any more.
    async fn take_up(&self, held: Vec<Held>) {
        let mut held: HashMap<u32, Held> =
            held.into_iter().filter(|held| held.kept).map(|held| (held.command, held)).collect();
        self.processes.adopt(self.agent(), &mut held).await;
        let Some(agent) = self.agent() else { return };
        for number in held.into_keys() {
            // Nobody was told that it exists, or its sandbox's files are gone.
            let _ = agent.kill(number).await;
            let _ = agent.forget(number).await;
        }
    }

    /// It does not run any more.
    fn give_back_share(&self) {
        if let Some(share) = &self.share {
            share.give_back();
        }
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        // Each of its parts stands for itself.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_commands(&self) -> MutexGuard<'_, BTreeMap<u32, CommandView>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agent(&self) -> Option<&Arc<Agent>> {
        self.agent.as_ref().filter(|agent| agent.is_alive())
    }

    /// The sandbox's files, as seen by one of its users; by its own one if none is named.
    ///
    /// # Errors
    /// When the user is not one, or the sandbox has ended.
    pub fn files(&self, user: Option<&str>) -> Result<files::Files, Error> {
        let agent = self.agent().ok_or_else(|| command::dead(agent::Gone))?;
        let user = spec::user(user.unwrap_or(&self.facts.user))?;
        Ok(self.files.of(Arc::clone(agent), user, self.facts.cwd.clone(), self.hold()))
    }

    fn user(&self) -> Result<User, Error> {
        spec::user(&self.facts.user)
    }

    /// The last step before the caller may know of it: what only the sandbox's own files can tell.
    async fn hand_over(&self, certificate: Option<&[u8]>) -> Result<(), Error> {
        if let Some(certificate) = certificate {
            self.trust(certificate).await?;
        }
        if self.facts.user == "0" {
            return Ok(());
        }
        // Its files may be on a disk that its own limits make slow.
        tokio::time::timeout(TRY_USER, self.try_user()).await.map_err(|_| {
            Error::new(ErrorCode::CapacityExhausted, "the sandbox did not answer in time; it was removed")
                .hint("its limits on processor or disk may be too low for anything")
        })?
    }

    /// Whether the sandbox's user exists: a command that cannot be executed gets past finding its user.
    async fn try_user(&self) -> Result<(), Error> {
        let agent = self.agent().ok_or_else(|| command::dead(agent::Gone))?;
        let resolved = Resolved {
            // The root directory is in every image, and is no program.
            argv: vec!["/".to_owned()],
            env: BTreeMap::new(),
            cwd: self.facts.cwd.clone(),
            user: self.user()?,
            timeout: None,
            stdin: false,
            secret: None,
        };
        let mut command = Command::start(Arc::clone(agent), Arc::clone(&self.memory), resolved, |_, _, _| {
            Listed::new(|_| {})
        })
        .await?;
        match command.wait().await {
            Err(error) if error.code == ErrorCode::CommandNotExecutable => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(ErrorCode::Internal, "a directory was executed")),
        }
    }

    /// The commands that run.
    pub fn commands(&self) -> Vec<CommandView> {
        self.lock_commands().values().cloned().collect()
    }

    /// Sends a signal to the first process of a command.
    ///
    /// # Errors
    /// `COMMAND_NOT_FOUND` when it has ended or never was.
    pub async fn signal(&self, command: &str, signal: i32) -> Result<(), Error> {
        let number = command.strip_prefix('c').and_then(|number| number.parse().ok());
        let number = number.filter(|number| self.lock_commands().contains_key(number)).ok_or_else(|| {
            Error::new(ErrorCode::CommandNotFound, "the command does not exist or has ended")
                .hint("GET …/commands lists those that run")
        })?;
        let agent = self.agent().ok_or_else(|| command::dead(agent::Gone))?;
        agent.signal(number, signal, false).await.map_err(command::dead)
    }
}

/// A number for the first command after a restart that no command of the daemon before can have: the seconds of
/// the clock, a thousand to each.
fn first_number() -> u32 {
    let seconds = jiff::Timestamp::now().as_second().rem_euclid(1 << 21);
    u32::try_from(seconds * 1000).unwrap_or(1)
}
