//! Working directories that go away: when dropped, when cancelled, or at the next run after a kill.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};

/// Directories to remove when the user cancels; `Drop` does not run then.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A directory owned by this process. Its lock file is held for as long as the process lives, so that
/// another run can tell a leftover from a neighbour's work.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes `parent/name-PID` and clears what killed processes left beside it.
    ///
    /// # Errors
    /// When the parent is not writable.
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        let prefix = format!("stockade-{name}-");
        remove_leftovers(parent, &prefix);
        let name = format!("{prefix}{}-{}", std::process::id(), serial());
        let (path, unlocked) = (parent.join(&name), parent.join(format!(".{name}")));
        fs::create_dir(&unlocked).with_context(|| format!("make {}", unlocked.display()))?;
        let lock =
            File::create_new(unlocked.join(".lock")).with_context(|| format!("lock {}", path.display()))?;
        lock.lock().with_context(|| format!("lock {}", path.display()))?;
        // Only now under the name that other runs look for: they would take it for a leftover.
        fs::rename(&unlocked, &path).with_context(|| format!("make {}", path.display()))?;
        if let Ok(mut live) = LIVE.lock() {
            live.push(path.clone());
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Ok(mut live) = LIVE.lock() {
            live.retain(|path| *path != self.path);
        }
    }
}

/// Removes every working directory of this process, for the handler of Ctrl-C.
pub(crate) fn remove_all() {
    if let Ok(live) = LIVE.lock() {
        for path in live.iter() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// A number that differs between the directories of one process.
fn serial() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn remove_leftovers(parent: &Path, prefix: &str) {
    let Ok(listing) = parent.read_dir() else { return };
    for entry in listing.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(".lock")) else { continue };
        match lock.try_lock() {
            Ok(()) => {
                let _ = fs::remove_dir_all(entry.path());
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_neighbours_stay() {
        let parent = tempfile::tempdir().expect("parent");
        let neighbour = Directory::new(parent.path(), "test").expect("neighbour");
        let leftover = parent.path().join("stockade-test-1-0");
        fs::create_dir(&leftover).expect("leftover");
        fs::write(leftover.join(".lock"), "").expect("lock file");
        let own = Directory::new(parent.path(), "test").expect("own");
        assert!(!leftover.exists());
        assert!(neighbour.path().exists() && own.path().exists());
        let gone = own.path().to_owned();
        drop(own);
        assert!(!gone.exists());
    }
}
