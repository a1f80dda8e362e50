//! HTTP as registries speak it, and whom we may speak it to.
//!
//! A registry chooses where we go next: by redirects of blobs, and by the realm of its token server. So every
//! connection passes one dialer, which looks at addresses and not at names (a name can resolve to anything):
//! the registry that the user named may be anywhere; another host may be on the public network, or as near to us
//! as the registry itself is, not nearer. Link-local addresses, where clouds keep their metadata, are never dialed.
//!
//! Names are resolved by `hickory-resolver`: glibc's resolver loads libraries at run time, which a static
//! executable cannot.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::limits::{CONNECT_TIMEOUT_S, IDLE_TIMEOUT_S};
use crate::tls::{self, Stream};

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// No connection.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The connection broke, or what came over it is not HTTP.
    #[error("connection to {host}: {source}")]
    Connection {
        /// Whom to.
        host: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came for too long.
    #[error("{0} did not answer within {IDLE_TIMEOUT_S} seconds")]
    Timeout(String),
    /// More than we read of such an answer.
    #[error("{host} answered with more than {max} bytes")]
    TooLarge {
        /// Who.
        host: String,
        /// The bound.
        max: usize,
    },
    /// Certificates that are none.
    #[error("the additional certificates: {0}")]
    Certificates(String),
}

/// Why there was no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address.
    #[error("cannot resolve {host}: {why}")]
    Resolve {
        /// Which name.
        host: String,
        /// The resolver's reason.
        why: String,
    },
    /// The address is not one that a registry may send us to.
    #[error("{host} is at {address}, where the registry may not send us")]
    Forbidden {
        /// Which name.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// Nobody accepts.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Whom to.
        host: String,
        /// The kernel's reason.
        why: String,
    },
    /// The other end is not who it should be.
    #[error("no TLS with {host}: {why}")]
    Tls {
        /// Whom with.
        host: String,
        /// The reason.
        why: String,
    },
    /// The other end answers with something else.
    #[error("{host} does not speak TLS: {why}")]
    NoTls {
        /// Whom with.
        host: String,
        /// The reason.
        why: String,
    },
}

impl HttpError {
    /// Another attempt may go better.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Dial(DialError::Connect { .. } | DialError::Resolve { .. }) => true,
            Self::Connection { .. } | Self::Timeout(_) => true,
            Self::Dial(_) | Self::TooLarge { .. } | Self::Certificates(_) => false,
        }
    }
}

/// A client for one registry, or another server, and whom it sends us to.
#[derive(Clone, Debug)]
pub(super) struct HttpClient(Client<Connector, Full<Bytes>>);

impl HttpClient {
    /// Reads the host's certificates and resolver settings: do this before the file system is closed off.
    pub(super) fn new(registry: &Url, ca_pem: Option<&str>) -> Result<Self, HttpError> {
        let resolver = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
        let dialer = Dialer {
            resolver: resolver.map_err(|error| error.to_string()),
            registry: registry.host_str().unwrap_or_default().to_owned(),
            port: registry.port_or_known_default().unwrap_or(443),
        };
        let tls = Arc::new(tls::client(ca_pem).map_err(HttpError::Certificates)?);
        let connector = Connector { tls: TlsConnector::from(tls), dialer: Arc::new(dialer) };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_TIMEOUT_S))
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let limit = Duration::from_secs(CONNECT_TIMEOUT_S + IDLE_TIMEOUT_S);
        match tokio::time::timeout(limit, self.0.request(request)).await {
            Err(_) => Err(HttpError::Timeout(host)),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => match dial_error(&error) {
                Some(dial) => Err(HttpError::Dial(dial)),
                None => Err(HttpError::Connection { host, source: error.into() }),
            },
        }
    }
}

fn dial_error(error: &(dyn std::error::Error + 'static)) -> Option<DialError> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial.clone());
        }
        source = error.source();
    }
    None
}

