//! The process that commands are forked from: restricted once by Landlock and the system call filter.
//!
//! ```text
//! agent ── Exec + the program's streams, status, cgroup ──▶ zygote ── clone3 ──▶ command
//!       ◀────────────── Result<pid, errno> ───────────────
//! ```
//!
//! A command is made with CLONE_PARENT, so the agent, PID 1, is its parent and reaps it, and with
//! CLONE_INTO_CGROUP, so it never runs outside its own group. All strings are laid out before the fork.
//!
//! The zygote has the agent's id in the outer user namespace, and no capability once it is ready. It may enter the inner namespace
//! because it owns that namespace's creator's id (user_namespaces(7)); the workload can neither see nor signal it.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{CapabilitySet, LinkNameSpaceType};

use super::command::{self, Arguments, Prepared, Streams};
use super::landlock;
use crate::limits::FRAME_BYTES_MAX;
use crate::sys::exec::{self, Strings};
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, privilege, socket};
use crate::wire;
use crate::wire::agent::{Exec, Filters, Program, Progress};
use crate::wire::launch::{Failure, FailureKind};

/// What the zygote is made of.
#[derive(Debug)]
pub(super) struct Zygote {
    /// To the agent.
    pub(super) agent: OwnedFd,
    /// To the launcher, for one message.
    pub(super) setup: OwnedFd,
    /// The inner user namespace.
    pub(super) workload: OwnedFd,
    /// The filters.
    pub(super) filters: Filters,
}

/// Room for `HOME=` and a directory.
const HOME_ROOM_BYTES: usize = 512;

/// Where programs are looked for when the environment has no PATH.
const PATH_DEFAULT: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the zygote: never returns.
pub(super) fn run(zygote: Zygote) -> ! {
    // Only for ps on the host; a name cannot be wrong.
    let _ = rustix::thread::set_name(c"st-zygote");
    let tell = |progress: Result<Progress, Failure>| {
        if let Ok(message) = wire::encode(&progress) {
            // A launcher that is gone cleans up when it is back.
            let _ = socket::send(&zygote.setup, &message, &[]);
        }
    };
    // The launcher examines what there is in the meantime.
    tell(Ok(Progress::Forked));
    let ready = restrict(&zygote).map(|landlock_abi| Progress::Ready { landlock_abi });
    let failed = ready.is_err();
    tell(ready);
    if failed || socket::send(&zygote.agent, &RESTRICTED, &[]).is_err() {
        process::exit_now(1);
    }
    let Zygote { agent, setup, workload, filters } = zygote;
    drop(setup);
    // The agent ends when its zygote does, and the sandbox with it, so any error here is final.
    let _: Result<Infallible, Errno> = serve(&agent, &workload, filters);
    process::exit_now(1)
}

/// The filter first, because it takes longest to install and the agent is still at work on what the rest needs.
fn restrict(zygote: &Zygote) -> Result<u32, Failure> {
    let failed =
        |what: &str, detail: String| Failure { kind: FailureKind::Internal, what: what.to_owned(), detail };
    let step = |what: &'static str| move |errno: Errno| failed(what, errno.to_string());
    exec::close_all_except(&[zygote.agent.as_fd(), zygote.setup.as_fd(), zygote.workload.as_fd()])
        .map_err(step("close what belongs to the agent"))?;
    seccompiler::apply_filter(zygote.filters.zygote)
        .map_err(|error| failed("install the system call filter", error.to_string()))?;
    let mut network = socket::receive(&zygote.agent, &mut [0; 1]).map_err(step("wait for the agent"))?.fds;
    let network = network.pop().ok_or_else(|| failed("wait for the agent", "it has ended".to_owned()))?;
    rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(step("enter the network namespace"))?;
    // Its rules are about the sandbox's root, which is this process's since the agent has made it so.
    let landlock_abi = landlock::restrict_commands()
        .map_err(|error| failed("restrict commands by Landlock", error.to_string()))?;
    privilege::set_capabilities(CapabilitySet::empty()).map_err(step("drop capabilities"))?;
    command::lower_limits().map_err(step("lower the limits of commands"))?;
    Ok(landlock_abi)
}

