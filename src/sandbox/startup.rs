//! Processes that a sandbox declares: started when it is created, and each time that it begins again.
//!
//! They are background processes like any other, under the ids that were declared. What has ended under such an id when
//! the sandbox begins again is replaced, its log included.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CommandSpec, OnExit, ProcessSpec, Sandbox};
use crate::error::{Error, ErrorCode};
use crate::limits::LOG_BYTES_DEFAULT;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartupSpec {
    /// Its id.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Beside the sandbox's own; wins over it.
    pub env: BTreeMap<String, String>,
    /// Working directory; the sandbox's when absent.
    pub cwd: Option<String>,
    /// User; the sandbox's when absent.
    pub user: Option<String>,
}

impl Sandbox {
    /// Starts what was declared and does not run, in its order.
    ///
    /// # Errors
    /// The first that cannot be started; the sandbox has ended.
    pub(super) async fn start_declared(&self) -> Result<(), Error> {
        for declared in &self.facts.spec.startup {
            if self.process(&declared.id).is_ok_and(|process| process.running().is_ok()) {
                continue;
            }
            match self.remove_process(&declared.id).await {
                Err(error) if error.code != ErrorCode::ProcessNotFound => return Err(error),
                _ => {}
            }
            let StartupSpec { id, argv, env, cwd, user } = declared.clone();
            let command = CommandSpec { argv, env, cwd, user, ..CommandSpec::default() };
            let spec = ProcessSpec {
                id: Some(id),
                command,
                on_exit: OnExit::Keep,
                log_bytes_max: LOG_BYTES_DEFAULT,
            };
            self.start_process(spec).await?;
        }
        Ok(())
    }
}
