//! The workers of one sandbox: started when there is something to do, one request at a time each, ended when idle.
//!
//! ```text
//!              call                        last reply
//!   (none) ──────────▶ talking ────────────────────────────▶ idle ──▶ 30 s: closed, and so it ends
//!      ▲  start          │  ▲──────────────────────────────────┘ call
//!      └──── killed ◀────┘ dropped, late, or not by the protocol
//! ```
//!
//! Whoever hangs hangs alone: the next request gets another worker, up to a bound. A slot is free again when the
//! process has ended, not when it was told to: one that waits in the kernel for a file system cannot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::failure;
use crate::error::{Error, ErrorCode};
use crate::limits::{FILE_CALL_TIMEOUT_S, WORKER_IDLE_S};
use crate::sandbox::agent::{Agent, Outcome, Started};
use crate::sandbox::command::{dead, refusal};
use crate::sys::channel::{Channel, ChannelError};
use crate::sys::socket;
use crate::wire::agent::User;
use crate::wire::worker::{Answer, Call, Reply, Request};

/// How long a call waits for a worker when all are busy.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after its socket closed a worker's end may be unknown.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The workers of one sandbox.
#[derive(Debug)]
pub(in crate::sandbox) struct Workers {
    slots: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// Held while a condition is looked at and acted upon.
    turn: tokio::sync::Mutex<()>,
    /// Drafts that are being removed.
    clearing: TaskTracker,
}

#[derive(Debug, Default)]
struct Idle {
    workers: Vec<(Worker, Instant)>,
    swept: bool,
}

/// A process that waits for requests.
#[derive(Debug)]
struct Worker {
    channel: Channel,
    user: User,
    command: u32,
    agent: Arc<Agent>,
    requests: u64,
    /// How it ended, when it has.
    ended: watch::Receiver<Option<Outcome>>,
}

impl Workers {
    /// None yet, and at most this many.
    pub(in crate::sandbox) fn at_most(count: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(count)),
            idle: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            clearing: TaskTracker::new(),
        }
    }

    /// Removes something that nobody waits for.
    pub(super) fn clear(&self, work: impl Future<Output = ()> + Send + 'static) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.clearing.spawn(work);
        }
    }

    /// Waits until what was to be removed is, or cannot be.
    pub(in crate::sandbox) async fn cleared(&self) {
        self.clearing.close();
        // One that hangs ends with the sandbox.
        let _ = tokio::time::timeout(BUSY_TIMEOUT, self.clearing.wait()).await;
    }

    /// How many more there can be.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// One caller at a time.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of this user's that has nothing to do.
    fn take(&self, user: &User) -> Option<Worker> {
        let mut idle = self.lock();
        let position = idle.workers.iter().rposition(|(worker, _)| worker.user == *user)?;
        Some(idle.workers.swap_remove(position).0)
    }

    fn put(self: &Arc<Self>, worker: Worker) {
        let mut idle = self.lock();
        idle.workers.push((worker, Instant::now()));
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::clone(self)));
        }
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(permit);
        }
        // Another user's may be idle; its end makes room.
        self.lock().workers.pop();
        let waited = tokio::time::timeout(BUSY_TIMEOUT, Arc::clone(&self.slots).acquire_owned()).await;
        waited.ok().and_then(Result::ok).ok_or_else(|| {
            Error::new(ErrorCode::FilesUnavailable, "too many file operations at once in this sandbox")
                .hint("wait for some of them; those on a file system that hangs end with the sandbox")
        })
    }

    async fn start(&self, agent: &Arc<Agent>, user: &User) -> Result<Worker, Error> {
        let permit = self.slot().await?;
        let failed = |error: std::io::Error| {
            Error::new(ErrorCode::CapacityExhausted, "the daemon has no descriptors left").source(error)
        };
        let (socket, Started { number, begun, mut ended }) =
            agent.worker(user.clone()).await.map_err(dead)?;
        let channel = Channel::new(socket).map_err(failed)?;
        if agent.answered(begun).await.is_none() {
            return Err(match ended.try_recv() {
                Ok(Outcome::Failed(step, errno)) => refusal(step, errno, "worker"),
                _ => dead(crate::sandbox::agent::Gone),
            });
        }
        let (tell, told) = watch::channel(None);
        tokio::spawn(async move {
            let outcome = ended.await.ok();
            drop(permit);
            tell.send_replace(outcome);
        });
        let (user, agent) = (user.clone(), Arc::clone(agent));
        Ok(Worker { channel, user, command: number, agent, requests: 0, ended: told })
    }

    fn talk(self: &Arc<Self>, worker: Worker) -> Talk {
        Talk { workers: Arc::clone(self), worker: Some(worker), number: 0, added: false }
    }

    /// Asks a worker for something.
    ///
    /// # Errors
    /// When there can be no worker.
    pub(super) async fn ask(
        self: &Arc<Self>,
        agent: &Arc<Agent>,
        user: &User,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Talk, Error> {
        let mut request = Request { number: 0, call };
        // One that was killed while it was idle is found out here, before it can have done anything.
        while let Some(worker) = self.take(user) {
            let mut talk = self.talk(worker);
            if talk.send(&mut request, fds).await.is_ok() {
                return Ok(talk);
            }
        }
        let worker = self.start(agent, user).await?;
        let mut talk = self.talk(worker);
        match talk.send(&mut request, fds).await {
            Ok(()) => Ok(talk),
            Err(error) => Err(talk.lost(error).await),
        }
    }
}

