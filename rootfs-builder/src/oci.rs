//! Writes an OCI image layout, as a directory or as a tar archive of it.
//!
//! ```text
//! oci-layout                {"imageLayoutVersion":"1.0.0"}
//! index.json                one manifest, named `latest`
//! blobs/sha256/<manifest>   -> <config>, <layer>…
//! ```
//!
//! Invariants: no clock and no path of the building machine is written, so equal trees give equal
//! digests; the output appears in one step, so a reader never sees half an image.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, PlatformBuilder,
    RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};

use crate::images::{Image, Stage};
use crate::layer::Layer;
use crate::{digest, scratch};

/// The name of the image inside its layout.
const TAG: &str = "latest";

/// What every image sets for its commands.
const ENVIRONMENT: [&str; 2] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];

/// The directory in which commands start.
pub(crate) const WORKING_DIRECTORY: &str = "/workspace";

/// A layer with its place on disk.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayer {
    pub(crate) stage: Stage,
    pub(crate) layer: Layer,
    pub(crate) file: PathBuf,
}

/// A written image.
#[derive(Debug)]
pub(crate) struct Written {
    /// sha256 of the manifest, hexadecimal.
    pub(crate) digest: String,
    /// sha256 of the configuration, hexadecimal.
    pub(crate) config_digest: String,
}

/// Writes `image` to `output`, replacing what an earlier build left there.
///
/// # Errors
/// When the place is not writable, or holds something that is not an image.
pub(crate) fn write(
    image: Image,
    layers: &[StoredLayer],
    epoch: u64,
    output: &Path,
    as_archive: bool,
) -> Result<Written> {
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = scratch::Directory::new(parent, "layout")?;
    let layout = scratch.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("make {}", blobs.display()))?;
    let written = write_layout(image, layers, epoch, &layout, &blobs)?;
    if as_archive {
        let archive = scratch.path().join("archive");
        write_archive(&layout, epoch, &archive)?;
        fs::rename(&archive, output).with_context(|| format!("write {}", output.display()))?;
    } else {
        replace_directory(&layout, output)?;
    }
    Ok(written)
}

fn write_layout(
    image: Image,
    layers: &[StoredLayer],
    epoch: u64,
    layout: &Path,
    blobs: &Path,
) -> Result<Written> {
    let mut descriptors = Vec::new();
    for stored in layers {
        let target = blobs.join(&stored.layer.digest);
        if fs::hard_link(&stored.file, &target).is_err() {
            // Another file system: a copy.
            fs::copy(&stored.file, &target).with_context(|| format!("write {}", target.display()))?;
        }
        descriptors.push(descriptor(MediaType::ImageLayerGzip, stored.layer.size, &stored.layer.digest)?);
    }
    let created = rfc3339(epoch);
    let config = serde_json::to_vec(&configuration(layers, &created)?)?;
    let config_digest = write_blob(blobs, &config)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, length(&config)?, &config_digest)?)
        .layers(descriptors)
        .annotations(HashMap::from([("org.opencontainers.image.title".to_owned(), image.name().to_owned())]))
        .build()?;
    let manifest = serde_json::to_vec(&manifest)?;
    let digest = write_blob(blobs, &manifest)?;
    let platform = PlatformBuilder::default().os(Os::Linux).architecture(Arch::Amd64).build()?;
    let named = DescriptorBuilder::default()
        .media_type(MediaType::ImageManifest)
        .size(length(&manifest)?)
        .digest(Sha256Digest::from_str(&digest)?)
        .platform(platform)
        .annotations(HashMap::from([(ANNOTATION_REF_NAME.to_owned(), TAG.to_owned())]))
        .build()?;
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![named])
        .build()?;
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?).context("write index.json")?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).context("write oci-layout")?;
    Ok(Written { digest, config_digest })
}

fn configuration(layers: &[StoredLayer], created: &str) -> Result<oci_spec::image::ImageConfiguration> {
    let config = ConfigBuilder::default()
        .user("root")
        .env(ENVIRONMENT.map(str::to_owned).to_vec())
        .cmd(vec!["bash".to_owned()])
        .working_dir(WORKING_DIRECTORY)
        .build()?;
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(layers.iter().map(|stored| format!("sha256:{}", stored.layer.diff_id)).collect::<Vec<_>>())
        .build()?;
    let history: Result<Vec<_>> = layers
        .iter()
        .map(|stored| {
            let made_by = format!("rootfs-builder {}", stored.stage.name());
            let entry = HistoryBuilder::default().created(created).created_by(made_by);
            Ok(entry.comment(stored.stage.describe()).build()?)
        })
        .collect();
    Ok(ImageConfigurationBuilder::default()
        .created(created)
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs)
        .history(history?)
        .build()?)
}

