//! What serve knows of each snapshot: one file each, whole or not there.
//!
//! ```text
//! draft <id>.new ─▶ launch saves the files ─▶ <id>.json, on the disk        from here on the snapshot exists
//! remove <id>.json ─▶ launch collects                                       from here on it does not
//! ```
//! launch looks at the names: saved files of either are needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::super::catalog::{HOST_IMAGE, Lease};
use super::super::quota::Taken;
use super::super::{ImageView, Sandbox};
use super::SnapshotSpec;
use crate::id::{SandboxId, SnapshotId};
use crate::wire::launch::{Root, SaveMethod, Saved};

/// What serve knows of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::sandbox) struct Facts {
    pub(super) id: SnapshotId,
    pub(super) owner_uid: u32,
    pub(super) name: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// The sandbox that it was made of; none when it came from elsewhere.
    pub(super) sandbox: Option<SandboxId>,
    /// When that was made: another one may have its name by now.
    #[serde(default)]
    pub(super) sandbox_created_at: Option<String>,
    pub(super) created_at: jiff::Timestamp,
    pub(super) expires_at: Option<jiff::Timestamp>,
    pub(super) image: ImageView,
    /// What its files lie on.
    pub(super) root: Root,
    /// As the sandbox's were.
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) method: SaveMethod,
    /// The one directory that it is of.
    #[serde(default)]
    pub(super) directory: Option<String>,
}

/// What a snapshot is of, beside its files.
#[derive(Debug)]
pub(super) struct Origin {
    sandbox: Option<(SandboxId, String)>,
    image: ImageView,
    root: Root,
    env: BTreeMap<String, String>,
    cwd: String,
    user: String,
}

impl Origin {
    /// A sandbox as it is now.
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        let facts = &sandbox.facts;
        Self {
            sandbox: Some((facts.id.clone(), facts.created_at.clone())),
            image: facts.image.clone(),
            root: facts.plan.root.clone(),
            env: sandbox.environment.get(),
            cwd: facts.cwd.clone(),
            user: facts.user.clone(),
        }
    }

    /// No sandbox that is here.
    pub(super) fn elsewhere() -> Self {
        Self {
            sandbox: None,
            image: ImageView { reference: HOST_IMAGE.to_owned(), digest: None },
            root: Root::Host,
            env: BTreeMap::new(),
            cwd: "/".to_owned(),
            user: "0".to_owned(),
        }
    }
}

impl Facts {
    /// What is known of one whose files are to be saved.
    pub(super) fn new(id: SnapshotId, owner_uid: u32, wanted: &SnapshotSpec, origin: Origin) -> Self {
        let now = jiff::Timestamp::now();
        let Origin { sandbox, image, root, env, cwd, user } = origin;
        let (sandbox, sandbox_created_at) = sandbox.unzip();
        Self {
            id,
            owner_uid,
            name: wanted.name.clone(),
            labels: wanted.labels.clone(),
            sandbox,
            sandbox_created_at,
            created_at: now,
            expires_at: wanted.ttl.and_then(|ttl| now.checked_add(ttl).ok()),
            image,
            root,
            env,
            cwd,
            user,
            bytes: 0,
            entries: 0,
            method: SaveMethod::default(),
            directory: wanted.directory.as_ref().map(|directory| directory.path.clone()),
        }
    }

    /// Whether it is of this very sandbox, and not of a former one of its name.
    pub(super) fn is_of(&self, sandbox: &Sandbox) -> bool {
        let facts = &sandbox.facts;
        self.sandbox.as_ref() == Some(&facts.id)
            && match &self.sandbox_created_at {
                Some(created_at) => *created_at == facts.created_at,
                // Of a daemon that did not write it down.
                None => facts.created_at.parse().is_ok_and(|made: jiff::Timestamp| made <= self.created_at),
            }
    }

    pub(super) fn with(self, saved: Saved) -> Self {
        Self { bytes: saved.bytes, entries: saved.entries, method: saved.method, ..self }
    }
}

/// One snapshot.
#[derive(Debug)]
pub(in crate::sandbox) struct Snapshot {
    pub(super) facts: Facts,
    /// Keeps the image's layers in the store.
    pub(super) lease: Option<Arc<Lease>>,
    /// What it takes of its owner's quota.
    pub(super) place: Taken,
}

