//! Sandboxes that leave the host, and come back: as archives, images in registries, objects in buckets.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use tokio_util::io::StreamReader;

use super::audit::Later;
use super::border::{line, reference, refuse};
use super::border_mounts::mount;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json, SnapshotInPath};
use super::files::content::begun;
use super::files::query::Query;
use super::request::RequestId;
use super::schema::ErrorBody;
use super::schema::export::{BucketObject, LoadImage, PushSandbox, StoreSandbox};
use super::schema::images::{ImageList, PullImage};
use super::schema::mounts::AddMount;
use super::snapshots::kept_for;
use super::{App, Shared, border, events, images};
use crate::error::{Error, ErrorCode};
use crate::journal::feed::Kind;
use crate::limits::{KEY_BYTES_MAX, PATH_BYTES_MAX};
use crate::sandbox::catalog::{Arrival, Pushed, plainly};
use crate::sandbox::{
    BUCKET_PATH, DirectorySpec, ExportFormat, ExportSpec, MountRequest, SnapshotSpec, SnapshotView,
    StoredObject,
};
use crate::seal::{Identity, Recipient};

/// The header with the identity that an upload is encrypted to: not in the URL, which is logged.
pub const IDENTITY: HeaderName = HeaderName::from_static("x-stockade-identity");

fn no_key(field: &str, what: &str) -> Error {
    Error::new(ErrorCode::KeyInvalid, format!("{field} is not {what} of age"))
        .hint("`age-keygen` makes a recipient (age1…) and its identity (AGE-SECRET-KEY-1…)")
        .context(serde_json::json!({ "field": field }))
}

fn recipient(text: Option<&str>) -> Result<Option<Recipient>, Error> {
    let parse = |text: &str| Recipient::parse(text).ok_or_else(|| no_key("recipient", "a recipient"));
    text.map(parse).transpose()
}

/// What opens an upload, from its header.
pub(super) fn identity(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(IDENTITY) else { return Ok(None) };
    checked("x-stockade-identity", value.to_str().unwrap_or_default()).map(Some)
}

fn checked(field: &str, text: &str) -> Result<String, Error> {
    match Identity::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(no_key(field, "an identity")),
    }
}

fn export_spec(
    format: ExportFormat,
    name: Option<String>,
    recipient_text: Option<&str>,
) -> Result<ExportSpec, Error> {
    if let Some(name) = &name {
        reference("reference", name)?;
        if format == ExportFormat::Tar {
            return Err(Error::new(
                ErrorCode::SnapshotUnsupported,
                "a tar of files has no name: reference is for images",
            )
            .hint("leave it out, or ask for oci"));
        }
    }
    Ok(ExportSpec { format, reference: name, recipient: recipient(recipient_text)? })
}

/// What the carrier of an object mounts, and the key.
fn object(wanted: BucketObject, read_only: bool) -> Result<(MountRequest, String), Error> {
    let BucketObject { endpoint, bucket, key, region, addressing, credentials } = wanted;
    line("object.key", &key, KEY_BYTES_MAX)?;
    if key.is_empty() || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::new(ErrorCode::PathInvalid, "object.key has an empty part, `.` or `..`")
            .hint("write it like `a/b`"));
    }
    let path = BUCKET_PATH.to_owned();
    let wanted = AddMount {
        path,
        endpoint,
        bucket,
        region,
        addressing,
        credentials,
        read_only,
        ..AddMount::default()
    };
    let request = mount(wanted).map_err(|error| {
        let field = error.context.as_ref().and_then(|context| context["field"].as_str()).map(str::to_owned);
        match field {
            Some(field) => error.context(serde_json::json!({ "field": format!("object.{field}") })),
            None => error,
        }
    })?;
    Ok((request, key))
}

