//! launch ⇄ unpack: one layer per process, then it exits.

use serde::{Deserialize, Serialize};

use super::launch::{Compression, LayerStats};
use crate::id::Digest;

/// The first and only message to an unpack process. Comes with three descriptors: the blob, open for reading at
/// its start; the directory that the layer goes into, empty; the writing end of the progress pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackJob {
    /// SHA-256 that the uncompressed tar must have.
    pub diff_id: Digest,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Whether it was made as the one layer of an image: then names that remove something from lower layers are refused,
    /// because whoever made it had files that are called so.
    pub alone: bool,
}

/// What launch says after `Done`, once the layer has its name. Without it the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnpackRequest {
    /// Write all of the layer to disk, and say `Synced`.
    Sync,
}

/// What an unpack process says: any number of `Opaque`, then `Done` or `Failed`, and `Synced` after a
/// [`UnpackRequest::Sync`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnpackReply {
    /// Directories, relative to the layer's root ("" is the root itself), that hide what lower layers have in
    /// them. launch marks them; it resolves them inside the layer (`RESOLVE_IN_ROOT`), like any path of an image.
    Opaque(Vec<Vec<u8>>),
    /// The layer is complete and its digest is right. It can be used; it would not survive a crash of the host.
    Done(UnpackReport),
    /// Now it would.
    Synced,
    /// The layer is refused, or the host failed. What was written so far is of no use.
    Failed(UnpackFailure),
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackReport {
    /// How much.
    pub stats: LayerStats,
    /// Entries left out because they are devices.
    pub devices_skipped: u64,
}

/// Why a layer was not unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct UnpackFailure {
    /// Whose fault it is.
    pub kind: UnpackFailureKind,
    /// In words.
    pub detail: String,
}

/// Kinds of failure that launch answers differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnpackFailureKind {
    /// The bytes are not a layer that we accept.
    Invalid,
    /// No room left on the disk, or no inodes.
    Full,
    /// Our own bug, or the host's.
    Internal,
}
