//! Everything about a file but its content.

use rustix::fs::{AtFlags, Mode, OFlags};

use super::content;
use super::place::{self, Place, Root};
use crate::sys::Errno;
use crate::wire::agent::User;
use crate::wire::worker::{Answer, Failure, Kind};

/// Permissions of new directories.
const MODE_DEFAULT: u32 = 0o755;

pub(super) fn stat(root: &Root, path: &[u8], follow: bool, sniff: bool) -> Result<Answer, Failure> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let mut stat = place::stat(root.open(path, flags)?)?;
    if sniff && stat.kind == Kind::File {
        stat.text = content::sniff(root, path);
    }
    Ok(Answer::Stat(stat))
}

pub(super) fn mkdir(root: &Root, path: &[u8], mode: Option<u32>, parents: bool) -> Result<Answer, Failure> {
    let place = match (parents, place::names(path).is_empty()) {
        // The root is there.
        (true, true) => return Ok(Answer::Done),
        (true, false) => root.place_with_parents(path)?,
        (false, _) => root.place(path)?,
    };
    let Place { directory, name } = place;
    match rustix::fs::mkdirat(&directory, name.as_slice(), Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) if parents => {
            root.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
            return Ok(Answer::Done);
        }
        other => other?,
    }
    // Not by mkdirat, which would take the umask off.
    let mode = Mode::from_raw_mode(mode.unwrap_or(MODE_DEFAULT));
    rustix::fs::chmodat(&directory, name.as_slice(), mode, AtFlags::empty())?;
    Ok(Answer::Done)
}

pub(super) fn chmod(root: &Root, path: &[u8], mode: u32) -> Result<Answer, Failure> {
    let file = root.open(path, OFlags::PATH)?;
    // fchmod(2) takes no O_PATH descriptor, and fchmodat2(2) is younger than some kernels.
    rustix::fs::chmod(place::by_number(&file), Mode::from_raw_mode(mode))?;
    Ok(Answer::Done)
}

pub(super) fn chown(root: &Root, path: &[u8], owner: &User, follow: bool) -> Result<Answer, Failure> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let file = root.open(path, flags)?;
    let (uid, gid) = content::ids(owner)?;
    rustix::fs::chownat(&file, c"", Some(uid), gid, AtFlags::EMPTY_PATH)?;
    Ok(Answer::Done)
}

pub(super) fn symlink(root: &Root, target: &[u8], path: &[u8]) -> Result<Answer, Failure> {
    let Place { directory, name } = root.place(path)?;
    rustix::fs::symlinkat(target, &directory, name.as_slice())?;
    Ok(Answer::Done)
}
