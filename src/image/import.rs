//! Archives of images: a tar of an OCI layout, or what `docker save` writes; plain, gzip or zstd.
//!
//! The archive is a stream, and its table of contents may come last. So every file is stored as a blob as it
//! passes, under the digest that it turns out to have; files in `blobs/sha256/` must have the one they are named
//! by. At the end the table says which blobs are images. What no image uses is collected later.
//!
//! A `docker save` archive of today is both kinds; its OCI half is taken, because that one has manifests. In the
//! older kind a layer is a plain tar, whose digest must be the configuration's diff-id; symbolic links between
//! layers are followed in the table of contents, never in a file system.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Chain, Cursor, Read, Take};

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex};
use serde::Deserialize;

use crate::id::Digest;
use crate::image::blobs::{BlobError, Blobs, Partial};
use crate::image::decompress;
use crate::image::manifest::{self, Document, Link, ManifestError};
use crate::image::open;
use crate::image::reference::{InvalidReference, Reference};
use crate::limits::{
    BLOB_BYTES_MAX, IMAGE_CONFIG_BYTES_MAX, IMPORT_BYTES_MAX, IMPORT_ENTRIES_MAX, IMPORT_IMAGES_MAX,
    LAYERS_MAX, MANIFEST_BYTES_MAX,
};
use crate::tar::{Entry, Kind, ReadError, Source, TarError, TarReader};
use crate::wire::fetch::{FetchedImage, ImportJob};
use crate::wire::launch::Compression;

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// Not a tar, or not one that we accept.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// It cannot be read, or its compression is broken.
    #[error("cannot read the archive: {0}")]
    Read(#[from] std::io::Error),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A document.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The name to give.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// Encrypted, and nobody has said so.
    #[error("it is encrypted by age, and no identity was given")]
    NoIdentity,
    /// No table of contents.
    #[error("the archive has neither index.json nor manifest.json: it is not an image")]
    NotAnImage,
    /// A table of contents that cannot be read.
    #[error("the archive's {document}: {source}")]
    Json {
        /// Which.
        document: &'static str,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A file that the table names and that is not there.
    #[error("the archive names '{0}' and does not contain it")]
    MissingFile(String),
    /// A layer that is not the one of the configuration.
    #[error("layer '{path}' has the digest {found}, the image says {expected}")]
    Layer {
        /// Which file.
        path: String,
        /// From the configuration.
        expected: Digest,
        /// Of the file.
        found: Digest,
    },
    /// One name for many images.
    #[error("the archive has {0} images, which cannot all have the one name given")]
    OneName(usize),
    /// More of something than we read.
    #[error("the archive has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: u64,
    },
}

impl From<ReadError<ImportError>> for ImportError {
    fn from(error: ReadError<ImportError>) -> Self {
        match error {
            ReadError::Tar(error) => Self::Tar(error),
            ReadError::Source(error) => error,
        }
    }
}

/// Stores the blobs of an archive and returns the images in it. `progress` is told how many bytes were read.
pub(super) fn read(
    archive: File,
    blobs: &Blobs,
    job: &ImportJob,
    mut progress: impl FnMut(u64),
) -> Result<Vec<FetchedImage>, ImportError> {
    let name = job.reference.as_deref().map(Reference::parse).transpose()?;
    let contents = store(archive, blobs, &mut progress)?;
    let mut images = match (&contents.index, &contents.manifest) {
        (Some(index), _) => layout_images(index, blobs, job)?,
        (None, Some(manifest)) => docker_images(manifest, &contents, blobs, job)?,
        (None, None) => return Err(ImportError::NotAnImage),
    };
    let documents: Vec<_> = images.iter().flat_map(|image| [image.manifest, image.config_digest]).collect();
    blobs.sync(&documents)?;
    if let Some(name) = name {
        // Several names of one image become the one that was given.
        images.dedup_by(|one, other| one.manifest == other.manifest);
        match images.as_mut_slice() {
            [image] => image.reference = Some(name.to_string()),
            more => return Err(ImportError::OneName(more.len())),
        }
    }
    Ok(images)
}

