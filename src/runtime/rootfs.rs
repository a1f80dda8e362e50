//! A sandbox's root file system: layers shown with its ids, under a writable directory of its own.
//!
//! ```text
//! state_dir/sandboxes/<id>/upper    survives the daemon, and the sandbox's processes
//!                          work     the overlay's own
//! lower, top first: skeleton, layer n, …, layer 1     each an idmapped, read-only, detached mount
//! ```
//!
//! The overlay is mounted by the launcher in the initial user namespace and handed in as a descriptor. So its
//! private attributes are `trusted.overlay.*`, which nothing in the sandbox can set, and `redirect_dir=on` is safe:
//! renaming a directory of a layer works instead of failing with EXDEV. Layers carry no such attributes but the
//! opaque mark that the launcher sets itself.
//!
//! On disk all files have store ids, a sandbox's own like those of layers, and mounts show them with its own: so they
//! are the same files whatever ids it has when it runs next.
//!
//! The mounter's credentials act for the sandbox on the disk below: they have a file-system uid other than 0 and
//! no CAP_SYS_RESOURCE, or a sandbox could fill the blocks that are reserved for root. It is the agent's, which the
//! map of the sandbox's mounts has as 0 of the disk; another could make nothing there.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};

use super::storage::Storage;
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, mount, privilege};
use crate::wire::launch::Durability;

/// A step of making the root, in words, with what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RootError {
    /// The operation and the noun.
    pub what: String,
    /// What the kernel said.
    #[source]
    pub errno: Errno,
}

pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(Errno) -> RootError {
    move |errno| RootError { what: what.into(), errno }
}

/// Attributes of everything that shows files which a sandbox or an image chose.
pub const UNTRUSTED: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Shows layers, top first, with the ids of `namespace`, under the storage's writable directory. The mount is
/// detached. Beside it come the layers' own mounts, for [`Spent`].
///
/// # Errors
/// When a layer cannot be opened or shown with mapped ids, or overlayfs refuses the options.
pub fn overlay(
    layers: &[PathBuf],
    storage: &Storage,
    namespace: &OwnedFd,
    durability: Durability,
    stage: &Path,
    mounter: u32,
) -> Result<(OwnedFd, Vec<OwnedFd>), RootError> {
    let mut lowers = Vec::with_capacity(layers.len() + 1);
    for layer in layers {
        lowers.push(show_layer(layer, namespace)?);
    }
    let writable = mount::copy(storage.open()?.as_fd(), "").map_err(failed("copy the storage's mount"))?;
    if storage.is_mapped() {
        mount::set_attributes(writable.as_fd(), MountAttrFlags::empty(), Some(namespace.as_fd()))
            .map_err(failed("map the ids of the sandbox's directory"))?;
    }
    privilege::set_file_system_ids(mounter);
    let root = match overlay_of_descriptors(&lowers, &writable, durability) {
        // Layers by descriptor came with Linux 6.13. Before, the option does not exist, wants a path, takes nothing
        // but text (6.1), or no descriptor that is open for nothing but its place (6.12).
        Err(RootError { errno: Errno::INVAL | Errno::NOENT | Errno::BADF | Errno::OPNOTSUPP, .. }) => {
            privilege::set_file_system_ids(0);
            overlay_of_paths(&lowers, &writable, durability, stage, mounter)
        }
        other => other,
    };
    privilege::set_file_system_ids(0);
    lowers.push(writable);
    Ok((root?, lowers))
}

/// Mounts of layers after an overlay has taken its own copies. Closing the last descriptor of a mount that is
/// attached nowhere waits for an RCU grace period, milliseconds on a busy host: that is put off until the
/// launcher has nothing to do.
#[derive(Debug, Default)]
pub struct Spent(RefCell<Vec<OwnedFd>>);

impl Spent {
    /// Descriptors that may wait: well below what the launcher may have open.
    const MAX: usize = 512;

    fn lock(&self) -> std::cell::RefMut<'_, Vec<OwnedFd>> {
        self.0.borrow_mut()
    }

    /// Keeps mounts for later.
    pub fn keep(&self, lowers: Vec<OwnedFd>) {
        self.lock().extend(lowers);
        if self.lock().len() > Self::MAX {
            self.close();
        }
    }

    /// Whether there is something to close.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Closes them all, in a process of its own: each waits by itself.
    pub fn close(&self) {
        if self.is_empty() {
            return;
        }
        let spent = std::mem::take(&mut *self.lock());
        // Both have them open; the one that closes last waits. A fork that fails leaves the wait to us.
        if let Ok(Cloned::Child) = process::clone3(0, None) {
            // The launcher's locks and sockets are not to live as long as this takes.
            let kept: Vec<_> = spent.iter().map(AsFd::as_fd).collect();
            let _ = crate::sys::exec::close_all_except(&kept);
            // Long enough for the parent to have closed its own.
            std::thread::sleep(std::time::Duration::from_millis(20));
            process::exit_now(0)
        }
        drop(spent);
    }
}

