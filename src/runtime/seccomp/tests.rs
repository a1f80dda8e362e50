//! The filters as the kernel would run them, and as it does run them.
//!
//! `seccomp-profiles/verdicts/*.txt` say what each compiled program answers to every number and to a list of
//! argument cases. `STOCKADE_BLESS=1 cargo test --lib seccomp` writes them anew; the difference is for review.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use seccompiler::{BpfProgram, sock_filter};

use super::*;

/// `struct seccomp_data` as the words that a program can load.
struct Data {
    number: u32,
    arch: u32,
    args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, high: bool| {
            u32::try_from(if high { value >> 32 } else { value & 0xFFFF_FFFF }).expect("32 bits")
        };
        match offset {
            0 => self.number,
            4 => self.arch,
            16..=60 => {
                let index = usize::try_from((offset - 16) / 8).expect("small");
                half(self.args[index], (offset - 16) % 8 == 4)
            }
            _ => panic!("load from offset {offset}"),
        }
    }
}

/// What a program returns, and whether it looked at arguments.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    action: u32,
    looked: bool,
}

/// A second implementation of the few instructions that filters use (linux/filter.h), as the oracle.
fn run(program: &[sock_filter], data: &Data) -> Verdict {
    let (mut accumulator, mut looked, mut at) = (0_u32, false, 0_usize);
    loop {
        let step = program.get(at).expect("every path returns");
        let distance = match step.code {
            0x20 => {
                looked |= step.k >= 16;
                accumulator = data.word(step.k);
                0
            }
            0x54 => {
                accumulator &= step.k;
                0
            }
            0x05 => step.k,
            0x15 => u32::from(if accumulator == step.k { step.jt } else { step.jf }),
            0x25 => u32::from(if accumulator > step.k { step.jt } else { step.jf }),
            0x35 => u32::from(if accumulator >= step.k { step.jt } else { step.jf }),
            0x06 => return Verdict { action: step.k, looked },
            code => panic!("instruction {code:#x}"),
        };
        at += 1 + usize::try_from(distance).expect("short");
    }
}

/// Several filters at once: the strictest answer wins, among errnos the last one installed (seccomp(2)).
fn run_all(programs: &[&BpfProgram], data: &Data) -> Verdict {
    let mut strictest = Verdict { action: libc::SECCOMP_RET_ALLOW, looked: false };
    for program in programs.iter().rev() {
        let verdict = run(program, data);
        // Actions are ordered as signed numbers, KILL_PROCESS being the smallest.
        let rank = |action: u32| (action & 0xFFFF_0000).cast_signed();
        if rank(verdict.action) < rank(strictest.action) {
            strictest.action = verdict.action;
        }
        strictest.looked |= verdict.looked;
    }
    strictest
}

fn native(number: u32, args: [u64; 6]) -> Data {
    Data { number, arch: syscalls::AUDIT_ARCH, args }
}

fn words(action: u32) -> String {
    if action == libc::SECCOMP_RET_ALLOW {
        return "allow".to_owned();
    }
    if action == libc::SECCOMP_RET_KILL_PROCESS {
        return "kill".to_owned();
    }
    assert_eq!(action & 0xFFFF_0000, libc::SECCOMP_RET_ERRNO, "{action:#x}");
    let errno = (action & 0xFFFF).cast_signed();
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOSYS => "ENOSYS",
        libc::EINVAL => "EINVAL",
        libc::ENOMEM => "ENOMEM",
        libc::ENOTTY => "ENOTTY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        _ => panic!("errno {errno}"),
    };
    name.to_owned()
}

