//! The first process of the PID namespace: in a sandbox our agent, which nobody inside may see, signal, trace or limit.

use std::io::Read as _;

use libc as c;

use super::{Answer, Attack, Group, call, raw};
use crate::selftest::scene::Scene;
use crate::sys::attempt;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::FirstProcess, name, run)
}

/// The process that is attacked.
const FIRST: i64 = 1;
/// linux/ptrace.h
const PTRACE_SEIZE: i64 = 0x4206;
/// linux/ioprio.h
const IOPRIO_WHO_PROCESS: i64 = 1;
/// `struct siginfo` with a code that a user may send (SI_QUEUE).
const QUEUED: [i32; 32] = {
    let mut info = [0; 32];
    info[2] = -1;
    info
};

pub(super) const ATTACKS: &[Attack] = &[
    attack("first-signal-probe", |_| call(c::SYS_kill, &[FIRST, 0])),
    attack("first-signal-kill", |_| call(c::SYS_kill, &[FIRST, c::SIGKILL.into()])),
    attack("first-signal-terminate", |_| call(c::SYS_kill, &[FIRST, c::SIGTERM.into()])),
    attack("first-signal-stop", |_| call(c::SYS_kill, &[FIRST, c::SIGSTOP.into()])),
    attack("first-signal-child", |_| call(c::SYS_kill, &[FIRST, c::SIGCHLD.into()])),
    attack("first-signal-thread", |_| call(c::SYS_tgkill, &[FIRST, FIRST, c::SIGTERM.into()])),
    attack("first-signal-any-thread", |_| call(c::SYS_tkill, &[FIRST, c::SIGTERM.into()])),
    attack("first-signal-queue", |_| {
        call(c::SYS_rt_sigqueueinfo, &[FIRST, c::SIGUSR1.into(), attempt::address(&QUEUED)])
    }),
    attack("first-signal-handle", |_| {
        let handle = raw(c::SYS_pidfd_open, &[FIRST, 0])?;
        call(c::SYS_pidfd_send_signal, &[handle, c::SIGTERM.into(), 0, 0])
    }),
    attack("first-trace", |_| call(c::SYS_ptrace, &[PTRACE_SEIZE, FIRST, 0, 0])),
    attack("first-read-memory", |_| memory(c::SYS_process_vm_readv)),
    attack("first-write-memory", |_| memory(c::SYS_process_vm_writev)),
    attack("first-take-descriptor", |_| {
        let handle = raw(c::SYS_pidfd_open, &[FIRST, 0])?;
        call(c::SYS_pidfd_getfd, &[handle, 0, 0])
    }),
    attack("first-compare", |_| call(c::SYS_kcmp, &[FIRST, FIRST, 0, 0, 0])),
    attack("first-read-limits", |_| {
        let old = [0_u64; 2];
        call(c::SYS_prlimit64, &[FIRST, c::RLIMIT_NOFILE.into(), 0, attempt::address(&old)])
    }),
    attack("first-set-limits", |_| {
        let new = [16_u64, 16];
        call(c::SYS_prlimit64, &[FIRST, c::RLIMIT_CORE.into(), attempt::address(&new), 0])
    }),
    attack("first-set-processors", |_| {
        let all = [u64::MAX; 16];
        call(c::SYS_sched_setaffinity, &[FIRST, 128, attempt::address(&all)])
    }),
    attack("first-set-scheduler", |_| {
        let parameters = [0_i32];
        call(c::SYS_sched_setscheduler, &[FIRST, c::SCHED_BATCH.into(), attempt::address(&parameters)])
    }),
    attack("first-set-priority", |_| call(c::SYS_setpriority, &[0, FIRST, 10])),
    attack("first-set-disk-priority", |_| call(c::SYS_ioprio_set, &[IOPRIO_WHO_PROCESS, FIRST, 3 << 13])),
    attack("first-move-memory", |_| {
        let nodes = [1_u64];
        call(c::SYS_migrate_pages, &[FIRST, 64, attempt::address(&nodes), attempt::address(&nodes)])
    }),
    attack("first-robust-list", |_| {
        let (head, length) = ([0_u64], [0_u64]);
        call(c::SYS_get_robust_list, &[FIRST, attempt::address(&head), attempt::address(&length)])
    }),
    attack("first-file-memory", |_| file("mem")),
    attack("first-file-environment", |_| file("environ")),
    attack("first-file-arguments", |_| file("cmdline")),
    attack("first-file-maps", |_| file("maps")),
    attack("first-file-status", |_| file("status")),
    attack("first-file-stack", |_| file("stat")),
    attack("first-file-mounts", |_| file("mountinfo")),
    attack("first-file-cgroup", |_| file("cgroup")),
    attack("first-directory-descriptors", |_| directory("fd")),
    attack("first-directory-root", |_| directory("root")),
    attack("first-directory-current", |_| directory("cwd")),
    attack("first-directory-threads", |_| directory("task")),
    attack("first-link-namespace", |_| {
        let link = std::fs::read_link("/proc/1/ns/mnt")?;
        Ok(link.display().to_string())
    }),
    attack("first-program-read", |_| {
        std::fs::File::open("/proc/1/exe")?;
        Ok("it can be read".to_owned())
    }),
    attack("first-file-oom-score", |_| {
        std::fs::write("/proc/1/oom_score_adj", "1000")?;
        Ok("it dies first".to_owned())
    }),
];

fn memory(number: i64) -> Answer {
    let bytes = [0_u8; 8];
    let piece = [attempt::address(&bytes), 8];
    // The same address there: nothing may be mapped at it, which comes after the question of rights.
    let call = call(number, &[FIRST, attempt::address(&piece), 1, attempt::address(&piece), 1, 0]);
    super::reached(call, &[crate::sys::Errno::FAULT])
}

fn file(name: &str) -> Answer {
    let mut opened = std::fs::File::open(format!("/proc/1/{name}"))?;
    // Address 0 of a process's memory is nothing; that it may be asked is enough.
    match opened.read(&mut [0; 16]) {
        Ok(length) if length > 0 => Ok(format!("{length} bytes of {name}")),
        Err(error) if error.raw_os_error() == Some(c::EIO) => Ok(format!("{name} is open")),
        Ok(_) => super::nothing(format!("{name} is empty")),
        Err(error) => Err(error.into()),
    }
}

fn directory(name: &str) -> Answer {
    let count = std::fs::read_dir(format!("/proc/1/{name}"))?.count();
    Ok(format!("{name} has {count} entries"))
}
