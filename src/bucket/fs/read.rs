//! Reading an object: what is on disk, or ahead of the program.
//!
//! ```text
//! read ─▶ cache? ─▶ bytes
//!      └▶ parts of this open file, one after the other: ranged GETs in flight, several at a time
//!             window: 0 at random, doubled with each read in order, up to WINDOW_MAX
//! ```
//!
//! Every GET names the version that the file was opened as: a program never reads a mixture of two.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::cache::{BLOCK, Cache, Id};
use super::stage::Stage;
use crate::bucket::s3::{Client, Failure};
use crate::sys::Errno;

/// Bytes ahead of one program, at most.
const WINDOW_MAX: u64 = 16 * 1024 * 1024;

/// Bytes that are asked for at once, at most.
const PART_MAX: u64 = 4 * 1024 * 1024;

/// The first window of whoever reads from the beginning.
const WINDOW_FIRST: u64 = 512 * 1024;

/// Megabytes ahead of all programs of a mount, beyond what they wait for.
pub(super) const AHEAD_MIB: usize = 24;

/// Bytes before the program that are kept: the kernel asks for some ranges at the same time, in any order.
const BEHIND: u64 = 2 * 1024 * 1024;

/// How often a part is gone on with after it broke, each time with all attempts of one request.
const RESUMES_MAX: u32 = 3;

/// How long a program waits for bytes that do not come, at most.
const READ: Duration = Duration::from_secs(30);

/// What reads of one mount share.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) client: Arc<Client>,
    pub(super) cache: Arc<Cache>,
    pub(super) ahead: Arc<Semaphore>,
    pub(super) stage: Arc<Stage>,
    pub(super) cache_bytes_max: u64,
}

impl Source {
    /// Bytes that the cache may have now: what is not uploaded yet takes its room.
    pub(super) fn cache_limit(&self) -> u64 {
        self.cache_bytes_max.saturating_sub(self.stage.dirty_bytes.load(Ordering::Relaxed))
    }
}

/// Where a program is in an object.
#[derive(Debug, Default)]
pub(super) struct Reader {
    parts: VecDeque<Part>,
    /// The version that the parts are of.
    etag: String,
    /// Where the next read is if it is in order.
    next: u64,
    window: u64,
}

#[derive(Debug)]
struct Part {
    start: u64,
    end: u64,
    coming: Arc<Coming>,
    task: tokio::task::JoinHandle<()>,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that are there and bytes that are not yet.
#[derive(Debug, Default)]
pub(super) struct Coming {
    start: u64,
    arrived: Mutex<Arrived>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Arrived {
    pieces: Vec<Bytes>,
    bytes: u64,
    failed: Option<Failure>,
}

impl Coming {
    fn lock(&self) -> std::sync::MutexGuard<'_, Arrived> {
        // Pieces are pushed whole.
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, piece: Bytes) {
        let mut arrived = self.lock();
        arrived.bytes += u64::try_from(piece.len()).unwrap_or(0);
        arrived.pieces.push(piece);
        drop(arrived);
        self.more.notify_waiters();
    }

    /// A range of them, if it is there.
    fn take_now(&self, from: u64, to: u64, out: &mut Vec<Bytes>) -> bool {
        let arrived = self.lock();
        let there = self.start + arrived.bytes >= to;
        if there {
            slice(&arrived.pieces, self.start, from, to, out);
        }
        there
    }

    /// Waits for a range of them.
    async fn take(&self, from: u64, to: u64, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if self.take_now(from, to, out) {
                return Ok(());
            }
            if let Some(failure) = &self.lock().failed {
                return Err(failure.clone());
            }
            more.await;
        }
    }
}

/// The part of a range that some pieces have, without copying.
fn slice(pieces: &[Bytes], start: u64, from: u64, to: u64, out: &mut Vec<Bytes>) {
    let mut position = start;
    for piece in pieces {
        let end = position + u64::try_from(piece.len()).unwrap_or(0);
        let (first, last) = (position.max(from), end.min(to));
        if first < last {
            let range = usize::try_from(first - position).ok().zip(usize::try_from(last - position).ok());
            out.extend(range.map(|(first, last)| piece.slice(first..last)));
        }
        if end >= to {
            return;
        }
        position = end;
    }
}

impl Reader {
    /// Decides what to fetch for a read, and gives the parts that have its range.
    fn plan(&mut self, source: &Arc<Source>, id: &Id, offset: u64, end: u64) -> Vec<(u64, u64, Arc<Coming>)> {
        let have =
            self.parts.front().map_or(0, |part| part.start)..self.parts.back().map_or(0, |part| part.end);
        let broken = self.parts.iter().any(|part| part.coming.lock().failed.is_some());
        let within =
            self.etag == id.etag && !broken && have.start <= offset && offset <= have.end && !have.is_empty();
        let in_order = within || offset == self.next;
        if !within {
            self.parts.clear();
            self.etag.clone_from(&id.etag);
        }
        self.window = match (in_order, offset) {
            (true, 0) | (false, 0) if !within => WINDOW_FIRST,
            (true, _) if self.parts.back().is_none_or(|last| last.end < end + self.window / 2) => {
                (self.window * 2).clamp(WINDOW_FIRST, WINDOW_MAX)
            }
            (true, _) => self.window,
            (false, _) => 0,
        };
        while self.parts.front().is_some_and(|part| part.end + BEHIND <= offset) {
            self.parts.pop_front();
        }
        let goal = (end + self.window).min(id.size);
        loop {
            let start = self.parts.back().map_or(offset / BLOCK * BLOCK, |last| last.end);
            if start >= goal.max(end) || (start >= end && goal - start < (self.window / 4).min(PART_MAX)) {
                break;
            }
            let part_end = (goal.max(end).next_multiple_of(BLOCK)).min(start + PART_MAX).min(id.size);
            let mib = u32::try_from((part_end - start).div_ceil(1024 * 1024)).unwrap_or(u32::MAX);
            let ahead = Arc::clone(&source.ahead).try_acquire_many_owned(mib).ok();
            // What is waited for now is fetched in any case.
            if ahead.is_none() && start >= end {
                break;
            }
            let coming = Arc::new(Coming { start, ..Coming::default() });
            let task = tokio::spawn(fetch(Arc::clone(source), id.clone(), part_end, Arc::clone(&coming)));
            self.parts.push_back(Part { start, end: part_end, coming, task, _ahead: ahead });
        }
        self.next = end;
        let wanted = self.parts.iter().filter(|part| part.start < end && offset < part.end);
        wanted.map(|part| (part.start.max(offset), part.end.min(end), Arc::clone(&part.coming))).collect()
    }
}