/// Calls whose arguments matter: name, what it is, arguments. Upper halves are set where the kernel cuts them
/// off, because a filter that compared them would let the call through.
const CASES: &[(&str, &str, [u64; 6])] = &[
    ("clone", "fork", [17, 0, 0, 0, 0, 0]),
    ("clone", "thread", [0x003D_0F00, 0, 0, 0, 0, 0]),
    ("clone", "NEWUSER", [0x1000_0011, 0, 0, 0, 0, 0]),
    ("clone", "NEWUSER, upper half set", [0x1_1000_0011, 0, 0, 0, 0, 0]),
    ("clone", "NEWNS", [0x0002_0011, 0, 0, 0, 0, 0]),
    ("clone", "NEWCGROUP", [0x0200_0011, 0, 0, 0, 0, 0]),
    ("clone", "NEWNET", [0x4000_0011, 0, 0, 0, 0, 0]),
    ("clone3", "any", [0x1000, 88, 0, 0, 0, 0]),
    ("setns", "NEWUSER", [3, 0x1000_0000, 0, 0, 0, 0]),
    ("setns", "any kind", [3, 0, 0, 0, 0, 0]),
    ("setns", "NEWNET", [3, 0x4000_0000, 0, 0, 0, 0]),
    ("unshare", "NEWUSER", [0x1000_0000, 0, 0, 0, 0, 0]),
    ("socket", "UNIX STREAM", [1, 1, 0, 0, 0, 0]),
    ("socket", "UNIX SEQPACKET|CLOEXEC", [1, 0x8_0005, 0, 0, 0, 0]),
    ("socket", "INET STREAM|CLOEXEC|NONBLOCK TCP", [2, 0x8_0801, 6, 0, 0, 0]),
    ("socket", "INET DGRAM UDP", [2, 2, 17, 0, 0, 0]),
    ("socket", "INET DGRAM ICMP", [2, 2, 1, 0, 0, 0]),
    ("socket", "INET RAW ICMP", [2, 3, 1, 0, 0, 0]),
    ("socket", "INET STREAM SCTP", [2, 1, 132, 0, 0, 0]),
    ("socket", "INET STREAM MPTCP", [2, 1, 262, 0, 0, 0]),
    ("socket", "INET DGRAM UDPLITE", [2, 2, 136, 0, 0, 0]),
    ("socket", "INET DCCP", [2, 6, 33, 0, 0, 0]),
    ("socket", "INET6 STREAM", [10, 1, 0, 0, 0, 0]),
    ("socket", "INET6 DGRAM ICMPV6", [10, 2, 58, 0, 0, 0]),
    ("socket", "INET6 RAW", [10, 3, 58, 0, 0, 0]),
    ("socket", "NETLINK ROUTE", [16, 3, 0, 0, 0, 0]),
    ("socket", "NETLINK XFRM", [16, 3, 6, 0, 0, 0]),
    ("socket", "NETLINK AUDIT", [16, 3, 9, 0, 0, 0]),
    ("socket", "NETLINK NETFILTER", [16, 3, 12, 0, 0, 0]),
    ("socket", "PACKET", [17, 3, 0x300, 0, 0, 0]),
    ("socket", "RDS", [21, 5, 0, 0, 0, 0]),
    ("socket", "CAN", [29, 3, 1, 0, 0, 0]),
    ("socket", "TIPC", [30, 5, 0, 0, 0, 0]),
    ("socket", "BLUETOOTH", [31, 3, 1, 0, 0, 0]),
    ("socket", "RXRPC", [33, 2, 2, 0, 0, 0]),
    ("socket", "ALG", [38, 5, 0, 0, 0, 0]),
    ("socket", "ALG, upper half set", [0x1_0000_0026, 5, 0, 0, 0, 0]),
    ("socket", "VSOCK", [40, 1, 0, 0, 0, 0]),
    ("socket", "XDP", [44, 3, 0, 0, 0, 0]),
    ("socketpair", "UNIX", [1, 1, 0, 0, 0, 0]),
    ("socketpair", "INET", [2, 1, 0, 0, 0, 0]),
    ("socketpair", "TIPC", [30, 5, 0, 0, 0, 0]),
    ("setsockopt", "SOCKET REUSEADDR", [3, 1, 2, 0, 0, 0]),
    ("setsockopt", "SOCKET ATTACH_FILTER", [3, 1, 26, 0, 0, 0]),
    ("setsockopt", "SOCKET ATTACH_BPF", [3, 1, 50, 0, 0, 0]),
    ("setsockopt", "SOCKET BINDTODEVICE", [3, 1, 25, 0, 0, 0]),
    ("setsockopt", "SOCKET ZEROCOPY", [3, 1, 60, 0, 0, 0]),
    ("setsockopt", "TCP NODELAY", [3, 6, 1, 0, 0, 0]),
    ("setsockopt", "TCP ULP", [3, 6, 31, 0, 0, 0]),
    ("setsockopt", "TCP ULP, upper halves set", [3, 0x1_0000_0006, 0x1_0000_001F, 0, 0, 0]),
    ("setsockopt", "TCP REPAIR", [3, 6, 19, 0, 0, 0]),
    ("setsockopt", "UDP SEGMENT", [3, 17, 103, 0, 0, 0]),
    ("setsockopt", "UDP ENCAP", [3, 17, 100, 0, 0, 0]),
    ("setsockopt", "IP TOS", [3, 0, 1, 0, 0, 0]),
    ("setsockopt", "IP XFRM_POLICY", [3, 0, 17, 0, 0, 0]),
    ("setsockopt", "IP iptables replace", [3, 0, 64, 0, 0, 0]),
    ("setsockopt", "IP ebtables", [3, 0, 128, 0, 0, 0]),
    ("setsockopt", "IPV6 TCLASS", [3, 41, 67, 0, 0, 0]),
    ("setsockopt", "IPV6 ip6tables replace", [3, 41, 64, 0, 0, 0]),
    ("setsockopt", "IPV6 XFRM_POLICY", [3, 41, 35, 0, 0, 0]),
    ("sendto", "NOSIGNAL", [3, 0, 1, 0x4000, 0, 0]),
    ("sendto", "OOB", [3, 0, 1, 1, 0, 0]),
    ("sendto", "ZEROCOPY", [3, 0, 1, 0x400_0000, 0, 0]),
    ("recvfrom", "OOB|DONTWAIT", [3, 0, 1, 0x41, 0, 0]),
    ("sendmsg", "none", [3, 0, 0, 0, 0, 0]),
    ("sendmsg", "OOB", [3, 0, 1, 0, 0, 0]),
    ("sendmsg", "ZEROCOPY", [3, 0, 0x400_0000, 0, 0, 0]),
    ("recvmsg", "CMSG_CLOEXEC", [3, 0, 0x4000_0000, 0, 0, 0]),
    ("recvmsg", "OOB", [3, 0, 1, 0, 0, 0]),
    ("sendmmsg", "OOB", [3, 0, 1, 1, 0, 0]),
    ("recvmmsg", "OOB", [3, 0, 1, 1, 0, 0]),
    ("ioctl", "TCGETS", [0, 0x5401, 0, 0, 0, 0]),
    ("ioctl", "TIOCGWINSZ", [0, 0x5413, 0, 0, 0, 0]),
    ("ioctl", "TIOCGPTN", [0, 0x8004_5430, 0, 0, 0, 0]),
    ("ioctl", "FIONBIO", [0, 0x5421, 0, 0, 0, 0]),
    ("ioctl", "TIOCSTI", [0, 0x5412, 0, 0, 0, 0]),
    ("ioctl", "TIOCSTI, upper half set (CVE-2019-7303)", [0, 0x1_0000_5412, 0, 0, 0, 0]),
    ("ioctl", "TIOCLINUX", [0, 0x541C, 0, 0, 0, 0]),
    ("ioctl", "TIOCSETD", [0, 0x5423, 0, 0, 0, 0]),
    ("ioctl", "SIOCGIFCONF", [3, 0x8912, 0, 0, 0, 0]),
    ("ioctl", "SIOCSIFFLAGS", [3, 0x8914, 0, 0, 0, 0]),
    ("ioctl", "FS_IOC_GETFLAGS", [3, 0x8008_6601, 0, 0, 0, 0]),
    ("ioctl", "FS_IOC_SETFLAGS", [3, 0x4008_6602, 0, 0, 0, 0]),
    ("ioctl", "FS_IOC_FSSETXATTR", [3, 0x401C_5820, 0, 0, 0, 0]),
    ("ioctl", "FICLONE", [3, 0x4004_9409, 0, 0, 0, 0]),
    ("ioctl", "FIDEDUPERANGE", [3, 0xC018_9436, 0, 0, 0, 0]),
    ("ioctl", "BLKGETSIZE64", [3, 0x8008_1272, 0, 0, 0, 0]),
    ("prctl", "SET_NAME", [15, 0, 0, 0, 0, 0]),
    ("prctl", "CAPBSET_DROP", [24, 0, 0, 0, 0, 0]),
    ("prctl", "SET_SECUREBITS", [28, 0, 0, 0, 0, 0]),
    ("prctl", "SET_NO_NEW_PRIVS", [38, 1, 0, 0, 0, 0]),
    ("prctl", "SET_SECCOMP filter", [22, 2, 0, 0, 0, 0]),
    ("prctl", "SET_MM", [35, 0, 0, 0, 0, 0]),
    ("prctl", "SET_SPECULATION_CTRL enable", [53, 0, 2, 0, 0, 0]),
    ("prctl", "SET_SPECULATION_CTRL disable", [53, 0, 4, 0, 0, 0]),
    ("prctl", "SET_SYSCALL_USER_DISPATCH", [59, 0, 0, 0, 0, 0]),
    ("prctl", "SCHED_CORE", [62, 0, 0, 0, 0, 0]),
    ("prctl", "SET_MEMORY_MERGE", [67, 1, 0, 0, 0, 0]),
    ("prctl", "SET_VMA", [0x5356_4D41, 0, 0, 0, 0, 0]),
    ("prctl", "unknown", [9999, 0, 0, 0, 0, 0]),
    ("seccomp", "filter", [1, 0, 0, 0, 0, 0]),
    ("seccomp", "filter, TSYNC", [1, 1, 0, 0, 0, 0]),
    ("seccomp", "filter, NEW_LISTENER", [1, 8, 0, 0, 0, 0]),
    ("personality", "Linux", [0, 0, 0, 0, 0, 0]),
    ("personality", "question", [0xFFFF_FFFF, 0, 0, 0, 0, 0]),
    ("personality", "ADDR_NO_RANDOMIZE", [0x4_0000, 0, 0, 0, 0, 0]),
    ("personality", "READ_IMPLIES_EXEC", [0x40_0000, 0, 0, 0, 0, 0]),
    ("pipe2", "CLOEXEC|NONBLOCK", [0, 0x8_0800, 0, 0, 0, 0]),
    ("pipe2", "NOTIFICATION_PIPE", [0, 0x80, 0, 0, 0, 0]),
    ("memfd_create", "CLOEXEC|ALLOW_SEALING", [0, 3, 0, 0, 0, 0]),
    ("memfd_create", "HUGETLB", [0, 5, 0, 0, 0, 0]),
    ("mmap", "PRIVATE|ANONYMOUS", [0, 4096, 3, 0x22, 0, 0]),
    ("mmap", "PRIVATE|ANONYMOUS|HUGETLB", [0, 4096, 3, 0x4_0022, 0, 0]),
    ("shmget", "CREAT", [0, 4096, 0x380, 0, 0, 0]),
    ("shmget", "CREAT|HUGETLB", [0, 4096, 0xB80, 0, 0, 0]),
    ("madvise", "DONTNEED", [0, 4096, 4, 0, 0, 0]),
    ("madvise", "FREE", [0, 4096, 8, 0, 0, 0]),
    ("madvise", "MERGEABLE", [0, 4096, 12, 0, 0, 0]),
    ("madvise", "PAGEOUT", [0, 4096, 21, 0, 0, 0]),
    ("madvise", "HWPOISON", [0, 4096, 100, 0, 0, 0]),
    ("madvise", "GUARD_INSTALL", [0, 4096, 102, 0, 0, 0]),
    ("mknod", "FIFO", [0, 0x11A4, 0, 0, 0, 0]),
    ("mknod", "character device", [0, 0x21A4, 0x103, 0, 0, 0]),
    ("mknodat", "FIFO", [0, 0, 0x11A4, 0, 0, 0]),
    ("mknodat", "socket", [0, 0, 0xC1A4, 0, 0, 0]),
    ("mknodat", "regular", [0, 0, 0x1A4, 0, 0, 0]),
    ("mknodat", "block device", [0, 0, 0x61A4, 0x700, 0, 0]),
    ("mknodat", "whiteout", [0, 0, 0x2000, 0, 0, 0]),
    ("mknodat", "character device", [0, 0, 0x21A4, 0x103, 0, 0]),
    ("keyctl", "JOIN_SESSION_KEYRING", [1, 0, 0, 0, 0, 0]),
    ("keyctl", "READ", [11, 0, 0, 0, 0, 0]),
];

