//! The store of unpacked layers: `state_dir/layers/<diff-id>/fs`, written by unpack, owned by the launcher.
//!
//! A layer is unpacked under a name that starts with `.new-`, marked, synced and renamed: a directory with a
//! layer's name is always whole. serve, which talks to the outside, cannot write here, so a layer that was
//! verified once stays what it was (the store is everybody's next sandbox).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};

use super::create::Foundation;
use super::trash;
use super::worker::{self, Identity, Worker};
use crate::id::Digest;
use crate::limits::FRAME_BYTES_MAX;
use crate::sys::{Errno, path, socket};
use crate::wire;
use crate::wire::launch::{Answer, Compression, Failure, FailureKind};
use crate::wire::unpack::{UnpackFailureKind, UnpackJob, UnpackReply};

/// Prefix of what is not yet a layer.
const UNFINISHED: &str = ".new-";

/// The attribute that makes a directory hide what lower layers have in it (kernel documentation, overlayfs).
const OPAQUE: &str = "trusted.overlay.opaque";

/// The unpack processes that run.
#[derive(Debug, Default)]
pub struct Layers {
    running: Vec<Unpacking>,
}

#[derive(Debug)]
struct Unpacking {
    worker: Worker,
    diff_id: Digest,
    /// Requests to be answered when it is done: the first, and those for the same layer since.
    numbers: Vec<u64>,
    /// Open on the layer's root.
    root: OwnedFd,
}

type Answered = Result<Answer, Failure>;

fn failed(what: &str, error: impl ToString) -> Failure {
    Failure { kind: FailureKind::Internal, what: what.to_owned(), detail: error.to_string() }
}

impl Layers {
    /// Starts to unpack a layer. Answers at once when it is there already or cannot be started.
    pub fn unpack(
        &mut self,
        foundation: &Foundation,
        program: &OwnedFd,
        number: u64,
        diff_id: Digest,
        compression: Compression,
        fds: Vec<OwnedFd>,
    ) -> Option<Answered> {
        if foundation.layer(diff_id).is_dir() {
            return Some(Ok(Answer::Unpacked(wire::launch::LayerStats::default())));
        }
        if let Some(running) = self.running.iter_mut().find(|running| running.diff_id == diff_id) {
            running.numbers.push(number);
            return None;
        }
        match start(foundation, program, diff_id, compression, fds) {
            Ok((worker, root)) => {
                self.running.push(Unpacking { worker, diff_id, numbers: vec![number], root });
                None
            }
            Err(failure) => Some(Err(failure)),
        }
    }

    /// What to wait for, in the order of [`advance`](Self::advance)'s index.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().map(|running| running.worker.control.as_fd())
    }

    /// Deals with one message of an unpack process. Returns the answers that are due.
    pub fn advance(&mut self, foundation: &Foundation, index: usize) -> Vec<(u64, Answered)> {
        let Some(running) = self.running.get(index) else { return Vec::new() };
        let answer = match next_message(&running.worker.control) {
            Ok(UnpackReply::Opaque(directories)) => match mark_opaque(&running.root, &directories) {
                Ok(()) => return Vec::new(),
                Err(failure) => Err(failure),
            },
            Ok(UnpackReply::Done(report)) => {
                commit(foundation, running.diff_id).map(|()| Answer::Unpacked(report.stats))
            }
            Ok(UnpackReply::Failed(failure)) => Err(Failure {
                kind: match failure.kind {
                    UnpackFailureKind::Invalid => FailureKind::LayerInvalid,
                    UnpackFailureKind::Full => FailureKind::Capacity,
                    UnpackFailureKind::Internal => FailureKind::Internal,
                },
                what: format!("unpack layer {}", running.diff_id),
                detail: failure.detail,
            }),
            Err(failure) => Err(failure),
        };
        let running = self.running.swap_remove(index);
        if answer.is_err() {
            // It may still be writing; what it writes from now on is in nobody's way.
            let _ = rustix::process::pidfd_send_signal(&running.worker.pidfd, rustix::process::Signal::KILL);
            trash::discard(&unfinished(foundation, running.diff_id));
        }
        running.numbers.into_iter().map(|number| (number, answer.clone())).collect()
    }

    /// Removes those of the layers that no sandbox is on. Returns what is gone.
    pub fn remove(&self, foundation: &Foundation, diff_ids: &[Digest], used: &[Digest]) -> Vec<Digest> {
        let mut removed = Vec::new();
        for diff_id in diff_ids.iter().filter(|diff_id| !used.contains(diff_id)) {
            let layer = directory(foundation, diff_id);
            trash::discard(&layer);
            if !layer.exists() {
                removed.push(*diff_id);
            }
        }
        removed
    }

    /// The layers that are there.
    pub fn list(&self, foundation: &Foundation) -> Vec<Digest> {
        let entries = std::fs::read_dir(foundation.state.join("layers")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Digest::parse(&format!("sha256:{}", entry.file_name().to_str()?)).ok())
            .collect()
    }

    /// Removes what a launcher that died left half-unpacked.
    pub fn discard_unfinished(&self, foundation: &Foundation) {
        let layers = foundation.state.join("layers");
        for entry in std::fs::read_dir(&layers).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                trash::discard(&entry.path());
            }
        }
        trash::empty(&layers);
    }
}

