//! Reading tar streams from strangers, without touching a file.
//!
//! ```text
//! Source ─chunks─▶ TarReader ─▶ Entry, then its content, chunk by chunk and uncopied
//! ```
//! `tar-core` parses the headers; what it leaves open is closed here, because two readers that see different
//! entries in one archive are how files are smuggled past the first (CVE-2025-62518, RUSTSEC-2026-0068):
//! - one entry has each of the PAX keys that decide where it goes and how long it is at most once;
//! - a global PAX header may not set those keys at all, nor stand between an entry and its own headers;
//! - only regular files have content; anything else that claims some is refused rather than guessed at;
//! - a size in base 256 must fit 63 bits;
//! - the pieces of a sparse file are in order, apart, and add up to the content.
//!
//! Why not the `tar` crate: its `unpack` works on paths; reading with it means one more copy of every byte.

use std::collections::VecDeque;

use bytes::Bytes;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

use crate::limits::{PATH_BYTES_MAX, TAR_METADATA_BYTES_MAX, TAR_SPARSE_PIECES_MAX};

/// Where the bytes of an archive come from.
pub(crate) trait Source {
    /// Why there are none.
    type Error;
    /// The next bytes, not empty; `None` at the end.
    fn next(&mut self) -> Result<Option<Bytes>, Self::Error>;
}

