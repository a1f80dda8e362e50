//! Between fork and exec: from a copy of the zygote to the user's program.
//!
//! No heap, no locks, no logging, and nothing is returned to. The first step that fails is written to the status
//! pipe as `{step, errno}`, 8 bytes, and the process ends; the words are found outside. The pipe is close-on-exec,
//! so an empty one means that the program runs. With a terminal it is a socket, and the master goes through it
//! first. A worker goes the same way up to the filter and then runs our code instead of a program.
//!
//! The order, and why no step can move:
//!
//! 1. signals and streams; every other descriptor close-on-exec, before anything resolves a path
//! 2. first in line when memory runs out, before the agent: while this process may still say so about itself
//! 3. the inner user namespace: it gives the capabilities over it that the next steps need
//! 4. bounding set, securebits: they need those capabilities. The zygote has lowered the limits already
//! 5. find the user: as the identity that can still read an image's odd /etc
//! 6. become the user and drop every capability: the rest happens with the command's own rights
//! 7. the terminal, if there is one: its slave belongs to whoever opens the master
//! 8. working directory: so a directory that the user cannot enter is refused, and no magic link leads out
//!    through a descriptor that we still hold (CVE-2024-21626)
//! 9. the last filter: it forbids what only the zygote may do
//! 10. exec

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, LinkNameSpaceType};

use super::{user, worker};
use crate::sys::exec::{self, Strings};
use crate::sys::{Errno, path, privilege, process, socket, terminal};
use crate::wire::agent::{ROOT_CAPABILITIES, SHELL_FD_FIRST, Step, User};

/// A command with all its strings laid out.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Where its input comes from and its output goes.
    pub(super) streams: Streams,
    /// The program; a worker has none.
    pub(super) arguments: Option<Arguments>,
    /// Environment, with room for HOME.
    pub(super) env: Strings,
    /// Working directory.
    pub(super) cwd: CString,
    /// Whom to become.
    pub(super) user: User,
}

/// What a command is given.
#[derive(Debug)]
pub(super) enum Streams {
    /// stdin, stdout and stderr.
    Given([OwnedFd; 3]),
    /// The same, and three more.
    Shell([OwnedFd; 6]),
    /// A terminal, which it opens itself.
    Terminal {
        /// Height, in characters.
        rows: u16,
        /// Width, in characters.
        columns: u16,
    },
    /// The socket of a worker.
    Worker(OwnedFd),
}

/// A program to execute.
#[derive(Debug)]
pub(super) struct Arguments {
    /// Paths to try, in order.
    pub(super) candidates: Vec<CString>,
    /// Arguments, the program's name first.
    pub(super) argv: Strings,
}

/// Limits of a process, lowered only: what the daemon was given is the most that can be passed on.
const LIMITS: [(Resource, u64, u64); 8] = [
    (Resource::Nofile, 1024, 65_536),
    // 1, not 0: a core_pattern that is a pipe ignores 0, and treats 1 as "do not run the helper" (core(5)).
    (Resource::Core, 1, 1),
    (Resource::Stack, 8 << 20, 64 << 20),
    (Resource::Memlock, 8 << 20, 8 << 20),
    (Resource::Sigpending, 4096, 4096),
    (Resource::Msgqueue, 819_200, 819_200),
    (Resource::Nice, 0, 0),
    (Resource::Rtprio, 0, 0),
];

/// Becomes the command: never returns.
pub(super) fn run(
    prepared: &mut Prepared,
    status: &OwnedFd,
    workload: &OwnedFd,
    filter: seccompiler::BpfProgramRef<'_>,
) -> ! {
    let (step, errno) = match become_command(prepared, status, workload, filter) {
        Ok(errno) => (Step::Exec, errno),
        Err(failed) => failed,
    };
    let mut report = [0; 8];
    report[..4].copy_from_slice(&(step as u32).to_le_bytes());
    report[4..].copy_from_slice(&errno.raw_os_error().to_le_bytes());
    // If even this fails, the agent sees the exit code.
    let _ = rustix::io::write(status, &report);
    process::exit_now(126)
}

fn at(step: Step) -> impl FnOnce(Errno) -> (Step, Errno) {
    move |errno| (step, errno)
}

