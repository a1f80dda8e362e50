//! Mounts as sandboxes get them, tried on the state directory's file system.
//!
//! Everything happens in a thread with a mount namespace of its own, on detached mounts and below one directory
//! that is removed: when the thread ends nothing of it is left.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use super::kernel::Child;
use super::{Category, Finding, NOT_ROOT, Status, existing};
use crate::runtime::storage::Enforcement;
use crate::sys::process::flags;
use crate::sys::{Errno, errno_of, mount};

/// Bytes below which images have little room.
const FREE_BYTES_LOW: u64 = 10 << 30;
/// Bytes below which not even one image fits.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Files that a few images have.
const FREE_FILES_LOW: u64 = 200_000;

pub(super) fn examine(state_dir: &Path) -> Vec<Finding> {
    let place = existing(state_dir);
    let mut findings = match std::thread::scope(|scope| scope.spawn(|| tried(&place)).join()) {
        Ok(Ok(findings)) => findings,
        Ok(Err(errno)) => {
            let finding = ok("mounts", format!("not tried: {errno}"));
            vec![finding.without(Status::Degraded, "knowledge of what mounts work here", NOT_ROOT)]
        }
        Err(_) => Vec::new(),
    };
    findings.extend(room(&place));
    findings.push(fuse(Path::new("/dev/fuse")));
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    findings.push(disk_limit(Enforcement::of(&place)));
    findings.push(visible_proc(&table));
    findings
}

fn ok(name: &str, found: impl Into<String>) -> Finding {
    Finding::ok(Category::Storage, name, found)
}

/// Where the idmapped mount is attached, in [`Scratch`].
const SHOWN: &str = "shown";

