//! serve's side of the socket to one agent: starts commands, hears how they end.
//!
//! The agent may have been taken over by what runs beside it. Everything it says is an [`Event`] of the closed
//! protocol about a command that we started and that has not ended; anything else closes the connection, and the
//! sandbox with it. Descriptors come only where they are asked for, and whoever asks checks what they are.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::sys::channel::{Channel, ChannelError};
use crate::sys::{socket, terminal};
use crate::wire::agent::{Event, Exec, Exit, HELD_MAX, Held, Program, Request, Step, Usage, User, VERSION};

/// How long an agent may take to say that it is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an agent may take to read a request and to start what it asks for. With the least processor time that a
/// sandbox can be given it takes some seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });

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
    started: Option<oneshot::Sender<Begun>>,
    reclaimed: Option<oneshot::Sender<Vec<OwnedFd>>>,
    interrupted: Option<oneshot::Sender<()>>,
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
    /// Fires when it exists; closed when the start failed.
    pub(super) begun: oneshot::Receiver<Begun>,
    /// Fires when it has ended; closed when the sandbox is gone.
    pub(super) ended: oneshot::Receiver<Outcome>,
}

/// A command's first process exists.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its pid, as seen in the sandbox.
    pub(super) pid: i32,
    /// The master of its terminal, non-blocking, if it has one.
    pub(super) terminal: Option<OwnedFd>,
}

/// A kept command that a daemon before this one has started.
#[derive(Debug)]
pub(super) struct Reclaimed {
    /// What the agent held for it, in the order in which it was sent; untrusted.
    pub(super) held: Vec<OwnedFd>,
    /// As in [`Started`].
    pub(super) ended: oneshot::Receiver<Outcome>,
}

/// The sandbox's first process is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent is gone")]
pub(super) struct Gone;

impl Agent {
    /// Takes over the first connection to an agent and starts the task that reads it.
    ///
    /// # Errors
    /// When the socket cannot be registered with tokio.
    pub(super) fn start(socket: OwnedFd, first: u32) -> std::io::Result<Arc<Self>> {
        Ok(Self::read(Channel::new(socket)?, first))
    }

    /// Takes over a connection to an agent that knows another daemon's commands, and says which. New commands are
    /// numbered from `first`, or from above those that are there.
    ///
    /// # Errors
    /// When the agent does not say in time what it has, or speaks another version.
    pub(super) async fn adopt(socket: OwnedFd, first: u32) -> std::io::Result<(Arc<Self>, Vec<Held>)> {
        let channel = Channel::new(socket)?;
        let hello = tokio::time::timeout(HELLO_TIMEOUT, channel.receive::<Event>()).await?;
        let (Event::Hello { version: VERSION, commands }, _) = hello.map_err(std::io::Error::other)? else {
            return Err(std::io::Error::other("the agent is of another version"));
        };
        let above = commands.iter().map(|held| held.command.saturating_add(1)).max().unwrap_or(first);
        Ok((Self::read(channel, first.max(above)), commands))
    }

    fn read(channel: Channel, first: u32) -> Arc<Self> {
        let agent = Arc::new(Self {
            channel,
            next: AtomicU32::new(first),
            waiting: Mutex::default(),
            alive: watch::Sender::new(true),
        });
        let reader = Arc::clone(&agent);
        tokio::spawn(async move {
            let mut alive = reader.alive.subscribe();
            tokio::select! {
                error = reader.read_events() => tracing::debug!(%error, "lost an agent"),
                _ = alive.wait_for(|alive| !alive) => tracing::warn!("gave up an agent that does not answer"),
            }
            reader.alive.send_replace(false);
            // An agent that only stalls learns of it, and ends what it runs.
            let _ = rustix::net::shutdown(&reader.channel, rustix::net::Shutdown::Both);
            reader.lock_waiting().clear();
        });
        agent
    }

