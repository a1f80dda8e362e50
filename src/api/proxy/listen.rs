//! The TCP listener that serves previews, and nothing else.
//!
//! Whoever can connect is a stranger until the host name of a request has a token that is good, and is so again with
//! the next request. An API has no route here.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::body::{Incoming, Settled};
use super::page::{self, Asked, Refreshed};
use super::phase::{Noted, Phase, Phases};
use super::stall::Stalling;
use super::{Base, Keep, Target, Told, authority, forward};
use crate::api::Shared;
use crate::api::drive::drive;
use crate::api::places::{Place, Places};
use crate::error::{Error, ErrorCode};
use crate::limits;

/// Pause after an accept(2) that failed for lack of descriptors or memory. Who waits stays in the kernel's queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves previews until `drain`; what then still goes on is counted and ended with the API's connections.
pub(crate) async fn serve(listener: TcpListener, base: Base, shared: Arc<Shared>, drain: CancellationToken) {
    let base = Arc::new(base);
    let refreshed = Arc::new(Refreshed::default());
    let places = Arc::new(Places::bounded(
        limits::PREVIEW_CONNECTIONS_MAX,
        limits::PREVIEW_CONNECTIONS_PER_ADDRESS_MAX,
    ));
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Closed without a word: a TLS proxy in front of us answers 502 for it.
                let Some(place) = places.take(peer.ip()) else { continue };
                let visitor = Visitor {
                    base: Arc::clone(&base),
                    shared: Arc::clone(&shared),
                    address: peer.ip(),
                    keep: Keep::default(),
                    phases: Phases::default(),
                    refreshed: Arc::clone(&refreshed),
                };
                shared.tasks.spawn(visitor.run(stream, drain.clone(), place));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for a preview");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection.
struct Visitor {
    base: Arc<Base>,
    shared: Arc<Shared>,
    address: IpAddr,
    keep: Keep<Settled>,
    phases: Phases,
    refreshed: Arc<Refreshed>,
}

impl Visitor {
    async fn run(self, stream: TcpStream, drain: CancellationToken, _place: Place<IpAddr>) {
        let visitor = Arc::new(self);
        let abort = visitor.shared.abort.clone();
        let stream = Stalling::new(stream, visitor.phases.clone());
        let service = service_fn(move |request| answer(Arc::clone(&visitor), request));
        // No `half_close`: a client that says that it sends nothing more is taken to have left, as by other proxies.
        // Otherwise nobody would notice the reader of a silent stream of events that leaves: both look the same.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(limits::PREVIEW_IDLE_S))
            .max_buf_size(limits::PROXY_HEAD_BYTES_MAX)
            // What the server says of the time is passed on.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Some(Err(error)) = drive(connection, &drain, &abort).await {
            tracing::debug!(%error, "a preview's connection ended");
        }
    }

    async fn forward(&self, request: Request<Settled>) -> Result<Response<Incoming>, Error> {
        let authority = authority(&request)?.clone();
        let host = authority.to_str().map_err(|error| {
            Error::new(ErrorCode::PreviewHostUnknown, "no previews are served under this host name")
                .source(error)
        })?;
        let address = self.base.address(host)?;
        let preview =
            self.shared.state.sandboxes.preview(&address.sandbox, address.port, &address.token).await?;
        let told = Told { host: None, scheme: self.base.scheme(), authority, client: Some(self.address) };
        let target = Target {
            sandbox: preview.sandbox,
            port: address.port,
            wait: preview.wait,
            over: preview.over,
            told,
        };
        forward(&self.shared, &self.keep, target, request).await
    }
}

async fn answer(
    visitor: Arc<Visitor>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Noted<Incoming>>, Infallible> {
    let asked = Asked::of(request.method(), request.headers());
    let host = request.headers().get(header::HOST).cloned();
    let (head, body) = request.into_parts();
    let (body, answered) = visitor.phases.request(body);
    let request = Request::from_parts(head, Settled::new(body));
    let response = visitor.forward(request).await.unwrap_or_else(|refusal| {
        let refresh = page::passes(refusal.code) && visitor.refreshed.again(host.as_ref(), Instant::now());
        page::answer(&refusal, &asked, refresh)
    });
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        visitor.phases.set(Phase::Tunnel);
    }
    Ok(response.map(|body| Noted::new(body, answered)))
}
