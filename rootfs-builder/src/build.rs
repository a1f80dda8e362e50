//! From the lock to images: fetch, grow, archive, write.
//!
//! ```text
//! lock ─> cache ─> root ─ stage ─> tree ─ difference ─> layer blob ─┐
//!                    └──── next stage …                             ├─> layouts
//!                                                        layer blob ─┘
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::download::{Cache, Client, Gone, Item, Place};
use crate::grow::Plot;
use crate::images::{self, Image, Stage};
use crate::lock::Lock;
use crate::oci::{self, StoredLayer};
use crate::progress::Bar;
use crate::refresh::{self, Aim};
use crate::registries::Registries;
use crate::{layer, memory, scratch, tree};

/// What to build and where.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) images: Vec<Image>,
    /// Where each image goes, in the order of `images`.
    pub(crate) outputs: Vec<PathBuf>,
    pub(crate) as_archive: bool,
    pub(crate) cache: PathBuf,
    pub(crate) work: PathBuf,
    /// Keep the tree in memory if it fits.
    pub(crate) in_memory: bool,
    pub(crate) relock: bool,
}

/// What was built, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Built {
    image: &'static str,
    path: PathBuf,
    digest: String,
    config_digest: String,
    size_bytes: u64,
    layers: Vec<BuiltLayer>,
}

#[derive(Debug, Serialize)]
struct BuiltLayer {
    name: &'static str,
    digest: String,
    diff_id: String,
    size_bytes: u64,
    unpacked_bytes: u64,
}

/// Builds the ordered images; stages that several of them share are built once.
///
/// # Errors
/// When something locked cannot be had, a stage fails, or an output cannot be written.
pub(crate) fn run(order: &Order, lock: Lock, registries: &Registries) -> Result<Vec<Built>> {
    let started = Instant::now();
    let stages = images::stages_of(&order.images)?;
    // Before minutes of work, not after.
    for output in &order.outputs {
        oci::check_output(output, order.as_archive)?;
    }
    check_clock(lock.debian.source_date_epoch)?;
    let cache = Cache::open(&order.cache)?;
    let client = Client::new();
    let lock = fetch(&client, registries, &cache, lock, &stages, order.relock)?;
    let work = scratch::Directory::new(&order.work, "build")
        .with_context(|| "fix: name a writable directory with --work".to_owned())?;
    let root = work.path().join("root");
    std::fs::create_dir(&root).context("make the root")?;
    // Declared after `work`, so that it is unmounted before the directory below it is removed.
    let in_memory = if order.in_memory { memory::Tree::mount(&root, &stages)? } else { None };
    let plot = Plot { root, work: work.path(), cache: &cache, lock: &lock };
    let layers = grow_layers(&plot, &stages)?;
    let mut built = Vec::new();
    for (image, output) in order.images.iter().zip(&order.outputs) {
        let own: Vec<StoredLayer> =
            image.stages().iter().filter_map(|stage| layers.get(stage).cloned()).collect();
        let epoch = lock.debian.source_date_epoch;
        let written = oci::write(*image, &own, epoch, output, order.as_archive)?;
        built.push(describe(*image, output, &own, &written));
    }
    let bar = Bar::spinner("clean up");
    drop(in_memory);
    drop(work);
    bar.finish(&format!("all done after {:.0} s", started.elapsed().as_secs_f64()));
    Ok(built)
}

/// Files made during the build get the epoch because they are newer than it. With a clock that is behind
/// they would keep the time of the build, and no two builds would be alike.
fn check_clock(epoch: u64) -> Result<()> {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    anyhow::ensure!(now >= epoch, "this machine's clock is behind the lock's packages\nfix: set the clock");
    Ok(())
}

fn fetch(
    client: &Client,
    registries: &Registries,
    cache: &Cache,
    mut lock: Lock,
    stages: &[Stage],
    relock: bool,
) -> Result<Lock> {
    let gone = match fetch_once(client, registries, cache, &lock, stages) {
        Err(error) if relock && error.is::<Gone>() => error,
        other => return other.map(|()| lock),
    };
    eprintln!("warning: {gone:#}\nresolving what is gone anew");
    lock.debian = refresh::debian(client, registries, Some(&lock.debian), Aim::Replace)?;
    match fetch_once(client, registries, cache, &lock, stages) {
        Err(error) if error.is::<Gone>() => {}
        other => return other.map(|()| lock),
    }
    // Then it was not, or not only, Debian's.
    lock.wheels = refresh::wheels()?;
    lock.node = refresh::node(client, registries, cache)?;
    fetch_once(client, registries, cache, &lock, stages)?;
    Ok(lock)
}

