//! Sessions: a bash each, whose directory, variables, functions and options live on between commands.
//!
//! ```text
//! run ─▶ lock of the session (first come, first served) ─▶ turn ─▶ shell ─▶ bash
//!                                                            │ report, time is up, bash ended, caller left
//!                                                            ▼
//!                                      CommandExit ─▶ caller reads the rest ─▶ next turn
//! ```
//!
//! A turn is a task of its own: whoever asked may leave at any moment, and the shell still comes back to where it can
//! take the next command. What a command has started in the background goes on after it, until the session ends: an
//! interruption kills what the interrupted command itself has started, and all only when the shell would be lost else.

mod driver;
mod shell;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::Sandbox;
use super::agent::{Agent, Gone, Outcome};
use super::command::{CommandExit, dead, environment};
use super::lifecycle::Use;
use super::memory::Memory;
use super::recording::{RecordSpec, Recorded, Recorder};
use super::records;
use super::spec;
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::wire::agent::{Exit, User};
use shell::{Ended, Left, Script, Shell, Start, Surroundings};

/// How long somebody who only looks waits for the command that runs.
const LOOK: Duration = Duration::from_secs(10);

/// How long a deleted session's processes may take to end.
const END: Duration = Duration::from_secs(10);

/// SIGKILL (signal(7)).
const KILL: i32 = 9;

/// The session that is there without being made.
const DEFAULT_SESSION: &str = "default";

/// A session to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionSpec {
    /// Its name; chosen when absent.
    pub id: Option<ItemId>,
    /// Where it begins; the sandbox's directory when absent.
    pub cwd: Option<String>,
    /// Beside the sandbox's own; wins over it.
    pub env: BTreeMap<String, String>,
    /// User; the sandbox's when absent.
    pub user: Option<String>,
}

/// A command for a session.
#[derive(Clone, Debug, Default)]
pub struct SessionScript {
    /// What bash is to do.
    pub script: Work,
    /// For this command alone.
    pub env: BTreeMap<String, String>,
    /// For this command alone.
    pub cwd: Option<String>,
    /// When it is interrupted, from its start.
    pub timeout: Option<Duration>,
    /// What it reads; the session's input when absent, which is empty.
    pub input: Option<Vec<u8>>,
    /// Whether, and how, it is recorded.
    pub record: Option<RecordSpec>,
}

/// What bash is to do.
#[derive(Clone, Debug)]
pub enum Work {
    /// A command with its arguments: a program, a function or a builtin.
    Argv(Vec<String>),
    /// A script.
    Script(String),
}

impl Default for Work {
    fn default() -> Self {
        Self::Script(String::new())
    }
}

/// A session, in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its name.
    pub id: String,
    /// Pid of its bash, as seen in the sandbox, while there is one: it ends with `exit`, and the next command starts
    /// another.
    pub pid: Option<i32>,
    /// Where it begins.
    pub cwd: String,
    /// What it was given beside the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as.
    pub user: String,
    /// Commands that run or wait for their turn.
    pub commands: usize,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// All sessions of a sandbox. That they are there, and how they were made, outlives their daemon; what their shells knew
/// does not.
#[derive(Debug)]
pub(super) struct Sessions {
    path: PathBuf,
    known: Mutex<BTreeMap<ItemId, Arc<Session>>>,
}

/// How a session was made.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    spec: SessionSpec,
    created_at: String,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    id: ItemId,
    spec: SessionSpec,
    created_at: String,
    shell: Arc<tokio::sync::Mutex<Option<Shell>>>,
    seen: Mutex<Seen>,
}

/// What can be known of a session without waiting for its turn.
#[derive(Debug, Default)]
struct Seen {
    number: Option<u32>,
    pid: Option<i32>,
    commands: usize,
    turns: u64,
    deleted: bool,
}

