//! Trees as tar archives.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::content::{self, begun, settled};
use super::files;
use super::query::Query;
use crate::api::App;
use crate::api::caller::Peer;
use crate::api::error::Refused;
use crate::api::extract::IdInPath;
use crate::api::lifecycle;
use crate::api::schema::{ErrorBody, RawBytes};
use crate::wire::worker::{Believed, Selection};

/// Download a tree.
///
/// A tar archive (GNU) of what is below a directory, or of one file, made while it is sent: a failure on the way
/// breaks the body off. Sockets and devices are left out, other file systems not entered.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files/archive", tag = "files", operation_id = "downloadArchive",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Directory or file, percent-encoded"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "The archive", body = RawBytes, content_type = "application/x-tar"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_NOT_REGULAR`, `FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, \
            `INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn download(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<Response, Refused> {
    let (path, user) = (query.path()?, query.text("user")?);
    query.end()?;
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    let body = begun(files.pack(files.path(&path)?, Selection::default()).await?).await?;
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(lifecycle::held(response, files.used()))
}

/// Upload a tree.
///
/// The body is a tar archive, not compressed, laid out below a directory that is made if it is missing. Files that are
/// there are replaced, each in one step. Entries stay below the directory and go through no symbolic link; set-user-id
/// is dropped. Everything belongs to the user, unless `owners` says that the archive's ids count.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/files/archive", tag = "files", operation_id = "uploadArchive",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "The directory, percent-encoded"),
        ("owners" = Option<bool>, Query, description = "Take owners from the archive"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    request_body(content = RawBytes, content_type = "application/x-tar", description = "The archive"),
    responses(
        (status = 204, description = "All of it is there"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`ARCHIVE_INVALID`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
        (status = 507, description = "`DISK_FULL`", body = ErrorBody),
    )
)]
pub(super) async fn upload(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
    body: Body,
) -> Result<StatusCode, Refused> {
    let (path, owners, user) = (query.path()?, query.flag("owners")?, query.text("user")?);
    query.end()?;
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    let path = files.path(&path)?;
    let believed = if owners { Believed::Owners } else { Believed::Nothing };
    let mut upload = content::upload(body);
    let unpacked = files.unpack(path, believed, &mut upload).await;
    settled(unpacked, upload).await?;
    Ok(StatusCode::NO_CONTENT)
}
