//! A request between two connections: for whom it is, what of it goes on, what is said in its name.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri, Version};

use super::super::connection::Goal;
use super::super::rule;
use crate::hops;

/// Says to a handler in which sandbox a request began.
pub(super) const SANDBOX: HeaderName = HeaderName::from_static("x-stockade-sandbox");

/// Says to a handler what was asked for, whole.
pub(super) const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-stockade-original-url");

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Scheme {
    /// In clear.
    Http,
    /// In TLS that was opened.
    Https,
}

impl Scheme {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Why a request is for nobody.
#[derive(Debug)]
pub(super) struct Malformed(pub(super) &'static str);

/// The host that a request is for, in the one form of names; `None` when it says none, or the address itself.
pub(super) fn host<B>(
    request: &Request<B>,
    goal: &Goal,
    scheme: Scheme,
) -> Result<Option<String>, Malformed> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Malformed("a request has one Host")),
        (Some(host), None) => {
            Some(host.to_str().map_err(|_| Malformed("the Host is not a name"))?.to_owned())
        }
        (None, None) => None,
    };
    let uri = request.uri();
    if request.method() != Method::CONNECT
        && let Some(authority) = uri.authority()
    {
        if uri.scheme_str() != Some(scheme.name()) {
            return Err(Malformed("the address of the request is not one of this connection"));
        }
        let same = header.as_deref().is_none_or(|host| host.eq_ignore_ascii_case(authority.as_str()));
        if !same {
            return Err(Malformed("the Host and the address of the request differ"));
        }
    }
    let text = header.or_else(|| uri.authority().map(ToString::to_string));
    text.map_or(Ok(None), |text| parse(&text, goal))
}

/// Refuses a body in a coding that would not be passed on with it.
pub(super) fn whole<B>(request: &Request<B>) -> Result<(), Malformed> {
    let known = hops::in_chunks(request.headers()).map(|_| ());
    known.ok_or(Malformed("the transfer coding of the body is not `chunked` alone"))
}

/// A Host header.
fn parse(text: &str, goal: &Goal) -> Result<Option<String>, Malformed> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    if let Some(port) = port
        && (port.parse() != Ok(goal.to.port()) || !port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(Malformed("the Host names another port"));
    }
    let bare = name.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return if address.to_canonical() == goal.to.ip() {
            Ok(None)
        } else {
            Err(Malformed("the Host is another address"))
        };
    }
    rule::name(name).map(Some).ok_or(Malformed("the Host is not a name"))
}

/// Makes a request one to a server instead of one through us. True when it wants to speak WebSocket afterwards. In
/// anything else that is switched to, `h2c` and the like, more requests could follow, and nobody would decide on them.
pub(super) fn prepare<B>(request: &mut Request<B>) -> Result<bool, Malformed> {
    let mut upgrades = request.headers().get_all(header::UPGRADE).iter();
    let is_websocket = |upgrade: &&HeaderValue| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket");
    let upgrade = upgrades.next().filter(is_websocket).filter(|_| upgrades.next().is_none());
    let upgrade = upgrade.filter(|_| hops::lists(request.headers(), &header::CONNECTION, "upgrade")).cloned();
    // In origin form, with the host where servers look for it.
    if let Some(authority) = request.uri().authority().cloned() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        // Nothing may be where the path would be: `http://host?query` (RFC 9112 §3.2.1).
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let uri = path.parse::<Uri>();
        *request.uri_mut() = uri.map_err(|_| Malformed("the address of the request has no path"))?;
    }
    *request.version_mut() = Version::HTTP_11;
    let chunked = hops::in_chunks(request.headers()) == Some(true);
    let upgrade = pass_on(request.headers_mut(), upgrade);
    if chunked {
        // Else hyper would take a GET for one without a body.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(upgrade)
}

/// Whether a server may send such a request back as it came: TRACE, what IIS makes of it, and both as servers write
/// them that do not tell letters' cases apart.
pub(super) fn is_echoed(method: &Method) -> bool {
    ["TRACE", "TRACK"].iter().any(|one| method.as_str().eq_ignore_ascii_case(one))
}

/// Takes out what is about the connection, but for what switches it to something else.
pub(super) fn pass_on(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) -> bool {
    hops::remove(headers);
    let Some(upgrade) = upgrade else { return false };
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, upgrade);
    true
}

/// Names the server as it is asked for outside.
pub(super) fn set_host(headers: &mut HeaderMap, host: &str, port: u16) {
    let text = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::HOST, value);
    }
}

/// What was asked for.
pub(super) fn original_url(scheme: Scheme, goal: &Goal, host: &str, path: &str) -> String {
    let port = if goal.to.port() == scheme.port() { String::new() } else { format!(":{}", goal.to.port()) };
    format!("{}://{host}{port}{path}", scheme.name())
}

/// Says whose a request is, and only we may.
pub(super) fn for_operator(headers: &mut HeaderMap, sandbox: &str, url: &str) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| hops::begins(name.as_str(), "x-stockade-")).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    for (name, text) in [(SANDBOX, sandbox), (ORIGINAL_URL, url)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
}

