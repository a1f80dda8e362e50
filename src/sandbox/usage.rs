//! What sandboxes use, read when somebody asks. Nothing is woken for it, and asking is no use of a sandbox.
//!
//! What this host does not count is absent, and `unmeasured` says why. Files are counted for those who ask for it
//! where the file system does not know: that is a walk over all of them, for which there is a bound per daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use utoipa::ToSchema;

use super::{Caller, Sandbox, Sandboxes, State};
use crate::error::Error;
use crate::id::SandboxId;
use crate::wire;
use crate::wire::launch::{Answer, Call, Limit};
use crate::wire::usage::{CpuUsage, DiskUsage, IoUsage, Measured, MemoryUsage, PidsUsage};

/// Sandboxes whose files are counted at the same time.
pub(super) const COUNTING_MAX: usize = 2;

/// Longer than launch lets a walk take.
const COUNTED: Duration = Duration::from_secs(40);

/// What a sandbox uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxStats {
    /// Which.
    pub id: String,
    /// Whether it runs. One that does not uses nothing but its disk.
    pub state: State,
    /// When this was read (RFC 3339).
    pub at: String,
    /// Processor time since it was started last.
    pub cpu: CpuUsage,
    /// Memory now.
    pub memory: MemoryUsage,
    /// Disk traffic since it was started last.
    pub io: IoUsage,
    /// Processes and threads now.
    pub pids: PidsUsage,
    /// What its own files take on disk.
    pub disk: Option<DiskUsage>,
    /// What went through the gateway since it was started last.
    pub network: Option<NetworkUsage>,
    /// What of all this is not known, and why.
    pub unmeasured: Vec<Unmeasured>,
}

/// What went through the gateway. Nothing else leaves a sandbox; what its processes say to each other is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkUsage {
    /// Bytes out of the sandbox.
    pub sent_bytes: u64,
    /// Bytes into it.
    pub received_bytes: u64,
    /// Connections that are open.
    pub connections_open: u64,
    /// Connections and requests that were allowed.
    pub allowed: u64,
    /// Those that were refused, questions for names included.
    pub denied: u64,
}

/// A number that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unmeasured {
    /// Its name in the answer, or that of the group that it belongs to.
    #[schema(example = "memory.peak_bytes")]
    pub field: String,
    /// Why.
    pub why: String,
}

impl Sandboxes {
    /// What a sandbox uses; with what its files take on disk if that is wanted.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn stats(&self, caller: &Caller, id: &SandboxId, disk: bool) -> Result<SandboxStats, Error> {
        let sandbox = self.get(caller, id)?;
        Ok(self.measure(&sandbox, disk).await)
    }

    /// What all sandboxes use that the caller may see, by id.
    pub async fn stats_of_all(&self, caller: &Caller, disk: bool) -> Vec<SandboxStats> {
        let mut all = Vec::new();
        for sandbox in self.list(caller) {
            all.push(self.measure(&sandbox, disk).await);
        }
        all
    }

    async fn measure(&self, sandbox: &Arc<Sandbox>, disk: bool) -> SandboxStats {
        let (id, state) = (sandbox.facts.id.clone(), sandbox.state());
        let runs = matches!(state, State::Running | State::Paused);
        let measured = if runs { self.measured(&id).await } else { None };
        let limited = !super::rest::keeps_files(&sandbox.facts.plan.resources);
        let counted = if disk || (limited && runs) { self.disk(&id).await } else { None };
        let network = if runs { Some(self.through_gateway(&id).await) } else { None };
        let unmeasured = unmeasured(runs, measured.as_ref(), (disk || limited, counted.as_ref()));
        let mut measured = measured.unwrap_or_default();
        let mut counted = counted;
        limit(&mut measured, counted.as_mut(), &sandbox.changing().limits);
        let Measured { cpu, memory, io, pids } = measured;
        let at = jiff::Timestamp::now().to_string();
        let id = id.to_string();
        SandboxStats { id, state, at, cpu, memory, io, pids, disk: counted, network, unmeasured }
    }

    pub(super) async fn measured(&self, id: &SandboxId) -> Option<Measured> {
        match self.0.launcher.call(Call::Usage { id: id.clone() }, &[]).await {
            Ok((Answer::Usage(measured), _)) => Some(*measured),
            // It has ended meanwhile.
            _ => None,
        }
    }

    async fn disk(&self, id: &SandboxId) -> Option<DiskUsage> {
        // Closed never.
        let _turn = self.0.counting.acquire().await.ok()?;
        let (_, mut fds) = self.0.launcher.call(Call::Disk { id: id.clone() }, &[]).await.ok()?;
        let counted = read_count(fds.pop()?);
        tokio::time::timeout(COUNTED, counted).await.ok()?
    }

    async fn through_gateway(&self, id: &SandboxId) -> NetworkUsage {
        let counters = self.told(id, 0, 0).await.counters;
        NetworkUsage {
            sent_bytes: counters.bytes_sent,
            received_bytes: counters.bytes_received,
            connections_open: counters.connections_open,
            allowed: counters.allowed,
            denied: counters.denied,
        }
    }
}

