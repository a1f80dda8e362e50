//! Background processes: they outlive the request that started them, and serve.
//!
//! ```text
//!  start ─▶ running ─(its first process ends; what it left is killed)─▶ exited, failed ─ remove ─▶ (none)
//!              │                                                          ▲
//!              └──────────────(the sandbox's first process ends)──▶ lost ─┘
//!
//!  process ─stdout, stderr─▶ pipes ─splice─▶ p<number>/*.log      while serve runs
//!                              └ held by the agent, never read    while it does not: the writer waits
//! ```
//!
//! Everything about a process that a restarted serve must know lies in `work/<sandbox>/processes` of the state directory.
//! The record is written when the process exists and again when it has ended; only then does the agent forget it.
//! A process without a record was never told of, and is killed.

pub(super) mod log;
pub(super) mod probe;
mod record;
mod run;
mod view;
pub(super) mod wait;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) use log::behind_the_end;
pub use record::OnExit;
pub use view::{CommandUsage, ProcessState, ProcessView};

use super::agent::{Agent, Begun, Gone, Outcome, Started};
use super::command::{self, Pipes, Resolved, dead, refusal};
use super::{CommandSpec, Sandbox};
use crate::error::{Error, ErrorCode};
use crate::journal::feed::{Kind, Voice};
use crate::limits::{PROCESSES_MAX, SANDBOX_LOG_BYTES_MAX};
use crate::sys::watched::Watched;
use crate::wire::agent::{Exec, Held, Program};
use log::Log;
use record::{End, How, Record};

/// How long the end of a process that was killed with its sandbox may take to be written down.
const ENDED_TIMEOUT: Duration = Duration::from_secs(5);

/// A process to start.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Its id; from its number when absent.
    pub id: Option<String>,
    /// What runs.
    pub command: CommandSpec,
    /// What becomes of it when it has ended.
    pub on_exit: OnExit,
    /// Bytes of its output that are kept.
    pub log_bytes_max: u64,
}

/// The processes of one sandbox.
#[derive(Debug)]
pub(super) struct Processes {
    path: PathBuf,
    /// The directory, from when it is first needed. By descriptor: when the sandbox is gone and another has its
    /// name, what is left of the old one finds nothing.
    directory: OnceLock<Arc<OwnedFd>>,
    table: Mutex<HashMap<String, Slot>>,
    voice: Voice,
}

#[derive(Debug)]
enum Slot {
    /// Being started under this id.
    Taken,
    Here(Arc<Process>),
}

/// A process.
#[derive(Debug)]
pub struct Process {
    record: Mutex<Record>,
    log: Arc<Log>,
    directory: Arc<OwnedFd>,
    /// The writer of its stdin.
    stdin: tokio::sync::Mutex<Option<Watched>>,
    /// Whether it has ended and its output is read. Then the record has the end.
    over: watch::Sender<bool>,
    /// Its stdin is of no use any more.
    unread: CancellationToken,
    agent: Option<Arc<Agent>>,
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::ProcessNotFound, format!("there is no process {id:?}"))
        .hint("GET …/processes lists them")
}

fn cannot_record(error: std::io::Error) -> Error {
    Error::new(ErrorCode::CapacityExhausted, "cannot write down the process").source(error)
}

