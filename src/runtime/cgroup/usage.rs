//! What a sandbox uses, read from wherever this host counts it.
//!
//! | what   | cgroup v2 with the controller    | v1                               | neither                              |
//! |--------|----------------------------------|----------------------------------|--------------------------------------|
//! | cpu    | `cpu.stat`                       | the same: v2 counts without it   | the same                             |
//! | memory | `memory.current`, `.peak`, `.stat` | `memory.usage_in_bytes`, …     | resident sets of its processes       |
//! | io     | `io.stat`                        | `/proc/PID/io` of its processes  | the same                             |
//! | pids   | `pids.current`, `.peak`          | `pids.current`                   | its threads, counted                 |
//!
//! Why not `blkio` of v1: it sees no write that was buffered, which is nearly every one. What processes have read and
//! written is passed on to whoever waits for them, in the end to the agent, so that the sum misses nothing that ended.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Cgroups, V1, V2, open_below, read, subdirectories};
use crate::wire::usage::{CpuUsage, IoUsage, Measured, MemoryUsage, PidsUsage};

/// Processes of a sandbox whose own numbers are added up; for more it would take the launcher milliseconds.
const PROCESSES_MAX: usize = 2048;

const PROCESSES: &str = "processes";

impl Cgroups {
    /// Reads what a sandbox uses. What this host does not count is absent.
    pub fn usage(&self, id: &str) -> Measured {
        let Ok(group) = open_below(self.v2.as_fd(), id) else { return Measured::default() };
        let group = group.as_fd();
        let has = |controller| self.v2_controllers.contains(&controller);
        let mut processes = Members::new(group);
        let v1 = |controller: &str| {
            let (_, parent) = self.v1.iter().find(|(found, _)| *found == controller)?;
            open_below(parent.as_fd(), id).ok()
        };
        let memory = match (has("memory"), v1("memory")) {
            (true, _) => memory_v2(group),
            (false, Some(group)) => memory_v1(group.as_fd()),
            (false, None) => processes.memory(),
        };
        let pids = match (has("pids"), v1("pids")) {
            (true, _) => pids(group, V2),
            (false, Some(group)) => pids(group.as_fd(), V1),
            (false, None) => processes.count(),
        };
        let mut cpu = cpu_v2(group);
        if let (false, Some(group)) = (has("cpu"), v1("cpu")) {
            let stat = Keyed::read(group.as_fd(), "cpu.stat");
            cpu.throttled_us = stat.get("throttled_time").map(|nanoseconds| nanoseconds / 1000);
        }
        let io = if has("io") { io_v2(group) } else { processes.io() };
        Measured { cpu, memory, io, pids }
    }
}

/// A file of lines `key value`.
struct Keyed(String);

impl Keyed {
    fn read(group: BorrowedFd<'_>, file: &str) -> Self {
        Self(read(group, file).unwrap_or_default())
    }

