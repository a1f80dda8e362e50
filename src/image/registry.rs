//! The distribution API: manifests and blobs, by digest wherever there is one. What is sent there: [`push`](super::push).
//!
//! What passes by itself is tried again: a lost connection, 408, 429 and 5xx, after a pause that doubles and has
//! some chance in it, or as long as the registry says. A blob goes on from the byte where it stopped.
//! Redirects of blobs lead to other hosts, as a rule; the registry's authorization does not go there.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
    USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use url::Url;

use crate::id::Digest;
use crate::image::auth::{self, AuthError, Step};
use crate::image::blobs::{BlobError, Blobs, Partial};
use crate::image::http::{self, DialError, HttpClient, HttpError};
use crate::image::manifest::{INDEX_TYPES, Link, MANIFEST_TYPES};
use crate::image::reference::Reference;
use crate::limits::{
    MANIFEST_BYTES_MAX, REDIRECTS_MAX, REGISTRY_ATTEMPTS_MAX, RETRY_AFTER_MAX_S, TOKEN_BYTES_MAX,
};
use crate::wire::fetch::{Credentials, PullJob};

/// Why something could not be had from a registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It wants credentials that we do not have, or asks for them in a way that we refuse.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The credentials are not good for this.
    #[error("{host} refuses access ({status})")]
    Denied {
        /// Who.
        host: String,
        /// 401 or 403.
        status: StatusCode,
    },
    /// It has no such thing.
    #[error("{host} has no {what}")]
    NotFound {
        /// Who.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// An answer that the protocol does not foresee.
    #[error("{host} answered {status}")]
    Status {
        /// Who.
        host: String,
        /// With what.
        status: StatusCode,
    },
    /// A redirect to nowhere, in a circle, or to where we do not go.
    #[error("{host} redirects {why}")]
    Redirect {
        /// Who.
        host: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Bytes that are not what was asked for.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The reference makes no URL.
    #[error("'{0}' is not the address of a registry")]
    Address(String),
}

/// One repository of one registry.
#[derive(Debug)]
pub(super) struct Registry {
    client: HttpClient,
    base: Url,
    pub(super) repository: String,
    /// What it is asked for, in the words of token servers.
    actions: &'static str,
    credentials: Credentials,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest or index as it came.
#[derive(Debug)]
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) media_type: Option<String>,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether it may be sent again when nobody knows what became of it.
    pub(super) repeats: bool,
}

impl Default for Ask {
    fn default() -> Self {
        Self { method: Method::GET, headers: HeaderMap::new(), body: Bytes::new(), repeats: true }
    }
}

impl Registry {
    /// Prepares to speak to the registry of a reference; see [`HttpClient::new`] for when.
    pub(super) fn new(
        reference: &Reference,
        job: &PullJob,
        actions: &'static str,
    ) -> Result<Self, RegistryError> {
        let scheme = if job.plain_http { "http" } else { "https" };
        let address = || RegistryError::Address(reference.endpoint().to_owned());
        let base = Url::parse(&format!("{scheme}://{}/", reference.endpoint())).map_err(|_| address())?;
        if base.host_str().is_none() || base.path() != "/" {
            return Err(address());
        }
        Ok(Self {
            client: HttpClient::new(&base, job.ca_pem.as_deref())?,
            base,
            repository: reference.repository().to_owned(),
            actions,
            credentials: job.credentials.clone(),
            authorization: Mutex::new(None),
        })
    }

    /// Finds out whether a registry on this machine speaks TLS; if it does not, plain HTTP leaves no machine.
    pub(super) async fn settle_scheme(&mut self) {
        if self.base.scheme() != "https" || !http::is_loopback(&self.base) {
            return;
        }
        let request = self.request(&Ask::default(), &self.url("v2/"));
        if let Err(HttpError::Dial(DialError::NoTls { .. } | DialError::Connect { .. })) =
            self.client.send(request).await
        {
            // Cannot fail: http and https are both special schemes.
            let _ = self.base.set_scheme("http");
        }
    }

