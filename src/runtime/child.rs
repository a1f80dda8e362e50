//! The launcher's clone on its way to becoming the agent: from a new set of namespaces to a closed sandbox.
//!
//! The order, and why no step can move:
//!
//! 1. join the v1 control groups: before anything is allocated that they should count
//! 2. unshare the other namespaces: after joining, so that the root of the cgroup namespace is the sandbox's own
//!    group, and here rather than in clone3, because the launcher has other work in the meantime
//! 3. wait for the id maps: before that this process is nobody
//! 4. become uid 0 of the outer user namespace, which is the agent's own host id
//! 5. make the procfs: while the host's is still visible, or the kernel refuses one (mount_too_revealing);
//!    attach it aside: before Linux 6.15 a detached mount takes no mounts on it and cannot be copied
//! 6. make the inner user namespace
//! 7. start a companion that makes the network namespace, the longest step of all, on another processor if there is
//!    one: about when the launcher has nothing more to do on that
//! 8. empty the bounding set, which no step below passes through; the agent forks the zygote, which installs its filter
//!    beside the following steps
//! 9. wait for the root mount, which the launcher has made in the meantime: it needs the id maps, and nothing of
//!    4 to 8; attach root, /dev, /proc, /sys by descriptor, and pivot, which takes the zygote along
//! 10. enter the network namespace
//! 11. back to the agent, which tells the zygote to go on: all that the zygote needs is there
//! 12. while it restricts itself and the launcher examines it: mask what is in /proc, detach the old root, and forbid
//!     further namespaces, of which detached mounts count as some ([`Close`]). Nobody asks for anything yet, and the agent
//!     that would answer is busy here
//! 13. the agent gives up every capability, installs its filter, and listens
//!
//! This is a copy of a process with one thread, so the heap works. Nothing of the parent's is ever dropped:
//! no function here returns to the parent's code, and the agent closes what it does not know.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::mount::MountAttrFlags;
use rustix::thread::{CapabilitySet, LinkNameSpaceType};

use super::rootfs::UNTRUSTED;
use crate::sys::process::{self, Companion};
use crate::sys::{Errno, mount, network, path, privilege, socket};
use crate::wire::agent::{Built, Close, Filters, Inside, Progress, Rest};
use crate::wire::launch::{Failure, FailureKind};

/// What the parent prepared: all of it reaches the clone as memory and inherited descriptors.
#[derive(Debug)]
pub struct Setup {
    /// Our end of the socket to the launcher.
    pub control: OwnedFd,
    /// `tasks` of each v1 group.
    pub tasks: Vec<OwnedFd>,
    /// /dev, /sys and, for the `host` image, /usr: detached mounts.
    pub devices: OwnedFd,
    /// See `devices`.
    pub sys: OwnedFd,
    /// See `devices`.
    pub usr: Option<OwnedFd>,
    /// The sandbox's v2 group as a detached mount.
    pub cgroup: OwnedFd,
    /// First connection of the daemon.
    pub connection: OwnedFd,
    /// The agent's listening socket.
    pub listener: OwnedFd,
    /// What to cover in /proc: see [`masks`].
    pub masks: std::rc::Rc<[Mask]>,
    /// The launcher's private tmpfs, with the places of [`STAGE`].
    pub stage: PathBuf,
    /// First store id: the workload's 0 in the outer namespace.
    pub store: u32,
    /// Map of the inner namespace.
    pub inner_map: String,
    /// Host name.
    pub hostname: String,
    /// Bytes of /dev/shm.
    pub tmpfs_bytes: u64,
    /// Directories to make if they are missing.
    pub directories: Vec<String>,
    /// System call filters.
    pub filters: Filters,
}

/// Everything in /proc that tells of the host or lets it be changed, beyond what a user namespace denies.
/// Absent ones are skipped. cpuinfo, meminfo, stat, uptime and loadavg stay: language runtimes need them.
const MASKED: [&str; 35] = [
    "acpi",
    "asound",
    "bootconfig",
    "buddyinfo",
    "bus",
    "cmdline",
    "config.gz",
    "diskstats",
    "dma",
    "driver",
    "fs",
    "interrupts",
    "iomem",
    "ioports",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "latency_stats",
    "locks",
    "mdstat",
    "modules",
    "mtrr",
    "pagetypeinfo",
    "partitions",
    "pressure",
    "schedstat",
    "scsi",
    "softirqs",
    "swaps",
    "sysrq-trigger",
    "timer_list",
];

/// Kinds of namespace of which none can be made in a sandbox (namespaces(7)).
const NAMESPACES: [&str; 8] = ["user", "pid", "uts", "ipc", "cgroup", "time", "mnt", "net"];