fn directory(foundation: &Foundation, diff_id: &Digest) -> PathBuf {
    foundation.state.join("layers").join(diff_id.hex())
}

fn unfinished(foundation: &Foundation, diff_id: Digest) -> PathBuf {
    foundation.state.join("layers").join(format!("{UNFINISHED}{}", diff_id.hex()))
}

fn start(
    foundation: &Foundation,
    program: &OwnedFd,
    diff_id: Digest,
    compression: Compression,
    fds: Vec<OwnedFd>,
) -> Result<(Worker, OwnedFd), Failure> {
    let [blob, progress]: [OwnedFd; 2] =
        fds.try_into().map_err(|_| failed("unpack", "it needs a blob and a progress pipe"))?;
    let root = make_root(&unfinished(foundation, diff_id), foundation.ids.store())
        .map_err(|error| failed("make the layer's directory", error))?;
    let identity = Identity::Namespace(foundation.ids.unpack_map());
    let worker = worker::spawn(program, c"stockade-unpack", &identity)
        .map_err(|errno| failed("start unpack", errno))?;
    let job = wire::encode(&UnpackJob { diff_id, compression })
        .map_err(|error| failed("describe the layer", error))?;
    socket::send(&worker.control, &job, &[blob.as_fd(), root.as_fd(), progress.as_fd()])
        .map_err(|errno| failed("hand over the layer", errno))?;
    Ok((worker, root))
}

fn make_root(place: &Path, owner: u32) -> std::io::Result<OwnedFd> {
    trash::discard(place);
    std::fs::create_dir(place)?;
    let root = place.join("fs");
    std::fs::create_dir(&root)?;
    let root = rustix::fs::open(&root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fchown(&root, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
    Ok(root)
}

fn next_message(control: &OwnedFd) -> Result<UnpackReply, Failure> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let received =
        socket::receive(control, &mut buffer).map_err(|errno| failed("hear from unpack", errno))?;
    if received.length == 0 {
        return Err(failed("hear from unpack", "it ended without a word"));
    }
    wire::decode(&buffer[..received.length]).map_err(|error| failed("hear from unpack", error))
}

/// Marks directories inside the layer. Their names come from the image; the look-up cannot leave the layer.
fn mark_opaque(root: &OwnedFd, directories: &[Vec<u8>]) -> Result<(), Failure> {
    for name in directories {
        let name = if name.is_empty() { b"." } else { name.as_slice() };
        path::open_in_root(root, name, OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|directory| rustix::fs::fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty()))
            .map_err(|errno| failed("mark an opaque directory", errno))?;
    }
    Ok(())
}

/// Makes a finished layer permanent: synced first, so that a crash of the host cannot leave an empty file under
/// a verified name.
fn commit(foundation: &Foundation, diff_id: Digest) -> Result<(), Failure> {
    let sync = || -> Result<(), Errno> {
        let place = unfinished(foundation, diff_id);
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        };
        rustix::fs::syncfs(open(&place)?)?;
        rustix::fs::rename(&place, directory(foundation, &diff_id))?;
        rustix::fs::fsync(open(&foundation.state.join("layers"))?)
    };
    sync().map_err(|errno| failed("put the layer in the store", errno))
}
