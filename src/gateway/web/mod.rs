//! HTTP, in clear or in TLS that was opened: every request is decided on by itself, because the next one on the same
//! connection may be for somebody else.
//!
//! ```text
//! sandbox ─ request ─▶ which host? ─ policy::said ─┬─▶ route: as it came │ verified TLS │ handler
//!                        │ two, none, CONNECT       │      └ credential, if this host has one
//!                        └─▶ 400                    └─▶ 403, with the rule and the smallest change
//! ```
//!
//! Requests are parsed and written anew: what reaches a server is what was decided on (request smuggling). A
//! connection to a server belongs to one connection of one sandbox, and to one host: a credential goes nowhere else.

mod request;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::audit::About;
use super::bodies::{Places, Sent, in_time};
use super::connection::{Goal, forbidden};
use super::credential;
use super::member::Member;
use super::policy::{self, Spoken, Verdict};
use super::streams::Watched;
use super::trouble::Trouble;
use super::upstream::{self, Route};
use super::{Gateway, hosts};
use crate::hops::drain;
use crate::limits::EGRESS_FIRST_BYTE_TIMEOUT_S;
use crate::wire::gateway::{Credential, Host, Policy, Subject};
use request::Malformed;
pub(super) use request::Scheme;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection whose client has closed its half is kept while nothing moves.
const GRACE: Duration = Duration::from_secs(60);

/// Bytes of a head, and headers in it.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
pub(super) const HEADERS_MAX: usize = 200;

/// Says which rule refused a request.
const DENIED: HeaderName = HeaderName::from_static("x-stockade-denied");

type Body = Either<Incoming, Full<Bytes>>;

/// How a connection came: in clear, or in TLS for a name.
#[derive(Clone, Debug)]
pub(super) struct Came {
    pub(super) scheme: Scheme,
    /// What TLS said; every request is for it.
    pub(super) name: Option<String>,
    /// The connection below.
    pub(super) watched: Watched,
}

/// Where the last request went.
struct Server {
    route: Route,
    /// The host that it was for.
    host: Option<String>,
    sender: SendRequest<Sent>,
}

/// One connection out of a sandbox that speaks HTTP.
struct Web {
    gateway: Arc<Gateway>,
    member: Arc<Member>,
    goal: Goal,
    came: Came,
    server: Mutex<Option<Server>>,
    /// The host that the last request was for, to be decided on again when the policy changes.
    last: std::sync::Mutex<Option<Option<String>>>,
    /// What comes after HTTP, if both ends have agreed on something else.
    switched: std::sync::Mutex<Option<Switched>>,
}

/// A connection that speaks something else than HTTP from here on.
struct Switched {
    ours: OnUpgrade,
    theirs: OnUpgrade,
    /// What was done with the request that began it. Nothing else may be, as long as it lasts.
    done: Done,
}

/// What is done with a host's requests.
#[derive(Clone, PartialEq)]
struct Done {
    host: Option<Host>,
    credential: Option<Credential>,
}

/// Serves the connection.
pub(super) async fn serve<S>(gateway: &Arc<Gateway>, member: &Arc<Member>, stream: S, goal: Goal, came: Came)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let web = Arc::new(Web {
        gateway: Arc::clone(gateway),
        member: Arc::clone(member),
        goal,
        came,
        server: Mutex::new(None),
        last: std::sync::Mutex::new(None),
        switched: std::sync::Mutex::new(None),
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
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(id = %web.member.id, %error, "http");
            }
        }
        // hyper does not look for it while it waits for an answer.
        () = web.came.watched.gone(GRACE) => return,
        () = forbidden(member, |policy| web.still_allowed(policy)) => return,
    }
    let switched = lock(&web.switched).take();
    if let Some(switched) = switched {
        web.pass(switched).await;
    }
}

