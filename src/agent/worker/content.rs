//! Content of files: what is opened here is read and written by serve.
//!
//! A file is replaced whole: its draft has no name until it is complete (`O_TMPFILE`, open(2)), so whoever stops in
//! between leaves the old file and no litter. Then it gets a name of its own beside the old one, and the old one's by
//! rename(2).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};

use super::place::{self, Place, Root, present, stat};
use crate::agent::user;
use crate::sys::Errno;
use crate::wire::agent::User;
use crate::wire::worker::{Answer, Commit, Condition, Failure, Kind, Stat, is_direct};

/// Permissions of new files.
const MODE_DEFAULT: u32 = 0o644;

/// Attempts to find a name that nobody has.
const NAMES_TRIED: u32 = 16;

/// Bytes that decide whether a file is text.
const SNIFF_BYTES: usize = 4096;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Opens a regular file for reading. A FIFO or device is opened without waiting, looked at, and closed.
fn open_regular(root: &Root, path: &[u8]) -> Result<(OwnedFd, Stat), Failure> {
    let file = match root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        // What sockets and devices without a driver say.
        Err(errno @ (Errno::NXIO | Errno::NODEV)) => {
            let kind = root.open(path, OFlags::PATH).and_then(stat).map(|stat| stat.kind);
            return Err(kind.map_or(errno.into(), Failure::NotRegular));
        }
        Err(errno) => return Err(errno.into()),
    };
    let stat = stat(&file)?;
    match stat.kind {
        Kind::File => Ok((file, stat)),
        other => Err(Failure::NotRegular(other)),
    }
}

pub(super) fn open(root: &Root, path: &[u8]) -> Result<(Answer, Option<OwnedFd>), Failure> {
    let (file, stat) = open_regular(root, path)?;
    if !can_be_passed(&file)? {
        return Ok((Answer::Indirect, None));
    }
    Ok((Answer::Content(stat), Some(file)))
}

/// Whether files of this one's file system may be held by serve.
fn can_be_passed(file: &OwnedFd) -> Result<bool, Errno> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "magic numbers have 32 bits")]
    let magic = rustix::fs::fstatfs(file)?.f_type as u32;
    Ok(is_direct(magic))
}

/// Copies a file into a pipe, until its end or until nobody reads.
pub(super) fn stream(root: &Root, path: &[u8], pipe: &OwnedFd) -> Result<Answer, Failure> {
    let (file, _) = open_regular(root, path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer))?;
        if count == 0 {
            return Ok(Answer::Done);
        }
        write_all(pipe, &buffer[..count])?;
    }
}

pub(super) fn write_all(to: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&to, bytes))?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// Whether the beginning of a file is text: UTF-8 without NUL, but for a character that is cut.
pub(super) fn sniff(root: &Root, path: &[u8]) -> Option<bool> {
    let (file, _) = open_regular(root, path).ok()?;
    let mut buffer = [0; SNIFF_BYTES];
    let count = rustix::io::read(&file, &mut buffer).ok()?;
    Some(is_text(&buffer[..count]))
}

pub(super) fn is_text(bytes: &[u8]) -> bool {
    let whole = std::str::from_utf8(bytes).err().is_none_or(|error| error.error_len().is_none());
    whole && !bytes.contains(&0)
}

pub(super) fn draft(root: &Root, path: &[u8], parents: bool) -> Result<(Answer, Option<OwnedFd>), Failure> {
    // As open(2): what ends like this can only be a directory.
    if path.ends_with(b"/") || path.ends_with(b"/.") {
        return Err(Errno::ISDIR.into());
    }
    let place = root.destination(path, parents)?;
    let present = present(&place)?;
    if let Some(stat) = &present {
        if stat.kind != Kind::File {
            return Err(Failure::NotRegular(stat.kind));
        }
        // rename(2) does not ask the file; whoever made it read-only expects to be asked.
        rustix::fs::accessat(&place.directory, place.name.as_slice(), Access::WRITE_OK, AtFlags::EACCESS)?;
    }
    if !can_be_passed(&place.directory)? {
        let name = fresh_name(|name| create(&place.directory, name).map(drop))?;
        return Ok((Answer::Draft { name: Some(name), present }, None));
    }
    let (file, name) = new_draft(&place.directory)?;
    Ok((Answer::Draft { name, present }, Some(file)))
}

/// A new file of this name.
fn create(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
}

fn open_draft(place: &Place, draft: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&place.directory, draft, flags, Mode::empty())
}

/// Writes a draft that has a name, until the end of a pipe.
pub(super) fn fill(root: &Root, path: &[u8], draft: &[u8], pipe: &OwnedFd) -> Result<Answer, Failure> {
    let file = open_draft(&root.destination(path, false)?, draft)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut buffer))?;
        if count == 0 {
            break;
        }
        write_all(&file, &buffer[..count])?;
    }
    // A bucket finds out only now whether it takes the file.
    nix::unistd::close(file).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    Ok(Answer::Done)
}

