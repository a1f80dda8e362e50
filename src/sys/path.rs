//! openat2(2): the only way in which a path is resolved that somebody else chose.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::Errno;

/// Opens `path` below `root` as a process whose root directory it is would, without magic links. For paths
/// inside a sandbox: ordinary symlinks work and cannot lead out.
///
/// # Errors
/// As openat2(2); `AGAIN` when a rename raced with the look-up too often.
pub fn open_in_root(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    open(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// As [`open_in_root`], for a directory by its place only, and never across into another mount.
///
/// # Errors
/// As openat2(2); `XDEV` where another file system begins.
pub fn open_in_this_file_system(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    open(root, path, OFlags::PATH | OFlags::DIRECTORY, resolve)
}

/// Opens `path` strictly below `directory`: no symlinks, no `..` above it, no other file system.
///
/// # Errors
/// As openat2(2).
pub fn open_beneath(
    directory: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    open(directory, path, flags, resolve)
}

fn open(
    directory: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    /// A look-up that races with a rename is retried this often; the kernel's own self-test sees about one
    /// failure in a thousand at this number under a storm of renames.
    const ATTEMPTS: u32 = 128;
    // openat2 refuses flags that make no sense with O_PATH instead of ignoring them.
    let flags = if flags.contains(OFlags::PATH) { flags } else { flags | OFlags::NOCTTY };
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result =
            rustix::fs::openat2(directory.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}
