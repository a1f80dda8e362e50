//! launch ⇄ bucket worker ⇄ dialer: one mount of a bucket.
//!
//! ```text
//! launch ─ BucketStart + fds ─▶ bucket           once; answered by Ready or Failed
//!        ─ BucketCall ─▶        ◀─ BucketWord ─
//! bucket ─ one byte ─▶ dialer ─ Dialled + a connected socket ─▶ bucket
//! ```
//!
//! Descriptors that come with [`BucketStart`], in this order: the `/dev/fuse` of a mount before its INIT was answered;
//! the socket to the dialer; the mount's own directory on the host, for its cache and for files that are not uploaded
//! yet. A new worker on the same directory uploads what a former one left.
//!
//! A FUSE connection ends with its worker: what the kernel knows of inodes and open files was the worker's memory. Whoever
//! starts a new one makes a new mount for it and puts it in the place of the old one, whose open files answer ENOTCONN.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a worker is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketStart {
    /// Name of the bucket.
    pub bucket: String,
    /// What every key begins with: empty, or whole components and a slash at the end.
    pub prefix: String,
    /// Whom to ask.
    pub endpoint: Endpoint,
    /// As in the scope of signatures.
    pub region: String,
    /// Where the bucket's name goes.
    pub addressing: Addressing,
    /// Nothing is written, nor changed.
    pub read_only: bool,
    /// Who asks.
    pub credentials: Credentials,
    /// Owner of every file, as the mount's user namespace has it.
    pub uid: u32,
    /// Group of every file.
    pub gid: u32,
    /// Permissions of files of which the bucket does not say.
    pub file_mode: u32,
    /// Permissions of directories of which the bucket does not say.
    pub dir_mode: u32,
    /// Bytes of the cache on disk, at most. What is not uploaded yet counts and is never dropped.
    pub cache_bytes_max: u64,
    /// How long attributes and names are believed without asking the bucket again.
    pub attribute_ttl_ms: u64,
    /// How long one operation may take, all attempts together.
    pub patience_ms: u64,
    /// Nothing is overwritten but what was read: an object that somebody else changed or made meanwhile stays, and
    /// the writer is told by ESTALE.
    pub conditional_writes: bool,
    /// Certificates to trust beside the host's, in PEM.
    pub ca_pem: String,
    /// Log filter.
    pub log: String,
    /// Log as JSON lines.
    pub log_json: bool,
}

/// A server that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Whether over TLS.
    pub scheme: Scheme,
    /// Its name or address, IPv6 in brackets. The certificate is checked against it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What all paths begin with, without a slash at the end: mostly empty.
    pub path: String,
}

impl Endpoint {
    /// A host at its port, as clients write it: the port only when it is not the scheme's own.
    pub fn authority(&self, host: &str) -> String {
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host.to_owned(),
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// Whether a server is spoken to over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// No.
    Http,
    /// Yes.
    Https,
}

/// Where the bucket's name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addressing {
    /// The first component of the path.
    Path,
    /// The first label of the host's name. The dialer connects to that name.
    Host,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// Nobody: requests are not signed.
    Anonymous,
    /// Who has this key.
    Keys {
        /// Its name.
        access_key_id: String,
        /// Itself.
        secret_access_key: String,
        /// For keys that end.
        session_token: Option<String>,
        /// When they do, in milliseconds since 1970.
        expires_ms: Option<u64>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Keys { .. } => "Keys(…)",
        })
    }
}

/// What a worker is told later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketCall {
    /// Say how it goes; answered by [`BucketWord::Status`].
    Status,
    /// Other credentials, from now on.
    Credentials(Credentials),
    /// Upload what is not uploaded yet and end. Answered by [`BucketWord::Drained`] or [`BucketWord::Lost`].
    Unmount {
        /// For so long at most.
        deadline_ms: u64,
    },
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketWord {
    /// The bucket answered, and the file system does.
    Ready,
    /// There is no such mount. Said within 15 s, and the worker ends.
    Failed(BucketFailure),
    /// How it goes.
    Status(BucketStatus),
    /// The server no longer takes the credentials, or they end within five minutes.
    NeedCredentials,
    /// Everything is in the bucket; the worker ends.
    Drained,
    /// Some files are not; the worker ends. They stay in the mount's directory until that is removed.
    Lost {
        /// Their paths in the mount, the first hundred.
        files: Vec<String>,
        /// How many there are.
        count: u64,
    },
}

