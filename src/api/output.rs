//! A command's two pipes, read fairly, and handed on at the pace of whoever wants them.
//!
//! ```text
//! command ─stdout─▶ pipe ─┐                 ┌─▶ Collected   (reads on and drops beyond a bound)
//!                         ├─▶ Streams::next ┤
//! command ─stderr─▶ pipe ─┘                 └─▶ forward ─▶ channel of 4 chunks ─▶ SSE, WebSocket
//! ```
//!
//! Invariants:
//! - [`forward`] reads from a pipe only when the channel has room for what comes: a reader that stalls stalls
//!   the command in write(2), and costs the daemon at most the channel.
//! - Input is written while output is read; neither waits for the other.
//! - The command is awaited all the time, so that its timeout fires whatever the reader does.
//! - When the reader is gone the [`Command`] is dropped, which kills everything that it started.
//!
//! A command's processes are gone when it is reported as ended, and what they wrote is in the pipes. A pipe
//! that then still has a writer was passed on to another command of the sandbox (`SCM_RIGHTS`): what it holds
//! is read, at most its capacity, but its end is not waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::schema::{CommandEnd, CommandResult, Encoding, Truncated, Written};
use super::signals;
use crate::error::{Error, ErrorCode};
use crate::sandbox::{Command, CommandExit, Recorded, Recorder, SessionCommand};
use crate::wire::agent::Exit;

/// Bytes read at once: a pipe's usual capacity (pipe(7)).
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks on their way to a reader.
const CHUNKS_MAX: usize = 4;

/// How long an ended command's pipe may have nothing and a writer.
const ORPHAN_TIMEOUT: Duration = Duration::from_millis(100);

/// What is taken from the budget at once.
const GRANT_BYTES: usize = 256 * 1024;

/// What a command wrote, or how it ended.
#[derive(Debug)]
pub(super) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    Ended(Box<CommandExit>),
    Failed(Error),
}

/// What runs and writes: a command of its own, or one of a session.
pub(super) trait Running: Send + 'static {
    /// Whether its pipes outlive it. Then what they hold when it has ended is the rest, and no end is waited for.
    const LASTING: bool;

    /// Its name.
    fn id(&self) -> &str;

    /// Its stdin, if it is a pipe.
    fn stdin(&mut self) -> Option<pipe::Sender>;

    /// Its stdout and stderr, the first time.
    fn outputs(&mut self) -> [Option<pipe::Receiver>; 2];

    /// For what is read and written here, if it is recorded.
    fn recorder(&self) -> Option<&Arc<Recorder>>;

    /// Waits until it has ended. Cancel-safe.
    fn wait(&mut self) -> impl Future<Output = Result<CommandExit, Error>> + Send;
}

/// The recording of a command.
pub(super) fn recording(command: &impl Running) -> Option<String> {
    command.recorder().map(|recorder| recorder.id().to_owned())
}

impl Running for Command {
    const LASTING: bool = false;

    fn id(&self) -> &str {
        &self.id
    }

    fn stdin(&mut self) -> Option<pipe::Sender> {
        self.stdin.take()
    }

    fn outputs(&mut self) -> [Option<pipe::Receiver>; 2] {
        [self.stdout.take(), self.stderr.take()]
    }

    fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    fn wait(&mut self) -> impl Future<Output = Result<CommandExit, Error>> + Send {
        Self::wait(self)
    }
}

impl Running for SessionCommand {
    const LASTING: bool = true;

    fn id(&self) -> &str {
        &self.id
    }

    fn stdin(&mut self) -> Option<pipe::Sender> {
        None
    }

    fn outputs(&mut self) -> [Option<pipe::Receiver>; 2] {
        [self.stdout.take(), self.stderr.take()]
    }

    fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    fn wait(&mut self) -> impl Future<Output = Result<CommandExit, Error>> + Send {
        Self::wait(self)
    }
}

/// One pipe of a command.
#[derive(Debug)]
struct Stream {
    pipe: Option<pipe::Receiver>,
    buffer: BytesMut,
    /// What may still come, once the command has ended.
    left: usize,
    /// Whether nothing is waited for any more.
    draining: bool,
}

