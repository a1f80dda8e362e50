//! A bucket as a tree of files.
//!
//! | | |
//! |---|---|
//! | [`names`] | keys and names |
//! | [`table`] | inodes, listings: what is known and for how long |
//! | [`tree`] | looking up, making, removing, renaming |
//! | [`directory`] | listing |
//! | [`files`] | opening, reading, writing, closing |
//! | [`read`] | what is fetched, and what is fetched ahead |
//! | [`cache`] | what was read, on disk |
//! | [`stage`] | what is written, on disk |
//! | [`upload`] | from there to the bucket |

mod cache;
mod directory;
mod files;
mod names;
mod read;
mod stage;
mod table;
mod tree;
mod upload;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use tokio::sync::Semaphore;

use super::fuse::{Files, Op, Reply};
use super::s3::Client;
use crate::sys::Errno;
use crate::wire::bucket::{BucketStart, BucketStatus};
use cache::Cache;
use directory::OpenDirectory;
use files::OpenFile;
use read::Source;
use stage::{Note, Stage, Staged};
use table::{Defaults, Found, Kind, Table};
use upload::Memory;

/// How often uploads that failed are looked at.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Paths of lost files that are named.
const LOST_NAMED_MAX: usize = 100;

/// A mounted bucket.
#[derive(Debug)]
pub(super) struct Mount {
    s3: Arc<Client>,
    state: Mutex<State>,
    source: Arc<Source>,
    stage: Arc<Stage>,
    read_only: bool,
    conditional: bool,
    memory: Arc<Memory>,
    runtime: tokio::runtime::Handle,
}

#[derive(Debug)]
struct State {
    table: Table,
    handles: HashMap<u64, Handle>,
    next_handle: u64,
}

#[derive(Clone, Debug)]
enum Handle {
    File(Arc<OpenFile>),
    Directory(Arc<OpenDirectory>),
}

impl State {
    /// Gives what a program has open a number.
    fn keep(&mut self, open: Handle) -> u64 {
        let number = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(number, open);
        number
    }
}

