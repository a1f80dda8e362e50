//! An image of what a sandbox has: one layer, with all of its files as they are seen in it.
//!
//! ```text
//! tar ─▶ zstd ─▶ blob, under its digest ─▶ launch: unpack, as any layer ─▶ configuration, manifest ─▶ index
//! ```
//! The tar is untrusted code's, and is unpacked as a stranger's layer is.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast;

use super::failed::Failed;
use super::{Catalog, Image, Inner, PROGRESS_QUEUED, parse_new};
use crate::error::Error;
use crate::id::Digest;
use crate::image::blobs::{BlobError, Blobs, Partial};
use crate::image::reference;
use crate::sandbox::compress::compressed;
use crate::wire::fetch::{FetchedImage, ImageConfig, Layer};

/// A blob as something to write to. What is not taken out of it is removed.
struct Sink(Option<Partial>);

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(partial) = &self.0 {
            partial.discard();
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(partial) = &mut self.0 else { return Ok(0) };
        match partial.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) if error.is_full() => Err(std::io::ErrorKind::StorageFull.into()),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(error: BlobError) -> Error {
    Error::internal("cannot store the image", error)
}

impl Catalog {
    /// Enters an image of one layer.
    ///
    /// # Errors
    /// What the stream says when it breaks; `IMAGE_INVALID` when its files make no layer; `CAPACITY_EXHAUSTED`.
    pub async fn commit(
        &self,
        reference: &str,
        config: ImageConfig,
        tar: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<Image, Error> {
        let name = parse_new(reference).map_err(Failed::into_error)?.to_string();
        self.0.load().await.map_err(Failed::into_error)?;
        let gate = self.0.gate.read().await;
        let entered = self.0.commit(name, config, tar).await;
        if entered.is_err() {
            self.0.garbage.store(true, Ordering::Release);
        }
        drop(gate);
        self.0.collect_if_idle().await;
        entered
    }
}

impl Inner {
    async fn commit(
        &self,
        reference: String,
        config: ImageConfig,
        tar: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<Image, Error> {
        let blobs = self.store.blobs().clone();
        let sum = Arc::new(Mutex::new(Sha256::new()));
        let seen = Arc::clone(&sum);
        let see = move |chunk: &[u8]| seen.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
        let partial = blobs.anonymous().map_err(failed)?;
        let mut sink = compressed(tar, Sink(Some(partial)), see).await?;
        let Some(partial) = sink.0.take() else { return Err(Failed::bug("the layer is gone").into_error()) };
        let (digest, size_bytes) = partial.commit_as_found().map_err(failed)?;
        let sum = sum.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let layer = Layer { digest, diff_id: Digest::from_bytes(sum.finalize().into()), size_bytes };
        let (progress, _) = broadcast::channel(PROGRESS_QUEUED);
        self.layer(layer, None, &progress).await.map_err(Failed::into_error)?;
        let image = documents(&blobs, reference, config, layer).map_err(failed)?;
        self.enter(image).map_err(Failed::into_error)
    }
}

/// Writes configuration and manifest (OCI image specification, config.md and manifest.md).
fn documents(
    blobs: &Blobs,
    reference: String,
    config: ImageConfig,
    layer: Layer,
) -> Result<FetchedImage, BlobError> {
    let platform = reference::host_platform();
    let created = jiff::Timestamp::now().to_string();
    let mut text = json!({
        "created": created, "architecture": platform.architecture, "os": platform.os,
        "config": {
            "Env": config.env, "Entrypoint": config.entrypoint, "Cmd": config.cmd, "User": config.user,
            "WorkingDir": config.working_dir,
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.to_string()] },
        "history": [{ "created": created, "created_by": "stockade commit" }],
    });
    if let Some(variant) = &platform.variant {
        text["variant"] = json!(variant);
    }
    let text = text.to_string();
    let config_digest = blobs.store(text.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest.to_string(), "size": text.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "digest": layer.digest.to_string(), "size": layer.size_bytes,
        }],
    });
    let manifest = blobs.store(manifest.to_string().as_bytes())?;
    blobs.sync(&[config_digest, manifest])?;
    Ok(FetchedImage {
        reference: Some(reference),
        manifest,
        config_digest,
        platform,
        created: Some(created),
        config,
        layers: vec![layer],
    })
}
