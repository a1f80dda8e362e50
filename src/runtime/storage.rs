//! Where a sandbox's own files lie, and how much room they have.
//!
//! | limit asked for | file system of `state_dir`     | storage                                               |
//! |-----------------|--------------------------------|-------------------------------------------------------|
//! | none            | any                            | `directory`: as much as the disk has                  |
//! | yes             | project quotas are on          | `directory`, counted by the file system               |
//! | yes             | otherwise, volatile sandbox    | `tmpfs` of that size, charged to the sandbox's memory |
//! | yes             | otherwise, durable sandbox     | refused                                               |
//!
//! A tmpfs is mounted in the launcher's own mount namespace only until the overlay on it is made; after that the
//! overlay holds it, and it goes with the sandbox.
//!
//! Why no image file on a loop device: making a file system takes another program and tens of milliseconds, and
//! the launcher executes nothing.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{MountFlags, UnmountFlags};

use super::rootfs::{RootError, failed};
use super::{copy, saved};
use crate::id::SnapshotId;
use crate::sys::{Errno, errno_of, quota};
use crate::wire::launch::{Limit, Resources};

/// How a disk limit is enforced here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Project quotas of the file system under `state_dir`.
    ProjectQuota,
    /// A tmpfs of that size.
    Tmpfs,
}