impl Processes {
    pub(super) fn new(path: PathBuf, voice: Voice) -> Self {
        Self { path, directory: OnceLock::new(), table: Mutex::default(), voice }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // Every operation is one insert, remove or look-up.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> std::io::Result<Arc<OwnedFd>> {
        if let Some(directory) = self.directory.get() {
            return Ok(Arc::clone(directory));
        }
        std::fs::create_dir_all(&self.path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = Arc::new(rustix::fs::open(&self.path, flags, Mode::empty())?);
        Ok(Arc::clone(self.directory.get_or_init(|| opened)))
    }

    fn reserve(&self, id: Option<&str>, log_bytes_max: u64) -> Result<(), Error> {
        let mut table = self.lock();
        let logs: u64 = table
            .values()
            .map(|slot| match slot {
                Slot::Here(process) => process.lock().log_bytes_max,
                Slot::Taken => 0,
            })
            .sum();
        if logs + log_bytes_max > SANDBOX_LOG_BYTES_MAX {
            return Err(Error::new(
                ErrorCode::ProcessLimit,
                "the logs of all processes together are too large",
            )
            .hint("remove processes that have ended, or give less `log_bytes_max` to each"));
        }
        if table.len() >= PROCESSES_MAX {
            return Err(Error::new(ErrorCode::ProcessLimit, format!("there are {PROCESSES_MAX} processes"))
                .hint("remove those that have ended"));
        }
        if let Some(id) = id {
            if table.contains_key(id) {
                return Err(Error::new(ErrorCode::ProcessConflict, format!("there is a process {id:?}"))
                    .hint("remove it first, or choose another id"));
            }
            table.insert(id.to_owned(), Slot::Taken);
        }
        Ok(())
    }

    /// Starts a process. Not cancelled with its caller: whoever calls it does so in a task of its own.
    async fn start(
        self: Arc<Self>,
        agent: Arc<Agent>,
        resolved: Resolved,
        spec: ProcessSpec,
    ) -> Result<Arc<Process>, Error> {
        self.reserve(spec.id.as_deref(), spec.log_bytes_max)?;
        let id = spec.id.clone();
        let made = self.make(agent, resolved, spec).await;
        if made.is_err()
            && let Some(id) = id
        {
            self.lock().remove(&id);
        }
        made
    }

    async fn make(
        self: &Arc<Self>,
        agent: Arc<Agent>,
        resolved: Resolved,
        spec: ProcessSpec,
    ) -> Result<Arc<Process>, Error> {
        let directory = self.directory().map_err(cannot_record)?;
        let Pipes { inside, stdin, stdout, stderr } = command::pipes(resolved.stdin)?;
        let argv = resolved.argv.clone();
        let exec = Exec {
            command: 0,
            program: Program::Argv(resolved.argv.into_iter().map(String::into_bytes).collect()),
            env: command::environment(resolved.env),
            cwd: resolved.cwd.clone().into_bytes(),
            user: resolved.user,
            keep: true,
        };
        let fds: Vec<_> = inside.iter().chain(&stdin).chain([&stdout, &stderr]).map(AsFd::as_fd).collect();
        let Started { number, begun, mut ended } = agent.exec(exec, &fds).await.map_err(dead)?;
        drop(inside);
        let Some(Begun { pid, .. }) = agent.answered(begun).await else {
            return Err(match ended.try_recv() {
                Ok(Outcome::Failed(step, errno)) => {
                    refusal(step, errno, argv.first().map_or("", |name| name))
                }
                _ => dead(Gone),
            });
        };
        let record = Record {
            id: spec.id.unwrap_or_else(|| record::directory(number)),
            number,
            argv,
            cwd: resolved.cwd,
            user: spec.command.user.unwrap_or_default(),
            pid,
            started_at: jiff::Timestamp::now().to_string(),
            started_ms: record::now_ms(),
            timeout_ms: resolved.timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok()),
            timed_out: false,
            on_exit: spec.on_exit,
            log_bytes_max: spec.log_bytes_max,
            end: None,
        };
        let streams = run::Streams::new([stdout, stderr]);
        match (Process::create(record, directory, Arc::clone(&agent), stdin), streams) {
            (Ok(process), Ok(streams)) => {
                self.insert(Arc::clone(&process));
                let view = process.view();
                let about = serde_json::json!({"id": view.id, "program": view.argv.first(), "pid": pid});
                self.voice.say(Kind::ProcessStarted, about);
                tokio::spawn(run::run(Arc::clone(&process), Arc::clone(self), streams, ended));
                Ok(process)
            }
            (Err(error), _) | (_, Err(error)) => {
                let _ = agent.kill(number).await;
                let _ = agent.forget(number).await;
                Err(cannot_record(error))
            }
        }
    }

    fn insert(&self, process: Arc<Process>) {
        let id = process.lock().id.clone();
        self.lock().insert(id, Slot::Here(process));
    }

