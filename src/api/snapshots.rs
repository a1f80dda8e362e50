//! Snapshots: make, list, get, delete; files given back and given to others.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;

use super::App;
use super::border::{labels, line, reference, refuse, sandbox_id, snapshot_id};
use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json, Query, SnapshotInPath};
use super::schema::ErrorBody;
use super::schema::snapshots::{
    CommitSandbox, CreateSnapshot, ForkList, ForkSandbox, RestoreSandbox, RollBackSandbox, SnapshotList,
};
use crate::error::Error;
use crate::id::SandboxId;
use crate::journal::feed::Kind;
use crate::limits::{
    EXCLUDE_BYTES_MAX, EXCLUDES_MAX, LIFECYCLE_MS_MAX, PATH_BYTES_MAX, SNAPSHOT_NAME_BYTES_MAX,
};
use crate::sandbox::catalog::Image;
use crate::sandbox::{DirectorySpec, ForkSpec, SandboxView, SnapshotSpec, SnapshotView};
use crate::wire::worker::Selection;

/// Make a snapshot.
///
/// Of all files of a sandbox, as they are now. Whatever runs in it is frozen meanwhile, and calls that need it wait. The
/// files of one that does not run are kept as they lie; it is not woken. With `path` of one directory: an archive is made
/// of what it was at one moment, and nobody waits for that. When the answer comes the snapshot is on the disk.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/snapshots", tag = "snapshots", operation_id = "createSnapshot",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = CreateSnapshot,
    responses(
        (status = 201, description = "The snapshot", body = SnapshotView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`: its files are lost", body = ErrorBody),
        (status = 422, description = "`SNAPSHOT_UNSUPPORTED`", body = ErrorBody),
        (status = 429, description = "`QUOTA_EXCEEDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, and with `path` `FILE_NOT_FOUND`, \
            `NOT_DIRECTORY`, `PATH_INVALID`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<CreateSnapshot>,
) -> Result<(StatusCode, axum::Json<SnapshotView>), Refused> {
    let made = app.state.sandboxes.snapshot(&caller, &id, snapshot(wanted)?).await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// How long a snapshot is kept, if that and its name are sane.
pub(super) fn kept_for(name: Option<&str>, ttl_ms: Option<u64>) -> Result<Option<Duration>, Error> {
    if let Some(name) = name {
        line("name", name, SNAPSHOT_NAME_BYTES_MAX)?;
    }
    if ttl_ms.is_some_and(|ttl| !(1..=LIFECYCLE_MS_MAX).contains(&ttl)) {
        let rule = format!("must be between 1 and {LIFECYCLE_MS_MAX}");
        return Err(refuse("ttl_ms", rule, "give milliseconds, or leave it out for ever"));
    }
    Ok(ttl_ms.map(Duration::from_millis))
}

fn snapshot(wanted: CreateSnapshot) -> Result<SnapshotSpec, Error> {
    let CreateSnapshot { name, labels: given, ttl_ms, path, exclude, gitignore } = wanted;
    let ttl = kept_for(name.as_deref(), ttl_ms)?;
    labels(&given)?;
    if path.is_none() && (gitignore || !exclude.is_empty()) {
        let fix = "name the directory, or leave exclude and gitignore out: a snapshot of all files has all";
        return Err(refuse("path", "is missing", fix));
    }
    if exclude.len() > EXCLUDES_MAX {
        return Err(refuse("exclude", format!("has more than {EXCLUDES_MAX} globs"), "use `**`, or {a,b}"));
    }
    for glob in &exclude {
        line("exclude", glob, EXCLUDE_BYTES_MAX)?;
    }
    if let Some(path) = &path {
        line("path", path, PATH_BYTES_MAX - 1)?;
    }
    let selection = Selection { exclude, gitignore, itself: true, layer: false };
    let directory = path.map(|path| DirectorySpec { path, selection });
    Ok(SnapshotSpec { name, labels: given, ttl, directory })
}

/// List a sandbox's snapshots.
///
/// The oldest first, of whatever sandbox had this name: one that is gone still has those that were made of it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/snapshots", tag = "snapshots", operation_id = "listSandboxSnapshots",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The snapshots", body = SnapshotList),
        (status = 400, description = "`INVALID_ID`, `INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn list_of(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    query: Query,
) -> Result<axum::Json<SnapshotList>, Refused> {
    query.none("this route takes no query")?;
    Ok(axum::Json(SnapshotList { snapshots: app.state.sandboxes.snapshots(&caller, Some(&id)) }))
}

/// List snapshots.
///
/// Those of the caller, the oldest first; of everybody for root and operators.
#[utoipa::path(
    get, path = "/v1/snapshots", tag = "snapshots", operation_id = "listSnapshots",
    responses(
        (status = 200, description = "The snapshots", body = SnapshotList),
        (status = 400, description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    query: Query,
) -> Result<axum::Json<SnapshotList>, Refused> {
    query.none("GET /v1/sandboxes/{id}/snapshots lists those of a sandbox")?;
    Ok(axum::Json(SnapshotList { snapshots: app.state.sandboxes.snapshots(&caller, None) }))
}

/// Get a snapshot.
///
/// What it was made of, when it ends, and what it takes.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}", tag = "snapshots", operation_id = "getSnapshot",
    params(("id" = String, Path, description = "The snapshot")),
    responses(
        (status = 200, description = "The snapshot", body = SnapshotView),
        (status = 400, description = "`INVALID_ID`", body = ErrorBody),
        (status = 404, description = "`SNAPSHOT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    SnapshotInPath(id): SnapshotInPath,
) -> Result<axum::Json<SnapshotView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.find_snapshot(&caller, &id)?))
}

/// Delete a snapshot.
///
/// Sandboxes that were made of it or restored from it keep their files.
#[utoipa::path(
    delete, path = "/v1/snapshots/{id}", tag = "snapshots", operation_id = "deleteSnapshot",
    params(("id" = String, Path, description = "The snapshot")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "`INVALID_ID`", body = ErrorBody),
        (status = 404, description = "`SNAPSHOT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): App,
    Peer(caller): Peer,
    SnapshotInPath(id): SnapshotInPath,
) -> Result<StatusCode, Refused> {
    app.state.sandboxes.delete_snapshot(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a sandbox from a snapshot.
///
/// Everything in it ends, and its files are those of the snapshot, which may be of another sandbox of the same image.
/// Environment, ports and settings stay the sandbox's. It is stopped afterwards, and the next call wakes it. A snapshot of a
/// directory is laid out beside the place, in any sandbox, and takes it when it is whole; then nothing ends.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/restore", tag = "snapshots", operation_id = "restoreSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = RestoreSandbox,
    responses(
        (status = 200, description = "The sandbox, stopped", body = SandboxView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `SNAPSHOT_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SNAPSHOT_MISMATCH`; `MOUNT_IN_USE`: something is mounted in the directory",
            body = ErrorBody),
        (status = 422, description = "`SNAPSHOT_UNSUPPORTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn restore(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<RestoreSandbox>,
) -> Result<axum::Json<SandboxView>, Refused> {
    let snapshot = snapshot_id(&wanted.snapshot)?;
    Ok(axum::Json(app.state.sandboxes.restore(&caller, &id, &snapshot, wanted.path.as_deref()).await?.view()))
}

/// Roll a sandbox back.
///
/// As restoring it, from one of its own snapshots; from the latest of all files when none is named. Those of a former sandbox of
/// the same name are not its own.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/rollback", tag = "snapshots", operation_id = "rollBackSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = RollBackSandbox,
    responses(
        (status = 200, description = "The sandbox, stopped", body = SandboxView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `SNAPSHOT_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SNAPSHOT_MISMATCH`: it is of a former sandbox of this name", body = ErrorBody),
        (status = 422, description = "`SNAPSHOT_UNSUPPORTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn roll_back(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<RollBackSandbox>,
) -> Result<axum::Json<SandboxView>, Refused> {
    let snapshot = wanted.snapshot.as_deref().map(snapshot_id).transpose()?;
    Ok(axum::Json(app.state.sandboxes.roll_back(&caller, &id, snapshot.as_ref()).await?.view()))
}

/// Fork a sandbox.
///
/// Makes sandboxes whose files begin as this one's are now, with its image, environment, limits, network and lifecycle. They
/// run when the answer comes; what runs in the parent is not copied. All of them or none.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/fork", tag = "snapshots", operation_id = "forkSandbox",
    params(("id" = String, Path, description = "The parent")),
    request_body = ForkSandbox,
    responses(
        (status = 201, description = "The new sandboxes", body = ForkList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_CONFLICT`, `SANDBOX_DEAD`", body = ErrorBody),
        (status = 422, description = "`SNAPSHOT_UNSUPPORTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `HOST_UNSUPPORTED`, `ISOLATION_MISMATCH`, \
            `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn fork(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<ForkSandbox>,
) -> Result<(StatusCode, axum::Json<ForkList>), Refused> {
    let mut ids: Vec<SandboxId> = Vec::new();
    for id in &wanted.ids {
        let id = sandbox_id(id)?;
        if ids.contains(&id) {
            return Err(refuse("ids", format!("has {id} twice"), "give each child a name of its own").into());
        }
        ids.push(id);
    }
    if let Some(given) = &wanted.labels {
        labels(given)?;
    }
    let count = wanted.count.unwrap_or(ids.len().max(1));
    let spec = ForkSpec { ids, count, labels: wanted.labels };
    let children = app.state.sandboxes.fork(&caller, &id, spec).await?;
    let sandboxes = children.iter().map(|child| child.view()).collect();
    Ok((StatusCode::CREATED, axum::Json(ForkList { sandboxes })))
}

/// Commit a sandbox.
///
/// Makes an image of all of its files, as they are at one moment, in the store, where every caller may use it. It has one layer,
/// and the sandbox's variables, user and working directory. Sockets and extended attributes are not part of it.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/commit", tag = "snapshots", operation_id = "commitSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = CommitSandbox,
    responses(
        (status = 201, description = "The image", body = Image),
        (status = 403, description = "`PERMISSION_DENIED`: the name is another user's", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`SNAPSHOT_UNSUPPORTED`, `IMAGE_INVALID`",
            body = ErrorBody),
        (status = 429, description = "`QUOTA_EXCEEDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `INVALID_REFERENCE`, `SANDBOX_DEAD`",
            body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn commit(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<CommitSandbox>,
) -> Result<(StatusCode, axum::Json<Image>), Refused> {
    reference("reference", &wanted.reference)?;
    let image = app.state.sandboxes.commit(&caller, &id, wanted.reference).await?;
    super::images::say(&app, &caller, Kind::ImageCommitted, &image);
    Ok((StatusCode::CREATED, axum::Json(image)))
}
