//! Snapshots: files of a sandbox that are kept, given back, and given to others.
//!
//! ```text
//! snapshot   sandbox ─▶ saved files, a name that lasts            running: frozen while they are copied; else: stacked
//! restore    sandbox ends ─▶ its files are those of the snapshot; it is stopped, and the next call wakes it
//! rollback   the same with the latest snapshot of this very sandbox
//! fork       saved files without a name that lasts ─▶ N sandboxes that lie on them
//! create     with `snapshot`: one sandbox that lies on it
//! ```
//! - Nobody else is at a sandbox while its files are saved or replaced: whoever needs it waits.
//! - What a sandbox lies on is never changed, so that giving files back costs the same whatever they are.
//! - A snapshot holds on to its image's layers, and launch to saved files for as long as any sandbox lies on them: deleting a
//!   snapshot takes nothing from anybody.

mod directory;
mod export;
mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

pub use self::directory::DirectorySpec;
pub use self::export::{BUCKET_PATH, ExportFormat, ExportSpec, StoredObject};
pub(super) use self::kept::Snapshots;
use self::kept::{Facts, Origin, Snapshot};
use super::create::{Base, Fork};
use super::launcher::launcher_error;
use super::lifecycle::Claim;
use super::random::random_text;
use super::rest::{Rest, keeps_files};
use super::{Caller, ImageView, Sandbox, Sandboxes};
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::journal::feed::Kind;
use crate::limits::FORKS_MAX;
use crate::wire::launch::{Answer, Call, SaveMethod, Saved};

/// A snapshot to make.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSpec {
    /// For people.
    pub name: Option<String>,
    /// For the caller's own use.
    pub labels: BTreeMap<String, String>,
    /// How long it is kept; for ever when absent.
    pub ttl: Option<Duration>,
    /// One directory, instead of all files.
    pub directory: Option<DirectorySpec>,
}

/// Sandboxes to make of another.
#[derive(Clone, Debug, Default)]
pub struct ForkSpec {
    /// Their names; random when there are fewer than `count`.
    pub ids: Vec<SandboxId>,
    /// How many.
    pub count: usize,
    /// Labels instead of the parent's.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// Its id.
    pub id: String,
    /// As given.
    pub name: Option<String>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// The sandbox that it was made of, which may be gone; absent when it was uploaded.
    pub sandbox: Option<String>,
    /// What that was made from.
    pub image: ImageView,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it is deleted by itself (RFC 3339); absent when never.
    pub expires_at: Option<String>,
    /// Uid whose it is.
    pub owner_uid: u32,
    /// Bytes that what it has beside the image, and beside older snapshots below it, takes on the disk. Shared content is
    /// counted with each that has it.
    pub size_bytes: u64,
    /// Files, directories and links of the same; absent when it is of one directory, an archive in which nobody looks.
    pub entries: Option<u64>,
    /// How its files were kept.
    pub method: SaveMethod,
    /// The directory that it is of; absent when it is of all files.
    pub path: Option<String>,
}

fn no_such(id: &SnapshotId) -> Error {
    Error::new(ErrorCode::SnapshotNotFound, format!("there is no snapshot {id}"))
        .hint("`stockade snapshot ls` lists those that you own")
}

/// Why a sandbox does not go back to a snapshot.
fn not_its_own(facts: &Facts, id: &SandboxId) -> String {
    match &facts.sandbox {
        Some(of) if of == id => format!("the snapshot is of a former sandbox {id}"),
        Some(of) => format!("the snapshot is of the sandbox {of}"),
        None => "the snapshot came from elsewhere".to_owned(),
    }
}

fn random() -> SnapshotId {
    SnapshotId::parse(&random_text::<16>())
        .unwrap_or_else(|_| unreachable!("the alphabet has only valid characters"))
}

impl Snapshot {
    /// What a sandbox that is made of it begins with.
    pub(super) fn base(&self) -> Base {
        let facts = &self.facts;
        Base {
            root: facts.root.clone(),
            image: facts.image.clone(),
            env: facts.env.clone(),
            cwd: Some(facts.cwd.clone()),
            user: Some(facts.user.clone()),
            lease: self.lease.clone(),
        }
    }

    fn view(&self) -> SnapshotView {
        let facts = &self.facts;
        SnapshotView {
            id: facts.id.to_string(),
            name: facts.name.clone(),
            labels: facts.labels.clone(),
            sandbox: facts.sandbox.as_ref().map(ToString::to_string),
            image: facts.image.clone(),
            created_at: facts.created_at.to_string(),
            expires_at: facts.expires_at.map(|time| time.to_string()),
            owner_uid: facts.owner_uid,
            size_bytes: facts.bytes,
            entries: facts.directory.is_none().then_some(facts.entries),
            method: facts.method,
            path: facts.directory.clone(),
        }
    }
}

