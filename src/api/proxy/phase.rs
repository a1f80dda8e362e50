//! Where a connection is in its requests: what whoever parses them tells whoever sees bytes alone.
//!
//! ```text
//!          first byte           head is whole          body is whole              answer is out
//! Between ───────────▶ Head ───────────────────▶ Body ───────────────▶ Answering ──────────────▶ Between
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Frame, SizeHint};

/// What the next bytes from the client are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The first of a request, if any come.
    Between,
    /// More of a head.
    Head,
    /// More of a body.
    Body,
    /// Nothing that is waited for.
    Answering,
    /// Not ours to know, to the end of the connection.
    Tunnel,
}

impl Phase {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Between,
            1 => Self::Head,
            2 => Self::Body,
            3 => Self::Answering,
            _ => Self::Tunnel,
        }
    }
}

/// The phase of one connection.
#[derive(Clone, Debug)]
pub(super) struct Phases(Arc<AtomicU8>);

impl Default for Phases {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(Phase::Between as u8)))
    }
}

impl Phases {
    pub(super) fn now(&self) -> Phase {
        Phase::from(self.0.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// A head is whole. The body says itself when it is; the answer is to be [noted](Noted) with what is returned.
    pub(super) fn request<B: Body>(&self, body: B) -> (Noted<B>, Until) {
        let until = |from, to| Until { phases: self.clone(), from, to };
        if body.is_end_stream() {
            self.set(Phase::Answering);
            return (Noted { body, until: None }, until(None, Phase::Between));
        }
        self.set(Phase::Body);
        let body_ends = until(Some(Phase::Body), Phase::Answering);
        (Noted { body, until: Some(body_ends) }, until(None, Phase::Between))
    }
}

/// Ends a phase when it is dropped, unless another has begun already.
#[derive(Debug)]
pub(super) struct Until {
    phases: Phases,
    from: Option<Phase>,
    to: Phase,
}

impl Drop for Until {
    fn drop(&mut self) {
        let next = |now| {
            let now = Phase::from(now);
            (now != Phase::Tunnel && self.from.is_none_or(|from| from == now)).then_some(self.to as u8)
        };
        // Refused when there is nothing to change.
        let _ = self.phases.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

/// A body whose end, or whose being given up, ends a phase.
#[derive(Debug)]
pub(super) struct Noted<B> {
    body: B,
    until: Option<Until>,
}

impl<B> Noted<B> {
    pub(super) fn new(body: B, until: Until) -> Self {
        Self { body, until: Some(until) }
    }
}

impl<B: Body + Unpin> Body for Noted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.until = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
