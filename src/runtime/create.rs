//! Making one sandbox, from the launcher's side: each step of [`create`] has its undoing in [`clear`].
//!
//! ```text
//! launcher                                   clone
//! groups with limits
//! clone3 into the agent's group ───────────▶ joins v1 groups, unshares the rest but the network
//! id maps                     ────────────▶ its own file systems, inner namespace; then, aside, the network: 1 ms
//! storage, layers with those ids, overlay
//! root mount by descriptor ────────────────▶ attaches, pivots (runtime::child)
//!                                            zygote: filters, Landlock; agent: masks, limits on namespaces
//! examines the zygote  ◀──────────────────── Forked, with the zygote's pid from the kernel
//! and again            ◀──────────────────── Ready
//! record, answer
//! ```
//!
//! The two columns run on two processors; whatever can be moved from one to the other is where it waits less.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use super::cgroup::{CgroupError, Cgroups, Group};
use super::child::{self, QUIET, Setup};
use super::ids::{Ids, Slot};
use super::record;
use super::rootfs::{self, RootError};
use super::saved;
use super::storage::{Enforcement, Storage};
use super::template::{HOSTNAME_DEFAULT, Templates};
use super::verify::{Examined, Facts};
use crate::sys::process::{self, Cloned, flags};
use crate::sys::{Errno, mount, privilege, socket};
use crate::wire;
use crate::wire::agent::{Filters, Inside, Progress, ROOT_CAPABILITIES};
use crate::wire::launch::{Failure, FailureKind, Isolation, Limit, Plan, Profile, Root, Running};

/// What every creation needs: made once.
#[derive(Debug)]
pub struct Foundation {
    /// `state_dir`.
    pub state: PathBuf,
    /// `runtime_dir`.
    pub runtime: PathBuf,
    /// Host ids.
    pub ids: Ids,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Shared file systems.
    pub templates: Templates,
    /// Compiled filters by profile.
    pub filters: BTreeMap<&'static str, Filters>,
    /// The host's namespaces.
    pub host_namespaces: BTreeMap<String, u64>,
    /// What is covered in /proc.
    pub masks: std::rc::Rc<[child::Mask]>,
    /// System call filters on the launcher itself, which every clone inherits.
    pub own_filters: usize,
    /// Layers' mounts that have done their work.
    pub spent: rootfs::Spent,
    /// How a disk limit is enforced.
    pub disk: Enforcement,
    /// `major:minor` of the disk under `state_dir`.
    pub device: String,
    /// The agent's entry: a function, because this layer does not know the agent.
    pub agent: fn(Inside) -> !,
}

impl Foundation {
    /// Where the files of a sandbox lie.
    pub fn storage(&self, id: &str) -> PathBuf {
        self.state.join("sandboxes").join(id)
    }

    /// Where the workers of its buckets keep what they have not uploaded. Not with its files, which snapshots exchange.
    pub fn mounts(&self, id: &str) -> PathBuf {
        self.state.join("mounts").join(id)
    }

    /// Where the sockets and the record of a sandbox lie.
    pub fn place(&self, id: &str) -> PathBuf {
        self.runtime.join("sandboxes").join(id)
    }

    /// Whether serve has handed out a sandbox of this name that was not destroyed: its files are to be kept. serve
    /// writes the entry last when it creates and removes it first when it destroys.
    pub fn is_kept(&self, id: &str) -> bool {
        self.state.join("index").join(format!("{id}.json")).exists()
    }

    /// Where a layer of this name lies.
    pub fn layer(&self, diff_id: crate::id::Digest) -> PathBuf {
        self.state.join("layers").join(diff_id.hex()).join("fs")
    }
}

/// What becomes of a sandbox's files when its processes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They are its own, and it will run again.
    Keep,
    /// They go with it.
    Remove,
}

/// A sandbox that was made.
#[derive(Debug)]
pub struct Made {
    /// For the answer and the record.
    pub running: Running,
    /// The agent's start, for the record.
    pub started: u64,
    /// Handle on the agent.
    pub pidfd: OwnedFd,
    /// The daemon's first connection to the agent.
    pub connection: OwnedFd,
}

/// How filters are found: by the profile's name.
pub fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Default => "default",
        Profile::Hardened => "hardened",
        Profile::Compat => "compat",
    }
}

fn internal(what: &str, detail: impl ToString) -> Failure {
    Failure { kind: FailureKind::Internal, what: what.to_owned(), detail: detail.to_string() }
}

fn failed(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { kind: kind_of(errno), what: what.to_owned(), detail: errno.to_string() }
}

