//! Which mirror serves Debian's archives: read from apt's configuration, never written in the code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::debian::control;

/// The archive with the releases and their point updates.
pub(crate) const MAIN: &str = "debian";
/// The archive with security updates.
pub(crate) const SECURITY: &str = "debian-security";

/// Base addresses of the two archives, without a slash at the end.
#[derive(Debug, Clone)]
pub(crate) struct Mirrors {
    bases: BTreeMap<String, String>,
}

impl Mirrors {
    /// Takes `main` (and the security archive beside it) if given, else asks apt's configuration.
    ///
    /// # Errors
    /// When no Debian archive is configured on this machine.
    pub(crate) fn find(main: Option<&str>, security: Option<&str>) -> Result<Self> {
        let mut bases = BTreeMap::new();
        for entry in read_configuration(Path::new("/etc/apt"))? {
            if let Some(archive) = classify(&entry) {
                bases.entry(archive.to_owned()).or_insert(entry.base);
            }
        }
        if let Some(main) = main {
            bases = BTreeMap::from([(MAIN.to_owned(), main.trim_end_matches('/').to_owned())]);
        }
        if let Some(security) = security {
            bases.insert(SECURITY.to_owned(), security.trim_end_matches('/').to_owned());
        }
        let Some(main) = bases.get(MAIN).cloned() else {
            bail!(
                "no Debian mirror found in /etc/apt/sources.list or sources.list.d\n\
                 fix: name one with --mirror http://HOST/debian (or STOCKADE_DEBIAN_MIRROR)"
            );
        };
        // Mirrors carry the security archive under this name beside the main one.
        bases.entry(SECURITY.to_owned()).or_insert_with(|| format!("{main}-security"));
        Ok(Self { bases })
    }

    /// The base address of an archive.
    ///
    /// # Errors
    /// When the lock names an archive that is not one of the two.
    pub(crate) fn base(&self, archive: &str) -> Result<&str> {
        self.bases.get(archive).map(String::as_str).with_context(|| format!("unknown archive {archive:?}"))
    }
}

/// One base address with its suites.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    base: String,
    suites: Vec<String>,
}

fn read_configuration(directory: &Path) -> Result<Vec<Entry>> {
    let mut files: Vec<PathBuf> = vec![directory.join("sources.list")];
    if let Ok(listing) = directory.join("sources.list.d").read_dir() {
        files.extend(listing.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut entries = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => entries.extend(parse_paragraphs(&text)),
            Some("list") => entries.extend(text.lines().filter_map(parse_line)),
            _ => {}
        }
    }
    Ok(entries)
}

/// The one-line format of sources.list(5): `deb [options] uri suite component…`.
fn parse_line(line: &str) -> Option<Entry> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let base = words.next()?.trim_end_matches('/').to_owned();
    Some(Entry { base, suites: vec![words.next()?.to_owned()] })
}

/// The deb822 format: one entry for each URI of a paragraph.
fn parse_paragraphs(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for paragraph in control::paragraphs(text) {
        let words = |name| paragraph.get(name).unwrap_or_default().split_whitespace().map(str::to_owned);
        let disabled = paragraph.get("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        if disabled || !words("types").any(|word| word == "deb") {
            continue;
        }
        let suites: Vec<String> = words("suites").collect();
        for uri in words("uris") {
            let base = uri.trim_end_matches('/').to_owned();
            entries.push(Entry { base, suites: suites.clone() });
        }
    }
    entries
}

/// A suite of the release says what an address is; elsewhere (another release) the usual path does.
fn classify(entry: &Entry) -> Option<&'static str> {
    if !entry.base.starts_with("http://") && !entry.base.starts_with("https://") {
        return None;
    }
    let suite = crate::images::SUITE;
    if entry.suites.iter().any(|known| *known == format!("{suite}-security")) {
        return Some(SECURITY);
    }
    if entry.suites.iter().any(|known| known == suite) {
        return Some(MAIN);
    }
    match entry.base.rsplit('/').next() {
        Some(MAIN) => Some(MAIN),
        Some(SECURITY) => Some(SECURITY),
        _ => None,
    }
}

/// Rewrites the example configuration that the `apt` package ships into the file an image gets.
///
/// Taken from the package, the image's mirror depends on the lock and not on the building machine.
///
/// # Errors
/// When the example names no archive.
pub(crate) fn image_configuration(example: &str) -> Result<String> {
    let mut by_base: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in example.lines().filter_map(parse_line) {
        by_base.entry(entry.base).or_default().extend(entry.suites);
    }
    if by_base.is_empty() {
        bail!("the apt package's example sources.list names no archive");
    }
    let paragraphs: Vec<String> = by_base
        .iter()
        .map(|(base, suites)| {
            format!(
                "Types: deb\nURIs: {base}\nSuites: {}\nComponents: main\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
                suites.join(" ")
            )
        })
        .collect();
    Ok(paragraphs.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_classified() {
        let line = parse_line("deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian/ trixie main")
            .expect("line");
        assert_eq!(line, Entry { base: "http://mirror.test/debian".into(), suites: vec!["trixie".into()] });
        assert_eq!(classify(&line), Some(MAIN));
        let text = "Types: deb\nURIs: http://m.test/x/\nSuites: bookworm-security\n\nTypes: deb-src\nURIs: http://s.test/debian\nSuites: bookworm\n";
        let entries = parse_paragraphs(text);
        assert_eq!(entries.len(), 1, "deb-src does not count");
        assert_eq!(classify(&entries[0]), Some(SECURITY));
    }

    #[test]
    fn other_vendors_are_not_mistaken_for_debian() {
        let entry = parse_line("deb https://vendor.test/apt cloud-bookworm main").expect("line");
        assert_eq!(classify(&entry), None);
        assert_eq!(parse_line("# deb http://m.test/debian bookworm main"), None);
    }

    #[test]
    fn the_example_becomes_one_paragraph_for_each_archive() {
        let example = "deb http://m.test/debian bookworm main contrib\ndeb http://m.test/debian bookworm-updates main\n\
                       deb http://m.test/debian-security bookworm-security main\n#deb-src http://m.test/debian bookworm main\n";
        let text = image_configuration(example).expect("configuration");
        assert_eq!(text.matches("Types: deb\n").count(), 2);
        assert!(text.contains("Suites: bookworm bookworm-updates\nComponents: main\n"), "{text}");
    }
}
