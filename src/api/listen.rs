//! Connections: accepting, bounding, ending.
//!
//! ```text
//! accept ──▶ who? how many? ──▶ task per connection ──▶ requests, one after the other
//!    │              └ too many, or not allowed: one answer, closed
//!    └ shutdown: idle connections close, running requests end, then after a while everything is dropped
//! ```
//!
//! A client that sends its headers slowly, or nothing, holds one of its own uid's connections for
//! [`REQUEST_HEAD_TIMEOUT_S`](limits::REQUEST_HEAD_TIMEOUT_S). When the process runs out of descriptors the loop closes a spare one, accepts
//! and refuses the peer with it, and waits a moment, instead of spinning.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drive::drive;
use super::malformed::{self, Heard};
use super::metrics::Metrics;
use super::operations::Operations;
use super::places::{Place, Places};
use super::request::RequestId;
use super::{Shared, State, caller, error, output, proxy, request};
use crate::error::{Error, ErrorCode};
use crate::limits;
use crate::sandbox::Caller;

/// How long running requests may take to end when the daemon stops. systemd would kill after 90 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the audit log is written to the disk.
const AUDIT_FLUSH: Duration = Duration::from_secs(1);

/// After two looks so far apart between which nobody was answered, the daemon is idle.
const QUIET: Duration = Duration::from_secs(2);

/// How long dropped tasks may take to be gone.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after an accept(2) that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the API on a listening socket, and previews on another one, until `shutdown`; then ends what runs.
///
/// # Errors
/// When the socket cannot be used at all. A connection's failure is its own.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    previews: Option<std::net::TcpListener>,
    state: State,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut spare = Spare::of(&listener)?;
    let listener = UnixListener::from_std(listener)?;
    let drain = CancellationToken::new();
    let shared = Arc::new(Shared {
        state,
        budget: Arc::new(output::Budget::new(limits::BUFFERED_BYTES_MAX)),
        kept: Arc::new(output::Budget::new(limits::KEPT_RUNS_BYTES_MAX)),
        tasks: TaskTracker::new(),
        abort: CancellationToken::new(),
        closing: drain.clone(),
        operations: Operations::of(&super::described())?,
        metrics: Metrics::new(),
    });
    tokio::spawn(keep_audit(Arc::clone(&shared)));
    tokio::spawn(watch_for_quiet(Arc::clone(&shared)));
    let router = super::router(Arc::clone(&shared));
    if let (Some(previews), Some(base)) = (previews, &shared.state.previews) {
        previews.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(previews)?;
        tokio::spawn(proxy::serve(listener, base.clone(), Arc::clone(&shared), drain.clone()));
    }
    let places = Arc::new(Places::bounded(limits::CONNECTIONS_MAX, limits::CONNECTIONS_PER_UID_MAX));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    spare.starved = false;
                    stream
                }
                Err(error) => {
                    accept_failed(&error, &listener, &mut spare).await;
                    continue;
                }
            },
        };
        match admit(&stream, &shared, &places) {
            Ok((caller, place)) => {
                let connection = Connection {
                    shared: Arc::clone(&shared),
                    router: router.clone(),
                    caller,
                    drain: drain.clone(),
                    abort: shared.abort.clone(),
                    _place: place,
                };
                shared.tasks.spawn(connection.run(stream));
            }
            Err(refusal) => refuse(&stream, &refusal),
        }
    }
    drop(listener);
    end(&shared, &drain).await;
    shared.state.audit.flush();
    Ok(())
}

/// Sees to it that the audit log is on the disk, all but the last second of it.
async fn keep_audit(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(AUDIT_FLUSH);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let audit = shared.state.audit.clone();
        // It waits for the disk. When it cannot be run the daemon ends.
        let _ = tokio::task::spawn_blocking(move || audit.flush()).await;
    }
}

/// Does what is to be done when the daemon has become idle, once each time.
async fn watch_for_quiet(shared: Arc<Shared>) {
    let (mut seen, mut idle_since) = (None, None);
    loop {
        tokio::time::sleep(QUIET).await;
        let now = Some(shared.metrics.answered());
        if seen == now && idle_since != now {
            idle_since = now;
            // When it cannot be run the daemon ends.
            let _ = tokio::task::spawn_blocking(shared.state.when_idle).await;
        }
        seen = now;
    }
}

