//! TLS that the policy opens: ended here with a certificate of the sandbox's own authority, and begun anew outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Gateway;
use super::connection::Goal;
use super::member::Member;
use super::streams::Rewound;
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
        Err(why) => return tracing::error!(id = %member.id, why, "cannot open TLS"),
    };
    let stream = Rewound { first: first.into(), stream };
    let agreed = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
    match agreed {
        Ok(Ok(stream)) => {
            let came = Came { scheme: Scheme::Https, name: Some(name) };
            web::serve(gateway, member, stream, goal, came).await;
        }
        // One that does not trust the authority says so, and goes.
        Ok(Err(error)) => tracing::debug!(id = %member.id, name, %error, "no TLS with the sandbox"),
        Err(_) => {}
    }
}