impl Stream {
    fn new(pipe: Option<pipe::Receiver>) -> Self {
        Self { pipe, buffer: BytesMut::new(), left: usize::MAX, draining: false }
    }

    /// The next bytes; `None` when the pipe is closed now. Cancel-safe: one read into an owned buffer.
    async fn read(&mut self) -> Option<Bytes> {
        let pipe = self.pipe.as_mut()?;
        self.buffer.reserve(CHUNK_BYTES);
        let read = if self.draining {
            read_now(pipe, &mut self.buffer)
        } else {
            pipe.read_buf(&mut self.buffer).await
        };
        match read {
            Ok(count) if count > 0 => {
                self.left = self.left.saturating_sub(count);
                if self.left == 0 {
                    self.pipe = None;
                }
                Some(self.buffer.split().freeze())
            }
            // The end, or nothing more; a pipe has no other way to fail.
            _ => {
                self.pipe = None;
                None
            }
        }
    }

    fn ended(&mut self, lasting: bool) {
        self.draining = lasting;
        if let Some(pipe) = &self.pipe {
            self.left = rustix::pipe::fcntl_getpipe_size(pipe).unwrap_or(CHUNK_BYTES);
        }
    }
}

/// Reads what a pipe holds, whether or not the reactor has heard of it.
fn read_now(pipe: &pipe::Receiver, buffer: &mut BytesMut) -> std::io::Result<usize> {
    let mut chunk = [0; 16 * 1024];
    let count = rustix::io::read(pipe, &mut chunk)?;
    buffer.extend_from_slice(&chunk[..count]);
    Ok(count)
}

/// Both pipes of a command.
#[derive(Debug)]
struct Streams {
    stdout: Stream,
    stderr: Stream,
    ended: bool,
    recorder: Option<Arc<Recorder>>,
}

impl Streams {
    fn of(command: &mut impl Running) -> Self {
        let [stdout, stderr] = command.outputs();
        let recorder = command.recorder().cloned();
        Self { stdout: Stream::new(stdout), stderr: Stream::new(stderr), ended: false, recorder }
    }

    fn open(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// What comes first on either pipe; `None` when that closed one of them. Cancel-safe, as its arms are.
    async fn next(&mut self) -> Option<Output> {
        let orphaned = async {
            if self.ended {
                tokio::time::sleep(ORPHAN_TIMEOUT).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            bytes = self.stdout.read(), if self.stdout.pipe.is_some() => {
                self.record(Recorded::Output, bytes).map(Output::Stdout)
            }
            bytes = self.stderr.read(), if self.stderr.pipe.is_some() => {
                self.record(Recorded::Errors, bytes).map(Output::Stderr)
            }
            () = orphaned => {
                // What they hold is still read: the time may be over because this process did not get its turn.
                self.stdout.draining = true;
                self.stderr.draining = true;
                None
            }
        }
    }

    fn record(&self, what: Recorded, bytes: Option<Bytes>) -> Option<Bytes> {
        if let (Some(recorder), Some(bytes)) = (&self.recorder, &bytes) {
            recorder.add(what, bytes);
        }
        bytes
    }

    /// Everything was read.
    fn finish(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.finish();
        }
    }

    /// The command has ended: from now on only what the pipes hold counts.
    fn ended<R: Running>(&mut self, _: &R) {
        self.ended = true;
        self.stdout.ended(R::LASTING);
        self.stderr.ended(R::LASTING);
    }
}

/// What a command reads, as it takes it.
#[derive(Debug)]
struct Input {
    pipe: Option<pipe::Sender>,
    bytes: Bytes,
    recorder: Option<Arc<Recorder>>,
}

impl Input {
    fn of(command: &mut impl Running, bytes: Option<Vec<u8>>) -> Self {
        let bytes = Bytes::from(bytes.unwrap_or_default());
        let pipe = command.stdin().filter(|_| !bytes.is_empty());
        Self { pipe, bytes, recorder: command.recorder().cloned() }
    }

