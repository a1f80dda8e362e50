//! Project quotas: bytes and files of one directory tree, counted by the file system (quotactl_fd(2), ioctl_fs(2)).

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Errno;
use super::process::last_errno;

/// `PRJQUOTA` (linux/quota.h).
const PROJECT: u32 = 2;
/// `Q_GETFMT`: the format of the quota that is on (linux/quota.h).
const GET_FORMAT: u32 = 0x80_0004;
/// `Q_SETQUOTA`.
const SET_QUOTA: u32 = 0x80_0008;
/// `Q_GETQUOTA`.
const GET_QUOTA: u32 = 0x80_0007;
/// Bytes in a quota block (linux/quota.h, `QIF_DQBLKSIZE`).
const BLOCK_BYTES: u64 = 1024;

/// The kernel's `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Quota {
    block_hard: u64,
    block_soft: u64,
    space: u64,
    inode_hard: u64,
    inode_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
    padding: u32,
}

/// The kernel's `struct fsxattr` (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// A tree's limits, where 0 is none, or what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, rounded up to whole kibibytes.
    pub bytes: u64,
    /// Files, directories and links.
    pub files: u64,
}

fn quotactl<T>(directory: BorrowedFd<'_>, command: u32, id: u32, value: &mut T) -> Result<(), Errno> {
    let command = (command << 8) | PROJECT;
    // SAFETY: quotactl_fd(2) reads or writes, for these commands, one value of the type that the caller names:
    // an int for Q_GETFMT, an if_dqblk for the others. `value` is that and outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, directory.as_raw_fd(), command, id, std::ptr::from_mut(value))
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Whether the file system of this directory enforces project quotas.
pub fn is_on(directory: BorrowedFd<'_>) -> bool {
    let mut format = 0_i32;
    quotactl(directory, GET_FORMAT, 0, &mut format).is_ok()
}

/// Makes `directory`, which must be empty, the root of a project: what is made in it from now on is counted.
///
/// # Errors
/// As the `FS_IOC_FSSETXATTR` ioctl.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
    /// linux/fs.h
    const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
    /// linux/fs.h: new files get the directory's project.
    const FS_XFLAG_PROJINHERIT: u32 = 0x200;
    let attributes = Attributes { flags: FS_XFLAG_PROJINHERIT, project, ..Attributes::default() };
    // SAFETY: FS_IOC_FSSETXATTR reads one fsxattr; `attributes` is one and outlives the call.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sets a project's limits and reads them back.
///
/// # Errors
/// As quotactl_fd(2).
pub fn set_limits(directory: BorrowedFd<'_>, project: u32, limits: Limits) -> Result<Limits, Errno> {
    /// `QIF_BLIMITS | QIF_ILIMITS`.
    const VALID_LIMITS: u32 = 1 | 4;
    let mut quota = Quota {
        block_hard: limits.bytes.div_ceil(BLOCK_BYTES),
        inode_hard: limits.files,
        valid: VALID_LIMITS,
        ..Quota::default()
    };
    quotactl(directory, SET_QUOTA, project, &mut quota)?;
    let mut set = Quota::default();
    quotactl(directory, GET_QUOTA, project, &mut set)?;
    Ok(Limits { bytes: set.block_hard * BLOCK_BYTES, files: set.inode_hard })
}

/// What a project takes.
///
/// # Errors
/// As quotactl_fd(2).
pub fn used(directory: BorrowedFd<'_>, project: u32) -> Result<Limits, Errno> {
    let mut quota = Quota::default();
    quotactl(directory, GET_QUOTA, project, &mut quota)?;
    Ok(Limits { bytes: quota.space, files: quota.inodes })
}