/// As [`read`], of what has come already; nothing when something has not.
pub(super) fn read_now(
    source: &Arc<Source>,
    reader: &Mutex<Reader>,
    id: &Id,
    offset: u64,
    length: usize,
) -> Option<Vec<Bytes>> {
    let end = offset + u64::try_from(length).unwrap_or(0);
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let here = |part: &Part| part.start <= offset && offset < part.end;
    if reader.etag != id.etag || !reader.parts.iter().any(here) {
        return None;
    }
    let mut pieces = Vec::new();
    let mut parts = reader.parts.iter().filter(|part| part.start < end && offset < part.end);
    if !parts.all(|part| part.coming.take_now(part.start.max(offset), part.end.min(end), &mut pieces))
        || reader.parts.back().is_none_or(|last| last.end < end)
    {
        return None;
    }
    // What comes next is asked for.
    reader.plan(source, id, offset, end);
    Some(pieces)
}

/// Reads bytes that are within the object.
pub(super) async fn read(
    source: &Arc<Source>,
    reader: &Mutex<Reader>,
    id: &Id,
    offset: u64,
    length: usize,
) -> Result<Vec<Bytes>, Errno> {
    let end = offset + u64::try_from(length).unwrap_or(0);
    let lock = || reader.lock().unwrap_or_else(PoisonError::into_inner);
    let ahead = {
        let reader = lock();
        reader.etag == id.etag && reader.parts.iter().any(|part| part.start <= offset && offset < part.end)
    };
    if !ahead && let Some(bytes) = source.cache.get(id, offset, length) {
        lock().next = end;
        return Ok(vec![bytes]);
    }
    let parts = lock().plan(source, id, offset, end);
    let mut pieces = Vec::new();
    let all = async {
        for (from, to, coming) in parts {
            coming.take(from, to, &mut pieces).await?;
        }
        Ok::<_, Failure>(())
    };
    match tokio::time::timeout(READ, all).await {
        Ok(Ok(())) => Ok(pieces),
        Ok(Err(failure)) => {
            tracing::debug!(key = id.key, offset, %failure, "cannot read");
            // An object that is gone is not a name that is gone: the file is open.
            Err(if matches!(failure, Failure::NotFound) { Errno::STALE } else { failure.errno() })
        }
        Err(_) => Err(Errno::TIMEDOUT),
    }
}

/// Brings the bytes from where `coming` begins up to `end`.
async fn fetch(source: Arc<Source>, id: Id, end: u64, coming: Arc<Coming>) {
    let mut resumes = 0;
    loop {
        let at = coming.start + coming.lock().bytes;
        if at >= end {
            break;
        }
        match receive(&source, &id, at, end, &coming).await {
            Ok(()) => break,
            Err(failure)
                if resumes < RESUMES_MAX && matches!(failure, Failure::Broken(_) | Failure::Timeout) =>
            {
                tracing::debug!(key = id.key, at, %failure, "going on with a body");
                resumes += 1;
            }
            Err(failure) => {
                coming.lock().failed = Some(failure);
                coming.more.notify_waiters();
                return;
            }
        }
    }
    let pieces = coming.lock().pieces.clone();
    let start = coming.start;
    // Detached from the reader: what is here is worth keeping even if nobody reads on.
    tokio::task::spawn_blocking(move || source.cache.put(&id, start, &pieces, source.cache_limit()));
}

async fn receive(source: &Source, id: &Id, at: u64, end: u64, coming: &Coming) -> Result<(), Failure> {
    let mut body = source.client.get(&id.key, &id.etag, at, end - at).await?;
    while let Some(piece) = body.next().await? {
        coming.add(piece);
    }
    Ok(())
}

/// Reads a whole object, in order and several parts at a time, into `take`.
pub(super) async fn whole(
    source: &Arc<Source>,
    id: &Id,
    length: u64,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let reader = Mutex::new(Reader::default());
    let mut offset = 0;
    while offset < length {
        let step = (length - offset).min(1024 * 1024);
        for piece in read(source, &reader, id, offset, usize::try_from(step).unwrap_or(usize::MAX)).await? {
            take(offset, &piece)?;
            offset += u64::try_from(piece.len()).unwrap_or(0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_where_the_range_is() {
        let pieces = [Bytes::from_static(b"abc"), Bytes::from_static(b"defg"), Bytes::from_static(b"h")];
        for (from, to, expected) in [(10, 18, "abcdefgh"), (11, 12, "b"), (12, 15, "cde"), (17, 18, "h")] {
            let mut out = Vec::new();
            slice(&pieces, 10, from, to, &mut out);
            assert_eq!(out.concat(), expected.as_bytes(), "{from}..{to}");
        }
    }
}
