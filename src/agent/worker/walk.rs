//! Walking a tree in the order of its names, in bounded memory.
//!
//! A directory of a million entries is read several times, each time keeping the smallest names that were not
//! there before: a window. Deep directories get smaller windows, so that all of them together stay bounded. No
//! directory but the present one is open, and none is left by `..`: a tree that is moved meanwhile leads nowhere.
//!
//! Other file systems are seen and not entered, and symbolic links are never followed.

use std::collections::BinaryHeap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{FileType, OFlags, RawDir};

use super::place;
use crate::limits::PATH_BYTES_MAX;
use crate::sys::{Errno, path};
use crate::wire::worker::{Failure, Kind, Stat};

/// Entries that are read at once from a directory.
const READ_BYTES: usize = 32 * 1024;

/// Names that are kept at least, however deep a directory lies.
const WINDOW_MIN: usize = 64;

/// A walk below a directory.
#[derive(Debug)]
pub(super) struct Walk {
    top: OwnedFd,
    /// Names kept in the topmost directory.
    window: usize,
    filter: Filter,
    stack: Vec<Level>,
    /// The topmost level's directory, once it was needed.
    open: Option<OwnedFd>,
    /// Directories that could not be entered.
    pub(super) unreadable: u64,
}

/// Which names a walk comes by. Others take no place in a window: however few match, and however small the window is,
/// one pass over a directory finds the next ones.
#[derive(Debug)]
struct Filter {
    /// Whether those that begin with a dot.
    hidden: bool,
    /// Those that match.
    pattern: Option<Pattern>,
    /// Directories too that do not, because something in them may.
    directories: bool,
}

impl Filter {
    /// Whether a name in the directory with this path is one of them.
    fn takes(&self, above: &[u8], name: &[u8], kind: FileType) -> bool {
        if !self.hidden && name.starts_with(b".") {
            return false;
        }
        let Some(pattern) = &self.pattern else { return true };
        // Not every file system says what a name is.
        let entered = self.directories && matches!(kind, FileType::Directory | FileType::Unknown);
        entered || pattern.matches(&joined(above, name))
    }
}

/// A directory that is being walked.
#[derive(Debug)]
struct Level {
    path: Vec<u8>,
    /// Names that come next, the first one last.
    names: Vec<Vec<u8>>,
    /// All names up to this one were seen.
    after: Option<Vec<u8>>,
    /// Whether the window was full.
    more: bool,
}

/// Something that a walk comes by.
#[derive(Debug)]
pub(super) struct Found {
    /// Below the top.
    pub(super) path: Vec<u8>,
    pub(super) stat: Stat,
}

impl Walk {
    /// A walk that begins after this path, which need not be there any more.
    pub(super) fn new(top: OwnedFd, window: usize, hidden: bool, after: Option<&[u8]>) -> Self {
        let filter = Filter { hidden, pattern: None, directories: true };
        let mut walk = Self { top, window, filter, stack: Vec::new(), open: None, unreadable: 0 };
        let mut path = Vec::new();
        for name in after.map(place::names).unwrap_or_default() {
            walk.push(path.clone(), Some(name.to_vec()));
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        walk.push(path, None);
        walk
    }

    /// The same, only in the topmost directory.
    pub(super) fn only_top(mut self) -> Self {
        self.stack.truncate(1);
        self
    }

    /// The same, by what matches alone, and by directories when these are to be entered.
    pub(super) fn only_matching(mut self, pattern: Option<Pattern>, directories: bool) -> Self {
        (self.filter.pattern, self.filter.directories) = (pattern, directories);
        self
    }

    /// Whether something matches that was come by, and not only to be entered.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.filter.pattern.as_ref().is_none_or(|pattern| pattern.matches(path))
    }

    fn push(&mut self, path: Vec<u8>, after: Option<Vec<u8>>) {
        self.stack.push(Level { path, names: Vec::new(), after, more: true });
        self.open = None;
    }

    /// Walks into the directory that was found last.
    pub(super) fn enter(&mut self, found: &Found) {
        if found.path.len() + 2 >= PATH_BYTES_MAX {
            self.unreadable += 1;
        } else {
            self.push(found.path.clone(), None);
        }
    }

    /// The next of this walk. A directory is not entered unless [`enter`](Self::enter) is called.
    ///
    /// # Errors
    /// When the top cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Errno> {
        loop {
            let depth = self.stack.len();
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            if level.names.is_empty() && !level.more {
                self.stack.pop();
                self.open = None;
                continue;
            }
            let window = (self.window / depth).max(WINDOW_MIN);
            match step(&self.top, &mut self.open, level, window, &self.filter) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(errno) if depth == 1 => return Err(errno),
                Err(errno) => {
                    // Gone, or replaced by something else, is as if it had never been there.
                    self.unreadable +=
                        u64::from(!matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP));
                    self.stack.pop();
                    self.open = None;
                }
            }
        }
    }

    /// Opens what this walk came by.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        path::open_beneath(&self.top, path, flags)
    }
}

