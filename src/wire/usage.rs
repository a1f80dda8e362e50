//! What a sandbox uses, as numbers of the kernel. What it does not count here is absent.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One reading of a sandbox that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Processor time.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Disk traffic.
    pub io: IoUsage,
    /// Processes and threads.
    pub pids: PidsUsage,
}

/// Processor time since the sandbox was started last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CpuUsage {
    /// Altogether, in microseconds.
    pub usage_us: Option<u64>,
    /// In user mode.
    pub user_us: Option<u64>,
    /// In the kernel.
    pub system_us: Option<u64>,
    /// For how long it was kept from running by its limit.
    pub throttled_us: Option<u64>,
    /// In thousandths of a processor.
    pub limit_millis: Option<u64>,
    /// What counts: `cgroup-v2` or `cgroup-v1`.
    pub source: Option<String>,
}

/// Memory now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryUsage {
    /// All that counts against the limit, files that the kernel keeps for later included.
    pub current_bytes: Option<u64>,
    /// The most that it was since the sandbox was started last.
    pub peak_bytes: Option<u64>,
    /// Written out to swap.
    pub swap_bytes: Option<u64>,
    /// Memory of programs.
    pub anonymous_bytes: Option<u64>,
    /// Contents of files, which the kernel can forget.
    pub file_bytes: Option<u64>,
    /// Shared memory and files in /dev/shm.
    pub shared_bytes: Option<u64>,
    /// The kernel's own, on the sandbox's behalf: page tables, stacks, buffers of sockets.
    pub kernel_bytes: Option<u64>,
    /// Processes killed because the limit was reached.
    pub oom_kills: Option<u64>,
    /// The limit.
    pub limit_bytes: Option<u64>,
    /// What counts: `cgroup-v2`, `cgroup-v1`, or `processes`: their resident memory added up, in which what two of them
    /// share is twice.
    pub source: Option<String>,
}

/// Disk traffic since the sandbox was started last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IoUsage {
    /// Read from the disk.
    pub read_bytes: Option<u64>,
    /// Written to it, or to be.
    pub written_bytes: Option<u64>,
    /// Read operations.
    pub read_operations: Option<u64>,
    /// Write operations.
    pub write_operations: Option<u64>,
    /// What counts: `cgroup-v2`, or `processes`: theirs and those of the ended ones that were waited for.
    pub source: Option<String>,
}

/// Processes and threads now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PidsUsage {
    /// Now, two of the sandbox's own included.
    pub current: Option<u64>,
    /// The most since the sandbox was started last.
    pub peak: Option<u64>,
    /// The limit.
    pub limit: Option<u64>,
    /// What counts: `cgroup-v2`, `cgroup-v1` or `processes`.
    pub source: Option<String>,
}

/// What a sandbox's own files take on disk, those of its image not included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskUsage {
    /// Bytes.
    pub used_bytes: u64,
    /// Files, directories and links.
    pub files: u64,
    /// Whether all of it was seen: not when it is nested too deep or counting it took too long.
    pub complete: bool,
    /// The limit on bytes.
    pub limit_bytes: Option<u64>,
    /// The limit on files.
    pub limit_files: Option<u64>,
    /// What counts: `project-quota`, `tmpfs`, or `files`: each was looked at.
    pub source: String,
}

impl DiskUsage {
    /// Nothing yet, counted so.
    pub fn of(source: &str) -> Self {
        Self { source: source.to_owned(), ..Self::default() }
    }
}
