//! A copy of a sandbox's own files: the same tree, with everything that overlayfs has written on it.
//!
//! ```text
//! enter a directory ─▶ its files, in lots ─▶ content: reflink, or what is not a hole
//!        └▶ its subdirectories ─▶ the same     owner, attributes, mode, times; of a directory when all in it are there
//! ```
//! - Everything is done by descriptors of directories, no symlink is followed, and a name is opened for what it was listed
//!   as: the tree is untrusted code's. Whoever wrote it is frozen, or gone.
//! - Whiteouts are devices 0/0, and overlayfs's attributes (`trusted.overlay.*`: opaque, redirect, origin) mean the
//!   same in the copy: it lies over the same layers.
//! - A file with several names has them in the copy: the first copy gets a name in a directory of its own too, from which
//!   the others are linked.
//! - Work is a stack, the deepest first: what is open is as much as the tree is deep where it branches, and no more.
//! - `runtime::merge` copies several trees as one, file by file, with what is here.
//!
//! Why not cp: the launcher executes nothing, and cp knows neither threads nor what a redirect means.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};

use crate::sys::Errno;

/// Names that one turn of a thread deals with.
const LOT: usize = 64;

/// Content up to this size is read and written in one go: less work for the kernel than copy_file_range(2).
const SMALL_BYTES: u64 = 128 * 1024;

/// Threads, if the host has so many processors.
const THREADS_MAX: usize = 4;

/// Bytes in a list of attributes' names, and in a value (xattr(7): `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Ties an overlay to its own upper directory; a copy is another.
const OWN: &[u8] = b"trusted.overlay.uuid";

/// What all attributes of overlayfs begin with.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// What becomes of overlayfs's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// They say the same in the copy.
    Keep,
    /// The copy lies elsewhere.
    Leave,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Whether there is content, and all of it is shared with what it was copied from.
    pub cloned: bool,
}

/// A directory and its copy. When nothing more is made in the copy, it gets the owner, attributes and times.
struct Pair<'a> {
    from: OwnedFd,
    to: OwnedFd,
    shared: &'a Shared,
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        if !self.shared.has_failed() {
            let done = describe(&self.from, &self.to, self.shared.marks, &mut buffer());
            self.shared.note(done);
        }
    }
}

impl Pair<'_> {
    fn between(&self) -> Between<'_> {
        Between { from: &self.from, to: &self.to, shared: self.shared }
    }
}

/// Directories that files are copied from and to.
#[derive(Clone, Copy)]
pub(super) struct Between<'a> {
    pub(super) from: &'a OwnedFd,
    pub(super) to: &'a OwnedFd,
    pub(super) shared: &'a Shared,
}

/// Room for what is read of a small file or of attributes.
pub(super) fn buffer() -> Vec<u8> {
    vec![0; usize::try_from(SMALL_BYTES).unwrap_or(0).max(XATTR_BYTES_MAX)]
}

enum Work<'a> {
    Enter(Arc<Pair<'a>>, CString),
    Files(Arc<Pair<'a>>, Vec<(CString, FileType)>),
}

#[derive(Default)]
struct Queue<'a> {
    work: Vec<Work<'a>>,
    active: usize,
}

/// What all that copy one tree have in common.
pub(super) struct Shared {
    marks: Marks,
    /// Where files with several names have one more.
    links: OwnedFd,
    linked: Mutex<HashSet<u64>>,
    failed: Mutex<Option<Errno>>,
    has_failed: AtomicBool,
    entries: AtomicU64,
    blocks: AtomicU64,
    can_clone: AtomicBool,
    has_cloned: AtomicBool,
}

impl Shared {
    /// `links` is as for [`tree`].
    pub(super) fn new(links: OwnedFd, marks: Marks) -> Self {
        Self {
            marks,
            links,
            linked: Mutex::default(),
            failed: Mutex::default(),
            has_failed: AtomicBool::new(false),
            entries: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            can_clone: AtomicBool::new(true),
            has_cloned: AtomicBool::new(false),
        }
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    fn note(&self, result: Result<(), Errno>) {
        if let Err(errno) = result {
            lock(&self.failed).get_or_insert(errno);
            self.has_failed.store(true, Ordering::Release);
        }
    }
}

/// What a panicking thread left is whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies what is in `from` into `to`, which is empty, and what `from` itself is. `links` is an empty directory on the
/// same file system; what is in it afterwards is of no use.
///
/// # Errors
/// The first thing that failed; what was copied until then stays.
pub fn tree(from: OwnedFd, to: OwnedFd, links: OwnedFd) -> Result<Copied, Errno> {
    let shared = Shared::new(links, Marks::Keep);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    {
        let queue = Mutex::new(Queue::default());
        let changed = Condvar::new();
        let root = Arc::new(Pair { from, to, shared: &shared });
        shared.note(list(&root, &queue));
        drop(root);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| run(&queue, &changed, &shared));
            }
            run(&queue, &changed, &shared);
        });
    }
    if let Some(errno) = *lock(&shared.failed) {
        return Err(errno);
    }
    Ok(Copied {
        bytes: shared.blocks.into_inner() * 512,
        entries: shared.entries.into_inner(),
        cloned: shared.can_clone.into_inner() && shared.has_cloned.into_inner(),
    })
}

