//! PID 1 of a sandbox: starts commands through the zygote, reaps everything, says how commands end.
//!
//! ```text
//! serve ◀──SOCK_SEQPACKET──▶ agent ◀──SOCK_SEQPACKET──▶ zygote
//!                              │ SIGCHLD                   │ clone3(CLONE_PARENT | CLONE_INTO_CGROUP)
//!                              └────────reaps──────────▶ command ──▶ whatever it forks
//! ```
//!
//! Invariants:
//! - The agent opens no path and holds no capability; output never passes through it.
//! - A command has ended when its first process is reaped *and* its cgroup is empty and removed: what it left
//!   behind, however it detached itself, is killed first. So the pipes have reached their end by then.
//! - A command belongs to its connection: when that closes, serve is gone and so is whoever waited; it is killed.
//!   Unless it is to be kept: then the agent holds serve's ends of its streams, which it never reads, so that it
//!   sees neither SIGPIPE nor SIGHUP, and remembers how it ended.
//! - Any broken invariant ends the agent, and with PID 1 the kernel ends the sandbox. That is fail closed.
//!
//! Why no async runtime: the agent is cloned without exec and must cost a few touched pages. Why poll and not
//! epoll: there are four descriptors, and for a moment one more for each terminal that is being opened.

mod command;
mod held;
mod landlock;
mod tree;
mod user;
pub(crate) mod worker;
mod zygote;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::limits::{FRAME_BYTES_MAX, KEPT_COMMANDS_MAX};
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, exec, privilege, socket};
use crate::wire;
use crate::wire::agent::{Built, Event, Exec, HELD_MAX, Inside, Program, Request, Step, VERSION};
use held::{Command, Life, Opened, Opening};
use zygote::Zygote;

/// How often a cgroup that should be empty is looked at again: a killed process that is in the kernel, waiting
/// for a disk, leaves it late and without a signal to us.
const LINGER_POLL_MS: i64 = 10;

#[derive(Debug)]
struct Agent {
    listener: OwnedFd,
    connection: Option<OwnedFd>,
    zygote: OwnedFd,
    zygote_pid: Pid,
    cgroup: OwnedFd,
    signals: SignalFd,
    commands: Vec<Command>,
    /// The group of the command that is expected next: making one takes a tenth of a command's time.
    spare: Option<Group>,
    buffer: Vec<u8>,
}

/// An empty group for one command.
#[derive(Debug)]
struct Group {
    /// The command's.
    number: u32,
    directory: OwnedFd,
}

/// Runs the agent: never returns.
pub fn run(inside: Inside) -> ! {
    // Whatever went wrong, there is nobody to tell: the connection closes and the sandbox is dead.
    if let Ok(mut agent) = start(inside) {
        while agent.turn().is_ok() {}
    }
    process::exit_now(1)
}

fn start(inside: Inside) -> Result<Agent, Errno> {
    // For both: what is given up before the fork is given up once.
    rustix::thread::set_no_new_privs(true)?;
    // Keeps the workload's ptrace away even where ids would allow it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let (ours, theirs) = socket::pair()?;
    let zygote_pid = match process::clone3(0, None)? {
        Cloned::Child => zygote::run(Zygote {
            agent: theirs,
            setup: inside.setup,
            workload: inside.workload,
            filters: inside.filters,
        }),
        Cloned::Parent { pid, .. } => pid,
    };
    let Built { network, connection, listener, cgroup, close } = (inside.rest.0)();
    zygote::go_on(&ours, &network)?;
    (close.0)();
    privilege::set_capabilities(CapabilitySet::empty())?;
    exec::close_all_except(&[&connection, &listener, &cgroup, &ours].map(AsFd::as_fd))?;
    // Closed above; dropping them would close numbers that may be in use again.
    std::mem::forget((inside.setup, inside.workload, theirs, network));
    // The zygote is what the launcher waits for; this processor may be the one that it is to run on. Until the
    // filter below stands, nothing is read from anybody.
    zygote::wait_until_restricted(&ours)?;
    // Only for ps on the host; a name cannot be wrong.
    let _ = rustix::thread::set_name(c"st-agent");
    process::block_signals(&[libc::SIGCHLD])?;
    let mut mask = nix::sys::signal::SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    seccompiler::apply_filter(inside.filters.agent).map_err(|_| Errno::INVAL)?;
    let mut agent = Agent {
        listener,
        connection: None,
        zygote: ours,
        zygote_pid,
        cgroup,
        signals,
        commands: Vec::new(),
        spare: None,
        buffer: vec![0; FRAME_BYTES_MAX],
    };
    agent.adopt(connection);
    agent.make_spare(1);
    Ok(agent)
}

