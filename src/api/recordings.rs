//! Recordings: list, fetch, delete. They are made by what opens a terminal or runs a command.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use super::App;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, ItemInPath};
use super::schema::ErrorBody;
use super::schema::recordings::RecordingList;
use crate::error::Error;
use crate::sandbox::{RecordingFile, RecordingView, Sandbox};

/// As registered for asciinema's files.
const CAST: HeaderValue = HeaderValue::from_static("application/x-asciicast");

/// Bytes of a file that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// List recordings.
///
/// The oldest first, those that go on too. They stay when what they are of has ended, and go with the sandbox.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/recordings", tag = "recordings", operation_id = "listRecordings",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The recordings", body = RecordingList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<RecordingList>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &id)?;
    let recordings: Vec<RecordingView> = reading(move || sandbox.recordings()).await?;
    Ok(axum::Json(RecordingList { recordings }))
}

/// Get a recording.
///
/// In asciinema's format, asciicast v2: a line of JSON that says what it is, then one for each event, `[seconds, "o", text]`
/// for output, `"r"` for another size, `"i"` for input. One that goes on is as it is now. When it was full and something
/// is not in it, the last event, `"m"`, says how many bytes.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/recordings/{recording}", tag = "recordings", operation_id = "getRecording",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("recording" = String, Path, description = "The recording"),
    ),
    responses(
        (status = 200, description = "The file", body = String, content_type = "application/x-asciicast"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `RECORDING_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<Response, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    let RecordingFile { file, length } = reading(move || sandbox.recording(&item)).await?;
    let file = Arc::new(file);
    let chunks = stream::try_unfold(0, move |at| {
        let file = Arc::clone(&file);
        async move {
            if at >= length {
                return Ok::<_, io::Error>(None);
            }
            let chunk = tokio::task::spawn_blocking(move || chunk(&file, at, length)).await??;
            let next = at + chunk.len() as u64;
            Ok(Some((chunk, next)))
        }
    });
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert(header::CONTENT_TYPE, CAST);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

fn chunk(file: &File, at: u64, end: u64) -> io::Result<Bytes> {
    let count = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
    let mut bytes = vec![0; count];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}

/// Delete a recording.
///
/// Also one that goes on; what it is of goes on without.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/recordings/{recording}", tag = "recordings", operation_id = "deleteRecording",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("recording" = String, Path, description = "The recording"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `RECORDING_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<StatusCode, Refused> {
    let sandbox: Arc<Sandbox> = app.state.sandboxes.get(&caller, &sandbox)?;
    reading(move || sandbox.delete_recording(&item)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where the disk may be waited for.
async fn reading<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal("reading the recordings failed", error)))
}
