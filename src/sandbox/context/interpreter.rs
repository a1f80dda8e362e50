//! One interpreter's process: how it is started, spoken to and ended.
//!
//! ```text
//! serve ──control (frames)──▶ interpreter ──stdout, stderr──▶ serve
//! ```
//!
//! Its program comes from us, in a sealed file in memory, and not from the image. It runs with a command's rights, in
//! a group of its own, and belongs to the code that it runs: nothing here waits for it without a bound.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::pipe::PipeFlags;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::frame::{self, Heard, Said, Say};
use super::language::Language;
use crate::error::{Error, ErrorCode};
use crate::sandbox::agent::{Agent, Begun, Gone, Outcome, Started};
use crate::sandbox::command::{dead, environment, refusal, sealed};
use crate::sys::Errno;
use crate::sys::socket;
use crate::sys::stream::Stream;
use crate::wire::agent::{Exec, Exit, Program, Step, User};

/// How long an interpreter may take until it waits for cells. A slow disk and a throttled processor make seconds.
const START: Duration = Duration::from_secs(60);

/// Bytes that a pipe for output holds, where the kernel allows it: fewer wake-ups for much output.
const PIPE_BYTES: usize = 256 * 1024;

/// Bytes read at once of output and of frames.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// What tells Python that a run waits: SIGINT would be for the run when it has just begun. Nobody minds this one by
/// default (signal(7)).
const LOOK_SIGNAL: i32 = libc::SIGURG;

/// How long a frame may be there in part before nothing more of it comes: it is written at once.
const PART: Duration = Duration::from_secs(10);

/// What an interpreter that does not start may have written, for the error's message.
const LAST_WORDS_BYTES: usize = 2000;

/// How an interpreter is started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The whole environment.
    pub(super) env: BTreeMap<String, String>,
    /// Working directory.
    pub(super) cwd: String,
    /// As whom.
    pub(super) user: User,
    /// MiB of its heap, where the language has one that must be told.
    pub(super) heap_mib: Option<u64>,
}

/// Why nothing more is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The socket is closed.
    Closed,
    /// What came is no frame.
    Bad,
}

/// What comes first from an interpreter.
#[derive(Debug)]
pub(super) enum Word {
    /// A frame, or none ever again.
    Frame(Result<Heard, Silence>),
    /// It has ended; how, unless the sandbox is gone.
    Ended(Option<Outcome>),
}

/// The control socket.
#[derive(Debug)]
pub(super) struct Control {
    stream: Stream,
    heard: Vec<u8>,
    chunk: Vec<u8>,
    /// What is still to be written.
    unsaid: Vec<u8>,
    /// Since when there is a part of a frame and nothing more has come.
    part_since: Option<Instant>,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let chunk = vec![0; CHUNK_BYTES];
        Ok(Self {
            stream: Stream::new(socket)?,
            heard: Vec::new(),
            chunk,
            unsaid: Vec::new(),
            part_since: None,
        })
    }

    /// Puts a frame behind what is to be written.
    pub(super) fn say(&mut self, say: &Say<'_>) {
        self.unsaid.extend_from_slice(&say.frame());
    }

    /// Says that what was written before a frame has been read. One that wants to hear it and does not listen is told
    /// no more.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        if self.unsaid.len() < CHUNK_BYTES {
            self.say(&Say::Ack { seq });
        }
    }

    /// The next frame; writes what there is to be written meanwhile. Cancel-safe: one system call at a time.
    pub(super) async fn next(&mut self) -> Result<Heard, Silence> {
        loop {
            if let Some(heard) = self.take()? {
                self.part_since = None;
                return Ok(heard);
            }
            // Code that writes to our descriptor itself leaves something that no frame ends.
            let since = *self.part_since.get_or_insert_with(Instant::now);
            tokio::select! {
                // What has come meanwhile counts, however long nobody looked.
                biased;
                written = self.stream.write(&self.unsaid), if !self.unsaid.is_empty() => match written {
                    Ok(count) => drop(self.unsaid.drain(..count)),
                    Err(_) => return Err(Silence::Closed),
                },
                read = self.stream.read(&mut self.chunk) => match read {
                    Ok(count) if count > 0 => {
                        self.heard.extend_from_slice(&self.chunk[..count]);
                        self.part_since = None;
                    }
                    _ => return Err(Silence::Closed),
                },
                () = tokio::time::sleep_until(since + PART), if !self.heard.is_empty() => {
                    return Err(Silence::Bad);
                }
            }
        }
    }

    /// A frame that is there already; for an interpreter that has ended.
    pub(super) fn next_now(&mut self) -> Result<Option<Heard>, Silence> {
        loop {
            if let Some(heard) = self.take()? {
                return Ok(Some(heard));
            }
            match self.stream.read_now(&mut self.chunk) {
                Ok(count) if count > 0 => self.heard.extend_from_slice(&self.chunk[..count]),
                _ => return Ok(None),
            }
        }
    }

    /// The first frame of what was read.
    fn take(&mut self) -> Result<Option<Heard>, Silence> {
        let length = frame::frame_length(&self.heard).map_err(|_| Silence::Bad)?;
        let Some(length) = length.filter(|&length| self.heard.len() >= length) else { return Ok(None) };
        let heard = frame::parse(&self.heard[4..length]).map_err(|_| Silence::Bad);
        self.heard.drain(..length);
        if self.heard.is_empty() {
            // One large frame is no reason to keep its room.
            self.heard.shrink_to(CHUNK_BYTES);
        }
        heard.map(Some)
    }
}