/// Running out of something is the host's capacity, not a bug.
fn kind_of(errno: Errno) -> FailureKind {
    match errno {
        Errno::NOSPC
        | Errno::DQUOT
        | Errno::MFILE
        | Errno::NFILE
        | Errno::AGAIN
        | Errno::NOMEM
        | Errno::ROFS => FailureKind::Capacity,
        _ => FailureKind::Internal,
    }
}

impl From<RootError> for Failure {
    fn from(error: RootError) -> Self {
        Self { kind: kind_of(error.errno), what: error.what, detail: error.errno.to_string() }
    }
}

impl From<CgroupError> for Failure {
    fn from(error: CgroupError) -> Self {
        let kind = match &error {
            CgroupError::Unsupported { .. } => FailureKind::LimitUnsupported,
            // v1 refuses a limit on memory that it cannot free down to.
            CgroupError::Files { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                FailureKind::InUse
            }
            CgroupError::Files { .. } => FailureKind::Internal,
        };
        let detail = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Self { kind, what: error.to_string(), detail }
    }
}

/// Makes a sandbox in this slot: with files of its own that are new, or, to keep them, those that a stopped one has left.
///
/// # Errors
/// The first step that failed. Everything that was made until then is gone again, processes included.
pub fn create(foundation: &Foundation, plan: &Plan, slot: Slot, files: Files) -> Result<Made, Failure> {
    let id = plan.id.as_str();
    let mut agent = None;
    let made = attempt(foundation, plan, slot, files, &mut agent);
    if made.is_err() {
        if let Some((pid, pidfd)) = agent {
            // PID 1 takes its whole namespace with it; the wait is for that.
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            let _ = process::wait_for(pid);
        }
        foundation.cgroups.kill(id);
        clear(foundation, id, files);
    }
    made
}

/// Removes what is left of a sandbox whose processes are gone. False when a cgroup is still busy.
pub fn clear(foundation: &Foundation, id: &str, files: Files) -> bool {
    let empty = foundation.cgroups.remove(id);
    match files {
        Files::Keep => vacate(&foundation.place(id)),
        Files::Remove if discard_files(foundation, id) => {
            super::trash::empty(&foundation.state.join("sandboxes"));
        }
        Files::Remove => {}
    }
    empty
}

