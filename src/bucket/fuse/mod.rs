//! The FUSE protocol on a descriptor of `/dev/fuse` that somebody else has mounted.
//!
//! ```text
//! kernel ─ request ─▶ reader (a thread) ─┬─ what needs no waiting: answered there
//!                                        └─ a task each ─▶ Files::call ─▶ answer
//!        ─ INTERRUPT ─▶ the task's token: after a grace it answers EINTR
//! ```
//!
//! Not `fuser` (0.18): it refuses INTERRUPT, after which nothing ends a process that waits for us, and it cannot say
//! that the type of a name is unknown, which is what a list of keys leaves open.
//!
//! Invariants
//! - Every request is answered once, or expects no answer.
//! - Who is told to die is let go within [`GRACE`] of it; what it had begun to change goes on.
//! - Signals that do not kill change nothing: what is answered within the grace is answered as if there was none.

mod reply;
mod request;

use std::collections::HashMap;
use std::future::Future;
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::sys::Errno;
use reply::Out;
pub(in crate::bucket) use reply::{Attr, Directory, Entry, KEEP_CACHE, NameType, Reply};
use request::{HEADER, Init, Request};
pub(in crate::bucket) use request::{Op, SetAttr, SetTime};

/// Bytes of one write, at most: 256 pages, as many as the kernel takes without further privilege.
const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that the kernel may read ahead of programs, and so of one read, at most. It offers its default of 128 KiB here;
/// more takes what launch sets (`runtime::mounts`), and an answer that does not undo that.
const READ_AHEAD_BYTES_MAX: u32 = 1024 * 1024;

/// Bytes of a request, at most.
const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX + 4096;

/// How long a request goes on after its process was sent a signal.
const GRACE: Duration = Duration::from_secs(1);

/// The protocol's version that we speak: 7.31 has all that is used here.
const MINOR: u32 = 31;

/// Requests that the kernel has outstanding on its own account: read-ahead, mostly.
const BACKGROUND_MAX: u16 = 32;

/// What the kernel is told to do its way (`FUSE_ASYNC_READ`, `FUSE_ATOMIC_O_TRUNC`, `FUSE_BIG_WRITES`,
/// `FUSE_AUTO_INVAL_DATA`, `FUSE_DO_READDIRPLUS`, `FUSE_READDIRPLUS_AUTO`, `FUSE_PARALLEL_DIROPS`, `FUSE_HANDLE_KILLPRIV`,
/// `FUSE_MAX_PAGES`, `FUSE_CACHE_SYMLINKS`).
const FLAGS: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 19 | 1 << 22 | 1 << 23;

/// A file system.
pub(in crate::bucket) trait Files: Send + Sync + 'static {
    /// Answers what needs no waiting.
    fn at_once(&self, node: u64, op: &Op) -> Option<Result<Reply, Errno>>;
    /// Answers the rest. Dropped when its process is let go, so what must go on is a task of its own.
    fn call(self: Arc<Self>, node: u64, op: Op) -> impl Future<Output = Result<Reply, Errno>> + Send;
    /// The kernel has so many references to an inode fewer.
    fn forget(&self, node: u64, references: u64);
}

/// A mount's end of the protocol.
#[derive(Debug)]
struct Session<F> {
    device: OwnedFd,
    files: Arc<F>,
    runtime: Handle,
    waiting: Mutex<HashMap<u64, CancellationToken>>,
}

/// Starts to answer: the first answer is that to INIT. Ends when the mount does.
pub(in crate::bucket) fn start<F: Files>(device: OwnedFd, files: Arc<F>) -> std::io::Result<()> {
    let session = Arc::new(Session { device, files, runtime: Handle::current(), waiting: Mutex::default() });
    std::thread::Builder::new().name("fuse".to_owned()).spawn(move || {
        if let Err(errno) = session.read() {
            tracing::warn!(%errno, "the mount has ended");
        }
    })?;
    Ok(())
}

