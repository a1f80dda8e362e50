//! The launcher's loop: one descriptor set, one request at a time, children and agents watched by handle.
//!
//! Events: a request from serve; a signal (stop, or a child ended); an agent's handle became readable, so that
//! sandbox is gone; an unpack process has something to say; the lifeline of a private daemon closed.

mod egress;
mod files;
mod life;
mod mounts;
mod usage;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use super::create::{self, Files, Foundation};
use super::gateway::Gateway;
use super::ids::{Slot, Slots};
use super::launch::Launch;
use super::layers::Layers;
use super::mounts::Mounts;
use super::record::Record;
use super::saved;
use super::secrets;
use super::worker::{self, Identity, Worker};
use crate::id::{SandboxId, SnapshotId};
use crate::limits::{FRAME_BYTES_MAX, WORKERS_MAX};
use crate::sys::process;
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::gateway::GatewayStart;
use crate::wire::launch::{Answer, Call, Failure, FailureKind, Reply, Request, Running, ServeStart};

/// A serve that dies sooner than this after its start is started again only after a pause.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Quiet for so long is the time for chores: longer than the pauses of a client that makes one after the other.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Only to see what is there.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Destroyed sandboxes whose files are removed between two looks at what is asked for.
const CHORES_AT_ONCE: usize = 4;

/// How often the clock is looked at while serve is restarted or the daemon stops.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The pause after the kernel had no memory for a wait.
const OUT_OF_MEMORY: Duration = Duration::from_millis(10);

/// Destroyed sandboxes whose files may wait for a quiet moment.
const DISCARDED_MAX: usize = 256;

/// Sandboxes in one answer: each takes below 1 KiB of a frame's 128.
const LIST_MAX: usize = 64;

/// Layers in one answer, each 71 bytes of text.
const LAYERS_MAX: usize = 1024;

/// After so many deaths without having been ready, serve cannot start here, and trying on would only hide it.
const SERVE_FAILURES_MAX: u32 = 3;

/// How long serve may take to drain when the daemon stops: longer than it allows itself, by what it does at the end.
const DRAIN: Duration = Duration::from_secs(20);

/// A running sandbox.
#[derive(Debug)]
struct Sandbox {
    record: Record,
    pidfd: OwnedFd,
    slot: Slot,
    /// The file of its policy's secrets.
    secrets: Option<OwnedFd>,
    /// Numbers of the requests to be answered once it is gone.
    destroying: Vec<u64>,
    /// The same for those that want its files kept.
    stopping: Vec<u64>,
    /// The same for those that want it to have saved files instead.
    restoring: Vec<(u64, SnapshotId)>,
    /// Whether its end has begun.
    ending: bool,
}

impl Sandbox {
    fn new(record: Record, pidfd: OwnedFd, slot: Slot, secrets: Option<OwnedFd>) -> Self {
        let (destroying, stopping, restoring) = (Vec::new(), Vec::new(), Vec::new());
        Self { record, pidfd, slot, secrets, destroying, stopping, restoring, ending: false }
    }

    /// Begins its end. What follows waits for the agent's.
    fn kill(&mut self, foundation: &Foundation) {
        self.ending = true;
        let name = self.record.running.id.as_str();
        // First, so that no launcher after this one adopts an agent that is ending and says that it ended by itself.
        Record::remove(&foundation.place(name));
        // All at once, so that they end beside each other and not one after the other; the signal is for an agent that
        // left its group, which none can.
        foundation.cgroups.kill(name);
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }
}

