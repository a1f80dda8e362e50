//! The daemon itself: is it there, what is it, how is it spoken to.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::App;
use super::caller::Peer;
use super::schema::ports::PreviewInfo;
use super::schema::{CallerInfo, DaemonInfo, ErrorBody, Health};
use crate::sandbox::QuotaView;

/// Is the daemon there?
///
/// Answers as soon as the daemon accepts requests.
#[utoipa::path(
    get, path = "/v1/healthz", tag = "host", operation_id = "getHealth",
    responses((status = 200, description = "It is", body = Health))
)]
pub(super) async fn health() -> axum::Json<Health> {
    axum::Json(Health { status: "ok".to_owned() })
}

/// What daemon is this, on what host?
///
/// `host.limits` says what would enforce each limit here; a limit that is not in it is refused when asked for.
/// `host.unenforced` lists those that the defaults want and that this host cannot enforce.
#[utoipa::path(
    get, path = "/v1/info", tag = "host", operation_id = "getInfo",
    responses(
        (status = 200, description = "The daemon and its host", body = DaemonInfo),
        (status = "5XX", description = "`INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn info(State(app): App, Peer(caller): Peer) -> axum::Json<DaemonInfo> {
    axum::Json(DaemonInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        host: app.state.host.clone(),
        preview: app.state.previews.as_ref().map(|base| PreviewInfo { url: base.url() }),
        sandboxes: app.state.sandboxes.list(&caller).len(),
        caller: CallerInfo { uid: caller.uid, operator: caller.operator },
    })
}

/// How much may the caller have?
///
/// And how much of it is taken. Counted are limits of sandboxes, and not what they use: of memory and processors those
/// that run, of disk and in number all of them.
#[utoipa::path(
    get, path = "/v1/quota", tag = "host", operation_id = "getQuota",
    responses((status = 200, description = "The quota", body = QuotaView))
)]
pub(super) async fn quota(State(app): App, Peer(caller): Peer) -> axum::Json<QuotaView> {
    axum::Json(app.state.sandboxes.quota(&caller))
}

/// How is it spoken to?
///
/// This document, OpenAPI 3.1, generated from the code.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "host", operation_id = "getOpenapi",
    responses((status = 200, description = "The document", body = Object))
)]
pub(super) async fn openapi() -> impl IntoResponse {
    // Half a megabyte that few ask for, made when the first does.
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| super::openapi().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}
