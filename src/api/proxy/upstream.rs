//! The connection into a sandbox: made for a client's connection, kept for as long as that asks for the same port.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request, Response};
use bytes::Bytes;
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::{BROKEN, Outgoing};
use super::{BoxError, Target};
use crate::error::{Error, ErrorCode};
use crate::limits::{PROXY_FIRST_BYTE_TIMEOUT_S, PROXY_HEAD_BYTES_MAX};
use crate::sandbox::Sandbox;

/// How long a kept connection may take to be done with the exchange before. Nearly always it is done already.
const READY_TIMEOUT: Duration = Duration::from_millis(50);

/// Ends with the sandbox.
pub(super) type Ended = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The connection that a client's connection has into a sandbox, between two requests.
#[derive(Debug)]
pub(crate) struct Keep<B>(Mutex<Option<Kept<B>>>);

#[derive(Debug)]
struct Kept<B> {
    sandbox: Arc<Sandbox>,
    port: u16,
    sender: SendRequest<Outgoing<B>>,
}

impl<B> Default for Keep<B> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<B> Keep<B> {
    /// What is kept, if it leads to the same port of the same sandbox; otherwise it is closed.
    fn take(&self, target: &Target) -> Option<SendRequest<Outgoing<B>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let same = kept.port == target.port && Arc::ptr_eq(&kept.sandbox, &target.sandbox);
        same.then_some(kept.sender)
    }

    fn put(&self, target: &Target, sender: SendRequest<Outgoing<B>>) {
        let kept = Kept { sandbox: Arc::clone(&target.sandbox), port: target.port, sender };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

/// Sends a request and waits for the head of the answer.
///
/// A kept connection may have been closed at the other end just now. A request that was not sent by then is sent again
/// on a new one, and so is one that asks for something to be done twice as well as once and has no body.
pub(super) async fn exchange<B>(
    keep: &Keep<B>,
    target: &Target,
    mut request: Request<Outgoing<B>>,
) -> Result<(Response<hyper::body::Incoming>, Ended), Error>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    if let Some(mut sender) = keep.take(target)
        && is_ready(&mut sender).await
    {
        let again = again(&request);
        match send(&mut sender, request).await {
            Ok(response) => {
                keep.put(target, sender);
                return Ok((response, ended(target)));
            }
            Err(Failed::Unsent(unsent)) => request = *unsent,
            Err(Failed::Broken(error)) => match again {
                Some(again) => request = again,
                None => return Err(error),
            },
            Err(Failed::Late(error)) => return Err(error),
        }
    }
    let (mut sender, ended) = connect(target).await?;
    match send(&mut sender, request).await {
        Ok(response) => {
            keep.put(target, sender);
            Ok((response, ended))
        }
        Err(Failed::Broken(error) | Failed::Late(error)) => Err(error),
        Err(Failed::Unsent(_)) => Err(broken_off("at once")),
    }
}

/// For a connection that was kept: who made it watches it, and only a WebSocket has to know as well.
fn ended(target: &Target) -> Ended {
    Box::pin(target.sandbox.ended())
}

async fn is_ready<B>(sender: &mut SendRequest<Outgoing<B>>) -> bool {
    sender.is_ready() || matches!(tokio::time::timeout(READY_TIMEOUT, sender.ready()).await, Ok(Ok(())))
}

/// The same request once more, if it may be sent twice (RFC 9110 §9.2.2).
fn again<B: Body>(request: &Request<Outgoing<B>>) -> Option<Request<Outgoing<B>>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    let mut again = Request::new(request.body().again()?);
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

async fn connect<B>(target: &Target) -> Result<(SendRequest<Outgoing<B>>, Ended), Error>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let connection = target.sandbox.connect(target.port, target.wait).await?;
    let (ends, ended) = (connection.ended(), connection.ended());
    let mut builder = http1::Builder::new();
    builder.max_buf_size(PROXY_HEAD_BYTES_MAX);
    let (sender, connection) = builder
        .handshake(TokioIo::new(connection))
        .await
        .map_err(|error| broken_off("at once").source(error))?;
    tokio::spawn(async move {
        tokio::select! {
            // What goes wrong here, the sender sees as well.
            _ = connection.with_upgrades() => {}
            () = ends => {}
        }
    });
    Ok((sender, Box::pin(ended)))
}

enum Failed<B> {
    /// It is as it was.
    Unsent(Box<Request<Outgoing<B>>>),
    /// The connection broke before there was an answer.
    Broken(Error),
    /// There was no answer in time, or none that can be passed on.
    Late(Error),
}

async fn send<B>(
    sender: &mut SendRequest<Outgoing<B>>,
    request: Request<Outgoing<B>>,
) -> Result<Response<hyper::body::Incoming>, Failed<B>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let progress = request.body().progress();
    let mut answer = std::pin::pin!(sender.try_send_request(request));
    let mut before = 0;
    let answer = loop {
        match tokio::time::timeout(Duration::from_secs(PROXY_FIRST_BYTE_TIMEOUT_S), answer.as_mut()).await {
            Ok(answer) => break answer,
            // A long upload is not an answer that is late.
            Err(_) => match progress.as_ref().map(|moved| moved.load(Ordering::Relaxed)) {
                Some(now) if now != before => before = now,
                _ => return Err(Failed::Late(late())),
            },
        }
    };
    answer.map_err(|mut failed| match failed.take_message() {
        Some(request) => Failed::Unsent(Box::new(request)),
        None => {
            let error = failed.into_error();
            if error.is_parse() {
                let what = "the server's answer is not HTTP/1.1, or its head is too large";
                return Failed::Late(Error::new(ErrorCode::ServiceFailed, what).source(error));
            }
            if progress.is_some_and(|moved| moved.load(Ordering::Relaxed) == BROKEN) {
                let what = "the request's body is broken, or does not come";
                return Failed::Late(Error::new(ErrorCode::InvalidRequest, what).source(error));
            }
            Failed::Broken(broken_off("before it answered").source(error))
        }
    })
}

fn late() -> Error {
    let message = format!("the server did not begin to answer within {PROXY_FIRST_BYTE_TIMEOUT_S} seconds");
    Error::new(ErrorCode::ServiceTimeout, message)
}

fn broken_off(when: &str) -> Error {
    Error::new(ErrorCode::ServiceFailed, format!("the server closed the connection {when}"))
}
