//! Mounts: buckets and directories of the host in a sandbox's tree.

use axum::extract::State;
use axum::http::StatusCode;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, ItemInPath, Json, Query};
use super::schema::ErrorBody;
use super::schema::mounts::{AddMount, MountList};
use super::{App, border_mounts};
use crate::error::Error;
use crate::sandbox::{MountView, Unmounted};

/// Mount a bucket.
///
/// Or a directory of the host, by an endpoint `file:///…` that the operator has opened. Any program of the sandbox then
/// uses it as files. When the answer comes, the bucket has answered and its files are there. It stays through stop and
/// wake, and a restart of the daemon, until it is unmounted; credentials that came with the request stay outside of the
/// sandbox and, like those of its network's policy, until the host is restarted.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/mounts", tag = "mounts", operation_id = "mount",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = AddMount,
    responses(
        (status = 201, description = "Mounted", body = MountView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `BUCKET_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`, `MOUNT_IN_USE`", body = ErrorBody),
        (
            status = 403,
            description = "`PERMISSION_DENIED`: the operator lends no such credentials",
            body = ErrorBody
        ),
        (
            status = 422,
            description = "`MOUNT_POINT_INVALID`, `DIRECTORY_DENIED`, `BUCKET_DENIED`, `BUCKET_WRONG_REGION`",
            body = ErrorBody
        ),
        (
            status = 502,
            description = "`BUCKET_UNREACHABLE`, `BUCKET_BAD_CERTIFICATE`, `BUCKET_NOT_S3`",
            body = ErrorBody
        ),
        (status = 503, description = "`CAPACITY_EXHAUSTED`, `HOST_UNSUPPORTED`: no FUSE", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn mount(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<AddMount>,
) -> Result<(StatusCode, axum::Json<MountView>), Refused> {
    let request = border_mounts::mount(wanted)?;
    // A client that leaves does not leave it half-done.
    let (sandboxes, caller) = (app.state.sandboxes.clone(), std::sync::Arc::clone(&caller));
    let mounted = tokio::spawn(async move { sandboxes.mount(&caller, &id, request).await }).await;
    let mounted = mounted.map_err(|error| Error::internal("mounting failed", error))?;
    Ok((StatusCode::CREATED, axum::Json(mounted?)))
}

/// List mounts.
///
/// With how each goes.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/mounts", tag = "mounts", operation_id = "listMounts",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The mounts", body = MountList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<MountList>, Refused> {
    Ok(axum::Json(MountList { mounts: app.state.sandboxes.mounts(&caller, &id).await? }))
}

/// Show a mount.
///
/// With what its worker counts.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/mounts/{mount}", tag = "mounts", operation_id = "getMount",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("mount" = String, Path, description = "The mount's name"),
    ),
    responses(
        (status = 200, description = "The mount", body = MountView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `MOUNT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<axum::Json<MountView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.get_mount(&caller, &sandbox, &item).await?))
}

/// Unmount.
///
/// What is not in the bucket yet is uploaded first; what could not be in time is named in the answer, and lost. Whoever
/// still has files of it open is told ENOTCONN.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/mounts/{mount}", tag = "mounts", operation_id = "unmount",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("mount" = String, Path, description = "The mount's name"),
        ("timeout_ms" = Option<u64>, Query, description = "How many milliseconds to wait for uploads; a minute when absent"),
    ),
    responses(
        (status = 200, description = "It is gone", body = Unmounted),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `MOUNT_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn unmount(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
    query: Query,
) -> Result<axum::Json<Unmounted>, Refused> {
    let within = border_mounts::unmount(query)?;
    let (sandboxes, caller) = (app.state.sandboxes.clone(), std::sync::Arc::clone(&caller));
    let unmounted =
        tokio::spawn(async move { sandboxes.unmount(&caller, &sandbox, &item, within).await }).await;
    let unmounted = unmounted.map_err(|error| Error::internal("unmounting failed", error))?;
    Ok(axum::Json(unmounted?))
}