/// Export a sandbox.
///
/// All of its files, as they are at one moment: as a tar of an OCI layout, which `import` takes anywhere, with the sandbox's
/// variables, user and working directory; or as a tar of the files alone, compressed with zstd. With `recipient` it is
/// encrypted in the format of age. Made while it is sent: a failure on the way breaks the body off. Sockets and extended
/// attributes are not part of it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/export", tag = "snapshots", operation_id = "exportSandbox",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("format" = Option<ExportFormat>, Query, description = "`oci` when absent"),
        ("reference" = Option<String>, Query, description = "The image's name in its layout"),
        ("recipient" = Option<String>, Query, description = "Who alone can read it: `age1…`"),
    ),
    responses(
        (status = 200, description = "The archive", body = super::schema::RawBytes,
            content_type = "application/octet-stream"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`SNAPSHOT_UNSUPPORTED`, `KEY_INVALID`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `INVALID_REFERENCE`, `SANDBOX_DEAD`",
            body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn export(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<Response, Refused> {
    let (format, name, to) = (format(&mut query)?, query.text("reference")?, query.text("recipient")?);
    query.end()?;
    let spec = export_spec(format.unwrap_or_default(), name, to.as_deref())?;
    Ok(bytes(begun(app.state.sandboxes.export(&caller, &id, spec)).await?))
}

fn format(query: &mut Query) -> Result<Option<ExportFormat>, Error> {
    match query.text("format")?.as_deref() {
        None => Ok(None),
        Some("oci") => Ok(Some(ExportFormat::Oci)),
        Some("tar") => Ok(Some(ExportFormat::Tar)),
        Some(_) => Err(refuse("format", "must be `oci` or `tar`", "leave it out")),
    }
}

fn bytes(body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Push a sandbox to a registry.
///
/// An image of one layer, of all files as they are at one moment, with the sandbox's variables, user and working directory.
/// Nothing of it stays here. With the header `accept: text/event-stream` the answer is a stream: `progress` per blob, then
/// `image` or `error`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/push", tag = "snapshots", operation_id = "pushSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = PushSandbox,
    responses(
        (status = 200, description = "What the registry has, or events", content(
            (Pushed = "application/json"), (String = "text/event-stream"),
        )),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `REGISTRY_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`REGISTRY_DENIED`, `SNAPSHOT_UNSUPPORTED`",
            body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `INVALID_REFERENCE`, `SANDBOX_DEAD`",
            body = ErrorBody),
        (status = "5XX", description = "`REGISTRY_UNREACHABLE`, `CAPACITY_EXHAUSTED`, `INTERNAL`",
            body = ErrorBody),
    )
)]
pub(super) async fn push(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    Json(wanted, _): Json<PushSandbox>,
) -> Result<Response, Refused> {
    let PushSandbox { reference, username, password, token, plain_http, ca_pem } = wanted;
    let wanted = PullImage { reference, platform: None, username, password, token, plain_http, ca_pem };
    let to = border::pull(wanted)?;
    if !events::wanted(&headers) {
        return Ok(axum::Json(app.state.sandboxes.push(&caller, &id, to, None).await?).into_response());
    }
    let later = Later { caller: caller.clone(), operation: "pushSandbox", sandbox: Some(id.to_string()) };
    let work = async move |app: Arc<Shared>, progress| {
        let pushed: Pushed = app.state.sandboxes.push(&caller, &id, to, Some(progress)).await?;
        Ok(vec![pushed])
    };
    Ok(images::reported(&app, request, later, work))
}

/// Store a sandbox in a bucket.
///
/// The archive of an export, as an object. The bucket's keys stay with the daemon, which reaches that server alone. When the
/// answer comes the bucket has all of it.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/store", tag = "snapshots", operation_id = "storeSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = StoreSandbox,
    responses(
        (status = 200, description = "The object", body = StoredObject),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `BUCKET_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`BUCKET_DENIED`, `SNAPSHOT_UNSUPPORTED`, `KEY_INVALID`",
            body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `INVALID_REFERENCE`, `DIRECTORY_DENIED`, \
            `SANDBOX_DEAD`, `FILE_DENIED`, `PATH_INVALID`, `NOT_DIRECTORY`", body = ErrorBody),
        (status = "5XX", description = "`BUCKET_UNREACHABLE`, `CAPACITY_EXHAUSTED`, `DISK_FULL`, `INTERNAL`",
            body = ErrorBody),
    )
)]
pub(super) async fn store(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<StoreSandbox>,
) -> Result<axum::Json<StoredObject>, Refused> {
    let StoreSandbox { object: place, format, reference, recipient } = wanted;
    let spec = export_spec(format, reference, recipient.as_deref())?;
    let place = object(place, false)?;
    Ok(axum::Json(app.state.sandboxes.store(&caller, &id, spec, place).await?))
}

/// Import an image from a bucket.
///
/// As importing it from a body. With `rootfs` the object is a tar of files, plain, gzip or zstd, and becomes an image of one
/// layer.
#[utoipa::path(
    post, path = "/v1/images/load", tag = "images", operation_id = "loadImage",
    request_body = LoadImage,
    responses(
        (status = 200, description = "The images", body = ImageList),
        (status = 403, description = "`PERMISSION_DENIED`: the name is another user's", body = ErrorBody),
        (status = 404, description = "`BUCKET_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`BUCKET_DENIED`, `IMAGE_INVALID`, `KEY_INVALID`", body = ErrorBody),
        (status = 429, description = "`QUOTA_EXCEEDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_REFERENCE`, `DIRECTORY_DENIED`, `FILE_DENIED`, \
            `FILE_NOT_REGULAR`, `PATH_INVALID`, `NOT_DIRECTORY`", body = ErrorBody),
        (status = "5XX", description = "`BUCKET_UNREACHABLE`, `CAPACITY_EXHAUSTED`, `INTERNAL`",
            body = ErrorBody),
    )
)]
pub(super) async fn load(
    State(app): App,
    Peer(caller): Peer,
    Json(wanted, _): Json<LoadImage>,
) -> Result<axum::Json<ImageList>, Refused> {
    let LoadImage { object: place, reference, rootfs, identity } = wanted;
    let identity = identity.map(|text| checked("identity", &text)).transpose()?;
    let arrival = arrival(reference, rootfs, identity)?;
    let place = object(place, true)?;
    let catalog = app.state.catalog.clone();
    let by = caller.clone();
    let work = async move |stream| {
        let stream = TryStreamExt::map_err(stream, |error: Error| std::io::Error::other(error));
        catalog.take_in(&by, arrival, StreamReader::new(stream), None).await
    };
    let images = app.state.sandboxes.with_object(place, work).await?;
    images.iter().for_each(|image| images::say(&app, &caller, Kind::ImageImported, image));
    Ok(axum::Json(ImageList { images, built_in: Vec::new() }))
}

