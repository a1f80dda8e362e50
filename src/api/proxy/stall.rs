//! A stream whose other end keeps things moving, or loses it.
//!
//! | it | has |
//! |---|---|
//! | takes nothing of what it is sent | [`PREVIEW_STALL_S`] |
//! | has begun a head | [`PREVIEW_HEAD_TIMEOUT_S`] for all of it |
//! | owes a body | [`PREVIEW_BODY_GRACE_S`], and more for each [`PREVIEW_BODY_RATE_MIN`] that came |
//!
//! Without it a place of the listener, and what an answer holds in a sandbox, would be had for as long as anybody likes
//! by asking and not reading, or by a byte now and then ("slowloris"). An idle connection is hyper's to end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::phase::{Phase, Phases};
use crate::limits::{PREVIEW_BODY_GRACE_S, PREVIEW_BODY_RATE_MIN, PREVIEW_HEAD_TIMEOUT_S, PREVIEW_STALL_S};

/// Breaks when its other end holds things up.
#[derive(Debug)]
pub(super) struct Stalling<S> {
    stream: S,
    phases: Phases,
    /// Runs while a write waits.
    write: Option<Pin<Box<Sleep>>>,
    /// Runs while a read waits that must not for ever.
    read: Option<Pin<Box<Sleep>>>,
    /// Of the head or body that is being read.
    part: Part,
}

/// How a head or a body comes.
#[derive(Debug)]
struct Part {
    phase: Phase,
    began: Instant,
    /// How long reads of it have waited. Time in which nobody wants to read is not the client's.
    waited: Duration,
    waits_since: Option<Instant>,
    bytes: u64,
}

impl Part {
    fn new(phase: Phase) -> Self {
        Self { phase, began: Instant::now(), waited: Duration::ZERO, waits_since: None, bytes: 0 }
    }

    /// Until when the read that waits may do so.
    fn deadline(&mut self) -> Option<Instant> {
        match self.phase {
            Phase::Head => Some(self.began + Duration::from_secs(PREVIEW_HEAD_TIMEOUT_S)),
            Phase::Body => {
                let since = *self.waits_since.get_or_insert_with(Instant::now);
                let earned = Duration::from_secs(PREVIEW_BODY_GRACE_S + self.bytes / PREVIEW_BODY_RATE_MIN);
                Some(since + earned.saturating_sub(self.waited))
            }
            Phase::Between | Phase::Answering | Phase::Tunnel => None,
        }
    }

    fn came(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited += self.waits_since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }
}

impl<S> Stalling<S> {
    pub(super) fn new(stream: S, phases: Phases) -> Self {
        Self { stream, phases, write: None, read: None, part: Part::new(Phase::Between) }
    }

    fn bound<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write = None;
            return polled;
        }
        let patience = Duration::from_secs(PREVIEW_STALL_S);
        let wait = self.write.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        wait.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// After a read of so many bytes.
    fn came(&mut self, bytes: usize) {
        if bytes > 0 && self.phases.now() == Phase::Between {
            self.phases.set(Phase::Head);
        }
        self.follow();
        self.part.came(bytes);
        self.read = None;
    }

    /// While a read waits.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.follow();
        let Some(deadline) = self.part.deadline() else {
            self.read = None;
            return Poll::Pending;
        };
        let wait = self.read.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        wait.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// A phase that has begun has all its time.
    fn follow(&mut self) {
        let now = self.phases.now();
        if now != self.part.phase {
            self.part = Part::new(now);
            self.read = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_pending() {
            return self.wait(context);
        }
        self.came(buffer.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bound(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bound(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::body::Body as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn pair() -> (Stalling<DuplexStream>, DuplexStream, Phases) {
        let (ours, theirs) = tokio::io::duplex(8);
        let phases = Phases::default();
        (Stalling::new(ours, phases.clone()), theirs, phases)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_left() {
        let (mut ours, mut theirs, _) = pair();
        let written = ours.write_all(&[1; 80]).await;
        assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        // What was taken until then arrives.
        theirs.read_exact(&mut [0; 8]).await.expect("read");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_has_all_the_time_again() {
        let (mut ours, mut theirs, _) = pair();
        let write = async {
            ours.write_all(&[1; 80]).await.expect("somebody reads");
            ours.write.is_none()
        };
        let mut all = [0; 80];
        let (counts_anew, read) = tokio::join!(write, theirs.read_exact(&mut all));
        assert!(counts_anew && read.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_however_it_drips() {
        let (mut ours, mut theirs, _) = pair();
        let drip = async {
            let mut drops = 0;
            while theirs.write_all(b"a").await.is_ok() && drops < 100 {
                drops += 1;
                tokio::time::sleep(seconds(1)).await;
            }
        };
        // Gone at its end, or the other end would wait to be read.
        let read = async move {
            let began = Instant::now();
            let ended = ours.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
            (ended, began.elapsed())
        };
        let ((), (ended, after)) = tokio::join!(drip, read);
        assert_eq!(ended, Err(io::ErrorKind::TimedOut));
        assert!(after <= seconds(PREVIEW_HEAD_TIMEOUT_S + 1), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_requests_and_in_an_answer_and_in_a_tunnel_is_nobodys_fault() {
        let (mut ours, mut theirs, phases) = pair();
        let mut byte = [0];
        let idle = tokio::time::timeout(seconds(3600), ours.read(&mut byte)).await;
        assert!(idle.is_err(), "between requests");
        theirs.write_all(b"h").await.expect("write");
        ours.read_exact(&mut byte).await.expect("read");
        assert_eq!(phases.now(), Phase::Head);
        let (body, answered) = phases.request(Full::new(Bytes::new()));
        assert!(body.is_end_stream());
        assert!(tokio::time::timeout(seconds(3600), ours.read(&mut byte)).await.is_err(), "answering");
        phases.set(Phase::Tunnel);
        drop(answered);
        theirs.write_all(b"t").await.expect("write");
        ours.read_exact(&mut byte).await.expect("read");
        assert!(tokio::time::timeout(seconds(3600), ours.read(&mut byte)).await.is_err(), "a tunnel");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_come_at_the_least_rate_while_somebody_waits_for_it() {
        let (mut ours, mut theirs, phases) = pair();
        let (body, _answered) = phases.request(Full::new(Bytes::from_static(b"body")));
        let mut byte = [0];
        // Nobody asks for more: no time runs.
        tokio::time::sleep(seconds(3600)).await;
        for _ in 0..PREVIEW_BODY_GRACE_S - 1 {
            let write = async {
                tokio::time::sleep(seconds(1)).await;
                theirs.write_all(b"b").await
            };
            let (read, wrote) = tokio::join!(ours.read_exact(&mut byte), write);
            assert!(read.is_ok() && wrote.is_ok());
        }
        let ended = tokio::time::timeout(seconds(2), ours.read(&mut byte)).await.expect("its time is up");
        assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        drop(body);
        assert_eq!(phases.now(), Phase::Answering);
    }
}