impl Sandboxes {
    /// Takes a sandbox so that nobody else is at it, when whoever is has done.
    async fn take(&self, caller: &Caller, id: &SandboxId) -> Result<(Arc<Sandbox>, Claim), Error> {
        loop {
            let sandbox = self.at_rest(id, |owner| caller.may_see(owner)).await?;
            if let Some(taken) = self.claim(id, |here| std::ptr::eq(here, Arc::as_ptr(&sandbox))) {
                return Ok(taken);
            }
        }
    }

    /// Keeps the files of a sandbox. When this returns they are on the disk.
    ///
    /// # Errors
    /// As [`get`](Self::get); `SNAPSHOT_UNSUPPORTED`, `QUOTA_EXCEEDED`, `CAPACITY_EXHAUSTED`.
    pub async fn snapshot(
        &self,
        caller: &Caller,
        id: &SandboxId,
        wanted: SnapshotSpec,
    ) -> Result<SnapshotView, Error> {
        let (sandbox, claim) = self.take(caller, id).await?;
        must_keep_files(&sandbox)?;
        let this = self.clone();
        // A caller that goes away does not leave it half-made.
        let task = tokio::spawn(async move {
            let kept = this.keep((Arc::clone(&sandbox), claim), wanted).await;
            match &kept {
                Ok(view) => sandbox.voice.say(Kind::SnapshotCreated, json!({ "snapshot": view.id })),
                Err(_) => this.collect_saved().await,
            }
            this.0.clock.notify_one();
            kept
        });
        task.await.map_err(|error| Error::internal("making the snapshot failed", error))?
    }

    async fn keep(
        &self,
        (sandbox, claim): (Arc<Sandbox>, Claim),
        wanted: SnapshotSpec,
    ) -> Result<SnapshotView, Error> {
        let place = self.0.ledger.snapshot(sandbox.facts.owner_uid)?;
        let id = random();
        let draft =
            self.0.snapshots.draft(&id).map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        let facts = Facts::new(id.clone(), sandbox.facts.owner_uid, &wanted, Origin::of(&sandbox));
        if let Some(directory) = wanted.directory {
            return self.keep_directory((sandbox, claim), (id, draft, place), (facts, directory)).await;
        }
        let saved = self.save(&sandbox, &id, true).await?;
        // Refused, it loses its name, and whoever called this has launch collect what has none.
        place.weigh(saved.bytes)?;
        let snapshot = Snapshot { facts: facts.with(saved), lease: sandbox.lease.clone(), place };
        let kept = self.0.snapshots.commit(&draft, snapshot);
        drop(claim);
        Ok(kept.map_err(|error| Error::writing("cannot keep the snapshot", error))?.view())
    }

    async fn save(&self, sandbox: &Sandbox, snapshot: &SnapshotId, lasting: bool) -> Result<Saved, Error> {
        let call = Call::Save { id: sandbox.facts.id.clone(), snapshot: snapshot.clone(), lasting };
        match self.0.launcher.call(call, &[]).await {
            Ok((Answer::Saved(saved), _)) => Ok(saved),
            Ok(_) => Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(error) => Err(launcher_error(error)),
        }
    }

    /// Has launch remove saved files that nothing needs any more.
    pub(super) async fn collect_saved(&self) {
        // One that is gone does so when it begins again.
        let _ = self.0.launcher.call(Call::Collect, &[]).await;
    }

    /// The snapshots that the caller may see, the oldest first; of one sandbox if it is named.
    pub fn snapshots(&self, caller: &Caller, of: Option<&SandboxId>) -> Vec<SnapshotView> {
        let all = self.0.snapshots.list();
        let seen = all.iter().filter(|one| caller.may_see(one.facts.owner_uid));
        seen.filter(|one| of.is_none_or(|of| one.facts.sandbox.as_ref() == Some(of)))
            .map(|one| one.view())
            .collect()
    }

    /// Finds a snapshot.
    ///
    /// # Errors
    /// `SNAPSHOT_NOT_FOUND`, also for somebody else's.
    pub fn find_snapshot(&self, caller: &Caller, id: &SnapshotId) -> Result<SnapshotView, Error> {
        self.kept(caller, id).map(|snapshot| snapshot.view())
    }

