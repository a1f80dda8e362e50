//! Terminals: a program each, on a pseudoterminal of the sandbox's own devpts, and its latest output for any number of
//! viewers.
//!
//! ```text
//! program ─▶ slave … master ─▶ pump ─▶ ring ◀─ viewer at a position of its own
//!                     ▲                 │      ◀─ viewer
//!                     └──── input ──────┴─ Progress (watch) wakes them
//! ```
//!
//! Invariants:
//! - Nothing waits for a viewer. One that is slower than the ring is long misses what is in between, and the position
//!   of what it gets next says so.
//! - Memory is one ring per terminal, whatever the program writes and whoever reads. When nobody keeps up, the pump
//!   slows down, and the program with it, but it never stops: a terminal without a viewer is still read.
//! - A terminal lives as long as its program, not as its viewers. After its end it is kept, with its exit code and last
//!   output, until it is closed, or until too many have ended since. Its pseudoterminal is not kept: a sandbox has few.

mod ring;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use utoipa::ToSchema;

use super::Sandbox;
use super::agent::{Agent, Begun, Gone, Outcome, Started};
use super::command::{dead, environment, refusal};
use super::process::behind_the_end;
use super::recording::{RecordSpec, Recorded, Recorder};
use super::spec;
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::limits::{TERMINAL_REPLAY_BYTES, TERMINALS_ENDED_MAX};
use crate::sys::stream::Stream;
use crate::sys::{Errno, terminal};
use crate::wire::agent::{Exec, Exit, Program, User};
pub(super) use ring::Piece;
use ring::Ring;

/// What is read between two pauses while nobody keeps up, and how long they are: 12 MiB a second.
const UNSEEN_BYTES: usize = 64 * 1024;
const UNSEEN_PAUSE: Duration = Duration::from_millis(5);

/// Between two looks at a terminal that no process has open while its program runs.
const CLOSED_PAUSE: Duration = Duration::from_millis(50);

/// What a terminal can do, for programs that ask `TERM`.
const TERM_DEFAULT: &str = "xterm-256color";

/// Runs bash, or what there is.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec /bin/sh"];

/// A terminal to open.
#[derive(Clone, Debug)]
pub struct TerminalSpec {
    /// Its name; chosen when absent.
    pub id: Option<ItemId>,
    /// Program and arguments; a shell when absent.
    pub argv: Option<Vec<String>>,
    /// Beside the session's or the sandbox's own; wins over it.
    pub env: BTreeMap<String, String>,
    /// Working directory; the session's or the sandbox's when absent.
    pub cwd: Option<String>,
    /// User; the session's or the sandbox's when absent.
    pub user: Option<String>,
    /// Height, in characters.
    pub rows: u16,
    /// Width, in characters.
    pub columns: u16,
    /// The session whose directory and environment it begins with.
    pub session: Option<String>,
    /// Whether, and how, it is recorded.
    pub record: Option<RecordSpec>,
}

/// A terminal, in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalView {
    /// Its name.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Pid of its first process, as seen in the sandbox.
    pub pid: i32,
    /// The session that it was opened in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The recording of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// Height, in characters.
    pub rows: u16,
    /// Width, in characters.
    pub columns: u16,
    /// Whether its program runs.
    pub running: bool,
    /// How the program ended, as shells say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Position of the oldest byte of output that is kept.
    pub cursor_first: u64,
    /// Position of the next byte of output.
    pub cursor_next: u64,
    /// Who looks at it now.
    pub viewers: usize,
    /// When it was opened (RFC 3339).
    pub created_at: String,
}

/// How far a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Position of the next byte of output.
    pub end: u64,
    /// How the program ended. Then there is no more output.
    pub exit: Option<Exit>,
}

/// All terminals of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Terminals(Mutex<BTreeMap<ItemId, Arc<Terminal>>>);

/// A terminal.
#[derive(Debug)]
pub struct Terminal {
    id: ItemId,
    argv: Vec<String>,
    session: Option<String>,
    created_at: String,
    agent: Arc<Agent>,
    number: u32,
    pid: i32,
    /// None once the program has ended and its output was read.
    master: Mutex<Option<Arc<Stream>>>,
    recorder: Option<Arc<Recorder>>,
    ring: Mutex<Ring>,
    size: Mutex<(u16, u16)>,
    progress: watch::Sender<Progress>,
    /// The furthest position that any viewer has got to.
    viewed: AtomicU64,
    viewers: AtomicUsize,
}

/// Somebody who looks at a terminal, from a position on.
#[derive(Debug)]
pub struct Viewer {
    terminal: Arc<Terminal>,
    progress: watch::Receiver<Progress>,
    position: u64,
}

/// What a viewer sees next.
#[derive(Debug)]
pub enum Sight {
    /// Output; it begins later than the last one ended when some was missed.
    Output(Piece),
    /// The program ended, and all of its output was seen.
    End(Exit),
}