impl<F: Files> Session<F> {
    fn read(self: &Arc<Self>) -> Result<(), Errno> {
        // What is answered here may begin tasks.
        let _runtime = self.runtime.enter();
        let mut buffer = BytesMut::zeroed(REQUEST_BYTES_MAX);
        loop {
            let length = match rustix::io::read(&self.device, &mut buffer[..]) {
                Ok(length) => length,
                // NOENT: the request was taken back meanwhile.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
                // Unmounted, or aborted.
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(()),
                Err(errno) => return Err(errno),
            };
            let bytes = buffer.freeze();
            if self.hear(&bytes.slice(..length))?.is_break() {
                return Ok(());
            }
            // Somebody may still write what came with it; then it is theirs.
            buffer = bytes.try_into_mut().unwrap_or_else(|_| BytesMut::zeroed(REQUEST_BYTES_MAX));
        }
    }

    /// Takes one request. Breaks off after the last one.
    fn hear(self: &Arc<Self>, request: &Bytes) -> Result<ControlFlow<()>, Errno> {
        let header = request::header(request).ok_or(Errno::PROTO)?;
        match request::parse(header, &request.slice(HEADER..)) {
            Request::Init(init) => self.answer_init(header.unique, init),
            Request::Destroy => {
                self.answer(header.unique, Ok(Reply::Empty));
                return Ok(ControlFlow::Break(()));
            }
            Request::Forget(nodes) => {
                for (node, references) in nodes {
                    self.files.forget(if node == 0 { header.node } else { node }, references);
                }
            }
            Request::Interrupt { unique } => {
                if let Some(token) = self.lock().get(&unique) {
                    token.cancel();
                }
            }
            Request::Refused(errno) => self.answer(header.unique, Err(errno)),
            Request::Op(op) => self.dispatch(header.unique, header.node, op),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn dispatch(self: &Arc<Self>, unique: u64, node: u64, op: Op) {
        if let Some(answer) = self.files.at_once(node, &op) {
            return self.answer(unique, answer);
        }
        let token = CancellationToken::new();
        self.lock().insert(unique, token.clone());
        let session = Arc::clone(self);
        self.runtime.spawn(async move {
            let call = Arc::clone(&session.files).call(node, op);
            let let_go = async {
                token.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let answer = tokio::select! {
                answer = call => answer,
                () = let_go => Err(Errno::INTR),
            };
            session.lock().remove(&unique);
            session.answer(unique, answer);
        });
    }

    fn answer(&self, unique: u64, answer: Result<Reply, Errno>) {
        let (error, pieces) = match answer {
            Ok(reply) => (0, reply.pieces()),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        self.send(unique, error, &pieces);
    }

    fn send(&self, unique: u64, error: i32, pieces: &[Bytes]) {
        let length = 16 + pieces.iter().map(Bytes::len).sum::<usize>();
        let mut head = Out(Vec::with_capacity(16));
        head.u32(u32::try_from(length).unwrap_or(0)).u32(error.cast_unsigned()).u64(unique);
        let slices: Vec<_> = [&head.0[..]]
            .into_iter()
            .chain(pieces.iter().map(|piece| &piece[..]))
            .map(IoSlice::new)
            .collect();
        match rustix::io::retry_on_intr(|| rustix::io::writev(&self.device, &slices)) {
            // NOENT: nobody waits any more. NODEV: the mount has ended.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
            Err(errno) => tracing::warn!(%errno, unique, length, "the kernel does not take an answer"),
        }
    }

    fn answer_init(&self, unique: u64, init: Init) {
        let mut out = Out(Vec::new());
        out.u32(7).u32(MINOR);
        if init.major != 7 || init.minor < MINOR {
            // A newer major version asks again; an older kernel than Linux 5.4 is none that we run on.
            return self.send(unique, 0, &[Bytes::from(out.0)]);
        }
        out.u32(READ_AHEAD_BYTES_MAX).u32(init.flags & FLAGS).u16(BACKGROUND_MAX).u16(BACKGROUND_MAX / 4 * 3);
        out.u32(u32::try_from(WRITE_BYTES_MAX).unwrap_or(u32::MAX)).u32(1);
        out.u16(u16::try_from(WRITE_BYTES_MAX / 4096).unwrap_or(u16::MAX));
        out.0.resize(64, 0);
        self.send(unique, 0, &[Bytes::from(out.0)]);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, CancellationToken>> {
        // One insert, remove or look-up each: valid after any panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
