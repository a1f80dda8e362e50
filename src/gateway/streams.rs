//! Streams with something about them: bytes that were read already, bytes that are counted and paid for, an end that is
//! watched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::member::Member;

/// A stream with its first bytes put back.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    pub(super) first: Bytes,
    pub(super) stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            let part = self.first.split_to(length);
            buffer.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A sandbox's connection, which one task reads and writes while another one watches for its end.
#[derive(Clone, Debug)]
pub(super) struct Watched(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    stream: TcpStream,
    /// Bytes both ways.
    moved: AtomicU64,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Inside { stream, moved: AtomicU64::new(0) }))
    }

    /// Ends when nobody is at the other end any more: it was reset, or it was closed and nothing has moved for so long
    /// since. One that is closed may still be read from: it has asked, and waits for the answer.
    ///
    /// This takes no byte and needs none to be taken: what is not read yet, of a request that waits for the one before
    /// it, hides no end.
    pub(super) async fn gone(&self, grace: Duration) {
        let Inside { stream, moved } = &*self.0;
        // Without READABLE: of the ends both of these stand for, bytes are none.
        match stream.ready(Interest::PRIORITY | Interest::ERROR).await {
            Ok(ready) if !ready.is_error() => {}
            _ => return,
        }
        let mut before = moved.load(Ordering::Relaxed);
        while tokio::time::timeout(grace, stream.ready(Interest::ERROR)).await.is_err() {
            let now = moved.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn count(&self, bytes: usize) {
        self.0.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(context))?;
            match self.0.stream.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    self.count(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(context))?;
            match self.0.stream.try_write(bytes) {
                Ok(length) => {
                    self.count(length);
                    return Poll::Ready(Ok(length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&self.0.stream, rustix::net::Shutdown::Write) {
            // It is gone already.
            Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            other => Poll::Ready(Ok(other?)),
        }
    }
}

/// A stream to a server or a handler, whose bytes are counted and paid for.
#[derive(Debug)]
pub(super) struct Counted<S> {
    member: Arc<Member>,
    stream: S,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S> Counted<S> {
    pub(super) fn new(member: Arc<Member>, stream: S) -> Self {
        Self { member, stream, pause: None }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn pay(&mut self, bytes: usize) {
        let pause = self.member.pause_after(bytes);
        self.pause = pause.map(|pause| Box::pin(tokio::time::sleep(pause)));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.wait(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let length = buffer.filled().len() - before;
        self.member.audit.received.fetch_add(length as u64, Ordering::Relaxed);
        self.pay(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.wait(context));
        let length = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.member.audit.sent.fetch_add(length as u64, Ordering::Relaxed);
        self.pay(length);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const GRACE: Duration = Duration::from_millis(20);

    async fn pair() -> (TcpStream, Watched) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
        (client, Watched::new(listener.accept().await.expect("accept").0))
    }

    async fn still_there(watched: &Watched) -> bool {
        tokio::time::timeout(5 * GRACE, watched.gone(GRACE)).await.is_err()
    }

    #[tokio::test]
    async fn an_end_is_seen_behind_bytes_that_nobody_reads() {
        for reset in [true, false] {
            let (mut client, watched) = pair().await;
            client.write_all(b"unread").await.expect("write");
            assert!(still_there(&watched).await, "bytes are no end");
            if reset {
                crate::gateway::connection::reset(client);
                // Whatever the grace: nobody can read any more.
                watched.gone(Duration::from_secs(3600)).await;
            } else {
                drop(client);
                watched.gone(GRACE).await;
            }
        }
    }

    #[tokio::test]
    async fn whoever_has_closed_its_half_is_there_while_something_moves() {
        let (mut client, mut watched) = pair().await;
        client.shutdown().await.expect("shutdown");
        let mut answer = watched.clone();
        let answers = async {
            for _ in 0..20 {
                answer.write_all(b"piece").await.expect("write");
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
        };
        tokio::select! {
            // Less than all of it takes, and far more than from one piece to the next.
            () = watched.gone(Duration::from_secs(1)) => panic!("it still gets something"),
            () = answers => {}
        }
        let mut got = [0; 100];
        client.read_exact(&mut got).await.expect("read");
        assert_eq!(watched.read(&mut got).await.expect("its end"), 0);
        watched.gone(GRACE).await;
    }
}
