//! The growing file tree in memory, where the machine has enough of it.
//!
//! A build writes and removes tens of thousands of small files that nobody keeps. On a busy disk that is
//! most of its time (measured: a minute for the removal alone), in memory next to nothing.
//!
//! Invariants: the mount lives in a mount namespace of the building thread and of what it starts, so it is
//! gone with the process, however that ends; without enough memory the tree simply lies on disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::images::Stage;

/// What stays free for the rest of the machine.
const RESERVE_BYTES: u64 = 1024 * 1024 * 1024;

/// A mounted tmpfs. Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Tree {
    place: PathBuf,
}

impl Tree {
    /// Mounts an empty file system on `place` if the stages fit into the machine's free memory.
    /// `None` means that the tree lies on disk.
    ///
    /// # Errors
    /// When a mount fails although namespaces are allowed.
    pub(crate) fn mount(place: &Path, stages: &[Stage]) -> Result<Option<Self>> {
        let needed: u64 = stages.iter().map(|stage| stage.tree_bytes_max()).sum();
        if available_bytes() < needed + RESERVE_BYTES {
            return Ok(None);
        }
        // Of this thread and the processes it starts; other threads do not look at the tree.
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            return Ok(None);
        }
        let nothing: Option<&str> = None;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("make mounts private")?;
        let options = format!("mode=0755,size={needed}");
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("mount a file system in memory on {}", place.display()))?;
        Ok(Some(Self { place: place.to_owned() }))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

/// The least of what the kernel and the control groups leave, 0 when unknown.
fn available_bytes() -> u64 {
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_available(&text));
    // Of the group in whose namespace we are, version 2 and 1. A group without a limit says `max`, or a
    // number beyond any memory.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits =
        limits.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    limits.chain([free.unwrap_or(0)]).min().unwrap_or(0)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemFree:        1 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(parse_available(text), Some(23_000_000 * 1024));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    }
}
