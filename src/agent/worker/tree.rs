//! Lists, copies and removes trees.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::Replies;
use super::content::{new_draft, publish};
use super::place::{Place, Root, stat, stat_name};
use super::walk::{Pattern, Walk, each_name, is_directory};
use crate::limits::LIST_WINDOW_MAX;
use crate::sys::{Errno, path};
use crate::wire::worker::{Answer, End, Entry, Failure, Kind, List, Stat};

/// Entries that are removed from a directory before it is read again.
const REMOVE_BATCH: usize = 1024;

/// Directories within each other that are removed.
const REMOVE_DEPTH_MAX: usize = 1 << 16;

/// Bytes copied by one call of the kernel, so that it can be interrupted.
const COPY_BYTES: usize = 16 << 20;

/// Bytes of names in one message.
const BATCH_BYTES: usize = 32 * 1024;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

pub(super) fn list(root: &Root, list: &List, replies: &mut Replies<'_>) -> Result<Answer, Failure> {
    let pattern = list.glob.as_deref().map(Pattern::new).transpose()?;
    let top = root.open(&list.path, DIRECTORY)?;
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
    // Directories that are only entered take places in it too.
    let all = list.recursive && pattern.is_some();
    let window = if all { LIST_WINDOW_MAX } else { limit.saturating_add(1).min(LIST_WINDOW_MAX) };
    let after = list.after.as_deref();
    let mut walk = match (after, list.recursive) {
        (Some(after), false) => Walk::new(top, window, list.hidden, Some(after)).only_top(),
        _ => Walk::new(top, window, list.hidden, after),
    }
    .only_matching(pattern, list.recursive);
    let mut batch = Vec::new();
    let (mut count, mut bytes) = (0_usize, 0_usize);
    while let Some(found) = walk.next()? {
        if list.recursive && is_directory(&found.stat) {
            walk.enter(&found);
        }
        if !walk.matches(&found.path) {
            continue;
        }
        if count == limit {
            replies.part(Answer::Entries(batch))?;
            return Ok(Answer::End(End { more: true, unreadable: walk.unreadable, ..End::default() }));
        }
        count += 1;
        bytes += found.path.len() + found.stat.target.as_ref().map_or(0, Vec::len) + 100;
        batch.push(Entry { path: found.path, stat: found.stat });
        if bytes >= BATCH_BYTES {
            replies.part(Answer::Entries(std::mem::take(&mut batch)))?;
            bytes = 0;
        }
    }
    replies.part(Answer::Entries(batch))?;
    Ok(Answer::End(End { unreadable: walk.unreadable, ..End::default() }))
}

pub(super) fn rename(root: &Root, from: &[u8], to: &[u8], overwrite: bool) -> Result<Answer, Failure> {
    let (from, to) = (root.place(from)?, root.place(to)?);
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let (old, new) = (from.name.as_slice(), to.name.as_slice());
    rustix::fs::renameat_with(&from.directory, old, &to.directory, new, flags)?;
    Ok(Answer::Done)
}

pub(super) fn remove(root: &Root, path: &[u8], recursive: bool) -> Result<Answer, Failure> {
    // As rm(1): whoever means what is in it says so.
    if is_itself(path) {
        return Err(Errno::INVAL.into());
    }
    let Place { directory, name } = root.place(path)?;
    match remove_one(&directory, &name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) if recursive => {}
        other => return Ok(other.map(|()| Answer::Done)?),
    }
    empty(&directory, &name)?;
    remove_one(&directory, &name)?;
    Ok(Answer::Done)
}

/// Whether a path names a directory by `.` in it.
fn is_itself(path: &[u8]) -> bool {
    path.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty()) == Some(b".")
}

/// Removes a name: a file, or a directory that is empty.
fn remove_one(directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// A directory that is being emptied: its name above, and what it is.
struct Opened {
    name: Vec<u8>,
    inode: u64,
    device: u64,
}

impl Opened {
    fn new(directory: &OwnedFd, name: Vec<u8>) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(directory)?;
        Ok(Self { name, inode: stat.st_ino, device: stat.st_dev })
    }
}

/// Removes all that is in a directory. Only one is open at a time, however deep the tree is; on the way back it is
/// looked at whether `..` is still where we came from. What is mounted in it could not be removed itself, and keeps what
/// it has: that may be a bucket's.
fn empty(above: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let device = rustix::fs::fstat(above)?.st_dev;
    let within = |opened: Opened| if opened.device == device { Ok(opened) } else { Err(Errno::BUSY) };
    let mut present = path::open_beneath(above, name, DIRECTORY)?;
    let mut stack = vec![within(Opened::new(&present, name.to_vec())?)?];
    loop {
        if let Some(below) = remove_files(&present)? {
            if stack.len() == REMOVE_DEPTH_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            present = path::open_beneath(&present, below.as_slice(), DIRECTORY)?;
            stack.push(within(Opened::new(&present, below)?)?);
            continue;
        }
        let Some(Opened { name, .. }) = stack.pop() else { return Ok(()) };
        let Some(expected) = stack.last() else { return Ok(()) };
        present = rustix::fs::openat(&present, c"..", DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let here = Opened::new(&present, Vec::new())?;
        if (here.inode, here.device) != (expected.inode, expected.device) {
            return Err(Errno::BUSY);
        }
        remove_one(&present, &name)?;
    }
}

/// Removes what can be removed at once from a directory; gives the name of one below that is not empty.
fn remove_files(directory: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    loop {
        let mut batch = Vec::new();
        each_name(directory, |name| {
            if batch.len() < REMOVE_BATCH {
                batch.push(name.to_vec());
            }
        })?;
        if batch.is_empty() {
            return Ok(None);
        }
        for name in batch {
            match remove_one(directory, &name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name)),
                Err(errno) => return Err(errno),
            }
        }
    }
}

