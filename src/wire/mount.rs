//! serve ⇄ launch about mounts: what is shown in a sandbox's tree beside its own files.
//!
//! ```text
//! bucket      Start ─▶ a worker, and a FUSE mount that nobody sees     serve hears from the worker how it goes
//!             Show  ─▶ the mount is in the tree
//! directory   Show  ─▶ a directory of the host, with ids of the sandbox, is in the tree
//! both        End   ─▶ it is not, and the worker is gone
//! ```
//!
//! A worker's first message ([`BucketStart`](super::bucket::BucketStart)) holds credentials. It travels as a sealed file
//! in memory, of which launch makes a copy in the kernel beside the sandbox's record, and which a child that is about to
//! become the worker reads: it is never in launch's own memory, which every agent begins as a copy of.

use serde::{Deserialize, Serialize};

/// What is done with one mount of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountCall {
    /// Start the worker of a bucket, in the place of one before. Comes with the file of its first message; the reply
    /// carries our end of its control socket.
    Start(Server),
    /// The reply carries our end of the control socket of the worker that runs.
    Connect,
    /// Attach it in the sandbox's tree, in the place of a former mount of the same number.
    Show {
        /// Absolute, without `.` and `..`; made where it is missing.
        path: String,
        /// What is there to be seen.
        source: Source,
    },
    /// Detach it, end its worker, and remove everything of it: its cache, files that are not in the bucket yet, its first
    /// message. Nothing happens to one that is not there.
    End,
    /// The reply carries the file of the worker's first message.
    Recall,
}

/// The one server that a worker may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its name or address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The bucket whose worker was started.
    Bucket,
    /// Nothing: whoever looks is told ENOTCONN.
    Nothing,
    /// A directory of the host.
    Directory(HostDirectory),
}

/// A directory of the host, below one of those that the operator names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDirectory {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// Who owns inside what the directory's owner owns.
    pub uid: u32,
    /// The same for its group.
    pub gid: u32,
    /// Whether nothing can be changed.
    pub read_only: bool,
}
