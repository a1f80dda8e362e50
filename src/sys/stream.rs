//! The tokio end of a descriptor that is neither file nor message socket: a terminal's master, a session's control
//! socket. Reading and writing are cancel-safe: one system call each.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Errno;

/// Between two attempts to write to a terminal that has no room.
const WRITE_AGAIN: Duration = Duration::from_millis(2);

/// A descriptor that can be waited for.
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes over a descriptor, making its open file non-blocking. Needs a running tokio reactor.
    ///
    /// # Errors
    /// As fcntl(2) and epoll_ctl(2).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: tokio asks that `as_raw_fd` name one open file until the registration ends. `OwnedFd` keeps
        // its descriptor open until it is dropped, and `AsyncFd` deregisters before it drops what it owns.
        Ok(Self(unsafe { AsyncFd::register(fd)? }))
    }

    /// Reads what is there, waiting until something is; 0 at the end.
    ///
    /// # Errors
    /// As read(2); `EIO` from a terminal that no process has open.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await
    }

    /// Reads what is there now, whether or not the reactor has heard of it.
    ///
    /// # Errors
    /// As read(2); `AGAIN` when there is nothing.
    pub fn read_now(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.0, buffer)
    }

    /// Writes what there is room for, waiting until there is some.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)).await
    }

    /// As [`write`](Self::write), for the master of a terminal, by trying again and again: its wake-up comes when the
    /// program reads, which is before the kernel has moved what was written, and no other follows; and when no
    /// process has the terminal open, tokio takes it for writable for ever.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_terminal(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::AGAIN) => tokio::time::sleep(WRITE_AGAIN).await,
                written => return Ok(written?),
            }
        }
    }

    /// Writes everything. Not cancel-safe: what was written stays written.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
