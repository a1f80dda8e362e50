//! Trees as tar archives, into a pipe and out of one.
//!
//! An archive that is laid out is the sandbox's own matter: it is read with the user's rights. Its paths stay below
//! the directory that was named all the same, and go through no symbolic link: who uploads it did not write those.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use bytes::{Bytes, BytesMut};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::content::{new_draft, publish, write_all};
use super::place::{Place, Root, names, stat};
use super::selection::Selected;
use super::tree::{beneath, clear, split};
use super::walk::{Found, Walk, is_directory};
use crate::holes::Holes;
use crate::limits::{HARDLINKS_KNOWN_MAX, LIST_WINDOW_MAX, PATH_BYTES_MAX, PATH_SHOWN_BYTES};
use crate::sys::{Errno, path};
use crate::tar::{Entry, Kind as TarKind, ReadError, Source, TarReader};
use crate::wire::worker::{Answer, Believed, Failure, Kind, Selection, Stat};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A tar is made of these.
const BLOCK_BYTES: u64 = 512;

const ZEROS: [u8; 1024] = [0; 1024];

/// Writes the tree below a path, or what of it is selected, or one file.
pub(super) fn pack(
    root: &Root,
    path: &[u8],
    selection: &Selection,
    pipe: &OwnedFd,
) -> Result<Answer, Failure> {
    let top = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut packer = Packer { pipe, linked: HashMap::new() };
    let now = stat(&top)?;
    match now.kind {
        Kind::File => {
            let name = names(path).last().map(|name| name.to_vec()).ok_or(Errno::INVAL)?;
            packer.file(&name, &now, &top)?;
        }
        Kind::Directory => {
            if selection.layer {
                // Whoever gets the archive learns of it before there is a part of one.
                let again = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                each_selected(again, selection, |_, _| Ok(()))?;
            }
            if selection.itself {
                packer.head(b"./", &now, EntryType::Directory, 0, None)?;
            }
            each_selected(top, selection, |walk, found| packer.entry(walk, found))?;
        }
        other => return Err(Failure::NotRegular(other)),
    }
    write_all(pipe, &ZEROS)?;
    Ok(Answer::Done)
}

/// Calls `each` with everything in a tree that is selected.
fn each_selected(
    top: OwnedFd,
    selection: &Selection,
    mut each: impl FnMut(&Walk, &Found) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut selected = Selected::new(selection)?;
    let mut walk = Walk::new(top, LIST_WINDOW_MAX, true, None);
    selected.enter(&walk, b"");
    while let Some(found) = walk.next()? {
        let directory = is_directory(&found.stat);
        if selected.leaves_out(&found.path, directory) {
            continue;
        }
        must_fit(&found, selection.layer)?;
        each(&walk, &found)?;
        if directory && !selected.leaves_out_all_in(&found.path) {
            walk.enter(&found);
            selected.enter(&walk, &found.path);
        }
    }
    if walk.unreadable > 0 {
        // An archive that lacks something must not look whole.
        return Err(Errno::ACCESS.into());
    }
    Ok(())
}

/// Refuses what nobody could lay out as it is here.
fn must_fit(found: &Found, layer: bool) -> Result<(), Failure> {
    let beginning = || found.path[..found.path.len().min(PATH_SHOWN_BYTES)].to_vec();
    // A directory's ends with a slash in an archive, and what is in it has a name.
    let more = if is_directory(&found.stat) { 2 } else { 0 };
    if found.path.len() + more >= PATH_BYTES_MAX {
        return Err(Failure::PathTooLong { path: beginning() });
    }
    let name = found.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if layer && name.starts_with(b".wh.") {
        return Err(Failure::Whiteout { path: beginning() });
    }
    Ok(())
}

struct Packer<'a> {
    pipe: &'a OwnedFd,
    /// Where files with several names were seen first.
    linked: HashMap<u64, Vec<u8>>,
}

