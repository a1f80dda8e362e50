//! Attacks that try everything of a kind.

use std::time::Duration;

use libc as c;

use super::{Answer, Attack, Group, Refusal, name, nothing, raw};
use crate::selftest::scene::Scene;
use crate::sys::attempt::{self, Ended};
use crate::sys::{Errno, errno_of};
use crate::wire::launch::Profile;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Sweeps, name, run)
}

/// Numbers that are tried: all that there are, and all that may come for years.
const NUMBERS: std::ops::RangeInclusive<i64> = 0..=600;
/// Bit 30 of a number means the x32 table (asm/unistd.h).
const X32: i64 = 1 << 30;
/// How long a single call may take: those that wait are stopped.
const PATIENCE: Duration = Duration::from_millis(300);
/// Process numbers that are tried.
const PIDS: i64 = 70_000;

pub(super) const ATTACKS: &[Attack] = &[
    #[cfg(target_arch = "x86_64")]
    attack("every-system-call", every_call),
    #[cfg(target_arch = "x86_64")]
    attack("every-unknown-system-call", unknown_calls),
    #[cfg(target_arch = "x86_64")]
    attack("every-x32-system-call", x32_calls),
    #[cfg(target_arch = "x86_64")]
    attack("every-32-bit-system-call", calls_32),
    attack("signal-every-process", |_| every_pid("signalled", |pid| raw(c::SYS_kill, &[pid, 0]))),
    attack("trace-every-process", |_| every_pid("traced", |pid| raw(c::SYS_ptrace, &[0x4206, pid, 0, 0]))),
    attack("read-every-process", |_| {
        every_pid("read", |pid| {
            let byte = [0_u8; 1];
            let piece = [attempt::address(&byte), 1];
            match raw(
                c::SYS_process_vm_readv,
                &[pid, attempt::address(&piece), 1, attempt::address(&piece), 1, 0],
            ) {
                // Allowed; there is only nothing at that address.
                Err(Errno::FAULT) => Ok(0),
                other => other,
            }
        })
    }),
    attack("limit-every-process", |_| {
        every_pid("limited", |pid| {
            let limits = [0_u64; 2];
            raw(c::SYS_prlimit64, &[pid, c::RLIMIT_NOFILE.into(), 0, attempt::address(&limits)])
        })
    }),
    attack("memory-of-every-process", |_| {
        every_pid("open", |pid| {
            let opened = std::fs::File::open(format!("/proc/{pid}/mem"));
            opened.map(|_| 0).map_err(errno_of)
        })
    }),
];

/// Calls whose arguments cannot be wrong: they would end or stop the copy, make another that looks like it, write all of
/// the host's dirty pages, or hang up a terminal. All but the last are in every program; that one has an attack of its own.
const UNCALLED: [i64; 6] =
    [c::SYS_exit, c::SYS_exit_group, c::SYS_vfork, c::SYS_rt_sigreturn, c::SYS_sync, c::SYS_vhangup];

