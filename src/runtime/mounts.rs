//! Mounts of sandboxes: workers of buckets, and directories of the host.
//!
//! ```text
//! state_dir/sandboxes/<id>/mounts/<n>     a worker's own directory: cache, and files that are not in the bucket yet
//! runtime_dir/…/<id>/mounts               the kernel's numbers of those that are attached, for the next launcher
//!                   /mount-<n>            its first message, credentials and all: see `secrets`
//! launch ─ fork ─ reads that, sends it to itself with the descriptors ─ exec ─▶ bucket
//! ```
//!
//! The worker and nobody else has the `/dev/fuse` of its mount. So the end of the worker, whatever ended it, is the end of
//! the connection: whoever waits for the file system is told ENOTCONN at once, and nobody can hang in it. A worker ends
//! with this launcher too. Whoever needs the mount again has a new one made, in the place of the old one.
//!
//! Why no duplicate here, to revive a mount: what the kernel knows of inodes and open files was the memory of the worker
//! that ended.
//!
//! # Directories of the host
//!
//! Only those that the operator names, and what is below them; no symlink is followed on the way. The mount is a copy of
//! the host's, shown with other ids: what belongs to the directory's owner belongs to one user of the sandbox, and all
//! else to nobody. Nothing above the directory can be reached, and symlinks in it lead to places of the sandbox.
//!
//! Writable ones must belong to somebody else than root: with the ids the sandbox gets the right to leave a file that
//! acts as its owner.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, StatxFlags, Uid};
use rustix::mount::MountAttrFlags;

use super::mountpoint;
use super::rootfs::UNTRUSTED;
use super::worker::{self, First, Identity, Worker};
use crate::id::SandboxId;
use crate::sys::{Errno, errno_of, mount, path, process};
use crate::wire::launch::{Failure, FailureKind};
use crate::wire::mount::HostDirectory;

/// A mount: of which sandbox, and its number there.
pub type Key = (SandboxId, u32);

/// What the kernel reads ahead of a program on a bucket: as much as one request may ask for. Its default is 128.
const READ_AHEAD_KIB: &str = "1024";

/// In a sandbox's place.
const FILE: &str = "mounts";

/// How long a killed worker may take to be gone: its files are the next one's.
const END: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A step in words, with what the kernel said.
fn failed(what: &str) -> impl Fn(Errno) -> Failure {
    move |errno| {
        let kind = match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => FailureKind::HostUnsupported,
            Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM => {
                FailureKind::Capacity
            }
            _ => FailureKind::Internal,
        };
        Failure { kind, what: what.to_owned(), detail: errno.to_string() }
    }
}

/// What its FUSE mount is called in the kernel's table.
pub fn name(number: u32) -> String {
    format!("mount-{number}")
}

/// What this launcher knows of mounts.
#[derive(Debug, Default)]
pub struct Mounts {
    buckets: BTreeMap<Key, Bucket>,
    /// The kernel's numbers of those that are attached.
    attached: BTreeMap<Key, u64>,
}

#[derive(Debug)]
struct Bucket {
    worker: Worker,
    /// Until it is attached.
    mounted: Option<OwnedFd>,
}