impl Mount {
    /// Takes up the mount's directory, with what a worker before has left in it.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(super) fn new(start: &BucketStart, s3: Arc<Client>, directory: &OwnedFd) -> Result<Arc<Self>, Errno> {
        let sub = |name: &str| {
            match rustix::fs::mkdirat(directory, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::empty())
        };
        let cache = Arc::new(Cache::new(sub("cache")?, start.cache_bytes_max)?);
        let (stage, left) = Stage::open(sub("staged")?)?;
        let defaults = Defaults {
            uid: start.uid,
            gid: start.gid,
            file_mode: start.file_mode,
            dir_mode: start.dir_mode,
            ttl: Duration::from_millis(start.attribute_ttl_ms),
            mtime_ns: now_ns(),
        };
        let source = Arc::new(Source {
            client: Arc::clone(&s3),
            cache,
            ahead: Arc::new(Semaphore::new(read::AHEAD_MIB)),
            stage: Arc::clone(&stage),
            cache_bytes_max: start.cache_bytes_max,
        });
        let mut table = Table::new(defaults, start.prefix.clone());
        for (note, staged) in left {
            take_up(&mut table, &note, Arc::new(staged));
        }
        let mount = Arc::new(Self {
            s3,
            state: Mutex::new(State { table, handles: HashMap::new(), next_handle: 1 }),
            source,
            stage,
            read_only: start.read_only,
            conditional: start.conditional_writes,
            memory: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(Arc::clone(&mount).retry());
        Ok(mount)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the table usable: a panic in between loses what was being looked up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries uploads that failed again, as long as the mount lives.
    async fn retry(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            let staged = self.state().table.staged();
            for (node, staged) in staged {
                let due = staged.state().failed.is_some_and(|(_, when, _)| when <= Instant::now());
                if !due || self.upload(node).await.is_ok() {
                    self.settle(node);
                }
            }
            self.source.cache.shrink(self.source.cache_limit());
            self.memory.rest();
        }
    }

    /// Uploads everything that is not uploaded, again and again until the deadline.
    ///
    /// # Errors
    /// The paths of some files that are not in the bucket, and how many there are.
    pub(super) async fn drain(self: &Arc<Self>, deadline: Duration) -> Result<(), (Vec<String>, u64)> {
        let deadline = tokio::time::Instant::now() + deadline;
        let mut pause = Duration::from_millis(100);
        loop {
            let dirty = self.dirty();
            if dirty.is_empty() {
                return Ok(());
            }
            let uploads = async {
                use futures_util::stream::{self, StreamExt as _};
                stream::iter(dirty)
                    .for_each_concurrent(upload::UPLOADS, async |node| {
                        // What it said is in what is dirty afterwards.
                        let _ = self.upload(node).await;
                    })
                    .await;
                tokio::time::sleep(if self.dirty().is_empty() { Duration::ZERO } else { pause }).await;
            };
            if tokio::time::timeout_at(deadline, uploads).await.is_err() {
                break;
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        let lost = self.dirty();
        if lost.is_empty() {
            return Ok(());
        }
        let state = self.state();
        let named =
            lost.iter().take(LOST_NAMED_MAX).filter_map(|node| state.table.path(*node).ok()).collect();
        Err((named, u64::try_from(lost.len()).unwrap_or(u64::MAX)))
    }

    fn dirty(&self) -> Vec<u64> {
        let state = self.state();
        let staged = state.table.staged().into_iter();
        let dirty = staged.filter(|(node, staged)| {
            staged.state().dirty && state.table.node(*node).is_ok_and(|node| !node.removed)
        });
        dirty.map(|(node, _)| node).collect()
    }

    /// How the mount goes.
    pub(super) fn status(&self) -> BucketStatus {
        let dirty = self.dirty();
        let staged = self.state().table.staged();
        let failing = staged.iter().filter(|(_, staged)| staged.state().failed.is_some()).count();
        self.s3.counted(BucketStatus {
            dirty_files: u64::try_from(dirty.len()).unwrap_or(u64::MAX),
            dirty_bytes: self.stage.dirty_bytes.load(Ordering::Relaxed),
            cache_bytes: self.source.cache.bytes(),
            failing_uploads: u64::try_from(failing).unwrap_or(u64::MAX),
            ..BucketStatus::default()
        })
    }

    fn writable(&self) -> Result<(), Errno> {
        if self.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    async fn change(self: &Arc<Self>, node: u64, op: Op) -> Result<Reply, Errno> {
        match op {
            Op::Setattr(change) => self.setattr(node, change).await,
            Op::Symlink { name, target } => self.symlink(node, &name, target).await,
            Op::Mknod { name, mode } => self.mknod(node, &name, mode).await,
            Op::Mkdir { name, mode } => self.mkdir(node, &name, mode).await,
            Op::Unlink { name } => self.unlink(node, &name).await,
            Op::Rmdir { name } => self.rmdir(node, &name).await,
            Op::Rename { name, parent, new_name, flags } => {
                self.rename(node, &name, parent, &new_name, flags).await
            }
            Op::Create { name, flags, mode } => self.create(node, &name, flags, mode).await,
            Op::Write { handle, offset, data } => self.write(handle, offset, &data).await,
            Op::Fallocate { handle, end, mode } => self.fallocate(handle, end, mode).await,
            _ => Err(Errno::NOSYS),
        }
    }
}

impl Files for Mount {
    fn at_once(&self, node: u64, op: &Op) -> Option<Result<Reply, Errno>> {
        match op {
            Op::Lookup { name } => self.lookup_now(node, name),
            Op::Getattr => self.getattr_now(node),
            Op::Read { handle, offset, size } => self.read_now(*handle, *offset, *size),
            Op::Write { handle, offset, data } => self.write_now(*handle, *offset, data),
            Op::Statfs => Some(Ok(Reply::Statfs)),
            Op::Opendir => Some(Ok(self.opendir(node))),
            Op::Releasedir { handle } => {
                self.state().handles.remove(handle);
                Some(Ok(Reply::Empty))
            }
            // Directories are in the bucket when their calls have returned.
            Op::Fsyncdir => Some(Ok(Reply::Empty)),
            _ => None,
        }
    }

    async fn call(self: Arc<Self>, node: u64, op: Op) -> Result<Reply, Errno> {
        match op {
            Op::Lookup { name } => self.lookup(node, &name).await,
            Op::Getattr => self.getattr(node).await,
            Op::Readlink => self.readlink(node).await,
            Op::Open { flags } => self.open(node, flags).await,
            Op::Read { handle, offset, size } => self.read(handle, offset, size).await,
            Op::Readdir { handle, offset, size } => self.readdir(handle, offset, size, false).await,
            Op::ReaddirPlus { handle, offset, size } => self.readdir(handle, offset, size, true).await,
            Op::Release { handle } => {
                self.release(handle);
                Ok(Reply::Empty)
            }
            op => {
                // Whoever waits may be let go: what is begun is finished all the same.
                let mount = Arc::clone(&self);
                let changed = tokio::spawn(async move {
                    match op {
                        Op::Flush { handle } | Op::Fsync { handle } => mount.flush(handle).await,
                        op => {
                            mount.writable()?;
                            mount.change(node, op).await
                        }
                    }
                });
                changed.await.map_err(|_| Errno::IO)?
            }
        }
    }

    fn forget(&self, node: u64, references: u64) {
        self.state().table.forget(node, references);
    }
}

/// Gives a file that was not uploaded its place in the tree.
fn take_up(table: &mut Table, note: &Note, staged: Arc<Staged>) {
    let mut parent = table::ROOT;
    let (directories, name) = note.path.rsplit_once('/').unwrap_or(("", &note.path));
    for directory in directories.split('/').filter(|name| !name.is_empty()) {
        let found = Found { kind: Kind::Directory, object: None };
        parent = table.install(parent, directory, &found);
    }
    let base = note.base.clone().map(|etag| super::s3::Object {
        etag,
        size: 0,
        mode: None,
        mtime_ns: note.mtime_ns,
    });
    let node = table.install(parent, name, &Found { kind: Kind::File, object: base });
    if let Ok(node) = table.node_mut(node) {
        node.mode = note.mode;
        node.staged = Some(staged);
    }
}

/// The time, in nanoseconds since 1970.
fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0))
}