fn command_programs(profile: Profile) -> Vec<BpfProgram> {
    let filters = command(profile).expect("compiles");
    vec![filters.zygote, filters.last]
}

fn everything() -> Vec<(&'static str, Vec<BpfProgram>)> {
    let role = |which| vec![role(which).expect("compiles")];
    vec![
        ("command-default", command_programs(Profile::Default)),
        ("command-hardened", command_programs(Profile::Hardened)),
        ("command-compat", command_programs(Profile::Compat)),
        ("zygote", vec![command(Profile::Default).expect("compiles").zygote]),
        ("serve", role(Role::Serve)),
        ("launch", role(Role::Launch)),
        ("agent", role(Role::Agent)),
        ("bucket", role(Role::Bucket)),
        ("fetch", role(Role::Fetch)),
        ("gateway", role(Role::Gateway)),
        ("unpack", role(Role::Unpack)),
    ]
}

/// The answers of a filter in words: numbers first, grouped by answer and first letter, then the cases.
fn verdicts(programs: &[BpfProgram]) -> String {
    let programs: Vec<&BpfProgram> = programs.iter().collect();
    let names: BTreeMap<u32, &str> =
        syscalls::names().map(|name| (syscalls::number(name).expect("known"), name)).collect();
    let mut groups: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    let mut by_arguments = Vec::new();
    for (number, name) in names {
        let verdict = run_all(&programs, &native(number, [0; 6]));
        if verdict.looked {
            by_arguments.push(name);
        } else {
            groups.entry((words(verdict.action), &name[..1])).or_default().push(name);
        }
    }
    let mut text = String::new();
    for ((answer, _), mut members) in groups {
        members.sort();
        writeln!(text, "{answer}: {}", members.join(" ")).expect("to a string");
    }
    by_arguments.sort();
    writeln!(text, "by arguments: {}", by_arguments.join(" ")).expect("to a string");
    for (name, what, args) in CASES {
        let number = syscalls::number(name).expect("known");
        let verdict = run_all(&programs, &native(number, *args));
        writeln!(text, "{name}({what}) {}", words(verdict.action)).expect("to a string");
    }
    text
}

