//! What the files of a sandbox take on disk.
//!
//! Where the file system counts, because there is a limit, it is asked. Otherwise the tree is walked, by descriptors and
//! without following a symlink, in a forked process: a tree can have millions of files, and the launcher has other
//! things to do. Nothing in the sandbox runs for it, and one that was stopped is counted as well.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, quota};
use crate::wire;
use crate::wire::usage::DiskUsage;

/// Directories above each other that are looked into. Each is a descriptor meanwhile.
const DEPTH_MAX: usize = 512;

/// How long a walk may take; what it has not seen by then is not counted.
const WALK: Duration = Duration::from_secs(30);

/// Files with several names that are remembered, so that each is counted once.
const LINKED_MAX: usize = 1 << 20;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a project quota counts.
///
/// # Errors
/// As quotactl_fd(2).
pub fn of_project(state: &Path, project: u32) -> Result<DiskUsage, Errno> {
    let state = rustix::fs::open(state, DIRECTORY, Mode::empty())?;
    let used = quota::used(state.as_fd(), project)?;
    Ok(DiskUsage {
        used_bytes: used.bytes,
        files: used.files,
        complete: true,
        ..DiskUsage::of("project-quota")
    })
}

/// What is in the tmpfs under a sandbox that runs. Its first process's root is the overlay on it, which answers for it.
///
/// # Errors
/// As statfs(2).
pub fn of_tmpfs(agent: i32) -> Result<DiskUsage, Errno> {
    let found = rustix::fs::statfs(format!("/proc/{agent}/root"))?;
    let unit = u64::try_from(found.f_bsize).unwrap_or(0);
    Ok(DiskUsage {
        used_bytes: found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(unit),
        files: found.f_files.saturating_sub(found.f_ffree),
        complete: true,
        ..DiskUsage::of("tmpfs")
    })
}

/// Starts counting a tree. What is returned can be read once, when that is done: a [`DiskUsage`], or nothing.
///
/// # Errors
/// As open(2), pipe(2) and clone(2).
pub fn count(tree: &Path) -> Result<OwnedFd, Errno> {
    let root = rustix::fs::open(tree, DIRECTORY, Mode::empty())?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match process::clone3(0, None)? {
        Cloned::Parent { .. } => Ok(reader),
        Cloned::Child => {
            drop(reader);
            // The launcher's locks and sockets are not to live as long as this takes.
            let _ = crate::sys::exec::close_all_except(&[root.as_fd(), writer.as_fd()]);
            let mut walk =
                Walk { used: DiskUsage::of("files"), linked: HashSet::new(), until: Instant::now() + WALK };
            walk.used.complete = true;
            walk.tree(root);
            if let Ok(message) = wire::encode(&walk.used) {
                // Whoever asked may be gone.
                let _ = rustix::io::write(&writer, &message);
            }
            process::exit_now(0)
        }
    }
}

struct Walk {
    used: DiskUsage,
    linked: HashSet<u64>,
    until: Instant,
}

impl Walk {
    /// Counts everything below a directory. It may change meanwhile, and whatever is renamed may be counted twice or
    /// not at all.
    fn tree(&mut self, root: OwnedFd) {
        let mut open = Vec::new();
        open.extend(self.enter(root));
        while let Some((directory, entries)) = open.last_mut() {
            let Some(name) = entries.pop() else {
                open.pop();
                continue;
            };
            if Instant::now() > self.until {
                self.used.complete = false;
                return;
            }
            let deeper = rustix::fs::openat(&*directory, &*name, DIRECTORY, Mode::empty());
            match deeper {
                Ok(deeper) if open.len() < DEPTH_MAX => open.extend(self.enter(deeper)),
                // Gone, or replaced by something else.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                _ => self.used.complete = false,
            }
        }
    }

    /// Counts what is in a directory, and gives the names of its subdirectories.
    fn enter(&mut self, directory: OwnedFd) -> Option<(OwnedFd, Vec<std::ffi::CString>)> {
        let mut subdirectories = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).ok()?.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(found) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_directory = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();
            if is_directory {
                subdirectories.push(name.to_owned());
            } else if found.st_nlink > 1
                && self.linked.len() < LINKED_MAX
                && !self.linked.insert(found.st_ino)
            {
                continue;
            }
            self.used.files += 1;
            // stat(2): in units of 512 bytes, whatever the file system's own are.
            self.used.used_bytes += u64::try_from(found.st_blocks).unwrap_or(0) * 512;
        }
        Some((directory, subdirectories))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_once_and_no_link_is_followed() {
        let place = tempfile::tempdir().expect("place");
        let tree = place.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).expect("directories");
        std::fs::write(place.path().join("outside"), vec![1; 1 << 20]).expect("outside");
        std::fs::write(tree.join("a/b/file"), vec![1; 64 << 10]).expect("file");
        std::fs::hard_link(tree.join("a/b/file"), tree.join("again")).expect("link");
        std::os::unix::fs::symlink(place.path(), tree.join("up")).expect("symlink");
        let mut walk =
            Walk { used: DiskUsage::of("files"), linked: HashSet::new(), until: Instant::now() + WALK };
        walk.used.complete = true;
        walk.tree(std::fs::File::open(&tree).expect("open").into());
        let du =
            std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(&tree).output().expect("du");
        let du = String::from_utf8_lossy(&du.stdout);
        let du: u64 = du.split_whitespace().next().expect("a number").parse().expect("a number");
        let own = std::os::unix::fs::MetadataExt::blocks(&tree.metadata().expect("tree")) * 512;
        assert_eq!((walk.used.files, walk.used.used_bytes + own), (4, du));
        assert!(walk.used.complete);
    }
}
