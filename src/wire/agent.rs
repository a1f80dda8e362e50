//! serve ⇄ agent, and agent ⇄ zygote.
//!
//! The daemon numbers commands; everything the agent says about one carries that number.
//!
//! Descriptors come with four messages. [`Request::Exec`] carries what its [`Program`] says, and for a command
//! that is kept up to [`HELD_MAX`] more: serve's own ends, which the agent holds and never reads. [`Request::Adopt`]
//! carries a socket. [`Event::Started`] carries the master of a terminal, and [`Event::Reclaimed`] duplicates of what is held.
//!
//! A command that is not kept ends with the connection that asked for it. One that is kept goes on, and how it
//! ended is remembered, until [`Request::Forget`].

use std::os::fd::OwnedFd;

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

/// The protocol's version, in [`Event::Hello`].
pub const VERSION: u32 = 6;

/// Descriptors of serve's that the agent holds for one command: writer of stdin, readers of stdout and stderr.
pub const HELD_STREAMS: usize = 3;

/// The most that it holds: for a shell its control socket, the readers, and two memory files.
pub const HELD_MAX: usize = 5;

/// The first descriptor of a [`Program::Shell`] beyond its standard streams: above all that the zygote has open.
pub const SHELL_FD_FIRST: i32 = 20;

/// What in-sandbox root can have: enough for apt, dpkg and pip, all of it about the sandbox's own files and
/// processes. Nobody else has anything, and nobody can get more.
pub const ROOT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL);

/// What the daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start a command.
    Exec(Exec),
    /// Make a command of its own of a process that a command has forked and left to the sandbox's first process.
    /// Comes with a socket that names the sender of its one message (unix(7), `SO_PASSCRED`): that is the process.
    /// Answered as [`Exec`](Self::Exec) is.
    Adopt {
        /// The daemon's number for it.
        command: u32,
        /// The command that has forked it and still runs.
        from: u32,
    },
    /// Send a signal to a command.
    Signal {
        /// Which command.
        command: u32,
        /// The signal's number.
        signal: i32,
        /// Whether to every process of it that is not set aside, or only to the first.
        tree: bool,
    },
    /// Kill a command and everything that it started.
    Kill {
        /// Which command.
        command: u32,
    },
    /// Set aside all processes of a command but the first. What they fork is set aside as well: signals and interrupts
    /// are for none of these, and only a kill is, and the end of the command.
    SetAside {
        /// Which command.
        command: u32,
    },
    /// Send a signal to the first process of a command and kill all others, whatever they forked. Answered by
    /// [`Event::Interrupted`].
    Interrupt {
        /// Which command.
        command: u32,
        /// The signal's number.
        signal: i32,
        /// Whether those that are set aside are killed too.
        aside: bool,
    },
    /// Send what is held for a kept command, and how it ended if it has. Answered by [`Event::Reclaimed`], or,
    /// when there is no such command, by [`Event::Failed`] with `ESRCH`.
    Reclaim {
        /// Which command.
        command: u32,
    },
    /// Close the first descriptor that is held for a command: of three, the writer of its stdin.
    CloseInput {
        /// Which command.
        command: u32,
    },
    /// Close what is held for a command. Once it has ended nothing of it is remembered.
    Forget {
        /// Which command.
        command: u32,
    },
}

/// A command to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The daemon's number for it.
    pub command: u32,
    /// What runs.
    pub program: Program,
    /// `NAME=value`, without NUL.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside the sandbox, absolute.
    pub cwd: Vec<u8>,
    /// Whom it runs as.
    pub user: User,
    /// Whether it outlives the connection.
    pub keep: bool,
}

/// What runs as a command, and which descriptors it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program and its arguments, without NUL; never empty. Comes with stdin, stdout and stderr.
    Argv(Vec<Vec<u8>>),
    /// The same with three more descriptors, which it finds from [`SHELL_FD_FIRST`] on.
    Shell(Vec<Vec<u8>>),
    /// A program and its arguments, on a terminal of its own, in the sandbox's devpts. Comes with nothing.
    Terminal {
        /// As for `Argv`.
        argv: Vec<Vec<u8>>,
        /// Height, in characters.
        rows: u16,
        /// Width, in characters.
        columns: u16,
    },
    /// Our own code, which opens files and connects to ports with the rights of a command: see
    /// [`worker`](super::worker). Comes with its socket to serve.
    Worker,
}

impl Program {
    /// How many descriptors the program is given.
    pub fn streams(&self) -> usize {
        match self {
            Self::Argv(_) => 3,
            Self::Shell(_) => 6,
            Self::Terminal { .. } => 0,
            Self::Worker => 1,
        }
    }
}

/// A user, resolved in the sandbox's own passwd and group files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub user: Name,
    /// The group, if not the user's own.
    pub group: Option<Name>,
}

