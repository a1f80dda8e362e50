//! Which servers hold packages: asked from the machine's own configuration when first needed.
//!
//! ```text
//! Debian  --mirror, or apt's sources
//! Python  PIP_INDEX_URL, pip's configuration, or pip's built-in default
//! npm     NPM_CONFIG_REGISTRY, or npm's configuration (which knows its default)
//! ```
//!
//! No host name is written in the code: a mirror set up for the machine is used without a word, and
//! nothing breaks when a public service moves.

use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::debian::sources::Mirrors;
use crate::download::{Client, Gone, Locate, Place};

/// The servers, found once each.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    mirror: Option<String>,
    security_mirror: Option<String>,
    debian: Mutex<Option<Mirrors>>,
    python: Mutex<Option<String>>,
    npm: Mutex<Option<String>>,
}

/// What the Python index says about one file (PEP 691).
#[derive(Debug, Deserialize)]
struct IndexedFile {
    filename: String,
    url: String,
}

#[derive(Debug, Deserialize)]
struct ProjectPage {
    files: Vec<IndexedFile>,
}

/// What the npm registry says about one version.
#[derive(Debug, Deserialize)]
pub(crate) struct NpmVersion {
    pub(crate) dist: NpmDist,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NpmDist {
    pub(crate) tarball: String,
    pub(crate) integrity: Option<String>,
}

impl Registries {
    pub(crate) fn new(mirror: Option<String>, security_mirror: Option<String>) -> Self {
        Self { mirror, security_mirror, ..Self::default() }
    }

    /// # Errors
    /// When no Debian mirror is configured.
    pub(crate) fn debian(&self) -> Result<Mirrors> {
        once(&self.debian, || Mirrors::find(self.mirror.as_deref(), self.security_mirror.as_deref()))
    }

    /// # Errors
    /// When neither the environment nor pip names an index.
    pub(crate) fn python(&self) -> Result<String> {
        once(&self.python, find_python_index)
    }

    /// # Errors
    /// When neither the environment nor npm names a registry.
    pub(crate) fn npm(&self) -> Result<String> {
        once(&self.npm, find_npm_registry)
    }
}

impl Locate for Registries {
    fn address(&self, client: &Client, place: &Place) -> Result<String> {
        match place {
            Place::Debian { archive, path } => Ok(format!("{}/{path}", self.debian()?.base(archive)?)),
            Place::Wheel { project, file } => {
                let page = format!("{}/{}/", self.python()?, normalized(project));
                let accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1";
                find_wheel(&client.get_as(&page, accept)?, &page, file)
            }
            Place::Npm { name, version } => {
                let document = client.get(&format!("{}/{name}/{version}", self.npm()?))?;
                let version: NpmVersion =
                    serde_json::from_slice(&document).context("read the npm registry's answer")?;
                Ok(version.dist.tarball)
            }
        }
    }
}

fn once<T: Clone>(cell: &Mutex<Option<T>>, find: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut cell =
        cell.lock().map_err(|_| anyhow!("another thread failed while asking the configuration"))?;
    if let Some(value) = cell.as_ref() {
        return Ok(value.clone());
    }
    let value = find()?;
    *cell = Some(value.clone());
    Ok(value)
}

/// The commands under which pip may be installed.
pub(crate) const PIP_COMMANDS: [&[&str]; 2] = [&["python3", "-m", "pip"], &["pip"]];

fn find_python_index() -> Result<String> {
    let configured = std::env::var("PIP_INDEX_URL")
        .ok()
        .or_else(|| PIP_COMMANDS.iter().find_map(|pip| answer(pip, &["config", "get", "global.index-url"])));
    let built_in = || {
        let question = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)";
        answer(&["python3"], &["-c", question])
    };
    let Some(address) = configured.or_else(built_in) else {
        bail!(
            "no Python package index is configured\nfix: set PIP_INDEX_URL, or install pip, which knows one"
        );
    };
    Ok(address.trim_end_matches('/').to_owned())
}

fn find_npm_registry() -> Result<String> {
    let from_environment =
        ["NPM_CONFIG_REGISTRY", "npm_config_registry"].iter().find_map(|name| std::env::var(name).ok());
    let Some(address) = from_environment.or_else(|| answer(&["npm"], &["config", "get", "registry"])) else {
        bail!("no npm registry is configured\nfix: set NPM_CONFIG_REGISTRY, or install npm, which knows one");
    };
    Ok(address.trim_end_matches('/').to_owned())
}

/// The first line of a program's answer, if it is an address.
fn answer(command: &[&str], arguments: &[&str]) -> Option<String> {
    let (program, first) = command.split_first()?;
    let output = Command::new(program).args(first).args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && line.starts_with("http")).then(|| line.to_owned())
}

/// PEP 503: lower case, runs of `-_.` become one `-`.
fn normalized(project: &str) -> String {
    let parts: Vec<&str> = project.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_ascii_lowercase()
}

/// The address of a file on a project's page, which is JSON (PEP 691) or HTML (PEP 503).
fn find_wheel(document: &[u8], page: &str, file: &str) -> Result<String> {
    if let Ok(parsed) = serde_json::from_slice::<ProjectPage>(document) {
        let found = parsed.files.into_iter().find(|entry| entry.filename == file);
        return match found {
            Some(entry) => Ok(join(page, &entry.url)),
            None => Err(Gone(file.to_owned()).into()),
        };
    }
    let html = String::from_utf8_lossy(document);
    let links = html.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|letter| "\"'".contains(*letter))?;
        rest[1..].split(quote).next()
    });
    for link in links {
        let address = link.split('#').next().unwrap_or_default();
        let name = address.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
        // `+` of local versions is the one letter of wheel names that servers escape.
        if name.replace("%2B", "+") == file {
            return Ok(join(page, &address.replace("&amp;", "&")));
        }
    }
    Err(Gone(file.to_owned()).into())
}

/// Resolves a link on a page (RFC 3986 §5, as far as package indexes use it).
fn join(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let host_start = page.find("://").map_or(0, |at| at + 3);
    let host_end = page[host_start..].find('/').map_or(page.len(), |at| host_start + at);
    if link.starts_with('/') {
        return format!("{}{link}", &page[..host_end]);
    }
    let mut parts: Vec<&str> = page[host_end..].split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." => {}
            part => parts.push(part),
        }
    }
    format!("{}{}", &page[..host_end], parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://index.test/simple/numpy/";

    #[test]
    fn both_kinds_of_pages_are_read() {
        let json = br#"{"files":[{"filename":"n-1.whl","url":"https://files.test/n-1.whl","hashes":{}}]}"#;
        assert_eq!(find_wheel(json, PAGE, "n-1.whl").expect("json"), "https://files.test/n-1.whl");
        let html = br#"<a href="../../packages/n-1%2Bcpu.whl#sha256=00">n</a>"#;
        let found = find_wheel(html, PAGE, "n-1+cpu.whl").expect("html");
        assert_eq!(found, "https://index.test/packages/n-1%2Bcpu.whl");
        assert!(find_wheel(json, PAGE, "n-2.whl").expect_err("not listed").is::<Gone>());
    }

    #[test]
    fn links_are_resolved_against_their_page() {
        assert_eq!(join(PAGE, "/a/b.whl"), "https://index.test/a/b.whl");
        assert_eq!(join(PAGE, "b.whl"), "https://index.test/simple/numpy/b.whl");
    }

    #[test]
    fn project_names_are_normalized() {
        assert_eq!(normalized("Jupyter_Core.x"), "jupyter-core-x");
    }
}
