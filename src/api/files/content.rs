//! Content of files: down with ranges, up in one step.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::query::{Query, mode};
use super::schema::FileInfo;
use super::version::{self, Wanted};
use super::{files, info, mime_by_name};
use crate::api::App;
use crate::api::caller::Peer;
use crate::api::error::Refused;
use crate::api::extract::IdInPath;
use crate::api::lifecycle;
use crate::api::schema::{ErrorBody, RawBytes};
use crate::error::Error;
use crate::limits::UPLOAD_PAUSE_S;
use crate::sandbox::files::{Files, Opened, OpenedFile, WriteSpec};
use crate::wire::worker::Tag;

/// How long the rest of an upload is read that is refused already.
const UPLOAD_DRAIN: Duration = Duration::from_secs(5);

/// Content that is sent in one piece.
const WHOLE_BYTES_MAX: u64 = 64 * 1024;

/// Permissions that a new file can be given.
const MODE_MAX: u32 = 0o777;

/// Read a file.
///
/// Raw bytes, of any size. `Range` (one range), `If-Range`, `If-None-Match` and `If-Match` work as in RFC 9110, and
/// so does the method `HEAD`. Only regular files are read; those of /proc have no length and no `etag`.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files/content", tag = "files", operation_id = "readFile",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Which, percent-encoded"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "The content", body = RawBytes, content_type = "application/octet-stream"),
        (status = 206, description = "A part", body = RawBytes, content_type = "application/octet-stream"),
        (status = 304, description = "It has not changed"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = 412, description = "`PRECONDITION_FAILED`", body = ErrorBody),
        (status = 416, description = "`RANGE_NOT_SATISFIABLE`", body = ErrorBody),
        (status = "4XX", description = "`IS_DIRECTORY`, `FILE_NOT_REGULAR`, `FILE_DENIED`, `NOT_DIRECTORY`, \
            `PATH_INVALID`, `INVALID_REQUEST`", body = ErrorBody),
        (status = "5XX", description = "`FILES_UNAVAILABLE`, `FILE_TIMEOUT`", body = ErrorBody),
    )
)]
pub(super) async fn read(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    method: Method,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Refused> {
    let (path, user) = (query.path()?, query.text("user")?);
    query.end()?;
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    let mut response = match files.open(files.path(&path)?).await? {
        Opened::File { tag, file } => regular(&method, &headers, &tag, file).await?,
        Opened::Stream(through) => Response::new(begun(files.stream(through).await?).await?),
    };
    let mime = mime_by_name(&path).unwrap_or("application/octet-stream");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    // A browser must not find a program in what a sandbox wrote.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(lifecycle::held(response, files.used()))
}

async fn regular(
    method: &Method,
    headers: &HeaderMap,
    tag: &Tag,
    file: OpenedFile,
) -> Result<Response, Refused> {
    let etag = version::etag(tag);
    let etag_value =
        HeaderValue::from_str(&etag).map_err(|error| Error::internal("cannot name a version", error))?;
    let size = tag.size;
    let (status, body, length, range) = match version::wanted(headers, &etag)? {
        Wanted::NotModified => (StatusCode::NOT_MODIFIED, Body::empty(), None, None),
        Wanted::Content => {
            let range = match version::range(headers, size, &etag) {
                Ok(range) => range,
                Err(error) => {
                    let mut response = Refused(error).into_response();
                    response.headers_mut().insert(header::CONTENT_RANGE, content_range("*", size)?);
                    return Ok(response);
                }
            };
            let (status, part) = match range.clone() {
                Some(part) => (StatusCode::PARTIAL_CONTENT, part),
                None => (StatusCode::OK, 0..size),
            };
            let length = part.end - part.start;
            let body =
                if *method == Method::HEAD { Body::empty() } else { body(file, part.start, length).await? };
            (status, body, Some(length), range)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag_value);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(range) = range {
        let part = format!("{}-{}", range.start, range.end - 1);
        headers.insert(header::CONTENT_RANGE, content_range(&part, size)?);
    }
    Ok(response)
}

fn content_range(part: &str, size: u64) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&format!("bytes {part}/{size}"))
        .map_err(|error| Error::internal("cannot name a range", error))
}

