//! File systems that all sandboxes share, made once when the launcher starts.
//!
//! ```text
//! devices   tmpfs, read-only   null zero full random urandom tty, links, mount points for pts and shm
//! sys       tmpfs, read-only   the few files of /sys that programs read, and an empty directory to mask with
//! skeleton  layer on disk      /proc /sys /dev, /etc/{hosts,hostname,resolv.conf}: top layer of every image
//! host      layer on disk      the root of the `host` image: links into /usr, a fresh /etc, /root, /tmp
//! usr       the host's /usr    read-only
//! ```
//!
//! The skeleton lies over the image's layers, so that an image whose /dev is a symlink to the host's /etc, or
//! whose /etc/resolv.conf is a device, has no say in where we mount (CVE-2025-31133, CVE-2026-41579). A device
//! tmpfs per sandbox with a bind mount per node would cost ten mounts each; one read-only tree that is made in
//! the initial user namespace costs one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{MountAttrFlags, MountFlags, UnmountFlags};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::sys::{Errno, mount};

/// Host name inside, unless another is asked for: `/etc/hosts` of the shared skeleton knows it.
pub const HOSTNAME_DEFAULT: &str = "sandbox";

const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n";

/// Files of /sys that programs read to count processors: glibc, Go, Java, OpenMP.
const SYS_FILES: [&str; 5] = [
    "devices/system/cpu/online",
    "devices/system/cpu/possible",
    "devices/system/cpu/present",
    "devices/system/node/online",
    "kernel/mm/transparent_hugepage/enabled",
];

/// Files and trees of the host's /etc that the `host` image shows: none holds a secret or names a person.
const HOST_ETC: [&str; 6] =
    ["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ssl/certs", "localtime"];

const HOST_PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
    user:x:1000:1000:user:/workspace:/bin/sh\n";
const HOST_GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nuser:x:1000:\n";

/// The shared file systems.
#[derive(Debug)]
pub struct Templates {
    /// /dev, detached.
    pub devices: OwnedFd,
    /// /sys, detached.
    pub sys: OwnedFd,
    /// The host's /usr, detached, read-only; absent when the host has none.
    pub usr: Option<OwnedFd>,
    /// The top layer of every image.
    pub skeleton: PathBuf,
    /// The only layer of the `host` image.
    pub host: PathBuf,
}

/// Why a template could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make {what} for sandboxes")]
pub struct TemplateError {
    what: &'static str,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> TemplateError {
    move |source| TemplateError { what, source: source.into() }
}

impl Templates {
    /// Makes them all. `directory` is ours alone and may hold those of an earlier run; `owner` is the id under
    /// which layers are stored; `stage` a directory that is ours alone, in our own mount namespace.
    ///
    /// # Errors
    /// When the kernel refuses a mount or a device node, or the disk a file.
    pub fn make(directory: &Path, owner: u32, stage: &Path) -> Result<Self, TemplateError> {
        let skeleton = layer(directory, "skeleton", &Tree::skeleton(), owner);
        let host = layer(directory, "host", &Tree::host(), owner);
        Ok(Self {
            devices: devices()
                .and_then(|mount| copyable(mount, &stage.join("dev")))
                .map_err(failed("/dev"))?,
            sys: sys().and_then(|mount| Ok(copyable(mount, &stage.join("sys"))?)).map_err(failed("/sys"))?,
            usr: match usr(stage).map_err(failed("/usr"))? {
                Some(mount) => Some(copyable(mount, &stage.join("usr")).map_err(failed("/usr"))?),
                None => None,
            },
            skeleton: skeleton.map_err(failed("the skeleton layer"))?,
            host: host.map_err(failed("the host layer"))?,
        })
    }
}

