//! Writing into the directory of blobs: nothing has its final name before its digest is right.
//!
//! ```text
//! <hex>.partial   being downloaded; locked (flock(2)) by whoever writes it, so a dead writer's is recognised
//! <name>.import   being read from an archive; its digest is not known yet; locked too
//! <hex>           complete
//! ```
//! The lock is also what makes two processes that want one blob do the work once: the second waits for it, and
//! then finds the blob. A partial file stays when its writer dies, and the next download goes on from there.
//!
//! Manifests and configurations are synced to disk before an image may name them. Blobs of layers are not: they are
//! removed again once they are unpacked, and unpacking verifies what is in them, so one that a crash of the host
//! has damaged is found out; syncing them would write every image to disk twice.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::sys::Errno;

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// The kernel said no.
    #[error("{operation} blob {name}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The bytes are others than were promised.
    #[error("blob {expected} arrived with the digest {found}")]
    Digest {
        /// Promised.
        expected: Digest,
        /// Arrived.
        found: Digest,
    },
    /// More or fewer bytes than were promised.
    #[error("blob {digest} has {found} bytes instead of {expected}")]
    Size {
        /// Which.
        digest: Digest,
        /// Promised.
        expected: u64,
        /// Arrived, at least.
        found: u64,
    },
    /// Not in the store.
    #[error("blob {0} is missing")]
    Missing(Digest),
}

impl BlobError {
    /// No room left on the disk.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(Errno::from_io_error(source), Some(Errno::NOSPC | Errno::DQUOT))
            }
            _ => false,
        }
    }
}

/// The directory of blobs, `blobs/sha256`.
#[derive(Debug, Clone)]
pub(crate) struct Blobs(Arc<OwnedFd>);

/// A blob that is being written.
#[derive(Debug)]
pub(crate) struct Partial {
    blobs: Blobs,
    name: String,
    file: File,
    hash: Sha256,
    length: u64,
}

/// fetch writes blobs and serve reads them, each under its own uid. Who may get to them at all is decided by the
/// directories above, which let nobody else pass; so the mode need not.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::ROTH);

fn io<T>(
    operation: &'static str,
    name: &str,
    result: Result<T, impl Into<std::io::Error>>,
) -> Result<T, BlobError> {
    result.map_err(|source| BlobError::Io { operation, name: name.to_owned(), source: source.into() })
}

impl Blobs {
    /// Takes over the directory.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self(Arc::new(directory))
    }

    /// Whether a blob is there, complete.
    pub(crate) fn contains(&self, digest: Digest) -> bool {
        rustix::fs::statat(&*self.0, digest.hex(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Opens a complete blob for reading.
    pub(crate) fn open(&self, digest: Digest) -> Result<File, BlobError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&*self.0, digest.hex(), flags, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(Errno::NOENT) => Err(BlobError::Missing(digest)),
            Err(errno) => io("open", &digest.hex(), Err(errno)),
        }
    }

    /// Reads a small blob, one of at most `max` bytes, and verifies it: it may be from before a crash of the host.
    pub(crate) fn read(&self, digest: Digest, max: u64) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let file = self.open(digest)?;
        io("read", &digest.hex(), file.take(max + 1).read_to_end(&mut bytes))?;
        if bytes.len() as u64 > max {
            return Err(BlobError::Size { digest, expected: max, found: bytes.len() as u64 });
        }
        let found = Digest::from_bytes(Sha256::digest(&bytes).into());
        if found != digest {
            // Another attempt shall get it anew.
            let _ = rustix::fs::unlinkat(&*self.0, digest.hex(), AtFlags::empty());
            return Err(BlobError::Digest { expected: digest, found });
        }
        Ok(bytes)
    }

    /// Waits until blobs are on disk, name and content.
    pub(crate) fn sync(&self, digests: &[Digest]) -> Result<(), BlobError> {
        for &digest in digests {
            io("sync", &digest.hex(), self.open(digest)?.sync_all())?;
        }
        io("sync the directory of", "sha256", rustix::fs::fsync(&*self.0))
    }

    /// Stores bytes that are in memory.
    pub(crate) fn store(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::from_bytes(Sha256::digest(bytes).into());
        if let Some(mut partial) = self.partial(digest)? {
            partial.restart()?;
            partial.write(bytes)?;
            partial.commit(digest, bytes.len() as u64)?;
        }
        Ok(digest)
    }

    /// Opens the partial file of a blob, with what an earlier attempt left in it; `None` when the blob is there.
    /// Blocks while another process writes it.
    pub(crate) fn partial(&self, digest: Digest) -> Result<Option<Partial>, BlobError> {
        let name = format!("{}.partial", digest.hex());
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = io("create", &name, rustix::fs::openat(&*self.0, &*name, flags, MODE))?;
            // The umask had its say at creation.
            io("chmod", &name, rustix::fs::fchmod(&file, MODE))?;
            let locked =
                rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive));
            io("lock", &name, locked)?;
            if self.contains(digest) {
                // Whoever held the lock has finished it; unless the name is another file's by now, it is ours.
                if self.is_named(&name, file.as_fd()) {
                    let _ = rustix::fs::unlinkat(&*self.0, &*name, AtFlags::empty());
                }
                return Ok(None);
            }
            // The file may have been renamed or removed while we waited for its lock.
            if !self.is_named(&name, file.as_fd()) {
                continue;
            }
            let mut partial =
                Partial { blobs: self.clone(), name, file: file.into(), hash: Sha256::new(), length: 0 };
            partial.rehash()?;
            return Ok(Some(partial));
        }
    }

    /// A file for bytes whose digest will be known at the end.
    pub(crate) fn anonymous(&self) -> Result<Partial, BlobError> {
        let mut number = u64::from(rustix::process::getpid().as_raw_nonzero().get().cast_unsigned()) << 32;
        loop {
            let name = format!("{number:x}.import");
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&*self.0, &*name, flags, MODE) {
                Err(Errno::EXIST) => number += 1,
                other => {
                    let file = io("create", &name, other)?;
                    io("chmod", &name, rustix::fs::fchmod(&file, MODE))?;
                    io("lock", &name, rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
                    return Ok(Partial {
                        blobs: self.clone(),
                        name,
                        file: file.into(),
                        hash: Sha256::new(),
                        length: 0,
                    });
                }
            }
        }
    }

    fn is_named(&self, name: &str, file: BorrowedFd<'_>) -> bool {
        let (Ok(there), Ok(ours)) =
            (rustix::fs::statat(&*self.0, name, AtFlags::SYMLINK_NOFOLLOW), rustix::fs::fstat(file))
        else {
            return false;
        };
        (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
    }
}

