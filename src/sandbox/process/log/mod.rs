//! What a process writes: a bounded ring on disk, of which every byte has a number.
//!
//! ```text
//! p7/00000000000000000000.log   p7/00000000000000524288.log   …   at most SEGMENTS files, the oldest goes first
//!    │
//!    ├ stdout before, stderr before            16 bytes: how much of each stream lies before this file
//!    └ frame, frame, …                         4 bytes: which stream, how long; then the bytes themselves
//! ```
//!
//! A *cursor* counts the bytes of both streams in the order in which they were read; a file is named after the
//! cursor of its first byte. Whoever remembers a cursor goes on exactly there, or is told how much is gone.
//!
//! Bytes go from pipe to file in the kernel (splice(2)) and leave the pipe only when they are in the file. The
//! length of the last frame is not written until another follows it: the file's own length says it. So when serve
//! is killed at any point, nothing is lost and nothing is there twice.
//!
//! Invariants: files hold at most `bytes_max` bytes; memory is a few words per file, however much is written; a
//! write that the disk refuses costs the bytes and not the process, which goes on.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::error::{Error, ErrorCode};

/// Files of one log: when one is full, this part of the whole is dropped at once.
const SEGMENTS: u64 = 8;

/// Before the first frame of a file: two counters.
const HEADER: usize = 16;
const HEADER_BYTES: u64 = HEADER as u64;

/// Before the content of a frame: its head.
const FRAME: usize = 4;
const FRAME_BYTES: u64 = FRAME as u64;

/// The bit of a frame's length that says stderr.
const STDERR_BIT: u32 = 1 << 31;

/// A length that says: up to the end of the file.
const OPEN: u32 = STDERR_BIT - 1;

/// Bytes that are moved at once.
const CHUNK_BYTES: u64 = 64 * 1024;

/// One of a process's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A log, shared by whoever writes and reads it.
#[derive(Debug)]
pub struct Log {
    inner: Mutex<Inner>,
    end: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    /// Where the files are: `parent/name/`.
    parent: Arc<OwnedFd>,
    name: String,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The last segment, while it is written to.
    current: Option<Current>,
    end: u64,
    /// How much there ever was of each stream.
    totals: [u64; 2],
}

/// One file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    /// How much there was of each stream before it.
    before: [u64; 2],
}

#[derive(Debug)]
struct Current {
    file: File,
    /// Length of the file.
    length: u64,
    frame: Option<Frame>,
}

/// The last frame, whose length is not in the file.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Where it begins.
    at: u64,
    stream: Stream,
    /// Bytes of its content.
    length: u64,
}

/// What is said of a cursor that nothing of this has had.
pub(in crate::sandbox) fn behind_the_end(cursor: u64, end: u64, of: &str) -> Error {
    let message = format!("the cursor {cursor} is behind the end of the {of}, which is {end}");
    Error::new(ErrorCode::RangeNotSatisfiable, message)
        .hint("it is of another of the same name, which is gone; leave the cursor out to begin at the oldest byte")
        .context(serde_json::json!({"field": "cursor", "end_cursor": end}))
}

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Extent {
    /// Cursor of the oldest byte that is kept.
    pub start_cursor: u64,
    /// Cursor behind the newest byte.
    pub end_cursor: u64,
    /// How many bytes of stdout are gone.
    pub dropped_stdout_bytes: u64,
    /// How many bytes of stderr are gone.
    pub dropped_stderr_bytes: u64,
}

