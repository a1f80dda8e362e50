//! What serve knows of each sandbox, on disk: one file each, whole or as it was.
//!
//! ```text
//! create   launch makes it ─▶ draft ─▶ commit         from here on the sandbox exists, whatever runs
//! destroy  remove ─▶ launch removes its files         from here on it does not
//! ```
//!
//! launch looks at the names too: files of a sandbox without an entry are nobody's, and are removed when it starts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lifecycle::Lifecycle;
use super::{ImageView, SandboxSpec};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::wire::launch::{Durability, Plan};

/// What the caller is told when the index cannot be written.
pub(super) fn cannot_record(error: io::Error) -> Error {
    Error::writing("cannot record the sandbox", error)
}

/// What serve knows of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) id: SandboxId,
    pub(super) owner_uid: u32,
    pub(super) created_at: String,
    /// As asked, to compare with when the same id is asked for again.
    pub(super) spec: SandboxSpec,
    /// As it is now.
    pub(super) lifecycle: Lifecycle,
    pub(super) image: ImageView,
    /// As resolved: the image's and the request's.
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: String,
    pub(super) user: String,
    /// As it runs now, or is to run next.
    pub(super) plan: Plan,
    /// The boot of the host in which it has run last.
    pub(super) boot: String,
    /// Made by this daemon for itself, and destroyed when it begins again.
    #[serde(default)]
    pub(super) unseen: bool,
}

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Index(PathBuf);

/// The file of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    path: PathBuf,
    draft: PathBuf,
}

impl Index {
    pub(super) fn new(state: &Path) -> Self {
        Self(state.join("index"))
    }

    pub(super) fn entry(&self, id: &SandboxId) -> Entry {
        let path = self.0.join(format!("{id}.json"));
        Entry { draft: path.with_extension("new"), path }
    }

    /// Everything that was committed; and the names of those that cannot be read. Theirs stay, with their sandboxes'
    /// files: they may be another version's, or the disk's error one that goes away.
    pub(super) fn read(&self) -> (Vec<Facts>, Vec<SandboxId>) {
        let (mut known, mut unreadable) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // A draft: nobody was told of it.
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let facts = std::fs::read(&path)
                .and_then(|text| serde_json::from_slice::<Facts>(&text).map_err(io::Error::from));
            match facts {
                Ok(facts) => known.push(facts),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot read what is known of a sandbox");
                    let name = path.file_stem().and_then(|name| SandboxId::parse(name.to_str()?).ok());
                    unreadable.extend(name);
                }
            }
        }
        (known, unreadable)
    }
}

impl Entry {
    /// Refuses an id that nobody is known by and that has an entry all the same: one that this daemon could not read
    /// keeps its sandbox's files.
    ///
    /// # Errors
    /// `SANDBOX_CONFLICT`.
    pub(super) fn must_be_free(&self) -> Result<(), Error> {
        if !self.path.exists() {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::SandboxConflict,
            "the id is taken by a sandbox that this daemon cannot read",
        )
        .hint(
            "use another id; its file in the index of the state directory is of another version, or damaged",
        ))
    }

    /// Writes what is to be committed.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn draft(&self, facts: &Facts) -> io::Result<()> {
        std::fs::write(&self.draft, serde_json::to_vec(facts)?)
    }

    /// Puts the draft in its place.
    ///
    /// # Errors
    /// As rename(2).
    pub(super) fn commit(&self) -> io::Result<()> {
        std::fs::rename(&self.draft, &self.path)
    }

    /// Puts the draft in its place, and waits for the disk: what was promised after it survives a crash of the host.
    ///
    /// # Errors
    /// As fsync(2) and rename(2).
    pub(super) fn commit_durably(&self) -> io::Result<()> {
        std::fs::File::open(&self.draft)?.sync_all()?;
        self.commit()?;
        self.settle()
    }

    /// Makes this what is known, if it is not yet. [`settle`](Self::settle) sees to it that the disk has it.
    ///
    /// # Errors
    /// As write(2), fsync(2) and rename(2).
    pub(super) fn update(&self, facts: &Facts) -> io::Result<()> {
        let text = serde_json::to_vec(facts)?;
        if std::fs::read(&self.path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        std::fs::write(&self.draft, text)?;
        std::fs::File::open(&self.draft)?.sync_all()?;
        self.commit()
    }

    /// Waits until the disk has what is known.
    ///
    /// # Errors
    /// As fsync(2).
    pub(super) fn settle(&self) -> io::Result<()> {
        std::fs::File::open(&self.path)?.sync_all()?;
        self.path.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all())
    }

    /// Puts the draft in its place, and waits for the disk if what it is about is to survive a crash of the host.
    ///
    /// # Errors
    /// As fsync(2) and rename(2).
    pub(super) fn commit_as(&self, durability: Durability) -> io::Result<()> {
        match durability {
            Durability::Durable => self.commit_durably(),
            Durability::Volatile => self.commit(),
        }
    }

    /// Removes both.
    pub(super) fn remove(&self) {
        for path in [&self.path, &self.draft] {
            // Absent is what is wanted.
            let _ = std::fs::remove_file(path);
        }
    }
}