/// What was in an archive.
#[derive(Debug, Default)]
struct Contents {
    files: HashMap<Vec<u8>, Stored>,
    index: Option<Vec<u8>>,
    manifest: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Stored {
    Blob(Link),
    Symlink(Vec<u8>),
}

fn store(archive: File, blobs: &Blobs, progress: &mut dyn FnMut(u64)) -> Result<Contents, ImportError> {
    let mut reader = TarReader::new(Archive::open(archive, progress)?);
    let mut contents = Contents::default();
    let mut entries = 0;
    while let Some(entry) = reader.next_entry()? {
        entries += 1;
        if entries > IMPORT_ENTRIES_MAX {
            if contents.index.is_none() && contents.manifest.is_none() {
                return Err(ImportError::NotAnImage);
            }
            return Err(ImportError::TooMany { what: "entries", max: IMPORT_ENTRIES_MAX as u64 });
        }
        let path = normal(b"", &entry.path);
        match entry.kind {
            Kind::File => file(path, &entry, &mut reader, blobs, &mut contents)?,
            Kind::Symlink | Kind::Hardlink => {
                let base = if entry.kind == Kind::Symlink { directory(&path) } else { b"" };
                let target = normal(base, &entry.link);
                contents.files.insert(path, Stored::Symlink(target));
            }
            Kind::Directory | Kind::Fifo | Kind::Device => {}
        }
    }
    reader.drain()?;
    Ok(contents)
}

fn file<S: Source<Error = ImportError>>(
    path: Vec<u8>,
    entry: &Entry,
    reader: &mut TarReader<S>,
    blobs: &Blobs,
    contents: &mut Contents,
) -> Result<(), ImportError> {
    if entry.sparse.is_some() || entry.size > BLOB_BYTES_MAX {
        return Err(ImportError::TooMany { what: "bytes in one file", max: BLOB_BYTES_MAX });
    }
    match path.as_slice() {
        b"index.json" => contents.index = Some(document(entry, reader)?),
        b"manifest.json" => contents.manifest = Some(document(entry, reader)?),
        b"oci-layout" | b"repositories" => {}
        _ => {
            let named = path.strip_prefix(b"blobs/sha256/").and_then(|hex| std::str::from_utf8(hex).ok());
            let link = match named.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok()) {
                Some(digest) => {
                    let link = Link { digest, size: entry.size };
                    if let Some(mut partial) = blobs.partial(digest)? {
                        partial.restart()?;
                        if let Err(error) = copy(reader, &mut partial) {
                            // The next archive begins at its beginning.
                            partial.discard();
                            return Err(error);
                        }
                        partial.commit(digest, entry.size)?;
                    }
                    link
                }
                None => {
                    let mut partial = blobs.anonymous()?;
                    if let Err(error) = copy(reader, &mut partial) {
                        partial.discard();
                        return Err(error);
                    }
                    let (digest, size) = partial.commit_as_found()?;
                    Link { digest, size }
                }
            };
            contents.files.insert(path, Stored::Blob(link));
        }
    }
    Ok(())
}

fn copy<S: Source<Error = ImportError>>(
    reader: &mut TarReader<S>,
    partial: &mut Partial,
) -> Result<(), ImportError> {
    while let Some(chunk) = reader.content()? {
        partial.write(&chunk)?;
    }
    Ok(())
}

