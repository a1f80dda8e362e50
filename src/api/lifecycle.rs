//! Sandboxes that rest, begin again, and end by themselves.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http_body_util::BodyExt as _;

use super::App;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{Bare, IdInPath, Json};
use super::schema::ErrorBody;
use crate::sandbox::{Lifecycle, SandboxView, Use};

/// An answer that is read for long: until its last byte is taken, the sandbox is used.
pub(super) fn held(answer: Response, used: Use) -> Response {
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &used;
            frame
        }))
    })
}

/// Stop a sandbox.
///
/// Everything in it ends. Its files, its environment, its ports, the logs of its processes and its place in the list
/// stay, also through a restart of the daemon and of the host; when the answer comes they are on the disk. The next call
/// that needs it running wakes it. Credentials of its network's policy stay until the host is restarted. One that does
/// not run is left as it is.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/stop", tag = "sandboxes", operation_id = "stopSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "It does not run", body = SandboxView),
        (status = 400, description = "`INVALID_ID`, `INVALID_REQUEST`: there is a query, or a body that says something",
            body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`STOP_UNSUPPORTED`", body = ErrorBody),
        (status = "5XX", description = "`SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn stop(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Bare: Bare,
) -> Result<axum::Json<SandboxView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.stop(&caller, &id).await?.view()))
}

/// Pause a sandbox.
///
/// Everything that runs in it is frozen, with its memory. The next call that needs the sandbox lets it go on, and so
/// does `start`. Clocks go on: what waits for a time finds it passed. One that does not run is left as it is.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/pause", tag = "sandboxes", operation_id = "pauseSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "Nothing in it runs", body = SandboxView),
        (status = 400, description = "`INVALID_ID`, `INVALID_REQUEST`: there is a query, or a body that says something",
            body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = "5XX", description = "`SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn pause(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Bare: Bare,
) -> Result<axum::Json<SandboxView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.pause(&caller, &id).await?.view()))
}

/// Start a sandbox again.
///
/// One that was stopped or paused, as any call that needs it does, and one that ended by itself, which no other call
/// does. One that runs is left as it is.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/start", tag = "sandboxes", operation_id = "startSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "It runs", body = SandboxView),
        (status = 400, description = "`INVALID_ID`, `INVALID_REQUEST`: there is a query, or a body that says something",
            body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`: its files are lost", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `HOST_UNSUPPORTED`, `ISOLATION_MISMATCH`, \
            `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn start(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Bare: Bare,
) -> Result<axum::Json<SandboxView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.start_again(&caller, &id).await?.view()))
}

/// Change when a sandbox rests and ends by itself.
///
/// The whole of it: what is absent is never. Counts from now for the idle timeout, from the creation for the time to
/// live.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/lifecycle", tag = "sandboxes", operation_id = "setLifecycle",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = Lifecycle,
    responses(
        (status = 200, description = "The sandbox", body = SandboxView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`STOP_UNSUPPORTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn set(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<Lifecycle>,
) -> Result<axum::Json<SandboxView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.set_lifecycle(&caller, &id, wanted).await?))
}
