//! Looking at a terminal, and typing into it, over a WebSocket (RFC 6455).
//!
//! ```text
//! viewer                                   server
//!                                    ◀──   text   {"event":"attached","cursor":…}
//!                                    ◀──   binary output, from that position on
//!   binary input                     ──▶
//!   text   {"resize":{…}}            ──▶
//!                                    ◀──   text   {"event":"skipped","bytes":…,"cursor":…}   (the viewer was slow)
//!                                    ◀──   text   {"event":"exit","exit_code":…,"cursor":…}, close
//! ```
//!
//! A viewer counts bytes to know its position: with `?cursor=` it goes on there. Input waits in a bounded queue
//! while the terminal does not take it; what a viewer does not read is not kept for it, beyond the terminal's ring.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::{Buf, Bytes};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};

use super::attach::{CLOSE_TIMEOUT, PING_INTERVAL, close_refused, same_origin, send_event};
use super::caller::Peer;
use super::error::Refused;
use super::extract::{ItemInPath, Query, parse};
use super::schema::{ErrorBody, LookAtTerminal, TerminalControl, TerminalEvent};
use super::{App, border, border_lasting};
use crate::error::{Error, ErrorCode};
use crate::limits::{ATTACH_INPUT_BYTES_MAX, ATTACH_MESSAGE_BYTES_MAX};
use crate::sandbox::{Sight, Terminal, Viewer, exit_code};

/// Bytes of output in one frame.
const FRAME_BYTES: usize = 32 * 1024;

/// Look at a terminal.
///
/// A WebSocket. Binary frames are the terminal's bytes, as they are, both ways: output from `cursor` on, and input.
/// Text frames are `TerminalEvent` from the server and `TerminalControl` from the viewer. The last frame is the
/// event `exit`. Any number of viewers may look at one terminal; it goes on when they leave.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/terminals/{terminal}/attach", tag = "terminals",
    operation_id = "attachTerminal",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("terminal" = String, Path, description = "The terminal"),
        LookAtTerminal,
    ),
    responses(
        (status = 101, description = "The connection speaks WebSocket from here on"),
        (status = 400, description = "`INVALID_REQUEST`: not a WebSocket handshake", body = ErrorBody),
        (status = 403, description = "`PERMISSION_DENIED`: from another origin", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `TERMINAL_NOT_FOUND`", body = ErrorBody),
        (status = 416, description = "`RANGE_NOT_SATISFIABLE`: a cursor behind the end", body = ErrorBody),
    )
)]
pub(super) async fn attach(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
    query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    same_origin(&headers)?;
    let LookAtTerminal { cursor } = options(query)?;
    let upgrade = upgrade.map_err(|rejection| {
        Error::new(ErrorCode::InvalidRequest, "this route speaks WebSocket")
            .hint("use a WebSocket client, or `stockade shell`")
            .source(rejection)
    })?;
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    let (terminal, used) = (sandbox.terminal(&item)?, sandbox.hold());
    let viewer = terminal.look(cursor)?;
    let upgrade = upgrade.max_message_size(ATTACH_MESSAGE_BYTES_MAX).max_frame_size(ATTACH_MESSAGE_BYTES_MAX);
    // Held by the closure from here, so that the daemon's end waits for the viewer too.
    let token = app.tasks.token();
    Ok(upgrade.on_upgrade(async move |socket| {
        tokio::select! {
            () = viewed(socket, terminal, viewer) => {}
            () = app.abort.cancelled() => {}
        }
        drop((token, used));
    }))
}

fn options(Query(pairs): Query) -> Result<LookAtTerminal, Error> {
    let mut options = LookAtTerminal::default();
    for (key, value) in pairs {
        if key != "cursor" {
            return Err(Query::unknown(&key, "a viewer may be given `cursor`"));
        }
        let cursor = value.parse().map_err(|_| {
            Error::new(ErrorCode::InvalidRequest, "cursor must be a position in the output")
                .hint("give the number of an event, plus the bytes that came since; or leave it out")
                .context(serde_json::json!({"field": "cursor"}))
        })?;
        options.cursor = Some(cursor);
    }
    Ok(options)
}

async fn viewed(socket: WebSocket, terminal: Arc<Terminal>, viewer: Viewer) {
    let (mut sink, mut stream) = socket.split();
    let refusal = {
        let mut read = pin!(read_frames(&mut stream, &terminal));
        tokio::select! {
            () = write_frames(&mut sink, viewer) => {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, read).await;
                None
            }
            read = &mut read => read.err(),
        }
    };
    if let Some(refusal) = refusal {
        close_refused(&mut sink, &mut stream, &refusal).await;
    }
}

/// Sends output until the terminal's end, or until the viewer is gone.
async fn write_frames(sink: &mut SplitSink<WebSocket, Message>, mut viewer: Viewer) {
    let mut cursor = viewer.position();
    if send_event(sink, &TerminalEvent::Attached { cursor }).await.is_err() {
        return;
    }
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.reset();
    loop {
        let sight = tokio::select! {
            sight = viewer.next(FRAME_BYTES) => sight,
            _ = pings.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let sent = match sight {
            Sight::Output(piece) => {
                let skipped = piece.from - cursor;
                cursor = piece.from + piece.bytes.len() as u64;
                let event = TerminalEvent::Skipped { bytes: skipped, cursor: piece.from };
                if skipped > 0 && send_event(sink, &event).await.is_err() {
                    return;
                }
                sink.send(Message::Binary(piece.bytes.into())).await
            }
            Sight::End(exit) => {
                let event = TerminalEvent::Exit { exit_code: exit_code(exit), cursor };
                if send_event(sink, &event).await.is_ok() {
                    // A viewer that has left already has what it needs.
                    let _ = sink.send(Message::Close(None)).await;
                }
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Takes input and control, until the viewer leaves, or breaks the protocol: then it says how.
async fn read_frames(stream: &mut SplitStream<WebSocket>, terminal: &Terminal) -> Result<(), Error> {
    let mut input = Input::default();
    loop {
        let message = tokio::select! {
            message = stream.next(), if input.queued < ATTACH_INPUT_BYTES_MAX => message,
            () = input.write(terminal), if !input.queue.is_empty() => continue,
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => input.add(bytes),
            Some(Ok(Message::Text(text))) => {
                if let Err(error) = control(terminal, text.as_bytes()).await
                    && error.code == ErrorCode::InvalidRequest
                {
                    return Err(error);
                }
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
        }
    }
}

/// Does what a text frame says. A terminal that ends at this moment is not the viewer's mistake.
async fn control(terminal: &Terminal, text: &[u8]) -> Result<(), Error> {
    let TerminalControl { resize, signal } = parse(text)?;
    if let Some(size) = resize {
        let (rows, columns) = border_lasting::terminal_size(size)?;
        terminal.resize(rows, columns)?;
    }
    if let Some(signal) = signal {
        terminal.signal(border::signal(&signal)?, false).await?;
    }
    Ok(())
}

/// Input on its way to the terminal.
#[derive(Debug, Default)]
struct Input {
    queue: VecDeque<Bytes>,
    queued: usize,
}

impl Input {
    fn add(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Writes some more. Cancel-safe: one write.
    async fn write(&mut self, terminal: &Terminal) {
        let Some(bytes) = self.queue.front_mut() else { return };
        let count = match terminal.write(bytes).await {
            Ok(count) => count,
            // Nobody has the terminal open: what is typed now is lost, as on any terminal.
            Err(_) => bytes.len(),
        };
        bytes.advance(count);
        self.queued -= count;
        if bytes.is_empty() {
            self.queue.pop_front();
        }
    }
}
