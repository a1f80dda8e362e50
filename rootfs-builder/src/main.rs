//! `rootfs-builder` makes Stockade's OCI images from Debian packages, PyPI wheels and npm's node.
//!
//! ```text
//! main -> build -> download (registries, debian::sources)   refresh -> debian::{index, resolve}
//!               -> grow     (debian::archive, chroot, memory)
//!               -> tree -> layer (gzip) -> oci
//! rootless: an ordinary user's build runs inside a user namespace
//! ```
//!
//! Invariants: what goes into an image is named in `lock/` by name, version and sha256; two builds from
//! one lock give one digest; no host name of a mirror or registry is written here. The builder needs no
//! Docker, no container registry, and neither dpkg nor debootstrap on the machine: dpkg runs inside the
//! tree it builds.

mod build;
mod chroot;
mod debian;
mod digest;
mod download;
mod grow;
mod gzip;
mod images;
mod layer;
mod lock;
mod memory;
mod oci;
mod progress;
mod refresh;
mod registries;
mod rootless;
mod scratch;
mod signal;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::images::Image;

const EXAMPLES: &str = "\
Examples:
  rootfs-builder build base                      image layout in target/images/base
  rootfs-builder build python --output /tmp/py   image layout in /tmp/py
  rootfs-builder build full --archive --json     tar of the layout, facts on standard output
  rootfs-builder build base python node full     all four; shared layers are built once
  rootfs-builder lock                            take the newest packages into the lock

The result is an OCI image layout:
  stockade import target/images/base     skopeo inspect oci:target/images/base

Root is not needed: an ordinary user needs `uidmap` and a range in /etc/subuid and /etc/subgid.
Mirrors are taken from this machine: apt's sources (or --mirror), pip's index (or PIP_INDEX_URL),
npm's registry (or NPM_CONFIG_REGISTRY).";

/// Makes OCI images from Debian packages, Python wheels and node: locked, reproducible, without Docker.
#[derive(Debug, Parser)]
#[command(name = "rootfs-builder", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build one or more images from the lock.
    Build(BuildArguments),
    /// Resolve all packages anew and write the lock.
    Lock(Shared),
}

#[derive(Debug, Args)]
struct BuildArguments {
    /// The images to build.
    #[arg(required = true, value_enum)]
    images: Vec<Image>,
    /// Where the image goes; with several images, the directory that gets one entry for each.
    /// [default: target/images/IMAGE]
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write one tar file (IMAGE.tar) instead of a layout directory.
    #[arg(long)]
    archive: bool,
    /// Print digests, sizes and paths as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// When a locked Debian package has left the mirror, take the version that replaced it.
    /// The lock on disk stays as it is, and the digest differs from the locked one.
    #[arg(long)]
    relock: bool,
    /// Where the file tree is built, with up to 3 GB for `full`.
    /// [default: in memory if there is enough, else in the cache]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Args)]
struct Shared {
    /// The lock: debian.toml, wheels.toml, node.toml.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/lock"))]
    lock: PathBuf,
    /// Downloads are kept here. [default: $XDG_CACHE_HOME/stockade/rootfs or ~/.cache/stockade/rootfs]
    #[arg(long, value_name = "DIR", env = "STOCKADE_ROOTFS_CACHE")]
    cache: Option<PathBuf>,
    /// Debian mirror, instead of apt's configuration: http://HOST/debian
    #[arg(long, value_name = "URL", env = "STOCKADE_DEBIAN_MIRROR")]
    mirror: Option<String>,
    /// Mirror of Debian's security archive. [default: beside the mirror, with `-security`]
    #[arg(long, value_name = "URL", env = "STOCKADE_DEBIAN_SECURITY_MIRROR")]
    security_mirror: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match rootless::role(&arguments) {
        Some(result) => result,
        None => start(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) if error.is::<signal::Cancelled>() => {
            eprintln!("cancelled; nothing is left behind but the download cache");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> Result<i32> {
    // Before any namespace, so that `--help` and mistakes answer at once.
    let parsed = Arguments::parse();
    signal::install()?;
    match parsed.command {
        Verb::Build(_) if rootless::is_needed() => rootless::run(arguments),
        Verb::Build(build) => run_build(build).map(|()| 0),
        Verb::Lock(shared) => run_lock(&shared).map(|()| 0),
    }
}

fn run_build(arguments: BuildArguments) -> Result<()> {
    let lock = lock::Lock::load(&arguments.shared.lock)?;
    let registries = registries_of(&arguments.shared);
    let cache = cache_of(&arguments.shared)?;
    let order = build::Order {
        outputs: outputs(&arguments)?,
        as_archive: arguments.archive,
        in_memory: arguments.work.is_none(),
        work: arguments.work.unwrap_or_else(|| cache.clone()),
        cache,
        relock: arguments.relock,
        images: arguments.images,
    };
    let built = build::run(&order, lock, &registries)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&built)?);
    } else {
        build::print(&built);
    }
    Ok(())
}

fn run_lock(shared: &Shared) -> Result<()> {
    let cache = download::Cache::open(&cache_of(shared)?)?;
    let old = lock::Lock::load(&shared.lock).ok();
    let lock = refresh::all(&download::Client::new(), &registries_of(shared), &cache, old.as_ref())?;
    lock.save(&shared.lock)?;
    let changed = if old.as_ref() == Some(&lock) { "nothing changed" } else { "written" };
    println!(
        "{}: {} Debian packages, {} wheels, {} npm packages, {changed}",
        shared.lock.display(),
        lock.debian.packages.len(),
        lock.wheels.wheels.len(),
        lock.node.packages.len()
    );
    Ok(())
}

fn registries_of(shared: &Shared) -> registries::Registries {
    registries::Registries::new(shared.mirror.clone(), shared.security_mirror.clone())
}

fn cache_of(shared: &Shared) -> Result<PathBuf> {
    if let Some(cache) = &shared.cache {
        return Ok(cache.clone());
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is set\nfix: name a directory with --cache")?;
    Ok(base.join("stockade/rootfs"))
}

fn outputs(arguments: &BuildArguments) -> Result<Vec<PathBuf>> {
    let mut unique = arguments.images.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() != arguments.images.len() {
        bail!("an image is named twice");
    }
    let suffix = if arguments.archive { ".tar" } else { "" };
    let named = |directory: PathBuf| -> Result<Vec<PathBuf>> {
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(arguments.images.iter().map(|image| directory.join(format!("{}{suffix}", image.name()))).collect())
    };
    match &arguments.output {
        Some(output) if arguments.images.len() == 1 => Ok(vec![output.clone()]),
        Some(directory) => named(directory.clone()),
        None => named(PathBuf::from("target/images")),
    }
}
