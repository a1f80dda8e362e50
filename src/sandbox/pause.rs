//! Sandboxes that are frozen with their memory, and go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::launcher::{LauncherError, launcher_error};
use super::{Caller, Sandbox, Sandboxes, State};
use crate::error::Error;
use crate::id::SandboxId;
use crate::journal::feed::Kind;
use crate::wire::launch::{Call, Failure, FailureKind};

impl Sandboxes {
    /// Lets a paused sandbox go on.
    pub(super) async fn go_on(&self, sandbox: &Sandbox) -> Result<(), Error> {
        if sandbox.state() != State::Paused {
            return Ok(());
        }
        let _turn = sandbox.pausing.lock().await;
        if sandbox.state() != State::Paused {
            return Ok(());
        }
        let call = Call::Resume { id: sandbox.facts.id.clone() };
        match self.0.launcher.call(call, &[]).await {
            // It has ended meanwhile, and whoever needs it learns of that.
            Ok(_) | Err(LauncherError::Refused(Failure { kind: FailureKind::NotFound, .. })) => {}
            Err(error) => return Err(launcher_error(error)),
        }
        // Its idle timeout runs again, and from now: before it can be seen to run.
        sandbox.activity.touch();
        if sandbox.paused.swap(false, Ordering::AcqRel) && sandbox.agent().is_some() {
            self.0.clock.notify_one();
            sandbox.voice.say(Kind::Resumed, serde_json::Value::Null);
        }
        Ok(())
    }

    /// Finds a sandbox, and lets it go on if it is paused: for what speaks to something that runs in it, and is of no
    /// use to one that was stopped.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn unfrozen(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        let sandbox = self.get(caller, id)?;
        self.go_on(&sandbox).await?;
        sandbox.activity.touch();
        Ok(sandbox)
    }

    /// Freezes everything that runs in a sandbox, until the next call that needs it. One that does not run is left as
    /// it is.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn pause(&self, caller: &Caller, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        let sandbox = self.get(caller, id)?;
        if sandbox.state() != State::Running {
            return Ok(sandbox);
        }
        let _turn = sandbox.pausing.lock().await;
        if !self.has(&sandbox) {
            return self.get(caller, id);
        }
        let call = Call::Pause { id: id.clone() };
        match self.0.launcher.call(call, &[]).await {
            Ok(_) => {}
            Err(LauncherError::Refused(Failure { kind: FailureKind::NotFound, .. })) => {
                return self.get(caller, id);
            }
            Err(error) => return Err(launcher_error(error)),
        }
        if !sandbox.paused.swap(true, Ordering::AcqRel) {
            sandbox.voice.say(Kind::Paused, serde_json::Value::Null);
        }
        Ok(Arc::clone(&sandbox))
    }
}
