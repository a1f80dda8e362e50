//! Role `launch`: the first process, the only privileged one, the parent and restarter of the others.
//!
//! Start-up, in this order: prove that there is one thread; take the settings from fd 0; give up what is never
//! needed; a mount namespace of its own; directories; control groups; shared file systems; filters; the API
//! socket; adopt what runs, remove what is half-made; start serve; loop (`runtime::requests`).
//!
//! Invariants: one thread; no network; no JSON; no configuration file and no environment; no secret, because agents
//! begin as copies of this process; no path that anybody else chose is ever resolved, but for the names of sockets in
//! the operator's directory of handlers.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet};

use super::cgroup::Cgroups;
use super::child;
use super::create::{self, Foundation};
use super::ids::Ids;
use super::storage::Enforcement;
use super::template::Templates;
use super::{requests, seccomp, trash, verify};
use crate::sys::{Errno, heap, privilege, process};
use crate::wire::agent::{Filters, Inside};
use crate::wire::launch::{Host, Profile, Settings};

/// Why the launcher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A step and what the kernel said.
    #[error("{step}")]
    Step {
        /// In words.
        step: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error>,
    },
    /// A process with threads must never fork without exec.
    #[error("the launcher has more than one thread")]
    Threads,
    /// The ids are not usable.
    #[error("the id range that starts at {0} does not fit between 65536 and 2^31")]
    Ids(u32),
    /// Another daemon uses the state directory.
    #[error("{0} is in use by another daemon")]
    Locked(PathBuf),
    /// A default limit has no controller, and the settings say that this is not acceptable.
    #[error("this host cannot enforce the default limits: {0}")]
    Limits(String),
}

fn step<E: Into<Box<dyn std::error::Error>>>(step: impl Into<String>) -> impl FnOnce(E) -> LaunchError {
    move |source| LaunchError::Step { step: step.into(), source: source.into() }
}

/// What is left of a socket's path of 108 bytes with a NUL, after `/sandboxes/`, an id of 40 and `/agent.sock`.
const RUNTIME_DIR_BYTES_MAX: usize = 107 - 11 - 40 - 11;

/// Limits that are on unless a request says otherwise.
const DEFAULT_LIMITS: [&str; 2] = ["memory_bytes", "pids"];

/// Everything the launcher holds from start to end.
#[derive(Debug)]
pub struct Launch {
    /// As given.
    pub settings: Settings,
    /// For creating sandboxes.
    pub foundation: Foundation,
    /// This program, to start roles from.
    pub program: OwnedFd,
    /// The API's listening socket: it outlives any serve.
    pub listener: OwnedFd,
    /// That of previews, if there is one.
    pub previews: Option<OwnedFd>,
    /// Whether the socket's name is ours to remove: not when systemd passed it.
    pub owns_socket: bool,
    /// What was found, for serve.
    pub host: Host,
    /// A file with the operator's credentials for buckets, unread here.
    pub keys: Option<OwnedFd>,
    /// The locks on state and runtime directory.
    _locks: [OwnedFd; 2],
}

impl Launch {
    /// Tells systemd (sd_notify(3)), if it asked.
    pub fn notify(&self, state: &str) {
        let Some(path) = &self.settings.notify_socket else { return };
        let send = || -> Result<(), Errno> {
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
                None => SocketAddrUnix::new(path.as_str())?,
            };
            rustix::net::sendto(&socket, state.as_bytes(), rustix::net::SendFlags::NOSIGNAL, &address)?;
            Ok(())
        };
        if let Err(error) = send() {
            tracing::warn!(%error, "cannot tell systemd");
        }
    }
}

/// Descriptors that the launcher begins with.
#[derive(Debug)]
pub struct Passed {
    /// A socket that listens for the API already.
    pub listener: Option<OwnedFd>,
    /// Ends the daemon when its other end closes.
    pub lifeline: Option<OwnedFd>,
    /// A socket that listens for previews.
    pub previews: Option<OwnedFd>,
    /// A file in memory with credentials for buckets, of the environment.
    pub keys: Option<OwnedFd>,
}

/// Runs the launcher until it is told to stop.
///
/// # Errors
/// When it cannot start; the caller prints why.
pub fn run(
    settings: Settings,
    Passed { listener, lifeline, previews, keys }: Passed,
    agent: fn(Inside) -> !,
) -> Result<(), LaunchError> {
    if !process::is_single_threaded() {
        return Err(LaunchError::Threads);
    }
    abort_on_panic();
    heap::keep_large_blocks_apart();
    match crate::sys::huge::move_text() {
        Ok(bytes) => tracing::debug!(bytes, "instructions are on huge pages"),
        Err(error) => tracing::debug!(%error, "instructions stay on small pages"),
    }
    if let Some(why) = &settings.preview.missing {
        tracing::warn!(why, "exposed ports cannot be reached by browsers");
    }
    let mut launch = start(settings, listener, previews, agent)?;
    launch.keys = keys;
    rustix::thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
    let fence = seccomp::role(seccomp::Role::Launch).map_err(step("compile the launcher's filter"))?;
    seccompiler::apply_filter(&fence).map_err(step("install the launcher's filter"))?;
    launch.foundation.own_filters = verify::own_filters().map_err(step("count the launcher's filters"))?;
    heap::settle();
    requests::run(launch, lifeline).map_err(step("serve requests"))
}

