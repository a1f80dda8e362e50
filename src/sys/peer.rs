//! Who is at the other end of a connected Unix socket (unix(7)).

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::os::fd::{AsFd, AsRawFd};

use super::Errno;
use super::process::last_errno;
use crate::limits::GROUPS_MAX;

/// asm-generic/socket.h, which x86 and ARM use; not in the libc crate. Since Linux 4.13.
const SO_PEERGROUPS: libc::c_int = 59;

/// Supplementary groups that the peer had when it connected.
///
/// # Errors
/// As getsockopt(2); `RANGE` when there are more than [`GROUPS_MAX`].
pub fn peer_groups(socket: impl AsFd) -> Result<Vec<u32>, Errno> {
    let mut groups = [0 as libc::gid_t; GROUPS_MAX];
    let mut length = libc::socklen_t::try_from(size_of_val(&groups)).map_err(|_| Errno::RANGE)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: getsockopt(2) writes at most `length` bytes, which is the size of `groups`, and then the length
    // itself; both live until it returns, and `socket` keeps the descriptor open.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
    };
    if result < 0 {
        return Err(last_errno());
    }
    let count = length as usize / size_of::<libc::gid_t>();
    Ok(groups.into_iter().take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_groups_are_its_processes_groups() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
        let mut expected: Vec<u32> = rustix::process::getgroups()
            .expect("groups")
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        let mut found = peer_groups(&ours).expect("groups");
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