/// What an interpreter is heard by: its frames, and its end.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) control: Control,
    ended: oneshot::Receiver<Outcome>,
    over: bool,
}

impl Line {
    /// What comes first: a frame, or the end. Cancel-safe.
    pub(super) async fn hear(&mut self) -> Word {
        if self.over {
            return Word::Ended(None);
        }
        tokio::select! {
            heard = self.control.next() => Word::Frame(heard),
            outcome = &mut self.ended => {
                self.over = true;
                Word::Ended(outcome.ok())
            }
        }
    }

    /// Ends when the process has, and nothing that it has started is left; says how, unless the sandbox is gone.
    pub(super) async fn ended(&mut self) -> Option<Outcome> {
        if self.over {
            return None;
        }
        let outcome = (&mut self.ended).await.ok();
        self.over = true;
        outcome
    }
}

/// An interpreter that runs.
#[derive(Debug)]
pub(super) struct Interpreter {
    pub(super) line: Line,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    /// Which of the two have a writer left: one at its end is at its end for ever.
    pub(super) open: [bool; 2],
    pub(super) pid: i32,
    /// Whether the last run has left something behind that goes on in the thread that runs cells.
    pub(super) left: bool,
    /// Sets aside what earlier runs have left.
    aside: Option<JoinHandle<()>>,
    agent: Arc<Agent>,
    number: u32,
    language: Language,
    /// Where it listens for interrupts beside its signals.
    bell: Option<OwnedFd>,
}

/// The ends of one interpreter's descriptors.
pub(super) struct Ends {
    pub(super) control: (OwnedFd, OwnedFd),
    pub(super) stdout: (OwnedFd, OwnedFd),
    pub(super) stderr: (OwnedFd, OwnedFd),
}

/// Makes them, ours first.
pub(super) fn ends() -> Result<Ends, Errno> {
    let pipe = || {
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Programs open /dev/stdout anew, as whatever user they are; nobody else can reach the pipe.
        rustix::fs::fchmod(&pipe.0, Mode::from_raw_mode(0o666))?;
        // Refused beyond a user's share (pipe(7)); the usual size does as well.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe.0, PIPE_BYTES);
        Ok::<_, Errno>(pipe)
    };
    Ok(Ends { control: socket::stream_pair()?, stdout: pipe()?, stderr: pipe()? })
}

/// The error for want of descriptors or memory.
pub(super) fn exhausted(error: impl Into<io::Error>) -> Error {
    Error::new(ErrorCode::CapacityExhausted, "the daemon has no descriptors or memory left for a context")
        .source(error.into())
}

