//! Limits of a sandbox, as people write them.

use clap::Args;

use super::quantity::{self, Cpus, Size};
use crate::api::schema::ResourceLimits;

/// What a sandbox may use.
#[derive(Args, Debug, Default)]
pub struct Limits {
    /// Memory: 512m, 2g.
    #[arg(long, short, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    pub memory: Option<Size>,
    /// Swap, beside memory.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    pub swap: Option<Size>,
    /// Processes and threads.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub pids: Option<u64>,
    /// Processors: 1.5 is one and a half.
    #[arg(long, value_name = "N", value_parser = quantity::cpus, help_heading = "Limits")]
    pub cpus: Option<Cpus>,
    /// Share of the processors under contention, 1 to 10000 [default: 100].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub cpu_weight: Option<u64>,
    /// What its files may take on disk.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    pub disk: Option<Size>,
    /// How many files it may have.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub disk_files: Option<u64>,
    /// Size of /dev/shm, which counts as memory.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    pub tmpfs: Option<Size>,
    /// Reading from disk, per second.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    pub io_read: Option<Size>,
    /// Writing to disk, per second.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Limits")]
    pub io_write: Option<Size>,
    /// Read operations per second.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub io_read_ops: Option<u64>,
    /// Write operations per second.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub io_write_ops: Option<u64>,
}

impl From<Limits> for ResourceLimits {
    fn from(limits: Limits) -> Self {
        Self {
            memory_bytes: limits.memory,
            swap_bytes: limits.swap,
            pids: limits.pids,
            cpus: limits.cpus,
            cpu_weight: limits.cpu_weight,
            io_read_bytes_per_second: limits.io_read,
            io_write_bytes_per_second: limits.io_write,
            io_read_operations_per_second: limits.io_read_ops,
            io_write_operations_per_second: limits.io_write_ops,
            disk_bytes: limits.disk,
            disk_files: limits.disk_files,
            tmpfs_bytes: limits.tmpfs,
        }
    }
}
