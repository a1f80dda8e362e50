//! Headers that are about one connection and not about the request (RFC 9110 §7.6): whoever passes a request or an
//! answer on takes them out. And what becomes of a body that is not passed on.

use std::pin::pin;
use std::time::Duration;

use bytes::Buf;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName};

/// How much of a body that nobody wants is read and dropped, and for how long.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Of the RFC, and those that proxies and clients have made up since. `expect` is answered by whoever reads the body.
const HOPS: [HeaderName; 11] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Reads and drops the rest of a body that was refused before it came: a client that sends all of it before it reads
/// would otherwise see a broken connection in place of the answer.
pub async fn drain<B: Body>(body: B) {
    let mut body = pin!(body);
    let all = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Buf::remaining);
            let Some(rest) = left.checked_sub(bytes) else { return };
            left = rest;
        }
    };
    // Whether it came to its end does not matter.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
}

/// Takes out what is about the connection, what `connection` names included.
pub fn remove(headers: &mut HeaderMap) {
    // Of two statements about the body's end hyper has believed this one (RFC 9112 §6.3); the other must not pass.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // How the body ends, and for whom the request is, cannot be taken from it.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in HOPS.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Whether a request's body comes in chunks. `None` when anything else is said about its transfer: passed on without
/// those words, it would be another body.
pub fn in_chunks(headers: &HeaderMap) -> Option<bool> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Some(false),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Some(true),
        _ => None,
    }
}

/// Whether the names in a header of lists hold this one.
pub fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
}

/// Whether two names are the same to a server: CGI and WSGI make a `-` of `_`.
pub fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && begins(one, other)
}

/// Whether a name begins so, for a server.
pub fn begins(name: &str, with: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() >= with.len() && name.bytes().zip(with.bytes()).all(|(a, b)| plain(a) == plain(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn kept(pairs: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove(&mut headers);
        let mut kept: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn what_is_about_the_connection_stays_there() {
        let all = [
            ("connection", "close, X-Mine"),
            ("connection", "content-length, host, te"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("expect", "100-continue"),
            ("content-length", "3"),
            ("host", "a"),
            ("x-other", "2"),
        ];
        assert_eq!(kept(&all), ["content-length", "host", "x-other"]);
        assert_eq!(
            kept(&[("transfer-encoding", "chunked"), ("content-length", "3"), ("host", "a")]),
            ["host"]
        );
    }

    #[test]
    fn names_are_the_same_as_servers_see_them() {
        assert!(same("x-api-key", "x_api-key") && begins("x_stockade_a", "x-stockade-"));
        assert!(!same("x-api-key", "x-api-key2") && !begins("x-stock", "x-stockade-"));
    }
}
