//! Content, between a descriptor that a worker opened and a stream of bytes.
//!
//! What comes from a worker is looked at before it is used: a regular file (statx(2), which asks nobody) on a file
//! system that waits for nobody. Reading and writing happens on threads that may wait, one step ahead of the
//! stream and not more; writing does so from when it has waited once. No size that a worker claims is used.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use rustix::fs::{AtFlags, FileType, StatxFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::failure;
use super::workers::Talk;
use crate::error::{Error, ErrorCode};
use crate::sys::Errno;
use crate::wire::worker::{Tag, Time, is_direct};

/// Bytes read or written by one job.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of an upload that are written at once, while twice as many may come in: a thread that is woken for every few
/// slices costs more than the copying.
const BATCH_BYTES: usize = 1024 * 1024;

/// Uploads with such batches at a time, which bounds their memory. Others have smaller ones.
static LARGE_BATCHES: Semaphore = Semaphore::const_new(32);

/// The same as slices: each may keep a buffer of 64 KiB alive, however short it is.
const BATCH_SLICES: usize = 64;

/// What copying a slice into the kernel's cache takes at most, turns of other threads included: that is not worth a thread.
/// What takes longer waits for the disk, and so does what comes after it.
const QUICK: Duration = Duration::from_millis(20);

/// Of the daemon's threads one at most writes a slice itself: the first that waits for the disk is known only afterwards.
static HERE: Semaphore = Semaphore::const_new(1);

/// Slices that are written by one call, 128 KiB as other programs have it. For more the kernel takes larger pieces of
/// memory, which nobody has had in hand for some time: in a virtual machine its host may have to give them anew.
const SLICES_AT_ONCE: usize = 2;

/// A descriptor that turned out to be a regular file.
#[derive(Clone, Debug)]
pub(super) struct File(Arc<OwnedFd>);

impl File {
    /// Looks at what a worker sent.
    ///
    /// # Errors
    /// When it is no regular file. It is closed then.
    pub(super) fn check(fd: Option<OwnedFd>) -> Result<Self, Error> {
        let Some(fd) = fd else { return Err(failure::lost()) };
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let looked = rustix::fs::statx(&fd, c"", flags, StatxFlags::TYPE);
        if looked.is_ok_and(|statx| FileType::from_raw_mode(statx.stx_mode.into()).is_file()) {
            return Ok(Self(Arc::new(fd)));
        }
        Err(failure::lost())
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Its version now.
    pub(super) fn tag(&self) -> Result<Tag, Error> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let statx = rustix::fs::statx(&*self.0, c"", flags, StatxFlags::BASIC_STATS)
            .map_err(|errno| failure::of_errno(errno.raw_os_error()))?;
        let time =
            |time: rustix::fs::StatxTimestamp| Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
        Ok(Tag {
            inode: statx.stx_ino,
            size: statx.stx_size,
            mtime: time(statx.stx_mtime),
            ctime: time(statx.stx_ctime),
        })
    }

    /// Its bytes from `start`, `length` of them.
    pub(super) fn read(self, start: u64, length: u64) -> FileReader {
        FileReader { file: self, offset: start, left: length, ahead: None, spare: Spare::default() }
    }

    /// Reports what close(2) would say: some file systems find out only then that they could not write (NFS).
    fn flush(&self) -> Result<(), Errno> {
        let duplicate = rustix::io::fcntl_dupfd_cloexec(&*self.0, 3)?;
        nix::unistd::close(duplicate).map_err(|errno| Errno::from_raw_os_error(errno as i32))
    }
}

/// Refuses files whose reads or writes could wait for somebody inside.
fn check_direct(file: &OwnedFd) -> Result<(), Errno> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
    let magic = rustix::fs::fstatfs(file)?.f_type as u32;
    if is_direct(magic) { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

/// A part of a file, read one chunk ahead.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    offset: u64,
    left: u64,
    ahead: Option<JoinHandle<Result<Bytes, Errno>>>,
    spare: Spare,
}

/// Buffers of one reader that are free again: a new one for each chunk would be more page faults than copying.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// A chunk that gives its buffer back.
struct Chunk {
    buffer: Vec<u8>,
    filled: usize,
    spare: Spare,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Reads into a buffer that is free, or a new one.
fn read_chunk(file: &OwnedFd, offset: u64, wanted: usize, spare: Spare) -> Result<Bytes, Errno> {
    let free = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = free.filter(|free| free.len() >= wanted).unwrap_or_else(|| vec![0; wanted]);
    let filled = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[..wanted], offset))?;
    Ok(Bytes::from_owner(Chunk { buffer, filled, spare }))
}

impl FileReader {
    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn look_ahead(&mut self) {
        let first = self.ahead.is_none();
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let (file, offset, spare) = (Arc::clone(&self.file.0), self.offset, Arc::clone(&self.spare));
        self.ahead = Some(tokio::task::spawn_blocking(move || {
            if first {
                check_direct(&file)?;
            }
            read_chunk(&file, offset, wanted, spare)
        }));
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the disk fails, or the file became shorter than it was.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        if self.ahead.is_none() {
            self.look_ahead();
        }
        let job = self.ahead.as_mut()?;
        let read = match job.await {
            Ok(read) => read.map_err(io::Error::from),
            Err(error) => Err(io::Error::other(error)),
        };
        Some(match read {
            Ok(bytes) if bytes.is_empty() => {
                self.left = 0;
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"))
            }
            Ok(bytes) => {
                self.offset += bytes.len() as u64;
                self.left = self.left.saturating_sub(bytes.len() as u64);
                if self.left > 0 {
                    self.look_ahead();
                }
                Ok(bytes)
            }
            Err(error) => {
                self.left = 0;
                Err(error)
            }
        })
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, async |mut reader| reader.next().await.map(|item| (item, reader)))
    }
}