    fn get(&self, key: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

fn number(group: BorrowedFd<'_>, file: &str) -> Option<u64> {
    read(group, file).ok()?.trim().parse().ok()
}

fn cpu_v2(group: BorrowedFd<'_>) -> CpuUsage {
    let stat = Keyed::read(group, "cpu.stat");
    let usage_us = stat.get("usage_usec");
    CpuUsage {
        usage_us,
        user_us: stat.get("user_usec"),
        system_us: stat.get("system_usec"),
        throttled_us: stat.get("throttled_usec"),
        limit_millis: None,
        source: usage_us.map(|_| V2.to_owned()),
    }
}

fn memory_v2(group: BorrowedFd<'_>) -> MemoryUsage {
    let (stat, events) = (Keyed::read(group, "memory.stat"), Keyed::read(group, "memory.events"));
    let shared_bytes = stat.get("shmem");
    MemoryUsage {
        current_bytes: number(group, "memory.current"),
        // Since Linux 5.19.
        peak_bytes: number(group, "memory.peak"),
        swap_bytes: number(group, "memory.swap.current"),
        anonymous_bytes: stat.get("anon"),
        // It counts shared memory as files.
        file_bytes: stat.get("file").map(|file| file.saturating_sub(shared_bytes.unwrap_or(0))),
        shared_bytes,
        kernel_bytes: kernel_v2(&stat),
        oom_kills: events.get("oom_kill"),
        limit_bytes: None,
        source: Some(V2.to_owned()),
    }
}

/// One number since Linux 5.18, and its parts before.
fn kernel_v2(stat: &Keyed) -> Option<u64> {
    let sockets = stat.get("sock").unwrap_or(0);
    let parts = || ["kernel_stack", "pagetables", "percpu", "slab"].iter().filter_map(|part| stat.get(part));
    let kernel = stat.get("kernel").or_else(|| parts().next().map(|_| parts().sum()));
    kernel.map(|kernel| kernel + sockets)
}

fn memory_v1(group: BorrowedFd<'_>) -> MemoryUsage {
    let (stat, oom) = (Keyed::read(group, "memory.stat"), Keyed::read(group, "memory.oom_control"));
    let shared_bytes = stat.get("total_shmem");
    MemoryUsage {
        current_bytes: number(group, "memory.usage_in_bytes"),
        peak_bytes: number(group, "memory.max_usage_in_bytes"),
        swap_bytes: stat.get("total_swap"),
        anonymous_bytes: stat.get("total_rss"),
        file_bytes: stat.get("total_cache").map(|cache| cache.saturating_sub(shared_bytes.unwrap_or(0))),
        shared_bytes,
        kernel_bytes: number(group, "memory.kmem.usage_in_bytes"),
        oom_kills: oom.get("oom_kill"),
        limit_bytes: None,
        source: Some(V1.to_owned()),
    }
}

/// Lines `MAJOR:MINOR key=value …`, one per disk; a disk below another one (a partition, an encrypted one) is not
/// counted twice by the kernel.
fn io_v2(group: BorrowedFd<'_>) -> IoUsage {
    let text = read(group, "io.stat").unwrap_or_default();
    let sum = |key: &str| {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.filter(|(found, _)| *found == key).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    };
    IoUsage {
        read_bytes: Some(sum("rbytes")),
        written_bytes: Some(sum("wbytes")),
        read_operations: Some(sum("rios")),
        write_operations: Some(sum("wios")),
        source: Some(V2.to_owned()),
    }
}

fn pids(group: BorrowedFd<'_>, source: &str) -> PidsUsage {
    PidsUsage {
        current: number(group, "pids.current"),
        // Since Linux 6.1, and later where it is v1.
        peak: number(group, "pids.peak"),
        limit: None,
        source: Some(source.to_owned()),
    }
}

/// The processes of a sandbox, found when something is counted by them.
struct Members<'a> {
    group: BorrowedFd<'a>,
    pids: Option<Vec<u32>>,
}

impl<'a> Members<'a> {
    fn new(group: BorrowedFd<'a>) -> Self {
        Self { group, pids: None }
    }

    /// Lines of a file in the sandbox's group and in its commands'.
    fn lines(&self, file: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let leaves = subdirectories(self.group).into_iter().map(|leaf| format!("{leaf}/{file}"));
        for path in std::iter::once(file.to_owned()).chain(leaves) {
            // One that has ended in the meantime has none.
            let text = read(self.group, &path).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        found
    }

    fn pids(&mut self) -> Option<&[u32]> {
        let pids = self.pids.take().unwrap_or_else(|| self.lines("cgroup.procs"));
        let pids = self.pids.insert(pids);
        (pids.len() <= PROCESSES_MAX).then_some(pids)
    }

    fn count(&self) -> PidsUsage {
        let current = u64::try_from(self.lines("cgroup.threads").len()).ok();
        PidsUsage { current, peak: None, limit: None, source: Some(PROCESSES.to_owned()) }
    }

    fn memory(&mut self) -> MemoryUsage {
        let Some(pids) = self.pids() else { return MemoryUsage::default() };
        let (mut resident, mut shared) = (0, 0);
        for pid in pids {
            // proc_pid_statm(5): size, resident, shared, in pages.
            let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            let mut fields = text.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
            resident += fields.nth(1).unwrap_or(0);
            shared += fields.next().unwrap_or(0);
        }
        let bytes = |pages: u64| Some(pages.saturating_mul(rustix::param::page_size() as u64));
        MemoryUsage {
            current_bytes: bytes(resident),
            anonymous_bytes: bytes(resident.saturating_sub(shared)),
            source: Some(PROCESSES.to_owned()),
            ..MemoryUsage::default()
        }
    }

    fn io(&mut self) -> IoUsage {
        let Some(pids) = self.pids() else { return IoUsage::default() };
        let (mut read_bytes, mut written_bytes, mut counted) = (0, 0, false);
        for pid in pids {
            // proc_pid_io(5). A kernel without it has no such file.
            let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/io")) else { continue };
            let field = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse::<u64>().ok())
            };
            let (read, written, cancelled) =
                (field("read_bytes"), field("write_bytes"), field("cancelled_write_bytes"));
            read_bytes += read.unwrap_or(0);
            written_bytes += written.unwrap_or(0).saturating_sub(cancelled.unwrap_or(0));
            counted = true;
        }
        if !counted {
            return IoUsage::default();
        }
        IoUsage {
            read_bytes: Some(read_bytes),
            written_bytes: Some(written_bytes),
            read_operations: None,
            write_operations: None,
            source: Some(PROCESSES.to_owned()),
        }
    }
}
