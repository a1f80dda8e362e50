//! Server-sent events (WHATWG HTML §9.2): `event`, `id`, and one line of JSON as `data`.
//!
//! Bytes travel in JSON strings, so a chunk that ends inside a UTF-8 character keeps its last bytes back for
//! the next one: text stays text, wherever the pipe was cut. Bytes that are not UTF-8 go as base64.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::error;
use super::output::{self, Output};
use super::request::RequestId;
use super::schema::{OutputEvent, StartedEvent};
use crate::error::{Error, ErrorCode};

/// Whether the client wants a stream rather than one answer.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    accepts(headers, "text/event-stream")
}

/// Whether the client names this type among those that it accepts.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(media_type))
}

/// The response for a stream of events.
pub(super) fn response<S>(events: S) -> Response
where
    S: Stream<Item = Event> + Send + 'static,
{
    let events = futures_util::StreamExt::map(events, Ok::<_, Infallible>);
    // The comment every 15 s finds out readers that are gone without having closed.
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// Numbers events, from 1.
#[derive(Debug, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// An event with the next number.
    pub(super) fn event<T: Serialize>(&mut self, name: &str, data: &T) -> Event {
        self.0 += 1;
        let event = Event::default().event(name).id(self.0.to_string());
        // Our types have string keys and no failing Serialize; an event without data would be the worst case.
        event.json_data(data).unwrap_or_default()
    }

    /// The event for a failure, which is the last one.
    pub(super) fn failure(&mut self, failure: &Error, id: &RequestId) -> Event {
        error::log(failure, id.as_str());
        self.event("error", &error::body(failure, id.as_str()))
    }
}

/// What is left of one stream's last chunk.
#[derive(Debug, Default)]
pub(super) struct Cut(BytesMut);

impl Cut {
    /// The bytes so far, without a character that is not whole yet.
    pub(super) fn add(&mut self, bytes: &Bytes) -> Option<OutputEvent> {
        self.0.extend_from_slice(bytes);
        let keep = match std::str::from_utf8(&self.0) {
            Err(error) if error.error_len().is_none() => self.0.len() - error.valid_up_to(),
            _ => 0,
        };
        let rest = self.0.split_off(self.0.len() - keep);
        self.take(rest)
    }

    /// Everything.
    pub(super) fn flush(&mut self) -> Option<OutputEvent> {
        self.take(BytesMut::new())
    }

    fn take(&mut self, rest: BytesMut) -> Option<OutputEvent> {
        let whole = std::mem::replace(&mut self.0, rest);
        if whole.is_empty() {
            return None;
        }
        let (data, encoding) = output::written(whole.into());
        Some(OutputEvent { data, encoding })
    }
}

/// What a command says, as events.
struct Events {
    output: mpsc::Receiver<Output>,
    command: String,
    request: RequestId,
    numbers: Numbers,
    ready: VecDeque<Event>,
    stdout: Cut,
    stderr: Cut,
    ended: bool,
}

impl Events {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            if self.ended {
                return None;
            }
            let output = self.output.recv().await.unwrap_or_else(|| {
                // The task that reads the command panicked: that has been logged.
                Output::Failed(Error::new(ErrorCode::Internal, "the daemon lost the command"))
            });
            self.take(output);
        }
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Stdout(bytes) => {
                if let Some(data) = self.stdout.add(&bytes) {
                    self.ready.push_back(self.numbers.event("stdout", &data));
                }
            }
            Output::Stderr(bytes) => {
                if let Some(data) = self.stderr.add(&bytes) {
                    self.ready.push_back(self.numbers.event("stderr", &data));
                }
            }
            Output::Ended(exit) => {
                self.flush();
                let end = output::end(self.command.clone(), &exit);
                self.ready.push_back(self.numbers.event("exit", &end));
                self.ended = true;
            }
            Output::Failed(failure) => {
                self.flush();
                self.ready.push_back(self.numbers.failure(&failure, &self.request));
                self.ended = true;
            }
        }
    }

    fn flush(&mut self) {
        for (name, cut) in [("stdout", &mut self.stdout), ("stderr", &mut self.stderr)] {
            if let Some(data) = cut.flush() {
                self.ready.push_back(self.numbers.event(name, &data));
            }
        }
    }
}

/// The events of a started command.
pub(super) fn of_command(
    started: StartedEvent,
    output: mpsc::Receiver<Output>,
    request: RequestId,
) -> impl Stream<Item = Event> + Send + 'static {
    let mut numbers = Numbers::default();
    let first = numbers.event("started", &started);
    let events = Events {
        output,
        command: started.id,
        request,
        numbers,
        ready: VecDeque::from([first]),
        stdout: Cut::default(),
        stderr: Cut::default(),
        ended: false,
    };
    stream::unfold(events, Events::next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::Encoding;

    #[test]
    fn a_character_cut_by_the_pipe_is_whole_in_the_stream() {
        let text = "aä€🦀z";
        for cut in 0..text.len() {
            let mut stream = Cut::default();
            let (first, second) = text.as_bytes().split_at(cut);
            let mut whole = String::new();
            let events = [
                stream.add(&Bytes::copy_from_slice(first)),
                stream.add(&Bytes::copy_from_slice(second)),
                stream.flush(),
            ];
            for event in events.into_iter().flatten() {
                assert_eq!(event.encoding, Encoding::Utf8, "cut at {cut}");
                whole.push_str(&event.data);
            }
            assert_eq!(whole, text);
        }
    }

    #[test]
    fn bytes_that_only_look_like_a_beginning_are_not_lost() {
        let mut stream = Cut::default();
        let first = stream.add(&Bytes::from_static(b"a\xe2\x82")).expect("the whole part");
        assert_eq!((first.data.as_str(), first.encoding), ("a", Encoding::Utf8));
        let last = stream.flush().expect("the rest");
        assert_eq!((last.data.as_str(), last.encoding), ("4oI=", Encoding::Base64));
        assert!(stream.flush().is_none());
    }

    #[test]
    fn a_stream_is_what_the_client_asks_for() {
        for (value, expected) in [
            ("text/event-stream", true),
            ("application/json, text/event-stream;q=0.9", true),
            ("*/*", false),
            ("application/json", false),
            ("text/event-streamx", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, value.parse().expect("header"));
            assert_eq!(wanted(&headers), expected, "{value}");
        }
    }
}