/// What a worker writes into a pipe until its last reply. The end of the pipe is not waited for: the worker may
/// have given its end to somebody else.
pub(super) struct PipeReader {
    talk: Option<Talk>,
    pipe: pipe::Receiver,
    /// What may still come once the worker is done.
    left: usize,
    failed: bool,
}

impl PipeReader {
    pub(super) fn new(talk: Talk, pipe: pipe::Receiver) -> Self {
        Self { talk: Some(talk), pipe, left: usize::MAX, failed: false }
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.failed {
            return None;
        }
        let mut buffer = bytes::BytesMut::with_capacity(CHUNK_BYTES / 4);
        while let Some(talk) = &mut self.talk {
            tokio::select! {
                biased;
                read = self.pipe.read_buf(&mut buffer) => match read {
                    Ok(count) if count > 0 => return Some(Ok(buffer.freeze())),
                    // The end, with the reply to follow.
                    _ => self.left = 0,
                },
                reply = talk.next() => {
                    self.talk = None;
                    self.left = self.left.min(rustix::pipe::fcntl_getpipe_size(&self.pipe).unwrap_or(CHUNK_BYTES));
                    if let Err(error) = reply {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
            }
            if self.left == 0
                && let Some(mut talk) = self.talk.take()
            {
                return match talk.next().await {
                    Ok(_) => None,
                    Err(error) => {
                        self.failed = true;
                        Some(Err(error))
                    }
                };
            }
        }
        // Not by tokio, which may not have heard yet that there is something.
        let mut rest = Vec::with_capacity(CHUNK_BYTES / 4);
        match rustix::io::read(&self.pipe, rustix::buffer::spare_capacity(&mut rest)) {
            Ok(count) if count > 0 && self.left > 0 => {
                self.left = self.left.saturating_sub(count);
                Some(Ok(Bytes::from(rest)))
            }
            _ => None,
        }
    }
}

/// Writes a stream into a draft.
///
/// # Errors
/// When the stream breaks off, or the sandbox's disk does not take it.
pub(super) async fn write<S, E>(file: &File, body: S) -> Result<u64, Error>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut body = std::pin::pin!(body);
    let large = LARGE_BATCHES.try_acquire().ok();
    let enough = if large.is_some() { BATCH_BYTES } else { CHUNK_BYTES / 2 };
    let mut pending: Vec<Bytes> = Vec::new();
    let (mut waiting, mut offset, mut ended, mut is_quick) = (0, 0_u64, false, true);
    let mut job: Option<JoinHandle<Result<(), Errno>>> = None;
    loop {
        let due = ended || waiting >= enough || pending.len() >= BATCH_SLICES;
        if job.is_none() && waiting > 0 && due {
            let (file, at) = (Arc::clone(&file.0), offset);
            let batch = std::mem::take(&mut pending);
            offset += std::mem::take(&mut waiting) as u64;
            job = Some(tokio::task::spawn_blocking(move || write_batch(&file, &batch, at)));
        }
        tokio::select! {
            biased;
            done = finished(&mut job), if job.is_some() => {
                job = None;
                done?;
            }
            chunk = body.next(), if !ended && waiting < 2 * enough && pending.len() < 2 * BATCH_SLICES => match chunk {
                // Nothing to write is no reason to believe that all was.
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) if is_quick && job.is_none() && pending.is_empty() && let Ok(_turn) = HERE.try_acquire() => {
                    let start = Instant::now();
                    write_batch(&file.0, std::slice::from_ref(&bytes), offset)
                        .map_err(|errno| failure::of_errno(errno.raw_os_error()))?;
                    offset += bytes.len() as u64;
                    is_quick = start.elapsed() < QUICK;
                }
                Some(Ok(bytes)) => {
                    waiting += bytes.len();
                    pending.push(bytes);
                }
                Some(Err(error)) => {
                    return Err(Error::new(ErrorCode::InvalidRequest, "the body was cut short")
                        .hint("send it again, whole; the file is what it was")
                        .source(error));
                }
                None => ended = true,
            },
            else => break,
        }
    }
    let closing = file.clone();
    let flush = tokio::task::spawn_blocking(move || check_direct(&closing.0).and_then(|()| closing.flush()));
    finished(&mut Some(flush)).await?;
    Ok(offset)
}

async fn finished(job: &mut Option<JoinHandle<Result<(), Errno>>>) -> Result<(), Error> {
    let Some(job) = job else { return std::future::pending().await };
    match job.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) => Err(failure::of_errno(errno.raw_os_error())),
        Err(error) => Err(Error::internal("writing a file failed", error)),
    }
}

fn write_batch(file: &OwnedFd, batch: &[Bytes], mut offset: u64) -> Result<(), Errno> {
    if offset == 0 {
        check_direct(file)?;
    }
    let mut slices: Vec<io::IoSlice<'_>> = batch.iter().map(|bytes| io::IoSlice::new(bytes)).collect();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        let next = slices.get(..SLICES_AT_ONCE).unwrap_or(slices);
        let count = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, next, offset))?;
        if count == 0 {
            return Err(Errno::IO);
        }
        offset += count as u64;
        io::IoSlice::advance_slices(&mut slices, count);
    }
    Ok(())
}