#[test]
fn every_number_and_case_is_answered_as_reviewed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seccomp-profiles/verdicts");
    let mut changed = Vec::new();
    for (name, programs) in everything() {
        let path = folder.join(format!("{name}.txt"));
        let found = verdicts(&programs);
        if std::env::var_os("STOCKADE_BLESS").is_some() {
            std::fs::create_dir_all(&folder).expect("folder");
            std::fs::write(&path, &found).expect("write");
        }
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        let wanted: Vec<&str> = wanted.lines().collect();
        changed.extend(
            found.lines().filter(|line| !wanted.contains(line)).map(|line| format!("{name}: now {line}")),
        );
        let found: Vec<&str> = found.lines().collect();
        changed
            .extend(wanted.iter().filter(|line| !found.contains(line)).map(|l| format!("{name}: was {l}")));
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn numbers_without_a_name_look_unimplemented() {
    let named: Vec<u32> = syscalls::names().filter_map(syscalls::number).collect();
    for (name, programs) in everything() {
        for number in (0..600).filter(|number| !named.contains(number)) {
            let verdict = run_all(&programs.iter().collect::<Vec<_>>(), &native(number, [0; 6]));
            assert_eq!(words(verdict.action), "ENOSYS", "{name} {number}");
        }
    }
}

/// What a table answers to a call with no arguments and to each case of it.
fn answers(table: &profile::Table, syscall: &str) -> Vec<Verdict> {
    let program = program::compile(table).expect("compiles");
    let number = syscalls::number(syscall).expect("known");
    let cases = CASES.iter().filter(|(name, _, _)| *name == syscall).map(|(_, _, args)| *args);
    std::iter::once([0; 6]).chain(cases).map(|args| run(&program, &native(number, args))).collect()
}

/// Rules whose calls get the same answer from another rule of the profile, or for which no case tells the difference:
/// they are for whoever reads the profile, or against a kernel that has more options than ours.
const OTHERS_SAY_THE_SAME: [&str; 13] = [
    "command-default: deny sendmmsg: MSG_ZEROCOPY pins pages under a page cache that others read (CVE-2026-43494)",
    "command-default: allow mknod: Sockets in the file system",
    "command-default: allow mknod: Regular files",
    "command-default: allow mknodat: Regular files",
    "command-default: otherwise seccomp: An option that is not listed, or unknown, as the kernel answers to unknown ones",
    "command-compat: withdraw personality: Execution domains below replace those of default",
    "launch: withdraw clone: Argument rules stand in the filters of its descendants, and would cost each of their calls twice",
    "launch: withdraw prctl: Argument rules stand in the filters of its descendants, and would cost each of their calls twice",
    "launch: withdraw mknod: Argument rules stand in the filters of its descendants, and would cost each of their calls twice",
    "launch: withdraw mknodat: Argument rules stand in the filters of its descendants, and would cost each of their calls twice",
    "launch: withdraw seccomp: Argument rules stand in the filters of its descendants, and would cost each of their calls twice",
    "launch: withdraw personality: Argument rules stand in the filters of its descendants, and would cost each of their calls twice",
    "unpack: allow mknodat: Regular files",
];

#[test]
fn every_rule_is_missed_when_it_is_not_there() {
    let mut unmissed = Vec::new();
    let mut tried = 0;
    for name in [
        "command-default",
        "command-hardened",
        "command-compat",
        "serve",
        "launch",
        "agent",
        "fetch",
        "gateway",
        "unpack",
    ] {
        let whole = profile::load(name).expect("compiles");
        for (what, syscall, without) in profile::mutants(name) {
            tried += 1;
            // One that does not resolve is missed when the profile is compiled.
            if without.is_ok_and(|without| answers(&without, &syscall) == answers(&whole, &syscall)) {
                unmissed.push(what);
            }
        }
    }
    assert!(tried > 800, "{tried}");
    assert_eq!(unmissed, OTHERS_SAY_THE_SAME, "no reviewed answer changes without these");
}

#[test]
fn every_case_names_a_call_that_some_filter_decides_by_arguments_or_refuses() {
    let launch = role(Role::Launch).expect("compiles");
    let default = command_programs(Profile::Default);
    for (name, what, args) in CASES {
        let data = native(syscalls::number(name).expect("known"), *args);
        let verdict = run_all(&default.iter().collect::<Vec<_>>(), &data);
        let useful =
            verdict.looked || verdict.action != libc::SECCOMP_RET_ALLOW || run(&launch, &data).looked;
        assert!(useful, "{name}({what}) tests nothing");
    }
}

#[test]
fn another_architecture_dies_and_x32_numbers_do_not_exist() {
    const I386: u32 = 0x4000_0003;
    const ARM64: u32 = 0xC000_00B7;
    for (name, programs) in everything() {
        let programs: Vec<&BpfProgram> = programs.iter().collect();
        for number in 0..600 {
            for arch in [I386, ARM64, 0] {
                let verdict = run_all(&programs, &Data { number, arch, args: [0; 6] });
                assert_eq!(words(verdict.action), "kill", "{name} {number} {arch:#x}");
            }
            for bits in [0x4000_0000, 0x8000_0000, 0xFFFF_FC00] {
                let verdict = run_all(&programs, &native(bits | number, [0; 6]));
                assert_eq!(words(verdict.action), "ENOSYS", "{name} {number} | {bits:#x}");
            }
        }
    }
}

#[test]
fn launch_allows_whatever_its_descendants_may() {
    let launch = role(Role::Launch).expect("compiles");
    let numbers = (0..600).map(|number| ("number", "", native(number, [0; 6])));
    let cases = CASES
        .iter()
        .map(|(name, what, args)| (*name, *what, native(syscalls::number(name).expect("known"), *args)));
    let filters = everything();
    for (name, what, data) in numbers.chain(cases) {
        for (filter, programs) in &filters {
            let allowed =
                run_all(&programs.iter().collect::<Vec<_>>(), &data).action == libc::SECCOMP_RET_ALLOW;
            let fence = run(&launch, &data).action;
            assert!(
                !allowed || fence == libc::SECCOMP_RET_ALLOW,
                "{filter} allows {name}({what}) {}, launch says {}",
                data.number,
                words(fence)
            );
        }
    }
}

#[test]
fn frequent_calls_of_commands_carry_no_argument_rules_under_any_of_their_filters() {
    // What the kernel caches as always allowed costs nothing per call (seccomp_cache_check_allow).
    let mut programs = command_programs(Profile::Default);
    programs.push(role(Role::Launch).expect("compiles"));
    let programs: Vec<&BpfProgram> = programs.iter().collect();
    for name in ["read", "write", "close", "openat", "newfstatat", "fstat", "lseek", "futex", "brk", "munmap"]
    {
        let data = native(syscalls::number(name).expect("known"), [0; 6]);
        let verdict = run_all(&programs, &data);
        assert_eq!(verdict, Verdict { action: libc::SECCOMP_RET_ALLOW, looked: false }, "{name}");
    }
}

#[test]
fn programs_stay_short_because_each_sandbox_installs_one() {
    for (name, programs) in everything() {
        let lengths: Vec<usize> = programs.iter().map(Vec::len).collect();
        assert!(lengths.iter().sum::<usize>() <= 800, "{name}: {lengths:?}");
    }
    let last = command(Profile::Default).expect("compiles").last;
    assert!(last.len() <= 16, "{}", last.len());
}

#[test]
fn the_zygote_can_do_what_each_command_needs_before_exec() {
    let filters = command(Profile::Hardened).expect("compiles");
    let allowed = |name: &str, args: [u64; 6]| {
        let data = native(syscalls::number(name).expect("known"), args);
        run(&filters.zygote, &data).action == libc::SECCOMP_RET_ALLOW
    };
    for name in [
        "clone3",
        "setgroups",
        "setresgid",
        "setresuid",
        "capset",
        "setrlimit",
        "prlimit64",
        "dup3",
        "close_range",
        "openat2",
        "fchdir",
        "setsid",
        "execve",
        "execveat",
        "recvmsg",
        "sendmsg",
        "close",
    ] {
        assert!(allowed(name, [0; 6]), "{name}");
    }
    assert!(allowed("setns", [3, 0x1000_0000, 0, 0, 0, 0]));
    assert!(allowed("setns", [3, 0x4000_0000, 0, 0, 0, 0]));
    assert!(!allowed("setns", [3, 0, 0, 0, 0, 0]), "any kind");
    assert!(allowed("landlock_restrict_self", [3, 0, 0, 0, 0, 0]));
    assert!(allowed("seccomp", [1, 0, 0, 0, 0, 0]));
    for option in [24, 28, 38, 22, 47] {
        assert!(allowed("prctl", [option, 0, 0, 0, 0, 0]), "prctl {option}");
    }
}

#[test]
fn compat_names_its_relaxations_and_the_others_have_none() {
    assert!(relaxations(Profile::Default).is_empty());
    assert!(relaxations(Profile::Hardened).is_empty());
    let compat = relaxations(Profile::Compat);
    assert!(compat.iter().any(|reason| reason.contains("modify_ldt")), "{compat:?}");
}

#[test]
fn hardened_allows_nothing_that_default_refuses() {
    let [default, hardened] = [Profile::Default, Profile::Hardened].map(command_programs);
    let numbers = (0..600).map(|number| native(number, [0; 6]));
    let cases = CASES.iter().map(|(name, _, args)| native(syscalls::number(name).expect("known"), *args));
    for data in numbers.chain(cases) {
        let action = |programs: &[BpfProgram]| run_all(&programs.iter().collect::<Vec<_>>(), &data).action;
        let refused = action(&default) != libc::SECCOMP_RET_ALLOW;
        assert!(!refused || action(&hardened) != libc::SECCOMP_RET_ALLOW, "{} {:?}", data.number, data.args);
    }
}

/// Runs `check` in a thread of its own under these filters: seccomp binds threads, and the thread ends.
fn under<T: Send>(programs: &[BpfProgram], check: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            for program in programs {
                seccompiler::apply_filter(program).expect("install");
            }
            check()
        });
        confined.join().expect("the confined thread ends")
    })
}