impl Viewer {
    /// Position of the next byte to see.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits for more, at most so many bytes. Cancel-safe.
    pub async fn next(&mut self, bytes_max: usize) -> Sight {
        loop {
            let Progress { end, exit } = *self.progress.borrow_and_update();
            if self.position < end {
                let piece = self.terminal.lock_ring().after(self.position, bytes_max);
                self.position = piece.from + piece.bytes.len() as u64;
                self.terminal.viewed.fetch_max(self.position, Ordering::Relaxed);
                return Sight::Output(piece);
            }
            if let Some(exit) = exit {
                return Sight::End(exit);
            }
            if self.progress.changed().await.is_err() {
                // The terminal holds the other end, and this the terminal.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.terminal.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Terminals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ItemId, Arc<Terminal>>> {
        // Every operation is one insert, remove or look-up.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops those that ended first, when there are too many. Gives their numbers, for the agent to forget.
    fn drop_ended(&self) -> Vec<Arc<Terminal>> {
        let mut terminals = self.lock();
        let mut ended: Vec<_> = terminals.values().filter(|one| one.exit().is_some()).cloned().collect();
        ended.sort_by(|a, b| a.created_at.cmp(&b.created_at));
        let excess = (ended.len() + 1).saturating_sub(TERMINALS_ENDED_MAX);
        ended.truncate(excess);
        for terminal in &ended {
            terminals.remove(&terminal.id);
        }
        ended
    }
}

impl Terminal {
    fn lock_ring(&self) -> MutexGuard<'_, Ring> {
        // A panic while it is changed would be a bug of its arithmetic, and the bytes are only somebody's output.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exit(&self) -> Option<Exit> {
        self.progress.borrow().exit
    }

    /// As the API shows it.
    pub fn view(&self) -> TerminalView {
        let (rows, columns) = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let exit = self.exit();
        let ring = self.lock_ring();
        TerminalView {
            id: self.id.to_string(),
            argv: self.argv.clone(),
            pid: self.pid,
            session: self.session.clone(),
            recording: self.recorder.as_ref().map(|recorder| recorder.id().to_owned()),
            rows,
            columns,
            running: exit.is_none(),
            exit_code: exit.map(exit_code),
            cursor_first: ring.start(),
            cursor_next: ring.end(),
            viewers: self.viewers.load(Ordering::Relaxed),
            created_at: self.created_at.clone(),
        }
    }

    /// Looks at it, from a position on, or from the oldest byte that is kept.
    ///
    /// # Errors
    /// `RANGE_NOT_SATISFIABLE` for a position behind the end.
    pub fn look(self: &Arc<Self>, position: Option<u64>) -> Result<Viewer, Error> {
        let position = {
            let ring = self.lock_ring();
            let position = position.unwrap_or(0).max(ring.start());
            if position > ring.end() {
                return Err(behind_the_end(position, ring.end(), "terminal's output"));
            }
            position
        };
        self.viewers.fetch_add(1, Ordering::Relaxed);
        Ok(Viewer { terminal: Arc::clone(self), progress: self.progress.subscribe(), position })
    }

    /// Types something. Waits while the terminal does not take it; gives how much it took.
    ///
    /// # Errors
    /// When no process has the terminal open.
    pub async fn write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        let master = self.master().ok_or(Errno::IO)?;
        let taken = master.write_terminal(bytes).await?;
        self.record(Recorded::Input, &bytes[..taken]);
        Ok(taken)
    }

    fn record(&self, what: Recorded, bytes: &[u8]) {
        if let Some(recorder) = &self.recorder {
            recorder.add(what, bytes);
        }
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// `TERMINAL_ENDED`.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.running()?;
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let master = self.master().ok_or_else(ended)?;
        terminal::resize(&*master, rows, columns)
            .map_err(|error| Error::internal("cannot resize the terminal", error))?;
        *size = (rows, columns);
        if let Some(recorder) = &self.recorder {
            recorder.resize(rows, columns);
        }
        Ok(())
    }

    /// Sends a signal to its program, or to every process of it.
    ///
    /// # Errors
    /// `TERMINAL_ENDED`, and when the sandbox is gone.
    pub async fn signal(&self, signal: i32, tree: bool) -> Result<(), Error> {
        self.running()?;
        self.agent.signal(self.number, signal, tree).await.map_err(dead)
    }

    fn running(&self) -> Result<(), Error> {
        if self.exit().is_none() {
            return Ok(());
        }
        Err(ended())
    }

    fn master(&self) -> Option<Arc<Stream>> {
        // Taken whole, or there.
        self.master.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the master until the program has ended.
    async fn pump(self: Arc<Self>, master: Arc<Stream>, mut ended: oneshot::Receiver<Outcome>) {
        let mut buffer = vec![0; 16 * 1024];
        let mut unseen = 0;
        let outcome = loop {
            let mut pause = None;
            tokio::select! {
                outcome = &mut ended => break outcome.ok(),
                read = master.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => {
                        self.add(&buffer[..count]);
                        unseen = if self.is_seen() { 0 } else { unseen + count };
                    }
                    // No process has it open. Its program ends now, or opens it again.
                    _ => pause = Some(CLOSED_PAUSE),
                }
            }
            if unseen > UNSEEN_BYTES {
                (pause, unseen) = (Some(UNSEEN_PAUSE), 0);
            }
            if let Some(pause) = pause
                && let Ok(outcome) = tokio::time::timeout(pause, &mut ended).await
            {
                break outcome.ok();
            }
        };
        while let Ok(count) = master.read_now(&mut buffer)
            && count > 0
        {
            self.add(&buffer[..count]);
        }
        let exit = match outcome {
            Some(Outcome::Exited(exit, _)) => exit,
            // The sandbox is gone.
            _ => Exit::Signal(libc::SIGKILL),
        };
        // Whoever hears of the end finds all of it, and room for another terminal.
        drop(master);
        self.master.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(recorder) = &self.recorder {
            recorder.finish();
        }
        self.progress.send_modify(|progress| progress.exit = Some(exit));
    }

    fn add(&self, bytes: &[u8]) {
        self.record(Recorded::Output, bytes);
        let end = {
            let mut ring = self.lock_ring();
            ring.push(bytes);
            ring.end()
        };
        self.progress.send_modify(|progress| progress.end = end);
    }

    /// Whether somebody has kept up with it.
    fn is_seen(&self) -> bool {
        let end = self.progress.borrow().end;
        end.saturating_sub(self.viewed.load(Ordering::Relaxed)) <= TERMINAL_REPLAY_BYTES as u64 / 2
    }
}

/// As shells say it.
pub fn exit_code(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    }
}