    /// The same, if a sandbox can be made of it.
    pub(super) fn whole(&self, caller: &Caller, id: &SnapshotId) -> Result<Arc<Snapshot>, Error> {
        let kept = self.kept(caller, id)?;
        match &kept.facts.directory {
            None => Ok(kept),
            Some(directory) => Err(Error::new(
                ErrorCode::SnapshotMismatch,
                format!("the snapshot is of the directory {directory} alone"),
            )
            .hint("restore it into a sandbox")),
        }
    }

    fn kept(&self, caller: &Caller, id: &SnapshotId) -> Result<Arc<Snapshot>, Error> {
        let found = self.0.snapshots.get(id).filter(|found| caller.may_see(found.facts.owner_uid));
        found.ok_or_else(|| no_such(id))
    }

    /// Deletes a snapshot. Sandboxes that were made of it keep their files.
    ///
    /// # Errors
    /// As [`find_snapshot`](Self::find_snapshot).
    pub async fn delete_snapshot(&self, caller: &Caller, id: &SnapshotId) -> Result<(), Error> {
        let kept = self.kept(caller, id)?;
        let removed =
            self.0.snapshots.remove(id).map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        if !removed {
            return Err(no_such(id));
        }
        let (of, owner_uid) = (kept.facts.sandbox.as_ref().map(ToString::to_string), kept.facts.owner_uid);
        self.feed().publish(Kind::SnapshotDeleted, of, owner_uid, json!({ "snapshot": id }));
        self.collect_saved().await;
        Ok(())
    }

    /// Deletes snapshots whose time is over. Gives the time until the next one's is.
    pub(super) async fn expire_snapshots(&self) -> Option<Duration> {
        let now = jiff::Timestamp::now();
        let mut next: Option<Duration> = None;
        for snapshot in self.0.snapshots.list() {
            let Some(expires) = snapshot.facts.expires_at else { continue };
            let id = &snapshot.facts.id;
            match Duration::try_from(expires.duration_since(now)) {
                Ok(left) if !left.is_zero() => next = Some(next.map_or(left, |next| next.min(left))),
                _ => match self.delete_snapshot(&Caller::daemon(), id).await {
                    Ok(()) => tracing::info!(%id, "a snapshot's time to live is over"),
                    Err(error) => {
                        tracing::warn!(%id, %error, "cannot delete a snapshot whose time is over");
                        next = Some(next.map_or(AGAIN, |next| next.min(AGAIN)));
                    }
                },
            }
        }
        next
    }

