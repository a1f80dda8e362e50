//! Every rule of every seccomp profile says why. (That each compiles, and to what, the crate's own tests show.)

use anyhow::{Context, Result};
use serde_json::Value;

use crate::check::Problems;

/// Shorter ones are no reasons.
const REASON_CHARACTERS_MIN: usize = 10;

/// Rules that do not.
pub(crate) fn problems() -> Result<Problems> {
    let mut problems = Problems::new();
    for entry in std::fs::read_dir("seccomp-profiles").context("list the seccomp profiles")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let profile: Value = serde_json::from_slice(&std::fs::read(&path)?)
            .with_context(|| format!("parse {}", path.display()))?;
        let lists = profile
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name, value.as_array()?)));
        for (list, rules) in lists {
            for (index, rule) in rules.iter().enumerate() {
                if rule["why"].as_str().is_none_or(|why| why.len() < REASON_CHARACTERS_MIN) {
                    problems.push(format!("{}: {list}[{index}] does not say why", path.display()));
                }
            }
        }
    }
    Ok(problems)
}
