//! TLS that the policy opens: ended here with a certificate of the sandbox's own authority, and begun anew outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Gateway;
use super::connection::{self, Goal};
use super::member::Member;
use super::policy::{Spoken, Verdict};
use super::streams::{Rewound, Watched};
use super::web::{self, Came, Scheme};

/// How long the sandbox may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves a connection for this name; `first` was read from it. What it asks for is decided on request by request.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    member: &Arc<Member>,
    stream: TcpStream,
    first: Vec<u8>,
    goal: Goal,
    name: String,
) {
    let config = match member.known().server(&member.id) {
        Ok(config) => config,
        Err(why) => {
            tracing::error!(id = %member.id, why, "cannot open TLS");
            return failed(member, &goal, &name, &why, "set the network policy again");
        }
    };
    let watched = Watched::new(stream);
    let stream = Rewound { first: first.into(), stream: watched.clone() };
    let agreed = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
    match agreed {
        Ok(Ok(stream)) => {
            let came = Came { scheme: Scheme::Https, name: Some(name), watched };
            web::serve(gateway, member, stream, goal, came).await;
        }
        // One that does not trust the authority says so, and goes.
        Ok(Err(error)) => {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let fix = if matches!(cause, Some(rustls::Error::NoApplicationProtocol)) {
                format!(
                    "only HTTP/1.1 is spoken there: let the client offer it, or take {name} out of intercept"
                )
            } else {
                format!("let the client trust /etc/stockade/ca.crt, or take {name} out of intercept")
            };
            failed(member, &goal, &name, &error.to_string(), &fix);
        }
        Err(_) => failed(member, &goal, &name, "it takes too long", "connect again"),
    }
}

/// Puts it into the log of decisions, where people look for what does not work.
fn failed(member: &Member, goal: &Goal, name: &str, why: &str, fix: &str) {
    let rule = format!("intercept {name}: no TLS with the sandbox: {why}");
    let verdict = Verdict { allowed: false, rule, fix: Some(fix.to_owned()) };
    connection::record(member, goal, Some(Spoken::Tls), Some(name), &verdict);
}