/// Calls that must be refused in every profile: by number, because that is what the kernel knows them by.
#[cfg(target_arch = "x86_64")]
const REFUSED: [(i64, &str); 65] = [
    (101, "ptrace"),
    (103, "syslog"),
    (134, "uselib"),
    (136, "ustat"),
    (139, "sysfs"),
    (155, "pivot_root"),
    (156, "_sysctl"),
    (161, "chroot"),
    (163, "acct"),
    (164, "settimeofday"),
    (165, "mount"),
    (166, "umount2"),
    (167, "swapon"),
    (168, "swapoff"),
    (169, "reboot"),
    (170, "sethostname"),
    (171, "setdomainname"),
    (172, "iopl"),
    (173, "ioperm"),
    (174, "create_module"),
    (175, "init_module"),
    (176, "delete_module"),
    (179, "quotactl"),
    (180, "nfsservctl"),
    (212, "lookup_dcookie"),
    (227, "clock_settime"),
    (246, "kexec_load"),
    (248, "add_key"),
    (249, "request_key"),
    (250, "keyctl"),
    (256, "migrate_pages"),
    (272, "unshare"),
    (279, "move_pages"),
    (298, "perf_event_open"),
    (300, "fanotify_init"),
    (301, "fanotify_mark"),
    (303, "name_to_handle_at"),
    (304, "open_by_handle_at"),
    (308, "setns"),
    (310, "process_vm_readv"),
    (311, "process_vm_writev"),
    (312, "kcmp"),
    (313, "finit_module"),
    (320, "kexec_file_load"),
    (321, "bpf"),
    (323, "userfaultfd"),
    (425, "io_uring_setup"),
    (426, "io_uring_enter"),
    (427, "io_uring_register"),
    (428, "open_tree"),
    (429, "move_mount"),
    (430, "fsopen"),
    (431, "fsconfig"),
    (432, "fsmount"),
    (433, "fspick"),
    (435, "clone3"),
    (438, "pidfd_getfd"),
    (440, "process_madvise"),
    (442, "mount_setattr"),
    (443, "quotactl_fd"),
    (447, "memfd_secret"),
    (448, "process_mrelease"),
    (451, "cachestat"),
    (457, "statmount"),
    (458, "listmount"),
];

/// And those that only some profiles offer.
#[cfg(target_arch = "x86_64")]
const SOMETIMES: [(i64, &str, &[Profile]); 14] = [
    (40, "sendfile", &[Profile::Default, Profile::Compat]),
    (206, "io_setup", &[Profile::Default, Profile::Compat]),
    (207, "io_destroy", &[Profile::Default, Profile::Compat]),
    (208, "io_getevents", &[Profile::Default, Profile::Compat]),
    (209, "io_submit", &[Profile::Default, Profile::Compat]),
    (210, "io_cancel", &[Profile::Default, Profile::Compat]),
    (275, "splice", &[Profile::Default, Profile::Compat]),
    (154, "modify_ldt", &[Profile::Compat]),
    (216, "remap_file_pages", &[Profile::Compat]),
    (237, "mbind", &[Profile::Compat]),
    (238, "set_mempolicy", &[Profile::Compat]),
    (239, "get_mempolicy", &[Profile::Compat]),
    (276, "tee", &[Profile::Compat]),
    (278, "vmsplice", &[Profile::Compat]),
];

/// The answers of our filters to a call that they do not allow.
const REFUSALS: [Errno; 3] = [Errno::PERM, Errno::NOSYS, Errno::INVAL];

/// The highest number that any kernel we know of has a call for.
#[cfg(target_arch = "x86_64")]
const HIGHEST: i64 = 471;

/// One call with arguments that are all wrong, in a copy of this copy.
fn answer(number: i64) -> Result<Result<i64, Errno>, Ended> {
    let tried = attempt::apart(PATIENCE, || {
        let result = attempt::call(number, [-1; 6]);
        // fork(2) takes no arguments that could be wrong: two report, and say the same.
        result.unwrap_or_else(|errno| -i64::from(errno.raw_os_error())).to_le_bytes().to_vec()
    });
    match tried {
        Ok(Ended::Said(words)) => {
            let word = words.get(..8).and_then(|word| word.try_into().ok()).map(i64::from_le_bytes);
            Ok(match word {
                Some(value @ -4095..=-1) => {
                    let errno = i32::try_from(-value).unwrap_or(c::EIO);
                    Err(Errno::from_raw_os_error(errno))
                }
                Some(value) => Ok(value),
                None => Err(Errno::IO),
            })
        }
        Ok(ended) => Err(ended),
        Err(errno) => Ok(Err(errno)),
    }
}

