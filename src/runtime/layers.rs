//! The store of unpacked layers: `state_dir/layers/<diff-id>/fs`, written by unpack, owned by the launcher.
//!
//! A layer is unpacked under a name that starts with `.new-`, marked and renamed: a directory with a layer's name
//! is always whole. Its worker syncs it afterwards, for seconds perhaps, while sandboxes start on it. Until then a
//! file `.unsynced-<diff-id>` with the host's boot id stands beside it: after a crash of the host, and only then,
//! such a layer may have holes, and is removed. (The file is made before the rename, so no journal can know the
//! layer without it.) serve, which talks to the outside, cannot write here, so a layer that was
//! verified once stays what it was (the store is everybody's next sandbox).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};

use super::create::Foundation;
use super::trash;
use super::worker::{self, Identity, Worker};
use crate::id::Digest;
use crate::limits::{FRAME_BYTES_MAX, LAYERS_MAX, WORKERS_MAX};
use crate::sys::{path, socket};
use crate::wire;
use crate::wire::launch::{Answer, Failure, FailureKind};
use crate::wire::unpack::{UnpackFailureKind, UnpackJob, UnpackReply, UnpackRequest};

/// Prefix of what is not yet a layer.
const UNFINISHED: &str = ".new-";

/// Prefix of the sign that a layer is not on disk yet.
const UNSYNCED: &str = ".unsynced-";

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
    /// It has its name and is being synced; the requests are answered.
    committed: bool,
}

/// Unpack processes, also those that only wait for the disk: every layer of two images.
const UNPACKING_MAX: usize = 2 * LAYERS_MAX;

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
        job: UnpackJob,
        fds: Vec<OwnedFd>,
    ) -> Option<Answered> {
        let diff_id = job.diff_id;
        if foundation.layer(diff_id).is_dir() {
            return Some(Ok(Answer::Unpacked(wire::launch::LayerStats::default())));
        }
        if let Some(running) =
            self.running.iter_mut().find(|running| running.diff_id == diff_id && !running.committed)
        {
            running.numbers.push(number);
            return None;
        }
        let working = self.running.iter().filter(|running| !running.committed).count();
        if working >= WORKERS_MAX || self.running.len() >= UNPACKING_MAX {
            let detail = "too many layers are being unpacked".to_owned();
            return Some(Err(Failure {
                kind: FailureKind::Capacity,
                what: "unpack a layer".to_owned(),
                detail,
            }));
        }
        match start(foundation, program, job, fds) {
            Ok((worker, root)) => {
                self.running.push(Unpacking {
                    worker,
                    diff_id,
                    numbers: vec![number],
                    root,
                    committed: false,
                });
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
        let Some(running) = self.running.get_mut(index) else { return Vec::new() };
        let message = next_message(&running.worker.control);
        if running.committed {
            if matches!(message, Ok(UnpackReply::Synced)) {
                // What cannot be removed costs the layer if the host crashes, no more.
                let _ = std::fs::remove_file(unsynced(foundation, &running.diff_id));
            }
            self.running.swap_remove(index);
            return Vec::new();
        }
        let answer = match message {
            Ok(UnpackReply::Opaque(directories)) => match mark_opaque(&running.root, &directories) {
                Ok(()) => return Vec::new(),
                Err(failure) => Err(failure),
            },
            Ok(UnpackReply::Done(report)) => match commit(foundation, running) {
                Ok(()) => {
                    running.committed = true;
                    let numbers = std::mem::take(&mut running.numbers);
                    let answer = Answer::Unpacked(report.stats);
                    return numbers.into_iter().map(|number| (number, Ok(answer.clone()))).collect();
                }
                Err(failure) => Err(failure),
            },
            Ok(UnpackReply::Synced) => Err(failed("hear from unpack", "it is not done yet")),
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
        // It may still be writing; what it writes from now on is in nobody's way.
        let _ = rustix::process::pidfd_send_signal(&running.worker.pidfd, rustix::process::Signal::KILL);
        trash::discard(&unfinished(foundation, running.diff_id));
        running.numbers.into_iter().map(|number| (number, answer.clone())).collect()
    }

    /// Removes those of the layers that no sandbox is on. Returns what is gone.
    pub fn remove(&mut self, foundation: &Foundation, diff_ids: &[Digest], used: &[Digest]) -> Vec<Digest> {
        let mut removed = Vec::new();
        for diff_id in diff_ids.iter().filter(|diff_id| !used.contains(diff_id)) {
            // Its sync is nobody's business any more, least of all the next layer's of this name.
            self.running.retain(|running| running.diff_id != *diff_id || !running.committed);
            let _ = std::fs::remove_file(unsynced(foundation, diff_id));
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
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                trash::discard(&entry.path());
            } else if let Some(layer) = name.strip_prefix(UNSYNCED) {
                // A launcher that died during a sync left a whole layer; a host that crashed did not.
                let whole = std::fs::read_to_string(entry.path()).ok() == boot_id() && sync(&layers).is_ok();
                if !whole {
                    trash::discard(&layers.join(layer));
                }
                let _ = std::fs::remove_file(entry.path());
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

fn unsynced(foundation: &Foundation, diff_id: &Digest) -> PathBuf {
    foundation.state.join("layers").join(format!("{UNSYNCED}{}", diff_id.hex()))
}

/// What changes when the host starts again (random(4)); without it nothing unsynced is trusted.
fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().filter(|id| !id.is_empty())
}

fn sync(layers: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(layers)?)?)
}

fn start(
    foundation: &Foundation,
    program: &OwnedFd,
    job: UnpackJob,
    fds: Vec<OwnedFd>,
) -> Result<(Worker, OwnedFd), Failure> {
    let [blob, progress]: [OwnedFd; 2] =
        fds.try_into().map_err(|_| failed("unpack", "it needs a blob and a progress pipe"))?;
    let root = make_root(&unfinished(foundation, job.diff_id), foundation.ids.store())
        .map_err(|error| failed("make the layer's directory", error))?;
    let identity = Identity::Namespace(foundation.ids.unpack_map());
    let worker = worker::spawn(program, c"stockade-unpack", &identity, None)
        .map_err(|errno| failed("start unpack", errno))?;
    let job = wire::encode(&job).map_err(|error| failed("describe the layer", error))?;
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

/// Gives a finished layer its name, and lets its worker sync it.
fn commit(foundation: &Foundation, running: &Unpacking) -> Result<(), Failure> {
    let diff_id = running.diff_id;
    let put = || -> std::io::Result<()> {
        std::fs::write(unsynced(foundation, &diff_id), boot_id().unwrap_or_default())?;
        std::fs::rename(unfinished(foundation, diff_id), directory(foundation, &diff_id))
    };
    put().map_err(|error| failed("put the layer in the store", error))?;
    let sync = wire::encode(&UnpackRequest::Sync).map_err(|error| failed("ask for a sync", error))?;
    // A worker that is gone leaves its layer marked.
    let _ = socket::send(&running.worker.control, &sync, &[]);
    Ok(())
}
