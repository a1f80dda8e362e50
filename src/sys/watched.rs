//! A descriptor that tokio watches and that is neither a socket of ours nor a pipe that tokio knows how to use.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor of a pipe or terminal.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Takes over a descriptor, making it non-blocking. Needs a running tokio reactor.
    ///
    /// # Errors
    /// As ioctl(2) and epoll_ctl(2).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: tokio asks that `as_raw_fd` name one open file until the registration ends. `OwnedFd` keeps
        // its descriptor open until it is dropped, and `AsyncFd` deregisters before it drops what it owns.
        Ok(Self(unsafe { AsyncFd::register(fd)? }))
    }

    /// Does `work` as soon as it does not say `WouldBlock`. Cancel-safe: it is done or it is not.
    ///
    /// # Errors
    /// What `work` says.
    pub async fn when<T>(
        &self,
        interest: Interest,
        mut work: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.async_io(interest, |fd| work(fd.as_fd())).await
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
