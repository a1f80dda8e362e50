//! One command: three pipes, an exit, and the promise that nothing of it outlives its owner.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::agent::{Agent, Begun, Gone, Outcome, Started};
use super::memory::Memory;
use super::recording::{RecordSpec, Recorder};
use crate::error::{Error, ErrorCode};
use crate::wire::agent::{Exec, Exit, Program, Step, Usage, User};

/// A command to run.
#[derive(Clone, Debug, Default)]
pub struct CommandSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Beside the sandbox's own; wins over it.
    pub env: BTreeMap<String, String>,
    /// Working directory; the sandbox's when absent.
    pub cwd: Option<String>,
    /// User; the sandbox's when absent.
    pub user: Option<String>,
    /// When the command and all that it started are killed.
    pub timeout: Option<Duration>,
    /// Whether stdin is a pipe; otherwise it is empty.
    pub stdin: bool,
    /// What stdin is instead: a sealed file in memory, which can be read again and again.
    pub secret: Option<Secret>,
    /// Whether, and how, it is recorded.
    pub record: Option<RecordSpec>,
}

/// Bytes that nobody prints.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A running command, in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandView {
    /// Its name.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Pid of its first process, as seen in the sandbox.
    pub pid: i32,
    /// When it was started (RFC 3339).
    pub started_at: String,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub struct CommandExit {
    /// By itself or by a signal.
    pub exit: Exit,
    /// What it used, if it was a process of its own.
    pub usage: Option<Usage>,
    /// Whether the timeout killed it.
    pub timed_out: bool,
    /// Whether the kernel killed it, or a child whose end it passed on, because the sandbox's memory was used up.
    pub oom_killed: bool,
    /// From the request to the end.
    pub duration: Duration,
}

/// A command that was started. Dropping it before [`wait`](Self::wait) has returned kills its whole tree.
#[derive(Debug)]
pub struct Command {
    /// Its name, for signals.
    pub id: String,
    /// Pid of its first process, as seen in the sandbox.
    pub pid: i32,
    /// Writing end of its stdin, if asked for.
    pub stdin: Option<pipe::Sender>,
    /// Its stdout, byte for byte; to be taken, so that reading and [`wait`](Self::wait) can go on together.
    pub stdout: Option<pipe::Receiver>,
    /// Its stderr, in the same way.
    pub stderr: Option<pipe::Receiver>,
    /// For whoever reads and writes these, if it is recorded.
    pub recorder: Option<Arc<Recorder>>,
    owned: Owned,
    /// As asked for, to name it when it cannot be executed.
    program: String,
    ended: oneshot::Receiver<Outcome>,
    /// How it ended, once that is known, until everything else about the end is.
    exited: Option<(Exit, Usage, Duration)>,
    memory: Arc<Memory>,
    began: Instant,
    deadline: Option<Instant>,
    timed_out: bool,
    /// Removes it from the sandbox's list.
    listed: Listed,
}

/// A command that the agent was asked to start. Dropping it before the command is over kills the command: also
/// when whoever asked goes away before the answer comes.
#[derive(Debug)]
struct Owned {
    number: u32,
    agent: Arc<Agent>,
    over: bool,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.over
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (agent, number) = (Arc::clone(&self.agent), self.number);
            runtime.spawn(async move {
                // A sandbox that is gone has taken the command with it.
                let _ = agent.kill(number).await;
            });
        }
    }
}

/// Is told how a command has ended; nothing when nobody has waited for that, and it was killed.
type End = Box<dyn Fn(Option<&CommandExit>) + Send + Sync>;

/// Takes a command off its sandbox's list when it is dropped, and says how it has ended.
pub(super) struct Listed {
    end: End,
    exit: Option<CommandExit>,
}

impl Listed {
    /// See [`End`].
    pub(super) fn new(end: impl Fn(Option<&CommandExit>) + Send + Sync + 'static) -> Self {
        Self { end: Box::new(end), exit: None }
    }
}

/// How a command has ended, for whoever listens.
pub(super) fn exited(id: &str, exit: Option<&CommandExit>) -> serde_json::Value {
    let Some(exit) = exit else { return serde_json::json!({"id": id, "abandoned": true}) };
    let code = match exit.exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    };
    serde_json::json!({
        "id": id,
        "exit_code": code,
        "timed_out": exit.timed_out,
        "oom_killed": exit.oom_killed,
        "duration_ms": exit.duration.as_secs_f64() * 1000.0,
    })
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listed")
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        (self.end)(self.exit.as_ref());
    }
}

/// A file of these bytes that is in memory, nobody can change, and nobody else has.
///
/// As a stdin it behaves like any file: it can be opened anew by /dev/stdin, which a pipe without a writer cannot. It
/// is not the host's /dev/null, because what one sandbox does to that (flock(2), inotify(7)) another one sees.
pub(super) fn sealed(bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 knows the flag, and may be told to insist on it.
    let file = match rustix::fs::memfd_create(c"input", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"input", flags)?,
        made => made?,
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rustix::io::write(&file, rest)?;
        rest = &rest[count..];
    }
    if !bytes.is_empty() {
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    }
    // Readable for whatever user the command is, and for nobody without the descriptor.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, all)?;
    Ok(file)
}

