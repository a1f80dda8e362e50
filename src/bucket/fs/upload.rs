//! From a staged file to an object.
//!
//! What a program writes from the beginning to the end is sent while it is written, in parts; what it writes otherwise is
//! sent when it closes the file or asks for it to be safe, whole. Either way the program hears how that went from the
//! very call: close(2), fsync(2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;

use super::Mount;
use super::stage::Staged;
use super::table::{Found, Kind, held};
use crate::bucket::s3::{Client, Condition, Failure, Meta, PART_BYTES, Upload, part_bytes};
use crate::sys::Errno;

/// Parts that are in memory at the same time, of all files.
pub(super) const PARTS_IN_MEMORY: usize = 3;

/// Lengths of buffers that are worth keeping: parts, not small files.
const REUSED_MIN: usize = 1024 * 1024;
const REUSED_MAX: usize = 8 * 1024 * 1024;

/// Files that are uploaded at the same time when a mount ends.
pub(super) const UPLOADS: usize = 8;

/// Parts of a file that is sent while it is written: uploads end at 10,000.
const STREAM_PARTS_MAX: usize = 9_990;

/// How long until an upload that failed is tried again, at most.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What was sent of a file while it was written.
#[derive(Debug)]
pub(super) struct Stream {
    /// So many bytes from the beginning.
    pub(super) sent: u64,
    key: String,
    meta: Meta,
    client: Arc<Client>,
    runtime: Handle,
    upload: Arc<OnceCell<Upload>>,
    parts: Vec<JoinHandle<Result<String, Failure>>>,
}

impl Stream {
    fn new(mount: &Mount, key: String, meta: Meta) -> Self {
        let (client, runtime) = (Arc::clone(&mount.s3), mount.runtime.clone());
        Self { sent: 0, key, meta, client, runtime, upload: Arc::default(), parts: Vec::new() }
    }

    /// Sends the next part.
    fn send(&mut self, staged: &Arc<Staged>, memory: &Arc<Memory>) {
        let number = u64::try_from(self.parts.len()).unwrap_or(u64::MAX) + 1;
        let (client, upload, offset) = (Arc::clone(&self.client), Arc::clone(&self.upload), self.sent);
        let (staged, memory, key, meta) =
            (Arc::clone(staged), Arc::clone(memory), self.key.clone(), self.meta);
        self.parts.push(self.runtime.spawn(async move {
            let upload = upload.get_or_try_init(|| client.begin(&key, meta)).await?;
            send_part(&client, upload, &staged, number, offset, PART_BYTES, &memory).await
        }));
        self.sent += PART_BYTES;
    }
}

impl Drop for Stream {
    /// Gives up what was not made an object of.
    fn drop(&mut self) {
        for part in &self.parts {
            part.abort();
        }
        if let Some(upload) = self.upload.get().cloned() {
            let client = Arc::clone(&self.client);
            self.runtime.spawn(async move { client.abort(&upload).await });
        }
    }
}

async fn send_part(
    client: &Client,
    upload: &Upload,
    staged: &Arc<Staged>,
    number: u64,
    offset: u64,
    length: u64,
    memory: &Arc<Memory>,
) -> Result<String, Failure> {
    let _place = memory.places.acquire().await;
    let bytes = read(staged, offset, length, memory).await?;
    client.part(upload, number, bytes).await
}

async fn read(
    staged: &Arc<Staged>,
    offset: u64,
    length: u64,
    memory: &Arc<Memory>,
) -> Result<Bytes, Failure> {
    let (staged, memory) = (Arc::clone(staged), Arc::clone(memory));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let read = tokio::task::spawn_blocking(move || {
        let mut lent = memory.lend(length);
        staged.read_into(offset, &mut lent.bytes).map(|()| Bytes::from_owner(lent))
    });
    read.await.map_err(|_| Failure::Local(Errno::IO))?.map_err(Failure::Local)
}

/// What parts take of our memory. Their buffers are used again: of a new one the kernel clears every page.
#[derive(Debug)]
pub(super) struct Memory {
    places: Semaphore,
    unused: Mutex<Vec<Vec<u8>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { places: Semaphore::new(PARTS_IN_MEMORY), unused: Mutex::default() }
    }
}

