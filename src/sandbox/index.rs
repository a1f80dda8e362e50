//! What serve itself knows of its sandboxes: a file each, written before anybody hears of the sandbox.

use std::path::Path;

use super::Facts;

/// The sandboxes of the index.
pub(super) fn read(index: &Path) -> Vec<Facts> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(index).into_iter().flatten().flatten() {
        let path = entry.path();
        let facts = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Facts>(&text).ok());
        match facts {
            Some(facts) if path.extension().is_some_and(|extension| extension == "json") => found.push(facts),
            // A draft, or the file of another version: nobody was told of it, or it cannot be adopted.
            _ => drop(std::fs::remove_file(&path)),
        }
    }
    found
}