/// Places on the launcher's stage: where the root is attached before it becomes the root, and where /proc, and the
/// mounts that it is masked from, are attached until then.
pub const STAGE: [&str; 4] = ["root", "own-proc", "own-sys", "own-dev"];

type StepResult<T = ()> = Result<T, Failure>;

fn failed(what: &str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { kind: FailureKind::Internal, what: what.to_owned(), detail: errno.to_string() }
}

/// Builds the sandbox around this process and hands over to the agent. Tells the launcher and ends when a step
/// fails.
pub fn run(setup: Setup, agent: fn(Inside) -> !) -> ! {
    let (begun, control) = match begin(&setup).and_then(|begun| {
        let control = setup.control.try_clone().map_err(|_| failed("keep the socket")(Errno::MFILE))?;
        Ok((begun, control))
    }) {
        Ok(begun) => begun,
        Err(failure) => give_up(&setup.control, failure),
    };
    let (workload, filters) = (begun.workload, setup.filters);
    let (mounts, stage, network, holder) = (begun.mounts, begun.stage, begun.network, begun.holder);
    let rest = move || {
        let network = match finish(&setup, &mounts, &stage, network) {
            Ok(network) => network,
            Err(failure) => give_up(&setup.control, failure),
        };
        let Setup { connection, listener, cgroup, control, masks, devices, sys, .. } = setup;
        let close = move || {
            let closed = close(&masks, &mounts.proc, &devices, &sys);
            drop(holder);
            if let Err(failure) = closed {
                give_up(&control, failure);
            }
        };
        Built { network, connection, listener, cgroup, close: Close(Box::new(close)) }
    };
    agent(Inside { setup: control, workload, filters, rest: Rest(Box::new(rest)) })
}

fn give_up(control: &OwnedFd, failure: Failure) -> ! {
    if let Ok(message) = crate::wire::encode(&Err::<Progress, Failure>(failure)) {
        // A launcher that is gone has nobody to tell.
        let _ = socket::send(control, &message, &[]);
    }
    process::exit_now(1)
}

/// A sandbox with everything from which the zygote can be forked.
struct Begun {
    mounts: Mounts,
    /// Where the root is attached before it becomes the root.
    stage: OwnedFd,
    network: Companion<OwnedFd>,
    /// The process that the user namespace for commands was made by.
    holder: Companion<()>,
    /// The user namespace for commands.
    workload: OwnedFd,
}

/// Steps 1 to 8.
fn begin(setup: &Setup) -> StepResult<Begun> {
    close_others(setup).map_err(failed("close what belongs to the launcher"))?;
    for tasks in &setup.tasks {
        rustix::io::write(tasks, b"0").map_err(failed("join a control group"))?;
    }
    nix::sched::unshare(namespaces())
        .map_err(|errno| failed("unshare the namespaces")(Errno::from_raw_os_error(errno as i32)))?;
    // While this is still the host's root, whose directories are closed to everybody else.
    let stage = |name: &str| {
        rustix::fs::open(
            setup.stage.join(name),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed("open the stage"))
    };
    let [stage, aside @ ..] = STAGE.map(stage);
    wait_for_go(&setup.control)?;
    privilege::become_user(0, 0, &[]).map_err(failed("become the outer root"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Changing the uid made this process undumpable, and its own /proc files root's: the id maps could not be
    // written. The agent turns it off again.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .map_err(failed("become dumpable"))?;
    let mounts = make_mounts(setup)?;
    for (mounted, place) in [&mounts.proc, &setup.sys, &setup.devices].into_iter().zip(aside) {
        mount::attach(mounted.as_fd(), place?.as_fd()).map_err(failed("attach a file system aside"))?;
    }
    rustix::system::sethostname(setup.hostname.as_bytes()).map_err(failed("set the host name"))?;
    let (workload, holder) = inner_namespace(&mounts.proc, &setup.inner_map)?;
    let network = network::make_aside().map_err(failed("start making the network namespace"))?;
    privilege::limit_bounding_set(CapabilitySet::empty()).map_err(failed("empty the bounding set"))?;
    silence().map_err(failed("close the standard streams"))?;
    Ok(Begun { mounts, stage: stage?, network, holder, workload })
}

/// Steps 9 and 10. Returns the network namespace.
fn finish(
    setup: &Setup,
    mounts: &Mounts,
    stage: &OwnedFd,
    network: Companion<OwnedFd>,
) -> StepResult<OwnedFd> {
    let root = receive_root(&setup.control)?;
    build_root(setup, mounts, &root, stage)?;
    make_directories(setup)?;
    let network = network.finish().map_err(failed("make the network namespace"))?;
    rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(failed("enter the network namespace"))?;
    Ok(network)
}

/// Step 12.
fn close(masks: &[Mask], proc: &OwnedFd, devices: &OwnedFd, sys: &OwnedFd) -> StepResult {
    mask(masks, proc, devices, sys)?;
    // Ping and low ports without capabilities.
    write_proc(proc, "sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    for kind in NAMESPACES {
        forbid(proc, kind)?;
    }
    mount::detach_old_root().map_err(failed("detach the old root"))
}

/// What the launcher's clone3 leaves to the clone.
fn namespaces() -> nix::sched::CloneFlags {
    use nix::sched::CloneFlags;
    CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
}

/// Keeps only what the plan names. Above all the launcher's end of `control` goes, so that its death is seen.
fn close_others(setup: &Setup) -> Result<(), Errno> {
    let mut keep: Vec<_> = setup.tasks.iter().chain(&setup.usr).map(AsFd::as_fd).collect();
    for fd in [&setup.control, &setup.devices, &setup.sys, &setup.cgroup, &setup.connection, &setup.listener]
    {
        keep.push(fd.as_fd());
    }
    crate::sys::exec::close_all_except(&keep)
}

/// Waits until the id maps are written.
fn wait_for_go(control: &OwnedFd) -> StepResult {
    match socket::receive(control, &mut [0; 1]).map_err(failed("wait for the id maps"))?.length {
        1 => Ok(()),
        _ => Err(failed("wait for the id maps")(Errno::PIPE)),
    }
}

fn receive_root(control: &OwnedFd) -> StepResult<OwnedFd> {
    let mut received =
        socket::receive(control, &mut [0; 1]).map_err(failed("wait for the root file system"))?;
    match (received.length, received.fds.pop()) {
        (1, Some(root)) => Ok(root),
        _ => Err(failed("receive the root file system")(Errno::PIPE)),
    }
}

/// The launcher's standard streams lead to the host's log; the agent has no business there.
fn silence() -> Result<(), Errno> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)
}