impl Log {
    /// A log in the directory `parent/name`, which exists. What is there is gone on with.
    ///
    /// # Errors
    /// When the directory or a file of it cannot be read.
    pub(super) fn open(parent: Arc<OwnedFd>, name: String, bytes_max: u64) -> io::Result<Arc<Self>> {
        let segment_bytes = (bytes_max / SEGMENTS).max(HEADER_BYTES + FRAME_BYTES + 1);
        let mut inner = Inner {
            parent,
            name,
            segment_bytes,
            segments: VecDeque::new(),
            current: None,
            end: 0,
            totals: [0; 2],
        };
        inner.recover()?;
        let end = watch::Sender::new(inner.end);
        Ok(Arc::new(Self { inner: Mutex::new(inner), end }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two changes would at worst make the last frame longer than what was noted of it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `source` puts into the file it is given, at that offset, and at most so many bytes of it.
    /// Returns how many it put.
    ///
    /// # Errors
    /// What `source` says, and when the disk is full.
    pub(super) fn append(
        &self,
        stream: Stream,
        source: impl FnMut(&File, u64, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut inner = self.lock();
        let count = inner.append(stream, source)?;
        let end = inner.end;
        drop(inner);
        self.end.send_replace(end);
        Ok(count)
    }

    /// Counts bytes that could not be written.
    pub(super) fn lose(&self, stream: Stream, count: u64) {
        let mut inner = self.lock();
        // What comes next begins a file, whose name and head say what is missing.
        let _ = inner.close_frame();
        inner.current = None;
        inner.advance(stream, count);
        let end = inner.end;
        drop(inner);
        self.end.send_replace(end);
    }

    /// Closes the file that is written to: nothing more will come.
    pub(super) fn rest(&self) {
        let mut inner = self.lock();
        // Recovery would find the length by itself.
        let _ = inner.close_frame();
        inner.current = None;
    }

    /// What it holds.
    pub fn extent(&self) -> Extent {
        let inner = self.lock();
        let first = inner.segments.front();
        let [dropped_stdout_bytes, dropped_stderr_bytes] = first.map_or(inner.totals, |first| first.before);
        Extent {
            start_cursor: first.map_or(inner.end, |first| first.start),
            end_cursor: inner.end,
            dropped_stdout_bytes,
            dropped_stderr_bytes,
        }
    }

    /// Whether somebody can have seen all before a cursor.
    ///
    /// # Errors
    /// `RANGE_NOT_SATISFIABLE` when there is not so much: the cursor is that of another process, and what this one
    /// writes must not be passed over.
    pub fn seen(&self, cursor: u64) -> Result<(), Error> {
        let end = self.extent().end_cursor;
        if cursor <= end {
            return Ok(());
        }
        Err(behind_the_end(cursor, end, "log"))
    }

    /// Changes whenever something is appended.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Reads from a cursor on. One beyond the end waits for it.
    pub fn reader(self: &Arc<Self>, cursor: u64) -> Reader {
        Reader { log: Arc::clone(self), cursor, place: None, scratch: Scratch::default() }
    }
}

impl Inner {
    fn file_name(&self, start: u64) -> String {
        format!("{}/{start:020}.log", self.name)
    }

    fn advance(&mut self, stream: Stream, count: u64) {
        self.end += count;
        self.totals[stream as usize] += count;
    }

    fn append(
        &mut self,
        stream: Stream,
        mut source: impl FnMut(&File, u64, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // A new frame wants at least one byte of content.
        if self.current.as_ref().is_none_or(|current| current.length + FRAME_BYTES >= self.segment_bytes) {
            self.next_segment()?;
        }
        self.open_frame(stream)?;
        let Some(Current { file, length, frame: Some(frame) }) = &mut self.current else {
            return Err(io::Error::other("no file to write to"));
        };
        let room = (self.segment_bytes - *length).min(CHUNK_BYTES);
        let count = source(file, *length, usize::try_from(room).unwrap_or(0))?;
        *length += count as u64;
        frame.length += count as u64;
        self.advance(stream, count as u64);
        Ok(count)
    }

    /// Ends a frame of the other stream and begins one of this.
    fn open_frame(&mut self, stream: Stream) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        if current.frame.is_some_and(|frame| frame.stream == stream) {
            return Ok(());
        }
        self.close_frame()?;
        let Some(current) = &mut self.current else { return Ok(()) };
        current.file.write_all_at(&head(stream, OPEN), current.length)?;
        current.frame = Some(Frame { at: current.length, stream, length: 0 });
        current.length += FRAME_BYTES;
        Ok(())
    }

    /// Writes down how long the last frame is. One without content is taken back.
    fn close_frame(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let Some(frame) = current.frame else { return Ok(()) };
        if frame.length == 0 {
            current.file.set_len(frame.at)?;
            current.length = frame.at;
        } else {
            let length = u32::try_from(frame.length).unwrap_or(OPEN);
            current.file.write_all_at(&head(frame.stream, length), frame.at)?;
        }
        current.frame = None;
        Ok(())
    }

    fn next_segment(&mut self) -> io::Result<()> {
        self.close_frame()?;
        self.current = None;
        // An empty file of this name is one that nothing was written to.
        if self.segments.back().is_some_and(|last| last.start == self.end) {
            self.segments.pop_back();
        }
        while self.segments.len() as u64 >= SEGMENTS {
            self.drop_oldest();
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let name = self.file_name(self.end);
        let file = rustix::fs::openat(&self.parent, name, flags, Mode::from_raw_mode(0o600))?;
        let file = File::from(file);
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&self.totals[0].to_le_bytes());
        header[8..].copy_from_slice(&self.totals[1].to_le_bytes());
        if let Err(error) = file.write_all_at(&header, 0) {
            // A file without a whole head would be taken for one that is not ours.
            let _ = rustix::fs::unlinkat(&self.parent, self.file_name(self.end), AtFlags::empty());
            return Err(error);
        }
        self.segments.push_back(Segment { start: self.end, before: self.totals });
        self.current = Some(Current { file, length: HEADER_BYTES, frame: None });
        Ok(())
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            // A reader that has it open reads it to its end.
            let _ = rustix::fs::unlinkat(&self.parent, self.file_name(oldest.start), AtFlags::empty());
        }
    }

    /// Finds the files of a daemon before this one, and how far the last of them goes.
    fn recover(&mut self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.parent, self.name.as_str(), flags, Mode::empty())?;
        let mut starts = Vec::new();
        for entry in rustix::fs::Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes().strip_suffix(b".log");
            let start = name.and_then(|name| std::str::from_utf8(name).ok()?.parse::<u64>().ok());
            starts.extend(start);
        }
        starts.sort_unstable();
        let mut last = None;
        for start in starts {
            let file = self.open_file(start)?;
            let mut header = [0; HEADER];
            if file.read_exact_at(&mut header, 0).is_err() {
                // Begun, and nothing was written to it.
                rustix::fs::unlinkat(&self.parent, self.file_name(start), AtFlags::empty())?;
                continue;
            }
            let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            let before = [half(&header[..8]), half(&header[8..])];
            self.segments.push_back(Segment { start, before });
            last = Some((file, start, before));
        }
        if let Some((file, start, before)) = last {
            (self.end, self.totals) = (start, before);
            self.resume(file)?;
        }
        while self.segments.len() as u64 > SEGMENTS {
            self.drop_oldest();
        }
        Ok(())
    }

    /// Goes on with the last file.
    fn resume(&mut self, file: File) -> io::Result<()> {
        let length = file.metadata()?.len();
        let mut scratch = Scratch::default();
        let mut at = HEADER_BYTES;
        let mut last = None;
        while at + FRAME_BYTES <= length {
            let (stream, content) = scratch.frame(&file, at)?;
            let rest = length - at - FRAME_BYTES;
            let content = if content == u64::from(OPEN) { rest } else { content.min(rest) };
            self.advance(stream, content);
            last = Some(Frame { at, stream, length: content });
            at += FRAME_BYTES + content;
        }
        // The beginning of a head, at most.
        file.set_len(at)?;
        self.current = Some(Current { file, length: at, frame: last });
        self.close_frame()
    }

    fn open_file(&self, start: u64) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.parent, self.file_name(start), flags, Mode::empty())?.into())
    }
}