#[derive(Debug)]
struct Loop {
    launch: Launch,
    signals: SignalFd,
    lifeline: Option<OwnedFd>,
    serve: Option<Worker>,
    serve_started: Instant,
    /// Deaths of serve since it was last ready.
    serve_failures: u32,
    /// Whether serve knows which sandboxes run. Until then none is taken for ended whose end nobody has asked for: nobody
    /// would remove what stays of it.
    listed: bool,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    slots: Slots,
    layers: Layers,
    gateway: Gateway,
    mounts: Mounts,
    /// Whether it died too often to be started again at once.
    gateway_missing: bool,
    /// Pids of the fetch processes that have not ended.
    fetches: HashSet<Pid>,
    /// Processes that write files of stopped sandboxes to the disk, and who waits for that.
    syncing: BTreeMap<i32, Vec<u64>>,
    stopping: Option<Instant>,
    /// Destroyed sandboxes whose files are still to be removed.
    discarded: Vec<SandboxId>,
    /// Whether their removal has begun and nothing else has happened since.
    at_chores: bool,
    /// Whether some of them have left something to be removed by a process of its own.
    trash: bool,
    /// Copies of sandboxes' files that are being made.
    savings: saved::Savings,
    /// Whether some saved files may be needed by nobody any more.
    garbage: bool,
    buffer: Vec<u8>,
}

fn not_found(what: &str) -> Failure {
    Failure { kind: FailureKind::NotFound, what: what.to_owned(), detail: "there is none".to_owned() }
}

fn failed(what: &str, error: impl ToString) -> Failure {
    Failure { kind: FailureKind::Internal, what: what.to_owned(), detail: error.to_string() }
}

/// What serve is told of a sandbox that was made.
fn created(result: Result<(Running, OwnedFd), Failure>) -> (Result<Answer, Failure>, Option<OwnedFd>) {
    match result {
        Ok((running, connection)) => (Ok(Answer::Created(Box::new(running))), Some(connection)),
        Err(failure) => (Err(failure), None),
    }
}

/// The answer to who asked for a connection.
fn connected(result: Result<OwnedFd, Failure>) -> (Result<Answer, Failure>, Option<OwnedFd>) {
    match result {
        Ok(connection) => (Ok(Answer::Connected), Some(connection)),
        Err(failure) => (Err(failure), None),
    }
}

/// Runs until the daemon is told to stop and serve has drained.
///
/// # Errors
/// When the loop itself cannot go on.
pub fn run(launch: Launch, lifeline: Option<OwnedFd>) -> io::Result<()> {
    let wanted = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGHUP];
    process::block_signals(&wanted.map(|signal| signal as i32))?;
    let signals =
        SignalFd::with_flags(&SigSet::from_iter(wanted), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let slots = Slots::open(launch.foundation.ids, launch.settings.slot_first)?;
    let settings = &launch.settings;
    let start = GatewayStart {
        open: settings.open_networks.clone(),
        resolvers: settings.resolvers.clone(),
        ca_pem: settings.ca_pem.clone(),
        log: settings.log.clone(),
        log_json: settings.log_json,
    };
    let gateway = Gateway::new(start, settings.handlers.clone(), launch.foundation.ids.gateway());
    let mut this = Loop {
        launch,
        signals,
        lifeline,
        serve: None,
        serve_started: Instant::now(),
        serve_failures: 0,
        listed: false,
        sandboxes: BTreeMap::new(),
        slots,
        layers: Layers::default(),
        gateway,
        mounts: Mounts::default(),
        gateway_missing: false,
        fetches: HashSet::new(),
        syncing: BTreeMap::new(),
        stopping: None,
        discarded: Vec::new(),
        at_chores: false,
        trash: false,
        savings: saved::Savings::default(),
        garbage: true,
        buffer: vec![0; FRAME_BYTES_MAX],
    };
    saved::discard_unfinished(&this.launch.foundation);
    if this.launch.settings.private {
        this.remove_leftovers(&[]);
    } else {
        this.adopt_all();
    }
    this.layers.discard_unfinished(&this.launch.foundation);
    this.start_serve()?;
    while this.stopping.is_none() || this.serve.is_some() {
        this.turn()?;
    }
    this.finish();
    Ok(())
}

/// What became readable.
enum Source {
    Signals,
    Lifeline,
    Serve,
    Sandbox(SandboxId),
    Layers(usize),
    Gateway,
}

