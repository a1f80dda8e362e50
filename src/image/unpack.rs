//! Role `unpack`: one process per layer. It gets a blob and an empty directory, and can reach nothing else.
//!
//! launch starts it in a user namespace whose uid 0 is the first id of the store, so that it may own files as
//! any id of an image, and no more. It has no network to lose: its seccomp filter is launch's part. What this
//! file adds is Landlock: the directory is the only place in the file system where anything can be done.
//!
//! The marks of opaque directories are `trusted.` attributes, out of reach here and in sandboxes: launch sets them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use crate::confine;
use crate::id::Digest;
use crate::image::decompress::{self, DecompressError};
use crate::image::layer::{Extractor, LayerError, Unpacked};
use crate::limits::FRAME_BYTES_MAX;
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::unpack::{
    UnpackFailure, UnpackFailureKind, UnpackJob, UnpackReply, UnpackReport, UnpackRequest,
};

/// Why a blob did not become a layer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The compression is broken or too strong.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The archive is refused, or could not be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The stream is a layer, and not this one.
    #[error("the layer's digest is {found}, the image says {expected}")]
    Digest {
        /// From the image's configuration.
        expected: Digest,
        /// Of the stream.
        found: Digest,
    },
    /// Landlock failed on a kernel that has it.
    #[error(transparent)]
    Confine(#[from] confine::ConfineError),
    /// launch sent something else than a job.
    #[error("the job: {0}")]
    Job(&'static str),
    /// The socket to launch.
    #[error("socket to the launcher: {0}")]
    Socket(#[from] Errno),
}

impl UnpackError {
    fn kind(&self) -> UnpackFailureKind {
        match self {
            Self::Layer(LayerError::Io { errno: Errno::NOSPC | Errno::DQUOT, .. }) => UnpackFailureKind::Full,
            // File systems differ in the names and attributes that they take: these are the layer's doing.
            Self::Layer(LayerError::Io {
                errno:
                    Errno::ILSEQ | Errno::INVAL | Errno::NAMETOOLONG | Errno::NOTDIR | Errno::NOENT | Errno::LOOP,
                ..
            })
            | Self::Decompress(_)
            | Self::Digest { .. } => UnpackFailureKind::Invalid,
            Self::Layer(LayerError::Io { .. }) | Self::Confine(_) | Self::Job(_) | Self::Socket(_) => {
                UnpackFailureKind::Internal
            }
            Self::Layer(_) => UnpackFailureKind::Invalid,
        }
    }
}

/// The role's main function: takes its job from `control`, does it, answers, and is done.
pub fn run(control: OwnedFd) -> ExitCode {
    match job(&control).and_then(|(job, fds)| work(&control, &job, fds)) {
        Ok((report, target)) => match finish(&control, report, &target) {
            Ok(()) => ExitCode::SUCCESS,
            // launch is gone; whoever comes after it removes the directory, or syncs it.
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let failure = UnpackFailure { kind: error.kind(), detail: error.to_string() };
            // The same.
            let _ = send(&control, &UnpackReply::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// Reports, and syncs when launch has put the layer in its place: it can be used meanwhile, and launch, which has
/// one thread for everybody, does not wait for the disk.
fn finish(control: &OwnedFd, report: UnpackReport, target: &OwnedFd) -> Result<(), UnpackError> {
    send(control, &UnpackReply::Done(report))?;
    let mut buffer = [0; 16];
    let received = socket::receive(control, &mut buffer)?;
    match wire::decode(&buffer[..received.length]) {
        Ok(UnpackRequest::Sync) => {
            rustix::fs::syncfs(target)?;
            send(control, &UnpackReply::Synced)
        }
        // The end of the stream.
        Err(_) => Ok(()),
    }
}

struct Fds {
    blob: OwnedFd,
    target: OwnedFd,
    progress: OwnedFd,
}

fn job(control: &OwnedFd) -> Result<(UnpackJob, Fds), UnpackError> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let received = socket::receive(control, &mut buffer)?;
    let job =
        wire::decode(&buffer[..received.length]).map_err(|_| UnpackError::Job("not a valid message"))?;
    let [blob, target, progress] = <[OwnedFd; 3]>::try_from(received.fds)
        .map_err(|_| UnpackError::Job("comes with three descriptors, or it is not one"))?;
    Ok((job, Fds { blob, target, progress }))
}

fn work(control: &OwnedFd, job: &UnpackJob, fds: Fds) -> Result<(UnpackReport, OwnedFd), UnpackError> {
    // Before the first thread: Landlock binds the calling thread and what it starts afterwards.
    confine::to_directories(&[fds.target.as_fd()], confine::Network::None)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    // A reader of progress that is slow misses some; it must not stop the work.
    rustix::io::ioctl_fionbio(&fds.progress, true)?;
    let mut progress = File::from(fds.progress);
    let report = move |bytes: u64| drop(progress.write(&bytes.to_le_bytes()));
    let unpacked = unpack(File::from(fds.blob), job, fds.target.as_fd(), report)?;
    for paths in batches(unpacked.opaque) {
        send(control, &UnpackReply::Opaque(paths))?;
    }
    Ok((UnpackReport { stats: unpacked.stats, devices_skipped: unpacked.skipped }, fds.target))
}

/// Unpacks a blob into an empty directory and verifies the digest of what it unpacked to.
pub(crate) fn unpack(
    blob: File,
    job: &UnpackJob,
    target: BorrowedFd<'_>,
    progress: impl FnMut(u64) + Send,
) -> Result<Unpacked, UnpackError> {
    std::thread::scope(|scope| {
        let (pipeline, chunks) = decompress::start(scope, blob, job.compression, progress);
        let unpacked = Extractor::new(target, job.alone).run(chunks);
        // A broken stream is the cause of the broken archive that follows from it.
        let found = pipeline.finish()?;
        let unpacked = unpacked?;
        if found != job.diff_id {
            return Err(UnpackError::Digest { expected: job.diff_id, found });
        }
        Ok(unpacked)
    })
}

/// Paths in lots that fit a message each.
fn batches(paths: Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut room = 0;
    for path in paths {
        // A path and its length (postcard: at most 3 bytes for what a path can have).
        let needed = path.len() + 3;
        if needed > room || batches.is_empty() {
            batches.push(Vec::new());
            room = FRAME_BYTES_MAX / 2;
        }
        room -= needed;
        if let Some(batch) = batches.last_mut() {
            batch.push(path);
        }
    }
    batches
}

fn send(control: &OwnedFd, reply: &UnpackReply) -> Result<(), UnpackError> {
    let bytes = wire::encode(reply).map_err(|_| UnpackError::Job("the reply is too large"))?;
    Ok(socket::send(control, &bytes, &[])?)
}
