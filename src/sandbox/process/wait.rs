//! Waiting until a process is ready: a line in its log, a port, or its end.
//!
//! A log is read from its beginning, so that what was written before anybody asked counts. Lines are looked at one
//! by one and per stream. A text may be in one that is not complete yet, such as a prompt: that is looked at as soon as
//! there is nothing more to read. What comes next would change what an expression matches (`port (\d+)`), so that sees
//! complete lines, and at the end of the process what is left.
//! Expressions come from clients: they are compiled within bounds, and the engine is linear in the text.

use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::log::{Piece, Stream};
use super::probe::{PortMatch, Probe};
use super::{Process, probe};
use crate::error::{Error, ErrorCode};
use crate::limits::{LOG_LINE_BYTES_MAX, WAIT_PATTERN_BYTES_MAX, WAIT_PATTERN_COMPILED_BYTES_MAX};
use crate::sandbox::Sandbox;

/// Bytes read of a log at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What of a line that is too long is looked at again with what follows: a text or a short match is not cut.
const OVERLAP_BYTES: usize = WAIT_PATTERN_BYTES_MAX;

/// How long a process that writes an endless line is left alone between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// What to wait for.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Its end.
    Exit,
    /// A line of its output.
    Log {
        /// Which.
        matcher: Matcher,
        /// On which stream; on either when absent.
        stream: Option<Stream>,
        /// From which cursor on.
        cursor: u64,
    },
    /// A port of the sandbox that answers.
    Port(Probe),
}

/// What a line must hold.
#[derive(Clone, Debug)]
pub struct Matcher {
    regex: Regex,
    /// Whether it is an expression: its groups are of interest, and lines must be complete.
    expression: bool,
}

/// A line that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogMatch {
    /// Where.
    pub stream: Stream,
    /// The line, without its end; what is not UTF-8 in it is replaced.
    pub line: String,
    /// What the groups of the expression matched, the whole match first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Option<String>>,
    /// Cursor behind the bytes that were looked at: to go on from there.
    pub cursor: u64,
}

/// What came true.
#[derive(Clone, Debug)]
pub enum Met {
    /// It ended.
    Exit,
    /// A line was found.
    Log(LogMatch),
    /// A port answered.
    Port(PortMatch),
}

impl Matcher {
    /// Finds this text.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when it is too long.
    pub fn text(text: &str) -> Result<Self, Error> {
        Ok(Self { expression: false, ..Self::compile(&regex::escape(text), "for.log.text")? })
    }

    /// Finds a match of an expression.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when it is none, or too large.
    pub fn regex(pattern: &str) -> Result<Self, Error> {
        Self::compile(pattern, "for.log.regex")
    }

    fn compile(pattern: &str, field: &'static str) -> Result<Self, Error> {
        RegexBuilder::new(pattern)
            .size_limit(WAIT_PATTERN_COMPILED_BYTES_MAX)
            .dfa_size_limit(WAIT_PATTERN_COMPILED_BYTES_MAX)
            .build()
            .map(|regex| Self { regex, expression: true })
            .map_err(|error| {
                let why = error.to_string();
                let why =
                    why.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Error::new(ErrorCode::InvalidRequest, format!("{field} cannot be used: {why}"))
                    .hint("the syntax is that of Rust's regex crate: no look-around, no back references")
                    .context(serde_json::json!({ "field": field }))
            })
    }

    /// Whether a line matches, and with what.
    fn find(&self, line: &[u8]) -> Option<Vec<Option<String>>> {
        if !self.expression {
            return self.regex.is_match(line).then(Vec::new);
        }
        let groups = self.regex.captures(line)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(groups.iter().map(|group| group.map(|group| text(group.as_bytes()))).collect())
    }
}

/// The line of one stream that is not complete yet.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Whether something was added since it was looked at.
    changed: bool,
}

impl Line {
    /// Adds bytes; says what a line says that they complete.
    fn add(&mut self, mut bytes: &[u8], matcher: &Matcher) -> Option<Found> {
        while !bytes.is_empty() {
            let room = LOG_LINE_BYTES_MAX - self.bytes.len();
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(bytes.len()).min(room);
            let (line, rest) = bytes.split_at(taken);
            self.bytes.extend_from_slice(line);
            self.changed = true;
            bytes = rest;
            let complete = end == Some(taken);
            if !complete && self.bytes.len() < LOG_LINE_BYTES_MAX {
                continue;
            }
            if let Some(found) = self.look(matcher) {
                return Some(found);
            }
            if complete {
                self.bytes.clear();
                bytes = bytes.get(1..).unwrap_or_default();
            } else {
                self.bytes.drain(..LOG_LINE_BYTES_MAX - OVERLAP_BYTES);
            }
        }
        None
    }

    fn look(&mut self, matcher: &Matcher) -> Option<Found> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let line = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        let groups = matcher.find(line)?;
        Some(Found { line: String::from_utf8_lossy(line).into_owned(), groups })
    }
}

#[derive(Debug)]
struct Found {
    line: String,
    groups: Vec<Option<String>>,
}

