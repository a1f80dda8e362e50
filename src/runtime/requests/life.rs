//! The life of sandboxes, as launch has it: made, with new files or those that one has left; ended, with or without them.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::super::create::{self, Files};
use super::super::record::Record;
use super::{Loop, Sandbox, failed, not_found};
use crate::id::SandboxId;
use crate::sys::process::{self, Cloned};
use crate::wire::launch::{Answer, Failure, FailureKind, Plan, Running};

/// What of sandboxes' files is to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All that was written to them.
    Everything,
    /// Which are whose: what was written to those that a sandbox has no more is not worth a wait.
    Names,
}

impl Loop {
    /// Ends a sandbox. The answer comes when it is gone.
    pub(super) fn end(&mut self, id: &SandboxId, files: Files, number: u64) {
        if !self.sandboxes.contains_key(id) {
            match files {
                Files::Keep => return self.write_out(vec![number], Extent::Everything),
                Files::Remove if !self.discarded.contains(id) => {
                    create::clear(&self.launch.foundation, id.as_str(), files);
                }
                Files::Remove => {}
            }
            return self.reply(number, Ok(Answer::Done), &[]);
        }
        // A process that waits for a mount could not be killed.
        self.end_mounts(id);
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        match files {
            Files::Keep => sandbox.stopping.push(number),
            Files::Remove => sandbox.destroying.push(number),
        }
        sandbox.kill(&self.launch.foundation);
    }

    /// Ends a run of a sandbox that is of no use to anybody any more.
    pub(super) fn give_up(&mut self, id: &SandboxId, pid: i32) -> Answer {
        if self.sandboxes.get(id).is_some_and(|sandbox| sandbox.record.running.pid == pid) {
            // A process that waits for a mount could not be killed.
            self.end_mounts(id);
            if let Some(sandbox) = self.sandboxes.get_mut(id) {
                sandbox.kill(&self.launch.foundation);
            }
        }
        Answer::Done
    }

    /// Freezes what runs in a sandbox, or lets it go on.
    pub(super) fn freeze(&self, id: &SandboxId, frozen: bool) -> Result<Answer, Failure> {
        let what = if frozen { "pause the sandbox" } else { "resume the sandbox" };
        if !self.sandboxes.contains_key(id) {
            return Err(not_found(what));
        }
        let cgroups = &self.launch.foundation.cgroups;
        cgroups.freeze(id.as_str(), frozen).map_err(|error| failed(what, error))?;
        if frozen {
            self.reclaim(id);
        }
        Ok(Answer::Done)
    }

    /// Has the kernel take back the memory of a sandbox that is frozen, as far as it can: files that can be read again,
    /// and, where there is swap that it may have, the rest. In a process of its own, because that takes as long as the disk
    /// does. What is taken back comes again when it is touched.
    fn reclaim(&self, id: &SandboxId) {
        let Some(file) = self.launch.foundation.cgroups.reclaimer(id.as_str()) else { return };
        if let Ok(Cloned::Child) = process::clone3(0, None) {
            let _ = crate::sys::exec::close_all_except(&[file.0.as_fd()]);
            // What it did not get it says as an error.
            let _ = rustix::io::write(&file.0, file.1.as_bytes());
            process::exit_now(0)
        }
    }

