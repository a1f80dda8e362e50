//! The bash of a session: from its start to its end, one script at a time.
//!
//! Output goes through two pipes that live as long as the shell. What a script wrote before it ended is in them when
//! its report comes, so reading them until they are empty is exact. What jobs in the background write belongs to the
//! script that runs at that time, as on a terminal; while none runs it is read at a bounded pace, so that such a job
//! neither stands still nor dies of a broken pipe. The first of it is kept until the next script begins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode};
use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::driver::{self, Line, Report};
use crate::error::{Error, ErrorCode};
use crate::limits::CONTEXT_BACKGROUND_BYTES_MAX;
use crate::sandbox::agent::{Agent, Begun, Gone, Outcome, Started};
use crate::sandbox::command::{dead, refusal};
use crate::sys::socket;
use crate::sys::stream::Stream;
use crate::wire::agent::{Exec, Program, Step, User};

/// How long bash may take until it hears us. It reads one small file.
const START: Duration = Duration::from_secs(20);

/// How long a script may take to end once it is told to, before the shell is killed.
const INTERRUPT: Duration = Duration::from_secs(2);

/// After how long what earlier scripts have started is killed as well: what does not end with that ends with the shell.
const INTERRUPT_ALL: Duration = Duration::from_millis(1500);

/// Between two attempts at that.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(20);

/// What is read at once of output that nobody wants, and how long is waited after it: 6 MiB a second.
const DROP_BYTES: usize = 64 * 1024;
const DROP_PAUSE: Duration = Duration::from_millis(10);

/// Bytes of an answer about the shell's surroundings: more than an environment can have.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How bash is started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// `NAME=value`.
    pub(super) env: Vec<Vec<u8>>,
    /// Where.
    pub(super) cwd: String,
    /// As whom.
    pub(super) user: User,
}

/// A bash that runs.
#[derive(Debug)]
pub(super) struct Shell {
    agent: Arc<Agent>,
    number: u32,
    pid: i32,
    control: Stream,
    /// What came on `control` and has not been looked at.
    said: Vec<u8>,
    script: OwnedFd,
    input: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    turns: Arc<Turns>,
    dropping: JoinHandle<()>,
    ended: oneshot::Receiver<Outcome>,
    over: bool,
    /// Sets aside what earlier scripts have left.
    aside: Option<JoinHandle<()>>,
    status: u8,
    flags: String,
}

/// Who reads the pipes: the script's reader, or the task that drops what nobody wants.
#[derive(Debug)]
struct Turns {
    /// Looked at before reading without a script, and held meanwhile.
    work: Mutex<Work>,
    rested: Notify,
}

#[derive(Debug)]
struct Work {
    /// Whether a script runs.
    busy: bool,
    /// What was written to either pipe since the last one.
    left: Left,
}

/// What jobs in the background wrote to stdout and stderr while no script ran: the first of it.
pub(in crate::sandbox) type Left = [Vec<u8>; 2];

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // A word, and bytes that are only added to: valid after any panic.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a script is to be run with.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Its text, without NUL.
    pub(super) text: String,
    /// Directory for it alone.
    pub(super) cwd: Option<String>,
    /// Variables for it alone.
    pub(super) env: std::collections::BTreeMap<String, String>,
    /// What it reads.
    pub(super) input: Option<Vec<u8>>,
}

/// Where the shell is and what its programs see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sandbox) struct Surroundings {
    /// Its directory.
    pub(in crate::sandbox) cwd: Vec<u8>,
    /// `NAME=value`.
    pub(in crate::sandbox) env: Vec<Vec<u8>>,
}

/// serve's and bash's ends.
struct Ends {
    inside: [OwnedFd; 6],
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    script: OwnedFd,
    input: OwnedFd,
}

fn ends() -> io::Result<Ends> {
    let pipe = || {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Programs open /dev/stdout anew, as whatever user they are; nobody else can reach the pipe.
        rustix::fs::fchmod(&reader, Mode::from_raw_mode(0o666))?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok::<_, rustix::io::Errno>((reader, writer))
    };
    let memory = |name: &str| {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        // Bash opens it anew, as whatever user it is.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
        Ok::<_, rustix::io::Errno>(file)
    };
    let (stdout, stdout_inside) = pipe()?;
    let (stderr, stderr_inside) = pipe()?;
    let (control, control_inside) = socket::stream_pair()?;
    let (driver, script, input) = (memory("driver")?, memory("script")?, memory("input")?);
    write_at_start(&driver, driver::driver().as_bytes())?;
    let duplicate = |file: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(file, 3);
    let (script_inside, input_inside) = (duplicate(&script)?, duplicate(&input)?);
    let inside = [driver, stdout_inside, stderr_inside, control_inside, script_inside, input_inside];
    Ok(Ends { inside, control, stdout, stderr, script, input })
}

