//! Finding a user in the sandbox's own /etc/passwd and /etc/group (passwd(5), group(5)).
//!
//! This runs between fork and exec, in the process that will become the command: an image whose passwd is a
//! FIFO, a link to /dev/zero, or gigabytes long (CVE-2026-47262) stops at most that one command. Nothing is
//! allocated: files are read through one buffer on the stack, line by line, and over-long lines are skipped.
//!
//! glibc's getpwnam is out of the question: it would load the image's NSS libraries (CVE-2019-14271).

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::Gid;

use crate::limits::{GROUPS_MAX, IDS_PER_SANDBOX, PASSWD_BYTES_MAX};
use crate::sys::{Errno, path};
use crate::wire::agent::{Name, User};

/// Longest line that is looked at. glibc's own buffer is 1,024; groups with many members are longer.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Longest home directory that is passed on.
const HOME_BYTES_MAX: usize = 256;

/// Who a command runs as, in ids of the inner namespace.
#[derive(Debug)]
pub(super) struct Identity {
    /// User id.
    pub(super) uid: u32,
    /// Group id.
    pub(super) gid: u32,
    groups: [Gid; GROUPS_MAX],
    group_count: usize,
    home: [u8; HOME_BYTES_MAX],
    home_length: usize,
}

impl Identity {
    /// Supplementary groups.
    pub(super) fn groups(&self) -> &[Gid] {
        &self.groups[..self.group_count]
    }

    /// Home directory: as passwd says, `/root` for uid 0 without an entry, else `/`.
    pub(super) fn home(&self) -> &[u8] {
        match (&self.home[..self.home_length], self.uid) {
            ([], 0) => b"/root",
            ([], _) => b"/",
            (home, _) => home,
        }
    }

    fn set_home(&mut self, home: &[u8]) {
        if home.len() <= HOME_BYTES_MAX {
            self.home[..home.len()].copy_from_slice(home);
            self.home_length = home.len();
        }
    }

    fn add_group(&mut self, gid: u32) {
        if self.group_count < GROUPS_MAX {
            self.groups[self.group_count] = Gid::from_raw(gid);
            self.group_count += 1;
        }
    }
}

/// Resolves a user.
///
/// A file that cannot be read, is a device, or has no end, has no entries: an id needs none.
///
/// # Errors
/// `NOENT` when a name is in neither file or an id is out of range; for names, what reading the files gave.
pub(super) fn find(user: &User) -> Result<Identity, Errno> {
    let mut identity = Identity {
        uid: 0,
        gid: 0,
        groups: [Gid::ROOT; GROUPS_MAX],
        group_count: 0,
        home: [0; HOME_BYTES_MAX],
        home_length: 0,
    };
    let mut name = [0; 64];
    let mut name_length = 0;
    let mut found = false;
    let read = lines(c"/etc/passwd", |line| {
        let [entry, _, uid, gid, _, home, ..] = fields(line);
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else { return true };
        let matches = match &user.user {
            Name::Id(wanted) => *wanted == uid,
            Name::Text(wanted) => wanted.as_bytes() == entry,
        };
        if matches {
            (identity.uid, identity.gid, found) = (uid, gid, true);
            identity.set_home(home);
            if entry.len() <= name.len() {
                name[..entry.len()].copy_from_slice(entry);
                name_length = entry.len();
            }
        }
        !matches
    });
    if !found {
        match user.user {
            Name::Text(_) => return Err(read.err().unwrap_or(Errno::NOENT)),
            // As other runtimes do: a number needs no entry, and its group is 0.
            Name::Id(uid) if uid < IDS_PER_SANDBOX => identity.uid = uid,
            Name::Id(_) => return Err(Errno::NOENT),
        }
    }
    find_groups(user, &name[..name_length], &mut identity)?;
    Ok(identity)
}

