//! Open files.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::cache::Id;
use super::read::{self, Reader};
use super::stage::{Note, Staged};
use super::table::{Found, Kind, Version, held};
use super::{Handle, Mount, State, now_ns};
use crate::bucket::fuse::{KEEP_CACHE, Reply, SetTime};
use crate::sys::Errno;

const O_ACCMODE: u32 = 3;
const O_TRUNC: u32 = 0o1000;
const O_EXCL: u32 = 0o200;

/// A file that a program has open.
#[derive(Debug)]
pub(super) struct OpenFile {
    node: u64,
    writable: bool,
    /// What was there when it was opened. Our own uploads move it on.
    version: Mutex<Option<Arc<Mutex<Version>>>>,
    reader: Mutex<Reader>,
}

impl OpenFile {
    fn version(&self) -> MutexGuard<'_, Option<Arc<Mutex<Version>>>> {
        // Replaced as a whole.
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a handle to an open file.
    fn open(&mut self, node: u64, writable: bool) -> Result<u64, Errno> {
        let one = self.table.node_mut(node)?;
        one.opens += 1;
        let version = Mutex::new(one.version.clone());
        let file = Arc::new(OpenFile { node, writable, version, reader: Mutex::default() });
        Ok(self.keep(Handle::File(file)))
    }

    fn file(&self, handle: u64) -> Result<Arc<OpenFile>, Errno> {
        match self.handles.get(&handle) {
            Some(Handle::File(file)) => Ok(Arc::clone(file)),
            _ => Err(Errno::BADF),
        }
    }

    fn staged(&self, node: u64) -> Option<Arc<Staged>> {
        self.table.node(node).ok()?.staged.clone()
    }

    fn id(&self, node: u64, version: &Mutex<Version>) -> Result<Id, Errno> {
        let Version { etag, size } = held(version).clone();
        Ok(Id { key: self.table.key(node)?, etag, size })
    }
}

impl Mount {
    pub(super) async fn open(self: &Arc<Self>, node: u64, flags: u32) -> Result<Reply, Errno> {
        let writable = flags & O_ACCMODE != 0;
        if writable {
            self.writable()?;
        }
        // Whoever opens sees what others have closed, unless what we know is fresh.
        self.getattr(node).await?;
        if writable && flags & O_TRUNC != 0 {
            let mount = Arc::clone(self);
            // Whoever waits may be let go.
            tokio::spawn(async move { mount.truncate(node, 0).await }).await.map_err(|_| Errno::IO)??;
        }
        let mut state = self.state();
        let handle = state.open(node, writable)?;
        let one = state.table.node_mut(node)?;
        let etag = one.version.as_ref().map(|version| held(version).etag.clone());
        let same = one.staged.is_some() || (etag.is_some() && one.paged == etag);
        one.paged = etag;
        Ok(Reply::Open { handle, flags: if same { KEEP_CACHE } else { 0 } })
    }

    pub(super) async fn create(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        flags: u32,
        mode: u32,
    ) -> Result<Reply, Errno> {
        // Somebody else may have been faster than what the kernel knows.
        if let Some(node) = self.find(parent, name).await? {
            if flags & O_EXCL != 0 {
                return Err(Errno::EXIST);
            }
            if self.state().table.node(node)?.kind == Kind::Directory {
                return Err(Errno::ISDIR);
            }
            if flags & O_TRUNC != 0 {
                self.truncate(node, 0).await?;
            }
            let mut state = self.state();
            let handle = state.open(node, true)?;
            return Ok(Reply::Create { entry: state.table.entry(node)?, handle });
        }
        let node = self.make(parent, name, mode)?;
        let mut state = self.state();
        let handle = state.open(node, true)?;
        Ok(Reply::Create { entry: state.table.entry(node)?, handle })
    }

    pub(super) async fn mknod(self: &Arc<Self>, parent: u64, name: &str, mode: u32) -> Result<Reply, Errno> {
        if mode & 0o170_000 != Kind::File.bits() {
            return Err(Errno::PERM);
        }
        if self.find(parent, name).await?.is_some() {
            return Err(Errno::EXIST);
        }
        let node = self.make(parent, name, mode)?;
        self.upload(node).await?;
        let entry = self.state().table.entry(node)?;
        self.settle(node);
        Ok(Reply::Entry(entry))
    }

