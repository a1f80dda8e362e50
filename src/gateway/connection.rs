//! One connection out of a sandbox: decided, then passed on or refused.
//!
//! ```text
//! original destination ─ port 53 ─▶ names
//!        │
//!        ▼ policy::connect
//!      Open ───────────────────────────────────────────────▶ dial, tunnel
//!      Ask, Refused ─▶ sniff ─┬─ HTTP ─▶ web: decides on every request
//!                             ├─ TLS ──▶ policy::said ─┬─▶ dial, tunnel with what was read
//!                             │                        ├─▶ opened: decides on every request in it
//!                             ├─ other ▶ policy::said  └─▶ alert, reset
//!                             ├─ half a line ▶ held: passed on and looked at further, if it may be anything
//!                             └─ silence: the server may speak first, if it may speak at all
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;

use super::audit::About;
use super::dial::{self, dial};
use super::member::Member;
use super::policy::{self, First, Spoken, Verdict, Way};
use super::sniff::{Heard, Opening};
use super::streams::{Rewound, Watched};
use super::web::{Came, Scheme};
use super::{Gateway, address, hosts, names, opened, tunnel, web};
use crate::wire::gateway::{Policy, Subject};

/// After so long without a byte from the sandbox its server is taken for one that speaks first, where it may.
const SILENCE: Duration = Duration::from_millis(150);

/// How long it may take to say what it speaks, where that decides: a client on a busy host is slow, and one that waits
/// for a server that may not speak first is to hear of it soon.
const PATIENCE: Duration = Duration::from_secs(3);

/// The same where nothing that it could say is allowed: so long the refusal waits for a client on a busy host, to be
/// in its words.
const REFUSAL: Duration = Duration::from_secs(1);

/// A fatal alert, `access_denied`, in a record of TLS 1.2 (RFC 8446 §6): readable before any key is agreed on.
const ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31];

/// Where a connection is to go, and what is known of that.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) to: SocketAddr,
    pub(super) pinned: Vec<String>,
    hosts_own: bool,
}

impl Goal {
    #[cfg(test)]
    pub(super) fn for_tests(to: SocketAddr) -> Self {
        Self { to, pinned: Vec::new(), hosts_own: false }
    }

    /// The same, at another port.
    pub(super) fn with_port(&self, port: u16) -> Self {
        Self { to: SocketAddr::new(self.to.ip(), port), ..self.clone() }
    }

    pub(super) fn way(&self) -> Way<'_> {
        Way { address: self.to.ip(), port: self.to.port(), pinned: &self.pinned, hosts_own: self.hosts_own }
    }
}

/// Ends a connection so that its other end notices at once.
pub(super) fn reset(stream: TcpStream) {
    // Without it the end would look like an orderly one.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    drop(stream);
}

/// Serves a connection to its end.
pub(super) async fn serve(gateway: &Arc<Gateway>, member: &Arc<Member>, stream: TcpStream) {
    let Some(to) = dial::original(&stream) else { return reset(stream) };
    if to.port() == names::PORT {
        return names::stream(gateway, member, stream).await;
    }
    if stream.local_addr().is_ok_and(|own| own == to) {
        // It came by itself, and was not led here: nothing is there that could be opened.
        let rule = "closed: the gateway's own port".to_owned();
        member.audit.record(about(to, None, None), &Verdict { allowed: false, rule, fix: None });
        return reset(stream);
    }
    dial::settle(&stream);
    let ip = address::canonical(to.ip());
    let goal = Goal {
        to: SocketAddr::new(ip, to.port()),
        pinned: member.names_of(ip),
        hosts_own: address::is_hosts_own(ip),
    };
    let first = policy::connect(&member.policy(), &gateway.start.open, &goal.way());
    match first {
        First::Open(verdict) => {
            record(member, &goal, None, goal.pinned.first().map(String::as_str), &verdict);
            // Nobody has looked at what is said on it: it lasts as long as that does not matter.
            let open = |policy: &Policy| {
                matches!(policy::connect(policy, &gateway.start.open, &goal.way()), First::Open(_))
            };
            pass(member, stream, &goal, &[], open).await;
        }
        First::Ask => ask(gateway, member, stream, goal, None).await,
        First::Refused(verdict) => ask(gateway, member, stream, goal, Some(verdict)).await,
    }
}

pub(super) fn record(
    member: &Member,
    goal: &Goal,
    spoken: Option<Spoken>,
    host: Option<&str>,
    verdict: &Verdict,
) {
    member.audit.record(about(goal.to, spoken, host), verdict);
}

fn about(to: SocketAddr, spoken: Option<Spoken>, host: Option<&str>) -> About<'_> {
    About {
        subject: Subject::Connection,
        host,
        address: Some(to.ip()),
        port: Some(to.port()),
        protocol: spoken.map_or("other", Spoken::name),
    }
}

