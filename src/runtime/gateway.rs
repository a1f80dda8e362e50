//! The launcher's side of the gateway: starts it when the first sandbox needs one, and again when it has died.
//!
//! Policies and duplicates of the sockets are kept here, so that a new gateway takes up what the one before did, and
//! nobody in a sandbox can bind the ports in between: connections wait meanwhile. What is to be said to the gateway waits
//! in a queue; a gateway that does not listen cannot stop the launcher. What was decided outlives a gateway too, in a
//! file in memory for each sandbox.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, SealFlags};

use super::handlers;
use super::mounts::Key;
use super::worker::{self, Identity, Worker};
use crate::id::SandboxId;
use crate::limits::EGRESS_KEPT_BYTES;
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::gateway::{Control, GatewayStart, Policy, Word as Said};
use crate::wire::mount::Server;

/// One that has died sooner after its start is started again only after this pause.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Bytes of what it says, and how much of that is heard before others have their turn.
const SAID_BYTES_MAX: usize = 512;
const SAID_AT_ONCE: usize = 64;

/// The gateway and what it is to know.
#[derive(Debug)]
pub struct Gateway {
    start: GatewayStart,
    /// Directory of the operator's sockets.
    handlers: String,
    uid: u32,
    worker: Option<Worker>,
    /// When it was started last.
    started: Option<Instant>,
    members: BTreeMap<SandboxId, Member>,
    /// Servers of buckets, and our duplicate of the socket on which their workers ask for connections.
    servers: BTreeMap<Key, (Server, OwnedFd)>,
    /// What it has not been told yet.
    queue: VecDeque<Word>,
    /// Numbers of changes that the running gateway was or will be told, and has not answered.
    pending: Vec<u64>,
    /// Numbers of changes that are in force, or will be before any other connection is: the next gateway begins with
    /// the newest policies.
    done: Vec<u64>,
}

#[derive(Debug)]
struct Member {
    policy: Policy,
    secrets: Option<OwnedFd>,
    /// Where gateways write what they have decided, for the next one; never read here.
    kept: Option<OwnedFd>,
    sockets: Vec<OwnedFd>,
}

#[derive(Debug)]
enum Word {
    Open(SandboxId),
    Change(SandboxId, u64),
    Close(SandboxId),
    Peer(OwnedFd),
    Reach(Key),
}

impl Gateway {
    /// None runs yet.
    pub fn new(start: GatewayStart, handlers: String, uid: u32) -> Self {
        Self {
            start,
            handlers,
            uid,
            worker: None,
            started: None,
            members: BTreeMap::new(),
            servers: BTreeMap::new(),
            queue: VecDeque::new(),
            pending: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Whether a sandbox was led here.
    pub fn knows(&self, id: &SandboxId) -> bool {
        self.members.contains_key(id)
    }

    /// Adds a sandbox with its sockets, and the file of its policy's secrets.
    pub fn open(
        &mut self,
        program: &OwnedFd,
        id: SandboxId,
        policy: Policy,
        secrets: Option<OwnedFd>,
        sockets: Vec<OwnedFd>,
    ) {
        let kept = self.members.remove(&id).and_then(|before| before.kept).or_else(|| memory().ok());
        self.members.insert(id.clone(), Member { policy, secrets, kept, sockets });
        if self.worker.is_some() {
            self.queue.push_back(Word::Open(id));
            self.talk();
        } else {
            self.run(program);
        }
    }

    /// Changes the policy of a sandbox that was added. [`done`](Self::done) gives the number back when it is in force.
    ///
    /// # Errors
    /// `TOOBIG` when it cannot be told to a gateway; then nothing has changed.
    pub fn change(
        &mut self,
        id: &SandboxId,
        policy: Policy,
        secrets: Option<OwnedFd>,
        number: u64,
    ) -> Result<(), Errno> {
        let told = Control::Change { id: id.clone(), policy: Box::new(policy.clone()), number };
        wire::encode(&told).map_err(|_| Errno::TOOBIG)?;
        if let Some(member) = self.members.get_mut(id) {
            (member.policy, member.secrets) = (policy, secrets);
        }
        if self.worker.is_some() {
            self.pending.push(number);
            self.queue.push_back(Word::Change(id.clone(), number));
            self.talk();
        } else {
            // No connection is served meanwhile.
            self.done.push(number);
        }
        Ok(())
    }

    /// The numbers of changes that are in force since this was asked last.
    pub fn done(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.done)
    }

    /// Forgets a sandbox that is gone, if it was one of ours.
    pub fn close(&mut self, id: &SandboxId) {
        if self.members.remove(id).is_some() && self.worker.is_some() {
            self.queue.push_back(Word::Close(id.clone()));
            self.talk();
        }
    }

    /// A new connection to the gateway, if one runs.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn peer(&mut self) -> Result<Option<OwnedFd>, Errno> {
        if self.worker.is_none() {
            return Ok(None);
        }
        let (ours, theirs) = socket::pair()?;
        self.queue.push_back(Word::Peer(theirs));
        self.talk();
        Ok(Some(ours))
    }

