//! What happens, once as a list or on and on as events.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::App;
use super::border::{refuse, sandbox_id};
use super::caller::Peer;
use super::error::Refused;
use super::events;
use super::extract::Query;
use super::schema::ErrorBody;
use crate::error::Error;
use crate::journal::feed::{Feed, Happened};
use crate::limits::FEED_ANSWER_MAX;
use crate::sandbox::Caller;

/// What has happened.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The oldest first.
    pub events: Vec<Happened>,
    /// Whether some before these are gone: the daemon remembers the last 8192 of everybody's.
    pub lost: bool,
    /// What to give as `after` for those that follow.
    pub next: u64,
}

/// Events were missed, or are not remembered any more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct EventsLost {
    /// The last one that the listener had.
    pub(super) after: u64,
}

/// What somebody wants to hear.
#[derive(Clone, Debug, Default)]
struct Wanted {
    sandboxes: BTreeSet<String>,
    kinds: BTreeSet<String>,
    after: Option<u64>,
    limit: u32,
}

impl Wanted {
    /// Whether a caller may hear of it, and wants to.
    fn takes(&self, caller: &Caller, event: &Happened) -> bool {
        let sandbox = event.sandbox.as_deref();
        caller.may_see(event.owner_uid)
            && (self.sandboxes.is_empty() || sandbox.is_some_and(|id| self.sandboxes.contains(id)))
            && (self.kinds.is_empty() || self.kinds.contains(event.kind.name()))
    }
}

/// Hear what happens.
///
/// To sandboxes of the caller; of everybody for root and operators. With `accept: text/event-stream` one event for
/// each, named after its type, from now on, or from `after` or the header `last-event-id` on; `lost` when some before
/// the next one are gone, because the listener was away for too long or the host has crashed. Otherwise a list of what
/// is remembered after `after`. The last 8192 are, also when the daemon is restarted.
#[utoipa::path(
    get, path = "/v1/events", tag = "host", operation_id = "listEvents",
    params(
        ("sandbox" = Option<Vec<String>>, Query, description = "Of these alone, repeated"),
        ("type" = Option<Vec<String>>, Query, description = "Of these types alone, repeated, like `sandbox.created`"),
        ("after" = Option<u64>, Query, description = "Those after this one: `next` of an answer, or `seq` of an event; 0 for all"),
        ("limit" = Option<u32>, Query, description = "So many at most in a list, up to 1000"),
        ("last-event-id" = Option<String>, Header, description = "As `after`, for a stream that goes on"),
    ),
    responses(
        (status = 200, description = "What has happened", body = EventList),
        (status = 400, description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Refused> {
    let mut wanted = wanted(query)?;
    let feed = app.state.sandboxes.feed().clone();
    if !events::wanted(&headers) {
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let since = feed.after(wanted.after.unwrap_or(0), limit, |event| wanted.takes(&caller, event));
        let events = since.events.iter().map(|event| Happened::clone(event)).collect();
        // Nobody has asked for those before.
        let lost = since.lost && wanted.after.is_some_and(|after| after > 0);
        return Ok(axum::Json(EventList { events, lost, next: since.next }).into_response());
    }
    if let Some(last) = headers.get("last-event-id") {
        let last = last.to_str().ok().and_then(|last| last.parse().ok());
        wanted.after = Some(last.ok_or_else(|| {
            refuse(
                "last-event-id",
                "is not the id of an event",
                "give the id of the last event, or leave it out",
            )
        })?);
    }
    let position = wanted.after.unwrap_or_else(|| feed.last());
    let (ready, closing) = (VecDeque::new(), app.closing.clone());
    let listener = Listener { feed, caller, wanted, position, ready, closing };
    Ok(events::response(stream::unfold(listener, Listener::next)))
}

fn wanted(Query(pairs): Query) -> Result<Wanted, Error> {
    let mut wanted = Wanted { limit: FEED_ANSWER_MAX, ..Wanted::default() };
    for (key, value) in pairs {
        let number = || value.parse::<u64>().ok().filter(|&number| i64::try_from(number).is_ok());
        match key.as_str() {
            "sandbox" => {
                wanted.sandboxes.insert(sandbox_id(&value)?.to_string());
            }
            "type" => {
                wanted.kinds.insert(value);
            }
            "after" => {
                let after = number();
                wanted.after = Some(
                    after.ok_or_else(|| refuse("after", "is not a number", "give `next` of an answer"))?,
                );
            }
            "limit" => {
                let limit = number().and_then(|limit| u32::try_from(limit).ok());
                wanted.limit = limit
                    .filter(|limit| (1..=FEED_ANSWER_MAX).contains(limit))
                    .ok_or_else(|| refuse("limit", "must be between 1 and 1000", "leave it out for 1000"))?;
            }
            _ => {
                return Err(Query::unknown(
                    &key,
                    "the parameters are `sandbox`, `type`, `after` and `limit`",
                ));
            }
        }
    }
    Ok(wanted)
}

/// Somebody who listens.
struct Listener {
    feed: Feed,
    caller: Arc<Caller>,
    wanted: Wanted,
    /// The last one that was looked at.
    position: u64,
    ready: VecDeque<Event>,
    closing: CancellationToken,
}

impl Listener {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let (caller, wanted) = (&self.caller, &self.wanted);
            let since = self.feed.after(self.position, 64, |event| wanted.takes(caller, event));
            if since.lost && self.position > 0 {
                let lost = EventsLost { after: self.position };
                self.ready.push_back(Event::default().event("lost").json_data(lost).unwrap_or_default());
            }
            for event in &since.events {
                let shown = Event::default().event(event.kind.name()).id(event.seq.to_string());
                self.ready.push_back(shown.json_data(&**event).unwrap_or_default());
            }
            self.position = since.next;
            if self.ready.is_empty() {
                tokio::select! {
                    () = self.feed.wait(self.position) => {}
                    () = self.closing.cancelled() => return None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_whom_and_from_where() {
        let query = |pairs: &[(&str, &str)]| wanted(Query::of(pairs));
        let all = query(&[
            ("sandbox", "a"),
            ("sandbox", "b"),
            ("type", "sandbox.created"),
            ("after", "7"),
            ("limit", "3"),
        ])
        .expect("good");
        assert_eq!((all.sandboxes.len(), all.kinds.len(), all.after, all.limit), (2, 1, Some(7), 3));
        for bad in [("sandbox", "A b"), ("after", "-1"), ("limit", "0"), ("limit", "1001"), ("types", "x")] {
            assert!(query(&[bad]).is_err(), "{bad:?}");
        }
    }
}