/// Every number: those that must be refused are, and with the filter's own errno.
#[cfg(target_arch = "x86_64")]
fn every_call(scene: &Scene) -> Answer {
    let sometimes = SOMETIMES.iter().filter(|(_, _, offered)| !offered.contains(&scene.profile));
    let refused: Vec<(i64, &str)> =
        REFUSED.iter().copied().chain(sometimes.map(|&(number, name, _)| (number, name))).collect();
    let mut through = Vec::new();
    for number in NUMBERS.filter(|number| !UNCALLED.contains(number)) {
        let came = answer(number);
        let Some((_, name)) = refused.iter().find(|(known, _)| *known == number) else { continue };
        match came {
            Ok(Err(errno)) if REFUSALS.contains(&errno) => {}
            other => through.push(format!("{name}: {other:?}")),
        }
    }
    if through.is_empty() {
        nothing(format!("{} calls, {} of them must be refused and are", NUMBERS.count(), refused.len()))
    } else {
        Ok(through.join(", "))
    }
}

/// Numbers that mean nothing yet: when a later kernel gives them a meaning, nobody here may use it unreviewed. The control
/// is that a number which has a meaning answers otherwise outside.
#[cfg(target_arch = "x86_64")]
fn unknown_calls(scene: &Scene) -> Answer {
    let mut other = Vec::new();
    // Calls of ten years, as the newest of which these were: outside, the kernel knows them.
    let new = if scene.inside { 0..0 } else { 425..435 };
    for number in (HIGHEST + 1..=*NUMBERS.end()).chain([512, 547, 1024, 0xffff, 1 << 20, -1]).chain(new) {
        match answer(number) {
            Ok(Err(Errno::NOSYS)) => {}
            came => other.push(format!("{number}: {came:?}")),
        }
    }
    if other.is_empty() { nothing("every one is ENOSYS") } else { Ok(other.join(", ")) }
}

#[cfg(target_arch = "x86_64")]
fn x32_calls(_: &Scene) -> Answer {
    let mut through = Vec::new();
    for number in NUMBERS {
        match answer(X32 | number) {
            Ok(Err(Errno::NOSYS)) => {}
            came => through.push(format!("{number}: {came:?}")),
        }
    }
    if through.is_empty() { nothing("every one is ENOSYS") } else { Ok(through.join(", ")) }
}

/// getpid is number 20 in the 32-bit table: a filter that looks at numbers alone takes it for writev.
#[cfg(target_arch = "x86_64")]
fn calls_32(scene: &Scene) -> Answer {
    const GETPID: i32 = 20;
    // Outside, numbers other than getpid's would do what they say.
    let last = if scene.inside { 470 } else { GETPID };
    let first = if scene.inside { 0 } else { GETPID };
    for number in first..=last {
        let tried =
            attempt::apart(PATIENCE, || format!("{:?}", attempt::call_32(number, [-1; 3])).into_bytes());
        match tried {
            Ok(Ended::Killed { signal, .. }) if signal == c::SIGSYS => {}
            Ok(Ended::Said(words)) => {
                return Ok(format!("32-bit call {number}: {}", String::from_utf8_lossy(&words)));
            }
            // A kernel without the entry.
            Ok(Ended::Killed { signal, .. }) if signal == c::SIGSEGV => {
                return nothing("there is no such entry");
            }
            other => return Err(Refusal::Broken(format!("32-bit call {number}: {other:?}"))),
        }
    }
    nothing(format!("{} calls, each of which kills its caller", last - first + 1))
}

/// Tries something on every process but this one and the one that watches it.
fn every_pid(done: &str, action: impl Fn(i64) -> Result<i64, Errno>) -> Answer {
    let own: i64 = rustix::process::getpid().as_raw_nonzero().get().into();
    let parent = rustix::process::getppid().map_or(0, |pid| i64::from(pid.as_raw_nonzero().get()));
    // Outside, the process that watches is the first one, which is what inside nobody may touch.
    let known = |pid: i64| pid == own || (pid == parent && pid != 1);
    let (mut answers, mut worked) = (std::collections::BTreeMap::<String, u32>::new(), Vec::new());
    for pid in (1..=PIDS).filter(|&pid| !known(pid)) {
        match action(pid) {
            Ok(_) => worked.push(pid),
            Err(errno) => *answers.entry(name(errno)).or_default() += 1,
        }
    }
    if worked.is_empty() { nothing(format!("{answers:?}")) } else { Ok(format!("{done}: {worked:?}")) }
}
