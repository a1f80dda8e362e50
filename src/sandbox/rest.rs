//! What a sandbox is while it does not run, and the mark of one that was stopped.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::index::Facts;
use crate::wire::launch::{Durability, Resources};

/// In the work directory of a sandbox that was stopped on purpose.
const STOPPED: &str = "stopped";

/// Bytes of what it says, with blanks behind.
const LENGTH: usize = 8;

/// What it says when its files are on the disk.
pub(super) const DONE: &str = "stopped";

/// What it says while it is being stopped, and when its files could not be written to the disk: until the host ends they
/// are there.
pub(super) const STOPPING: &str = "stopping";

/// What it says while it is being woken: a daemon that dies in the middle has not woken it.
pub(super) const WAKING: &str = "waking";

/// What the mark says, if there is one.
pub(super) fn said(work: &std::path::Path) -> Option<String> {
    std::fs::read_to_string(work.join(STOPPED)).ok().map(|text| text.trim_end().to_owned())
}

/// Takes the mark away from one that runs. Nothing depends on whether the disk has it so: after a crash of the host it
/// says nothing, because it is not [`DONE`].
pub(super) fn unmark(work: &std::path::Path) {
    // One that stays is what the next stop writes over.
    let _ = std::fs::remove_file(work.join(STOPPED));
}

/// Writes a mark, for whoever looks in this boot of the host.
///
/// What it says is of one length, and is written over what it said: so it is never half of a word.
pub(super) fn say(work: &std::path::Path, text: &str) -> std::io::Result<File> {
    std::fs::create_dir_all(work)?;
    let file = File::options().write(true).create(true).truncate(false).open(work.join(STOPPED))?;
    let text = format!("{text:LENGTH$}");
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    Ok(file)
}

/// Writes or takes away a mark. When this returns the disk has it so.
///
/// Of one that says [`DONE`] the disk has the name, which would be most of the time that a wake waits for it.
pub(super) fn mark(work: &std::path::Path, text: Option<&str>) -> std::io::Result<()> {
    match text {
        Some(text) => {
            let is_there = said(work).as_deref() == Some(DONE);
            say(work, text)?.sync_data()?;
            if is_there {
                return Ok(());
            }
        }
        None => match std::fs::remove_file(work.join(STOPPED)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        },
    }
    File::open(work)?.sync_all()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_was_said_last_and_nothing_when_it_is_taken_away() {
        let directory = tempfile::tempdir().expect("directory");
        let work = directory.path().join("work");
        assert_eq!(said(&work), None);
        for text in [STOPPING, DONE, WAKING, DONE] {
            mark(&work, Some(text)).expect("marked");
            assert_eq!(said(&work).as_deref(), Some(text));
            assert_eq!(std::fs::metadata(work.join(STOPPED)).expect("stat").len(), LENGTH as u64);
        }
        // Of a daemon that wrote no blanks, or was killed while it wrote.
        for before in ["stopped", ""] {
            std::fs::write(work.join(STOPPED), before).expect("written");
            assert_eq!(said(&work).as_deref(), Some(before));
            mark(&work, Some(WAKING)).expect("marked");
            assert_eq!(said(&work).as_deref(), Some(WAKING));
        }
        mark(&work, None).expect("taken away");
        mark(&work, None).expect("once more");
        assert_eq!(said(&work), None);
    }
}
