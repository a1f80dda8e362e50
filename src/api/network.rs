//! What may leave a sandbox, and what did.

use axum::extract::State;

use super::App;
use super::border::refuse;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json, Query};
use super::schema::ErrorBody;
use crate::error::Error;
use crate::limits::EGRESS_ANSWER_MAX;
use crate::sandbox::{NetworkChange, NetworkEvents, NetworkPolicy, NetworkView, parse_policy};

/// Read what may leave a sandbox.
///
/// And count what has, and what has not.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/network", tag = "network", operation_id = "getNetwork",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The policy and its counters", body = NetworkView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<NetworkView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.network(&caller, &id).await?))
}

/// Let something else leave a sandbox.
///
/// Replaces the whole policy of a sandbox that runs. When the answer comes it is in force: connections that it does
/// not allow end. With `dry_run` nothing is changed; either way the answer says what differs, and what of that which was
/// tried lately is decided otherwise. Credentials of hosts are never shown again; a host that is sent without its
/// credential, as it was shown, keeps the one that it has.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/network", tag = "network", operation_id = "setNetwork",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would change"),
    ),
    request_body = NetworkPolicy,
    responses(
        (status = 200, description = "What changes", body = NetworkChange),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
        (status = 503, description = "`HOST_UNSUPPORTED`", body = ErrorBody),
    )
)]
pub(super) async fn set(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    query: Query,
    Json(wanted, _): Json<NetworkPolicy>,
) -> Result<axum::Json<NetworkChange>, Refused> {
    let dry_run = query.flag("dry_run", "the only parameter is `dry_run=true`")?;
    let egress = parse_policy(&wanted)?;
    // A client that leaves does not leave it half-done.
    let (sandboxes, caller) = (app.state.sandboxes.clone(), std::sync::Arc::clone(&caller));
    let change =
        tokio::spawn(async move { sandboxes.set_network(&caller, &id, egress, dry_run).await }).await;
    let change = change.map_err(|error| Error::internal("changing the network failed", error))?;
    Ok(axum::Json(change?))
}

/// Read the decisions.
///
/// The last ones about names, connections and requests, with the rule that made each, and for refusals the smallest
/// change that would allow it. The very same decision several times in a row is one event with a count. They outlive
/// the gateway, and not the daemon.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/network/events", tag = "network", operation_id = "listNetworkEvents",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("after" = Option<u64>, Query, description = "Those after this one: `next` of an answer before"),
        ("limit" = Option<u32>, Query, description = "So many at most, up to 80"),
    ),
    responses(
        (status = 200, description = "The decisions", body = NetworkEvents),
        (status = 400, description = "`INVALID_REQUEST`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn events(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    query: Query,
) -> Result<axum::Json<NetworkEvents>, Refused> {
    let (after, limit) = window(query)?;
    Ok(axum::Json(app.state.sandboxes.network_events(&caller, &id, after, limit).await?))
}

fn window(Query(pairs): Query) -> Result<(u64, u32), Error> {
    let (mut after, mut limit) = (0, EGRESS_ANSWER_MAX);
    for (key, value) in pairs {
        // The description says `int64`.
        let number = || value.parse::<u64>().ok().filter(|&number| i64::try_from(number).is_ok());
        match key.as_str() {
            "after" => {
                after =
                    number().ok_or_else(|| refuse("after", "is not a number", "give `next` of an answer"))?;
            }
            "limit" => {
                limit = number()
                    .and_then(|limit| u32::try_from(limit).ok())
                    .filter(|limit| (1..=EGRESS_ANSWER_MAX).contains(limit))
                    .ok_or_else(|| refuse("limit", "must be between 1 and 80", "leave it out for 80"))?;
            }
            _ => return Err(Query::unknown(&key, "decisions are read with `after` and `limit`")),
        }
    }
    Ok((after, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_two_numbers() {
        let query = |pairs: &[(&str, &str)]| window(Query::of(pairs));
        assert_eq!(query(&[("after", "7"), ("limit", "3")]).expect("good"), (7, 3));
        for bad in [("after", "-1"), ("after", "x"), ("limit", "0"), ("limit", "81"), ("limits", "1")] {
            assert!(query(&[bad]).is_err(), "{bad:?}");
        }
    }
}