/// Removes what a run has left in the sandbox's place, all but its secrets, which the next run needs.
fn vacate(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if !super::secrets::is_one(&entry.file_name()) {
            // What stays is in the way of the next run, which then says so.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // Refused while the secrets are there.
    let _ = std::fs::remove_dir(place);
}

/// Kills a sandbox, waits for its end, and removes what is left of it.
pub fn end(foundation: &Foundation, agent: &OwnedFd, id: &str, files: Files) {
    let _ = rustix::process::pidfd_send_signal(agent, rustix::process::Signal::KILL);
    let mut handle = [PollFd::new(agent, PollFlags::IN)];
    let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
    // One that does not die in time is found by the next daemon.
    let _ = rustix::event::poll(&mut handle, Some(&limit));
    settle(foundation, id, files);
}

/// Removes remains whose processes were just killed: their groups empty within milliseconds.
pub fn settle(foundation: &Foundation, id: &str, files: Files) {
    for _ in 0..100 {
        if clear(foundation, id, files) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    tracing::warn!(id, "something of a sandbox is still there; it is removed at the next start");
}

/// Removes a sandbox's files. What cannot be removed now is found and removed when the launcher starts next. True when
/// something is left for [`trash::empty`](super::trash::empty).
pub fn discard_files(foundation: &Foundation, id: &str) -> bool {
    let _ = std::fs::remove_dir_all(foundation.place(id));
    let mounts = foundation.mounts(id);
    if mounts.exists() {
        super::trash::discard(&mounts);
    }
    super::trash::set_aside(&foundation.storage(id))
}

fn attempt(
    foundation: &Foundation,
    plan: &Plan,
    slot: Slot,
    files: Files,
    agent: &mut Option<(Pid, OwnedFd)>,
) -> Result<Made, Failure> {
    let id = plan.id.as_str();
    let layers = layers(foundation, plan)?;
    make_place(&foundation.place(id), files)?;
    let group =
        foundation.cgroups.create(id, foundation.ids.agent(slot), &plan.resources, &foundation.device)?;
    let (connection, agent_connection) = socket::pair().map_err(failed("make a socket to the agent"))?;
    let (control, agent_control) = socket::pair().map_err(failed("make a socket to the agent"))?;
    socket::want_sender(&control).map_err(failed("ask for the zygote's pid"))?;
    let setup = prepare(foundation, plan, &group, agent_control, agent_connection)?;

    // Timers, signals and watches of this sandbox count against its own id's limits, and not against root's.
    privilege::act_for(foundation.ids.agent(slot)).map_err(failed("act for the agent"))?;
    let cloned = process::clone3(flags::USER | flags::PID, Some(group.v2.as_fd()));
    let (pid, pidfd) = match cloned {
        Ok(Cloned::Child) => child::run(setup, foundation.agent),
        Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
        Err(errno) => {
            privilege::act_for(0).map_err(failed("act for root again"))?;
            return Err(failed("clone the agent")(errno));
        }
    };
    privilege::act_for(0).map_err(failed("act for root again"))?;
    drop(setup);
    let (_, pidfd) = agent.insert((pid, pidfd));

    let map = foundation.ids.outer_map(slot);
    let namespace = map_ids(pid, &map)?;
    socket::send(&control, b"m", &[]).map_err(failed("start the sandbox"))?;
    let (root, storage) = mount_root(foundation, plan, slot, files, (&layers, &namespace))?;
    // A clone that gave up has said why, and its words are better than what is noticed of its end.
    let said = |noticed: Failure| wait_for_progress(&control).err().unwrap_or(noticed);
    socket::send(&control, b"r", &[root.as_fd()])
        .map_err(|errno| said(failed("hand over the root")(errno)))?;
    drop((root, namespace));
    let (progress, zygote) = wait_for_progress(&control)?;
    let Progress::Forked = progress else {
        return Err(internal("wait for the sandbox", "it skipped a step"));
    };
    let examined = Examined::new(zygote, &foundation.host_namespaces, &map).map_err(said)?;
    let started = record::start_time(pid.as_raw_nonzero().get())
        .map_err(|error| said(internal("read the agent's start", error)))?;
    let (Progress::Ready { landlock_abi }, same) = wait_for_progress(&control)? else {
        return Err(internal("wait for the sandbox", "it repeated a step"));
    };
    if same != zygote {
        return Err(internal("wait for the sandbox", "somebody else answered"));
    }
    let filters = foundation.own_filters + 1;
    let facts = examined.finish(&foundation.host_namespaces, filters)?;
    let mut isolation = describe(foundation, plan, slot, landlock_abi, facts, group.limits);
    isolation.limits.extend(storage.limits.clone());
    storage.kind().clone_into(&mut isolation.storage);
    let pidfd = pidfd.try_clone().map_err(|error| internal("keep the agent's handle", error))?;
    let running = Running { id: plan.id.clone(), pid: pid.as_raw_nonzero().get(), isolation };
    Ok(Made { running, started, pidfd, connection })
}

/// The directory of a run's socket and record. Secrets of a run before may lie in it.
fn make_place(place: &Path, files: Files) -> Result<(), Failure> {
    match std::fs::create_dir(place) {
        Err(error) if files == Files::Keep && error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|error| internal("make the runtime directory", error)),
    }
}

/// The root file system: the layers under files of the sandbox's own, shown with the ids of a namespace.
fn mount_root(
    foundation: &Foundation,
    plan: &Plan,
    slot: Slot,
    files: Files,
    (layers, namespace): (&[PathBuf], &OwnedFd),
) -> Result<(OwnedFd, Storage), Failure> {
    let directory = foundation.storage(plan.id.as_str());
    let (owner, store) = (foundation.ids.sandbox(slot), foundation.ids.store());
    let storage = match files {
        Files::Keep => Storage::reopen(directory)?,
        Files::Remove => {
            let on = saved::chain(foundation, plan.snapshot.clone())?.into_iter().next();
            let on = plan.snapshot.clone().zip(on.as_deref());
            Storage::create(directory, owner, store, &plan.resources, foundation.disk, on)?
        }
    };
    let mut all = saved::chain(foundation, storage.below.clone())?;
    all.extend_from_slice(layers);
    let (stage, mounter) = (foundation.runtime.join("stage"), foundation.ids.agent(slot));
    let (root, lowers) = rootfs::overlay(&all, &storage, namespace, plan.durability, &stage, mounter)?;
    foundation.spent.keep(lowers);
    Ok((root, storage))
}

/// Directories of the root's layers, top first.
fn layers(foundation: &Foundation, plan: &Plan) -> Result<Vec<PathBuf>, Failure> {
    let mut layers = vec![foundation.templates.skeleton.clone()];
    match &plan.root {
        Root::Host => layers.push(foundation.templates.host.clone()),
        Root::Layers(diff_ids) => {
            for diff_id in diff_ids.iter().rev() {
                let layer = foundation.layer(*diff_id);
                if !layer.is_dir() {
                    return Err(Failure {
                        kind: FailureKind::LayerMissing,
                        what: format!("find layer {diff_id}"),
                        detail: "it is not in the store".to_owned(),
                    });
                }
                layers.push(layer);
            }
        }
    }
    Ok(layers)
}

fn prepare(
    foundation: &Foundation,
    plan: &Plan,
    group: &Group,
    control: OwnedFd,
    connection: OwnedFd,
) -> Result<Setup, Failure> {
    let templates = &foundation.templates;
    let copy = |of: &OwnedFd, what| mount::copy(of.as_fd(), "").map_err(failed(what));
    let usr = match (&plan.root, &templates.usr) {
        (Root::Host, Some(usr)) => Some(copy(usr, "copy the mount of /usr")?),
        (Root::Host, None) => return Err(internal("show the host's /usr", "the host has none")),
        (Root::Layers(_), _) => None,
    };
    let cgroup = copy(&group.v2, "copy the mount of the control group")?;
    mount::set_attributes(cgroup.as_fd(), QUIET, None)
        .map_err(failed("restrict the control group's mount"))?;
    let filters = foundation.filters.get(profile_name(plan.profile)).copied();
    Ok(Setup {
        control,
        tasks: group
            .tasks
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<Result<_, _>>()
            .map_err(|error| internal("keep the control groups", error))?,
        devices: copy(&templates.devices, "copy the mount of /dev")?,
        sys: copy(&templates.sys, "copy the mount of /sys")?,
        usr,
        cgroup,
        connection,
        listener: listen(&foundation.place(plan.id.as_str()).join("agent.sock"))?,
        masks: std::rc::Rc::clone(&foundation.masks),
        stage: foundation.runtime.join("stage"),
        store: foundation.ids.store(),
        inner_map: foundation.ids.inner_map(),
        hostname: if plan.hostname.is_empty() { HOSTNAME_DEFAULT.to_owned() } else { plan.hostname.clone() },
        tmpfs_bytes: plan.resources.tmpfs_bytes,
        directories: plan.directories.clone(),
        filters: filters.ok_or_else(|| internal("find the profile's filters", "there are none"))?,
    })
}

fn listen(path: &Path) -> Result<OwnedFd, Failure> {
    let what = "listen for a restarted daemon";
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed(what))?;
    let address = SocketAddrUnix::new(path).map_err(failed(what))?;
    rustix::net::bind(&socket, &address).map_err(failed(what))?;
    rustix::net::listen(&socket, 4).map_err(failed(what))?;
    Ok(socket)
}

