//! Which callers are admitted, and how routes learn who calls.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::State;
use super::error::Refused;
use crate::error::{Error, ErrorCode};
use crate::sandbox::Caller;

/// What the kernel shows for a uid that has no number in this user namespace (user_namespaces(7)). Such a
/// caller is nobody in particular and could own nothing.
const OVERFLOW_UID: u32 = 65_534;

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