    /// A new file, empty, that is not in the bucket yet.
    fn make(&self, parent: u64, name: &str, mode: u32) -> Result<u64, Errno> {
        let staged = self.stage.create(now_ns())?;
        let node = {
            let mut state = self.state();
            super::names::key(&state.table.directory_key(parent)?, name)?;
            let node = state.table.install(parent, name, &Found { kind: Kind::File, object: None });
            let one = state.table.node_mut(node)?;
            one.mode = mode & 0o1777;
            one.staged = Some(Arc::clone(&staged));
            node
        };
        staged.truncate(0, now_ns())?;
        self.note(node, &staged)?;
        Ok(node)
    }

    /// Writes down what a file that is being written is to become.
    pub(super) fn note(&self, node: u64, staged: &Staged) -> Result<(), Errno> {
        let state = self.state();
        let one = state.table.node(node)?;
        if one.removed {
            return Ok(());
        }
        let note = Note {
            path: state.table.path(node)?,
            mode: one.mode,
            mtime_ns: staged.state().mtime_ns,
            base: one.version.as_ref().map(|version| held(version).etag.clone()),
        };
        drop(state);
        staged.note(&note)
    }

    pub(super) async fn read(self: &Arc<Self>, handle: u64, offset: u64, size: u32) -> Result<Reply, Errno> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let (file, staged) = {
            let state = self.state();
            let file = state.file(handle)?;
            let staged = state.staged(file.node);
            (file, staged)
        };
        if let Some(staged) = staged {
            let bytes = tokio::task::spawn_blocking(move || staged.read(offset, size)).await;
            return Ok(Reply::Data(vec![Bytes::from(bytes.map_err(|_| Errno::IO)??)]));
        }
        let Some(id) = self.opened_as(&file)? else { return Ok(Reply::Data(Vec::new())) };
        let left = usize::try_from(id.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(Reply::Data(Vec::new()));
        }
        Ok(Reply::Data(read::read(&self.source, &file.reader, &id, offset, size.min(left)).await?))
    }

    /// The version that a file was opened as, if there is one.
    fn opened_as(&self, file: &OpenFile) -> Result<Option<Id>, Errno> {
        let mut version = file.version();
        let state = self.state();
        // What was only here when it was opened is in the bucket now.
        if version.is_none() {
            version.clone_from(&state.table.node(file.node)?.version);
        }
        version.as_ref().map(|version| state.id(file.node, version)).transpose()
    }

    /// Reads what has come already.
    pub(super) fn read_now(&self, handle: u64, offset: u64, size: u32) -> Option<Result<Reply, Errno>> {
        let file = {
            let state = self.state();
            let file = state.file(handle).ok()?;
            if state.staged(file.node).is_some() {
                return None;
            }
            file
        };
        let id = self.opened_as(&file).ok()??;
        let left = usize::try_from(id.size.checked_sub(offset)?).unwrap_or(usize::MAX);
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(left);
        if length == 0 {
            return None;
        }
        read::read_now(&self.source, &file.reader, &id, offset, length).map(|pieces| Ok(Reply::Data(pieces)))
    }

    /// Writes to a file that is staged already: nothing to wait for but the disk.
    pub(super) fn write_now(&self, handle: u64, offset: u64, data: &Bytes) -> Option<Result<Reply, Errno>> {
        let (node, staged) = {
            let state = self.state();
            let file = state.file(handle).ok().filter(|file| file.writable)?;
            (file.node, state.staged(file.node)?)
        };
        Some(self.write_staged(node, &staged, offset, data))
    }

    fn write_staged(
        &self,
        node: u64,
        staged: &Arc<Staged>,
        offset: u64,
        data: &Bytes,
    ) -> Result<Reply, Errno> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.room(staged, offset.saturating_add(length))?;
        if staged.write(offset, data, now_ns())? {
            self.note(node, staged)?;
        }
        self.stream(node, staged);
        Ok(Reply::Written(u32::try_from(data.len()).unwrap_or(u32::MAX)))
    }

    /// Whether a file may grow to this size: what is not uploaded yet has as much room as the cache, all files together.
    fn room(&self, staged: &Staged, size: u64) -> Result<(), Errno> {
        let more = size.saturating_sub(staged.state().size);
        let dirty = self.stage.dirty_bytes.load(std::sync::atomic::Ordering::Relaxed);
        if dirty.saturating_add(more) > self.source.cache_bytes_max {
            return Err(Errno::NOSPC);
        }
        if more > 0 && self.source.cache.bytes() > self.source.cache_limit() {
            self.source.cache.shrink(self.source.cache_limit());
        }
        Ok(())
    }

    pub(super) async fn write(
        self: &Arc<Self>,
        handle: u64,
        offset: u64,
        data: &Bytes,
    ) -> Result<Reply, Errno> {
        let file = self.state().file(handle)?;
        if !file.writable {
            return Err(Errno::BADF);
        }
        let gate = Arc::clone(&self.state().table.node(file.node)?.gate);
        let _gate = gate.lock().await;
        let staged = self.staged(file.node, u64::MAX).await?;
        self.write_staged(file.node, &staged, offset, data)
    }

    pub(super) async fn fallocate(
        self: &Arc<Self>,
        handle: u64,
        end: u64,
        mode: u32,
    ) -> Result<Reply, Errno> {
        if mode != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let file = self.state().file(handle)?;
        let gate = Arc::clone(&self.state().table.node(file.node)?.gate);
        let _gate = gate.lock().await;
        let staged = self.staged(file.node, u64::MAX).await?;
        let size = staged.state().size;
        if end > size {
            self.resize(file.node, &staged, end)?;
        }
        Ok(Reply::Empty)
    }

    /// Cuts or lengthens a file.
    pub(super) async fn truncate(self: &Arc<Self>, node: u64, size: u64) -> Result<(), Errno> {
        let gate = Arc::clone(&self.state().table.node(node)?.gate);
        let _gate = gate.lock().await;
        let staged = self.staged(node, size).await?;
        self.resize(node, &staged, size)
    }

    fn resize(&self, node: u64, staged: &Arc<Staged>, size: u64) -> Result<(), Errno> {
        self.room(staged, size)?;
        if staged.truncate(size, now_ns())? {
            self.note(node, staged)?;
        }
        Ok(())
    }

    /// The file's copy here, for whoever holds its gate: what the bucket has of it is fetched, no more than is wanted.
    pub(super) async fn staged(self: &Arc<Self>, node: u64, wanted: u64) -> Result<Arc<Staged>, Errno> {
        let (id, mtime_ns) = {
            let state = self.state();
            if let Some(staged) = state.staged(node) {
                return Ok(staged);
            }
            let one = state.table.node(node)?;
            let id = one.version.as_ref().map(|version| state.id(node, version)).transpose()?;
            (id, one.mtime_ns)
        };
        let staged = self.stage.create(mtime_ns)?;
        if let Some(id) = id {
            let length = id.size.min(wanted);
            self.room(&staged, length)?;
            read::whole(&self.source, &id, length, |offset, bytes| staged.fill(offset, bytes)).await?;
        }
        self.state().table.node_mut(node)?.staged = Some(Arc::clone(&staged));
        Ok(staged)
    }

    pub(super) async fn flush(self: &Arc<Self>, handle: u64) -> Result<Reply, Errno> {
        // fsync(2) comes for directories too.
        let Ok(file) = self.state().file(handle) else { return Ok(Reply::Empty) };
        if file.writable {
            self.upload(file.node).await?;
        }
        Ok(Reply::Empty)
    }

    pub(super) fn release(self: &Arc<Self>, handle: u64) {
        let mut state = self.state();
        let Some(Handle::File(file)) = state.handles.remove(&handle) else { return };
        if let Ok(node) = state.table.node_mut(file.node) {
            node.opens = node.opens.saturating_sub(1);
        }
        drop(state);
        self.settle(file.node);
    }

    /// Drops a staged file that nobody needs any more. One that was written behind its last close is uploaded.
    pub(super) fn settle(self: &Arc<Self>, node: u64) {
        let mut state = self.state();
        let Ok(one) = state.table.node_mut(node) else { return };
        let gate = Arc::clone(&one.gate);
        // Whoever holds it is about to write; what it leaves is settled by the next round of retries.
        let Ok(_gate) = gate.try_lock() else { return };
        if one.opens > 0 {
            return;
        }
        if let Some(staged) = one.staged.clone() {
            if one.removed {
                staged.forget();
            }
            let (dirty, failed) = {
                let state = staged.state();
                (state.dirty, state.failed.is_some())
            };
            if dirty {
                if !failed {
                    drop(state);
                    let mount = Arc::clone(self);
                    self.runtime.spawn(async move {
                        if mount.upload(node).await.is_ok() {
                            mount.settle(node);
                        }
                    });
                }
                return;
            }
            one.staged = None;
        }
        state.table.collect(node);
    }

    /// The time that a program sets.
    pub(super) fn time(time: SetTime) -> i128 {
        match time {
            SetTime::Now => now_ns(),
            SetTime::At(time) => time,
        }
    }
}
