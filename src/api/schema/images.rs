//! Bodies about images.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sandbox::catalog::Image;

/// Images.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    /// By reference.
    pub images: Vec<Image>,
    /// What sandboxes can be made of without any image in the store. Their names are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub built_in: Vec<BuiltInImage>,
}

/// What a sandbox can be made of without an image in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuiltInImage {
    /// Its name.
    #[schema(example = "host")]
    pub reference: String,
    /// What it is.
    pub description: String,
}

/// An image to fetch from a registry.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PullImage {
    /// `[registry/]repository[:tag][@digest]`.
    #[schema(example = "localhost:5000/python:3.13")]
    pub reference: String,
    /// `os/architecture`. This host's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "linux/amd64")]
    pub platform: Option<String>,
    /// For registries that want a name and a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Sent to the registry's token server, or to the registry; never kept or logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// A bearer token instead; never kept or logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// HTTP without TLS; only for registries on loopback, unless the daemon's configuration names them.
    pub plain_http: bool,
    /// Certificates to trust beside the host's, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

impl fmt::Debug for PullImage {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullImage")
            .field("reference", &self.reference)
            .field("platform", &self.platform)
            .field("plain_http", &self.plain_http)
            .finish_non_exhaustive()
    }
}
