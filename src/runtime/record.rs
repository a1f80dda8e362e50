//! What the launcher writes down about a running sandbox, so that the next launcher can adopt it.
//!
//! The record names a process by pid, start time and boot, which no other process can have at once. It lies in the
//! runtime directory, 0700 root's, and is written last: a sandbox without one is half-made and is removed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::wire::launch::{Plan, Running};

/// One running sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// As answered.
    pub running: Running,
    /// Its slot.
    pub slot: u32,
    /// Names of the layers under it: they must stay.
    pub plan: Plan,
    /// The agent's start, in clock ticks since boot (proc_pid_stat(5), field 22).
    started: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    boot: String,
}

const FILE: &str = "record";

impl Record {
    /// A record of a sandbox that runs now. `started` is the agent's [`start_time`].
    ///
    /// # Errors
    /// When /proc does not know the boot's name.
    pub fn new(running: Running, started: u64, slot: u32, plan: Plan) -> io::Result<Self> {
        Ok(Self { running, slot, plan, started, boot: boot()? })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// As open(2), write(2) and rename(2).
    pub fn write(&self, place: &Path) -> io::Result<()> {
        let bytes = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let draft = place.join("record.new");
        std::fs::write(&draft, bytes)?;
        std::fs::rename(draft, place.join(FILE))
    }

    /// Takes away the record of a sandbox that is not to be adopted any more.
    pub fn remove(place: &Path) {
        // One that is not there, in a directory of the launcher's own on a tmpfs, is as good as removed.
        let _ = std::fs::remove_file(place.join(FILE));
    }

    /// Reads the record of a sandbox and finds its agent, if that very process still lives.
    pub fn adopt(place: &Path) -> Option<(Self, OwnedFd)> {
        let bytes = std::fs::read(place.join(FILE)).ok()?;
        let record: Self = postcard::from_bytes(&bytes).ok()?;
        let pid = Pid::from_raw(record.running.pid)?;
        // First the handle, then the check: what is checked is then what the handle holds.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let same = start_time(record.running.pid).ok()? == record.started && boot().ok()? == record.boot;
        same.then_some((record, pidfd))
    }
}

/// The name of the host's present boot.
///
/// # Errors
/// When /proc does not know it.
pub fn boot() -> io::Result<String> {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot.clone());
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| boot).clone())
}

/// When a process was started, in clock ticks since boot.
///
/// # Errors
/// When /proc does not know it.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything, so fields are counted after the last one.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    after_name
        .and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok())
        .ok_or_else(|| io::Error::other("no start time in /proc/PID/stat"))
}
