//! What sandboxes use, and other limits for those that run.

use std::os::fd::OwnedFd;

use super::super::disk;
use super::{Loop, failed, not_found};
use crate::id::SandboxId;
use crate::wire;
use crate::wire::launch::{Answer, Failure, Resources};

impl Loop {
    pub(super) fn usage(&self, id: &SandboxId) -> Result<Answer, Failure> {
        if !self.sandboxes.contains_key(id) {
            return Err(not_found("read what the sandbox uses"));
        }
        Ok(Answer::Usage(Box::new(self.launch.foundation.cgroups.usage(id.as_str()))))
    }

    /// Counts a sandbox's files. The answer comes over a pipe, at once where the file system knows it.
    pub(super) fn disk(&self, id: &SandboxId) -> Result<OwnedFd, Failure> {
        const WHAT: &str = "count the sandbox's files";
        let foundation = &self.launch.foundation;
        let running = self.sandboxes.get(id).map(|sandbox| (sandbox, &sandbox.record.running));
        let known = running.and_then(|(sandbox, running)| {
            let limited =
                ["disk_bytes", "disk_files"].iter().find_map(|limit| running.isolation.limits.get(*limit));
            match running.isolation.storage.as_str() {
                "tmpfs" => Some(disk::of_tmpfs(running.pid)),
                _ if limited.is_some() => {
                    Some(disk::of_project(&foundation.state, foundation.ids.sandbox(sandbox.slot)))
                }
                _ => None,
            }
        });
        let Some(known) = known else {
            let upper = foundation.storage(id.as_str()).join("upper");
            return disk::count(&upper).map_err(|errno| match errno {
                crate::sys::Errno::NOENT => not_found(WHAT),
                errno => failed(WHAT, errno),
            });
        };
        let known = known.map_err(|errno| failed(WHAT, errno))?;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (reader, writer) = pipe.map_err(|errno| failed(WHAT, errno))?;
        let message = wire::encode(&known).map_err(|error| failed(WHAT, error))?;
        rustix::io::write(&writer, &message).map_err(|errno| failed(WHAT, errno))?;
        Ok(reader)
    }

    /// Gives a running sandbox other limits. What is on record is what the kernel has.
    pub(super) fn limit(&mut self, id: &SandboxId, resources: &Resources) -> Result<Answer, Failure> {
        let foundation = &self.launch.foundation;
        let Some(sandbox) = self.sandboxes.get_mut(id) else {
            return Err(not_found("limit the sandbox"));
        };
        let record = &mut sandbox.record;
        // Those on files are not a control group's.
        let wanted = Resources {
            disk_bytes: record.plan.resources.disk_bytes,
            disk_files: record.plan.resources.disk_files,
            tmpfs_bytes: record.plan.resources.tmpfs_bytes,
            ..resources.clone()
        };
        let pair = (&record.plan.resources, &wanted);
        let limits = foundation.cgroups.change(id.as_str(), pair, &foundation.device)?;
        let own = |name: &String| ["disk_bytes", "disk_files", "tmpfs_bytes"].contains(&name.as_str());
        record.running.isolation.limits.retain(|name, _| own(name));
        record.running.isolation.limits.extend(limits);
        record.plan.resources = wanted;
        let written = record.write(&foundation.place(id.as_str()));
        written.map_err(|error| failed("record the sandbox's limits", error))?;
        Ok(Answer::Limits(record.running.isolation.limits.clone()))
    }
}
