//! What a client sees in place of an answer: a page for browsers, JSON for everybody else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, Response};
use bytes::Bytes;

use super::body::Incoming;
use crate::api::error;
use crate::api::request::{REQUEST_ID, RequestId};
use crate::error::{Error, ErrorCode};

/// Seconds after which a browser asks again for a server that is not there yet.
const RETRY_S: &str = "1";

/// For how long a page that is shown again and again goes on to ask: each request is a use of the sandbox, and a page
/// that somebody has forgotten would keep it awake for ever.
const REFRESHED: Duration = Duration::from_secs(60);

/// After so long without a request whoever asks next has loaded the page himself.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Hosts whose pages are remembered at the same time.
const PAGES_MAX: usize = 1024;

/// Which pages are being shown again and again: since when, and when last.
#[derive(Debug, Default)]
pub(super) struct Refreshed(Mutex<HashMap<Option<HeaderValue>, (Instant, Instant)>>);

impl Refreshed {
    /// Whether the page of this host, shown now, is to ask again by itself.
    pub(super) fn again(&self, host: Option<&HeaderValue>, now: Instant) -> bool {
        // Each step leaves a map: valid after any panic.
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|_, (_, last)| now.duration_since(*last) < FORGOTTEN);
        if pages.len() >= PAGES_MAX && !pages.contains_key(&host.cloned()) {
            return false;
        }
        let (since, last) = pages.entry(host.cloned()).or_insert((now, now));
        *last = now;
        now.duration_since(*since) < REFRESHED
    }
}

/// Whether asking again may help.
pub(crate) fn passes(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::PortClosed | ErrorCode::CapacityExhausted | ErrorCode::ShuttingDown)
}

/// Whether the connection ends with the refusal: the two sides may not agree on where the request ended.
pub(crate) fn ends_connection(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::InvalidRequest | ErrorCode::MethodNotAllowed)
}

/// Whether the client would show a page.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|one| one.trim_start().starts_with("text/html"))
}

/// What is needed of a request to answer its failure.
#[derive(Debug)]
pub(super) struct Asked {
    page: bool,
    safe: bool,
}

impl Asked {
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self { page: wants_page(headers), safe: *method == Method::GET }
    }
}

/// The answer for a failure; with `refresh` a page asks again by itself if that may help.
pub(super) fn answer(refusal: &Error, asked: &Asked, refresh: bool) -> Response<Incoming> {
    let id = RequestId::new();
    error::log(refusal, id.as_str());
    let body = error::body(refusal, id.as_str());
    let status = error::status(refusal.code);
    let again = passes(refusal.code);
    let (kind, bytes) = if asked.page {
        let refresh = if again && asked.safe && refresh {
            format!("<meta http-equiv=\"refresh\" content=\"{RETRY_S}\">")
        } else {
            String::new()
        };
        let text = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}<title>{title}</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}\
             small{{color:#777}}</style></head><body><h1>{title}</h1><p>{message}.</p><p>{hint}.</p>\
             <p><small>{code} · {id}</small></p></body></html>\n",
            title = status,
            message = escaped(&capitalised(&body.message)),
            hint = escaped(&capitalised(body.hint.as_deref().unwrap_or_default())),
            code = error::name(body.code),
            id = escaped(id.as_str()),
        );
        ("text/html; charset=utf-8", Bytes::from(text))
    } else {
        ("application/json", Bytes::from(serde_json::to_vec(&body).unwrap_or_default()))
    };
    let mut response = Response::new(Incoming::page(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    error::mark(headers, refusal.code);
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    if ends_connection(refusal.code) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if again {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_S));
    }
    response
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn page(accept: &str, error: Error) -> (Response<()>, String) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("header"));
        let (parts, body) = answer(&error, &Asked::of(&Method::GET, &headers), true).into_parts();
        let bytes = body.collect().await.expect("body").to_bytes();
        (Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn browsers_get_a_page_and_programs_json() {
        let closed = || Error::new(ErrorCode::PortClosed, "nobody <listens>");
        let (response, text) = page("text/html,application/xhtml+xml,*/*;q=0.8", closed()).await;
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["retry-after"], "1");
        assert!(
            text.contains("Nobody &lt;listens&gt;.") && text.contains("http-equiv=\"refresh\""),
            "{text}"
        );
        let (response, text) = page("*/*", closed()).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert!(text.starts_with("{\"code\":\"PORT_CLOSED\""), "{text}");
        let (response, text) = page("text/html", Error::new(ErrorCode::StalePreviewUrl, "gone")).await;
        assert_eq!(response.status(), 410);
        assert!(!text.contains("refresh") && !response.headers().contains_key("retry-after"), "{text}");
    }

    #[test]
    fn a_forgotten_page_stops_asking_and_one_that_is_loaded_again_begins_anew() {
        let (refreshed, begin) = (Refreshed::default(), Instant::now());
        let host = HeaderValue::from_static("8000-box-token.localhost");
        let at = |second| refreshed.again(Some(&host), begin + Duration::from_secs(second));
        assert!((0..60).all(at));
        assert!(!(60..200).any(at));
        assert!(refreshed.again(None, begin + Duration::from_secs(199)), "another host's page");
        assert!(at(209));
    }
}
