//! All processes of a command, by its control group: whatever they forked and however they detached themselves.
//!
//! ```text
//! c7          the first process, and what it has started since others were set aside
//! └─ aside    those others, and what they fork: the kernel keeps children where their parent is
//! ```
//!
//! A kill, a freeze and the time used are for both, as they are for all groups below one; signals are for the upper one.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use crate::sys::{Errno, process};

/// Processes that are held by descriptor at the same time.
const AT_ONCE: usize = 512;

/// How often the group is looked at for processes that were made meanwhile.
const ROUNDS_MAX: usize = 64;

/// The group below a command's, for what is set aside.
fn aside(name: &str) -> String {
    format!("{name}/aside")
}

/// Removes a group, if nothing is in it.
pub(super) fn remove(groups: &OwnedFd, name: &str) -> bool {
    let remove = |name: &str| {
        matches!(rustix::fs::unlinkat(groups, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
    };
    remove(name) || remove(&aside(name)) && remove(name)
}

/// Puts every process of a group but the first into the group below it. One that is forked while this goes on is found
/// in another round.
pub(super) fn set_aside(groups: &OwnedFd, name: &str, first: Pid) {
    let mut done = HashSet::from([first]);
    for _ in 0..ROUNDS_MAX {
        let Ok(members) = members(groups, name) else { return };
        let new: Vec<Pid> = members.into_iter().filter(|pid| !done.contains(pid)).collect();
        if new.is_empty() {
            return;
        }
        let below = aside(name);
        // It may be there.
        let _ = rustix::fs::mkdirat(groups, below.as_str(), Mode::from_raw_mode(0o755));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(group) = rustix::fs::openat(groups, below.as_str(), flags, Mode::empty()) else { return };
        for pid in new {
            // It may have ended. Numbers are not given again before all others were.
            let _ = enter(&group, pid);
            done.insert(pid);
        }
    }
}

/// Kills everything in a group, at once.
pub(super) fn kill(groups: &OwnedFd, name: &str) {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(groups, format!("{name}/cgroup.kill"), flags, Mode::empty()) {
        // A group that is empty has nothing to kill.
        let _ = rustix::io::write(&file, b"1");
    }
}

/// Sends a signal to every process of a group, once each. One that is forked while this goes on is found in
/// another round; a tree that forks faster than it can be read outruns any signal but the kill. The first process, a
/// child that is not reaped, hears of it before what it waits for ends by it.
pub(super) fn signal(groups: &OwnedFd, name: &str, first: Pid, signal: i32) {
    if signal == libc::SIGKILL {
        return kill(groups, name);
    }
    // It may just have become a zombie.
    let _ = process::kill_child(first, signal);
    send(groups, name, signal, first);
}

fn send(groups: &OwnedFd, name: &str, signal: i32, except: Pid) {
    let mut done = HashSet::from([except]);
    for _ in 0..ROUNDS_MAX {
        let Ok(members) = members(groups, name) else { return };
        let new: Vec<_> = members
            .into_iter()
            .filter(|pid| !done.contains(pid))
            .take(AT_ONCE)
            .filter_map(|pid| Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?)))
            .collect();
        if new.is_empty() {
            return;
        }
        // What was opened may have got its number after the group was read. If it lives and is in the group now,
        // it is the group's.
        let Ok(still) = self::members(groups, name) else { return };
        for (pid, process) in new {
            if still.contains(&pid) {
                // It may have ended.
                let _ = process::signal_pidfd(process.as_fd(), signal);
            }
            done.insert(pid);
        }
    }
}

/// Kills every process of a group but the first one, which is spoken to meanwhile, and those that are set aside if
/// `all`. The group is frozen for that time, or one that forks faster than it can be read would go on. What is in the
/// middle of a fork is found next time.
pub(super) fn interrupt(groups: &OwnedFd, name: &str, first: Pid, all: bool, speak: impl FnOnce()) {
    freeze(groups, name, true);
    speak();
    if all {
        kill(groups, &aside(name));
    }
    send(groups, name, libc::SIGKILL, first);
    freeze(groups, name, false);
}

fn freeze(groups: &OwnedFd, name: &str, frozen: bool) {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(groups, format!("{name}/cgroup.freeze"), flags, Mode::empty()) {
        // A group that is gone needs none.
        let _ = rustix::io::write(&file, if frozen { b"1" } else { b"0" });
    }
}

/// Time that a group has used in user mode and in the kernel, in microseconds, by whatever was in it. The kernel counts
/// it without any controller (cgroup v2 `cpu.stat`).
pub(super) fn time(groups: &OwnedFd, name: &str) -> Option<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(groups, format!("{name}/cpu.stat"), flags, Mode::empty()).ok()?;
    let mut buffer = [0; 1024];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    let find = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    Some((find("user_usec ")?, find("system_usec ")?))
}

/// Puts a process into a group. It waits for a grace period of the kernel's, some milliseconds.
pub(super) fn enter(group: &OwnedFd, pid: Pid) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(group, c"cgroup.procs", flags, Mode::empty())?;
    rustix::io::write(&file, pid.as_raw_nonzero().to_string().as_bytes()).map(drop)
}

/// The processes of a group, as numbered in this PID namespace.
pub(super) fn members(groups: &OwnedFd, name: &str) -> Result<HashSet<Pid>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(groups, format!("{name}/cgroup.procs"), flags, Mode::empty())?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // A process that has no number here is listed as 0.
    let pids =
        text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok());
    Ok(pids.filter_map(Pid::from_raw).collect())
}
