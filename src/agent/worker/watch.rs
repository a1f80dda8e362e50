//! Watching a directory or file: inotify(7), with what it leaves to its users.
//!
//! ```text
//! arm a directory ─▶ then read it ─▶ directories in it: the same
//!   event: a new directory ─▶ arm, then read: what is in it by now is reported as created, once
//!   event: moved ─▶ two halves with one cookie ─▶ one rename; a half alone is a deletion or creation
//!   queue full ─▶ overflow is reported, and what is not armed yet is armed
//! ```
//!
//! A directory is armed before it is read, so nothing happens between the two that neither sees. The first change is
//! reported at once; those that follow within [`GATHER_MS`] go together, and the same change of the same file once.
//! A file that was replaced whole (`content`) has been modified; of its draft nothing is said.
//! When serve does not read, sending waits, the kernel's queue fills, and that is the overflow: nothing grows.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::Replies;
use super::content::is_draft;
use super::place::{self, Root, by_number, stat};
use super::walk::{Pattern, each_name};
use crate::limits::{FRAME_BYTES_MAX, WATCHED_DIRECTORIES_MAX};
use crate::sys::{Errno, path, socket};
use crate::wire;
use crate::wire::worker::{Answer, Call, Change, ChangeKind, Failure, Kind, Request, Watch};

/// How long changes are gathered after some were reported.
const GATHER_MS: u64 = 10;

/// How long the first half of a rename may be without its second. The kernel queues both in one step; only a full
/// buffer parts them.
const HALF_MS: i64 = 5;

/// Bytes of events that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of changes in one message.
const BATCH_BYTES: usize = 32 * 1024;

const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// Reports changes until serve closes its end or what is watched is gone.
pub(super) fn watch(root: &Root, watch: &Watch, replies: &mut Replies<'_>) -> Result<Answer, Failure> {
    let mut watcher = Watcher::new(root, watch)?;
    watcher.arm(Vec::new(), false)?;
    replies.part(Answer::Armed)?;
    let mut sent = Instant::now() - Duration::from_secs(1);
    loop {
        let half = watcher.half.is_some();
        let asked = wait(&watcher.inotify, replies.socket, half)?;
        if !asked && !half {
            // Whatever else happens now goes along.
            let since = Duration::from_millis(GATHER_MS).saturating_sub(sent.elapsed());
            if !since.is_zero() {
                std::thread::sleep(since);
            }
        }
        watcher.drain()?;
        if watcher.half.is_some() && half {
            watcher.forget_half();
        }
        watcher.look_for_the_one();
        sent = Instant::now();
        watcher.report(replies)?;
        if watcher.gone {
            return Ok(Answer::Done);
        }
        if asked {
            synchronise(replies)?;
        }
    }
}

/// Waits for events or for serve; true when serve has something to say.
fn wait(inotify: &OwnedFd, socket: &OwnedFd, half: bool) -> Result<bool, Errno> {
    let timeout = half.then_some(Timespec { tv_sec: 0, tv_nsec: HALF_MS * 1_000_000 });
    let mut polled = [PollFd::new(inotify, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, timeout.as_ref()))?;
    Ok(!polled[1].revents().is_empty())
}

/// Answers serve's question whether all until now was reported.
fn synchronise(replies: &mut Replies<'_>) -> Result<(), Failure> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let received = socket::receive(replies.socket, &mut buffer)?;
    match wire::decode::<Request>(&buffer[..received.length]) {
        Ok(Request { number, call: Call::Synchronise }) if number == replies.number => {
            replies.part(Answer::Synchronised)
        }
        // Closed, or not for a watch.
        _ => Err(Errno::PIPE.into()),
    }
}

/// The first half of a rename.
#[derive(Debug)]
struct Half {
    cookie: u32,
    path: Vec<u8>,
    directory: bool,
}

/// Where what is watched lies.
enum Top {
    /// By path and not by descriptor: an open directory would not be reported as removed.
    Path(Vec<u8>),
    /// Of one file that is watched.
    Above(OwnedFd),
}

impl Top {
    fn open(&self, root: &Root, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self {
            Self::Path(top) => match path {
                b"" => root.open(top, flags),
                below => root.open(&joined(top, below), flags | OFlags::NOFOLLOW),
            },
            Self::Above(directory) => path::open_in_root(directory, c".", flags),
        }
    }
}

struct Watcher<'a> {
    inotify: OwnedFd,
    root: &'a Root,
    top: Top,
    recursive: bool,
    /// The one name in the top directory that is watched, if not all of it.
    only: Option<Vec<u8>>,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    directories: HashMap<i32, Vec<u8>>,
    half: Option<Half>,
    /// What reading a new directory has reported and the kernel's queue may report again.
    announced: HashSet<Vec<u8>>,
    changes: VecDeque<Change>,
    overflow: bool,
    /// The one file was removed, or moved away.
    removed: bool,
    gone: bool,
}