    /// What the agent answers; `None` when it has refused, or is gone. One that says nothing for
    /// [`ANSWER_TIMEOUT`] is given up, and the sandbox is dead.
    pub(super) async fn answered<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                self.alive.send_replace(false);
                None
            }
        }
    }

    /// Whether the agent's connection is open.
    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Ends when the agent's connection is closed, and with the agent the sandbox has ended.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.alive.subscribe();
        async move {
            // An agent that nobody holds any more is gone as well.
            let _ = alive.wait_for(|alive| !alive).await;
        }
    }

    /// Asks for a command to be started. It gets its number here; `fds` are what its program wants and, for one
    /// that is kept, what the agent is to hold.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn exec(&self, exec: Exec, fds: &[BorrowedFd<'_>]) -> Result<Started, Gone> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (started, begun) = oneshot::channel();
        let (ended, when_ended) = oneshot::channel();
        let waiting = Waiting { started: Some(started), reclaimed: None, interrupted: None, ended };
        let request = Request::Exec(Exec { command: number, ..exec });
        self.ask_waiting(number, waiting, &request, fds).await?;
        Ok(Started { number, begun, ended: when_ended })
    }

    /// Asks for a process that a command has forked to be made a command of its own: the sender of the message that
    /// waits at `witness`.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn adopt_process(&self, from: u32, witness: BorrowedFd<'_>) -> Result<Started, Gone> {
        let command = self.next.fetch_add(1, Ordering::Relaxed);
        let (started, begun) = oneshot::channel();
        let (ended, when_ended) = oneshot::channel();
        let waiting = Waiting { started: Some(started), reclaimed: None, interrupted: None, ended };
        self.ask_waiting(command, waiting, &Request::Adopt { command, from }, &[witness]).await?;
        Ok(Started { number: command, begun, ended: when_ended })
    }

    /// Asks for a worker: our own code with the rights of a command of this user. Returns our end of its socket.
    ///
    /// # Errors
    /// When the agent is gone. That the worker could not be made is seen by `Started`.
    pub(super) async fn worker(&self, user: User) -> Result<(OwnedFd, Started), Gone> {
        let (ours, theirs) = socket::pair().map_err(|error| {
            tracing::warn!(%error, "no socket for a worker");
            Gone
        })?;
        let exec = Exec {
            command: 0,
            program: Program::Worker,
            env: Vec::new(),
            cwd: b"/".to_vec(),
            user,
            keep: false,
        };
        Ok((ours, self.exec(exec, &[theirs.as_fd()]).await?))
    }

    /// Takes up a kept command of a daemon before this one, once. `None` when there is none of this number.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn reclaim(&self, command: u32) -> Result<Option<Reclaimed>, Gone> {
        let (reclaimed, held) = oneshot::channel();
        let (ended, when_ended) = oneshot::channel();
        let waiting = Waiting { started: None, reclaimed: Some(reclaimed), interrupted: None, ended };
        self.ask_waiting(command, waiting, &Request::Reclaim { command }, &[]).await?;
        Ok(self.answered(held).await.map(|held| Reclaimed { held, ended: when_ended }))
    }

    /// Sends a signal to a command's first process, or to all that are not set aside, if it still runs.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn signal(&self, command: u32, signal: i32, tree: bool) -> Result<(), Gone> {
        self.ask(&Request::Signal { command, signal, tree }, &[]).await
    }

    /// Sets aside what a command has started until now, with what that starts from then on. What is returned ends when
    /// that is done, and signals that were sent before are with all whom they were for; or when the agent is gone.
    pub(super) fn set_aside(self: &Arc<Self>, command: u32) -> JoinHandle<()> {
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            if agent.ask(&Request::SetAside { command }, &[]).await.is_ok() {
                let _ = agent.settle().await;
            }
        })
    }

    /// Sends a signal to a command's first process and kills all others, those that are set aside only if it is said.
    /// Returns when that is done; at once when the command has ended.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn interrupt(&self, command: u32, signal: i32, aside: bool) -> Result<(), Gone> {
        let (interrupted, done) = oneshot::channel();
        match self.lock_waiting().get_mut(&command) {
            Some(waiting) => waiting.interrupted = Some(interrupted),
            None => return Ok(()),
        }
        self.ask(&Request::Interrupt { command, signal, aside }, &[]).await?;
        // Closed when the command ends first.
        let _ = done.await;
        Ok(())
    }

    /// Returns when all that was asked before is done. The agent deals with one request after another: one about a
    /// command that never was is answered when those before it have been.
    ///
    /// # Errors
    /// When the agent is gone.
    async fn settle(&self) -> Result<(), Gone> {
        let nobody = self.next.fetch_add(1, Ordering::Relaxed);
        self.reclaim(nobody).await.map(drop)
    }

    /// Closes the writer of a kept command's stdin that the agent holds.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn close_input(&self, command: u32) -> Result<(), Gone> {
        self.ask(&Request::CloseInput { command }, &[]).await
    }

    /// Closes what the agent holds for a kept command, and has it forget its end.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn forget(&self, command: u32) -> Result<(), Gone> {
        self.ask(&Request::Forget { command }, &[]).await
    }

    /// Kills a command and all that it started, if anything of it is left.
    ///
    /// # Errors
    /// When the agent is gone.
    pub(super) async fn kill(&self, command: u32) -> Result<(), Gone> {
        self.ask(&Request::Kill { command }, &[]).await
    }

    async fn ask_waiting(
        &self,
        number: u32,
        waiting: Waiting,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Gone> {
        self.lock_waiting().insert(number, waiting);
        // Looked at only now: from then on the map is emptied when the agent is lost.
        let asked = if self.is_alive() { self.ask(request, fds).await } else { Err(Gone) };
        asked.inspect_err(|_| {
            self.lock_waiting().remove(&number);
        })
    }

    async fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Gone> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.channel.send(request, fds)).await {
            Ok(sent) => sent.map_err(|error| {
                tracing::debug!(%error, "cannot reach an agent");
                Gone
            }),
            // It does not read: as when it does not answer.
            Err(_) => {
                self.alive.send_replace(false);
                Err(Gone)
            }
        }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, HashMap<u32, Waiting>> {
        // The map is valid after any panic: every operation on it is one insert or remove.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_events(&self) -> ChannelError {
        loop {
            match self.channel.receive::<Event>().await {
                Ok((event, fds)) => {
                    if !self.handle(event, fds) {
                        return ChannelError::Frame(crate::wire::BadFrame);
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// False when the agent speaks of something that we did not ask for.
    fn handle(&self, event: Event, fds: Vec<OwnedFd>) -> bool {
        let mut waiting = self.lock_waiting();
        let (command, outcome) = match event {
            Event::Hello { version, .. } => return version == VERSION,
            Event::Started { command, pid } => {
                let started = waiting.get_mut(&command).and_then(|waiting| waiting.started.take());
                // The caller may have gone away; that the command exists is what counts.
                return started.map(|started| started.send(Begun { pid, terminal: master(fds) })).is_some();
            }
            Event::Interrupted { command } => {
                // The command may have ended meanwhile, and whoever asked may be gone.
                let interrupted = waiting.get_mut(&command).and_then(|waiting| waiting.interrupted.take());
                let _ = interrupted.map(|interrupted| interrupted.send(()));
                return true;
            }
            Event::Reclaimed { command } => {
                let reclaimed = waiting.get_mut(&command).and_then(|waiting| waiting.reclaimed.take());
                return fds.len() <= HELD_MAX && reclaimed.map(|reclaimed| reclaimed.send(fds)).is_some();
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

/// The one descriptor that is a terminal's master; everything else is closed.
fn master(fds: Vec<OwnedFd>) -> Option<OwnedFd> {
    let [master] = <[OwnedFd; 1]>::try_from(fds).ok()?;
    let usable = terminal::is_master(&master) == Ok(true) && rustix::io::ioctl_fionbio(&master, true).is_ok();
    usable.then_some(master)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::agent::Name;

    /// Descriptors that this process has open.
    fn open() -> usize {
        std::fs::read_dir("/proc/self/fd").expect("proc").count()
    }

    /// Waits until an agent is given up, or the time is.
    async fn given_up(agent: &Agent) -> bool {
        tokio::time::timeout(Duration::from_secs(10), agent.gone()).await.is_ok()
    }

    fn file() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("null").into()
    }

    fn say(socket: &OwnedFd, event: &Event, fds: &[BorrowedFd<'_>]) {
        // Nobody reads any more once it is given up.
        let _ = socket::send_now(socket, &crate::wire::encode(event).expect("small"), fds);
    }

    #[tokio::test]
    async fn an_agent_that_speaks_of_what_nobody_asked_for_is_given_up() {
        let usage = Usage::default();
        for lie in [
            Event::Started { command: 7, pid: 1 },
            Event::Reclaimed { command: 7 },
            Event::Failed { command: 7, step: Step::Exec, errno: 2 },
            Event::Exited { command: 7, exit: Exit::Code(0), usage },
            Event::Hello { version: VERSION + 1, commands: Vec::new() },
        ] {
            let (ours, theirs) = socket::pair().expect("pair");
            let agent = Agent::start(ours, 1).expect("agent");
            say(&theirs, &lie, &[]);
            assert!(given_up(&agent).await, "{lie:?}");
        }
    }

    #[tokio::test]
    async fn what_an_agent_repeats_ends_it_and_what_it_sends_along_is_closed() {
        let (ours, theirs) = socket::pair().expect("pair");
        let agent = Agent::start(ours, 1).expect("agent");
        let Started { number, begun, ended } = agent.exec(exec(), &[]).await.expect("sent");
        let before = open();
        let fds: Vec<OwnedFd> = (0..socket::FDS_MAX).map(|_| file()).collect();
        let sent: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        // What is no terminal is not passed on as one, and what is more than one is none.
        say(&theirs, &Event::Started { command: number, pid: 1 }, &sent);
        drop(sent);
        drop(fds);
        let begun = begun.await.expect("started");
        assert!(begun.terminal.is_none());
        assert_eq!(open(), before, "descriptors stay open");
        say(&theirs, &Event::Started { command: number, pid: 2 }, &[file().as_fd()]);
        assert!(given_up(&agent).await);
        assert!(ended.await.is_err());
        assert_eq!(open(), before, "descriptors stay open");
    }

    #[tokio::test]
    async fn an_agent_that_floods_holds_up_no_other() {
        let (ours, theirs) = socket::pair().expect("pair");
        let flooded = Agent::start(ours, 1).expect("agent");
        let flood = std::thread::spawn(move || {
            let event = Event::Interrupted { command: 9 };
            let message = crate::wire::encode(&event).expect("small");
            // Until nobody listens.
            while socket::send(&theirs, &message, &[file().as_fd()]).is_ok() {}
        });
        let (ours, theirs) = socket::pair().expect("pair");
        let other = Agent::start(ours, 1).expect("agent");
        for _ in 0..100 {
            let Started { number, ended, .. } = other.exec(exec(), &[]).await.expect("sent");
            let mut buffer = vec![0; crate::limits::FRAME_BYTES_MAX];
            assert!(socket::receive(&theirs, &mut buffer).expect("request").length > 0);
            let usage = Usage::default();
            say(&theirs, &Event::Exited { command: number, exit: Exit::Code(3), usage }, &[]);
            assert!(matches!(ended.await, Ok(Outcome::Exited(Exit::Code(3), _))));
        }
        assert!(flooded.is_alive());
        flooded.alive.send_replace(false);
        assert!(given_up(&flooded).await);
        // Not by waiting for it: its agent's reader has this thread as well.
        while !flood.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        flood.join().expect("the flood ends with its agent");
    }

    proptest! {
        /// Garbage, cut messages and messages with more after them.
        #[test]
        fn bytes_that_are_no_event_end_the_agent(
            mut bytes in prop::collection::vec(any::<u8>(), 1..200),
            command in any::<u32>(),
            cut in 0_usize..8,
            whole in any::<bool>(),
        ) {
            if !whole {
                bytes = crate::wire::encode(&Event::Started { command, pid: -1 }).expect("small");
                bytes.truncate(bytes.len().saturating_sub(cut).max(1));
                bytes.push(0);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (ours, theirs) = socket::pair().expect("pair");
                let agent = Agent::start(ours, 1).expect("agent");
                socket::send_now(&theirs, &bytes, &[file().as_fd()]).expect("sent");
                // Some bytes are a greeting or an answer to an interrupt, which are harmless at any time.
                let harmless = matches!(
                    crate::wire::decode::<Event>(&bytes),
                    Ok(Event::Hello { version: VERSION, .. } | Event::Interrupted { .. })
                );
                drop(theirs);
                assert!(harmless || given_up(&agent).await);
            });
        }
    }

    fn exec() -> Exec {
        Exec {
            command: 0,
            program: Program::Argv(vec![b"true".to_vec()]),
            env: Vec::new(),
            cwd: b"/".to_vec(),
            user: User { user: Name::Id(0), group: None },
            keep: false,
        }
    }

    #[tokio::test]
    async fn an_agent_that_takes_requests_and_never_answers_is_given_up() {
        let (ours, theirs) = socket::pair().expect("pair");
        let agent = Agent::start(ours, 1).expect("agent");
        let Started { begun, ended, .. } = agent.exec(exec(), &[]).await.expect("sent");
        let began = tokio::time::Instant::now();
        assert!(agent.answered(begun).await.is_none());
        assert!(began.elapsed() >= ANSWER_TIMEOUT);
        assert!(!agent.is_alive());
        assert!(ended.await.is_err(), "who waits for the end is told too");
        assert!(agent.exec(exec(), &[]).await.is_err());
        // It has one request to read, and then the end.
        let mut buffer = vec![0; crate::limits::FRAME_BYTES_MAX];
        assert!(socket::receive(&theirs, &mut buffer).expect("request").length > 0);
        assert_eq!(socket::receive(&theirs, &mut buffer).expect("end").length, 0);
    }
}
