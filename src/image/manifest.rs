//! The three documents of an image: index, manifest, configuration. Bytes that have the right digest, and are
//! still from a stranger.
//!
//! - A document is what its media type says; one that fits two types is refused (CVE-2021-41190).
//! - `urls` of descriptors are ignored: whoever writes them chooses whom we talk to (CVE-2020-15157).
//! - An index is followed to another index once, not further.
//! - An image has as many diff-ids as layers, and the layers' names in the store are the configuration's, which
//!   unpacking verifies.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::id::Digest;
use crate::limits::{
    BLOB_BYTES_MAX, IMAGE_CONFIG_BYTES_MAX, IMAGE_SETTINGS_BYTES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX,
};
use crate::wire::fetch::{FetchedImage, ImageConfig, Layer, Platform};

/// Media types of an index, with Docker's older name for it.
pub(super) const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// Media types of a manifest.
pub(super) const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Media types of layers. The foreign ones have the same bytes.
const LAYER_TYPES: [&str; 9] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Media types of configurations.
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Not JSON, or not of the form that its type has.
    #[error("{document} is not valid: {source}")]
    Json {
        /// Which document.
        document: &'static str,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A type that is not an image's, or one that the document does not fit.
    #[error("media type '{0}' is not one of an image we can run")]
    MediaType(String),
    /// Both a manifest and an index, or one type outside and another inside.
    #[error("the manifest is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// A digest of another algorithm.
    #[error("digest '{0}' is not sha256")]
    Digest(String),
    /// Beyond a bound.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// No layers, too many, or another number than the configuration has.
    #[error("the image has {layers} layers and {diff_ids} diff-ids (of 1 to {LAYERS_MAX})")]
    Layers {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// Nothing for this platform.
    #[error("the image is not made for {wanted}: it has {}", if found.is_empty() { "nothing else" } else { found })]
    Platform {
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
}

/// A parsed index or manifest.
#[derive(Debug)]
pub(super) enum Document {
    /// Leads to manifests.
    Index(Box<ImageIndex>),
    /// Leads to a configuration and layers.
    Manifest(Box<ImageManifest>),
}

/// Where to go on from a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// The fields that tell the types apart. Unknown fields are no error: registries add their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Parses an index or a manifest. `declared` is the type that the registry or the descriptor gave it, if any.
pub(super) fn parse_document(bytes: &[u8], declared: Option<&str>) -> Result<Document, ManifestError> {
    check_size("manifest", bytes.len() as u64, MANIFEST_BYTES_MAX)?;
    let json = |source| ManifestError::Json { document: "manifest", source };
    let shape: Shape = serde_json::from_slice(bytes).map_err(json)?;
    let is_index = shape.manifests.is_some();
    let is_manifest = shape.layers.is_some() || shape.config.is_some();
    if is_index && is_manifest {
        return Err(ManifestError::Ambiguous("it has both manifests and layers"));
    }
    if shape.fs_layers.is_some() {
        return Err(ManifestError::MediaType("schema 1".to_owned()));
    }
    // Parameters ("; charset=utf-8") do not change the type. Registries that do not know it say "JSON" or nothing.
    let declared = declared.map(|declared| declared.split(';').next().unwrap_or_default().trim());
    let declared = declared.filter(|declared| !matches!(*declared, "" | "application/json" | "text/plain"));
    if let (Some(declared), Some(own)) = (declared, &shape.media_type)
        && declared != own
    {
        return Err(ManifestError::Ambiguous("its media type is not the one it was sent with"));
    }
    let types = if is_index { &INDEX_TYPES } else { &MANIFEST_TYPES };
    if let Some(media_type) = shape.media_type.as_deref().or(declared)
        && !types.contains(&media_type)
    {
        return Err(ManifestError::MediaType(media_type.chars().take(128).collect()));
    }
    if is_index {
        serde_json::from_slice(bytes).map(|index| Document::Index(Box::new(index))).map_err(json)
    } else {
        serde_json::from_slice(bytes).map(|manifest| Document::Manifest(Box::new(manifest))).map_err(json)
    }
}

/// The entry of an index for a platform: an image, or an index of images when `nested` may be followed.
pub(super) fn select(index: &ImageIndex, wanted: &Platform, nested: bool) -> Result<Link, ManifestError> {
    let images: Vec<_> = typed(index, &MANIFEST_TYPES).collect();
    let fitting = |exact: bool| {
        images.iter().copied().find(|descriptor| {
            descriptor.platform().as_ref().is_some_and(|platform| fits(platform, wanted, exact))
        })
    };
    let unlabelled = || images.iter().copied().find(|descriptor| descriptor.platform().is_none());
    let further = || typed(index, &INDEX_TYPES).next().filter(|_| nested);
    match fitting(true).or_else(|| fitting(false)).or_else(unlabelled).or_else(further) {
        Some(descriptor) => link(descriptor),
        None => {
            let platforms = images.iter().filter_map(|descriptor| descriptor.platform().as_ref());
            let mut found: Vec<_> =
                platforms.map(|platform| format!("{}/{}", platform.os(), platform.architecture())).collect();
            found.dedup();
            found.truncate(16);
            Err(ManifestError::Platform { wanted: name(wanted), found: found.join(", ") })
        }
    }
}

fn typed<'a>(index: &'a ImageIndex, types: &'a [&str]) -> impl Iterator<Item = &'a Descriptor> {
    index.manifests().iter().filter(|descriptor| types.contains(&descriptor.media_type().as_ref()))
}

fn fits(platform: &oci_spec::image::Platform, wanted: &Platform, exact: bool) -> bool {
    let same =
        platform.os().to_string() == wanted.os && platform.architecture().to_string() == wanted.architecture;
    // Without a wish any variant will do when none fits better; with one, no other will.
    same && match (platform.variant().as_deref(), wanted.variant.as_deref()) {
        (found, Some(variant)) => found == Some(variant),
        (found, None) => !exact || found.is_none(),
    }
}

/// Where a descriptor leads. Its `urls` are not looked at.
pub(super) fn link(descriptor: &Descriptor) -> Result<Link, ManifestError> {
    let text = descriptor.digest().as_ref();
    let digest = Digest::parse(text).map_err(|_| ManifestError::Digest(text.chars().take(128).collect()))?;
    Ok(Link { digest, size: descriptor.size() })
}

/// The configuration of a manifest, which must be one of an image.
pub(super) fn config_link(manifest: &ImageManifest) -> Result<Link, ManifestError> {
    let media_type = manifest.config().media_type().as_ref();
    if !CONFIG_TYPES.contains(&media_type) {
        return Err(ManifestError::MediaType(media_type.chars().take(128).collect()));
    }
    let link = link(manifest.config())?;
    check_size("image configuration", link.size, IMAGE_CONFIG_BYTES_MAX)?;
    Ok(link)
}

/// Puts a manifest and its configuration together, both verified by digest.
pub(super) fn assemble(
    reference: Option<String>,
    manifest: (Digest, &ImageManifest),
    config: (Digest, &[u8]),
    wanted: &Platform,
) -> Result<FetchedImage, ManifestError> {
    let (settings, found, diff_ids) = parse_config(config.1)?;
    if found.os != wanted.os || found.architecture != wanted.architecture {
        return Err(ManifestError::Platform { wanted: name(wanted), found: name(&found) });
    }
    let descriptors = manifest.1.layers();
    if descriptors.is_empty() || descriptors.len() > LAYERS_MAX || descriptors.len() != diff_ids.len() {
        return Err(ManifestError::Layers { layers: descriptors.len(), diff_ids: diff_ids.len() });
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (descriptor, &diff_id) in descriptors.iter().zip(&diff_ids) {
        let media_type = descriptor.media_type().as_ref();
        if !LAYER_TYPES.contains(&media_type) {
            return Err(ManifestError::MediaType(media_type.chars().take(128).collect()));
        }
        let link = link(descriptor)?;
        check_size("layer", link.size, BLOB_BYTES_MAX)?;
        layers.push(Layer { digest: link.digest, diff_id, size_bytes: link.size });
    }
    Ok(FetchedImage {
        reference,
        manifest: manifest.0,
        config_digest: config.0,
        platform: found,
        created: settings.1,
        config: settings.0,
        layers,
    })
}

type Settings = (ImageConfig, Option<String>);

/// Reads what we use of a configuration.
pub(super) fn parse_config(bytes: &[u8]) -> Result<(Settings, Platform, Vec<Digest>), ManifestError> {
    check_size("image configuration", bytes.len() as u64, IMAGE_CONFIG_BYTES_MAX)?;
    let parsed: ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|source| ManifestError::Json { document: "image configuration", source })?;
    let platform = Platform {
        os: parsed.os().to_string(),
        architecture: parsed.architecture().to_string(),
        variant: parsed.variant().clone().filter(|variant| !variant.is_empty()),
    };
    let mut config = ImageConfig::default();
    if let Some(own) = parsed.config() {
        config.entrypoint = own.entrypoint().clone().unwrap_or_default();
        config.cmd = own.cmd().clone().unwrap_or_default();
        config.env = own.env().clone().unwrap_or_default();
        config.user = own.user().clone().unwrap_or_default();
        config.working_dir = own.working_dir().clone().unwrap_or_default();
    }
    let created = parsed.created().clone().filter(|created| created.len() <= 64);
    let texts = config.entrypoint.iter().chain(&config.cmd).chain(&config.env);
    let texts = texts.chain([&config.user, &config.working_dir, &platform.os, &platform.architecture]);
    let bytes: usize = texts.map(|text| text.len() + 3).sum();
    check_size("what the configuration sets", bytes as u64, IMAGE_SETTINGS_BYTES_MAX)?;
    let diff_ids = parsed.rootfs().diff_ids().iter().take(LAYERS_MAX + 1);
    let diff_ids = diff_ids
        .map(|text| Digest::parse(text).map_err(|_| ManifestError::Digest(text.chars().take(128).collect())))
        .collect::<Result<_, _>>()?;
    Ok(((config, created), platform, diff_ids))
}

/// A manifest for an image that came without one.
pub(super) fn synthesize(config: Link, layers: &[Link]) -> Vec<u8> {
    let descriptor = |media_type: &str, link: &Link| {
        serde_json::json!({
            "mediaType": media_type, "digest": link.digest.to_string(), "size": link.size,
        })
    };
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(LAYER_TYPES[0], layer)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPES[0],
        "config": descriptor(CONFIG_TYPES[0], &config),
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

pub(super) fn name(platform: &Platform) -> String {
    match &platform.variant {
        None => format!("{}/{}", platform.os, platform.architecture),
        Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
    }
}

fn check_size(what: &'static str, size: u64, max: u64) -> Result<(), ManifestError> {
    if size > max { Err(ManifestError::TooLarge { what, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture::{Fixture, digest};
    use crate::image::reference::host_platform;

    fn entry(media_type: &str, platform: Option<(&str, &str, Option<&str>)>, seed: u8) -> serde_json::Value {
        let mut entry = serde_json::json!({
            "mediaType": media_type, "size": 7, "digest": Digest::from_bytes([seed; 32]).to_string(),
            "urls": ["https://attacker.example/blob"],
        });
        if let Some((os, architecture, variant)) = platform {
            entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
            if let Some(variant) = variant {
                entry["platform"]["variant"] = variant.into();
            }
        }
        entry
    }

    fn index(entries: &[serde_json::Value]) -> ImageIndex {
        let text = serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string();
        match parse_document(text.as_bytes(), Some(INDEX_TYPES[0])).expect("index") {
            Document::Index(index) => *index,
            Document::Manifest(_) => panic!("an index"),
        }
    }

    fn wanted(architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    #[test]
    fn the_platform_decides_among_images() {
        let index = index(&[
            entry(MANIFEST_TYPES[0], Some(("windows", "amd64", None)), 1),
            entry(MANIFEST_TYPES[0], Some(("linux", "arm", Some("v6"))), 2),
            entry(MANIFEST_TYPES[1], Some(("linux", "arm", Some("v7"))), 3),
            entry(MANIFEST_TYPES[0], Some(("linux", "amd64", None)), 4),
            entry("application/vnd.example.signature", None, 5),
        ]);
        for (platform, seed) in
            [(wanted("amd64", None), 4), (wanted("arm", None), 2), (wanted("arm", Some("v7")), 3)]
        {
            let link = select(&index, &platform, true).expect("selected");
            assert_eq!(link.digest, Digest::from_bytes([seed; 32]), "{platform:?}");
        }
        for platform in [wanted("s390x", None), wanted("arm", Some("v5"))] {
            let refused = select(&index, &platform, true);
            assert!(matches!(refused, Err(ManifestError::Platform { .. })), "{refused:?}");
        }
    }

    #[test]
    fn an_index_in_an_index_is_followed_once() {
        let index = index(&[entry(INDEX_TYPES[0], None, 1)]);
        assert!(select(&index, &wanted("amd64", None), true).is_ok());
        assert!(select(&index, &wanted("amd64", None), false).is_err());
    }

    /// Row 82 of the project's security specification: CVE-2021-41190, one document that is two.
    #[test]
    fn a_document_of_two_types_is_refused() {
        let manifest = String::from_utf8(Fixture::new(&[vec![0; 1024]]).manifest).expect("text");
        assert!(parse_document(manifest.as_bytes(), Some(MANIFEST_TYPES[0])).is_ok());
        assert!(parse_document(manifest.as_bytes(), Some("application/json; charset=utf-8")).is_ok());
        let both = manifest.replacen('{', "{\"manifests\":[],", 1);
        let twice = manifest.replacen('{', "{\"layers\":[],", 1);
        let other = manifest.replace(MANIFEST_TYPES[0], "application/vnd.example.artifact");
        let old = r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#;
        for (name, text, declared) in [
            ("both", &*both, None),
            ("layers twice", &*twice, None),
            ("sent as an index", &*manifest, Some(INDEX_TYPES[0])),
            ("sent as Docker's", &*manifest, Some(MANIFEST_TYPES[1])),
            ("an artifact", &*other, None),
            ("schema 1", old, None),
            ("not JSON", "<html>", None),
            ("nothing", "{}", None),
        ] {
            assert!(parse_document(text.as_bytes(), declared).is_err(), "{name}");
        }
        let large = vec![b' '; usize::try_from(MANIFEST_BYTES_MAX).expect("size") + 1];
        assert!(matches!(parse_document(&large, None), Err(ManifestError::TooLarge { .. })));
    }

    fn assembled(manifest: &str, config: &str) -> Result<FetchedImage, ManifestError> {
        let Document::Manifest(parsed) = parse_document(manifest.as_bytes(), None)? else {
            panic!("a manifest");
        };
        config_link(&parsed)?;
        let digests = (digest(manifest.as_bytes()), digest(config.as_bytes()));
        assemble(None, (digests.0, &parsed), (digests.1, config.as_bytes()), &host_platform())
    }

    #[test]
    fn manifest_and_configuration_must_agree() {
        let fixture = Fixture::new(&[vec![0; 1024], vec![0; 2048]]);
        let manifest = String::from_utf8(fixture.manifest).expect("text");
        let config = String::from_utf8(fixture.config).expect("text");
        let image = assembled(&manifest, &config).expect("a good image");
        assert_eq!((image.layers.len(), &*image.config.user), (2, "1000:1000"));
        let diff_id = digest(&[0; 1024]).to_string();
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let huge = "x".repeat(70_000);
        for (name, manifest, config) in [
            ("fewer diff-ids", manifest.clone(), config.replace(&format!("\"{diff_id}\","), "")),
            ("another platform", manifest.clone(), config.replace("linux", "plan9")),
            ("an encrypted layer", manifest.replacen(gzip, &format!("{gzip}+encrypted"), 1), config.clone()),
            ("another configuration", manifest.replace("image.config", "other.config"), config.clone()),
            ("another algorithm", manifest.clone(), config.replacen("sha256:", "sha512:", 1)),
            ("an environment too large", manifest.clone(), config.replace("A=b", &huge)),
            (
                "no layers",
                manifest.replace(
                    &manifest[manifest.find("\"layers\"").expect("layers")..],
                    "\"layers\":[],\"schemaVersion\":2}",
                ),
                config.clone(),
            ),
        ] {
            assert!(assembled(&manifest, &config).is_err(), "{name}");
        }
    }

    /// Row 83: addresses that the author of an image chose are never used; there is no field to keep them in.
    #[test]
    fn a_link_is_a_digest_and_a_size() {
        let index = index(&[entry(MANIFEST_TYPES[0], None, 1)]);
        assert_eq!(
            link(&index.manifests()[0]).expect("link"),
            Link { digest: Digest::from_bytes([1; 32]), size: 7 }
        );
    }
}
