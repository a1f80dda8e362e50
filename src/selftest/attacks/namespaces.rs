//! Namespaces: making, entering and renaming them, and raising their number.

use libc as c;

use super::{Answer, Attack, Group, call, raw, reached, text};
use crate::selftest::scene::Scene;
use crate::sys::process::exit_now;
use crate::sys::{Errno, attempt};

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Namespaces, name, run)
}

/// Flags of clone(2) and unshare(2).
const USER: i64 = c::CLONE_NEWUSER as i64;
const MOUNT: i64 = c::CLONE_NEWNS as i64;
const PID: i64 = c::CLONE_NEWPID as i64;
const NETWORK: i64 = c::CLONE_NEWNET as i64;
const IPC: i64 = c::CLONE_NEWIPC as i64;
const UTS: i64 = c::CLONE_NEWUTS as i64;
const CGROUP: i64 = c::CLONE_NEWCGROUP as i64;
/// linux/sched.h; of clone(2) it would be part of the exit signal.
const TIME: i64 = 0x80;

pub(super) const ATTACKS: &[Attack] = &[
    attack("unshare-user", |_| call(c::SYS_unshare, &[USER])),
    attack("unshare-mount", |_| call(c::SYS_unshare, &[MOUNT])),
    attack("unshare-pid", |_| call(c::SYS_unshare, &[PID])),
    attack("unshare-network", |_| call(c::SYS_unshare, &[NETWORK])),
    attack("unshare-ipc", |_| call(c::SYS_unshare, &[IPC])),
    attack("unshare-uts", |_| call(c::SYS_unshare, &[UTS])),
    attack("unshare-cgroup", |_| call(c::SYS_unshare, &[CGROUP])),
    attack("unshare-time", |_| call(c::SYS_unshare, &[TIME])),
    attack("unshare-all", |_| call(c::SYS_unshare, &[USER | MOUNT | PID | NETWORK | IPC | UTS | CGROUP])),
    attack("clone-user", |_| clone(USER)),
    attack("clone-user-wide", |_| clone(USER | 1 << 32)),
    attack("clone-mount", |_| clone(MOUNT)),
    attack("clone-pid", |_| clone(PID)),
    attack("clone-network", |_| clone(NETWORK)),
    attack("clone-ipc", |_| clone(IPC)),
    attack("clone-uts", |_| clone(UTS)),
    attack("clone-cgroup", |_| clone(CGROUP)),
    attack("clone3-user", |_| clone3(USER)),
    attack("clone3-mount", |_| clone3(MOUNT)),
    attack("clone3-network", |_| clone3(NETWORK)),
    attack("clone3-time", |_| clone3(TIME)),
    attack("enter-own-mount", |_| enter("self", "mnt", &[])),
    attack("enter-own-pid", |_| enter("self", "pid", &[])),
    attack("enter-own-network", |_| enter("self", "net", &[])),
    attack("enter-own-ipc", |_| enter("self", "ipc", &[])),
    attack("enter-own-uts", |_| enter("self", "uts", &[])),
    attack("enter-own-cgroup", |_| enter("self", "cgroup", &[])),
    // A process is in its own user namespace already, and the kernel says so.
    attack("enter-own-user", |_| enter("self", "user", &[Errno::INVAL])),
    attack("enter-firsts-mount", |_| enter("1", "mnt", &[])),
    attack("enter-firsts-network", |_| enter("1", "net", &[])),
    attack("enter-firsts-user", |_| enter("1", "user", &[Errno::INVAL])),
    attack("enter-by-handle", |_| {
        let handle = raw(c::SYS_pidfd_open, &[1, 0])?;
        call(c::SYS_setns, &[handle, UTS])
    }),
    attack("set-host-name", |_| call(c::SYS_sethostname, &[text(c"attacked"), 8])),
    attack("set-domain-name", |_| call(c::SYS_setdomainname, &[text(c"attacked"), 8])),
    attack("raise-user-namespaces", |_| raise("user")),
    attack("raise-mount-namespaces", |_| raise("mnt")),
    attack("raise-pid-namespaces", |_| raise("pid")),
    attack("raise-network-namespaces", |_| raise("net")),
    attack("raise-ipc-namespaces", |_| raise("ipc")),
    attack("raise-uts-namespaces", |_| raise("uts")),
    attack("raise-cgroup-namespaces", |_| raise("cgroup")),
    attack("raise-time-namespaces", |_| raise("time")),
];

fn clone(flags: i64) -> Answer {
    if raw(c::SYS_clone, &[flags | i64::from(c::SIGCHLD), 0, 0, 0, 0])? == 0 {
        exit_now(0);
    }
    Ok("a process in a new namespace".to_owned())
}

fn clone3(flags: i64) -> Answer {
    // struct clone_args up to `tls` (clone(2)): flags first, the exit signal fifth.
    let arguments: [i64; 8] = [flags, 0, 0, 0, c::SIGCHLD.into(), 0, 0, 0];
    if raw(c::SYS_clone3, &[attempt::address(&arguments), 64])? == 0 {
        exit_now(0);
    }
    Ok("a process in a new namespace".to_owned())
}

fn enter(of: &str, kind: &str, looked: &[Errno]) -> Answer {
    use std::os::fd::AsRawFd as _;
    let file = std::fs::File::open(format!("/proc/{of}/ns/{kind}"))?;
    reached(call(c::SYS_setns, &[file.as_raw_fd().into(), 0]), looked)
}

fn raise(kind: &str) -> Answer {
    std::fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), "1000")?;
    Ok("the limit is 1000".to_owned())
}
