//! Headers that are about one connection and not about the request (RFC 9110 §7.6): whoever passes a request or an
//! answer on takes them out.

use hyper::header::{self, HeaderMap, HeaderName};

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
