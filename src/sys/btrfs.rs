//! Subvolumes of btrfs (btrfs-subvolume(8)): trees of which a copy is made in one step, however large they are.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Opcode, Setter, opcode};

use super::Errno;

/// `BTRFS_SUPER_MAGIC` (linux/magic.h).
const MAGIC: i64 = 0x9123_683E;

/// What the root of a subvolume is called (`BTRFS_FIRST_FREE_OBJECTID`, linux/btrfs_tree.h).
const ROOT_INODE: u64 = 256;

/// `BTRFS_PATH_NAME_MAX` and the byte at its end (linux/btrfs.h).
const NAME_BYTES: usize = 4088;

/// `struct btrfs_ioctl_vol_args` (linux/btrfs.h).
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; NAME_BYTES],
}

const fn code(number: u8) -> Opcode {
    opcode::write::<VolumeArguments>(0x94, number)
}

const SNAP_CREATE: Opcode = code(1);
const SUBVOL_CREATE: Opcode = code(14);
const SNAP_DESTROY: Opcode = code(15);

/// The directory above, and the name in it.
fn place(path: &Path) -> Result<(OwnedFd, &OsStr), Errno> {
    let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::INVAL)?;
    Ok((open(parent)?, name))
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn arguments(fd: i64, name: &OsStr) -> Result<VolumeArguments, Errno> {
    let (bytes, mut arguments) = (name.as_bytes(), VolumeArguments { fd, name: [0; NAME_BYTES] });
    if bytes.len() >= NAME_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    arguments.name[..bytes.len()].copy_from_slice(bytes);
    Ok(arguments)
}

/// Asks for something in this directory.
fn ask<const CODE: Opcode>(parent: impl AsFd, arguments: VolumeArguments) -> Result<(), Errno> {
    // SAFETY: each of the codes above reads `struct btrfs_ioctl_vol_args` (linux/btrfs.h), whose layout `VolumeArguments` has.
    let ioctl = unsafe { Setter::<CODE, VolumeArguments>::new(arguments) };
    // SAFETY: the kernel reads the structure, which lives until the call returns, and writes nothing.
    unsafe { rustix::ioctl::ioctl(parent, ioctl) }
}

/// Whether a directory is the root of a subvolume.
pub fn is_subvolume(directory: BorrowedFd<'_>) -> bool {
    let on_btrfs = rustix::fs::fstatfs(directory).is_ok_and(|stat| stat.f_type == MAGIC);
    on_btrfs && rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_ino == ROOT_INODE)
}

/// Makes a subvolume.
///
/// # Errors
/// `NOTTY` or `OPNOTSUPP` where the file system has none; as mkdir(2).
pub fn create(path: &Path) -> Result<(), Errno> {
    let (parent, name) = place(path)?;
    ask::<SUBVOL_CREATE>(parent, arguments(0, name)?)
}

/// Makes a subvolume of what another one is now, sharing all of its content.
///
/// # Errors
/// `INVAL` when the other one is none; as mkdir(2).
pub fn snapshot(of: &Path, path: &Path) -> Result<(), Errno> {
    let (of, (parent, name)) = (open(of)?, place(path)?);
    // `of` stays open until the kernel has looked at it.
    ask::<SNAP_CREATE>(parent, arguments(of.as_raw_fd().into(), name)?)
}

/// Removes a subvolume with all that is in it, of subvolumes apart.
///
/// # Errors
/// `INVAL` or `NOTTY` when it is none; as rmdir(2).
pub fn destroy(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    ask::<SNAP_DESTROY>(parent, arguments(0, name)?)
}
