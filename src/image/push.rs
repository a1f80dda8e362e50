//! Images on their way to a registry (distribution specification, "Pushing").
//!
//! A blob goes in chunks, each a request of its own, so that no answer takes longer than one of them and memory holds one.
//! What breaks on the way begins again with a new upload; the registry forgets the old one.

use bytes::Bytes;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use crate::id::Digest;
use crate::image::blobs::{BlobError, Blobs};
use crate::image::documents::MANIFEST_TYPE;
use crate::image::manifest::Link;
use crate::image::registry::{Ask, Registry, RegistryError, blocking, pause, redirect};
use crate::limits::{MANIFEST_BYTES_MAX, REGISTRY_ATTEMPTS_MAX};

/// Bytes of a chunk: above the 5 MiB that registries on object stores want of all but the last.
const CHUNK_BYTES: u64 = 8 * 1024 * 1024;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

impl Registry {
    /// Sends a blob unless the registry has it. `progress` is told how many bytes are there.
    pub(super) async fn push_blob(
        &self,
        blobs: &Blobs,
        link: Link,
        progress: impl Fn(u64),
    ) -> Result<(), RegistryError> {
        if self.has(link.digest).await? {
            progress(link.size);
            return Ok(());
        }
        let mut attempt = 0;
        loop {
            match self.upload(blobs, link, &progress).await {
                Err(RegistryError::Http(error)) if error.passes() && attempt + 1 < REGISTRY_ATTEMPTS_MAX => {
                    pause(attempt, None).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn has(&self, digest: Digest) -> Result<bool, RegistryError> {
        let url = self.url(&format!("v2/{}/blobs/{digest}", self.repository));
        let ask = Ask { method: Method::HEAD, ..Ask::default() };
        match self.exchange(&ask, &url, "such blob").await {
            Ok(response) => Ok(response.status() == StatusCode::OK),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn upload(&self, blobs: &Blobs, link: Link, progress: &impl Fn(u64)) -> Result<(), RegistryError> {
        let begin = self.url(&format!("v2/{}/blobs/uploads/", self.repository));
        let ask = Ask { method: Method::POST, ..Ask::default() };
        let begun = self.exchange(&ask, &begin, "repository of that name").await?;
        let mut place = redirect(&begin, &begun, 1)?;
        let mut sent = 0;
        while sent < link.size {
            let body = chunk(blobs, link, sent).await?;
            let end = sent + body.len() as u64;
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, OCTETS)]);
            let range = HeaderValue::try_from(format!("{sent}-{}", end - 1));
            headers.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
            let ask = Ask { method: Method::PATCH, headers, body, repeats: false };
            let taken = self.exchange(&ask, &place, "upload any more").await?;
            place = redirect(&place, &taken, 1)?;
            sent = end;
            progress(sent);
        }
        place.query_pairs_mut().append_pair("digest", &link.digest.to_string());
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, OCTETS)]);
        let ask = Ask { method: Method::PUT, headers, repeats: false, ..Ask::default() };
        self.exchange(&ask, &place, "upload any more").await.map(|_| ())
    }

    /// Names an image whose blobs are there.
    pub(super) async fn push_manifest(
        &self,
        blobs: &Blobs,
        tag: &str,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let body = Bytes::from(blobs.read(digest, MANIFEST_BYTES_MAX)?);
        let url = self.url(&format!("v2/{}/manifests/{tag}", self.repository));
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(MANIFEST_TYPE))]);
        let ask = Ask { method: Method::PUT, headers, body, ..Ask::default() };
        let named = self.exchange(&ask, &url, "repository of that name").await?;
        let found = named.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match found.and_then(|text| Digest::parse(text).ok()) {
            Some(found) if found != digest => Err(BlobError::Digest { expected: digest, found }.into()),
            _ => Ok(()),
        }
    }
}

async fn chunk(blobs: &Blobs, link: Link, start: u64) -> Result<Bytes, BlobError> {
    let blobs = blobs.clone();
    blocking(move || {
        let file = blobs.open(link.digest)?;
        let length = usize::try_from(CHUNK_BYTES.min(link.size - start)).unwrap_or_default();
        let mut bytes = vec![0; length];
        let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, start);
        read.map_err(|source| BlobError::Io { operation: "read", name: link.digest.hex(), source })?;
        Ok(bytes.into())
    })
    .await
}
