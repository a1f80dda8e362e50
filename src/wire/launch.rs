//! serve ⇄ launch: the few things that need privilege, as fixed, typed requests.
//!
//! launch answers every request once, under the request's number, in any order. Paths never cross: layers are
//! named by digest, sandboxes by id, and everything else is a descriptor.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Digest, SandboxId, SnapshotId};
use crate::wire::gateway::{Network, Policy};
use crate::wire::mount::MountCall;
use crate::wire::unpack::UnpackJob;
use crate::wire::usage::Measured;

/// A request and the number its reply will carry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by serve, unique among the open ones, those of a serve before this one too.
    pub number: u64,
    /// What to do.
    pub call: Call,
}

/// What serve can ask of launch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Call {
    /// Make a sandbox. Comes with the file of its policy's secrets, if there are some. The reply carries one
    /// descriptor: a connection to its agent.
    Create(Box<Plan>),
    /// Kill a sandbox and remove everything of it, or finish doing so. Not an error when there is none.
    Destroy {
        /// Which.
        id: SandboxId,
    },
    /// Kill a sandbox and keep its files. The reply comes when they are on the disk; those in a tmpfs are lost.
    Stop {
        /// Which.
        id: SandboxId,
    },
    /// Freeze everything in a running sandbox but its agent.
    Pause {
        /// Which.
        id: SandboxId,
    },
    /// Let it go on.
    Resume {
        /// Which.
        id: SandboxId,
    },
    /// Whether something in it is frozen.
    Paused {
        /// Which.
        id: SandboxId,
    },
    /// Kill a running sandbox whose agent serve cannot speak to any more, and keep its files. The reply does not wait for
    /// its end. Not an error when it is gone already, or another run of it has begun.
    GiveUp {
        /// Which.
        id: SandboxId,
        /// The agent's pid in that run.
        pid: i32,
    },
    /// Make a sandbox again of the files that a stopped one has left. The reply is that of `Create`.
    Wake(Box<Plan>),
    /// Connect to the agent of a running sandbox. The reply carries the connection.
    Connect {
        /// Which.
        id: SandboxId,
    },
    /// Sandboxes whose agents live, in order of their names, so many as one answer holds.
    List {
        /// Those after this one; from the first when absent.
        after: Option<SandboxId>,
    },
    /// Start a fetch process. The reply carries its control socket.
    Fetch,
    /// Unpack a blob as a layer. Comes with two descriptors: the blob, open for reading at its start, and the
    /// writing end of a pipe on which the worker puts the number of compressed bytes consumed, 8 bytes
    /// little-endian each time. The reply comes when the layer is in the store for good.
    Unpack(UnpackJob),
    /// Remove layers that nothing uses. launch refuses those under a running sandbox.
    RemoveLayers {
        /// Which.
        diff_ids: Vec<Digest>,
    },
    /// Layers in the store, in order of their digests, so many as one answer holds.
    Layers {
        /// Those after this one; from the first when absent.
        after: Option<Digest>,
    },
    /// Keep the files of a sandbox as they are now, under this name. One that runs is frozen meanwhile.
    Save {
        /// Which sandbox.
        id: SandboxId,
        /// The name, which nothing has yet.
        snapshot: SnapshotId,
        /// Whether the answer waits for the disk, and says how much it is.
        lasting: bool,
    },
    /// End a sandbox, if it runs; its files are from then on those that were saved under this name.
    Restore {
        /// Which sandbox.
        id: SandboxId,
        /// The name.
        snapshot: SnapshotId,
    },
    /// Remove saved files that no snapshot and no sandbox needs any more.
    Collect,
    /// How many processes of a running sandbox the kernel has killed for want of memory.
    OomKills {
        /// Which.
        id: SandboxId,
    },
    /// What a running sandbox uses now, its disk apart.
    Usage {
        /// Which.
        id: SandboxId,
    },
    /// What the files of a sandbox take on disk, whether it runs or not. The reply carries a pipe from which a
    /// [`DiskUsage`](crate::wire::usage::DiskUsage) comes when it is counted.
    Disk {
        /// Which.
        id: SandboxId,
    },
    /// Give a running sandbox other limits: all that it is to have. Those on its files stay.
    Limit {
        /// Which.
        id: SandboxId,
        /// Its limits.
        resources: Box<Resources>,
    },
    /// Let something else leave a running sandbox from now on, or, without a policy, say what may. The file of the
    /// policy's secrets, if there are some, comes with the call, and with the answer.
    Network {
        /// Which.
        id: SandboxId,
        /// What may leave it.
        policy: Option<Box<Policy>>,
    },
    /// Connect to the gateway. The reply carries the connection; there is none before a sandbox needs one.
    Gateway,
    /// Do something with a mount of a sandbox.
    Mount {
        /// Which sandbox.
        id: SandboxId,
        /// The mount's number in it.
        mount: u32,
        /// What.
        call: MountCall,
    },
    /// The operator's own credentials for buckets. The reply carries a file: of profiles, or of variables of the daemon's
    /// environment.
    Keys {
        /// Which of the two.
        profiles: bool,
    },
    /// A token that those credentials name as their `web_identity_token_file`. The reply carries the file.
    IdentityToken {
        /// Which of the two names it.
        profiles: bool,
        /// Its path, as it is written there.
        path: String,
    },
    /// serve answers requests: systemd may be told.
    Ready,
}