/// Why a stream is not an archive that we accept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// The header is malformed, or beyond a bound of the parser.
    #[error("tar header: {0}")]
    Header(#[from] tar_core::parse::ParseError),
    /// The stream ended inside an entry.
    #[error("tar stream ends in the middle of an entry")]
    Truncated,
    /// Headers before one entry are too large together.
    #[error("tar headers of one entry are larger than {TAR_METADATA_BYTES_MAX} bytes")]
    HeaderTooLarge,
    /// A key that decides where an entry goes or how long it is, twice or in a global header.
    #[error("tar header gives '{0}' twice or for all entries")]
    AmbiguousKey(&'static str),
    /// A global header between an entry's own headers and the entry.
    #[error("tar global header in the middle of an entry")]
    MisplacedGlobalHeader,
    /// Content where there can be none.
    #[error("tar entry '{0}' is not a file and has content")]
    UnexpectedContent(String),
    /// A size that no file can have.
    #[error("tar entry '{0}' has an impossible size")]
    Size(String),
    /// Pieces of a sparse file out of order, overlapping, or of the wrong total.
    #[error("tar entry '{0}' has a contradictory sparse map")]
    SparseMap(String),
    /// A type of entry that nobody agrees on.
    #[error("tar entry '{path}' has the unknown type {kind:#04x}")]
    Kind {
        /// Which entry.
        path: String,
        /// Its type byte.
        kind: u8,
    },
}

/// An error of the archive or of the bytes under it.
#[derive(Debug)]
pub(crate) enum ReadError<E> {
    /// The bytes are wrong.
    Tar(TarError),
    /// There are no bytes.
    Source(E),
}

impl<E> From<TarError> for ReadError<E> {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file, sparse or not.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its target is text.
    Symlink,
    /// Another name for an earlier entry.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// A piece of a sparse file: content for `[offset, offset + length)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One entry of an archive, all extensions applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970; earlier is negative.
    pub(crate) mtime_s: i64,
    pub(crate) mtime_ns: u32,
    /// Bytes of the file when it is laid out, holes included.
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content goes when the file has holes.
    pub(crate) sparse: Option<Vec<Piece>>,
}

/// Reads entries and their content.
pub(crate) struct TarReader<S> {
    source: S,
    parser: Parser,
    /// Bytes read from the source and not used yet.
    queue: VecDeque<Bytes>,
    /// Bytes of the present entry's content not handed out yet.
    content: u64,
    /// Bytes between the content and the next header.
    padding: u64,
    ended: bool,
    /// Whether zeros say where it ends.
    marked: bool,
}

impl<S: Source> TarReader<S> {
    pub(crate) fn new(source: S) -> Self {
        let limits = Limits {
            max_metadata_size: TAR_METADATA_BYTES_MAX,
            max_path_len: u32::try_from(PATH_BYTES_MAX - 1).ok(),
            max_pending_entries: 8,
            max_sparse_entries: TAR_SPARSE_PIECES_MAX,
        };
        Self {
            source,
            parser: Parser::new(limits),
            queue: VecDeque::new(),
            content: 0,
            padding: 0,
            ended: false,
            marked: false,
        }
    }

    /// Whether the archive said that it ends, when there are no more entries. One that was cut between two does not.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked
    }

    /// The next entry. What is left of the one before is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ReadError<S::Error>> {
        while self.content()?.is_some() {}
        self.skip_padding()?;
        let mut wanted = tar_core::HEADER_SIZE;
        while !self.ended {
            let head = self.gather(wanted)?;
            if head.len() < wanted {
                // An archive may lack its two final blocks of zeros; one that stops elsewhere was cut.
                self.marked = !head.is_empty();
                return if head.iter().all(|&byte| byte == 0) {
                    Ok(None)
                } else {
                    Err(TarError::Truncated.into())
                };
            }
            let (consumed, found) = match self.parser.parse(&head).map_err(TarError::from)? {
                // The parser may ask for what it has: a line of a sparse map that does not end.
                ParseEvent::NeedData { min_bytes } => {
                    wanted = if min_bytes > wanted { min_bytes } else { 2 * wanted };
                    continue;
                }
                ParseEvent::Entry { consumed, entry } => {
                    let stored = entry.size;
                    (consumed, Some((resolve(&entry, None)?, stored)))
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    let pieces =
                        sparse_map.iter().map(|piece| Piece { offset: piece.offset, length: piece.length });
                    let stored = entry.size;
                    (consumed, Some((resolve(&entry, Some((pieces.collect(), real_size)))?, stored)))
                }
                ParseEvent::GlobalExtensions { consumed, pax_data } => {
                    check_global(&head, pax_data)?;
                    (consumed, None)
                }
                ParseEvent::End { consumed } => {
                    (self.ended, self.marked) = (true, true);
                    (consumed, None)
                }
            };
            self.consume(consumed);
            wanted = tar_core::HEADER_SIZE;
            if let Some((entry, stored)) = found {
                self.content = stored;
                self.padding = stored.next_multiple_of(512) - stored;
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The next piece of the present entry's content, `None` when there is no more.
    pub(crate) fn content(&mut self) -> Result<Option<Bytes>, ReadError<S::Error>> {
        if self.content == 0 {
            return Ok(None);
        }
        let Some(mut chunk) = self.next_chunk()? else { return Err(TarError::Truncated.into()) };
        let length = usize::try_from(self.content).unwrap_or(usize::MAX).min(chunk.len());
        let piece = chunk.split_to(length);
        if !chunk.is_empty() {
            self.queue.push_front(chunk);
        }
        self.content -= length as u64;
        Ok(Some(piece))
    }

    /// Reads what is behind the archive's end, so that a digest of the stream covers all of it.
    pub(crate) fn drain(&mut self) -> Result<(), S::Error> {
        self.queue.clear();
        while self.source.next()?.is_some() {}
        Ok(())
    }

    fn skip_padding(&mut self) -> Result<(), ReadError<S::Error>> {
        while self.padding > 0 {
            let Some(mut chunk) = self.next_chunk()? else { return Err(TarError::Truncated.into()) };
            let length = usize::try_from(self.padding).unwrap_or(usize::MAX).min(chunk.len());
            let _ = chunk.split_to(length);
            if !chunk.is_empty() {
                self.queue.push_front(chunk);
            }
            self.padding -= length as u64;
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, ReadError<S::Error>> {
        match self.queue.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.source.next().map_err(ReadError::Source),
        }
    }

    /// The next `wanted` bytes in one piece, still queued; fewer only at the end of the stream.
    fn gather(&mut self, wanted: usize) -> Result<Bytes, ReadError<S::Error>> {
        // The parser's own bound is on the content of the headers; twice that leaves room for the blocks.
        if wanted > 2 * TAR_METADATA_BYTES_MAX as usize {
            return Err(TarError::HeaderTooLarge.into());
        }
        if let Some(front) = self.queue.front()
            && front.len() >= wanted
        {
            return Ok(front.clone());
        }
        let mut joined = Vec::with_capacity(wanted);
        while joined.len() < wanted {
            let Some(mut chunk) = self.next_chunk()? else { break };
            // Most headers lie within one chunk: no copy.
            if joined.is_empty() && chunk.len() >= wanted {
                self.queue.push_front(chunk.clone());
                return Ok(chunk);
            }
            let part = chunk.split_to(chunk.len().min(wanted - joined.len()));
            joined.extend_from_slice(&part);
            if !chunk.is_empty() {
                self.queue.push_front(chunk);
            }
        }
        let joined = Bytes::from(joined);
        if !joined.is_empty() {
            self.queue.push_front(joined.clone());
        }
        Ok(joined)
    }

    fn consume(&mut self, mut count: usize) {
        while count > 0 {
            let Some(mut chunk) = self.queue.pop_front() else { return };
            let length = count.min(chunk.len());
            let _ = chunk.split_to(length);
            if !chunk.is_empty() {
                self.queue.push_front(chunk);
            }
            count -= length;
        }
    }
}

/// Checks what the parser leaves open and takes what outlives the buffer.
fn resolve(entry: &ParsedEntry<'_>, sparse: Option<(Vec<Piece>, u64)>) -> Result<Entry, TarError> {
    let name = || entry.path_lossy().into_owned();
    let raw = entry.header.as_bytes();
    let kind = match entry.entry_type {
        // Before POSIX a directory was a file whose name ends with a slash (tar(5), old-style archive).
        EntryType::Regular if raw[156] == 0 && entry.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::GnuSparse if sparse.is_some() => Kind::File,
        EntryType::Link => Kind::Hardlink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        _ => return Err(TarError::Kind { path: name(), kind: raw[156] }),
    };
    // Base 256 (GNU): the first bit marks it, the number follows. The parser drops what exceeds 64 bits.
    let size_field = &raw[124..136];
    if size_field[0] & 0x80 != 0
        && (size_field[0] != 0x80 || size_field[1..4] != [0; 3] || size_field[4] & 0x80 != 0)
    {
        return Err(TarError::Size(name()));
    }
    if i64::try_from(entry.size).is_err() {
        return Err(TarError::Size(name()));
    }
    if entry.size > 0 && kind != Kind::File {
        return Err(TarError::UnexpectedContent(name()));
    }
    let mut mtime_ns = 0;
    if let Some(pax) = entry.pax {
        check_unique(pax)?;
        mtime_ns = PaxExtensions::new(pax).get(tar_core::PAX_MTIME).map_or(0, nanoseconds);
    }
    let (sparse, size) = match sparse {
        None => (None, entry.size),
        Some((pieces, size)) => {
            check_pieces(&pieces, entry.size, size).ok_or_else(|| TarError::SparseMap(name()))?;
            (Some(pieces), size)
        }
    };
    Ok(Entry {
        kind,
        path: entry.path.to_vec(),
        link: entry.link_target.as_deref().unwrap_or_default().to_vec(),
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        // Times before 1970 come as two's complement.
        mtime_s: entry.mtime.cast_signed(),
        mtime_ns,
        size,
        xattrs: entry.xattrs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect(),
        sparse,
    })
}

/// Keys that decide where an entry goes, how long it is and whose it is.
const DECISIVE_KEYS: [&str; 8] =
    ["path", "linkpath", "size", "uid", "gid", "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.map"];

fn check_unique(pax: &[u8]) -> Result<(), TarError> {
    let mut seen = [false; DECISIVE_KEYS.len()];
    for extension in PaxExtensions::new(pax).flatten() {
        let position = DECISIVE_KEYS.iter().position(|key| key.as_bytes() == extension.key_bytes());
        if let Some(position) = position
            && std::mem::replace(&mut seen[position], true)
        {
            return Err(TarError::AmbiguousKey(DECISIVE_KEYS[position]));
        }
    }
    Ok(())
}

/// A global header may carry a comment (git archive writes the commit), and nothing that moves entries.
fn check_global(head: &[u8], pax: &[u8]) -> Result<(), TarError> {
    if head[156] != b'g' {
        return Err(TarError::MisplacedGlobalHeader);
    }
    for extension in PaxExtensions::new(pax) {
        let extension = extension.map_err(tar_core::parse::ParseError::from)?;
        if let Some(key) = DECISIVE_KEYS.iter().find(|key| key.as_bytes() == extension.key_bytes()) {
            return Err(TarError::AmbiguousKey(key));
        }
    }
    Ok(())
}

/// The fraction of a PAX time, "1700000000.25", in nanoseconds.
fn nanoseconds(time: &str) -> u32 {
    let Some((_, fraction)) = time.split_once('.') else { return 0 };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).chain(std::iter::repeat(b'0'));
    digits.take(9).fold(0, |value, digit| value * 10 + u32::from(digit - b'0'))
}

fn check_pieces(pieces: &[Piece], stored: u64, size: u64) -> Option<()> {
    i64::try_from(size).ok()?;
    let mut end = 0;
    let mut total = 0_u64;
    for piece in pieces {
        if piece.offset < end {
            return None;
        }
        end = piece.offset.checked_add(piece.length)?;
        total = total.checked_add(piece.length)?;
    }
    (end <= size && total == stored).then_some(())
}