impl Agent {
    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> Result<(), Errno> {
        let lingering = self.commands.iter().any(|command| matches!(command.life, Life::Leaving(_)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: LINGER_POLL_MS * 1_000_000 };
        let [signalled, called, asked, opened] = {
            let connection = self.connection.as_ref().unwrap_or(&self.listener);
            let opening = self.commands.iter().filter(|command| command.opening.is_some());
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(connection, PollFlags::IN),
            ];
            fds.extend(opening.map(|command| PollFd::new(&command.status, PollFlags::IN)));
            match rustix::event::poll(&mut fds, lingering.then_some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let happened = |fd: &PollFd<'_>| !fd.revents().is_empty();
            [happened(&fds[0]), happened(&fds[1]), happened(&fds[2]), fds[3..].iter().any(happened)]
        };
        if signalled {
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap()?;
        }
        if asked && self.connection.is_some() {
            self.read_request()?;
        }
        if called
            && let Ok(connection) =
                rustix::net::accept_with(&self.listener, rustix::net::SocketFlags::CLOEXEC)
        {
            self.adopt(connection);
        }
        if opened {
            (0..self.commands.len()).for_each(|index| self.open(index));
        }
        self.finish_commands();
        Ok(())
    }

    /// A new connection takes the place of the old one: serve was restarted.
    fn adopt(&mut self, connection: OwnedFd) {
        self.disconnect();
        self.connection = Some(connection);
        let commands = self.commands.iter().map(Command::describe).collect();
        self.tell(&Event::Hello { version: VERSION, commands }, &[]);
    }

    fn disconnect(&mut self) {
        self.connection = None;
        for command in &mut self.commands {
            // Whoever connects next hears of what it reclaims, and takes all else for a lie.
            command.orphaned = true;
            // Of what is not open yet nobody was told that it exists.
            if !command.kept || command.opening.is_some() {
                command.abandon();
                tree::kill(&self.cgroup, &group_name(command.number));
            }
        }
    }

    /// Says something to the daemon. If it does not read, the agent waits with it, and nothing else; if it is
    /// gone, the next turn notices.
    fn tell(&self, event: &Event, fds: &[BorrowedFd<'_>]) {
        if let (Some(connection), Ok(message)) = (&self.connection, wire::encode(event)) {
            let _ = socket::send(connection, &message, fds);
        }
    }

    fn read_request(&mut self) -> Result<(), Errno> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let received = match socket::receive(connection, &mut self.buffer) {
            Ok(received) if received.length > 0 => received,
            // End of file, a reset, or something that is no message: this daemon is gone.
            _ => {
                self.disconnect();
                return Ok(());
            }
        };
        let message = &self.buffer[..received.length];
        match wire::decode::<Request>(message) {
            Ok(Request::Exec(exec)) => return self.exec(exec, received.fds),
            Ok(Request::Adopt { command, from }) => self.adopt_process(command, from, received.fds),
            Ok(Request::Signal { command, signal, tree }) => self.signal(command, signal, tree),
            Ok(Request::Kill { command }) => tree::kill(&self.cgroup, &group_name(command)),
            Ok(Request::SetAside { command }) => self.set_aside(command),
            Ok(Request::Interrupt { command, signal, aside }) => self.interrupt(command, signal, aside),
            Ok(Request::Reclaim { command }) => self.reclaim(command),
            Ok(Request::CloseInput { command }) => {
                if let Some(command) = self.find(command) {
                    command.close_input();
                }
            }
            Ok(Request::Forget { command }) => self.forget(command),
            Err(_) => self.disconnect(),
        }
        Ok(())
    }

    fn find(&mut self, number: u32) -> Option<&mut Command> {
        self.commands.iter_mut().find(|command| command.number == number)
    }

    fn exec(&mut self, exec: Exec, mut streams: Vec<OwnedFd>) -> Result<(), Errno> {
        let number = exec.command;
        let held = streams.split_off(streams.len().min(exec.program.streams()));
        let opening = match exec.program {
            Program::Terminal { .. } => Some(Opening::Terminal),
            Program::Argv(_) | Program::Shell(_) => exec.keep.then_some(Opening::Program),
            Program::Worker => None,
        };
        match self.ask_zygote(&exec, &streams, held.len())? {
            Ok((pid, status)) => {
                self.commands.push(Command {
                    number,
                    pid,
                    status,
                    kept: exec.keep,
                    held,
                    opening,
                    terminal: None,
                    report: None,
                    life: Life::Running,
                    orphaned: false,
                });
                if opening.is_none() {
                    self.tell(&Event::Started { command: number, pid: pid.as_raw_nonzero().get() }, &[]);
                }
                self.make_spare(number.wrapping_add(1));
            }
            Err(errno) => {
                self.remove_group(number);
                let (step, errno) = (Step::Fork, errno.raw_os_error());
                self.tell(&Event::Failed { command: number, step, errno }, &[]);
            }
        }
        Ok(())
    }

    /// Makes a command of a process that another command has forked. All that is said of it comes from the kernel.
    fn adopt_process(&mut self, number: u32, from: u32, witness: Vec<OwnedFd>) {
        match self.try_adopt(number, from, witness) {
            Ok(pid) => {
                self.tell(&Event::Started { command: number, pid: pid.as_raw_nonzero().get() }, &[]);
                self.make_spare(number.wrapping_add(1));
            }
            Err(errno) => {
                self.remove_group(number);
                let (step, errno) = (Step::Adopt, errno.raw_os_error());
                self.tell(&Event::Failed { command: number, step, errno }, &[]);
            }
        }
    }

    fn try_adopt(&mut self, number: u32, from: u32, witness: Vec<OwnedFd>) -> Result<Pid, Errno> {
        let known = |number| move |command: &&Command| command.number == number;
        let forker = self.commands.iter().find(known(from)).ok_or(Errno::SRCH)?;
        if !matches!(forker.life, Life::Running) || self.commands.iter().any(|one| one.number == number) {
            return Err(Errno::PROTO);
        }
        let [witness] = <[OwnedFd; 1]>::try_from(witness).map_err(|_| Errno::PROTO)?;
        let sender = socket::receive_now(&witness, &mut [0; 1])?.sender.ok_or(Errno::PROTO)?;
        // One that is somebody's first process has its own end, and one that is not our child has none that we see.
        if self.commands.iter().any(|command| command.pid == sender) || !process::is_child(sender) {
            return Err(Errno::CHILD);
        }
        if !tree::members(&self.cgroup, &group_name(from))?.contains(&sender) {
            return Err(Errno::PERM);
        }
        let group = self.group(number)?;
        tree::enter(&group, sender)?;
        // Nothing ever comes on it: there was no exec that could fail.
        let (status, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        self.commands.push(Command {
            number,
            pid: sender,
            status,
            kept: false,
            held: Vec::new(),
            opening: None,
            terminal: None,
            report: None,
            life: Life::Running,
            orphaned: false,
        });
        Ok(sender)
    }

    /// Tells the daemon of a command that counts as started now.
    fn open(&mut self, index: usize) {
        let Some(command) = self.commands.get_mut(index) else { return };
        let Some(Opened::Yes(terminal)) = command.open() else { return };
        let (number, pid) = (command.number, command.pid.as_raw_nonzero().get());
        if !command.orphaned {
            let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
            self.tell(&Event::Started { command: number, pid }, &fds);
        }
        if let Some(command) = self.commands.get_mut(index).filter(|command| command.kept) {
            command.held.extend(terminal);
        }
    }

    fn reclaim(&mut self, number: u32) {
        let found = self.commands.iter().position(|command| command.number == number && command.kept);
        let Some(index) = found else {
            let (step, errno) = (Step::Fork, libc::ESRCH);
            return self.tell(&Event::Failed { command: number, step, errno }, &[]);
        };
        self.commands[index].orphaned = false;
        let command = &self.commands[index];
        let held: Vec<_> = command.held.iter().map(AsFd::as_fd).collect();
        self.tell(&Event::Reclaimed { command: number }, &held);
        if let Life::Over(event) = &command.life {
            self.tell(event, &[]);
        }
    }

    fn forget(&mut self, number: u32) {
        if let Some(command) = self.find(number) {
            command.kept = false;
            command.held.clear();
        }
        self.commands.retain(|command| command.kept || !matches!(command.life, Life::Over(_)));
    }

    /// The outer error is the end of the zygote, the inner one of this command.
    fn ask_zygote(
        &mut self,
        exec: &Exec,
        streams: &[OwnedFd],
        held: usize,
    ) -> Result<Result<(Pid, OwnedFd), Errno>, Errno> {
        let Start { message, status, inside, group } = match self.prepare(exec, streams.len(), held) {
            Ok(start) => start,
            Err(errno) => return Ok(Err(errno)),
        };
        let mut fds: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
        fds.extend([inside.as_fd(), group.as_fd()]);
        socket::send(&self.zygote, &message, &fds)?;
        let mut reply = [0; 64];
        let received = socket::receive(&self.zygote, &mut reply)?;
        let reply: Result<i32, i32> = wire::decode(&reply[..received.length]).map_err(|_| Errno::PROTO)?;
        Ok(match reply {
            Ok(pid) => Pid::from_raw(pid).map(|pid| (pid, status)).ok_or(Errno::PROTO),
            Err(errno) => Err(Errno::from_raw_os_error(errno)),
        })
    }

    fn prepare(&mut self, exec: &Exec, streams: usize, held: usize) -> Result<Start, Errno> {
        let known = self.commands.iter().any(|command| command.number == exec.command);
        if known || streams != exec.program.streams() || held > if exec.keep { HELD_MAX } else { 0 } {
            return Err(Errno::PROTO);
        }
        if exec.keep && self.commands.iter().filter(|command| command.kept).count() >= KEPT_COMMANDS_MAX {
            return Err(Errno::AGAIN);
        }
        let message = wire::encode(exec).map_err(|_| Errno::TOOBIG)?;
        let (status, inside) = if matches!(exec.program, Program::Terminal { .. }) {
            let (ours, theirs) = socket::pair()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            (ours, theirs)
        } else {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?
        };
        Ok(Start { message, status, inside, group: self.group(exec.command)? })
    }

    /// The group of a command, which is empty.
    fn group(&mut self, number: u32) -> Result<OwnedFd, Errno> {
        match self.spare.take() {
            Some(spare) if spare.number == number => return Ok(spare.directory),
            // Another daemon counts otherwise.
            Some(spare) => _ = self.remove_group(spare.number),
            None => {}
        }
        self.make_group(number)
    }

    fn make_group(&self, number: u32) -> Result<OwnedFd, Errno> {
        let name = group_name(number);
        rustix::fs::mkdirat(&self.cgroup, name.as_str(), Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.cgroup, name.as_str(), flags, Mode::empty())
    }

    /// Makes the next command's group while nobody waits. One that cannot be made now is tried again when it is needed,
    /// and there is somebody to tell.
    fn make_spare(&mut self, number: u32) {
        self.spare = self.make_group(number).ok().map(|directory| Group { number, directory });
    }

    fn running(&self, number: u32) -> Option<&Command> {
        let mut commands = self.commands.iter();
        commands.find(|command| command.number == number && matches!(command.life, Life::Running))
    }

    fn signal(&self, number: u32, signal: i32, tree: bool) {
        match self.running(number) {
            Some(command) if tree => {
                tree::signal(&self.cgroup, &group_name(command.number), command.pid, signal);
            }
            Some(command) => {
                // Not reaped yet, so the number is still this process's own. It may just have become a zombie.
                let _ = process::kill_child(command.pid, signal);
            }
            None => {}
        }
    }

    fn set_aside(&self, number: u32) {
        if let Some(command) = self.running(number) {
            tree::set_aside(&self.cgroup, &group_name(number), command.pid);
        }
    }

    fn interrupt(&self, number: u32, signal: i32, aside: bool) {
        if let Some(command) = self.running(number) {
            let first = command.pid;
            tree::interrupt(&self.cgroup, &group_name(number), first, aside, || {
                // As above.
                let _ = process::kill_child(first, signal);
            });
        }
        self.tell(&Event::Interrupted { command: number }, &[]);
    }

    fn remove_group(&self, number: u32) -> bool {
        tree::remove(&self.cgroup, &group_name(number))
    }

    /// Reaps all children that have ended: commands, and what their processes left to PID 1.
    fn reap(&mut self) -> Result<(), Errno> {
        loop {
            match process::reap_any() {
                Ok(Some(ended)) if ended.pid == self.zygote_pid => return Err(Errno::CHILD),
                Ok(Some(ended)) => {
                    let mut running =
                        self.commands.iter_mut().filter(|command| matches!(command.life, Life::Running));
                    if let Some(command) = running.find(|command| command.pid == ended.pid) {
                        command.life = Life::Leaving(ended);
                    }
                }
                Ok(None) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Ends the commands whose first process is reaped, as soon as nothing of them is left.
    fn finish_commands(&mut self) {
        let mut index = 0;
        while let Some(command) = self.commands.get(index) {
            let Life::Leaving(mut ended) = command.life else {
                index += 1;
                continue;
            };
            let number = command.number;
            // What nobody has waited for is in no rusage.
            if let Some((user_us, system_us)) = tree::time(&self.cgroup, &group_name(number)) {
                (ended.usage.user_us, ended.usage.system_us) = (user_us, system_us);
            }
            if !self.remove_group(number) {
                tree::kill(&self.cgroup, &group_name(number));
                if !self.remove_group(number) {
                    index += 1;
                    continue;
                }
            }
            self.open(index);
            let Some(command) = self.commands.get_mut(index) else { return };
            let (outcome, orphaned) = (command.outcome(ended), command.orphaned);
            if command.kept {
                command.life = Life::Over(outcome.clone());
                index += 1;
            } else {
                self.commands.swap_remove(index);
            }
            if !orphaned {
                self.tell(&outcome, &[]);
            }
        }
    }
}

/// What a command is started with.
struct Start {
    message: Vec<u8>,
    /// Our end of the status pipe or socket.
    status: OwnedFd,
    /// The command's end.
    inside: OwnedFd,
    group: OwnedFd,
}

fn group_name(number: u32) -> String {
    format!("c{number}")
}