    /// Writes some more; closes the pipe after the last byte, or when the command reads no more. Cancel-safe:
    /// one write.
    async fn write(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.write(&self.bytes).await {
            Ok(count) => {
                if let Some(recorder) = &self.recorder {
                    recorder.add(Recorded::Input, &self.bytes[..count]);
                }
                self.bytes.advance(count);
            }
            Err(_) => self.bytes.clear(),
        }
        if self.bytes.is_empty() {
            self.pipe = None;
        }
    }
}

/// Hands on what a command writes, then how it ended, until the reader is gone.
pub(super) async fn forward<R: Running>(mut command: R, stdin: Stdin, reader: mpsc::Sender<Output>) {
    let mut streams = Streams::of(&mut command);
    let Stdin { bytes, grant: _held } = stdin;
    let mut input = Input::of(&mut command, bytes);
    let mut exit = None;
    let mut room = None;
    while exit.is_none() || streams.open() {
        tokio::select! {
            output = streams.next(), if room.is_some() && streams.open() => {
                if let Some(output) = output
                    && let Some(permit) = room.take()
                {
                    mpsc::Permit::send(permit, output);
                }
            }
            permit = reader.reserve(), if room.is_none() => match permit {
                Ok(permit) => room = Some(permit),
                Err(_) => return,
            },
            () = reader.closed(), if room.is_some() => return,
            ended = command.wait(), if exit.is_none() => {
                exit = Some(ended);
                streams.ended(&command);
            }
            () = input.write(), if input.pipe.is_some() => {}
        }
    }
    drop(room);
    streams.finish();
    let last = match exit {
        Some(Ok(exit)) => Output::Ended(Box::new(exit)),
        Some(Err(error)) => Output::Failed(error),
        None => return,
    };
    // A reader that left meanwhile needs no last word.
    let _ = reader.send(last).await;
}

/// What a command reads, and the memory that it was given.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) grant: Option<Grant>,
}

/// A channel of the size that [`forward`] wants.
pub(super) fn channel() -> (mpsc::Sender<Output>, mpsc::Receiver<Output>) {
    mpsc::channel(CHUNKS_MAX)
}

/// Memory that all requests share.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What was taken from a budget; dropping gives it back.
#[derive(Debug)]
pub(crate) struct Grant {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Grant {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Grows to at least so many bytes, if the budget has them.
    pub(super) fn cover(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.bytes).next_multiple_of(GRANT_BYTES);
        let covered = missing == 0 || self.budget.take(missing);
        if covered {
            self.bytes += missing;
        }
        covered
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// The beginning of a stream.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Kept {
    fn add(&mut self, bytes: &[u8], bytes_max: usize, grant: &mut Grant, other: usize) {
        let room = if self.truncated { 0 } else { bytes_max - self.bytes.len() };
        let mut taken = &bytes[..bytes.len().min(room)];
        if !grant.cover(other + self.bytes.len() + taken.len()) {
            taken = &[];
        }
        self.bytes.extend_from_slice(taken);
        self.truncated |= taken.len() < bytes.len();
    }