impl Packer<'_> {
    fn entry(&mut self, walk: &Walk, found: &Found) -> Result<(), Failure> {
        let Found { path, stat } = found;
        match stat.kind {
            Kind::File => {
                if stat.links > 1 {
                    let known = self.linked.len();
                    match self.linked.get(&stat.tag.inode) {
                        Some(first) => return self.link(path, stat, EntryType::Link, first),
                        None if known < HARDLINKS_KNOWN_MAX => {
                            self.linked.insert(stat.tag.inode, path.clone());
                        }
                        None => {}
                    }
                }
                match walk.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
                    Ok(file) => self.file(path, stat, &file),
                    // It went away while we came, or became something else.
                    Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            Kind::Directory => {
                let path = [path.as_slice(), b"/"].concat();
                self.head(&path, stat, EntryType::Directory, 0, None)
            }
            Kind::Symlink => {
                self.link(path, stat, EntryType::Symlink, stat.target.as_deref().unwrap_or_default())
            }
            Kind::Fifo => self.head(path, stat, EntryType::Fifo, 0, None),
            // Nothing of them could be laid out anywhere.
            Kind::Socket | Kind::Device => Ok(()),
        }
    }

    fn link(&self, path: &[u8], stat: &Stat, kind: EntryType, target: &[u8]) -> Result<(), Failure> {
        self.head(path, stat, kind, 0, Some(target))
    }

    fn head(
        &self,
        path: &[u8],
        stat: &Stat,
        kind: EntryType,
        size: u64,
        link: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let mut entry = EntryBuilder::new_gnu();
        entry.path(path).entry_type(kind);
        if let Some(link) = link {
            entry.link_name(link);
        }
        let seconds = stat.tag.mtime.seconds;
        let filled = entry
            .mode(stat.mode)
            .and_then(|entry| entry.size(size))
            .and_then(|entry| entry.mtime(u64::try_from(seconds).unwrap_or(0)))
            .and_then(|entry| entry.uid(u64::from(stat.uid)))
            .and_then(|entry| entry.gid(u64::from(stat.gid)));
        filled.map_err(|_| Errno::OVERFLOW)?;
        let mut bytes = entry.finish_bytes();
        if seconds < 0 {
            before_1970(&mut bytes, seconds);
        }
        Ok(write_all(self.pipe, &bytes)?)
    }

    /// A file as long as it is when it is opened: what is added then is left out, what is taken away is zeros.
    fn file(&self, path: &[u8], found: &Stat, file: &OwnedFd) -> Result<(), Failure> {
        let now = stat(file)?;
        if now.kind != Kind::File {
            return Err(Failure::NotRegular(now.kind));
        }
        let size = now.tag.size;
        self.head(path, found, EntryType::Regular, size, None)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut buffer[..wanted]))?;
            if count == 0 {
                buffer[..wanted].fill(0);
                write_all(self.pipe, &buffer[..wanted])?;
                left -= wanted as u64;
            } else {
                write_all(self.pipe, &buffer[..count])?;
                left -= count as u64;
            }
        }
        let padding = size.next_multiple_of(BLOCK_BYTES) - size;
        let padding = usize::try_from(padding).unwrap_or_default();
        Ok(write_all(self.pipe, &ZEROS[..padding])?)
    }
}

/// Puts a time before 1970 into the last of an entry's headers, which the builder cannot: as a negative number in base 256
/// (tar(5), GNU).
fn before_1970(headers: &mut [u8], seconds: i64) {
    let Some(header) = headers.last_chunk_mut::<{ tar_core::HEADER_SIZE }>() else { return };
    header[136..140].fill(0xff);
    header[140..148].copy_from_slice(&seconds.to_be_bytes());
    // The sum of all bytes, its own taken as spaces.
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// The reading end of a pipe.
struct Pipe<'a>(&'a OwnedFd);

