//! Bodies about snapshots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::unique_keys;
use crate::sandbox::{SandboxView, SnapshotView};

/// A snapshot to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateSnapshot {
    /// For people; up to 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The caller's own notes.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Delete it so many milliseconds after it was made. Never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000_000_u64)]
    pub ttl_ms: Option<u64>,
    /// One directory of the sandbox, instead of all files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/workspace")]
    pub path: Option<String>,
    /// Globs of what in the directory is left out: those with a `/` in them or before them are for paths below it, others for
    /// names; those that end with one are for directories alone. At most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["node_modules", "target/**"]))]
    pub exclude: Vec<String>,
    /// Leave out what `.gitignore` files in the directory say.
    pub gitignore: bool,
}

/// Snapshots.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The oldest first.
    pub snapshots: Vec<SnapshotView>,
}

/// What a sandbox's files are to be.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreSandbox {
    /// The snapshot.
    pub snapshot: String,
    /// Where a snapshot of a directory goes; where it was when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Where a sandbox is to go back to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RollBackSandbox {
    /// One of its own snapshots; the latest when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// An image to make of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitSandbox {
    /// The image's name: `[registry/]repository[:tag]`. One that is there of that name is replaced.
    #[schema(example = "team/tools:2")]
    pub reference: String,
}

/// Sandboxes to make of another.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForkSandbox {
    /// How many; as many as there are `ids`, or one, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 64)]
    pub count: Option<usize>,
    /// Their names. Chosen at random where there are fewer than `count`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Their labels; the parent's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Sandboxes that were made of another.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ForkList {
    /// In the order of `ids`.
    pub sandboxes: Vec<SandboxView>,
}
