//! One request: its address, its signature, and as many attempts as it is worth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::{Context, SignRequest as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::connect::{ConnectError, Connector};
use super::failure::{self, Failure};
use super::{IDLE, value, xml};
use crate::id::Digest;
use crate::wire::bucket::{Addressing, BucketStart, BucketStatus, Credentials, Scheme};

/// What is escaped in a query: all but the unreserved (RFC 3986 §2.3), as signatures want it.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// And in a path.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// How long connections are tried to a server that has never answered anything. Whoever mounts waits for that.
const STRANGER: Duration = Duration::from_secs(2);

/// How long a server may take until the head of its answer is there.
const HEAD: Duration = Duration::from_secs(8);

/// A line as slow as this is still waited for, in bytes per second: time for bodies is beyond the two bounds above.
const SLOWEST: u64 = 256 * 1024;

/// Connections that are kept for later.
const IDLE_CONNECTIONS: usize = 32;

pub(super) const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const CONTENT_SUM: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const UNSIGNED: HeaderValue = HeaderValue::from_static("UNSIGNED-PAYLOAD");

/// What is asked.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    key: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl Call {
    /// About the object of this key, or about the bucket if it is empty.
    pub(super) fn new(method: Method, key: &str) -> Self {
        Self { method, key: key.to_owned(), query: Vec::new(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn headers(mut self, headers: impl IntoIterator<Item = (HeaderName, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    fn time_for_body(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.body.len()).unwrap_or(u64::MAX) / SLOWEST)
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer, read or still to be read.
enum Got {
    Whole(Answer),
    Open(Response<Incoming>),
}

/// A client of one bucket.
#[derive(Debug)]
pub(in crate::bucket) struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    scheme: Scheme,
    authority: String,
    /// Before every key.
    path: String,
    bucket: String,
    region: String,
    patience: Duration,
    credentials: watch::Sender<Option<Arc<reqsign_aws_v4::Credential>>>,
    /// Told when the credentials are no longer good.
    pub(in crate::bucket) expired: Notify,
    /// The server has answered something.
    answered: AtomicBool,
    requests: AtomicU64,
    retries: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Client {
    pub(super) fn build(
        start: &BucketStart,
        dialer: std::os::fd::OwnedFd,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, Failure> {
        let endpoint = &start.endpoint;
        let bucket = utf8_percent_encode(&start.bucket, PATH).to_string();
        let (host, path) = match start.addressing {
            Addressing::Path => (endpoint.host.clone(), format!("{}/{bucket}/", endpoint.path)),
            Addressing::Host => (format!("{bucket}.{}", endpoint.host), format!("{}/", endpoint.path)),
        };
        // The signature covers this text.
        let authority = endpoint.authority(&host);
        let tls = (endpoint.scheme == Scheme::Https).then_some((tls, host));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(Connector::new(dialer, tls)?);
        Ok(Self {
            pool,
            scheme: endpoint.scheme,
            authority,
            path,
            bucket,
            region: start.region.clone(),
            patience: Duration::from_millis(start.patience_ms),
            credentials: watch::Sender::new(key(&start.credentials)),
            expired: Notify::new(),
            answered: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        })
    }

    /// Signs with these from now on.
    pub(in crate::bucket) fn renew(&self, credentials: &Credentials) {
        self.credentials.send_replace(key(credentials));
    }

    /// Adds what was sent and received.
    pub(in crate::bucket) fn counted(&self, status: BucketStatus) -> BucketStatus {
        BucketStatus {
            requests: self.requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            ..status
        }
    }

    pub(super) fn count_read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The value of [`COPY_SOURCE`] for a key.
    pub(super) fn source(&self, key: &str) -> String {
        format!("/{}/{}", self.bucket, utf8_percent_encode(key, PATH))
    }

    /// Sends a request until it is answered, and reads the answer whole.
    pub(super) async fn exchange(&self, call: Call) -> Result<Answer, Failure> {
        let answer = match self.persist(&call, true).await? {
            Got::Whole(answer) => answer,
            Got::Open(_) => return Err(Failure::Protocol("an answer that was not read".to_owned())),
        };
        self.bytes_written.fetch_add(u64::try_from(call.body.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(answer)
    }

    /// Sends a request until it is answered; the body is still to be read.
    pub(super) async fn open(&self, call: &Call) -> Result<Response<Incoming>, Failure> {
        match self.persist(call, false).await? {
            Got::Open(response) => Ok(response),
            Got::Whole(_) => Err(Failure::Protocol("an answer that was read".to_owned())),
        }
    }

    async fn persist(&self, call: &Call, whole: bool) -> Result<Got, Failure> {
        let begun = Instant::now();
        let deadline = begun + self.patience + call.time_for_body();
        let mut credentials = self.credentials.subscribe();
        let mut attempt = 0;
        loop {
            let key = credentials.borrow_and_update().clone();
            let done = async {
                let response = self.attempt(call, key.as_deref()).await?;
                if !whole {
                    return Ok(Got::Open(response));
                }
                let (parts, body) = response.into_parts();
                Ok(Got::Whole(Answer { headers: parts.headers, body: read(body, xml::BYTES_MAX).await? }))
            };
            let failure = match tokio::time::timeout_at(deadline, done).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(Failure::Timeout),
            };
            let again = match &failure {
                Failure::Expired => {
                    self.expired.notify_one();
                    tokio::time::timeout_at(deadline, credentials.changed())
                        .await
                        .is_ok_and(|changed| changed.is_ok())
                }
                failure if failure.passes() => {
                    let pause = failure::pause(attempt);
                    let strange =
                        matches!(failure, Failure::Connect(_)) && !self.answered.load(Ordering::Relaxed);
                    let until = if strange { deadline.min(begun + STRANGER) } else { deadline };
                    let in_time = Instant::now() + pause < until;
                    if in_time {
                        tokio::time::sleep(pause).await;
                    }
                    in_time
                }
                _ => false,
            };
            if !again {
                return Err(failure);
            }
            tracing::debug!(%failure, method = %call.method, "again");
            self.retries.fetch_add(1, Ordering::Relaxed);
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        key: Option<&reqsign_aws_v4::Credential>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request(call, key).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(HEAD + call.time_for_body(), self.pool.request(request)).await;
        let response = answer.map_err(|_| Failure::Timeout)?.map_err(|error| broken(&error))?;
        self.answered.store(true, Ordering::Relaxed);
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (region, location) = (text("x-amz-bucket-region"), text("location"));
        let body = read(response.into_body(), 64 * 1024).await.unwrap_or_default();
        Err(failure::of_answer(status.as_u16(), &body, region, location))
    }

    async fn request(
        &self,
        call: &Call,
        key: Option<&reqsign_aws_v4::Credential>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let mut address =
            format!("{scheme}://{}{}{}", self.authority, self.path, utf8_percent_encode(&call.key, PATH));
        for (index, (name, value)) in call.query.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            address.push_str(&format!("{separator}{name}={}", utf8_percent_encode(value, QUERY)));
        }
        let uri: Uri = address.parse().map_err(|_| Failure::Protocol("a key that is no path".to_owned()))?;
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        let (mut parts, ()) = request.into_parts();
        parts.headers.insert(header::HOST, value(&self.authority)?);
        if matches!(call.method, Method::PUT | Method::POST) {
            // Of an empty body nothing would be said, and servers refuse that.
            parts.headers.insert(header::CONTENT_LENGTH, call.body.len().into());
        }
        for (name, text) in &call.headers {
            parts.headers.insert(name.clone(), value(text)?);
        }
        if let Some(key) = key {
            let sum = match self.scheme {
                Scheme::Https => UNSIGNED,
                Scheme::Http => value(&Digest::from_bytes(Sha256::digest(&call.body).into()).hex())?,
            };
            parts.headers.insert(CONTENT_SUM, sum);
            let (signer, context) = (RequestSigner::new("s3", &self.region), Context::new());
            let signed = signer.sign_request(&context, &mut parts, Some(key), None).await;
            signed.map_err(|error| Failure::Protocol(error.to_string()))?;
        }
        Ok(Request::from_parts(parts, Full::new(call.body.clone())))
    }
}

fn key(credentials: &Credentials) -> Option<Arc<reqsign_aws_v4::Credential>> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Keys { access_key_id, secret_access_key, session_token, .. } => {
            Some(Arc::new(reqsign_aws_v4::Credential {
                access_key_id: access_key_id.clone(),
                secret_access_key: secret_access_key.clone(),
                session_token: session_token.clone(),
                // Whether they are still good is what the server says.
                expires_in: None,
            }))
        }
    }
}

async fn read(mut body: Incoming, most: usize) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = tokio::time::timeout(IDLE, body.frame()).await.map_err(|_| Failure::Timeout)? {
        let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
        if let Ok(piece) = frame.into_data() {
            if bytes.len() + piece.len() > most {
                return Err(Failure::Protocol(format!("an answer of more than {most} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes.into())
}

fn broken(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return Failure::Connect(error.clone());
        }
        last = error.to_string();
        source = error.source();
    }
    Failure::Broken(last)
}
