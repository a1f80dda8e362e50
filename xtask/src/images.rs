//! The images that tests run code in, `python` and `node`: built by `rootfs-builder`, once for each state of it.
//!
//! Built here, so that no test waits for the network. Without network the tests that need them are skipped.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{process, source};

/// What the tests need. `base` comes along as a layer of both.
const IMAGES: [&str; 2] = ["python", "node"];

/// What builds them, itself built; `None` when what is there was made of the same.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn builder() -> Result<Option<Command>> {
    let base = base();
    let there = IMAGES.iter().all(|image| base.join(image).join("index.json").exists());
    if there
        && fs::read_to_string(base.join("ready")).is_ok_and(|ready| ready == made_of().unwrap_or_default())
    {
        return Ok(None);
    }
    process::run(process::cargo().args(["build", "--locked", "-p", "rootfs-builder"]))?;
    // Not through cargo, which would wait for what it builds meanwhile.
    let mut build = Command::new(process::target().join("x86_64-unknown-linux-gnu/debug/rootfs-builder"));
    // Debian's mirror drops what the lock names when something newer is there: then that.
    build.args(["build", "--relock"]).args(IMAGES).arg("--output").arg(base).current_dir(process::root());
    Ok(Some(build))
}

/// Builds them.
///
/// # Errors
/// When a mirror or a registry cannot be reached, or a build fails.
pub(crate) fn prepare(mut builder: Command) -> Result<()> {
    println!("building the images {}", IMAGES.join(" and "));
    process::run(&mut builder)?;
    fs::write(base().join("ready"), made_of()?)?;
    Ok(())
}

fn base() -> PathBuf {
    process::target().join("images")
}

/// All that they are made of, as text.
fn made_of() -> Result<String> {
    let mut text = String::new();
    for path in sources()? {
        text.push_str(&format!("--- {}\n", path.display()));
        text.push_str(&String::from_utf8_lossy(&fs::read(&path)?));
    }
    Ok(text)
}

fn sources() -> Result<Vec<PathBuf>> {
    let directory =
        |path: &PathBuf| path.starts_with("rootfs-builder/src") || path.starts_with("rootfs-builder/lock");
    Ok(source::tracked()?.into_iter().filter(directory).collect())
}