impl<'a> Watcher<'a> {
    fn new(root: &'a Root, watch: &Watch) -> Result<Self, Failure> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(limited)?;
        let patterns =
            |globs: &[String]| globs.iter().map(|glob| Pattern::new(glob)).collect::<Result<_, _>>();
        let opened = root.open(&watch.path, OFlags::PATH)?;
        let (top, only) = match stat(&opened)?.kind {
            Kind::Directory => (Top::Path(watch.path.clone()), None),
            // Its directory is watched: a file that is replaced by rename is another one of the same name.
            _ => {
                let place = root.destination(&watch.path, false)?;
                (Top::Above(place.directory), Some(place.name))
            }
        };
        Ok(Self {
            inotify,
            root,
            top,
            recursive: watch.recursive && only.is_none(),
            only,
            include: patterns(&watch.include)?,
            exclude: patterns(&watch.exclude)?,
            directories: HashMap::new(),
            half: None,
            announced: HashSet::new(),
            changes: VecDeque::new(),
            overflow: false,
            removed: false,
            gone: false,
        })
    }

    /// Arms a directory and those in it; if it is new, what is in it is reported.
    fn arm(&mut self, path: Vec<u8>, new: bool) -> Result<(), Failure> {
        let mut left = vec![path];
        while let Some(path) = left.pop() {
            let directory = match self.top.open(self.root, &path) {
                Ok(directory) => directory,
                Err(errno) if path.is_empty() => return Err(errno.into()),
                // Gone by now, or not ours to see.
                Err(_) => continue,
            };
            if self.directories.len() >= WATCHED_DIRECTORIES_MAX {
                return Err(Failure::WatchLimit);
            }
            let number = inotify::add_watch(&self.inotify, by_number(&directory), EVENTS).map_err(limited)?;
            let known = self.directories.insert(number, path.clone()).is_some();
            if !self.recursive && (!new || known) {
                continue;
            }
            let mut names = Vec::new();
            each_name(&directory, |name| names.push(name.to_vec()))?;
            for name in names {
                let Ok(stat) = place::stat_name(&directory, &name) else { continue };
                let is_directory = stat.kind == Kind::Directory;
                let found = joined(&path, &name);
                if self.excluded(&found) {
                    continue;
                }
                if new && !known {
                    self.announced.insert(found.clone());
                    self.change(ChangeKind::Create, found.clone(), is_directory);
                }
                if is_directory && self.recursive {
                    left.push(found);
                }
            }
        }
        Ok(())
    }

