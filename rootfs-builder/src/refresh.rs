//! Makes the lock anew from what mirrors and registries offer now.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest, Sha512};

use crate::debian::index;
use crate::debian::resolve::{Package, Selection, Universe};
use crate::download::{Cache, Client};
use crate::images::{NPM_PACKAGES, PYTHON_PROJECTS, PYTHON_VERSION, SUITE, Stage};
use crate::lock::{Debian, DebianPackage, Lock, Node, NpmPackage, Wheel, Wheels};
use crate::progress::Bar;
use crate::registries::{NpmDist, NpmVersion, PIP_COMMANDS, Registries};

/// What to do with locked versions that are still on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The newest of everything.
    Newest,
    /// Replace only what is gone.
    Replace,
}

/// Resolves Debian's part.
///
/// # Errors
/// When the index cannot be had or a wanted package cannot be installed from it.
pub(crate) fn debian(
    client: &Client,
    registries: &Registries,
    old: Option<&Debian>,
    aim: Aim,
) -> Result<Debian> {
    let bar = Bar::spinner("index");
    let offer = index::read(client, &registries.debian()?).context("read Debian's package index")?;
    bar.finish(&format!("Debian offers {} packages", offer.packages.len()));
    let preferred: Vec<String> = match (aim, old) {
        (Aim::Replace, Some(old)) => old.packages.iter().map(|package| package.sha256.clone()).collect(),
        _ => Vec::new(),
    };
    let packages = resolve_stages(&Universe::new(offer.packages.clone(), &preferred));
    // Old and new versions may not fit together, for example `= version` between parts of gcc.
    let packages = match packages {
        Err(_) if !preferred.is_empty() => resolve_stages(&Universe::new(offer.packages, &[]))?,
        other => other?,
    };
    // The epoch moves only with the packages: otherwise every refresh would change every digest.
    let epoch = match old {
        Some(old) if old.packages == packages || aim == Aim::Replace => old.source_date_epoch,
        _ => offer.date,
    };
    Ok(Debian { suite: SUITE.to_owned(), source_date_epoch: epoch, packages })
}

fn resolve_stages(universe: &Universe) -> Result<Vec<DebianPackage>> {
    let mut selection = Selection::new();
    let mut known = BTreeSet::new();
    let mut locked = Vec::new();
    let mut take = |selection: &Selection, stage: Stage, bootstrap: bool| {
        for package in selection.values() {
            if known.insert(package.name.clone()) {
                locked.push(lock_package(package, stage, bootstrap));
            }
        }
    };
    universe.resolve(&mut selection, &universe.essential()).context("the essential packages")?;
    take(&selection, Stage::Base, true);
    for stage in Stage::ALL {
        let wanted: Vec<String> = stage.debian_packages().iter().map(|name| (*name).to_owned()).collect();
        universe.resolve(&mut selection, &wanted).with_context(|| format!("stage {}", stage.name()))?;
        take(&selection, stage, false);
    }
    Ok(locked)
}

fn lock_package(package: &Package, stage: Stage, bootstrap: bool) -> DebianPackage {
    DebianPackage {
        name: package.name.clone(),
        version: package.version.clone(),
        stage,
        bootstrap,
        archive: package.archive.clone(),
        path: package.path.clone(),
        size: package.size,
        sha256: package.sha256.clone(),
    }
}

#[derive(Debug, Deserialize)]
struct PipReport {
    install: Vec<PipInstall>,
}

#[derive(Debug, Deserialize)]
struct PipInstall {
    metadata: PipMetadata,
    download_info: PipDownload,
}

