//! What the gateway knows for one sandbox and the sandbox does not: credentials, and the key of its authority.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;

use super::authority;
use crate::id::SandboxId;
use crate::limits::EGRESS_SECRETS_BYTES_MAX;
use crate::wire;
use crate::wire::gateway::{Credential, Secrets};

/// Secrets, and what is made of them when it is needed.
#[derive(Debug, Default)]
pub(super) struct Known {
    secrets: Secrets,
    server: OnceLock<Result<Arc<ServerConfig>, String>>,
}

impl Known {
    /// Reads the file that launch has sent. What cannot be read leaves nothing known, and what needs it is refused.
    pub(super) fn of(file: Option<OwnedFd>) -> Self {
        let secrets = match file.map(read).transpose() {
            Ok(secrets) => secrets.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "cannot read the secrets of a policy");
                Secrets::default()
            }
        };
        Self { secrets, server: OnceLock::new() }
    }

    pub(super) fn credential(&self, host: &str) -> Option<&Credential> {
        self.secrets.credentials.get(host)
    }

    /// How TLS is answered in the sandbox's name.
    pub(super) fn server(&self, sandbox: &SandboxId) -> Result<Arc<ServerConfig>, String> {
        let make = || match &self.secrets.authority {
            Some(key) => authority::server(sandbox, key).map_err(|error| error.to_string()),
            None => Err("there is no authority".to_owned()),
        };
        self.server.get_or_init(make).clone()
    }
}

fn read(file: OwnedFd) -> io::Result<Secrets> {
    let file = std::fs::File::from(file);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > EGRESS_SECRETS_BYTES_MAX {
        return Err(io::Error::other("they are too large"));
    }
    let mut bytes = vec![0; length];
    // Others hold the same open file: its position is nobody's.
    file.read_exact_at(&mut bytes, 0)?;
    wire::decode(&bytes).map_err(io::Error::other)
}
