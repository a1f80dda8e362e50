//! The S3 operations that a file system needs, against one bucket of one endpoint.
//!
//! | | |
//! |---|---|
//! | [`failure`] | what went wrong, whether to try again, which errno it is |
//! | [`xml`] | bounded answers |
//! | [`connect`] | sockets from the dialer, TLS |
//! | [`request`] | one request: address, signature, attempts |
//!
//! Invariants
//! - Every operation ends: attempts, heads, pauses between two pieces of a body and their sum are bounded.
//! - An answer counts only when its length is what was asked for and its entity tag the one that was meant.
//! - Entity tags have their quotes, whether the server writes them (headers) or leaves them out (radosgw, in XML).
//! - Redirects are not followed: a signature goes to the one endpoint or nowhere.
//! - Over plain HTTP the payload's sum is signed, so that what arrives is what was sent; over TLS that is TLS's part.

mod connect;
mod failure;
mod request;
mod xml;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

pub(in crate::bucket) use failure::Failure;
use request::Call;
pub(in crate::bucket) use request::Client;
pub(in crate::bucket) use xml::{Listed, Page};

/// The least that a part of an upload may have, its last one apart.
pub(in crate::bucket) const PART_BYTES: u64 = 8 * 1024 * 1024;

/// Parts that an upload may have.
const PARTS_MAX: u64 = 10_000;

/// Bytes that one copy within the server may have; more is copied in parts.
const COPY_BYTES_MAX: u64 = 5 << 30;

/// Bytes of one part of such a copy.
const COPY_PART_BYTES: u64 = 1 << 30;

/// Seconds without a piece of a body after which its connection is given up.
const IDLE: Duration = Duration::from_secs(10);

const MODE: HeaderName = HeaderName::from_static("x-amz-meta-mode");
const MTIME: HeaderName = HeaderName::from_static("x-amz-meta-mtime");

/// What is kept of a file beside its bytes, in the metadata that s3fs and rclone use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bucket) struct Meta {
    /// Type and permissions (inode(7)).
    pub(in crate::bucket) mode: u32,
    /// When it was changed, in nanoseconds since 1970; when it was written, if this is not said.
    pub(in crate::bucket) mtime_ns: Option<i128>,
}

impl Meta {
    fn headers(self) -> impl Iterator<Item = (HeaderName, String)> {
        let mtime = self.mtime_ns.map(|mtime| {
            let (seconds, nanos) = (mtime.div_euclid(1_000_000_000), mtime.rem_euclid(1_000_000_000));
            (MTIME, format!("{seconds}.{nanos:09}"))
        });
        [(MODE, self.mode.to_string())].into_iter().chain(mtime)
    }
}

/// What a server says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bucket) struct Object {
    /// Its entity tag, with its quotes.
    pub(in crate::bucket) etag: String,
    /// Its bytes.
    pub(in crate::bucket) size: u64,
    /// Type and permissions, if its metadata say.
    pub(in crate::bucket) mode: Option<u32>,
    /// When it was changed: by its metadata, or when it was written.
    pub(in crate::bucket) mtime_ns: i128,
}

impl Object {
    fn of(headers: &HeaderMap, size: u64) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let written = text(&header::LAST_MODIFIED).and_then(|text| {
            jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(text)
                .ok()
                .map(jiff::Timestamp::as_nanosecond)
        });
        Self {
            etag: xml::quoted(text(&header::ETAG).unwrap_or_default()),
            size,
            mode: text(&MODE).and_then(|text| text.parse().ok()),
            mtime_ns: text(&MTIME).and_then(seconds).or(written).unwrap_or(0),
        }
    }

    fn is(&self, size: u64, meta: Meta) -> bool {
        self.size == size
            && self.mode == Some(meta.mode)
            && meta.mtime_ns.is_none_or(|mtime| mtime == self.mtime_ns)
    }
}

/// Seconds with a fraction, in nanoseconds: within what a clock of 64 bits can say.
fn seconds(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    Some(i128::from(whole) * 1_000_000_000 + i128::from(nanos))
}

/// What must be so in the bucket for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bucket) enum Condition {
    /// Nothing.
    None,
    /// There is no object.
    Absent,
    /// The object is this one.
    Is(String),
}