/// Makes these bytes all that a memory file holds.
fn write_at_start(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    rustix::fs::ftruncate(file, 0)?;
    let mut offset = 0;
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(file, bytes, offset)?;
        offset += count as u64;
        bytes = &bytes[count..];
    }
    Ok(())
}

fn exhausted(error: io::Error) -> Error {
    Error::new(ErrorCode::CapacityExhausted, "the daemon has no descriptors or memory left for a session")
        .source(error)
}

impl Shell {
    /// Starts bash and waits until it hears us.
    ///
    /// # Errors
    /// When there is no bash, it does not start, or the sandbox is gone.
    pub(super) async fn start(agent: Arc<Agent>, start: Start) -> Result<Self, Error> {
        let ends = ends().map_err(exhausted)?;
        let exec = Exec {
            command: 0,
            program: Program::Shell(driver::ARGV.map(|word| word.as_bytes().to_vec()).to_vec()),
            env: start.env,
            cwd: start.cwd.into_bytes(),
            user: start.user,
            keep: false,
        };
        let fds = ends.inside.each_ref().map(AsFd::as_fd);
        let Started { number, begun, mut ended } = agent.exec(exec, &fds).await.map_err(dead)?;
        drop(ends.inside);
        let Some(Begun { pid, .. }) = agent.answered(begun).await else {
            return Err(match ended.try_recv() {
                Ok(outcome) => not_started(outcome),
                Err(_) => dead(Gone),
            });
        };
        let work = Mutex::new(Work { busy: true, left: Left::default() });
        let turns = Arc::new(Turns { work, rested: Notify::new() });
        let dropping = drop_output(&ends.stdout, &ends.stderr, &turns).map_err(exhausted)?;
        let mut shell = Self {
            agent,
            number,
            pid,
            control: Stream::new(ends.control).map_err(exhausted)?,
            said: Vec::new(),
            script: ends.script,
            input: ends.input,
            stdout: ends.stdout,
            stderr: ends.stderr,
            turns,
            dropping,
            ended,
            over: false,
            aside: None,
            status: 0,
            flags: String::new(),
        };
        shell.greet().await?;
        Ok(shell)
    }

    async fn greet(&mut self) -> Result<(), Error> {
        match tokio::time::timeout(START, self.report("-")).await {
            Ok(Ok(report)) => {
                self.flags = report.flags;
                // It says that it has no terminal.
                drop(self.work());
                self.leave();
                self.rest();
                Ok(())
            }
            Ok(Err(Ended::Gone)) => Err(dead(Gone)),
            Ok(Err(Ended::Outcome(outcome))) => Err(not_started(outcome)),
            Err(_) => Err(Error::new(ErrorCode::CapacityExhausted, "bash did not start in time")
                .hint("the sandbox's limits on processor or disk may be too low")),
        }
    }

