//! What is not HTTP gets our errors too, as far as hyper lets it.
//!
//! A head that cannot be parsed never becomes a request: hyper answers it itself, with a status and no body, and
//! closes. [`Connection`] lies below hyper and puts an [`ErrorBody`](super::schema::ErrorBody) in the place of that
//! answer. It knows it by its moment: whatever is written before the first request was handed to us can be
//! nothing else. After a request on the same connection it cannot be told from what a route answers without
//! looking into bytes that may come out of a sandbox; there hyper's own bare answer stays.
//!
//! It also tells a client that has left from one that has only finished writing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Sleep;

use super::error;
use super::request::RequestId;
use crate::error::{Error, ErrorCode};

/// Between two looks at whether a client that has finished writing is still there.
const HALF_CLOSED_PAUSE: Duration = Duration::from_secs(1);

/// Whether a request has been handed to the router, and whether the connection is HTTP no more.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<[AtomicBool; 2]>);

impl Heard {
    /// A request came through.
    pub(super) fn request(&self) {
        self.0[0].store(true, Ordering::Relaxed);
    }

    /// It speaks another protocol from here on.
    pub(super) fn upgraded(&self) {
        self.0[1].store(true, Ordering::Relaxed);
    }
}

/// A client's stream as hyper sees it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    heard: Heard,
    /// Our answer in the place of hyper's, and how much of it is written.
    answer: Option<(Vec<u8>, usize)>,
    /// When to look again whether a client that has finished writing is there.
    look: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, heard: Heard) -> Self {
        Self { stream, heard, answer: None, look: None }
    }

    /// Writes our answer instead of `theirs`, of which everything counts as written when ours is.
    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        theirs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (bytes, written) = self.answer.get_or_insert_with(|| (answer(theirs), 0));
        while *written < bytes.len() {
            let more = ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[*written..]))?;
            if more == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += more;
        }
        Poll::Ready(Ok(theirs.iter().map(|part| part.len()).sum()))
    }

    fn heard(&self) -> bool {
        self.heard.0[0].load(Ordering::Relaxed)
    }

    /// Finds out whether the client has left while its request is answered. hyper does not read then: a client that has
    /// finished writing still wants its answer, and to hyper it looks as one that is gone. The kernel tells them apart.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.heard() || self.heard.0[1].load(Ordering::Relaxed) {
            return Ok(());
        }
        loop {
            if self.stream.poll_read_ready(context).is_pending() {
                return Ok(());
            }
            let mut looked = [PollFd::new(&self.stream, PollFlags::empty())];
            match poll(&mut looked, Some(&Timespec::default())) {
                // A signal came first: nothing is known, and it is looked again.
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => {}
            }
            if looked[0].revents().contains(PollFlags::HUP) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            // There is something to read, its end perhaps: then nothing more wakes us.
            let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSED_PAUSE)));
            if look.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            self.look = None;
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.heard() {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        self.poll_answer(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.heard() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        }
        self.poll_answer(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper ends each of its rounds with this.
        self.poll_gone(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The bytes for a client whose request hyper refuses in these.
fn answer(theirs: &[io::IoSlice<'_>]) -> Vec<u8> {
    // "HTTP/1.1 431 …"
    let status = theirs.first().and_then(|head| std::str::from_utf8(head.get(9..12)?).ok());
    let (status, what, fix) = match status {
        Some("414") => {
            ("414 URI Too Long", "the path and query are too long", "send large input in the body")
        }
        Some("431") => {
            ("431 Request Header Fields Too Large", "the request's head is too large", "send fewer headers")
        }
        _ => ("400 Bad Request", "what came is not a request of HTTP/1.1", "speak HTTP/1.1, without TLS"),
    };
    let refusal = Error::new(ErrorCode::InvalidRequest, what).hint(fix);
    error::bare(&refusal, status, &RequestId::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn said(heard: bool, written: &str) -> String {
        let (mut client, server) = UnixStream::pair().expect("pair");
        let state = Heard::default();
        if heard {
            state.request();
        }
        let mut connection = Connection::new(server, state);
        connection.write_all(written.as_bytes()).await.expect("write");
        drop(connection);
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("read");
        text
    }

    #[tokio::test]
    async fn only_what_no_request_explains_is_replaced() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(said(true, bare).await, bare);
        let text = said(false, bare).await;
        assert!(
            text.starts_with("HTTP/1.1 431 ") && text.contains("\r\n\r\n{\"code\":\"INVALID_REQUEST\""),
            "{text}"
        );
    }
}