    /// Gets a manifest or index by tag or digest, the latter verified.
    pub(super) async fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest, RegistryError> {
        let url = self.url(&format!("v2/{}/manifests/{tag_or_digest}", self.repository));
        let accept = [MANIFEST_TYPES, INDEX_TYPES].concat().join(", ");
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::try_from(accept).unwrap_or(HeaderValue::from_static("*/*")));
        let mut attempt = 0;
        loop {
            let what = format!("manifest '{tag_or_digest}'");
            let ask = Ask { headers: headers.clone(), ..Ask::default() };
            let response = self.exchange(&ask, &url, &what).await?;
            if response.status() != StatusCode::OK {
                return Err(RegistryError::Status { host: self.host(), status: response.status() });
            }
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            let media_type = header(CONTENT_TYPE.as_str()).map(str::to_owned);
            let promised = header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
            let max = usize::try_from(MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
            let bytes = match http::whole_body(&self.host(), response.into_body(), max).await {
                Ok(bytes) => bytes,
                Err(error) if error.passes() && attempt + 1 < REGISTRY_ATTEMPTS_MAX => {
                    pause(attempt, None).await;
                    attempt += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let found = Digest::from_bytes(Sha256::digest(&bytes).into());
            let expected = Digest::parse(tag_or_digest).ok().or(promised).unwrap_or(found);
            if found != expected {
                return Err(BlobError::Digest { expected, found }.into());
            }
            return Ok(RawManifest { bytes, digest: found, media_type });
        }
    }

    /// Downloads a blob into the store unless it is there. `progress` is told how many bytes there are.
    pub(super) async fn blob(
        &self,
        blobs: &Blobs,
        link: Link,
        progress: impl Fn(u64),
    ) -> Result<(), RegistryError> {
        let Some(mut partial) = locked(blobs, link.digest).await? else { return Ok(()) };
        let mut resumed = partial.len() > 0;
        let mut attempt = 0;
        loop {
            if partial.len() > link.size {
                partial.restart()?;
            }
            let before = partial.len();
            let outcome = self.transfer(&mut partial, link, &progress).await;
            match outcome {
                Ok(()) => match partial.commit(link.digest, link.size) {
                    // What an earlier attempt left behind was bad: once more, from the start.
                    Err(BlobError::Digest { .. } | BlobError::Size { .. }) if resumed => {
                        resumed = false;
                        match locked(blobs, link.digest).await? {
                            Some(fresh) => partial = fresh,
                            None => return Ok(()),
                        }
                    }
                    other => return Ok(other?),
                },
                Err(RegistryError::Http(error)) if error.passes() => {
                    // A connection that brought something is not a failed attempt.
                    attempt = if partial.len() > before { 0 } else { attempt + 1 };
                    if attempt >= REGISTRY_ATTEMPTS_MAX {
                        return Err(error.into());
                    }
                    pause(attempt, None).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One request for what is missing of a blob.
    async fn transfer(
        &self,
        partial: &mut Partial,
        link: Link,
        progress: &impl Fn(u64),
    ) -> Result<(), RegistryError> {
        if partial.len() == link.size {
            return Ok(());
        }
        let url = self.url(&format!("v2/{}/blobs/{}", self.repository, link.digest));
        let mut headers = HeaderMap::new();
        if partial.len() > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", partial.len()));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let ask = Ask { headers, ..Ask::default() };
        let response = self.exchange(&ask, &url, &format!("blob {}", link.digest)).await?;
        match response.status() {
            StatusCode::OK => partial.restart()?,
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), partial.len()) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                partial.restart()?;
                return Err(RegistryError::Http(HttpError::Connection {
                    host: self.host(),
                    source: "the range is not the one asked for".into(),
                }));
            }
            status => return Err(RegistryError::Status { host: self.host(), status }),
        }
        let mut body = response.into_body();
        while let Some(piece) = http::next_piece(&self.host(), &mut body).await? {
            if partial.len() + piece.len() as u64 > link.size {
                let found = partial.len() + piece.len() as u64;
                partial.discard();
                return Err(BlobError::Size { digest: link.digest, expected: link.size, found }.into());
            }
            partial.write(&piece)?;
            progress(partial.len());
        }
        if partial.len() < link.size {
            return Err(RegistryError::Http(HttpError::Connection {
                host: self.host(),
                source: "the blob ends too early".into(),
            }));
        }
        Ok(())
    }

    /// Asks for a URL of the registry through authentication, redirects and attempts.
    pub(super) async fn exchange(
        &self,
        ask: &Ask,
        start: &Url,
        what: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let attempts = if ask.repeats { REGISTRY_ATTEMPTS_MAX } else { 1 };
        let (mut url, mut redirects, mut attempt, mut asked) = (start.clone(), 0, 0, false);
        loop {
            let mut request = self.request(ask, &url);
            let authorization = self.authorization.lock().await.clone();
            if url.origin() == self.base.origin()
                && let Some(authorization) = &authorization
            {
                request.headers_mut().insert(AUTHORIZATION, authorization.clone());
            }
            let host = url.host_str().unwrap_or_default().to_owned();
            let response = match self.client.send(request).await {
                Ok(response) => response,
                Err(error) if error.passes() && attempt + 1 < attempts => {
                    pause(attempt, None).await;
                    attempt += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match response.status() {
                status if status.is_redirection() && ask.body.is_empty() => {
                    redirects += 1;
                    url = redirect(&url, &response, redirects)?;
                }
                StatusCode::UNAUTHORIZED if !asked && url.origin() == self.base.origin() => {
                    asked = true;
                    self.authenticate(response.headers(), authorization).await?;
                }
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    return Err(RegistryError::Denied { host, status });
                }
                StatusCode::NOT_FOUND => return Err(RegistryError::NotFound { host, what: what.to_owned() }),
                status if passes(status) => {
                    if attempt + 1 >= attempts {
                        return Err(RegistryError::Status { host, status });
                    }
                    pause(attempt, retry_after(response.headers())).await;
                    attempt += 1;
                    // A signed location may have run out: ask the registry for another.
                    url = start.clone();
                    redirects = 0;
                }
                status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Ok(response);
                }
                status => return Err(RegistryError::Status { host, status }),
            }
        }
    }

    /// Answers a challenge, once for all requests that met it.
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        used: Option<HeaderValue>,
    ) -> Result<(), RegistryError> {
        let mut authorization = self.authorization.lock().await;
        if *authorization != used {
            return Ok(());
        }
        let challenges: Vec<_> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let answer =
            auth::answer(&challenges, &self.base, (&self.repository, self.actions), &self.credentials)?;
        *authorization = Some(match answer {
            Step::Retry(value) => value,
            Step::Token(url, basic) => self.token(&url, basic).await?,
        });
        Ok(())
    }

    async fn token(&self, url: &Url, basic: Option<HeaderValue>) -> Result<HeaderValue, RegistryError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut attempt = 0;
        loop {
            let mut request = self.request(&Ask::default(), url);
            request.headers_mut().extend(basic.clone().map(|basic| (AUTHORIZATION, basic)));
            match self.client.send(request).await {
                Ok(response) if response.status() == StatusCode::OK => {
                    let body = http::whole_body(&host, response.into_body(), TOKEN_BYTES_MAX).await?;
                    return Ok(auth::token(&body)?);
                }
                Ok(response) if passes(response.status()) && attempt + 1 < REGISTRY_ATTEMPTS_MAX => {
                    pause(attempt, retry_after(response.headers())).await;
                }
                Err(error) if error.passes() && attempt + 1 < REGISTRY_ATTEMPTS_MAX => {
                    pause(attempt, None).await
                }
                Ok(response) => {
                    let status = response.status();
                    return Err(match status {
                        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                            RegistryError::Denied { host, status }
                        }
                        // A redirect too: nobody needs one here, and it would carry the credentials away.
                        status => RegistryError::Status { host, status },
                    });
                }
                Err(error) => return Err(error.into()),
            }
            attempt += 1;
        }
    }