fn show_layer(layer: &Path, namespace: &OwnedFd) -> Result<OwnedFd, RootError> {
    let name = || layer.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let directory = rustix::fs::open(
        layer,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed(format!("open layer {}", name()))(errno))?;
    let shown = mount::copy(directory.as_fd(), "")
        .map_err(|errno| failed(format!("copy the mount of layer {}", name()))(errno))?;
    mount::set_attributes(
        shown.as_fd(),
        UNTRUSTED | MountAttrFlags::MOUNT_ATTR_RDONLY,
        Some(namespace.as_fd()),
    )
    .map_err(|errno| failed(format!("map the ids of layer {}", name()))(errno))?;
    Ok(shown)
}

/// Options that every overlay has. `index` and `xino` would tie the sandbox to this very disk.
const OPTIONS: [(&str, &str); 4] =
    [("redirect_dir", "on"), ("metacopy", "off"), ("index", "off"), ("xino", "off")];

/// `writable` is a detached copy of the storage's mount: what the sandbox can read of its own mount's options is
/// then the path from there, `/upper`, and not the host's.
fn overlay_of_descriptors(
    lowers: &[OwnedFd],
    writable: &OwnedFd,
    durability: Durability,
) -> Result<OwnedFd, RootError> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(failed("open an overlay context"))?;
    for lower in lowers {
        rustix::mount::fsconfig_set_fd(context.as_fd(), "lowerdir+", lower.as_fd())
            .map_err(failed("add a layer to the overlay"))?;
    }
    for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(writable, name, flags, Mode::empty())
            .and_then(|directory| rustix::mount::fsconfig_set_fd(context.as_fd(), key, directory.as_fd()))
            .map_err(failed(format!("set the overlay's {key}")))?;
    }
    for (key, value) in OPTIONS {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)
            .map_err(failed(format!("set the overlay's {key}")))?;
    }
    if durability == Durability::Volatile {
        rustix::mount::fsconfig_set_flag(context.as_fd(), "volatile")
            .map_err(failed("make the overlay volatile"))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(failed("create the overlay"))?;
    let mounted = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, UNTRUSTED)
        .map_err(failed("mount the overlay"))?;
    writable_root(mounted)
}

/// When overlayfs can make nothing in its work directory it says so in the kernel's log alone, and mounts without.
fn writable_root(mounted: OwnedFd) -> Result<OwnedFd, RootError> {
    let state = rustix::fs::fstatvfs(&mounted).map_err(failed("look at the overlay"))?;
    if state.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(failed("mount the overlay writable")(Errno::ROFS));
    }
    Ok(mounted)
}

/// For kernels before 6.13: the mounts are attached under short names in `stage`, a private tmpfs of the
/// launcher, because all of mount(2)'s options share one page. Only the launcher's mount namespace ever sees it.
fn overlay_of_paths(
    lowers: &[OwnedFd],
    writable: &OwnedFd,
    durability: Durability,
    stage: &Path,
    mounter: u32,
) -> Result<OwnedFd, RootError> {
    rustix::process::chdir(stage).map_err(failed("enter the stage"))?;
    let result = attach_and_mount(lowers, writable, durability, mounter);
    for name in (0..lowers.len()).map(|index| index.to_string()).chain(["w".to_owned(), "m".to_owned()]) {
        // The overlay holds its own private copies of them.
        let _ = rustix::mount::unmount(name.as_str(), UnmountFlags::DETACH);
        let _ = rustix::fs::rmdir(name.as_str());
    }
    rustix::process::chdir("/").map_err(failed("leave the stage"))?;
    result
}

fn attach_and_mount(
    lowers: &[OwnedFd],
    writable: &OwnedFd,
    durability: Durability,
    mounter: u32,
) -> Result<OwnedFd, RootError> {
    let mut names = Vec::new();
    for (index, lower) in lowers.iter().enumerate() {
        let name = index.to_string();
        attach_at(lower, &name)?;
        names.push(name);
    }
    attach_at(writable, "w")?;
    rustix::fs::mkdir("m", Mode::from_raw_mode(0o700)).map_err(failed("make a mount point"))?;
    let mut options = format!("lowerdir={},upperdir=w/upper,workdir=w/work", names.join(":"));
    for (key, value) in OPTIONS {
        options.push_str(&format!(",{key}={value}"));
    }
    if durability == Durability::Volatile {
        options.push_str(",volatile");
    }
    let options = std::ffi::CString::new(options).map_err(|_| failed("name the layers")(Errno::INVAL))?;
    privilege::set_file_system_ids(mounter);
    let mounted = rustix::mount::mount(
        "overlay",
        "m",
        "overlay",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(options.as_c_str()),
    );
    privilege::set_file_system_ids(0);
    mounted.map_err(failed("mount the overlay of paths"))?;
    writable_root(mount::copy(rustix::fs::CWD, "m").map_err(failed("detach the overlay"))?)
}

fn attach_at(mounted: &OwnedFd, name: &str) -> Result<(), RootError> {
    rustix::fs::mkdir(name, Mode::from_raw_mode(0o700)).map_err(failed("make a mount point"))?;
    let point = rustix::fs::open(name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open a mount point"))?;
    mount::attach(mounted.as_fd(), point.as_fd()).map_err(failed("attach a layer"))
}
