//! Blocks of objects on disk, by (key, entity tag, block), up to a size.
//!
//! One sparse file per version of an object. What is in which file is known in memory alone: a new worker begins with an
//! empty cache. What cannot be cached is fetched again: no error of the disk is a program's.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use crate::sys::Errno;

/// Bytes that are kept or not kept together: one read of the kernel's.
pub(super) const BLOCK: u64 = 128 * 1024;

/// A version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) key: String,
    pub(super) etag: String,
    pub(super) size: u64,
}

/// The cache of a mount.
#[derive(Debug)]
pub(super) struct Cache {
    directory: OwnedFd,
    bytes_max: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    versions: HashMap<Id, Blocks>,
    bytes: u64,
    /// Counts uses: the version whose last use is the longest ago goes first.
    clock: u64,
    next: u64,
}

#[derive(Debug)]
struct Blocks {
    /// Name of the file.
    file: u64,
    /// One bit per block.
    present: Vec<u64>,
    bytes: u64,
    used: u64,
}

impl Blocks {
    fn has(&self, block: u64) -> bool {
        let (word, bit) = place(block);
        self.present.get(word).is_some_and(|word| word & bit != 0)
    }

    fn add(&mut self, block: u64) -> bool {
        let (word, bit) = place(block);
        if self.present.len() <= word {
            self.present.resize(word + 1, 0);
        }
        let new = self.present[word] & bit == 0;
        self.present[word] |= bit;
        new
    }
}

fn place(block: u64) -> (usize, u64) {
    (usize::try_from(block / 64).unwrap_or(usize::MAX), 1 << (block % 64))
}

impl Cache {
    /// A cache in this directory, which is emptied.
    pub(super) fn new(directory: OwnedFd, bytes_max: u64) -> Result<Self, Errno> {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(Self { directory, bytes_max, kept: Mutex::default() })
    }