/// How a layer's blob is compressed (OCI image specification, layer.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Plain tar.
    None,
    /// RFC 1952; several members may follow each other.
    Gzip,
    /// RFC 8878; several frames may follow each other.
    Zstd,
}

/// A sandbox to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub id: SandboxId,
    /// What its root file system shows.
    pub root: Root,
    /// Host name inside.
    pub hostname: String,
    /// System call profile and what else it relaxes or tightens.
    pub profile: Profile,
    /// Limits.
    pub resources: Resources,
    /// Whether its files must survive a crash of the host.
    pub durability: Durability,
    /// Directories to make when they are missing, mode 0755, owned by in-sandbox root: the working directory.
    pub directories: Vec<String>,
    /// What may leave it; nothing when absent.
    pub network: Option<Policy>,
    /// The saved files that its own began as.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
    /// The sandbox whose network's secrets it begins with.
    #[serde(default)]
    pub parent: Option<SandboxId>,
}

/// What a root file system is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The host's own /usr, read-only, under a fresh /etc.
    Host,
    /// Layers of an image, the lowest first.
    Layers(Vec<Digest>),
}

/// Isolation profile (security.md §1.5): `hardened` < `default` < `compat` in what the kernel offers inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What ordinary programs need, and no more.
    #[default]
    Default,
    /// Less: no splice family, no IPv6, no asynchronous I/O.
    Hardened,
    /// More: for programs that `default` breaks; each relaxation is named in `isolation.relaxations`.
    Compat,
}

/// Whether files survive a crash of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The overlay is mounted `volatile`: fsync does nothing, destroying does not wait for the disk. Files
    /// survive the daemon, not a crash of the host.
    #[default]
    Volatile,
    /// fsync means what it says.
    Durable,
}

/// Limits of a sandbox. Absent means unlimited, and is said so in what the API reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory, kernel memory included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap, in bytes.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processor time in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Share under contention, 1–10,000 (cgroup v2 `cpu.weight`).
    pub cpu_weight: Option<u64>,
    /// Reading from the device under the sandbox's files, bytes per second.
    pub io_read_bytes_per_second: Option<u64>,
    /// Writing to it, bytes per second.
    pub io_write_bytes_per_second: Option<u64>,
    /// Read operations per second.
    pub io_read_operations_per_second: Option<u64>,
    /// Write operations per second.
    pub io_write_operations_per_second: Option<u64>,
    /// Bytes that its files may take on disk.
    pub disk_bytes: Option<u64>,
    /// Files that it may have.
    pub disk_files: Option<u64>,
    /// Bytes of /dev/shm, charged to the sandbox's memory.
    pub tmpfs_bytes: u64,
}

/// The reply to the request of the same number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub number: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// What launch answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The sandbox runs, and this is what the kernel says of it.
    Created(Box<Running>),
    /// Done.
    Done,
    /// The descriptor is attached.
    Connected,
    /// Some of the sandboxes whose agents live; none is the end of the list.
    Sandboxes(Vec<Running>),
    /// The layer is in the store.
    Unpacked(LayerStats),
    /// Some of the layers in the store; none is the end of the list.
    Layers(Vec<Digest>),
    /// The count; absent when the sandbox is gone or no control group of its own counts memory.
    OomKills(Option<u64>),
    /// What it uses.
    Usage(Box<Measured>),
    /// The limits of its control groups as the kernel has them now.
    Limits(BTreeMap<String, Limit>),
    /// Whether it is paused.
    Paused(bool),
    /// Those of the layers asked for that are gone now.
    Removed(Vec<Digest>),
    /// What may leave the sandbox.
    Network(Box<Policy>),
    /// The files are kept.
    Saved(Saved),
}

