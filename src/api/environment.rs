//! The variables of a sandbox.

use axum::extract::State;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json};
use super::schema::ErrorBody;
use super::schema::processes::{ChangeEnvironment, Environment};
use super::{App, border};
use crate::sandbox::EnvironmentChange;

/// Read the variables.
///
/// What every command, session and process of the sandbox is given, unless it says otherwise.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/env", tag = "environment", operation_id = "getEnvironment",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The variables", body = Environment),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<Environment>, Refused> {
    Ok(axum::Json(Environment { env: app.state.sandboxes.get(&caller, &id)?.environment() }))
}

/// Change variables.
///
/// For what is started from now on; what runs keeps what it has. A name in both `set` and `unset` is set.
#[utoipa::path(
    patch, path = "/v1/sandboxes/{id}/env", tag = "environment", operation_id = "changeEnvironment",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ChangeEnvironment,
    responses(
        (status = 200, description = "The variables now", body = Environment),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn change(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<ChangeEnvironment>,
) -> Result<axum::Json<Environment>, Refused> {
    border::variables(&wanted.set, &wanted.unset)?;
    let change = EnvironmentChange { replace: false, set: wanted.set, unset: wanted.unset };
    Ok(axum::Json(Environment { env: app.state.sandboxes.get(&caller, &id)?.change_environment(change)? }))
}

/// Replace the variables.
///
/// With exactly these; those that the image and the creation gave go as well, `PATH` among them.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/env", tag = "environment", operation_id = "replaceEnvironment",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = Environment,
    responses(
        (status = 200, description = "The variables now", body = Environment),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn replace(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<Environment>,
) -> Result<axum::Json<Environment>, Refused> {
    border::variables(&wanted.env, &[])?;
    let change = EnvironmentChange { replace: true, set: wanted.env, unset: Vec::new() };
    Ok(axum::Json(Environment { env: app.state.sandboxes.get(&caller, &id)?.change_environment(change)? }))
}
