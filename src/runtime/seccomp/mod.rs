//! System call filters: `seccomp-profiles/*.json` → one BPF program per role and per command profile.
//!
//! ```text
//! profile.json ─ extends ─▶ table: number → deny rules, allow rules, errno otherwise
//!                                     │  conditions: seccompiler
//!                                     ▼
//!    arch? ─ other ─▶ kill process    │
//!      │                              │
//!      ▼                              ▼
//!    number ── binary search ──▶ allow │ errno │ argument rules ─▶ allow │ errno
//! ```
//!
//! Compiled when a role starts, held as plain data, installed between fork and exec without touching the heap.
//! The zygote of a sandbox installs [`CommandFilters::zygote`] once; each command inherits it and adds
//! [`CommandFilters::last`], which takes away the two calls that only the zygote needs.
//!
//! Invariants
//! - Everything is an allowlist: a number that no rule allows is refused, new system calls included.
//! - Arguments are compared by their lower 32 bits, which is all that the kernel looks at in every argument named.
//! - A call of another architecture (`int 0x80`) kills the process; x32 numbers (bit 30) are unknown numbers.
//! - No rule kills or logs otherwise: refusals look like an old kernel (`ENOSYS`) or a missing privilege (`EPERM`).
//! - launch's filter is inherited by everything, so it allows whatever any other filter allows.
//!
//! Why not `seccompiler::SeccompFilter`: it knows one errno per filter, so four errnos are four filters, and it
//! compares numbers one after the other. At each installation the kernel runs the filter once per system call to
//! learn which are always allowed: 0.66 ms for 330 numbers in a row, 0.15 ms for our tree with all its argument rules (Linux 6.18),
//! on the path of every sandbox's creation. seccompiler compiles the conditions; the tree around them is ours.

mod profile;
mod program;
mod syscalls;
#[cfg(test)]
mod tests;

use seccompiler::BpfProgram;

use crate::wire::launch::Profile;

/// Why a profile could not be compiled. All of these are mistakes in our own files; tests compile every one.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// No profile of that name is built in.
    #[error("no profile is called {name}")]
    UnknownProfile {
        /// The name in `extends`.
        name: String,
    },
    /// The file is not a profile.
    #[error("read profile {name}")]
    Parse {
        /// Which.
        name: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A name that is no system call.
    #[error("profile {profile} names {syscall}, which is no system call")]
    UnknownSyscall {
        /// Where.
        profile: String,
        /// What it says.
        syscall: String,
    },
    /// A call is both always denied and sometimes allowed.
    #[error("profile {profile} both denies and allows {syscall}")]
    Contradiction {
        /// Where.
        profile: String,
        /// Its number.
        syscall: u32,
    },
    /// A profile withdraws what it does not inherit.
    #[error("profile {profile} withdraws {syscall}, which it does not inherit")]
    NothingToWithdraw {
        /// Where.
        profile: String,
        /// Its number.
        syscall: u32,
    },
    /// Neither the profile nor one that it extends has a default.
    #[error("profile {profile} has no default_errno")]
    NoDefault {
        /// Where.
        profile: String,
    },
    /// seccompiler refused a condition.
    #[error("compile the conditions")]
    Condition(#[source] seccompiler::BackendError),
    /// More than the kernel takes (`BPF_MAXINSNS`).
    #[error("the program has {instructions} instructions, the kernel takes 4096")]
    TooLong {
        /// Its length.
        instructions: usize,
    },
}

/// One of our own processes that has a filter for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The API.
    Serve,
    /// The privileged role, and with it the outer fence around all others.
    Launch,
    /// PID 1 of a sandbox. To be installed after the zygote is forked, which would inherit it.
    Agent,
    /// A bucket as a file system.
    Bucket,
    /// Talks to registries.
    Fetch,
    /// Talks to whomever sandboxes may talk to.
    Gateway,
    /// Makes files from layers.
    Unpack,
}

/// The two filters that stand between a command and the kernel.
#[derive(Clone, Debug)]
pub struct CommandFilters {
    /// For the zygote: the profile, and beside it `clone3` and `setns` into a user namespace.
    pub zygote: BpfProgram,
    /// For the command, last before exec: takes those two away again. `seccomp` and `prctl` still work under
    /// [`zygote`](Self::zygote), so that it can be installed.
    pub last: BpfProgram,
}

/// What the zygote does for each command and no command may do.
const ZYGOTE_CALLS: [&str; 2] = ["clone3", "setns"];

/// `CLONE_NEWUSER` (linux/sched.h): the only kind of namespace that the zygote's children enter.
const CLONE_NEWUSER: u32 = 0x1000_0000;
/// `CLONE_NEWNET`: the kind that the zygote itself enters after the filter is installed, while it may.
const CLONE_NEWNET: u32 = 0x4000_0000;

/// The filters of a command profile.
///
/// # Errors
/// When the built-in profile is wrong; a test compiles each.
pub fn command(profile: Profile) -> Result<CommandFilters, SeccompError> {
    let table = profile::load(match profile {
        Profile::Default => "command-default",
        Profile::Hardened => "command-hardened",
        Profile::Compat => "command-compat",
    })?;
    let mut zygote = table.clone();
    let mut last = profile::Table::allowing_everything();
    for name in ZYGOTE_CALLS {
        last.copy_refusal(&table, name);
    }
    zygote.allow_always("clone3");
    zygote.allow_when("setns", 1, &[CLONE_NEWUSER, CLONE_NEWNET]);
    Ok(CommandFilters { zygote: program::compile(&zygote)?, last: program::compile(&last)? })
}

/// The filter of a role.
///
/// # Errors
/// When the built-in profile is wrong; a test compiles each.
pub fn role(role: Role) -> Result<BpfProgram, SeccompError> {
    program::compile(&profile::load(match role {
        Role::Serve => "serve",
        Role::Launch => "launch",
        Role::Agent => "agent",
        Role::Bucket => "bucket",
        Role::Fetch => "fetch",
        Role::Gateway => "gateway",
        Role::Unpack => "unpack",
    })?)
}

/// What a command profile allows beyond `default`, in the words of its rules.
pub fn relaxations(profile: Profile) -> Vec<String> {
    match profile {
        Profile::Default | Profile::Hardened => Vec::new(),
        // Unreadable profiles are found by `command`, without which there is no sandbox to report about.
        Profile::Compat => profile::reasons_to_allow("command-compat").unwrap_or_default(),
    }
}
