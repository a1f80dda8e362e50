//! `SOCK_SEQPACKET` sockets between our roles, with descriptors (unix(7), `SCM_RIGHTS`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::Errno;

/// Descriptors that one message can carry. The largest user is the `Exec` of a session's shell: six for the shell and
/// five to hold.
pub const FDS_MAX: usize = 12;

/// A connected pair, close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connected pair of byte streams, close-on-exec.
///
/// # Errors
/// As socketpair(2).
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Sends one message with its descriptors.
///
/// # Errors
/// As sendmsg(2); `TOOBIG` for more than [`FDS_MAX`] descriptors; `AGAIN` only when the socket is non-blocking.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_with(socket, message, fds, SendFlags::NOSIGNAL)
}

/// As [`send`], and never waits.
///
/// # Errors
/// As [`send`]; `AGAIN` when the other end has left too much unread.
pub fn send_now(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_with(socket, message, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

fn send_with(
    socket: impl AsFd,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    if fds.len() > FDS_MAX {
        return Err(Errno::TOOBIG);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut control, flags)
    })?;
    Ok(())
}

/// What [`receive`] got.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the message; 0 when the other end is closed.
    pub length: usize,
    /// The descriptors that came along, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Who sent it, in the receiver's PID namespace, if the receiver asked by [`want_sender`].
    pub sender: Option<rustix::process::Pid>,
}

/// Asks the kernel to name the sender of each message that this end receives (unix(7), `SO_PASSCRED`).
///
/// # Errors
/// As setsockopt(2).
pub fn want_sender(socket: impl AsFd) -> Result<(), Errno> {
    rustix::net::sockopt::set_socket_passcred(socket, true)
}

/// Receives one message into `buffer`. Descriptors beyond [`FDS_MAX`] are closed by the kernel.
///
/// # Errors
/// As recvmsg(2); `MSGSIZE` when the message, or its descriptors, did not fit.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    receive_with(socket, buffer, RecvFlags::CMSG_CLOEXEC)
}

/// As [`receive`], and never waits.
///
/// # Errors
/// As [`receive`]; `AGAIN` when there is none.
pub fn receive_now(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    receive_with(socket, buffer, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let result = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let mut fds = Vec::new();
    let mut sender = None;
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    if result.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Received { length: result.bytes, fds, sender })
}

/// Whether this is a TCP socket connected to a port of the loopback interface: what a worker that was asked to dial
/// must have sent.
pub fn is_tcp_to_loopback(fd: impl AsFd, port: u16) -> bool {
    let is_stream = rustix::net::sockopt::socket_type(&fd) == Ok(SocketType::STREAM);
    let peer = rustix::net::getpeername(&fd).ok().flatten();
    let peer = peer.and_then(|peer| std::net::SocketAddr::try_from(peer).ok());
    let protocol = rustix::net::sockopt::socket_protocol(&fd);
    is_stream
        && protocol == Ok(Some(rustix::net::ipproto::TCP))
        && peer.is_some_and(|peer| peer.ip().is_loopback() && peer.port() == port)
}

/// Sees to it that closing a descriptor which somebody sent will not wait. A stream socket can make close(2) wait for
/// as long as its maker likes (socket(7), `SO_LINGER`).
pub fn close_at_once(fd: impl AsFd) {
    // What is no socket has nothing to be told.
    let _ = rustix::net::sockopt::set_socket_linger(fd, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (ours, theirs) = pair().expect("socketpair");
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        send(&ours, b"hello", &[writer.as_fd()]).expect("send");
        drop(writer);
        let mut buffer = [0; 16];
        let mut received = receive(&theirs, &mut buffer).expect("receive");
        assert_eq!(&buffer[..received.length], b"hello");
        let writer = received.fds.pop().expect("one descriptor");
        assert!(received.fds.is_empty());
        rustix::io::write(&writer, b"x").expect("write through the passed end");
        assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(1));
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_not_a_shorter_message() {
        let (ours, theirs) = pair().expect("socketpair");
        send(&ours, &[7; 32], &[]).expect("send");
        assert_eq!(receive(&theirs, &mut [0; 16]).map(|_| ()), Err(Errno::MSGSIZE));
    }
}
