//! A file tree as data, and the difference between two of them.
//!
//! ```text
//! scan(root) -> Tree      after each stage
//! Tree - Tree -> Change*  additions and whiteouts in path order, parents first
//! ```
//!
//! Invariants: the same files give the same [`Tree`] on every machine — owners are numbers, times are
//! clamped, directories have no times of their own (they change whenever a neighbour stage adds a file).
//! The tree holds only directories, files and links: a device node or socket is an error. Extended
//! attributes are not read: no package of these images sets any (Debian sets file capabilities by script
//! and only where `libcap2-bin` is installed).

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{digest, signal};

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { size: u64, sha256: String },
    Symlink { target: PathBuf },
}

/// One path with everything that goes into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) modified: u64,
}

/// All paths below a root, relative to it. The order is by path component, so parents come first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<PathBuf, Node>,
    /// For files with several names: the inode they share, by path. It identifies names of one file
    /// within one scan and is never compared between scans.
    pub(crate) inodes: BTreeMap<PathBuf, u64>,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The path is there, new or different (or the parent of such a path).
    Put(PathBuf),
    /// The path and all below it are gone.
    Remove(PathBuf),
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Put(path) | Self::Remove(path) => path,
        }
    }
}

/// Reads a file tree. Times after `epoch` become `epoch`.
///
/// # Errors
/// When a path cannot be read or is of a kind that has no place in an image.
pub(crate) fn scan(root: &Path, epoch: u64) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut sums: BTreeMap<u64, String> = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        signal::check()?;
        let full = root.join(&directory);
        for entry in full.read_dir().with_context(|| format!("list {}", full.display()))? {
            let path = directory.join(entry?.file_name());
            let full = root.join(&path);
            let metadata = full.symlink_metadata().with_context(|| format!("look at {}", full.display()))?;
            let node = read_node(&full, &metadata, epoch, &mut sums)?;
            if node.kind == Kind::Directory {
                directories.push(path.clone());
            } else if metadata.nlink() > 1 {
                tree.inodes.insert(path.clone(), metadata.ino());
            }
            tree.nodes.insert(path, node);
        }
    }
    Ok(tree)
}

fn read_node(full: &Path, metadata: &Metadata, epoch: u64, sums: &mut BTreeMap<u64, String>) -> Result<Node> {
    let kind = if metadata.is_dir() {
        Kind::Directory
    } else if metadata.is_symlink() {
        Kind::Symlink { target: fs::read_link(full)? }
    } else if metadata.is_file() {
        let known = sums.get(&metadata.ino()).filter(|_| metadata.nlink() > 1).cloned();
        let sha256 = match known {
            Some(sum) => sum,
            None => digest::of_file(full)?,
        };
        sums.insert(metadata.ino(), sha256.clone());
        Kind::File { size: metadata.len(), sha256 }
    } else {
        bail!("{} is neither a file, a directory nor a link; images hold nothing else", full.display());
    };
    let modified = match kind {
        Kind::File { .. } => u64::try_from(metadata.mtime()).unwrap_or(0).min(epoch),
        // Directories change with their neighbours, links get the time of their making.
        Kind::Directory | Kind::Symlink { .. } => epoch,
    };
    // The mode of a link is the kernel's choice and means nothing.
    let mode = if metadata.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
    Ok(Node { kind, mode, uid: metadata.uid(), gid: metadata.gid(), modified })
}