/// Why a bucket cannot be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct BucketFailure {
    /// Which kind, for the code that the client sees.
    pub kind: BucketFailureKind,
    /// In words.
    pub message: String,
}

/// Kinds of failure that differ in what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketFailureKind {
    /// There is no bucket of that name.
    NoSuchBucket,
    /// The server refuses these credentials, or knows them and refuses the bucket.
    Denied,
    /// No connection, or no answer in time.
    Unreachable,
    /// The bucket is in another region.
    WrongRegion {
        /// Which, if the server says.
        expected: Option<String>,
    },
    /// The server's certificate is not one to trust.
    BadCertificate,
    /// The server sends us to another host, to which nobody goes.
    Redirected,
    /// The server's answers are not those of S3.
    Protocol,
    /// Our own bug, or the host's.
    Internal,
}

/// What a bucket's worker counts, since it was started last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MountStatus)]
pub struct BucketStatus {
    /// Files that are not in the bucket yet.
    pub dirty_files: u64,
    /// Bytes in them.
    pub dirty_bytes: u64,
    /// Bytes in the cache on disk, without those.
    pub cache_bytes: u64,
    /// Uploads that have failed and are tried again.
    pub failing_uploads: u64,
    /// Requests to the server.
    pub requests: u64,
    /// Of them, those that were sent again after a failure.
    pub retries: u64,
    /// Bytes of objects that were received.
    pub bytes_read: u64,
    /// Bytes of objects that were sent.
    pub bytes_written: u64,
}

/// How connecting went: the socket comes along, or this errno of connect(2) says why not.
pub type Dialled = Result<(), i32>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES_MAX;
    use crate::wire::{decode, encode};

    fn start() -> BucketStart {
        BucketStart {
            bucket: "b".repeat(63),
            prefix: "p/".repeat(512),
            endpoint: Endpoint {
                scheme: Scheme::Https,
                host: "s3.example.com".to_owned(),
                port: 443,
                path: String::new(),
            },
            region: "eu-west-1".to_owned(),
            addressing: Addressing::Path,
            read_only: false,
            credentials: Credentials::Keys {
                access_key_id: "name".to_owned(),
                secret_access_key: "hush".to_owned(),
                session_token: Some("t".repeat(4096)),
                expires_ms: Some(1),
            },
            uid: 1000,
            gid: 1000,
            file_mode: 0o644,
            dir_mode: 0o755,
            cache_bytes_max: 1 << 30,
            attribute_ttl_ms: 1000,
            patience_ms: 25_000,
            conditional_writes: true,
            ca_pem: "c".repeat(crate::limits::CA_BYTES_MAX),
            log: "info".to_owned(),
            log_json: false,
        }
    }

    #[test]
    fn the_largest_start_fits_into_a_frame_and_comes_back_equal() {
        let bytes = encode(&start()).expect("encode");
        assert!(bytes.len() < FRAME_BYTES_MAX);
        assert_eq!(decode::<BucketStart>(&bytes).expect("decode"), start());
        assert!(decode::<BucketStart>(&bytes[..bytes.len() - 1]).is_err(), "cut");
        assert!(decode::<BucketStart>(&[&bytes[..], b"x"].concat()).is_err(), "trailing");
    }

    #[test]
    fn words_come_back_equal() {
        let lost = BucketWord::Lost { files: vec!["x".repeat(1024); 100], count: 101 };
        let failed = BucketWord::Failed(BucketFailure {
            kind: BucketFailureKind::WrongRegion { expected: Some("us-east-2".to_owned()) },
            message: "m".to_owned(),
        });
        for word in [BucketWord::Ready, BucketWord::Status(BucketStatus::default()), lost, failed] {
            assert_eq!(decode::<BucketWord>(&encode(&word).expect("encode")).expect("decode"), word);
        }
        let call = BucketCall::Credentials(start().credentials);
        assert_eq!(decode::<BucketCall>(&encode(&call).expect("encode")).expect("decode"), call);
        for dialled in [Ok(()), Err(111)] {
            assert_eq!(decode::<Dialled>(&encode(&dialled).expect("encode")).expect("decode"), dialled);
        }
    }

    #[test]
    fn no_secret_is_printed() {
        assert!(!format!("{:?}", start()).contains("hush"));
        assert!(!format!("{:?}", BucketCall::Credentials(start().credentials)).contains("hush"));
    }
}
