//! The interface over a real socket, above the [twin](crate::sandbox::twin) of launcher and agents: commands are
//! real processes of this host, without any isolation.

mod bodies;
mod commands;
mod connections;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::State;
use crate::journal::audit::Audit;
use crate::sandbox::twin;
use crate::wire::launch::Host;

/// A daemon in this process.
struct Daemon {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<std::io::Result<()>>,
    _directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts one that takes callers with these uids for sandboxes.
    async fn start(sandbox_uids: std::ops::Range<u32>) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("s.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        let (sandboxes, catalog) = twin::start(directory.path()).await;
        let state = State {
            sandboxes,
            catalog,
            audit: Audit::open(directory.path()).expect("audit"),
            host: Host::default(),
            operator_gid: None,
            sandbox_uids,
            previews: None,
            when_idle: || {},
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(super::serve(listener, None, state, async {
            // Dropping the sender stops it too.
            let _ = stopped.await;
        }));
        Self { socket, stop: Some(stop), served, _directory: directory }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.expect("connect")
    }

    /// Sends one request on a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming> {
        let stream = TokioIo::new(self.connect().await);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.expect("handshake");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("answer")
    }

    /// Sends a request with JSON, or nothing, and reads the answer.
    async fn call(&self, method: &str, path: &str, body: Option<&str>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "stockade");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = Full::from(body.unwrap_or_default().to_owned());
        answer(self.send(request.body(body).expect("request")).await).await
    }

    /// A sandbox of this id.
    async fn sandbox(&self, id: &str) {
        let (status, body) = self.call("POST", "/v1/sandboxes", Some(&format!(r#"{{"id":"{id}"}}"#))).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    /// Runs a script and waits for its result.
    async fn shell(&self, id: &str, script: &str, more: &str) -> (StatusCode, Value) {
        let body = format!(r#"{{"shell":{}{more}}}"#, Value::from(script));
        self.call("POST", &format!("/v1/sandboxes/{id}/commands"), Some(&body)).await
    }
}

async fn answer(response: Response<hyper::body::Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let body: Value =
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
    if !status.is_success() {
        assert_eq!(body["request_id"], *id);
        assert!(!body["message"].as_str().expect("message").is_empty());
    }
    (status, body)
}

/// Waits until something holds, and fails after a while.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come true that {what}");
}