/// A server that was asked over TLS sends its clients to itself over TLS. They came in clear, and stay there.
pub(super) fn stay_inside(headers: &mut HeaderMap, host: &str, outside: u16, inside: u16) {
    let Some(to) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let Ok(url) = url::Url::parse(to) else { return };
    let same = url.scheme() == "https"
        && url.host_str().and_then(rule::name).as_deref() == Some(host)
        && url.port_or_known_default() == Some(outside)
        && url.username().is_empty()
        && url.password().is_none();
    if !same {
        return;
    }
    let port = if inside == 80 { String::new() } else { format!(":{inside}") };
    let rest = &url[url::Position::BeforePath..];
    if let Ok(value) = HeaderValue::from_str(&format!("http://{host}{port}{rest}")) {
        headers.insert(header::LOCATION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal() -> Goal {
        Goal::for_tests("9.9.9.9:8080".parse().expect("address"))
    }

    fn of(uri: &str, hosts: &[&str]) -> Result<Option<String>, &'static str> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        host(&request.body(()).expect("request"), &goal(), Scheme::Http).map_err(|Malformed(why)| why)
    }

    #[test]
    fn a_request_is_for_one_host_or_for_none() {
        assert_eq!(of("/", &["Ok.Test.:8080"]), Ok(Some("ok.test".to_owned())));
        assert_eq!(of("/", &["ok.test"]), Ok(Some("ok.test".to_owned())));
        assert_eq!(of("http://ok.test:8080/x", &["ok.test:8080"]), Ok(Some("ok.test".to_owned())));
        assert_eq!(of("http://ok.test:8080/x", &[]), Ok(Some("ok.test".to_owned())));
        assert_eq!((of("/", &["9.9.9.9"]), of("/", &[])), (Ok(None), Ok(None)));
        for (uri, hosts) in [
            ("/", &["ok.test", "evil.test"][..]),
            ("/", &["ok.test", "ok.test"]),
            ("http://evil.test/", &["ok.test"]),
            ("https://ok.test/", &["ok.test"]),
            ("/", &["ok.test:80"]),
            ("/", &["ok.test:+8080"]),
            ("/", &["9.9.9.8"]),
            ("/", &["0x9.9.9.9"]),
            ("/", &["ok.test evil.test"]),
            ("/", &["user@ok.test"]),
            ("/", &[""]),
        ] {
            assert!(of(uri, hosts).is_err(), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn what_is_switched_to_holds_no_more_requests() {
        let switches = |upgrades: &[&'static str]| {
            let mut request =
                Request::builder().uri("/").header(header::CONNECTION, "upgrade, http2-settings");
            for upgrade in upgrades {
                request = request.header(header::UPGRADE, *upgrade);
            }
            prepare(&mut request.body(()).expect("request")).expect("prepared")
        };
        assert!(switches(&["websocket"]) && switches(&["WebSocket"]));
        for upgrades in [
            &["h2c"][..],
            &["websocket, H2C"],
            &["HTTP/2.0"],
            &["TLS/1.0"],
            &["tcp"],
            &["websocket", "h2c"],
            &["websocket", "websocket"],
            &[],
        ] {
            assert!(!switches(upgrades), "{upgrades:?}");
        }
    }

    #[test]
    fn an_address_becomes_a_path() {
        let path = |uri: &str| {
            let mut request = Request::builder().uri(uri).body(()).expect("request");
            prepare(&mut request).map(|_| request.uri().to_string()).map_err(|Malformed(why)| why)
        };
        for (uri, wanted) in [
            ("http://ok.test:8080/a?b", "/a?b"),
            ("http://ok.test?x=1", "/?x=1"),
            ("http://ok.test", "/"),
            ("/a?b", "/a?b"),
            ("*", "*"),
        ] {
            assert_eq!(path(uri).as_deref(), Ok(wanted), "{uri}");
        }
    }

    #[test]
    fn whatever_is_echoed_is_known_in_any_spelling() {
        let known = |name: &str| is_echoed(&Method::from_bytes(name.as_bytes()).expect("method"));
        assert!(["TRACE", "trace", "TRACK", "Track"].into_iter().all(known));
        assert!(!["GET", "TRACES", "POST"].into_iter().any(known));
    }

    #[test]
    fn only_the_gateway_says_whose_a_request_is() {
        let mut headers = HeaderMap::new();
        for name in ["x-stockade-sandbox", "x_stockade_original_url", "x-stock"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("mine"));
        }
        let url = original_url(Scheme::Http, &goal(), "stub.test", "/a?b");
        for_operator(&mut headers, "box", &url);
        assert_eq!(headers[SANDBOX], "box");
        assert_eq!(headers[ORIGINAL_URL], "http://stub.test:8080/a?b");
        assert_eq!(headers.len(), 3, "{headers:?}");
    }

    #[test]
    fn redirects_to_where_a_request_really_went_stay_inside() {
        let go = |to: &'static str| {
            let mut headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(to))]);
            stay_inside(&mut headers, "ok.test", 443, 80);
            headers[header::LOCATION].to_str().expect("text").to_owned()
        };
        assert_eq!(go("https://ok.test/a?b"), "http://ok.test/a?b");
        assert_eq!(go("https://OK.test:443/"), "http://ok.test/");
        for other in
            ["https://ok.test:8443/", "https://evil.test/", "/a", "http://ok.test/", "https://ok.test.evil/"]
        {
            assert_eq!(go(other), other);
        }
    }
}
