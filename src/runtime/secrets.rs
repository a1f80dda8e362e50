//! The secrets of a sandbox, those of its policy and those of each mount: files beside its record, mode 0600, that this
//! process never reads.
//!
//! ```text
//! serve ─ sealed file in memory ─▶ launch: copied by the kernel ─▶ runtime_dir/sandboxes/<id>/secrets, mount-<n>
//!                                         └ a descriptor of that ─▶ every gateway; a bucket's worker
//! ```
//!
//! Why not keep them as values: an agent begins as a copy of the launcher's memory, so a secret that was ever in it
//! could be read in other sandboxes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::limits::EGRESS_SECRETS_BYTES_MAX;
use crate::sys::Errno;

/// The name of a policy's in the sandbox's place.
pub const POLICY: &str = "secrets";

/// Whether a file of this name in a sandbox's place holds secrets, which its next run needs.
pub fn is_one(name: &std::ffi::OsStr) -> bool {
    name == POLICY || name.as_encoded_bytes().starts_with(b"mount-")
}

/// Makes a copy of what serve sent as the sandbox's secrets, in the place of those of this name before. Gives a descriptor to read it
/// by; without a file there are none, and none are left.
///
/// # Errors
/// When it is no ordinary file, too large, or cannot be written.
pub fn keep(place: &Path, name: &str, sent: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let path = place.join(name);
    let Some(sent) = sent else {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        };
    };
    let stat = rustix::fs::fstat(sent)?;
    let length = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || length > EGRESS_SECRETS_BYTES_MAX {
        return Err(io::Error::other("the secrets are not a file of their size"));
    }
    let draft = place.join("secrets.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = rustix::fs::open(&draft, flags, Mode::RUSR | Mode::WUSR)?;
    let mut done = 0;
    while done < length as u64 {
        if rustix::fs::sendfile(&copy, sent, Some(&mut done), length)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    std::fs::rename(draft, path)?;
    Ok(Some(find(place, name)?.ok_or(Errno::NOENT)?))
}

/// Those of this name.
///
/// # Errors
/// As open(2).
pub fn find(place: &Path, name: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(place.join(name), flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_kept_is_a_closed_copy_and_goes_with_the_next() {
        let place = tempfile::tempdir().expect("directory");
        let mut sent = tempfile::tempfile().expect("file");
        sent.write_all(b"hunter2").expect("write");
        let kept = keep(place.path(), POLICY, Some(&sent.into())).expect("kept").expect("there");
        let mut text = String::new();
        std::fs::File::from(kept).read_to_string(&mut text).expect("read");
        assert_eq!(text, "hunter2");
        let mode = place.path().join(POLICY).metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(keep(place.path(), POLICY, None).expect("gone").is_none());
        assert!(find(place.path(), POLICY).expect("looked").is_none());
        let (pipe, _writer) = rustix::pipe::pipe().expect("pipe");
        assert!(keep(place.path(), POLICY, Some(&pipe)).is_err());
    }
}