/// What was kept of a sandbox's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Bytes that they take on the disk, before what they share with others is taken off.
    pub bytes: u64,
    /// Files, directories and links that differ from what is below them.
    pub entries: u64,
    /// How they were kept.
    pub method: SaveMethod,
}

/// How files were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SaveMethod {
    /// The sandbox did not run: its files became a layer below it and everybody else who is made of them.
    #[default]
    Stacked,
    /// File by file, and each shares its content (reflinks).
    Reflink,
    /// File by file.
    Copied,
    /// One directory, in an archive.
    Archived,
}

/// What an unpacked layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStats {
    /// Bytes of file content.
    pub content_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// A running sandbox, as launch and the kernel know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its name.
    pub id: SandboxId,
    /// The agent's pid on the host.
    pub pid: i32,
    /// What it really got.
    pub isolation: Isolation,
}

/// What a sandbox really got, read back from the kernel after it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Isolation {
    /// The profile.
    pub profile: Profile,
    /// Namespace inode numbers by kind (`/proc/PID/ns`), none of them the host's.
    pub namespaces: BTreeMap<String, u64>,
    /// First host uid and gid of the sandbox's range.
    pub host_id_first: u32,
    /// Length of the range.
    pub host_id_count: u32,
    /// `no_new_privs` of the processes that commands come from.
    pub no_new_privs: bool,
    /// Seccomp mode of the same: 2 is a filter.
    pub seccomp_mode: u32,
    /// Landlock ABI that is enforced.
    pub landlock_abi: u32,
    /// Capabilities that in-sandbox root can have; other users have none.
    pub root_capabilities: Vec<String>,
    /// Limit by name: what is enforced, and by what.
    pub limits: BTreeMap<String, Limit>,
    /// Where the writable files are: `directory`, `tmpfs` or `loop`.
    pub storage: String,
    /// Whether they survive a crash of the host.
    pub durability: Durability,
    /// What this profile allows beyond `default`, in words.
    pub relaxations: Vec<String>,
}

/// One limit as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    /// The value read back; absent means unlimited.
    pub value: Option<u64>,
    /// What enforces it: `cgroup-v2`, `cgroup-v1`, `tmpfs`, `project-quota`, `loop`, or `none`.
    pub enforced_by: String,
}

/// Why launch could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct Failure {
    /// Which kind, for the code that the client sees.
    pub kind: FailureKind,
    /// The operation and the noun: "mount overlay", "write memory.max".
    pub what: String,
    /// errno in words, or the worker's reason.
    pub detail: String,
}

/// Kinds of failure that differ in what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is one of that name.
    Exists,
    /// There is no sandbox of that name that runs.
    NotFound,
    /// A layer is not in the store.
    LayerMissing,
    /// There are no saved files of that name.
    SnapshotMissing,
    /// The host cannot enforce this limit.
    LimitUnsupported,
    /// The host lacks a feature.
    HostUnsupported,
    /// No ids, disk, descriptors or processes left.
    Capacity,
    /// The layer's bytes are not what they must be.
    LayerInvalid,
    /// What is to be limited is more than that already.
    InUse,
    /// A directory of the plan cannot be made in this image.
    DirectoryInvalid,
    /// The path cannot be mounted on.
    MountPointInvalid,
    /// Something is mounted on the path.
    MountPointBusy,
    /// A directory of the host is not to be shown in sandboxes.
    DirectoryRefused,
    /// The sandbox is stopped, and the disk did not take its files.
    Unsynced,
    /// The kernel's state differs from the plan; the sandbox was killed.
    Mismatch,
    /// Our own bug, or the host's.
    Internal,
}

