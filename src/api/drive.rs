//! One connection, from its first request to its end or the daemon's.

use axum::BoxError;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::service::HttpService;
use tokio_util::sync::CancellationToken;

/// Runs a connection to its end. When the daemon stops, the request that it is at may still end; `None` when it was dropped
/// before that.
pub(super) async fn drive<I, S, B>(
    connection: UpgradeableConnection<I, S>,
    drain: &CancellationToken,
    abort: &CancellationToken,
) -> Option<hyper::Result<()>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Error: Into<BoxError>> + 'static,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Some(ended),
        () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => Some(ended),
        () = abort.cancelled() => None,
    }
}
