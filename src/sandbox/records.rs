//! What of a sandbox's sessions and contexts outlives their daemon: that they are there, and how they were made. One
//! small file for all of a kind, replaced as a whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::ItemId;

/// What the file says is there: nothing when there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> BTreeMap<ItemId, T> {
    std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Makes this all that the file says.
pub(super) fn write<T: Serialize>(path: &Path, records: &BTreeMap<ItemId, T>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let draft = path.with_extension("new");
    std::fs::write(&draft, serde_json::to_vec(records)?)?;
    std::fs::rename(&draft, path)
}