    fn written(self) -> (String, Encoding) {
        written(self.bytes)
    }
}

/// Runs a command to its end and keeps the beginning of what it writes. Memory is taken from the grant, which
/// must live as long as the result.
///
/// # Errors
/// When the end of the command is not known.
pub(super) async fn collect<R: Running>(
    mut command: R,
    stdin: Option<Vec<u8>>,
    bytes_max: usize,
    grant: &mut Grant,
) -> Result<CommandResult, Error> {
    let mut streams = Streams::of(&mut command);
    let mut input = Input::of(&mut command, stdin);
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let mut exit = None;
    while exit.is_none() || streams.open() {
        tokio::select! {
            output = streams.next(), if streams.open() => match output {
                Some(Output::Stdout(bytes)) => stdout.add(&bytes, bytes_max, grant, stderr.bytes.len()),
                Some(Output::Stderr(bytes)) => stderr.add(&bytes, bytes_max, grant, stdout.bytes.len()),
                _ => {}
            },
            ended = command.wait(), if exit.is_none() => {
                exit = Some(ended);
                streams.ended(&command);
            }
            () = input.write(), if input.pipe.is_some() => {}
        }
    }
    let Some(exit) = exit else { unreachable!("the loop ends only after the command") };
    streams.finish();
    let truncated = Truncated { stdout: stdout.truncated, stderr: stderr.truncated };
    let (stdout, stdout_encoding) = stdout.written();
    let (stderr, stderr_encoding) = stderr.written();
    let written = Written { stdout, stdout_encoding, stderr, stderr_encoding, truncated };
    match exit {
        Ok(exit) => {
            let recording = recording(&command);
            Ok(CommandResult { end: end(command.id().to_owned(), &exit), written, recording })
        }
        Err(error) => Err(with_output(error, &written)),
    }
}

/// A shell that ended has written something, and there is no result to put it in.
fn with_output(mut error: Error, written: &Written) -> Error {
    if error.code == ErrorCode::SessionEnded
        && let (Some(Value::Object(context)), Ok(Value::Object(more))) =
            (&mut error.context, serde_json::to_value(written))
    {
        context.extend(more);
    }
    error
}

/// How a command ended, as clients see it.
pub(super) fn end(id: String, exit: &CommandExit) -> CommandEnd {
    let (exit_code, signal) = match exit.exit {
        Exit::Code(code) => (code, None),
        Exit::Signal(number) => (128 + number, Some(signals::name(number))),
    };
    CommandEnd {
        id,
        exit_code,
        signal,
        timed_out: exit.timed_out,
        oom_killed: exit.oom_killed,
        duration_ms: exit.duration.as_secs_f64() * 1000.0,
        usage: exit.usage.map(Into::into),
    }
}

/// Bytes as a JSON string can carry them.
pub(super) fn written(bytes: Vec<u8>) -> (String, Encoding) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_the_exact_beginning() {
        let mut grant = Grant::new(Arc::new(Budget::new(1 << 20)));
        let mut kept = Kept::default();
        kept.add(b"abc", 5, &mut grant, 0);
        assert!(!kept.truncated);
        kept.add(b"de", 5, &mut grant, 0);
        assert!(!kept.truncated, "exactly as much as is kept is not too much");
        kept.add(b"f", 5, &mut grant, 0);
        assert_eq!((kept.bytes.as_slice(), kept.truncated), (&b"abcde"[..], true));
        let mut none = Kept::default();
        none.add(b"", 0, &mut grant, 0);
        assert!(!none.truncated);
        none.add(b"x", 0, &mut grant, 0);
        assert!(none.truncated);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_pipe_holds_is_read_even_when_its_time_was_over_first() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        rustix::io::ioctl_fionbio(&reader, true).expect("set up");
        let stdout = Stream::new(Some(pipe::Receiver::from_owned_fd(reader).expect("register")));
        let mut streams = Streams { stdout, stderr: Stream::new(None), ended: true, recorder: None };
        // The time passes before the reactor has heard of anything.
        assert!(streams.next().await.is_none());
        rustix::io::write(&writer, b"late").expect("write");
        assert!(matches!(streams.next().await, Some(Output::Stdout(bytes)) if &bytes[..] == b"late"));
        // Nothing more, and its writer is not waited for.
        assert!(streams.next().await.is_none());
        assert!(!streams.open());
    }

    #[test]
    fn nothing_is_kept_after_a_gap() {
        let budget = Arc::new(Budget::new(GRANT_BYTES));
        let mut hog = Grant::new(Arc::clone(&budget));
        assert!(hog.cover(1));
        let mut grant = Grant::new(Arc::clone(&budget));
        let mut kept = Kept::default();
        kept.add(b"lost", 100, &mut grant, 0);
        drop(hog);
        kept.add(b"later", 100, &mut grant, 0);
        assert_eq!((kept.bytes.as_slice(), kept.truncated), (&b""[..], true));
    }

    #[test]
    fn a_budget_gets_back_what_was_taken() {
        let budget = Arc::new(Budget::new(2 * GRANT_BYTES));
        let mut first = Grant::new(Arc::clone(&budget));
        assert!(first.cover(GRANT_BYTES + 1));
        let mut second = Grant::new(Arc::clone(&budget));
        assert!(!second.cover(1));
        drop(first);
        assert!(second.cover(2 * GRANT_BYTES));
    }

    #[test]
    fn bytes_that_are_not_text_survive() {
        assert_eq!(written("ä\0\n".into()), ("ä\0\n".to_owned(), Encoding::Utf8));
        assert_eq!(written(vec![0xff, 0]), ("/wA=".to_owned(), Encoding::Base64));
    }
}
