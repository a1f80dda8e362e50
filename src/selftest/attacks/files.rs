//! /proc, /sys and the control groups: what tells of the host, and what changes it.

use std::io::Read as _;
use std::path::Path;

use super::{Answer, Attack, Control, Group, nothing};
use crate::selftest::scene::Scene;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::KernelFiles, name, run)
}

/// Which number the next process of a PID namespace gets (pid_namespaces(7)).
const NEXT_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// A row for a file that belongs to the host's root: only he can open it anywhere.
macro_rules! roots_file {
    ($name:literal, $open:ident, $path:literal) => {
        attack($name, |_| $open($path)).control(Control::RealRoot)
    };
}

/// A row for a file that is everybody's where it shows.
macro_rules! any_file {
    ($name:literal, $open:ident, $path:literal) => {
        attack($name, |_| $open($path))
    };
}

pub(super) const ATTACKS: &[Attack] = &[
    roots_file!("write-core-pattern", write, "/proc/sys/kernel/core_pattern"),
    roots_file!("write-module-loader", write, "/proc/sys/kernel/modprobe"),
    roots_file!("write-hotplug-helper", write, "/sys/kernel/uevent_helper"),
    roots_file!("write-panic", write, "/proc/sys/kernel/panic"),
    roots_file!("write-randomisation", write, "/proc/sys/kernel/randomize_va_space"),
    roots_file!("write-io-uring-switch", write, "/proc/sys/kernel/io_uring_disabled"),
    roots_file!("write-pid-maximum", write, "/proc/sys/kernel/pid_max"),
    roots_file!("write-overcommit", write, "/proc/sys/vm/overcommit_memory"),
    roots_file!("write-drop-caches", write, "/proc/sys/vm/drop_caches"),
    roots_file!("write-protected-links", write, "/proc/sys/fs/protected_symlinks"),
    roots_file!("write-suid-dumpable", write, "/proc/sys/fs/suid_dumpable"),
    roots_file!("write-binary-formats", write, "/proc/sys/fs/binfmt_misc/register"),
    roots_file!("write-magic-keys", write, "/proc/sysrq-trigger"),
    roots_file!("write-interrupt-mask", write, "/proc/irq/default_smp_affinity"),
    roots_file!("write-huge-pages", write, "/sys/kernel/mm/transparent_hugepage/enabled"),
    roots_file!("write-power-state", write, "/sys/power/state"),
    any_file!("write-forwarding", write, "/proc/sys/net/ipv4/ip_forward"),
    any_file!("write-unprivileged-ports", write, "/proc/sys/net/ipv4/ip_unprivileged_port_start"),
    roots_file!("write-host-name", write, "/proc/sys/kernel/hostname"),
    attack("write-next-pid", |_| {
        // Everybody may open it; the kernel asks when it is written to.
        std::fs::write(NEXT_PID, "20000")?;
        Ok("the next process gets the number that was asked for".to_owned())
    }),
    attack("write-any-setting", |_| writable(Path::new("/proc/sys"), &|path| path != Path::new(NEXT_PID))),
    attack("write-anything-in-proc", |_| {
        let own = |path: &Path| {
            let text = path.to_string_lossy();
            let first = text.trim_start_matches("/proc/").split('/').next().unwrap_or_default();
            let process = first.starts_with(|letter: char| letter.is_ascii_digit());
            !process && !matches!(first, "self" | "thread-self" | "sys")
        };
        writable(Path::new("/proc"), &own)
    }),
    roots_file!("write-anything-in-sys", writable_below, "/sys"),
    roots_file!("write-anything-in-cgroup", writable_below, "/sys/fs/cgroup"),
    attack("make-a-control-group", |_| {
        std::fs::create_dir("/sys/fs/cgroup/attacked")?;
        Ok("made".to_owned())
    })
    .control(Control::RealRoot),
    attack("cgroup-path-of-the-host", |_| {
        let text = std::fs::read_to_string("/proc/self/cgroup")?;
        let outside = text.lines().find(|line| !line.ends_with(":/") && line.contains("stockade"));
        outside.map_or_else(|| nothing("no path of the host shows"), |line| Ok(line.to_owned()))
    })
    .control(Control::Host),
    roots_file!("read-kernel-memory", read, "/proc/kcore"),
    roots_file!("read-kernel-log", read, "/proc/kmsg"),
    roots_file!("read-timers", read, "/proc/timer_list"),
    roots_file!("read-slabs", read, "/proc/slabinfo"),
    roots_file!("read-kernel-mappings", read, "/proc/vmallocinfo"),
    roots_file!("read-page-types", read, "/proc/pagetypeinfo"),
    roots_file!("read-page-flags", read, "/proc/kpageflags"),
    roots_file!("read-product-serial", read, "/sys/class/dmi/id/product_serial"),
    any_file!("read-symbols", read, "/proc/kallsyms"),
    any_file!("read-boot-line", read, "/proc/cmdline"),
    any_file!("read-interrupts", read, "/proc/interrupts"),
    any_file!("read-soft-interrupts", read, "/proc/softirqs"),
    any_file!("read-key-users", read, "/proc/key-users"),
    any_file!("read-modules", read, "/proc/modules"),
    any_file!("read-buddies", read, "/proc/buddyinfo"),
    any_file!("read-partitions", read, "/proc/partitions"),
    any_file!("read-disk-statistics", read, "/proc/diskstats"),
    any_file!("read-swaps", read, "/proc/swaps"),
    any_file!("read-locks", read, "/proc/locks"),
    any_file!("read-pressure", read, "/proc/pressure/cpu"),
    any_file!("read-scheduler-statistics", read, "/proc/schedstat"),
    any_file!("read-configuration", read, "/proc/config.gz"),
    any_file!("read-io-memory", read, "/proc/iomem"),
    any_file!("read-io-ports", read, "/proc/ioports"),
    any_file!("read-buses", list, "/proc/bus/pci"),
    any_file!("read-file-systems-state", list, "/proc/fs/ext4"),
    any_file!("list-block-devices", list, "/sys/block"),
    any_file!("list-modules", list, "/sys/module"),
    any_file!("list-buses", list, "/sys/bus/pci/devices"),
    any_file!("list-firmware", list, "/sys/firmware"),
    any_file!("read-product-name", read, "/sys/class/dmi/id/product_name"),
    any_file!("read-kernel-notes", read, "/sys/kernel/notes"),
    any_file!("list-cgroup-v1", list, "/sys/fs/cgroup/memory"),
    any_file!("list-boot", list, "/boot"),
    any_file!("read-hosts-packages", list, "/var/lib/dpkg/info"),
    any_file!("read-machine-id", read, "/etc/machine-id"),
    attack("see-more-processes", see_processes).control(Control::RealRoot),
];

