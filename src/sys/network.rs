//! The one thing that is done to a network interface: bringing loopback up (netdevice(7)).

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Errno;
use super::process::last_errno;

/// Brings `lo` up in this process's network namespace; the kernel then gives it 127.0.0.1 and ::1.
///
/// # Errors
/// As socket(2) and the `SIOCSIFFLAGS` ioctl.
pub fn loopback_up() -> Result<(), Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid: a name of NULs and a union of plain integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(up).map_err(|_| Errno::INVAL)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq (netdevice(7)); `request` is one and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
