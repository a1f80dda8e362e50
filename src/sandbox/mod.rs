//! The life of sandboxes, seen from serve: who owns which, what they are, and the commands in them.
//!
//! ```text
//!            create                     agent's connection closes
//!   (none) ─────────▶ creating ─▶ running ─────────────────────────▶ dead
//!      ▲                 │ failed     │ destroy                        │ destroy
//!      └─────────────────┴────────────┴────────────────────────────────┘
//! ```
//!
//! The kernel's truth is launch's: at start serve asks it which sandboxes run and reconnects to their agents.
//! What serve itself knows of a sandbox, its specification and owner, lies in `runtime_dir/index`; a running
//! sandbox without that file was never handed to anybody, and is destroyed.

mod agent;
mod caller;
pub mod catalog;
mod command;
mod context;
mod environment;
pub mod files;
mod git;
mod index;
pub mod launcher;
mod memory;
mod network;
mod ports;
mod process;
mod random;
mod session;
mod spec;
mod strict;
mod terminal;
#[cfg(test)]
pub(crate) mod twin;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use caller::Caller;
pub use command::{Command, CommandExit, CommandSpec, CommandView};
pub use context::{
    CodeError, CodeRun, ContextEvent, ContextSpec, ContextView, Language, RunEnd, RunSpec, Shown,
};
pub use git::{CloneSpec, Cloned, Login, RepositoryUrl};
pub use network::{
    AwsCredential, BasicCredential, Egress, HeaderCredential, NetworkChange, NetworkEvents, NetworkHost,
    NetworkLimits, NetworkPolicy, NetworkView, parse_policy,
};
pub use ports::{PortConnection, PortSpec, PortView, Preview};
pub use process::log::{Extent, Piece, Reader, Stream};
pub use process::probe::{HttpProbe, PortMatch, Probe};
pub use process::wait::{Condition, LogMatch, Matcher, Met};
pub use process::{CommandUsage, OnExit, Process, ProcessSpec, ProcessState, ProcessView};
pub use session::{SessionCommand, SessionScript, SessionSpec, SessionView, Work};
pub use spec::{ResourcesSpec, SandboxSpec};
pub(crate) use strict::object;
pub use terminal::{Sight, Terminal, TerminalSpec, TerminalView, Viewer, exit_code};
pub use view::{ImageView, SandboxView, State};

use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::wire::agent::Held;
use crate::wire::agent::User;
use crate::wire::launch::{Answer, Call, Host, Plan, Root, Running, Settings};
use agent::Agent;
use catalog::{Catalog, HOST_IMAGE, Lease};
use command::{Listed, Resolved};
use environment::Environment;
pub use environment::EnvironmentChange;
use launcher::{Launcher, LauncherError, launcher_error};
use memory::Memory;
use process::Processes;
use random::random_id;

/// How long looking up a new sandbox's user may take.
const TRY_USER: std::time::Duration = std::time::Duration::from_secs(10);

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
    index: PathBuf,
    /// What serve keeps of sandboxes beside the index: a directory for each that needs one.
    work: PathBuf,
    /// Tokens of sandboxes that were destroyed.
    former: ports::Former,
    entries: Mutex<HashMap<SandboxId, Entry>>,
}

#[derive(Clone, Debug)]
enum Entry {
    /// Somebody creates or destroys it.
    Busy(Busy),
    Here(Arc<Sandbox>),
}

#[derive(Clone, Debug)]
struct Busy {
    /// Closes when that is over.
    done: watch::Receiver<()>,
    owner_uid: u32,
    /// Ends a creation that waits for something.
    cancel: CancellationToken,
}

impl Busy {
    async fn over(mut self) {
        while self.done.changed().await.is_ok() {}
    }
}

/// One sandbox.
#[derive(Debug)]
pub struct Sandbox {
    facts: Facts,
    running: Option<Running>,
    agent: Option<Arc<Agent>>,
    memory: Arc<Memory>,
    commands: Mutex<BTreeMap<u32, CommandView>>,
    files: files::Held,
    environment: Environment,
    /// One change of its network at a time.
    network: tokio::sync::Mutex<()>,
    processes: Arc<Processes>,
    ports: ports::Ports,
    sessions: session::Sessions,
    contexts: context::Contexts,
    terminals: terminal::Terminals,
    /// Keeps the image's layers in the store.
    _lease: Option<Lease>,
}