/// Ends workers that were idle for long, until there are none.
async fn sweep(workers: Arc<Workers>) {
    loop {
        tokio::time::sleep(Duration::from_secs(WORKER_IDLE_S)).await;
        let mut idle = workers.lock();
        idle.workers.retain(|(_, since)| since.elapsed() < Duration::from_secs(WORKER_IDLE_S));
        if idle.workers.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

/// A worker that was asked something. Dropping it before the last reply kills the worker.
#[derive(Debug)]
pub(super) struct Talk {
    workers: Arc<Workers>,
    worker: Option<Worker>,
    number: u64,
    /// Something was added, which may come after the last reply and would then be taken for the next request.
    added: bool,
}

impl Talk {
    async fn send(&mut self, request: &mut Request, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let worker = self.worker.as_mut().ok_or(ChannelError::Closed)?;
        worker.requests += 1;
        self.number = worker.requests;
        request.number = self.number;
        worker.channel.send(request, fds).await
    }

    /// The next reply, and the descriptor that it carries. After the last one the worker is free. Cancel-safe.
    ///
    /// # Errors
    /// The worker's refusal, or its end.
    pub(super) async fn next(&mut self) -> Result<(Answer, Option<OwnedFd>), Error> {
        let Some(worker) = &self.worker else { return Err(failure::lost()) };
        let (reply, fd) = match worker.channel.receive::<Reply>().await {
            Ok((reply, fds)) => (reply, only(fds)),
            Err(error) => return Err(self.lost(error).await),
        };
        if reply.number != self.number {
            return Err(failure::lost());
        }
        match reply.result {
            Ok(answer) if answer.is_part() => Ok((answer, None)),
            other => {
                if let Some(worker) = self.worker.take() {
                    if self.added { worker.kill() } else { self.workers.put(worker) }
                }
                other.map(|answer| (answer, fd)).map_err(failure::refusal)
            }
        }
    }

    /// Says something more about what was asked.
    ///
    /// # Errors
    /// When the worker is gone.
    pub(super) async fn add(&mut self, call: Call) -> Result<(), Error> {
        self.added = true;
        let Some(worker) = &self.worker else { return Err(failure::lost()) };
        let sent = worker.channel.send(&Request { number: self.number, call }, &[]).await;
        match sent {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(error).await),
        }
    }

    /// The one reply to a call that needs no long time.
    ///
    /// # Errors
    /// As [`next`](Self::next), or when it takes long all the same.
    pub(super) async fn soon(mut self) -> Result<(Answer, Option<OwnedFd>), Error> {
        let timeout = Duration::from_secs(FILE_CALL_TIMEOUT_S);
        tokio::time::timeout(timeout, self.next()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorCode::FileTimeout, "the sandbox's file system does not answer")
                .hint("its limits may make the disk too slow, or what is mounted there hangs"))
        })
    }

    /// Why a worker's socket closed.
    async fn lost(&mut self, error: ChannelError) -> Error {
        tracing::debug!(%error, "lost a file worker");
        let Some(mut worker) = self.worker.take() else { return failure::lost() };
        if !matches!(error, ChannelError::Closed) {
            worker.kill();
            return failure::lost();
        }
        let ended = tokio::time::timeout(END_TIMEOUT, worker.ended.wait_for(Option::is_some)).await;
        let outcome = ended.ok().and_then(Result::ok).and_then(|outcome| *outcome);
        match outcome {
            Some(Outcome::Failed(step, errno)) => refusal(step, errno, "worker"),
            _ if !worker.agent.is_alive() => dead(crate::sandbox::agent::Gone),
            _ => failure::lost(),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.kill();
        }
    }
}

impl Worker {
    fn kill(self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A sandbox that is gone has taken the worker with it.
                let _ = self.agent.kill(self.command).await;
            });
        }
    }
}

/// The only descriptor that came; none if there were several.
fn only(mut fds: Vec<OwnedFd>) -> Option<OwnedFd> {
    // Whatever becomes of them, and wherever they are dropped.
    fds.iter().for_each(socket::close_at_once);
    if fds.len() == 1 { fds.pop() } else { None }
}

/// Borrows what may be there.
pub(super) fn borrowed(fd: Option<&OwnedFd>) -> Vec<BorrowedFd<'_>> {
    fd.into_iter().map(AsFd::as_fd).collect()
}
