//! The tokio end of a [socket pair](super::socket): messages in, messages out, back-pressure by the kernel.
//!
//! For serve and fetch. launch, the agent and unpack are single-threaded without a runtime and use the socket.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Errno, socket};
use crate::limits::FRAME_BYTES_MAX;
use crate::wire;

/// One end of a socket between two roles.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

thread_local! {
    /// What every message of this thread is received into. One per waiting channel would be 128 KiB for every idle
    /// sandbox, and one per message 128 KiB to clear.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; FRAME_BYTES_MAX]);
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the other process closed its end")]
    Closed,
    /// The other end sent, or we were to send, something that is not a message.
    #[error("not a valid message")]
    Frame(#[from] wire::BadFrame),
    /// The kernel said no.
    #[error("socket between processes")]
    Io(#[from] io::Error),
}

impl Channel {
    /// Takes over a socket, making it non-blocking. Needs a running tokio reactor.
    ///
    /// # Errors
    /// As fcntl(2) and epoll_ctl(2).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: tokio asks that `as_raw_fd` name one open file until the registration ends. `OwnedFd` keeps
        // its descriptor open until it is dropped, and `AsyncFd` deregisters before it drops what it owns.
        Ok(Self(unsafe { AsyncFd::register(fd)? }))
    }

    /// Sends a message. Cancel-safe: a message is sent whole or not at all.
    ///
    /// # Errors
    /// When the other end is gone or the message is too large.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = wire::encode(message)?;
        // A new socket's readiness is known only after a turn of the reactor, and nearly always there is room.
        let sent = match socket::send(self.0.get_ref(), &bytes, fds) {
            Err(Errno::AGAIN) => {
                self.0.async_io(Interest::WRITABLE, |fd| Ok(socket::send(fd, &bytes, fds)?)).await
            }
            other => other.map_err(io::Error::from),
        };
        match sent {
            Err(error) if is_gone(&error) => Err(ChannelError::Closed),
            other => Ok(other?),
        }
    }

    /// Receives a message. Cancel-safe. Descriptors are handed over as they came; the caller checks how many
    /// it wants and closes the rest by dropping them.
    ///
    /// # Errors
    /// When the other end is gone or speaks something else.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let received = self.0.async_io(Interest::READABLE, |fd| {
            BUFFER.with_borrow_mut(|buffer| {
                let received = socket::receive(fd, buffer)?;
                let message = &buffer[..received.length];
                let decoded = if message.is_empty() { None } else { Some(wire::decode(message)) };
                Ok((decoded, received.fds))
            })
        });
        match received.await {
            Ok((None, _)) => Err(ChannelError::Closed),
            Ok((Some(message), fds)) => Ok((message?, fds)),
            Err(error) if is_gone(&error) => Err(ChannelError::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN))
}