async fn read_count(fd: OwnedFd) -> Option<DiskUsage> {
    rustix::io::ioctl_fionbio(&fd, true).ok()?;
    let mut bytes = Vec::new();
    pipe::Receiver::from_owned_fd(fd).ok()?.take(4096).read_to_end(&mut bytes).await.ok()?;
    wire::decode(&bytes).ok()
}

/// Puts limits beside what they are about.
fn limit(
    measured: &mut Measured,
    disk: Option<&mut DiskUsage>,
    limits: &std::collections::BTreeMap<String, Limit>,
) {
    let of = |name: &str| limits.get(name).and_then(|limit| limit.value);
    measured.cpu.limit_millis = of("cpu_millis");
    measured.memory.limit_bytes = of("memory_bytes");
    measured.pids.limit = of("pids");
    if let Some(disk) = disk {
        (disk.limit_bytes, disk.limit_files) = (of("disk_bytes"), of("disk_files"));
    }
}

/// What is not known, and why.
fn unmeasured(
    runs: bool,
    measured: Option<&Measured>,
    (wanted, disk): (bool, Option<&DiskUsage>),
) -> Vec<Unmeasured> {
    let mut all = Vec::new();
    let mut say = |field: &str, why: &str| {
        all.push(Unmeasured { field: field.to_owned(), why: why.to_owned() });
    };
    match (runs, measured) {
        (false, _) | (true, None) => {
            for field in ["cpu", "memory", "io", "pids", "network"] {
                say(field, "it does not run");
            }
        }
        (true, Some(measured)) => {
            for (field, why) in absent(measured) {
                say(field, why);
            }
        }
    }
    match (wanted, disk) {
        (false, _) => say("disk", "its files are counted when the request says disk=true"),
        (true, None) => say("disk", "its files could not be counted"),
        (true, Some(disk)) if !disk.complete => say(
            "disk.used_bytes",
            "not all files were seen: they are nested too deep, or there are too many of them",
        ),
        (true, Some(_)) => {}
    }
    all
}

/// What a reading lacks.
fn absent(measured: &Measured) -> Vec<(&'static str, &'static str)> {
    const CONTROLLER: &str = "no control group of its own counts it on this host";
    const KERNEL: &str = "this kernel does not count it";
    let Measured { cpu, memory, io, pids } = measured;
    let by_processes = |source: &Option<String>| source.as_deref() == Some("processes");
    let why = |source: &Option<String>| if by_processes(source) { CONTROLLER } else { KERNEL };
    let fields = [
        ("cpu.usage_us", cpu.usage_us, KERNEL),
        (
            "cpu.throttled_us",
            cpu.throttled_us,
            "it has no limit on processor time, or no controller counts it",
        ),
        ("memory.current_bytes", memory.current_bytes, "it has too many processes to add them up"),
        ("memory.peak_bytes", memory.peak_bytes, why(&memory.source)),
        ("memory.swap_bytes", memory.swap_bytes, why(&memory.source)),
        ("memory.anonymous_bytes", memory.anonymous_bytes, why(&memory.source)),
        ("memory.file_bytes", memory.file_bytes, why(&memory.source)),
        ("memory.shared_bytes", memory.shared_bytes, why(&memory.source)),
        ("memory.kernel_bytes", memory.kernel_bytes, why(&memory.source)),
        ("memory.oom_kills", memory.oom_kills, why(&memory.source)),
        (
            "io.read_bytes",
            io.read_bytes,
            "no controller counts it, and it has too many processes to add them up",
        ),
        (
            "io.written_bytes",
            io.written_bytes,
            "no controller counts it, and it has too many processes to add them up",
        ),
        ("io.read_operations", io.read_operations, CONTROLLER),
        ("io.write_operations", io.write_operations, CONTROLLER),
        ("pids.current", pids.current, KERNEL),
        ("pids.peak", pids.peak, why(&pids.source)),
    ];
    let absent = fields.into_iter().filter(|(_, value, _)| value.is_none());
    absent.map(|(field, _, why)| (field, why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_said_and_what_is_known_is_not() {
        let nothing = unmeasured(true, Some(&Measured::default()), (true, Some(&DiskUsage::default())));
        let fields: Vec<_> = nothing.iter().map(|one| one.field.as_str()).collect();
        for field in
            ["cpu.usage_us", "memory.peak_bytes", "io.read_operations", "pids.peak", "disk.used_bytes"]
        {
            assert!(fields.contains(&field), "{field}");
        }
        let measured = Measured {
            pids: PidsUsage { current: Some(1), peak: Some(1), ..PidsUsage::default() },
            ..Measured::default()
        };
        let some = unmeasured(true, Some(&measured), (false, None));
        assert!(some.iter().all(|one| !one.field.starts_with("pids")), "{some:?}");
        assert_eq!(some.last().map(|one| one.field.as_str()), Some("disk"));
        let stopped = unmeasured(false, None, (true, None));
        assert_eq!(stopped.len(), 6, "{stopped:?}");
    }
}
