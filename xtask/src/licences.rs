//! Dependencies: licences, sources, bans, and published vulnerabilities.
//!
//! Why not cargo-deny for all of it: it takes minutes to install, and these rules are short. Its advisories need a
//! database that we do not carry; they are asked where the program and the database are.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::check::Problems;
use crate::{cargo, output, spdx, succeed};

/// Packages that must not come in, with the reason.
const BANNED: [(&str, &str); 7] = [
    ("aws-lc-rs", "one TLS provider is enough, and that is ring"),
    ("aws-lc-sys", "one TLS provider is enough, and that is ring"),
    ("openssl", "TLS is rustls; OpenSSL cannot be linked into one static binary without its sources"),
    ("openssl-sys", "TLS is rustls; OpenSSL cannot be linked into one static binary without its sources"),
    ("native-tls", "TLS is rustls"),
    ("libseccomp", "LGPL, and seccompiler does it"),
    ("cgroups-rs", "needs a D-Bus client; runtime::cgroup writes the files"),
];

/// Licences, sources and bans, from cargo's own view of the tree.
pub(crate) fn problems() -> Result<Problems> {
    let metadata = output(&mut cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("parse cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("packages in cargo's metadata")?;
    let mut problems = Problems::new();
    let mut sources = BTreeSet::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        if !spdx::permissive(licence) {
            problems.push(format!("{name}: licence {licence:?} is not on the list of permissive ones"));
        }
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            problems.push(format!("{name}: {reason}"));
        }
        if let Some(source) = package["source"].as_str() {
            sources.insert(source);
        }
    }
    if sources.len() > 1 || sources.iter().any(|source| !source.starts_with("registry+")) {
        problems.push(format!("packages come from more than one registry: {sources:?}"));
    }
    Ok(problems)
}

/// Asks for vulnerabilities, where that is possible.
pub(crate) fn advisories() -> Result<()> {
    let version = Command::new("cargo-deny").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        println!("advisories: not asked, cargo-deny is not installed");
        return Ok(());
    }
    let fetched = cargo(&["deny", "fetch", "db"]).status().context("start cargo deny")?;
    if !fetched.success() {
        println!("advisories: not asked, their database is out of reach");
        return Ok(());
    }
    succeed(&mut cargo(&["deny", "check", "--disable-fetch", "advisories"]))
}