    /// Takes up what a daemon before this one has started, as far as the agent still has it.
    pub(super) async fn adopt(self: &Arc<Self>, agent: Option<&Arc<Agent>>, held: &mut HashMap<u32, Held>) {
        if !self.path.exists() {
            return;
        }
        let records = self.directory().and_then(|directory| Ok((record::load_all(&directory)?, directory)));
        let (records, directory) = match records {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot read what is known of processes");
                return;
            }
        };
        for record in records {
            let (number, id) = (record.number, record.id.clone());
            let has = held.remove(&number).is_some();
            if let Err(error) = self.adopt_one(record, &directory, agent.filter(|_| has)).await {
                tracing::warn!(%error, id, "cannot go on with a process");
                if let (Some(agent), true) = (agent, has) {
                    let _ = agent.kill(number).await;
                    let _ = agent.forget(number).await;
                }
            }
        }
    }

    async fn adopt_one(
        self: &Arc<Self>,
        mut record: Record,
        directory: &Arc<OwnedFd>,
        agent: Option<&Arc<Agent>>,
    ) -> std::io::Result<()> {
        let number = record.number;
        let lost = |_: Gone| std::io::Error::other("the agent is gone");
        let reclaimed = match (agent, record.end) {
            (Some(agent), None) => agent.reclaim(number).await.map_err(lost)?,
            // It was recorded, and the agent not told in time.
            (Some(agent), Some(_)) => {
                agent.forget(number).await.map_err(lost)?;
                None
            }
            (None, _) => None,
        };
        let Some((agent, reclaimed)) = agent.zip(reclaimed) else {
            if record.end.is_none() {
                record.end = Some(End { how: How::Lost, at_ms: record::now_ms() });
                record.save(directory)?;
            }
            if record.on_exit == OnExit::Remove {
                record::remove(directory, &record::directory(number));
                return Ok(());
            }
            self.insert(Process::open(record, Arc::clone(directory), None, None)?);
            return Ok(());
        };
        let mut held = reclaimed.held;
        // As they were sent: the writer of stdin, if there is one, then both readers.
        let stdin = (held.len() == 3).then(|| held.remove(0));
        stdin.iter().try_for_each(run::must_be_pipe)?;
        let streams = run::Streams::new(held.try_into().map_err(|_| std::io::Error::other("no streams"))?)?;
        let process = Process::open(record, Arc::clone(directory), Some(Arc::clone(agent)), stdin)?;
        self.insert(Arc::clone(&process));
        tokio::spawn(run::run(process, Arc::clone(self), streams, reclaimed.ended));
        Ok(())
    }

    /// All of them, the oldest first.
    fn list(&self) -> Vec<Arc<Process>> {
        let numbered: BTreeMap<_, _> = self
            .lock()
            .values()
            .filter_map(|slot| match slot {
                Slot::Here(process) => Some((process.number(), Arc::clone(process))),
                Slot::Taken => None,
            })
            .collect();
        numbered.into_values().collect()
    }

    /// Waits until nothing is written to their files any more. Only for a sandbox that is gone: they end with it.
    pub(super) async fn ended(&self) {
        for process in self.list() {
            if tokio::time::timeout(ENDED_TIMEOUT, process.wait()).await.is_err() {
                tracing::warn!(number = process.number(), "a process outlives its sandbox");
            }
        }
    }

    /// Whether one of them runs.
    pub(super) fn any_runs(&self) -> bool {
        let runs = |slot: &Slot| match slot {
            Slot::Here(process) => !*process.over.borrow(),
            Slot::Taken => true,
        };
        self.lock().values().any(runs)
    }

    fn get(&self, id: &str) -> Result<Arc<Process>, Error> {
        match self.lock().get(id) {
            Some(Slot::Here(process)) => Ok(Arc::clone(process)),
            _ => Err(not_found(id)),
        }
    }

    /// Takes one that has ended off the list and its files off the disk.
    fn remove(&self, process: &Process) {
        let (id, number) = {
            let record = process.lock();
            (record.id.clone(), record.number)
        };
        let removed = {
            let mut table = self.lock();
            let same =
                matches!(table.get(&id), Some(Slot::Here(here)) if std::ptr::eq(Arc::as_ptr(here), process));
            same.then(|| table.remove(&id))
        };
        if removed.is_some() {
            record::remove(&process.directory, &record::directory(number));
        }
    }
}

impl Process {
    /// One that was just started.
    fn create(
        record: Record,
        directory: Arc<OwnedFd>,
        agent: Arc<Agent>,
        stdin: Option<OwnedFd>,
    ) -> std::io::Result<Arc<Self>> {
        let name = record::directory(record.number);
        rustix::fs::mkdirat(&directory, name.as_str(), Mode::from_raw_mode(0o700))?;
        let made = record
            .save(&directory)
            .and_then(|()| Self::open(record, Arc::clone(&directory), Some(agent), stdin));
        if made.is_err() {
            record::remove(&directory, &name);
        }
        made
    }

