//! Connections to outbound handlers: sockets of the operator's, in the one directory that the settings name.
//!
//! The gateway can open no file, so it asks, by the sandbox and the host; the name of the socket comes from the policy
//! that is kept here. A handler that was restarted is found by its name again. Nothing here waits: a socket whose
//! queue is full is as good as down.
//!
//! Why one directory: a policy comes from a client of the API, who is not to reach sockets with root's rights that are
//! none of his. What lies in the directory was put there by whom the operator lets.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::gateway::Dialled;

/// Connects to the socket of this name and sends the connection, or why there is none, to whoever waits for it.
pub fn dial(directory: &str, name: Option<&str>, answer: &OwnedFd) {
    let connected = match name {
        Some(name) => connect(directory, name).map_err(|errno| errno.to_string()),
        None => Err("the policy names no handler for it".to_owned()),
    };
    let (said, connection): (Dialled, _) = match connected {
        Ok(connection) => (Ok(()), Some(connection)),
        Err(why) => (Err(why), None),
    };
    let fds: Vec<_> = connection.iter().map(std::os::fd::AsFd::as_fd).collect();
    if let Ok(message) = wire::encode(&said) {
        // Who has gone away needs no answer.
        let _ = socket::send_now(answer, &message, &fds);
    }
}

fn connect(directory: &str, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(&directory, name, flags, Mode::empty(), within)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The very socket that was looked at.
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_str())?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_socket_of_the_directory_is_reached() {
        let (inside, outside) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        let directory = inside.path().to_str().expect("text");
        let _here = UnixListener::bind(inside.path().join("here")).expect("bind");
        let _there = UnixListener::bind(outside.path().join("there")).expect("bind");
        std::fs::write(inside.path().join("file"), "").expect("file");
        std::os::unix::fs::symlink(outside.path().join("there"), inside.path().join("link")).expect("link");
        assert!(connect(directory, "here").is_ok());
        let climbing = format!("../{}/there", outside.path().file_name().expect("name").display());
        for name in ["absent", "file", "link", &climbing, "/run/x", ""] {
            assert!(connect(directory, name).is_err(), "{name}");
        }
    }
}