/// All of them.
#[derive(Debug)]
pub(in crate::sandbox) struct Snapshots {
    directory: PathBuf,
    known: Mutex<BTreeMap<SnapshotId, Arc<Snapshot>>>,
}

/// A name that is being given to saved files: launch keeps them while this lives, or the snapshot exists.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Absent when it has become a snapshot.
        let _ = std::fs::remove_file(&self.0);
        if !self.0.with_extension("json").exists() {
            // Absent unless a directory was being kept.
            let _ = std::fs::remove_file(self.0.with_extension("zst"));
        }
    }
}

impl Snapshots {
    pub(in crate::sandbox) fn new(state: &Path) -> Self {
        Self { directory: state.join("snapshots"), known: Mutex::default() }
    }

    /// Reads what there is. `lease` keeps the layers of an image, `place` counts for the owner. Files that cannot be read stay, with what they name:
    /// they may be another version's.
    pub(in crate::sandbox) fn load(
        &self,
        lease: impl Fn(&ImageView, &Root) -> Option<Lease>,
        place: impl Fn(u32, u64) -> Taken,
    ) {
        let mut known = self.lock();
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is = |kind: &str| path.extension().is_some_and(|extension| extension == kind);
            if is("zst") && path.with_extension("json").exists() {
                continue;
            }
            if !is("json") {
                // Nobody was told of it.
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let facts = std::fs::read(&path)
                .and_then(|text| serde_json::from_slice::<Facts>(&text).map_err(io::Error::from));
            match facts {
                Ok(facts) => {
                    let lease = lease(&facts.image, &facts.root).map(Arc::new);
                    let place = place(facts.owner_uid, facts.bytes);
                    known.insert(facts.id.clone(), Arc::new(Snapshot { facts, lease, place }));
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot read what is known of a snapshot");
                }
            }
        }
    }

    /// A name for files that are to be saved.
    pub(super) fn draft(&self, id: &SnapshotId) -> io::Result<Draft> {
        let path = self.directory.join(format!("{id}.new"));
        std::fs::write(&path, b"")?;
        Ok(Draft(path))
    }

    /// A file for the archive of a directory.
    pub(super) fn archive(&self, id: &SnapshotId) -> io::Result<File> {
        File::options().write(true).create_new(true).open(self.directory.join(format!("{id}.zst")))
    }

    /// The archive of a directory that was kept.
    pub(super) fn open(&self, id: &SnapshotId) -> io::Result<File> {
        File::open(self.directory.join(format!("{id}.zst")))
    }

    /// Enters a snapshot whose files are saved. It is on the disk when this returns.
    pub(super) fn commit(&self, draft: &Draft, snapshot: Snapshot) -> io::Result<Arc<Snapshot>> {
        std::fs::write(&draft.0, serde_json::to_vec(&snapshot.facts)?)?;
        File::open(&draft.0)?.sync_all()?;
        let id = snapshot.facts.id.clone();
        std::fs::rename(&draft.0, self.directory.join(format!("{id}.json")))?;
        File::open(&self.directory)?.sync_all()?;
        let snapshot = Arc::new(snapshot);
        self.lock().insert(id, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Forgets a snapshot. False when there is none.
    pub(super) fn remove(&self, id: &SnapshotId) -> io::Result<bool> {
        let mut known = self.lock();
        if !known.contains_key(id) {
            return Ok(false);
        }
        std::fs::remove_file(self.directory.join(format!("{id}.json")))?;
        // Absent when it is of all files.
        let _ = std::fs::remove_file(self.directory.join(format!("{id}.zst")));
        if let Some(removed) = known.remove(id) {
            // Whoever lays it out at this moment may still hold it.
            removed.place.give_back();
        }
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }

    pub(super) fn get(&self, id: &SnapshotId) -> Option<Arc<Snapshot>> {
        self.lock().get(id).cloned()
    }

    /// All of them, the oldest first.
    pub(super) fn list(&self) -> Vec<Arc<Snapshot>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| (a.facts.created_at, &a.facts.id).cmp(&(b.facts.created_at, &b.facts.id)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, Arc<Snapshot>>> {
        // Every change is one insert or remove.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