impl Mounts {
    /// Starts the worker of a bucket, after the end of the one before. Gives our end of its control socket.
    ///
    /// # Errors
    /// When the host has no FUSE, or the process cannot be started.
    pub fn start(
        &mut self,
        program: &OwnedFd,
        key: &Key,
        uid: u32,
        directory: &Path,
        (start, dialer): (&OwnedFd, &OwnedFd),
    ) -> Result<OwnedFd, Failure> {
        self.end(key);
        let own = own_directory(directory, uid).map_err(failed("make the mount's directory"))?;
        let (device, mounted) =
            mountpoint::fuse(&name(key.1)).map_err(failed("make a FUSE mount; see /dev/fuse"))?;
        let first = First { message: start, fds: &[device.as_fd(), dialer.as_fd(), own.as_fd()] };
        read_ahead(&mounted);
        let identity = Identity::Alone(uid);
        let worker = worker::spawn(program, c"stockade-bucket", &identity, Some(first))
            .map_err(failed("start the bucket's worker"))?;
        let control = worker.control.try_clone().map_err(|error| {
            failed("keep the worker's socket")(Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
        })?;
        self.buckets.insert(key.clone(), Bucket { worker, mounted: Some(mounted) });
        Ok(control)
    }

    /// Our end of the control socket of a worker that runs.
    pub fn control(&self, key: &Key) -> Option<OwnedFd> {
        let worker = &self.buckets.get(key)?.worker;
        let mut ended = [PollFd::new(&worker.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let runs = rustix::event::poll(&mut ended, Some(&now)) == Ok(0);
        runs.then(|| worker.control.try_clone().ok()).flatten()
    }

    /// The mount of a bucket that is to be attached.
    pub fn detached(&mut self, key: &Key) -> Option<OwnedFd> {
        self.buckets.get_mut(key)?.mounted.take()
    }

    /// The number in the kernel's table, if this launcher has attached it.
    pub fn attached(&self, key: &Key) -> Option<u64> {
        self.attached.get(key).copied()
    }

    /// Remembers that it is attached, or is no longer, here and in the sandbox's place.
    ///
    /// # Errors
    /// As write(2) and rename(2).
    pub fn attach(&mut self, place: &Path, key: &Key, number: Option<u64>) -> io::Result<()> {
        match number {
            Some(number) => self.attached.insert(key.clone(), number),
            None => self.attached.remove(key),
        };
        let of_sandbox = self.attached.iter().filter(|((id, _), _)| *id == key.0);
        let numbers: BTreeMap<u32, u64> = of_sandbox.map(|((_, mount), number)| (*mount, *number)).collect();
        let bytes = postcard::to_stdvec(&numbers).map_err(io::Error::other)?;
        let draft = place.join("mounts.new");
        std::fs::write(&draft, bytes)?;
        std::fs::rename(draft, place.join(FILE))
    }

    /// Takes up what a launcher before this one has attached in a sandbox.
    pub fn adopt(&mut self, place: &Path, id: &SandboxId) {
        let bytes = std::fs::read(place.join(FILE)).unwrap_or_default();
        let numbers = postcard::from_bytes::<BTreeMap<u32, u64>>(&bytes).unwrap_or_default();
        self.attached.extend(numbers.into_iter().map(|(mount, number)| ((id.clone(), mount), number)));
    }

    /// Ends the worker, and with it the connection.
    pub fn end(&mut self, key: &Key) {
        if let Some(bucket) = self.buckets.remove(key) {
            kill(&[bucket]);
        }
    }

    /// Ends all workers of a sandbox.
    pub fn end_all(&mut self, id: &SandboxId) -> Vec<Key> {
        let keys: Vec<Key> = self.buckets.keys().filter(|key| key.0 == *id).cloned().collect();
        let buckets: Vec<_> = keys.iter().filter_map(|key| self.buckets.remove(key)).collect();
        kill(&buckets);
        self.attached.retain(|key, _| key.0 != *id);
        keys
    }
}

/// Lets the kernel read further ahead of programs, in larger requests. A host on which that cannot be said goes without.
fn read_ahead(mounted: &OwnedFd) {
    // The worker is not there yet: what is asked here is asked of the kernel alone.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(found) = rustix::fs::statx(mounted, "", flags, StatxFlags::empty()) else { return };
    let knob = format!("/sys/class/bdi/{}:{}/read_ahead_kb", found.stx_dev_major, found.stx_dev_minor);
    let _ = std::fs::write(knob, READ_AHEAD_KIB);
}

/// Kills them all, then waits: they end beside each other.
fn kill(buckets: &[Bucket]) {
    for bucket in buckets {
        let _ = rustix::process::pidfd_send_signal(&bucket.worker.pidfd, rustix::process::Signal::KILL);
    }
    for bucket in buckets {
        // One that does not die in time is stuck in the kernel, and has lost its sockets all the same.
        let _ = rustix::event::poll(&mut [PollFd::new(&bucket.worker.pidfd, PollFlags::IN)], Some(&END));
    }
}

/// The directory of a worker, its own.
fn own_directory(directory: &Path, uid: u32) -> Result<OwnedFd, Errno> {
    let made = std::fs::create_dir_all(directory);
    made.map_err(errno_of)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty())?;
    rustix::fs::fchown(&opened, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
    rustix::fs::fchmod(&opened, Mode::RWXU)?;
    Ok(opened)
}

/// The directory of one worker, below that of the sandbox's mounts.
pub fn directory(mounts: &Path, number: u32) -> PathBuf {
    mounts.join(number.to_string())
}

fn refused(detail: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::DirectoryRefused,
        what: "open the directory".to_owned(),
        detail: detail.into(),
    }
}

/// A directory of the host as a detached mount, with the ids of a sandbox whose first host id is this.
///
/// # Errors
/// `DirectoryRefused` says why it is not shown; `HostUnsupported` when its file system cannot be shown with other ids.
pub fn show_directory(
    allowed: &[String],
    wanted: &HostDirectory,
    host_first: u32,
) -> Result<OwnedFd, Failure> {
    let opened = open_directory(allowed, &wanted.path)?;
    let owner = rustix::fs::fstat(&opened).map_err(failed("look at the directory"))?;
    if !wanted.read_only && (owner.st_uid == 0 || owner.st_gid == 0) {
        return Err(refused("it belongs to root or to root's group, and may only be mounted read-only"));
    }
    let maps = [("uid_map", owner.st_uid, wanted.uid), ("gid_map", owner.st_gid, wanted.gid)];
    let step = "make the ids of the directory's mount";
    let holder = process::hold_user_namespace().map_err(failed(step))?;
    let place = format!("/proc/{}", holder.pid().as_raw_nonzero());
    for (file, owner, inside) in maps {
        std::fs::write(format!("{place}/{file}"), format!("{owner} {} 1\n", host_first + inside))
            .map_err(|error| failed(step)(errno_of(error)))?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace =
        rustix::fs::open(format!("{place}/ns/user"), flags, Mode::empty()).map_err(failed(step))?;
    let shown = mount::copy(opened.as_fd(), "").map_err(failed("copy the directory's mount"))?;
    let read_only =
        if wanted.read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    mount::set_attributes(shown.as_fd(), UNTRUSTED | read_only, Some(namespace.as_fd())).map_err(
        |errno| Failure {
            kind: FailureKind::HostUnsupported,
            what: "show the directory with other ids".to_owned(),
            detail: errno.to_string(),
        },
    )?;
    Ok(shown)
}

/// Opens a directory below one of those that the operator names.
fn open_directory(allowed: &[String], wanted: &str) -> Result<OwnedFd, Failure> {
    let below = |parent: &String| {
        let rest = Path::new(wanted).strip_prefix(parent).ok()?;
        Some((parent.clone(), if rest.as_os_str().is_empty() { Path::new(".") } else { rest }))
    };
    let Some((parent, rest)) = allowed.iter().find_map(below) else {
        return Err(refused("the operator has not named it, nor one above it, in mounts.directories"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(&parent, flags, Mode::empty())
        .map_err(|errno| refused(format!("{parent} of mounts.directories: {errno}")))?;
    path::open_beneath(&parent, rest, OFlags::PATH | OFlags::DIRECTORY).map_err(|errno| match errno {
        Errno::NOENT => refused("there is none"),
        Errno::NOTDIR => refused("it is no directory"),
        Errno::LOOP => refused("a symbolic link is on the way"),
        Errno::XDEV => refused("another file system begins below the one that the operator names"),
        errno => refused(errno.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_below_those_that_are_named_are_opened() {
        let place = tempfile::tempdir().expect("place");
        let at = |name: &str| place.path().join(name).to_str().expect("text").to_owned();
        for name in ["open/in", "closed", "open-too"] {
            std::fs::create_dir_all(at(name)).expect("directory");
        }
        std::fs::write(at("open/file"), "").expect("file");
        std::os::unix::fs::symlink(at("closed"), at("open/link")).expect("link");
        let allowed = [at("open")];
        for good in ["open", "open/in"] {
            assert!(open_directory(&allowed, &at(good)).is_ok(), "{good}");
        }
        for bad in ["closed", "open-too", "open/file", "open/link", "open/absent", "open/../closed"] {
            let why = open_directory(&allowed, &at(bad)).expect_err(bad);
            assert_eq!(why.kind, FailureKind::DirectoryRefused, "{bad}");
        }
    }
}
