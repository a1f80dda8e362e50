//! What may leave sandboxes: written down, led to the gateway, changed.
//!
//! A change is whole or none: when a step of it fails, the record and the secrets are again what they were, so that
//! neither a question nor the next launcher sees what was never in force.

use std::os::fd::{AsFd, OwnedFd};

use super::super::create::Files;
use super::super::{network, secrets};
use super::{Loop, failed, not_found};
use crate::id::SandboxId;
use crate::wire::gateway::{Mode, Policy};
use crate::wire::launch::{Answer, Failure, Plan};

impl Loop {
    /// The network of a sandbox that was made just now. Gives the file of its secrets: those that were sent with a new
    /// one, those that the stopped one has left.
    pub(super) fn begin_network(
        &mut self,
        id: &SandboxId,
        agent: &OwnedFd,
        plan: &Plan,
        files: Files,
        sent: Option<&OwnedFd>,
    ) -> Result<Option<OwnedFd>, Failure> {
        let place = self.launch.foundation.place(id.as_str());
        let kept = match files {
            Files::Keep => secrets::find(&place, secrets::POLICY),
            Files::Remove => match &plan.parent {
                // serve has no copy of them.
                Some(parent) => {
                    secrets::find(&self.launch.foundation.place(parent.as_str()), secrets::POLICY)
                        .and_then(|found| secrets::keep(&place, secrets::POLICY, found.as_ref()))
                }
                None => secrets::keep(&place, secrets::POLICY, sent),
            },
        };
        let kept = kept.map_err(|error| failed("keep the network's secrets", error))?;
        if let Some(policy) = plan.network.clone().filter(|policy| policy.mode != Mode::None) {
            self.lead(id, agent, policy, kept.as_ref())?;
        }
        Ok(kept)
    }

    /// Leads what leaves a sandbox to the gateway.
    fn lead(
        &mut self,
        id: &SandboxId,
        agent: &OwnedFd,
        policy: Policy,
        secrets: Option<&OwnedFd>,
    ) -> Result<(), Failure> {
        let secrets = duplicate(secrets)?;
        let sockets = network::prepare(agent.as_fd())?;
        self.gateway.open(&self.launch.program, id.clone(), policy, secrets, sockets);
        Ok(())
    }

    pub(super) fn gateway_peer(&mut self) -> Result<OwnedFd, Failure> {
        let what = "connect to the gateway";
        self.gateway.peer().map_err(|errno| failed(what, errno))?.ok_or_else(|| not_found(what))
    }

    /// What may leave a sandbox, with the file of secrets if there is one.
    pub(super) fn policy(&self, id: &SandboxId) -> (Result<Answer, Failure>, Option<OwnedFd>) {
        let Some(sandbox) = self.sandboxes.get(id) else {
            return (Err(not_found("look at the sandbox's network")), None);
        };
        let policy = sandbox.record.plan.network.clone().unwrap_or_default();
        match duplicate(sandbox.secrets.as_ref()) {
            Ok(secrets) => (Ok(Answer::Network(Box::new(policy))), secrets),
            Err(failure) => (Err(failure), None),
        }
    }

    /// Changes what may leave a sandbox. `None` when the gateway will answer.
    pub(super) fn network(
        &mut self,
        id: &SandboxId,
        policy: Policy,
        sent: Option<&OwnedFd>,
        number: u64,
    ) -> Option<Result<Answer, Failure>> {
        let Some(sandbox) = self.sandboxes.get(id) else {
            return Some(Err(not_found("change the sandbox's network")));
        };
        let was = sandbox.record.plan.network.clone();
        let before = match duplicate(sandbox.secrets.as_ref()) {
            Ok(before) => before,
            Err(failure) => return Some(Err(failure)),
        };
        // Written first: a launcher that takes over must not know more than was allowed.
        let result =
            self.write_network(id, Some(policy.clone()), sent).and_then(|()| self.put(id, policy, number));
        if result.is_err() {
            // This one needs no more than the first did; if it fails all the same, the log is all there is.
            if let Err(failure) = self.write_network(id, was, before.as_ref()) {
                tracing::error!(%id, %failure, "the record of a sandbox's network is not what is in force");
            }
        }
        result.transpose()
    }

    fn write_network(
        &mut self,
        id: &SandboxId,
        policy: Option<Policy>,
        sent: Option<&OwnedFd>,
    ) -> Result<(), Failure> {
        let place = self.launch.foundation.place(id.as_str());
        let Some(sandbox) = self.sandboxes.get_mut(id) else {
            return Err(not_found("change the sandbox's network"));
        };
        sandbox.record.plan.network = policy;
        let kept = secrets::keep(&place, secrets::POLICY, sent)
            .map_err(|error| failed("keep the network's secrets", error))?;
        sandbox.secrets = kept;
        sandbox.record.write(&place).map_err(|error| failed("record the sandbox's network", error))
    }

    /// Puts a policy in force that is written down. `None` when the gateway will answer.
    fn put(&mut self, id: &SandboxId, policy: Policy, number: u64) -> Result<Option<Answer>, Failure> {
        let Some(sandbox) = self.sandboxes.get(id) else {
            return Err(not_found("change the sandbox's network"));
        };
        let secrets = duplicate(sandbox.secrets.as_ref())?;
        if self.gateway.knows(id) {
            let changed = self.gateway.change(id, policy, secrets, number);
            return changed.map(|()| None).map_err(|error| failed("tell the gateway of a change", error));
        }
        if policy.mode == Mode::None {
            return Ok(Some(Answer::Done));
        }
        let agent = sandbox.pidfd.try_clone().map_err(|error| failed("keep the agent's handle", error))?;
        self.lead(id, &agent, policy, secrets.as_ref())?;
        Ok(Some(Answer::Done))
    }

    /// Sandboxes that were led to a gateway of the launcher before this one are led to ours. Until that is done their
    /// connections are refused.
    pub(super) fn lead_adopted(&mut self) {
        let with_policy = self.sandboxes.iter().filter_map(|(id, sandbox)| {
            let policy = sandbox.record.plan.network.clone().filter(|policy| policy.mode != Mode::None)?;
            let secrets = duplicate(sandbox.secrets.as_ref()).ok().flatten();
            Some((id.clone(), sandbox.pidfd.try_clone().ok()?, policy, secrets))
        });
        for (id, agent, policy, secrets) in with_policy.collect::<Vec<_>>() {
            if let Err(failure) = self.lead(&id, &agent, policy, secrets.as_ref()) {
                tracing::error!(%id, %failure, "a sandbox has no network any more");
            }
        }
    }
}

fn duplicate(file: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    file.map(OwnedFd::try_clone).transpose().map_err(|error| failed("keep the network's secrets", error))
}