/// Returns only when exec failed, with its errno, or when a step before it did.
fn become_command(
    prepared: &mut Prepared,
    status: &OwnedFd,
    workload: &OwnedFd,
    filter: seccompiler::BpfProgramRef<'_>,
) -> Result<Errno, (Step, Errno)> {
    match &prepared.streams {
        // Our own code wants Rust's signals: a closed pipe is an error there and not the end.
        Streams::Worker(_) => {}
        _ => process::default_signals().map_err(at(Step::Streams))?,
    }
    take_streams(&prepared.streams).map_err(at(Step::Streams))?;
    rustix::process::setsid().map_err(at(Step::Streams))?;
    die_first().map_err(at(Step::Limits))?;
    rustix::thread::move_into_link_name_space(workload.as_fd(), Some(LinkNameSpaceType::User))
        .map_err(at(Step::Namespace))?;
    let identity = user::find(&prepared.user).map_err(at(Step::User))?;
    let keep = if identity.uid == 0 { ROOT_CAPABILITIES } else { CapabilitySet::empty() };
    privilege::limit_bounding_set(keep).map_err(at(Step::Credentials))?;
    if identity.uid != 0 {
        privilege::lock_root_powerless().map_err(at(Step::Credentials))?;
    }
    privilege::become_user(identity.uid, identity.gid, identity.groups()).map_err(at(Step::Credentials))?;
    // A change of ids makes a process what /proc/sys/fs/suid_dumpable says, and that may be open to its own uid.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(at(Step::Credentials))?;
    privilege::set_capabilities(keep).map_err(at(Step::Credentials))?;
    if let Streams::Terminal { rows, columns } = prepared.streams {
        take_terminal(status, rows, columns).map_err(at(Step::Terminal))?;
    }
    enter_directory(&prepared.cwd).map_err(at(Step::Cwd))?;
    prepared.env.append([b"HOME=", identity.home()]);
    seccompiler::apply_filter(filter).map_err(|_| (Step::Filter, Errno::INVAL))?;
    match (&prepared.streams, &prepared.arguments) {
        (Streams::Worker(socket), _) => work(socket),
        (_, Some(arguments)) => Ok(try_candidates(arguments, &prepared.env)),
        (_, None) => Err((Step::Exec, Errno::INVAL)),
    }
}

/// Runs our own code instead of a program.
fn work(socket: &OwnedFd) -> ! {
    // Only for ps on the host, as for the zygote that it is a copy of.
    let _ = rustix::thread::set_name(c"st-worker");
    // What exec would have closed, the zygote's socket to the agent above all.
    let closed = exec::close_all_except(&[socket.as_fd()]);
    let worked = closed.and_then(|()| worker::run(socket));
    process::exit_now(i32::from(worked.is_err()))
}

/// Opens a terminal in the sandbox's devpts, sends the master to the agent, and makes the slave this session's.
fn take_terminal(status: &OwnedFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(c"/dev/pts/ptmx", flags, Mode::empty())?;
    let slave = terminal::open_slave(&master, rows, columns)?;
    socket::send(status, b"t", &[master.as_fd()])?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    rustix::stdio::dup2_stdin(&slave)?;
    rustix::stdio::dup2_stdout(&slave)?;
    rustix::stdio::dup2_stderr(&slave)
}

fn take_streams(streams: &Streams) -> Result<(), Errno> {
    if let Streams::Given([stdin, stdout, stderr]) | Streams::Shell([stdin, stdout, stderr, ..]) = streams {
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
    }
    // The originals were numbered above 2: the zygote's own 0, 1 and 2 are open.
    exec::close_on_exec_from(3)?;
    if let Streams::Shell([_, _, _, more @ ..]) = streams {
        for (number, fd) in (SHELL_FD_FIRST..).zip(more) {
            exec::pass_as(fd.as_fd(), number)?;
        }
    }
    Ok(())
}

/// Makes the kernel choose a command, and not the agent or the zygote, when the sandbox's memory is used up, and
/// not the host's programs when the host's is (proc_pid_oom_score_adj(5)).
fn die_first() -> Result<(), Errno> {
    // An undumpable process's files in /proc are not its own. This one is still out of the workload's reach by its
    // id, and exec decides anew.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, b"1000")?;
    Ok(())
}

/// Lowers the limits of this process, and of what is forked from it.
pub(super) fn lower_limits() -> Result<(), Errno> {
    for (resource, soft, hard) in LIMITS {
        let given = rustix::process::getrlimit(resource);
        let hard = given.maximum.map_or(hard, |maximum| maximum.min(hard));
        rustix::process::setrlimit(resource, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) })?;
    }
    Ok(())
}

fn enter_directory(cwd: &CString) -> Result<(), Errno> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let directory = path::open_in_root(&root, cwd.as_c_str(), OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::process::fchdir(&directory)
}

/// As execvp(3): goes on after "not there", remembers "not allowed".
fn try_candidates(arguments: &Arguments, env: &Strings) -> Errno {
    let mut result = Errno::NOENT;
    for candidate in &arguments.candidates {
        match exec::execve(candidate, &arguments.argv, env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => result = Errno::ACCESS,
            other => return other,
        }
    }
    result
}
