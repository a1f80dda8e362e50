//! A blob on one side, its tar stream on the other, with the digest of the stream taken on the way.
//!
//! ```text
//!            thread "inflate"          ┌─chunks─▶ thread "digest"  sha256 = diff-id
//! blob ─────▶ gunzip or unzstd ────────┤
//!             bounds, progress         └─chunks─▶ the caller       parses and writes
//! ```
//! Inflating is the wall (a deflate stream cannot be split), so it has a thread of its own; hashing and writing
//! go on beside it. Chunks are shared, not copied, and their buffers are used again: the memory is what the two
//! channels hold, however large the layer is.

use std::io::{BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::limits::{LAYER_BYTES_FREE, LAYER_BYTES_MAX, LAYER_RATIO_MAX, ZSTD_WINDOW_LOG_MAX};
use crate::tar::Source;
use crate::wire::launch::Compression;

/// Bytes of a chunk: large enough that handing it over costs nothing, small enough to stay in the cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that each channel holds.
const CHUNKS_QUEUED: usize = 8;

/// Compressed bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 1024 * 1024;

/// Why a blob does not yield a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    /// The blob cannot be read, or its compression is broken.
    #[error("cannot decompress: {0}")]
    Stream(#[from] std::io::Error),
    /// More bytes than any layer may have.
    #[error("unpacks to more than {LAYER_BYTES_MAX} bytes")]
    TooLarge,
    /// So many bytes from so few that it can only be meant to fill the disk.
    #[error("unpacks to more than {LAYER_RATIO_MAX} times its size")]
    Bomb,
}

/// Recognises a compression by its first bytes.
pub(super) fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or a skippable frame before it (RFC 8878 §3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// A reader of the decompressed bytes.
///
/// # Errors
/// When the zstd library has no memory for its state.
pub(super) fn reader<'a>(
    compressed: impl Read + 'a,
    compression: Compression,
) -> std::io::Result<Box<dyn Read + 'a>> {
    let compressed = BufReader::with_capacity(CHUNK_BYTES, compressed);
    Ok(match compression {
        Compression::None => Box::new(compressed),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// The caller's end of a running pipeline: a source of chunks.
#[derive(Debug)]
pub(super) struct Chunks(Receiver<Bytes>);

impl Source for Chunks {
    type Error = std::convert::Infallible;

    fn next(&mut self) -> Result<Option<Bytes>, Self::Error> {
        // The end and a failure look alike here; `Pipeline::finish` tells them apart.
        Ok(self.0.recv().ok())
    }
}

/// The two threads.
#[derive(Debug)]
pub(super) struct Pipeline<'scope> {
    inflate: std::thread::ScopedJoinHandle<'scope, Result<(), DecompressError>>,
    digest: std::thread::ScopedJoinHandle<'scope, Digest>,
}

/// Starts inflating and hashing. `progress` is told how many compressed bytes were read so far.
pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: impl Read + Send + 'scope,
    compression: Compression,
    progress: impl FnMut(u64) + Send + 'scope,
) -> (Pipeline<'scope>, Chunks) {
    let (to_caller, chunks) = sync_channel(CHUNKS_QUEUED);
    let (to_digest, from_inflate) = sync_channel(CHUNKS_QUEUED);
    let inflate = scope.spawn(move || inflate(blob, compression, progress, &to_caller, &to_digest));
    let digest = scope.spawn(move || {
        let mut hash = Sha256::new();
        while let Ok(chunk) = from_inflate.recv() {
            let chunk: Bytes = chunk;
            hash.update(&chunk);
        }
        Digest::from_bytes(hash.finalize().into())
    });
    (Pipeline { inflate, digest }, Chunks(chunks))
}

impl Pipeline<'_> {
    /// Waits for the end and returns the digest of the whole stream. The caller has read, or dropped, its chunks.
    pub(super) fn finish(self) -> Result<Digest, DecompressError> {
        let inflated = self.inflate.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let digest = self.digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        inflated.map(|()| digest)
    }
}

/// A buffer that goes back to the pool when the last user of its chunk is done.
struct Pooled {
    buffer: Vec<u8>,
    length: usize,
    pool: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // The pool is gone when inflating has ended: then the buffer is simply freed.
        let _ = self.pool.send(std::mem::take(&mut self.buffer));
    }
}

/// Counts what was read from the blob.
struct Counted<'a, R, P> {
    inner: R,
    count: &'a std::cell::Cell<u64>,
    reported: u64,
    progress: P,
}

impl<R: Read, P: FnMut(u64)> Read for Counted<'_, R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let count = self.count.get() + length as u64;
        self.count.set(count);
        if length == 0 || count - self.reported >= PROGRESS_BYTES {
            self.reported = count;
            (self.progress)(count);
        }
        Ok(length)
    }
}

fn inflate(
    blob: impl Read,
    compression: Compression,
    progress: impl FnMut(u64),
    to_caller: &SyncSender<Bytes>,
    to_digest: &SyncSender<Bytes>,
) -> Result<(), DecompressError> {
    let compressed = std::cell::Cell::new(0);
    let mut stream = reader(Counted { inner: blob, count: &compressed, reported: 0, progress }, compression)?;
    let (pool, returned) = channel::<Vec<u8>>();
    let mut total = 0_u64;
    loop {
        let mut buffer = returned.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
        let length = fill(&mut stream, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        total += length as u64;
        check_total(total, compressed.get())?;
        let chunk = Bytes::from_owner(Pooled { buffer, length, pool: pool.clone() });
        // A caller that has failed no longer listens: it knows why, and the digest is of no use to it.
        if to_digest.send(chunk.clone()).is_err() || to_caller.send(chunk).is_err() {
            return Ok(());
        }
    }
}

/// Bounds what a stream unpacks to.
pub(super) fn check_total(total: u64, compressed: u64) -> Result<(), DecompressError> {
    if total > LAYER_BYTES_MAX {
        return Err(DecompressError::TooLarge);
    }
    if total > LAYER_BYTES_FREE && total > compressed.saturating_mul(LAYER_RATIO_MAX) {
        return Err(DecompressError::Bomb);
    }
    Ok(())
}

/// Reads until the buffer is full or the stream ends.
pub(super) fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match stream.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