impl Sessions {
    /// What the file says is there.
    pub(super) fn new(path: PathBuf) -> Self {
        let left: BTreeMap<ItemId, Record> = records::read(&path);
        let known = left.into_iter().map(|(id, record)| (id.clone(), Session::new(id, record)));
        Self { path, known: Mutex::new(known.collect()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ItemId, Arc<Session>>> {
        // Every operation is one insert, remove or look-up.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a new one.
    fn add(&self, session: &Arc<Session>) -> Result<(), Error> {
        let (id, mut known) = (&session.id, self.lock());
        if known.contains_key(id) {
            return Err(Error::new(ErrorCode::SessionExists, format!("there is a session {id} already"))
                .hint("use it, delete it first, or choose another id"));
        }
        known.insert(id.clone(), Arc::clone(session));
        self.save(&known).map_err(|error| {
            known.remove(id);
            Error::internal("cannot record the session", error)
        })
    }

    /// Takes one away, if it is one of these.
    fn remove(&self, id: &ItemId, which: impl FnOnce(&Arc<Session>) -> bool) -> Option<Arc<Session>> {
        let mut known = self.lock();
        if !known.get(id).is_some_and(which) {
            return None;
        }
        let removed = known.remove(id);
        if let Err(error) = self.save(&known) {
            // The next daemon shows one that can be deleted again.
            tracing::warn!(%id, %error, "cannot record that a session is gone");
        }
        removed
    }

    fn save(&self, known: &BTreeMap<ItemId, Arc<Session>>) -> std::io::Result<()> {
        let record =
            |session: &Session| Record { spec: session.spec.clone(), created_at: session.created_at.clone() };
        records::write(&self.path, &known.iter().map(|(id, session)| (id.clone(), record(session))).collect())
    }
}

impl Session {
    /// One without a shell, which the first command starts.
    fn new(id: ItemId, Record { spec, created_at }: Record) -> Arc<Self> {
        Arc::new(Self { id, spec, created_at, shell: Arc::default(), seen: Mutex::default() })
    }

    /// One that is made now.
    fn made(id: ItemId, spec: SessionSpec) -> Arc<Self> {
        Self::new(id, Record { spec, created_at: jiff::Timestamp::now().to_string() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Plain values: valid after any panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts bash if there is none.
    async fn ready<'a>(
        &self,
        place: &'a mut Option<Shell>,
        agent: &Arc<Agent>,
        start: Start,
    ) -> Result<&'a mut Shell, Error> {
        if self.seen().deleted {
            return Err(deleted(&self.id));
        }
        let lives = place.as_mut().is_some_and(Shell::lives);
        if !lives {
            *place = None;
            let shell = Shell::start(Arc::clone(agent), start).await?;
            let gone = {
                let mut seen = self.seen();
                (seen.number, seen.pid) = (Some(shell.number()), Some(shell.pid()));
                seen.deleted
            };
            // Whoever deleted it meanwhile had no number to kill; dropping the shell does.
            if gone {
                return Err(deleted(&self.id));
            }
            *place = Some(shell);
        }
        place.as_mut().ok_or_else(|| dead(Gone))
    }

    /// The shell is gone.
    fn lost(&self, place: &mut Option<Shell>, ended: Ended, oom_killed: bool) -> Error {
        *place = None;
        let gone = {
            let mut seen = self.seen();
            (seen.number, seen.pid) = (None, None);
            seen.deleted
        };
        match ended {
            _ if gone => deleted(&self.id),
            Ended::Outcome(Outcome::Exited(exit, _)) => ended_error(&self.id, exit, oom_killed),
            Ended::Outcome(Outcome::Failed(..)) | Ended::Gone => dead(Gone),
        }
    }
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::SessionNotFound, format!("there is no session {id}"))
        .hint("GET …/sessions lists them; `default` is always there")
}

/// What is said of commands that a deleted session had, whether they ran or waited.
fn deleted(id: &ItemId) -> Error {
    Error::new(ErrorCode::SessionEnded, "the session was deleted")
        .hint("make another, or use `default`, which is always there")
        .context(serde_json::json!({"session": id.as_str(), "exit_code": 128 + KILL, "oom_killed": false}))
}

fn ended_error(id: &ItemId, exit: Exit, oom_killed: bool) -> Error {
    let (code, signal) = match exit {
        Exit::Code(code) => (code, None),
        Exit::Signal(signal) => (128 + signal, Some(signal)),
    };
    let how = match signal {
        None => format!("exit code: {code}"),
        Some(signal) => format!("exit code: {code}, killed by signal {signal}"),
    };
    Error::new(ErrorCode::SessionEnded, format!("the session's shell exited ({how})"))
        .hint("the next command starts it afresh, with its first directory and environment")
        .context(serde_json::json!({"session": id.as_str(), "exit_code": code, "oom_killed": oom_killed}))
}

/// A command of a session. Dropping it before [`wait`](Self::wait) has returned interrupts it; dropping it afterwards
/// lets the session's next command begin.
#[derive(Debug)]
pub struct SessionCommand {
    /// Its name.
    pub id: String,
    /// Pid of bash, as seen in the sandbox.
    pub pid: i32,
    /// Its stdout, byte for byte. It has no end: what is in it when the command has ended is the rest.
    pub stdout: Option<pipe::Receiver>,
    /// Its stderr, in the same way.
    pub stderr: Option<pipe::Receiver>,
    /// For whoever reads these, if it is recorded.
    pub recorder: Option<Arc<Recorder>>,
    /// What jobs of earlier commands wrote to either before it began.
    pub(super) left: Left,
    exit: oneshot::Receiver<Result<CommandExit, Error>>,
    stop: CancellationToken,
    _owner: oneshot::Sender<Infallible>,
    _used: Use,
}

impl SessionCommand {
    /// Interrupts it, as its timeout does: [`wait`](Self::wait) says what became of it and of the session.
    pub(crate) fn interrupt(&self) {
        self.stop.cancel();
    }

    /// Waits until the command has ended. Cancel-safe.
    ///
    /// # Errors
    /// `SESSION_ENDED` when the shell did; when the sandbox did.
    pub async fn wait(&mut self) -> Result<CommandExit, Error> {
        // The task that would answer ends without an answer only when the runtime does.
        (&mut self.exit).await.unwrap_or_else(|_| Err(dead(Gone)))
    }
}

/// What a caller is told when the command has begun.
struct Begun {
    id: String,
    pid: i32,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    left: Left,
}

/// One command on its way through its session.
struct Turn {
    session: Arc<Session>,
    agent: Arc<Agent>,
    memory: Arc<Memory>,
    start: Start,
    script: Script,
    timeout: Option<Duration>,
    /// Fires when the caller wants it interrupted.
    stop: CancellationToken,
    /// Closed when the caller has left.
    owner: oneshot::Receiver<Infallible>,
}

impl Turn {
    /// Runs it. The caller hears that it began, or why not, and then how it ended.
    async fn run(
        mut self,
        begun: oneshot::Sender<Result<Begun, Error>>,
        exit: oneshot::Sender<Result<CommandExit, Error>>,
    ) {
        self.session.seen().commands += 1;
        let place = tokio::select! {
            biased;
            _ = &mut self.owner => None,
            place = Arc::clone(&self.session.shell).lock_owned() => Some(place),
        };
        if let Some(mut place) = place {
            self.go(&mut place, begun, exit).await;
        }
        self.session.seen().commands -= 1;
    }

    async fn go(
        &mut self,
        place: &mut OwnedMutexGuard<Option<Shell>>,
        begun: oneshot::Sender<Result<Begun, Error>>,
        exit: oneshot::Sender<Result<CommandExit, Error>>,
    ) {
        let nonce = nonce();
        match self.begin(place, &nonce).await {
            Ok(ready) => drop(begun.send(Ok(ready))),
            Err(error) => return drop(begun.send(Err(error))),
        }
        let ended = self.end(place, &nonce, Instant::now()).await;
        if let Some(shell) = place.as_mut() {
            shell.leave();
        }
        if exit.send(ended).is_ok() {
            // The caller reads what is left, and then leaves.
            let _ = (&mut self.owner).await;
        }
        if let Some(shell) = place.as_ref() {
            shell.rest();
        }
    }

    async fn begin(&self, place: &mut Option<Shell>, nonce: &str) -> Result<Begun, Error> {
        let shell = self.session.ready(place, &self.agent, self.start.clone()).await?;
        let number = {
            let mut seen = self.session.seen();
            seen.turns += 1;
            seen.turns
        };
        let exhausted = |error| {
            Error::new(ErrorCode::CapacityExhausted, "the daemon has no descriptors or memory left")
                .source(error)
        };
        let (stdout, stderr) = shell.streams().map_err(exhausted)?;
        let pid = shell.pid();
        let left = shell.run(nonce, &self.script).await.map_err(exhausted)?;
        Ok(Begun { id: format!("{}-{number}", self.session.id), pid, stdout, stderr, left })
    }

    async fn end(
        &mut self,
        place: &mut Option<Shell>,
        nonce: &str,
        began: Instant,
    ) -> Result<CommandExit, Error> {
        let Some(shell) = place.as_mut() else { return Err(dead(Gone)) };
        let deadline = self.timeout.and_then(|timeout| began.checked_add(timeout));
        let time_is_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let report = tokio::select! {
            report = shell.report(nonce) => Some(report),
            () = time_is_up => None,
            () = self.stop.cancelled() => None,
            _ = &mut self.owner => None,
        };
        let exit = |exit, timed_out, oom_killed| {
            let duration = began.elapsed();
            CommandExit { exit, usage: None, timed_out, oom_killed, duration }
        };
        match report {
            Some(Ok(report)) => {
                shell.remember(&report);
                let status = report.status.ok_or_else(|| {
                    Error::new(ErrorCode::InvalidCwd, "cannot enter the working directory")
                        .hint("name a directory that exists in the sandbox and that the user may enter")
                })?;
                let code = Exit::Code(i32::from(status));
                let oom_killed = self.memory.killed(began, code).await;
                Ok(exit(code, false, oom_killed))
            }
            Some(Err(ended)) => {
                let oom_killed = match ended {
                    Ended::Outcome(Outcome::Exited(exit, _)) => self.memory.killed(began, exit).await,
                    _ => false,
                };
                Err(self.session.lost(place, ended, oom_killed))
            }
            None => match shell.interrupt(nonce).await {
                Ok(()) => Ok(exit(Exit::Signal(KILL), true, false)),
                Err(ended) => {
                    let timed_out = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    let mut error = self.session.lost(place, ended, false);
                    // What ended the shell was us.
                    if let Some(context) = &mut error.context {
                        context["timed_out"] = timed_out.into();
                    }
                    Err(error)
                }
            },
        }
    }
}

/// 64 bits that nobody guesses.
fn nonce() -> String {
    let mut bytes = [0; 8];
    // The kernel's generator never fails once it is seeded, and it is long before we start.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

impl Sandbox {
    /// Makes a session and starts its bash.
    ///
    /// # Errors
    /// `SESSION_EXISTS`; `COMMAND_NOT_IN_IMAGE` without bash; as for commands.
    pub async fn create_session(self: &Arc<Self>, spec: SessionSpec) -> Result<SessionView, Error> {
        let agent = self.agent().ok_or_else(|| dead(Gone))?;
        let start = self.session_start(&spec)?;
        let id = match &spec.id {
            Some(id) => id.clone(),
            None => {
                ItemId::parse(&nonce()).map_err(|error| Error::internal("cannot name the session", error))?
            }
        };
        let session = Session::made(id, spec);
        self.sessions.add(&session)?;
        // A task of its own: a caller that leaves does not leave it half-made.
        let (agent, made) = (Arc::clone(agent), Arc::clone(&session));
        let task = tokio::spawn(async move {
            let mut place = made.shell.lock().await;
            made.ready(&mut place, &agent, start).await.map(drop)
        });
        let started =
            task.await.unwrap_or_else(|error| Err(Error::internal("starting the session failed", error)));
        if let Err(error) = started {
            self.forget_session(&session);
            return Err(error);
        }
        Ok(self.session_view(&session))
    }

    /// Everything that bash is started with.
    fn session_start(&self, spec: &SessionSpec) -> Result<Start, Error> {
        let cwd = spec.cwd.clone().unwrap_or_else(|| self.facts.cwd.clone());
        spec::cwd(&cwd)?;
        let mut env = self.environment.get();
        env.extend(spec.env.clone());
        spec::strings(&["bash".to_owned()], &env)?;
        Ok(Start { env: environment(env), cwd, user: self.session_user(spec)? })
    }

    fn session_user(&self, spec: &SessionSpec) -> Result<User, Error> {
        match &spec.user {
            Some(user) => super::spec::user(user),
            None => self.user(),
        }
    }

    fn session_view(&self, session: &Session) -> SessionView {
        let spec = &session.spec;
        let seen = session.seen();
        SessionView {
            id: session.id.to_string(),
            pid: seen.pid,
            cwd: spec.cwd.clone().unwrap_or_else(|| self.facts.cwd.clone()),
            env: spec.env.clone(),
            user: spec.user.clone().unwrap_or_else(|| self.facts.user.clone()),
            commands: seen.commands,
            created_at: session.created_at.clone(),
        }
    }

    /// The sessions, by name.
    pub fn sessions(&self) -> Vec<SessionView> {
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        sessions.iter().map(|session| self.session_view(session)).collect()
    }

    /// One session.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub fn session(&self, id: &str) -> Result<SessionView, Error> {
        self.find_session(id).map(|session| self.session_view(&session))
    }

    /// A session; the default one is made when it is not there.
    fn find_session(&self, id: &str) -> Result<Arc<Session>, Error> {
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        let mut sessions = self.sessions.lock();
        if id == DEFAULT_SESSION {
            let made = || {
                Session::made(name.clone(), SessionSpec { id: Some(name.clone()), ..SessionSpec::default() })
            };
            return Ok(Arc::clone(sessions.entry(name.clone()).or_insert_with(made)));
        }
        sessions.get(&name).cloned().ok_or_else(|| not_found(id))
    }

    fn forget_session(&self, session: &Arc<Session>) {
        drop(self.sessions.remove(&session.id, |found| Arc::ptr_eq(found, session)));
    }

    /// Ends a session: its bash and everything that it started is killed. Commands that wait for it are refused.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, and when the sandbox is gone.
    pub async fn delete_session(&self, id: &str) -> Result<(), Error> {
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        let session = self.sessions.remove(&name, |_| true).ok_or_else(|| not_found(id))?;
        let number = {
            let mut seen = session.seen();
            seen.deleted = true;
            seen.number
        };
        if let (Some(agent), Some(number)) = (self.agent(), number) {
            agent.kill(number).await.map_err(dead)?;
            // Its turn comes when what ran has heard of its end; what is left is dropped, which kills it again.
            if let Ok(mut place) = tokio::time::timeout(END, session.shell.lock()).await
                && let Some(mut shell) = place.take()
            {
                shell.wait().await;
            }
        }
        Ok(())
    }

    /// Starts a command in a session when its turn comes.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, and as for starting a session.
    pub async fn run_in_session(
        self: &Arc<Self>,
        id: &str,
        wanted: SessionScript,
    ) -> Result<SessionCommand, Error> {
        let agent = self.agent().ok_or_else(|| dead(Gone))?;
        let session = self.find_session(id)?;
        if let Some(name) = wanted.env.keys().find(|name| !driver::is_name(name)) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("bash can have no variable {name:?}"))
                .hint("names have letters, digits and '_'; give others when the session is made"));
        }
        let recorder = self.record_in_session(&wanted)?;
        let script = Script {
            text: match wanted.script {
                Work::Argv(argv) => driver::command(&argv),
                Work::Script(text) => text,
            },
            cwd: wanted.cwd,
            env: wanted.env,
            input: wanted.input,
        };
        let (owner, left) = oneshot::channel();
        let stop = CancellationToken::new();
        let turn = Turn {
            start: self.session_start(&session.spec)?,
            session,
            agent: Arc::clone(agent),
            memory: Arc::clone(&self.memory),
            script,
            timeout: wanted.timeout,
            stop: stop.clone(),
            owner: left,
        };
        let (begun, when_begun) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        tokio::spawn(turn.run(begun, exited));
        let Begun { id, pid, stdout, stderr, left } = when_begun.await.map_err(|_| dead(Gone))??;
        if let Some(recorder) = &recorder {
            recorder.keep(true);
        }
        Ok(SessionCommand {
            id,
            pid,
            stdout: Some(stdout),
            stderr: Some(stderr),
            recorder,
            left,
            exit,
            stop,
            _owner: owner,
            _used: self.hold(),
        })
    }

    fn record_in_session(&self, wanted: &SessionScript) -> Result<Option<Arc<Recorder>>, Error> {
        let Some(how) = wanted.record else { return Ok(None) };
        let bash = "bash".to_owned();
        let program = match &wanted.script {
            Work::Argv(argv) => argv.first(),
            Work::Script(_) => Some(&bash),
        };
        let recorder = self.record_command(how, program, &BTreeMap::new())?;
        // It lies ready for the command, all of it.
        recorder.add(Recorded::Input, wanted.input.as_deref().unwrap_or_default());
        Ok(Some(recorder))
    }

    /// Where a session is and what its programs see, and whom it runs as.
    pub(super) async fn look_into_session(&self, id: &str) -> Result<(Surroundings, User), Error> {
        let agent = self.agent().ok_or_else(|| dead(Gone))?;
        let session = self.find_session(id)?;
        let start = self.session_start(&session.spec)?;
        let (agent, user) = (Arc::clone(agent), start.user.clone());
        // As above.
        let task = tokio::spawn(async move {
            let place = tokio::time::timeout(LOOK, Arc::clone(&session.shell).lock_owned()).await;
            let mut place = place.map_err(|_| {
                Error::new(ErrorCode::SessionBusy, "the session's command does not end")
                    .hint("wait for it, or leave out `session`")
            })?;
            let shell = session.ready(&mut place, &agent, start).await?;
            match shell.surroundings(&nonce()).await {
                Ok(surroundings) => Ok(surroundings),
                Err(ended) => Err(session.lost(&mut place, ended, false)),
            }
        });
        let surroundings = task
            .await
            .unwrap_or_else(|error| Err(Error::internal("looking into the session failed", error)))?;
        Ok((surroundings, user))
    }
}