impl Enforcement {
    /// What this host offers.
    pub fn of(state: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(state, flags, Mode::empty()) {
            Ok(directory) if quota::is_on(directory.as_fd()) => Self::ProjectQuota,
            _ => Self::Tmpfs,
        }
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProjectQuota => "project-quota",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// The writable directories of one sandbox.
#[derive(Debug)]
pub struct Storage {
    directory: PathBuf,
    /// What enforces its limit, if it has one.
    enforcement: Option<Enforcement>,
    /// The saved files that it lies on.
    pub below: Option<SnapshotId>,
    /// The limits as the file system has them.
    pub limits: BTreeMap<String, Limit>,
}

impl Storage {
    /// Makes the directories, owned by the sandbox's root where it writes. `owner` is its first host id, `store` what
    /// it is on disk.
    ///
    /// # Errors
    /// As mkdir(2), chown(2), mount(2) and quotactl(2).
    pub fn create(
        directory: PathBuf,
        owner: u32,
        store: u32,
        resources: &Resources,
        enforcement: Enforcement,
        on: Option<(SnapshotId, &Path)>,
    ) -> Result<Self, RootError> {
        make(&directory).map_err(failed("make the sandbox's directory"))?;
        let limited = resources.disk_bytes.is_some() || resources.disk_files.is_some();
        let (below, saved_root) = on.unzip();
        if let Some(below) = &below {
            // Before a tmpfs covers it: it says what must stay.
            saved::lay_on(&directory, below)
                .map_err(|error| failed("lay it on saved files")(errno_of(error)))?;
        }
        let enforcement = limited.then_some(enforcement);
        let mut storage = Self { directory, enforcement, below, limits: BTreeMap::new() };
        storage.limit(owner, resources).map_err(failed("limit the sandbox's disk space"))?;
        let upper = storage.upper();
        make(&upper).map_err(failed("make the upper directory"))?;
        let root = if storage.is_mapped() { store } else { owner };
        let ids = (Some(Uid::from_raw(root)), Some(Gid::from_raw(root)));
        rustix::fs::chown(&upper, ids.0, ids.1).map_err(failed("give away the upper directory"))?;
        rustix::fs::chmod(&upper, Mode::from_raw_mode(0o755)).map_err(failed("open the upper directory"))?;
        if let Some(saved) = saved_root {
            storage.begin_as(saved).map_err(failed("make the root directory as it was saved"))?;
        }
        make(&storage.work()).map_err(failed("make the work directory"))?;
        Ok(storage)
    }

    /// Gives the root directory what the saved one has beside its content: what is seen of it is the topmost's.
    fn begin_as(&self, saved: &Path) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
        let (saved, upper) = (open(saved)?, open(&self.upper())?);
        if self.is_mapped() {
            return copy::root(&saved, &upper);
        }
        // In memory it has the sandbox's own ids.
        rustix::fs::fchmod(&upper, Mode::from_raw_mode(rustix::fs::fstat(&saved)?.st_mode))
    }

    /// Takes up the directories of a sandbox that was stopped. What overlayfs has kept in its work directory was
    /// for the mount that is gone; a volatile one even forbids the next (overlayfs.rst, "Volatile mount").
    ///
    /// # Errors
    /// When there are none, or the work directory cannot be made anew.
    pub fn reopen(directory: PathBuf) -> Result<Self, RootError> {
        let below = saved::below(&directory)
            .map_err(|error| failed("find what the sandbox lies on")(errno_of(error)))?;
        let storage = Self { directory, enforcement: None, below, limits: BTreeMap::new() };
        if !storage.upper().is_dir() {
            return Err(failed("find the sandbox's files")(Errno::NOENT));
        }
        match std::fs::remove_dir_all(storage.work()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("clear the work directory")(errno_of(error)));
            }
            _ => make(&storage.work()).map_err(failed("make the work directory"))?,
        }
        Ok(storage)
    }

    /// The sandbox's first host id names its project: no other sandbox has it at the same time.
    fn limit(&mut self, owner: u32, resources: &Resources) -> Result<(), Errno> {
        let (bytes, files) = (resources.disk_bytes, resources.disk_files);
        let got = match self.enforcement {
            None => return Ok(()),
            Some(Enforcement::ProjectQuota) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open(&self.directory, flags, Mode::empty())?;
                quota::set_project(root.as_fd(), owner)?;
                let limits = quota::Limits { bytes: bytes.unwrap_or(0), files: files.unwrap_or(0) };
                quota::set_limits(root.as_fd(), owner, limits)?
            }
            Some(Enforcement::Tmpfs) => {
                let limits = quota::Limits { bytes: bytes.unwrap_or(0), files: files.unwrap_or(0) };
                // 0 is "no limit" to tmpfs too.
                let options = format!("mode=700,size={},nr_inodes={}", limits.bytes, limits.files);
                let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                rustix::mount::mount("storage", &self.directory, "tmpfs", flags, Some(options.as_c_str()))?;
                limits
            }
        };
        let by = self.enforcement.map_or("none", Enforcement::name);
        for (name, asked, value) in [("disk_bytes", bytes, got.bytes), ("disk_files", files, got.files)] {
            if asked.is_some() {
                let limit = Limit { value: Some(value), enforced_by: by.to_owned() };
                self.limits.insert(name.to_owned(), limit);
            }
        }
        Ok(())
    }

    /// Whether the files have store ids, which a mount turns into the sandbox's. A tmpfs cannot be shown so before
    /// Linux 6.3, and does not outlive the sandbox.
    pub(super) fn is_mapped(&self) -> bool {
        self.enforcement != Some(Enforcement::Tmpfs)
    }

    /// What the API calls this kind of storage.
    pub fn kind(&self) -> &'static str {
        match self.enforcement {
            Some(Enforcement::Tmpfs) => "tmpfs",
            _ => "directory",
        }
    }

    /// Its directory, or the root of the tmpfs on it.
    pub(super) fn open(&self) -> Result<OwnedFd, RootError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&self.directory, flags, Mode::empty())
            .map_err(failed("open the sandbox's directory"))
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }
}

impl Drop for Storage {
    /// A tmpfs need not be attached any longer: the overlay has it, or there is none and it goes.
    fn drop(&mut self) {
        if self.enforcement == Some(Enforcement::Tmpfs) {
            // Never attached is as good.
            let _ = rustix::mount::unmount(&self.directory, UnmountFlags::DETACH);
        }
    }
}

fn make(path: &Path) -> Result<(), Errno> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))
}

/// Takes a destroyed sandbox's project limits off again.
pub fn release(state: &Path, owner: u32) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(directory) = rustix::fs::open(state, flags, Mode::empty()) {
        // Without quotas there is nothing to take off.
        let _ = quota::set_limits(directory.as_fd(), owner, quota::Limits { bytes: 0, files: 0 });
    }
}
