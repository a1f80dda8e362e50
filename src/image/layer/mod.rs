//! One layer: a tar stream from a stranger, written below one directory and nowhere else.
//!
//! ```text
//! entry ─▶ components ─▶ parent (openat2 IN_ROOT, cached) ─▶ last component (never followed, replaced)
//! ```
//! Invariants, each with the attack that it ends (numbers of the project's security specification in the tests):
//! - `..` is refused. Parents are resolved by the kernel below the layer's root (`RESOLVE_IN_ROOT |
//!   RESOLVE_NO_MAGICLINKS`), as the layer's own symlinks demand. The last component is made with `O_EXCL |
//!   O_NOFOLLOW` or replaced; nothing is ever written or chmodded *through* it (CVE-2026-33056).
//! - Names reach the kernel without trailing slashes: `O_NOFOLLOW` does not hold for "link/" (CVE-2026-39822).
//! - A hard link's target is an entry of this layer, a file or a symlink itself, not what the symlink names
//!   (CVE-2021-32760, CVE-2021-29136).
//! - Devices are never made: only whiteouts, which are character device 0/0 and need no privilege.
//! - Of extended attributes only `user.*` survive, and of those not overlayfs's own, which redirect lookups.
//! - Metadata goes on by descriptor; that of directories at the end, when nothing is made in them any more.
//!
//! Whiteouts concern lower layers alone (OCI image specification, layer.md): an entry of the same layer wins,
//! whichever comes first. Opaque directories need an attribute that this process may not set: it returns them.
//!
//! A layer is unpacked by itself, not on top of the ones below: a directory that a layer implies but does not
//! contain is made 0755 and owned by root, as containers/storage does it.

#[cfg(test)]
mod differential;
mod place;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use self::place::{
    Metadata, Parent, Place, components, join, lexical, lossy, metadata, path_error, resolve, set_metadata,
    set_metadata_at, tar_error, write_content,
};
use crate::limits::{IDS_PER_SANDBOX, LAYER_BYTES_MAX, LAYER_ENTRIES_MAX, PATH_BYTES_MAX};
use crate::sys::Errno;
use crate::tar::{Entry, Kind, Source, TarError, TarReader};
use crate::wire::launch::LayerStats;

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The stream is not an archive that we accept.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A path that leads out of the layer, or that no file system can hold.
    #[error("path '{path}' {why}")]
    Path {
        /// As in the archive.
        path: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A hard link to something that is not a file of this layer.
    #[error("hard link '{path}' to '{target}', which {why}")]
    Hardlink {
        /// The link.
        path: String,
        /// What it names.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A symbolic link with no target, or an impossible one.
    #[error("symbolic link '{0}' has an impossible target")]
    Symlink(String),
    /// An owner outside the ids that a sandbox has.
    #[error("'{path}' belongs to {uid}:{gid}; ids must be below {IDS_PER_SANDBOX}")]
    Owner {
        /// Which entry.
        path: String,
        /// Its user.
        uid: u64,
        /// Its group.
        gid: u64,
    },
    /// A directory in the way that is not empty.
    #[error("'{0}' replaces a directory that is not empty")]
    Occupied(String),
    /// Too many entries.
    #[error("more than {LAYER_ENTRIES_MAX} entries")]
    TooManyEntries,
    /// Too many bytes, holes included.
    #[error("files of more than {LAYER_BYTES_MAX} bytes")]
    TooManyBytes,
    /// An attribute larger than the kernel takes.
    #[error("'{0}' has an extended attribute that is too large")]
    Xattr(String),
    /// The kernel said no.
    #[error("{operation} '{path}': {errno}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// Why not.
        errno: Errno,
    },
}

/// What was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// How much.
    pub(crate) stats: LayerStats,
    /// Directories that hide what lower layers have in them, relative to the layer's root ("" is the root).
    pub(crate) opaque: Vec<Vec<u8>>,
    /// Entries that were left out: devices.
    pub(crate) skipped: u64,
}

/// Directories kept open. Entries of one directory follow each other in practice; this is for trees.
const DIRECTORIES_OPEN_MAX: usize = 256;

/// Symlinks on the way to a directory that has to be made: as the kernel's own bound (path_resolution(7)).
const SYMLINKS_MAX: u32 = 40;