    /// Gives the end of a socket on which a bucket's worker asks for connections to its server.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn reach(&mut self, program: &OwnedFd, key: Key, server: Server) -> Result<OwnedFd, Errno> {
        let (ours, theirs) = socket::pair()?;
        self.servers.insert(key.clone(), (server, ours));
        if self.worker.is_some() {
            self.queue.push_back(Word::Reach(key));
            self.talk();
        } else {
            self.run(program);
        }
        Ok(theirs)
    }

    /// Forgets a server: without its worker the socket has no other end, and the gateway notices.
    pub fn leave(&mut self, key: &Key) {
        self.servers.remove(key);
    }

    /// Starts it, if it is needed, does not run and has not died just now. True when it is still missing.
    pub fn run(&mut self, program: &OwnedFd) -> bool {
        if self.worker.is_some() || (self.members.is_empty() && self.servers.is_empty()) {
            return false;
        }
        if self.started.is_some_and(|started| started.elapsed() < RESTART_PAUSE) {
            return true;
        }
        self.started = Some(Instant::now());
        let start = || -> Result<Worker, Errno> {
            let worker = worker::spawn(program, c"stockade-gateway", &Identity::User(self.uid), None)?;
            let message = wire::encode(&self.start).map_err(|_| Errno::TOOBIG)?;
            socket::send(&worker.control, &message, &[])?;
            Ok(worker)
        };
        match start() {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => {
                tracing::error!(%error, "cannot start the gateway");
                return true;
            }
        }
        let members = self.members.keys().cloned().map(Word::Open);
        self.queue = members.chain(self.servers.keys().cloned().map(Word::Reach)).collect();
        self.talk();
        false
    }

    /// Its socket, and what is waited for on it.
    pub fn descriptor(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let flags = if self.queue.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        self.worker.as_ref().map(|worker| (worker.control.as_fd(), flags))
    }

    /// Says what is to be said, until it has too much unread.
    fn talk(&mut self) {
        while let (Some(word), Some(worker)) = (self.queue.front(), &self.worker) {
            let Some((control, fds)) = self.control(word) else {
                self.queue.pop_front();
                continue;
            };
            let sent =
                wire::encode(&control).map(|message| socket::send_now(&worker.control, &message, &fds));
            match sent {
                // It has too much unread, or has died: then its socket says so, and the next one is told everything.
                Ok(Err(_)) => return,
                Ok(Ok(())) => drop(self.queue.pop_front()),
                Err(error) => {
                    tracing::error!(%error, "what the gateway is to know is too large to say");
                    if let Some(Word::Change(_, number)) = self.queue.pop_front() {
                        self.answered(&[number]);
                    }
                }
            }
        }
    }

    /// A word as it is now; nothing when it has lost its meaning.
    fn control<'a>(&'a self, word: &'a Word) -> Option<(Control, Vec<BorrowedFd<'a>>)> {
        match word {
            Word::Open(id) => {
                let member = self.members.get(id)?;
                let policy = Box::new(member.policy.clone());
                let (secrets, kept) = (member.secrets.is_some(), member.kept.is_some());
                let files = member.secrets.iter().chain(&member.kept);
                Some((
                    Control::Open { id: id.clone(), policy, secrets, kept },
                    files.chain(&member.sockets).map(AsFd::as_fd).collect(),
                ))
            }
            Word::Change(id, number) => {
                // One that has ended meanwhile is still answered for.
                let member = self.members.get(id);
                let policy = Box::new(member.map(|member| member.policy.clone()).unwrap_or_default());
                let secrets = member.and_then(|member| member.secrets.as_ref());
                Some((
                    Control::Change { id: id.clone(), policy, number: *number },
                    secrets.map(AsFd::as_fd).into_iter().collect(),
                ))
            }
            Word::Close(id) => Some((Control::Close { id: id.clone() }, Vec::new())),
            Word::Peer(fd) => Some((Control::Peer, vec![fd.as_fd()])),
            Word::Reach(key) => {
                let (server, socket) = self.servers.get(key)?;
                Some((Control::Reach(server.clone()), vec![socket.as_fd()]))
            }
        }
    }

    fn answered(&mut self, numbers: &[u64]) {
        self.pending.retain(|number| !numbers.contains(number));
        self.done.extend(numbers);
    }

    /// Its socket is ready.
    pub fn heard(&mut self) {
        self.talk();
        let Some(worker) = &self.worker else { return };
        let mut buffer = [0; SAID_BYTES_MAX];
        let mut done = Vec::new();
        for _ in 0..SAID_AT_ONCE {
            let received = match socket::receive_now(&worker.control, &mut buffer) {
                Err(Errno::AGAIN | Errno::INTR) => break,
                Ok(received) if received.length > 0 => received,
                _ => {
                    self.answered(&done);
                    return self.end();
                }
            };
            match (wire::decode::<Said>(&buffer[..received.length]), received.fds.first()) {
                (Ok(Said::Installed { number }), None) => done.push(number),
                (Ok(Said::Handler { id, host }), Some(answer)) => {
                    handlers::dial(&self.handlers, self.socket_of(&id, &host), answer);
                }
                _ => {
                    self.answered(&done);
                    return self.end();
                }
            }
        }
        self.answered(&done);
    }

    /// The socket that a sandbox's policy names for a host.
    fn socket_of(&self, id: &SandboxId, host: &str) -> Option<&str> {
        let policy = &self.members.get(id)?.policy;
        policy.hosts.iter().find(|one| one.name == host)?.handler.as_deref()
    }

    /// It has closed its socket, or says what is no message: it must not stay.
    fn end(&mut self) {
        if let Some(worker) = self.worker.take() {
            let _ = rustix::process::pidfd_send_signal(&worker.pidfd, rustix::process::Signal::KILL);
            tracing::error!("the gateway ended; it will be started again");
        }
        self.queue.clear();
        // The next one begins with the newest policies.
        self.done.append(&mut self.pending);
    }

    /// Ends it, with the daemon.
    pub fn stop(&mut self) {
        self.members.clear();
        self.servers.clear();
        if let Some(worker) = self.worker.take() {
            // Its process is a child, and is waited for by whoever reaps those.
            let _ = rustix::process::pidfd_send_signal(&worker.pidfd, rustix::process::Signal::KILL);
            let _ = crate::sys::process::wait_for(worker.pid);
        }
    }
}