/// What serve knows of a sandbox, as it lies in the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    id: SandboxId,
    owner_uid: u32,
    created_at: String,
    /// As asked, to compare with when the same id is asked for again.
    spec: SandboxSpec,
    image: ImageView,
    /// As resolved: the image's and the request's.
    env: BTreeMap<String, String>,
    cwd: String,
    user: String,
    plan: Plan,
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
    ) -> Result<Self, LauncherError> {
        let index = PathBuf::from(&settings.runtime_dir).join("index");
        let work = PathBuf::from(&settings.state_dir).join("work");
        let (entries, gateway) = (Mutex::default(), network::Peer::default());
        let former = ports::Former::open(&work);
        let inner = Inner { launcher, gateway, catalog, settings, host, index, work, former, entries };
        let this = Self(Arc::new(inner));
        let mut running: Vec<Running> = Vec::new();
        loop {
            let after = running.last().map(|last| last.id.clone());
            match this.0.launcher.call(Call::List { after }, &[]).await? {
                (Answer::Sandboxes(more), _) if !more.is_empty() => running.extend(more),
                _ => break,
            }
        }
        this.adopt(running).await;
        Ok(this)
    }

    async fn adopt(&self, running: Vec<Running>) {
        let mut running: HashMap<_, _> = running.into_iter().map(|one| (one.id.clone(), one)).collect();
        for facts in index::read(&self.0.index) {
            let running = running.remove(&facts.id);
            let (agent, held) = match &running {
                Some(running) => self.connect(&running.id).await.unzip(),
                None => (None, None),
            };
            let lease = match (&facts.plan.root, &facts.image.digest) {
                (Root::Layers(layers), Some(digest)) => crate::id::Digest::parse(digest)
                    .ok()
                    .map(|digest| self.0.catalog.adopt(digest, layers.clone())),
                _ => None,
            };
            let sandbox = self.0.sandbox(facts, running, agent, lease);
            if sandbox.agent.is_some() {
                sandbox.memory.look().await;
            }
            sandbox.take_up(held.unwrap_or_default()).await;
            self.0.lock().insert(sandbox.facts.id.clone(), Entry::Here(Arc::new(sandbox)));
        }
        self.0.clear_work();
        // What nobody was ever told of.
        for id in running.into_keys() {
            tracing::warn!(%id, "destroying a sandbox that was never handed out");
            let _ = self.0.launcher.call(Call::Destroy { id }, &[]).await;
        }
    }

    async fn connect(&self, id: &SandboxId) -> Option<(Arc<Agent>, Vec<Held>)> {
        let answer = self.0.launcher.call(Call::Connect { id: id.clone() }, &[]).await;
        let socket = answer.ok()?.1.pop()?;
        match Agent::adopt(socket, first_number()).await {
            Ok(adopted) => Some(adopted),
            Err(error) => {
                tracing::warn!(%id, %error, "cannot talk to a sandbox that runs");
                None
            }
        }
    }

    /// Creates a sandbox, or finds the one of the same id and specification. True when it is new.
    ///
    /// # Errors
    /// Every code that a specification, the image or the host can cause. Nothing is left behind.
    pub async fn create(&self, caller: &Caller, spec: SandboxSpec) -> Result<(Arc<Sandbox>, bool), Error> {
        spec::check(&spec)?;
        let id = spec.id.clone().unwrap_or_else(random_id);
        let (busy, done) = watch::channel(());
        let mine = Busy { done, owner_uid: caller.uid, cancel: CancellationToken::new() };
        loop {
            let found = match self.0.lock().entry(id.clone()) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(Entry::Busy(mine.clone()));
                    break;
                }
                std::collections::hash_map::Entry::Occupied(occupied) => occupied.get().clone(),
            };
            match found {
                // Whoever is at it, creating or destroying: look again when that is over.
                Entry::Busy(busy) => busy.over().await,
                Entry::Here(sandbox) => return same(caller, &sandbox, &spec).map(|()| (sandbox, false)),
            }
        }
        let mut claim = Claim { inner: Arc::clone(&self.0), id: id.clone(), outcome: None, _busy: busy };
        let sandbox = Arc::new(self.make(caller, id, spec, &mine.cancel).await?);
        claim.outcome = Some(Arc::clone(&sandbox));
        Ok((sandbox, true))
    }

    async fn make(
        &self,
        caller: &Caller,
        id: SandboxId,
        mut spec: SandboxSpec,
        cancel: &CancellationToken,
    ) -> Result<Sandbox, Error> {
        let egress = network::begin(&id, &mut spec)?;
        let base = self.resolve(&spec)?;
        let resources = spec::resources(&spec.resources, spec.durability, &self.0.settings, &self.0.host)?;
        let cwd = spec.cwd.clone().or(base.cwd).unwrap_or_else(|| "/".to_owned());
        let user = spec.user.clone().or(base.user).unwrap_or_else(|| "0".to_owned());
        let mut env = BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
        env.extend(base.env);
        if egress.certificate.is_some() {
            env.extend(network::trust_variables());
        }
        env.extend(spec.env.clone());
        let plan = Plan {
            id: id.clone(),
            root: base.root,
            hostname: spec.hostname.clone().unwrap_or_default(),
            profile: spec.profile,
            resources,
            durability: spec.durability,
            network: spec.network.as_ref().map(|egress| egress.policy.clone()),
            directories: if cwd == "/" { Vec::new() } else { vec![cwd.clone()] },
        };
        let facts = Facts {
            id: id.clone(),
            owner_uid: caller.uid,
            created_at: jiff::Timestamp::now().to_string(),
            spec,
            image: base.image,
            env,
            cwd,
            user,
            plan,
        };
        let path = self.0.index.join(format!("{id}.json"));
        let draft = path.with_extension("new");
        // While the launcher works.
        let write = async { serde_json::to_vec(&facts).map(|text| std::fs::write(&draft, text)) };
        let (launched, written) = tokio::join!(self.launch(&facts.plan, egress.secrets), write);
        let handed_over = async {
            let (running, agent) = launched?;
            let recorded = written.map_err(std::io::Error::from).flatten();
            recorded
                .and_then(|()| std::fs::rename(&draft, &path))
                .map_err(|error| Error::internal("cannot record the sandbox", error))?;
            let sandbox = self.0.sandbox(facts, Some(running), Some(agent), base.lease);
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::new(
                    ErrorCode::SandboxBusy,
                    "the sandbox was destroyed while it was being created",
                )),
                handed_over = sandbox.hand_over(egress.certificate.as_deref()) => handed_over.map(|()| sandbox),
            }
        };
        let handed_over = handed_over.await;
        if handed_over.is_err() {
            let _ = self.0.launcher.call(Call::Destroy { id: id.clone() }, &[]).await;
            let _ = std::fs::remove_file(&draft);
            self.0.forget(&id);
        }
        handed_over
    }

    async fn launch(&self, plan: &Plan, secrets: Option<OwnedFd>) -> Result<(Running, Arc<Agent>), Error> {
        let call = Call::Create(Box::new(plan.clone()));
        let (running, socket) = match self.0.launcher.call(call, secrets.as_slice()).await {
            Ok((Answer::Created(running), mut fds)) => (*running, fds.pop()),
            Ok(_) => return Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(error) => return Err(launcher_error(error)),
        };
        let socket =
            socket.ok_or_else(|| Error::new(ErrorCode::Internal, "the launcher sent no connection"))?;
        let agent =
            Agent::start(socket).map_err(|error| Error::internal("cannot talk to the sandbox", error))?;
        Ok((running, agent))
    }

    fn resolve(&self, spec: &SandboxSpec) -> Result<Base, Error> {
        if spec.image == HOST_IMAGE {
            return Ok(Base {
                root: Root::Host,
                image: ImageView { reference: HOST_IMAGE.to_owned(), digest: None },
                env: BTreeMap::new(),
                cwd: Some("/workspace".to_owned()),
                user: None,
                lease: None,
            });
        }
        let image = self.0.catalog.resolve(&spec.image)?;
        let filled = |text: String| (!text.is_empty()).then_some(text);
        // An entry without a name is the image's mistake, and nothing could run with it.
        let env = image.config.env.iter().filter_map(|entry| entry.split_once('='));
        let env = env.filter(|(name, _)| !name.is_empty());
        Ok(Base {
            root: Root::Layers(image.layers),
            image: ImageView { reference: image.reference, digest: Some(image.digest.to_string()) },
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: filled(image.config.working_dir),
            user: filled(image.config.user),
            lease: Some(image.lease),
        })
    }

    /// The sandboxes that the caller may see, by id.
    pub fn list(&self, caller: &Caller) -> Vec<Arc<Sandbox>> {
        let mut sandboxes: Vec<_> = self
            .0
            .lock()
            .values()
            .filter_map(|entry| match entry {
                Entry::Here(sandbox) if caller.may_see(sandbox.facts.owner_uid) => Some(Arc::clone(sandbox)),
                _ => None,
            })
            .collect();
        sandboxes.sort_unstable_by(|a, b| a.facts.id.cmp(&b.facts.id));
        sandboxes
    }

    /// Finds a sandbox.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`, also for somebody else's: that it exists is not the caller's business.
    pub fn get(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        match self.0.lock().get(id) {
            Some(Entry::Here(sandbox)) if caller.may_see(sandbox.facts.owner_uid) => Ok(Arc::clone(sandbox)),
            _ => Err(not_found(id)),
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
                        let mine = Busy { done, owner_uid, cancel: CancellationToken::new() };
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
        let claim = Claim { inner: Arc::clone(&self.0), id: id.clone(), outcome: Some(sandbox), _busy: busy };
        // A caller that goes away does not leave it half-destroyed.
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        let task = tokio::spawn(async move {
            let mut claim = claim;
            // Forgotten while the launcher works: one that it still knows and the index does not is destroyed at
            // the next start.
            let call = inner.launcher.call(Call::Destroy { id: id.clone() }, &[]);
            let (destroyed, ()) = tokio::join!(call, async { inner.forget(&id) });
            if destroyed.is_ok() {
                if let Some(sandbox) = claim.outcome.take() {
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

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Entry>> {
        // Every operation on the map is one insert, remove or look-up: valid after any panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox(
        &self,
        facts: Facts,
        running: Option<Running>,
        agent: Option<Arc<Agent>>,
        lease: Option<Lease>,
    ) -> Sandbox {
        let work = self.work.join(facts.id.as_str());
        Sandbox {
            environment: Environment::new(work.join("env.json"), &facts.env),
            network: tokio::sync::Mutex::default(),
            processes: Arc::new(Processes::new(work.join("processes"))),
            ports: ports::Ports::new(work.join("ports.json"), running.as_ref()),
            memory: Arc::new(Memory::new(self.launcher.clone(), facts.id.clone())),
            facts,
            running,
            agent,
            commands: Mutex::default(),
            files: files::Held::default(),
            sessions: session::Sessions::default(),
            contexts: context::Contexts::default(),
            terminals: terminal::Terminals::default(),
            _lease: lease,
        }
    }

    fn forget(&self, id: &SandboxId) {
        // Absent is what is wanted.
        let _ = std::fs::remove_file(self.index.join(format!("{id}.json")));
    }

    /// Removes what is left of sandboxes that went while serve did not look.
    fn clear_work(&self) {
        let entries = self.lock();
        for found in std::fs::read_dir(&self.work).into_iter().flatten().flatten() {
            let known = found.file_name().to_str().and_then(|name| SandboxId::parse(name).ok());
            if !known.is_some_and(|id| entries.contains_key(&id)) && !self.former.is(&found.path()) {
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

/// A busy entry: replaced by its outcome when dropped, whatever way the owner ends. Then those who wait look again.
struct Claim {
    inner: Arc<Inner>,
    id: SandboxId,
    outcome: Option<Arc<Sandbox>>,
    _busy: watch::Sender<()>,
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

/// What the image, or `host`, says.
struct Base {
    root: Root,
    image: ImageView,
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    lease: Option<Lease>,
}

impl Sandbox {
    /// Starts a command.
    ///
    /// # Errors
    /// When it makes no sense, cannot be started, or the sandbox has ended.
    pub async fn run(self: &Arc<Self>, spec: CommandSpec) -> Result<Command, Error> {
        let agent = self.agent().ok_or_else(|| command::dead(agent::Gone))?;
        let argv = spec.argv.clone();
        let resolved = self.complete(spec)?;
        Command::start(Arc::clone(agent), Arc::clone(&self.memory), resolved, |number, id, pid| {
            self.enlist(number, id, pid, argv)
        })
        .await
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
        self.lock_commands().insert(number, CommandView { id: id.to_owned(), argv, pid, started_at });
        let sandbox = Arc::clone(self);
        Listed(Box::new(move || {
            sandbox.lock_commands().remove(&number);
        }))
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
        Ok(self.files.of(Arc::clone(agent), user, self.facts.cwd.clone()))
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
            Listed(Box::new(|| {}))
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

/// Whether a sandbox is what is asked for again.
fn same(caller: &Caller, sandbox: &Sandbox, spec: &SandboxSpec) -> Result<(), Error> {
    if caller.may_see(sandbox.facts.owner_uid) && sandbox.facts.spec == *spec {
        return Ok(());
    }
    Err(Error::new(ErrorCode::SandboxConflict, "the id is taken by a sandbox with another specification")
        .hint("use another id, or delete that sandbox first"))
}

/// A number for the first command after a restart that no command of the daemon before can have: the seconds of
/// the clock, a thousand to each.
fn first_number() -> u32 {
    let seconds = jiff::Timestamp::now().as_second().rem_euclid(1 << 21);
    u32::try_from(seconds * 1000).unwrap_or(1)
}
