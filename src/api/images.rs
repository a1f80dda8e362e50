//! Images: pull, import, list, get, delete.
//!
//! Pull and import take long and can report on the way. Their events are merged to what is true now, one per
//! layer and phase: a slow reader misses intermediate numbers, and never slows the work down.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::audit::{self, Later};
use super::caller::Peer;
use super::error::Refused;
use super::events::{self, Numbers};
use super::extract::{Json, Query, ReferenceInPath};
use super::request::RequestId;
use super::schema::images::{BuiltInImage, ImageList, PullImage};
use super::schema::{ErrorBody, ImportImage, RawBytes};
use super::{App, Shared, border, export};
use crate::error::{Error, ErrorCode};
use crate::journal::feed::Kind;
use crate::limits::UPLOAD_PAUSE_S;
use crate::sandbox::Caller;
use crate::sandbox::catalog::{Arrival, HOST_IMAGE, Image, Progress};

/// Between two events of the same layer.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Events on their way to a reader.
const EVENTS_MAX: usize = 64;

/// How long the rest of an upload is read that is refused already.
const UPLOAD_DRAIN: Duration = Duration::from_secs(5);

/// List images.
///
/// Those in the store, by reference, and what is there without any.
#[utoipa::path(
    get, path = "/v1/images", tag = "images", operation_id = "listImages",
    responses((status = 200, description = "The images", body = ImageList))
)]
pub(super) async fn list(State(app): App, _: Peer) -> axum::Json<ImageList> {
    let host = BuiltInImage {
        reference: HOST_IMAGE.to_owned(),
        description: "this host's own /usr, read-only".to_owned(),
    };
    axum::Json(ImageList { images: app.state.catalog.list(), built_in: vec![host] })
}

/// Pull an image from a registry.
///
/// Answers with the image when it is in the store, layers unpacked. A name that is another user's already is replaced by
/// root and operators alone. With the header
/// `accept: text/event-stream` the answer is a stream: `progress` per layer and phase, then `image` or `error`.
#[utoipa::path(
    post, path = "/v1/images/pull", tag = "images", operation_id = "pullImage",
    request_body = PullImage,
    responses(
        (status = 200, description = "The image, or events", content(
            (Image = "application/json"), (String = "text/event-stream"),
        )),
        (status = 403, description = "`PERMISSION_DENIED`: the name is another user's", body = ErrorBody),
        (status = 404, description = "`REGISTRY_NOT_FOUND`, `PLATFORM_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`REGISTRY_DENIED`, `IMAGE_INVALID`", body = ErrorBody),
        (status = 429, description = "`QUOTA_EXCEEDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REFERENCE`, `INVALID_REQUEST`", body = ErrorBody),
        (status = "5XX", description = "`REGISTRY_UNREACHABLE`, `CAPACITY_EXHAUSTED`, `INTERNAL`",
            body = ErrorBody),
    )
)]
pub(super) async fn pull(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    Json(wanted, _): Json<PullImage>,
) -> Result<Response, Refused> {
    let spec = border::pull(wanted)?;
    if !events::wanted(&headers) {
        let image = app.state.catalog.pull(&caller, spec, None).await?;
        say(&app, &caller, Kind::ImagePulled, &image);
        return Ok(axum::Json(image).into_response());
    }
    let later = Later { caller: caller.clone(), operation: "pullImage", sandbox: None };
    let work = async move |app: Arc<Shared>, progress| {
        let image = app.state.catalog.pull(&caller, spec, Some(progress)).await?;
        say(&app, &caller, Kind::ImagePulled, &image);
        Ok(vec![image])
    };
    Ok(reported(&app, request, later, work))
}

