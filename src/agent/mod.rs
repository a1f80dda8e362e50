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
//! - Commands belong to a connection: when it closes, serve is gone and so is whoever waited; they are killed.
//! - Any broken invariant ends the agent, and with PID 1 the kernel ends the sandbox. That is fail closed.
//!
//! Why no async runtime: the agent is cloned without exec and must cost a few touched pages. Why poll and not
//! epoll: there are four descriptors.

mod command;
mod landlock;
mod user;
mod zygote;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::limits::FRAME_BYTES_MAX;
use crate::sys::process::{self, Cloned, Ended};
use crate::sys::{Errno, exec, privilege, socket};
use crate::wire;
use crate::wire::agent::{Event, Exec, Inside, Request, Step, VERSION};
use zygote::Zygote;

/// How often a cgroup that should be empty is looked at again: a killed process that is in the kernel, waiting
/// for a disk, leaves it late and without a signal to us.
const LINGER_POLL_MS: i64 = 10;

/// A command that has not ended.
#[derive(Debug)]
struct Command {
    number: u32,
    pid: Pid,
    /// Carries `{step, errno}` when the program could not be executed.
    status: OwnedFd,
    /// Its first process, once reaped; then only its cgroup is waited for.
    ended: Option<Ended>,
    /// Whether the daemon that asked for it is gone: then nobody is told of its end.
    orphaned: bool,
}

#[derive(Debug)]
struct Agent {
    listener: OwnedFd,
    connection: Option<OwnedFd>,
    zygote: OwnedFd,
    zygote_pid: Pid,
    cgroup: OwnedFd,
    signals: SignalFd,
    commands: Vec<Command>,
    buffer: Vec<u8>,
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
    privilege::set_capabilities(CapabilitySet::empty())?;
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
    let keep = [&inside.connection, &inside.listener, &inside.cgroup, &ours].map(AsFd::as_fd);
    exec::close_all_except(&keep)?;
    // Closed above; dropping them would close numbers that may be in use again.
    std::mem::forget((inside.setup, inside.workload, theirs));
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
    seccompiler::apply_filter(&inside.filters.agent).map_err(|_| Errno::INVAL)?;
    let mut agent = Agent {
        listener: inside.listener,
        connection: None,
        zygote: ours,
        zygote_pid,
        cgroup: inside.cgroup,
        signals,
        commands: Vec::new(),
        buffer: vec![0; FRAME_BYTES_MAX],
    };
    agent.adopt(inside.connection);
    Ok(agent)
}