/// The next piece of a body, `None` at its end.
pub(super) async fn next_piece(host: &str, body: &mut Incoming) -> Result<Option<Bytes>, HttpError> {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(IDLE_TIMEOUT_S), body.frame());
        match frame.await {
            Err(_) => return Err(HttpError::Timeout(host.to_owned())),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(HttpError::Connection { host: host.to_owned(), source: error.into() });
            }
            // Trailers are not ours to read.
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// A whole body of at most `max` bytes.
pub(super) async fn whole_body(host: &str, mut body: Incoming, max: usize) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(piece) = next_piece(host, &mut body).await? {
        if bytes.len() + piece.len() > max {
            return Err(HttpError::TooLarge { host: host.to_owned(), max });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// How near an address is. The order is the rule: a registry may send us as near as it is itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Public,
    Private,
    Loopback,
}

/// `None` is never dialed: link-local (metadata services), multicast, unspecified, reserved.
fn reach(address: IpAddr) -> Option<Reach> {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            if v4.is_loopback() {
                Some(Reach::Loopback)
            } else if v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || first == 0
                || first >= 240
            {
                None
            } else if v4.is_private() || (first == 100 && (64..128).contains(&second)) {
                // The second is shared address space (RFC 6598), private in practice.
                Some(Reach::Private)
            } else {
                Some(Reach::Public)
            }
        }
        IpAddr::V6(v6) => {
            if v6.is_loopback() {
                Some(Reach::Loopback)
            } else if v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() {
                None
            } else if v6.is_unique_local() {
                Some(Reach::Private)
            } else {
                Some(Reach::Public)
            }
        }
    }
}

#[derive(Debug)]
struct Dialer {
    resolver: Result<TokioResolver, String>,
    registry: String,
    port: u16,
}

impl Dialer {
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        // As in URLs, IPv6 in brackets.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // Answered here, as RFC 6761 §6.3 wants it: no resolver is asked about it.
        if bare.eq_ignore_ascii_case("localhost") {
            let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
            return Ok(loopback.map(|address| SocketAddr::new(address, port)).to_vec());
        }
        let failed = |why: String| DialError::Resolve { host: host.to_owned(), why };
        let resolver = self.resolver.as_ref().map_err(|why| failed(why.clone()))?;
        let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
        let found = tokio::time::timeout(limit, resolver.lookup_ip(bare)).await;
        let found =
            found.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(error.to_string()))?;
        Ok(found.iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let addresses = self.addresses(host, port).await?;
        let nearest = if host == self.registry {
            Reach::Loopback
        } else {
            let own = self.addresses(&self.registry, self.port).await?;
            own.iter().filter_map(|address| reach(address.ip())).min().unwrap_or(Reach::Public)
        };
        let mut last = DialError::Resolve { host: host.to_owned(), why: "it has no address".to_owned() };
        for address in addresses {
            if reach(address.ip()).is_none_or(|reach| reach > nearest) {
                last = DialError::Forbidden { host: host.to_owned(), address: address.ip() };
                continue;
            }
            let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
            let why = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            last = DialError::Connect { host: host.to_owned(), why };
        }
        Err(last)
    }
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    dialer: Arc<Dialer>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connector").field(&self.dialer).finish()
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, DialError> {
        let host = uri.host().unwrap_or_default();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = self.dialer.dial(host, port).await?;
        // Requests are small and wait for an answer; a failure here only costs time.
        let _ = stream.set_nodelay(true);
        if !secure {
            return Ok(Stream::Plain(stream));
        }
        let failed = |why: String| DialError::Tls { host: host.to_owned(), why };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|error| failed(error.to_string()))?;
        let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
        match tokio::time::timeout(limit, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) if is_other_protocol(&error) => {
                Err(DialError::NoTls { host: host.to_owned(), why: error.to_string() })
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("it takes too long".to_owned())),
        }
    }
}

/// Whether a handshake failed because the other end said something that is no TLS, or hung up on it. A certificate
/// that does not fit is another matter: there plain HTTP would be what an attacker wants.
fn is_other_protocol(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(error) => matches!(error, rustls::Error::InvalidMessage(_)),
        None => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
    }
}

/// Whether a host is this machine by its name alone.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_reach_that_decides_whether_they_are_dialed() {
        for (address, expected) in [
            ("127.0.0.1", Some(Reach::Loopback)),
            ("::1", Some(Reach::Loopback)),
            ("::ffff:127.0.0.1", Some(Reach::Loopback)),
            ("10.1.2.3", Some(Reach::Private)),
            ("100.64.0.1", Some(Reach::Private)),
            ("192.168.0.1", Some(Reach::Private)),
            ("fd00::1", Some(Reach::Private)),
            ("1.1.1.1", Some(Reach::Public)),
            ("2606:4700::1111", Some(Reach::Public)),
            ("169.254.169.254", None),
            ("::ffff:169.254.169.254", None),
            ("fe80::1", None),
            ("0.0.0.0", None),
            ("::", None),
            ("224.0.0.1", None),
        ] {
            assert_eq!(reach(address.parse().expect(address)), expected, "{address}");
        }
    }
}
