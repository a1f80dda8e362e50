//! Role `gateway`: everything that leaves any sandbox passes here, under the sandbox's policy, or does not leave.
//!
//! ```text
//! launch ─ sockets in a sandbox, policy ─▶ member ─┬─ accept ─▶ connection ─ sniff ─ policy ─┬─▶ tunnel ─▶ the world
//!                                                  │                                         ├─▶ web: HTTP, each request
//!                                                  │                                         ├─▶ opened: TLS, then web
//!                                                  │                                         └─▶ refusal
//!                                                  └─ questions ─▶ names ─ policy ─▶ host's name servers
//!                                                            └ pins: address → names it was given for
//! serve ─ Query ─▶ peer: counters, audit
//! bucket ─ a byte ─▶ reach ─ a connection to its one server
//! ```
//!
//! | | |
//! |---|---|
//! | [`rule`] | the text of a rule, and what it matches |
//! | [`policy`] | decisions: pure functions, that serve asks too, for dry runs |
//! | [`address`] | which addresses are public, and which are the host's own |
//! | [`hosts`] | hosts with more: over TLS, with a credential, to a handler |
//! | [`authority`] | certificates for TLS that is opened |
//! | `member` | what is known of one sandbox |
//!
//! Invariants
//! - Only what [`policy`] allowed is dialled, by the very address that was decided on: no name is resolved twice.
//! - A name counts only when an answer of ours gave the address for it, to this sandbox.
//! - Whatever is refused is refused at once, in the protocol that was spoken: 403, an alert, a reset.
//! - No memory is held for a connection that is idle but its task: buffers belong to threads, pipes to bulk.
//! - A secret goes into a request to its own host, over verified TLS, and nowhere else: no log, no answer, no audit.
//! - No capability, no file: Landlock leaves nothing to open, and no port to bind.

pub mod address;
mod audit;
pub mod authority;
mod bodies;
mod connection;
mod credential;
mod dial;
pub mod hosts;
mod kept;
mod known;
mod member;
mod names;
mod opened;
mod peer;
pub mod policy;
mod reach;
pub mod rule;
mod sniff;
mod streams;
mod trouble;
mod tunnel;
mod upstream;
mod web;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::id::SandboxId;
use crate::limits::SIGNED_BODIES_MAX;
use crate::sys::channel::{Channel, ChannelError};
use crate::wire::gateway::{Control, GatewayStart, Word};
use audit::Audit;
use kept::Kept;
use known::Known;
use member::Member;
use names::Names;

/// What all sandboxes share.
#[derive(Debug)]
struct Gateway {
    start: GatewayStart,
    names: Names,
    /// How servers are spoken to over TLS.
    tls: Arc<rustls::ClientConfig>,
    /// launch.
    control: Channel,
    /// Places for bodies that are read before they are signed.
    bodies: Arc<Semaphore>,
    members: Mutex<HashMap<SandboxId, Arc<Member>>>,
}

/// Why the gateway cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its name servers.
    #[error("the host's name servers: {0}")]
    Names(String),
    /// The operator's certificates.
    #[error("the additional certificates: {0}")]
    Certificates(String),
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
/// When the host has no name servers that can be used, or the operator's certificates are none.
pub fn prepare(start: GatewayStart) -> Result<Prepared, GatewayError> {
    let servers = names::servers(&start.resolvers)?;
    // In a static program the random numbers of questions come from a file, which is opened once.
    let _ = hickory_resolver::proto::op::Message::query();
    let tls = upstream::trust(&start.ca_pem)?;
    Ok(Prepared { start, servers, tls })
}

/// A gateway that is ready to be closed in.
#[derive(Debug)]
pub struct Prepared {
    start: GatewayStart,
    servers: names::Servers,
    tls: Arc<rustls::ClientConfig>,
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
            let bodies = Arc::new(Semaphore::new(SIGNED_BODIES_MAX));
            let Self { start, tls, .. } = self;
            Arc::new(Gateway { start, names, tls, control, bodies, members: Mutex::default() }).listen().await
        })
    }
}

impl Gateway {
    #[cfg(test)]
    fn for_tests(names: Names) -> Self {
        let (ours, _) = crate::sys::socket::pair().expect("pair");
        Self {
            start: GatewayStart::default(),
            names,
            tls: upstream::trust("").expect("trust"),
            control: Channel::new(ours).expect("channel"),
            bodies: Arc::new(Semaphore::new(1)),
            members: Mutex::default(),
        }
    }

    async fn listen(self: Arc<Self>) -> Result<(), GatewayError> {
        loop {
            let (message, mut fds) = match self.control.receive::<Control>().await {
                Ok(received) => received,
                // The daemon ends, and so do we.
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match message {
                Control::Open { id, policy, secrets, kept } => {
                    let mut first = |sent: bool| (sent && !fds.is_empty()).then(|| fds.remove(0));
                    let known = Known::of(first(secrets));
                    let audit = Audit::of(first(kept).map(Kept::new));
                    let member = Member::new(id, *policy, known, audit);
                    self.open(Arc::new(member), fds);
                }
                Control::Change { id, policy, number } => {
                    if let Some(member) = self.member(&id) {
                        member.change(*policy, Known::of(fds.pop()));
                    }
                    self.control.send(&Word::Installed { number }, &[]).await?;
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
                Control::Reach(server) => {
                    if let Some(socket) = fds.into_iter().next() {
                        tokio::spawn(reach::attend(Arc::clone(&self), server, socket));
                    }
                }
            }
        }
    }

    fn open(self: &Arc<Self>, member: Arc<Member>, fds: Vec<OwnedFd>) {
        let id = member.id.clone();
        let sockets = match member::Sockets::new(fds) {
            Ok(sockets) => sockets,
            Err(error) => return tracing::error!(%id, %error, "cannot use a sandbox's sockets"),
        };
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