/// Kernels before 6.15 copy a mount only when it is attached somewhere in our mount namespace.
fn copyable(mount: OwnedFd, place: &Path) -> Result<OwnedFd, Errno> {
    match mount::copy(mount.as_fd(), "") {
        Err(Errno::INVAL) => {
            rustix::fs::mkdir(place, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            mount::attach(mount.as_fd(), rustix::fs::open(place, flags, Mode::empty())?.as_fd())?;
            Ok(mount)
        }
        Err(errno) => Err(errno),
        Ok(_) => Ok(mount),
    }
}

fn devices() -> Result<OwnedFd, Errno> {
    let options = [("mode", "755"), ("size", "64k"), ("nr_inodes", "64")];
    let root = mount::create("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    // Major 1 and 5 of the kernel's admin-guide/devices.
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&root, name, FileType::CharacterDevice, mode, device)?;
        // mknod applies the umask.
        rustix::fs::chmodat(&root, name, mode, AtFlags::empty())?;
    }
    for directory in ["pts", "shm", "mqueue"] {
        make_directories(root.as_fd(), directory)?;
    }
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        rustix::fs::symlinkat(target, &root, link)?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount::set_attributes(root.as_fd(), attributes, None)?;
    Ok(root)
}

fn sys() -> io::Result<OwnedFd> {
    let options = [("mode", "755"), ("size", "64k"), ("nr_inodes", "64")];
    let root = mount::create("tmpfs", &options, MountAttrFlags::empty())?;
    for directory in ["fs/cgroup", "empty"] {
        make_directories(root.as_fd(), directory)?;
    }
    for file in SYS_FILES {
        // A kernel without the file: programs cope, as they do on the host.
        let Ok(text) = std::fs::read(Path::new("/sys").join(file)) else { continue };
        if let Some((parent, _)) = file.rsplit_once('/') {
            make_directories(root.as_fd(), parent)?;
        }
        write_file(root.as_fd(), file, &text)?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount::set_attributes(root.as_fd(), attributes, None)?;
    Ok(root)
}

/// The host's /usr, through an overlay of its own: files there have inodes that are not the host's, so nobody
/// inside can watch what the host opens (inotify), or hold locks on its programs (flock).
fn usr(stage: &Path) -> Result<Option<OwnedFd>, Errno> {
    if rustix::fs::stat("/usr").is_err() {
        return Ok(None);
    }
    // An overlay without a writable layer needs two.
    let (empty, place) = (stage.join("empty"), stage.join("usr.new"));
    for directory in [&empty, &place] {
        rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755))?;
    }
    // By a relative name: the options show in every sandbox's mountinfo.
    rustix::process::chdir(stage)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("usr", &place, "overlay", flags, Some(c"lowerdir=/usr:empty"))?;
    rustix::process::chdir("/")?;
    let usr = mount::copy(rustix::fs::CWD, place.to_str().ok_or(Errno::INVAL)?);
    rustix::mount::unmount(&place, UnmountFlags::DETACH)?;
    rustix::fs::rmdir(&place)?;
    let usr = usr?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    mount::set_attributes(usr.as_fd(), attributes, None)?;
    Ok(Some(usr))
}

