//! Bodies of requests on their way out: passed on as they come, or read whole before they are signed.
//!
//! One that is read has a place, of its sandbox's few and of all sandboxes' ([`Places`]), from before its first byte is
//! read until its last is handed to the connection. It goes there in pieces, of which no more are taken than the
//! connection has room for: what waits for a server that does not read lies here, and is counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::trouble::Trouble;
use crate::limits::{SIGNED_BODIES_PER_SANDBOX_MAX, SIGNED_BODY_BYTES_MAX};

/// How long a request waits for a place. Those who wait hold nothing.
const WAIT: Duration = Duration::from_secs(10);

/// How long a sandbox may take to send a body that is held: it has at most [`SIGNED_BODY_BYTES_MAX`].
const READ: Duration = Duration::from_secs(20);

/// How long the rest of a body is read that is refused already: whoever still sends would see a broken connection in
/// place of the answer.
const DRAIN: Duration = Duration::from_secs(1);

/// What is handed to a connection at once.
const PIECE: usize = 16 * 1024;

/// Places for bodies that are read before they are signed.
#[derive(Clone, Debug)]
pub(super) struct Places {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl Places {
    /// Of one sandbox.
    pub(super) fn own() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(SIGNED_BODIES_PER_SANDBOX_MAX))
    }

    pub(super) fn new(own: &Arc<Semaphore>, all: &Arc<Semaphore>) -> Self {
        Self { own: Arc::clone(own), all: Arc::clone(all) }
    }

    async fn take(self, most: Duration) -> Result<[OwnedSemaphorePermit; 2], Trouble> {
        let take = async {
            // First its own: a sandbox waits in the queue of all with no more than it may have.
            let own = self.own.acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>([own, self.all.acquire_owned().await?])
        };
        match tokio::time::timeout(most, take).await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(_)) | Err(_) => Err(Trouble::no_place()),
        }
    }
}

/// A body as it is sent, and how much of it was.
#[derive(Debug)]
pub(super) struct Sent {
    kind: Kind,
    moved: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Kind {
    Passed(Incoming),
    Held { rest: Bytes, _places: Option<[OwnedSemaphorePermit; 2]> },
}

impl Sent {
    /// One that is passed on as it comes.
    pub(super) fn passed(body: Incoming) -> Self {
        Self { kind: Kind::Passed(body), moved: Arc::default() }
    }

    fn held(rest: Bytes, places: Option<[OwnedSemaphorePermit; 2]>) -> Self {
        Self { kind: Kind::Held { rest, _places: places }, moved: Arc::default() }
    }

    /// One that is read whole, within bounds of length and time.
    pub(super) async fn read(mut body: Incoming, places: Places) -> Result<Self, Trouble> {
        if body.is_end_stream() {
            return Ok(Self::held(Bytes::new(), None));
        }
        let read = async {
            let places = places.take(WAIT).await?;
            let whole = Limited::new(&mut body, SIGNED_BODY_BYTES_MAX).collect();
            match tokio::time::timeout(READ, whole).await {
                Err(_) => Err(Trouble::slow_body()),
                Ok(Ok(whole)) => Ok(Self::held(whole.to_bytes(), Some(places))),
                Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                    Err(Trouble::too_large(SIGNED_BODY_BYTES_MAX))
                }
                Ok(Err(_)) => Err(Trouble::cut()),
            }
        };
        let read = read.await;
        if read.is_err() {
            let drain = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(DRAIN, drain).await;
        }
        read
    }

    /// The bytes of one that was read and of which nothing was sent yet; none of one that is passed on.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.kind {
            Kind::Passed(_) => &[],
            Kind::Held { rest, .. } => rest,
        }
    }

    /// Counts what was sent.
    pub(super) fn moved(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moved)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.kind {
            Kind::Passed(body) => ready!(Pin::new(body).poll_frame(context)),
            Kind::Held { rest, .. } if rest.is_empty() => None,
            Kind::Held { rest, .. } => Some(Ok(Frame::data(rest.split_to(rest.len().min(PIECE))))),
        };
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.moved.fetch_add(length as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed(body) => body.is_end_stream(),
            Kind::Held { rest, .. } => rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed(body) => body.size_hint(),
            Kind::Held { rest, .. } => SizeHint::with_exact(rest.len() as u64),
        }
    }
}

/// Waits for the beginning of an answer: at most so long after the last piece of the request's body was sent.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = T>,
    moved: &AtomicU64,
    most: Duration,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        if let Ok(answer) = tokio::time::timeout(most, answer.as_mut()).await {
            return Some(answer);
        }
        // A long upload is not an answer that is late.
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return None;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn one_sandbox_takes_its_own_places_and_no_more() {
        let (one, other) = (Places::own(), Places::own());
        let all = Arc::new(Semaphore::new(SIGNED_BODIES_PER_SANDBOX_MAX + 1));
        let take = |own: &Arc<Semaphore>| Places::new(own, &all).take(SHORT);
        let mut taken = Vec::new();
        for _ in 0..SIGNED_BODIES_PER_SANDBOX_MAX {
            taken.push(take(&one).await.expect("a place"));
        }
        assert_eq!(take(&one).await.expect_err("no place").status, 503);
        let last = take(&other).await.expect("a place of another sandbox's");
        assert_eq!(take(&other).await.expect_err("none of all is left").status, 503);
        taken.pop();
        drop(last);
        let _again = take(&one).await.expect("again");
    }

    #[tokio::test]
    async fn a_body_keeps_its_place_until_it_is_handed_on_in_pieces() {
        let all = Arc::new(Semaphore::new(1));
        let places = Places::new(&Places::own(), &all).take(SHORT).await.expect("places");
        let mut body = Sent::held(Bytes::from(vec![7; 2 * PIECE + 1]), Some(places));
        assert_eq!(body.size_hint().exact(), Some(2 * PIECE as u64 + 1));
        let mut lengths = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            lengths.push(frame.into_data().expect("data").len());
            assert_eq!(all.available_permits(), 0);
        }
        assert_eq!(lengths, [PIECE, PIECE, 1]);
        assert_eq!(body.moved().load(Ordering::Relaxed), 2 * PIECE as u64 + 1);
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(all.available_permits(), 1);
    }

    #[tokio::test]
    async fn an_answer_is_late_only_when_nothing_moves() {
        let moved = AtomicU64::new(0);
        assert_eq!(in_time(std::future::pending::<()>(), &moved, SHORT).await, None);
        assert_eq!(in_time(std::future::ready(1), &moved, SHORT).await, Some(1));
        let upload = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
        };
        // Less than all of it takes, and far more than from one piece to the next.
        assert_eq!(in_time(upload, &moved, Duration::from_secs(1)).await, Some(()));
    }
}
