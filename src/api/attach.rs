//! A command with live input and output over one WebSocket (RFC 6455).
//!
//! ```text
//! client                                   server
//!   text   RunCommand as JSON        ──▶
//!                                    ◀──   text   {"event":"started","id":…,"pid":…}
//!   binary 0 + bytes   (stdin)       ──▶
//!   binary 0           (its end)     ──▶
//!   text   {"signal":"SIGINT"}       ──▶
//!                                    ◀──   binary 1 + bytes   (stdout), 2 + bytes (stderr)
//!                                    ◀──   text   {"event":"exit",…} or {"event":"error",…}, close
//! ```
//!
//! Reading, writing and the command run side by side: input waits in a bounded queue while the command does
//! not take it, output waits in the command's pipe while the client does not. When the client leaves, the
//! command is killed. A client that leaves without closing, while its input queue is full, is found out by the
//! ping.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::caller::Peer;
use super::error::{self, Refused};
use super::extract::{IdInPath, Query, parse};
use super::output::{self, Output, Stdin};
use super::request::RequestId;
use super::schema::{AttachEvent, AttachOptions, ErrorBody, RunCommand, SendSignal, StartedEvent};
use super::{App, Shared, border};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::limits::{ATTACH_INPUT_BYTES_MAX, ATTACH_MESSAGE_BYTES_MAX};
use crate::sandbox::{Caller, CommandSpec, Recorded, Recorder, Sandbox};

/// First byte of a binary frame of input.
pub(crate) const STDIN: u8 = 0;
/// First byte of a binary frame of output.
pub(crate) const STDOUT: u8 = 1;
/// First byte of a binary frame of error output.
pub(crate) const STDERR: u8 = 2;

/// How long the client may take to say what to run.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to answer a close (RFC 6455 §7.1.1). A connection that is gone before then makes clients
/// forget the last frame: some answer before they hand out what came with the close.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of the reason in a frame that closes: a control frame has 125, two of them for the code (RFC 6455 §5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Between pings.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Run a command with live input and output.
///
/// A WebSocket. The first text frame of the client is a `RunCommand` without `stdin`. After that, binary frames
/// of the client begin with a byte 0 and carry input (an empty one ends it), and text frames are `SendSignal`.
/// The server sends `AttachEvent` in text frames, and output in binary frames that begin with 1 (stdout) or 2
/// (stderr). The last frame is the event `exit` or `error`. The command is killed when the client leaves. With
/// `?destroy=true` the sandbox is destroyed when the attachment ends, however it ends.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/commands/attach", tag = "commands", operation_id = "attachCommand",
    params(("id" = String, Path, description = "The sandbox"), AttachOptions),
    responses(
        (status = 101, description = "The connection speaks WebSocket from here on"),
        (status = 400, description = "`INVALID_REQUEST`: not a WebSocket handshake", body = ErrorBody),
        (status = 403, description = "`PERMISSION_DENIED`: from another origin", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn attach(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    IdInPath(id): IdInPath,
    query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    same_origin(&headers)?;
    let AttachOptions { destroy } = options(query)?;
    let upgrade = upgrade.map_err(|rejection| {
        Error::new(ErrorCode::InvalidRequest, "this route speaks WebSocket")
            .hint("use a WebSocket client, or POST to /v1/sandboxes/{id}/commands")
            .source(rejection)
    })?;
    let sandbox = app.state.sandboxes.awake(&caller, &id).await?;
    let upgrade = upgrade.max_message_size(ATTACH_MESSAGE_BYTES_MAX).max_frame_size(ATTACH_MESSAGE_BYTES_MAX);
    // Held by the closure from here, so that the daemon's end waits for the attachment too.
    let token = app.tasks.token();
    // Made now: it must also act when the handshake fails and the closure is never called.
    let last = destroy.then(|| DestroyAtEnd { app: Arc::clone(&app), caller, id });
    Ok(upgrade.on_upgrade(async move |socket| {
        tokio::select! {
            () = attached(socket, sandbox, request) => {}
            () = app.abort.cancelled() => {}
        }
        drop(last);
        drop(token);
    }))
}

/// Destroys a sandbox when it is dropped.
struct DestroyAtEnd {
    app: Arc<Shared>,
    caller: Arc<Caller>,
    id: SandboxId,
}

impl Drop for DestroyAtEnd {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            // The daemon is ending; the sandbox is found, and can be deleted, after its next start.
            return;
        }
        let (app, caller, id) = (Arc::clone(&self.app), Arc::clone(&self.caller), self.id.clone());
        let tasks = app.tasks.clone();
        tasks.spawn(async move {
            match app.state.sandboxes.destroy(&caller, &id).await {
                // The client may have destroyed it itself.
                Err(error) if error.code != ErrorCode::SandboxNotFound => {
                    tracing::warn!(%id, %error, "cannot destroy a sandbox at the end of its attachment");
                }
                _ => {}
            }
        });
    }
}