impl Loop {
    fn turn(&mut self) -> io::Result<()> {
        let mut sources = self.wait()?;
        if sources.is_empty() || self.discarded.len() >= DISCARDED_MAX {
            self.do_chores();
        } else {
            self.at_chores = false;
        }
        // Workers first: a request may remove some, and then their numbers are others.
        sources.sort_by_key(|source| !matches!(source, Source::Layers(_)));
        for source in sources {
            match source {
                Source::Signals => self.handle_signals()?,
                Source::Lifeline => self.stop(),
                Source::Serve => self.handle_request(),
                Source::Sandbox(id) => self.sandbox_ended(&id),
                Source::Gateway => self.gateway.heard(),
                Source::Layers(index) => {
                    for (number, result) in self.layers.advance(&self.launch.foundation, index) {
                        self.reply(number, result, &[]);
                    }
                }
            }
        }
        for number in self.gateway.done() {
            self.reply(number, Ok(Answer::Done), &[]);
        }
        if self.serve.is_none() && self.stopping.is_none() && self.serve_started.elapsed() > RESTART_PAUSE {
            self.start_serve()?;
        }
        self.gateway_missing = self.stopping.is_none() && self.gateway.run(&self.launch.program);
        if self.stopping.is_some_and(|since| since.elapsed() > DRAIN)
            && let Some(serve) = &self.serve
        {
            // It had its time.
            let _ = rustix::process::pidfd_send_signal(&serve.pidfd, rustix::process::Signal::KILL);
        }
        Ok(())
    }

    /// Work that nobody waits for: done when nothing else is to be done.
    fn has_chores(&self) -> bool {
        !self.discarded.is_empty() || self.garbage || !self.launch.foundation.spent.is_empty()
    }

    /// A few of them: whoever asks for something in the meantime waits for no more.
    fn do_chores(&mut self) {
        let foundation = &self.launch.foundation;
        for id in self.discarded.drain(..self.discarded.len().min(CHORES_AT_ONCE)) {
            self.garbage |= foundation.storage(id.as_str()).join("below").is_symlink();
            self.trash |= create::discard_files(foundation, id.as_str());
        }
        if self.discarded.is_empty() {
            if std::mem::take(&mut self.trash) {
                super::trash::empty(&foundation.state.join("sandboxes"));
            }
            if std::mem::take(&mut self.garbage) {
                saved::collect(foundation);
            }
            foundation.spent.close();
        }
        self.at_chores = self.has_chores();
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut fds: Vec<(BorrowedFd<'_>, Source)> = vec![(self.signals.as_fd(), Source::Signals)];
        let (gateway, gateway_flags) = self.gateway.descriptor().unzip();
        fds.extend(gateway.map(|fd| (fd, Source::Gateway)));
        if let (Some(lifeline), None) = (&self.lifeline, self.stopping) {
            fds.push((lifeline.as_fd(), Source::Lifeline));
        }
        if let Some(serve) = &self.serve {
            fds.push((serve.control.as_fd(), Source::Serve));
        }
        for (id, sandbox) in self.sandboxes.iter().filter(|(_, sandbox)| self.listed || sandbox.ending) {
            fds.push((sandbox.pidfd.as_fd(), Source::Sandbox(id.clone())));
        }
        for (index, worker) in self.layers.descriptors().enumerate() {
            fds.push((worker, Source::Layers(index)));
        }
        let flags = |source: &Source| match source {
            Source::Gateway => gateway_flags.unwrap_or(PollFlags::IN),
            _ => PollFlags::IN,
        };
        let mut polled: Vec<_> =
            fds.iter().map(|(fd, source)| PollFd::from_borrowed_fd(*fd, flags(source))).collect();
        let in_a_hurry = self.serve.is_none() || self.stopping.is_some() || self.gateway_missing;
        let timeout = match (self.at_chores, self.has_chores()) {
            (true, _) => Some(&NOW),
            (false, true) => Some(&IDLE),
            (false, false) => in_a_hurry.then_some(&PAUSE),
        };
        match rustix::event::poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            // The kernel had no room for the list (poll(2)); sandboxes go on, and memory comes back.
            Err(Errno::NOMEM | Errno::AGAIN) => std::thread::sleep(OUT_OF_MEMORY),
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<_> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(fds.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|((_, source), _)| source).collect())
    }