struct Streams {
    inside: [OwnedFd; 3],
    stdin: Option<pipe::Sender>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

/// The ends of a command's pipes, as they are made.
#[derive(Debug)]
pub(super) struct Pipes {
    /// stdin, stdout and stderr of the command.
    pub(super) inside: [OwnedFd; 3],
    /// The writer of its stdin; without one it reads an empty file.
    pub(super) stdin: Option<OwnedFd>,
    /// The reader of its stdout.
    pub(super) stdout: OwnedFd,
    /// The reader of its stderr.
    pub(super) stderr: OwnedFd,
}

/// Makes the pipes of a command, our ends non-blocking.
///
/// # Errors
/// When descriptors run out.
pub(super) fn pipes(stdin: bool) -> Result<Pipes, Error> {
    make_pipes(stdin).map_err(no_descriptors)
}

/// The error for want of descriptors.
pub(super) fn no_descriptors(error: impl Into<std::io::Error>) -> Error {
    Error::new(ErrorCode::CapacityExhausted, "the daemon has no descriptors left for pipes")
        .source(error.into())
}

fn make_pipes(stdin: bool) -> Result<Pipes, rustix::io::Errno> {
    let make = || {
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Programs open /dev/stdout anew, as whatever user they are; nobody else can reach the pipe.
        rustix::fs::fchmod(&pipe.0, Mode::from_raw_mode(0o666))?;
        Ok::<_, rustix::io::Errno>(pipe)
    };
    let (stdout, stdout_inside) = make()?;
    let (stderr, stderr_inside) = make()?;
    let (stdin_inside, stdin) = if stdin {
        let (reader, writer) = make()?;
        (reader, Some(writer))
    } else {
        (sealed(b"")?, None)
    };
    for ours in [&stdout, &stderr].into_iter().chain(&stdin) {
        rustix::io::ioctl_fionbio(ours, true)?;
    }
    Ok(Pipes { inside: [stdin_inside, stdout_inside, stderr_inside], stdin, stdout, stderr })
}

fn streams(stdin: bool) -> std::io::Result<Streams> {
    let Pipes { inside, stdin, stdout, stderr } = make_pipes(stdin)?;
    Ok(Streams {
        inside,
        stdin: stdin.map(pipe::Sender::from_owned_fd).transpose()?,
        stdout: pipe::Receiver::from_owned_fd(stdout)?,
        stderr: pipe::Receiver::from_owned_fd(stderr)?,
    })
}

/// Everything about a command after its specification was merged with its sandbox's.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    /// The whole environment.
    pub(super) env: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub(super) cwd: String,
    /// User.
    pub(super) user: User,
    /// See [`CommandSpec::timeout`].
    pub(super) timeout: Option<Duration>,
    /// See [`CommandSpec::stdin`].
    pub(super) stdin: bool,
    /// See [`CommandSpec::secret`].
    pub(super) secret: Option<Secret>,
}

impl Command {
    /// Starts a command. `list` is told its number, name and pid, and gives back what takes it off the list.
    ///
    /// # Errors
    /// When the sandbox is gone, its process limit is reached, or the host is out of descriptors.
    pub(super) async fn start(
        agent: Arc<Agent>,
        memory: Arc<Memory>,
        command: Resolved,
        list: impl FnOnce(u32, &str, i32) -> Listed,
    ) -> Result<Self, Error> {
        let began = Instant::now();
        let mut streams = streams(command.stdin).map_err(no_descriptors)?;
        if let Some(secret) = &command.secret {
            streams.inside[0] = sealed(&secret.0).map_err(no_descriptors)?;
        }
        let deadline = command.timeout.and_then(|timeout| began.checked_add(timeout));
        let program = command.argv.first().cloned().unwrap_or_default();
        let exec = Exec {
            command: 0,
            program: Program::Argv(command.argv.into_iter().map(String::into_bytes).collect()),
            env: environment(command.env),
            cwd: command.cwd.into_bytes(),
            user: command.user,
            keep: false,
        };
        let fds = streams.inside.each_ref().map(|fd| fd.as_fd());
        let Started { number, begun, mut ended } = agent.exec(exec, &fds).await.map_err(not_begun)?;
        drop(streams.inside);
        let mut owned = Owned { number, agent, over: false };
        let Some(Begun { pid, .. }) = owned.agent.answered(begun).await else {
            owned.over = true;
            return Err(match ended.try_recv() {
                Ok(Outcome::Failed(step, errno)) => refusal(step, errno, &program),
                _ => dead(Gone),
            });
        };
        let id = format!("c{number}");
        Ok(Self {
            listed: list(number, &id, pid),
            id,
            pid,
            stdin: streams.stdin,
            stdout: Some(streams.stdout),
            stderr: Some(streams.stderr),
            recorder: None,
            owned,
            ended,
            exited: None,
            memory,
            program,
            began,
            deadline,
            timed_out: false,
        })
    }

