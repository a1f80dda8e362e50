//! HTTP without TLS: every request is decided on by itself, because the next one on the same connection may be for
//! somebody else.
//!
//! ```text
//! sandbox ─ request ─▶ which host? ─ policy::said ─┬─▶ a connection to the address that was decided on
//!                        │ two, none, CONNECT       └─▶ 403, with the rule and the smallest change
//!                        └─▶ 400
//! ```
//!
//! Requests are parsed and written anew: what reaches a server is what was decided on (request smuggling). A
//! connection to a server belongs to one connection of one sandbox.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::audit::About;
use super::connection::{Goal, forbidden, reach};
use super::member::Member;
use super::policy::{self, Spoken, Verdict};
use super::{Gateway, rule};
use crate::wire::gateway::{Policy, Subject};

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a head, and headers in it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 200;

/// Says which rule refused a request.
const DENIED: HeaderName = HeaderName::from_static("x-stockade-denied");

/// Headers that are about one connection (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

type Body = Either<Incoming, Full<Bytes>>;

/// One connection out of a sandbox that speaks HTTP.
struct Web {
    gateway: Arc<Gateway>,
    member: Arc<Member>,
    goal: Goal,
    server: Mutex<Option<SendRequest<Incoming>>>,
    /// The host that the last request was for, to be decided on again when the policy changes.
    last: std::sync::Mutex<Option<Option<String>>>,
}

/// Serves the connection; `first` was read from it.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    first: Vec<u8>,
    goal: Goal,
) {
    let web = Arc::new(Web {
        gateway: Arc::clone(gateway),
        member: Arc::clone(member),
        goal,
        server: Mutex::new(None),
        last: std::sync::Mutex::new(None),
    });
    let handler = Arc::clone(&web);
    let service = service_fn(move |request| {
        let web = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(web.answer(request).await) }
    });
    let connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(Rewound { first: first.into(), stream }), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(id = %web.member.id, %error, "http");
            }
        }
        () = forbidden(member, |policy| web.still_allowed(policy)) => {}
    }
}

/// Why a request is for nobody.
struct Malformed(&'static str);

impl Web {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let host = match host(&request, &self.goal) {
            Ok(host) => host,
            Err(Malformed(why)) => {
                let verdict = Verdict { allowed: false, rule: why.to_owned(), fix: None };
                self.record(None, &verdict);
                return answer(StatusCode::BAD_REQUEST, "BAD_REQUEST", &verdict);
            }
        };
        if request.method() == Method::CONNECT {
            let rule = "CONNECT is not forwarded: connect to the host itself".to_owned();
            let verdict = Verdict { allowed: false, rule, fix: None };
            self.record(host.as_deref(), &verdict);
            return answer(StatusCode::FORBIDDEN, "NETWORK_DENIED", &verdict);
        }
        let verdict = self.decide(&self.member.policy(), host.as_deref());
        self.record(host.as_deref(), &verdict);
        if !verdict.allowed {
            return answer(StatusCode::FORBIDDEN, "NETWORK_DENIED", &verdict);
        }
        *lock(&self.last) = Some(host);
        let upgrade = prepare(&mut request);
        match self.forward(request, upgrade).await {
            Some(response) => response,
            None => {
                let rule = format!("{} does not accept, or does not speak HTTP", self.goal.to);
                answer(StatusCode::BAD_GATEWAY, "UNREACHABLE", &Verdict { allowed: true, rule, fix: None })
            }
        }
    }

    fn decide(&self, policy: &Policy, host: Option<&str>) -> Verdict {
        policy::said(policy, &self.gateway.start.open, &self.goal.way(), Spoken::Http, host)
    }

    fn still_allowed(&self, policy: &Policy) -> bool {
        match &*lock(&self.last) {
            Some(host) => self.decide(policy, host.as_deref()).allowed,
            // Nothing was allowed yet; what comes is decided on then.
            None => true,
        }
    }

    fn record(&self, host: Option<&str>, verdict: &Verdict) {
        let about = About {
            subject: Subject::Request,
            host,
            address: Some(self.goal.to.ip()),
            port: Some(self.goal.to.port()),
            protocol: Spoken::Http.name(),
        };
        self.member.audit.record(about, verdict);
    }

    /// Sends a request on, over the connection of the one before it if that still stands.
    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        upgrade: bool,
    ) -> Option<Response<Body>> {
        let ours = upgrade.then(|| hyper::upgrade::on(&mut request));
        let mut server = self.server.lock().await;
        let ready = match &mut *server {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            *server = Some(self.connect().await?);
        }
        let sender = server.as_mut()?;
        let mut response = sender.send_request(request).await.ok()?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let theirs = hyper::upgrade::on(&mut response);
            // Another request on this connection would not be one.
            *server = None;
            if let Some(ours) = ours {
                tokio::spawn(switch(Arc::clone(self), ours, theirs));
            }
            return Some(response.map(Either::Left));
        }
        remove_hop_by_hop(response.headers_mut(), false);
        *response.version_mut() = Version::HTTP_11;
        Some(response.map(Either::Left))
    }

    async fn connect(&self) -> Option<SendRequest<Incoming>> {
        let stream = reach(&self.member, &self.goal).await?;
        let stream = Counted { member: Arc::clone(&self.member), stream, pause: None };
        let (sender, connection) = client::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .ok()?;
        let end = self.member.end.clone();
        tokio::spawn(async move {
            tokio::select! {
                // What goes wrong here, the sender sees as well.
                _ = connection.with_upgrades() => {}
                () = end.cancelled() => {}
            }
        });
        Some(sender)
    }
}

