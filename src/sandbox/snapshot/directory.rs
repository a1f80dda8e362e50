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
//! compresses bytes. So it does with an archive that comes from elsewhere, which is made plain by a process of its own: what
//! serve decompresses is what it has compressed. Owners, modes, times and links are kept, those of the directory itself too; sockets, devices and extended attributes are not.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::compress::{compressed, written};
use super::super::create::Fork;
use super::super::files::Files;
use super::super::lifecycle::Claim;
use super::super::quota::Taken;
use super::super::random::random_text;
use super::super::{Caller, Sandbox, Sandboxes};
use super::kept::{Draft, Facts, Origin, Snapshot};
use super::{SnapshotSpec, SnapshotView, random};
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::journal::feed::Kind;
use crate::seal::{Recipient, Sealer};
use crate::wire::agent::{Name, User};
use crate::wire::launch::{SaveMethod, Saved};
use crate::wire::worker::{Believed, Kind as FileKind, Selection};

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
    pub(super) async fn twin(&self, sandbox: &Sandbox, claim: Claim) -> Result<Arc<Sandbox>, Error> {
        let snapshot = random();
        let draft = self.0.snapshots.draft(&snapshot);
        let _draft = draft.map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        self.save(sandbox, &snapshot, false).await?;
        let fork = Fork::of(sandbox, snapshot, None).unseen();
        drop(claim);
        self.create_fork(&Caller::daemon(), None, &fork).await
    }

    /// Keeps a directory of a sandbox.
    pub(super) async fn keep_directory(
        &self,
        (sandbox, claim): (Arc<Sandbox>, Claim),
        (id, draft, place): (SnapshotId, Draft, Taken),
        (facts, wanted): (Facts, DirectorySpec),
    ) -> Result<SnapshotView, Error> {
        let twin = self.twin(&sandbox, claim).await?;
        let packed = self.pack(&twin, &id, wanted).await;
        // What cannot be destroyed now is when serve begins again.
        let _ = self.destroy(&Caller::daemon(), &twin.facts.id).await;
        let saved = packed?;
        place.weigh(saved.bytes)?;
        let facts = facts.with(saved);
        let kept = self.0.snapshots.commit(&draft, Snapshot { facts, lease: None, place });
        Ok(kept.map_err(|error| Error::writing("cannot keep the snapshot", error))?.view())
    }

    async fn pack(&self, twin: &Sandbox, id: &SnapshotId, wanted: DirectorySpec) -> Result<Saved, Error> {
        let files = twin.files(Some("0"))?;
        let path = files.path(wanted.path.as_bytes())?;
        if is_root(&path) {
            return Err(Error::new(ErrorCode::PathInvalid, "the path is the root directory's")
                .hint("leave `path` out: then the snapshot is of all files")
                .context(serde_json::json!({ "field": "path" })));
        }
        must_be_directory(files.stat(path.clone(), false, false).await?.kind)?;
        let tar = files.pack(path, wanted.selection).await.map_err(unreadable)?;
        self.keep_archive(id, tar.map_err(unreadable)).await
    }

    /// Keeps a tar as the archive of a snapshot.
    async fn keep_archive(
        &self,
        id: &SnapshotId,
        tar: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<Saved, Error> {
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

    /// The archive of a directory's snapshot: a tar, compressed with zstd, and sealed if there is somebody to seal it to.
    ///
    /// # Errors
    /// As [`find_snapshot`](Self::find_snapshot); `SNAPSHOT_MISMATCH` for one of all files.
    pub fn archive(
        &self,
        caller: &Caller,
        id: &SnapshotId,
        recipient: Option<Recipient>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let kept = self.kept(caller, id)?;
        if kept.facts.directory.is_none() {
            return Err(Error::new(
                ErrorCode::SnapshotMismatch,
                "the snapshot is of all files, and no archive",
            )
            .hint("export it as an image"));
        }
        let file = self.0.snapshots.open(id);
        let mut file = file.map_err(|error| Error::internal("cannot open the snapshot's archive", error))?;
        Ok(written(move |mut out| match recipient {
            None => io::copy(&mut file, &mut out).and_then(|_| out.flush()),
            Some(recipient) => {
                let mut sealer = Sealer::new(out, &recipient)?;
                io::copy(&mut file, &mut sealer)?;
                sealer.finish()?.flush()
            }
        }))
    }

    /// Keeps a tar that comes from elsewhere as a snapshot of a directory, of no sandbox that is here.
    ///
    /// # Errors
    /// What the stream says when it breaks; `QUOTA_EXCEEDED`, `CAPACITY_EXHAUSTED`.
    pub async fn keep_from(
        &self,
        caller: &Caller,
        wanted: SnapshotSpec,
        tar: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<SnapshotView, Error> {
        let place = self.0.ledger.snapshot(caller.uid)?;
        let id = random();
        let draft =
            self.0.snapshots.draft(&id).map_err(|error| Error::writing("cannot keep the snapshot", error))?;
        let facts = Facts::new(id.clone(), caller.uid, &wanted, Origin::elsewhere());
        let saved = self.keep_archive(&id, tar).await?;
        place.weigh(saved.bytes)?;
        let snapshot = Snapshot { facts: facts.with(saved), lease: None, place };
        let kept = self.0.snapshots.commit(&draft, snapshot);
        let view = kept.map_err(|error| Error::writing("cannot keep the snapshot", error))?.view();
        let about = serde_json::json!({ "snapshot": view.id });
        self.feed().publish(Kind::SnapshotCreated, None, caller.uid, about);
        self.0.clock.notify_one();
        Ok(view)
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
        if let Some(mounted) = sandbox.mounts.at_or_below(&text) {
            // What is mounted is no part of a snapshot, and is not to go with what is replaced.
            return Err(in_the_way(&mounted, "unmount it first, or name another directory as `path`"));
        }
        let file = self.0.snapshots.open(&kept.facts.id);
        let file = file.map_err(|error| Error::internal("cannot open the snapshot's archive", error))?;
        let beside = || format!("{above}/.{name}.{}", random_text::<8>()).into_bytes();
        let (draft, former) = (beside(), beside());
        let placed = put(&files, file, (draft.clone(), former), text.into_bytes()).await;
        if placed.is_err() {
            // Absent when it got nowhere.
            let _ = files.remove(draft, true).await;
        }
        placed.map(|()| sandbox)
    }
}

/// What is kept, and what is replaced, is a directory itself: a link to one would be neither what was kept nor where it
/// goes back to.
fn must_be_directory(kind: FileKind) -> Result<(), Error> {
    let hint = match kind {
        FileKind::Directory => return Ok(()),
        FileKind::Symlink => "name the directory that the link leads to",
        _ => "name the directory that it is in, or copy it as a file",
    };
    let field = serde_json::json!({ "field": "path" });
    Err(Error::new(ErrorCode::NotDirectory, "the path is not a directory's").hint(hint).context(field))
}

fn in_the_way(mounted: &str, hint: &'static str) -> Error {
    Error::new(ErrorCode::MountInUse, format!("something is mounted at {mounted}, which cannot be replaced"))
        .hint(hint)
        .context(serde_json::json!({ "field": "path" }))
}

/// Whether a path is the root directory's, whatever it is called.
fn is_root(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    depth == 0
}

/// What of a directory cannot be kept, in words that help.
fn unreadable(error: Error) -> Error {
    match error.code {
        ErrorCode::FileDenied => {
            Error::new(ErrorCode::FileDenied, "something in the directory cannot be read, not even by root")
                .hint("leave it out by `exclude`; /proc, /sys and /dev have nothing that can be kept")
        }
        _ => error,
    }
}

/// Lays an archive out beside a directory, as `draft`, and has it take that one's place, and what the archive does not say
/// of it. `former` is what the directory is called on its way out.
async fn put(
    files: &Files,
    archive: std::fs::File,
    (draft, former): (Vec<u8>, Vec<u8>),
    place: Vec<u8>,
) -> Result<(), Error> {
    let there = match files.stat(place.clone(), false, false).await {
        Ok(stat) => Some(stat),
        Err(error) if error.code == ErrorCode::FileNotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(stat) = &there {
        must_be_directory(stat.kind)?;
        // An archive from elsewhere may have nothing to say of the directory itself.
        files.mkdir(draft.clone(), Some(stat.mode), false).await?;
        let owner = User { user: Name::Id(stat.uid), group: Some(Name::Id(stat.gid)) };
        files.chown(draft.clone(), owner, false).await?;
    }
    let (sender, chunks) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    let reader = tokio::task::spawn_blocking(move || decompress(archive, &sender));
    let unpacked = files.unpack(draft.clone(), Believed::OwnersAndSetId, ReceiverStream::new(chunks)).await;
    reader.await.map_err(|error| Error::internal("decompressing failed", error))?;
    unpacked?;
    if there.is_none() {
        return files.rename(draft, place, false).await;
    }
    // In one step: what is mounted refuses it, and then nothing of it is gone.
    files.rename(place.clone(), former.clone(), false).await.map_err(|error| match error.code {
        ErrorCode::FileBusy => {
            in_the_way(&String::from_utf8_lossy(&place), "name another directory as `path`")
        }
        _ => error,
    })?;
    if let Err(error) = files.rename(draft, place.clone(), false).await {
        // Refused when somebody else has made another: then theirs stays.
        let _ = files.rename(former, place, false).await;
        return Err(error);
    }
    if let Err(error) = files.remove(former, true).await {
        tracing::warn!(%error, "what a restored directory has replaced is still there, under a name with a dot");
    }
    Ok(())
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
