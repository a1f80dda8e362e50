//! What an image that is made here says of itself (OCI image specification: config.md, manifest.md, image-layout.md).

use std::io::{self, Write};

use serde_json::json;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use crate::id::Digest;
use crate::image::blobs::{BlobError, Blobs};
use crate::image::import::{NAME, TAG_OR_NAME};
use crate::image::reference;
use crate::wire::fetch::{FetchedImage, ImageConfig, Layer};

/// The type of a manifest.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A tar is made of these.
const BLOCK_BYTES: u64 = 512;

/// What a tar ends with: two of them, of zeros.
pub(crate) const END_BYTES: usize = 1024;

/// Stores configuration and manifest of an image of one layer, whose blob is compressed with zstd.
///
/// # Errors
/// When the disk is full or fails.
pub(crate) fn store(
    blobs: &Blobs,
    reference: Option<String>,
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
        "mediaType": MANIFEST_TYPE,
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
        reference,
        manifest,
        config_digest,
        platform,
        created: Some(created),
        config,
        layers: vec![layer],
    })
}

/// Writes a tar of an OCI layout with one image.
///
/// # Errors
/// When a blob is missing, or nobody takes the bytes.
pub(crate) fn write_layout(blobs: &Blobs, image: &FetchedImage, out: &mut impl Write) -> io::Result<()> {
    let open = |digest: Digest| -> io::Result<(String, u64, std::fs::File)> {
        let file = blobs.open(digest).map_err(io::Error::other)?;
        Ok((format!("blobs/sha256/{}", digest.hex()), file.metadata()?.len(), file))
    };
    let (name, size, manifest) = open(image.manifest)?;
    let mut descriptor = json!({
        "mediaType": MANIFEST_TYPE, "digest": image.manifest.to_string(), "size": size,
        "platform": { "os": image.platform.os, "architecture": image.platform.architecture },
    });
    if let Some(reference) = &image.reference {
        descriptor["annotations"] = json!({ NAME: reference, TAG_OR_NAME: reference });
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [descriptor],
    });
    let (index, mark) = (index.to_string(), json!({ "imageLayoutVersion": "1.0.0" }).to_string());
    file(out, "oci-layout", mark.len() as u64, mark.as_bytes())?;
    file(out, "index.json", index.len() as u64, index.as_bytes())?;
    file(out, &name, size, manifest)?;
    for digest in std::iter::once(image.config_digest).chain(image.layers.iter().map(|layer| layer.digest)) {
        let (name, size, blob) = open(digest)?;
        file(out, &name, size, blob)?;
    }
    out.write_all(&[0; END_BYTES])
}

fn file(out: &mut impl Write, name: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    out.write_all(&header(name, size)?)?;
    if io::copy(&mut content.take(size), out)? != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter")));
    }
    out.write_all(&padding(size))
}

/// The header of a file in a tar.
///
/// # Errors
/// When a tar cannot say its size.
pub(crate) fn header(name: &str, size: u64) -> io::Result<Vec<u8>> {
    let mut entry = EntryBuilder::new_gnu();
    entry.path(name).entry_type(EntryType::Regular);
    entry.mode(0o644).and_then(|entry| entry.size(size)).map_err(io::Error::other)?;
    Ok(entry.finish_bytes())
}

/// What follows its bytes.
pub(crate) fn padding(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size.next_multiple_of(BLOCK_BYTES) - size).unwrap_or_default()]
}