/// Import an image.
///
/// The body is a tar of an OCI layout or of `docker save`, plain, gzip or zstd. An archive may hold several
/// images. With `rootfs` it is a tar of files, and becomes an image of one layer. With the header `x-stockade-identity` it is
/// encrypted to that identity of age. With the header `accept: text/event-stream` the answer is a stream: `progress` per layer and phase,
/// then `image` for each, or `error`.
#[utoipa::path(
    post, path = "/v1/images/import", tag = "images", operation_id = "importImage",
    params(
        ImportImage,
        ("x-stockade-identity" = Option<String>, Header, description = "`AGE-SECRET-KEY-1…`; never kept or logged"),
    ),
    request_body(content = RawBytes, content_type = "application/x-tar", description = "The archive"),
    responses(
        (status = 200, description = "The images, or events", content(
            (ImageList = "application/json"), (String = "text/event-stream"),
        )),
        (status = 403, description = "`PERMISSION_DENIED`: the name is another user's", body = ErrorBody),
        (status = 422, description = "`IMAGE_INVALID`, `KEY_INVALID`", body = ErrorBody),
        (status = 429, description = "`QUOTA_EXCEEDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REFERENCE`, `INVALID_REQUEST`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn import(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Result<Response, Refused> {
    let (upload, rest) = Upload::of(body);
    let arrival = match arrival(query, &headers) {
        Ok(arrival) => arrival,
        Err(error) => {
            drop(upload);
            return Ok(drained(async { Err(error) }, rest).await?);
        }
    };
    if !events::wanted(&headers) {
        let images = drained(app.state.catalog.take_in(&caller, arrival, upload, None), rest).await?;
        images.iter().for_each(|image| say(&app, &caller, Kind::ImageImported, image));
        return Ok(axum::Json(ImageList { images, built_in: Vec::new() }).into_response());
    }
    let later = Later { caller: caller.clone(), operation: "importImage", sandbox: None };
    let work = async move |app: Arc<Shared>, progress| {
        let images =
            drained(app.state.catalog.take_in(&caller, arrival, upload, Some(progress)), rest).await?;
        images.iter().for_each(|image| say(&app, &caller, Kind::ImageImported, image));
        Ok(images)
    };
    Ok(reported(&app, request, later, work))
}

/// Says what has happened to an image, to whoever did it and to operators.
pub(super) fn say(app: &Shared, caller: &Caller, kind: Kind, image: &Image) {
    let about = serde_json::json!({"reference": image.reference, "digest": image.digest});
    app.state.sandboxes.feed().publish(kind, None, caller.uid, about);
}

fn arrival(query: Query, headers: &HeaderMap) -> Result<Arrival, Error> {
    let ImportImage { reference, rootfs } = import_name(query)?;
    export::arrival(reference, rootfs.unwrap_or_default(), export::identity(headers)?)
}

fn import_name(Query(pairs): Query) -> Result<ImportImage, Error> {
    let mut wanted = ImportImage::default();
    let twice = |field: &str, fix: &'static str| {
        Error::new(ErrorCode::InvalidRequest, format!("{field} is there twice"))
            .hint(fix)
            .context(serde_json::json!({"field": field}))
    };
    for (key, value) in pairs {
        match key.as_str() {
            "reference" if wanted.reference.is_some() => {
                let fix = "name it once; an archive of several images keeps their own names without it";
                return Err(twice("reference", fix));
            }
            "reference" => {
                border::reference("reference", &value)?;
                wanted.reference = Some(value);
            }
            "rootfs" if wanted.rootfs.is_some() => return Err(twice("rootfs", "say it once")),
            "rootfs" if matches!(value.as_str(), "true" | "false") => wanted.rootfs = Some(value == "true"),
            "rootfs" => return Err(border::refuse("rootfs", "must be `true` or `false`", "leave it out")),
            _ => return Err(Query::unknown(&key, "an import may be given a `reference`, and `rootfs`")),
        }
    }
    Ok(wanted)
}

pub(super) type Bytestream = Pin<Box<dyn AsyncRead + Send>>;

/// A body as bytes to read, with a bound on pauses. When it is dropped, what is left of it is passed on.
pub(super) struct Upload {
    bytes: Option<Bytestream>,
    rest: Option<oneshot::Sender<Bytestream>>,
}

impl Upload {
    pub(super) fn of(body: Body) -> (Self, oneshot::Receiver<Bytestream>) {
        let frames = body.into_data_stream().map_err(io::Error::other);
        let frames = tokio_stream::StreamExt::timeout(frames, Duration::from_secs(UPLOAD_PAUSE_S))
            .map(|frame| frame.unwrap_or_else(|pause| Err(io::Error::new(io::ErrorKind::TimedOut, pause))));
        let bytes: Bytestream = Box::pin(StreamReader::new(Box::pin(frames)));
        let (rest, receiver) = oneshot::channel();
        (Self { bytes: Some(bytes), rest: Some(rest) }, receiver)
    }
}

impl AsyncRead for Upload {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Some(bytes) => bytes.as_mut().poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(bytes), Some(rest)) = (self.bytes.take(), self.rest.take()) {
            // Nobody waits for it when the import was given up with the request.
            let _ = rest.send(bytes);
        }
    }
}

/// An import; when it fails, the rest of the upload is read and dropped for a while. Clients that are still
/// sending would otherwise see a broken connection in place of the reason.
pub(super) async fn drained<T>(
    import: impl Future<Output = Result<T, Error>>,
    rest: oneshot::Receiver<Bytestream>,
) -> Result<T, Error> {
    let result = import.await;
    if result.is_err() {
        let drain = async {
            if let Ok(mut rest) = rest.await {
                // Whether it came to its end does not matter.
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            }
        };
        let _ = tokio::time::timeout(UPLOAD_DRAIN, drain).await;
    }
    result
}

/// Does the work in a task of its own and answers with its events.
pub(super) fn reported<W, F, T>(app: &Arc<Shared>, request: RequestId, later: Later, work: W) -> Response
where
    W: FnOnce(Arc<Shared>, mpsc::Sender<Progress>) -> F,
    F: Future<Output = Result<Vec<T>, Error>> + Send + 'static,
    T: Serialize + Send + 'static,
{
    let (progress, reports) = mpsc::channel(EVENTS_MAX);
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let work = work(Arc::clone(app), progress);
    let (shared, id) = (Arc::clone(app), request.clone());
    let work = async move {
        let result = work.await;
        if let Err(error) = &result {
            audit::failed_later(&shared, &later, &id, error);
        }
        result
    };
    app.tasks.spawn(report(work, reports, sender, request));
    events::response(ReceiverStream::new(receiver))
}