/// Writes the maps of the outer user namespace and opens it.
fn map_ids(pid: Pid, map: &str) -> Result<OwnedFd, Failure> {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("{directory}/{file}"), map)
            .map_err(|error| internal(&format!("write {file}"), error))?;
    }
    rustix::fs::open(format!("{directory}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the sandbox's user namespace"))
}

/// A sandbox that takes longer than this to build itself, throttled by its own limits or stuck on a disk, is given
/// up: the launcher does nothing else in the meantime.
const READY_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

fn wait_for_progress(control: &OwnedFd) -> Result<(Progress, Pid), Failure> {
    let mut buffer = [0; 4096];
    let mut readable = [PollFd::new(control, PollFlags::IN)];
    match rustix::event::poll(&mut readable, Some(&READY_WITHIN)) {
        Ok(0) => return Err(internal("wait for the sandbox", "it was not ready in time")),
        Ok(_) => {}
        Err(errno) => return Err(failed("wait for the sandbox")(errno)),
    }
    let received = socket::receive(control, &mut buffer).map_err(failed("wait for the sandbox"))?;
    let message: Result<Progress, Failure> = wire::decode(&buffer[..received.length])
        .map_err(|_| internal("wait for the sandbox", "its first process ended"))?;
    let zygote = received.sender.ok_or_else(|| internal("find the zygote", "the kernel names no sender"))?;
    Ok((message?, zygote))
}

fn describe(
    foundation: &Foundation,
    plan: &Plan,
    slot: Slot,
    landlock_abi: u32,
    facts: Facts,
    mut limits: BTreeMap<String, Limit>,
) -> Isolation {
    let tmpfs = Limit { value: Some(plan.resources.tmpfs_bytes), enforced_by: "tmpfs".to_owned() };
    limits.insert("tmpfs_bytes".to_owned(), tmpfs);
    Isolation {
        profile: plan.profile,
        namespaces: facts.namespaces,
        host_id_first: foundation.ids.sandbox(slot),
        host_id_count: crate::limits::IDS_PER_SANDBOX,
        no_new_privs: facts.no_new_privs,
        seccomp_mode: facts.seccomp_mode,
        landlock_abi,
        root_capabilities: ROOT_CAPABILITIES.iter_names().map(|(name, _)| format!("CAP_{name}")).collect(),
        limits,
        storage: String::new(),
        durability: plan.durability,
        relaxations: super::seccomp::relaxations(plan.profile),
    }
}