impl Agent {
    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> Result<(), Errno> {
        let lingering = self.commands.iter().any(|command| command.ended.is_some());
        let timeout = Timespec { tv_sec: 0, tv_nsec: LINGER_POLL_MS * 1_000_000 };
        let [signalled, called, asked] = {
            let connection = self.connection.as_ref().unwrap_or(&self.listener);
            let mut fds = [
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(connection, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, lingering.then_some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            fds.map(|fd| !fd.revents().is_empty())
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
        self.finish_commands();
        Ok(())
    }

    /// A new connection takes the place of the old one: serve was restarted.
    fn adopt(&mut self, connection: OwnedFd) {
        self.disconnect();
        self.connection = Some(connection);
        let commands = self.commands.iter().map(|command| command.number).collect();
        self.tell(&Event::Hello { version: VERSION, commands });
    }

    fn disconnect(&mut self) {
        self.connection = None;
        for command in &self.commands {
            self.kill(command.number);
        }
        for command in &mut self.commands {
            command.orphaned = true;
        }
    }

    /// Says something to the daemon. If it does not read, the agent waits with it, and nothing else; if it is
    /// gone, the next turn notices.
    fn tell(&self, event: &Event) {
        if let (Some(connection), Ok(message)) = (&self.connection, wire::encode(event)) {
            let _ = socket::send(connection, &message, &[]);
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
            Ok(Request::Exec(exec)) => self.exec(exec, received.fds),
            Ok(Request::Signal { command, signal }) => {
                self.signal(command, signal);
                Ok(())
            }
            Ok(Request::Kill { command }) => {
                self.kill(command);
                Ok(())
            }
            Err(_) => {
                self.disconnect();
                Ok(())
            }
        }
    }

    fn exec(&mut self, exec: Exec, streams: Vec<OwnedFd>) -> Result<(), Errno> {
        let number = exec.command;
        match self.ask_zygote(&exec, streams)? {
            Ok((pid, status)) => {
                self.commands.push(Command { number, pid, status, ended: None, orphaned: false });
                self.tell(&Event::Started { command: number, pid: pid.as_raw_nonzero().get() });
            }
            Err(errno) => {
                self.remove_group(number);
                let (step, errno) = (Step::Fork, errno.raw_os_error());
                self.tell(&Event::Failed { command: number, step, errno });
            }
        }
        Ok(())
    }

    /// The outer error is the end of the zygote, the inner one of this command.
    fn ask_zygote(&self, exec: &Exec, streams: Vec<OwnedFd>) -> Result<Result<(Pid, OwnedFd), Errno>, Errno> {
        let prepared = self.prepare(exec, &streams);
        let (message, reader, writer, group) = match prepared {
            Ok(prepared) => prepared,
            Err(errno) => return Ok(Err(errno)),
        };
        let mut fds: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
        fds.extend([writer.as_fd(), group.as_fd()]);
        socket::send(&self.zygote, &message, &fds)?;
        let mut reply = [0; 64];
        let received = socket::receive(&self.zygote, &mut reply)?;
        let reply: Result<i32, i32> = wire::decode(&reply[..received.length]).map_err(|_| Errno::PROTO)?;
        Ok(match reply {
            Ok(pid) => Pid::from_raw(pid).map(|pid| (pid, reader)).ok_or(Errno::PROTO),
            Err(errno) => Err(Errno::from_raw_os_error(errno)),
        })
    }

    fn prepare(
        &self,
        exec: &Exec,
        streams: &[OwnedFd],
    ) -> Result<(Vec<u8>, OwnedFd, OwnedFd, OwnedFd), Errno> {
        if streams.len() != 3 || self.commands.iter().any(|command| command.number == exec.command) {
            return Err(Errno::PROTO);
        }
        let message = wire::encode(exec).map_err(|_| Errno::TOOBIG)?;
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        let name = group_name(exec.command);
        rustix::fs::mkdirat(&self.cgroup, name.as_str(), Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let group = rustix::fs::openat(&self.cgroup, name.as_str(), flags, Mode::empty())?;
        Ok((message, reader, writer, group))
    }

    fn signal(&self, number: u32, signal: i32) {
        let running =
            self.commands.iter().find(|command| command.number == number && command.ended.is_none());
        if let Some(command) = running {
            // Not reaped yet, so the number is still this process's own. It may just have become a zombie.
            let _ = process::kill_child(command.pid, signal);
        }
    }

    /// Kills everything in a command's group.
    fn kill(&self, number: u32) {
        let file = format!("{}/cgroup.kill", group_name(number));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(&self.cgroup, file, flags, Mode::empty()) {
            // A group that is empty has nothing to kill.
            let _ = rustix::io::write(&file, b"1");
        }
    }

    fn remove_group(&self, number: u32) -> bool {
        let removed = rustix::fs::unlinkat(&self.cgroup, group_name(number), AtFlags::REMOVEDIR);
        matches!(removed, Ok(()) | Err(Errno::NOENT))
    }

    /// Reaps all children that have ended: commands, and what their processes left to PID 1.
    fn reap(&mut self) -> Result<(), Errno> {
        loop {
            match process::reap_any() {
                Ok(Some(ended)) if ended.pid == self.zygote_pid => return Err(Errno::CHILD),
                Ok(Some(ended)) => {
                    if let Some(command) = self.commands.iter_mut().find(|command| command.pid == ended.pid) {
                        command.ended = Some(ended);
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
            let Some(ended) = command.ended else {
                index += 1;
                continue;
            };
            let number = command.number;
            if !self.remove_group(number) {
                self.kill(number);
                if !self.remove_group(number) {
                    index += 1;
                    continue;
                }
            }
            let command = self.commands.swap_remove(index);
            if !command.orphaned {
                self.tell(&outcome(&command, ended));
            }
        }
    }
}

fn group_name(number: u32) -> String {
    format!("c{number}")
}

/// How a command ended: by itself, or before its program ran.
fn outcome(command: &Command, ended: Ended) -> Event {
    let number = command.number;
    let mut report = [0; 8];
    match rustix::io::read(&command.status, &mut report) {
        Ok(8) => {
            let [a, b, c, d, e, f, g, h] = report;
            let errno = i32::from_le_bytes([e, f, g, h]);
            match step(u32::from_le_bytes([a, b, c, d])) {
                Some(step) => Event::Failed { command: number, step, errno },
                None => Event::Failed { command: number, step: Step::Exec, errno: libc::EPROTO },
            }
        }
        _ => Event::Exited { command: number, exit: ended.exit, usage: ended.usage },
    }
}

fn step(number: u32) -> Option<Step> {
    let steps = [
        Step::Fork,
        Step::Namespace,
        Step::Streams,
        Step::Limits,
        Step::User,
        Step::Credentials,
        Step::Cwd,
        Step::Filter,
        Step::Exec,
    ];
    steps.into_iter().find(|step| *step as u32 == number)
}
