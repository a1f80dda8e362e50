//! Sandboxes' files that are kept, and given back.

use rustix::process::Pid;

use super::super::saved;
use super::Loop;
use crate::id::{SandboxId, SnapshotId};
use crate::wire::agent::Exit;
use crate::wire::launch::{Answer, Failure, Saved};

impl Loop {
    /// Keeps the files of a sandbox. Those of one that does not run become what it lies on; of one that runs a copy is
    /// made, and the answer comes when it is.
    pub(super) fn save(&mut self, id: &SandboxId, snapshot: &SnapshotId, lasting: bool, number: u64) {
        let foundation = &self.launch.foundation;
        let runs = self.sandboxes.contains_key(id);
        let stacked = if runs { Ok(false) } else { saved::stack(foundation, id.as_str(), snapshot) };
        let begun = match stacked {
            Ok(true) if lasting => self.savings.settle(foundation, number, snapshot),
            Ok(true) => {
                return self.reply(number, Ok(Answer::Saved(Saved::default())), &[]);
            }
            Ok(false) => self.savings.copy(foundation, number, id.as_str(), snapshot, (runs, lasting)),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = begun {
            self.reply(number, Err(failure), &[]);
        }
    }

    /// Gives a sandbox saved files. One that runs is ended first, and the answer comes after that.
    pub(super) fn restore(&mut self, id: SandboxId, snapshot: SnapshotId, number: u64) {
        if !self.sandboxes.contains_key(&id) {
            let result = self.restore_files(&id, &snapshot);
            return self.reply(number, result, &[]);
        }
        // Refused while it can still be.
        if let Err(failure) = saved::chain(&self.launch.foundation, Some(snapshot.clone())) {
            return self.reply(number, Err(failure), &[]);
        }
        // A process that waits for a mount could not be killed.
        self.end_mounts(&id);
        let Some(sandbox) = self.sandboxes.get_mut(&id) else { return };
        sandbox.restoring.push((number, snapshot));
        sandbox.kill(&self.launch.foundation);
    }

    pub(super) fn restore_files(&mut self, id: &SandboxId, snapshot: &SnapshotId) -> Result<Answer, Failure> {
        saved::restore(&self.launch.foundation, id.as_str(), snapshot)?;
        // What it lay on before may be nobody's now.
        self.garbage = true;
        Ok(Answer::Done)
    }

    /// A child has ended: perhaps one that made a copy.
    pub(super) fn saving_ended(&mut self, pid: Pid, exit: Exit) {
        let ended = self.savings.ended(&self.launch.foundation, pid.as_raw_nonzero().get(), exit);
        if let Some((number, result)) = ended {
            // A serve that died meanwhile has no use for it.
            self.garbage = true;
            self.reply(number, result.map(Answer::Saved), &[]);
        }
    }
}
