//! Removing trees that untrusted code filled: out of the way at once, off the disk later.
//!
//! A destroyed sandbox's directory is renamed into `trash`, which takes microseconds whatever it holds, and a forked
//! process of its own removes it: the launcher answers in the meantime. Everything is done by descriptors, and no symlink is followed
//! (CVE-2022-21658).

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::sys::Errno;
use crate::sys::process::{self, Cloned};

/// Name of the directory beside those that are discarded.
const TRASH: &str = ".trash";

/// Makes a tree disappear, and starts its removal.
pub fn discard(tree: &Path) {
    if let (true, Some(parent)) = (set_aside(tree), tree.parent()) {
        empty(parent);
    }
}

/// Makes a tree disappear. An empty or nearly empty one is removed here, which is cheaper than a fork. True when it is
/// for [`empty`] to remove it.
pub fn set_aside(tree: &Path) -> bool {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    if remove_empty(tree) {
        return false;
    }
    let Some(parent) = tree.parent() else { return false };
    let trash = parent.join(TRASH);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Whatever fails here is tried again when the launcher starts next.
    let _ = std::fs::create_dir(&trash);
    std::fs::rename(tree, trash.join(format!("{}-{unique}", std::process::id()))).is_ok()
}

/// Removes everything in the trash beside the trees of `parent`, in a process of its own.
pub fn empty(parent: &Path) {
    let trash = parent.join(TRASH);
    if std::fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_none()) || !trash.exists() {
        return;
    }
    if let Ok(Cloned::Child) = process::clone3(0, None) {
        // The launcher's locks and sockets are not to live as long as this takes.
        let _ = crate::sys::exec::close_all_except(&[]);
        // What fails is tried again with the next discarded tree.
        let _ = rustix::fs::open(&trash, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|trash| remove_flat(&trash));
        process::exit_now(0)
    }
}

/// Removes everything in `trash`, however deep: a directory's subdirectories are first moved up beside it. So
/// neither the depth of a tree nor the length of its paths costs descriptors or stack, and a sandbox that made a
/// hundred thousand levels did so for nothing.
fn remove_flat(trash: &OwnedFd) -> Result<(), Errno> {
    let mut moved = 0_u64;
    loop {
        let names = names_in(trash)?;
        if names.is_empty() {
            return Ok(());
        }
        let before = moved;
        let mut removed = 0_u64;
        for name in names {
            removed += u64::from(remove_one(trash, &name, &mut moved));
        }
        if removed == 0 && moved == before {
            // Two of these processes met, or the disk refuses.
            return Err(Errno::BUSY);
        }
    }
}

/// Removes a file, or a directory after emptying it of everything but subdirectories, which go up.
fn remove_one(trash: &OwnedFd, name: &CStr, moved: &mut u64) -> bool {
    let is_directory = match rustix::fs::unlinkat(trash, name, AtFlags::empty()) {
        Ok(()) => return true,
        Err(errno) => errno == Errno::ISDIR || errno == Errno::PERM,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if is_directory && let Ok(directory) = rustix::fs::openat(trash, name, flags, Mode::empty()) {
        for child in names_in(&directory).unwrap_or_default() {
            if rustix::fs::unlinkat(&directory, &child, AtFlags::empty()).is_err()
                && rustix::fs::unlinkat(&directory, &child, AtFlags::REMOVEDIR).is_err()
            {
                let place = format!("{}-moved-{moved}", std::process::id());
                if rustix::fs::renameat(&directory, &child, trash, place.as_str()).is_ok() {
                    *moved += 1;
                }
            }
        }
    }
    rustix::fs::unlinkat(trash, name, AtFlags::REMOVEDIR).is_ok()
}

fn names_in(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// The common case: the sandbox wrote nothing. Removes exactly the directories that we and overlayfs made; nothing when
/// there is more.
fn remove_empty(tree: &Path) -> bool {
    match std::fs::remove_dir(tree.join("upper")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return false,
        _ => {}
    }
    let work = tree.join("work");
    // overlayfs keeps a marker in a volatile mount's work directory.
    let _ = std::fs::remove_file(work.join("work/incompat/volatile/dirty"));
    for directory in ["work/incompat/volatile", "work/incompat", "work", "index"] {
        let _ = std::fs::remove_dir(work.join(directory));
    }
    let _ = std::fs::remove_dir(&work);
    // A link, if it lay on saved files.
    let _ = std::fs::remove_file(tree.join("below"));
    std::fs::remove_dir(tree).is_ok() || !tree.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_costs_neither_descriptors_nor_stack_and_links_are_not_followed() {
        let place = tempfile::tempdir().expect("place");
        let outside = place.path().join("outside");
        std::fs::create_dir(&outside).expect("outside");
        std::fs::write(outside.join("canary"), "kept").expect("canary");
        let trash = place.path().join("trash");
        std::fs::create_dir(&trash).expect("trash");
        let mut directory: OwnedFd = std::fs::File::open(&trash).expect("open").into();
        for level in 0..5_000 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).expect("mkdir");
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let deeper = rustix::fs::openat(&directory, "d", flags, Mode::empty()).expect("descend");
            if level % 1_000 == 0 {
                rustix::fs::symlinkat(&outside, &directory, "link").expect("symlink");
            }
            directory = deeper;
        }
        drop(directory);
        let root: OwnedFd = std::fs::File::open(&trash).expect("open").into();
        remove_flat(&root).expect("remove");
        assert_eq!(std::fs::read_dir(&trash).expect("list").count(), 0);
        assert_eq!(std::fs::read_to_string(outside.join("canary")).expect("canary"), "kept");
    }
}
