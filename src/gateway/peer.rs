//! What serve asks: counters and decisions of a sandbox.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Gateway;
use crate::limits::EGRESS_ANSWER_MAX;
use crate::sys::channel::Channel;
use crate::wire::gateway::{Query, Told};

/// Answers one connection of serve's until it closes.
pub(super) async fn answer(gateway: Arc<Gateway>, socket: OwnedFd) {
    let Ok(channel) = Channel::new(socket) else { return };
    while let Ok((query, _)) = channel.receive::<Query>().await {
        let told = match gateway.member(&query.id) {
            Some(member) => {
                let limit = query.limit.min(EGRESS_ANSWER_MAX) as usize;
                Told { counters: member.audit.counters(), events: member.audit.events(query.after, limit) }
            }
            None => Told::default(),
        };
        if channel.send(&told, &[]).await.is_err() {
            return;
        }
    }
}
