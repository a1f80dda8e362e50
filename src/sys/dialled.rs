//! The tokio end of a TCP connection that a sandbox made and handed over.
//!
//! Its file belongs to both sides for as long as the other one keeps a duplicate, and with it what every holder can
//! change: `O_NONBLOCK` and `SO_LINGER`. So each system call here says for itself that it does not wait
//! (`MSG_DONTWAIT`), and lingering is switched off again just before the descriptor is closed.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Errno, socket};

/// A connection to a port inside a sandbox.
#[derive(Debug)]
pub struct Dialled(AsyncFd<OwnedFd>);

impl Dialled {
    /// Takes over a connection to this port of a loopback interface; `None`, and closed, when it is anything else.
    /// Needs a running tokio reactor.
    ///
    /// # Errors
    /// As fcntl(2) and epoll_ctl(2).
    pub fn new(fd: OwnedFd, port: u16) -> io::Result<Option<Self>> {
        if !socket::is_tcp_to_loopback(&fd, port) {
            socket::close_at_once(&fd);
            return Ok(None);
        }
        // Small answers must not wait for an acknowledgement; without it they would only be slower.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
        // SAFETY: tokio asks that `as_raw_fd` name one open file until the registration ends. `OwnedFd` keeps
        // its descriptor open until it is dropped, and `AsyncFd` deregisters before it drops what it owns.
        Ok(Some(Self(unsafe { AsyncFd::register(fd)? })))
    }

    /// One attempt after another to write, while the kernel says that there is room.
    fn poll_send(
        &self,
        context: &mut Context<'_>,
        length: usize,
        send: impl Fn(&OwnedFd) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match send(guard.get_inner()) {
                Ok(count) => {
                    if count < length {
                        // The rest would not have fitted: with epoll's edges that is as good as EAGAIN.
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let room = buffer.remaining();
            // SAFETY: `recv` only writes into the bytes, and nothing that was initialised becomes uninitialised.
            let unfilled = unsafe { buffer.unfilled_mut() };
            match rustix::net::recv(guard.get_inner(), unfilled, RecvFlags::DONTWAIT) {
                Ok(((filled, _), _)) => {
                    let count = filled.len();
                    if 0 < count && count < room {
                        // The socket is drained: with epoll's edges that is as good as EAGAIN.
                        guard.clear_ready();
                    }
                    // SAFETY: recv(2) has written this many bytes from the beginning of the unfilled part.
                    unsafe { buffer.assume_init(count) };
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

/// Without a signal when the other end is gone, and without waiting.
const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

impl AsyncWrite for Dialled {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(context, bytes.len(), |fd| rustix::net::send(fd, bytes, SEND))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.poll_send(context, length, |fd| {
            rustix::net::sendmsg(fd, parts, &mut SendAncillaryBuffer::default(), SEND)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Write) {
            // The other end was faster.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        socket::close_at_once(self.0.get_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Both ends of a connection, and its port.
    fn pair() -> (TcpStream, TcpStream, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        let ours = TcpStream::connect(address).expect("connect");
        (ours, listener.accept().expect("accept").0, address.port())
    }

    #[tokio::test]
    async fn whoever_holds_a_duplicate_cannot_make_us_wait() {
        let (ours, mut theirs, port) = pair();
        let duplicate = ours.try_clone().expect("duplicate");
        let mut dialled = Dialled::new(ours.into(), port).expect("register").expect("a connection");
        theirs.write_all(b"hello").expect("write");
        // The file that both share is made to wait, behind our back.
        duplicate.set_nonblocking(false).expect("set");
        let mut buffer = [0; 5];
        dialled.read_exact(&mut buffer).await.expect("read");
        assert_eq!(&buffer, b"hello");
        let more = tokio::time::timeout(Duration::from_millis(50), dialled.read(&mut buffer)).await;
        assert!(more.is_err(), "there is nothing more, and this thread still runs");
        let flood = async { while dialled.write(&[0; 65_536]).await.is_ok() {} };
        assert!(tokio::time::timeout(Duration::from_millis(50), flood).await.is_err());
        rustix::net::sockopt::set_socket_linger(&duplicate, Some(Duration::from_secs(60))).expect("linger");
        drop(duplicate);
        let start = std::time::Instant::now();
        drop(dialled);
        assert!(start.elapsed() < Duration::from_secs(30), "closing waits for a reader");
    }

    #[tokio::test]
    async fn what_is_not_the_connection_that_was_asked_for_is_closed() {
        let (ours, _theirs, port) = pair();
        assert!(Dialled::new(ours.into(), port.wrapping_add(1)).expect("look").is_none());
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
        assert!(Dialled::new(unix.into(), port).expect("look").is_none());
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        assert!(Dialled::new(listener.into(), port).expect("look").is_none());
    }
}
