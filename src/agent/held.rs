//! What the agent knows of one command.

use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::sys::process::Ended;
use crate::sys::socket;
use crate::wire::agent::{Event, HELD_MAX, Held, Step};

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
    /// Whether it is to have a terminal whose master has not come.
    pub(super) opening: bool,
    /// What came on `status` in the terminal's place.
    pub(super) report: Option<[u8; 8]>,
    pub(super) life: Life,
    /// Whether the daemon that asked for it is gone: then nobody is told of its end.
    pub(super) orphaned: bool,
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
        self.orphaned = true;
        self.kept = false;
        self.held.clear();
    }

    /// The master of a terminal, if it has come. A failure in its place is kept for [`outcome`](Self::outcome).
    pub(super) fn receive_terminal(&mut self) -> Option<OwnedFd> {
        let mut message = [0; 8];
        match socket::receive(&self.status, &mut message) {
            Ok(mut received) => {
                self.opening = false;
                self.report = (received.length == message.len()).then_some(message);
                received.fds.pop()
            }
            Err(_) => None,
        }
    }

    /// Closes the writer of its stdin.
    pub(super) fn close_input(&mut self) {
        if self.held.len() == HELD_MAX {
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
    ];
    steps.into_iter().find(|step| *step as u32 == number)
}
