//! From a path that somebody chose to a descriptor, with the kernel as the only one who resolves it (openat2(2)).
//!
//! Nothing is canonicalised: a path is cut at its slashes, `.` and nothing are dropped, and `..` is left to the
//! kernel. Symbolic links work, absolute ones too, and end in the sandbox's root; magic links of /proc do not.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};

use crate::limits::{PATH_BYTES_MAX, SYMLINKS_MAX};
use crate::sys::{Errno, path};
use crate::wire::worker::{Failure, Kind, Stat, Tag, Time};

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno.raw_os_error())
    }
}

/// The directory that all paths begin at.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// A directory and a name in it, which may not be there yet.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: Vec<u8>,
}

impl Root {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens what is there. A symbolic link at the end is followed unless `flags` say otherwise.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if path.len() >= PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        path::open_in_root(&self.0, path, flags)
    }

    /// The directory that a path's last name is in. The name itself is not looked at.
    pub(super) fn place(&self, path: &[u8]) -> Result<Place, Errno> {
        let mut names = names(path);
        let name = names.pop().ok_or(Errno::BUSY)?;
        if name == b".." {
            return Err(Errno::INVAL);
        }
        let directory = self.open(&joined(&names), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Place { directory, name: name.to_vec() })
    }

    /// The same, making the directories that are missing.
    pub(super) fn place_with_parents(&self, path: &[u8]) -> Result<Place, Errno> {
        let mut names = names(path);
        names.pop();
        self.directories(&names)?;
        self.place(path)
    }

    /// Where a file will be written: links at the end are followed, also to where nothing is yet.
    pub(super) fn destination(&self, path: &[u8], parents: bool) -> Result<Place, Errno> {
        let mut path = path.to_vec();
        for _ in 0..SYMLINKS_MAX {
            let place = if parents { self.place_with_parents(&path)? } else { self.place(&path)? };
            let Ok(target) = rustix::fs::readlinkat(&place.directory, place.name.as_slice(), Vec::new())
            else {
                return Ok(place);
            };
            // The text of a magic link is no path; the kernel knows which link is one.
            if self.open(&path, OFlags::PATH).err() == Some(Errno::LOOP) {
                return Err(Errno::LOOP);
            }
            let target = target.into_bytes();
            path = if target.starts_with(b"/") {
                target
            } else {
                let mut names = names(&path);
                names.pop();
                names.push(&target);
                joined(&names)
            };
        }
        Err(Errno::LOOP)
    }

    /// Makes the directories of a path that are missing.
    pub(super) fn directories(&self, names: &[&[u8]]) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(&joined(names), flags) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        for count in 1..=names.len() {
            let here = joined(&names[..count]);
            match self.open(&here, flags) {
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    let Place { directory, name } = self.place(&here)?;
                    match rustix::fs::mkdirat(&directory, name.as_slice(), Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// The names of a path.
pub(super) fn names(path: &[u8]) -> Vec<&[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect()
}

fn joined(names: &[&[u8]]) -> Vec<u8> {
    if names.is_empty() { b"/".to_vec() } else { names.join(&b'/') }
}

/// What an open file is.
pub(super) fn stat(fd: impl AsFd) -> Result<Stat, Errno> {
    let mut stat = stat_at(fd.as_fd(), b"", AtFlags::EMPTY_PATH)?;
    if stat.kind == Kind::Symlink {
        stat.target = Some(rustix::fs::readlinkat(fd, c"", Vec::new())?.into_bytes());
    }
    Ok(stat)
}

/// What is at a place; a link is not followed.
pub(super) fn stat_name(directory: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    let mut stat = stat_at(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.kind == Kind::Symlink {
        stat.target = Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes());
    }
    Ok(stat)
}

/// What is at a place, if anything.
pub(super) fn present(place: &Place) -> Result<Option<Stat>, Errno> {
    match stat_name(&place.directory, &place.name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn stat_at(directory: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<Stat, Errno> {
    let statx = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
    Ok(Stat {
        kind: kind(FileType::from_raw_mode(u32::from(statx.stx_mode))),
        mode: u32::from(statx.stx_mode) & 0o7777,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        links: statx.stx_nlink,
        tag: tag(&statx),
        target: None,
        text: None,
    })
}

fn tag(statx: &Statx) -> Tag {
    let time = |time: rustix::fs::StatxTimestamp| Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
    Tag {
        inode: statx.stx_ino,
        size: statx.stx_size,
        mtime: time(statx.stx_mtime),
        ctime: time(statx.stx_ctime),
    }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::Device,
    }
}

/// The name by which the kernel finds an open file again. Magic links are refused only in paths from outside.
pub(super) fn by_number(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