/// A launcher that unwound halfway would go on with half a state; the next one adopts what runs.
fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        process::exit_now(134)
    }));
}

fn start(
    settings: Settings,
    listener: Option<OwnedFd>,
    previews: Option<OwnedFd>,
    agent: fn(Inside) -> !,
) -> Result<Launch, LaunchError> {
    let ids = Ids::starting_at(settings.ids_first).ok_or(LaunchError::Ids(settings.ids_first))?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(step("open this program"))?;
    privilege::join_empty_key_ring().map_err(step("leave the key ring of whoever started this"))?;
    drop_unneeded().map_err(step("drop capabilities that the launcher never needs"))?;
    rustix::process::chdir("/").map_err(step("leave the current directory"))?;
    let (runtime, state) = (PathBuf::from(&settings.runtime_dir), PathBuf::from(&settings.state_dir));
    if runtime.as_os_str().len() > RUNTIME_DIR_BYTES_MAX {
        return Err(step("use the runtime directory")(format!(
            "its path is longer than {RUNTIME_DIR_BYTES_MAX} bytes, and sockets below it take 108 (unix(7))"
        )));
    }
    directories(&runtime, &state, ids).map_err(step("make the daemon's directories"))?;
    let locks = [lock(&state)?, lock(&runtime)?];
    own_mount_namespace(&runtime)?;
    let device = device_of(&state).map_err(step("find the disk under the state directory"))?;
    let cgroups = Cgroups::open(&group_name(&runtime), &runtime.join("cgroup"))
        .map_err(step("set up control groups"))?;
    let templates = Templates::make(&state.join("templates"), ids.store(), &runtime.join("stage"))
        .map_err(step("make shared file systems"))?;
    let disk = Enforcement::of(&state);
    let host = describe_host(&cgroups, disk);
    if settings.require_limits && !host.unenforced.is_empty() {
        return Err(LaunchError::Limits(host.unenforced.join(", ")));
    }
    let owns_socket = listener.is_none();
    let listener = match listener {
        Some(listener) => listener,
        None => listen(Path::new(&settings.socket), settings.socket_gid)?,
    };
    let foundation = Foundation {
        state,
        runtime,
        ids,
        cgroups,
        templates,
        filters: filters()?,
        host_namespaces: verify::own_namespaces().map_err(step("read the host's namespaces"))?,
        masks: child::masks(),
        own_filters: 0,
        spent: super::rootfs::Spent::default(),
        disk,
        device,
        agent,
    };
    for kind in ["sandboxes", "mounts"] {
        trash::empty(&foundation.state.join(kind));
    }
    Ok(Launch {
        settings,
        foundation,
        program,
        listener,
        previews,
        owns_socket,
        host,
        keys: None,
        _locks: locks,
    })
}

/// What the launcher needs and why: mounts and namespaces (SYS_ADMIN), files of other ids (CHOWN, DAC_OVERRIDE,
/// FOWNER, FSETID, SETFCAP through the overlay), device nodes of /dev (MKNOD), id maps and roles (SETUID,
/// SETGID, SETPCAP), ending agents (KILL), examining them (SYS_PTRACE).
pub(crate) fn needed() -> CapabilitySet {
    CapabilitySet::SYS_ADMIN
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP
        | CapabilitySet::MKNOD
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP
        | CapabilitySet::KILL
        | CapabilitySet::SYS_PTRACE
}

fn drop_unneeded() -> Result<(), Errno> {
    // Without this, changing the file-system uid for a mount would take the capabilities away.
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    privilege::limit_bounding_set(needed())?;
    privilege::set_capabilities(needed())
}