impl Process {
    /// Waits until a condition is met. The sandbox is its own.
    ///
    /// # Errors
    /// `PROCESS_EXITED` when it has ended and the condition cannot be met any more; `WAIT_TIMEOUT`.
    pub async fn wait_for(
        &self,
        sandbox: &Sandbox,
        condition: &Condition,
        timeout: Option<Duration>,
    ) -> Result<Met, Error> {
        let wait = async {
            match condition {
                Condition::Exit => {
                    self.wait().await;
                    Ok(Met::Exit)
                }
                Condition::Log { matcher, stream, cursor } => {
                    self.wait_for_line(matcher, *stream, *cursor).await.map(Met::Log)
                }
                Condition::Port(port) => {
                    let files = sandbox.files(None)?;
                    tokio::select! {
                        answered = probe::answered(port, &files) => answered.map(Met::Port),
                        () = self.wait() => Err(self.ended("nothing of it can listen any more")),
                    }
                }
            }
        };
        let Some(timeout) = timeout else { return wait.await };
        tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| {
            let message = format!("it did not come true within {} ms", timeout.as_millis());
            Err(Error::new(ErrorCode::WaitTimeout, message)
                .hint("the process goes on; look at its logs, or wait longer"))
        })
    }

    async fn wait_for_line(
        &self,
        matcher: &Matcher,
        only: Option<Stream>,
        cursor: u64,
    ) -> Result<LogMatch, Error> {
        self.log().seen(cursor)?;
        let mut reader = self.log().reader(cursor);
        let (mut written, mut over) = (self.log().watch(), self.watch_over());
        let mut lines = [Line::default(), Line::default()];
        loop {
            // In this order: what is written before it is over is read below.
            let ended = *over.borrow_and_update();
            written.borrow_and_update();
            let unreadable = |error| Error::internal("cannot read the log", error);
            while let Some(piece) = reader.next(CHUNK_BYTES).map_err(unreadable)? {
                match piece {
                    Piece::Bytes { stream, bytes, .. } if only.is_none_or(|only| only == stream) => {
                        if let Some(found) = lines[stream as usize].add(&bytes, matcher) {
                            return Ok(matched(stream, found, reader.cursor()));
                        }
                    }
                    Piece::Bytes { .. } => {}
                    Piece::Dropped(_) => lines = [Line::default(), Line::default()],
                }
                tokio::task::consume_budget().await;
            }
            for (line, stream) in lines.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
                if (ended || !matcher.expression)
                    && line.changed
                    && !line.bytes.is_empty()
                    && let Some(found) = line.look(matcher)
                {
                    return Ok(matched(stream, found, reader.cursor()));
                }
            }
            if ended {
                return Err(self.ended("what was waited for did not come"));
            }
            if lines.iter().any(|line| line.bytes.len() > OVERLAP_BYTES) {
                tokio::time::sleep(PAUSE).await;
            }
            // Neither sender goes before the process.
            tokio::select! {
                _ = written.changed() => {}
                _ = over.changed() => {}
            }
        }
    }
}

fn matched(stream: Stream, Found { line, groups }: Found, cursor: u64) -> LogMatch {
    LogMatch { stream, line, groups, cursor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(matcher: &Matcher, pieces: &[&[u8]]) -> Option<String> {
        let mut line = Line::default();
        let found = pieces.iter().find_map(|piece| line.add(piece, matcher));
        found.or_else(|| line.look(matcher)).map(|found| found.line)
    }

    #[test]
    fn a_line_is_found_however_it_is_cut() {
        let text = b"starting\r\nlistening on 8080\nmore\n";
        let matcher = Matcher::text("listening on").expect("short");
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(found(&matcher, &[first, second]).as_deref(), Some("listening on 8080"), "{cut}");
        }
    }

    #[test]
    fn an_expression_sees_one_line_and_gives_its_groups() {
        let matcher = Matcher::regex(r"^port (\d+)$").expect("valid");
        assert_eq!(found(&matcher, &[b"a port 1\nport 22\n"]).as_deref(), Some("port 22"));
        assert_eq!(matcher.find(b"port 22").expect("match")[1].as_deref(), Some("22"));
        let across = Matcher::regex("a\nb").expect("valid");
        assert_eq!(found(&across, &[b"a\nb\n"]), None);
    }

    #[test]
    fn a_line_without_end_is_bounded_and_searched() {
        let matcher = Matcher::text("needle").expect("short");
        let mut line = Line::default();
        let hay = vec![b'x'; 3 * LOG_LINE_BYTES_MAX - 3];
        assert!(line.add(&hay, &matcher).is_none());
        assert!(line.bytes.len() <= LOG_LINE_BYTES_MAX);
        let rest = [&b"needle"[..], &hay].concat();
        assert!(line.add(&rest, &matcher).is_some());
    }

    #[test]
    fn an_expression_that_is_none_or_too_large_is_refused() {
        for bad in ["(", "a{1000}{1000}{1000}", "(?=a)"] {
            let error = Matcher::regex(bad).expect_err(bad);
            assert_eq!(error.code, ErrorCode::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn the_longest_text_that_is_taken_can_be_found() {
        let text = "é+".repeat(WAIT_PATTERN_BYTES_MAX / 3);
        let matcher = Matcher::text(&text).expect("not too large");
        assert_eq!(found(&matcher, &[text.as_bytes(), b"\n"]), Some(text));
    }

    #[test]
    fn a_prompt_counts_before_its_line_is_complete() {
        assert_eq!(found(&Matcher::text("$ ").expect("short"), &[b"a\nsh$ "]).as_deref(), Some("sh$ "));
    }
}
