//! The events of a run: as a stream, or collected into one answer.
//!
//! ```text
//! sandbox::context ─ContextEvent─▶ of_run  ─▶ SSE
//!                               └▶ collect ─▶ one JSON
//! ```
//!
//! What a run shows is passed on as the text that it came as: parsed, a list of small numbers takes sixteen times its
//! size.

use std::collections::VecDeque;

use axum::response::Response;
use axum::response::sse::Event;
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::value::RawValue;

use super::commands::answer;
use super::events::{Cut, Numbers};
use super::output::{self, Grant};
use super::request::RequestId;
use super::schema::Encoding;
use super::schema::contexts::{
    ClearEvent, CodeEnd, CodeFailure, CodeOutputEvent, CodeTruncated, RunStartedEvent,
};
use super::signals;
use crate::error::{Error, ErrorCode};
use crate::limits::{CONTEXT_BACKGROUND_BYTES_MAX, CONTEXT_RESULTS_MAX};
use crate::sandbox::{CodeRun, ContextEvent, RunEnd, Shown};
use crate::wire::agent::Exit;

/// Something rich, as [`RichOutput`](super::schema::contexts::RichOutput) without parsing it.
#[derive(Debug, Serialize)]
struct Rich {
    data: Box<RawValue>,
    metadata: Box<RawValue>,
    transient: Box<RawValue>,
    update: bool,
    truncated: Vec<String>,
    background: bool,
    main: bool,
}

impl Rich {
    fn new(shown: Shown, main: bool) -> Self {
        let Shown { data, metadata, transient, update, truncated, background } = shown;
        Self { data, metadata, transient, update, truncated, background, main }
    }

    fn bytes(&self) -> usize {
        self.data.get().len() + self.metadata.get().len() + self.transient.get().len() + 128
    }
}

/// How a run ended, as clients see it.
fn end(id: &str, end: &RunEnd) -> CodeEnd {
    let (exit_code, signal) = match end.exit {
        None => (None, None),
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(number)) => (Some(128 + number), Some(signals::name(number))),
    };
    CodeEnd {
        id: id.to_owned(),
        execution_count: end.execution_count,
        error: end.error.as_ref().map(|error| CodeFailure {
            name: error.name.clone(),
            message: error.message.clone(),
            traceback: error.traceback.lines().map(str::to_owned).collect(),
            line: error.line,
        }),
        timed_out: end.timed_out,
        interrupted: end.interrupted,
        state_lost: end.state_lost,
        restarted: end.restarted,
        oom_killed: end.oom_killed,
        exit_code,
        signal,
        output_dropped: end.output_dropped,
        duration_ms: end.duration.as_secs_f64() * 1000.0,
    }
}

pub(super) fn lost() -> Error {
    // The context was deleted, or its sandbox was.
    Error::new(ErrorCode::ContextNotFound, "the context was deleted while its code ran")
}

/// A run as events.
struct Events {
    run: CodeRun,
    request: RequestId,
    numbers: Numbers,
    ready: VecDeque<Event>,
    cuts: [Cut; 2],
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
            match self.run.events.recv().await {
                Some(event) => self.take(event),
                None => {
                    self.ended = true;
                    self.ready.push_back(self.numbers.failure(&lost(), &self.request));
                }
            }
        }
    }

    fn take(&mut self, event: ContextEvent) {
        match event {
            ContextEvent::Stdout { bytes, background } => self.output(0, &bytes, background),
            ContextEvent::Stderr { bytes, background } => self.output(1, &bytes, background),
            ContextEvent::Display(shown) => self.push("display", &Rich::new(shown, false)),
            ContextEvent::Result(shown) => self.push("result", &Rich::new(shown, true)),
            ContextEvent::Clear { wait } => self.push("clear", &ClearEvent { wait }),
            ContextEvent::Input(prompt) => self.push("input", &prompt),
            ContextEvent::Ended(last) => {
                for which in 0..2 {
                    if let Some(rest) = self.cuts[which].flush() {
                        self.written(which, rest.data, rest.encoding, false);
                    }
                }
                self.push("end", &end(&self.run.id, &last));
                self.ended = true;
            }
        }
    }

    fn output(&mut self, which: usize, bytes: &Bytes, background: bool) {
        let mut alone = Cut::default();
        let cut = if background { &mut alone } else { &mut self.cuts[which] };
        let mut written = cut.add(bytes);
        if background {
            written = written.or_else(|| cut.flush());
        }
        if let Some(written) = written {
            self.written(which, written.data, written.encoding, background);
        }
    }

    fn written(&mut self, which: usize, data: String, encoding: Encoding, background: bool) {
        let name = if which == 0 { "stdout" } else { "stderr" };
        self.push(name, &CodeOutputEvent { data, encoding, background });
    }

    fn push<T: Serialize>(&mut self, name: &str, data: &T) {
        let event = self.numbers.event(name, data);
        self.ready.push_back(event);
    }
}

/// The events of a run that has begun.
pub(super) fn of_run(run: CodeRun, request: RequestId) -> impl Stream<Item = Event> + Send + 'static {
    let mut numbers = Numbers::default();
    let first = numbers.event("started", &RunStartedEvent { id: run.id.clone() });
    let cuts = [Cut::default(), Cut::default()];
    let events = Events { run, request, numbers, ready: VecDeque::from([first]), cuts, ended: false };
    stream::unfold(events, Events::next)
}