    /// One whose record is on disk.
    fn open(
        record: Record,
        directory: Arc<OwnedFd>,
        agent: Option<Arc<Agent>>,
        stdin: Option<OwnedFd>,
    ) -> std::io::Result<Arc<Self>> {
        let name = record::directory(record.number);
        let log = Log::open(Arc::clone(&directory), name, record.log_bytes_max)?;
        if record.end.is_some() {
            log.rest();
        }
        Ok(Arc::new(Self {
            log,
            directory,
            stdin: tokio::sync::Mutex::new(stdin.map(Watched::new).transpose()?),
            over: watch::Sender::new(record.end.is_some()),
            unread: CancellationToken::new(),
            agent,
            record: Mutex::new(record),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Every change of it is one assignment.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u32 {
        self.lock().number
    }

    /// Its output.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Whether it has ended and all of its output is in its log.
    pub fn watch_over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// The agent, while it runs.
    pub(super) fn running(&self) -> Result<&Arc<Agent>, Error> {
        match &self.agent {
            Some(agent) if !*self.over.borrow() => Ok(agent),
            _ => Err(self.ended("it cannot be done")),
        }
    }

    /// The error for want of a process that runs.
    fn ended(&self, what: &str) -> Error {
        let view = self.view();
        Error::new(ErrorCode::ProcessExited, format!("the process has ended: {what}"))
            .hint("its exit is in `context`, its output in its logs")
            .context(serde_json::json!({
                "state": view.state, "exit_code": view.exit_code, "timed_out": view.timed_out,
            }))
    }

    /// Waits until it has ended.
    pub async fn wait(&self) {
        let mut over = self.over.subscribe();
        // The sender lives as long as the process.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Kills it and everything that it started.
    ///
    /// # Errors
    /// When the sandbox has ended, and the process with it.
    async fn kill(&self) -> Result<(), Error> {
        match self.running() {
            Ok(agent) => agent.kill(self.number()).await.map_err(dead),
            Err(_) => Ok(()),
        }
    }

    /// Sends a signal to its first process, or to all of them.
    ///
    /// # Errors
    /// `PROCESS_EXITED`.
    pub async fn signal(&self, signal: i32, tree: bool) -> Result<(), Error> {
        let agent = self.running()?;
        agent.signal(self.number(), signal, tree).await.map_err(dead)
    }

    /// Writes to its stdin, as fast as it reads.
    ///
    /// # Errors
    /// `STDIN_CLOSED` when there is no stdin to write to.
    pub async fn write(&self, mut bytes: &[u8]) -> Result<(), Error> {
        let stdin = self.stdin.lock().await;
        let pipe = stdin.as_ref().ok_or_else(|| self.no_stdin())?;
        while !bytes.is_empty() {
            let write = pipe.when(Interest::WRITABLE, |pipe| Ok(rustix::io::write(pipe, bytes)?));
            let written = tokio::select! {
                written = write => written.map_err(|_| self.no_stdin())?,
                () = self.unread.cancelled() => return Err(self.ended("it did not read all of its stdin")),
            };
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Closes its stdin: it reads what is in the pipe, and then its end.
    ///
    /// # Errors
    /// `STDIN_CLOSED` when it is closed; when the sandbox is gone.
    pub async fn close_stdin(&self) -> Result<(), Error> {
        let mut stdin = self.stdin.lock().await;
        if stdin.take().is_none() {
            return Err(self.no_stdin());
        }
        self.running()?.close_input(self.number()).await.map_err(dead)
    }

    fn no_stdin(&self) -> Error {
        if *self.over.borrow() {
            return self.ended("nobody reads its stdin");
        }
        Error::new(ErrorCode::StdinClosed, "the process has no open stdin")
            .hint("start it with `\"stdin\": true`; once closed, it stays closed")
    }
}

impl Sandbox {
    /// Starts a process that outlives its caller.
    ///
    /// # Errors
    /// When it makes no sense, cannot be started, its id is taken, or the sandbox has ended.
    pub async fn start_process(&self, spec: ProcessSpec) -> Result<Arc<Process>, Error> {
        let agent = Arc::clone(self.agent().ok_or_else(|| dead(Gone))?);
        let mut spec = spec;
        spec.command.user.get_or_insert_with(|| self.facts.user.clone());
        let resolved = self.complete(spec.command.clone())?;
        // A caller that goes away leaves a process behind, not half of one.
        let started = tokio::spawn(Arc::clone(&self.processes).start(agent, resolved, spec));
        started.await.map_err(|error| Error::internal("starting the process failed", error))?
    }

    /// Its processes, the oldest first.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.processes.list()
    }

    /// Finds a process.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub fn process(&self, id: &str) -> Result<Arc<Process>, Error> {
        self.processes.get(id)
    }

    /// Kills a process with everything that it started, if it runs, and removes it with its logs.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub async fn remove_process(&self, id: &str) -> Result<(), Error> {
        let process = self.processes.get(id)?;
        process.kill().await?;
        process.wait().await;
        self.processes.remove(&process);
        Ok(())
    }

    /// Kills all processes with everything that they started, and removes them if asked to. Returns how many ran.
    ///
    /// # Errors
    /// When the sandbox ends meanwhile.
    pub async fn kill_processes(&self, remove: bool) -> Result<usize, Error> {
        let all = self.processes();
        let mut killed = 0;
        for process in &all {
            if process.running().is_ok() {
                killed += 1;
                process.kill().await?;
            }
        }
        for process in all {
            process.wait().await;
            if remove {
                self.processes.remove(&process);
            }
        }
        Ok(killed)
    }
}