/// Resolves the explicit group, if there is one, and collects the groups that list the user as a member.
fn find_groups(user: &User, name: &[u8], identity: &mut Identity) -> Result<(), Errno> {
    let mut explicit = match &user.group {
        Some(Name::Id(gid)) if *gid < IDS_PER_SANDBOX => Some(*gid),
        Some(Name::Id(_)) => return Err(Errno::NOENT),
        _ => None,
    };
    let read = lines(c"/etc/group", |line| {
        let [entry, _, gid, members, ..] = fields(line);
        let Some(gid) = id(gid) else { return true };
        if let Some(Name::Text(wanted)) = &user.group
            && wanted.as_bytes() == entry
        {
            explicit.get_or_insert(gid);
        }
        if !name.is_empty() && members.split(|&byte| byte == b',').any(|member| member == name) {
            identity.add_group(gid);
        }
        true
    });
    match (&user.group, explicit) {
        (Some(_), None) => Err(read.err().unwrap_or(Errno::NOENT)),
        (Some(_), Some(gid)) => {
            identity.gid = gid;
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

/// The first seven fields of a line, empty where there are fewer.
fn fields(line: &[u8]) -> [&[u8]; 7] {
    let mut fields = [&[][..]; 7];
    for (slot, field) in fields.iter_mut().zip(line.split(|&byte| byte == b':')) {
        *slot = field;
    }
    fields
}

/// A decimal id that the sandbox has. Nothing else is a number: not `-1`, not `0x0`, not ` 0` (CVE-2024-40635).
fn id(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|&id| id < IDS_PER_SANDBOX)
}

/// Calls `each` for every line of a regular file until it returns false. A file that is missing has no lines.
fn lines(file: &std::ffi::CStr, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), Errno> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let file = match path::open_in_root(&root, file, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        return Err(Errno::INVAL);
    }
    read_lines(&mut each, PASSWD_BYTES_MAX, |buffer| rustix::io::read(&file, buffer))
}

fn read_lines(
    each: &mut impl FnMut(&[u8]) -> bool,
    bytes_max: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    let mut buffer = [0; LINE_BYTES_MAX];
    let (mut filled, mut total, mut skipping) = (0, 0, false);
    loop {
        let count = read(&mut buffer[filled..])?;
        total += count;
        if total > bytes_max {
            return Err(Errno::FBIG);
        }
        filled += count;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|&byte| byte == b'\n') {
            let line = &buffer[start..start + length];
            start += length + 1;
            if !std::mem::take(&mut skipping) && !each(line) {
                return Ok(());
            }
        }
        if count == 0 {
            if filled > start && !skipping {
                each(&buffer[start..filled]);
            }
            return Ok(());
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled == buffer.len() {
            // The line is too long for any use that we have of it.
            (filled, skipping) = (0, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(bytes: &[u8], chunk: usize, max: usize) -> Result<Vec<Vec<u8>>, Errno> {
        let mut seen = Vec::new();
        let mut rest = bytes;
        read_lines(
            &mut |line: &[u8]| {
                seen.push(line.to_vec());
                true
            },
            max,
            |buffer| {
                let count = rest.len().min(chunk).min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                Ok(count)
            },
        )?;
        Ok(seen)
    }

    #[test]
    fn lines_come_whole_whatever_read_returns() {
        for chunk in [1, 3, 4096] {
            let seen = collect(b"a:b\n\nlast", chunk, 1024).expect("small");
            assert_eq!(seen, [&b"a:b"[..], b"", b"last"]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_a_file_that_is_too_long_refused() {
        let mut bytes = vec![b'x'; 3 * LINE_BYTES_MAX];
        bytes.extend_from_slice(b"\nroot:x:0:0\n");
        assert_eq!(collect(&bytes, 4096, 1 << 20), Ok(vec![b"root:x:0:0".to_vec()]));
        assert_eq!(collect(&bytes, 4096, 1000), Err(Errno::FBIG));
    }

    #[test]
    fn only_plain_decimal_ids_are_ids() {
        assert_eq!(id(b"1000"), Some(1000));
        assert_eq!(id(b"65535"), Some(65535));
        for bad in [&b""[..], b"-1", b"0x0", b" 0", b"65536", b"4294967295", b"4294967296", b"+1"] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }
}