/// One thread's work: until nothing is left and nobody can add any.
fn run<'a>(queue: &Mutex<Queue<'a>>, changed: &Condvar, shared: &'a Shared) {
    let mut buffer = buffer();
    loop {
        let mut waiting = lock(queue);
        let work = loop {
            if let Some(work) = waiting.work.pop() {
                break work;
            }
            if waiting.active == 0 {
                return;
            }
            waiting = changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        };
        waiting.active += 1;
        drop(waiting);
        if !shared.has_failed() {
            let done = match &work {
                Work::Enter(parent, name) => enter(parent, name, queue),
                Work::Files(pair, files) => {
                    files.iter().try_for_each(|(name, kind)| file(pair.between(), name, *kind, &mut buffer))
                }
            };
            shared.note(done);
        }
        // Before it is said that this thread is done: a directory's end is work too.
        drop(work);
        let mut waiting = lock(queue);
        waiting.active -= 1;
        drop(waiting);
        changed.notify_all();
    }
}

/// Makes a subdirectory's copy and finds out what is in it.
fn enter<'a>(parent: &Arc<Pair<'a>>, name: &CStr, queue: &Mutex<Queue<'a>>) -> Result<(), Errno> {
    let from = open_directory(&parent.from, name)?;
    rustix::fs::mkdirat(&parent.to, name, Mode::RWXU)?;
    let to = open_directory(&parent.to, name)?;
    list(&Arc::new(Pair { from, to, shared: parent.shared }), queue)
}

fn open_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn list<'a>(pair: &Arc<Pair<'a>>, queue: &Mutex<Queue<'a>>) -> Result<(), Errno> {
    let (mut directories, mut lots, mut lot) = (Vec::new(), Vec::new(), Vec::new());
    let mut entries = 1;
    for entry in rustix::fs::Dir::read_from(&pair.from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(
                rustix::fs::statat(&pair.from, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
            ),
            kind => kind,
        };
        if kind == FileType::Directory {
            directories.push(Work::Enter(Arc::clone(pair), name.to_owned()));
            continue;
        }
        entries += 1;
        lot.push((name.to_owned(), kind));
        if lot.len() == LOT {
            lots.push(Work::Files(Arc::clone(pair), std::mem::take(&mut lot)));
        }
    }
    if !lot.is_empty() {
        lots.push(Work::Files(Arc::clone(pair), lot));
    }
    pair.shared.entries.fetch_add(entries, Ordering::Relaxed);
    let mut waiting = lock(queue);
    // Files on top: a directory that is done is closed before others are opened.
    waiting.work.extend(directories);
    waiting.work.extend(lots);
    Ok(())
}

/// Copies what is no directory, listed as this kind.
///
/// # Errors
/// As openat(2), read(2), write(2), linkat(2), mknodat(2) and those that give it its attributes.
pub(super) fn file(pair: Between<'_>, name: &CStr, kind: FileType, buffer: &mut [u8]) -> Result<(), Errno> {
    match kind {
        FileType::RegularFile => regular(pair, name, buffer),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(pair.from, name, Vec::new())?;
            special(pair, name, |to| rustix::fs::symlinkat(&target, to, name), buffer)
        }
        _ => {
            let stat = rustix::fs::statat(pair.from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let mode = Mode::from_raw_mode(stat.st_mode);
            special(pair, name, |to| rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev), buffer)
        }
    }
}

fn regular(pair: Between<'_>, name: &CStr, buffer: &mut [u8]) -> Result<(), Errno> {
    // Should it have become a pipe, nobody waits at its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
    let from = rustix::fs::openat(pair.from, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN);
    }
    let copy = |buffer: &mut [u8]| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(pair.to, name, flags, Mode::RUSR | Mode::WUSR)?;
        content(pair.shared, &from, &to, &stat, buffer)?;
        pair.shared.blocks.fetch_add(u64::try_from(stat.st_blocks).unwrap_or(0), Ordering::Relaxed);
        describe(&from, &to, pair.shared.marks, buffer)
    };
    if stat.st_nlink < 2 {
        return copy(buffer);
    }
    let link = stat.st_ino.to_string();
    // Held until the first copy is there for the others.
    let mut linked = lock(&pair.shared.linked);
    if linked.contains(&stat.st_ino) {
        return rustix::fs::linkat(&pair.shared.links, link.as_str(), pair.to, name, AtFlags::empty());
    }
    copy(buffer)?;
    rustix::fs::linkat(pair.to, name, &pair.shared.links, link.as_str(), AtFlags::empty())?;
    linked.insert(stat.st_ino);
    Ok(())
}

fn content(
    shared: &Shared,
    from: &OwnedFd,
    to: &OwnedFd,
    stat: &Stat,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 {
        return Ok(());
    }
    if shared.can_clone.load(Ordering::Relaxed) {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => {
                shared.has_cloned.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
                shared.can_clone.store(false, Ordering::Relaxed);
            }
            Err(errno) => return Err(errno),
        }
    }
    let on_disk = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if on_disk >= size {
        return extent(from, to, 0, size, buffer);
    }
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => return Ok(()),
            found => found?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        extent(from, to, start, end - start, buffer)?;
        at = end;
    }
}