    /// Pid of bash, as seen in the sandbox.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// The number of its command.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether it has not ended, as far as is known.
    pub(super) fn lives(&mut self) -> bool {
        if !self.over && !matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            self.over = true;
        }
        !self.over
    }

    /// The readers of its two pipes, for one script.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn streams(&self) -> io::Result<(pipe::Receiver, pipe::Receiver)> {
        Ok((receiver(&self.stdout)?, receiver(&self.stderr)?))
    }

    /// Starts a script, whose output begins now, and gives what was written before. Its report is awaited by
    /// [`report`](Self::report).
    ///
    /// # Errors
    /// When the shell is gone or there is no memory.
    pub(super) async fn run(&mut self, nonce: &str, script: &Script) -> io::Result<Left> {
        if let Some(aside) = self.aside.take() {
            // One that panicked has set nothing aside.
            let _ = aside.await;
        }
        let left = self.work();
        write_at_start(&self.script, driver::script(&script.text, &self.flags).as_bytes())?;
        if let Some(input) = &script.input {
            write_at_start(&self.input, input)?;
        }
        let line = Line {
            nonce,
            status: self.status,
            cwd: script.cwd.as_deref(),
            env: &script.env,
            input: script.input.is_some(),
        };
        self.control.write_all(line.write().as_bytes()).await?;
        Ok(left)
    }

    /// Nothing is read without a script from here on; and what jobs in the background wrote until now is no script's.
    fn work(&self) -> Left {
        let mut work = self.turns.lock();
        work.busy = true;
        let mut left = std::mem::take(&mut work.left);
        for (pipe, left) in [&self.stdout, &self.stderr].into_iter().zip(&mut left) {
            empty(pipe.as_fd(), left);
        }
        left
    }

    /// A script has ended: what it leaves running is none of the next one's. Whoever waits for the script does not wait
    /// for that, the next one does.
    pub(super) fn leave(&mut self) {
        self.aside = Some(self.agent.set_aside(self.number));
    }

    /// No script runs, and nobody reads what the last one wrote.
    pub(super) fn rest(&self) {
        self.turns.lock().busy = false;
        self.turns.rested.notify_one();
        for file in [&self.script, &self.input] {
            // Memory that is not given back now is given back with the next script.
            let _ = rustix::fs::ftruncate(file, 0);
        }
    }

    /// What bash says about a script. Cancel-safe.
    pub(super) async fn report(&mut self, nonce: &str) -> Result<Report, Ended> {
        loop {
            while let Some(length) = self.said.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.said.drain(..=length).collect();
                let line = std::str::from_utf8(&line[..length]).unwrap_or_default();
                if let Some(report) = Report::parse(line, nonce) {
                    return Ok(report);
                }
            }
            if self.said.len() > ANSWER_BYTES_MAX {
                self.said.clear();
            }
            self.hear().await?;
        }
    }

    /// Reads some more of what bash says. Cancel-safe.
    async fn hear(&mut self) -> Result<(), Ended> {
        let mut buffer = [0; 4096];
        if self.over {
            return Err(Ended::Gone);
        }
        tokio::select! {
            read = self.control.read(&mut buffer) => match read {
                Ok(count) if count > 0 => {
                    self.said.extend_from_slice(&buffer[..count]);
                    return Ok(());
                }
                // It closed the socket: it has ended, or became another program, which will.
                _ => {}
            },
            outcome = &mut self.ended => {
                self.over = true;
                return Err(outcome.map_or(Ended::Gone, Ended::Outcome));
            }
        }
        let outcome = (&mut self.ended).await;
        self.over = true;
        Err(outcome.map_or(Ended::Gone, Ended::Outcome))
    }

    /// Remembers how a script ended, for the next one.
    pub(super) fn remember(&mut self, report: &Report) {
        self.status = report.status.unwrap_or(1);
        self.flags.clone_from(&report.flags);
    }

    /// Ends the script that runs, with everything that it has started. The shell goes on, as does what earlier ones have
    /// started; when it cannot, all that is killed too.
    pub(super) async fn interrupt(&mut self, nonce: &str) -> Result<(), Ended> {
        let began = Instant::now();
        let give_up = began + INTERRUPT;
        loop {
            let all = began.elapsed() >= INTERRUPT_ALL;
            let interrupted = self.agent.interrupt(self.number, driver::INTERRUPT, all).await;
            interrupted.map_err(|_| Ended::Gone)?;
            let again = Instant::now() + INTERRUPT_AGAIN;
            tokio::select! {
                report = self.report(nonce) => {
                    report?;
                    break;
                }
                () = tokio::time::sleep_until(again) => {}
            }
            if Instant::now() >= give_up {
                return self.kill().await;
            }
        }
        // What it started while it was being interrupted. Its signal finds no script, and is spent before the answer.
        let interrupted = self.agent.interrupt(self.number, driver::INTERRUPT, false).await;
        interrupted.map_err(|_| Ended::Gone)?;
        let recover = format!("r{nonce}");
        if self.control.write_all(driver::recover(&recover).as_bytes()).await.is_err() {
            return self.kill().await;
        }
        match tokio::time::timeout_at(give_up, self.report(&recover)).await {
            Ok(report) => {
                self.flags = report?.flags;
                self.status = 0;
                Ok(())
            }
            Err(_) => self.kill().await,
        }
    }

    /// Kills bash and everything that it started.
    async fn kill(&mut self) -> Result<(), Ended> {
        self.agent.kill(self.number).await.map_err(|_| Ended::Gone)?;
        let outcome = (&mut self.ended).await;
        self.over = true;
        Err(outcome.map_or(Ended::Gone, Ended::Outcome))
    }

    /// Waits until it has ended, having been killed.
    pub(super) async fn wait(&mut self) {
        if !self.over {
            // Closed when the sandbox is gone, and the shell with it.
            let _ = (&mut self.ended).await;
            self.over = true;
        }
    }

    /// The directory and the exported variables.
    pub(super) async fn surroundings(&mut self, nonce: &str) -> Result<Surroundings, Ended> {
        let answer = self.ask(nonce, &driver::surroundings(nonce)).await?;
        let (cwd, names) = split(&answer, 0);
        let names: Vec<&str> = std::str::from_utf8(names).unwrap_or_default().lines().collect();
        let names: Vec<&str> = names.into_iter().filter(|name| driver::is_name(name)).collect();
        let answer = self.ask(nonce, &driver::values(nonce, &names)).await?;
        let values = answer.split(|&byte| byte == 0);
        let env = names.iter().zip(values).map(|(name, value)| [name.as_bytes(), b"=", value].concat());
        Ok(Surroundings { cwd: cwd.to_vec(), env: env.collect() })
    }

    /// Everything that bash says before its report.
    async fn ask(&mut self, nonce: &str, line: &str) -> Result<Vec<u8>, Ended> {
        self.said.clear();
        let report = format!("{nonce} 0 ");
        if self.control.write_all(line.as_bytes()).await.is_err() {
            self.kill().await?;
        }
        loop {
            let last = self.said.windows(report.len()).rposition(|part| part == report.as_bytes());
            if let Some(length) = last
                && self.said.ends_with(b"\n")
            {
                let mut answer = std::mem::take(&mut self.said);
                answer.truncate(length);
                return Ok(answer);
            }
            if self.said.len() > ANSWER_BYTES_MAX {
                self.kill().await?;
            }
            self.hear().await?;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.dropping.abort();
        if !self.over
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (agent, number) = (Arc::clone(&self.agent), self.number);
            runtime.spawn(async move {
                // A sandbox that is gone has taken the shell with it.
                let _ = agent.kill(number).await;
            });
        }
    }
}

