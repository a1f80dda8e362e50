//! Bodies about recordings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sandbox::{RecordSpec, RecordingView, object};

/// Whether, and how, something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RecordSetting {
    /// With what it writes alone, or not at all.
    Whether(bool),
    /// In this way.
    How(#[serde(deserialize_with = "object")] RecordOptions),
}

/// How something is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordOptions {
    /// Also what is typed, or read from stdin. Passwords are typed too, and are not shown on the terminal.
    pub input: bool,
}

impl RecordSetting {
    pub(crate) fn spec(self) -> Option<RecordSpec> {
        match self {
            Self::Whether(false) => None,
            Self::Whether(true) => Some(RecordSpec::default()),
            Self::How(RecordOptions { input }) => Some(RecordSpec { input }),
        }
    }
}

/// Recordings of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordingList {
    /// The oldest first.
    pub recordings: Vec<RecordingView>,
}