fn fetch_once(
    client: &Client,
    registries: &Registries,
    cache: &Cache,
    lock: &Lock,
    stages: &[Stage],
) -> Result<()> {
    let items = items(lock, stages);
    let bar = Bar::counted("download", items.len());
    cache.fetch(client, registries, &items, &bar)?;
    bar.finish(&format!("{} files, every sha256 as locked", items.len()));
    Ok(())
}

fn items(lock: &Lock, stages: &[Stage]) -> Vec<Item> {
    let mut items = Vec::new();
    for stage in stages {
        for package in lock.debian_stage(*stage) {
            let place = Place::Debian { archive: package.archive.clone(), path: package.path.clone() };
            let label = format!("{} {}", package.name, package.version);
            items.push(Item { label, sha256: package.sha256.clone(), place });
        }
    }
    if stages.contains(&Stage::Wheels) {
        for wheel in &lock.wheels.wheels {
            let place = Place::Wheel { project: wheel.name.clone(), file: wheel.file.clone() };
            items.push(Item { label: wheel.file.clone(), sha256: wheel.sha256.clone(), place });
        }
    }
    if stages.contains(&Stage::Node) {
        for package in &lock.node.packages {
            let place = Place::Npm { name: package.name.clone(), version: package.version.clone() };
            let label = format!("{} {}", package.name, package.version);
            items.push(Item { label, sha256: package.sha256.clone(), place });
        }
    }
    items
}

fn grow_layers(plot: &Plot<'_>, stages: &[Stage]) -> Result<BTreeMap<Stage, StoredLayer>> {
    let epoch = plot.lock.debian.source_date_epoch;
    let mut layers = BTreeMap::new();
    let mut before = tree::Tree::default();
    for stage in stages {
        let bar = Bar::spinner(stage.name());
        plot.grow(*stage, &bar)?;
        bar.message("archive the layer");
        let after = tree::scan(&plot.root, epoch)?;
        let changes = tree::difference(&before, &after);
        let file = plot.work.join(format!("{}.layer", stage.name()));
        let layer = layer::write(&plot.root, &after, &changes, epoch, &file)
            .with_context(|| format!("archive the {} layer", stage.name()))?;
        bar.finish(&format!(
            "{} entries, {} unpacked, {} packed",
            changes.len(),
            megabytes(layer.unpacked),
            megabytes(layer.size)
        ));
        layers.insert(*stage, StoredLayer { stage: *stage, layer, file });
        before = after;
    }
    Ok(layers)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

fn describe(image: Image, output: &Path, layers: &[StoredLayer], written: &oci::Written) -> Built {
    let layers: Vec<BuiltLayer> = layers
        .iter()
        .map(|stored| BuiltLayer {
            name: stored.stage.name(),
            digest: format!("sha256:{}", stored.layer.digest),
            diff_id: format!("sha256:{}", stored.layer.diff_id),
            size_bytes: stored.layer.size,
            unpacked_bytes: stored.layer.unpacked,
        })
        .collect();
    Built {
        image: image.name(),
        path: output.to_owned(),
        digest: format!("sha256:{}", written.digest),
        config_digest: format!("sha256:{}", written.config_digest),
        size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
        layers,
    }
}

/// One line for each image, for people.
pub(crate) fn print(built: &[Built]) {
    for image in built {
        println!(
            "{:<8} {} {} {}",
            image.image,
            image.digest,
            megabytes(image.size_bytes),
            image.path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lock in the repository must describe every image completely.
    #[test]
    fn the_committed_lock_covers_every_stage() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("lock");
        let lock = Lock::load(&directory).expect("lock");
        for stage in Stage::ALL {
            for wanted in stage.debian_packages() {
                assert!(lock.debian.packages.iter().any(|package| package.name == *wanted), "{wanted}");
            }
        }
        for project in images::PYTHON_PROJECTS {
            assert!(lock.wheels.wheels.iter().any(|wheel| wheel.name == project), "{project}");
        }
        let items = items(&lock, &Stage::ALL);
        let total = lock.debian.packages.len() + lock.wheels.wheels.len() + lock.node.packages.len();
        assert_eq!(items.len(), total);
    }

    #[test]
    fn a_clock_behind_the_lock_is_refused() {
        check_clock(1_700_000_000).expect("past");
        let error = check_clock(u64::MAX).expect_err("future");
        assert!(error.to_string().contains("clock"), "{error}");
    }

    #[test]
    fn an_image_fetches_only_what_its_stages_need() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("lock");
        let lock = Lock::load(&directory).expect("lock");
        let items = items(&lock, Image::Base.stages());
        assert!(items.iter().all(|item| matches!(item.place, Place::Debian { .. })));
        assert!(items.len() < lock.debian.packages.len());
    }
}