#[derive(Debug, Deserialize)]
struct PipMetadata {
    name: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct PipDownload {
    url: String,
    archive_info: PipArchive,
}

#[derive(Debug, Deserialize)]
struct PipArchive {
    hashes: std::collections::BTreeMap<String, String>,
}

/// Lets pip resolve the wheels for the image's interpreter, without installing anything.
///
/// # Errors
/// When pip is missing or finds no wheel for a project.
pub(crate) fn wheels() -> Result<Wheels> {
    let bar = Bar::spinner("wheels");
    let report = run_pip()?;
    let report: PipReport = serde_json::from_slice(&report).context("read pip's report")?;
    let mut wheels = Vec::new();
    for install in report.install {
        let PipMetadata { name, version } = install.metadata;
        let address = install.download_info.url;
        ensure!(!address.starts_with("file:"), "pip took {name} from this machine instead of the index");
        let file = address.split('#').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let sha256 = install.download_info.archive_info.hashes.get("sha256");
        let sha256 = sha256.with_context(|| format!("the index gives no sha256 for {name}"))?.clone();
        wheels.push(Wheel {
            name: name.to_ascii_lowercase(),
            version,
            file: file.replace("%2B", "+"),
            sha256,
        });
    }
    wheels.sort_by(|left, right| left.name.cmp(&right.name));
    bar.finish(&format!("{} wheels", wheels.len()));
    Ok(Wheels { python: PYTHON_VERSION.to_owned(), wheels })
}

fn run_pip() -> Result<Vec<u8>> {
    for pip in PIP_COMMANDS {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]);
        command.args([
            "--disable-pip-version-check",
            "--quiet",
            "install",
            "--dry-run",
            "--ignore-installed",
        ]);
        command.args(["--target", "/nonexistent", "--only-binary=:all:", "--implementation", "cp"]);
        command.args(["--python-version", PYTHON_VERSION, "--report", "-"]);
        // Debian 12 has glibc 2.36; pip does not derive older tags from newer ones by itself.
        for tag in ["2_36", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17"] {
            command.args(["--platform", &format!("manylinux_{tag}_x86_64")]);
        }
        command.args(["--platform", "manylinux2014_x86_64"]).args(PYTHON_PROJECTS);
        // Wheels of this machine are not on the index and could not be had elsewhere.
        command.env_remove("PIP_FIND_LINKS").stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => return Ok(output.stdout),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                if !text.contains("No module named pip") {
                    bail!("pip could not resolve the wheels:\n{text}");
                }
            }
            Err(_) => {}
        }
    }
    bail!("pip is not installed, and only pip knows how to resolve wheels\nfix: install pip (22.2 or newer)")
}

#[derive(Debug, Deserialize)]
struct NpmProject {
    versions: std::collections::BTreeMap<String, NpmVersion>,
}

/// Takes the newest versions of the wanted lines and checks them against the registry's sha512.
///
/// # Errors
/// When the registry cannot be reached or sends something else than it announces.
pub(crate) fn node(client: &Client, registries: &Registries, cache: &Cache) -> Result<Node> {
    let bar = Bar::spinner("node");
    let mut packages = Vec::new();
    for (name, major) in NPM_PACKAGES {
        let address = format!("{}/{name}", registries.npm()?);
        let document = client.get_as(&address, "application/vnd.npm.install-v1+json")?;
        let project: NpmProject =
            serde_json::from_slice(&document).context("read the npm registry's answer")?;
        let newest = newest_of_line(project.versions.keys(), major);
        let version = newest.with_context(|| format!("the registry has no {name} {major}"))?;
        let dist = &project.versions[&version].dist;
        bar.message(&format!("{name} {version}"));
        let sha256 = cache.adopt(client, &dist.tarball)?;
        verify(dist, &std::fs::read(cache.path(&sha256)).context("read the download")?)
            .with_context(|| format!("{name} {version}"))?;
        packages.push(NpmPackage { name: name.to_owned(), version, sha256 });
    }
    let names: Vec<String> = packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
    bar.finish(&names.join(", "));
    Ok(Node { packages })
}

fn newest_of_line<'a>(versions: impl Iterator<Item = &'a String>, major: u64) -> Option<String> {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        // A pre-release has letters after a dash and is not a number.
        version.split('.').map(|part| part.parse().ok()).collect()
    };
    versions
        .filter_map(|version| Some((numbers(version)?, version)))
        .filter(|(numbers, _)| numbers.first() == Some(&major))
        .max()
        .map(|(_, version)| version.clone())
}

fn verify(dist: &NpmDist, bytes: &[u8]) -> Result<()> {
    let integrity = dist.integrity.as_deref().context("the registry announces no integrity")?;
    let expected = integrity.split_whitespace().find_map(|sum| sum.strip_prefix("sha512-"));
    let expected = expected.context("the registry announces no sha512")?;
    ensure!(
        STANDARD.encode(Sha512::digest(bytes)) == expected,
        "the file does not match the announced sha512"
    );
    Ok(())
}

/// Refreshes all three parts.
///
/// # Errors
/// As its parts.
pub(crate) fn all(
    client: &Client,
    registries: &Registries,
    cache: &Cache,
    old: Option<&Lock>,
) -> Result<Lock> {
    Ok(Lock {
        debian: debian(client, registries, old.map(|lock| &lock.debian), Aim::Newest)?,
        wheels: wheels()?,
        node: node(client, registries, cache)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_line_is_by_number_and_never_a_prerelease() {
        let versions = ["24.9.0", "24.10.1", "24.11.0-rc.1", "25.0.0", "3.0.0"].map(str::to_owned);
        assert_eq!(newest_of_line(versions.iter(), 24).as_deref(), Some("24.10.1"));
        assert_eq!(newest_of_line(versions.iter(), 4), None);
    }

    #[test]
    fn announced_sums_are_checked() {
        let sum = STANDARD.encode(Sha512::digest(b"right"));
        let dist = NpmDist { tarball: String::new(), integrity: Some(format!("sha512-{sum}")) };
        verify(&dist, b"right").expect("right");
        verify(&dist, b"wrong").expect_err("wrong");
    }
}
