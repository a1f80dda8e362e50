//! Bodies about ports.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::sandbox::PortView;

/// A port to expose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExposePort {
    /// Its number inside the sandbox, 1 to 65535.
    #[schema(example = 8000)]
    pub port: u64,
    /// What it is called in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its token: 1 to 16 of `a-z`, `0-9` and `_`. Whoever guesses it may use the port. Chosen at random when absent,
    /// with 80 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9_]{1,16}$")]
    pub token: Option<String>,
    /// How many milliseconds a request waits for somebody to listen, instead of being answered 502 at once; up to 60000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// An exposed port and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExposedPort {
    /// What is known of it.
    #[serde(flatten)]
    pub view: PortView,
    /// Its address for browsers. Absent when this daemon serves no previews; the port is then reached by `…/proxy/`.
    pub url: Option<String>,
}

/// Exposed ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortList {
    /// By number.
    pub ports: Vec<ExposedPort>,
}

/// How a port is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConnectToPort {
    /// How many milliseconds to wait for somebody to listen; up to 60000.
    pub wait_ms: Option<u64>,
}

/// Where browsers reach exposed ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewInfo {
    /// The URL before whose host name each preview has a name of its own.
    pub url: String,
}
