//! The lock: every file that goes into an image, by name, version and sha256.
//!
//! ```text
//! lock/debian.toml   suite, epoch, packages by stage
//! lock/wheels.toml   wheels from the Python package index
//! lock/node.toml     packages from the npm registry
//! ```
//!
//! No host names: a file is named by its place below an archive or registry, and which mirror serves
//! those is this machine's configuration.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::images::Stage;

/// The three lock files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) debian: Debian,
    pub(crate) wheels: Wheels,
    pub(crate) node: Node,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Debian {
    pub(crate) suite: String,
    /// Seconds since 1970; nothing in an image is newer (reproducible-builds.org, SOURCE_DATE_EPOCH).
    pub(crate) source_date_epoch: u64,
    #[serde(rename = "package", default)]
    pub(crate) packages: Vec<DebianPackage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DebianPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) stage: Stage,
    /// Unpacked by the builder before dpkg can run: part of what essential packages need.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bootstrap: bool,
    pub(crate) archive: String,
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheels {
    pub(crate) python: String,
    #[serde(rename = "wheel", default)]
    pub(crate) wheels: Vec<Wheel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheel {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) file: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    #[serde(rename = "package", default)]
    pub(crate) packages: Vec<NpmPackage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NpmPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

impl Lock {
    /// Reads and checks the three files.
    ///
    /// # Errors
    /// When a file is missing, malformed, or holds a name or sum that cannot be right.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let lock = Self {
            debian: load_file(&directory.join("debian.toml"))?,
            wheels: load_file(&directory.join("wheels.toml"))?,
            node: load_file(&directory.join("node.toml"))?,
        };
        lock.check().with_context(|| format!("lock in {}", directory.display()))?;
        Ok(lock)
    }

    /// Writes the three files, names in order, so that a refresh is a readable diff.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        self.check()?;
        std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        save_file(&directory.join("debian.toml"), &self.debian)?;
        save_file(&directory.join("wheels.toml"), &self.wheels)?;
        save_file(&directory.join("node.toml"), &self.node)
    }

    /// The Debian packages of one stage.
    pub(crate) fn debian_stage(&self, stage: Stage) -> impl Iterator<Item = &DebianPackage> {
        self.debian.packages.iter().filter(move |package| package.stage == stage)
    }

    fn check(&self) -> Result<()> {
        let suite = crate::images::SUITE;
        ensure!(self.debian.suite == suite, "suite is {:?}, this builder makes {suite}", self.debian.suite);
        for package in &self.debian.packages {
            check_name(&package.name)?;
            check_sum(&package.name, &package.sha256)?;
            let outside = package.path.starts_with('/') || package.path.split('/').any(|part| part == "..");
            ensure!(!outside, "{}: path {:?} leaves the archive", package.name, package.path);
        }
        for wheel in &self.wheels.wheels {
            check_name(&wheel.name)?;
            check_sum(&wheel.name, &wheel.sha256)?;
            let plain = !wheel.file.contains('/') && wheel.file.ends_with(".whl");
            ensure!(plain, "{}: {:?} is not a wheel's file name", wheel.name, wheel.file);
        }
        for package in &self.node.packages {
            check_name(&package.name)?;
            check_sum(&package.name, &package.sha256)?;
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "+-._".contains(letter);
    ensure!(!name.is_empty() && name.chars().all(allowed), "{name:?} is not a package name");
    ensure!(!name.starts_with(['.', '-']), "{name:?} is not a package name");
    Ok(())
}

fn check_sum(name: &str, sum: &str) -> Result<()> {
    let hexadecimal = |letter: char| letter.is_ascii_digit() || ('a'..='f').contains(&letter);
    ensure!(sum.len() == 64 && sum.chars().all(hexadecimal), "{name}: {sum:?} is not a sha256 sum");
    Ok(())
}

fn load_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("read {}\nfix: run `rootfs-builder lock`, or name the directory with --lock", path.display())
    })?;
    toml::from_str(&text).with_context(|| format!("{} is not a lock", path.display()))
}

fn save_file<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = toml::to_string(value).context("spell the lock")?;
    let header = "# Written by `cargo run -p rootfs-builder -- lock`.\n";
    std::fs::write(path, format!("{header}{text}")).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Lock {
        let sum = "ab".repeat(32);
        Lock {
            debian: Debian {
                suite: crate::images::SUITE.into(),
                source_date_epoch: 1_700_000_000,
                packages: vec![DebianPackage {
                    name: "g++".into(),
                    version: "1:1".into(),
                    stage: Stage::Tools,
                    bootstrap: false,
                    archive: "debian".into(),
                    path: "pool/g.deb".into(),
                    size: 1,
                    sha256: sum.clone(),
                }],
            },
            wheels: Wheels {
                python: "3.11".into(),
                wheels: vec![Wheel {
                    name: "numpy".into(),
                    version: "2".into(),
                    file: "numpy-2-cp311.whl".into(),
                    sha256: sum.clone(),
                }],
            },
            node: Node {
                packages: vec![NpmPackage { name: "npm".into(), version: "11".into(), sha256: sum }],
            },
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().expect("directory");
        sample().save(directory.path()).expect("save");
        assert_eq!(Lock::load(directory.path()).expect("load"), sample());
    }

    #[test]
    fn sums_names_and_paths_are_checked() {
        let mut lock = sample();
        lock.node.packages[0].sha256 = "abc".into();
        assert!(lock.check().expect_err("short sum").to_string().contains("npm"));
        let mut lock = sample();
        lock.debian.packages[0].path = "pool/../../etc".into();
        lock.check().expect_err("path leaves the archive");
        let mut lock = sample();
        lock.wheels.wheels[0].file = "../x.whl".into();
        lock.check().expect_err("not a file name");
    }

    #[test]
    fn unknown_fields_are_refused() {
        let directory = tempfile::tempdir().expect("directory");
        sample().save(directory.path()).expect("save");
        let file = directory.path().join("node.toml");
        let text = std::fs::read_to_string(&file).expect("read");
        std::fs::write(&file, text.replace("version", "vresion")).expect("write");
        let error = Lock::load(directory.path()).expect_err("unknown field");
        assert!(format!("{error:#}").contains("vresion"), "{error:#}");
    }

    #[test]
    fn a_missing_lock_names_the_command_that_makes_it() {
        let error = Lock::load(Path::new("/nonexistent")).expect_err("missing");
        assert!(format!("{error:#}").contains("rootfs-builder lock"), "{error:#}");
    }
}