/// Writes the entries of one layer below `root`.
pub(super) struct Extractor<'a> {
    root: BorrowedFd<'a>,
    alone: bool,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    directories: Vec<Option<(Vec<u8>, Metadata)>>,
    directory_numbers: HashMap<Vec<u8>, usize>,
    whiteouts: HashSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    stats: LayerStats,
    skipped: u64,
}

impl<'a> Extractor<'a> {
    /// An extractor into an empty directory, of a layer that may be one of several, or is the only one. The caller has
    /// set the umask to 0.
    pub(super) fn new(root: BorrowedFd<'a>, alone: bool) -> Self {
        Self {
            root,
            alone,
            open: HashMap::new(),
            last: None,
            directories: Vec::new(),
            directory_numbers: HashMap::new(),
            whiteouts: HashSet::new(),
            opaque: BTreeSet::new(),
            stats: LayerStats::default(),
            skipped: 0,
        }
    }

    /// Writes all entries of a stream, and reads the stream to its end.
    pub(super) fn run<S>(mut self, source: S) -> Result<Unpacked, LayerError>
    where
        S: Source<Error = std::convert::Infallible>,
    {
        let mut reader = TarReader::new(source);
        while let Some(entry) = reader.next_entry().map_err(tar_error)? {
            self.entry(&entry, &mut reader)?;
        }
        let Ok(()) = reader.drain();
        self.finish()
    }

