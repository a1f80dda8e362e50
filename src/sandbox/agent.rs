//! serve's side of the socket to one agent: starts commands, hears how they end.
//!
//! The agent may have been taken over by what runs beside it. Everything it says is an [`Event`] of the closed
//! protocol about a command that we started and that has not ended; anything else closes the connection, and the
//! sandbox with it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::sys::channel::{Channel, ChannelError};
use crate::wire::agent::{Event, Exec, Exit, Request, Step, Usage, VERSION};

/// A connection to one agent.
#[derive(Debug)]
pub(super) struct Agent {
    channel: Channel,
    next: AtomicU32,
    waiting: Mutex<HashMap<u32, Waiting>>,
    alive: watch::Sender<bool>,
}

#[derive(Debug)]
struct Waiting {
    started: Option<oneshot::Sender<i32>>,
    ended: oneshot::Sender<Outcome>,
}

/// How a command ended, or why it never began.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It ran.
    Exited(Exit, Usage),
    /// A step before the program failed, with this errno.
    Failed(Step, i32),
}

/// A command that the agent was asked to start.
#[derive(Debug)]
pub(super) struct Started {
    /// Its number.
    pub(super) number: u32,
    /// Fires with the pid; closed without one when the start failed.
    pub(super) pid: oneshot::Receiver<i32>,
    /// Fires when it has ended; closed when the sandbox is gone.
    pub(super) ended: oneshot::Receiver<Outcome>,
}

/// The sandbox's first process is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent is gone")]
pub(super) struct Gone;

impl Agent {
    /// Takes over a connection and starts the task that reads it. Commands are numbered from `first`: after a
    /// restart, ones of the daemon before may still be ending.
    ///
    /// # Errors
    /// When the socket cannot be registered with tokio.
    pub(super) fn start(socket: OwnedFd, first: u32) -> std::io::Result<Arc<Self>> {
        let agent = Arc::new(Self {
            channel: Channel::new(socket)?,
            next: AtomicU32::new(first),
            waiting: Mutex::default(),
            alive: watch::Sender::new(true),
        });
        let reader = Arc::clone(&agent);
        tokio::spawn(async move {
            let error = reader.read_events().await;
            tracing::debug!(%error, "lost an agent");
            reader.alive.send_replace(false);
            reader.lock_waiting().clear();
        });
        Ok(agent)
    }

    /// Whether the agent's connection is open.
    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Asks for a command to be started with these streams: stdin, stdout, stderr.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn exec(
        &self,
        prepare: impl FnOnce(u32) -> Exec,
        streams: [OwnedFd; 3],
    ) -> Result<Started, Gone> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (started, pid) = oneshot::channel();
        let (ended, when_ended) = oneshot::channel();
        self.lock_waiting().insert(number, Waiting { started: Some(started), ended });
        let request = Request::Exec(prepare(number));
        let fds = streams.each_ref().map(AsFd::as_fd);
        if let Err(error) = self.channel.send(&request, &fds).await {
            tracing::debug!(%error, "cannot reach an agent");
            self.lock_waiting().remove(&number);
            return Err(Gone);
        }
        Ok(Started { number, pid, ended: when_ended })
    }

    /// Sends a signal to a command's first process, if it still runs.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn signal(&self, command: u32, signal: i32) -> Result<(), Gone> {
        self.channel.send(&Request::Signal { command, signal }, &[]).await.map_err(|_| Gone)
    }

    /// Kills a command and all that it started, if anything of it is left.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn kill(&self, command: u32) -> Result<(), Gone> {
        self.channel.send(&Request::Kill { command }, &[]).await.map_err(|_| Gone)
    }

    fn lock_waiting(&self) -> MutexGuard<'_, HashMap<u32, Waiting>> {
        // The map is valid after any panic: every operation on it is one insert or remove.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_events(&self) -> ChannelError {
        loop {
            match self.channel.receive::<Event>().await {
                // An agent has no descriptors to give; those that come are closed here.
                Ok((event, fds)) => {
                    drop(fds);
                    if !self.handle(event) {
                        return ChannelError::Frame(crate::wire::BadFrame);
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// False when the agent speaks of something that we did not ask for.
    fn handle(&self, event: Event) -> bool {
        let mut waiting = self.lock_waiting();
        let (command, outcome) = match event {
            Event::Hello { version, .. } => return version == VERSION,
            Event::Started { command, pid } => {
                let started = waiting.get_mut(&command).and_then(|waiting| waiting.started.take());
                // The caller may have gone away; that the command exists is what counts.
                return started.map(|started| started.send(pid)).is_some();
            }
            Event::Failed { command, step, errno } => (command, Outcome::Failed(step, errno)),
            Event::Exited { command, exit, usage } => (command, Outcome::Exited(exit, usage)),
        };
        match waiting.remove(&command) {
            Some(waiting) => {
                let _ = waiting.ended.send(outcome);
                true
            }
            None => false,
        }
    }
}
