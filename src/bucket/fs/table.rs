//! What is known of the tree: inodes that the kernel refers to, and listings of directories, each for a while.
//!
//! Nothing here waits or asks: what is missing or too old is for the caller to fetch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::names;
use super::stage::Staged;
use crate::bucket::fuse::{Attr, Entry, NameType};
use crate::bucket::s3::Object;
use crate::sys::Errno;

/// The root's inode.
pub(super) const ROOT: u64 = 1;

/// Names of a listing that is kept. Larger directories are asked for anew each time.
pub(super) const LISTING_MAX: usize = 20_000;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Symlink,
}

impl Kind {
    /// The bits of `st_mode` (inode(7)).
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Directory => 0o040_000,
            Self::File => 0o100_000,
            Self::Symlink => 0o120_000,
        }
    }

    pub(super) fn of_name(self) -> NameType {
        match self {
            Self::Directory => NameType::Directory,
            Self::File => NameType::File,
            Self::Symlink => NameType::Symlink,
        }
    }
}

/// A version of an object that open files hold on to. Our own uploads and copies move it on; others' make a new one.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) etag: String,
    pub(super) size: u64,
}

/// What a bucket says of a name.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// The object; of a directory, that of its marker, if it has one.
    pub(super) object: Option<Object>,
}

/// An inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u64,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) number: u64,
    /// Permissions.
    pub(super) mode: u32,
    pub(super) mtime_ns: i128,
    /// The object, if there is one; of a directory, its marker.
    pub(super) version: Option<Arc<Mutex<Version>>>,
    pub(super) fresh_until: Instant,
    /// How often the kernel refers to it.
    references: u64,
    pub(super) opens: u32,
    pub(super) staged: Option<Arc<Staged>>,
    children: HashMap<String, u64>,
    pub(super) listing: Option<Listing>,
    /// It has no name any more.
    pub(super) removed: bool,
    /// Held by whoever changes what the bucket has of it.
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
    /// The version of which the kernel has pages.
    pub(super) paged: Option<String>,
}

/// Names of a directory.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) fresh_until: Instant,
    /// There are no others.
    pub(super) whole: bool,
    /// Whether each is a directory.
    pub(super) names: Arc<BTreeMap<String, bool>>,
}

/// What is known of a name without asking.
#[derive(Debug)]
pub(super) enum Known {
    /// This.
    Node(u64),
    /// That there is none.
    Nothing,
    /// That there is one, and whether it is a directory.
    Listed(bool),
    /// Nothing.
    Unknown,
}

/// How attributes are made where the bucket does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) file_mode: u32,
    pub(super) dir_mode: u32,
    pub(super) ttl: Duration,
    /// Of what has no time.
    pub(super) mtime_ns: i128,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Table {
    nodes: HashMap<u64, Node>,
    next: u64,
    pub(super) defaults: Defaults,
    prefix: String,
}

impl Table {
    pub(super) fn new(defaults: Defaults, prefix: String) -> Self {
        let mut table = Self { nodes: HashMap::new(), next: ROOT, defaults, prefix };
        let found = Found { kind: Kind::Directory, object: None };
        table.add(0, "", &found);
        if let Some(root) = table.nodes.get_mut(&ROOT) {
            root.number = ROOT;
            root.references = 1;
        }
        table
    }

