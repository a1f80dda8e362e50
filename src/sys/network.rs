//! The one thing that is done to a network: a namespace with nothing but loopback, which is up.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Errno;
use super::process::Companion;

/// A network namespace with `lo` up, made by a process of its own beside the caller: it takes most of a
/// millisecond. [`Companion::finish`] gives the namespace.
///
/// # Errors
/// As clone(2).
pub fn make_aside() -> Result<Companion<OwnedFd>, Errno> {
    /// Neither allocates nor calls what sets the C library's `errno`: see [`Companion::start`].
    fn make() -> Result<OwnedFd, Errno> {
        leave_starter();
        // SAFETY: a network namespace of its own invalidates no descriptor and no memory of this process.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
        loopback_up()?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open(c"/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty())
    }
    STARTER.store(rustix::thread::sched_getcpu(), Ordering::Relaxed);
    // SAFETY: `make` keeps to the contract of `start`: raw system calls, its own frame, no heap; and one atomic, which is
    // not written while it runs.
    unsafe { Companion::start(0, make) }
}

/// The processor that starts a companion: memory is shared with it.
static STARTER: AtomicUsize = AtomicUsize::new(0);

/// Leaves its processor to whoever started this process, if it was placed on the same. The kernel places a new process
/// once, and moves it from behind its parent only when another processor has been idle for long: on two processors that
/// made the way to a sandbox a fifth longer. Where there is no other processor, nothing changes.
fn leave_starter() {
    let starter = STARTER.load(Ordering::Relaxed);
    if rustix::thread::sched_getcpu() != starter {
        return;
    }
    let Ok(mut others) = rustix::thread::sched_getaffinity(None) else { return };
    others.unset(starter);
    if others.count() > 0 {
        // Where it is not possible it is only slower.
        let _ = rustix::thread::sched_setaffinity(None, &others);
    }
}

/// Brings `lo` up in this process's network namespace; the kernel then gives it 127.0.0.1 and ::1 (netdevice(7)).
fn loopback_up() -> Result<(), Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid: a name of NULs and a union of plain integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(up).map_err(|_| Errno::INVAL)?;
    /// linux/sockios.h
    const SIOCSIFFLAGS: rustix::ioctl::Opcode = 0x8914;
    // SAFETY: SIOCSIFFLAGS reads an ifreq (netdevice(7)), which is what it is given.
    let set = unsafe { rustix::ioctl::Setter::<SIOCSIFFLAGS, libc::ifreq>::new(request) };
    // SAFETY: the descriptor is a socket, and the operation writes nothing.
    unsafe { rustix::ioctl::ioctl(&socket, set) }
}