pub(super) fn copy(root: &Root, from: &[u8], to: &[u8], overwrite: bool) -> Result<Answer, Failure> {
    let source = root.place(from)?;
    let stat = stat_name(&source.directory, &source.name)?;
    let target = root.place(to)?;
    if stat.kind != Kind::Directory {
        copy_one(&source, &stat, &target, overwrite)?;
        return Ok(Answer::Done);
    }
    let top = path::open_beneath(&source.directory, source.name.as_slice(), DIRECTORY)?;
    if is_below(&target.directory, &top)? {
        // A copy into the tree itself would not end.
        return Err(Errno::INVAL.into());
    }
    make_directory(&target, overwrite)?;
    let mut modes = vec![(Vec::new(), stat.mode)];
    let mut walk = Walk::new(top, LIST_WINDOW_MAX, true, None);
    let below = root.open(to, DIRECTORY)?;
    while let Some(found) = walk.next()? {
        let Place { directory, name } = beneath(&below, &found.path)?;
        if !is_directory(&found.stat) {
            let (above, source_name) = split(&found.path);
            let source = Place { directory: walk.open(above, DIRECTORY)?, name: source_name.to_vec() };
            copy_one(&source, &found.stat, &Place { directory, name }, overwrite)?;
            continue;
        }
        if is_same(&walk.open(&found.path, OFlags::PATH | OFlags::DIRECTORY)?, &below)? {
            // Somebody has just moved the copy into the tree.
            return Err(Errno::INVAL.into());
        }
        make_directory(&Place { directory, name }, overwrite)?;
        if found.path.len() + 2 >= crate::limits::PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        modes.push((found.path.clone(), found.stat.mode));
        walk.enter(&found);
    }
    if walk.unreadable > 0 {
        return Err(Errno::ACCESS.into());
    }
    // Last, because nobody can write into a directory that is read-only.
    for (path, mode) in modes.into_iter().rev() {
        let path = if path.is_empty() { b".".to_vec() } else { path };
        let directory = path::open_beneath(&below, path.as_slice(), DIRECTORY)?;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(mode & 0o777))?;
    }
    Ok(Answer::Done)
}

/// Whether a directory is `top` or somewhere in it.
fn is_below(directory: &OwnedFd, top: &OwnedFd) -> Result<bool, Errno> {
    let up = |from: &OwnedFd| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(from, "..", flags, Mode::empty())
    };
    let mut place = directory.try_clone().map_err(|_| Errno::MFILE)?;
    // As deep as a path can name.
    for _ in 0..crate::limits::PATH_BYTES_MAX {
        if is_same(&place, top)? {
            return Ok(true);
        }
        let above = up(&place)?;
        if is_same(&above, &place)? {
            return Ok(false);
        }
        place = above;
    }
    Err(Errno::NAMETOOLONG)
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// A path's directory and last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b".", path),
    }
}

/// A place below a directory that is reached without links.
pub(super) fn beneath(top: &OwnedFd, path: &[u8]) -> Result<Place, Errno> {
    let (above, name) = split(path);
    let directory = path::open_beneath(top, above, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok(Place { directory, name: name.to_vec() })
}

/// Makes a directory that its maker can fill.
fn make_directory(place: &Place, present: bool) -> Result<Stat, Errno> {
    match rustix::fs::mkdirat(&place.directory, place.name.as_slice(), Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) if present => {}
        other => other?,
    }
    stat(path::open_beneath(&place.directory, place.name.as_slice(), DIRECTORY)?)
}

/// Copies something that is no directory. What a device or socket stands for cannot be copied.
fn copy_one(from: &Place, stat: &Stat, to: &Place, overwrite: bool) -> Result<(), Failure> {
    match (stat.kind, &stat.target) {
        (Kind::File, _) => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
            let source = path::open_beneath(&from.directory, from.name.as_slice(), flags)?;
            let now = super::place::stat(&source)?;
            if now.kind != Kind::File {
                return Err(Failure::NotRegular(now.kind));
            }
            let (draft, name) = new_draft(&to.directory)?;
            copy_content(&source, &draft)?;
            rustix::fs::fchmod(&draft, Mode::from_raw_mode(stat.mode & 0o777))?;
            publish(to, &draft, name.as_deref(), overwrite)?;
        }
        (Kind::Symlink, Some(target)) => {
            clear(to, overwrite)?;
            rustix::fs::symlinkat(target.as_slice(), &to.directory, to.name.as_slice())?;
        }
        (Kind::Fifo, _) => {
            clear(to, overwrite)?;
            let mode = Mode::from_raw_mode(stat.mode & 0o777);
            rustix::fs::mkfifoat(&to.directory, to.name.as_slice(), mode)?;
        }
        (kind, _) => return Err(Failure::NotRegular(kind)),
    }
    Ok(())
}

/// Removes what is in the way, if it may be.
pub(super) fn clear(place: &Place, overwrite: bool) -> Result<(), Errno> {
    if !overwrite {
        return Ok(());
    }
    match rustix::fs::unlinkat(&place.directory, place.name.as_slice(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn copy_content(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    loop {
        match rustix::fs::copy_file_range(&from, None, &to, None, COPY_BYTES) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno),
        }
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut buffer))?;
        if count == 0 {
            return Ok(());
        }
        super::content::write_all(&to, &buffer[..count])?;
    }
}
