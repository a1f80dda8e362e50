//! mount_setattr(2), which rustix does not have, and the few combinations of the new mount API that we use.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::Errno;
use super::process::last_errno;

/// The kernel's `struct mount_attr` (mount_setattr(2), MOUNT_ATTR_SIZE_VER0).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes of a detached mount and, with a user namespace, shows its ids through that namespace's map:
/// a file of id `i` inside the namespace appears with the id that `i` is outside.
///
/// # Errors
/// As mount_setattr(2); `INVAL` when the file system cannot be shown with mapped ids.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    ids_of: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    /// linux/mount.h
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let mut attributes =
        MountAttr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(namespace) = ids_of {
        attributes.attr_set |= MOUNT_ATTR_IDMAP;
        attributes.userns_fd = namespace.as_raw_fd() as u64;
    }
    // SAFETY: mount_setattr(2) wants a readable `mount_attr` of the given size; `attributes` is one. The path is
    // the empty string, as AT_EMPTY_PATH wants.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A new file system of this type with these string options, not attached anywhere.
///
/// # Errors
/// As fsopen(2), fsconfig(2) and fsmount(2).
pub fn create(
    file_system: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A detached copy of the mount at `path` below `directory` (open_tree(2)); with an empty path, of the mount
/// whose root or subdirectory `directory` is.
///
/// # Errors
/// As open_tree(2).
pub fn copy(directory: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_NO_AUTOMOUNT
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(directory, path, flags)
}

/// Attaches a detached mount on the directory or file that `target` is open on. No path is resolved, so
/// nobody can swap one (CVE-2021-30465).
///
/// # Errors
/// As move_mount(2).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Attaches a detached mount on `name`, directly in `directory`: for names that we chose, in a file system of the
/// kernel's, where nothing can be swapped. A symlink is not followed.
///
/// # Errors
/// As move_mount(2).
pub fn attach_at(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes the directory that is the current one the root. What was the root is stacked on it (pivot_root(2), NOTES), so
/// that it needs no directory of its own: names are resolved below the new one, and [`detach_old_root`] is still to come.
///
/// # Errors
/// As pivot_root(2).
pub fn pivot_to_current_directory() -> Result<(), Errno> {
    rustix::process::pivot_root(".", ".")
}

/// Detaches what was the root, after [`pivot_to_current_directory`] and from the same current directory. It waits for an
/// RCU grace period.
///
/// # Errors
/// As umount2(2) and chdir(2).
pub fn detach_old_root() -> Result<(), Errno> {
    // "." is what is stacked there.
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    // pivot_root does not promise that the current directory is below the new root.
    rustix::process::chdir("/")
}