/// The file systems that are this sandbox's own, not attached yet.
struct Mounts {
    proc: OwnedFd,
    pts: OwnedFd,
    shm: OwnedFd,
}

/// Attributes of file systems that hold neither programs nor devices.
pub const QUIET: MountAttrFlags = UNTRUSTED.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn make_mounts(setup: &Setup) -> StepResult<Mounts> {
    let proc = mount::create("proc", &[("hidepid", "ptraceable")], QUIET).map_err(failed("make /proc"))?;
    let tty_group = (setup.store + 5).to_string();
    let pts_options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", tty_group.as_str()), ("max", "64")];
    // The only devices that are not the shared tmpfs's.
    let pts_attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = mount::create("devpts", &pts_options, pts_attributes).map_err(failed("make /dev/pts"))?;
    let (owner, size) = (setup.store.to_string(), setup.tmpfs_bytes.to_string());
    let shm_options =
        [("mode", "1777"), ("uid", owner.as_str()), ("gid", owner.as_str()), ("size", size.as_str())];
    let shm = mount::create("tmpfs", &shm_options, QUIET).map_err(failed("make /dev/shm"))?;
    Ok(Mounts { proc, pts, shm })
}

/// Attaches everything and makes it the root.
fn build_root(setup: &Setup, mounts: &Mounts, root: &OwnedFd, stage: &OwnedFd) -> StepResult {
    mount::attach(root.as_fd(), stage.as_fd()).map_err(failed("attach the root"))?;
    let attach = |mounted: BorrowedFd<'_>, at: &str| -> StepResult {
        let target = open_point(root.as_fd(), at)?;
        mount::attach(mounted, target.as_fd()).map_err(failed(&format!("attach /{at}")))
    };
    attach(mounts.proc.as_fd(), "proc")?;
    attach(setup.sys.as_fd(), "sys")?;
    attach(setup.devices.as_fd(), "dev")?;
    let attach_in = |mounted: &OwnedFd, parent: &OwnedFd, at: &str| -> StepResult {
        let target = open_point(parent.as_fd(), at)?;
        mount::attach(mounted.as_fd(), target.as_fd()).map_err(failed(&format!("attach {at}")))
    };
    attach_in(&mounts.pts, &setup.devices, "pts")?;
    attach_in(&mounts.shm, &setup.devices, "shm")?;
    // The agent's own: closed to the workload by its mode. Attached, it ends with the mount namespace; a mount
    // that is only held open costs its holder's exit another RCU grace period.
    attach_in(&setup.cgroup, &setup.sys, "fs/cgroup")?;
    if let Some(usr) = &setup.usr {
        attach(usr.as_fd(), "usr")?;
    }
    rustix::process::fchdir(root).map_err(failed("enter the root"))?;
    mount::pivot_to_current_directory().map_err(failed("pivot to the root"))
}

