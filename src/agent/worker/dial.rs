//! Connections to the sandbox's own ports, made inside its network namespace and used outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::limits::DIAL_TIMEOUT_S;
use crate::sys::Errno;
use crate::wire::worker::{Answer, Failure};

/// Where programs listen that mean this host, in the order in which they usually do.
const LOOPBACKS: [(AddressFamily, IpAddr); 2] = [
    (AddressFamily::INET, IpAddr::V4(Ipv4Addr::LOCALHOST)),
    (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::LOCALHOST)),
];

/// Connects to a port by IPv4, then by IPv6. The failure is the first one, unless only the second says more.
pub(super) fn dial(port: u16) -> Result<(Answer, OwnedFd), Failure> {
    let mut failure = Errno::CONNREFUSED;
    for (family, address) in LOOPBACKS {
        match connect(family, SocketAddr::new(address, port)) {
            Ok(socket) => return Ok((Answer::Connection, socket)),
            // A profile without IPv6 says so at the socket: then IPv4's answer counts.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::CONNREFUSED) => {}
            Err(errno) => failure = errno,
        }
    }
    Err(failure.into())
}

fn connect(family: AddressFamily, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => return Ok(socket),
        // A full backlog leaves the connection under way.
        Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
    let timeout = Timespec { tv_sec: DIAL_TIMEOUT_S, tv_nsec: 0 };
    if rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&timeout)))? == 0 {
        return Err(Errno::TIMEDOUT);
    }
    rustix::net::sockopt::socket_error(&socket)??;
    Ok(socket)
}