/// Both ends have switched to something else: bytes from here on, as long as the request would be allowed.
async fn switch(web: Arc<Web>, ours: hyper::upgrade::OnUpgrade, theirs: hyper::upgrade::OnUpgrade) {
    let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else { return };
    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
        () = web.member.end.cancelled() => {}
        () = forbidden(&web.member, |policy| web.still_allowed(policy)) => {}
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // One assignment: valid after any panic.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The host that a request is for, in the one form of names; `None` when it says none, or the address itself.
fn host<B>(request: &Request<B>, goal: &Goal) -> Result<Option<String>, Malformed> {
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
        if uri.scheme_str() != Some("http") {
            return Err(Malformed("only http:// is forwarded here"));
        }
        let same = header.as_deref().is_none_or(|host| host.eq_ignore_ascii_case(authority.as_str()));
        if !same {
            return Err(Malformed("the Host and the address of the request differ"));
        }
    }
    let text = header.or_else(|| uri.authority().map(ToString::to_string));
    text.map_or(Ok(None), |text| parse(&text, goal))
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

/// Makes a request one to a server instead of one through us. True when it wants to speak something else afterwards.
fn prepare(request: &mut Request<Incoming>) -> bool {
    let wants = request.headers().get(header::CONNECTION).and_then(|value| value.to_str().ok());
    let upgrade = request.headers().contains_key(header::UPGRADE)
        && wants.is_some_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case("upgrade")));
    // In origin form, with the host where servers look for it.
    if let Some(authority) = request.uri().authority().cloned() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if let Ok(uri) = path.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    *request.version_mut() = Version::HTTP_11;
    // Our end has said that it may go on.
    request.headers_mut().remove(header::EXPECT);
    remove_hop_by_hop(request.headers_mut(), upgrade);
    upgrade
}

fn remove_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::UPGRADE && *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
}

/// An answer of our own.
fn answer(status: StatusCode, code: &str, verdict: &Verdict) -> Response<Body> {
    let body = serde_json::json!({
        "code": code,
        "message": format!("the sandbox's network policy: {}", verdict.rule),
        "rule": verdict.rule,
        "hint": verdict.fix,
    });
    let mut response = Response::new(Either::Right(Full::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !verdict.allowed {
        let rule = HeaderValue::from_str(&verdict.rule);
        headers.insert(DENIED, rule.unwrap_or(HeaderValue::from_static("policy")));
    }
    // What else was sent on this connection was meant for somebody else.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A stream with its first bytes put back.
struct Rewound {
    first: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            let part = self.first.split_to(length);
            buffer.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A stream to a server, whose bytes are counted and paid for.
struct Counted {
    member: Arc<Member>,
    stream: TcpStream,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Counted {
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn pay(&mut self, bytes: usize) {
        let pause = self.member.pause_after(bytes);
        self.pause = pause.map(|pause| Box::pin(tokio::time::sleep(pause)));
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.wait(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let length = buffer.filled().len() - before;
        self.member.audit.received.fetch_add(length as u64, Ordering::Relaxed);
        self.pay(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.wait(context));
        let length = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.member.audit.sent.fetch_add(length as u64, Ordering::Relaxed);
        self.pay(length);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
        host(&request.body(()).expect("request"), &goal()).map_err(|Malformed(why)| why)
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
}
