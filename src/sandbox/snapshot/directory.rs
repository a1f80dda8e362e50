//! Snapshots of one directory: an archive that serve keeps, made of a sandbox that stands still.
//!
//! ```text
//! sandbox ─ saved files ─▶ a twin that nobody sees, without network ─ its worker: tar ─▶ zstd ─▶ snapshots/<id>.zst
//! restore: snapshots/<id>.zst ─▶ worker of the sandbox: laid out beside the directory ─▶ takes its place
//! ```
//! The twin is what makes it consistent without holding up the sandbox for as long as an archive takes. It is gone when the
//! archive is there, and when serve begins again.
//!
//! What a sandbox wrote is never read here: the worker that packs it and the one that lays it out run inside, and serve
//! compresses bytes. Owners, modes, times and links are kept; sockets, devices and extended attributes are not.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::catalog::Image;
use super::super::compress::compressed;
use super::super::create::Fork;
use super::super::files::Files;
use super::super::lifecycle::Claim;
use super::super::random::random_text;
use super::super::{Caller, Sandbox, Sandboxes};
use super::kept::{Draft, Facts, Snapshot};
use super::{SnapshotView, must_keep_files, random};
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::wire::agent::{Name, User};
use crate::wire::fetch::ImageConfig;
use crate::wire::launch::{Root, SaveMethod, Saved};
use crate::wire::worker::{Believed, Selection};

/// A directory to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorySpec {
    /// Which, in the sandbox.
    pub path: String,
    /// What of it.
    pub selection: Selection,
}

/// Chunks between the decompressor and the pipe.
const CHUNKS: usize = 16;

/// Bytes of a decompressed chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// The largest window that an archive may want: 128 MiB, as zstd's own command line.
const WINDOW_LOG_MAX: u32 = 27;

impl Sandboxes {
    /// A sandbox like another one, of its files as they are now, that nobody but this daemon knows of.
    async fn twin(&self, sandbox: &Sandbox, claim: Claim) -> Result<Arc<Sandbox>, Error> {
        let snapshot = random();
        let draft = self.0.snapshots.draft(&snapshot);
        let _draft = draft.map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        self.save(sandbox, &snapshot, false).await?;
        let fork = Fork::of(sandbox, snapshot, None).unseen();
        drop(claim);
        self.create_fork(&Caller::daemon(), None, &fork).await
    }

    /// Makes an image of all files of a sandbox, under this name.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot); `SNAPSHOT_UNSUPPORTED` for a sandbox of `host`; what an import can fail by.
    pub async fn commit(&self, caller: &Caller, id: &SandboxId, reference: String) -> Result<Image, Error> {
        let (sandbox, claim) = self.take(caller, id).await?;
        must_keep_files(&sandbox)?;
        if sandbox.facts.plan.root == Root::Host {
            return Err(Error::new(
                ErrorCode::SnapshotUnsupported,
                "a sandbox of `host` makes no image: its programs are this host's",
            )
            .hint("make the sandbox of an image, or keep a snapshot"));
        }
        let this = self.clone();
        let task = tokio::spawn(async move {
            let twin = this.twin(&sandbox, claim).await?;
            let image = this.commit_twin(&twin, &sandbox, &reference).await;
            let _ = this.destroy(&Caller::daemon(), &twin.facts.id).await;
            image
        });
        task.await.map_err(|error| Error::internal("making the image failed", error))?
    }

    async fn commit_twin(&self, twin: &Sandbox, sandbox: &Sandbox, reference: &str) -> Result<Image, Error> {
        let files = twin.files(Some("0"))?;
        // What is mounted there is each sandbox's own, and not all of it may be read.
        let exclude = ["dev/*", "proc/*", "sys/*"].map(str::to_owned).to_vec();
        let tar = files.pack(b"/".to_vec(), Selection { exclude, gitignore: false }).await?;
        let digest = sandbox.facts.image.digest.as_deref();
        // Replaced meanwhile, it has nothing to say.
        let of = digest.and_then(|digest| self.0.catalog.inspect(digest).ok()).map(|image| image.config);
        let ImageConfig { entrypoint, cmd, .. } = of.unwrap_or_default();
        let env = sandbox.environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (user, working_dir) = (sandbox.facts.user.clone(), sandbox.facts.cwd.clone());
        let config = ImageConfig { entrypoint, cmd, env, user, working_dir };
        self.0.catalog.commit(reference, config, tar).await
    }