impl Memory {
    fn unused(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Pushed and popped whole.
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of this length, with whatever was in it.
    fn lend(self: &Arc<Self>, length: usize) -> Lent {
        let mut bytes = if length < REUSED_MIN { None } else { self.unused().pop() }.unwrap_or_default();
        bytes.resize(length, 0);
        Lent { bytes, memory: Arc::clone(self) }
    }

    /// Gives up the buffers when nothing is sent.
    pub(super) fn rest(&self) {
        if self.places.available_permits() == PARTS_IN_MEMORY {
            self.unused().clear();
        }
    }
}

/// A buffer that goes back when its bytes are sent.
struct Lent {
    bytes: Vec<u8>,
    memory: Arc<Memory>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if (REUSED_MIN..=REUSED_MAX).contains(&bytes.len()) {
            self.memory.unused().push(bytes);
        }
    }
}

/// What is uploaded: a moment of a file.
struct Moment {
    staged: Arc<Staged>,
    key: String,
    meta: Meta,
    condition: Condition,
    size: u64,
    generation: u64,
    mtime_set: bool,
    stream: Option<Stream>,
}

impl Mount {
    /// Sends whole parts of a file that is written from its beginning to its end. Called after each write.
    pub(super) fn stream(&self, node: u64, staged: &Arc<Staged>) {
        {
            let state = staged.state();
            let sent = state.stream.as_ref().map_or(0, |stream| stream.sent);
            // A part is sent when the next one is there too: many programs come back to what they wrote last.
            let due = state.size >= sent + 2 * PART_BYTES;
            if !due || state.disordered {
                return;
            }
        }
        let (key, meta) = {
            let state = self.state();
            let (Ok(key), Ok(node)) = (state.table.key(node), state.table.node(node)) else { return };
            if node.removed {
                return;
            }
            // Of what is being written nobody knows the time yet.
            (key, Meta { mode: Kind::File.bits() | node.mode, mtime_ns: None })
        };
        let mut state = staged.state();
        let size = state.size;
        let stream = state.stream.get_or_insert_with(|| Stream::new(self, key, meta));
        while size >= stream.sent + 2 * PART_BYTES && stream.parts.len() < STREAM_PARTS_MAX {
            stream.send(staged, &self.memory);
        }
    }

    /// Uploads a file that is dirty. Ends with what the bucket said.
    pub(super) async fn upload(self: &Arc<Self>, node: u64) -> Result<(), Errno> {
        let gate = Arc::clone(&self.state().table.node(node)?.gate);
        let _gate = gate.lock().await;
        self.upload_held(node).await
    }

    /// As [`upload`](Self::upload), for whoever holds the gate.
    pub(super) async fn upload_held(self: &Arc<Self>, node: u64) -> Result<(), Errno> {
        let Some(moment) = self.moment(node)? else { return Ok(()) };
        let (staged, generation) = (Arc::clone(&moment.staged), moment.generation);
        match self.upload_moment(node, moment).await {
            Ok(()) => {
                staged.uploaded(generation);
                Ok(())
            }
            Err(failure) => {
                let path = self.state().table.path(node).unwrap_or_default();
                tracing::warn!(path, %failure, "an upload failed");
                let mut state = staged.state();
                let attempts = state.failed.map_or(0, |(_, _, attempts)| attempts) + 1;
                let pause = Duration::from_secs(1 << attempts.min(5)).min(RETRY_MAX);
                state.failed = Some((failure.errno(), Instant::now() + pause, attempts));
                Err(failure.errno())
            }
        }
    }

    fn moment(&self, node: u64) -> Result<Option<Moment>, Errno> {
        let state = self.state();
        let one = state.table.node(node)?;
        let Some(staged) = one.staged.clone().filter(|_| !one.removed) else { return Ok(None) };
        let condition = match (self.conditional, &one.version) {
            (false, _) => Condition::None,
            (true, None) => Condition::Absent,
            (true, Some(version)) => Condition::Is(held(version).etag.clone()),
        };
        let (mode, key) = (Kind::File.bits() | one.mode, state.table.key(node)?);
        let mut its = staged.state();
        if !its.dirty {
            return Ok(None);
        }
        let meta = Meta { mode, mtime_ns: Some(its.mtime_ns) };
        let stream = its.stream.take().filter(|stream| stream.key == key && stream.sent <= its.size);
        let (size, generation, mtime_set) = (its.size, its.generation, its.mtime_set);
        drop(its);
        Ok(Some(Moment { staged, key, meta, condition, size, generation, mtime_set, stream }))
    }