/// A mount namespace in which nothing that we attach spreads to the host, and nothing of the host's to us.
fn own_mount_namespace(runtime: &Path) -> Result<(), LaunchError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(step("unshare the mount namespace"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(step("make mounts private"))?;
    rustix::mount::mount(
        "stage",
        runtime.join("stage"),
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        Some(c"mode=700,size=64k"),
    )
    .map_err(step("mount the stage"))?;
    for name in child::STAGE {
        std::fs::create_dir(runtime.join("stage").join(name)).map_err(step("prepare the stage"))?;
    }
    Ok(())
}

/// Makes our directories with the modes they must have, and repairs those that have others (CVE-2024-25621).
fn directories(runtime: &Path, state: &Path, ids: Ids) -> io::Result<()> {
    let (serve, fetch) = (ids.serve(), ids.fetch());
    let wanted = [
        (runtime.to_owned(), 0o755, 0, 0),
        (runtime.join("sandboxes"), 0o700, 0, 0),
        (runtime.join("stage"), 0o700, 0, 0),
        (state.to_owned(), 0o750, 0, serve),
        (state.join("sandboxes"), 0o700, 0, 0),
        (state.join("mounts"), 0o700, 0, 0),
        (state.join("layers"), 0o700, 0, 0),
        (state.join("saved"), 0o700, 0, 0),
        (state.join("snapshots"), 0o700, serve, serve),
        (state.join("templates"), 0o700, 0, 0),
        (state.join("images"), 0o700, serve, serve),
        (state.join("work"), 0o700, serve, serve),
        (state.join("index"), 0o700, serve, serve),
        (state.join("journal"), 0o700, serve, serve),
        (state.join("blobs"), 0o750, fetch, serve),
        // fetch writes, serve reads and collects: new files get the directory's group.
        (state.join("blobs/sha256"), 0o2770, fetch, serve),
    ];
    // Parents that are missing are made as mkdir -p would; ours start closed.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for parent in [runtime.parent(), state.parent()].into_iter().flatten() {
        std::fs::create_dir_all(parent)?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o077));
    for (path, mode, uid, gid) in wanted {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        if path.symlink_metadata()?.is_symlink() {
            return Err(io::Error::other(format!("{} is a symlink", path.display())));
        }
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    // Sockets of the operator's. Whom else it lets in is the operator's to say, and is left as it is.
    match std::fs::DirBuilder::new().mode(0o700).create(runtime.join("handlers")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn lock(state: &Path) -> Result<OwnedFd, LaunchError> {
    let directory =
        rustix::fs::open(state, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(step(format!("open {}", state.display())))?;
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| LaunchError::Locked(state.to_owned()))?;
    Ok(directory)
}

/// `major:minor` of the whole disk under a directory: throttling takes no partitions. A file system without a
/// disk, like tmpfs, gives its own number, which the kernel refuses when somebody asks for such a limit.
fn device_of(directory: &Path) -> Result<String, Errno> {
    let device = rustix::fs::stat(directory)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = format!("/sys/dev/block/{major}:{minor}");
    if Path::new(&block).join("partition").exists()
        && let Ok(disk) = std::fs::read_to_string(Path::new(&block).join("../dev"))
    {
        return Ok(disk.trim().to_owned());
    }
    Ok(format!("{major}:{minor}"))
}

/// Name of our control groups: daemons with other runtime directories have others.
pub fn group_name(runtime: &Path) -> String {
    if runtime == Path::new("/run/stockade") {
        return "stockade".to_owned();
    }
    // FNV-1a: any spread-out number will do, and it must be the same in the next daemon.
    let hash = runtime
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("stockade-{hash:08x}")
}

fn describe_host(cgroups: &Cgroups, disk: Enforcement) -> Host {
    let mut limits = cgroups.enforcers();
    limits.insert("tmpfs_bytes".to_owned(), "tmpfs".to_owned());
    for limit in ["disk_bytes", "disk_files"] {
        limits.insert(limit.to_owned(), disk.name().to_owned());
    }
    let unenforced =
        DEFAULT_LIMITS.into_iter().filter(|limit| !limits.contains_key(*limit)).map(str::to_owned).collect();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Host { kernel, landlock_abi: crate::sys::landlock::abi(), limits, unenforced }
}

fn filters() -> Result<BTreeMap<&'static str, Filters>, LaunchError> {
    let kept = |program: seccompiler::BpfProgram| -> &'static [_] { Box::leak(program.into_boxed_slice()) };
    let agent = kept(seccomp::role(seccomp::Role::Agent).map_err(step("compile the agent's filter"))?);
    [Profile::Default, Profile::Hardened, Profile::Compat]
        .into_iter()
        .map(|profile| {
            let command = seccomp::command(profile).map_err(step("compile a profile's filter"))?;
            let filters = Filters { agent, zygote: kept(command.zygote), command: kept(command.last) };
            Ok((create::profile_name(profile), filters))
        })
        .collect()
}

/// Only a socket on which nobody listens any more may be replaced.
fn refuse_if_taken(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::other("it is there, and not a socket")),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::Error::other("another daemon listens there"))
        }
        Ok(_) => Ok(()),
    }
}

/// Binds the API socket under a name of its own and renames it into place: whoever connects finds a socket that
/// listens and has its final owner and mode.
fn listen(path: &Path, group: Option<u32>) -> Result<OwnedFd, LaunchError> {
    let draft = path.with_extension("new");
    let listener = || -> io::Result<OwnedFd> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        refuse_if_taken(path)?;
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(&draft)?;
        let gid = group.map(rustix::fs::Gid::from_raw);
        rustix::fs::chown(&draft, Some(Uid::ROOT), gid)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode))?;
        std::fs::rename(&draft, path)?;
        Ok(listener.into())
    };
    listener().map_err(step(format!("listen on {}", path.display())))
}
