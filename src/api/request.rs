//! What every request gets: an id, a caught panic, and errors as JSON with one line in the log.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::Incoming;
use tower::Service;

use super::error::{self, Refused};
use super::{Shared, audit};
use crate::error::{Error, ErrorCode};
use crate::sandbox::Caller;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of an id that a client may choose.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The name of a request in its answer and in the log.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The client's, if it is one that can stand in a log line, or a new one.
    fn of<B>(request: &Request<B>) -> Self {
        let wanted = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match wanted {
            Some(id) if !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(allowed) => {
                Self(id.into())
            }
            _ => Self::new(),
        }
    }

    /// An id that no other request of this host has had lately.
    pub(crate) fn new() -> Self {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{:08x}-{number:06x}", *PROCESS & 0xffff_ffff).into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Marks the answer of a server in a sandbox: what it calls the request stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed;

/// Answers one request of a caller.
pub(super) async fn answer(
    shared: Arc<Shared>,
    router: Router,
    caller: Arc<Caller>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let id = RequestId::of(&request);
    tracing::debug!(
        request_id = id.as_str(),
        uid = caller.uid,
        method = %request.method(),
        path = request.uri().path(),
        "request"
    );
    let began = Instant::now();
    let operation = shared.operations.find(request.method(), request.uri().path());
    let name = operation.as_ref().map(|operation| Arc::clone(&operation.name));
    let request = request.map(Body::new);
    let response = match audit::note(&shared, operation, request) {
        Ok((noted, request)) => {
            let response = route(router, &caller, &id, request).await;
            if let Some(noted) = noted {
                audit::write(&shared, &caller, noted, &id, &response);
            }
            response
        }
        Err(refusal) => Refused(refusal).into_response(),
    };
    if let Some(name) = name {
        let refusal = response.extensions().get::<Arc<Error>>().map(|error| error.code);
        shared.metrics.count(&name, refusal, began.elapsed());
    }
    Ok(finish(response, &id))
}

async fn route(
    mut router: Router,
    caller: &Arc<Caller>,
    id: &RequestId,
    mut request: Request<Body>,
) -> Response {
    request.extensions_mut().insert(Arc::clone(caller));
    request.extensions_mut().insert(id.clone());
    match AssertUnwindSafe(router.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Refused(
            Error::new(ErrorCode::Internal, "the daemon failed on this request")
                .hint("this is a bug; the daemon's log has more under the request id"),
        )
        .into_response(),
    }
}

/// Writes out an error that a route left in the response, and names the request.
fn finish(mut response: Response, id: &RequestId) -> Response {
    if let Some(refusal) = response.extensions_mut().remove::<Arc<Error>>() {
        error::log(&refusal, id.as_str());
        let written = error::response(&refusal, id.as_str());
        // The router knew the response as empty and said so.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(written.headers().clone());
        *response.body_mut() = written.into_body();
    }
    let passed = response.extensions_mut().remove::<Passed>().is_some();
    if let Ok(value) = HeaderValue::from_str(id.as_str())
        && !(passed && response.headers().contains_key(REQUEST_ID))
    {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_names_its_request_unless_the_name_would_spoil_the_log() {
        for (wanted, taken) in
            [("trace-1.a_B", true), ("", false), ("a b", false), ("a\tb", false), (&"x".repeat(65), false)]
        {
            let request = Request::builder().header("x-request-id", wanted).body(()).expect("request");
            assert_eq!(RequestId::of(&request).as_str() == wanted, taken, "{wanted:?}");
        }
        let request = Request::new(());
        assert_ne!(RequestId::of(&request).as_str(), RequestId::of(&request).as_str());
    }
}