/// Copies so many bytes from one place to the same. A file that ends sooner has become shorter.
fn extent(from: &OwnedFd, to: &OwnedFd, start: u64, length: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let (mut at, end) = (start, start + length);
    let mut by_kernel = length > SMALL_BYTES;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        if by_kernel {
            let (mut read, mut written) = (at, at);
            // Less than the longest at a time: so the process can be killed in between.
            let count = left.min(64 << 20);
            match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), count) {
                Ok(0) => return Ok(()),
                Ok(count) => at += count as u64,
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::XDEV | Errno::NOSYS) => by_kernel = false,
                Err(errno) => return Err(errno),
            }
            continue;
        }
        let count = left.min(buffer.len());
        let count = rustix::io::pread(from, &mut buffer[..count], at)?;
        if count == 0 {
            return Ok(());
        }
        let mut done = 0;
        while done < count {
            done += rustix::io::pwrite(to, &buffer[done..count], at + done as u64)?;
        }
        at += count as u64;
    }
    Ok(())
}

/// Gives a copy what the file has beside its content.
///
/// # Errors
/// As fstat(2), fchown(2), fsetxattr(2), fchmod(2) and utimensat(2).
pub(super) fn describe(from: &OwnedFd, to: &OwnedFd, marks: Marks, buffer: &mut [u8]) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    let length = match rustix::fs::flistxattr(from, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed?,
    };
    for name in names(&buffer[..length], marks) {
        let length = rustix::fs::fgetxattr(from, &*name, &mut buffer[..])?;
        rustix::fs::fsetxattr(to, &*name, &buffer[..length], XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(to, &times(&stat))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Names out of a list of attributes (listxattr(2)) that a copy has too.
fn names(list: &[u8], marks: Marks) -> Vec<CString> {
    let left = match marks {
        Marks::Keep => OWN,
        Marks::Leave => OVERLAY,
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !name.starts_with(left));
    names.filter_map(|name| CString::new(name).ok()).collect()
}

/// A copy of what cannot be opened without consequences: symlinks, pipes, sockets, whiteouts.
fn special(
    pair: Between<'_>,
    name: &CStr,
    make: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let stat = rustix::fs::statat(pair.from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let link = stat.st_ino.to_string();
    let mut linked = (stat.st_nlink > 1).then(|| lock(&pair.shared.linked));
    if linked.as_ref().is_some_and(|linked| linked.contains(&stat.st_ino)) {
        match rustix::fs::linkat(&pair.shared.links, link.as_str(), pair.to, name, AtFlags::empty()) {
            // overlayfs gives its whiteouts as many names as one file can have, and here it has one more.
            Err(Errno::MLINK) => linked = None,
            done => return done,
        }
    }
    make(pair.to)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(pair.to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // The last component is not followed, and what is before it is a descriptor of ours.
    let place = |directory: &OwnedFd| {
        let directory = format!("/proc/self/fd/{}/", directory.as_raw_fd());
        CString::new([directory.as_bytes(), name.to_bytes()].concat()).unwrap_or_default()
    };
    let (from, to) = (place(pair.from), place(pair.to));
    let length = match rustix::fs::llistxattr(&*from, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed?,
    };
    for name in names(&buffer[..length], pair.shared.marks) {
        let length = rustix::fs::lgetxattr(&*from, &*name, &mut buffer[..])?;
        rustix::fs::lsetxattr(&*to, &*name, &buffer[..length], XattrFlags::empty())?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // mknod(2) takes the umask off.
        rustix::fs::chmodat(pair.to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(pair.to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
    if let Some(linked) = &mut linked {
        rustix::fs::linkat(pair.to, name, &pair.shared.links, link.as_str(), AtFlags::empty())?;
        linked.insert(stat.st_ino);
    }
    Ok(())
}

/// Gives a new root directory what another has beside its content and what overlayfs has written on it.
///
/// # Errors
/// As fchown(2), fsetxattr(2), fchmod(2) and utimensat(2).
pub fn root(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    describe(from, to, Marks::Leave, &mut buffer())
}

/// How much a tree is.
///
/// # Errors
/// As openat(2), getdents(2) and stat(2).
pub fn measure(tree: OwnedFd) -> Result<Copied, Errno> {
    let (mut found, mut seen) = (Copied::default(), HashSet::new());
    let mut waiting: Vec<(Arc<OwnedFd>, CString)> = Vec::new();
    let mut directory = Arc::new(tree);
    loop {
        found.entries += 1;
        for entry in rustix::fs::Dir::read_from(&*directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                waiting.push((Arc::clone(&directory), name.to_owned()));
                continue;
            }
            found.entries += 1;
            if stat.st_nlink < 2 || seen.insert(stat.st_ino) {
                found.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            }
        }
        let Some((parent, name)) = waiting.pop() else { return Ok(found) };
        directory = Arc::new(open_directory(&parent, &name)?);
    }
}