    /// Answers when what was written is on the disk: whoever was told that a sandbox is stopped finds its files after a
    /// crash of the host too. In a process of its own, because it takes as long as the disk does.
    pub(super) fn write_out(&mut self, numbers: Vec<u64>, extent: Extent) {
        if numbers.is_empty() {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = self.launch.foundation.state.join("sandboxes");
        let directory = rustix::fs::open(&directory, flags, Mode::empty());
        let why = match directory.and_then(|directory| Ok((process::clone3(0, None)?, directory))) {
            Ok((Cloned::Child, directory)) => {
                // The launcher's locks and sockets are not to live as long as this takes.
                let _ = crate::sys::exec::close_all_except(&[directory.as_fd()]);
                let written = match extent {
                    Extent::Everything => rustix::fs::syncfs(&directory),
                    Extent::Names => rustix::fs::fsync(&directory),
                };
                process::exit_now(i32::from(written.is_err()))
            }
            Ok((Cloned::Parent { pid, .. }, _)) => {
                self.syncing.insert(pid.as_raw_nonzero().get(), numbers);
                return;
            }
            Err(errno) => errno.to_string(),
        };
        self.written_out(numbers, Err(why));
    }

    /// Says what has become of [`write_out`](Self::write_out).
    pub(super) fn written_out(&self, numbers: Vec<u64>, result: Result<(), String>) {
        let result = result.map(|()| Answer::Done).map_err(|detail| {
            let what = "write the sandbox's files to the disk".to_owned();
            Failure { kind: FailureKind::Unsynced, what, detail }
        });
        for number in numbers {
            self.reply(number, result.clone(), &[]);
        }
    }

    pub(super) fn create(
        &mut self,
        plan: Plan,
        files: Files,
        sent: Option<&OwnedFd>,
    ) -> Result<(Running, OwnedFd), Failure> {
        let foundation = &self.launch.foundation;
        if self.sandboxes.contains_key(&plan.id) {
            let detail = "a sandbox of this name runs".to_owned();
            return Err(Failure { kind: FailureKind::Exists, what: "create".to_owned(), detail });
        }
        // Remains of an earlier one must not become part of this one.
        self.discarded.retain(|id| *id != plan.id);
        if foundation.storage(plan.id.as_str()).exists() || foundation.place(plan.id.as_str()).exists() {
            create::clear(foundation, plan.id.as_str(), files);
        }
        let slot = self.slots.take().ok_or_else(|| Failure {
            kind: FailureKind::Capacity,
            what: "find free ids".to_owned(),
            detail: "all are in use".to_owned(),
        })?;
        let made = match create::create(foundation, &plan, slot, files) {
            Ok(made) => made,
            Err(failure) => {
                self.slots.release(slot);
                return Err(failure);
            }
        };
        let id = made.running.id.clone();
        let led = self.begin_network(&id, &made.pidfd, &plan, files, sent);
        let foundation = &self.launch.foundation;
        let secrets = match led {
            Ok(secrets) => secrets,
            Err(failure) => {
                create::end(foundation, &made.pidfd, id.as_str(), files);
                self.slots.release(slot);
                return Err(failure);
            }
        };
        let record = Record::new(made.running.clone(), made.started, slot.number(), plan)
            .and_then(|record| record.write(&foundation.place(id.as_str())).map(|()| record));
        match record {
            Ok(record) => {
                let sandbox = Sandbox::new(record, made.pidfd, slot, secrets);
                self.sandboxes.insert(id, sandbox);
                Ok((made.running, made.connection))
            }
            Err(error) => {
                self.gateway.close(&id);
                create::end(foundation, &made.pidfd, id.as_str(), files);
                self.slots.release(slot);
                Err(failed("record the sandbox", error))
            }
        }
    }

    /// An agent is gone, and with PID 1 everything in its namespaces.
    pub(super) fn sandbox_ended(&mut self, id: &SandboxId) {
        let Some(sandbox) = self.sandboxes.remove(id) else { return };
        self.end_mounts(id);
        self.gateway.close(id);
        let cgroups = &self.launch.foundation.cgroups;
        if !cgroups.remove(id.as_str()) {
            // An agent that was taken over could have put something where its namespace's end does not reach.
            cgroups.kill(id.as_str());
            create::settle(&self.launch.foundation, id.as_str(), Files::Keep);
        }
        match (sandbox.destroying.is_empty(), sandbox.stopping.is_empty() && sandbox.restoring.is_empty()) {
            (false, _) => self.discarded.push(id.clone()),
            (true, false) => {}
            (true, true) => tracing::warn!(%id, "a sandbox ended by itself"),
        }
        let foundation = &self.launch.foundation;
        if sandbox.record.running.isolation.limits.contains_key("disk_bytes") {
            super::super::storage::release(&foundation.state, foundation.ids.sandbox(sandbox.slot));
        }
        self.slots.release(sandbox.slot);
        for (number, snapshot) in sandbox.restoring {
            if sandbox.destroying.is_empty() {
                self.restore_files(id, &snapshot, number);
            } else {
                self.reply(number, Err(not_found("restore the sandbox's files")), &[]);
            }
        }
        for number in sandbox.destroying {
            self.reply(number, Ok(Answer::Done), &[]);
        }
        self.write_out(sandbox.stopping, Extent::Everything);
    }
}
