//! Creating a sandbox: what the image and the request say becomes a plan, launch follows it, the index has it last.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::catalog::{HOST_IMAGE, Lease};
use super::launcher::launcher_error;
use super::lifecycle::{self, Busy, Claim};
use super::random::random_id;
use super::rest::Rest;
use super::{Caller, Entry, Facts, ImageView, PATH_DEFAULT, Sandbox, SandboxSpec, Sandboxes, network, spec};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::wire::launch::{Answer, Call, Plan, Root, Running};

/// What the image, or `host`, says.
struct Base {
    root: Root,
    image: ImageView,
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    lease: Option<Lease>,
}

impl Sandboxes {
    /// Creates a sandbox, or finds the one of the same id and specification. True when it is new.
    ///
    /// # Errors
    /// Every code that a specification, the image or the host can cause. Nothing is left behind.
    pub async fn create(&self, caller: &Caller, spec: SandboxSpec) -> Result<(Arc<Sandbox>, bool), Error> {
        spec::check(&spec)?;
        let id = spec.id.clone().unwrap_or_else(random_id);
        let (busy, done) = watch::channel(());
        let mine = Busy { done, owner_uid: caller.uid, cancel: CancellationToken::new(), shown: None };
        loop {
            let found = match self.0.lock().entry(id.clone()) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(Entry::Busy(mine.clone()));
                    break;
                }
                std::collections::hash_map::Entry::Occupied(occupied) => occupied.get().clone(),
            };
            match found {
                // Whoever is at it, creating or destroying: look again when that is over.
                Entry::Busy(busy) => busy.over().await,
                Entry::Here(sandbox) => return same(caller, &sandbox, &spec).map(|()| (sandbox, false)),
            }
        }
        let mut claim = Claim::new(&self.0, &id, None, busy);
        let sandbox = Arc::new(self.make(caller, id, spec, &mine.cancel).await?);
        claim.outcome = Some(Arc::clone(&sandbox));
        drop(claim);
        // Its time has begun.
        self.0.clock.notify_one();
        Ok((sandbox, true))
    }

    async fn make(
        &self,
        caller: &Caller,
        id: SandboxId,
        mut spec: SandboxSpec,
        cancel: &CancellationToken,
    ) -> Result<Sandbox, Error> {
        let egress = network::begin(&id, &mut spec)?;
        let base = self.resolve(&spec)?;
        let resources = spec::resources(&spec.resources, spec.durability, &self.0.settings, &self.0.host)?;
        let cwd = spec.cwd.clone().or(base.cwd).unwrap_or_else(|| "/".to_owned());
        let user = spec.user.clone().or(base.user).unwrap_or_else(|| "0".to_owned());
        let trust = egress.certificate.is_some().then(network::trust_variables);
        let path = ("PATH".to_owned(), PATH_DEFAULT.to_owned());
        let env = std::iter::once(path).chain(base.env).chain(trust.into_iter().flatten());
        let env = env.chain(spec.env.clone()).collect();
        let plan = Plan {
            id: id.clone(),
            root: base.root,
            hostname: spec.hostname.clone().unwrap_or_default(),
            profile: spec.profile,
            resources,
            durability: spec.durability,
            network: spec.network.as_ref().map(|egress| egress.policy.clone()),
            directories: if cwd == "/" { Vec::new() } else { vec![cwd.clone()] },
        };
        lifecycle::check(spec.lifecycle, &plan.resources)?;
        let facts = Facts {
            lifecycle: spec.lifecycle,
            id: id.clone(),
            owner_uid: caller.uid,
            created_at: jiff::Timestamp::now().to_string(),
            spec,
            image: base.image,
            env,
            cwd,
            user,
            plan,
            boot: self.0.boot.clone(),
        };
        let entry = self.0.index.entry(&id);
        entry.must_be_free()?;
        let call = Call::Create(Box::new(facts.plan.clone()));
        // While the launcher works.
        let (launched, drafted) =
            tokio::join!(self.launch(call, egress.secrets, 1), async { entry.draft(&facts) });
        let handed_over = async {
            let (running, agent) = launched?;
            drafted
                .and_then(|()| entry.commit())
                .map_err(|error| Error::internal("cannot record the sandbox", error))?;
            let lease = base.lease.map(Arc::new);
            let rest = Rest::when_it_ends(&facts);
            let sandbox = self.0.sandbox(facts, Some((running, agent)), lease, rest);
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::new(
                    ErrorCode::SandboxBusy,
                    "the sandbox was destroyed while it was being created",
                )),
                handed_over = sandbox.hand_over(egress.certificate.as_deref()) => handed_over.map(|()| sandbox),
            }
        };
        let handed_over = handed_over.await;
        if handed_over.is_err() {
            let _ = self.0.launcher.call(Call::Destroy { id: id.clone() }, &[]).await;
            entry.remove();
        }
        handed_over
    }

    /// Has launch make a sandbox that is new, or one that was stopped. Its commands are numbered from `first`.
    pub(super) async fn launch(
        &self,
        call: Call,
        secrets: Option<OwnedFd>,
        first: u32,
    ) -> Result<(Running, Arc<Agent>), Error> {
        let (running, socket) = match self.0.launcher.call(call, secrets.as_slice()).await {
            Ok((Answer::Created(running), mut fds)) => (*running, fds.pop()),
            Ok(_) => return Err(Error::new(ErrorCode::Internal, "the launcher answered something else")),
            Err(error) => return Err(launcher_error(error)),
        };
        let socket =
            socket.ok_or_else(|| Error::new(ErrorCode::Internal, "the launcher sent no connection"))?;
        let agent = Agent::start(socket, first)
            .map_err(|error| Error::internal("cannot talk to the sandbox", error))?;
        Ok((running, agent))
    }

    fn resolve(&self, spec: &SandboxSpec) -> Result<Base, Error> {
        if spec.image == HOST_IMAGE {
            return Ok(Base {
                root: Root::Host,
                image: ImageView { reference: HOST_IMAGE.to_owned(), digest: None },
                env: BTreeMap::new(),
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
            lease: Some(image.lease),
        })
    }
}

/// Whether a sandbox is what is asked for again.
fn same(caller: &Caller, sandbox: &Sandbox, spec: &SandboxSpec) -> Result<(), Error> {
    if caller.may_see(sandbox.facts.owner_uid) && sandbox.facts.spec == *spec {
        return Ok(());
    }
    Err(Error::new(ErrorCode::SandboxConflict, "the id is taken by a sandbox with another specification")
        .hint("use another id, or delete that sandbox first"))
}