/// Ends a connection that there is no place for.
pub(super) fn limited(member: &Member, stream: TcpStream, verdict: &Verdict) {
    // Without its address: a flood is one event then, and pushes no decision out.
    let subject = Subject::Connection;
    member.audit.note(About { subject, host: None, address: None, port: None, protocol: "other" }, verdict);
    reset(stream);
}

/// Puts it into the log of decisions that what was allowed has failed.
pub(super) fn failed(member: &Member, goal: &Goal, host: Option<&str>, why: impl std::fmt::Display) {
    let host = host.or(goal.pinned.first().map(String::as_str));
    member.audit.fail(about(goal.to, None, host), format!("allowed, and failed: {why}"));
}

/// Finds out what is spoken, and decides by that.
async fn ask(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    goal: Goal,
    refused: Option<Verdict>,
) {
    let mut opening = Opening::default();
    match tokio::time::timeout(SILENCE, opening.listen(&stream)).await {
        Ok(Ok(true)) => {}
        // It ended, or broke, before it said anything.
        Ok(_) => return reset(stream),
        Err(_) if opening.bytes.is_empty() => {
            return silent(gateway, member, stream, goal, refused, opening).await;
        }
        Err(_) => return half_said(gateway, member, stream, goal, refused, opening).await,
    }
    heard(gateway, member, stream, None, goal, opening).await;
}

/// Nothing was said yet.
async fn silent(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    goal: Goal,
    refused: Option<Verdict>,
    mut opening: Opening,
) {
    let policy = member.policy();
    let open = &gateway.start.open;
    let is_refused = refused.is_some();
    let verdict = refused.unwrap_or_else(|| policy::said(&policy, open, &goal.way(), Spoken::Other, None));
    let host = goal.pinned.first().map(String::as_str);
    if !verdict.allowed {
        // No server may speak first here. A client that is slow to begin is not one that waits for its server.
        let patience = if is_refused { REFUSAL } else { PATIENCE };
        if let Ok(Ok(true)) = tokio::time::timeout(patience, opening.listen(&stream)).await {
            return heard(gateway, member, stream, None, goal, opening).await;
        }
        record(member, &goal, None, host, &verdict);
        return reset(stream);
    }
    let Some(world) = reach(member, &goal).await else { return reset(stream) };
    tokio::select! {
        biased;
        said = opening.listen(&stream) => match said {
            Ok(true) => heard(gateway, member, stream, Some(world), goal, opening).await,
            _ => reset(stream),
        },
        spoke = world.readable() => {
            if spoke.is_err() {
                return reset(stream);
            }
            // No server of names speaks before it was told one.
            record(member, &goal, Some(Spoken::Other), host, &verdict);
            let still = still_allowed(gateway, &goal, other());
            join(member, stream, world, &opening.bytes, still).await;
        }
    }
}

/// Something was said, and not enough to tell what it is.
async fn half_said(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    goal: Goal,
    refused: Option<Verdict>,
    mut opening: Opening,
) {
    let spoken = opening.so_far();
    let is_refused = refused.is_some();
    let verdict = refused.unwrap_or_else(|| match spoken {
        Spoken::Tls => unfinished(),
        _ => policy::said(&member.policy(), &gateway.start.open, &goal.way(), spoken, None),
    });
    if verdict.allowed {
        return pass_half(gateway, member, stream, goal, opening, verdict).await;
    }
    let patience = if is_refused { REFUSAL } else { PATIENCE };
    match tokio::time::timeout(patience, opening.listen(&stream)).await {
        Ok(Ok(true)) => heard(gateway, member, stream, None, goal, opening).await,
        Ok(_) => reset(stream),
        Err(_) => {
            let host = goal.pinned.first().map(String::as_str);
            record(member, &goal, Some(spoken), host, &verdict);
            refuse(stream, spoken).await;
        }
    }
}

/// The name in TLS decides, and what is passed on without one could say any name later.
fn unfinished() -> Verdict {
    let rule = format!("the beginning of TLS did not come whole within {} s", PATIENCE.as_secs());
    Verdict { allowed: false, rule, fix: None }
}

