//! Creating a sandbox: what the image and the request say becomes a plan, launch follows it, the index has it last.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::catalog::{HOST_IMAGE, Lease};
use super::index::cannot_record;
use super::launcher::{LauncherError, launcher_error};
use super::lifecycle::{self, Busy, Claim};
use super::network::Beginning;
use super::random::random_id;
use super::rest::Rest;
use super::{
    Caller, Entry, Facts, HeldBy, ImageView, MountRequest, PATH_DEFAULT, Sandbox, SandboxSpec, Sandboxes,
    index, mounts, network, spec,
};
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::journal::feed::Kind;
use crate::wire::launch::{Answer, Call, FailureKind, Plan, Root, Running};

/// How long launch may take to remove what is left of a sandbox that has ended, and how often it is asked.
const REMOVAL: Duration = Duration::from_secs(10);
const REMOVAL_LOOK: Duration = Duration::from_millis(20);

/// What the image, `host` or the snapshot says.
pub(super) struct Base {
    pub(super) root: Root,
    pub(super) image: ImageView,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<String>,
    pub(super) user: Option<String>,
    pub(super) lease: Option<Arc<Lease>>,
}

/// A sandbox that is to be made.
struct Planned {
    facts: Facts,
    secrets: Option<OwnedFd>,
    certificate: Option<Vec<u8>>,
    lease: Option<Arc<Lease>>,
    mounts: Vec<MountRequest>,
}

/// What sandboxes are like that are made of another, and the saved files that they lie on.
pub(super) struct Fork {
    facts: Facts,
    lease: Option<Arc<Lease>>,
}

impl Fork {
    pub(super) fn of(
        parent: &Sandbox,
        snapshot: SnapshotId,
        labels: Option<BTreeMap<String, String>>,
    ) -> Self {
        let mut facts = parent.facts_now();
        facts.env = parent.environment();
        facts.spec.labels = labels.unwrap_or(facts.spec.labels);
        facts.spec.snapshot = None;
        // Their credentials are the parent's, and two writers of one bucket are not what is asked for.
        facts.spec.mounts.clear();
        // It is there already, or was removed by the sandbox itself.
        facts.plan.directories.clear();
        facts.plan.parent = Some(facts.id.clone());
        facts.plan.snapshot = Some(snapshot);
        Self { facts, lease: parent.lease.clone() }
    }

    /// One that nobody but this daemon knows of, and that reaches nothing.
    pub(super) fn unseen(mut self) -> Self {
        self.facts.unseen = true;
        self.facts.plan.network = None;
        self.facts.plan.parent = None;
        self.facts.lifecycle = lifecycle::Lifecycle::default();
        self
    }

    fn plan(&self, id: SandboxId, boot: &str) -> Planned {
        let mut facts = self.facts.clone();
        facts.spec.id = Some(id.clone());
        facts.plan.id = id.clone();
        facts.id = id;
        facts.created_at = jiff::Timestamp::now().to_string();
        boot.clone_into(&mut facts.boot);
        Planned { facts, secrets: None, certificate: None, lease: self.lease.clone(), mounts: Vec::new() }
    }
}

impl Sandboxes {
    /// Creates a sandbox, or finds the one of the same id and specification. True when it is new.
    ///
    /// # Errors
    /// Every code that a specification, the image or the host can cause. Nothing is left behind.
    pub async fn create(&self, caller: &Caller, spec: SandboxSpec) -> Result<(Arc<Sandbox>, bool), Error> {
        spec::check(&spec)?;
        let id = spec.id.clone().unwrap_or_else(random_id);
        let (mut claim, cancel) = match self.enter(caller.uid, &id).await {
            Ok(entered) => entered,
            Err(sandbox) => return same(caller, &sandbox, &spec).map(|()| (sandbox, false)),
        };
        let planned = self.plan(caller, id, spec)?;
        let sandbox = self.make(&mut claim, planned, &cancel).await?;
        drop(claim);
        self.stay_with(&sandbox);
        Ok((sandbox, true))
    }

    /// Creates a sandbox like another one, of its files.
    ///
    /// # Errors
    /// `SANDBOX_CONFLICT` when the id is taken, and as [`create`](Self::create).
    pub(super) async fn create_fork(
        &self,
        caller: &Caller,
        id: Option<SandboxId>,
        fork: &Fork,
    ) -> Result<Arc<Sandbox>, Error> {
        let id = id.unwrap_or_else(random_id);
        let entered = self.enter(caller.uid, &id).await;
        let (mut claim, cancel) = entered.map_err(|_| {
            Error::new(ErrorCode::SandboxConflict, format!("the id {id} is taken"))
                .hint("use another id, or delete that sandbox first")
        })?;
        let planned = fork.plan(id, &self.0.boot);
        let sandbox = self.make(&mut claim, planned, &cancel).await?;
        drop(claim);
        self.stay_with(&sandbox);
        Ok(sandbox)
    }

