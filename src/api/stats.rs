//! What sandboxes use, once or again and again, and other limits for them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::time::{Interval, MissedTickBehavior};
use utoipa::ToSchema;

use super::border::{self, refuse};
use super::caller::Peer;
use super::error::Refused;
use super::events::{self, Numbers};
use super::extract::{IdInPath, Json, Query};
use super::request::RequestId;
use super::schema::{ErrorBody, ResourceLimits};
use super::{App, Shared};
use crate::error::Error;
use crate::id::SandboxId;
use crate::limits::{STATS_INTERVAL_MS_DEFAULT, STATS_INTERVAL_MS_MAX, STATS_INTERVAL_MS_MIN};
use crate::sandbox::{Caller, ResourcesChange, SandboxStats};

/// What all sandboxes use.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatsList {
    /// One of each, by id.
    pub sandboxes: Vec<SandboxStats>,
}

/// How often, and how much.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    disk: bool,
    interval: Duration,
}

/// What a sandbox uses.
///
/// Processor, memory, disk traffic, processes, network; and disk, with `disk=true`, or where there is a limit on it.
/// Wakes nothing, and is no use of the sandbox. What this host does not count is null, and `unmeasured` says why. With
/// `accept: text/event-stream` an event `stats` every so often, until the sandbox is destroyed; then `gone`.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/stats", tag = "sandboxes", operation_id = "getStats",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("disk" = Option<bool>, Query, description = "Count its files too"),
        ("interval_ms" = Option<u64>, Query, description = "Between two events, 100 to 3600000; 1000 when absent"),
    ),
    responses(
        (status = 200, description = "What it uses", body = SandboxStats),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn one(
    State(app): App,
    Peer(caller): Peer,
    axum::Extension(request): axum::Extension<RequestId>,
    IdInPath(id): IdInPath,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Refused> {
    let wanted = wanted(query)?;
    let first = app.state.sandboxes.stats(&caller, &id, wanted.disk).await?;
    if !events::wanted(&headers) {
        return Ok(axum::Json(first).into_response());
    }
    Ok(Watch::new(app, caller, request, Some(id), wanted).response())
}

/// What all sandboxes use.
///
/// Those of the caller; of everybody for root and operators. As for one of them; with `accept: text/event-stream` an
/// event `stats` with all of them every so often.
#[utoipa::path(
    get, path = "/v1/stats", tag = "sandboxes", operation_id = "listStats",
    params(
        ("disk" = Option<bool>, Query, description = "Count their files too"),
        ("interval_ms" = Option<u64>, Query, description = "Between two events, 100 to 3600000; 1000 when absent"),
    ),
    responses(
        (status = 200, description = "What they use", body = StatsList),
        (status = 400, description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn all(
    State(app): App,
    Peer(caller): Peer,
    axum::Extension(request): axum::Extension<RequestId>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Refused> {
    let wanted = wanted(query)?;
    if events::wanted(&headers) {
        return Ok(Watch::new(app, caller, request, None, wanted).response());
    }
    let sandboxes = app.state.sandboxes.stats_of_all(&caller, wanted.disk).await;
    Ok(axum::Json(StatsList { sandboxes }).into_response())
}

/// Give a sandbox other limits.
///
/// Those that are absent stay, 0 is none. In force when the answer comes; a sandbox that was stopped is woken with them,
/// and not before. All of them or none. A limit below what is used and cannot be taken back is refused. With `dry_run`
/// nothing is changed, and the answer or the refusal is what the same request would have had without. Limits on files
/// (`disk_bytes`, `disk_files`, `tmpfs_bytes`) are fixed when a sandbox is made.
#[utoipa::path(
    patch, path = "/v1/sandboxes/{id}/resources", tag = "sandboxes", operation_id = "changeResources",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would change"),
    ),
    request_body = ResourceLimits,
    responses(
        (status = 200, description = "What changes", body = ResourcesChange),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`LIMIT_BELOW_USE`", body = ErrorBody),
        (status = 422, description = "`LIMIT_UNSUPPORTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn limit(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    query: Query,
    Json(wanted, _): Json<ResourceLimits>,
) -> Result<axum::Json<ResourcesChange>, Refused> {
    let dry_run = query.flag("dry_run", "the only parameter is `dry_run=true`")?;
    let wanted = border::resources(&wanted)?;
    // A client that leaves does not leave it half-done.
    let (sandboxes, caller) = (app.state.sandboxes.clone(), Arc::clone(&caller));
    let change = tokio::spawn(async move { sandboxes.set_resources(&caller, &id, &wanted, dry_run).await });
    let change = change.await.map_err(|error| Error::internal("changing the limits failed", error))?;
    Ok(axum::Json(change?))
}

fn wanted(Query(pairs): Query) -> Result<Wanted, Error> {
    let mut wanted = Wanted { disk: false, interval: Duration::from_millis(STATS_INTERVAL_MS_DEFAULT) };
    for (key, value) in pairs {
        match (key.as_str(), value.as_str()) {
            ("disk", "true") => wanted.disk = true,
            ("disk", "false") => wanted.disk = false,
            ("disk", _) => return Err(refuse("disk", "is true or false", "write ?disk=true")),
            ("interval_ms", number) => {
                let range = STATS_INTERVAL_MS_MIN..=STATS_INTERVAL_MS_MAX;
                let interval = number.parse().ok().filter(|interval| range.contains(interval));
                let interval = interval.ok_or_else(|| {
                    refuse("interval_ms", "must be between 100 and 3600000", "leave it out for 1000")
                })?;
                wanted.interval = Duration::from_millis(interval);
            }
            _ => return Err(Query::unknown(&key, "the parameters are `disk` and `interval_ms`")),
        }
    }
    Ok(wanted)
}

/// Readings, one after the other, until nobody wants them or there is nothing to read.
struct Watch {
    app: Arc<Shared>,
    caller: Arc<Caller>,
    request: RequestId,
    of: Option<SandboxId>,
    disk: bool,
    clock: Interval,
    numbers: Numbers,
    over: bool,
}

impl Watch {
    fn new(
        app: Arc<Shared>,
        caller: Arc<Caller>,
        request: RequestId,
        of: Option<SandboxId>,
        Wanted { disk, interval }: Wanted,
    ) -> Self {
        let mut clock = tokio::time::interval(interval);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { app, caller, request, of, disk, clock, numbers: Numbers::default(), over: false }
    }

    fn response(self) -> Response {
        events::response(stream::unfold(self, Self::next))
    }

    async fn next(mut self) -> Option<(Event, Self)> {
        if self.over {
            return None;
        }
        tokio::select! {
            _ = self.clock.tick() => {}
            () = self.app.closing.cancelled() => return None,
        }
        let sandboxes = &self.app.state.sandboxes;
        let event = match &self.of {
            None => {
                let sandboxes = sandboxes.stats_of_all(&self.caller, self.disk).await;
                self.numbers.event("stats", &StatsList { sandboxes })
            }
            Some(id) => match sandboxes.stats(&self.caller, id, self.disk).await {
                Ok(stats) => self.numbers.event("stats", &stats),
                Err(error) => {
                    self.over = true;
                    if error.code == crate::error::ErrorCode::SandboxNotFound {
                        self.numbers.event("gone", &serde_json::json!({}))
                    } else {
                        self.numbers.failure(&error, &self.request)
                    }
                }
            },
        };
        Some((event, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_two_parameters() {
        let query = |pairs: &[(&str, &str)]| wanted(Query::of(pairs));
        let both = query(&[("disk", "true"), ("interval_ms", "100")]).expect("good");
        assert!(both.disk && both.interval == Duration::from_millis(100));
        for bad in [("disk", "1"), ("interval_ms", "99"), ("interval_ms", "x"), ("intervals", "100")] {
            assert!(query(&[bad]).is_err(), "{bad:?}");
        }
    }
}