/// Why there is no report.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// bash ended.
    Outcome(Outcome),
    /// The sandbox did.
    Gone,
}

/// At the first byte of this value: what is before and what is after.
fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == at) {
        Some(length) => (&bytes[..length], &bytes[length + 1..]),
        None => (bytes, &[]),
    }
}

fn not_started(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Failed(Step::Exec, libc::ENOENT | libc::ENOTDIR) => Error::new(
            ErrorCode::CommandNotInImage,
            "a session is a bash, and there is no bash in the sandbox",
        )
        .hint("use an image that has bash in its PATH; commands and processes need none"),
        Outcome::Failed(step, errno) => refusal(step, errno, "bash"),
        Outcome::Exited(exit, _) => {
            Error::new(ErrorCode::SessionEnded, format!("bash ended at its start: {exit:?}"))
                .hint("run `bash` as a command to see what it says")
        }
    }
}

fn receiver(pipe: &OwnedFd) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(rustix::io::fcntl_dupfd_cloexec(pipe, 3)?)
}

/// Reads what is there, but not for ever.
fn empty(pipe: BorrowedFd<'_>, left: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    for _ in 0..2 * DROP_BYTES / buffer.len() {
        let Ok(count @ 1..) = rustix::io::read(pipe, &mut buffer) else { return };
        keep(left, &buffer[..count]);
    }
}

/// Keeps as much as may be kept.
fn keep(left: &mut Vec<u8>, bytes: &[u8]) {
    let room = CONTEXT_BACKGROUND_BYTES_MAX.saturating_sub(left.len());
    left.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Starts reading what nobody wants.
fn drop_output(stdout: &OwnedFd, stderr: &OwnedFd, turns: &Arc<Turns>) -> io::Result<JoinHandle<()>> {
    let (stdout, stderr) = (receiver(stdout)?, receiver(stderr)?);
    let turns = Arc::clone(turns);
    Ok(tokio::spawn(async move {
        loop {
            let ready = tokio::select! {
                ready = stdout.readable() => ready.map(|()| (&stdout, 0)),
                ready = stderr.readable() => ready.map(|()| (&stderr, 1)),
            };
            let Ok((pipe, which)) = ready else { return };
            let read = {
                let mut work = turns.lock();
                (!work.busy).then(|| drop_some(pipe, &mut work.left[which]))
            };
            match read {
                Some(Dropped::End) => return,
                Some(Dropped::All) => {}
                Some(Dropped::Some) => tokio::time::sleep(DROP_PAUSE).await,
                None => turns.rested.notified().await,
            }
        }
    }))
}

/// How far a pipe was read.
enum Dropped {
    Some,
    All,
    End,
}

/// Reads some of a pipe through tokio, so that it waits anew when that is empty.
fn drop_some(pipe: &pipe::Receiver, left: &mut Vec<u8>) -> Dropped {
    let mut buffer = [0; 4096];
    for _ in 0..DROP_BYTES / buffer.len() {
        match pipe.try_read(&mut buffer) {
            Ok(0) => return Dropped::End,
            Ok(count) => keep(left, &buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Dropped::All,
            Err(_) => return Dropped::End,
        }
    }
    Dropped::Some
}