    /// Creates a sandbox that nobody but this daemon knows of.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(super) async fn create_unseen(&self, spec: SandboxSpec) -> Result<Arc<Sandbox>, Error> {
        let (caller, id) = (Caller::daemon(), random_id());
        let entered = self.enter(caller.uid, &id).await;
        let (mut claim, cancel) =
            entered.map_err(|_| Error::new(ErrorCode::SandboxConflict, "the id is taken"))?;
        let mut planned = self.plan(&caller, id, spec)?;
        planned.facts.unseen = true;
        self.make(&mut claim, planned, &cancel).await
    }

    /// Takes an id that is free, or gives the sandbox that has it.
    async fn enter(
        &self,
        owner_uid: u32,
        id: &SandboxId,
    ) -> Result<(Claim, CancellationToken), Arc<Sandbox>> {
        let (busy, done) = watch::channel(());
        let cancel = CancellationToken::new();
        let mine = Busy { done, owner_uid, cancel: cancel.clone(), shown: None };
        loop {
            let found = match self.0.lock().entry(id.clone()) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(Entry::Busy(mine));
                    break;
                }
                std::collections::hash_map::Entry::Occupied(occupied) => occupied.get().clone(),
            };
            match found {
                // Whoever is at it, creating or destroying: look again when that is over.
                Entry::Busy(busy) => busy.over().await,
                Entry::Here(sandbox) => return Err(sandbox),
            }
        }
        Ok((Claim::new(&self.0, id, None, busy), cancel))
    }

    fn plan(&self, caller: &Caller, id: SandboxId, mut spec: SandboxSpec) -> Result<Planned, Error> {
        let Beginning { secrets, certificate } = network::begin(&id, &mut spec)?;
        let mounts = mounts::begin(&mut spec);
        let base = self.base(caller, &spec)?;
        let resources = spec::resources(&spec.resources, spec.durability, &self.0.settings, &self.0.host)?;
        let cwd = spec.cwd.clone().or(base.cwd).unwrap_or_else(|| "/".to_owned());
        let user = spec.user.clone().or(base.user).unwrap_or_else(|| "0".to_owned());
        let env = environment(base.env, certificate.is_some(), &spec.env);
        let plan = Plan {
            id: id.clone(),
            root: base.root,
            hostname: spec.hostname.clone().unwrap_or_default(),
            profile: spec.profile,
            resources,
            durability: spec.durability,
            network: spec.network.as_ref().map(|egress| egress.policy.clone()),
            directories: if cwd == "/" { Vec::new() } else { vec![cwd.clone()] },
            snapshot: spec.snapshot.clone(),
            parent: None,
        };
        lifecycle::check(spec.lifecycle, &plan.resources)?;
        let facts = Facts {
            lifecycle: spec.lifecycle,
            id,
            owner_uid: caller.uid,
            created_at: jiff::Timestamp::now().to_string(),
            spec,
            image: base.image,
            env,
            cwd,
            user,
            plan,
            boot: self.0.boot.clone(),
            unseen: false,
        };
        Ok(Planned { facts, secrets, certificate, lease: base.lease, mounts })
    }

    async fn make(
        &self,
        claim: &mut Claim,
        planned: Planned,
        cancel: &CancellationToken,
    ) -> Result<Arc<Sandbox>, Error> {
        let Planned { facts, secrets, certificate, lease, mounts } = planned;
        let id = facts.id.clone();
        let entry = self.0.index.entry(&id);
        entry.must_be_free()?;
        // Before launch is asked: what is not allowed is not made.
        let held_by = self.held_by(&facts, lease)?;
        let call = Call::Create(Box::new(facts.plan.clone()));
        // While the launcher works.
        let (launched, drafted) = tokio::join!(self.launch(call, secrets, 1), async { entry.draft(&facts) });
        let handed_over = async {
            let (running, agent) = launched?;
            drafted.and_then(|()| entry.commit_as(facts.plan.durability)).map_err(cannot_record)?;
            let rest = Rest::when_it_ends(&facts);
            let sandbox = self.0.sandbox(facts, Some((running, agent)), held_by, rest);
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::new(
                    ErrorCode::SandboxBusy,
                    "the sandbox was destroyed while it was being created",
                )),
                finished = self.finish(&sandbox, certificate.as_deref(), mounts) => {
                    finished.map(|()| sandbox)
                }
            }
        };
        let handed_over = handed_over.await;
        if handed_over.is_err() {
            self.undo(id, &entry).await;
        }
        let sandbox = Arc::new(handed_over?);
        claim.outcome = Some(Arc::clone(&sandbox));
        let image = &sandbox.facts.image;
        sandbox.voice.say(Kind::Created, serde_json::json!({"image": image.reference}));
        // Its time has begun.
        self.0.clock.notify_one();
        Ok(sandbox)
    }

    /// What a sandbox that is to run holds for as long as it is there, within what its owner may have.
    fn held_by(&self, facts: &Facts, lease: Option<Arc<Lease>>) -> Result<HeldBy, Error> {
        let (owner, resources) = (facts.owner_uid, &facts.plan.resources);
        if facts.unseen {
            let (place, share) = self.0.ledger.found(owner, resources, true);
            return Ok((lease, Arc::new(place), share));
        }
        let place = self.0.ledger.keep(owner, resources)?;
        Ok((lease, Arc::new(place), Some(self.0.ledger.run(owner, resources)?)))
    }

    /// Removes what there is of a sandbox that nobody was told of.
    async fn undo(&self, id: SandboxId, entry: &index::Entry) {
        // As when one is destroyed.
        entry.remove();
        super::remove_work(&self.0.work.join(id.as_str()));
        let _ = self.0.launcher.call(Call::Destroy { id }, &[]).await;
    }

    async fn finish(
        &self,
        sandbox: &Sandbox,
        certificate: Option<&[u8]>,
        mounts: Vec<MountRequest>,
    ) -> Result<(), Error> {
        sandbox.hand_over(certificate).await?;
        if sandbox.facts.plan.parent.is_some() {
            self.trust_anew(sandbox, true).await;
        }
        self.mount_all(sandbox, mounts).await?;
        // They may work in what is mounted.
        sandbox.start_declared().await
    }

    /// Has launch make a sandbox that is new, or one that was stopped. Its commands are numbered from `first`.
    pub(super) async fn launch(
        &self,
        call: Call,
        secrets: Option<OwnedFd>,
        first: u32,
    ) -> Result<(Running, Arc<Agent>), Error> {
        let started = Instant::now();
        let (running, socket) = loop {
            match self.0.launcher.call(call.clone(), secrets.as_slice()).await {
                Ok((Answer::Created(running), mut fds)) => break (*running, fds.pop()),
                Ok(_) => return Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
                // What is left of its last run is being removed: on a busy host that takes a while.
                Err(LauncherError::Refused(failure))
                    if failure.kind == FailureKind::Exists && started.elapsed() < REMOVAL =>
                {
                    tokio::time::sleep(REMOVAL_LOOK).await;
                }
                Err(error) => return Err(launcher_error(error)),
            }
        };
        let socket =
            socket.ok_or_else(|| Error::new(ErrorCode::Internal, "the launcher sent no connection"))?;
        let agent = Agent::start(socket, first)
            .map_err(|error| Error::internal("cannot talk to the sandbox", error))?;
        Ok((running, agent))
    }

    fn base(&self, caller: &Caller, spec: &SandboxSpec) -> Result<Base, Error> {
        if let Some(snapshot) = &spec.snapshot {
            return Ok(self.whole(caller, snapshot)?.base());
        }
        if spec.image == HOST_IMAGE {
            return Ok(Base {
                root: Root::Host,
                image: ImageView { reference: HOST_IMAGE.to_owned(), digest: None },
                // Without a locale the host's programs take all text for ASCII.
                env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
                cwd: Some("/workspace".to_owned()),
                user: None,
                lease: None,
            });
        }
        let image = self.0.catalog.resolve(&spec.image)?;
        let filled = |text: String| (!text.is_empty()).then_some(text);
        // An entry without a name is the image's mistake, and nothing could run with it.
        let env = image.config.env.iter().filter_map(|entry| entry.split_once('='));
        let env = env.filter(|(name, _)| !name.is_empty());
        Ok(Base {
            root: Root::Layers(image.layers),
            image: ImageView { reference: image.reference, digest: Some(image.digest.to_string()) },
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: filled(image.config.working_dir),
            user: filled(image.config.user),
            lease: Some(Arc::new(image.lease)),
        })
    }
}

/// The image's variables over the default ones, those that lead to the authority, and the request's over all. A
/// snapshot of a sandbox that had an authority leads nobody to it who has none.
fn environment(
    mut image: BTreeMap<String, String>,
    opens: bool,
    asked: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let path = ("PATH".to_owned(), PATH_DEFAULT.to_owned());
    let trust = network::trust_variables();
    image.retain(|name, value| trust.get(name) != Some(value));
    let trust = opens.then_some(trust).into_iter().flatten();
    std::iter::once(path).chain(image).chain(trust).chain(asked.clone()).collect()
}

/// Whether a sandbox is what is asked for again.
fn same(caller: &Caller, sandbox: &Sandbox, spec: &SandboxSpec) -> Result<(), Error> {
    if caller.may_see(sandbox.facts.owner_uid) && sandbox.facts.spec == *spec {
        return Ok(());
    }
    Err(Error::new(ErrorCode::SandboxConflict, "the id is taken by a sandbox with another specification")
        .hint("use another id, or delete that sandbox first"))
}
