//! Other limits for a sandbox that is there. One that runs has them when the answer comes; one that was stopped is woken
//! with them. Nothing is woken for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::launcher::{LauncherError, launcher_error};
use super::quota::Taken;
use super::{Caller, ResourcesSpec, Sandbox, Sandboxes, spec};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::journal::feed::Kind;
use crate::wire::launch::{Answer, Call, Failure, FailureKind, Limit, Resources};

/// What a change of limits changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourcesChange {
    /// Whether it was only a question.
    pub dry_run: bool,
    /// What differs.
    pub changes: Vec<LimitChange>,
    /// The limits afterwards, and what enforces each.
    pub limits: BTreeMap<String, Limit>,
    /// What will surprise somebody in the sandbox.
    pub warnings: Vec<String>,
}

/// One limit that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitChange {
    /// Its name, as in `isolation.limits`.
    #[schema(example = "memory_bytes")]
    pub limit: String,
    /// What it was; absent for none.
    pub before: Option<u64>,
    /// What it is now.
    pub after: Option<u64>,
}

/// Limits by their names in the API, those of control groups alone.
fn named(resources: &Resources) -> [(&'static str, Option<u64>); 9] {
    [
        ("memory_bytes", resources.memory_bytes),
        ("swap_bytes", resources.swap_bytes),
        ("pids", resources.pids),
        ("cpu_millis", resources.cpu_millis),
        ("cpu_weight", resources.cpu_weight),
        ("io_read_bytes_per_second", resources.io_read_bytes_per_second),
        ("io_write_bytes_per_second", resources.io_write_bytes_per_second),
        ("io_read_operations_per_second", resources.io_read_operations_per_second),
        ("io_write_operations_per_second", resources.io_write_operations_per_second),
    ]
}

/// Has a sandbox take of its owner's quota what it took before.
fn give_up(share: Option<&Taken>, before: &Resources) {
    if let Some(share) = share {
        // What it had is there, unless somebody else was quicker; then it has less, and may use no more for that.
        let _ = share.change(before);
    }
}

impl Sandboxes {
    /// Gives a sandbox other limits; those that are absent stay, and 0 is none.
    ///
    /// # Errors
    /// `LIMIT_UNSUPPORTED`, `LIMIT_BELOW_USE`, `INVALID_REQUEST`; as [`get`](Self::get).
    pub async fn set_resources(
        &self,
        caller: &Caller,
        id: &SandboxId,
        wanted: &ResourcesSpec,
        dry_run: bool,
    ) -> Result<ResourcesChange, Error> {
        loop {
            let sandbox = self.at_rest(id, |owner| caller.may_see(owner)).await?;
            // Whoever stops or wakes it takes the same turn.
            let turn = Arc::clone(&sandbox.turn).lock_owned().await;
            if !self.has(&sandbox) {
                continue;
            }
            let before = sandbox.changing().resources.clone();
            let after = spec::changed(&before, wanted, &self.0.host)?;
            let warnings = self.fits(&sandbox, &after).await?;
            let changes: Vec<_> = named(&before)
                .into_iter()
                .zip(named(&after))
                .filter(|((_, before), (_, after))| before != after)
                .map(|((limit, before), (_, after))| LimitChange { limit: limit.to_owned(), before, after })
                .collect();
            let mut change =
                ResourcesChange { dry_run, changes, limits: self.expected(&sandbox, &after), warnings };
            if change.changes.is_empty() {
                return Ok(change);
            }
            let share = sandbox.share.as_ref().filter(|_| sandbox.agent().is_some());
            if let Some(share) = share {
                share.change(&after)?;
            }
            if dry_run {
                give_up(share, &before);
                return Ok(change);
            }
            let limits = self.put_limits(&sandbox, &after).await.inspect_err(|_| give_up(share, &before))?;
            let kept = self.change(&sandbox, |changing| {
                changing.resources = after.clone();
                changing.limits = limits.clone().unwrap_or_default();
            });
            match kept {
                Ok(true) => {}
                // It was stopped or destroyed by a daemon's own clock meanwhile: then look again.
                Ok(false) => {
                    drop(turn);
                    continue;
                }
                Err(error) => {
                    // What is not written down is not to be: the old ones again.
                    let _ = self.put_limits(&sandbox, &before).await;
                    give_up(share, &before);
                    return Err(error);
                }
            }
            if let Some(limits) = limits {
                change.limits = limits;
            }
            let said = serde_json::json!({"changes": change.changes});
            sandbox.voice.say(Kind::LimitsChanged, said);
            return Ok(change);
        }
    }

    /// Has launch limit a sandbox that runs. Nothing for one that does not.
    async fn put_limits(
        &self,
        sandbox: &Sandbox,
        resources: &Resources,
    ) -> Result<Option<BTreeMap<String, Limit>>, Error> {
        if sandbox.agent().is_none() {
            return Ok(None);
        }
        let call = Call::Limit { id: sandbox.facts.id.clone(), resources: Box::new(resources.clone()) };
        match self.0.launcher.call(call, &[]).await {
            Ok((Answer::Limits(limits), _)) => Ok(Some(limits)),
            Ok(_) => Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(LauncherError::Refused(Failure { kind: FailureKind::NotFound, .. })) => Ok(None),
            Err(error) => Err(launcher_error(error)),
        }
    }

    /// Refuses a limit below what is used and cannot be taken back; warns of the rest.
    async fn fits(&self, sandbox: &Sandbox, after: &Resources) -> Result<Vec<String>, Error> {
        let Some(used) = self.measured(&sandbox.facts.id).await else { return Ok(Vec::new()) };
        let memory = &used.memory;
        let parts = [memory.anonymous_bytes, memory.shared_bytes, memory.kernel_bytes];
        let kept: u64 = parts.into_iter().flatten().sum();
        let swap = after.swap_bytes.unwrap_or(0).saturating_sub(memory.swap_bytes.unwrap_or(0));
        if let Some(limit) = after.memory_bytes.filter(|limit| limit.saturating_add(swap) < kept) {
            return Err(Error::new(
                ErrorCode::LimitBelowUse,
                format!(
                    "the sandbox uses {kept} bytes of memory that cannot be taken back, more than {limit}"
                ),
            )
            .hint("end something in it first, or give it more")
            .context(serde_json::json!({
                "field": "memory_bytes", "used": kept, "limit": limit,
            })));
        }
        let mut warnings = Vec::new();
        if let Some((current, limit)) = used.pids.current.zip(after.pids).filter(|(now, limit)| now > limit) {
            warnings.push(format!(
                "it has {current} processes and threads, more than {limit}: none is ended, and no other begins \
                 until there are fewer"
            ));
        }
        if let Some((current, limit)) =
            memory.current_bytes.zip(after.memory_bytes).filter(|(now, limit)| now > limit)
        {
            warnings.push(format!(
                "it has {current} bytes in memory, more than {limit}: the kernel forgets files that it keeps for it"
            ));
        }
        Ok(warnings)
    }

    fn expected(&self, sandbox: &Sandbox, after: &Resources) -> BTreeMap<String, Limit> {
        let own = named(after).into_iter().filter_map(|(name, value)| {
            let enforced_by = self.0.host.limits.get(name)?.clone();
            Some((name.to_owned(), Limit { value: Some(value?), enforced_by }))
        });
        // Those on files stay as they are.
        let names = named(after).map(|(name, _)| name);
        let rest = sandbox.changing().limits.clone().into_iter();
        rest.filter(|(name, _)| !names.contains(&name.as_str())).chain(own).collect()
    }
}