impl Source for Pipe<'_> {
    type Error = Errno;

    fn next(&mut self) -> Result<Option<Bytes>, Errno> {
        let mut buffer = BytesMut::zeroed(CHUNK_BYTES);
        let count = rustix::io::retry_on_intr(|| rustix::io::read(self.0, &mut buffer[..]))?;
        buffer.truncate(count);
        Ok((count > 0).then(|| buffer.freeze()))
    }
}

/// Lays out an archive below a directory.
pub(super) fn unpack(
    root: &Root,
    path: &[u8],
    believed: Believed,
    pipe: &OwnedFd,
) -> Result<Answer, Failure> {
    root.directories(&names(path))?;
    let top = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut unpacker = Unpacker { top, believed, entries: 0, directories: Vec::new() };
    let mut reader = TarReader::new(Pipe(pipe));
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return Err(unpacker.unreadable(error)),
        };
        unpacker.entry(&entry, &mut reader)?;
        unpacker.entries += 1;
    }
    if !reader.is_marked() {
        return Err(Failure::Archive { entries: unpacker.entries });
    }
    reader.drain().map_err(Failure::from)?;
    // Last, because nobody can write into a directory that is read-only, and writing changes its times.
    for (path, entry) in std::mem::take(&mut unpacker.directories).into_iter().rev() {
        let done = path::open_beneath(&unpacker.top, path.as_slice(), OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|directory| unpacker.finish(&directory, &entry));
        done.map_err(|errno| unpacker.failed(errno))?;
    }
    Ok(Answer::Done)
}

struct Unpacker {
    top: OwnedFd,
    believed: Believed,
    entries: u64,
    directories: Vec<(Vec<u8>, Entry)>,
}

impl Unpacker {
    fn failed(&self, errno: Errno) -> Failure {
        Failure::Entry { entries: self.entries, errno: errno.raw_os_error() }
    }

    fn unreadable(&self, error: ReadError<Errno>) -> Failure {
        match error {
            ReadError::Tar(_) => Failure::Archive { entries: self.entries },
            ReadError::Source(errno) => errno.into(),
        }
    }

    fn entry(&mut self, entry: &Entry, reader: &mut TarReader<Pipe<'_>>) -> Result<(), Failure> {
        let parts = names(&entry.path);
        if parts.contains(&b"..".as_slice()) {
            return Err(self.failed(Errno::XDEV));
        }
        if parts.is_empty() {
            // The directory itself, which has its owner and mode already, unless all is as the archive says.
            if self.believed == Believed::OwnersAndSetId && entry.kind == TarKind::Directory {
                self.directories.push((b".".to_vec(), entry.clone()));
            }
            return Ok(());
        }
        let path = parts.join(&b'/');
        let place = self.place(&path).map_err(|errno| self.failed(errno))?;
        let done = match entry.kind {
            TarKind::File => return self.file(&place, entry, reader),
            TarKind::Directory => self.directory(&place, path, entry),
            TarKind::Symlink => clear(&place, true)
                .and_then(|()| {
                    rustix::fs::symlinkat(entry.link.as_slice(), &place.directory, place.name.as_slice())
                })
                .and_then(|()| self.own(&place, entry)),
            TarKind::Hardlink => self.hardlink(&place, entry),
            TarKind::Fifo => clear(&place, true)
                .and_then(|()| {
                    let mode = self.mode(entry);
                    rustix::fs::mkfifoat(&place.directory, place.name.as_slice(), mode)
                })
                .and_then(|()| self.own(&place, entry)),
            TarKind::Device => Err(Errno::PERM),
        };
        done.map_err(|errno| self.failed(errno))
    }