fn make_directories(root: BorrowedFd<'_>, path: &str) -> Result<(), Errno> {
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        let mode = Mode::from_raw_mode(0o755);
        match rustix::fs::mkdirat(root, &path[..end], mode) {
            // mkdir applies the umask, and the launcher's lets nobody else in.
            Ok(()) => rustix::fs::chmodat(root, &path[..end], mode, AtFlags::empty())?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn write_file(root: BorrowedFd<'_>, path: &str, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(0o644);
    let file = rustix::fs::openat(root, path, flags, mode)?;
    rustix::fs::fchmod(&file, mode)?;
    io::Write::write_all(&mut std::fs::File::from(file), text)
}

/// What a small layer of ours holds.
#[derive(Default)]
struct Tree {
    /// Directories with their modes, parents first.
    directories: Vec<(String, u32)>,
    files: BTreeMap<String, Vec<u8>>,
    links: BTreeMap<String, PathBuf>,
}

impl Tree {
    fn skeleton() -> Self {
        let mut tree = Self::default();
        for directory in ["proc", "sys", "dev", "etc"] {
            tree.directories.push((directory.to_owned(), 0o755));
        }
        tree.files.insert("etc/hosts".into(), HOSTS.into());
        tree.files.insert("etc/hostname".into(), format!("{HOSTNAME_DEFAULT}\n").into());
        tree.files.insert(
            "etc/resolv.conf".into(),
            b"# The gateway answers, if the sandbox's policy lets anything leave.\nnameserver 127.0.0.1\n"
                .into(),
        );
        tree
    }

    fn host() -> Self {
        let mut tree = Self::default();
        for directory in ["usr", "etc", "home", "mnt", "opt", "run", "srv", "var", "var/log"] {
            tree.directories.push((directory.to_owned(), 0o755));
        }
        tree.directories.push(("root".to_owned(), 0o700));
        // Everybody's: /workspace is where commands start, whoever they run as.
        for directory in ["tmp", "var/tmp", "workspace"] {
            tree.directories.push((directory.to_owned(), 0o1777));
        }
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            // Only where the host itself has merged these into /usr.
            if std::fs::read_link(Path::new("/").join(name)).is_ok() {
                tree.links.insert(name.to_owned(), Path::new("usr").join(name));
            }
        }
        tree.files.insert("etc/passwd".into(), HOST_PASSWD.into());
        tree.files.insert("etc/group".into(), HOST_GROUP.into());
        tree.files
            .insert("etc/nsswitch.conf".into(), b"passwd: files\ngroup: files\nhosts: files dns\n".into());
        for name in HOST_ETC {
            let path = Path::new("etc").join(name);
            if let Some(parent) = path.parent().and_then(Path::to_str)
                && parent != "etc"
            {
                tree.directories.push((parent.to_owned(), 0o755));
            }
            tree.copy_of_host(&path);
        }
        tree
    }

    /// Adds a file, a link, or a directory with its entries, from the host's root; what cannot be read is left
    /// out. Links are copied as links: those of `alternatives` and `ssl/certs` lead into /usr.
    fn copy_of_host(&mut self, path: &Path) {
        let from = Path::new("/").join(path);
        let (Some(name), Ok(metadata)) = (path.to_str(), from.symlink_metadata()) else { return };
        if let Ok(target) = std::fs::read_link(&from) {
            self.links.insert(name.to_owned(), target);
        } else if metadata.is_dir() {
            self.directories.push((name.to_owned(), 0o755));
            for entry in std::fs::read_dir(&from).into_iter().flatten().flatten() {
                self.copy_of_host(&path.join(entry.file_name()));
            }
        } else if metadata.is_file()
            && let Ok(bytes) = std::fs::read(&from)
        {
            self.files.insert(name.to_owned(), bytes);
        }
    }

    /// Different for every different content and owner.
    fn digest(&self, owner: u32) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        };
        add(&owner.to_le_bytes());
        for (path, mode) in &self.directories {
            add(path.as_bytes());
            add(&mode.to_le_bytes());
        }
        for (path, bytes) in &self.files {
            add(path.as_bytes());
            add(bytes);
        }
        for (path, target) in &self.links {
            add(path.as_bytes());
            add(target.as_os_str().as_encoded_bytes());
        }
        Digest::from_bytes(hash.finalize().into()).hex()
    }

    fn write(&self, root: BorrowedFd<'_>, owner: u32) -> io::Result<()> {
        let ids = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
        let give = |path: &str| rustix::fs::chownat(root, path, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW);
        for (path, mode) in &self.directories {
            make_directories(root, path)?;
            give(path)?;
            rustix::fs::chmodat(root, path.as_str(), Mode::from_raw_mode(*mode), AtFlags::empty())?;
        }
        for (path, bytes) in &self.files {
            write_file(root, path, bytes)?;
            give(path)?;
        }
        for (path, target) in &self.links {
            rustix::fs::symlinkat(target, root, path.as_str())?;
            give(path)?;
        }
        Ok(())
    }
}

/// Makes a layer of ours, unless an earlier run has made it. Its name tells its content, and it is never changed or
/// removed: sandboxes that outlived the run that made them still stand on it.
fn layer(directory: &Path, name: &str, tree: &Tree, owner: u32) -> io::Result<PathBuf> {
    let place = directory.join(format!("{name}-{}", tree.digest(owner)));
    if place.is_dir() {
        return Ok(place);
    }
    let fresh = directory.join("new");
    remove_if_there(&fresh)?;
    std::fs::create_dir_all(&fresh)?;
    let root = rustix::fs::open(&fresh, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fchown(&root, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
    tree.write(root.as_fd(), owner)?;
    // Whole or not at all, whenever we are killed.
    std::fs::rename(&fresh, &place)?;
    Ok(place)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