/// Half a line, where anything may be said: its server may be waiting for just that. It is passed on as it comes, and
/// looked at until it can be no request: one that came in pieces begins anew, with a server that has read nothing of it.
async fn pass_half(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    goal: Goal,
    mut opening: Opening,
    verdict: Verdict,
) {
    let host = goal.pinned.first().map(String::as_str);
    record(member, &goal, Some(Spoken::Other), host, &verdict);
    let Some(world) = reach(member, &goal).await else { return reset(stream) };
    let mut passed = 0;
    loop {
        let piece = &opening.bytes[passed..];
        tokio::select! {
            biased;
            () = forbidden(member, still_allowed(gateway, &goal, other())) => return reset(stream),
            written = tunnel::write_all(&world, piece) => if written.is_err() {
                return reset(stream);
            },
        }
        member.audit.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        passed = opening.bytes.len();
        let is_still_allowed = still_allowed(gateway, &goal, other());
        tokio::select! {
            biased;
            () = forbidden(member, is_still_allowed) => return reset(stream),
            read = opening.read(&stream) => match read {
                Ok(true) => {}
                _ => return reset(stream),
            },
            _ = world.readable() => break,
        }
        match &opening.heard {
            None => {}
            Some(said) if said.spoken == Spoken::Other => break,
            Some(_) => {
                reset(world);
                return heard(gateway, member, stream, None, goal, opening).await;
            }
        }
    }
    let still = still_allowed(gateway, &goal, other());
    join(member, stream, world, &opening.bytes[passed..], still).await;
}

fn other() -> Heard {
    Heard { spoken: Spoken::Other, name: None }
}

/// It is known what is spoken.
async fn heard(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    world: Option<TcpStream>,
    goal: Goal,
    opening: Opening,
) {
    let Some(heard) = opening.heard else { return reset(stream) };
    if heard.spoken == Spoken::Http {
        let watched = Watched::new(stream);
        let stream = Rewound { first: opening.bytes.into(), stream: watched.clone() };
        let came = Came { scheme: Scheme::Http, name: None, watched };
        return web::serve(gateway, member, stream, goal, came).await;
    }
    let policy = member.policy();
    let verdict = decide(gateway, &policy, &goal, &heard);
    if let Some(name) = heard.name.as_ref().filter(|name| verdict.allowed && hosts::is_opened(&policy, name))
    {
        return opened::serve(gateway, member, stream, opening.bytes, goal, name.clone()).await;
    }
    let host = heard.name.as_deref().or(goal.pinned.first().map(String::as_str));
    record(member, &goal, Some(heard.spoken), host, &verdict);
    if !verdict.allowed {
        return refuse(stream, heard.spoken).await;
    }
    let still = still_allowed(gateway, &goal, heard);
    match world {
        Some(world) => join(member, stream, world, &opening.bytes, still).await,
        None => pass(member, stream, &goal, &opening.bytes, still).await,
    }
}

fn decide(gateway: &Gateway, policy: &Policy, goal: &Goal, heard: &Heard) -> Verdict {
    policy::said(policy, &gateway.start.open, &goal.way(), heard.spoken, heard.name.as_deref())
}

fn still_allowed<'a>(gateway: &'a Gateway, goal: &'a Goal, heard: Heard) -> impl Fn(&Policy) -> bool + 'a {
    move |policy| {
        // What is to be looked into from now on begins anew.
        let opened = heard.name.as_ref().is_some_and(|name| hosts::is_opened(policy, name));
        !opened && decide(gateway, policy, goal, &heard).allowed
    }
}

/// Says no in the protocol that is spoken.
async fn refuse(stream: TcpStream, spoken: Spoken) {
    if spoken == Spoken::Tls && stream.try_write(&ALERT).is_ok() {
        let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
        // What is left unread would turn the end into a reset, which would overtake the alert.
        let _ = tokio::time::timeout(SILENCE, drain(&stream)).await;
        return;
    }
    reset(stream);
}

async fn drain(stream: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut buffer = [0; 1024];
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// Dials; nobody's accepting is counted.
pub(super) async fn reach(member: &Member, goal: &Goal) -> Option<TcpStream> {
    match dial(goal.to).await {
        Ok(world) => Some(world),
        Err(error) => {
            failed(member, goal, None, format_args!("cannot connect: {error}"));
            tracing::debug!(id = %member.id, to = %goal.to, %error, "cannot connect");
            None
        }
    }
}

/// Dials, and passes on until the end, or until a change of the policy that does not allow it.
async fn pass(
    member: &Member,
    stream: TcpStream,
    goal: &Goal,
    first: &[u8],
    allowed: impl Fn(&Policy) -> bool,
) {
    match reach(member, goal).await {
        Some(world) => join(member, stream, world, first, allowed).await,
        None => reset(stream),
    }
}

async fn join(
    member: &Member,
    stream: TcpStream,
    world: TcpStream,
    first: &[u8],
    allowed: impl Fn(&Policy) -> bool,
) {
    let done = tokio::select! {
        // Looked at first: the policy may have changed while the server was dialled.
        biased;
        () = forbidden(member, allowed) => false,
        done = tunnel::run(member, &stream, &world, first) => done.is_ok(),
    };
    if !done {
        reset(stream);
        reset(world);
    }
}

/// Ends when a change of the policy does not allow what was allowed.
pub(super) async fn forbidden(member: &Member, allowed: impl Fn(&Policy) -> bool) {
    let mut changes = member.changes();
    loop {
        // A change between the decision and this is one too.
        if !allowed(&changes.borrow_and_update().clone()) {
            return;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
