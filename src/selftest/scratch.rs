//! Where controls run: fresh namespaces of every kind, which nothing but the attack is in.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Pid;

use crate::sys::process::{self, Cloned, flags};
use crate::sys::{Errno, errno_of, privilege, socket};

/// A host id of which nothing on any host is the owner: above the ranges that login, systemd and our own configuration
/// hand out (systemd's UIDS-GIDS.md ends at 2,147,483,647).
const STRANGERS: u32 = 0xF000_0000;

/// Directories that every Linux has, and that no control needs: one of them is mounted over.
const PLACES: [&str; 5] = ["/mnt", "/srv", "/media", "/opt", "/home"];

/// Runs `body` as the first process of new namespaces, where it has every capability over them, and waits. `real` is with
/// the host's own user namespace: the caller's privileges stay.
///
/// # Errors
/// As clone(2), mount(2), or when the ids cannot be mapped; in the caller or in the copy.
pub(super) fn inside(real: bool, body: impl FnOnce(&str)) -> Result<(), Errno> {
    /// In no version of libc as a u64 (linux/sched.h).
    const CGROUP: u64 = 0x0200_0000;
    let (ours, theirs) = socket::pair()?;
    let user = if real { 0 } else { flags::USER };
    let namespaces = user | flags::MOUNT | flags::PID | flags::NETWORK | flags::IPC | flags::UTS | CGROUP;
    match process::clone3(namespaces, None)? {
        Cloned::Child => {
            drop(ours);
            let code = enter(&theirs, real).map_or_else(Errno::raw_os_error, |place| {
                drop(theirs);
                body(&place);
                0
            });
            process::exit_now(code);
        }
        Cloned::Parent { pid, .. } => {
            drop(theirs);
            if !real {
                map_ids(pid)?;
            }
            socket::send(ours.as_fd(), b"m", &[])?;
            match process::wait_for(pid)?.exit {
                crate::wire::agent::Exit::Code(0) => Ok(()),
                crate::wire::agent::Exit::Code(errno) => Err(Errno::from_raw_os_error(errno)),
                crate::wire::agent::Exit::Signal(_) => Err(Errno::CHILD),
            }
        }
    }
}

/// An ordinary user may map nobody but himself.
fn map_ids(pid: Pid) -> Result<(), Errno> {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    let write =
        |name: &str, text: &str| std::fs::write(format!("{directory}/{name}"), text).map_err(errno_of);
    if rustix::process::geteuid().is_root() {
        let map = format!("0 {STRANGERS} 65536");
        write("uid_map", &map)?;
        return write("gid_map", &map);
    }
    write("uid_map", &format!("0 {} 1", rustix::process::geteuid().as_raw()))?;
    write("setgroups", "deny")?;
    write("gid_map", &format!("0 {} 1", rustix::process::getegid().as_raw()))
}

/// Becomes root of the new namespaces, with a /proc that shows them. Gives the directory that may be used.
fn enter(control: &OwnedFd, real: bool) -> Result<String, Errno> {
    socket::receive(control, &mut [0; 1])?;
    if !real {
        // Whoever may map one id only has no groups to set either.
        if let Err(errno) = privilege::become_user(0, 0, &[])
            && errno != Errno::PERM
        {
            return Err(errno);
        }
    }
    // A change of ids hides a process's own files in /proc from itself.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    let place = PLACES.into_iter().find(|place| std::path::Path::new(place).is_dir()).ok_or(Errno::NOENT)?;
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None)?;
    Ok(place.to_owned())
}
