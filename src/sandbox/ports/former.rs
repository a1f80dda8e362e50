//! Tokens that were good once: of sandboxes that are destroyed.
//!
//! Kept as digests of sandbox, port and token, the latest ones, so that an old address is answered as such even when
//! another sandbox has the id.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::replace;
use crate::id::{PreviewToken, SandboxId};
use crate::limits::FORMER_TOKENS_MAX;

/// The file, beside the directories of sandboxes: no sandbox is called so.
const NAME: &str = "former_tokens.json";

/// The latest tokens of sandboxes that are gone.
#[derive(Debug)]
pub(in crate::sandbox) struct Former {
    path: PathBuf,
    digests: Mutex<VecDeque<String>>,
}

impl Former {
    /// What lies in the file in this directory.
    pub(in crate::sandbox) fn open(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { path, digests: Mutex::new(kept.unwrap_or_default()) }
    }

    /// Whether this is the file.
    pub(in crate::sandbox) fn is(&self, path: &Path) -> bool {
        self.path == path
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        // Each of its elements stands for itself.
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers some.
    pub(super) fn add<'a>(&self, tokens: impl Iterator<Item = (&'a SandboxId, u16, &'a PreviewToken)>) {
        let mut digests = self.lock();
        let before = digests.len();
        digests.extend(tokens.map(|(id, port, token)| digest(id, port, token)));
        if digests.len() == before {
            return;
        }
        while digests.len() > FORMER_TOKENS_MAX {
            digests.pop_front();
        }
        let saved =
            serde_json::to_vec(&*digests).map_err(Into::into).and_then(|text| replace(&self.path, &text));
        if let Err(error) = saved {
            // Then their addresses are called wrong after a restart, which they are too.
            tracing::warn!(%error, "cannot record former tokens");
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether this one is among them.
    pub(super) fn has(&self, id: &SandboxId, port: u16, token: &PreviewToken) -> bool {
        let wanted = digest(id, port, token);
        self.lock().contains(&wanted)
    }
}

fn digest(id: &SandboxId, port: u16, token: &PreviewToken) -> String {
    let digest = Sha256::digest(format!("{port}-{id}-{}", token.as_str()));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
