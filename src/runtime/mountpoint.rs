//! A mount in a sandbox's tree, at a path that the sandbox controls.
//!
//! ```text
//! launcher ─ clone ─▶ enters the sandbox's user and mount namespaces
//!                     walks to the mount point, one name after the other, and makes what is missing
//!                     attaches the mount to the very directory that it found
//! ```
//!
//! - No symlink is followed on the way, and no other file system entered: the sandbox may rename what it likes
//!   meanwhile, and the mount ends up in a directory of its own files or nowhere.
//! - A mount is detached by its number in the kernel's table, whatever its path leads to by now: otherwise a sandbox
//!   could have another one taken away, like those that cover files of /proc.
//! - Nothing here asks a mounted file system anything: its server may hang.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::inside::{self, failed};
use crate::sys::{Errno, errno_of, mount, path, privilege};
use crate::wire::launch::{Failure, FailureKind};

/// A sandbox that runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Handle on its agent.
    pub agent: BorrowedFd<'a>,
    /// The agent's pid.
    pub pid: i32,
    /// First store id: what in-sandbox root is in the outer user namespace.
    pub store: u32,
}

/// How a mount is found again.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its number in the kernel's table, if one was attached.
    pub number: Option<u64>,
    /// What it is a mount of: the name that a FUSE mount was given.
    pub name: &'a str,
}

/// Attaches a detached mount at `path`, in the place of those that are known as `former`.
///
/// # Errors
/// `MountPointInvalid` and `MountPointBusy` when it cannot be there.
pub fn attach(
    place: Place<'_>,
    mounted: BorrowedFd<'_>,
    path: &str,
    former: Known<'_>,
) -> Result<(), Failure> {
    let work = || {
        let entered = Entered::new(place)?;
        entered.detach(former)?;
        let point = entered.point(path, place.store).map_err(refused(path))?;
        mount::attach(mounted, point.as_fd()).map_err(refused(path))?;
        Ok(Vec::new())
    };
    inside::run("attach a mount in the sandbox", work).map(drop)
}

/// Detaches what is known so. Nothing happens when there is none.
///
/// # Errors
/// When the sandbox cannot be entered, or the kernel refuses.
pub fn detach(place: Place<'_>, known: Known<'_>) -> Result<(), Failure> {
    let work = || Entered::new(place)?.detach(known).map(|()| Vec::new());
    inside::run("detach a mount in the sandbox", work).map(drop)
}

/// The number of a mount in the kernel's table, by a descriptor of this process.
pub fn number(mounted: &OwnedFd) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", mounted.as_raw_fd())).ok()?;
    number_in(&info)
}

