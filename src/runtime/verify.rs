//! Reading back from the kernel what a sandbox got, before anybody may use it.
//!
//! The launcher does not trust its own plan: a namespace that was not made, a filter that was not installed or a
//! capability that stayed would be invisible until somebody used it. A mismatch kills the sandbox.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::Pid;

use crate::sys::Errno;
use crate::wire::launch::{Failure, FailureKind};

/// Kinds in `/proc/PID/ns` that a sandbox must not share with the host.
const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// What the kernel says of a process from which commands are forked.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// Inode number by kind of namespace.
    pub namespaces: BTreeMap<String, u64>,
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// `Seccomp`.
    pub seccomp_mode: u32,
}

fn mismatch(what: &str, detail: impl ToString) -> Failure {
    Failure { kind: FailureKind::Mismatch, what: what.to_owned(), detail: detail.to_string() }
}

/// The host's own namespaces, to compare with.
///
/// # Errors
/// As stat(2) on `/proc/self/ns`.
pub fn own_namespaces() -> Result<BTreeMap<String, u64>, Errno> {
    let own = open_proc("/proc/self/ns")?;
    namespaces(&own)
}

fn open_proc(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn namespaces(directory: &OwnedFd) -> Result<BTreeMap<String, u64>, Errno> {
    KINDS
        .into_iter()
        .map(|kind| Ok((kind.to_owned(), rustix::fs::statat(directory, kind, AtFlags::empty())?.st_ino)))
        .collect()
}

/// Examines the zygote of a new sandbox.
///
/// # Errors
/// A mismatch, named: a namespace that is the host's, missing `no_new_privs` or filter, a capability, an id map
/// that is not the plan's, or a process that cannot be examined.
pub fn examine(zygote: Pid, host: &BTreeMap<String, u64>, outer_map: &str) -> Result<Facts, Failure> {
    let directory = format!("/proc/{}", zygote.as_raw_nonzero());
    let read = |name: &str| {
        std::fs::read_to_string(format!("{directory}/{name}"))
            .map_err(|error| mismatch(&format!("read {name} of the zygote"), error))
    };
    let found = open_proc(&format!("{directory}/ns"))
        .and_then(|directory| namespaces(&directory))
        .map_err(|errno| mismatch("read the namespaces of the zygote", errno))?;
    for (kind, inode) in &found {
        if host.get(kind) == Some(inode) {
            return Err(mismatch("isolate namespaces", format!("{kind} is the host's")));
        }
    }
    let maps = [read("uid_map")?, read("gid_map")?];
    if maps.iter().any(|map| !same_map(map, outer_map)) {
        return Err(mismatch("map ids", format!("found {:?}", maps[0])));
    }
    let status = read("status")?;
    let number = |name: &str| status_number(&status, name);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        if number(set) != Some(0) {
            return Err(mismatch("drop capabilities", format!("{set} is not empty")));
        }
    }
    let facts = Facts {
        namespaces: found,
        no_new_privs: number("NoNewPrivs") == Some(1),
        seccomp_mode: number("Seccomp").and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0),
    };
    if !facts.no_new_privs {
        return Err(mismatch("set no_new_privs", "it is not set"));
    }
    if facts.seccomp_mode != 2 {
        return Err(mismatch("install the system call filter", "there is none"));
    }
    Ok(facts)
}

/// Compares an id map as the kernel prints it with one as we wrote it: the same numbers, other spaces.
fn same_map(printed: &str, written: &str) -> bool {
    printed.split_whitespace().eq(written.split_whitespace())
}

/// A number in `/proc/PID/status` (proc_pid_status(5)): decimal, or hexadecimal for capability sets.
fn status_number(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim();
    let radix = if name.starts_with("Cap") { 16 } else { 10 };
    u64::from_str_radix(value, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_host_is_a_mismatch() {
        let host = own_namespaces().expect("own namespaces");
        let own = rustix::process::getpid();
        let failure = examine(own, &host, "0 0 1").expect_err("not a sandbox");
        assert_eq!(failure.kind, FailureKind::Mismatch);
    }

    #[test]
    fn numbers_and_maps_are_read_as_the_kernel_prints_them() {
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(status_number(status, "CapEff"), Some(0x1ff_ffff_ffff));
        assert_eq!(status_number(status, "Seccomp"), Some(2));
        assert_eq!(status_number(status, "NoNewPrivs"), None);
        assert!(same_map("         0  5  1\n", "0 5 1\n") && !same_map("0 5 1\n0 6 1", "0 5 1"));
    }
}
