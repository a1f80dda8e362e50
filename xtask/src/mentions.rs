//! Words that no tracked file may contain.

use anyhow::{Context, Result};

use crate::check::Problems;
use crate::source;

/// Hosts that packages come from, and places of a developer's machine. In halves, so that this file passes.
const UNMENTIONABLE: [&str; 7] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", "."),
    concat!("debian", ".org"),
    concat!("..", "/shared"),
    concat!("/work", "/"),
];

/// Files that name what a clone of the repository does not have, or where packages come from.
pub(crate) fn problems() -> Result<Problems> {
    let mut problems = Problems::new();
    for path in source::tracked()?.into_iter().filter(|path| !path.ends_with("Cargo.lock")) {
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            for word in UNMENTIONABLE.iter().filter(|word| line.contains(*word)) {
                problems.push(format!("{}:{}: mentions {word}", path.display(), index + 1));
            }
        }
    }
    Ok(problems)
}
