//! What a payload must know of the world around it to attack it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::launch::Profile;

/// Everything that a payload is told, on its stdin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scene {
    /// Names of the attacks to make, in order.
    pub attacks: Vec<String>,
    /// Whether it runs in the sandbox that is examined: the controls do not.
    pub inside: bool,
    /// The sandbox's profile. Controls have none and are told that of the sandbox.
    pub profile: Profile,
    /// A directory that may be mounted over and written to.
    pub place: String,
    /// What the host has for this purpose.
    pub host: Host,
    /// What the sandbox next door has.
    pub neighbour: Neighbour,
    /// The sandbox's limits.
    pub sizes: Sizes,
}

/// Services and files of the host that no sandbox may reach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// A server that answers on all addresses, TCP and UDP.
    pub port: u16,
    /// The host's own addresses.
    pub addresses: Vec<IpAddr>,
    /// An abstract Unix socket that listens.
    pub abstract_socket: String,
    /// A Unix socket in the file system that everybody may connect to.
    pub socket: String,
    /// A file that everybody on the host may read.
    pub secret: String,
}

/// What the sandbox next door keeps for itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Neighbour {
    /// TCP on its loopback.
    pub port: u16,
    /// An abstract Unix socket that listens.
    pub abstract_socket: String,
    /// A file that everybody there may read.
    pub file: String,
    /// System V shared memory.
    pub key: i32,
    /// A POSIX message queue.
    pub queue: String,
    /// An argument of one of its processes.
    pub marker: String,
}

/// The limits of the sandbox that is attacked, as far as attacks try to exceed them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sizes {
    /// Processes.
    pub pids: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Each tmpfs, in bytes.
    pub tmpfs: u64,
}