/// Everything launch is told when it starts: it reads neither a config file nor the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where sockets and running state live; on tmpfs for good speed.
    pub runtime_dir: String,
    /// Where images and sandboxes' files live.
    pub state_dir: String,
    /// First host id of the daemon's range; see `runtime::ids`.
    pub ids_first: u32,
    /// First slot to use: daemons that share a range of ids start at different ones.
    pub slot_first: u32,
    /// The API socket's path, unless a listening socket was inherited.
    pub socket: String,
    /// Group that may connect, beside root.
    pub socket_gid: Option<u32>,
    /// Group whose members see and control everything.
    pub operator_gid: Option<u32>,
    /// How much each user may have.
    pub quotas: Quotas,
    /// Limits of sandboxes that do not say; 0 is "no limit".
    pub default_memory_bytes: u64,
    /// See `default_memory_bytes`.
    pub default_pids: u64,
    /// Bytes of /dev/shm of sandboxes that do not say.
    pub default_tmpfs_bytes: u64,
    /// Refuse to start when a default limit cannot be enforced.
    pub require_limits: bool,
    /// Addresses that are not public and that policies may name all the same.
    pub open_networks: Vec<Network>,
    /// Name servers for sandboxes; those of the host's resolv.conf when empty.
    pub resolvers: Vec<SocketAddr>,
    /// Certificates that the gateway trusts beside the host's, in PEM.
    pub ca_pem: String,
    /// Directory of the sockets that policies may name as handlers.
    pub handlers: String,
    /// Path of systemd's notification socket, if any.
    pub notify_socket: Option<String>,
    /// Log filter: `level`, or `target=level` with commas between (`tracing_subscriber::filter::Targets`).
    pub log: String,
    /// Log as JSON lines.
    pub log_json: bool,
    /// End when the caller's end of this private daemon's socket closes: `stockade run` without a daemon.
    pub private: bool,
    /// Exposed ports, for browsers.
    pub preview: PreviewSettings,
    /// What sandboxes may mount.
    pub mounts: MountSettings,
}

/// What sandboxes may mount beside buckets whose credentials come with the request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MountSettings {
    /// Directories of the host, and all below them.
    pub directories: Vec<String>,
    /// A file of profiles with credentials.
    pub credentials_file: Option<String>,
    /// Whether the daemon's own environment had credentials to give away.
    pub environment: bool,
}

/// How much users may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// Everybody who is not named, root apart.
    pub everybody: Quota,
    /// By uid.
    pub users: BTreeMap<u32, Quota>,
}

impl Quotas {
    /// What this user may have. Root, unless it is named, as much as there is.
    pub fn of(&self, uid: u32) -> Quota {
        let others = || if uid == 0 { Quota::default() } else { self.everybody.clone() };
        self.users.get(&uid).cloned().unwrap_or_else(others)
    }
}

/// How much one user may have; absent is as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Sandboxes, whatever their state.
    pub sandboxes: Option<u64>,
    /// Limits on memory of those that run, added up.
    pub memory_bytes: Option<u64>,
    /// Limits on processors of those that run, in thousandths.
    pub cpu_millis: Option<u64>,
    /// Limits on disk space of all of them.
    pub disk_bytes: Option<u64>,
    /// Snapshots.
    pub snapshots: Option<u64>,
    /// What they take on the disk.
    pub snapshot_bytes: Option<u64>,
    /// Layers of images, each once.
    pub image_bytes: Option<u64>,
}

impl Quota {
    /// The same, with what another says of what is absent.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            sandboxes: self.sandboxes.or(other.sandboxes),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            cpu_millis: self.cpu_millis.or(other.cpu_millis),
            disk_bytes: self.disk_bytes.or(other.disk_bytes),
            snapshots: self.snapshots.or(other.snapshots),
            snapshot_bytes: self.snapshot_bytes.or(other.snapshot_bytes),
            image_bytes: self.image_bytes.or(other.image_bytes),
        }
    }
}

/// Where exposed ports can be reached by browsers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PreviewSettings {
    /// What browsers see: scheme, host and port. Absent when there is no listener.
    pub url: Option<String>,
    /// Why there is none, if that is not what was asked for.
    pub missing: Option<String>,
}

/// The first message on the launcher's fd 0, put there by the process that became it. With it come the
/// descriptors that it names, in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaunchStart {
    /// The settings.
    pub settings: Settings,
    /// A socket that already listens for the API (systemd's socket activation).
    pub listener: bool,
    /// A descriptor whose end of file ends the daemon: `stockade run` without a running daemon.
    pub lifeline: bool,
    /// A TCP socket that listens for previews.
    pub previews: bool,
    /// A file with variables of the environment: credentials for buckets.
    pub keys: bool,
}

/// What serve is told when launch starts it. With it come the API's listening socket and, if the settings have a URL
/// of previews, theirs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServeStart {
    /// The same settings.
    pub settings: Settings,
    /// Uid and gid to become.
    pub uid: u32,
    /// What this host can enforce and lacks, found once by launch.
    pub host: Host,
    /// The host's present boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

/// What launch found on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Landlock ABI; 0 is none.
    pub landlock_abi: u32,
    /// Limit by name: what would enforce it here; absent ones cannot be enforced.
    pub limits: BTreeMap<String, String>,
    /// Limits that the defaults want and this host cannot enforce.
    pub unenforced: Vec<String>,
}
