//! Git: clone a repository into a sandbox.

use axum::extract::State;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json};
use super::schema::{CloneRepository, ClonedRepository, ErrorBody};
use super::{App, border};
use crate::error::Error;

/// Clone a repository.
///
/// By the image's own git, in the sandbox. The clone takes its name when it is whole; one that fails, takes too long or
/// whose client leaves is removed. Credentials are shown to the URL's host only, and kept nowhere; with them, git's
/// configuration in the image and of the user is left out. Programs are not run on a repository's behalf: no hooks, no
/// templates, no `ext::` transport; submodules come when asked for, and not from local files.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/git/clone", tag = "git", operation_id = "cloneRepository",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = CloneRepository,
    responses(
        (status = 200, description = "Cloned", body = ClonedRepository),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `GIT_REPOSITORY_NOT_FOUND`, `GIT_BRANCH_NOT_FOUND`",
            body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`, `GIT_DESTINATION_NOT_EMPTY`", body = ErrorBody),
        (status = 422, description = "`GIT_NOT_IN_IMAGE`, `GIT_DENIED`, `GIT_FAILED`, `USER_NOT_FOUND`",
            body = ErrorBody),
        (status = 429, description = "`PROCESS_LIMIT`", body = ErrorBody),
        (status = 502, description = "`GIT_UNREACHABLE`", body = ErrorBody),
        (status = 504, description = "`GIT_TIMEOUT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `BODY_TOO_LARGE`, \
            `UNSUPPORTED_MEDIA_TYPE`", body = ErrorBody),
        (status = "5XX", description = "`INTERNAL`, `SHUTTING_DOWN`", body = ErrorBody),
    )
)]
pub(super) async fn clone(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<CloneRepository>,
) -> Result<axum::Json<ClonedRepository>, Refused> {
    let spec = border::clone(wanted)?;
    let sandbox = app.state.sandboxes.awake(&caller, &id).await?;
    // A task of its own, so that a client that leaves ends the clone and does not keep it from being cleared away.
    let cancel = app.abort.child_token();
    let _leaving = cancel.clone().drop_guard();
    let work = app.tasks.spawn(async move { sandbox.clone_repository(spec, &cancel).await });
    let cloned = work.await.map_err(|error| Error::internal("the clone failed", error))??;
    Ok(axum::Json(ClonedRepository {
        path: cloned.path,
        commit: cloned.commit,
        branch: cloned.branch,
        duration_ms: cloned.duration.as_secs_f64() * 1000.0,
    }))
}