fn descriptor(media_type: MediaType, size: u64, sum: &str) -> Result<Descriptor> {
    Ok(Descriptor::new(media_type, size, Sha256Digest::from_str(sum)?))
}

fn length(bytes: &[u8]) -> Result<u64> {
    u64::try_from(bytes.len()).context("document length")
}

fn write_blob(blobs: &Path, bytes: &[u8]) -> Result<String> {
    let sum = digest::hex(bytes);
    fs::write(blobs.join(&sum), bytes).with_context(|| format!("write blob {sum}"))?;
    Ok(sum)
}

/// Whether an image may be written here: to a new place, or over an image.
///
/// # Errors
/// When the place holds something that an earlier build has not made.
pub(crate) fn check_output(output: &Path, as_archive: bool) -> Result<()> {
    let replaceable = if as_archive {
        output.is_file()
    } else {
        let empty = output.read_dir().is_ok_and(|mut listing| listing.next().is_none());
        empty || output.join("oci-layout").exists()
    };
    anyhow::ensure!(
        !output.exists() || replaceable,
        "{} exists and is not an image\nfix: choose another --output, or remove it",
        output.display()
    );
    Ok(())
}

/// Puts the new layout in place of an old one, and of nothing else.
fn replace_directory(layout: &Path, output: &Path) -> Result<()> {
    if output.exists() {
        check_output(output, false)?;
        fs::remove_dir_all(output).with_context(|| format!("replace {}", output.display()))?;
    }
    fs::rename(layout, output).with_context(|| format!("write {}", output.display()))
}

/// The layout as a tar archive with fixed owners, modes, times and order.
fn write_archive(layout: &Path, epoch: u64, output: &Path) -> Result<()> {
    let file = fs::File::create(output).with_context(|| format!("write {}", output.display()))?;
    let mut archive = tar::Builder::new(std::io::BufWriter::new(file));
    let mut names = vec![PathBuf::from("oci-layout"), PathBuf::from("index.json")];
    let mut blobs: Vec<PathBuf> = layout
        .join("blobs/sha256")
        .read_dir()
        .context("list blobs")?
        .map(|entry| Ok(Path::new("blobs/sha256").join(entry?.file_name())))
        .collect::<Result<_>>()?;
    blobs.sort();
    names.extend(blobs);
    for name in names {
        let file = fs::File::open(layout.join(&name)).with_context(|| format!("read {}", name.display()))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(epoch);
        archive.append_data(&mut header, &name, file).context("write the archive")?;
    }
    archive.into_inner().and_then(|mut output| output.flush()).context("end the archive")
}

/// Seconds since 1970 as RFC 3339 in UTC.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01: years that start in March end with their leap day.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_783_764_997), "2026-07-11T10:16:37Z");
    }

    fn sample(directory: &Path) -> Vec<StoredLayer> {
        let file = directory.join("layer");
        fs::write(&file, "layer").expect("layer");
        let layer = Layer { digest: digest::hex(b"layer"), diff_id: "ab".repeat(32), size: 5, unpacked: 5 };
        vec![StoredLayer { stage: Stage::Base, layer, file }]
    }

    #[test]
    fn two_writings_are_byte_for_byte_equal() {
        let directory = tempfile::tempdir().expect("directory");
        let layers = sample(directory.path());
        let archives = ["one", "two"].map(|name| {
            let output = directory.path().join(name);
            write(Image::Base, &layers, 1_000, &output, true).expect("write");
            fs::read(output).expect("read")
        });
        assert!(archives[0] == archives[1]);
    }

    #[test]
    fn a_layout_is_replaced_and_anything_else_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let layers = sample(directory.path());
        let output = directory.path().join("image");
        let first = write(Image::Base, &layers, 1_000, &output, false).expect("first");
        let second = write(Image::Base, &layers, 1_000, &output, false).expect("second");
        assert_eq!(first.digest, second.digest);
        assert!(output.join("blobs/sha256").join(&second.digest).exists());
        let precious = directory.path().join("precious");
        fs::create_dir(&precious).expect("directory");
        fs::write(precious.join("thesis"), "").expect("file");
        write(Image::Base, &layers, 1_000, &precious, false).expect_err("not a layout");
        assert!(precious.join("thesis").exists());
    }
}