    fn request(&self, ask: &Ask, url: &Url) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        // Every URL here has a host and a path of its own; one that hyper cannot take fails to connect.
        *request.uri_mut() = url.as_str().parse().unwrap_or_default();
        request.headers_mut().extend(ask.headers.clone());
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("stockade/", env!("CARGO_PKG_VERSION"))));
        request
    }

    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    pub(super) fn host(&self) -> String {
        self.base.host_str().unwrap_or_default().to_owned()
    }
}

fn passes(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Where an answer leads to.
pub(super) fn redirect(from: &Url, response: &Response<Incoming>, count: u32) -> Result<Url, RegistryError> {
    let refuse = |why| RegistryError::Redirect { host: from.host_str().unwrap_or_default().to_owned(), why };
    if count > REDIRECTS_MAX {
        return Err(refuse("too often"));
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| refuse("without saying where to"))?;
    let to = from.join(location).map_err(|_| refuse("to something that is not a URL"))?;
    match to.scheme() {
        "https" => Ok(to),
        "http" if from.scheme() == "http" => Ok(to),
        _ => Err(refuse("to a place without TLS")),
    }
}

fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(std::cmp::min(seconds, RETRY_AFTER_MAX_S)))
}

/// Waits before the next attempt: 0.25 s, 0.5 s, 1 s …, each between half and all of it.
pub(super) async fn pause(attempt: u32, asked: Option<Duration>) {
    let whole = Duration::from_millis(250 << attempt.min(6));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Clients that failed together shall not come back together: the clock's last digits are chance enough.
    let part = whole / 2 + whole / 2 * (clock.subsec_nanos() % 1000) / 1000;
    tokio::time::sleep(asked.unwrap_or(part)).await;
}

async fn locked(blobs: &Blobs, digest: Digest) -> Result<Option<Partial>, BlobError> {
    let blobs = blobs.clone();
    // Waits for another process, and reads what is there already.
    blocking(move || blobs.partial(digest)).await
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
