//! Ports of a sandbox: which of them are exposed, under which tokens, and connections to any of them.
//!
//! ```text
//! expose, revoke ─▶ Ports ──(ports.json)
//!                     ▲ sandbox, port, token
//! a preview's request ┴─▶ unknown: 404 · of a former life: 410 · Preview ─▶ connect ─▶ files ─▶ worker inside: dials
//! ```
//!
//! A token is good for as long as the sandbox is, and wakes one that was stopped. That of a sandbox that was destroyed
//! or has ended by itself is told from one that never was: whoever opens a bookmark learns that it is out of date, and
//! nothing is started by it. Revoking and rotating a token also ends what goes on under it.

mod former;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

pub(super) use former::Former;

use super::agent::Agent;
use super::lifecycle::Use;
use super::random::random_text;
use super::{Entry, Sandbox, Sandboxes, State, command};
use crate::error::{Error, ErrorCode};
use crate::id::{PreviewToken, SandboxId};
use crate::journal::feed::Kind;
use crate::limits::{EXPOSED_PORTS_MAX, PORT_CONNECTIONS_MAX, PREVIEW_TOKEN_BYTES_MAX};
use crate::sys::dialled::Dialled;

/// The first pause between two attempts at a port on which nobody listens yet, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];

/// A port to expose.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Its number inside the sandbox.
    pub port: u16,
    /// What it is called in lists.
    pub name: Option<String>,
    /// Its token; a random one when absent.
    pub token: Option<PreviewToken>,
    /// How long a request waits for somebody to listen.
    pub wait: Duration,
}

/// An exposed port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortView {
    /// Its number inside the sandbox.
    pub port: u16,
    /// What it is called.
    pub name: Option<String>,
    /// Whoever knows it may use the port.
    pub token: String,
    /// How many milliseconds a request waits for somebody to listen.
    pub wait_ms: u64,
    /// Since when it has this token (RFC 3339).
    pub exposed_at: String,
}

/// A preview that was addressed by a token that is good.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Of which sandbox.
    pub sandbox: Arc<Sandbox>,
    /// How long a request waits for somebody to listen.
    pub wait: Duration,
    /// Cancelled when the token is no longer good.
    pub over: CancellationToken,
}

/// An exposed port as it lies on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Exposure {
    port: u16,
    name: Option<String>,
    token: PreviewToken,
    wait_ms: u64,
    exposed_at: String,
    life: String,
    #[serde(skip)]
    over: CancellationToken,
}

impl Exposure {
    fn view(&self) -> PortView {
        PortView {
            port: self.port,
            name: self.name.clone(),
            token: self.token.as_str().to_owned(),
            wait_ms: self.wait_ms,
            exposed_at: self.exposed_at.clone(),
        }
    }
}

/// The ports of one sandbox.
#[derive(Debug)]
pub(super) struct Ports {
    path: PathBuf,
    /// The present life: from the creation of the sandbox to its end, however often it is stopped in between.
    life: String,
    exposed: Mutex<BTreeMap<u16, Exposure>>,
    connections: Arc<Semaphore>,
}