impl Partial {
    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Takes up what is in the file already.
    fn rehash(&mut self) -> Result<(), BlobError> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match io("read", &self.name, self.file.read(&mut buffer))? {
                0 => return Ok(()),
                length => {
                    self.hash.update(&buffer[..length]);
                    self.length += length as u64;
                }
            }
        }
    }

    /// Forgets all bytes.
    pub(crate) fn restart(&mut self) -> Result<(), BlobError> {
        io("truncate", &self.name, self.file.set_len(0))?;
        io("rewind", &self.name, std::io::Seek::rewind(&mut self.file))?;
        self.hash = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        io("write", &self.name, self.file.write_all(bytes))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Verifies the bytes and gives the blob its name; on a mismatch the bytes are removed.
    pub(crate) fn commit(self, digest: Digest, size: u64) -> Result<(), BlobError> {
        if self.length != size {
            self.discard();
            return Err(BlobError::Size { digest, expected: size, found: self.length });
        }
        let found = Digest::from_bytes(self.hash.clone().finalize().into());
        if found != digest {
            self.discard();
            return Err(BlobError::Digest { expected: digest, found });
        }
        self.publish(digest)
    }

    /// Gives the blob the name that its bytes have.
    pub(crate) fn commit_as_found(self) -> Result<(Digest, u64), BlobError> {
        let digest = Digest::from_bytes(self.hash.clone().finalize().into());
        let size = self.length;
        self.publish(digest)?;
        Ok((digest, size))
    }

    fn publish(self, digest: Digest) -> Result<(), BlobError> {
        let directory = &*self.blobs.0;
        io("rename", &self.name, rustix::fs::renameat(directory, &*self.name, directory, digest.hex()))
    }

    /// Removes the file.
    pub(crate) fn discard(&self) {
        // What cannot be removed now is removed when the store is opened next.
        let _ = rustix::fs::unlinkat(&self.blobs.0, &*self.name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture::digest;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let directory = tempfile::tempdir().expect("directory");
        let open = File::open(directory.path()).expect("open");
        (directory, Blobs::new(open.into()))
    }

    fn names(directory: &tempfile::TempDir) -> usize {
        std::fs::read_dir(directory.path()).expect("list").count()
    }

    #[test]
    fn bytes_with_another_digest_or_size_leave_nothing() {
        let (directory, blobs) = blobs();
        let promised = digest(b"promised");
        for (bytes, size) in [(&b"arrived!"[..], 8), (b"promised", 9), (b"promised", 7), (b"", 0)] {
            let mut partial = blobs.partial(promised).expect("partial").expect("not there");
            partial.write(bytes).expect("write");
            let error = partial.commit(promised, size).expect_err("must fail");
            assert!(matches!(error, BlobError::Digest { .. } | BlobError::Size { .. }), "{error}");
            assert_eq!(names(&directory), 0);
        }
        assert!(matches!(blobs.open(promised), Err(BlobError::Missing(_))));
    }

    #[test]
    fn what_an_attempt_left_is_taken_up_by_the_next() {
        let (directory, blobs) = blobs();
        let promised = digest(b"two halves");
        let mut first = blobs.partial(promised).expect("partial").expect("not there");
        first.write(b"two ").expect("write");
        drop(first);
        let mut second = blobs.partial(promised).expect("partial").expect("not there");
        assert_eq!(second.len(), 4);
        second.write(b"halves").expect("write");
        second.commit(promised, 10).expect("commit");
        assert_eq!(blobs.read(promised, 10).expect("read"), b"two halves");
        assert!(matches!(blobs.read(promised, 9), Err(BlobError::Size { .. })));
        assert!(blobs.partial(promised).expect("partial").is_none(), "it is there");
        assert_eq!(names(&directory), 1);
    }

    #[test]
    fn two_writers_of_one_blob_do_the_work_once() {
        let (directory, blobs) = blobs();
        let promised = digest(b"x");
        let mut first = blobs.partial(promised).expect("partial").expect("not there");
        // Another process has its own open file, and so has this call.
        let second = std::thread::spawn({
            let blobs = blobs.clone();
            move || blobs.partial(promised).expect("partial").is_none()
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!second.is_finished(), "the second waits");
        first.write(b"x").expect("write");
        first.commit(promised, 1).expect("commit");
        assert!(second.join().expect("join"), "and finds the blob");
        assert_eq!(names(&directory), 1);
    }
}
