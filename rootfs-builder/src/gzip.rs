//! A gzip stream made by several threads that is the same on every run.
//!
//! ```text
//! write -> blocks of 1 MiB -> deflate in parallel -> in order -> one gzip member
//! ```
//!
//! Each block is deflated on its own and ends on a byte boundary, so blocks can be joined to one deflate
//! stream whose bytes do not depend on the number of threads. One member, not many: some readers stop
//! after the first. The header carries neither name nor time. zlib-rs hashes alike on every processor, and
//! `Cargo.lock` pins it: another version may well choose other bytes for the same content.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Blocks lose the memory of what came before, about 1 % of size at this length.
const BLOCK_BYTES: usize = 1024 * 1024;
/// gzip's usual trade; higher levels cost twice the time for 1 %.
const LEVEL: u32 = 6;
/// Magic, deflate, no flags, no time, no extra flags, system "unknown" (RFC 1952 §2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty final deflate block with fixed codes (RFC 1951 §3.2.6).
const END_OF_STREAM: [u8; 2] = [3, 0];

struct Job {
    block: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written into `W`.
pub(crate) struct Encoder<W: Write + Send + 'static> {
    block: Vec<u8>,
    crc: Crc,
    jobs: Option<SyncSender<Job>>,
    order: Option<SyncSender<Receiver<io::Result<Vec<u8>>>>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<io::Result<W>>>,
}

impl<W: Write + Send + 'static> Encoder<W> {
    pub(crate) fn new(mut output: W) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads).map(|_| spawn_worker(Arc::clone(&queue))).collect();
        let (order, results) = sync_channel::<Receiver<io::Result<Vec<u8>>>>(threads * 2);
        let writer = std::thread::spawn(move || {
            output.write_all(&HEADER)?;
            for result in results {
                output.write_all(&result.recv().map_err(|_| broken())??)?;
            }
            Ok(output)
        });
        Self {
            block: Vec::with_capacity(BLOCK_BYTES),
            crc: Crc::new(),
            jobs: Some(jobs),
            order: Some(order),
            workers,
            writer: Some(writer),
        }
    }

    fn send_block(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        let (done, result) = sync_channel(1);
        // Order first: the writer then waits for exactly this block.
        self.order.as_ref().ok_or_else(broken)?.send(result).map_err(|_| broken())?;
        self.jobs.as_ref().ok_or_else(broken)?.send(Job { block, done }).map_err(|_| broken())
    }

    /// Writes the end of the stream and returns the output.
    ///
    /// # Errors
    /// The first error of the output.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.send_block()?;
        }
        self.jobs = None;
        self.order = None;
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| broken())?;
        }
        let writer = self.writer.take().ok_or_else(broken)?;
        let mut output = writer.join().map_err(|_| broken())??;
        output.write_all(&END_OF_STREAM)?;
        output.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32, as the format has it.
        output.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(output)
    }
}

impl<W: Write + Send + 'static> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.crc.update(&bytes[..count]);
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK_BYTES {
            self.send_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "a compression thread has ended early")
}

fn spawn_worker(queue: Arc<Mutex<Receiver<Job>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        loop {
            let job = match queue.lock() {
                Ok(queue) => queue.recv(),
                Err(_) => return,
            };
            let Ok(job) = job else { return };
            // A writer that failed has hung up and reports its own error.
            let _ = job.done.send(deflate(&job.block));
        }
    })
}

/// Deflates one block, ending on a byte boundary without ending the stream.
fn deflate(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    // Stored blocks are the worst case: five bytes for each 64 KiB, and the sync marker.
    let mut packed = Vec::with_capacity(block.len() + block.len() / 1_000 + 64);
    let status = compress.compress_vec(block, &mut packed, FlushCompress::Sync).map_err(io::Error::other)?;
    let complete = compress.total_in() == u64::try_from(block.len()).unwrap_or(u64::MAX);
    if status != Status::Ok || !complete || packed.len() == packed.capacity() {
        return Err(io::Error::other("a block did not fit its buffer"));
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        encoder.write_all(bytes).expect("write");
        encoder.finish().expect("finish")
    }

    /// Bytes that do not compress: the worst case for a block's buffer.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56).to_le_bytes()[0]
        };
        std::iter::repeat_with(&mut next).take(length).collect()
    }

    #[test]
    fn one_member_holds_everything() {
        for bytes in [Vec::new(), b"short".to_vec(), vec![7; 3 * BLOCK_BYTES], noise(2 * BLOCK_BYTES + 5)] {
            let packed = pack(&bytes);
            let mut unpacked = Vec::new();
            // GzDecoder stops after the first member, unlike MultiGzDecoder.
            flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).expect("decode");
            assert!(unpacked == bytes, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let mut bytes = noise(2 * BLOCK_BYTES);
        bytes.extend(vec![0; BLOCK_BYTES]);
        assert!(pack(&bytes) == pack(&bytes));
    }

    #[test]
    fn a_failing_output_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut encoder = Encoder::new(Full);
        let written = encoder.write_all(&vec![1; 40 * BLOCK_BYTES]);
        assert!(written.is_err() || encoder.finish().is_err());
    }
}
