//! Bodies on their way through: one frame at a time, as the receiver takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::BoxError;
use super::phase::Noted;
use crate::hops::drain;

/// What [`Outgoing::progress`] says of a body that broke off.
pub(super) const BROKEN: u64 = u64::MAX;

/// A request's body, on its way into a sandbox.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    /// None when there is nothing to send.
    body: Option<B>,
    /// Frames so far.
    moved: Arc<AtomicU64>,
}

impl<B: Body> Outgoing<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body: (!body.is_end_stream()).then_some(body), moved: Arc::default() }
    }

    /// The same request once more can have it, if it is empty.
    pub(super) fn again(&self) -> Option<Self> {
        self.body.is_none().then(|| Self { body: None, moved: Arc::clone(&self.moved) })
    }

    /// A count that grows while something is sent, and is [`BROKEN`] in the end if the client has not sent it whole.
    pub(super) fn progress(&self) -> Option<Arc<AtomicU64>> {
        self.body.is_some().then(|| Arc::clone(&self.moved))
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context).map_err(Into::into);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Err(_))) => self.moved.store(BROKEN, Ordering::Relaxed),
            Poll::Ready(_) => drop(self.moved.fetch_add(1, Ordering::Relaxed)),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a visitor's request. What is left of it when it is given up is read and dropped for a while.
#[derive(Debug)]
pub(super) struct Settled(Option<Noted<hyper::body::Incoming>>);

impl Settled {
    pub(super) fn new(body: Noted<hyper::body::Incoming>) -> Self {
        Self(Some(body))
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(drain(body));
        }
    }
}

impl Body for Settled {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body, on its way out of a sandbox or from ourselves.
#[derive(Debug)]
pub(crate) struct Incoming(Source);

#[derive(Debug)]
enum Source {
    /// It ends early, broken off, when whoever asked may no longer.
    Server(hyper::body::Incoming, Pin<Box<WaitForCancellationFutureOwned>>),
    Page(Option<Bytes>),
}

impl Incoming {
    pub(super) fn server(body: hyper::body::Incoming, over: CancellationToken) -> Self {
        if body.is_end_stream() {
            return Self::nothing();
        }
        Self(Source::Server(body, Box::pin(over.cancelled_owned())))
    }

    pub(super) fn page(bytes: Bytes) -> Self {
        Self(Source::Page(Some(bytes)))
    }

    pub(super) fn nothing() -> Self {
        Self(Source::Page(None))
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Source::Server(body, over) => {
                if over.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Some(Err("the address was revoked or changed meanwhile".into())));
                }
                // Trailers are announced by a header that does not pass, and so do not pass either.
                Pin::new(body).poll_frame(context).map_err(Into::into)
            }
            Source::Page(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Server(body, _) => body.is_end_stream(),
            Source::Page(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Server(body, _) => body.size_hint(),
            Source::Page(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