fn options(Query(pairs): Query) -> Result<AttachOptions, Error> {
    let mut options = AttachOptions::default();
    for (key, value) in pairs {
        if key != "destroy" {
            return Err(Query::unknown(&key, "an attachment may be given `destroy`"));
        }
        options.destroy = value.parse().map_err(|_| {
            Error::new(ErrorCode::InvalidRequest, "destroy must be true or false")
                .hint("leave it out, or write `destroy=true`")
                .context(serde_json::json!({"field": "destroy"}))
        })?;
    }
    Ok(options)
}

/// A browser sends the page's origin; a page of somewhere else that was made to reach us (DNS rebinding) must
/// not. Other clients send none, or the host that they connect to.
pub(super) fn same_origin(headers: &HeaderMap) -> Result<(), Error> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if authority.is_some() && authority == host {
        return Ok(());
    }
    Err(Error::new(ErrorCode::PermissionDenied, "attachments are not for pages of another origin")
        .hint("leave the header `origin` out, or send the host that is connected to"))
}

async fn attached(mut socket: WebSocket, sandbox: Arc<Sandbox>, request: RequestId) {
    let spec = match first(&mut socket).await {
        Ok(Some(spec)) => spec,
        Ok(None) => return,
        Err(refusal) => return refuse(&mut socket, &refusal, &request).await,
    };
    let mut command = match sandbox.run(spec).await {
        Ok(command) => command,
        Err(refusal) => return refuse(&mut socket, &refusal, &request).await,
    };
    let id = command.id.clone();
    let started = AttachEvent::Started(StartedEvent {
        id: id.clone(),
        pid: command.pid,
        recording: output::recording(&command),
    });
    if send_event(&mut socket, &started).await.is_err() {
        return;
    }
    let input = Input::new(command.stdin.take(), command.recorder.clone());
    let (mut sink, mut stream) = socket.split();
    let (sender, receiver) = output::channel();
    let forward = output::forward(command, Stdin::default(), sender);
    let refusal = {
        let write = write_frames(&mut sink, receiver, &id, &request);
        let mut read = pin!(read_frames(&mut stream, input, &sandbox, &id));
        tokio::select! {
            // Both end together: the writer after the last event, the other when the writer is gone.
            ((), ()) = async { tokio::join!(forward, write) } => {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, read).await;
                None
            }
            // The client left, or says what we do not know. What is dropped here kills the command.
            read = &mut read => read.err(),
        }
    };
    if let Some(refusal) = refusal {
        close_refused(&mut sink, &mut stream, &refusal).await;
    }
}