/// The changes that turn `old` into `new`, in path order.
///
/// Parents of added paths are named too: an unpacker that keeps layers apart would otherwise make them
/// with an owner and mode of its own, which then hide the right ones.
pub(crate) fn difference(old: &Tree, new: &Tree) -> Vec<Change> {
    let mut changes: BTreeMap<PathBuf, Change> = BTreeMap::new();
    for (path, node) in &new.nodes {
        if old.nodes.get(path) == Some(node) {
            continue;
        }
        for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            changes.insert(part.to_owned(), Change::Put(part.to_owned()));
        }
    }
    for path in old.nodes.keys() {
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent_stays = parent.as_os_str().is_empty()
            || new.nodes.get(parent).is_some_and(|node| node.kind == Kind::Directory);
        if parent_stays && !new.nodes.contains_key(path) {
            for part in parent.ancestors().filter(|part| !part.as_os_str().is_empty()) {
                changes.insert(part.to_owned(), Change::Put(part.to_owned()));
            }
            changes.insert(path.clone(), Change::Remove(path.clone()));
        }
    }
    let changes: Vec<Change> = changes.into_values().collect();
    debug_assert!(changes.is_sorted_by(|left, right| left.path() < right.path()));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(nodes: &[(&str, Kind)]) -> Tree {
        let node = |kind: &Kind| Node { kind: kind.clone(), mode: 0o755, uid: 0, gid: 0, modified: 1 };
        Tree {
            nodes: nodes.iter().map(|(path, kind)| (PathBuf::from(path), node(kind))).collect(),
            inodes: BTreeMap::new(),
        }
    }

    fn file(content: &str) -> Kind {
        Kind::File { size: 1, sha256: content.to_owned() }
    }

    fn put(path: &str) -> Change {
        Change::Put(path.into())
    }

    #[test]
    fn only_changes_and_their_parents_are_named() {
        let dir = || Kind::Directory;
        let old = tree(&[("etc", dir()), ("etc/a", file("1")), ("usr", dir()), ("usr/b", file("1"))]);
        let new = tree(&[("etc", dir()), ("etc/a", file("2")), ("usr", dir()), ("usr/b", file("1"))]);
        assert_eq!(difference(&old, &new), [put("etc"), put("etc/a")]);
        assert_eq!(difference(&old, &old), []);
    }

    #[test]
    fn a_removed_directory_is_one_whiteout() {
        let dir = || Kind::Directory;
        let old = tree(&[("a", dir()), ("a/b", dir()), ("a/b/c", file("1")), ("a/keep", file("1"))]);
        let new = tree(&[("a", dir()), ("a/keep", file("1"))]);
        assert_eq!(difference(&old, &new), [put("a"), Change::Remove("a/b".into())]);
    }

    #[test]
    fn a_directory_replaced_by_a_file_needs_no_whiteout() {
        let old = tree(&[("a", Kind::Directory), ("a/b", file("1"))]);
        let new = tree(&[("a", file("2"))]);
        assert_eq!(difference(&old, &new), [put("a")]);
    }

    #[test]
    fn a_changed_owner_is_a_change() {
        let old = tree(&[("a", file("1"))]);
        let mut new = old.clone();
        new.nodes.get_mut(Path::new("a")).expect("node").uid = 7;
        assert_eq!(difference(&old, &new), [put("a")]);
    }

    #[test]
    fn scans_clamp_times_and_know_names_of_one_file() {
        let root = tempfile::tempdir().expect("root");
        fs::write(root.path().join("one"), "x").expect("write");
        fs::hard_link(root.path().join("one"), root.path().join("two")).expect("link");
        std::os::unix::fs::symlink("one", root.path().join("three")).expect("symlink");
        let tree = scan(root.path(), 1_000).expect("scan");
        assert_eq!(tree.nodes.len(), 3);
        assert!(tree.nodes.values().all(|node| node.modified == 1_000));
        assert_eq!(tree.inodes[Path::new("one")], tree.inodes[Path::new("two")]);
        assert_eq!(tree.nodes[Path::new("three")].kind, Kind::Symlink { target: "one".into() });
    }

    #[test]
    fn sockets_are_refused() {
        let root = tempfile::tempdir().expect("root");
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).expect("bind");
        let error = scan(root.path(), 0).expect_err("socket");
        assert!(error.to_string().contains("neither"), "{error}");
    }
}