fn document<S: Source<Error = ImportError>>(
    entry: &Entry,
    reader: &mut TarReader<S>,
) -> Result<Vec<u8>, ImportError> {
    if entry.size > MANIFEST_BYTES_MAX {
        return Err(ImportError::TooMany { what: "bytes in its table of contents", max: MANIFEST_BYTES_MAX });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.content()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The annotation with an image's full name.
pub(super) const NAME: &str = "io.containerd.image.name";

/// The annotation that is the full name where `skopeo` or `docker` wrote it, and only a tag of the layout where the
/// layout has one repository (OCI image specification, annotations.md).
pub(super) const TAG_OR_NAME: &str = "org.opencontainers.image.ref.name";

fn layout_images(index: &[u8], blobs: &Blobs, job: &ImportJob) -> Result<Vec<FetchedImage>, ImportError> {
    let json = |source| ImportError::Json { document: "index.json", source };
    let index: ImageIndex = serde_json::from_slice(index).map_err(json)?;
    if index.manifests().len() > IMPORT_IMAGES_MAX {
        return Err(ImportError::TooMany { what: "images", max: IMPORT_IMAGES_MAX as u64 });
    }
    let mut images = Vec::new();
    let mut elsewhere = None;
    for descriptor in index.manifests() {
        match layout_image(descriptor, blobs, job) {
            Ok(image) => images.push(image),
            // An archive may have one image for many platforms, side by side.
            Err(ImportError::Manifest(error @ ManifestError::Platform { .. })) => elsewhere = Some(error),
            Err(error) => return Err(error),
        }
    }
    match (images.is_empty(), elsewhere) {
        (true, Some(error)) => Err(error.into()),
        (true, None) => Err(ImportError::NotAnImage),
        (false, _) => Ok(images),
    }
}

fn layout_image(
    descriptor: &Descriptor,
    blobs: &Blobs,
    job: &ImportJob,
) -> Result<FetchedImage, ImportError> {
    let reference = name_of(descriptor);
    let mut link = manifest::link(descriptor)?;
    let mut declared = Some(descriptor.media_type().as_ref().to_owned());
    let mut depth = 0;
    let (digest, parsed) = loop {
        let bytes = blobs.read(link.digest, MANIFEST_BYTES_MAX)?;
        match manifest::parse_document(&bytes, declared.as_deref())? {
            Document::Manifest(parsed) => break (link.digest, parsed),
            Document::Index(_) if depth == 2 => {
                return Err(ManifestError::Ambiguous("its index leads to an index too often").into());
            }
            Document::Index(index) => {
                link = manifest::select(&index, &job.platform, depth == 0)?;
                declared = None;
                depth += 1;
            }
        }
    };
    let config = manifest::config_link(&parsed)?;
    let bytes = blobs.read(config.digest, IMAGE_CONFIG_BYTES_MAX)?;
    let image = manifest::assemble(reference, (digest, &parsed), (config.digest, &bytes), &job.platform)?;
    for layer in &image.layers {
        sized(blobs, layer.digest, layer.size_bytes)?;
    }
    Ok(image)
}

/// A name that an archive may give to an image: what has a digest is decided by the image.
fn tag(name: &str) -> Option<Reference> {
    Reference::parse(name).ok().filter(|name| name.digest().is_none())
}

/// The name that a layout gives to an image. A bare word is a tag: taken for a name, every layout with the tag
/// "latest" would become the image `latest`. What is no reference ("my image") is only a label.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    let tagged = || annotations.get(TAG_OR_NAME).filter(|name| name.contains(['/', ':', '@']));
    let name = annotations.get(NAME).or_else(tagged)?;
    tag(name).map(|name| name.to_string())
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker_images(
    manifest: &[u8],
    contents: &Contents,
    blobs: &Blobs,
    job: &ImportJob,
) -> Result<Vec<FetchedImage>, ImportError> {
    let json = |source| ImportError::Json { document: "manifest.json", source };
    let entries: Vec<DockerImage> = serde_json::from_slice(manifest).map_err(json)?;
    let mut images = Vec::new();
    for entry in &entries {
        let image = docker_image(entry, contents, blobs, job)?;
        let tags = entry.repo_tags.iter().flatten().filter_map(|name| tag(name));
        let mut names: Vec<_> = tags.map(|name| Some(name.to_string())).collect();
        if names.is_empty() {
            names.push(None);
        }
        images.extend(names.into_iter().map(|reference| FetchedImage { reference, ..image.clone() }));
        if images.len() > IMPORT_IMAGES_MAX {
            return Err(ImportError::TooMany { what: "images", max: IMPORT_IMAGES_MAX as u64 });
        }
    }
    if images.is_empty() { Err(ImportError::NotAnImage) } else { Ok(images) }
}

fn docker_image(
    entry: &DockerImage,
    contents: &Contents,
    blobs: &Blobs,
    job: &ImportJob,
) -> Result<FetchedImage, ImportError> {
    let config = contents.find(&entry.config)?;
    let bytes = blobs.read(config.digest, IMAGE_CONFIG_BYTES_MAX)?;
    let (_, _, diff_ids) = manifest::parse_config(&bytes)?;
    if entry.layers.len() > LAYERS_MAX || entry.layers.len() != diff_ids.len() {
        return Err(ManifestError::Layers { layers: entry.layers.len(), diff_ids: diff_ids.len() }.into());
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (path, &expected) in entry.layers.iter().zip(&diff_ids) {
        let link = contents.find(path)?;
        // A compressed layer has another digest; unpacking verifies what is in it.
        if link.digest != expected && compression(blobs, link.digest)? == Compression::None {
            return Err(ImportError::Layer { path: path.clone(), expected, found: link.digest });
        }
        layers.push(link);
    }
    let bytes_of_manifest = manifest::synthesize(config, &layers);
    let digest = blobs.store(&bytes_of_manifest)?;
    let Document::Manifest(parsed) = manifest::parse_document(&bytes_of_manifest, None)? else {
        return Err(ImportError::NotAnImage);
    };
    Ok(manifest::assemble(None, (digest, &parsed), (config.digest, &bytes), &job.platform)?)
}

/// How a stored blob is compressed, by its first bytes: media types are not always right, and a wrong one is
/// harmless, because the digest of what comes out is verified.
pub(crate) fn compression(blobs: &Blobs, digest: Digest) -> Result<Compression, BlobError> {
    let mut start = Vec::new();
    let read = blobs.open(digest)?.take(MAGIC_BYTES).read_to_end(&mut start);
    read.map_err(|source| BlobError::Io { operation: "read", name: digest.hex(), source })?;
    Ok(decompress::detect(&start))
}

fn sized(blobs: &Blobs, digest: Digest, expected: u64) -> Result<(), BlobError> {
    let metadata = blobs.open(digest)?.metadata();
    let found =
        metadata.map_err(|source| BlobError::Io { operation: "stat", name: digest.hex(), source })?.len();
    if found == expected { Ok(()) } else { Err(BlobError::Size { digest, expected, found }) }
}

impl Contents {
    /// The blob of a path, through at most one link after another as many as an archive of layers can need.
    fn find(&self, path: &str) -> Result<Link, ImportError> {
        let mut at = normal(b"", path.as_bytes());
        for _ in 0..LAYERS_MAX {
            match self.files.get(&at) {
                Some(Stored::Blob(link)) => return Ok(*link),
                Some(Stored::Symlink(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(ImportError::MissingFile(path.chars().take(256).collect()))
    }
}

/// A path as a key: no "." and "..", no slash at either end.
fn normal(base: &[u8], path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in base.split(|&byte| byte == b'/').chain(path.split(|&byte| byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            _ => components.push(component),
        }
    }
    components.join(&b'/')
}

fn directory(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(b"", |slash| &path[..slash])
}

/// Bytes that tell a compression.
const MAGIC_BYTES: u64 = 16;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// The stream of an archive, decompressed and counted.
struct Archive<'a> {
    stream: Box<dyn Read + 'a>,
    total: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Archive<'a> {
    fn open(mut file: File, progress: &'a mut dyn FnMut(u64)) -> Result<Self, ImportError> {
        let mut start = Vec::new();
        let mut head: Take<&mut File> = Read::take(&mut file, MAGIC_BYTES);
        head.read_to_end(&mut start)?;
        if open::is_sealed(&start) {
            return Err(ImportError::NoIdentity);
        }
        let compression = decompress::detect(&start);
        let whole: Chain<Cursor<Vec<u8>>, File> = Cursor::new(start).chain(file);
        Ok(Self { stream: decompress::reader(whole, compression)?, total: 0, progress })
    }
}

impl Source for Archive<'_> {
    type Error = ImportError;

    fn next(&mut self) -> Result<Option<Bytes>, ImportError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let length = decompress::fill(&mut *self.stream, &mut buffer)?;
        buffer.truncate(length);
        self.total += length as u64;
        if self.total > IMPORT_BYTES_MAX {
            return Err(ImportError::TooMany { what: "bytes", max: IMPORT_BYTES_MAX });
        }
        (self.progress)(self.total);
        Ok(if length == 0 { None } else { Some(Bytes::from(buffer)) })
    }
}
