//! serve ⇄ agent, and agent ⇄ zygote.
//!
//! The daemon numbers commands; everything the agent says about one carries that number. File descriptors go
//! only towards the agent: an [`Request::Exec`] carries exactly stdin, stdout and stderr, in this order.

use serde::{Deserialize, Serialize};

/// The protocol's version, in [`Event::Hello`].
pub const VERSION: u32 = 1;

/// What the daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start a command. Three descriptors come with it.
    Exec(Exec),
    /// Send a signal to the first process of a command.
    Signal {
        /// Which command.
        command: u32,
        /// The signal's number.
        signal: i32,
    },
    /// Kill a command and everything that it started.
    Kill {
        /// Which command.
        command: u32,
    },
}

/// A command to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The daemon's number for it.
    pub command: u32,
    /// Program and arguments, without NUL; never empty.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`, without NUL.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside the sandbox, absolute.
    pub cwd: Vec<u8>,
    /// Whom it runs as.
    pub user: User,
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
    /// First message on every connection: the version, and the commands that run.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Numbers of the commands that have not ended.
        commands: Vec<u32>,
    },
    /// The command's first process exists.
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

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// exit(2) with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// What a command used, its waited-for children included (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time in user mode, in microseconds.
    pub user_us: u64,
    /// Time in the kernel, in microseconds.
    pub system_us: u64,
    /// The largest resident set of one process, in KiB.
    pub resident_max_kib: u64,
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
}