/// Small content at once, so that a failure to read it is an answer; more as a stream.
async fn body(file: OpenedFile, start: u64, length: u64) -> Result<Body, Error> {
    let mut reader = file.read(start, length);
    if length > WHOLE_BYTES_MAX {
        return Ok(Body::from_stream(reader.into_stream()));
    }
    let mut whole = Vec::new();
    while let Some(bytes) = reader.next().await {
        let bytes = bytes.map_err(|error| Error::internal("cannot read the file", error))?;
        if reader.left() == 0 && whole.is_empty() {
            return Ok(Body::from(bytes));
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(Body::from(whole))
}

/// A stream as a body, once it has begun: a failure before the first byte is an answer of its own, one after it
/// breaks the body off.
pub(in crate::api) async fn begun<S>(bytes: S) -> Result<Body, Error>
where
    S: Stream<Item = Result<Bytes, Error>> + Send + 'static,
{
    let mut bytes = Box::pin(bytes);
    let first = match bytes.next().await {
        None => return Ok(Body::empty()),
        Some(first) => first?,
    };
    Ok(Body::from_stream(stream::once(async { Ok(first) }).chain(bytes)))
}

/// A body as it comes, with a bound on its pauses.
pub(super) type Upload = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

pub(super) fn upload(body: Body) -> Upload {
    let frames = body.into_data_stream().map_err(io::Error::other);
    let frames = tokio_stream::StreamExt::timeout(frames, Duration::from_secs(UPLOAD_PAUSE_S))
        .map(|frame| frame.unwrap_or_else(|pause| Err(io::Error::new(io::ErrorKind::TimedOut, pause))));
    Box::pin(frames)
}

/// What came of an upload. When it failed the rest is read and dropped for a while: clients that are still sending
/// would otherwise see a broken connection in place of the reason.
pub(super) async fn settled<T>(result: Result<T, Error>, mut upload: Upload) -> Result<T, Error> {
    if result.is_err() {
        let drain = async { while let Some(Ok(_)) = upload.next().await {} };
        // Whether it came to its end does not matter.
        let _ = tokio::time::timeout(UPLOAD_DRAIN, drain).await;
    }
    result
}

/// Write a file.
///
/// The body is the content, raw, of any size. The file is replaced in one step when all of it is there: a client that
/// vanishes leaves the old one. A symbolic link is followed, mode and owner of the file that is replaced are kept
/// unless others are given. `If-Match` and `If-None-Match: *` are looked at in the same step.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/files/content", tag = "files", operation_id = "writeFile",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Where, percent-encoded"),
        ("mode" = Option<String>, Query, description = "Permissions, octal"),
        ("owner" = Option<String>, Query, description = "`user` or `user:group` of the sandbox"),
        ("parents" = Option<bool>, Query, description = "Make missing directories"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    request_body(content = RawBytes, content_type = "application/octet-stream", description = "The content"),
    responses(
        (status = 200, description = "What it is now", body = FileInfo),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = 412, description = "`PRECONDITION_FAILED`", body = ErrorBody),
        (status = "4XX", description = "`IS_DIRECTORY`, `FILE_NOT_REGULAR`, `FILE_DENIED`, `NOT_DIRECTORY`, \
            `FILE_TOO_LARGE`, `USER_NOT_FOUND`, `PATH_INVALID`, `INVALID_REQUEST`", body = ErrorBody),
        (status = 507, description = "`DISK_FULL`", body = ErrorBody),
        (status = "5XX", description = "`FILES_UNAVAILABLE`, `FILE_TIMEOUT`", body = ErrorBody),
    )
)]
pub(super) async fn write(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    headers: HeaderMap,
    mut query: Query,
    body: Body,
) -> Result<Response, Refused> {
    let path = query.path()?;
    let permissions = query.text("mode")?.map(|text| mode("mode", &text, MODE_MAX)).transpose()?;
    let owner = query.text("owner")?.map(|text| Files::owner(&text)).transpose()?;
    let (parents, user) = (query.flag("parents")?, query.text("user")?);
    query.end()?;
    let condition = version::condition(&headers)?;
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    let spec = WriteSpec { path: files.path(&path)?, mode: permissions, owner, parents, condition };
    let mut upload = upload(body);
    let written = files.write(spec, &mut upload).await;
    let stat = settled(written, upload).await?;
    let info = info(path, stat);
    let etag = HeaderValue::from_str(&info.etag);
    let mut response = axum::Json(info).into_response();
    if let Ok(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}
