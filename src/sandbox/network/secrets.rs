//! Secrets on their way through serve: out of a request, into a sealed file, and back from launch when a change keeps
//! some of them.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};

use super::super::{SandboxSpec, command};
use super::{hosts, refuse};
use crate::error::Error;
use crate::gateway::authority;
use crate::id::SandboxId;
use crate::limits;
use crate::wire::gateway::{Policy, Secrets};

/// A policy, and the secrets that came with it. They are no part of what it is compared by, or kept as.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Egress {
    /// What may leave.
    pub policy: Policy,
    /// What it takes that the sandbox is not to see.
    #[serde(skip)]
    pub secrets: Secrets,
}

impl PartialEq for Egress {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy
    }
}

impl Eq for Egress {}

/// What of a new sandbox's network is not its policy.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Beginning {
    /// The file of secrets.
    pub(in crate::sandbox) secrets: Option<OwnedFd>,
    /// Whom its programs are to trust.
    pub(in crate::sandbox) certificate: Option<Vec<u8>>,
}

/// Takes the secrets out of a specification, which is kept and shown.
///
/// # Errors
/// `INVALID_REQUEST` names the host that lacks its own.
pub(in crate::sandbox) fn begin(id: &SandboxId, spec: &mut SandboxSpec) -> Result<Beginning, Error> {
    let Some(egress) = &mut spec.network else { return Ok(Beginning::default()) };
    let mut secrets = std::mem::take(&mut egress.secrets);
    hosts::keep(&egress.policy.hosts, &mut secrets, (&[], &Secrets::default()))?;
    let opens = !egress.policy.intercept.is_empty();
    let certificate = opens.then(|| authorize(id, &mut secrets)).transpose()?;
    Ok(Beginning { secrets: sealed(&secrets)?, certificate })
}

/// Sees to it that there is an authority, and gives its certificate.
pub(super) fn authorize(id: &SandboxId, secrets: &mut Secrets) -> Result<Vec<u8>, Error> {
    if secrets.authority.is_none() {
        let made = authority::generate(id);
        let made = made.map_err(|error| Error::internal("cannot make a certificate authority", error))?;
        secrets.authority = Some(made);
    }
    Ok(secrets.authority.as_ref().map(|key| key.certificate.clone()).unwrap_or_default())
}

/// Secrets as launch takes them: a file in memory that nobody can change; none when there are none.
pub(super) fn sealed(secrets: &Secrets) -> Result<Option<OwnedFd>, Error> {
    if *secrets == Secrets::default() {
        return Ok(None);
    }
    let most = limits::EGRESS_SECRETS_BYTES_MAX;
    let bytes = crate::wire::encode_long(secrets, most).map_err(|_| {
        refuse("network.hosts", format!("have credentials of more than {most} bytes"), "name fewer hosts")
    })?;
    let file = command::sealed(&bytes);
    file.map(Some).map_err(|errno| Error::internal("cannot write the network's secrets", errno))
}

pub(super) fn read(file: OwnedFd) -> Result<Secrets, Error> {
    let file = std::fs::File::from(file);
    let read = || -> std::io::Result<Secrets> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(limits::EGRESS_SECRETS_BYTES_MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        crate::wire::decode(&bytes).map_err(std::io::Error::other)
    };
    read().map_err(|error| Error::internal("cannot read the network's secrets", error))
}