/// An empty file in this directory, without a name where the file system can do that.
pub(super) fn new_draft(directory: &OwnedFd) -> Result<(OwnedFd, Option<Vec<u8>>), Errno> {
    let mode = Mode::from_raw_mode(0o600);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, c".", flags, mode) {
        Ok(file) => Ok((file, None)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let mut file = None;
            let name = fresh_name(|name| {
                file = Some(create(directory, name)?);
                Ok(())
            })?;
            Ok((file.ok_or(Errno::EXIST)?, Some(name)))
        }
        Err(errno) => Err(errno),
    }
}

/// What begins the name of a draft that must have one; sixteen hexadecimal digits follow.
const DRAFT_PREFIX: &[u8] = b".stockade-";
const DRAFT_DIGITS: usize = 16;

/// Whether a file is called like a draft: what happens to those is nobody's business.
pub(super) fn is_draft(name: &[u8]) -> bool {
    name.strip_prefix(DRAFT_PREFIX)
        .is_some_and(|digits| digits.len() == DRAFT_DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Tries names until one is nobody's.
fn fresh_name(mut attempt: impl FnMut(&[u8]) -> Result<(), Errno>) -> Result<Vec<u8>, Errno> {
    for _ in 0..NAMES_TRIED {
        let mut random = [0; 8];
        // The kernel's generator never fails once it is seeded, and it is long before we start.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let digits = format!("{:0DRAFT_DIGITS$x}", u64::from_ne_bytes(random));
        let name = [DRAFT_PREFIX, digits.as_bytes()].concat();
        match attempt(&name) {
            Err(Errno::EXIST) => {}
            Ok(()) => return Ok(name),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

pub(super) fn commit(root: &Root, commit: &Commit, file: Option<OwnedFd>) -> Result<Answer, Failure> {
    let place = root.destination(&commit.path, false)?;
    let file = match (file, &commit.draft) {
        (Some(file), _) => file,
        (None, Some(draft)) => open_draft(&place, draft)?,
        (None, None) => return Err(Errno::PROTO.into()),
    };
    let file = &file;
    let present = present(&place)?;
    check(&commit.condition, present.as_ref())?;
    if let Some(stat) = &present
        && stat.kind != Kind::File
    {
        return Err(Failure::NotRegular(stat.kind));
    }
    match (&commit.owner, &present) {
        (Some(owner), _) => {
            let (uid, gid) = ids(owner)?;
            rustix::fs::fchown(file, Some(uid), gid)?;
        }
        (None, Some(stat)) => {
            // Only root can keep the owner; for everybody else the file becomes theirs.
            let _ = rustix::fs::fchown(file, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
        }
        (None, None) => {}
    }
    let kept = present.as_ref().map_or(MODE_DEFAULT, |stat| stat.mode & 0o777);
    rustix::fs::fchmod(file, Mode::from_raw_mode(commit.mode.unwrap_or(kept)))?;
    let replace = commit.condition != Condition::Absent;
    publish(&place, file, commit.draft.as_deref(), replace).map_err(|errno| match errno {
        Errno::EXIST => Failure::Condition,
        errno => errno.into(),
    })?;
    Ok(Answer::Stat(stat(file)?))
}

fn check(condition: &Condition, present: Option<&Stat>) -> Result<(), Failure> {
    let met = match (condition, present) {
        (Condition::Any, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => true,
        (Condition::OneOf(tags), Some(stat)) => tags.contains(&stat.tag),
        _ => false,
    };
    if met { Ok(()) } else { Err(Failure::Condition) }
}

/// A user's and group's number in the sandbox's own files.
pub(super) fn ids(owner: &User) -> Result<(Uid, Option<Gid>), Failure> {
    let identity = user::find(owner).map_err(|errno| match errno {
        Errno::NOENT => Failure::UserNotFound,
        errno => errno.into(),
    })?;
    let gid = owner.group.as_ref().map(|_| Gid::from_raw(identity.gid));
    Ok((Uid::from_raw(identity.uid), gid))
}

/// Gives a draft its name.
pub(super) fn publish(
    place: &Place,
    file: &OwnedFd,
    draft: Option<&[u8]>,
    replace: bool,
) -> Result<(), Errno> {
    let (directory, name) = (&place.directory, place.name.as_slice());
    let draft = match draft {
        Some(draft) => draft.to_vec(),
        None => match link(file, directory, name) {
            Err(Errno::EXIST) if replace => fresh_name(|name| link(file, directory, name))?,
            other => return other,
        },
    };
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let renamed = rustix::fs::renameat_with(directory, draft.as_slice(), directory, name, flags);
    if renamed.is_err() {
        // It is the rename's failure that counts.
        let _ = rustix::fs::unlinkat(directory, draft.as_slice(), AtFlags::empty());
    }
    renamed
}

fn link(file: &OwnedFd, directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let from = place::by_number(file);
    rustix::fs::linkat(rustix::fs::CWD, from, directory, name, AtFlags::SYMLINK_FOLLOW)
}

pub(super) fn discard(root: &Root, path: &[u8], draft: &[u8]) -> Result<Answer, Failure> {
    let place = root.destination(path, false)?;
    rustix::fs::unlinkat(&place.directory, draft, AtFlags::empty())?;
    Ok(Answer::Done)
}