impl Ports {
    /// What lies in the file.
    pub(super) fn new(path: PathBuf, life: String) -> Self {
        let kept = std::fs::read(&path).ok();
        let kept = kept.and_then(|text| serde_json::from_slice::<Vec<Exposure>>(&text).ok());
        let exposed = kept.into_iter().flatten().map(|one| (one.port, one)).collect();
        let connections = Arc::new(Semaphore::new(PORT_CONNECTIONS_MAX));
        Self { path, life, exposed: Mutex::new(exposed), connections }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Exposure>> {
        // The map is replaced as a whole.
        self.exposed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the map, on disk first.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<u16, Exposure>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut exposed = self.lock();
        let mut changed = exposed.clone();
        let answer = change(&mut changed)?;
        self.save(&changed).map_err(|error| Error::internal("cannot record the ports", error))?;
        *exposed = changed;
        Ok(answer)
    }

    fn save(&self, exposed: &BTreeMap<u16, Exposure>) -> io::Result<()> {
        let all: Vec<_> = exposed.values().collect();
        replace(&self.path, &serde_json::to_vec(&all)?)
    }

    /// Exposes a port, or gives an exposed one another token. True when it is new.
    fn expose(&self, spec: PortSpec) -> Result<(PortView, bool), Error> {
        let token = match spec.token {
            Some(token) => token,
            None => PreviewToken::parse(&random_text::<PREVIEW_TOKEN_BYTES_MAX>())
                .map_err(|error| Error::internal("cannot make a token", error))?,
        };
        let mut exposure = Exposure {
            port: spec.port,
            name: spec.name,
            token,
            wait_ms: u64::try_from(spec.wait.as_millis()).unwrap_or(u64::MAX),
            exposed_at: jiff::Timestamp::now().to_string(),
            life: self.life.clone(),
            over: CancellationToken::new(),
        };
        let (view, before) = self.change(|exposed| {
            exposed.retain(|_, one| one.life == self.life);
            let before = exposed.remove(&exposure.port);
            if exposed.len() >= EXPOSED_PORTS_MAX {
                return Err(Error::new(
                    ErrorCode::CapacityExhausted,
                    format!("the sandbox has {EXPOSED_PORTS_MAX} exposed ports, which is all it can have"),
                )
                .hint("revoke one that is not needed any more"));
            }
            // What goes on under a token that stays goes on.
            match &before {
                Some(before) if before.token.matches(&exposure.token) => exposure.over = before.over.clone(),
                _ => {}
            }
            let view = exposure.view();
            exposed.insert(exposure.port, exposure.clone());
            Ok((view, before))
        })?;
        let Some(before) = before else { return Ok((view, true)) };
        if before.token.as_str() != view.token {
            before.over.cancel();
        }
        Ok((view, false))
    }

    fn revoke(&self, port: u16) -> Result<(), Error> {
        let gone = self.change(|exposed| exposed.remove(&port).ok_or_else(|| not_exposed(port)))?;
        gone.over.cancel();
        Ok(())
    }

    /// Those of the present life.
    fn list(&self) -> Vec<PortView> {
        let exposed = self.lock();
        exposed.values().filter(|one| one.life == self.life).map(Exposure::view).collect()
    }

    /// Whether a token is good for a port; see [`Sandboxes::preview`].
    fn check(
        &self,
        alive: bool,
        port: u16,
        token: &PreviewToken,
    ) -> Result<(Duration, CancellationToken), Error> {
        let exposed = self.lock();
        let Some(exposure) = exposed.get(&port).filter(|exposure| exposure.token.matches(token)) else {
            return Err(invalid_token());
        };
        if !alive || exposure.life != self.life {
            return Err(stale());
        }
        Ok((Duration::from_millis(exposure.wait_ms), exposure.over.clone()))
    }

    /// The sandbox is destroyed: what goes on ends, and the tokens are remembered as former ones.
    pub(super) fn end(&self, id: &SandboxId, former: &Former) {
        let exposed = std::mem::take(&mut *self.lock());
        former.add(exposed.values().map(|exposure| (id, exposure.port, &exposure.token)));
        for exposure in exposed.into_values() {
            exposure.over.cancel();
        }
    }
}

/// Writes a file, so that it is there whole or as it was.
pub(super) fn replace(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let draft = path.with_extension("new");
    std::fs::write(&draft, bytes)?;
    std::fs::rename(&draft, path)
}

fn not_exposed(port: u16) -> Error {
    Error::new(ErrorCode::PortNotExposed, format!("port {port} of the sandbox is not exposed"))
}

/// Whether it is the sandbox, the port or the token that is wrong is nobody's business who does not know all three.
fn invalid_token() -> Error {
    Error::new(ErrorCode::InvalidToken, "there is no such preview, or its address has changed")
}

fn stale() -> Error {
    Error::new(ErrorCode::StalePreviewUrl, "the sandbox behind this address has ended")
}

impl Sandboxes {
    /// The preview that this token opens. A sandbox that was stopped or paused is woken; nothing else is started by asking.
    ///
    /// # Errors
    /// `INVALID_TOKEN` when there is none, `STALE_PREVIEW_URL` when there was one in a former life of the sandbox.
    pub async fn preview(&self, id: &SandboxId, port: u16, token: &PreviewToken) -> Result<Preview, Error> {
        // Looked at before it is woken, and taken from what is awake.
        let found = match self.find_preview(id, port, token) {
            Ok(found) if matches!(found.sandbox.state(), State::Stopped | State::Paused) => {
                match self.awake_if(id, |_| true).await {
                    Ok(_) => self.find_preview(id, port, token),
                    Err(error) => Err(error),
                }
            }
            found => found,
        };
        match found {
            Err(error) if error.code == ErrorCode::InvalidToken && self.0.former.has(id, port, token) => {
                Err(stale())
            }
            found => found,
        }
    }

