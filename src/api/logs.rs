//! Logs of processes: a part as JSON, all of it as bytes, or followed as events.
//!
//! The id of an event is the cursor behind its bytes, so a client that comes back with `Last-Event-ID` goes on with
//! the next byte. A character is never cut between two events while the rest of it may still come: the reader goes
//! back to its first byte instead, and nothing is held in between that an id would not know of.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{ProcessInPath, Query};
use super::schema::processes::{LogDropped, LogEntry, LogPart, Process, ReadLog};
use super::schema::{ErrorBody, RawBytes};
use super::{App, border, events, lifecycle, output, processes};
use crate::error::Error;
use crate::sandbox::{self, Piece, Reader, Stream};

/// Bytes of one event, and of one read.
const CHUNK_BYTES: usize = 32 * 1024;

/// Bytes of one character at most (RFC 3629): less than that is never read, or the same part of one would be read for
/// ever.
const CHARACTER_BYTES_MAX: usize = 4;

/// Where an event stream goes on (WHATWG HTML §9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

/// Read a log.
///
/// A part of it as JSON. With `accept: application/octet-stream` everything from the cursor to the present end, as
/// bytes; choose a `stream` to have them apart. With `accept: text/event-stream` it is followed: `stdout` and
/// `stderr` as they come, `dropped` when the reader was too slow, and `exit` at the end. An event's id is the cursor
/// behind it: with the header `last-event-id` the stream goes on exactly there.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes/{process}/logs", tag = "processes",
    operation_id = "readProcessLog",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
        ReadLog,
    ),
    responses(
        (status = 200, description = "The log", content(
            (LogPart = "application/json"), (String = "text/event-stream"),
            (RawBytes = "application/octet-stream"),
        )),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PROCESS_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`; `RANGE_NOT_SATISFIABLE`: a cursor behind the end",
            body = ErrorBody),
    )
)]
pub(super) async fn read(
    State(app): App,
    Peer(caller): Peer,
    ProcessInPath { sandbox, process }: ProcessInPath,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let mut wanted = border::read_log(query)?;
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        wanted.cursor = Some(border::cursor(LAST_EVENT_ID, last.to_str().unwrap_or_default())?);
    }
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    let process = sandbox.process(&process)?;
    let extent = process.log().extent();
    let cursor = wanted.cursor.unwrap_or(extent.start_cursor);
    process.log().seen(cursor)?;
    let reader = process.log().reader(cursor);
    if events::wanted(&headers) {
        let follow = Follow::new(process, reader, wanted.stream);
        return Ok(lifecycle::held(events::response(stream::unfold(follow, Follow::next)), sandbox.hold()));
    }
    if events::accepts(&headers, "application/octet-stream") {
        return Ok(whole(reader, wanted.stream, extent.end_cursor));
    }
    let limit = border::log_limit(&wanted)?;
    Ok(axum::Json(part(&process, reader, wanted.stream, limit)?).into_response())
}

fn unreadable(error: std::io::Error) -> Error {
    Error::internal("cannot read the log", error)
}

/// Some of a log.
fn part(
    process: &sandbox::Process,
    mut reader: Reader,
    only: Option<Stream>,
    limit: usize,
) -> Result<LogPart, Error> {
    let running = !*process.watch_over().borrow();
    let (mut entries, mut dropped_bytes, mut left) = (Vec::new(), 0, limit);
    while left > 0
        && let Some(piece) = reader.next(left.clamp(CHARACTER_BYTES_MAX, CHUNK_BYTES)).map_err(unreadable)?
    {
        match piece {
            Piece::Dropped(bytes) => dropped_bytes += bytes,
            Piece::Bytes { stream, cursor, mut bytes, ended } if only.is_none_or(|only| only == stream) => {
                let cut = if ended { 0 } else { incomplete(&bytes) };
                if cut < bytes.len() {
                    bytes.truncate(bytes.len() - cut);
                    reader.seek(cursor + bytes.len() as u64);
                } else if running {
                    // The beginning of a character at the present end is for the next time.
                    reader.seek(cursor);
                    break;
                }
                left = left.saturating_sub(bytes.len());
                let (data, encoding) = output::written(bytes);
                entries.push(LogEntry { stream, cursor, data, encoding });
            }
            Piece::Bytes { .. } => {}
        }
    }
    let next_cursor = reader.cursor();
    let more = next_cursor < process.log().extent().end_cursor;
    Ok(LogPart { entries, next_cursor, dropped_bytes, more, running })
}

/// All of a log that there is now, as bytes.
fn whole(reader: Reader, only: Option<Stream>, end: u64) -> Response {
    let bytes = stream::try_unfold(reader, move |mut reader| async move {
        loop {
            if reader.cursor() >= end {
                return Ok(None);
            }
            match reader.next(CHUNK_BYTES)? {
                None => return Ok(None),
                Some(Piece::Bytes { stream, bytes, .. }) if only.is_none_or(|only| only == stream) => {
                    return Ok::<_, std::io::Error>(Some((bytes, reader)));
                }
                Some(_) => tokio::task::consume_budget().await,
            }
        }
    });
    let mut response = Response::new(Body::from_stream(bytes));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response
}

/// How many bytes at the end are the beginning of a character.
fn incomplete(bytes: &[u8]) -> usize {
    // A character has at most four bytes.
    let tail = bytes.get(bytes.len().saturating_sub(3)..).unwrap_or_default();
    for (index, byte) in tail.iter().enumerate().rev() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return 0,
        };
        let have = tail.len() - index;
        return if have < length { have } else { 0 };
    }
    0
}

/// Somebody who follows a log.
struct Follow {
    process: Arc<sandbox::Process>,
    reader: Reader,
    only: Option<Stream>,
    written: watch::Receiver<u64>,
    over: watch::Receiver<bool>,
    done: bool,
}

impl Follow {
    fn new(process: Arc<sandbox::Process>, reader: Reader, only: Option<Stream>) -> Self {
        let (written, over) = (process.log().watch(), process.watch_over());
        Self { process, reader, only, written, over, done: false }
    }

    async fn next(mut self) -> Option<(Event, Self)> {
        while !self.done {
            // In this order: what is written before it is over is read below.
            let over = *self.over.borrow_and_update();
            self.written.borrow_and_update();
            match self.reader.next(CHUNK_BYTES) {
                Ok(Some(Piece::Dropped(bytes))) => {
                    let event = self.event("dropped", &LogDropped { bytes });
                    return Some((event, self));
                }
                Ok(Some(Piece::Bytes { stream, cursor, bytes, ended })) => {
                    if self.only.is_some_and(|only| only != stream) {
                        tokio::task::consume_budget().await;
                        continue;
                    }
                    let at_end = over && self.reader.cursor() >= self.process.log().extent().end_cursor;
                    match self.entry(stream, cursor, bytes, ended || at_end) {
                        Some(event) => return Some((event, self)),
                        None => self.changed().await,
                    }
                }
                Ok(None) if over => {
                    self.done = true;
                    let process: Process = processes::shown(&self.process);
                    let event = self.event("exit", &process);
                    return Some((event, self));
                }
                Ok(None) => self.changed().await,
                Err(error) => {
                    tracing::error!(%error, "cannot read the log of a process");
                    return None;
                }
            }
        }
        None
    }

    /// Bytes as an event; `None` when they are only the beginning of a character, whose rest may still come.
    fn entry(&mut self, stream: Stream, cursor: u64, mut bytes: Vec<u8>, ended: bool) -> Option<Event> {
        let cut = incomplete(&bytes);
        if cut > 0 && !(ended && cut == bytes.len()) {
            bytes.truncate(bytes.len() - cut);
            self.reader.seek(cursor + bytes.len() as u64);
            if bytes.is_empty() {
                return None;
            }
        }
        let (data, encoding) = output::written(bytes);
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        Some(self.event(name, &LogEntry { stream, cursor, data, encoding }))
    }

    fn event<T: serde::Serialize>(&self, name: &str, data: &T) -> Event {
        let event = Event::default().event(name).id(self.reader.cursor().to_string());
        // Our types have string keys and no failing Serialize; an event without data would be the worst case.
        event.json_data(data).unwrap_or_default()
    }

    /// Waits until there is more, or it is over. Neither sender goes before the process.
    async fn changed(&mut self) {
        tokio::select! {
            _ = self.written.changed() => {}
            _ = self.over.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_character_is_incomplete() {
        let text = "a\u{e4}\u{20ac}\u{1f980}";
        for cut in 0..=text.len() {
            let (first, _) = text.as_bytes().split_at(cut);
            let whole = std::str::from_utf8(first).map_or_else(|error| error.valid_up_to(), str::len);
            assert_eq!(incomplete(first), first.len() - whole, "{cut}");
        }
        for bytes in [&b"\xff"[..], b"a\x80", b"\xc0", b"\x80\x80\x80", b"\xf5\x80", b""] {
            assert_eq!(incomplete(bytes), 0, "{bytes:?}");
        }
    }
}
