//! serve ⇄ fetch: one pull or import per process, then it exits.
//!
//! ```text
//! serve ─ FetchJob + [blobs directory, (import: the archive)] ─▶ fetch
//!       ◀─ Image (one; an import: one per image) ─────────────── fetch     manifest and configuration are stored
//!       ─ FetchRequest::Blob … (pull: the layers not yet here) ─▶ fetch
//!       ◀─ Progress …, Blob … ────────────────────────────────── fetch     stored and verified, one by one
//!       ─ end of stream ─▶                                                 nothing more is wanted
//! ```
//! An import says `Done` when the archive is read; a pull ends when serve closes. Either may say `Failed`, once.
//!
//! And those that fetch no image: `Identify` with a file that holds a token is answered by `Keys`; `Push` with the directory
//! by `Progress …` and `Done`; `Open` with two pipes by `Progress` when the key fits and `Done` at the end.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::Digest;

/// The first message to a fetch process. Comes with the directory of blobs, and for an import with the archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FetchJob {
    /// From a registry.
    Pull(Box<PullJob>),
    /// From an archive: a tar of an OCI layout, or what `docker save` writes; gzip and zstd are recognised.
    Import(ImportJob),
    /// An image in the store, to a registry.
    Push(Box<PushJob>),
    /// What is sealed or compressed, made plain. Comes with the end to read from and the one to write to.
    Open(OpenJob),
    /// Keys for buckets, for a token that says who the host is. Comes with the token's file alone.
    Identify(Box<IdentityJob>),
}

/// An image to pull.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PullJob {
    /// As the user wrote it.
    pub reference: String,
    /// Which of the images behind an index.
    pub platform: Platform,
    /// What to show the registry.
    pub credentials: Credentials,
    /// Speak HTTP without TLS. Loopback registries are spoken to in both ways.
    pub plain_http: bool,
    /// Certificates to trust beside the host's, PEM.
    pub ca_pem: Option<String>,
}

/// An archive to import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportJob {
    /// The name to give; without it, the names in the archive.
    pub reference: Option<String>,
    /// Which of the images behind an index.
    pub platform: Platform,
}

/// An image to push.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PushJob {
    /// Where to, and as whom.
    pub to: PullJob,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The other blobs, with their sizes.
    pub blobs: Vec<(Digest, u64)>,
}

/// Bytes to make plain.
#[derive(Clone, Serialize, Deserialize)]
pub struct OpenJob {
    /// The identity of age that they are encrypted to; they are not when absent.
    pub identity: Option<String>,
    /// Whether they are unpacked, if they are compressed.
    pub inflate: bool,
}

impl fmt::Debug for OpenJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenJob").field("inflate", &self.inflate).finish_non_exhaustive()
    }
}

/// A role to take on, by `AssumeRoleWithWebIdentity` of the Security Token Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityJob {
    /// URL of the service.
    pub endpoint: String,
    /// The role's name.
    pub role_arn: String,
    /// What the session is called in the service's logs.
    pub session_name: String,
    /// Certificates to trust beside the host's, PEM; "" for none.
    pub ca_pem: String,
}

/// What a registry is shown. Not printed.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// Name and password, for the registry or for the token server that it names.
    Basic {
        /// Name.
        username: String,
        /// Password or access token used as one.
        password: String,
    },
    /// A bearer token, sent as it is.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// Operating system and processor, in the names of Go (`GOOS`, `GOARCH`), as image indexes write them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Platform {
    /// "linux".
    pub os: String,
    /// "amd64", "arm64" …
    pub architecture: String,
    /// "v7" …, where the architecture has several. Not left out when absent: postcard knows fields by position.
    pub variant: Option<String>,
}

/// What an image says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageConfig {
    /// Program and arguments that a command line is appended to.
    pub entrypoint: Vec<String>,
    /// Default command line.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// User, and group after a colon, by name or number; "" is root.
    pub user: String,
    /// Working directory; "" is `/`.
    pub working_dir: String,
}

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Layer {
    /// SHA-256 of the blob.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// SHA-256 of the tar in it: the layer's name in the store.
    #[schema(value_type = String)]
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size_bytes: u64,
}

/// An image whose manifest and configuration are stored and verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedImage {
    /// Its name, in full ("docker.io/library/busybox:latest"); an import without names has none.
    pub reference: Option<String>,
    /// Digest of its manifest, which is in the store.
    pub manifest: Digest,
    /// Digest of its configuration, which is in the store.
    pub config_digest: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as it says (RFC 3339).
    pub created: Option<String>,
    /// How to run it.
    pub config: ImageConfig,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// What serve asks of a running pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchRequest {
    /// Download a layer's blob.
    Blob {
        /// Which, of those in the manifest.
        digest: Digest,
    },
}

/// What a fetch process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchEvent {
    /// The image is known.
    Image(Box<FetchedImage>),
    /// A blob is coming along. An import has one progress for the whole archive, without digest.
    Progress {
        /// Which blob.
        digest: Option<Digest>,
        /// Bytes that are here.
        done_bytes: u64,
        /// Bytes there are in all; 0 when that is not known.
        total_bytes: u64,
    },
    /// A blob is in the store, verified. The blob of a layer need not be on disk yet: unpacking verifies it again.
    Blob(Digest),
    /// The archive is read to its end.
    Done,
    /// Keys for buckets, that end.
    Keys(super::bucket::Credentials),
    /// It did not work; nothing more comes.
    Failed(FetchFailure),
}

/// Why an image was not fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct FetchFailure {
    /// Which kind, for the code that the client sees.
    pub kind: FetchFailureKind,
    /// In words.
    pub detail: String,
}

/// Kinds of failure that differ in what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchFailureKind {
    /// The reference cannot be parsed.
    Reference,
    /// The registry wants credentials, or refuses these.
    Denied,
    /// No such repository, tag or digest.
    NotFound,
    /// The registry cannot be reached, or answers against its protocol.
    Unreachable,
    /// The bytes are not an image that we accept.
    Invalid,
    /// They are encrypted, and to another identity than what was given.
    Sealed,
    /// They are an archive, and not one of images.
    NotImage,
    /// No manifest for the platform.
    Platform,
    /// No room on the disk.
    Full,
    /// Our own bug, or the host's.
    Internal,
}