/// A file in memory of a size that nobody can change. It takes none before it is written to.
fn memory() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 knows the flag, and may be told to insist on it.
    let file = match rustix::fs::memfd_create(c"audit", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"audit", flags)?,
        made => made?,
    };
    rustix::fs::ftruncate(&file, EGRESS_KEPT_BYTES)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::gateway::{Mode, Protocol, Rule, Target};

    fn gateway() -> (Gateway, SandboxId) {
        let mut gateway = Gateway::new(GatewayStart::default(), String::new(), 1);
        let id = SandboxId::parse("a").expect("id");
        let member = Member { policy: Policy::default(), secrets: None, kept: None, sockets: Vec::new() };
        gateway.members.insert(id.clone(), member);
        // It has died just now.
        gateway.started = Some(Instant::now());
        (gateway, id)
    }

    #[test]
    fn a_change_while_no_gateway_runs_is_in_force_with_the_next_one() {
        let (mut gateway, id) = gateway();
        let all = Policy { mode: Mode::All, ..Policy::default() };
        gateway.change(&id, all.clone(), None, 7).expect("changed");
        assert_eq!((gateway.done(), gateway.done()), (vec![7], vec![]));
        assert!(gateway.pending.is_empty() && gateway.queue.is_empty());
        assert_eq!(gateway.members[&id].policy, all);
    }

    #[test]
    fn a_gateway_that_dies_leaves_no_change_without_an_answer() {
        let (mut gateway, _) = gateway();
        gateway.pending = vec![3, 4];
        gateway.end();
        assert_eq!(gateway.done(), [3, 4]);
        assert!(gateway.pending.is_empty());
    }

    #[test]
    fn what_cannot_be_told_changes_nothing() {
        let (mut gateway, id) = gateway();
        let rule = Rule {
            text: "x".repeat(200_000),
            protocol: Protocol::Any,
            target: Target::Anything,
            ports: Vec::new(),
        };
        let large = Policy { mode: Mode::All, allow: vec![rule], ..Policy::default() };
        assert_eq!(gateway.change(&id, large, None, 7), Err(Errno::TOOBIG));
        assert_eq!(gateway.members[&id].policy, Policy::default());
        assert!(gateway.done().is_empty());
    }
}
