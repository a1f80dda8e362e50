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

/// Kinds in `/proc/PID/ns` that a sandbox must not share with the host, and that the zygote is born in.
const FROM_BIRTH: [&str; 6] = ["user", "mnt", "pid", "ipc", "uts", "cgroup"];
/// And the one that it enters later.
const ENTERED: [&str; 1] = ["net"];

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
    namespaces(&open_proc("/proc/self")?, FROM_BIRTH.iter().chain(&ENTERED))
}

fn open_proc(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn namespaces<'a>(
    directory: &OwnedFd,
    kinds: impl IntoIterator<Item = &'a &'a str>,
) -> Result<BTreeMap<String, u64>, Errno> {
    let inode =
        |kind: &str| Ok(rustix::fs::statat(directory, format!("ns/{kind}"), AtFlags::empty())?.st_ino);
    kinds.into_iter().map(|kind| Ok(((*kind).to_owned(), inode(kind)?))).collect()
}

/// A zygote that was found where it should be, and is not yet restricted.
#[derive(Debug)]
pub struct Examined {
    /// Its directory in /proc: of this very process, whoever gets its number afterwards.
    directory: OwnedFd,
    namespaces: BTreeMap<String, u64>,
}

impl Examined {
    /// Examines what a zygote has from its birth on.
    ///
    /// # Errors
    /// A mismatch, named: a namespace that is the host's, an id map that is not the plan's, or a process that cannot
    /// be examined.
    pub fn new(zygote: Pid, host: &BTreeMap<String, u64>, outer_map: &str) -> Result<Self, Failure> {
        let directory = open_proc(&format!("/proc/{}", zygote.as_raw_nonzero()))
            .map_err(|errno| mismatch("open the zygote's /proc", errno))?;
        let namespaces = separate(&directory, &FROM_BIRTH, host)?;
        for file in ["uid_map", "gid_map"] {
            let map = read(&directory, file)?;
            if !same_map(&map, outer_map) {
                return Err(mismatch("map ids", format!("found {map:?}")));
            }
        }
        Ok(Self { directory, namespaces })
    }

    /// Examines the rest, when the zygote says that it is ready.
    ///
    /// # Errors
    /// A mismatch, named: the host's network, missing `no_new_privs` or filter, a capability, or a process that cannot be examined.
    pub fn finish(mut self, host: &BTreeMap<String, u64>, filters: usize) -> Result<Facts, Failure> {
        self.namespaces.extend(separate(&self.directory, &ENTERED, host)?);
        let status = read(&self.directory, "status")?;
        let number = |name: &str| status_number(&status, name);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if number(set) != Some(0) {
                return Err(mismatch("drop capabilities", format!("{set} is not empty")));
            }
        }
        let facts = Facts {
            namespaces: self.namespaces,
            no_new_privs: number("NoNewPrivs") == Some(1),
            seccomp_mode: number("Seccomp").and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0),
        };
        if !facts.no_new_privs {
            return Err(mismatch("set no_new_privs", "it is not set"));
        }
        // A clone inherits the launcher's own: only their number tells whether the zygote's is there.
        if facts.seccomp_mode != 2 || number("Seccomp_filters") != u64::try_from(filters).ok() {
            return Err(mismatch("install the system call filter", "it is not there"));
        }
        Ok(facts)
    }
}

/// Namespaces of these kinds, all of them others than the host's.
fn separate(
    directory: &OwnedFd,
    kinds: &[&str],
    host: &BTreeMap<String, u64>,
) -> Result<BTreeMap<String, u64>, Failure> {
    let found =
        namespaces(directory, kinds).map_err(|errno| mismatch("read the namespaces of the zygote", errno))?;
    for (kind, inode) in &found {
        if host.get(kind) == Some(inode) {
            return Err(mismatch("isolate namespaces", format!("{kind} is the host's")));
        }
    }
    Ok(found)
}

fn read(directory: &OwnedFd, name: &str) -> Result<String, Failure> {
    // Larger than any of the files: an id map has two lines here, a status some sixty.
    let mut buffer = [0; 8192];
    rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut buffer))
        .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        .map_err(|errno| mismatch(&format!("read {name} of the zygote"), errno))
}

/// Compares an id map as the kernel prints it with one as we wrote it: the same numbers, other spaces.
fn same_map(printed: &str, written: &str) -> bool {
    printed.split_whitespace().eq(written.split_whitespace())
}

/// How many system call filters this process has.
///
/// # Errors
/// When /proc does not say.
pub fn own_filters() -> Result<usize, Failure> {
    let own = open_proc("/proc/self").map_err(|errno| mismatch("open the launcher's /proc", errno))?;
    let status = read(&own, "status")?;
    let filters = status_number(&status, "Seccomp_filters").and_then(|number| usize::try_from(number).ok());
    filters.ok_or_else(|| mismatch("count the launcher's filters", "the kernel does not say"))
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
        let failure = Examined::new(own, &host, "0 0 1").expect_err("not a sandbox");
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