    /// Keeps a directory of a sandbox.
    pub(super) async fn keep_directory(
        &self,
        (sandbox, claim): (Arc<Sandbox>, Claim),
        (id, draft): (SnapshotId, Draft),
        (facts, wanted): (Facts, DirectorySpec),
    ) -> Result<SnapshotView, Error> {
        let twin = self.twin(&sandbox, claim).await?;
        let packed = self.pack(&twin, &id, wanted).await;
        // What cannot be destroyed now is when serve begins again.
        let _ = self.destroy(&Caller::daemon(), &twin.facts.id).await;
        let saved = packed?;
        let facts = facts.with(saved);
        let kept = self.0.snapshots.commit(&draft, Snapshot { facts, lease: None });
        Ok(kept.map_err(|error| Error::writing("cannot keep the snapshot", error))?.view())
    }

    async fn pack(&self, twin: &Sandbox, id: &SnapshotId, wanted: DirectorySpec) -> Result<Saved, Error> {
        let files = twin.files(Some("0"))?;
        let path = files.path(wanted.path.as_bytes())?;
        let tar = files.pack(path, wanted.selection).await?;
        let file = self
            .0
            .snapshots
            .archive(id)
            .map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        let file = compressed(tar, file, |_| ()).await?;
        let bytes = tokio::task::spawn_blocking(move || -> io::Result<u64> {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        let bytes = bytes.await.map_err(|error| Error::internal("writing the directory failed", error))?;
        let bytes = bytes.map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        Ok(Saved { bytes, entries: 0, method: SaveMethod::Archived })
    }

    /// Lays out a directory that was kept, in the place of what is there.
    pub(super) async fn restore_directory(
        &self,
        caller: &Caller,
        id: &SandboxId,
        kept: &Snapshot,
        to: &str,
    ) -> Result<Arc<Sandbox>, Error> {
        let sandbox = self.awake(caller, id).await?;
        let files = sandbox.files(Some("0"))?;
        let place = files.path(to.as_bytes())?;
        let text = String::from_utf8_lossy(&place).trim_end_matches('/').to_owned();
        let Some((above, name)) = text.rsplit_once('/').filter(|(_, name)| !name.is_empty()) else {
            return Err(Error::new(ErrorCode::PathInvalid, "the root directory cannot be replaced")
                .hint("name a directory below it as `path`")
                .context(serde_json::json!({ "field": "path" })));
        };
        let file = self.0.snapshots.open(&kept.facts.id);
        let file = file.map_err(|error| Error::internal("cannot open the snapshot's archive", error))?;
        let draft = format!("{above}/.{name}.{}", random_text::<8>()).into_bytes();
        let placed = put(&files, file, (draft.clone(), text.into_bytes())).await;
        if placed.is_err() {
            // Absent when it got nowhere.
            let _ = files.remove(draft, true).await;
        }
        placed.map(|()| sandbox)
    }
}

/// Lays an archive out beside a directory, and has it take that one's place, owner and mode.
async fn put(files: &Files, archive: std::fs::File, (draft, place): (Vec<u8>, Vec<u8>)) -> Result<(), Error> {
    let (sender, chunks) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    let reader = tokio::task::spawn_blocking(move || decompress(archive, &sender));
    let unpacked = files.unpack(draft.clone(), Believed::OwnersAndSetId, ReceiverStream::new(chunks)).await;
    reader.await.map_err(|error| Error::internal("decompressing failed", error))?;
    unpacked?;
    match files.stat(place.clone(), false, false).await {
        Ok(stat) => {
            files.chmod(draft.clone(), stat.mode).await?;
            let owner = User { user: Name::Id(stat.uid), group: Some(Name::Id(stat.gid)) };
            files.chown(draft.clone(), owner, false).await?;
            files.remove(place.clone(), true).await?;
        }
        Err(error) if error.code == ErrorCode::FileNotFound => {}
        Err(error) => return Err(error),
    }
    files.rename(draft, place, false).await
}

fn decompress(file: std::fs::File, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let read = || -> io::Result<()> {
        let mut decoder = zstd::Decoder::new(file)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        loop {
            let mut buffer = vec![0; CHUNK_BYTES];
            let count = decoder.read(&mut buffer)?;
            buffer.truncate(count);
            // Whoever reads has enough, or there is no more.
            if count == 0 || chunks.blocking_send(Ok(buffer.into())).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(error) = read() {
        let _ = chunks.blocking_send(Err(error));
    }
}
