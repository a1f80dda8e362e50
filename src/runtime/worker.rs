//! Starting our other roles: a fork of the launcher that drops what the role must not have, then executes the
//! same sealed program again, under the role's name, with an empty environment and its control socket as fd 0.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::sys::exec::{self, Strings};
use crate::sys::process::{self, Cloned, flags};
use crate::sys::{Errno, privilege};

/// Who a role is.
#[derive(Debug)]
pub enum Identity {
    /// A host id of the daemon's range, in the host's namespaces, without capabilities.
    User(u32),
    /// Uid 0 of a user namespace with this map, and alone in network, IPC, UTS and PID namespaces. Its
    /// capabilities reach no further than its own ids.
    Namespace(String),
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
pub fn spawn(program: &OwnedFd, role: &CStr, identity: &Identity) -> Result<Worker, Errno> {
    let (ours, theirs) = crate::sys::socket::pair()?;
    let (go_reader, go_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let argv = Strings::new(vec![role.to_owned()]);
    let environment = Strings::new(Vec::new());
    let namespaces = match identity {
        Identity::User(_) => 0,
        Identity::Namespace(_) => flags::USER | flags::NETWORK | flags::IPC | flags::UTS | flags::PID,
    };
    match process::clone3(namespaces, None)? {
        Cloned::Child => {
            drop((ours, go_writer));
            if become_role(identity, &theirs, &go_reader).is_ok() {
                exec::execveat(program.as_fd(), &argv, &environment);
            }
            process::exit_now(1)
        }
        Cloned::Parent { pid, pidfd } => {
            if let Identity::Namespace(map) = identity {
                for file in ["uid_map", "gid_map"] {
                    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
                    std::fs::write(path, map)
                        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                }
            }
            rustix::io::write(&go_writer, b"g")?;
            Ok(Worker { pid, pidfd, control: ours })
        }
    }
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
    }
    rustix::thread::set_no_new_privs(true)
}
