//! Bytes that come from a sandbox, on their way to the disk or out: compressed on threads that may wait, never read.

use std::io::{self, Write};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::Error;

/// zstd's own default.
const LEVEL: i32 = 3;

/// Threads that compress, beside the one that hands on.
const THREADS: u32 = 2;

/// Chunks between the pipe and the compressor.
const CHUNKS: usize = 16;

/// Compresses what comes, and gives what it was written to. `seen` sees all of it before.
///
/// # Errors
/// What the stream says when it breaks, and when the disk is full.
pub(super) async fn compressed<S, W>(
    stream: S,
    sink: W,
    seen: impl FnMut(&[u8]) + Send + 'static,
) -> Result<W, Error>
where
    S: Stream<Item = Result<Bytes, Error>> + Send,
    W: Write + Send + 'static,
{
    let (sender, chunks) = mpsc::channel::<Bytes>(CHUNKS);
    let writer = tokio::task::spawn_blocking(move || write(chunks, sink, seen));
    let mut stream = std::pin::pin!(stream);
    let mut broken = Ok(());
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => {
                // When nobody takes it, the compressor says why.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                broken = Err(error);
                break;
            }
        }
    }
    drop(sender);
    let written = writer.await.map_err(|error| Error::internal("compressing failed", error))?;
    broken?;
    written.map_err(|error| Error::writing("cannot write what was compressed", error))
}

fn write<W: Write>(mut chunks: mpsc::Receiver<Bytes>, sink: W, mut seen: impl FnMut(&[u8])) -> io::Result<W> {
    let mut encoder = zstd::Encoder::new(sink, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.multithread(THREADS)?;
    while let Some(chunk) = chunks.blocking_recv() {
        seen(&chunk);
        encoder.write_all(&chunk)?;
    }
    encoder.finish()
}

/// Bytes of a chunk on its way out.
const CHUNK_BYTES: usize = 64 * 1024;

/// A stream as something to write to, on a thread that may wait. What is not flushed is not sent.
#[derive(Debug)]
pub(super) struct Chunks {
    sender: mpsc::Sender<Result<Bytes, Error>>,
    chunk: Vec<u8>,
}

impl Chunks {
    /// Writes to this stream.
    pub(super) fn new(sender: mpsc::Sender<Result<Bytes, Error>>) -> Self {
        Self { sender, chunk: Vec::with_capacity(CHUNK_BYTES) }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        // Whoever reads has gone.
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// What `write` writes, as a stream. It has flushed when it returns well.
pub(super) fn written(
    write: impl FnOnce(Chunks) -> io::Result<()> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(Chunks::new(sender.clone())) {
            // Absent when it has gone.
            let _ = sender.blocking_send(Err(Error::internal("cannot read what is to be sent", error)));
        }
    });
    ReceiverStream::new(receiver)
}