#[test]
fn the_kernel_answers_as_the_profile_says() {
    use rustix::net::{AddressFamily, SocketType, socket};
    const FAMILIES: [(AddressFamily, SocketType); 4] = [
        (AddressFamily::UNIX, SocketType::STREAM),
        (AddressFamily::INET, SocketType::STREAM),
        (AddressFamily::INET6, SocketType::DGRAM),
        (AddressFamily::from_raw(38), SocketType::SEQPACKET),
    ];
    let refusal = |profile| {
        let sockets = || FAMILIES.map(|(family, kind)| socket(family, kind, None).err());
        let unshare = || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        under(&command_programs(profile), || (sockets(), unshare()))
    };
    let (absent, eperm) = (Some(rustix::io::Errno::AFNOSUPPORT), Err(nix::errno::Errno::EPERM));
    // The control: unconfined, a thread beside others gets EINVAL for a user namespace (unshare(2)).
    assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER), Err(nix::errno::Errno::EINVAL));
    assert_eq!(refusal(Profile::Default), ([None, None, None, absent], eperm));
    assert_eq!(refusal(Profile::Hardened), ([None, None, absent, absent], eperm));
}

#[test]
fn ordinary_programs_run_under_every_command_profile() {
    let launch = role(Role::Launch).expect("compiles");
    for profile in [Profile::Default, Profile::Hardened, Profile::Compat] {
        let mut programs = vec![launch.clone()];
        programs.extend(command_programs(profile));
        let output = under(&programs, || {
            std::process::Command::new("/bin/sh")
                .args([
                    "-c",
                    "set -e; d=$(mktemp -d); echo a | tee $d/x | wc -l; cp $d/x $d/y; rm -r $d; date +%Z",
                ])
                .env("TZ", "UTC")
                .output()
        });
        let output = output.expect("the shell starts");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, "1\nUTC\n", "{profile:?}");
    }
}
