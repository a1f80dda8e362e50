//! Requests on their way into a sandbox: to a server that listens on one of its ports.
//!
//! ```text
//! browser ─TCP─▶ listen ─▶ host: {port}-{sandbox}-{token} ─▶ Sandboxes::preview ─┐
//! client ─Unix socket─▶ ports: /v1/sandboxes/{id}/ports/{port}/proxy/… ──────────┴▶ forward
//!                                                                                    ├ headers    what passes, what we say
//!                                                                                    ├ upstream   a connection, the answer
//!                                                                                    └ tunnel     WebSocket: bytes both ways
//! ```
//!
//! Invariants:
//! - The host name is parsed in `host` alone, and nothing but port, sandbox and token comes out of it. What is dialled is
//!   a number on the loopback of that sandbox; no name is resolved, no address of the host is ever connected to.
//! - Both sides are parsed and written anew by hyper: no byte of a head is passed on as it came, and how a body ends is
//!   said once. What it takes for ambiguous ends the connection.
//! - A connection into a sandbox serves the requests of one client's connection, never those of another one.
//! - Nothing is stored: a body waits in the sender's socket while the receiver does not read.
//!
//! Why not a pool of connections into each sandbox: whatever one client could leave behind on a connection would be
//! another client's answer (CVE-2025-4366). A client that keeps its connection keeps ours too, which is as fast.

mod body;
mod headers;
mod host;
mod listen;
mod page;
mod phase;
mod stall;
mod tunnel;
mod upstream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{self, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use hyper::body::Body;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::error::{Error, ErrorCode};
use crate::limits::PREVIEW_TUNNEL_IDLE_S;
use crate::sandbox::Sandbox;
pub(super) use body::Incoming;
use body::Outgoing;
pub(super) use headers::WAIT;
pub(super) use host::number;
pub use host::{BadBase, Base};
pub(super) use listen::serve;
pub(super) use page::{ends_connection, passes};
pub(super) use tunnel::{Ends, tunnel};
pub(super) use upstream::Keep;

/// What a body of a request may fail with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a request goes, and on whose behalf.
#[derive(Debug)]
pub(super) struct Target {
    /// Into which sandbox.
    pub(super) sandbox: Arc<Sandbox>,
    /// To which of its ports.
    pub(super) port: u16,
    /// How long to wait for somebody to listen there.
    pub(super) wait: Duration,
    /// Cancelled when whoever asks may no longer.
    pub(super) over: CancellationToken,
    /// What the server is told.
    pub(super) told: Told,
}

/// What the server learns of the request that reached us.
#[derive(Debug)]
pub(super) struct Told {
    /// The host by which it goes; what the client sent otherwise.
    pub(super) host: Option<HeaderValue>,
    /// `http` or `https`, as the client sees it.
    pub(super) scheme: &'static str,
    /// The host as the client sees it.
    pub(super) authority: HeaderValue,
    /// Where the client is, if it is anywhere.
    pub(super) client: Option<IpAddr>,
}

/// Passes a request into a sandbox and its answer back.
///
/// # Errors
/// `INVALID_REQUEST` for what is not passed on, and what the sandbox or its server fail with.
pub(super) async fn forward<B>(
    shared: &Shared,
    keep: &Keep<B>,
    target: Target,
    mut request: Request<B>,
) -> Result<Response<Incoming>, Error>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let chunked = headers::framing(&request)?;
    let upgrade = headers::wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    headers::for_server(&mut parts.headers, &target, &parts.uri, chunked, upgrade.is_some())?;
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
    // What else is attached to it is about the connection that it came by.
    parts.extensions.clear();
    let exchange = upstream::exchange(keep, &target, Request::from_parts(parts, Outgoing::new(body)));
    let (mut response, connection_ended) = tokio::select! {
        biased;
        answered = exchange => answered?,
        () = target.over.cancelled() => return Err(revoked()),
    };
    // How hyper ends the body towards the client depends on the client's version alone.
    *response.version_mut() = Version::HTTP_11;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::for_client(response.headers_mut(), false);
        return Ok(response.map(|body| Incoming::server(body, target.over)));
    }
    let Some(client) = upgrade.filter(|_| headers::is_websocket(response.headers())) else {
        return Err(Error::new(
            ErrorCode::ServiceFailed,
            "the server switches to a protocol that was not asked for",
        ));
    };
    let server = hyper::upgrade::on(&mut response);
    headers::for_client(response.headers_mut(), true);
    let ends = Ends {
        over: target.over,
        abort: shared.abort.clone(),
        idle: Some(Duration::from_secs(PREVIEW_TUNNEL_IDLE_S)),
    };
    shared.tasks.spawn(tunnel::upgraded(client, server, ends, connection_ended));
    Ok(response.map(|_| Incoming::nothing()))
}

fn revoked() -> Error {
    Error::new(ErrorCode::InvalidToken, "the address of this preview was revoked or changed meanwhile")
}

/// The target as a server that is no proxy expects it (RFC 9112 §3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// Methods that mean something to a proxy itself (RFC 9110 §9.3.6, §9.3.8).
fn refuse_method(method: &Method) -> Result<(), Error> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Error::new(ErrorCode::MethodNotAllowed, "this method is not passed into a sandbox")
            .hint("`stockade forward` carries any protocol to a port"));
    }
    Ok(())
}

/// A header of ours, in which there may be something of the client's.
fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|error| {
        Error::new(ErrorCode::InvalidRequest, "the host or path holds what a header cannot")
            .hint("percent-encode it")
            .source(error)
    })
}

/// The one host that a request names (RFC 9112 §3.2): in the header and, where the target is absolute, there too.
pub(super) fn authority<B>(request: &Request<B>) -> Result<&HeaderValue, Error> {
    let refuse = |what| {
        Err(Error::new(ErrorCode::InvalidRequest, what).hint("send one header `host`, equal to the URL's"))
    };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return refuse("the request must name one host");
    };
    match request.uri().authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            refuse("the request names two hosts")
        }
        _ => Ok(host),
    }
}