impl Condition {
    fn header(&self) -> Option<(HeaderName, String)> {
        match self {
            Self::None => None,
            Self::Absent => Some((header::IF_NONE_MATCH, "*".to_owned())),
            Self::Is(etag) => Some((header::IF_MATCH, etag.clone())),
        }
    }
}

/// The bytes of a range, as they come.
#[derive(Debug)]
pub(in crate::bucket) struct Body {
    incoming: Incoming,
    left: u64,
    client: Arc<Client>,
}

impl Body {
    /// The next piece; `None` after the last one.
    ///
    /// # Errors
    /// When it does not come, or the end comes before.
    pub(in crate::bucket) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        use http_body_util::BodyExt as _;
        while self.left > 0 {
            let frame =
                tokio::time::timeout(IDLE, self.incoming.frame()).await.map_err(|_| Failure::Timeout)?;
            let short = || Failure::Broken(format!("{} bytes are missing", self.left));
            let frame = frame.ok_or_else(short)?.map_err(|error| Failure::Broken(error.to_string()))?;
            let Ok(mut piece) = frame.into_data() else { continue };
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX).min(self.left);
            piece.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            self.left -= length;
            self.client.count_read(length);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// An upload in parts that has begun.
#[derive(Clone, Debug)]
pub(in crate::bucket) struct Upload {
    key: String,
    id: String,
}

impl Client {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the dialer's socket cannot be used, or the host has no name for TLS.
    pub(in crate::bucket) fn new(
        start: &crate::wire::bucket::BucketStart,
        dialer: OwnedFd,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Arc<Self>, Failure> {
        Self::build(start, dialer, tls).map(Arc::new)
    }

    /// What there is under a key.
    pub(in crate::bucket) async fn head(&self, key: &str) -> Result<Object, Failure> {
        let answer = self.exchange(Call::new(Method::HEAD, key)).await?;
        let length =
            answer.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let size = length.ok_or_else(|| Failure::Protocol("an object without a length".to_owned()))?;
        Ok(Object::of(&answer.headers, size))
    }

    /// Bytes of the object that has this entity tag; `length` is at least 1.
    pub(in crate::bucket) async fn get(
        self: &Arc<Self>,
        key: &str,
        etag: &str,
        offset: u64,
        length: u64,
    ) -> Result<Body, Failure> {
        let call = Call::new(Method::GET, key)
            .header(header::RANGE, format!("bytes={offset}-{}", offset + length - 1))
            .header(header::IF_MATCH, etag.to_owned());
        let response = self.open(&call).await?;
        let headers = response.headers();
        // Some servers take If-Match for a remark.
        let got = headers.get(header::ETAG).and_then(|value| value.to_str().ok()).map(xml::quoted);
        if got.as_deref() != Some(etag) {
            return Err(Failure::Changed);
        }
        let range =
            headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let starts = range.starts_with(&format!("bytes {offset}-{}/", offset + length - 1));
        let whole = response.status() == StatusCode::OK && offset == 0;
        if !(starts || whole) || response.body().size_hint().exact() != Some(length) {
            return Err(Failure::Protocol(format!("another range than bytes {offset}+{length}: '{range}'")));
        }
        Ok(Body { incoming: response.into_body(), left: length, client: Arc::clone(self) })
    }

    /// One page of the keys below a prefix: with `delimited`, those without a further slash.
    pub(in crate::bucket) async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        most: usize,
    ) -> Result<Page, Failure> {
        let mut call = Call::new(Method::GET, "")
            .query("list-type", "2")
            .query("encoding-type", "url")
            .query("prefix", prefix)
            .query("max-keys", &most.to_string());
        if delimited {
            call = call.query("delimiter", "/");
        }
        if let Some(next) = next {
            call = call.query("continuation-token", next);
        }
        let page = xml::page(&self.exchange(call).await?.body, prefix)?;
        // The same page for ever.
        if page.next.is_some() && page.next.as_deref() == next {
            return Err(Failure::Protocol("a list that goes on where it was".to_owned()));
        }
        Ok(page)
    }

