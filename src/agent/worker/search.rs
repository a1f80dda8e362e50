//! Text search: line by line, with a regular expression whose time is linear in the text (`regex` crate).

use std::os::fd::OwnedFd;

use regex::bytes::{Regex, RegexBuilder};
use rustix::fs::OFlags;

use super::Replies;
use super::place::{Root, stat};
use super::walk::{Pattern, Walk, is_directory};
use crate::limits::{LIST_WINDOW_MAX, REGEX_BYTES_MAX, SEARCH_EXCERPT_BYTES, SEARCH_LINE_BYTES_MAX};
use crate::sys::Errno;
use crate::wire::worker::{Answer, End, Failure, Kind, Match, Search};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes at the beginning that decide whether a file is text.
const SNIFF_BYTES: usize = 8 * 1024;

/// Bytes of lines in one message.
const BATCH_BYTES: usize = 32 * 1024;

struct Finder<'a, 'b> {
    regex: Regex,
    limit: u64,
    found: u64,
    batch: Vec<Match>,
    bytes: usize,
    end: End,
    replies: &'a mut Replies<'b>,
}

pub(super) fn search(root: &Root, search: &Search, replies: &mut Replies<'_>) -> Result<Answer, Failure> {
    let glob = search.glob.as_deref().map(Pattern::new).transpose()?;
    let regex = RegexBuilder::new(&search.pattern)
        .case_insensitive(search.ignore_case)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build();
    let regex = regex.map_err(|_| Failure::Pattern)?;
    let (limit, end) = (u64::from(search.limit), End::default());
    let mut finder = Finder { regex, limit, found: 0, batch: Vec::new(), bytes: 0, end, replies };
    let top = root.open(&search.path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    match stat(&top)?.kind {
        Kind::File => finder.file(Vec::new(), &top)?,
        Kind::Directory => {
            let mut walk = Walk::new(top, LIST_WINDOW_MAX, search.hidden, None);
            while let Some(found) = walk.next()?
                && !finder.end.more
            {
                if is_directory(&found.stat) {
                    walk.enter(&found);
                } else if found.stat.kind == Kind::File
                    && glob.as_ref().is_none_or(|glob| glob.matches(&found.path))
                {
                    match walk.open(&found.path, OFlags::RDONLY | OFlags::NONBLOCK) {
                        Ok(file) => finder.file(found.path, &file)?,
                        Err(_) => finder.end.unreadable += 1,
                    }
                }
            }
            finder.end.unreadable += walk.unreadable;
        }
        other => return Err(Failure::NotRegular(other)),
    }
    finder.flush()?;
    Ok(Answer::End(finder.end))
}

impl Finder<'_, '_> {
    /// Looks into a file that may have become something else meanwhile.
    fn file(&mut self, path: Vec<u8>, file: &OwnedFd) -> Result<(), Failure> {
        if stat(file)?.kind != Kind::File {
            return Ok(());
        }
        self.end.files += 1;
        let mut lines = Lines::new(file);
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(_) => {
                    self.end.unreadable += 1;
                    break;
                }
            };
            if let Some(found) = self.regex.find(line.text) {
                if self.found == self.limit {
                    self.end.more = true;
                    break;
                }
                self.found += 1;
                let (text, cut) = excerpt(line.text, found.range());
                self.bytes += path.len() + text.len() + 32;
                let column = found.start() as u64;
                self.batch.push(Match { path: path.clone(), line: line.number, column, text, cut });
                if self.bytes >= BATCH_BYTES {
                    self.flush()?;
                }
            }
        }
        self.end.binary += u64::from(lines.binary);
        self.end.long_lines += lines.long;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        self.replies.part(Answer::Matches(std::mem::take(&mut self.batch)))
    }
}

/// The part of a line around a match.
fn excerpt(line: &[u8], found: std::ops::Range<usize>) -> (Vec<u8>, bool) {
    if line.len() <= SEARCH_EXCERPT_BYTES {
        return (line.to_vec(), false);
    }
    let start = found.start.saturating_sub(SEARCH_EXCERPT_BYTES / 4).min(line.len() - SEARCH_EXCERPT_BYTES);
    (line[start..start + SEARCH_EXCERPT_BYTES].to_vec(), true)
}

struct Line<'a> {
    number: u64,
    text: &'a [u8],
}

/// A file's lines; of one that is too long only the beginning.
struct Lines<'a> {
    file: &'a OwnedFd,
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    number: u64,
    ended: bool,
    binary: bool,
    long: u64,
    /// Whether the end of a long line is still to come.
    skipping: bool,
}

impl<'a> Lines<'a> {
    fn new(file: &'a OwnedFd) -> Self {
        Self {
            file,
            buffer: vec![0; READ_BYTES],
            start: 0,
            filled: 0,
            number: 0,
            ended: false,
            binary: false,
            long: 0,
            skipping: false,
        }
    }

    fn next(&mut self) -> Result<Option<Line<'_>>, Errno> {
        let mut searched = 0;
        loop {
            let rest = &self.buffer[self.start + searched..self.filled];
            let (length, step) = match memchr::memchr(b'\n', rest) {
                Some(position) => (searched + position, searched + position + 1),
                None if self.ended && self.start == self.filled => return Ok(None),
                None if self.ended => (self.filled - self.start, self.filled - self.start),
                None if self.filled - self.start >= SEARCH_LINE_BYTES_MAX => {
                    let line = self.start..self.start + SEARCH_LINE_BYTES_MAX;
                    (self.start, self.filled) = (0, 0);
                    if std::mem::replace(&mut self.skipping, true) {
                        searched = 0;
                        continue;
                    }
                    self.number += 1;
                    self.long += 1;
                    return Ok(Some(Line { number: self.number, text: &self.buffer[line] }));
                }
                None => {
                    searched = self.filled - self.start;
                    self.fill()?;
                    if self.binary {
                        return Ok(None);
                    }
                    continue;
                }
            };
            let text = self.start..self.start + length;
            self.start += step;
            searched = 0;
            if !std::mem::take(&mut self.skipping) {
                self.number += 1;
                return Ok(Some(Line { number: self.number, text: &self.buffer[text] }));
            }
        }
    }

    fn fill(&mut self) -> Result<(), Errno> {
        let first = self.number == 0 && self.start == 0 && self.filled == 0 && !self.skipping;
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.buffer.len() - self.filled < READ_BYTES {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        }
        let (file, free) = (self.file, &mut self.buffer[self.filled..]);
        let count = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut *free))?;
        self.ended = count == 0;
        self.filled += count;
        if first {
            let beginning = &self.buffer[..self.filled.min(SNIFF_BYTES)];
            self.binary = beginning.contains(&0);
        }
        Ok(())
    }
}