/// An archive that is to become images, if its parts go together.
pub(super) fn arrival(
    name: Option<String>,
    rootfs: bool,
    identity: Option<String>,
) -> Result<Arrival, Error> {
    if let Some(name) = &name {
        reference("reference", name)?;
    }
    Ok(Arrival { reference: name, rootfs, identity })
}

/// Download a snapshot.
///
/// One of a directory is a tar, compressed with zstd. One of all files is what exporting a sandbox that is made of it
/// would give. With `recipient` it is encrypted in the format of age.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}/archive", tag = "snapshots", operation_id = "downloadSnapshot",
    params(
        ("id" = String, Path, description = "The snapshot"),
        ("format" = Option<ExportFormat>, Query,
            description = "When absent `oci` for one of all files; always `tar` for one of a directory"),
        ("reference" = Option<String>, Query, description = "The image's name in its layout"),
        ("recipient" = Option<String>, Query, description = "Who alone can read it: `age1…`"),
    ),
    responses(
        (status = 200, description = "The archive", body = super::schema::RawBytes,
            content_type = "application/octet-stream"),
        (status = 404, description = "`SNAPSHOT_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SNAPSHOT_MISMATCH`: it is of a directory, and no image", body = ErrorBody),
        (status = 422, description = "`KEY_INVALID`, `SNAPSHOT_UNSUPPORTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `INVALID_REFERENCE`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn download(
    State(app): App,
    Peer(caller): Peer,
    SnapshotInPath(id): SnapshotInPath,
    mut query: Query,
) -> Result<Response, Refused> {
    let (format, name, to) = (format(&mut query)?, query.text("reference")?, query.text("recipient")?);
    query.end()?;
    let sandboxes = &app.state.sandboxes;
    let body = if sandboxes.find_snapshot(&caller, &id)?.path.is_none() {
        let spec = export_spec(format.unwrap_or_default(), name, to.as_deref())?;
        begun(sandboxes.export_snapshot(&caller, &id, spec)?).await?
    } else {
        if format == Some(ExportFormat::Oci) || name.is_some() {
            return Err(Error::new(ErrorCode::SnapshotMismatch, "a snapshot of a directory makes no image")
                .hint("leave format and reference out: it is a tar")
                .into());
        }
        begun(sandboxes.archive(&caller, &id, recipient(to.as_deref())?)?).await?
    };
    Ok(bytes(body))
}

/// Upload a snapshot of a directory.
///
/// The body is a tar, plain, gzip or zstd, encrypted to the identity in the header `x-stockade-identity` if there is one. It
/// becomes a snapshot of `path`, which is restored as any other.
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "snapshots", operation_id = "uploadSnapshot",
    params(
        ("path" = String, Query, description = "The directory that it is of, absolute"),
        ("name" = Option<String>, Query, description = "For people"),
        ("ttl_ms" = Option<u64>, Query, minimum = 1, maximum = 315_360_000_000_u64,
            description = "Delete it so many milliseconds after it was made"),
        ("x-stockade-identity" = Option<String>, Header, description = "`AGE-SECRET-KEY-1…`; never kept or logged"),
    ),
    request_body(content = super::schema::RawBytes, content_type = "application/octet-stream",
        description = "The archive"),
    responses(
        (status = 201, description = "The snapshot", body = SnapshotView),
        (status = 422, description = "`IMAGE_INVALID`: it cannot be decrypted or unpacked; `KEY_INVALID`, `PATH_INVALID`", body = ErrorBody),
        (status = 429, description = "`QUOTA_EXCEEDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn upload_snapshot(
    State(app): App,
    Peer(caller): Peer,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Result<(StatusCode, axum::Json<SnapshotView>), Refused> {
    let (uploaded, rest) = images::Upload::of(body);
    let kept = async {
        let spec = uploaded_spec(query)?;
        let opened = app.state.catalog.opened(identity(&headers)?, true, uploaded).await;
        let tar = TryStreamExt::map_err(opened.map_err(of_tar)?, |error| of_tar(plainly(error)));
        app.state.sandboxes.keep_from(&caller, spec, tar).await
    };
    Ok((StatusCode::CREATED, axum::Json(images::drained(kept, rest).await?)))
}

/// The same error, of what is to be a snapshot and no image.
fn of_tar(error: Error) -> Error {
    if error.code == ErrorCode::ImageInvalid {
        return error.hint("send all of a tar: plain, gzip or zstd, or encrypted and with its identity");
    }
    error
}

fn uploaded_spec(mut query: Query) -> Result<SnapshotSpec, Error> {
    let path = query.text("path")?.ok_or_else(|| refuse("path", "is missing", "name the directory"))?;
    let (name, ttl) = (query.text("name")?, query.number("ttl_ms")?);
    query.end()?;
    line("path", &path, PATH_BYTES_MAX - 1)?;
    if !path.starts_with('/') || path.trim_matches('/').is_empty() {
        return Err(Error::new(ErrorCode::PathInvalid, "path must be absolute, and not the root")
            .hint("name a directory"));
    }
    let ttl = kept_for(name.as_deref(), ttl)?;
    Ok(SnapshotSpec {
        name,
        ttl,
        directory: Some(DirectorySpec { path, ..DirectorySpec::default() }),
        ..SnapshotSpec::default()
    })
}