    /// Gives a sandbox the files of a snapshot. What runs in it ends; it is stopped, and the next call wakes it. One of a
    /// directory is laid out in that one's place, or at `path`, and nothing ends.
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`find_snapshot`](Self::find_snapshot); `SNAPSHOT_MISMATCH` when the snapshot is of
    /// another image; `SNAPSHOT_UNSUPPORTED`.
    pub async fn restore(
        &self,
        caller: &Caller,
        id: &SandboxId,
        snapshot: &SnapshotId,
        path: Option<&str>,
    ) -> Result<Arc<Sandbox>, Error> {
        let kept = self.kept(caller, snapshot)?;
        let restored = match &kept.facts.directory {
            Some(directory) => self.restore_directory(caller, id, &kept, path.unwrap_or(directory)).await?,
            None => self.restore_all(caller, id, kept, path).await?,
        };
        restored.voice.say(Kind::Restored, json!({ "snapshot": snapshot }));
        Ok(restored)
    }

    async fn restore_all(
        &self,
        caller: &Caller,
        id: &SandboxId,
        kept: Arc<Snapshot>,
        path: Option<&str>,
    ) -> Result<Arc<Sandbox>, Error> {
        if path.is_some() {
            return Err(Error::new(ErrorCode::InvalidRequest, "path is for snapshots of a directory")
                .hint("leave path out: this one is of all files")
                .context(json!({ "field": "path" })));
        }
        let (sandbox, claim) = self.take(caller, id).await?;
        must_keep_files(&sandbox)?;
        if kept.facts.root != sandbox.facts.plan.root {
            return Err(Error::new(
                ErrorCode::SnapshotMismatch,
                format!(
                    "the snapshot is of the image {}, the sandbox of another",
                    kept.facts.image.reference
                ),
            )
            .hint("create a new sandbox with `snapshot`"));
        }
        let this = self.clone();
        let task = tokio::spawn(async move {
            // Its image's layers, and its name, stay for as long as this takes.
            this.put_to_rest(&sandbox, claim, Some(kept.facts.id.clone())).await
        });
        task.await.map_err(|error| Error::internal("restoring the sandbox failed", error))??;
        self.get(caller, id)
    }

    /// Gives a sandbox the files of one of its own snapshots; of the latest if none is named.
    ///
    /// # Errors
    /// As [`restore`](Self::restore); `SNAPSHOT_NOT_FOUND` when it has none, `SNAPSHOT_MISMATCH` when the one that is named
    /// is another's.
    pub async fn roll_back(
        &self,
        caller: &Caller,
        id: &SandboxId,
        to: Option<&SnapshotId>,
    ) -> Result<Arc<Sandbox>, Error> {
        let sandbox = self.get(caller, id)?;
        if let Some(to) = to {
            let kept = self.kept(caller, to)?;
            if !kept.facts.is_of(&sandbox) {
                return Err(Error::new(ErrorCode::SnapshotMismatch, not_its_own(&kept.facts, id))
                    .hint("`restore` takes it all the same"));
            }
            return self.restore(caller, id, to, None).await;
        }
        let all = self.0.snapshots.list();
        let own = |one: &&Arc<Snapshot>| one.facts.directory.is_none() && one.facts.is_of(&sandbox);
        let Some(latest) = all.iter().rfind(own) else {
            return Err(Error::new(ErrorCode::SnapshotNotFound, format!("{id} has no snapshot of its own"))
                .hint("make one first; `restore` takes snapshots of other sandboxes too"));
        };
        let chosen = latest.facts.id.clone();
        self.restore(caller, id, &chosen, None).await
    }

    /// Makes sandboxes whose files begin as those of another are now. They run when this returns.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot) and [`create`](Self::create). Then there is none of them.
    pub async fn fork(
        &self,
        caller: &Caller,
        id: &SandboxId,
        wanted: ForkSpec,
    ) -> Result<Vec<Arc<Sandbox>>, Error> {
        if wanted.count == 0 || wanted.count > FORKS_MAX || wanted.ids.len() > wanted.count {
            let rule = format!("count must be between 1 and {FORKS_MAX}, and no fewer than ids");
            return Err(Error::new(ErrorCode::InvalidRequest, rule)
                .hint("fork several times for more")
                .context(json!({ "field": "count" })));
        }
        let (sandbox, claim) = self.take(caller, id).await?;
        must_keep_files(&sandbox)?;
        let (this, caller) = (self.clone(), caller.clone());
        let task = tokio::spawn(async move {
            let children = this.make_children(&caller, (Arc::clone(&sandbox), claim), wanted).await;
            match &children {
                Ok(children) => {
                    let ids: Vec<_> = children.iter().map(|child| &child.facts.id).collect();
                    sandbox.voice.say(Kind::Forked, json!({ "children": ids }));
                }
                Err(_) => this.collect_saved().await,
            }
            children
        });
        task.await.map_err(|error| Error::internal("forking the sandbox failed", error))?
    }

    async fn make_children(
        &self,
        caller: &Caller,
        (sandbox, claim): (Arc<Sandbox>, Claim),
        wanted: ForkSpec,
    ) -> Result<Vec<Arc<Sandbox>>, Error> {
        let snapshot = random();
        // While this lives the saved files are kept, and after that by the children.
        let draft = self.0.snapshots.draft(&snapshot);
        let _draft = draft.map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        self.save(&sandbox, &snapshot, false).await?;
        let fork = Fork::of(&sandbox, snapshot, wanted.labels);
        // It is nobody's business any more what its own files become.
        drop(claim);
        let ids = wanted.ids.into_iter().map(Some).chain(std::iter::repeat(None)).take(wanted.count);
        let mut children: Vec<Arc<Sandbox>> = Vec::new();
        for id in ids {
            match self.create_fork(caller, id, &fork).await {
                Ok(child) => children.push(child),
                Err(error) => {
                    for child in children {
                        // What cannot be destroyed is in the list, with its owner.
                        let _ = self.destroy(&Caller::daemon(), &child.facts.id).await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(children)
    }
}

/// How long a deletion that failed is left alone.
const AGAIN: Duration = Duration::from_secs(60);

/// Refuses a sandbox whose files lie in memory, or are lost.
fn must_keep_files(sandbox: &Sandbox) -> Result<(), Error> {
    if !keeps_files(&sandbox.facts.plan.resources) {
        return Err(Error::new(
            ErrorCode::SnapshotUnsupported,
            "a sandbox with a limit on its disk space has no snapshots: its files lie apart, and end with it",
        )
        .hint("leave resources.disk_bytes and disk_files out"));
    }
    if sandbox.agent().is_none() && sandbox.rest == Rest::Lost {
        return Err(Error::new(ErrorCode::SandboxDead, "the sandbox has ended, and its files with it")
            .hint("delete it, and create one with `snapshot`"));
    }
    Ok(())
}
