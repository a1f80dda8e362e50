//! Bodies about mounts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sandbox::MountView;

/// Something to mount: a bucket, or a directory of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMount {
    /// Where, absolute; made when it is missing.
    #[schema(example = "/data")]
    pub path: String,
    /// Whose server: `https://host[:port][/path]`, `http://…`, or `file:///directory` of the host, if the operator lets.
    /// Amazon's of the region when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://s3.example.com")]
    pub endpoint: Option<String>,
    /// The bucket. With `file://` a directory in the one that the endpoint names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Only what is below this: a key without its last part, or a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The bucket's region; `us-east-1` when absent, and `auto` is what some servers want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where the bucket's name goes: `path`, or `host` for a label of the host's name. `host` when absent for Amazon,
    /// `path` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(path|host)$")]
    pub addressing: Option<String>,
    /// Who asks. They stay outside: nothing in the sandbox can see them, and no answer shows them. Those of the
    /// daemon's environment when absent, if the operator lends them.
    #[serde(default, deserialize_with = "super::some_object", skip_serializing_if = "Option::is_none")]
    pub credentials: Option<MountCredentials>,
    /// Nothing can be changed in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Uid that owns what is in it; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 65535)]
    pub uid: Option<u32>,
    /// Its gid; `uid` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 65535)]
    pub gid: Option<u32>,
    /// Permissions of files of which a bucket does not say, in octal; `644` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-7]{3}$")]
    pub file_mode: Option<String>,
    /// Permissions of its directories; `755` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-7]{3}$")]
    pub dir_mode: Option<String>,
    /// Bytes of the host's disk for what is read and written; 1 GiB when absent. What is not in the bucket yet is never
    /// dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16777216)]
    pub cache_bytes: Option<u64>,
    /// How many milliseconds names, sizes and times are believed without asking the bucket again; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_ttl_ms: Option<u64>,
    /// Do not overwrite what somebody else has changed meanwhile: the writer is told ESTALE. The server must know
    /// `If-Match`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditional_writes: bool,
}

/// Who asks a bucket's server: a key, or one of the other three.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MountCredentials {
    /// A key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
    /// For keys that end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// A profile of the operator's file (`mounts.credentials_file`): a key, or a role and the file of a web identity's
    /// token. Read again when the server refuses its key, or before that ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Those of the daemon's environment, if the operator lends them (`mounts.environment`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub environment: bool,
    /// Nobody: requests are not signed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}

impl std::fmt::Debug for MountCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MountCredentials(…)")
    }
}

/// Mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountList {
    /// By name.
    pub mounts: Vec<MountView>,
}