/// A mount point: a real directory directly below `directory`, or the image is refused (CVE-2019-19921).
fn open_point(directory: BorrowedFd<'_>, name: &str) -> StepResult<OwnedFd> {
    path::open_beneath(directory, name, OFlags::PATH | OFlags::DIRECTORY).map_err(|errno| Failure {
        kind: FailureKind::DirectoryInvalid,
        what: format!("open /{name} to mount on"),
        detail: errno.to_string(),
    })
}

/// One thing in /proc to cover.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    name: &'static str,
    is_directory: bool,
}

/// What of `MASKED` this kernel has and shows to everybody. What only the host's root may open, nobody in a
/// sandbox can: its files belong to an id that is not mapped there.
pub fn masks() -> std::rc::Rc<[Mask]> {
    let visible = |name: &&'static str| -> Option<Mask> {
        let found = rustix::fs::stat(format!("/proc/{name}")).ok()?;
        let is_directory = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();
        (found.st_mode & 0o007 != 0).then_some(Mask { name, is_directory })
    };
    MASKED.iter().filter_map(visible).collect()
}

fn mask(masks: &[Mask], proc: &OwnedFd, devices: &OwnedFd, sys: &OwnedFd) -> StepResult {
    for Mask { name, is_directory } in masks {
        let (source, part) = if *is_directory { (sys, "empty") } else { (devices, "null") };
        let cover = mount::copy(source.as_fd(), part).map_err(failed("copy a mask"))?;
        mount::attach_at(cover.as_fd(), proc.as_fd(), name)
            .map_err(|errno| failed(&format!("mask /proc/{name}"))(errno))?;
    }
    // /proc/sys stays readable, and is not writable for anybody in the inner namespace: its files belong to
    // the host's root or to the agent's namespace.
    Ok(())
}

/// Makes the plan's directories where they are missing, as in-sandbox root would, without leaving the root.
fn make_directories(setup: &Setup) -> StepResult {
    let invalid = |directory: &str, errno: Errno| Failure {
        kind: FailureKind::DirectoryInvalid,
        what: format!("make directory {directory}"),
        detail: errno.to_string(),
    };
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the root"))?;
    for directory in &setup.directories {
        // Symlinks of the image are followed as the kernel would for a process inside.
        let there = path::open_in_root(&root, directory.as_str(), OFlags::PATH | OFlags::DIRECTORY);
        match there {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                make_directory(&root, directory, setup.store).map_err(|errno| invalid(directory, errno))?
            }
            Err(errno) => return Err(invalid(directory, errno)),
        }
    }
    Ok(())
}

/// Makes a directory and those above it. Never in a file system of ours: not below /proc, /sys or /dev.
fn make_directory(root: &OwnedFd, directory: &str, owner: u32) -> Result<(), Errno> {
    let owner = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    let mut place = path::open_in_this_file_system(root, ".")?;
    let mut reached = String::new();
    for name in directory.split('/').filter(|name| !name.is_empty() && *name != ".") {
        reached.push('/');
        reached.push_str(name);
        match rustix::fs::mkdirat(&place, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => rustix::fs::chownat(&place, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        place = path::open_in_this_file_system(root, reached.as_str())?;
    }
    Ok(())
}

/// No namespace of this kind can be made from here on.
fn forbid(proc: &OwnedFd, kind: &str) -> StepResult {
    write_proc(proc, &format!("sys/user/max_{kind}_namespaces"), "0")
}

fn write_proc(proc: &OwnedFd, file: &str, text: &str) -> StepResult {
    let what = format!("write /proc/{file}");
    let opened = rustix::fs::openat(proc, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(&what))?;
    rustix::io::write(&opened, text.as_bytes()).map_err(failed(&what))?;
    Ok(())
}

/// The user namespace in which commands run, and the process that made it: the namespace lives by the descriptor. To
/// wait for the process's end costs a change of processes, and can be done when there is nothing better to do.
fn inner_namespace(proc: &OwnedFd, map: &str) -> StepResult<(OwnedFd, Companion<()>)> {
    let holder = process::hold_user_namespace().map_err(failed("make the inner user namespace"))?;
    let number = holder.pid().as_raw_nonzero();
    write_proc(proc, &format!("{number}/uid_map"), map)?;
    write_proc(proc, &format!("{number}/gid_map"), map)?;
    let name = format!("{number}/ns/user");
    let namespace = rustix::fs::openat(proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the inner user namespace"))?;
    Ok((namespace, holder))
}