fn head(stream: Stream, length: u32) -> [u8; FRAME] {
    let bit = if stream == Stream::Stderr { STDERR_BIT } else { 0 };
    (length | bit).to_le_bytes()
}

/// A part of a file, so that small frames do not cost a read each.
#[derive(Debug, Default)]
struct Scratch {
    bytes: Vec<u8>,
    at: u64,
}

impl Scratch {
    /// The head of the frame at this offset.
    fn frame(&mut self, file: &File, at: u64) -> io::Result<(Stream, u64)> {
        let held = self.at..self.at + self.bytes.len() as u64;
        if !(held.contains(&at) && held.contains(&(at + FRAME_BYTES - 1))) {
            self.fill(file, at)?;
        }
        match self.held_frame(at)? {
            // It may have been the last one when it was read.
            (_, length) if length == u64::from(OPEN) => {
                self.fill(file, at)?;
                self.held_frame(at)
            }
            frame => Ok(frame),
        }
    }

    fn fill(&mut self, file: &File, at: u64) -> io::Result<()> {
        self.bytes.resize(4096, 0);
        let count = file.read_at(&mut self.bytes, at)?;
        self.bytes.truncate(count);
        self.at = at;
        Ok(())
    }

    fn held_frame(&self, at: u64) -> io::Result<(Stream, u64)> {
        let offset = usize::try_from(at - self.at).unwrap_or(usize::MAX);
        let head = self.bytes.get(offset..offset.saturating_add(4)).unwrap_or_default();
        let head = u32::from_le_bytes(head.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?);
        let stream = if head & STDERR_BIT == 0 { Stream::Stdout } else { Stream::Stderr };
        Ok((stream, u64::from(head & !STDERR_BIT)))
    }
}

/// Where somebody reads.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    cursor: u64,
    place: Option<Place>,
    scratch: Scratch,
}

