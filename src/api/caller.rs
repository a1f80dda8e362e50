//! Who is at the other end of a connection, as the kernel says it.
//!
//! The credentials are those of connect(2) (`SO_PEERCRED`, unix(7)): numbers from the kernel, no text that the
//! peer wrote (CVE-2019-7304). They stay what they were when the peer passes the connection on.

use std::io;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::net::UnixStream;

use super::State;
use super::error::Refused;
use crate::error::{Error, ErrorCode};
use crate::sandbox::Caller;

/// What the kernel shows for a uid that has no number in this user namespace (user_namespaces(7)). Such a
/// caller is nobody in particular and could own nothing.
const OVERFLOW_UID: u32 = 65_534;

/// The caller at the other end.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn of(stream: &UnixStream, state: &State) -> io::Result<Caller> {
    let peer = stream.peer_cred()?;
    let (uid, gid) = (peer.uid(), peer.gid());
    let operator = uid == 0 || state.operator_gid == Some(gid);
    // 0 is what the kernel shows for a process that this PID namespace cannot see.
    Ok(Caller { uid, gid, pid: peer.pid().unwrap_or(0), operator })
}

/// Whether this caller may speak to the daemon at all.
pub(super) fn admit(caller: &Caller, state: &State) -> Result<(), Error> {
    if caller.uid == OVERFLOW_UID || state.sandbox_uids.contains(&caller.uid) {
        return Err(Error::new(ErrorCode::PermissionDenied, "this user may not use the daemon")
            .hint("connect as a user of the host, not from inside a sandbox or another user namespace"));
    }
    Ok(())
}

/// The caller of a request.
#[derive(Debug)]
pub(crate) struct Peer(pub(crate) Arc<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        match parts.extensions.get::<Arc<Caller>>() {
            Some(caller) => Ok(Self(Arc::clone(caller))),
            None => Err(Error::new(ErrorCode::Internal, "the connection has no caller").into()),
        }
    }
}
