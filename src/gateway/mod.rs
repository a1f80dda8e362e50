//! Role `gateway`: everything that leaves any sandbox passes here, under the sandbox's policy, or does not leave.
//!
//! ```text
//! launch ─ sockets in a sandbox, policy ─▶ member ─┬─ accept ─▶ connection ─ sniff ─ policy ─┬─▶ tunnel ─▶ the world
//!                                                  │                                         ├─▶ web: HTTP, each request
//!                                                  │                                         └─▶ refusal
//!                                                  └─ questions ─▶ names ─ policy ─▶ host's name servers
//!                                                            └ pins: address → names it was given for
//! serve ─ Query ─▶ peer: counters, audit
//! ```
//!
//! | | |
//! |---|---|
//! | [`rule`] | the text of a rule, and what it matches |
//! | [`policy`] | decisions: pure functions, that serve asks too, for dry runs |
//! | [`address`] | which addresses are public, and which are the host's own |
//! | `member` | what is known of one sandbox |
//!
//! Invariants
//! - Only what [`policy`] allowed is dialled, by the very address that was decided on: no name is resolved twice.
//! - A name counts only when an answer of ours gave the address for it, to this sandbox.
//! - Whatever is refused is refused at once, in the protocol that was spoken: 403, an alert, a reset.
//! - No memory is held for a connection that is idle but its task: buffers belong to threads, pipes to bulk.
//! - No capability, no file: Landlock leaves nothing to open, and no port to bind.

pub mod address;
mod audit;
mod connection;
mod dial;
mod member;
mod names;
mod peer;
pub mod policy;
pub mod rule;
mod sniff;
mod tunnel;
mod web;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::SandboxId;
use crate::sys::channel::{Channel, ChannelError};
use crate::wire::gateway::{Control, GatewayStart, Installed};
use member::Member;
use names::Names;

/// What all sandboxes share.
#[derive(Debug)]
struct Gateway {
    start: GatewayStart,
    names: Names,
    members: Mutex<HashMap<SandboxId, Arc<Member>>>,
}

/// Why the gateway cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its name servers.
    #[error("the host's name servers: {0}")]
    Names(String),
    /// The runtime, or a socket.
    #[error("the gateway's sockets")]
    Io(#[from] std::io::Error),
    /// launch speaks something else.
    #[error("launch")]
    Launch(#[from] ChannelError),
}

/// What is read from files, before there are none any more.
///
/// # Errors
/// When the host has no name servers that can be used.
pub fn prepare(start: GatewayStart) -> Result<Prepared, GatewayError> {
    let servers = names::servers(&start.resolvers)?;
    // In a static program the random numbers of questions come from a file, which is opened once.
    let _ = hickory_resolver::proto::op::Message::query();
    Ok(Prepared { start, servers })
}

/// A gateway that is ready to be closed in.
#[derive(Debug)]
pub struct Prepared {
    start: GatewayStart,
    servers: names::Servers,
}

impl Prepared {
    /// Runs until launch is gone.
    ///
    /// # Errors
    /// When the runtime cannot start, or launch speaks something else.
    pub fn run(self, control: OwnedFd) -> Result<(), GatewayError> {
        // As serve: the other half is for those who talk through it.
        let threads = std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        runtime.block_on(async move {
            let control = Channel::new(control)?;
            let names = Names::new(self.servers)?;
            Arc::new(Gateway { start: self.start, names, members: Mutex::default() }).listen(control).await
        })
    }
}

impl Gateway {
    async fn listen(self: Arc<Self>, control: Channel) -> Result<(), GatewayError> {
        loop {
            let (message, fds) = match control.receive::<Control>().await {
                Ok(received) => received,
                // The daemon ends, and so do we.
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match message {
                Control::Open { id, policy } => self.open(id, *policy, fds),
                Control::Change { id, policy, number } => {
                    if let Some(member) = self.member(&id) {
                        member.change(*policy);
                    }
                    control.send(&Installed { number }, &[]).await?;
                }
                Control::Close { id } => {
                    let member = self.lock().remove(&id);
                    if let Some(member) = member {
                        member.end.cancel();
                    }
                }
                Control::Peer => {
                    if let Some(peer) = fds.into_iter().next() {
                        tokio::spawn(peer::answer(Arc::clone(&self), peer));
                    }
                }
            }
        }
    }

    fn open(self: &Arc<Self>, id: SandboxId, policy: crate::wire::gateway::Policy, fds: Vec<OwnedFd>) {
        let sockets = match member::Sockets::new(fds) {
            Ok(sockets) => sockets,
            Err(error) => return tracing::error!(%id, %error, "cannot use a sandbox's sockets"),
        };
        let member = Arc::new(Member::new(id.clone(), policy));
        let before = self.lock().insert(id, Arc::clone(&member));
        if let Some(before) = before {
            before.end.cancel();
        }
        tokio::spawn(sockets.attend(Arc::clone(self), member));
    }

    fn member(&self, id: &SandboxId) -> Option<Arc<Member>> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, Arc<Member>>> {
        // One insert, remove or look-up each: valid after any panic.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