impl Web {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let policy = self.member.policy();
        let (host, upgrade) = match self.judge(&policy, &mut request) {
            Ok(judged) => judged,
            Err(refusal) => {
                // Clients that send all of it first would otherwise see a broken connection in place of the reason.
                tokio::spawn(drain(request.into_body()));
                return *refusal;
            }
        };
        *lock(&self.last) = Some(host.clone());
        let named = hosts::meant(&policy, &self.goal.way(), host.as_deref());
        match self.forward(request, named, host.as_deref(), upgrade).await {
            Ok(response) => response,
            Err(trouble) => answer(trouble.status, trouble.code, &trouble.message, trouble.hint.as_deref()),
        }
    }

    /// Decides on a request: its host, and whether it wants another protocol, or the refusal.
    fn judge(
        &self,
        policy: &Policy,
        request: &mut Request<Incoming>,
    ) -> Result<(Option<String>, bool), Box<Response<Body>>> {
        let words = wants_words(request.headers());
        let host = self.host(request).map_err(|Malformed(why)| self.bad(None, why, words))?;
        let upgrade =
            request::prepare(request).map_err(|Malformed(why)| self.bad(host.as_deref(), why, words))?;
        if let Some(name) = &self.came.name
            && host.as_ref() != Some(name)
        {
            return Err(self.misdirected(host.as_deref(), name, words).into());
        }
        if request.method() == Method::CONNECT {
            let rule = "CONNECT is for proxies, and there is none here".to_owned();
            let fix = "connect to the host itself: unset https_proxy, or the client's own proxy".to_owned();
            let verdict = Verdict { allowed: false, rule, fix: Some(fix) };
            self.record(host.as_deref(), &verdict);
            return Err(refusal(StatusCode::FORBIDDEN, "NETWORK_DENIED", &verdict, words).into());
        }
        let verdict = self.decide(policy, host.as_deref());
        self.record(host.as_deref(), &verdict);
        if !verdict.allowed {
            return Err(refusal(StatusCode::FORBIDDEN, "NETWORK_DENIED", &verdict, words).into());
        }
        Ok((host, upgrade))
    }

    /// The host of a request that can be passed on.
    fn host<B>(&self, request: &Request<B>) -> Result<Option<String>, Malformed> {
        let host = request::host(request, &self.goal, self.came.scheme)?;
        request::whole(request).map(|()| host)
    }

    fn bad(&self, host: Option<&str>, why: &str, words: bool) -> Box<Response<Body>> {
        let verdict = Verdict { allowed: false, rule: why.to_owned(), fix: None };
        self.record(host, &verdict);
        refusal(StatusCode::BAD_REQUEST, "BAD_REQUEST", &verdict, words).into()
    }

    /// In TLS every request is for the name that TLS was made for: no other is asked for behind it.
    fn misdirected(&self, host: Option<&str>, name: &str, words: bool) -> Response<Body> {
        let rule = format!("the Host is not {name}, which TLS was made for");
        let fix = format!("connect to {} for it", host.unwrap_or("the host itself"));
        let verdict = Verdict { allowed: false, rule, fix: Some(fix) };
        self.record(host, &verdict);
        refusal(StatusCode::MISDIRECTED_REQUEST, "BAD_REQUEST", &verdict, words)
    }

    fn spoken(&self) -> Spoken {
        match self.came.scheme {
            Scheme::Http => Spoken::Http,
            Scheme::Https => Spoken::Tls,
        }
    }

    fn decide(&self, policy: &Policy, host: Option<&str>) -> Verdict {
        policy::said(policy, &self.gateway.start.open, &self.goal.way(), self.spoken(), host)
    }

    fn still_allowed(&self, policy: &Policy) -> bool {
        if self.came.name.as_ref().is_some_and(|name| !hosts::is_opened(policy, name)) {
            return false;
        }
        match &*lock(&self.last) {
            Some(host) => self.decide(policy, host.as_deref()).allowed,
            // Nothing was allowed yet; what comes is decided on then.
            None => true,
        }
    }

    /// What is done now with requests for a host.
    fn done(&self, policy: &Policy, host: Option<&str>) -> Done {
        let host = hosts::meant(policy, &self.goal.way(), host).cloned();
        let known = self.member.known();
        let credential = host.as_ref().and_then(|host| known.credential(&host.name)).cloned();
        Done { host, credential }
    }

    fn record(&self, host: Option<&str>, verdict: &Verdict) {
        let about = About {
            subject: Subject::Request,
            host,
            address: Some(self.goal.to.ip()),
            port: Some(self.goal.to.port()),
            protocol: self.came.scheme.name(),
        };
        self.member.audit.record(about, verdict);
    }

    /// Where a request goes.
    fn route(&self, named: Option<&Host>, host: Option<&str>) -> Route {
        let port = self.goal.to.port();
        match (named, self.came.scheme, host) {
            (Some(Host { name, handler: Some(socket), .. }), ..) => {
                Route::Handler(name.clone(), socket.clone())
            }
            (_, Scheme::Https, Some(host)) => Route::Secure(host.to_owned(), port),
            (Some(named), Scheme::Http, _) if named.is_upgraded() => {
                Route::Secure(named.name.clone(), hosts::port_outside(port))
            }
            _ => Route::Plain,
        }
    }

    /// Sends a request on, over the connection of the one before it if that still stands and leads there.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        named: Option<&Host>,
        host: Option<&str>,
        upgrade: bool,
    ) -> Result<Response<Body>, Trouble> {
        let ours = upgrade.then(|| hyper::upgrade::on(&mut request));
        let done = self.done(&self.member.policy(), host);
        let route = self.route(named, host);
        let request = self.dress(request, &route, named).await?;
        let moved = request.body().moved();
        let mut server = self.server.lock().await;
        let ready = match &mut *server {
            Some(last) if last.route == route && last.host.as_deref() == host => {
                last.sender.ready().await.is_ok()
            }
            _ => false,
        };
        if !ready {
            *server = None;
            let sender = upstream::connect(&self.gateway, &self.member, &self.goal, &route).await?;
            *server = Some(Server { route: route.clone(), host: host.map(str::to_owned), sender });
        }
        let lost = || match &route {
            Route::Handler(host, _) => Trouble::unanswered(host, "it ends the connection"),
            Route::Secure(host, port) => Trouble::unreachable(format!("{host}:{port}")),
            Route::Plain => Trouble::unreachable(self.goal.to),
        };
        let last = server.as_mut().ok_or_else(lost)?;
        let most = Duration::from_secs(EGRESS_FIRST_BYTE_TIMEOUT_S);
        let Some(answer) = in_time(last.sender.send_request(request), &moved, most).await else {
            *server = None;
            return Err(Trouble::late(host.unwrap_or("the server"), EGRESS_FIRST_BYTE_TIMEOUT_S));
        };
        // What hyper calls the user's failure is the body's: it is the client that has not sent it whole.
        let mut response = answer.map_err(|error| if error.is_user() { Trouble::cut() } else { lost() })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let theirs = hyper::upgrade::on(&mut response);
            // Another request on this connection would not be one.
            *server = None;
            if let Some(ours) = ours {
                *lock(&self.switched) = Some(Switched { ours, theirs, done });
            }
            return Ok(response.map(Either::Left));
        }
        request::pass_on(response.headers_mut(), None);
        if let (Route::Secure(host, port), Scheme::Http) = (&route, self.came.scheme) {
            request::stay_inside(response.headers_mut(), host, *port, self.goal.to.port());
        }
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(Either::Left))
    }

    /// Makes a request what the other end is to see.
    async fn dress(
        &self,
        mut request: Request<Incoming>,
        route: &Route,
        named: Option<&Host>,
    ) -> Result<Request<Sent>, Trouble> {
        match route {
            Route::Plain => {}
            Route::Secure(host, port) => request::set_host(request.headers_mut(), host, *port),
            Route::Handler(host, _) => {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let url = request::original_url(self.came.scheme, &self.goal, host, path);
                request::for_operator(request.headers_mut(), self.member.id.as_str(), &url);
            }
        }
        // Never in clear, and never for a host that it is not of.
        let Some((named, kind)) = named.and_then(|named| Some((named, named.credential.as_ref()?))) else {
            return Ok(request.map(Sent::passed));
        };
        if !matches!(route, Route::Secure(host, _) if *host == named.name) {
            return Err(Trouble::no_credential(&named.name));
        }
        if request::is_echoed(request.method()) {
            return Err(Trouble::echo(&named.name, request.method().as_str()));
        }
        let known = self.member.known();
        let secret = known.credential(&named.name).ok_or_else(|| Trouble::no_credential(&named.name))?;
        let places = Places::new(&self.member.bodies, &self.gateway.bodies);
        credential::add(request, &named.name, kind, secret, places).await
    }

    /// Bytes from here on, as long as the request would be allowed and nothing else would be done with it: what was
    /// agreed on with a credential ends with that credential.
    async fn pass(&self, Switched { ours, theirs, done }: Switched) {
        let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else { return };
        let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
        let host = lock(&self.last).clone().flatten();
        let same = |policy: &Policy| self.still_allowed(policy) && self.done(policy, host.as_deref()) == done;
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
            () = self.came.watched.gone(GRACE) => {}
            () = forbidden(&self.member, same) => {}
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // One assignment: valid after any panic.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether who asks shows its user a refusal in plain words, and none in any other form: git.
fn wants_words(headers: &HeaderMap) -> bool {
    headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"git/"))
}

/// An answer of the policy's. Package managers show the words behind its number and nothing else of it.
fn refusal(status: StatusCode, code: &str, verdict: &Verdict, words: bool) -> Response<Body> {
    let message = format!("the sandbox's network policy: {}", verdict.rule);
    let mut response = answer(status, code, &message, verdict.fix.as_deref());
    let rule = HeaderValue::from_str(&verdict.rule);
    response.headers_mut().insert(DENIED, rule.unwrap_or(HeaderValue::from_static("policy")));
    if status == StatusCode::FORBIDDEN {
        let reason = ReasonPhrase::from_static(b"Forbidden by the network policy of the sandbox");
        response.extensions_mut().insert(reason);
    }
    if words {
        let fix = verdict.fix.as_ref().map(|fix| format!("{fix}\n")).unwrap_or_default();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *response.body_mut() = Either::Right(Full::from(format!("{message}\n{fix}")));
    }
    response
}

/// An answer of our own.
fn answer(status: StatusCode, code: &str, message: &str, hint: Option<&str>) -> Response<Body> {
    let body = serde_json::json!({ "code": code, "message": message, "hint": hint });
    let mut response = Response::new(Either::Right(Full::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What else was sent on this connection was meant for somebody else.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