    /// The place of an entry; directories that the archive does not mention are made.
    fn place(&self, path: &[u8]) -> Result<Place, Errno> {
        match beneath(&self.top, path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (above, _) = split(path);
        let mut made = Vec::new();
        for name in names(above) {
            if !made.is_empty() {
                made.push(b'/');
            }
            made.extend_from_slice(name);
            let place = beneath(&self.top, &made)?;
            let mode = Mode::from_raw_mode(0o755);
            match rustix::fs::mkdirat(&place.directory, place.name.as_slice(), mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        beneath(&self.top, path)
    }

    fn directory(&mut self, place: &Place, path: Vec<u8>, entry: &Entry) -> Result<(), Errno> {
        match rustix::fs::mkdirat(&place.directory, place.name.as_slice(), Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                path::open_beneath(&place.directory, place.name.as_slice(), flags)?;
            }
            other => other?,
        }
        self.directories.push((path, entry.clone()));
        Ok(())
    }

    fn hardlink(&self, place: &Place, entry: &Entry) -> Result<(), Errno> {
        let parts = names(&entry.link);
        if parts.is_empty() || parts.contains(&b"..".as_slice()) {
            return Err(Errno::XDEV);
        }
        let old = beneath(&self.top, &parts.join(&b'/'))?;
        clear(place, true)?;
        let (from, to) = (old.name.as_slice(), place.name.as_slice());
        rustix::fs::linkat(&old.directory, from, &place.directory, to, AtFlags::empty())
    }

    fn file(&self, place: &Place, entry: &Entry, reader: &mut TarReader<Pipe<'_>>) -> Result<(), Failure> {
        let io = |errno| self.failed(errno);
        let (draft, name) = new_draft(&place.directory).map_err(io)?;
        let written = self.content(&draft, entry, reader);
        let done = written.and_then(|()| self.finish(&draft, entry).map_err(io));
        if let (Err(_), Some(name)) = (&done, &name) {
            let _ = rustix::fs::unlinkat(&place.directory, name.as_slice(), AtFlags::empty());
        }
        done?;
        publish(place, &draft, name.as_deref(), true).map_err(io)
    }

    fn content(
        &self,
        draft: &OwnedFd,
        entry: &Entry,
        reader: &mut TarReader<Pipe<'_>>,
    ) -> Result<(), Failure> {
        let io = |errno| self.failed(errno);
        let whole = [crate::tar::Piece { offset: 0, length: entry.size }];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        let (mut file, mut rest) = (Holes::new(draft.as_fd()), Bytes::new());
        for piece in pieces {
            file.seek(piece.offset);
            let mut left = piece.length;
            while left > 0 {
                if rest.is_empty() {
                    rest = match reader.content().map_err(|error| self.unreadable(error))? {
                        Some(bytes) => bytes,
                        None => return Err(Failure::Archive { entries: self.entries }),
                    };
                }
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                file.write(&rest.split_to(length)).map_err(io)?;
                left -= length as u64;
            }
        }
        file.finish(entry.size).map_err(io)
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let believed = if self.believed == Believed::OwnersAndSetId { 0o7777 } else { 0o777 };
        Mode::from_raw_mode(entry.mode & believed)
    }

    /// Owner, permissions and time of something that is open.
    fn finish(&self, file: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner(entry)? {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, self.mode(entry))?;
        rustix::fs::futimens(file, &times(entry))
    }

    /// Owner and time of what is not opened.
    fn own(&self, place: &Place, entry: &Entry) -> Result<(), Errno> {
        let (directory, name, flags) = (&place.directory, place.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        if let Some((uid, gid)) = self.owner(entry)? {
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), flags)?;
        }
        match rustix::fs::utimensat(directory, name, &times(entry), flags) {
            // A link of some file systems has no time of its own.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other,
        }
    }

    fn owner(&self, entry: &Entry) -> Result<Option<(Uid, Gid)>, Errno> {
        if self.believed == Believed::Nothing {
            return Ok(None);
        }
        // Minus one would mean that nothing changes.
        let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(Errno::INVAL);
        Ok(Some((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?))))
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime_s, tv_nsec: entry.mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}