/// Closes the connection of a client that broke the protocol, and says how.
pub(super) async fn close_refused(
    sink: &mut SplitSink<WebSocket, Message>,
    stream: &mut SplitStream<WebSocket>,
    refusal: &Error,
) {
    let mut reason = format!("INVALID_REQUEST: {refusal}");
    reason.truncate(reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
    let frame = CloseFrame { code: close_code::POLICY, reason: reason.into() };
    let closed = async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while stream.next().await.is_some_and(|message| message.is_ok()) {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
}

/// What to run; `None` when the client left without saying.
async fn first(socket: &mut WebSocket) -> Result<Option<CommandSpec>, Error> {
    let text = match tokio::time::timeout(FIRST_TIMEOUT, socket.recv()).await {
        Ok(Some(Ok(Message::Text(text)))) => text,
        Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Ok(None),
        Ok(Some(Ok(_))) | Err(_) => {
            return Err(Error::new(ErrorCode::InvalidRequest, "the first frame must say what to run")
                .hint("send a text frame with the JSON of RunCommand"));
        }
    };
    let wanted: RunCommand = parse(text.as_bytes())?;
    let run = border::command(wanted)?;
    if run.stdin.is_some() {
        return Err(Error::new(ErrorCode::InvalidRequest, "an attachment takes its input in binary frames")
            .hint("leave out stdin and stdin_base64")
            .context(serde_json::json!({"field": "stdin"})));
    }
    Ok(Some(CommandSpec { stdin: true, ..run.spec }))
}

async fn refuse(socket: &mut WebSocket, refusal: &Error, request: &RequestId) {
    error::log(refusal, request.as_str());
    let event = AttachEvent::Error(error::body(refusal, request.as_str()));
    if send_event(socket, &event).await.is_ok() && socket.send(Message::Close(None)).await.is_ok() {
        let closed = async { while socket.recv().await.is_some_and(|message| message.is_ok()) {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    }
}

pub(super) async fn send_event<S, T: Serialize>(sink: &mut S, event: &T) -> Result<(), axum::Error>
where
    S: SinkExt<Message, Error = axum::Error> + Unpin,
{
    let text = serde_json::to_string(event).map_err(axum::Error::new)?;
    sink.send(Message::text(text)).await
}

/// Sends output and the last event; ends when that is sent, or when the client is gone.
async fn write_frames(
    sink: &mut SplitSink<WebSocket, Message>,
    mut output: mpsc::Receiver<Output>,
    command: &str,
    request: &RequestId,
) {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.reset();
    loop {
        let message = tokio::select! {
            output = output.recv() => match output {
                Some(Output::Stdout(bytes)) => frame(STDOUT, &bytes),
                Some(Output::Stderr(bytes)) => frame(STDERR, &bytes),
                last => {
                    let event = last_event(last, command, request);
                    if send_event(sink, &event).await.is_ok() {
                        // A client that has left already has what it needs.
                        let _ = sink.send(Message::Close(None)).await;
                    }
                    return;
                }
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(1 + bytes.len());
    frame.put_u8(kind);
    frame.extend_from_slice(bytes);
    Message::Binary(frame.freeze())
}

fn last_event(last: Option<Output>, command: &str, request: &RequestId) -> AttachEvent {
    let failure = match last {
        Some(Output::Ended(exit)) => return AttachEvent::Exit(output::end(command.to_owned(), &exit)),
        Some(Output::Failed(failure)) => failure,
        _ => Error::new(ErrorCode::Internal, "the daemon lost the command"),
    };
    error::log(&failure, request.as_str());
    AttachEvent::Error(error::body(&failure, request.as_str()))
}

/// Input on its way to the command.
struct Input {
    pipe: Option<pipe::Sender>,
    queue: VecDeque<Bytes>,
    queued: usize,
    ended: bool,
    recorder: Option<Arc<Recorder>>,
}

impl Input {
    fn new(pipe: Option<pipe::Sender>, recorder: Option<Arc<Recorder>>) -> Self {
        Self { pipe, queue: VecDeque::new(), queued: 0, ended: false, recorder }
    }

    fn has_room(&self) -> bool {
        self.queued < ATTACH_INPUT_BYTES_MAX
    }

    fn add(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            self.ended = true;
        } else if self.pipe.is_some() && !self.ended {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
        self.close_if_done();
    }

    /// Writes some more. Cancel-safe: one write.
    async fn write(&mut self) {
        let (Some(pipe), Some(bytes)) = (&mut self.pipe, self.queue.front_mut()) else { return };
        if let Ok(count) = pipe.write(bytes).await {
            if let Some(recorder) = &self.recorder {
                recorder.add(Recorded::Input, &bytes[..count]);
            }
            bytes.advance(count);
            self.queued -= count;
            if bytes.is_empty() {
                self.queue.pop_front();
            }
        } else {
            // The command reads no more; what else comes is dropped.
            self.queue.clear();
            self.queued = 0;
            self.ended = true;
        }
        self.close_if_done();
    }

    fn close_if_done(&mut self) {
        if self.ended && self.queue.is_empty() {
            self.pipe = None;
        }
    }
}

/// Takes input and signals, until the client leaves, or breaks the protocol: then it says how.
async fn read_frames(
    stream: &mut SplitStream<WebSocket>,
    mut input: Input,
    sandbox: &Sandbox,
    command: &str,
) -> Result<(), Error> {
    loop {
        let message = tokio::select! {
            message = stream.next(), if input.has_room() => message,
            () = input.write(), if !input.queue.is_empty() => continue,
        };
        match message {
            Some(Ok(Message::Binary(mut bytes))) if bytes.first() == Some(&STDIN) => {
                bytes.advance(1);
                input.add(bytes);
            }
            Some(Ok(Message::Text(text))) => {
                let signal = border::signal(&parse::<SendSignal>(text.as_bytes())?.signal)?;
                // A signal to a command that ends at this moment is not an error.
                let _ = sandbox.signal(command, signal).await;
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                return Err(Error::new(ErrorCode::InvalidRequest, "binary frames begin with a byte 0"));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_origin_cannot_attach() {
        for (origin, host, allowed) in [
            (None, Some("stockade"), true),
            (Some("http://stockade"), Some("stockade"), true),
            (Some("http://evil.example"), Some("stockade"), false),
            (Some("null"), Some("stockade"), false),
            (Some("null"), None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("header"));
            }
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().expect("header"));
            }
            assert_eq!(same_origin(&headers).is_ok(), allowed, "{origin:?} {host:?}");
        }
    }
}
