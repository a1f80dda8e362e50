//! What is to be mounted, and how that is shown.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ErrorCode;
use crate::wire::bucket::{Addressing, BucketStart, BucketStatus, Credentials, Endpoint, Scheme};
use crate::wire::launch::Settings;
use crate::wire::mount::{HostDirectory, Server};

/// A mount as asked for. Credentials that came with it are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Where, absolute and in one form.
    pub path: String,
    /// What.
    pub what: What,
    /// Nothing can be changed in it.
    pub read_only: bool,
    /// Owner of what is in it, inside.
    pub uid: u32,
    /// Group of what is in it, inside.
    pub gid: u32,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A directory of the host.
    Directory {
        /// Absolute, in one form.
        path: String,
    },
    /// A bucket.
    Bucket(Box<BucketSpec>),
}

/// A bucket to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSpec {
    /// Its name.
    pub bucket: String,
    /// What every key begins with: empty, or with a slash at the end.
    pub prefix: String,
    /// Whom to ask.
    pub endpoint: Endpoint,
    /// As in the scope of signatures.
    pub region: String,
    /// Where the bucket's name goes.
    pub addressing: Addressing,
    /// Where its credentials come from.
    pub credentials: CredentialSource,
    /// Permissions of files of which the bucket does not say.
    pub file_mode: u32,
    /// Permissions of directories of which the bucket does not say.
    pub dir_mode: u32,
    /// Bytes of the cache on disk, at most.
    pub cache_bytes: u64,
    /// How long attributes and names are believed.
    pub attribute_ttl_ms: u64,
    /// Whether nothing is overwritten that somebody else has changed meanwhile.
    pub conditional_writes: bool,
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialSource {
    /// The request.
    Request,
    /// The daemon's environment.
    Environment,
    /// A profile of the operator's file.
    Profile(String),
    /// Nowhere: requests are not signed.
    Anonymous,
}

/// A mount to make, and the credentials that came with it.
#[derive(Clone, Serialize, Deserialize)]
pub struct MountRequest {
    /// What.
    pub spec: MountSpec,
    /// They are no part of what a mount is compared by, or kept as.
    #[serde(skip)]
    pub credentials: Option<Credentials>,
}

impl PartialEq for MountRequest {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for MountRequest {}

impl fmt::Debug for MountRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

impl BucketSpec {
    /// The one server that its worker may be connected to.
    pub(super) fn server(&self) -> Server {
        let host = match self.addressing {
            Addressing::Path => self.endpoint.host.clone(),
            Addressing::Host => format!("{}.{}", self.bucket, self.endpoint.host),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Server { host, port: self.endpoint.port }
    }
}

impl MountSpec {
    /// What its worker is told, in a sandbox whose first host id is this.
    pub(super) fn start(
        &self,
        bucket: &BucketSpec,
        credentials: Credentials,
        host_first: u32,
        settings: &Settings,
    ) -> BucketStart {
        BucketStart {
            bucket: bucket.bucket.clone(),
            prefix: bucket.prefix.clone(),
            endpoint: bucket.endpoint.clone(),
            region: bucket.region.clone(),
            addressing: bucket.addressing,
            read_only: self.read_only,
            credentials,
            uid: host_first + self.uid,
            gid: host_first + self.gid,
            file_mode: bucket.file_mode,
            dir_mode: bucket.dir_mode,
            cache_bytes_max: bucket.cache_bytes,
            attribute_ttl_ms: bucket.attribute_ttl_ms,
            patience_ms: crate::limits::BUCKET_PATIENCE_MS,
            conditional_writes: bucket.conditional_writes,
            ca_pem: settings.ca_pem.clone(),
            log: settings.log.clone(),
            log_json: settings.log_json,
        }
    }

    /// What launch is told of a directory.
    pub(super) fn directory(&self, path: &str) -> HostDirectory {
        HostDirectory { path: path.to_owned(), uid: self.uid, gid: self.gid, read_only: self.read_only }
    }

    /// Whether both are in the same place, or one in the other.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        within(&self.path, &other.path) || within(&other.path, &self.path)
    }
}

/// A mount of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountView {
    /// Its name in the sandbox.
    #[schema(example = "m1")]
    pub id: String,
    /// Where it is.
    pub path: String,
    /// Whose server it is on: a URL, or `file://` and a directory of the host.
    pub endpoint: String,
    /// The bucket; absent for a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What every key begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// As in the scope of signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where the bucket's name goes: `path` or `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressing: Option<String>,
    /// Where its credentials come from: `request`, `environment`, `profile NAME` or `anonymous`. They are never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// Whether nothing can be changed in it.
    pub read_only: bool,
    /// Owner of what is in it.
    pub uid: u32,
    /// Group of what is in it.
    pub gid: u32,
    /// How it goes.
    pub state: MountState,
    /// Why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<MountTrouble>,
    /// Counters of a bucket that is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<BucketStatus>,
}

/// How a mount goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MountState {
    /// Files can be used.
    Mounted,
    /// It is being mounted, for the first time or again.
    Mounting,
    /// It could not be mounted, and is tried again now and then; who uses it is told ENOTCONN.
    Failed,
    /// Its sandbox does not run.
    Stopped,
}

/// Why a mount has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountTrouble {
    /// Which of the closed list.
    pub code: ErrorCode,
    /// In words.
    pub message: String,
}

/// What became of a mount that was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unmounted {
    /// Paths below the mount of files whose last changes are not in the bucket: the first hundred.
    pub lost: Vec<String>,
    /// How many they are.
    pub lost_count: u64,
}

pub(super) fn url(endpoint: &Endpoint) -> String {
    let scheme = match endpoint.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    format!("{scheme}://{}{}", endpoint.authority(&endpoint.host), endpoint.path)
}

impl MountSpec {
    /// As it is shown.
    pub(super) fn view(&self, number: u32) -> MountView {
        let mut view = MountView {
            id: format!("m{number}"),
            path: self.path.clone(),
            endpoint: String::new(),
            bucket: None,
            prefix: None,
            region: None,
            addressing: None,
            credentials: None,
            read_only: self.read_only,
            uid: self.uid,
            gid: self.gid,
            state: MountState::Mounted,
            error: None,
            status: None,
        };
        match &self.what {
            What::Directory { path } => view.endpoint = format!("file://{path}"),
            What::Bucket(bucket) => {
                view.endpoint = url(&bucket.endpoint);
                view.bucket = Some(bucket.bucket.clone());
                view.prefix = Some(bucket.prefix.clone()).filter(|prefix| !prefix.is_empty());
                view.region = Some(bucket.region.clone());
                view.addressing = Some(
                    match bucket.addressing {
                        Addressing::Path => "path",
                        Addressing::Host => "host",
                    }
                    .to_owned(),
                );
                view.credentials = Some(match &bucket.credentials {
                    CredentialSource::Request => "request".to_owned(),
                    CredentialSource::Environment => "environment".to_owned(),
                    CredentialSource::Profile(name) => format!("profile {name}"),
                    CredentialSource::Anonymous => "anonymous".to_owned(),
                });
            }
        }
        view
    }
}