/// A user or group as written: digits are an id, everything else is a name (CVE-2016-3697).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Name {
    /// A numeric id below [`IDS_PER_SANDBOX`](crate::limits::IDS_PER_SANDBOX).
    Id(u32),
    /// A name.
    Text(String),
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// First message on every connection: the version, and the commands that are there.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Those that have not ended, and the kept ones that have.
        commands: Vec<Held>,
    },
    /// The signal is sent, and the others are killed as far as they could be seen.
    Interrupted {
        /// Which command.
        command: u32,
    },
    /// What is held for a kept command comes with this. If it has ended, [`Exited`](Self::Exited) or
    /// [`Failed`](Self::Failed) follows.
    Reclaimed {
        /// Which command.
        command: u32,
    },
    /// The command's first process exists; if it is on a terminal, the master comes with this.
    Started {
        /// Which command.
        command: u32,
        /// Its pid, as seen in the sandbox.
        pid: i32,
    },
    /// The command could not be started.
    Failed {
        /// Which command.
        command: u32,
        /// What was tried.
        step: Step,
        /// What the kernel said (errno(3)).
        errno: i32,
    },
    /// The command's first process ended, and nothing that it started is left.
    Exited {
        /// Which command.
        command: u32,
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
    },
}

/// A command that an agent has when serve connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number.
    pub command: u32,
    /// Pid of its first process, as seen in the sandbox.
    pub pid: i32,
    /// Whether it is kept. One that is not is on its way out.
    pub kept: bool,
    /// Whether it has ended.
    pub ended: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// exit(2) with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// What a command used: time of all that it started, by its control group; the rest of its first process and the
/// children that were waited for (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Time in user mode, in microseconds.
    pub user_us: u64,
    /// Time in the kernel, in microseconds.
    pub system_us: u64,
    /// The largest resident set of one process, in KiB.
    pub resident_max_kib: u64,
    /// Bytes read from the disk.
    pub read_bytes: u64,
    /// Bytes written to it, or to be.
    pub written_bytes: u64,
    /// Pages that had to be read from the disk.
    pub major_faults: u64,
    /// Pages that had to be found or made in memory.
    pub minor_faults: u64,
    /// How often it waited for something.
    pub voluntary_switches: u64,
    /// How often another one was let run.
    pub involuntary_switches: u64,
}

/// A step between fork and exec that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u32)]
pub enum Step {
    /// clone3: the sandbox has no room for another process.
    Fork = 1,
    /// Entering the workload's user namespace.
    Namespace = 2,
    /// Standard streams and closing the rest.
    Streams = 3,
    /// Resource limits.
    Limits = 4,
    /// Finding the user or group.
    User = 5,
    /// Becoming the user, dropping capabilities.
    Credentials = 6,
    /// Entering the working directory.
    Cwd = 7,
    /// Installing the system call filter.
    Filter = 8,
    /// execve: no such program, or not executable.
    Exec = 9,
    /// Making a terminal.
    Terminal = 10,
    /// Taking over a process that another command has forked.
    Adopt = 11,
}

/// What the launcher's clone hands to the agent in memory: not a message, because there is no exec between them.
#[derive(Debug)]
pub struct Inside {
    /// To the launcher, until the sandbox is ready: a `Result<Progress, Failure>` at each step.
    pub setup: OwnedFd,
    /// The user namespace that commands run in.
    pub workload: OwnedFd,
    /// System call filters as instructions: the agent's, the zygote's, and the last one of a command.
    pub filters: Filters,
    /// What is still to be done by the launcher's clone, while the zygote restricts itself.
    pub rest: Rest,
}

/// Builds the rest of the sandbox around the process that calls it. When that fails, it tells the launcher and ends
/// the process.
pub struct Rest(pub Box<dyn FnOnce() -> Built>);

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rest")
    }
}

/// Finishes what the zygote need not wait for. When that fails, it ends the process: there is a zygote that says that it
/// is ready, but nobody who starts anything in it.
pub struct Close(pub Box<dyn FnOnce()>);

impl std::fmt::Debug for Close {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Close")
    }
}

/// A sandbox that stands.
#[derive(Debug)]
pub struct Built {
    /// Its network namespace, for the zygote to enter.
    pub network: OwnedFd,
    /// The first connection from the daemon.
    pub connection: OwnedFd,
    /// Where a restarted launcher connects.
    pub listener: OwnedFd,
    /// The sandbox's own v2 group: a mount whose root it is, so that `..` leads nowhere.
    pub cgroup: OwnedFd,
    /// To be called once the zygote goes on, before anything is read from anybody.
    pub close: Close,
}

/// Compiled system call filters (seccomp(2)). They are made once and last as long as the launcher: a copy for each
/// sandbox would be as many pages of memory, and faults on them.
#[derive(Clone, Copy, Debug)]
pub struct Filters {
    /// For the agent itself.
    pub agent: seccompiler::BpfProgramRef<'static>,
    /// For the zygote, and so for every command.
    pub zygote: seccompiler::BpfProgramRef<'static>,
    /// Takes from a command what only the zygote needs.
    pub command: seccompiler::BpfProgramRef<'static>,
}

/// What the zygote tells the launcher, both in this order. The kernel says who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// It exists, in all of the sandbox's namespaces but that of the network.
    Forked,
    /// Commands can be started.
    Ready {
        /// The Landlock ABI that is enforced on commands; 0 is none.
        landlock_abi: u32,
    },
}