    fn find_preview(&self, id: &SandboxId, port: u16, token: &PreviewToken) -> Result<Preview, Error> {
        let found = self.0.lock().get(id).and_then(Entry::shown).cloned();
        let sandbox = found.ok_or_else(invalid_token)?;
        let (wait, over) = sandbox.ports.check(sandbox.state() != State::Dead, port, token)?;
        Ok(Preview { sandbox, wait, over })
    }
}

impl Sandbox {
    /// Its id.
    pub fn id(&self) -> &SandboxId {
        &self.facts.id
    }

    /// Exposes a port, or gives an exposed one another token. True when it is new.
    ///
    /// # Errors
    /// `SANDBOX_DEAD`, or when there are too many.
    pub fn expose_port(&self, spec: PortSpec) -> Result<(PortView, bool), Error> {
        let dead = || command::dead(super::agent::Gone);
        self.agent().ok_or_else(dead)?;
        let exposed = self.ports.expose(spec)?;
        // Its token is who has it, and is nobody else's business.
        self.voice
            .say(Kind::PortExposed, serde_json::json!({"port": exposed.0.port, "name": exposed.0.name}));
        Ok(exposed)
    }

    /// Its exposed ports, by number.
    pub fn exposed_ports(&self) -> Vec<PortView> {
        self.ports.list()
    }

    /// One of them.
    ///
    /// # Errors
    /// `PORT_NOT_EXPOSED`.
    pub fn exposed_port(&self, port: u16) -> Result<PortView, Error> {
        self.ports.list().into_iter().find(|view| view.port == port).ok_or_else(|| not_exposed(port))
    }

    /// Takes a port's token away, and ends what goes on under it.
    ///
    /// # Errors
    /// `PORT_NOT_EXPOSED`.
    pub fn revoke_port(&self, port: u16) -> Result<(), Error> {
        self.ports.revoke(port)?;
        self.voice.say(Kind::PortRevoked, serde_json::json!({"port": port}));
        Ok(())
    }

    /// Ends when the sandbox does.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let gone = self.agent.as_ref().map(|agent| agent.gone());
        async move {
            if let Some(gone) = gone {
                gone.await;
            }
        }
    }

    /// Connects to a port of the sandbox's loopback, exposed or not, and waits so long for somebody to listen.
    ///
    /// # Errors
    /// `PORT_CLOSED` when nobody does.
    pub async fn connect(&self, port: u16, wait: Duration) -> Result<PortConnection, Error> {
        let agent = Arc::clone(self.agent().ok_or_else(|| command::dead(super::agent::Gone))?);
        let Ok(permit) = Arc::clone(&self.ports.connections).try_acquire_owned() else {
            return Err(Error::new(
                ErrorCode::CapacityExhausted,
                format!("the sandbox has {PORT_CONNECTIONS_MAX} connections to its ports, which is all it can have"),
            )
            .hint("close some of them, or try again"));
        };
        let files = self.files(None)?;
        let (began, [mut pause, longest]) = (Instant::now(), PAUSES);
        loop {
            match files.dial(port).await {
                Err(error) if error.code == ErrorCode::PortClosed && began.elapsed() + pause < wait => {}
                Err(error) => return Err(error),
                Ok(stream) => {
                    return Ok(PortConnection { stream, agent, _permit: permit, _used: self.hold() });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}

/// A connection to a port inside a sandbox.
#[derive(Debug)]
pub struct PortConnection {
    stream: Dialled,
    agent: Arc<Agent>,
    /// Its place among the sandbox's connections.
    _permit: OwnedSemaphorePermit,
    _used: Use,
}

impl PortConnection {
    /// Ends when the sandbox does. Whoever holds the connection must give it up then: it keeps the sandbox's network
    /// namespace, and its other end may have been left without a word.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.agent.gone()
    }
}

impl AsyncRead for PortConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PortConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