    /// Writes an object and says its entity tag.
    pub(in crate::bucket) async fn put(
        &self,
        key: &str,
        body: Bytes,
        meta: Meta,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let call = Call::new(Method::PUT, key).body(body).headers(meta.headers()).headers(condition.header());
        match self.exchange(call).await {
            Ok(answer) => Ok(answer.etag()),
            Err(Failure::Changed) => self.ours(key, size, meta).await,
            Err(failure) => Err(failure),
        }
    }

    /// A write that was refused for its condition after all may have happened: the first attempt's answer was lost, and
    /// the second one found what the first had written.
    async fn ours(&self, key: &str, size: u64, meta: Meta) -> Result<String, Failure> {
        match self.head(key).await {
            Ok(object) if object.is(size, meta) => Ok(object.etag),
            _ => Err(Failure::Changed),
        }
    }

    /// Removes an object, if there is one.
    pub(in crate::bucket) async fn delete(&self, key: &str) -> Result<(), Failure> {
        match self.exchange(Call::new(Method::DELETE, key)).await {
            Ok(_) | Err(Failure::NotFound) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Copies an object of this size within the server, with other metadata, and says the copy's entity tag.
    pub(in crate::bucket) async fn copy(
        &self,
        from: &str,
        to: &str,
        size: u64,
        meta: Option<Meta>,
    ) -> Result<String, Failure> {
        if size > COPY_BYTES_MAX {
            return self.copy_in_parts(from, to, size, meta).await;
        }
        let mut call = Call::new(Method::PUT, to).header(request::COPY_SOURCE, self.source(from));
        if let Some(meta) = meta {
            call = call
                .header(HeaderName::from_static("x-amz-metadata-directive"), "REPLACE".to_owned())
                .headers(meta.headers());
        }
        let answer = self.exchange(call).await?;
        answer.made()?.etag.ok_or_else(|| Failure::Protocol("a copy without an entity tag".to_owned()))
    }

    async fn copy_in_parts(
        &self,
        from: &str,
        to: &str,
        size: u64,
        meta: Option<Meta>,
    ) -> Result<String, Failure> {
        let meta = match meta {
            Some(meta) => meta,
            None => {
                let object = self.head(from).await?;
                Meta { mode: object.mode.unwrap_or(0o100_644), mtime_ns: Some(object.mtime_ns) }
            }
        };
        let upload = self.begin(to, meta).await?;
        let mut parts = Vec::new();
        for (number, start) in
            (1..).zip((0..size).step_by(usize::try_from(COPY_PART_BYTES).unwrap_or(usize::MAX)))
        {
            let end = (start + COPY_PART_BYTES).min(size) - 1;
            let call = Call::new(Method::PUT, to)
                .query("partNumber", &number.to_string())
                .query("uploadId", &upload.id)
                .header(request::COPY_SOURCE, self.source(from))
                .header(HeaderName::from_static("x-amz-copy-source-range"), format!("bytes={start}-{end}"));
            match self.exchange(call).await.and_then(|answer| answer.made()) {
                Ok(made) => parts.push(made.etag.unwrap_or_default()),
                Err(failure) => {
                    self.abort(&upload).await;
                    return Err(failure);
                }
            }
        }
        self.complete(&upload, &parts, size, meta, &Condition::None).await
    }

    /// Begins an upload in parts.
    pub(in crate::bucket) async fn begin(&self, key: &str, meta: Meta) -> Result<Upload, Failure> {
        let call = Call::new(Method::POST, key).query("uploads", "").headers(meta.headers());
        let made = self.exchange(call).await?.made()?;
        let id = made.upload_id.ok_or_else(|| Failure::Protocol("an upload without a number".to_owned()))?;
        Ok(Upload { key: key.to_owned(), id })
    }

    /// Sends a part, numbered from 1, and says its entity tag.
    pub(in crate::bucket) async fn part(
        &self,
        upload: &Upload,
        number: u64,
        body: Bytes,
    ) -> Result<String, Failure> {
        let call = Call::new(Method::PUT, &upload.key)
            .query("partNumber", &number.to_string())
            .query("uploadId", &upload.id)
            .body(body);
        Ok(self.exchange(call).await?.etag())
    }

    /// Whether the bucket is as a condition wants it, as far as asking can say.
    async fn hold(&self, key: &str, condition: &Condition) -> Result<(), Failure> {
        let etag = match self.head(key).await {
            Ok(object) => Some(object.etag),
            Err(Failure::NotFound) => None,
            Err(failure) => return Err(failure),
        };
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => etag.is_none(),
            Condition::Is(wanted) => etag.as_ref() == Some(wanted),
        };
        if holds { Ok(()) } else { Err(Failure::Changed) }
    }

    /// Makes one object of the parts with these entity tags, in order. Some servers take the condition for a remark here,
    /// so it is asked for before, too.
    pub(in crate::bucket) async fn complete(
        &self,
        upload: &Upload,
        parts: &[String],
        size: u64,
        meta: Meta,
        condition: &Condition,
    ) -> Result<String, Failure> {
        use std::fmt::Write as _;
        if *condition != Condition::None {
            self.hold(&upload.key, condition).await?;
        }
        let mut body = String::from("<CompleteMultipartUpload>");
        for (number, etag) in (1..).zip(parts) {
            let etag = etag.replace('&', "&amp;").replace('<', "&lt;");
            // Writing to a string cannot fail.
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let call = Call::new(Method::POST, &upload.key)
            .query("uploadId", &upload.id)
            .header(header::CONTENT_TYPE, "application/xml".to_owned())
            .headers(condition.header())
            .body(Bytes::from(body));
        match self.exchange(call).await.and_then(|answer| answer.made()) {
            Ok(made) => match made.etag.filter(|etag| !etag.is_empty()) {
                Some(etag) => Ok(etag),
                // radosgw 16 says none.
                None => self.ours(&upload.key, size, meta).await,
            },
            // As for PUT: the first attempt may have done it.
            Err(failure @ (Failure::Changed | Failure::NotFound)) => {
                self.ours(&upload.key, size, meta).await.map_err(|_| failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Gives up an upload, as well as that goes: what stays of it is for the bucket's life-cycle rules.
    pub(in crate::bucket) async fn abort(&self, upload: &Upload) {
        let call = Call::new(Method::DELETE, &upload.key).query("uploadId", &upload.id);
        if let Err(failure) = self.exchange(call).await {
            tracing::debug!(%failure, "cannot give up an upload");
        }
    }
}

/// Bytes that each part of an upload has, so that all of them are few enough.
pub(in crate::bucket) fn part_bytes(size: u64) -> u64 {
    size.div_ceil(PARTS_MAX).max(PART_BYTES).next_multiple_of(1024 * 1024)
}

impl request::Answer {
    fn etag(&self) -> String {
        xml::quoted(self.headers.get(header::ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default())
    }

    /// What was made, unless the answer is a refusal that came too late for its status.
    fn made(&self) -> Result<xml::Made, Failure> {
        let made: xml::Made = xml::parse(&self.body)?;
        match made.code {
            Some(_) => {
                Err(failure::of_answer(StatusCode::INTERNAL_SERVER_ERROR.as_u16(), &self.body, None, None))
            }
            None => Ok(xml::Made { etag: made.etag.as_deref().map(xml::quoted), ..made }),
        }
    }
}

/// A header's value from text of our own or of the server's.
fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::Protocol("text that is none of a header".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_back_equal_and_is_read_as_others_write_it() {
        for mtime_ns in [0, 1_700_000_000_123_456_789, -1, -1_500_000_000] {
            let meta = Meta { mode: 0o100_755, mtime_ns: Some(mtime_ns) };
            let mut headers = HeaderMap::new();
            for (name, text) in meta.headers() {
                headers.insert(name, value(&text).expect("value"));
            }
            let object = Object::of(&headers, 5);
            assert!(object.is(5, meta), "{object:?}");
        }
        assert_eq!(seconds("1700000000"), Some(1_700_000_000_000_000_000), "s3fs");
        assert_eq!(seconds("1700000000.5"), Some(1_700_000_000_500_000_000), "rclone");
        assert_eq!((seconds("x"), seconds("1.x"), seconds("99999999999999999999")), (None, None, None));
    }

    #[test]
    fn parts_are_few_enough() {
        assert_eq!(part_bytes(1), PART_BYTES);
        for size in [PART_BYTES * PARTS_MAX, PART_BYTES * PARTS_MAX + 1, 5 << 40] {
            assert!(size.div_ceil(part_bytes(size)) <= PARTS_MAX);
        }
    }
}