    /// Takes all that the kernel has.
    fn drain(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![MaybeUninit::uninit(); READ_BYTES];
        loop {
            let mut taken = Vec::new();
            let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
            let empty = loop {
                match reader.next() {
                    Ok(event) => taken.push(Taken {
                        number: event.wd(),
                        flags: event.events(),
                        cookie: event.cookie(),
                        name: event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default(),
                    }),
                    Err(Errno::AGAIN) => break true,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
                if reader.is_buffer_empty() {
                    break false;
                }
            };
            for event in taken {
                self.take(event)?;
            }
            if empty || self.changes.len() > READ_BYTES / 16 {
                if empty {
                    self.announced.clear();
                }
                return Ok(());
            }
        }
    }

    fn take(&mut self, event: Taken) -> Result<(), Failure> {
        let Taken { number, flags, cookie, name } = event;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflow = true;
            self.forget_half();
            // What was made meanwhile and not seen; nothing of it is reported, as nothing of it is known.
            return if self.recursive { self.arm(Vec::new(), false) } else { Ok(()) };
        }
        // First of all: what was moved away takes its directories with it.
        if self
            .half
            .as_ref()
            .is_some_and(|half| half.cookie != cookie || !flags.contains(ReadFlags::MOVED_TO))
        {
            self.forget_half();
        }
        let Some(parent) = self.directories.get(&number) else { return Ok(()) };
        if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            self.gone |= parent.is_empty();
            return Ok(());
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.directories.remove(&number);
            return Ok(());
        }
        if name.is_empty() || self.only.as_ref().is_some_and(|only| *only != name && !is_draft(&name)) {
            return Ok(());
        }
        if is_unnamed(&name) && !self.is_there(parent, &name) {
            return Ok(());
        }
        let (path, directory) = (joined(parent, &name), flags.contains(ReadFlags::ISDIR));
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.half = Some(Half { cookie, path, directory });
        } else if flags.contains(ReadFlags::MOVED_TO) {
            match self.half.take() {
                Some(half) => self.renamed(half, path)?,
                None => self.created(path, directory)?,
            }
        } else if flags.contains(ReadFlags::CREATE) {
            self.created(path, directory)?;
        } else if flags.contains(ReadFlags::DELETE) {
            self.removed |= self.only.as_ref() == Some(&path);
            self.change(ChangeKind::Delete, path, directory);
        } else if flags.contains(ReadFlags::MODIFY) {
            self.change(ChangeKind::Modify, path, directory);
        } else if flags.contains(ReadFlags::ATTRIB) {
            self.change(ChangeKind::Attrib, path, directory);
        }
        Ok(())
    }

    /// A file that was removed is gone, unless another has taken its name meanwhile: many programs save so.
    fn look_for_the_one(&mut self) {
        if std::mem::take(&mut self.removed)
            && let Some(only) = &self.only
        {
            self.gone |= !self.is_there(b"", only);
        }
    }

    fn is_there(&self, directory: &[u8], name: &[u8]) -> bool {
        let directory = self.top.open(self.root, directory);
        directory.is_ok_and(|directory| place::stat_name(&directory, name).is_ok())
    }

    fn created(&mut self, path: Vec<u8>, directory: bool) -> Result<(), Failure> {
        if !self.announced.remove(&path) {
            self.change(ChangeKind::Create, path.clone(), directory);
        }
        if directory && self.recursive && !self.excluded(&path) {
            self.arm(path, true)?;
        }
        Ok(())
    }

    fn renamed(&mut self, half: Half, to: Vec<u8>) -> Result<(), Failure> {
        if is_draft(last(&half.path)) {
            // The draft of a file that was there; the first content of a file gets its name without a rename.
            self.change(ChangeKind::Modify, to, half.directory);
            return Ok(());
        }
        let (seen, sees) = (self.shown(&half.path), self.shown(&to));
        if half.directory && self.recursive {
            if self.excluded(&half.path) && !self.excluded(&to) {
                return self.created(to, true);
            }
            self.moved(&half.path, &to);
        }
        match (seen, sees) {
            (true, true) => self.changes.push_back(Change {
                kind: ChangeKind::Rename,
                path: to,
                from: Some(half.path),
                directory: half.directory,
            }),
            (true, false) => self.change(ChangeKind::Delete, half.path, half.directory),
            (false, _) => self.change(ChangeKind::Create, to, half.directory),
        }
        Ok(())
    }

    /// Directories that are watched have other paths now.
    fn moved(&mut self, from: &[u8], to: &[u8]) {
        for path in self.directories.values_mut() {
            if let Some(rest) = path.strip_prefix(from)
                && (rest.is_empty() || rest.starts_with(b"/"))
            {
                *path = [to, rest].concat();
            }
        }
    }

    /// A first half without a second: it was moved out of sight.
    fn forget_half(&mut self) {
        let Some(Half { path, directory, .. }) = self.half.take() else { return };
        if directory {
            let below = |known: &Vec<u8>| {
                known
                    .strip_prefix(path.as_slice())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            };
            let lost: Vec<i32> = self
                .directories
                .iter()
                .filter(|(_, known)| below(known))
                .map(|(number, _)| *number)
                .collect();
            for number in lost {
                self.directories.remove(&number);
                // It may be gone with the directory.
                let _ = inotify::remove_watch(&self.inotify, number);
            }
        }
        self.removed |= self.only.as_ref() == Some(&path);
        self.change(ChangeKind::Delete, path, directory);
    }

    fn change(&mut self, kind: ChangeKind, path: Vec<u8>, directory: bool) {
        if !self.shown(&path) {
            return;
        }
        // The same again, or the writing that follows a creation, says nothing new.
        let told =
            self.changes.iter().rev().take(8).find(|change| change.path == path).is_some_and(|change| {
                change.kind == kind
                    || (change.kind == ChangeKind::Create
                        && matches!(kind, ChangeKind::Modify | ChangeKind::Attrib))
            });
        if !told {
            self.changes.push_back(Change { kind, path, from: None, directory });
        }
    }

    fn shown(&self, path: &[u8]) -> bool {
        let included = self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(path));
        included && !self.excluded(path) && !is_draft(last(path))
    }

    /// Whether this or a directory above it is left out.
    fn excluded(&self, path: &[u8]) -> bool {
        let mut ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        let whole = |pattern: &Pattern, end: usize| pattern.matches(&path[..end]);
        !self.exclude.is_empty()
            && (ends.any(|end| self.exclude.iter().any(|pattern| whole(pattern, end)))
                || self.exclude.iter().any(|pattern| whole(pattern, path.len())))
    }

    fn report(&mut self, replies: &mut Replies<'_>) -> Result<(), Failure> {
        while !self.changes.is_empty() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES
                && let Some(change) = self.changes.pop_front()
            {
                bytes += change.path.len() + change.from.as_ref().map_or(0, Vec::len) + 16;
                batch.push(change);
            }
            replies.part(Answer::Changes(batch))?;
        }
        if std::mem::take(&mut self.overflow) {
            replies.part(Answer::Overflow)?;
        }
        Ok(())
    }
}

/// An event, out of the kernel's buffer.
struct Taken {
    number: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Whether the kernel calls a file so that has no name (`O_TMPFILE`); one that has may be called so too.
fn is_unnamed(name: &[u8]) -> bool {
    name.strip_prefix(b"#").is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

/// The last name of a path.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Limits on watches look like a full disk or too many files (inotify_add_watch(2)).
fn limited(errno: Errno) -> Failure {
    match errno {
        Errno::NOSPC | Errno::MFILE | Errno::NFILE => Failure::WatchLimit,
        errno => errno.into(),
    }
}
