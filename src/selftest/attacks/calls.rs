//! System calls that no ordinary program needs.

use std::os::fd::AsRawFd as _;

use libc as c;

use super::{Answer, Attack, Control, Group, call, raw, reached, text};
use crate::selftest::scene::Scene;
use crate::sys::{Errno, attempt};
use crate::wire::launch::Profile::Compat;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::SystemCalls, name, run)
}

/// A call whose arguments are all wrong: which errnos say that the kernel looked at them.
macro_rules! wrong {
    ($name:literal, $number:expr, [$($errno:ident),+]) => {
        attack($name, |_| reached(call($number, &[-1; 6]), &[$(Errno::$errno),+]))
    };
}

/// The same for a call that the kernel refuses first of all to whoever is not the host's root.
macro_rules! roots_wrong {
    ($name:literal, $number:expr, [$($errno:ident),+]) => {
        wrong!($name, $number, [$($errno),+]).control(Control::RealRoot)
    };
}

/// linux/keyctl.h
const PROCESS_KEYRING: i64 = -2;
/// linux/userfaultfd.h
const USER_MODE_ONLY: i64 = 1;
/// linux/fanotify.h
const FAN_REPORT_FID: i64 = 0x200;
/// asm-generic/ioctl.h and linux/fs.h
const FICLONE: i64 = 0x4004_9409;
const FS_IOC_SETFLAGS: i64 = 0x4008_6602;
const FS_IOC_FSSETXATTR: i64 = 0x401C_5820;
/// Beyond what libc knows: these have the same number on every architecture.
const CACHESTAT: i64 = 451;
const LSM_LIST_MODULES: i64 = 461;
const FILE_SETATTR: i64 = 469;
const LISTNS: i64 = 470;