    /// Bytes of a version, if all of them are here.
    pub(super) fn get(&self, id: &Id, offset: u64, length: usize) -> Option<Bytes> {
        let end = offset + u64::try_from(length).ok()?;
        let file = {
            let mut kept = self.lock();
            kept.clock += 1;
            let now = kept.clock;
            let blocks = kept.versions.get_mut(id)?;
            if !(offset / BLOCK..end.div_ceil(BLOCK)).all(|block| blocks.has(block)) {
                return None;
            }
            blocks.used = now;
            self.open(blocks.file)?
        };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes.into())
    }

    /// Keeps the whole blocks of a range. `limit` is what the cache may hold now.
    pub(super) fn put(&self, id: &Id, offset: u64, pieces: &[Bytes], limit: u64) {
        let length = pieces.iter().map(|piece| u64::try_from(piece.len()).unwrap_or(0)).sum::<u64>();
        let end = if offset + length == id.size { id.size } else { (offset + length) / BLOCK * BLOCK };
        let first = offset.next_multiple_of(BLOCK);
        // Versions that would push out most of the others are not worth it.
        if first >= end || id.size > limit.min(self.bytes_max) / 2 {
            return;
        }
        let file = {
            let mut kept = self.lock();
            let number = kept.of(id);
            self.open(number)
        };
        let Some(file) = file else { return };
        let mut position = offset;
        for piece in pieces {
            let piece_end = position + u64::try_from(piece.len()).unwrap_or(0);
            let (from, to) = (position.max(first), piece_end.min(end));
            if from < to {
                let part = usize::try_from(from - position).ok().zip(usize::try_from(to - position).ok());
                let Some((start, stop)) = part else { return };
                if file.write_all_at(&piece[start..stop], from).is_err() {
                    return;
                }
            }
            position = piece_end;
        }
        self.note(id, first, end, limit);
    }

    /// Says that blocks are there, and makes room.
    fn note(&self, id: &Id, first: u64, end: u64, limit: u64) {
        let mut kept = self.lock();
        let Kept { versions, bytes, .. } = &mut *kept;
        if let Some(blocks) = versions.get_mut(id) {
            for block in first / BLOCK..end.div_ceil(BLOCK) {
                if blocks.add(block) {
                    let length = BLOCK.min(id.size - block * BLOCK);
                    blocks.bytes += length;
                    *bytes += length;
                }
            }
        }
        self.make_room(&mut kept, limit);
    }

    /// Drops what was used the longest ago until no more than this is left.
    pub(super) fn shrink(&self, limit: u64) {
        self.make_room(&mut self.lock(), limit);
    }

    fn make_room(&self, kept: &mut Kept, limit: u64) {
        while kept.bytes > limit.min(self.bytes_max) {
            let oldest = kept.versions.iter().min_by_key(|(_, blocks)| blocks.used).map(|(id, _)| id.clone());
            let Some(blocks) = oldest.and_then(|id| kept.versions.remove(&id)) else { return };
            kept.bytes -= blocks.bytes;
            // What stays behind goes with the directory.
            let _ = rustix::fs::unlinkat(&self.directory, blocks.file.to_string(), AtFlags::empty());
        }
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn open(&self, file: u64) -> Option<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.directory, file.to_string(), flags, Mode::RUSR | Mode::WUSR)
            .ok()
            .map(File::from)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A count that is off by what a panic left out lets the cache be a little larger or smaller.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Name of the file of a version, a new one if there is none.
    fn of(&mut self, id: &Id) -> u64 {
        self.clock += 1;
        let used = self.clock;
        if let Some(blocks) = self.versions.get_mut(id) {
            blocks.used = used;
            return blocks.file;
        }
        self.next += 1;
        let file = self.next;
        self.versions.insert(id.clone(), Blocks { file, present: Vec::new(), bytes: 0, used });
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().expect("directory");
        let fd = File::open(directory.path()).expect("open");
        (directory, Cache::new(fd.into(), bytes_max).expect("cache"))
    }

    fn id(name: &str, size: u64) -> Id {
        Id { key: name.to_owned(), etag: "\"1\"".to_owned(), size }
    }

    #[test]
    fn whole_blocks_are_kept_and_others_are_not() {
        let (_directory, cache) = cache(u64::MAX);
        let size = BLOCK * 3 + 10;
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).expect("byte")).collect();
        let id = id("a", size);
        // From the middle of a block to the middle of another.
        let (from, to) = (100_usize, usize::try_from(BLOCK * 2 + 5).expect("size"));
        let pieces =
            [Bytes::copy_from_slice(&bytes[from..70_000]), Bytes::copy_from_slice(&bytes[70_000..to])];
        cache.put(&id, 100, &pieces, u64::MAX);
        assert!(cache.get(&id, 0, 10).is_none());
        let start = usize::try_from(BLOCK).expect("size");
        assert_eq!(cache.get(&id, BLOCK + 3, 1000).expect("kept"), bytes[start + 3..start + 1003]);
        assert!(cache.get(&id, BLOCK * 2 - 1, 2).is_none());
        // The last block ends with the object.
        cache.put(&id, BLOCK * 3, &[Bytes::copy_from_slice(&bytes[start * 3..])], u64::MAX);
        assert_eq!(cache.get(&id, BLOCK * 3, 10).expect("kept"), bytes[start * 3..]);
        assert_eq!(cache.bytes(), BLOCK + 10);
        let other = Id { etag: "\"2\"".to_owned(), ..id };
        assert!(cache.get(&other, BLOCK, 1).is_none(), "another version");
    }

    #[test]
    fn the_cache_stays_within_its_size_and_drops_the_oldest() {
        let (directory, cache) = cache(BLOCK * 4);
        let block = Bytes::from(vec![7; usize::try_from(BLOCK).expect("size")]);
        for name in ["a", "b", "c", "d"] {
            cache.put(&id(name, BLOCK), 0, std::slice::from_ref(&block), u64::MAX);
        }
        assert!(cache.get(&id("a", BLOCK), 0, 1).is_some());
        cache.put(&id("e", BLOCK), 0, std::slice::from_ref(&block), u64::MAX);
        assert!(cache.get(&id("b", BLOCK), 0, 1).is_none());
        assert!(cache.get(&id("a", BLOCK), 0, 1).is_some());
        assert_eq!(std::fs::read_dir(directory.path()).expect("read").count(), 4);
        cache.shrink(BLOCK);
        assert_eq!(cache.bytes(), BLOCK);
    }
}