/// A directory that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(place: &Path) -> Result<Self, Errno> {
        let path = place.join(format!(".stockade-doctor-{}", rustix::process::getpid().as_raw_nonzero()));
        rustix::fs::mkdir(&path, Mode::RWXU)?;
        Ok(Self(path))
    }

    fn make(&self, name: &str) -> Result<String, Errno> {
        let path = self.0.join(name);
        rustix::fs::mkdir(&path, Mode::RWXU)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A mount point cannot be removed; there may be none.
        let _ = rustix::mount::unmount(self.0.join(SHOWN), UnmountFlags::DETACH);
        // What cannot be removed is an empty directory with our name on it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Something that is tried, and what its absence means.
struct Mount {
    name: &'static str,
    without: Status,
    required: bool,
    lost: &'static str,
    mend: &'static str,
}

const MOUNTS: [Mount; 7] = [
    Mount {
        name: "new mount api",
        without: Status::Missing,
        required: true,
        lost: "every mount of a sandbox: they are made by descriptor, never by path",
        mend: "boot Linux 5.12 or later, with CONFIG_TMPFS; allow the calls where a filter stands around us",
    },
    Mount {
        name: "overlayfs",
        without: Status::Missing,
        required: true,
        lost: "sandboxes: their root is an overlay over the image's layers",
        mend: "a kernel with CONFIG_OVERLAY_FS; a state directory on ext4, XFS, btrfs or tmpfs",
    },
    Mount {
        name: "overlayfs volatile",
        without: Status::Degraded,
        required: false,
        lost: "fast destruction: each waits until the whole file system is on disk",
        mend: "boot Linux 5.10 or later",
    },
    Mount {
        name: "overlayfs redirect_dir",
        without: Status::Degraded,
        required: false,
        lost: "renaming of directories that come from the image (EXDEV)",
        mend: "a kernel with overlayfs's redirect_dir, and a file system with trusted extended attributes",
    },
    Mount {
        name: "overlayfs layer by layer",
        without: Status::Degraded,
        required: false,
        lost: "images whose layers' paths exceed one page together",
        mend: "boot Linux 6.8 or later",
    },
    Mount {
        name: "idmapped mounts",
        without: Status::Missing,
        required: true,
        lost: "distinct ids per sandbox over layers that are stored once",
        mend: "put the state directory on ext4, XFS, btrfs or (from Linux 6.3) tmpfs; boot Linux 5.19 or later",
    },
    Mount {
        name: "overlayfs over idmapped layers",
        without: Status::Missing,
        required: true,
        lost: "distinct ids per sandbox over layers that are stored once",
        mend: "boot Linux 5.19 or later",
    },
];

impl Mount {
    fn finding(&self, result: Result<(), Errno>) -> Finding {
        let finding = match result {
            Ok(()) => ok(self.name, "works"),
            Err(errno) => ok(self.name, errno.to_string()).without(self.without, self.lost, self.mend),
        };
        if self.required { finding.required() } else { finding }
    }
}

/// Tries all mounts, in the order of [`MOUNTS`].
fn tried(place: &Path) -> Result<Vec<Finding>, Errno> {
    let errno = |error: nix::errno::Errno| Errno::from_raw_os_error(error as i32);
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(errno)?;
    let nothing: Option<&str> = None;
    nix::mount::mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(errno)?;
    let scratch = Scratch::new(place)?;
    let layer = scratch.make("layer")?;
    let shown = scratch.make(SHOWN)?;
    let ids = Child::start(flags::USER, None).and_then(|child| mapped(&child));
    let idmapped = ids.and_then(|ids| idmapped(&layer, &shown, &ids));
    let overlay = |name: &str, options: &[(&str, &str)]| overlay(&scratch, name, options).map(drop);
    let results = [
        mount::create("tmpfs", &[("size", "64k")], MountAttrFlags::MOUNT_ATTR_NOSUID).map(drop),
        overlay("plain", &[("lowerdir", &layer)]),
        overlay("volatile", &[("lowerdir", &layer), ("volatile", "")]),
        overlay("redirect", &[("lowerdir", &layer), ("redirect_dir", "on")]),
        overlay("appended", &[("lowerdir+", &layer)]),
        idmapped,
        idmapped.and_then(|()| overlay("mapped", &[("lowerdir", &shown)])),
    ];
    Ok(MOUNTS.iter().zip(results).map(|(mount, result)| mount.finding(result)).collect())
}

/// Maps ids in a child's user namespace and returns the namespace.
fn mapped(child: &Child) -> Result<OwnedFd, Errno> {
    for file in ["uid_map", "gid_map"] {
        std::fs::write(child.proc(file), "0 100000 65536\n").map_err(errno_of)?;
    }
    rustix::fs::openat(CWD, child.proc("ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Shows `layer` at `shown` with other ids.
fn idmapped(layer: &str, shown: &str, ids: &OwnedFd) -> Result<(), Errno> {
    let tree = mount::copy(CWD, layer)?;
    mount::set_attributes(tree.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Some(ids.as_fd()))?;
    let target = rustix::fs::openat(CWD, shown, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// An overlay with these options, not attached anywhere, with a file made in it.
fn overlay(scratch: &Scratch, name: &str, options: &[(&str, &str)]) -> Result<OwnedFd, Errno> {
    let upper = scratch.make(&format!("{name}-upper"))?;
    let work = scratch.make(&format!("{name}-work"))?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options.iter().chain(&[("upperdir", upper.as_str()), ("workdir", work.as_str())]) {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let root =
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    rustix::fs::mkdirat(&root, "made", Mode::RWXU)?;
    Ok(root)
}

fn room(place: &Path) -> Vec<Finding> {
    let Ok(found) = rustix::fs::statvfs(place) else { return Vec::new() };
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    let space = ok("disk space", format!("{} MiB free at {}", bytes >> 20, place.display())).required();
    let mend = "make room, or set state_dir to a larger file system";
    let space = match bytes {
        FREE_BYTES_LOW.. => space,
        FREE_BYTES_MIN.. => space.without(Status::Degraded, "room for more than a few images", mend),
        _ => space.without(Status::Missing, "room for images", mend),
    };
    let files = ok("disk files", format!("{} more files can be made", found.f_favail));
    // File systems without a fixed number of files say 0 of 0.
    let files = if found.f_files == 0 || found.f_favail >= FREE_FILES_LOW {
        files
    } else {
        files.without(Status::Degraded, "room for the files of a few images", mend)
    };
    vec![space, files]
}

/// Nothing uses it yet; buckets will.
fn fuse(device: &Path) -> Finding {
    let opened = rustix::fs::openat(CWD, device, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    match opened {
        Ok(_) => ok("fuse", "/dev/fuse opens"),
        Err(errno) => {
            ok("fuse", errno.to_string()).without(Status::Degraded, "buckets as files", "modprobe fuse")
        }
    }
}

/// What `runtime::storage` will decide.
fn disk_limit(enforcement: Enforcement) -> Finding {
    let finding = ok("disk limit", enforcement.name());
    match enforcement {
        Enforcement::ProjectQuota => finding,
        Enforcement::Tmpfs => finding.without(
            Status::Degraded,
            "limits on files that are on disk: a sandbox with a disk limit keeps its files in memory",
            "mount the state directory's file system (XFS or ext4) with prjquota",
        ),
    }
}

/// A user namespace may mount /proc only while the one it came from is not covered (mount_namespaces(7)).
fn visible_proc(table: &str) -> Finding {
    let covers = |line: &str| {
        let place = line.split(' ').nth(4)?.strip_prefix("/proc/")?;
        (place != "sys/fs/binfmt_misc").then(|| place.to_owned())
    };
    let covered: Vec<String> = table.lines().filter_map(covers).collect();
    if covered.is_empty() {
        return ok("proc", "fully visible").required();
    }
    ok("proc", format!("covered: {}", covered.join(" "))).required().without(
        Status::Missing,
        "a /proc of its own in each sandbox: the kernel refuses it where ours is masked, as in a container",
        "run outside of containers, or with an unmasked /proc",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 1 254:0 / / rw - ext4 /dev/vda rw,discard\n\
                         23 22 0:20 / /proc rw - proc proc rw\n\
                         24 23 0:21 / /proc/sys/fs/binfmt_misc rw - binfmt_misc none rw\n";

    #[test]
    fn project_quotas_are_better_than_memory() {
        assert_eq!(disk_limit(Enforcement::ProjectQuota).status, Status::Ok);
        assert_eq!(disk_limit(Enforcement::of(Path::new("/proc"))).status, Status::Degraded);
    }

    #[test]
    fn a_masked_proc_is_told_from_a_whole_one() {
        assert_eq!(visible_proc(TABLE).status, Status::Ok);
        let masked = format!("{TABLE}26 23 0:22 / /proc/kcore rw - tmpfs tmpfs rw\n");
        assert_eq!(visible_proc(&masked).status, Status::Missing);
    }

    #[test]
    fn a_mount_that_fails_is_explained() {
        for mount in &MOUNTS {
            assert_eq!(mount.finding(Ok(())).status, Status::Ok);
            let finding = mount.finding(Err(Errno::INVAL));
            assert_eq!((finding.status, finding.required), (mount.without, mount.required));
            assert!(finding.lost.is_some() && finding.mend.is_some());
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_no_fuse() {
        assert_eq!(fuse(Path::new("/dev/no-such-device")).status, Status::Degraded);
    }

    #[test]
    fn what_an_overlay_refuses_is_reported_as_missing() {
        let scratch = Scratch::new(&std::env::temp_dir()).expect("directory");
        let layer = scratch.make("layer").expect("layer");
        if overlay(&scratch, "control", &[("lowerdir", &layer)]).is_err() {
            eprintln!("skipped: overlays need root");
            return;
        }
        let result = overlay(&scratch, "odd", &[("lowerdir", &layer), ("no_such_option", "1")]).map(drop);
        assert_eq!(result, Err(Errno::INVAL));
        let path = scratch.0.clone();
        drop(scratch);
        assert!(!path.exists());
    }
}