/// What came of a run, as [`CodeResult`](super::schema::contexts::CodeResult).
#[derive(Debug, Serialize)]
pub(super) struct Collected {
    #[serde(flatten)]
    end: CodeEnd,
    stdout: String,
    stdout_encoding: Encoding,
    stderr: String,
    stderr_encoding: Encoding,
    stdout_bytes: u64,
    stderr_bytes: u64,
    background: String,
    results: Vec<Rich>,
    truncated: CodeTruncated,
}

/// What is kept of a run until it has ended.
#[derive(Debug, Default)]
pub(super) struct Kept {
    streams: [Vec<u8>; 2],
    written: [u64; 2],
    background: Vec<u8>,
    results: Vec<Rich>,
    /// Whether the next thing that is shown or written takes the place of all before it.
    clear: bool,
    truncated: CodeTruncated,
}

impl Kept {
    /// Keeps an event; gives how the run ended when it is the last.
    pub(super) fn take(
        &mut self,
        event: ContextEvent,
        bytes_max: usize,
        grant: &mut Grant,
    ) -> Option<Box<RunEnd>> {
        match event {
            ContextEvent::Stdout { bytes, background: true }
            | ContextEvent::Stderr { bytes, background: true } => self.left(&bytes),
            ContextEvent::Stdout { bytes, .. } => self.output(0, &bytes, bytes_max, grant),
            ContextEvent::Stderr { bytes, .. } => self.output(1, &bytes, bytes_max, grant),
            ContextEvent::Display(shown) => self.show(Rich::new(shown, false), grant),
            ContextEvent::Result(shown) => self.show(Rich::new(shown, true), grant),
            ContextEvent::Clear { wait: true } => self.clear = true,
            ContextEvent::Clear { wait: false } => self.wipe(),
            ContextEvent::Input(_) => {}
            ContextEvent::Ended(last) => return Some(last),
        }
        None
    }

    /// What came of the run.
    pub(super) fn collected(self, id: &str, last: &RunEnd) -> Collected {
        let Self { streams: [stdout, stderr], written, background, results, mut truncated, .. } = self;
        truncated.background |= last.background_dropped;
        let (stdout, stdout_encoding) = output::written(stdout);
        let (stderr, stderr_encoding) = output::written(stderr);
        Collected {
            end: end(id, last),
            stdout,
            stdout_encoding,
            stderr,
            stderr_encoding,
            stdout_bytes: written[0],
            stderr_bytes: written[1],
            background: String::from_utf8_lossy(&background).into_owned(),
            results,
            truncated,
        }
    }

    /// What earlier runs have left behind may write for as long as this one goes on.
    fn left(&mut self, bytes: &[u8]) {
        let room = (2 * CONTEXT_BACKGROUND_BYTES_MAX).saturating_sub(self.background.len());
        self.background.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated.background |= bytes.len() > room;
    }

    fn bytes(&self) -> usize {
        let results: usize = self.results.iter().map(Rich::bytes).sum();
        self.streams[0].len() + self.streams[1].len() + self.background.len() + results
    }

    /// Forgets what was shown and written, as a notebook's page does; the value of the cell comes after all of it.
    fn wipe(&mut self) {
        self.clear = false;
        self.results.clear();
        self.streams.iter_mut().for_each(Vec::clear);
        self.truncated.stdout = false;
        self.truncated.stderr = false;
        self.truncated.results = false;
    }

    fn output(&mut self, which: usize, bytes: &[u8], bytes_max: usize, grant: &mut Grant) {
        if self.clear && !bytes.is_empty() {
            self.wipe();
        }
        self.written[which] += bytes.len() as u64;
        let cut = if which == 0 { self.truncated.stdout } else { self.truncated.stderr };
        let room = if cut { 0 } else { bytes_max - self.streams[which].len() };
        let mut taken = &bytes[..bytes.len().min(room)];
        if !taken.is_empty() && !grant.cover(self.bytes() + taken.len()) {
            taken = &[];
        }
        self.streams[which].extend_from_slice(taken);
        let flag = if which == 0 { &mut self.truncated.stdout } else { &mut self.truncated.stderr };
        *flag |= taken.len() < bytes.len();
    }

    fn show(&mut self, rich: Rich, grant: &mut Grant) {
        if self.clear {
            self.wipe();
        }
        let room = self.results.len() < CONTEXT_RESULTS_MAX && grant.cover(self.bytes() + rich.bytes());
        let shown = self.results.iter().position(|result| {
            rich.update && result.transient.get() == rich.transient.get() && rich.transient.get() != "{}"
        });
        match shown.and_then(|place| self.results.get_mut(place)) {
            _ if !room => self.truncated.results = true,
            Some(place) => *place = rich,
            None => self.results.push(rich),
        }
    }
}

/// Runs to the end and keeps what comes of it, within the memory of all requests.
///
/// # Errors
/// When the context is deleted meanwhile.
pub(super) async fn collect(mut run: CodeRun, bytes_max: usize, mut grant: Grant) -> Result<Response, Error> {
    let mut kept = Kept::default();
    loop {
        let event = run.events.recv().await.ok_or_else(lost)?;
        if let Some(last) = kept.take(event, bytes_max, &mut grant) {
            return answer(&kept.collected(&run.id, &last), grant);
        }
    }
}