    fn handle_signals(&mut self) -> io::Result<()> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if matches!(i32::try_from(info.ssi_signo), Ok(libc::SIGTERM | libc::SIGINT)) {
                self.stop();
            }
        }
        loop {
            match process::reap_any() {
                Ok(Some(ended)) => {
                    self.fetches.remove(&ended.pid);
                    self.saving_ended(ended.pid, ended.exit);
                    if let Some(numbers) = self.syncing.remove(&ended.pid.as_raw_nonzero().get()) {
                        let done = ended.exit == crate::wire::agent::Exit::Code(0);
                        self.written_out(
                            numbers,
                            done.then_some(())
                                .ok_or_else(|| "the file system reports an error (syncfs(2))".to_owned()),
                        );
                    }
                    if self.serve.as_ref().is_some_and(|serve| serve.pid == ended.pid) {
                        self.serve = None;
                        self.serve_ended(ended.exit)?;
                    }
                }
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn serve_ended(&mut self, exit: crate::wire::agent::Exit) -> io::Result<()> {
        if self.stopping.is_some() {
            return Ok(());
        }
        self.serve_failures += 1;
        if self.serve_failures >= SERVE_FAILURES_MAX {
            return Err(io::Error::other("serve ended again and again before it was ready"));
        }
        tracing::error!(?exit, "serve ended; it will be started again");
        Ok(())
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now());
            self.launch.notify("STOPPING=1");
            if let Some(serve) = &self.serve {
                // Already gone is as good.
                let _ = rustix::process::pidfd_send_signal(&serve.pidfd, rustix::process::Signal::TERM);
            }
        }
    }

    fn start_serve(&mut self) -> io::Result<()> {
        let uid = self.launch.foundation.ids.serve();
        let worker = worker::spawn(&self.launch.program, c"stockade-serve", &Identity::User(uid), None)?;
        let start = ServeStart {
            settings: self.launch.settings.clone(),
            uid,
            host: self.launch.host.clone(),
            boot: super::record::boot()?,
        };
        let message = wire::encode(&start).map_err(io::Error::other)?;
        let mut sockets = vec![self.launch.listener.as_fd()];
        sockets.extend(self.launch.previews.as_ref().map(AsFd::as_fd));
        socket::send(&worker.control, &message, &sockets)?;
        self.serve = Some(worker);
        self.listed = false;
        self.serve_started = Instant::now();
        Ok(())
    }

    fn handle_request(&mut self) {
        let Some(serve) = &self.serve else { return };
        let received = match socket::receive(&serve.control, &mut self.buffer) {
            Ok(received) if received.length > 0 => received,
            // Its end is closed: SIGCHLD follows. Forgetting the socket now keeps poll from spinning.
            _ => {
                let _ = rustix::process::pidfd_send_signal(&serve.pidfd, rustix::process::Signal::KILL);
                self.serve = None;
                return;
            }
        };
        match wire::decode::<Request>(&self.buffer[..received.length]) {
            Ok(request) => self.answer(request, received.fds),
            Err(_) => {
                tracing::error!("serve sent something that is no request; it is ended");
                let _ = rustix::process::pidfd_send_signal(&serve.pidfd, rustix::process::Signal::KILL);
            }
        }
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) {
        let number = request.number;
        let (result, attached) = match request.call {
            Call::Create(plan) => created(self.create(*plan, Files::Remove, fds.first())),
            Call::Wake(plan) => created(self.create(*plan, Files::Keep, None)),
            Call::Destroy { id } => return self.end(&id, Files::Remove, number),
            Call::Save { id, snapshot, lasting } => {
                return self.save(&saved::Wanted { number, id, snapshot, lasting, beneath: (0, 0) });
            }
            Call::Restore { id, snapshot } => return self.restore(id, snapshot, number),
            Call::Collect => {
                self.garbage = true;
                (Ok(Answer::Done), None)
            }
            Call::Pause { id } => (self.freeze(&id, true), None),
            Call::Resume { id } => (self.freeze(&id, false), None),
            Call::Paused { id } => {
                (Ok(Answer::Paused(self.launch.foundation.cgroups.is_frozen(id.as_str()))), None)
            }
            Call::Stop { id } => return self.end(&id, Files::Keep, number),
            Call::GiveUp { id, pid } => (Ok(self.give_up(&id, pid)), None),
            Call::Connect { id } => connected(self.connect(&id)),
            Call::List { after } => (Ok(self.list(after.as_ref())), None),
            Call::OomKills { id } => {
                let running = self.sandboxes.contains_key(&id);
                let count = running.then(|| self.launch.foundation.cgroups.oom_kills(id.as_str())).flatten();
                (Ok(Answer::OomKills(count)), None)
            }
            Call::Usage { id } => (self.usage(&id), None),
            Call::Disk { id } => connected(self.disk(&id)),
            Call::Limit { id, resources } => (self.limit(&id, &resources), None),
            Call::Network { id, policy: None } => self.policy(&id),
            Call::Network { id, policy: Some(policy) } => {
                match self.network(&id, *policy, fds.first(), number) {
                    Some(result) => (result, None),
                    None => return,
                }
            }
            Call::Gateway => connected(self.gateway_peer()),
            Call::Mount { id, mount, call } => self.mount(id, mount, call, fds.first()),
            Call::Keys { profiles } => connected(self.keys(profiles)),
            Call::IdentityToken { profiles, path } => connected(self.identity_token(profiles, &path)),
            Call::Ready => {
                self.serve_failures = 0;
                self.launch.notify("READY=1");
                (Ok(Answer::Done), None)
            }
            Call::Fetch => connected(self.start_fetch()),
            Call::Unpack(job) => {
                let Launch { foundation, program, .. } = &self.launch;
                match self.layers.unpack(foundation, program, number, job, fds) {
                    Some(result) => (result, None),
                    None => return,
                }
            }
            Call::RemoveLayers { diff_ids } => {
                let used = self.layers_in_use();
                let removed = self.layers.remove(&self.launch.foundation, &diff_ids, &used);
                (Ok(Answer::Removed(removed)), None)
            }
            Call::Layers { after } => (Ok(Answer::Layers(self.layers_after(after))), None),
        };
        let attached: Vec<_> = attached.iter().map(AsFd::as_fd).collect();
        self.reply(number, result, &attached);
    }

    fn list(&mut self, after: Option<&SandboxId>) -> Answer {
        // One that a serve before this one has ended runs no more, however long its end takes.
        let later = self.sandboxes.iter().filter(|(id, sandbox)| Some(*id) > after && !sandbox.ending);
        let running: Vec<_> =
            later.take(LIST_MAX).map(|(_, sandbox)| sandbox.record.running.clone()).collect();
        self.listed |= running.is_empty();
        Answer::Sandboxes(running)
    }

    fn layers_after(&self, after: Option<crate::id::Digest>) -> Vec<crate::id::Digest> {
        let mut layers = self.layers.list(&self.launch.foundation);
        layers.sort_unstable();
        layers.retain(|layer| Some(*layer) > after);
        layers.truncate(LAYERS_MAX);
        layers
    }

    fn reply(&self, number: u64, result: Result<Answer, Failure>, fds: &[BorrowedFd<'_>]) {
        if let Err(failure) = &result {
            tracing::debug!(%failure, "request failed");
        }
        let Some(serve) = &self.serve else { return };
        let message = wire::encode(&Reply { number, result }).or_else(|_| {
            let too_large = Err(failed("answer", "the answer is too large"));
            wire::encode(&Reply { number, result: too_large })
        });
        if let Ok(message) = message {
            // A serve that died gets no answers; the next one asks for what runs. One that does not read its answers
            // must not stop the launcher, and one that cannot be told, because the kernel has no memory for the message,
            // would wait for ever.
            if let Err(errno) = socket::send_now(&serve.control, &message, fds) {
                tracing::error!(%errno, "serve cannot be given an answer; it is ended");
                let _ = rustix::process::pidfd_send_signal(&serve.pidfd, rustix::process::Signal::KILL);
            }
        }
    }

    fn connect(&self, id: &SandboxId) -> Result<OwnedFd, Failure> {
        if !self.sandboxes.contains_key(id) {
            return Err(not_found("connect to the sandbox"));
        }
        let path = self.launch.foundation.place(id.as_str()).join("agent.sock");
        let connect = || -> Result<OwnedFd, Errno> {
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        };
        connect().map_err(|errno| failed("connect to the sandbox", errno))
    }

    fn start_fetch(&mut self) -> Result<OwnedFd, Failure> {
        if self.fetches.len() >= WORKERS_MAX {
            let detail = "too many pulls and imports run".to_owned();
            return Err(Failure { kind: FailureKind::Capacity, what: "start fetch".to_owned(), detail });
        }
        let identity = Identity::User(self.launch.foundation.ids.fetch());
        let worker = worker::spawn(&self.launch.program, c"stockade-fetch", &identity, None)
            .map_err(|errno| failed("start fetch", errno))?;
        self.fetches.insert(worker.pid);
        Ok(worker.control)
    }

    fn layers_in_use(&self) -> Vec<crate::id::Digest> {
        let plans = self.sandboxes.values().map(|sandbox| &sandbox.record.plan);
        plans
            .flat_map(|plan| match &plan.root {
                wire::launch::Root::Layers(diff_ids) => diff_ids.clone(),
                wire::launch::Root::Host => Vec::new(),
            })
            .collect()
    }

    /// Takes over the sandboxes that run, and removes what is left of those that do not.
    fn adopt_all(&mut self) {
        let foundation = &self.launch.foundation;
        let mut known = Vec::new();
        for name in names_in(&foundation.runtime.join("sandboxes")) {
            let place = foundation.place(&name);
            let adopted = Record::adopt(&place).and_then(|(record, pidfd)| {
                let slot = Slot::new(record.slot)?;
                self.slots.claim(slot).then_some((record, pidfd, slot))
            });
            if let Some((record, pidfd, slot)) = adopted {
                let id = record.running.id.clone();
                tracing::info!(%id, "adopted a running sandbox");
                self.mounts.adopt(&place, &id);
                // Without them what needs them is refused.
                let secrets = secrets::find(&place, secrets::POLICY).ok().flatten();
                self.sandboxes.insert(id, Sandbox::new(record, pidfd, slot, secrets));
                known.push(name);
            }
        }
        self.remove_leftovers(&known);
        self.lead_adopted();
    }

    /// Kills every sandbox that is not named, and removes those of them that nobody was told of.
    fn remove_leftovers(&self, known: &[String]) {
        let foundation = &self.launch.foundation;
        let mut leftovers = foundation.cgroups.list();
        leftovers.extend(names_in(&foundation.runtime.join("sandboxes")));
        leftovers.extend(names_in(&foundation.state.join("sandboxes")));
        leftovers.extend(names_in(&foundation.state.join("mounts")));
        leftovers.sort_unstable();
        leftovers.dedup();
        for name in leftovers.iter().filter(|name| !known.contains(name) && !name.starts_with('.')) {
            foundation.cgroups.kill(name);
            let kept = foundation.is_kept(name) && !self.launch.settings.private;
            if !kept {
                tracing::info!(id = name, "removing what is left of a sandbox");
            }
            create::settle(foundation, name, if kept { Files::Keep } else { Files::Remove });
        }
    }

    /// The end: sandboxes stay for the next daemon, unless this one was for a single call.
    fn finish(mut self) {
        self.gateway.stop();
        while self.has_chores() {
            self.do_chores();
        }
        let foundation = &self.launch.foundation;
        if self.launch.settings.private {
            for (id, sandbox) in std::mem::take(&mut self.sandboxes) {
                create::end(foundation, &sandbox.pidfd, id.as_str(), Files::Remove);
            }
        }
        if self.sandboxes.is_empty() {
            foundation.cgroups.remove_own(&super::launch::group_name(&foundation.runtime));
        }
        if self.launch.owns_socket {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.launch.settings.socket);
        }
        if self.launch.settings.private {
            let _ =
                rustix::mount::unmount(foundation.runtime.join("stage"), rustix::mount::UnmountFlags::DETACH);
            // Whatever stays is the next private daemon's to remove.
            let _ = std::fs::remove_dir_all(&foundation.runtime);
        }
    }
}

fn names_in(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