pub(super) const ATTACKS: &[Attack] = &[
    attack("io-uring", |_| {
        let parameters = [0_u8; 120];
        call(c::SYS_io_uring_setup, &[1, attempt::address(&parameters)])
    }),
    wrong!("io-uring-enter", c::SYS_io_uring_enter, [BADF, INVAL]),
    wrong!("io-uring-register", c::SYS_io_uring_register, [BADF, INVAL]),
    attack("bpf-map", |_| {
        // BPF_MAP_CREATE of an array with one element of four bytes.
        let attributes: [u32; 18] = std::array::from_fn(|at| [2, 4, 4, 1].get(at).copied().unwrap_or(0));
        call(c::SYS_bpf, &[0, attempt::address(&attributes), 72])
    })
    .control(Control::RealRoot),
    attack("bpf-program", |_| {
        // BPF_PROG_LOAD of a socket filter: r0 = 0; exit.
        let program: [u64; 2] = [0xb7, 0x95];
        let mut attributes = [0_u64; 9];
        attributes[0] = 1 | 2 << 32;
        attributes[1] = attempt::address(&program).cast_unsigned();
        attributes[2] = text(c"GPL").cast_unsigned();
        call(c::SYS_bpf, &[5, attempt::address(&attributes), 72])
    })
    .control(Control::RealRoot),
    attack("performance-events", |_| {
        // struct perf_event_attr: PERF_TYPE_SOFTWARE, its size, and exclude_kernel.
        let mut attributes = [0_u64; 14];
        attributes[0] = 1 | 112 << 32;
        attributes[5] = 1 << 5;
        call(c::SYS_perf_event_open, &[attempt::address(&attributes), 0, -1, -1, 0])
    }),
    attack("page-faults-in-user-space", |_| call(c::SYS_userfaultfd, &[USER_MODE_ONLY])),
    attack("key-rings", |_| call(c::SYS_keyctl, &[0, PROCESS_KEYRING, 1])),
    attack("key-rings-join", |_| call(c::SYS_keyctl, &[1, 0])),
    attack("key-add", |_| {
        call(c::SYS_add_key, &[text(c"user"), text(c"probe"), text(c"x"), 1, PROCESS_KEYRING])
    }),
    attack("key-request", |_| {
        let asked = call(c::SYS_request_key, &[text(c"user"), text(c"no such key"), 0, 0]);
        reached(asked, &[Errno::NOKEY])
    }),
    attack("watch-file-system", |_| call(c::SYS_fanotify_init, &[FAN_REPORT_FID, 0])),
    wrong!("watch-file-system-mark", c::SYS_fanotify_mark, [BADF, INVAL]),
    attack("file-handle", |_| {
        let (handle, mount) = ([120_u32; 34], [0_i32]);
        let words =
            [c::AT_FDCWD.into(), text(c"/proc"), attempt::address(&handle), attempt::address(&mount), 0];
        reached(call(c::SYS_name_to_handle_at, &words), &[Errno::OPNOTSUPP])
    }),
    attack("open-by-file-handle", |_| {
        let handle = [8_u32, 1, 2, 0];
        let opened = call(c::SYS_open_by_handle_at, &[c::AT_FDCWD.into(), attempt::address(&handle), 0]);
        reached(opened, &[Errno::STALE, Errno::BADF])
    })
    .control(Control::RealRoot),
    attack("trace-oneself", |_| call(c::SYS_ptrace, &[0, 0, 0, 0])),
    attack("trace-a-child", |_| {
        let child = raw(c::SYS_clone, &[c::SIGCHLD.into(), 0, 0, 0, 0])?;
        if child == 0 {
            rustix::event::pause();
            crate::sys::process::exit_now(0);
        }
        call(c::SYS_ptrace, &[0x4206, child, 0, 0])
    }),
    attack("compare-processes", |_| {
        let own: i64 = rustix::process::getpid().as_raw_nonzero().get().into();
        call(c::SYS_kcmp, &[own, own, 0, 0, 0])
    }),
    attack("read-own-memory-as-anothers", |_| {
        let own: i64 = rustix::process::getpid().as_raw_nonzero().get().into();
        let (from, to) = ([1_u8; 8], [0_u8; 8]);
        let (from, to) = ([attempt::address(&from), 8], [attempt::address(&to), 8]);
        call(c::SYS_process_vm_readv, &[own, attempt::address(&to), 1, attempt::address(&from), 1, 0])
    }),
    attack("kernel-log-size", |_| call(c::SYS_syslog, &[10, 0, 0])),
    attack("kernel-log-read", |_| {
        let room = [0_u8; 64];
        call(c::SYS_syslog, &[3, attempt::address(&room), 64])
    })
    .control(Control::RealRoot),
    attack("quotas", |_| call(c::SYS_quotactl, &[0x80_0001 << 8, 0, 0, 0])),
    wrong!("quotas-by-descriptor", c::SYS_quotactl_fd, [BADF, INVAL]),
    attack("accounting", |_| reached(call(c::SYS_acct, &[text(c"/nonexistent/acct")]), &[Errno::NOENT]))
        .control(Control::RealRoot),
    attack("secret-memory", |_| call(c::SYS_memfd_secret, &[0])),
    wrong!("move-pages-into-pipe", c::SYS_vmsplice, [BADF, INVAL]).offered_by(&[Compat]),
    wrong!("duplicate-pipe", c::SYS_tee, [BADF, INVAL]).offered_by(&[Compat]),
    attack("memory-policy", |_| call(c::SYS_mbind, &[0, 0, 0, 0, 0, 0])).offered_by(&[Compat]),
    attack("memory-policy-of-process", |_| call(c::SYS_set_mempolicy, &[0, 0, 0])).offered_by(&[Compat]),
    attack("move-pages", |_| call(c::SYS_move_pages, &[0, 0, 0, 0, 0, 0])),
    wrong!("advise-others-memory", c::SYS_process_madvise, [BADF, INVAL]),
    wrong!("reap-others-memory", c::SYS_process_mrelease, [BADF, INVAL]),
    attack("cache-statistics", |_| reached(call(CACHESTAT, &[-1, -1, -1, 0]), &[Errno::BADF, Errno::FAULT])),
    attack("list-security-modules", |_| {
        let (ids, size) = ([0_u64; 16], [128_u32]);
        call(LSM_LIST_MODULES, &[attempt::address(&ids), attempt::address(&size), 0])
    }),
    wrong!("list-namespaces", LISTNS, [FAULT, INVAL, TOOBIG]),
    wrong!("set-file-attributes", FILE_SETATTR, [BADF, FAULT, INVAL]),
    attack("reboot", |_| reached(call(c::SYS_reboot, &[0, 0, 0, 0]), &[Errno::INVAL])),
    roots_wrong!("load-kernel", c::SYS_kexec_load, [INVAL, FAULT, BUSY]),
    roots_wrong!("load-kernel-file", c::SYS_kexec_file_load, [INVAL, BADF, BUSY]),
    roots_wrong!("load-module", c::SYS_init_module, [NOEXEC, FAULT, NOMEM, INVAL]),
    roots_wrong!("load-module-file", c::SYS_finit_module, [BADF, INVAL]),
    attack("unload-module", |_| {
        reached(call(c::SYS_delete_module, &[text(c"no_such_module"), 0]), &[Errno::NOENT])
    })
    .control(Control::RealRoot),
    roots_wrong!("swap-on", c::SYS_swapon, [INVAL, FAULT]),
    roots_wrong!("swap-off", c::SYS_swapoff, [FAULT]),
    attack("hang-up-terminal", |_| {
        if std::fs::File::open("/dev/tty").is_ok() {
            return super::nothing("there is a terminal, which somebody would lose");
        }
        call(c::SYS_vhangup, &[])
    })
    .control(Control::RealRoot),
    attack("set-time", |_| {
        // A second has no 2,000,000 microseconds; asked before who asks.
        let time = [0_i64, 2_000_000];
        reached(call(c::SYS_settimeofday, &[attempt::address(&time), 0]), &[Errno::INVAL])
    }),
    attack("set-clock", |_| {
        let time = [0_i64, 2_000_000_000];
        reached(call(c::SYS_clock_settime, &[0, attempt::address(&time)]), &[Errno::INVAL])
    }),
    attack("adjust-clock", |_| {
        // struct timex: ADJ_TICK with a tick that no clock has.
        let mut adjustment = [0_i64; 26];
        adjustment[0] = 0x4000;
        adjustment[10] = 1;
        reached(call(c::SYS_adjtimex, &[attempt::address(&adjustment)]), &[Errno::INVAL])
    })
    .control(Control::RealRoot),
    #[cfg(target_arch = "x86_64")]
    attack("port-privilege", |_| call(c::SYS_iopl, &[0])),
    #[cfg(target_arch = "x86_64")]
    attack("port-permission", |_| call(c::SYS_ioperm, &[0x80, 1, 0])),
    #[cfg(target_arch = "x86_64")]
    attack("segments", |_| {
        let room = [0_u8; 64];
        call(c::SYS_modify_ldt, &[0, attempt::address(&room), 64])
    })
    .offered_by(&[Compat]),
    #[cfg(target_arch = "x86_64")]
    attack("old-statistics", |_| reached(call(c::SYS_ustat, &[-1, -1]), &[Errno::INVAL, Errno::FAULT])),
    #[cfg(target_arch = "x86_64")]
    attack("old-file-systems", |_| call(c::SYS_sysfs, &[3, 0, 0])),
    attack("remap-pages", |_| reached(call(c::SYS_remap_file_pages, &[-1; 5]), &[Errno::INVAL]))
        .offered_by(&[Compat]),
    attack("notification-pipe", |_| {
        let ends = [0_i32; 2];
        call(c::SYS_pipe2, &[attempt::address(&ends), 0x80])
    }),
    attack("huge-memory-file", |_| call(c::SYS_memfd_create, &[text(c"x"), 4])),
    attack("huge-shared-memory", |_| {
        reached(call(c::SYS_shmget, &[0, 2 << 20, 0o4600 | 0o1000]), &[Errno::PERM])
    })
    .control(Control::RealRoot),
    attack("executable-by-default", |_| call(c::SYS_personality, &[0x40_0000])),
    attack("fixed-addresses", |_| call(c::SYS_personality, &[0x4_0000])).offered_by(&[Compat]),
    attack("share-equal-pages", |_| {
        let at = raw(c::SYS_mmap, &[0, 1 << 16, 3, 0x22, -1, 0])?;
        call(c::SYS_madvise, &[at, 1 << 16, 12])
    }),
    attack("share-equal-pages-of-process", |_| call(c::SYS_prctl, &[67, 1, 0, 0, 0])),
    attack("dispatch-own-calls", |_| call(c::SYS_prctl, &[59, 0, 0, 0, 0])).offered_by(&[Compat]),
    attack("speculate-again", |_| {
        // PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_ENABLE.
        call(c::SYS_prctl, &[53, 0, 2, 0, 0])
    }),
    attack("listen-to-filter", |_| {
        // A filter that allows everything, with SECCOMP_FILTER_FLAG_NEW_LISTENER.
        let allow = [6_u64 | 0x7fff_0000 << 32];
        let program = [1, attempt::address(&allow)];
        raw(c::SYS_prctl, &[38, 1, 0, 0, 0])?;
        call(c::SYS_seccomp, &[1, 8, attempt::address(&program)])
    }),
    attack("real-time", |_| {
        let priority = [1_i32];
        call(c::SYS_sched_setscheduler, &[0, c::SCHED_FIFO.into(), attempt::address(&priority)])
    })
    .control(Control::RealRoot),
    attack("raise-priority", |_| call(c::SYS_setpriority, &[0, 0, -10])).control(Control::RealRoot),
    attack("real-time-disk", |_| call(c::SYS_ioprio_set, &[1, 0, 1 << 13])).control(Control::RealRoot),
    attack("clone-file-blocks", |scene| on_file(scene, FICLONE, |from| from)).control(Control::RealRoot),
    attack("immutable-file", |scene| {
        let flags = [0x10_i64];
        on_file(scene, FS_IOC_SETFLAGS, move |_| attempt::address(&flags))
    })
    .control(Control::RealRoot),
    attack("change-project", |scene| {
        // struct fsxattr: the project id, by which disk limits count, is the fourth word.
        let attributes = [0_u32, 0, 0, 7, 0, 0, 0];
        on_file(scene, FS_IOC_FSSETXATTR, move |_| attempt::address(&attributes))
    })
    .control(Control::RealRoot),
];

/// An ioctl on a new file, with another file at hand.
fn on_file(scene: &Scene, request: i64, argument: impl FnOnce(i64) -> i64) -> Answer {
    let make = |name: &str| {
        let path = format!("{}/{name}-{}", scene.place, std::process::id());
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let _ = std::fs::remove_file(path);
        file
    };
    let (from, to) = (make("from")?, make("to")?);
    std::io::Write::write_all(&mut &from, &[1; 4096])?;
    call(c::SYS_ioctl, &[to.as_raw_fd().into(), request, argument(from.as_raw_fd().into())])
}