impl Interpreter {
    /// Starts one that is nobody's fork. It waits for its beginning.
    ///
    /// # Errors
    /// When the image has none, or the sandbox is gone.
    pub(super) async fn start(agent: &Arc<Agent>, language: Language, start: &Start) -> Result<Self, Error> {
        let Ends { control, stdout, stderr } = ends().map_err(exhausted)?;
        let (bell, bell_inside) = socket::stream_pair().map_err(exhausted)?;
        let program = sealed(language.program().as_bytes()).map_err(exhausted)?;
        let empty = sealed(b"").map_err(exhausted)?;
        let (input, program) = if language.reads_program() { (program, empty) } else { (empty, program) };
        let inside = [input, stdout.1, stderr.1, control.1, program, bell_inside];
        let exec = Exec {
            command: 0,
            program: Program::Shell(language.argv("context", start.heap_mib)),
            env: environment(start.env.clone()),
            cwd: start.cwd.clone().into_bytes(),
            user: start.user.clone(),
            keep: false,
        };
        let fds = inside.each_ref().map(AsFd::as_fd);
        let started = agent.exec(exec, &fds).await.map_err(dead)?;
        drop(inside);
        Self::begun(agent, language, started, [control.0, stdout.0, stderr.0], Some(bell)).await
    }

    /// Waits until the process exists.
    ///
    /// # Errors
    /// When it does not come to exist.
    pub(super) async fn begun(
        agent: &Arc<Agent>,
        language: Language,
        started: Started,
        [control, stdout, stderr]: [OwnedFd; 3],
        bell: Option<OwnedFd>,
    ) -> Result<Self, Error> {
        let Started { number, begun, mut ended } = started;
        let Some(Begun { pid, .. }) = agent.answered(begun).await else {
            return Err(match ended.try_recv() {
                Ok(outcome) => not_started(language, outcome, ""),
                Err(_) => dead(Gone),
            });
        };
        Ok(Self {
            line: Line { control: Control::new(control).map_err(exhausted)?, ended, over: false },
            stdout: Stream::new(stdout).map_err(exhausted)?,
            stderr: Stream::new(stderr).map_err(exhausted)?,
            open: [true; 2],
            pid,
            left: false,
            aside: None,
            agent: Arc::clone(agent),
            number,
            language,
            bell,
        })
    }

    /// Says where and with what it begins, and waits until it is ready for cells.
    ///
    /// # Errors
    /// When it ends instead, or is not ready in time.
    pub(super) async fn greet(&mut self, start: &Start) -> Result<(), Error> {
        self.line.control.say(&Say::Init { cwd: &start.cwd, env: &start.env });
        let ended = match tokio::time::timeout(START, self.line.hear()).await {
            Ok(Word::Frame(Ok(Heard { said: Said::Ready, .. }))) => return Ok(()),
            Ok(Word::Frame(Ok(Heard { said: Said::Failed(why), .. }))) => return Err(no_directory(&why)),
            // Most likely its end: then that says more.
            Ok(Word::Frame(Err(Silence::Closed))) => {
                match tokio::time::timeout(Duration::from_secs(1), self.line.ended()).await {
                    Ok(ended) => ended,
                    Err(_) => self.kill().await,
                }
            }
            Ok(Word::Frame(_)) => self.kill().await,
            Ok(Word::Ended(outcome)) => match self.line.control.next_now() {
                Ok(Some(Heard { said: Said::Failed(why), .. })) => return Err(no_directory(&why)),
                _ => outcome,
            },
            Err(_) => {
                self.kill().await;
                return Err(Error::new(
                    ErrorCode::CapacityExhausted,
                    "the interpreter did not start in time",
                )
                .hint("the sandbox's limits on processor, disk or processes (`pids`) may be too low"));
            }
        };
        Err(ended.map_or_else(|| dead(Gone), |ended| not_started(self.language, ended, &self.last_words())))
    }

    fn last_words(&self) -> String {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut text = Vec::new();
        while let Ok(count @ 1..) = self.stderr.read_now(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
            if text.len() > 16 * CHUNK_BYTES {
                break;
            }
        }
        let last = &text[text.len().saturating_sub(LAST_WORDS_BYTES)..];
        String::from_utf8_lossy(last).trim().to_owned()
    }

