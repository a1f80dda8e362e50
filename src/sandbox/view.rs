//! What the API shows of a sandbox.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Lifecycle, Sandbox};
use crate::wire::launch::{Durability, Isolation, Profile};

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxView {
    /// Its name.
    pub id: String,
    /// What it was made from.
    pub image: ImageView,
    /// Whether it runs.
    pub state: State,
    /// When it was created (RFC 3339).
    pub created_at: String,
    /// Uid of the caller that created it.
    pub owner_uid: u32,
    /// Host pid of its first process, while it runs.
    pub pid: Option<i32>,
    /// Working directory of commands that do not say.
    pub cwd: String,
    /// User of commands that do not say.
    pub user: String,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// Host name inside.
    pub hostname: String,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// Isolation profile.
    pub profile: Profile,
    /// Whether its files survive a crash of the host.
    pub durability: Durability,
    /// When it rests and ends by itself.
    pub lifecycle: Lifecycle,
    /// What it really got, read back from the kernel; absent while it does not run.
    pub isolation: Option<Isolation>,
}

/// What a sandbox was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    /// As asked for.
    pub reference: String,
    /// The manifest's digest; `host` has none.
    pub digest: Option<String>,
}

/// Whether a sandbox runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Commands can be started.
    Running,
    /// Everything in it is frozen, with its memory; the next call that needs it lets it go on.
    Paused,
    /// It was stopped: nothing of it runs, its files are kept, and the next call that needs it wakes it.
    Stopped,
    /// Its first process ended by itself. It can be deleted, or started again when its files are kept.
    Dead,
}

impl Sandbox {
    /// As the API shows it. The state is the kernel's: an agent whose connection is closed is gone.
    pub fn view(&self) -> SandboxView {
        let facts = &self.facts;
        let running = self.running.as_ref().filter(|_| self.agent().is_some());
        SandboxView {
            id: facts.id.to_string(),
            image: facts.image.clone(),
            state: self.state(),
            created_at: facts.created_at.clone(),
            owner_uid: facts.owner_uid,
            pid: running.map(|running| running.pid),
            cwd: facts.cwd.clone(),
            user: facts.user.clone(),
            env: self.environment.get(),
            hostname: facts.spec.hostname.clone().unwrap_or_else(|| "sandbox".to_owned()),
            labels: facts.spec.labels.clone(),
            profile: facts.plan.profile,
            durability: facts.plan.durability,
            lifecycle: self.lifecycle(),
            isolation: running.map(|running| Isolation {
                limits: self.changing().limits.clone(),
                ..running.isolation.clone()
            }),
        }
    }
}