/// Opens for writing, and writes nothing.
fn write(path: &str) -> Answer {
    std::fs::OpenOptions::new().write(true).open(path)?;
    Ok(format!("{path} is open for writing"))
}

fn read(path: &str) -> Answer {
    let mut byte = [0];
    let length = std::fs::File::open(path)?.read(&mut byte)?;
    if length == 0 { nothing(format!("{path} is empty")) } else { Ok(format!("{path} can be read")) }
}

fn list(path: &str) -> Answer {
    match std::fs::read_dir(path)?.count() {
        0 => nothing(format!("{path} is empty")),
        count => Ok(format!("{path} has {count} entries")),
    }
}

fn writable_below(path: &str) -> Answer {
    writable(Path::new(path), &|_| true)
}

/// Looks for a file below that can be opened for writing.
fn writable(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Answer {
    let (mut waiting, mut looked_at) = (vec![root.to_owned()], 0_u32);
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if !wanted(&path) {
                continue;
            }
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                looked_at += 1;
                // What is masked by a device is listed as the file that it was.
                let opened = std::fs::OpenOptions::new().write(true).open(&path);
                if opened.and_then(|file| file.metadata()).is_ok_and(|found| found.is_file()) {
                    return Ok(format!("{} is open for writing", path.display()));
                }
            }
        }
    }
    nothing(format!("none of {looked_at} files"))
}

/// The processes that /proc shows.
pub(in crate::selftest) fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A sandbox in which only this command runs shows its first process, its copy, and nothing else.
fn see_processes(_: &Scene) -> Answer {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let others: Vec<i32> = pids().into_iter().filter(|pid| ![own, parent].contains(pid)).collect();
    if others.is_empty() { nothing("only this command") } else { Ok(format!("{others:?} show")) }
}