/// The latest report per layer and phase that no reader has got yet: at most some hundreds.
#[derive(Debug, Default)]
struct Latest(Vec<Progress>);

impl Latest {
    fn add(&mut self, progress: Progress) {
        let same = |known: &&mut Progress| known.layer == progress.layer && known.phase == progress.phase;
        match self.0.iter_mut().find(same) {
            Some(known) => *known = progress,
            None => self.0.push(progress),
        }
    }

    /// Sends what the reader has room for.
    fn flush(&mut self, numbers: &mut Numbers, reader: &mpsc::Sender<Event>) {
        let mut sent = 0;
        for progress in &self.0 {
            let Ok(room) = reader.try_reserve() else { break };
            room.send(numbers.event("progress", progress));
            sent += 1;
        }
        self.0.drain(..sent);
    }
}

async fn report<T: Serialize>(
    work: impl Future<Output = Result<Vec<T>, Error>>,
    mut reports: mpsc::Receiver<Progress>,
    reader: mpsc::Sender<Event>,
    request: RequestId,
) {
    let mut numbers = Numbers::default();
    let mut latest = Latest::default();
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut work = std::pin::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            Some(progress) = reports.recv() => latest.add(progress),
            _ = ticks.tick(), if !latest.0.is_empty() => latest.flush(&mut numbers, &reader),
            // Nobody waits any more: the work is dropped, and what it has stored so far is kept.
            () = reader.closed() => return,
        }
    };
    while let Ok(progress) = reports.try_recv() {
        latest.add(progress);
    }
    latest.flush(&mut numbers, &reader);
    let last = match result {
        Ok(images) => images.iter().map(|image| numbers.event("image", image)).collect(),
        Err(failure) => vec![numbers.failure(&failure, &request)],
    };
    for event in last {
        // A reader that left has no use for the rest.
        if reader.send(event).await.is_err() {
            return;
        }
    }
}

/// Get an image.
///
/// By reference or digest.
#[utoipa::path(
    get, path = "/v1/images/{reference}", tag = "images", operation_id = "getImage",
    params(("reference" = String, Path, description = "Reference or digest, percent-encoded")),
    responses(
        (status = 200, description = "The image", body = Image),
        (status = 400, description = "`INVALID_REFERENCE`", body = ErrorBody),
        (status = 404, description = "`IMAGE_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    _: Peer,
    ReferenceInPath(reference): ReferenceInPath,
) -> Result<axum::Json<Image>, Refused> {
    Ok(axum::Json(app.state.catalog.inspect(&reference)?))
}

/// Delete an image.
///
/// Layers that no other image uses are removed with it. Its name is whose it was first: others use it, and do not remove it.
#[utoipa::path(
    delete, path = "/v1/images/{reference}", tag = "images", operation_id = "deleteImage",
    params(("reference" = String, Path, description = "Reference or digest, percent-encoded")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "`INVALID_REFERENCE`", body = ErrorBody),
        (status = 403, description = "`PERMISSION_DENIED`: the name is another user's", body = ErrorBody),
        (status = 404, description = "`IMAGE_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`IMAGE_IN_USE`", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): App,
    Peer(caller): Peer,
    ReferenceInPath(reference): ReferenceInPath,
) -> Result<StatusCode, Refused> {
    app.state.catalog.remove(&caller, &reference).await?;
    let about = serde_json::json!({"reference": reference});
    app.state.sandboxes.feed().publish(Kind::ImageRemoved, None, caller.uid, about);
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::sandbox::catalog::Phase;

    #[test]
    fn a_slow_reader_gets_the_latest_numbers_and_not_all_of_them() {
        let report = |layer, done_bytes| Progress {
            phase: Phase::Download,
            layer: Some(Digest::from_bytes([layer; 32])),
            done_bytes,
            total_bytes: 100,
        };
        let mut latest = Latest::default();
        for done in 0..100 {
            latest.add(report(1, done));
            latest.add(report(2, done));
        }
        assert_eq!(latest.0, [report(1, 99), report(2, 99)]);
        let (sender, mut reader) = mpsc::channel(1);
        let mut numbers = Numbers::default();
        latest.flush(&mut numbers, &sender);
        assert_eq!(latest.0, [report(2, 99)], "there was room for one");
        assert!(reader.try_recv().is_ok());
        latest.flush(&mut numbers, &sender);
        assert!(latest.0.is_empty());
    }

    #[test]
    fn an_import_has_one_name() {
        let query = Query::of;
        assert_eq!(import_name(query(&[])).expect("none").reference, None);
        assert!(import_name(query(&[("reference", "a"), ("reference", "b")])).is_err());
        assert!(import_name(query(&[("name", "a")])).is_err());
        assert!(import_name(query(&[("reference", "a\0")])).is_err());
    }
}