/// Lets running requests end, and drops those that do not.
async fn end(shared: &Shared, drain: &CancellationToken) {
    shared.tasks.close();
    drain.cancel();
    if tokio::time::timeout(DRAIN_TIMEOUT, shared.tasks.wait()).await.is_err() {
        tracing::warn!(left = shared.tasks.len(), "dropping requests that did not end in time");
        shared.abort.cancel();
        if tokio::time::timeout(ABORT_TIMEOUT, shared.tasks.wait()).await.is_err() {
            tracing::error!(left = shared.tasks.len(), "requests did not end although they were dropped");
        }
    }
}

/// One client.
struct Connection {
    shared: Arc<Shared>,
    router: axum::Router,
    caller: Arc<Caller>,
    drain: CancellationToken,
    abort: CancellationToken,
    _place: Place<u32>,
}

impl Connection {
    async fn run(self, stream: UnixStream) {
        let Self { shared, router, caller, drain, abort, _place } = self;
        let heard = Heard::default();
        let stream = malformed::Connection::new(stream, heard.clone());
        let service = service_fn(|request| {
            heard.request();
            let answer = request::answer(Arc::clone(&shared), router.clone(), Arc::clone(&caller), request);
            let heard = heard.clone();
            async move {
                answer.await.inspect(|answer| {
                    if answer.status() == hyper::StatusCode::SWITCHING_PROTOCOLS {
                        heard.upgraded();
                    }
                })
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(limits::REQUEST_HEAD_TIMEOUT_S))
            .max_buf_size(limits::REQUEST_HEAD_BYTES_MAX)
            // A client may say that it has nothing more to send; see `malformed` on one that leaves.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Some(Err(error)) = drive(connection, &drain, &abort).await {
            tracing::debug!(uid = caller.uid, %error, "connection ended");
        }
    }
}

fn admit(
    stream: &UnixStream,
    shared: &Shared,
    places: &Arc<Places<u32>>,
) -> Result<(Arc<Caller>, Place<u32>), Error> {
    let caller = Caller::of(stream, shared.state.operator_gid)
        .map_err(|error| Error::internal("cannot tell who is calling", error))?;
    caller::admit(&caller, &shared.state)?;
    let Some(place) = places.take(caller.uid) else {
        return Err(too_many());
    };
    Ok((Arc::new(caller), place))
}

fn too_many() -> Error {
    Error::new(ErrorCode::CapacityExhausted, "too many connections")
        .hint("close connections that are not in use, or use one for several requests")
}

/// Answers a peer without reading from it, as far as the socket takes it, and closes.
fn refuse(stream: &UnixStream, refusal: &Error) {
    let id = RequestId::new();
    // Not louder: who is refused can ask again as fast as it likes.
    tracing::debug!(request_id = id.as_str(), code = ?refusal.code, "connection refused");
    let status = error::status(refusal.code);
    let status = format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or("Refused"));
    // The buffer of a new socket takes it whole; a peer that is gone does not matter.
    let _ = stream.try_write(&error::bare(refusal, &status, &id));
}

/// A descriptor to give up when there are no more, so that a waiting peer can be told.
struct Spare {
    source: OwnedFd,
    held: Option<OwnedFd>,
    /// Since the last connection that was accepted; said once in the log.
    starved: bool,
}

impl Spare {
    fn of(listener: &std::os::unix::net::UnixListener) -> io::Result<Self> {
        let source = OwnedFd::from(listener.try_clone()?);
        let held = Some(source.try_clone()?);
        Ok(Self { source, held, starved: false })
    }
}

async fn accept_failed(error: &io::Error, listener: &UnixListener, spare: &mut Spare) {
    let code = error.raw_os_error();
    if code == Some(libc::ECONNABORTED) || code == Some(libc::EINTR) {
        return;
    }
    if !std::mem::replace(&mut spare.starved, true) {
        tracing::warn!(%error, "cannot accept connections");
    }
    if code == Some(libc::EMFILE) {
        spare.held = None;
        // The peer at the head of the queue, if it is still there.
        let waiting = std::pin::pin!(listener.accept());
        if let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::ZERO, waiting).await {
            refuse(&stream, &too_many());
        }
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
    if spare.held.is_none() {
        spare.held = spare.source.try_clone().ok();
    }
}