    /// Waits until the command and everything that it started have ended. Cancel-safe.
    ///
    /// # Errors
    /// When the program could not be executed, or the sandbox died with it.
    pub async fn wait(&mut self) -> Result<CommandExit, Error> {
        let (exit, usage, duration) = match self.exited {
            Some(exited) => exited,
            None => self.exit().await?,
        };
        let oom_killed = !self.timed_out && self.memory.killed(self.began, exit).await;
        let exit = CommandExit { exit, usage: Some(usage), timed_out: self.timed_out, oom_killed, duration };
        Ok(*self.listed.exit.insert(exit))
    }

    async fn exit(&mut self) -> Result<(Exit, Usage, Duration), Error> {
        if let (Some(deadline), false) = (self.deadline, self.timed_out) {
            let outcome = tokio::time::timeout_at(deadline.into(), &mut self.ended).await;
            if let Ok(outcome) = outcome {
                return self.finish(outcome);
            }
            // Noted only when it is done: a wait that was dropped in between kills next time.
            self.owned.agent.kill(self.owned.number).await.map_err(dead)?;
            self.timed_out = true;
        }
        let outcome = (&mut self.ended).await;
        self.finish(outcome)
    }

    fn finish(
        &mut self,
        outcome: Result<Outcome, oneshot::error::RecvError>,
    ) -> Result<(Exit, Usage, Duration), Error> {
        self.owned.over = true;
        match outcome {
            Ok(Outcome::Exited(exit, usage)) => Ok(*self.exited.insert((exit, usage, self.began.elapsed()))),
            Ok(Outcome::Failed(step, errno)) => {
                if let Some(recorder) = &self.recorder {
                    recorder.keep(false);
                }
                Err(refusal(step, errno, &self.program))
            }
            Err(_) => Err(dead(Gone)),
        }
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.owned.agent.signal(self.owned.number, signal, false).await.map_err(dead)
    }
}

/// As an agent wants it.
pub(super) fn environment(env: BTreeMap<String, String>) -> Vec<Vec<u8>> {
    env.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

/// The sandbox ended before it was asked for anything.
pub(super) fn not_begun(gone: Gone) -> Error {
    dead(gone).context(serde_json::json!({ "begun": false }))
}

/// Whether nothing was begun when this was found out.
pub(super) fn is_not_begun(error: &Error) -> bool {
    error.code == ErrorCode::SandboxDead
        && error.context.as_ref().is_some_and(|context| context["begun"] == false)
}

/// The sandbox ended.
pub(super) fn dead(_: Gone) -> Error {
    Error::new(ErrorCode::SandboxDead, "the sandbox has ended, or was stopped while this was at it")
        .hint("ask again: one that was stopped is woken; `start` begins one again that has ended, perhaps for want of memory")
}

/// What the caller is told when a command could not be started.
pub(super) fn refusal(step: Step, errno: i32, program: &str) -> Error {
    let why = std::io::Error::from_raw_os_error(errno);
    match (step, errno) {
        (Step::Fork, libc::EAGAIN | libc::ENOMEM) => {
            Error::new(ErrorCode::ProcessLimit, "the sandbox has no room for another process")
                .hint("end something in it, or create it with higher `pids` or `memory_bytes`")
        }
        (Step::User, libc::ENOENT) => {
            Error::new(ErrorCode::UserNotFound, "no such user or group in the sandbox's /etc/passwd and /etc/group")
                .hint("use a name from these files or a numeric id below 65536")
        }
        (Step::User, _) => {
            Error::new(ErrorCode::UserNotFound, format!("the sandbox's /etc/passwd or /etc/group cannot be read: {why}"))
                .hint("use a numeric id below 65536, or make both files ordinary ones of at most 1 MiB")
        }
        (Step::Terminal, libc::ENOSPC) => {
            Error::new(ErrorCode::CapacityExhausted, "the sandbox has no pseudoterminal left")
                .hint("end or close terminals of it that run")
        }
        (Step::Cwd, _) => {
            Error::new(ErrorCode::InvalidCwd, format!("cannot enter the working directory: {why}"))
                .hint("name an absolute path of a directory that exists in the sandbox and that the user may enter")
        }
        (Step::Exec, libc::ENOENT | libc::ENOTDIR) => {
            Error::new(ErrorCode::CommandNotInImage, format!("there is no program {program:?} in the sandbox"))
                .hint("check the path and PATH, and that the script's interpreter exists; `shell` runs a string by /bin/sh")
        }
        (Step::Exec, libc::E2BIG) => {
            Error::new(ErrorCode::InvalidRequest, "arguments and environment are too long for this program")
                .hint("pass long input by stdin or in a file")
        }
        (Step::Exec, _) => {
            Error::new(ErrorCode::CommandNotExecutable, format!("the program {program:?} cannot be executed: {why}"))
                .hint("check its mode, its architecture, and that it is a binary or starts with #!")
        }
        (step, _) => Error::internal(format!("starting the command failed at {step:?}"), why),
    }
}
