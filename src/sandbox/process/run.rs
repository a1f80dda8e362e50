//! The task beside each process that runs: output into the log, the end into the record.
//!
//! Nothing is read into memory, and nobody waits for a reader: what a process writes goes to its log, which forgets
//! the oldest. A process that does nothing but write is slowed down, or it would have a processor of the daemon's
//! for itself.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::SpliceFlags;
use tokio::io::Interest;
use tokio::sync::oneshot;

use super::log::{Log, Stream};
use super::record::{self, End, How};
use super::{Process, Processes};
use crate::journal::feed::Kind;
use crate::sandbox::agent::Outcome;
use crate::sandbox::process::OnExit;
use crate::sys::Errno;
use crate::sys::watched::Watched;

/// Bytes after which the writer has to wait: what a pipe holds.
const BURST_BYTES: usize = 64 * 1024;

/// How long: 64 KiB each millisecond are more than any log that is read.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes that an ended process's pipe can hold at most (`pipe-max-size`, proc(5)).
const LEFT_BYTES_MAX: usize = 1024 * 1024;

/// Both pipes of a process.
#[derive(Debug)]
pub(super) struct Streams([Option<Watched>; 2]);

impl Streams {
    pub(super) fn new([stdout, stderr]: [OwnedFd; 2]) -> io::Result<Self> {
        [&stdout, &stderr].into_iter().try_for_each(must_be_pipe)?;
        Ok(Self([Some(Watched::new(stdout)?), Some(Watched::new(stderr)?)]))
    }

    /// Reads on until the process has ended.
    async fn follow(&mut self, log: &Log, ended: &mut oneshot::Receiver<Outcome>) -> Option<Outcome> {
        let [stdout, stderr] = &mut self.0;
        let read_both = async {
            tokio::join!(follow(stdout, Stream::Stdout, log), follow(stderr, Stream::Stderr, log));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            outcome = ended => outcome.ok(),
            () = read_both => None,
        }
    }

    /// Reads what is left of a process that has ended. Its own processes are gone; a writer that they have passed to
    /// others is not waited for.
    fn drain(self, log: &Log) {
        for (pipe, stream) in self.0.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            let Some(pipe) = pipe else { continue };
            let mut left = LEFT_BYTES_MAX;
            while let Ok(count @ 1..) = take(std::os::fd::AsFd::as_fd(&pipe), stream, log) {
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        }
    }
}

/// After a restart descriptors come from the agent, which may have been taken over.
pub(super) fn must_be_pipe(descriptor: &OwnedFd) -> io::Result<()> {
    let found = rustix::fs::fstat(descriptor)?;
    let is_pipe = rustix::fs::FileType::from_raw_mode(found.st_mode).is_fifo();
    if is_pipe { Ok(()) } else { Err(io::Error::other("not a pipe")) }
}

/// Reads one pipe to its end.
async fn follow(pipe: &mut Option<Watched>, stream: Stream, log: &Log) {
    while let Some(open) = pipe {
        match open.when(Interest::READABLE, |fd| take(fd, stream, log)).await {
            Ok(0) | Err(_) => *pipe = None,
            Ok(BURST_BYTES..) => tokio::time::sleep(PAUSE).await,
            Ok(_) => tokio::task::yield_now().await,
        }
    }
}

/// Moves what a pipe holds, or some of it. What the log cannot take is lost, and counted.
fn take(pipe: BorrowedFd<'_>, stream: Stream, log: &Log) -> io::Result<usize> {
    let moved = log.append(stream, |file, at, most| {
        let mut at = at;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(pipe, None, file, Some(&mut at), most, flags) {
            // A file system that cannot.
            Err(Errno::INVAL) => {
                let mut bytes = vec![0; most];
                let count = rustix::io::read(pipe, &mut bytes)?;
                file.write_all_at(bytes.get(..count).unwrap_or_default(), at)?;
                Ok(count)
            }
            other => Ok(other?),
        }
    });
    match moved {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            let mut bytes = [0; 4096];
            let count = rustix::io::read(pipe, &mut bytes)?;
            log.lose(stream, count as u64);
            Ok(count)
        }
        moved => moved,
    }
}

/// Stays with a process to its end.
pub(super) async fn run(
    process: Arc<Process>,
    processes: Arc<Processes>,
    mut streams: Streams,
    mut ended: oneshot::Receiver<Outcome>,
) {
    let outcome = {
        let time_out = process.time_out();
        let follow = streams.follow(&process.log, &mut ended);
        tokio::pin!(follow);
        tokio::select! {
            outcome = &mut follow => outcome,
            () = time_out => follow.await,
        }
    };
    streams.drain(&process.log);
    process.log.rest();
    process.finish(outcome).await;
    let view = process.view();
    let about = serde_json::json!({
        "id": view.id, "state": view.state, "exit_code": view.exit_code, "timed_out": view.timed_out,
    });
    processes.voice.say(Kind::ProcessExited, about);
    if process.lock().on_exit == OnExit::Remove {
        processes.remove(&process);
    }
}

impl Process {
    /// Kills it when its time is up, wherever the clock was started.
    async fn time_out(&self) {
        let left = {
            let record = self.lock();
            record.timeout_ms.map(|timeout| {
                let gone = u64::try_from(record::now_ms() - record.started_ms).unwrap_or(0);
                Duration::from_millis(timeout.saturating_sub(gone))
            })
        };
        let (Some(left), Some(agent)) = (left, &self.agent) else { return std::future::pending().await };
        tokio::time::sleep(left).await;
        let (record, number) = {
            let mut record = self.lock();
            record.timed_out = true;
            (record.clone(), record.number)
        };
        // First, so that a restart in between does not take it for somebody else's kill.
        if let Err(error) = record.save(&self.directory) {
            tracing::warn!(%error, id = record.id, "cannot write down that a process's time was up");
        }
        let _ = agent.kill(number).await;
    }

    async fn finish(&self, outcome: Option<Outcome>) {
        let how = match outcome {
            Some(Outcome::Exited(exit, usage)) => How::Exited(exit, usage),
            Some(Outcome::Failed(step, errno)) => How::Failed(step, errno),
            None => How::Lost,
        };
        let record = {
            let mut record = self.lock();
            record.end = Some(End { how, at_ms: record::now_ms() });
            record.clone()
        };
        match record.save(&self.directory) {
            Ok(()) => {
                if let (Some(agent), Some(_)) = (&self.agent, outcome) {
                    // An agent that is gone has nothing to forget.
                    let _ = agent.forget(record.number).await;
                }
            }
            // Destroyed with its sandbox.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, id = record.id, "cannot write down the end of a process"),
        }
        self.unread.cancel();
        self.stdin.lock().await.take();
        self.over.send_replace(true);
    }
}