fn step(
    top: &OwnedFd,
    open: &mut Option<OwnedFd>,
    level: &mut Level,
    window: usize,
    filter: &Filter,
) -> Result<Option<Found>, Errno> {
    let directory = match open {
        Some(directory) => directory,
        None => {
            let path = if level.path.is_empty() { b".".as_slice() } else { &level.path };
            open.insert(path::open_beneath(top, path, OFlags::RDONLY | OFlags::DIRECTORY)?)
        }
    };
    if level.names.is_empty() {
        let takes = |name: &[u8], kind| filter.takes(&level.path, name, kind);
        (level.names, level.more) = smallest(directory, level.after.as_deref(), window, takes)?;
    }
    let Some(name) = level.names.pop() else { return Ok(None) };
    level.after = Some(name.clone());
    let stat = match place::stat_name(&*directory, &name) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    Ok(Some(Found { path: joined(&level.path, &name), stat }))
}

/// The path of a name in a directory.
fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

/// The smallest names of a directory beyond `after` that are taken, the smallest last, and whether there are more.
fn smallest(
    directory: &OwnedFd,
    after: Option<&[u8]>,
    window: usize,
    takes: impl Fn(&[u8], FileType) -> bool,
) -> Result<(Vec<Vec<u8>>, bool), Errno> {
    let mut heap: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    let mut more = false;
    each_entry(directory, |name, kind| {
        if after.is_some_and(|after| name <= after) || !takes(name, kind) {
            return;
        }
        if heap.len() < window {
            heap.push(name.to_vec());
            return;
        }
        more = true;
        if let Some(mut largest) = heap.peek_mut()
            && name < largest.as_slice()
        {
            largest.clear();
            largest.extend_from_slice(name);
        }
    })?;
    let mut names = heap.into_sorted_vec();
    names.reverse();
    Ok((names, more))
}

/// Calls `each` with every name in a directory, in no order.
pub(super) fn each_name(directory: impl AsFd, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    each_entry(directory, |name, _| each(name))
}

/// The same, with what the directory says that it is.
fn each_entry(directory: impl AsFd, mut each: impl FnMut(&[u8], FileType)) -> Result<(), Errno> {
    rustix::fs::seek(&directory, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = vec![MaybeUninit::uninit(); READ_BYTES];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(name, entry.file_type());
        }
    }
    Ok(())
}

/// What names or paths must match.
#[derive(Debug)]
pub(super) struct Pattern {
    matcher: GlobMatcher,
    whole: bool,
}

impl Pattern {
    /// Compiles a glob. One with a slash is for whole paths, one without for names.
    pub(super) fn new(glob: &str) -> Result<Self, Failure> {
        let compiled = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
        let matcher = compiled.map_err(|_| Failure::Pattern)?.compile_matcher();
        Ok(Self { matcher, whole: glob.contains('/') })
    }

    /// The same for a glob that is for whole paths, with a slash or without.
    pub(super) fn of_path(glob: &str) -> Result<Self, Failure> {
        Ok(Self { whole: true, ..Self::new(glob)? })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let text = if self.whole { path } else { name };
        self.matcher.is_match(std::ffi::OsStr::from_bytes(text))
    }
}

/// Whether a walk goes on below this.
pub(super) fn is_directory(stat: &Stat) -> bool {
    stat.kind == Kind::Directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_match_takes_no_place_in_a_window() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for number in 0..1000 {
            std::fs::write(directory.path().join(format!("f{number:04}")), "").expect("file");
        }
        std::fs::create_dir(directory.path().join("a")).expect("directory");
        std::fs::write(directory.path().join("a/f0999"), "").expect("file");
        let open = || OwnedFd::from(std::fs::File::open(directory.path()).expect("directory"));
        for directories in [false, true] {
            let walk = Walk::new(open(), WINDOW_MIN, true, None);
            let mut walk = walk.only_matching(Some(Pattern::new("f099[89]").expect("glob")), directories);
            let mut found = Vec::new();
            while let Some(next) = walk.next().expect("walk") {
                if is_directory(&next.stat) {
                    walk.enter(&next);
                }
                assert!(walk.stack[0].names.len() < 3, "one pass has found them all: {:?}", walk.stack);
                assert!(!walk.stack[0].more, "{:?}", walk.stack);
                found.push(String::from_utf8(next.path).expect("text"));
            }
            let below: &[&str] = if directories { &["a", "a/f0999"] } else { &[] };
            assert_eq!(found, [below, &["f0998", "f0999"]].concat());
        }
    }
}
