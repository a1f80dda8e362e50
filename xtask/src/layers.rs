//! Imports point down: the table of layers against every `crate::` path in `src`.
//!
//! One package has no crate boundaries that the compiler would keep, so this program keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::check::Problems;
use crate::imports::imports;
use crate::source::{self, Source};

/// Which modules each module imports.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// What everything may import.
const FLOOR: [&str; 5] = ["limits", "error", "id", "config", "wire"];

/// Modules from the bottom up, and what each may import beside itself and the floor.
///
/// `wire` is data without system calls, so `sys` may name its messages and not the other way round.
const TABLE: [(&str, &[&str]); 25] = [
    ("limits", &[]),
    ("error", &[]),
    ("id", &[]),
    ("config", &[]),
    ("wire", &[]),
    ("sys", &[]),
    ("confine", &["sys"]),
    ("tar", &[]),
    ("holes", &["sys"]),
    ("hops", &[]),
    ("tls", &[]),
    ("seal", &[]),
    ("journal", &[]),
    ("runtime", &["sys", "confine"]),
    ("agent", &["sys", "confine", "tar", "holes"]),
    ("image", &["sys", "confine", "tar", "holes", "tls", "seal"]),
    ("gateway", &["sys", "confine", "hops", "tls"]),
    ("bucket", &["sys", "tls"]),
    ("doctor", &["sys", "runtime"]),
    ("selftest", &["sys"]),
    ("sandbox", &["sys", "journal", "runtime", "image", "gateway", "doctor", "seal"]),
    ("api", &["hops", "journal", "seal", "sandbox"]),
    (
        "roles",
        &["sys", "confine", "runtime", "agent", "bucket", "image", "gateway", "journal", "sandbox", "api"],
    ),
    ("cli", &["sys", "journal", "agent", "runtime", "image", "doctor", "selftest", "sandbox", "api"]),
    ("startup", &["sys", "runtime", "image", "sandbox", "api", "roles", "cli"]),
];

/// Edges that are not in the table, cycles, paths through the root, unsafe code outside `sys`.
pub(crate) fn problems() -> Result<Problems> {
    Ok(of_files(&source::rust_files()?))
}

/// `main.rs` and the tests see the library from outside; there is nothing below to protect.
pub(crate) fn of_files(files: &[Source]) -> Problems {
    let mut problems = Problems::new();
    let mut edges = Edges::new();
    for source in files {
        unsafe_outside_sys(source, &mut problems);
        match source.path.strip_prefix("src").map(module) {
            Ok(module) if module != "main" && module != "lib" => {
                of_module(source, &module, &mut edges, &mut problems);
            }
            _ => {}
        }
    }
    problems.extend(cycles(&edges));
    problems
}

fn of_module(source: &Source, module: &str, edges: &mut Edges, problems: &mut Problems) {
    let path = source.path.display();
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == module) else {
        problems.push(format!("{path}: module {module} is not in the table of layers"));
        return;
    };
    for (index, line) in source.code.iter().enumerate() {
        for name in imports(&source.code, index, line) {
            let place = format!("{path}:{}", index + 1);
            if TABLE.iter().all(|(known, _)| *known != name) {
                problems.push(format!("{place}: crate::{name} goes through the root, name its module"));
            } else if name != module && !allowed.iter().chain(&FLOOR).any(|may| *may == name) {
                problems.push(format!("{place}: {module} may not import {name}"));
            }
            edges.entry(module.to_owned()).or_default().insert(name);
        }
    }
}

/// The first component of a path under `src`, without its extension.
fn module(inside: &Path) -> String {
    let first = inside.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// Modules that reach themselves through others.
fn cycles(edges: &Edges) -> Problems {
    let reaches_itself = |start: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(module) = open.pop() {
            for next in edges.get(&module).into_iter().flatten().filter(|next| **next != module) {
                if next == start {
                    return true;
                }
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        false
    };
    edges
        .keys()
        .filter(|start| reaches_itself(start))
        .map(|m| format!("{m} imports itself by a cycle"))
        .collect()
}

fn unsafe_outside_sys(source: &Source, problems: &mut Problems) {
    if source.path.starts_with("src/sys") {
        return;
    }
    for (index, line) in source.code.iter().enumerate() {
        if line.contains("allow(unsafe_code") || line.contains("expect(unsafe_code") {
            problems.push(format!(
                "{}:{}: unsafe code belongs into src/sys",
                source.path.display(),
                index + 1
            ));
        }
    }
}