    fn entry<S>(&mut self, entry: &Entry, reader: &mut TarReader<S>) -> Result<(), LayerError>
    where
        S: Source<Error = std::convert::Infallible>,
    {
        self.stats.entries += 1;
        if self.stats.entries > LAYER_ENTRIES_MAX {
            return Err(LayerError::TooManyEntries);
        }
        let components = components(&entry.path)?;
        let metadata = metadata(entry)?;
        let Some((name, parents)) = components.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(path_error(&entry.path, "names the root and is not a directory"));
            }
            self.remember_directory(Vec::new(), metadata);
            return Ok(());
        };
        if self.alone && components.iter().any(|name| name.starts_with(b".wh.")) {
            return Err(path_error(&entry.path, "has a name that no file of an image can have: `.wh.…`"));
        }
        // Bookkeeping of AUFS, with hard links inside; no reader of images wants it.
        if parents.iter().any(|parent| parent.starts_with(b".wh..wh.")) {
            return Ok(());
        }
        if parents.iter().any(|parent| parent.starts_with(b".wh.")) {
            return Err(path_error(&entry.path, "is inside a whiteout"));
        }
        let parent_path = parents.join(&b'/');
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&entry.path, parent_path, hidden);
        }
        let place = Place { parent: self.directory(&parent_path, 0)?, path: join(&parent_path, name), name };
        match entry.kind {
            Kind::Directory => self.make_directory(&place, metadata),
            Kind::File => self.make_file(&place, entry, &metadata, reader),
            Kind::Symlink => self.make_symlink(&place, &entry.link, &metadata),
            Kind::Hardlink => self.make_hardlink(&place, &entry.link),
            Kind::Fifo => self.make_fifo(&place, &metadata),
            Kind::Device => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    fn make_directory(&mut self, place: &Place<'_>, metadata: Metadata) -> Result<(), LayerError> {
        // Private until the end: nobody enters a half-made tree.
        let made = rustix::fs::mkdirat(&*place.parent, place.name, Mode::RWXU);
        match made {
            Err(Errno::EXIST) => {
                if self.whiteouts.remove(&place.path) {
                    self.remove(place)?;
                    // The whiteout hid a whole directory of that name: the new one starts empty.
                    self.opaque.insert(place.path.clone());
                    place.io("mkdir", rustix::fs::mkdirat(&*place.parent, place.name, Mode::RWXU))?;
                } else if place.file_type()? != Some(FileType::Directory) {
                    self.remove(place)?;
                    place.io("mkdir", rustix::fs::mkdirat(&*place.parent, place.name, Mode::RWXU))?;
                }
            }
            other => place.io("mkdir", other)?,
        }
        self.remember_directory(place.path.clone(), metadata);
        Ok(())
    }

    fn make_file<S>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        metadata: &Metadata,
        reader: &mut TarReader<S>,
    ) -> Result<(), LayerError>
    where
        S: Source<Error = std::convert::Infallible>,
    {
        self.stats.content_bytes = self.stats.content_bytes.saturating_add(entry.size);
        if self.stats.content_bytes > LAYER_BYTES_MAX {
            return Err(LayerError::TooManyBytes);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Set-id bits come last: the kernel clears them at every write and change of owner.
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let file =
            self.made(place, "create", || rustix::fs::openat(&*place.parent, place.name, flags, mode))?;
        write_content(place, &file, entry, reader)?;
        set_metadata(place, file.as_fd(), metadata, metadata.mode & 0o7000 != 0)
    }

    fn make_symlink(
        &mut self,
        place: &Place<'_>,
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        if target.is_empty() || target.len() >= PATH_BYTES_MAX || target.contains(&0) {
            return Err(LayerError::Symlink(lossy(&place.path)));
        }
        self.made(place, "symlink", || rustix::fs::symlinkat(target, &*place.parent, place.name))?;
        set_metadata_at(place, metadata)
    }

    fn make_fifo(&mut self, place: &Place<'_>, metadata: &Metadata) -> Result<(), LayerError> {
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        self.made(place, "mkfifo", || {
            rustix::fs::mknodat(&*place.parent, place.name, FileType::Fifo, mode, 0)
        })?;
        set_metadata_at(place, metadata)
    }

    fn make_hardlink(&mut self, place: &Place<'_>, link: &[u8]) -> Result<(), LayerError> {
        let refuse = |why| LayerError::Hardlink { path: lossy(&place.path), target: lossy(link), why };
        let target = components(link)?;
        let Some((name, parents)) = target.split_last() else { return Err(refuse("is the root")) };
        if target.iter().any(|component| component.starts_with(b".wh.")) {
            return Err(refuse("is a whiteout"));
        }
        let Some(parent) = self.open_directory(&parents.join(&b'/'))? else {
            return Err(refuse("is not in this layer"));
        };
        let from = match rustix::fs::statat(&*parent, *name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(refuse("is not in this layer")),
            Err(errno) => return place.io("stat the target of", Err(errno)),
        };
        match FileType::from_raw_mode(from.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            FileType::Directory => return Err(refuse("is a directory")),
            _ => return Err(refuse("is a whiteout")),
        }
        if let Ok(there) = rustix::fs::statat(&*place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (from.st_dev, from.st_ino)
        {
            return Ok(());
        }
        // Without AT_SYMLINK_FOLLOW linkat(2) takes a symlink for what it is.
        self.made(place, "link", || {
            rustix::fs::linkat(&*parent, *name, &*place.parent, place.name, AtFlags::empty())
        })
    }

    fn whiteout(&mut self, path: &[u8], parent: Vec<u8>, hidden: &[u8]) -> Result<(), LayerError> {
        if hidden == b".wh..opq" {
            // Also makes the directory when the layer does not contain it otherwise.
            self.directory(&parent, 0)?;
            self.opaque.insert(parent);
            return Ok(());
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of AUFS.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(path_error(path, "is a whiteout of nothing"));
        }
        let place = Place { parent: self.directory(&parent, 0)?, path: join(&parent, hidden), name: hidden };
        match place.file_type()? {
            None => {
                let device = rustix::fs::makedev(0, 0);
                let mode = Mode::from_raw_mode(0);
                let made =
                    rustix::fs::mknodat(&*place.parent, place.name, FileType::CharacterDevice, mode, device);
                place.io("make the whiteout", made)?;
                self.whiteouts.insert(place.path);
            }
            Some(FileType::Directory) => {
                self.opaque.insert(place.path);
            }
            // Of this layer: it hides what is below as it is.
            Some(_) => {}
        }
        Ok(())
    }

    /// Makes an entry, replacing what is in the way.
    fn made<T>(
        &mut self,
        place: &Place<'_>,
        operation: &'static str,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        match make() {
            Err(Errno::EXIST) => {
                self.remove(place)?;
                place.io(operation, make())
            }
            other => place.io(operation, other),
        }
    }

    /// Removes what stands where an entry goes. Not a directory with something in it.
    fn remove(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        let flags = match place.file_type()? {
            None => return Ok(()),
            Some(FileType::Directory) => AtFlags::REMOVEDIR,
            Some(_) => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(&*place.parent, place.name, flags) {
            Err(Errno::NOTEMPTY) => return Err(LayerError::Occupied(lossy(&place.path))),
            other => place.io("replace", other)?,
        }
        // Paths may have led through a directory or a symlink of this name: resolve them again.
        self.open.clear();
        self.last = None;
        self.whiteouts.remove(&place.path);
        self.opaque.remove(&place.path);
        if let Some(number) = self.directory_numbers.remove(&place.path) {
            self.directories[number] = None;
        }
        Ok(())
    }

    fn remember_directory(&mut self, path: Vec<u8>, metadata: Metadata) {
        match self.directory_numbers.get(&path) {
            Some(&number) => self.directories[number] = Some((path, metadata)),
            None => {
                self.directory_numbers.insert(path.clone(), self.directories.len());
                self.directories.push(Some((path, metadata)));
            }
        }
    }

    /// The open directory of this path, made if need be.
    fn directory(&mut self, path: &[u8], symlinks: u32) -> Result<Parent, LayerError> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match self.open_directory(path)? {
            Some(directory) => directory,
            None => {
                self.make_parents(path, symlinks)?;
                self.open_directory(path)?
                    .ok_or_else(|| path_error(path, "leads through a dangling symbolic link"))?
            }
        };
        self.last = Some((path.to_vec(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// The open directory of this path, if there is one.
    fn open_directory(&mut self, path: &[u8]) -> Result<Option<Parent>, LayerError> {
        if let Some(directory) = self.open.get(path) {
            return Ok(Some(Rc::clone(directory)));
        }
        match resolve(self.root, path, OFlags::PATH) {
            Ok(directory) => {
                if self.open.len() >= DIRECTORIES_OPEN_MAX {
                    self.open.clear();
                }
                let directory = Rc::new(directory);
                self.open.insert(path.to_vec(), Rc::clone(&directory));
                Ok(Some(directory))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::LOOP) => Err(path_error(path, "leads through too many symbolic links")),
            Err(errno) => Err(LayerError::Io { operation: "open", path: lossy(path), errno }),
        }
    }

    /// Makes the directories on the way to `path`, component by component, and `path` itself.
    fn make_parents(&mut self, path: &[u8], symlinks: u32) -> Result<(), LayerError> {
        let mut done = Vec::with_capacity(path.len());
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            let parent_path = done.clone();
            done = join(&parent_path, name);
            if self.open_directory(&done)?.is_some() {
                continue;
            }
            let place = Place { parent: self.directory(&parent_path, symlinks)?, path: done.clone(), name };
            match rustix::fs::mkdirat(&*place.parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {}
                Err(Errno::EXIST) => self.pass(&place, &parent_path, symlinks)?,
                Err(errno) => return place.io("mkdir", Err(errno)),
            }
        }
        Ok(())
    }

    /// Makes a directory of what stands where one is needed: behind a symlink, or instead of a whiteout.
    fn pass(&mut self, place: &Place<'_>, parent_path: &[u8], symlinks: u32) -> Result<(), LayerError> {
        if self.whiteouts.contains(&place.path) {
            self.remove(place)?;
            self.opaque.insert(place.path.clone());
            let mode = Mode::from_raw_mode(0o755);
            return place.io("mkdir", rustix::fs::mkdirat(&*place.parent, place.name, mode));
        }
        // A symlink to what is not there (yet): make its target, inside the layer.
        if symlinks >= SYMLINKS_MAX || place.file_type()? != Some(FileType::Symlink) {
            return Err(path_error(&place.path, "leads through something that is not a directory"));
        }
        let target = place.io("readlink", rustix::fs::readlinkat(&*place.parent, place.name, Vec::new()))?;
        let target = lexical(parent_path, target.as_bytes())?;
        self.directory(&target, symlinks + 1).map(drop)
    }

    /// Sets the metadata of directories and returns the report.
    fn finish(self) -> Result<Unpacked, LayerError> {
        for (path, metadata) in self.directories.iter().flatten() {
            let io = |operation, result: Result<_, Errno>| {
                result.map_err(|errno| LayerError::Io { operation, path: lossy(path), errno })
            };
            let directory = io("open", resolve(self.root, path, OFlags::RDONLY))?;
            let place = Place { parent: Rc::new(directory), path: path.clone(), name: b"." };
            set_metadata(&place, place.parent.as_fd(), metadata, true)?;
        }
        let opaque = self.opaque.into_iter().filter(|path| resolve(self.root, path, OFlags::PATH).is_ok());
        Ok(Unpacked { stats: self.stats, opaque: opaque.collect(), skipped: self.skipped })
    }
}
