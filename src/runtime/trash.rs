//! Removing trees that untrusted code filled: out of the way at once, off the disk later.
//!
//! A destroyed sandbox's directory is renamed into `trash`, which takes microseconds whatever it holds, and a forked
//! process of its own removes it: the launcher answers in the meantime. `std::fs::remove_dir_all` works by
//! descriptors and never follows a symlink (CVE-2022-21658).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::process::{self, Cloned};

/// Name of the directory beside those that are discarded.
const TRASH: &str = ".trash";

/// Makes a tree disappear. An empty or nearly empty one is removed here, which is cheaper than a fork.
pub fn discard(tree: &Path) {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    if remove_empty(tree) {
        return;
    }
    let Some(parent) = tree.parent() else { return };
    let trash = parent.join(TRASH);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Whatever fails here is tried again when the launcher starts next.
    let _ = std::fs::create_dir(&trash);
    if std::fs::rename(tree, trash.join(format!("{}-{unique}", std::process::id()))).is_ok() {
        empty(parent);
    }
}

/// Removes everything in the trash beside the trees of `parent`, in a process of its own.
pub fn empty(parent: &Path) {
    let trash = parent.join(TRASH);
    if std::fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_none()) || !trash.exists() {
        return;
    }
    if let Ok(Cloned::Child) = process::clone3(0, None) {
        for entry in std::fs::read_dir(&trash).into_iter().flatten().flatten() {
            // Two of these processes may meet in one tree; each removes what it finds.
            let _ = std::fs::remove_dir_all(entry.path());
        }
        process::exit_now(0)
    }
}

/// The common case: the sandbox wrote nothing. Removes exactly the directories that we and overlayfs made.
fn remove_empty(tree: &Path) -> bool {
    let work = tree.join("work");
    // overlayfs keeps a marker in a volatile mount's work directory.
    let _ = std::fs::remove_file(work.join("work/incompat/volatile/dirty"));
    for directory in ["work/incompat/volatile", "work/incompat", "work", "index"] {
        let _ = std::fs::remove_dir(work.join(directory));
    }
    let _ = std::fs::remove_dir(&work);
    std::fs::remove_dir(tree.join("upper")).is_ok() && std::fs::remove_dir(tree).is_ok() || !tree.exists()
}
