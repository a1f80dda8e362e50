//! Bytes that come from a sandbox, on their way to the disk: compressed on threads that may wait, never read.

use std::io::{self, Write};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

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
