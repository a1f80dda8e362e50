//! Calls that sandboxes are made of, each tried once.

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::process::{PidfdFlags, Signal};

use super::{Category, Finding, Status};
use crate::sys::process::{Cloned, clone3, flags, wait_for};
use crate::sys::{Errno, landlock};

/// The oldest kernel that tests run on.
const OLDEST: (u32, u32) = (6, 1);

/// The Landlock ABI that adds scopes for signals and abstract Unix sockets (Linux 6.12).
const LANDLOCK_SCOPES: u32 = 6;

/// `CLONE_NEWCGROUP` (linux/sched.h).
const NEW_CGROUP: u64 = 0x0200_0000;

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![version(&rustix::system::uname().release().to_string_lossy())];
    findings.extend(namespaces());
    findings.push(openat2());
    findings.push(pidfd());
    findings.push(sealing());
    findings.push(seccomp(
        &std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default(),
    ));
    findings.push(landlocked(landlock::abi()));
    findings.push(netlink_netfilter());
    findings
}

fn ok(name: &str, found: impl Into<String>) -> Finding {
    Finding::ok(Category::Kernel, name, found)
}

/// A call that either works or does not.
fn tried(name: &str, result: Result<(), Errno>, lost: &str, mend: &str) -> Finding {
    match result {
        Ok(()) => ok(name, "works"),
        Err(errno) => ok(name, errno.to_string()).without(Status::Missing, lost, mend),
    }
}

fn version(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let finding = ok("kernel version", release).required();
    if version >= OLDEST {
        return finding;
    }
    finding.without(
        Status::Missing,
        "calls that sandboxes are made of; nothing is tested on kernels before 6.1",
        "boot Linux 6.1 or later",
    )
}

/// Whether a child can be born with these flags. It is killed at once.
pub(super) fn can_clone(flags: u64, cgroup: Option<std::os::fd::BorrowedFd<'_>>) -> Result<(), Errno> {
    let child = Child::start(flags, cgroup)?;
    drop(child);
    Ok(())
}

/// A child that does nothing until it is dropped.
pub(super) struct Child {
    pid: rustix::process::Pid,
}

impl Child {
    /// Starts one. It neither allocates nor locks, so it does not matter how many threads the caller has.
    pub(super) fn start(flags: u64, cgroup: Option<std::os::fd::BorrowedFd<'_>>) -> Result<Self, Errno> {
        match clone3(flags, cgroup)? {
            Cloned::Parent { pid, pidfd: _ } => Ok(Self { pid }),
            Cloned::Child => loop {
                // Should we be killed, so is the child.
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                nix::unistd::pause();
            },
        }
    }

    /// A file of its own in /proc.
    pub(super) fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid.as_raw_nonzero())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It is our child and not yet waited for, so the number is still its own.
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        let _ = wait_for(self.pid);
    }
}

fn namespaces() -> Vec<Finding> {
    let user = tried(
        "user namespaces",
        can_clone(flags::USER, None),
        "sandboxes: every one is two nested user namespaces",
        "sysctl user.max_user_namespaces=65536; a kernel with CONFIG_USER_NS",
    );
    let kinds = [
        ("mount namespaces", flags::MOUNT, "CONFIG_NAMESPACES"),
        ("pid namespaces", flags::PID, "CONFIG_PID_NS"),
        ("network namespaces", flags::NETWORK, "CONFIG_NET_NS"),
        ("ipc namespaces", flags::IPC, "CONFIG_IPC_NS"),
        ("uts namespaces", flags::UTS, "CONFIG_UTS_NS"),
        ("cgroup namespaces", NEW_CGROUP, "CONFIG_CGROUPS"),
    ];
    let mut findings = vec![user.required()];
    for (name, flag, option) in kinds {
        // Inside a user namespace of its own the child may have the others without being root.
        let result = can_clone(flags::USER | flag, None);
        let mend = format!("raise user.max_*_namespaces; a kernel with {option}");
        findings.push(tried(name, result, "sandboxes: every one has its own", &mend).required());
    }
    findings
}

