//! What a sandbox is while it does not run, and the mark of one that was stopped.

use super::index::Facts;
use crate::wire::launch::{Durability, Resources};

/// In the work directory of a sandbox that was stopped on purpose.
const STOPPED: &str = "stopped";

/// What it says when its files are on the disk.
pub(super) const DONE: &str = "stopped";

/// What it says while it is being stopped, and when its files could not be written to the disk: until the host ends they
/// are there.
pub(super) const STOPPING: &str = "stopping";

/// What it says while it is being woken: a daemon that dies in the middle has not woken it.
pub(super) const WAKING: &str = "waking";

/// What the mark says, if there is one.
pub(super) fn said(work: &std::path::Path) -> Option<String> {
    std::fs::read_to_string(work.join(STOPPED)).ok()
}

/// Takes the mark away from one that runs. Nothing depends on whether the disk has it so: after a crash of the host it
/// says nothing, because it is not [`DONE`].
pub(super) fn unmark(work: &std::path::Path) {
    // One that stays is what the next stop writes over.
    let _ = std::fs::remove_file(work.join(STOPPED));
}

/// Writes or takes away the mark of a stop. When this returns the disk has it so.
pub(super) fn mark(work: &std::path::Path, text: Option<&str>) -> std::io::Result<()> {
    let path = work.join(STOPPED);
    match text {
        Some(text) => {
            std::fs::create_dir_all(work)?;
            std::fs::write(&path, text)?;
            std::fs::File::open(&path)?.sync_all()?;
        }
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        },
    }
    std::fs::File::open(work)?.sync_all()
}

/// Whether files outlive the processes: those under a limit of their own do not.
pub(super) fn keeps_files(resources: &Resources) -> bool {
    resources.disk_bytes.is_none() && resources.disk_files.is_none()
}

/// What a sandbox is while it does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Stopped, and woken by whoever needs it.
    Stopped,
    /// It ended by itself.
    Ended,
    /// So did its files, or nobody knows what is in them.
    Lost,
}

impl Rest {
    /// Of a sandbox that runs.
    pub(super) fn when_it_ends(facts: &Facts) -> Self {
        if keeps_files(&facts.plan.resources) { Self::Ended } else { Self::Lost }
    }

    /// Of a sandbox that launch does not have at the start of this daemon.
    pub(super) fn found(facts: &Facts, work: &std::path::Path, boot: &str) -> Self {
        let same_boot = facts.boot == boot;
        // While it was being stopped or woken, the kernel of the same boot has its files.
        let stopped = said(work).is_some_and(|said| said == DONE || same_boot);
        if !keeps_files(&facts.plan.resources) {
            Self::Lost
        } else if stopped {
            Self::Stopped
        } else if same_boot {
            Self::Ended
        } else if facts.plan.durability == Durability::Durable {
            // The host went down, and its files know how to survive that.
            Self::Stopped
        } else {
            Self::Lost
        }
    }
}
