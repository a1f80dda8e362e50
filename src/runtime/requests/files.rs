//! Sandboxes' files that are kept, and given back.

use rustix::process::Pid;

use super::super::saved::{self, Ended, Ground, Wanted};
use super::Loop;
use super::life::Extent;
use crate::id::{SandboxId, SnapshotId};
use crate::wire::agent::Exit;
use crate::wire::launch::{Answer, Failure, Saved};

impl Loop {
    /// Keeps the files of a sandbox. Those of one that does not run become what it lies on; of one that runs a copy is
    /// made, and the answer comes when it is. So it does when what it lies on is made one first.
    pub(super) fn save(&mut self, wanted: &Wanted) {
        match self.begin_saving(wanted) {
            Ok(None) => {}
            Ok(Some(saved)) => self.reply(wanted.number, Ok(Answer::Saved(saved)), &[]),
            Err(failure) => self.reply(wanted.number, Err(failure), &[]),
        }
    }

    fn begin_saving(&mut self, wanted: &Wanted) -> Result<Option<Saved>, Failure> {
        let foundation = &self.launch.foundation;
        let runs = self.sandboxes.contains_key(&wanted.id);
        let on = match saved::ground(foundation, wanted.id.as_str(), runs)? {
            Ground::Even(on) => on,
            Ground::Deep(top) => return self.savings.flatten(foundation, wanted, &top).map(|()| None),
        };
        if runs || !saved::stack(foundation, wanted.id.as_str(), &wanted.snapshot)? {
            self.savings.copy(foundation, wanted, on, runs)?;
        } else if wanted.lasting {
            self.savings.settle(foundation, wanted)?;
        } else {
            return Ok(Some(Saved::default()));
        }
        Ok(None)
    }

    /// Gives a sandbox saved files. One that runs is ended first, and the answer comes after that.
    pub(super) fn restore(&mut self, id: SandboxId, snapshot: SnapshotId, number: u64) {
        if !self.sandboxes.contains_key(&id) {
            return self.restore_files(&id, &snapshot, number);
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

    /// Gives one that does not run saved files, which are on the disk, and answers when the disk has it so.
    pub(super) fn restore_files(&mut self, id: &SandboxId, snapshot: &SnapshotId, number: u64) {
        match saved::restore(&self.launch.foundation, id.as_str(), snapshot) {
            Ok(()) => {
                // What it lay on before may be nobody's now.
                self.garbage = true;
                self.write_out(vec![number], Extent::Names);
            }
            Err(failure) => self.reply(number, Err(failure), &[]),
        }
    }

    /// A child has ended: perhaps one that made a copy.
    pub(super) fn saving_ended(&mut self, pid: Pid, exit: Exit) {
        let ended = self.savings.ended(&self.launch.foundation, pid.as_raw_nonzero().get(), exit);
        // A serve that died meanwhile has no use for it.
        self.garbage |= !ended.is_empty();
        for one in ended {
            match one {
                Ended::Saved(number, result) => self.reply(number, result.map(Answer::Saved), &[]),
                Ended::Flattened(wanted) => self.save(&wanted),
            }
        }
    }
}
