//! Files that are being written: whole, on the host's disk, until they are in the bucket.
//!
//! ```text
//! staged/N        the bytes
//!       /N.note   what they are to become (a postcard of [`Note`]); there from the first change to the upload's end
//! ```
//!
//! A worker that begins in a directory where notes are takes up their files: what a program has written is uploaded even
//! if the worker is killed. A note is written aside and renamed, so that it is whole or not there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::upload::Stream;
use crate::sys::{Errno, errno_of};

/// What a staged file is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Its path in the mount.
    pub(super) path: String,
    /// Permissions.
    pub(super) mode: u32,
    /// In nanoseconds since 1970.
    pub(super) mtime_ns: i128,
    /// Entity tag of the object that it was made from.
    pub(super) base: Option<String>,
}

/// The directory of staged files.
#[derive(Debug)]
pub(super) struct Stage {
    directory: OwnedFd,
    next: AtomicU64,
    /// Bytes of all files that are not uploaded.
    pub(super) dirty_bytes: AtomicU64,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Staged {
    number: u64,
    stage: Arc<Stage>,
    file: File,
    state: Mutex<State>,
}

/// How a staged file stands to the bucket.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Its bytes.
    pub(super) size: u64,
    /// In nanoseconds since 1970.
    pub(super) mtime_ns: i128,
    /// A program has set the time, so that it is worth an operation of its own.
    pub(super) mtime_set: bool,
    /// The bucket does not have it as it is.
    pub(super) dirty: bool,
    /// Counts changes: an upload is of one of them.
    pub(super) generation: u64,
    /// The last upload did not work, and when to try again.
    pub(super) failed: Option<(Errno, Instant, u32)>,
    /// Something was written before its end: it is sent when it is whole.
    pub(super) disordered: bool,
    /// Parts that were sent while it was written.
    pub(super) stream: Option<Stream>,
}

/// What a worker before has not uploaded.
type Left = Vec<(Note, Staged)>;

impl Stage {
    /// Opens the directory, and takes up what is in it.
    pub(super) fn open(directory: OwnedFd) -> Result<(Arc<Self>, Left), Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        let noted = |name: &str| name.strip_suffix(".note").and_then(|number| number.parse::<u64>().ok());
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| noted(name)).collect();
        numbers.sort_unstable();
        let next = AtomicU64::new(numbers.last().map_or(1, |last| last + 1));
        let stage = Arc::new(Self { directory, next, dirty_bytes: AtomicU64::new(0) });
        // Copies of what is in the bucket, and notes that were not finished.
        for name in names.iter().filter(|name| !matches!(name.as_str(), "." | "..")) {
            if !numbers.iter().any(|number| *name == number.to_string() || *name == format!("{number}.note"))
            {
                stage.remove(name);
            }
        }
        let found = numbers.into_iter().filter_map(|number| match stage.take_up(number) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(number, %error, "cannot take up a file that was not uploaded");
                None
            }
        });
        let found: Vec<_> = found.collect();
        Ok((Arc::clone(&stage), found))
    }

    fn take_up(self: &Arc<Self>, number: u64) -> io::Result<(Note, Staged)> {
        let bytes = {
            use std::io::Read as _;
            let note = self.file(&format!("{number}.note"), OFlags::RDONLY)?;
            let mut bytes = Vec::new();
            note.take(64 * 1024).read_to_end(&mut bytes)?;
            bytes
        };
        let note: Note = crate::wire::decode(&bytes).map_err(io::Error::other)?;
        let file = self.file(&number.to_string(), OFlags::RDWR)?;
        let size = file.metadata()?.len();
        self.dirty_bytes.fetch_add(size, Ordering::Relaxed);
        let state = State {
            size,
            mtime_ns: note.mtime_ns,
            mtime_set: true,
            dirty: true,
            generation: 1,
            failed: Some((Errno::IO, Instant::now(), 0)),
            ..State::default()
        };
        Ok((note, Staged { number, stage: Arc::clone(self), file, state: Mutex::new(state) }))
    }

    /// A new file, empty and clean.
    pub(super) fn create(self: &Arc<Self>, mtime_ns: i128) -> Result<Arc<Staged>, Errno> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = self.file(&number.to_string(), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
        let file = file.map_err(errno_of)?;
        let state = Mutex::new(State { mtime_ns, ..State::default() });
        Ok(Arc::new(Staged { number, stage: Arc::clone(self), file, state }))
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn remove(&self, name: &str) {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::warn!(name, %errno, "cannot remove a staged file"),
        }
    }
}

