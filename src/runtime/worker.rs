//! Starting our other roles: a fork of the launcher that drops what the role must not have, then executes the
//! same sealed program again, under the role's name, with an empty environment and its control socket as fd 0.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::limits::FRAME_BYTES_MAX;
use crate::sys::exec::{self, Strings};
use crate::sys::process::{self, Cloned, flags};
use crate::sys::{Errno, errno_of, privilege};

/// Who a role is.
#[derive(Debug)]
pub enum Identity {
    /// A host id of the daemon's range, in the host's namespaces, without capabilities.
    User(u32),
    /// Uid 0 of a user namespace with this map, and alone in network, IPC, UTS and PID namespaces. Its
    /// capabilities reach no further than its own ids.
    Namespace(String),
    /// The one user of a user namespace, which is this host id, without capabilities even there, alone in network, IPC,
    /// UTS and PID namespaces; ends with the launcher.
    Alone(u32),
}

/// The first message of a role that this process must not read: a child does, before it becomes the role.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// The file that holds it.
    pub message: &'a OwnedFd,
    /// What goes with it.
    pub fds: &'a [BorrowedFd<'a>],
}

/// A role that was started.
#[derive(Debug)]
pub struct Worker {
    /// Its pid.
    pub pid: Pid,
    /// Its handle.
    pub pidfd: OwnedFd,
    /// Our end of its control socket.
    pub control: OwnedFd,
}

/// Starts `role`.
///
/// # Errors
/// As socketpair(2) and clone(2), or writing the id maps. A failure after the fork shows as a worker that ends.
pub fn spawn(
    program: &OwnedFd,
    role: &CStr,
    identity: &Identity,
    first: Option<First<'_>>,
) -> Result<Worker, Errno> {
    let (ours, theirs) = crate::sys::socket::pair()?;
    let (go_reader, go_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let argv = Strings::new(vec![role.to_owned()]);
    let environment = Strings::new(Vec::new());
    let namespaces = match identity {
        Identity::User(_) => 0,
        Identity::Namespace(_) | Identity::Alone(_) => {
            flags::USER | flags::NETWORK | flags::IPC | flags::UTS | flags::PID
        }
    };
    let map = match identity {
        Identity::User(_) => None,
        Identity::Namespace(map) => Some(map.clone()),
        Identity::Alone(id) => Some(format!("0 {id} 1\n")),
    };
    match process::clone3(namespaces, None)? {
        Cloned::Child => {
            let sent = first.map_or(Ok(()), |first| pass_on(&ours, first));
            drop((ours, go_writer));
            if sent.is_ok() && become_role(identity, &theirs, &go_reader).is_ok() {
                exec::execveat(program.as_fd(), &argv, &environment);
            }
            process::exit_now(1)
        }
        Cloned::Parent { pid, pidfd } => {
            if let Some(map) = map {
                for file in ["uid_map", "gid_map"] {
                    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
                    std::fs::write(path, &map).map_err(errno_of)?;
                }
            }
            rustix::io::write(&go_writer, b"g")?;
            Ok(Worker { pid, pidfd, control: ours })
        }
    }
}

/// Puts the first message into the socket of what this process is to become.
fn pass_on(socket: &OwnedFd, first: First<'_>) -> Result<(), Errno> {
    let length = rustix::fs::fstat(first.message)?.st_size;
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(FRAME_BYTES_MAX);
    let mut message = vec![0; length];
    let read = rustix::io::pread(first.message, &mut message, 0)?;
    crate::sys::socket::send(socket, &message[..read], first.fds)
}

fn become_role(identity: &Identity, control: &OwnedFd, go: &OwnedFd) -> Result<(), Errno> {
    if rustix::io::read(go, &mut [0; 1])? != 1 {
        return Err(Errno::PIPE);
    }
    process::default_signals()?;
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(control)?;
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdout(&null)?;
    exec::close_on_exec_from(3)?;
    // A role's files are for its group too: fetch's blobs are read by serve.
    rustix::process::umask(Mode::from_raw_mode(0o027));
    match identity {
        Identity::User(id) => {
            privilege::become_user(*id, *id, &[])?;
            privilege::limit_bounding_set(CapabilitySet::empty())?;
            privilege::set_capabilities(CapabilitySet::empty())?;
        }
        Identity::Namespace(_) => privilege::become_user(0, 0, &[])?,
        Identity::Alone(_) => {
            privilege::become_user(0, 0, &[])?;
            privilege::limit_bounding_set(CapabilitySet::empty())?;
            privilege::set_capabilities(CapabilitySet::empty())?;
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        }
    }
    rustix::thread::set_no_new_privs(true)
}