fn number_in(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

fn refused(path: &str) -> impl Fn(Errno) -> Failure {
    move |errno| {
        let (kind, why) = match errno {
            Errno::XDEV | Errno::BUSY => {
                (FailureKind::MountPointBusy, "another file system is mounted there")
            }
            Errno::LOOP => (FailureKind::MountPointInvalid, "a symbolic link is on the way"),
            Errno::NOTDIR => (FailureKind::MountPointInvalid, "something that is no directory is on the way"),
            Errno::NAMETOOLONG | Errno::INVAL | Errno::NOENT => {
                (FailureKind::MountPointInvalid, "no directory can be made there")
            }
            Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NOMEM => {
                (FailureKind::Capacity, "there is no room")
            }
            _ => return failed("attach the mount")(errno),
        };
        Failure { kind, what: format!("mount on {path}"), detail: why.to_owned() }
    }
}

/// This process, once it is in a sandbox's namespaces.
struct Entered {
    root: OwnedFd,
    /// Of the host, from before.
    own_proc: OwnedFd,
}

impl Entered {
    fn new(place: Place<'_>) -> Result<Self, Failure> {
        let step = failed("enter the sandbox");
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own_proc = rustix::fs::open("/proc/self", directory, Mode::empty()).map_err(&step)?;
        // Opened first: from inside the user namespace the agent is nobody to be looked at.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mounts = rustix::fs::open(format!("/proc/{}/ns/mnt", place.pid), flags, Mode::empty());
        let mounts = mounts.map_err(&step)?;
        // The handle's process still had this number when the file was opened, if it lives now.
        rustix::thread::move_into_thread_name_spaces(place.agent, ThreadNameSpaceType::USER)
            .map_err(&step)?;
        rustix::thread::move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(&step)?;
        privilege::become_user(0, 0, &[]).map_err(&step)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let root = rustix::fs::open("/", directory, Mode::empty()).map_err(&step)?;
        Ok(Self { root, own_proc })
    }

    /// The directory to mount on.
    fn point(&self, path: &str, store: u32) -> Result<OwnedFd, Errno> {
        let owner = (Some(Uid::from_raw(store)), Some(Gid::from_raw(store)));
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let mut place = path::open_beneath(&self.root, ".", directory)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            place = match path::open_beneath(&place, name, directory) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&place, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) => {
                            rustix::fs::chownat(&place, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                        }
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    path::open_beneath(&place, name, directory)?
                }
                opened => opened?,
            };
        }
        Ok(place)
    }

    fn detach(&self, known: Known<'_>) -> Result<(), Failure> {
        let step = failed("detach the mount");
        // From the last one that was attached to the first.
        for found in self.table().map_err(&step)?.iter().rev().filter(|mounted| mounted.is(known)) {
            let opened = path::open_in_root(&self.root, found.point.as_str(), OFlags::PATH);
            // One that somebody has just moved is where it was not looked for: it stays, without a server.
            let Ok(opened) = opened else { continue };
            let info = self.read(&format!("fdinfo/{}", opened.as_raw_fd())).map_err(&step)?;
            if number_in(&info) != Some(found.number) {
                continue;
            }
            rustix::process::fchdir(&self.own_proc).map_err(&step)?;
            rustix::mount::unmount(format!("fd/{}", opened.as_raw_fd()), UnmountFlags::DETACH)
                .map_err(&step)?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String, Errno> {
        use std::io::Read as _;
        let file = rustix::fs::openat(&self.own_proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).map_err(errno_of)?;
        Ok(text)
    }

    fn table(&self) -> Result<Vec<Mounted>, Errno> {
        Ok(self.read("mountinfo")?.lines().filter_map(Mounted::parse).collect())
    }
}

/// A line of the kernel's table (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    number: u64,
    point: String,
    kind: String,
    name: String,
}

impl Mounted {
    fn parse(line: &str) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ');
        let number = place.next()?.parse().ok()?;
        let point = unescape(place.nth(3)?)?;
        let mut what = what.split(' ');
        Some(Self { number, point, kind: what.next()?.to_owned(), name: what.next()?.to_owned() })
    }

    fn is(&self, known: Known<'_>) -> bool {
        known.number == Some(self.number) || self.kind == FUSE_KIND && self.name == known.name
    }
}

/// The kind of our FUSE mounts in the kernel's table.
const FUSE_KIND: &str = "fuse.bucket";

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\' {
            let digits = std::str::from_utf8(after.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A FUSE mount that is attached nowhere, and the device by which its server answers.
///
/// # Errors
/// As open(2) of /dev/fuse, and fsmount(2).
pub fn fuse(name: &str) -> Result<(OwnedFd, OwnedFd), Errno> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let number = device.as_raw_fd().to_string();
    let options = [
        ("source", name),
        ("subtype", "bucket"),
        ("fd", number.as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
        // Of all users of the sandbox, by the modes that its server says: it checks nothing itself.
        ("allow_other", ""),
        ("default_permissions", ""),
    ];
    let mounted = mount::create("fuse", &options, super::rootfs::UNTRUSTED)?;
    Ok((device, mounted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_taken_apart() {
        let line = "99 1 0:52 / /a\\040b/c rw,nosuid,nodev shared:7 - fuse.bucket mount-3 rw,user_id=0";
        let mounted = Mounted::parse(line).expect("a line");
        let wanted = Mounted {
            number: 99,
            point: "/a b/c".into(),
            kind: "fuse.bucket".into(),
            name: "mount-3".into(),
        };
        assert_eq!(mounted, wanted);
        let known = |number, name| mounted.is(Known { number, name });
        assert!(known(Some(99), "") && known(None, "mount-3"));
        assert!(!known(Some(98), "mount-4"));
        assert_eq!(Mounted::parse("no line"), None);
        assert_eq!(unescape("a\\04"), None);
    }
}
