//! Unpacking the `full` image, beside umoci and beside skopeo with tar.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::disk::Disk;
use super::{Daemon, Place, Report, met, ms, quantile};
use crate::process::{cargo, run, target};

/// Measures the unpacking of `full`; builds it first when it is not there.
pub(super) fn unpack(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    let layout = layout()?;
    let tag = tag(&layout)?;
    let bytes = archive(place)?;
    let from = format!("{}:{tag}", layout.display());
    let (mut ours, mut umoci, mut skopeo) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let fresh = fresh(place)?;
        let mut daemon = Daemon::start_on(&place.directory.join(FRESH))?;
        settle()?;
        let start = Instant::now();
        daemon.call("POST", "/v1/images/import?reference=full%3A1", &bytes, 200)?;
        ours.push(start.elapsed());
        drop((daemon, fresh));
        umoci.push(timed(place, |to| {
            run(Command::new("umoci").args(["unpack", "--image", &from, to]).stderr(Stdio::null()))
        })?);
        skopeo.push(timed(place, |to| copy_and_tar(&from, to))?);
    }
    report.title("unpacking `full`", "contestant | median s | it ÷ stockade (target)");
    let median = |samples: &[Duration]| ms(quantile(samples, 0.5)) / 1e3;
    let best = median(&umoci).min(median(&skopeo));
    report.row(&[
        "**stockade**, import of the layout as a tar".to_owned(),
        format!("{:.2}", median(&ours)),
        String::new(),
    ]);
    for (name, samples) in [("umoci unpack", &umoci), ("skopeo copy + tar", &skopeo)] {
        let ratio = median(samples) / median(&ours);
        let target = if median(samples) <= best {
            format!(" (at least 1.5) {}", met(ratio >= 1.5))
        } else {
            String::new()
        };
        report.row(&[name.to_owned(), format!("{:.2}", median(samples)), format!("{ratio:.2}{target}")]);
    }
    report.note("Stockade's time includes receiving the image, verifying every digest twice (blob and diff id) and committing the layers.");
    Ok(())
}

/// The image as a tar of its layout.
pub(super) fn archive(place: &Place) -> Result<Vec<u8>> {
    let archive = place.path("full.tar");
    run(Command::new("tar").arg("-C").arg(layout()?).args(["-cf", &archive, "."]))?;
    Ok(fs::read(&archive)?)
}

/// The image, built when it is not there.
fn layout() -> Result<PathBuf> {
    let layout = target().join("bench-full");
    if !layout.join("index.json").exists() {
        eprintln!("building the image `full`: minutes, the first time");
        let build =
            ["run", "--release", "--quiet", "--package", "rootfs-builder", "--", "build", "full", "--output"];
        run(cargo().args(build).arg(&layout))?;
    }
    Ok(layout)
}

/// What one would do without a tool that unpacks images: skopeo fetches the layers, tar unpacks them.
fn copy_and_tar(from: &str, to: &str) -> Result<()> {
    fs::create_dir(to)?;
    let (blobs, root) = (format!("{to}/blobs"), format!("{to}/root"));
    let copy = ["--insecure-policy", "copy", "-q", &format!("oci:{from}"), &format!("dir:{blobs}")];
    run(Command::new("skopeo").args(copy))?;
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(format!("{blobs}/manifest.json"))?)?;
    fs::create_dir(&root)?;
    for layer in manifest["layers"].as_array().context("no layers")? {
        let name = layer["digest"].as_str().context("no digest")?.trim_start_matches("sha256:");
        run(Command::new("tar").args(["-C", &root, "-xf", &format!("{blobs}/{name}")]))?;
    }
    Ok(())
}

/// Lets the disk finish what came before.
fn settle() -> Result<()> {
    run(&mut Command::new("sync"))?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

fn timed(place: &Place, work: impl FnOnce(&str) -> Result<()>) -> Result<Duration> {
    let _fresh = fresh(place)?;
    settle()?;
    let start = Instant::now();
    work(&place.path(&format!("{FRESH}/unpacked")))?;
    Ok(start.elapsed())
}

const FRESH: &str = "fresh";

/// Each contestant writes on a disk of its own.
fn fresh(place: &Place) -> Result<Disk> {
    Disk::mount(&place.directory.join(FRESH), 8)
}

fn tag(layout: &Path) -> Result<String> {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let tag = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    Ok(tag.as_str().context("the layout has no tag")?.to_owned())
}
