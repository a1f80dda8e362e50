//! A sandbox's own variables: what every command, session and process of it gets, unless it says otherwise.
//!
//! They begin as the image and the creation say, and can be changed while the sandbox runs. What a command says for
//! itself never comes here. Changes lie in a file, so that serve has them when it is started again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Sandbox, spec};
use crate::error::Error;

/// The variables of one sandbox.
#[derive(Debug)]
pub(super) struct Environment {
    path: PathBuf,
    variables: Mutex<BTreeMap<String, String>>,
}

/// A change of variables.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentChange {
    /// Everything that is there goes first.
    pub replace: bool,
    /// These are set.
    pub set: BTreeMap<String, String>,
    /// These go, if they are there.
    pub unset: Vec<String>,
}

impl Environment {
    /// What lies in the file, or what the sandbox was created with.
    pub(super) fn new(path: PathBuf, created: &BTreeMap<String, String>) -> Self {
        let changed = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { path, variables: Mutex::new(changed.unwrap_or_else(|| created.clone())) }
    }

    /// The variables now.
    pub(super) fn get(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // The map is replaced as a whole.
        self.variables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: EnvironmentChange) -> Result<BTreeMap<String, String>, Error> {
        let mut variables = self.lock();
        let mut changed = if change.replace { BTreeMap::new() } else { variables.clone() };
        for name in change.unset {
            changed.remove(&name);
        }
        changed.extend(change.set);
        spec::strings(&["-".to_owned()], &changed)?;
        self.save(&changed).map_err(|error| Error::internal("cannot record the variables", error))?;
        variables.clone_from(&changed);
        Ok(changed)
    }

    fn save(&self, variables: &BTreeMap<String, String>) -> std::io::Result<()> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let draft = self.path.with_extension("new");
        std::fs::write(&draft, serde_json::to_vec(variables)?)?;
        std::fs::rename(&draft, &self.path)
    }
}

impl Sandbox {
    /// Its variables.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.environment.get()
    }

    /// Changes its variables, for what is started from now on, and returns them.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when they would be too many or too large.
    pub fn change_environment(&self, change: EnvironmentChange) -> Result<BTreeMap<String, String>, Error> {
        self.environment.change(change)
    }
}
