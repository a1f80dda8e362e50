//! The single steps of unpacking: paths taken apart, metadata put on, content written.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};

use super::LayerError;
use crate::holes::Holes;
use crate::limits::{IDS_PER_SANDBOX, NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, XATTR_BYTES_MAX};
use crate::sys::Errno;
use crate::tar::{Entry, Piece, ReadError, Source, TarError, TarReader};

/// A directory, open for what is done in it.
pub(super) type Parent = Rc<OwnedFd>;

/// What is set on an entry beside its content.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) mode: u32,
    uid: u32,
    gid: u32,
    times: Timestamps,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where an entry goes: its name in an open directory, and its path for messages and bookkeeping.
pub(super) struct Place<'a> {
    pub(super) parent: Parent,
    pub(super) path: Vec<u8>,
    pub(super) name: &'a [u8],
}

impl Place<'_> {
    pub(super) fn io<T>(&self, operation: &'static str, result: Result<T, Errno>) -> Result<T, LayerError> {
        result.map_err(|errno| LayerError::Io { operation, path: lossy(&self.path), errno })
    }

    /// What is there now, symlinks not followed.
    pub(super) fn file_type(&self) -> Result<Option<FileType>, LayerError> {
        match rustix::fs::statat(&*self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => self.io("stat", Err(errno)),
        }
    }
}

/// Opens a directory below `root`, "" being `root` itself.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The components of an entry's path: no root, no ".", no "..", and nothing that the kernel would refuse.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    if path.len() >= PATH_BYTES_MAX {
        return Err(path_error(&path[..64], "is too long"));
    }
    if path.contains(&0) {
        return Err(path_error(path, "contains a NUL byte"));
    }
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(path_error(path, "contains '..'")),
            _ if component.len() > NAME_BYTES_MAX => {
                return Err(path_error(path, "has a name that is too long"));
            }
            _ => components.push(component),
        }
    }
    if components.len() > PATH_DEPTH_MAX {
        return Err(path_error(path, "is too deep"));
    }
    Ok(components)
}

/// A symlink's target as a path from the layer's root, its ".." taken off the text.
pub(super) fn lexical(parent: &[u8], target: &[u8]) -> Result<Vec<u8>, LayerError> {
    let from_root = target.starts_with(b"/");
    let base = if from_root { &b""[..] } else { parent };
    let mut path: Vec<&[u8]> = Vec::new();
    for component in base.split(|&byte| byte == b'/').chain(target.split(|&byte| byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => drop(path.pop()),
            _ => path.push(component),
        }
    }
    let path = path.join(&b'/');
    components(&path)?;
    Ok(path)
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

pub(super) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(512)]).into_owned()
}

pub(super) fn path_error(path: &[u8], why: &'static str) -> LayerError {
    LayerError::Path { path: lossy(path), why }
}

pub(super) fn tar_error(error: ReadError<std::convert::Infallible>) -> LayerError {
    match error {
        ReadError::Tar(error) => LayerError::Tar(error),
    }
}

pub(super) fn metadata(entry: &Entry) -> Result<Metadata, LayerError> {
    let id = |id: u64| u32::try_from(id).ok().filter(|&id| id < IDS_PER_SANDBOX);
    let (Some(uid), Some(gid)) = (id(entry.uid), id(entry.gid)) else {
        return Err(LayerError::Owner { path: lossy(&entry.path), uid: entry.uid, gid: entry.gid });
    };
    let mut xattrs = Vec::new();
    for (name, value) in &entry.xattrs {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        if name.len() > NAME_BYTES_MAX || name.contains(&0) || value.len() > XATTR_BYTES_MAX {
            return Err(LayerError::Xattr(lossy(&entry.path)));
        }
        xattrs.push((name.clone(), value.clone()));
    }
    let time = Timespec { tv_sec: entry.mtime_s, tv_nsec: entry.mtime_ns.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(Metadata { mode: entry.mode, uid, gid, times, xattrs })
}

/// Lays out a file: where it has pieces the rest stays a hole, and so do blocks of zeros.
pub(super) fn write_content<S>(
    place: &Place<'_>,
    file: &OwnedFd,
    entry: &Entry,
    reader: &mut TarReader<S>,
) -> Result<(), LayerError>
where
    S: Source<Error = std::convert::Infallible>,
{
    let whole = [Piece { offset: 0, length: entry.size }];
    let pieces = entry.sparse.as_deref().unwrap_or(&whole);
    let (mut holes, mut chunk) = (Holes::new(file.as_fd()), Bytes::new());
    for piece in pieces {
        holes.seek(piece.offset);
        let mut left = piece.length;
        while left > 0 {
            if chunk.is_empty() {
                let Some(next) = reader.content().map_err(tar_error)? else {
                    return Err(TarError::Truncated.into());
                };
                chunk = next;
            }
            let part = chunk.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
            place.io("write", holes.write(&part))?;
            left -= part.len() as u64;
        }
    }
    place.io("truncate", holes.finish(entry.size))
}

/// Sets what an open file or directory has beside its content.
pub(super) fn set_metadata(
    place: &Place<'_>,
    file: BorrowedFd<'_>,
    metadata: &Metadata,
    mode: bool,
) -> Result<(), LayerError> {
    let owned = metadata.uid != 0 || metadata.gid != 0;
    if owned {
        let owner = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
        place.io("chown", rustix::fs::fchown(file, owner.0, owner.1))?;
    }
    for (name, value) in &metadata.xattrs {
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            // tmpfs before Linux 6.6 has none.
            Err(Errno::OPNOTSUPP) => {}
            other => place.io("set an extended attribute of", other)?,
        }
    }
    if mode || (owned && metadata.mode & 0o7000 != 0) {
        place.io("chmod", rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode as RawMode)))?;
    }
    place.io("set the times of", rustix::fs::futimens(file, &metadata.times))
}

/// The same for what cannot be opened without consequences: symlinks and pipes. They were made a moment ago under
/// a name that did not exist, and no other process writes here.
pub(super) fn set_metadata_at(place: &Place<'_>, metadata: &Metadata) -> Result<(), LayerError> {
    if metadata.uid != 0 || metadata.gid != 0 {
        let (uid, gid) = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
        let chowned = rustix::fs::chownat(&*place.parent, place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        place.io("chown", chowned)?;
    }
    let times = &metadata.times;
    place.io(
        "set the times of",
        rustix::fs::utimensat(&*place.parent, place.name, times, AtFlags::SYMLINK_NOFOLLOW),
    )
}
