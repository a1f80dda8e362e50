//! The other end of a request: a server in clear, a server over verified TLS, or a handler of the operator's.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self as client, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::bodies::Sent;
use super::connection::{self, Goal, reach};
use super::member::Member;
use super::streams::Counted;
use super::trouble::Trouble;
use super::{Gateway, GatewayError, web};
use crate::sys::channel::Channel;
use crate::sys::socket;
use crate::wire::gateway::{Dialled, Word};

/// How long a server may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long launch may take to connect to a handler, which it does at once unless it is at something else.
const DIAL: Duration = Duration::from_secs(5);

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the server, as it came.
    Plain,
    /// To this port of the server, over TLS for this name.
    Secure(String, u16),
    /// To the handler of this name, at this socket of the operator's.
    Handler(String, String),
}

/// Whom TLS trusts: the host's certificates and the operator's. Read once, before there are no files any more.
pub(super) fn trust(ca_pem: &str) -> Result<Arc<ClientConfig>, GatewayError> {
    let ca_pem = Some(ca_pem).filter(|pem| !pem.is_empty());
    let mut config = crate::tls::client(ca_pem).map_err(GatewayError::Certificates)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // What one sandbox has agreed on with a server is not the next one's.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection for requests of one route.
pub(super) async fn connect(
    gateway: &Gateway,
    member: &Arc<Member>,
    goal: &Goal,
    route: &Route,
) -> Result<SendRequest<Sent>, Trouble> {
    match route {
        Route::Plain => {
            let stream = reach(member, goal).await.ok_or_else(|| Trouble::unreachable(goal.to))?;
            speak(member, Counted::new(Arc::clone(member), stream))
                .await
                .ok_or_else(|| Trouble::unreachable(goal.to))
        }
        Route::Secure(host, port) => {
            let goal = goal.with_port(*port);
            let whom = format!("{host} ({})", goal.to);
            let stream = reach(member, &goal).await.ok_or_else(|| Trouble::unreachable(&whom))?;
            let name =
                ServerName::try_from(host.clone()).map_err(|error| Trouble::tls(host, &error.to_string()))?;
            let connector = TlsConnector::from(Arc::clone(&gateway.tls));
            let agreed = connector.connect(name, Counted::new(Arc::clone(member), stream));
            let stream = match tokio::time::timeout(HANDSHAKE, agreed).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(failed(member, &goal, host, &error)),
                Err(_) => {
                    let why = "it takes too long";
                    connection::failed(member, &goal, Some(host), format_args!("no TLS: {why}"));
                    return Err(Trouble::tls(host, why));
                }
            };
            speak(member, stream).await.ok_or_else(|| Trouble::unreachable(whom))
        }
        Route::Handler(host, _) => {
            let stream = operators_socket(gateway, member, host).await.map_err(|why| {
                connection::failed(
                    member,
                    goal,
                    Some(host),
                    format_args!("the handler does not answer: {why}"),
                );
                tracing::debug!(id = %member.id, host, why, "no handler");
                Trouble::unanswered(host, &why)
            })?;
            speak(member, Counted::new(Arc::clone(member), stream))
                .await
                .ok_or_else(|| Trouble::unanswered(host, "it does not speak HTTP"))
        }
    }
}

fn failed(member: &Member, goal: &Goal, host: &str, error: &std::io::Error) -> Trouble {
    connection::failed(member, goal, Some(host), format_args!("no TLS: {error}"));
    tracing::debug!(id = %member.id, host, %error, "no TLS");
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match reason {
        Some(rustls::Error::InvalidCertificate(_)) => Trouble::certificate(host, &error.to_string()),
        _ => Trouble::tls(host, &error.to_string()),
    }
}

async fn speak<S>(member: &Member, stream: S) -> Option<SendRequest<Sent>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = client::Builder::new()
        .max_buf_size(web::HEAD_BYTES_MAX)
        .max_headers(web::HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let end = member.end.clone();
    tokio::spawn(async move {
        tokio::select! {
            // What goes wrong here, the sender sees as well.
            _ = connection.with_upgrades() => {}
            () = end.cancelled() => {}
        }
    });
    Some(sender)
}

/// A connection that launch has made to the operator's socket: no file can be opened here.
async fn operators_socket(gateway: &Gateway, member: &Member, host: &str) -> Result<UnixStream, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let (ours, theirs) = socket::pair().map_err(|error| words(&error))?;
    let word = Word::Handler { id: member.id.clone(), host: host.to_owned() };
    gateway.control.send(&word, &[theirs.as_fd()]).await.map_err(|error| words(&error))?;
    // launch alone holds it now: when it lets go, we hear of it.
    drop(theirs);
    let channel = Channel::new(ours).map_err(|error| words(&error))?;
    let answer = tokio::time::timeout(DIAL, channel.receive::<Dialled>()).await;
    let (said, fds) = answer.map_err(|_| "it takes too long".to_owned())?.map_err(|error| words(&error))?;
    said?;
    let connection = fds.into_iter().next().ok_or("no connection came")?;
    let stream = std::os::unix::net::UnixStream::from(connection);
    stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)).map_err(|error| words(&error))
}
