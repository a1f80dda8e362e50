//! The API over its Unix socket: requests, events, WebSocket.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

use super::failure::Failure;
use super::{OWN_FAILURE, show};
use crate::api::schema::ErrorBody;

/// What a request carries.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is not escaped in one segment of a path (RFC 3986 §2.3).
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client of one daemon. A connection per request: connecting to a Unix socket takes microseconds.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    /// The connection that showed that the daemon is there, for the first request.
    first: RefCell<Option<UnixStream>>,
}

/// One segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A route with those of these parameters that were given.
pub(super) fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?))));
    let query: Vec<_> = given.collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

impl Client {
    pub(super) fn new(socket: &Path, first: Option<UnixStream>) -> Self {
        Self { socket: socket.to_owned(), first: RefCell::new(first) }
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let first = self.first.borrow_mut().take();
        match first {
            Some(stream) => Ok(stream),
            None => UnixStream::connect(&self.socket)
                .await
                .map_err(|source| Failure::Connect { socket: self.socket.clone(), source }),
        }
    }

    /// Sends a request; the answer is a success.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Lost(error.into()))?;
        tokio::spawn(async move {
            // What goes wrong here, the sender sees as well.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| Failure::Lost(error.into()))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = whole(response).await?;
        Err(refusal(status, &bytes))
    }

    /// A request with a JSON body, or none.
    pub(super) async fn request<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        accept: &'static str,
    ) -> Result<Response<Incoming>, Failure> {
        let bytes = body.map(serde_json::to_vec).transpose().map_err(Failure::NotOurs)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "stockade")
            .header(header::ACCEPT, accept);
        if bytes.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::from(bytes.unwrap_or_default()).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).map_err(|error| Failure::Usage(error.to_string()))?;
        self.send(request).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        json(self.request::<()>(Method::GET, path, None, "application/json").await?).await
    }

    pub(super) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<(StatusCode, T), Failure> {
        let response = self.request(Method::POST, path, Some(body), "application/json").await?;
        Ok((response.status(), json(response).await?))
    }

    pub(super) async fn post_empty<B: Serialize>(&self, path: &str, body: &B) -> Result<(), Failure> {
        self.request(Method::POST, path, Some(body), "application/json").await.map(drop)
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.request::<()>(Method::DELETE, path, None, "application/json").await.map(drop)
    }

    /// Deletes what has these names below a path: all of them, even when one cannot be. Says which are gone, and of the
    /// others why not; gives the exit code.
    pub(super) async fn delete_each(&self, all: &str, names: &[String], json: bool) -> Result<u8, Failure> {
        let mut code = 0;
        for name in names {
            match self.delete(&format!("{all}/{}", segment(name))).await {
                Err(failure) => {
                    failure.show(json);
                    code = OWN_FAILURE;
                }
                Ok(()) if json => {}
                Ok(()) => show::print(&format!("{name}\n"))?,
            }
        }
        Ok(code)
    }

    /// The process that made the daemon's socket listen: the launcher, or whoever passed it the socket (unix(7),
    /// `SO_PEERCRED`).
    pub(super) async fn daemon(&self) -> Result<Option<i32>, Failure> {
        let credentials = self.connect().await?.peer_cred().map_err(|error| Failure::Lost(error.into()))?;
        Ok(credentials.pid())
    }

    pub(super) async fn delete_with_answer<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        json(self.request::<()>(Method::DELETE, path, None, "application/json").await?).await
    }

    /// Opens a connection that carries the bytes of another one.
    pub(super) async fn tunnel(&self, path: &str) -> Result<Upgraded, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Lost(error.into()))?;
        tokio::spawn(async move {
            // What goes wrong here, the sender sees as well.
            let _ = connection.with_upgrades().await;
        });
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, "stockade")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "tcp")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| Failure::Lost(error.into()))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let bytes = whole(response).await?;
            return Err(refusal(status, &bytes));
        }
        hyper::upgrade::on(response).await.map_err(|error| Failure::Lost(error.into()))
    }

    /// Opens a WebSocket.
    pub(super) async fn attach(&self, path: &str) -> Result<WebSocketStream<UnixStream>, Failure> {
        let stream = self.connect().await?;
        match tokio_tungstenite::client_async(format!("ws://stockade{path}"), stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let bytes = response.body().as_deref().unwrap_or_default();
                Err(refusal(response.status(), bytes))
            }
            Err(error) => Err(Failure::Lost(error.into())),
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = response.into_body().collect().await.map_err(|error| Failure::Lost(error.into()))?;
    Ok(body.to_bytes())
}

/// The value that a response carries.
pub(super) async fn json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Failure> {
    serde_json::from_slice(&whole(response).await?).map_err(Failure::NotOurs)
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorBody>(bytes) {
        Ok(body) => Failure::Refused(Box::new(body)),
        Err(_) => Failure::Lost(format!("it answered {status} without saying why").into()),
    }
}

/// An event of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name.
    pub(super) name: String,
    /// Its data, JSON.
    pub(super) data: String,
    /// Where a stream goes on that broke after it.
    pub(super) id: Option<String>,
}

impl Event {
    /// What the event `error` says: why there is no more of the stream.
    pub(super) fn refusal(&self) -> Failure {
        serde_json::from_str(&self.data)
            .map_or_else(Failure::NotOurs, |body| Failure::Refused(Box::new(body)))
    }
}

/// A stream of events (WHATWG HTML §9.2), as far as our server uses the format.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    lines: Lines,
}

impl Events {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), lines: Lines::default() }
    }

    /// The next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.lines.next_event() {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.lines.text.extend_from_slice(bytes);
                    }
                }
                Some(Err(error)) => return Err(Failure::Lost(error.into())),
                None => return Ok(None),
            }
        }
    }
}

/// Bytes that are not events yet.
#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
}

impl Lines {
    fn next_event(&mut self) -> Option<Event> {
        loop {
            let end = self.text.windows(2).position(|pair| pair == b"\n\n")?;
            let rest = self.text.split_off(end + 2);
            let block = std::mem::replace(&mut self.text, rest);
            let block = String::from_utf8_lossy(&block);
            let field = |wanted: &str| {
                let mut fields = block.lines().filter_map(|line| line.split_once(':'));
                fields.find(|(name, _)| *name == wanted).map(|(_, value)| value.trim_start().to_owned())
            };
            // A block of comments only is there to keep the connection alive.
            if let (Some(name), Some(data)) = (field("event"), field("data")) {
                return Some(Event { name, data, id: field("id") });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_being_cut_anywhere() {
        let stream = b": ping\n\nevent: a\nid: 1\ndata: {\"x\":1}\n\n:\n\nevent: b\ndata: {}\n\n";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                lines.text.extend_from_slice(part);
                while let Some(event) = lines.next_event() {
                    found.push((event.name, event.data));
                }
            }
            let expected = [("a", "{\"x\":1}"), ("b", "{}")];
            assert_eq!(found, expected.map(|(name, data)| (name.to_owned(), data.to_owned())), "{cut}");
        }
    }

    #[test]
    fn a_reference_is_one_segment() {
        assert_eq!(segment("a.b:5000/c_d:1"), "a.b%3A5000%2Fc_d%3A1");
        assert_eq!(segment("../x"), "..%2Fx");
    }
}
