//! Which headers pass, and what we say in their place (RFC 9110 §7.6).

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Request, Uri, Version};

use super::{Target, refuse_method, value};
use crate::error::{Error, ErrorCode};
use crate::hops;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const SANDBOX_NAME: HeaderName = HeaderName::from_static("x-sandbox-name");

/// How long a request through the API's socket may wait for somebody to listen, in milliseconds.
pub(crate) const WAIT: HeaderName = HeaderName::from_static("x-stockade-wait-ms");

/// What servers believe about where a request came from. Only we may say it.
fn is_ours(name: &str) -> bool {
    // X_Forwarded_For would be believed as well.
    let begins = |with| hops::begins(name, with);
    let is = |what| hops::same(name, what);
    begins("x-forwarded")
        || begins("x-original-")
        || begins("x-stockade-")
        || is("forwarded")
        || is("x-real-ip")
        || is("x-rewrite-url")
        || is("x-sandbox-name")
}

/// Whether the body comes in chunks. That anything else is said about its transfer is refused: it would be lost.
pub(super) fn framing<B>(request: &Request<B>) -> Result<bool, Error> {
    refuse_method(request.method())?;
    hops::in_chunks(request.headers()).ok_or_else(|| {
        Error::new(ErrorCode::InvalidRequest, "the transfer coding of the body is not passed on")
            .hint("send the body with `content-length`, or `transfer-encoding: chunked` and nothing else")
    })
}

/// Whether the headers agree on WebSocket (RFC 6455 §4.1). No other protocol is switched to: behind `h2c` further
/// requests would pass unseen.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let one = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    upgrades.next().is_some_and(one)
        && upgrades.next().is_none()
        && hops::lists(headers, &header::CONNECTION, "upgrade")
}

pub(super) fn wants_websocket<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && !request.headers().contains_key(header::CONTENT_LENGTH)
        && !request.headers().contains_key(header::TRANSFER_ENCODING)
        && is_websocket(request.headers())
}

fn upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// What the server gets to see.
pub(super) fn for_server(
    headers: &mut HeaderMap,
    target: &Target,
    uri: &Uri,
    chunked: bool,
    websocket: bool,
) -> Result<(), Error> {
    hops::remove(headers);
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name.as_str())).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    if chunked {
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if websocket {
        upgrade(headers);
    }
    let told = &target.told;
    if let Some(host) = &told.host {
        headers.insert(header::HOST, host.clone());
    }
    let path = uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
    // `OPTIONS *` is about the server, and has no path (RFC 9112 §3.2.4).
    let path = if path == "*" { "" } else { path };
    let authority = String::from_utf8_lossy(told.authority.as_bytes());
    headers.insert(ORIGINAL_URL, value(&format!("{}://{authority}{path}", told.scheme))?);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(told.scheme));
    headers.insert(FORWARDED_HOST, told.authority.clone());
    headers.insert(SANDBOX_NAME, value(target.sandbox.id().as_str())?);
    if let Some(client) = told.client {
        headers.insert(FORWARDED_FOR, value(&client.to_canonical().to_string())?);
    }
    Ok(())
}

/// What the client gets to see of the answer.
pub(super) fn for_client(headers: &mut HeaderMap, websocket: bool) {
    hops::remove(headers);
    // With these we tell failures of ours from the server's.
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| hops::begins(name.as_str(), "x-stockade-")).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    if websocket {
        upgrade(headers);
    }
    cookies_for_one_host(headers);
}

/// Takes `Domain` out of cookies: a preview's are its own, and not those of all previews beside it.
fn cookies_for_one_host(headers: &mut HeaderMap) {
    let names_domain = |attribute: &str| {
        attribute.split('=').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("domain"))
    };
    let is_wide = |cookie: &HeaderValue| {
        cookie
            .as_bytes()
            .split(|byte| *byte == b';')
            .skip(1)
            .any(|one| names_domain(&String::from_utf8_lossy(one)))
    };
    if !headers.get_all(header::SET_COOKIE).iter().any(is_wide) {
        return;
    }
    let header::Entry::Occupied(entry) = headers.entry(header::SET_COOKIE) else { return };
    let (name, cookies) = entry.remove_entry_mult();
    let cookies: Vec<HeaderValue> = cookies.collect();
    for cookie in cookies {
        let mut kept = Vec::new();
        for (index, part) in cookie.as_bytes().split(|byte| *byte == b';').enumerate() {
            if index == 0 || !names_domain(&String::from_utf8_lossy(part)) {
                kept.push(part);
            }
        }
        // Parts of a valid value are one.
        if let Ok(value) = HeaderValue::from_bytes(&kept.join(&b';')) {
            headers.append(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        headers
    }

    #[test]
    fn only_we_say_where_a_request_came_from() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-port",
            "x_forwarded_for",
            "x-forwarded",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "x-original-url",
            "x-original-host",
            "x-rewrite-url",
            "x-sandbox-name",
            "x_sandbox-name",
            "x-stockade-wait-ms",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["x-forward", "forwarded-for-me", "x-sandbox-name-2", "host", "cookie", "origin", "x"] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn only_websocket_is_switched_to() {
        let upgrade = |connection: &str, upgrade: &str| {
            is_websocket(&map(&[("connection", connection), ("upgrade", upgrade)]))
        };
        assert!(upgrade("Upgrade", "websocket"));
        assert!(upgrade("keep-alive, upgrade", "WebSocket"));
        for (connection, protocol) in
            [("keep-alive", "websocket"), ("upgrade", "h2c"), ("upgrade", "websocket, h2c"), ("upgrade", "")]
        {
            assert!(!upgrade(connection, protocol), "{connection} {protocol}");
        }
        let two = map(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")]);
        assert!(!is_websocket(&two));
        for (method, version, more, wanted) in [
            ("GET", Version::HTTP_11, None, true),
            ("POST", Version::HTTP_11, None, false),
            ("GET", Version::HTTP_10, None, false),
            ("GET", Version::HTTP_11, Some("content-length"), false),
        ] {
            let mut request = Request::builder().method(method).version(version);
            request = request.header("connection", "upgrade").header("upgrade", "websocket");
            if let Some(more) = more {
                request = request.header(more, "1");
            }
            assert_eq!(wants_websocket(&request.body(()).expect("request")), wanted, "{method} {more:?}");
        }
    }

    #[test]
    fn a_body_has_one_end() {
        let framing = |codings: &[&str]| {
            let mut request = Request::builder().method("POST");
            for coding in codings {
                request = request.header("transfer-encoding", *coding);
            }
            framing(&request.body(()).expect("request")).ok()
        };
        assert_eq!(framing(&[]), Some(false));
        assert_eq!(framing(&["chunked"]), Some(true));
        for bad in [&["gzip, chunked"][..], &["chunked", "chunked"], &["identity"], &["chunked, chunked"]] {
            assert_eq!(framing(bad), None, "{bad:?}");
        }
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        for_client(&mut headers, false);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn cookies_are_for_one_host() {
        let mut headers = map(&[
            ("set-cookie", "a=1; Path=/; Domain=localhost; Secure"),
            ("x-between", "1"),
            ("set-cookie", "domain=2; DOMAIN =x"),
            ("set-cookie", "c=3"),
        ]);
        for_client(&mut headers, false);
        let cookies: Vec<_> =
            headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text")).collect();
        assert_eq!(cookies, ["a=1; Path=/; Secure", "domain=2", "c=3"]);
    }
}
