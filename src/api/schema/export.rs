//! Bodies about files that leave a sandbox, and come from elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mounts::MountCredentials;
use crate::sandbox::ExportFormat;

/// A registry to send an image to.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PushSandbox {
    /// `[registry/]repository[:tag]`.
    #[schema(example = "localhost:5000/team/tools:2")]
    pub reference: String,
    /// For registries that want a name and a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Sent to the registry's token server, or to the registry; never kept or logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// A bearer token instead; never kept or logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// HTTP without TLS.
    pub plain_http: bool,
    /// Certificates to trust beside the host's, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

impl fmt::Debug for PushSandbox {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSandbox").field("reference", &self.reference).finish_non_exhaustive()
    }
}

/// An object in a bucket; with `file://` as endpoint, a file in a directory of the host, if the operator lets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketObject {
    /// Whose server, as for a mount. Amazon's of the region when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://s3.example.com")]
    pub endpoint: Option<String>,
    /// The bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The object's key.
    #[schema(example = "sandboxes/home.tar")]
    pub key: String,
    /// The bucket's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where the bucket's name goes: `path` or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(path|host)$")]
    pub addressing: Option<String>,
    /// Who asks. Those of the daemon's environment when absent, if the operator lends them.
    #[serde(default, deserialize_with = "super::some_object", skip_serializing_if = "Option::is_none")]
    pub credentials: Option<MountCredentials>,
}

/// All files of a sandbox, for an object in a bucket.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSandbox {
    /// Where to. One that is there is replaced.
    pub object: BucketObject,
    /// As what: `oci` when absent.
    #[serde(default)]
    pub format: ExportFormat,
    /// The image's name in its layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Who alone can read it: a recipient of age, `age1…`. Everybody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
}

/// An archive in a bucket, for images.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadImage {
    /// Where it is.
    pub object: BucketObject,
    /// The image's reference here. Without it, what the archive says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// It is a tar of files, and no archive of images.
    #[serde(default)]
    pub rootfs: bool,
    /// The identity of age that it is encrypted to, `AGE-SECRET-KEY-1…`; never kept or logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl fmt::Debug for LoadImage {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadImage").field("object", &self.object).finish_non_exhaustive()
    }
}