fn openat2() -> Finding {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let result =
        rustix::fs::openat2(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map(drop);
    let lost = "safe resolution of paths that a sandbox or an image chose";
    tried("openat2", result, lost, "boot Linux 5.6 or later; allow the call where a filter stands around us")
        .required()
}

fn pidfd() -> Finding {
    let result = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map(drop);
    tried("pidfd", result, "signals and waits that cannot hit a stranger", "boot Linux 5.3 or later")
        .required()
}

fn sealing() -> Finding {
    let sealed = || {
        let memory = rustix::fs::memfd_create("doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::WRITE | SealFlags::SHRINK)?;
        match rustix::io::write(&memory, b"x") {
            Err(Errno::PERM) => Ok(()),
            _ => Err(Errno::NOTSUP),
        }
    };
    let lost = "the sealed copy of our program that sandboxes cannot overwrite (CVE-2019-5736)";
    tried("memfd sealing", sealed(), lost, "a kernel with CONFIG_MEMFD_CREATE").required()
}

fn seccomp(actions: &str) -> Finding {
    let finding = ok("seccomp filters", if actions.is_empty() { "none" } else { actions.trim() }).required();
    let has = |wanted: &str| actions.split_whitespace().any(|action| action == wanted);
    if has("errno") && has("kill_process") && has("allow") {
        return finding;
    }
    let lost = "the list of system calls: the whole kernel would be open to sandboxes";
    finding.without(Status::Missing, lost, "a kernel with CONFIG_SECCOMP_FILTER")
}

fn landlocked(abi: u32) -> Finding {
    let finding = ok("landlock", format!("ABI {abi}"));
    let mend = "boot Linux 6.12 or later with CONFIG_SECURITY_LANDLOCK and landlock in the lsm= list";
    match abi {
        0 => finding.without(Status::Missing, "the second fence around files and processes", mend),
        LANDLOCK_SCOPES.. => finding,
        _ => finding.without(
            Status::Degraded,
            "scopes for signals and abstract sockets, device ioctls or TCP ports; namespaces alone hold them",
            mend,
        ),
    }
}

/// Nothing uses it yet; egress policies will.
fn netlink_netfilter() -> Finding {
    use rustix::net::{AddressFamily, SocketType, netlink, socket};
    let result = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::NETFILTER)).map(drop);
    match result {
        Ok(()) => ok("netfilter", "netlink works"),
        Err(errno) => ok("netfilter", errno.to_string()).without(
            Status::Degraded,
            "networks of sandboxes: what leaves them is redirected to the gateway by nftables",
            "boot a kernel with CONFIG_NF_TABLES, or load the module `nf_tables`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, status) in [
            ("6.1.0-18-amd64", Status::Ok),
            ("6.18.44-fc", Status::Ok),
            ("10.0", Status::Ok),
            ("6.0.19", Status::Missing),
            ("5.15.0", Status::Missing),
            ("", Status::Missing),
        ] {
            assert_eq!(version(release).status, status, "{release}");
        }
    }

    #[test]
    fn filters_need_their_three_actions() {
        assert_eq!(seccomp("kill_process kill_thread trap errno trace log allow\n").status, Status::Ok);
        assert_eq!(seccomp("kill_thread errno allow").status, Status::Missing);
        assert_eq!(seccomp("").status, Status::Missing);
    }

    #[test]
    fn landlock_is_better_with_scopes() {
        assert_eq!(
            [0, 5, 6, 7].map(|abi| landlocked(abi).status),
            [Status::Missing, Status::Degraded, Status::Ok, Status::Ok]
        );
    }

    #[test]
    fn a_child_lives_in_its_namespaces_until_it_is_dropped() {
        let child = Child::start(flags::USER | flags::UTS, None).expect("user namespaces");
        let path = child.proc("ns/uts");
        assert_ne!(
            std::fs::read_link(&path).expect("alive"),
            std::fs::read_link("/proc/self/ns/uts").expect("ours")
        );
        drop(child);
        assert!(std::fs::read_link(&path).is_err());
    }
}