fn ended() -> Error {
    Error::new(ErrorCode::TerminalEnded, "the terminal's program has ended")
        .hint("its output can still be read; delete it when you are done")
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::TerminalNotFound, format!("there is no terminal {id}"))
        .hint("GET …/terminals lists them")
}

/// What a terminal's program is started with.
struct Begin {
    argv: Vec<String>,
    env: Vec<Vec<u8>>,
    cwd: Vec<u8>,
    user: User,
}

impl Sandbox {
    /// Opens a terminal and starts its program.
    ///
    /// # Errors
    /// `TERMINAL_EXISTS`; as for commands; as for looking into a session.
    pub async fn open_terminal(self: &Arc<Self>, wanted: TerminalSpec) -> Result<Arc<Terminal>, Error> {
        let id = match &wanted.id {
            Some(id) => id.clone(),
            None => ItemId::parse(super::random::random_id().as_str())
                .map_err(|error| Error::internal("cannot name the terminal", error))?,
        };
        let taken = || self.terminals.lock().contains_key(&id);
        let exists = || {
            Error::new(ErrorCode::TerminalExists, format!("there is a terminal {id} already"))
                .hint("use it, delete it first, or choose another id")
        };
        if taken() {
            return Err(exists());
        }
        let begin = self.begin_terminal(&wanted).await?;
        // A task of its own: a caller that leaves does not leave a program that nobody knows.
        let (this, name) = (Arc::clone(self), id.clone());
        let task = tokio::spawn(async move {
            let terminal = this.start_terminal(name.clone(), wanted, begin).await?;
            for old in this.terminals.drop_ended() {
                let _ = old.agent.forget(old.number).await;
            }
            match this.terminals.lock().entry(name) {
                std::collections::btree_map::Entry::Occupied(_) => {}
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    if let Some(recorder) = &terminal.recorder {
                        recorder.keep(true);
                    }
                    vacant.insert(Arc::clone(&terminal));
                    return Ok(terminal);
                }
            }
            // Somebody was faster with the same name.
            let _ = terminal.agent.kill(terminal.number).await;
            Err(Error::new(ErrorCode::TerminalExists, "there is a terminal of this name already"))
        });
        task.await.unwrap_or_else(|error| Err(Error::internal("opening the terminal failed", error)))
    }

    async fn begin_terminal(self: &Arc<Self>, wanted: &TerminalSpec) -> Result<Begin, Error> {
        let (mut env, cwd, user) = match &wanted.session {
            Some(session) => {
                let (surroundings, user) = self.look_into_session(session).await?;
                (surroundings.env, surroundings.cwd, user)
            }
            None => (environment(self.environment.get()), self.facts.cwd.clone().into_bytes(), self.user()?),
        };
        let mut more = wanted.env.clone();
        if !env.iter().any(|entry| entry.starts_with(b"TERM=")) {
            more.entry("TERM".to_owned()).or_insert_with(|| TERM_DEFAULT.to_owned());
        }
        let replaced = |entry: &[u8]| more.keys().any(|name| is_variable(entry, name.as_bytes()));
        env.retain(|entry| !replaced(entry));
        env.extend(environment(more));
        if let Some(cwd) = &wanted.cwd {
            spec::cwd(cwd)?;
        }
        let argv = match (&wanted.argv, &wanted.session) {
            (Some(argv), _) => argv.clone(),
            (None, Some(_)) => vec!["bash".to_owned()],
            (None, None) => SHELL.map(str::to_owned).to_vec(),
        };
        spec::strings(&argv, &BTreeMap::new())?;
        Ok(Begin {
            argv,
            env,
            cwd: wanted.cwd.clone().map_or(cwd, String::into_bytes),
            user: wanted.user.as_deref().map_or(Ok(user), spec::user)?,
        })
    }

    async fn start_terminal(
        &self,
        id: ItemId,
        wanted: TerminalSpec,
        begin: Begin,
    ) -> Result<Arc<Terminal>, Error> {
        let agent = self.agent().ok_or_else(|| dead(Gone))?;
        let (rows, columns) = (wanted.rows, wanted.columns);
        let record = |how| self.record_terminal(how, &id, begin.argv.first(), (rows, columns), &begin.env);
        let recorder = wanted.record.map(record).transpose()?;
        let exec = Exec {
            command: 0,
            program: Program::Terminal {
                argv: begin.argv.iter().map(|argument| argument.clone().into_bytes()).collect(),
                rows,
                columns,
            },
            env: begin.env,
            cwd: begin.cwd,
            user: begin.user,
            keep: false,
        };
        let Started { number, begun, mut ended } = agent.exec(exec, &[]).await.map_err(dead)?;
        let Some(Begun { pid, terminal }) = agent.answered(begun).await else {
            let program = begin.argv.first().map(String::as_str).unwrap_or_default();
            return Err(match ended.try_recv() {
                Ok(Outcome::Failed(step, errno)) => refusal(step, errno, program),
                _ => dead(Gone),
            });
        };
        let master = self.master(terminal);
        let Ok(master) = master else {
            let _ = agent.kill(number).await;
            return Err(master.map(drop).map_or_else(
                |error| Error::internal("the sandbox gave no terminal", error),
                |()| dead(Gone),
            ));
        };
        let master = Arc::new(master);
        let terminal = Arc::new(Terminal {
            id,
            argv: begin.argv,
            session: wanted.session,
            created_at: jiff::Timestamp::now().to_string(),
            agent: Arc::clone(agent),
            number,
            pid,
            master: Mutex::new(Some(Arc::clone(&master))),
            recorder,
            ring: Mutex::new(Ring::at(0)),
            size: Mutex::new((rows, columns)),
            progress: watch::Sender::new(Progress { end: 0, exit: None }),
            viewed: AtomicU64::new(0),
            viewers: AtomicUsize::new(0),
        });
        tokio::spawn(Arc::clone(&terminal).pump(master, ended));
        Ok(terminal)
    }

    fn master(&self, master: Option<OwnedFd>) -> std::io::Result<Stream> {
        Stream::new(master.ok_or(Errno::BADF)?)
    }

    /// The terminals, by name.
    pub fn terminals(&self) -> Vec<TerminalView> {
        let terminals: Vec<_> = self.terminals.lock().values().cloned().collect();
        terminals.iter().map(|terminal| terminal.view()).collect()
    }

    /// One terminal.
    ///
    /// # Errors
    /// `TERMINAL_NOT_FOUND`.
    pub fn terminal(&self, id: &str) -> Result<Arc<Terminal>, Error> {
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        self.terminals.lock().get(&name).cloned().ok_or_else(|| not_found(id))
    }

    /// Closes a terminal: its program and everything that it started is killed, and its output is gone. Whoever looks at
    /// it hears of its end.
    ///
    /// # Errors
    /// `TERMINAL_NOT_FOUND`, and when the sandbox is gone.
    pub async fn close_terminal(&self, id: &str) -> Result<(), Error> {
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        let terminal = self.terminals.lock().remove(&name).ok_or_else(|| not_found(id))?;
        if self.agent().is_none() {
            return Ok(());
        }
        if terminal.exit().is_none() {
            terminal.agent.kill(terminal.number).await.map_err(dead)?;
            let mut progress = terminal.progress.subscribe();
            // It cannot fail: the terminal holds the other end.
            let _ = progress.wait_for(|progress| progress.exit.is_some()).await;
        }
        terminal.agent.forget(terminal.number).await.map_err(dead)
    }
}

/// Whether an entry of an environment is this variable's.
fn is_variable(entry: &[u8], name: &[u8]) -> bool {
    entry.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
}