/// The cursor in a file.
#[derive(Debug)]
struct Place {
    file: File,
    start: u64,
    /// Where the frame begins that holds the cursor, or that begins there.
    at: u64,
    /// Cursor of that frame's first byte.
    frame_cursor: u64,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes are gone: from the cursor to that of the next piece.
    Dropped(u64),
    /// Bytes of one stream that were written one after the other.
    Bytes {
        /// Which.
        stream: Stream,
        /// Cursor of the first.
        cursor: u64,
        /// They.
        bytes: Vec<u8>,
        /// Whether what follows is of the other stream or in another file: this run of bytes gets no longer.
        ended: bool,
    },
}

/// What the log says about the segment that a cursor is in.
struct Around {
    segment: Segment,
    /// Where the next one starts.
    next: Option<u64>,
    end: u64,
    /// The last frame, if it is in this segment.
    frame: Option<Frame>,
}

impl Reader {
    /// Where the next piece begins.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Goes back or forth.
    pub fn seek(&mut self, cursor: u64) {
        if self.place.as_ref().is_some_and(|place| cursor < place.frame_cursor) {
            self.place = None;
        }
        self.cursor = cursor;
    }

    /// The next piece, of at most so many bytes; `None` when there is nothing more for now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next(&mut self, bytes_max: usize) -> io::Result<Option<Piece>> {
        loop {
            let Some(around) = self.around() else { return Ok(None) };
            if self.cursor < around.segment.start {
                let dropped = around.segment.start - self.cursor;
                self.cursor = around.segment.start;
                return Ok(Some(Piece::Dropped(dropped)));
            }
            match self.read(&around, bytes_max) {
                // The oldest file was dropped meanwhile, or all of them with their process.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.log.lock().segments.retain(|segment| segment.start != around.segment.start);
                }
                Ok(None) => match around.next {
                    // The rest of this segment could not be written, or it has no more.
                    Some(next) if next == self.cursor => self.place = None,
                    Some(next) => {
                        self.place = None;
                        let dropped = next - self.cursor;
                        self.cursor = next;
                        return Ok(Some(Piece::Dropped(dropped)));
                    }
                    None if around.end > self.cursor => {
                        let dropped = around.end - self.cursor;
                        self.cursor = around.end;
                        return Ok(Some(Piece::Dropped(dropped)));
                    }
                    None => return Ok(None),
                },
                other => return other,
            }
        }
    }

    /// The segment of the cursor; `None` when it is at the end or beyond it.
    fn around(&self) -> Option<Around> {
        let inner = self.log.lock();
        if self.cursor >= inner.end {
            return None;
        }
        let after = inner.segments.partition_point(|segment| segment.start <= self.cursor);
        let index = after.saturating_sub(1);
        let Some(&segment) = inner.segments.get(index) else {
            // Nothing at all could be written.
            let segment = Segment { start: inner.end, before: inner.totals };
            return Some(Around { segment, next: None, end: inner.end, frame: None });
        };
        let next = inner.segments.get(index + 1).map(|next| next.start);
        let frame = inner.current.as_ref().and_then(|current| current.frame).filter(|_| next.is_none());
        Some(Around { segment, next, end: inner.end, frame })
    }

    fn read(&mut self, around: &Around, bytes_max: usize) -> io::Result<Option<Piece>> {
        if self.place.as_ref().is_none_or(|place| place.start != around.segment.start) {
            let start = around.segment.start;
            let file = self.log.lock().open_file(start)?;
            self.scratch = Scratch::default();
            self.place = Some(Place { file, start, at: HEADER_BYTES, frame_cursor: start });
        }
        let Some(place) = &mut self.place else { return Ok(None) };
        let limit = around.next.unwrap_or(around.end);
        loop {
            if place.frame_cursor >= limit {
                return Ok(None);
            }
            let (stream, length, open) = match around.frame {
                Some(frame) if frame.at == place.at => (frame.stream, frame.length, true),
                _ => match self.scratch.frame(&place.file, place.at) {
                    // Its length was never written down.
                    Ok((_, length)) if length == u64::from(OPEN) => return Ok(None),
                    Ok((stream, length)) => (stream, length, false),
                    // Shorter than the next file says: the rest could not be written.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    Err(error) => return Err(error),
                },
            };
            let frame_end = place.frame_cursor + length;
            if self.cursor >= frame_end {
                if open {
                    return Ok(None);
                }
                place.at += FRAME_BYTES + length;
                place.frame_cursor = frame_end;
                continue;
            }
            let within = self.cursor - place.frame_cursor;
            let count = (length - within).min(bytes_max as u64);
            let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
            place.file.read_exact_at(&mut bytes, place.at + FRAME_BYTES + within)?;
            let cursor = self.cursor;
            self.cursor += count;
            return Ok(Some(Piece::Bytes {
                stream,
                cursor,
                bytes,
                ended: !open && self.cursor == frame_end,
            }));
        }
    }
}

#[cfg(test)]
mod tests;