/// The agent's word to the zygote that the sandbox stands, with its network namespace.
pub(super) fn go_on(zygote: &OwnedFd, network: &OwnedFd) -> Result<(), Errno> {
    socket::send(zygote, b"g", &[network.as_fd()])
}

/// The zygote's word to the agent that it is done with restricting itself.
const RESTRICTED: [u8; 1] = [b'r'];

/// The agent's side of it.
pub(super) fn wait_until_restricted(zygote: &OwnedFd) -> Result<(), Errno> {
    match socket::receive(zygote, &mut [0; 1])?.length {
        1 => Ok(()),
        _ => Err(Errno::PIPE),
    }
}

fn serve(agent: &OwnedFd, workload: &OwnedFd, filters: Filters) -> Result<Infallible, Errno> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let received = socket::receive(agent, &mut buffer)?;
        if received.length == 0 {
            return Err(Errno::PIPE);
        }
        let started = start(&buffer[..received.length], received.fds, workload, filters);
        let reply = wire::encode(&started.map_err(Errno::raw_os_error)).map_err(|_| Errno::PROTO)?;
        socket::send(agent, &reply, &[])?;
    }
}

fn start(message: &[u8], mut fds: Vec<OwnedFd>, workload: &OwnedFd, filters: Filters) -> Result<i32, Errno> {
    let exec: Exec = wire::decode(message).map_err(|_| Errno::PROTO)?;
    let (Some(cgroup), Some(status)) = (fds.pop(), fds.pop()) else { return Err(Errno::PROTO) };
    let mut prepared = prepare(exec, fds)?;
    match process::clone3(process::flags::PARENT, Some(cgroup.as_fd()))? {
        Cloned::Child => command::run(&mut prepared, &status, workload, filters.command),
        Cloned::Parent { pid, .. } => Ok(pid.as_raw_nonzero().get()),
    }
}

/// Lays out all strings of a command.
fn prepare(exec: Exec, fds: Vec<OwnedFd>) -> Result<Prepared, Errno> {
    let path = exec.env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(PATH_DEFAULT);
    let (streams, argv) = match exec.program {
        Program::Argv(argv) => (Streams::Given(fds.try_into().map_err(|_| Errno::PROTO)?), Some(argv)),
        Program::Shell(argv) => (Streams::Shell(fds.try_into().map_err(|_| Errno::PROTO)?), Some(argv)),
        Program::Terminal { argv, rows, columns } => (Streams::Terminal { rows, columns }, Some(argv)),
        Program::Worker => {
            let [socket] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Errno::PROTO)?;
            (Streams::Worker(socket), None)
        }
    };
    let arguments = argv.map(|argv| arguments(argv, path)).transpose()?;
    let has_home = exec.env.iter().any(|entry| entry.starts_with(b"HOME="));
    let room = if has_home { 0 } else { HOME_ROOM_BYTES };
    Ok(Prepared {
        streams,
        arguments,
        env: Strings::with_room(c_strings(exec.env)?, room),
        cwd: CString::new(exec.cwd).map_err(|_| Errno::INVAL)?,
        user: exec.user,
    })
}

fn arguments(argv: Vec<Vec<u8>>, path: &[u8]) -> Result<Arguments, Errno> {
    let program = argv.first().ok_or(Errno::INVAL)?.clone();
    let candidates = if program.contains(&b'/') {
        vec![program]
    } else {
        path.split(|&byte| byte == b':')
            // An empty entry means the current directory (environ(7)), which nobody wants to mean.
            .filter(|directory| !directory.is_empty())
            .map(|directory| [directory, b"/", &program].concat())
            .collect()
    };
    Ok(Arguments { candidates: c_strings(candidates)?, argv: Strings::new(c_strings(argv)?) })
}

fn c_strings(list: Vec<Vec<u8>>) -> Result<Vec<CString>, Errno> {
    list.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(|_| Errno::INVAL)
}