impl Staged {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Numbers of which each is right on its own.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file, fewer at its end.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let size = self.state().size;
        let length = length.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(errno_of(error)),
        }
    }

    /// Fills a buffer with bytes of the file, which has as many.
    pub(super) fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(errno_of)
    }

    /// Fills the file with what is in the bucket: no change.
    pub(super) fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.file.write_all_at(bytes, offset).map_err(errno_of)?;
        let mut state = self.state();
        state.size = state.size.max(offset + u64::try_from(bytes.len()).unwrap_or(0));
        Ok(())
    }

    /// Writes, and says whether this is the first change since the last upload.
    pub(super) fn write(&self, offset: u64, bytes: &[u8], now_ns: i128) -> Result<bool, Errno> {
        self.file.write_all_at(bytes, offset).map_err(errno_of)?;
        let mut state = self.state();
        let end = offset + u64::try_from(bytes.len()).unwrap_or(0);
        if state.stream.as_ref().is_some_and(|stream| offset < stream.sent) {
            state.stream = None;
        }
        state.disordered |= offset < state.size;
        Ok(self.changed(&mut state, |state| state.size = state.size.max(end), now_ns))
    }

    /// Makes the file shorter or longer, and says whether this is the first change since the last upload.
    pub(super) fn truncate(&self, size: u64, now_ns: i128) -> Result<bool, Errno> {
        rustix::fs::ftruncate(self.file.as_fd(), size)?;
        let mut state = self.state();
        if state.stream.as_ref().is_some_and(|stream| size < stream.sent) {
            state.stream = None;
        }
        Ok(self.changed(&mut state, |state| state.size = size, now_ns))
    }

    fn changed(&self, state: &mut State, change: impl FnOnce(&mut State), now_ns: i128) -> bool {
        let first = !state.dirty;
        let before = if first { 0 } else { state.size };
        change(state);
        state.mtime_ns = now_ns;
        state.mtime_set = false;
        state.dirty = true;
        state.generation += 1;
        let bytes = &self.stage.dirty_bytes;
        if state.size >= before {
            bytes.fetch_add(state.size - before, Ordering::Relaxed);
        } else {
            bytes.fetch_sub(before - state.size, Ordering::Relaxed);
        }
        first
    }

    /// Says what the file is to become, for a worker that comes after this one.
    pub(super) fn note(&self, note: &Note) -> Result<(), Errno> {
        use std::io::Write as _;
        let bytes = crate::wire::encode(note).map_err(|_| Errno::NAMETOOLONG)?;
        let (aside, name) = (format!("{}.new", self.number), format!("{}.note", self.number));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        self.stage.file(&aside, flags).and_then(|mut file| file.write_all(&bytes)).map_err(errno_of)?;
        rustix::fs::renameat(&self.stage.directory, aside, &self.stage.directory, name)
    }

    /// The bucket has it as it was at this generation.
    pub(super) fn uploaded(&self, generation: u64) {
        let mut state = self.state();
        state.failed = None;
        if state.generation == generation {
            state.disordered = false;
            self.clean(&mut state);
        }
    }

    /// Nobody wants it any more.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.stream = None;
        state.failed = None;
        if state.dirty {
            self.clean(&mut state);
        }
    }

    fn clean(&self, state: &mut State) {
        state.dirty = false;
        self.stage.dirty_bytes.fetch_sub(state.size, Ordering::Relaxed);
        self.stage.remove(&format!("{}.note", self.number));
    }
}

impl Drop for Staged {
    /// What is dirty stays for the next worker: this one is ending.
    fn drop(&mut self) {
        if !self.state().dirty {
            self.stage.remove(&self.number.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &std::path::Path) -> (Arc<Stage>, Left) {
        Stage::open(File::open(directory).expect("open").into()).expect("stage")
    }

    #[test]
    fn what_was_noted_is_taken_up_and_the_rest_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let note = Note { path: "a/b".to_owned(), mode: 0o755, mtime_ns: -5, base: None };
        let (stage, found) = open(directory.path());
        assert!(found.is_empty());
        let (kept, clean) = (stage.create(1).expect("create"), stage.create(1).expect("create"));
        assert!(kept.write(3, b"abc", 2).expect("write"));
        assert!(!kept.write(0, b"xyz", 2).expect("write"), "the second change");
        kept.note(&note).expect("note");
        clean.fill(0, b"from the bucket").expect("fill");
        assert_eq!(stage.dirty_bytes.load(Ordering::Relaxed), 6);
        drop((kept, clean, stage));

        let (stage, found) = open(directory.path());
        let [(again, staged)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(again, &note);
        assert_eq!(staged.read(0, 100).expect("read"), b"xyzabc");
        assert_eq!(stage.dirty_bytes.load(Ordering::Relaxed), 6);
        let generation = staged.state().generation;
        staged.uploaded(generation + 1);
        assert!(staged.state().dirty, "another generation");
        staged.uploaded(generation);
        drop((found, stage));
        assert_eq!(std::fs::read_dir(directory.path()).expect("read").count(), 0);
    }
}