    /// Whether it has not ended, as far as is known.
    pub(super) fn lives(&mut self) -> bool {
        let line = &mut self.line;
        if !line.over && !matches!(line.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            line.over = true;
        }
        !line.over
    }

    /// A run has ended: what it leaves running is none of the next one's, and no interrupt of that is for it. Whoever
    /// waits for the run does not wait for that, the next run does. What is started between the two, by a timer say, is
    /// taken for the next one's.
    pub(super) fn leave(&mut self) {
        self.aside = Some(self.agent.set_aside(self.number));
    }

    /// Waits until what earlier runs have left is set aside. Signals for one of them have been sent then to all whom they
    /// were for, and find nothing of the next.
    pub(super) async fn enter(&mut self) {
        if let Some(aside) = self.aside.take() {
            // One that panicked has set nothing aside.
            let _ = aside.await;
        }
    }

    /// Interrupts a run: with all that it has started, or it alone.
    pub(super) async fn interrupt(&self, run: u64, tree: bool) {
        if let Some(bell) = self.bell.as_ref().filter(|_| self.language.has_bell()) {
            // Its low half tells it from those before. One that does not listen is killed soon.
            let _ = socket::send_now(bell, &run.to_le_bytes()[..4], &[]);
            if !tree {
                return;
            }
        }
        // A sandbox that is gone has nothing to interrupt.
        let _ = self.agent.signal(self.number, libc::SIGINT, tree).await;
    }

    /// Interrupts a run and kills all that it has started; with what earlier ones have if `all`.
    pub(super) async fn interrupt_without_others(&self, run: u64, all: bool) {
        self.interrupt(run, false).await;
        // As above.
        let _ = self.agent.interrupt(self.number, libc::SIGINT, all).await;
    }

    /// Kills all that the run has started: nothing that it has left outlives its time, whatever it does about SIGINT.
    pub(super) async fn kill_others(&self) {
        // A sandbox that is gone has none. The process itself is sent nothing.
        let _ = self.agent.interrupt(self.number, 0, false).await;
    }

    /// Interrupts what is left of earlier runs, if this one has not begun because of it. One that has begun hears
    /// nothing.
    pub(super) async fn look(&self, run: u64) {
        if let Some(bell) = self.bell.as_ref().filter(|_| self.language.has_bell()) {
            let _ = socket::send_now(bell, &run.wrapping_neg().to_le_bytes()[..4], &[]);
        } else if self.left {
            let _ = self.agent.signal(self.number, LOOK_SIGNAL, false).await;
        }
    }

    /// Kills it with everything that it has started, and waits for the end.
    pub(super) async fn kill(&mut self) -> Option<Outcome> {
        if self.line.over {
            return None;
        }
        self.agent.kill(self.number).await.ok()?;
        self.line.ended().await
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        if !self.line.over
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (agent, number) = (Arc::clone(&self.agent), self.number);
            runtime.spawn(async move {
                // A sandbox that is gone has taken it along.
                let _ = agent.kill(number).await;
            });
        }
    }
}

fn no_directory(why: &str) -> Error {
    Error::new(ErrorCode::InvalidCwd, format!("cannot enter the working directory: {why}"))
        .hint("name an absolute path of a directory that exists and that the user may enter")
}

fn not_started(language: Language, outcome: Outcome, last_words: &str) -> Error {
    match outcome {
        Outcome::Failed(Step::Exec, libc::ENOENT | libc::ENOTDIR) => Error::new(
            ErrorCode::LanguageNotInImage,
            format!("there is no {} in the sandbox", language.interpreter()),
        )
        .hint(format!("use an image that has it: {}", language.images())),
        Outcome::Failed(step, errno) => refusal(step, errno, language.interpreter()),
        Outcome::Exited(exit, _) => {
            let how = match exit {
                Exit::Code(code) => format!("exit code {code}"),
                Exit::Signal(signal) => format!("signal {signal}"),
            };
            Error::new(
                ErrorCode::LanguageNotInImage,
                format!("the sandbox's {} ended at its start ({how}): {last_words}", language.interpreter()),
            )
            .hint(format!("use an image with one that works: {}", language.images()))
        }
    }
}
