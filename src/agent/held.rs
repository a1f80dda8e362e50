//! What the agent knows of one command.

use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::sys::process::Ended;
use crate::sys::socket;
use crate::wire::agent::{Event, HELD_STREAMS, Held, Step};

/// A command that has not ended, or whose end is remembered.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) number: u32,
    pub(super) pid: Pid,
    /// Carries `{step, errno}` when the program could not be executed, and before that a terminal's master.
    pub(super) status: OwnedFd,
    /// Whether it outlives the connection, and its end is remembered.
    pub(super) kept: bool,
    /// serve's ends of its streams, or the master of its terminal; never read.
    pub(super) held: Vec<OwnedFd>,
    /// What is waited for on `status` before the daemon is told that it has started.
    pub(super) opening: Option<Opening>,
    /// The master of its terminal, until the daemon is told.
    pub(super) terminal: Option<OwnedFd>,
    /// A failure that came on `status` meanwhile.
    pub(super) report: Option<[u8; 8]>,
    pub(super) life: Life,
    /// Whether the daemon that asked for it is gone: then nobody is told of its end, or another daemon that has reclaimed
    /// it.
    pub(super) orphaned: bool,
}

/// What a command owes before it counts as started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The end of its status pipe: the program runs. For what is kept, so that whoever starts it hears of a
    /// missing program at once.
    Program,
    /// The master of its terminal, and then the same.
    Terminal,
}

/// How it went.
#[derive(Debug)]
pub(super) enum Opened {
    /// It has started, on this terminal if it has one.
    Yes(Option<OwnedFd>),
    /// It will not: [`outcome`](Command::outcome) says why.
    No,
}

/// How far a command is.
#[derive(Debug)]
pub(super) enum Life {
    /// Its first process has not been reaped.
    Running,
    /// It has; now its cgroup is waited for.
    Leaving(Ended),
    /// Nothing of it is left, and this is what is told of it.
    Over(Event),
}

impl Command {
    /// For a serve that connects.
    pub(super) fn describe(&self) -> Held {
        Held {
            command: self.number,
            pid: self.pid.as_raw_nonzero().get(),
            kept: self.kept,
            ended: matches!(self.life, Life::Over(_)),
        }
    }

    /// Nobody wants it any more.
    pub(super) fn abandon(&mut self) {
        self.kept = false;
        self.held.clear();
    }

    /// Whether what was waited for has come.
    pub(super) fn open(&mut self) -> Option<Opened> {
        let mut message = [0; 8];
        let length = match self.opening? {
            Opening::Program => rustix::io::read(&self.status, &mut message).ok()?,
            Opening::Terminal => loop {
                let mut received = socket::receive(&self.status, &mut message).ok()?;
                match received.fds.pop() {
                    // First the master, then the end, when the program runs.
                    Some(master) => self.terminal = Some(master),
                    None => break received.length,
                }
            },
        };
        let started = length == 0 && (self.opening.take()? == Opening::Program || self.terminal.is_some());
        self.opening = None;
        if started {
            return Some(Opened::Yes(self.terminal.take()));
        }
        self.report = (length == message.len()).then_some(message);
        // Nobody has heard of it, so nobody will ask.
        self.kept = false;
        self.held.clear();
        Some(Opened::No)
    }

    /// Closes the writer of its stdin.
    pub(super) fn close_input(&mut self) {
        if self.held.len() == HELD_STREAMS {
            self.held.remove(0);
        }
    }

    /// How it ended: by itself, or before its program ran.
    pub(super) fn outcome(&self, ended: Ended) -> Event {
        let command = self.number;
        let mut report = [0; 8];
        let report = match self.report {
            Some(report) => report,
            None if rustix::io::read(&self.status, &mut report) == Ok(report.len()) => report,
            None => return Event::Exited { command, exit: ended.exit, usage: ended.usage },
        };
        let [a, b, c, d, e, f, g, h] = report;
        let errno = i32::from_le_bytes([e, f, g, h]);
        match step(u32::from_le_bytes([a, b, c, d])) {
            Some(step) => Event::Failed { command, step, errno },
            None => Event::Failed { command, step: Step::Exec, errno: libc::EPROTO },
        }
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
        Step::Terminal,
        Step::Adopt,
    ];
    steps.into_iter().find(|step| *step as u32 == number)
}