    pub(super) fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::STALE)
    }

    pub(super) fn node_mut(&mut self, node: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&node).ok_or(Errno::STALE)
    }

    /// All inodes that are being written.
    pub(super) fn staged(&self) -> Vec<(u64, Arc<Staged>)> {
        self.nodes.iter().filter_map(|(id, node)| Some((*id, Arc::clone(node.staged.as_ref()?)))).collect()
    }

    /// The path in the mount, without a slash at its ends.
    pub(super) fn path(&self, node: u64) -> Result<String, Errno> {
        let mut components = Vec::new();
        let mut current = node;
        while current != ROOT {
            let node = self.node(current)?;
            components.push(&*node.name);
            current = node.parent;
        }
        components.reverse();
        Ok(components.join("/"))
    }

    /// The key of a file.
    pub(super) fn key(&self, node: u64) -> Result<String, Errno> {
        Ok(format!("{}{}", self.prefix, self.path(node)?))
    }

    /// What the keys in a directory begin with: its marker's key.
    pub(super) fn directory_key(&self, node: u64) -> Result<String, Errno> {
        if node == ROOT {
            return Ok(self.prefix.clone());
        }
        Ok(format!("{}{}/", self.prefix, self.path(node)?))
    }

    pub(super) fn child(&self, parent: u64, name: &str) -> Option<u64> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// Names in a directory that are inodes: what they are, and whether they are not in the bucket yet.
    pub(super) fn children(&self, parent: u64) -> Vec<(String, u64, Kind, bool)> {
        let Ok(parent) = self.node(parent) else { return Vec::new() };
        let children = parent.children.iter().filter_map(|(name, id)| {
            let node = self.nodes.get(id)?;
            Some((name.clone(), node.number, node.kind, node.staged.is_some() && node.version.is_none()))
        });
        children.collect()
    }

    /// All inodes below a directory.
    pub(super) fn below(&self, directory: u64) -> Vec<u64> {
        let mut found = Vec::new();
        let mut open = vec![directory];
        while let Some(current) = open.pop() {
            if let Some(node) = self.nodes.get(&current) {
                open.extend(node.children.values());
                found.extend(node.children.values());
            }
        }
        found
    }

    pub(super) fn known(&self, parent: u64, name: &str) -> Known {
        let now = Instant::now();
        let Ok(directory) = self.node(parent) else { return Known::Nothing };
        if let Some(id) = directory.children.get(name)
            && let Some(node) = self.nodes.get(id)
            && (node.fresh_until > now || node.staged.as_ref().is_some_and(|staged| staged.state().dirty))
        {
            return Known::Node(*id);
        }
        match &directory.listing {
            Some(listing) if listing.fresh_until > now => match listing.names.get(name) {
                Some(directory) => Known::Listed(*directory),
                None if listing.whole => Known::Nothing,
                None => Known::Unknown,
            },
            _ => Known::Unknown,
        }
    }

    fn add(&mut self, parent: u64, name: &str, found: &Found) -> u64 {
        let id = self.next;
        self.next += 1;
        let number = self.nodes.get(&parent).map_or(0, |parent| parent.number);
        let node = Node {
            parent,
            name: name.to_owned(),
            kind: found.kind,
            number: names::number(number, name),
            mode: 0,
            mtime_ns: 0,
            version: None,
            fresh_until: Instant::now(),
            references: 0,
            opens: 0,
            staged: None,
            children: HashMap::new(),
            listing: None,
            removed: false,
            gate: Arc::default(),
            paged: None,
        };
        self.nodes.insert(id, node);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.insert(name.to_owned(), id);
        }
        self.update(id, found);
        id
    }

    /// Takes in what the bucket says of a name, and gives its inode.
    pub(super) fn install(&mut self, parent: u64, name: &str, found: &Found) -> u64 {
        if let Some(id) = self.child(parent, name)
            && let Some(node) = self.nodes.get(&id)
        {
            let written = node.staged.as_ref().is_some_and(|staged| staged.state().dirty);
            if node.kind == found.kind && !written {
                self.update(id, found);
            }
            if node_kind(self, id) == Some(found.kind) || written {
                return id;
            }
            // What was a file is a directory now, or the other way round.
            self.detach(id);
        }
        self.add(parent, name, found)
    }

    /// Takes in what the bucket says of an inode of that kind.
    pub(super) fn update(&mut self, id: u64, found: &Found) {
        let defaults = self.defaults;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let default = if found.kind == Kind::Directory { defaults.dir_mode } else { defaults.file_mode };
        let mode = found.object.as_ref().and_then(|object| object.mode).unwrap_or(default);
        node.mode = if found.kind == Kind::Symlink { 0o777 } else { mode & 0o1777 };
        node.mtime_ns = found.object.as_ref().map_or(defaults.mtime_ns, |object| object.mtime_ns);
        node.fresh_until = Instant::now() + defaults.ttl;
        match (&found.object, &node.version) {
            (None, _) => node.version = None,
            (Some(object), Some(version)) if held(version).etag == object.etag => {}
            (Some(object), _) => {
                let version = Version { etag: object.etag.clone(), size: object.size };
                node.version = Some(Arc::new(Mutex::new(version)));
            }
        }
    }

    /// Takes an inode from its name. It stays for those who have it open.
    pub(super) fn detach(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.removed = true;
        let (parent, name) = (node.parent, node.name.clone());
        self.unlist(parent, &name);
        if let Some(parent) = self.nodes.get_mut(&parent)
            && parent.children.get(&name) == Some(&id)
        {
            parent.children.remove(&name);
        }
        self.collect(id);
    }

    /// Gives an inode another name.
    pub(super) fn rename(&mut self, id: u64, parent: u64, name: &str) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (old_parent, old_name) = (node.parent, std::mem::replace(&mut node.name, name.to_owned()));
        node.parent = parent;
        let is_directory = node.kind == Kind::Directory;
        self.unlist(old_parent, &old_name);
        if let Some(old) = self.nodes.get_mut(&old_parent) {
            old.children.remove(&old_name);
        }
        self.list(parent, name, is_directory);
        if let Some(new) = self.nodes.get_mut(&parent) {
            new.children.insert(name.to_owned(), id);
        }
        self.collect(old_parent);
    }

    /// Adds a name to what a listing says, if there is one.
    pub(super) fn list(&mut self, parent: u64, name: &str, directory: bool) {
        if let Some(listing) = self.nodes.get_mut(&parent).and_then(|parent| parent.listing.as_mut()) {
            Arc::make_mut(&mut listing.names).insert(name.to_owned(), directory);
        }
    }

    /// Takes a name from what a listing says.
    pub(super) fn unlist(&mut self, parent: u64, name: &str) {
        if let Some(listing) = self.nodes.get_mut(&parent).and_then(|parent| parent.listing.as_mut()) {
            Arc::make_mut(&mut listing.names).remove(name);
        }
    }

    pub(super) fn attr(&self, id: u64) -> Result<Attr, Errno> {
        let node = self.node(id)?;
        let staged = node.staged.as_ref().map(|staged| {
            let state = staged.state();
            (state.size, if state.dirty { state.mtime_ns } else { node.mtime_ns })
        });
        let size = match (&node.version, node.kind) {
            (Some(version), Kind::File | Kind::Symlink) => held(version).size,
            _ => 0,
        };
        let (size, mtime_ns) = staged.unwrap_or((size, node.mtime_ns));
        Ok(Attr {
            number: node.number,
            size,
            mtime_ns,
            mode: node.kind.bits() | node.mode,
            uid: self.defaults.uid,
            gid: self.defaults.gid,
            links: u32::from(!node.removed),
        })
    }

    /// What the kernel is told of an inode that it then refers to once more.
    pub(super) fn entry(&mut self, id: u64) -> Result<Entry, Errno> {
        let attr = self.attr(id)?;
        self.node_mut(id)?.references += 1;
        Ok(Entry { node: id, attr, valid: self.defaults.ttl })
    }

    pub(super) fn forget(&mut self, id: u64, references: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.references = node.references.saturating_sub(references);
        }
        self.collect(id);
    }

    /// Drops an inode that nobody refers to, and those above it of which the same is then true.
    pub(super) fn collect(&mut self, id: u64) {
        let mut current = id;
        while current != ROOT {
            let Some(node) = self.nodes.get(&current) else { return };
            if node.references > 0 || node.opens > 0 || node.staged.is_some() || !node.children.is_empty() {
                return;
            }
            let Some(node) = self.nodes.remove(&current) else { return };
            if let Some(parent) = self.nodes.get_mut(&node.parent)
                && parent.children.get(&node.name) == Some(&current)
            {
                parent.children.remove(&node.name);
            }
            current = node.parent;
        }
    }
}

fn node_kind(table: &Table, id: u64) -> Option<Kind> {
    table.nodes.get(&id).map(|node| node.kind)
}

/// A version, as it is now.
pub(super) fn held(version: &Mutex<Version>) -> std::sync::MutexGuard<'_, Version> {
    // Replaced as a whole.
    version.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