    async fn upload_moment(self: &Arc<Self>, node: u64, mut moment: Moment) -> Result<(), Failure> {
        let stream = moment.stream.take();
        let (etag, meta) = if let Some(stream) = stream {
            self.finish_stream(stream, &moment).await?
        } else if moment.size <= PART_BYTES {
            let _place = self.memory.places.acquire().await;
            let bytes = read(&moment.staged, 0, moment.size, &self.memory).await?;
            (self.s3.put(&moment.key, bytes, moment.meta, &moment.condition).await?, moment.meta)
        } else {
            (self.upload_parts(&moment).await?, moment.meta)
        };
        let object = crate::bucket::s3::Object {
            etag,
            size: moment.size,
            mode: Some(meta.mode),
            mtime_ns: match meta.mtime_ns {
                Some(mtime_ns) => mtime_ns,
                None => self.s3.head(&moment.key).await?.mtime_ns,
            },
        };
        self.uploaded(node, object);
        Ok(())
    }

    /// Takes in that the bucket has a file as it was written here.
    fn uploaded(&self, node: u64, object: crate::bucket::s3::Object) {
        let mut state = self.state();
        let ttl = state.table.defaults.ttl;
        let Ok(one) = state.table.node_mut(node) else { return };
        one.mtime_ns = object.mtime_ns;
        one.fresh_until = Instant::now() + ttl;
        one.paged = Some(object.etag.clone());
        match &one.version {
            // Whoever has it open here goes on with what was written here.
            Some(version) => {
                *held(version) = super::table::Version { etag: object.etag, size: object.size };
            }
            None => {
                let (parent, name) = (one.parent, one.name.clone());
                let found = Found { kind: Kind::File, object: Some(object) };
                state.table.update(node, &found);
                state.table.list(parent, &name, false);
            }
        }
    }

    async fn finish_stream(
        self: &Arc<Self>,
        mut stream: Stream,
        moment: &Moment,
    ) -> Result<(String, Meta), Failure> {
        let mut etags = Vec::new();
        for part in stream.parts.drain(..) {
            etags.push(part.await.map_err(|_| Failure::Local(Errno::IO))??);
        }
        let upload = stream.upload.get().cloned().ok_or(Failure::Local(Errno::IO))?;
        self.send_rest(&upload, moment, stream.sent, PART_BYTES, &mut etags).await?;
        let complete = self.s3.complete(&upload, &etags, moment.size, stream.meta, &moment.condition);
        let etag = complete.await?;
        stream.upload = Arc::default();
        // What was said at the beginning is not what the program wants in the end.
        if moment.mtime_set || stream.meta.mode != moment.meta.mode {
            let copy = self.s3.copy(&moment.key, &moment.key, moment.size, Some(moment.meta));
            return Ok((copy.await?, moment.meta));
        }
        Ok((etag, stream.meta))
    }

    async fn upload_parts(self: &Arc<Self>, moment: &Moment) -> Result<String, Failure> {
        let upload = self.s3.begin(&moment.key, moment.meta).await?;
        let mut etags = Vec::new();
        let sent = self.send_rest(&upload, moment, 0, part_bytes(moment.size), &mut etags).await;
        let done = match sent {
            Ok(()) => self.s3.complete(&upload, &etags, moment.size, moment.meta, &moment.condition).await,
            Err(failure) => Err(failure),
        };
        if done.is_err() {
            self.s3.abort(&upload).await;
        }
        done
    }

    /// Sends what is not sent yet, some parts at the same time.
    async fn send_rest(
        self: &Arc<Self>,
        upload: &Upload,
        moment: &Moment,
        from: u64,
        part: u64,
        etags: &mut Vec<String>,
    ) -> Result<(), Failure> {
        use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
        let first = u64::try_from(etags.len()).unwrap_or(u64::MAX) + 1;
        let offsets = (0..).map(|index| (first + index, from + index * part));
        let parts = offsets.take_while(|(_, offset)| *offset < moment.size).map(|(number, offset)| {
            let length = part.min(moment.size - offset);
            let (mount, staged, upload) = (Arc::clone(self), Arc::clone(&moment.staged), upload.clone());
            async move { send_part(&mount.s3, &upload, &staged, number, offset, length, &mount.memory).await }
        });
        let rest: Vec<String> = stream::iter(parts).buffered(PARTS_IN_MEMORY).try_collect().await?;
        etags.extend(rest);
        Ok(())
    }
}
