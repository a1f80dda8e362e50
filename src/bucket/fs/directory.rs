//! Listing: pages of keys, the next one fetched while the kernel takes the names of the last.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinHandle;

use super::table::{Kind, Known, LISTING_MAX, Listing};
use super::{Handle, Mount, names};
use crate::bucket::fuse::{Directory, NameType, Reply};
use crate::bucket::s3::{Failure, Page};
use crate::sys::Errno;

/// Keys in a page: as many as S3 gives.
pub(super) const PAGE: usize = 1000;

/// Names that are asked for at the same time.
const LOOKS: usize = 32;

/// A directory that a program has open.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    node: u64,
    cursor: tokio::sync::Mutex<Cursor>,
}

/// How far a program has read.
#[derive(Debug)]
struct Cursor {
    started: bool,
    /// When: a name that is not in the list may have been made since then.
    begun: Instant,
    /// The offset of the first of `names`.
    position: u64,
    names: VecDeque<(String, u64, NameType)>,
    next: Option<JoinHandle<Result<Page, Failure>>>,
    /// Names that are given already because they are only here.
    local: HashSet<String>,
    /// All of them, as long as they are not too many.
    all: Option<Arc<BTreeMap<String, bool>>>,
    /// Asks what the next of `names` are, for a program that wants to know of each.
    ahead: Option<JoinHandle<()>>,
}

impl Cursor {
    fn new(started: bool) -> Self {
        Self {
            started,
            begun: Instant::now(),
            position: 0,
            names: VecDeque::new(),
            next: None,
            local: HashSet::new(),
            all: None,
            ahead: None,
        }
    }

    /// Those of the next names that take no more room than this: name, number, type.
    fn batch(&self, size: u32, plus: bool) -> Vec<(String, u64, NameType)> {
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        let fit = self.names.iter().take_while(|(name, _, _)| {
            let room = left.checked_sub(Directory::bytes_of(name, plus));
            left = room.unwrap_or(0);
            room.is_some()
        });
        fit.cloned().collect()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
        if let Some(ahead) = &self.ahead {
            ahead.abort();
        }
    }
}

impl Mount {
    pub(super) fn opendir(&self, node: u64) -> Reply {
        let open = OpenDirectory { node, cursor: Cursor::new(false).into() };
        let handle = self.state().keep(Handle::Directory(Arc::new(open)));
        Reply::Open { handle, flags: 0 }
    }

    pub(super) async fn readdir(
        self: &Arc<Self>,
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Result<Reply, Errno> {
        let open = match self.state().handles.get(&handle) {
            Some(Handle::Directory(open)) => Arc::clone(open),
            _ => return Err(Errno::BADF),
        };
        let mut cursor = open.cursor.lock().await;
        if !cursor.started || offset < cursor.position {
            *cursor = self.begin(open.node)?;
        }
        // Names before the offset were taken.
        loop {
            let ahead =
                usize::try_from(offset - cursor.position).unwrap_or(usize::MAX).min(cursor.names.len());
            cursor.names.drain(..ahead);
            cursor.position += u64::try_from(ahead).unwrap_or(0);
            if !cursor.names.is_empty() || !self.turn(open.node, &mut cursor).await? {
                break;
            }
        }
        let mut batch = cursor.batch(size, plus);
        // A full answer is one round trip for the program; a page that is not there yet would be a wait.
        while batch.len() == cursor.names.len() && cursor.next.as_ref().is_some_and(JoinHandle::is_finished) {
            self.turn(open.node, &mut cursor).await?;
            batch = cursor.batch(size, plus);
        }
        // The kernel begins with this in any case, and goes on with it when a program looks at each name.
        if plus && offset > 0 && !self.state().table.defaults.ttl.is_zero() {
            if let Some(ahead) = cursor.ahead.take() {
                // What it has not found out is asked again.
                let _ = ahead.await;
            }
            self.look(open.node, &batch).await;
            let next: Vec<_> = cursor.names.iter().skip(batch.len()).take(batch.len()).cloned().collect();
            let (mount, node) = (Arc::clone(self), open.node);
            cursor.ahead = Some(tokio::spawn(async move { mount.look(node, &next).await }));
        }
        Ok(Reply::Directory(self.answer(open.node, cursor.position, &batch, size, plus)))
    }

    /// Asks what names are that are not known.
    async fn look(self: &Arc<Self>, node: u64, names: &[(String, u64, NameType)]) {
        let names = names.iter().map(|(name, _, _)| name.clone()).filter(|name| !is_dots(name));
        let looks = names.map(|name| {
            let mount = Arc::clone(self);
            // What cannot be found out now is asked when somebody wants it, who is told then.
            async move {
                let _ = mount.find(node, &name).await;
            }
        });
        stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOOKS).collect::<()>().await;
    }

    fn answer(
        &self,
        node: u64,
        position: u64,
        batch: &[(String, u64, NameType)],
        size: u32,
        plus: bool,
    ) -> Directory {
        let mut directory = Directory::new(size);
        let mut state = self.state();
        for (next, (name, number, kind)) in (position + 1..).zip(batch) {
            if !plus {
                directory.add(*number, next, *kind, name);
                continue;
            }
            // The kernel refers to each inode that it is told of here, but not to these two.
            let known = match state.table.known(node, name) {
                Known::Node(id) if !is_dots(name) => state.table.entry(id).ok(),
                _ => None,
            };
            let kind = known.map_or(*kind, |entry| NameType::of_mode(entry.attr.mode));
            directory.add_plus(known.as_ref(), (*number, next, kind), name);
        }
        directory
    }

    /// Begins to list: with what is only here, and all names if they are known.
    fn begin(self: &Arc<Self>, node: u64) -> Result<Cursor, Errno> {
        let state = self.state();
        let one = state.table.node(node)?;
        let up = state.table.node(one.parent).map_or(one.number, |parent| parent.number);
        let mut cursor = Cursor::new(true);
        cursor.names.push_back((".".to_owned(), one.number, NameType::Directory));
        cursor.names.push_back(("..".to_owned(), up, NameType::Directory));
        for (name, number, kind, local) in state.table.children(node) {
            if local {
                cursor.names.push_back((name.clone(), number, kind.of_name()));
                cursor.local.insert(name);
            }
        }
        match &one.listing {
            Some(listing) if listing.whole && listing.fresh_until > Instant::now() => {
                let known = Arc::clone(&listing.names);
                let number = one.number;
                drop(state);
                let names = known.iter().map(|(name, directory)| (name.clone(), *directory));
                self.show(node, number, &mut cursor, names.collect());
            }
            _ => {
                let key = state.table.directory_key(node)?;
                cursor.all = Some(Arc::default());
                cursor.next = Some(self.page(key, None));
            }
        }
        Ok(cursor)
    }

    fn page(self: &Arc<Self>, prefix: String, next: Option<String>) -> JoinHandle<Result<Page, Failure>> {
        let client = Arc::clone(&self.s3);
        tokio::spawn(async move { client.list(&prefix, true, next.as_deref(), PAGE).await })
    }

    /// Takes in the next page; `false` after the last one.
    async fn turn(self: &Arc<Self>, node: u64, cursor: &mut Cursor) -> Result<bool, Errno> {
        let Some(next) = cursor.next.as_mut() else { return Ok(false) };
        let page = next.await.map_err(|_| Errno::IO)?;
        cursor.next = None;
        let page = page.map_err(|failure| {
            tracing::debug!(%failure, "cannot list");
            // There is a directory, whatever became of the bucket.
            cursor.started = false;
            if failure.errno() == Errno::NOENT { Errno::IO } else { failure.errno() }
        })?;
        let (key, number) = {
            let state = self.state();
            (state.table.directory_key(node)?, state.table.node(node)?.number)
        };
        let names = names_of(&page, &key);
        if let Some(all) = &mut cursor.all {
            Arc::make_mut(all).extend(names.iter().cloned());
        }
        if cursor.all.as_ref().is_some_and(|all| all.len() > LISTING_MAX) {
            cursor.all = None;
        }
        let whole = page.next.is_none();
        if let Some(next) = page.next {
            cursor.next = Some(self.page(key, Some(next)));
        }
        self.keep(node, cursor, whole);
        self.show(node, number, cursor, names);
        Ok(true)
    }

    /// Remembers the names so far: whoever looks at one while the list goes on need not ask whether it is a file.
    fn keep(&self, node: u64, cursor: &Cursor, whole: bool) {
        let mut state = self.state();
        let ttl = state.table.defaults.ttl;
        let fresh_until = if whole { cursor.begun } else { Instant::now() } + ttl;
        if let (Some(names), Ok(node)) = (&cursor.all, state.table.node_mut(node)) {
            node.listing = Some(Listing { fresh_until, whole, names: Arc::clone(names) });
        }
    }

    /// Puts names behind those that are to be given.
    fn show(&self, node: u64, number: u64, cursor: &mut Cursor, names: Vec<(String, bool)>) {
        let state = self.state();
        for (name, directory) in names {
            if cursor.local.contains(&name) {
                continue;
            }
            let known = state.table.child(node, &name).and_then(|id| state.table.node(id).ok());
            let kind = match (known.map(|node| node.kind), directory) {
                (_, true) => NameType::Directory,
                (Some(kind @ (Kind::File | Kind::Symlink)), _) => kind.of_name(),
                _ => NameType::Unknown,
            };
            let number = known.map_or_else(|| names::number(number, &name), |node| node.number);
            cursor.names.push_back((name, number, kind));
        }
    }
}

fn is_dots(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// The names in a page, and whether each is a directory. A directory hides an object of its name.
fn names_of(page: &Page, directory: &str) -> Vec<(String, bool)> {
    let mut names = BTreeMap::new();
    let name = |key: &str| key.strip_prefix(directory).filter(|name| names::is_name(name)).map(str::to_owned);
    for object in &page.objects {
        if let Some(name) = name(&object.key) {
            names.insert(name, false);
        }
    }
    for prefix in &page.prefixes {
        if let Some(name) = prefix.strip_suffix('/').and_then(name) {
            names.insert(name, true);
        }
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::s3::Listed;

    #[test]
    fn hostile_keys_are_no_names() {
        let object = |key: &str| Listed { key: key.to_owned(), etag: String::new(), size: 0, modified_ns: 0 };
        let page = Page {
            objects: ["d/", "d/a", "d/b", "d/..", "d/.", "d/x\0y", &format!("d/{}", "n".repeat(300))]
                .map(object)
                .to_vec(),
            prefixes: ["d//", "d/a/", "d/../", "d/c/"].map(str::to_owned).to_vec(),
            next: None,
        };
        let expected = [("a", true), ("b", false), ("c", true)].map(|(name, is)| (name.to_owned(), is));
        assert_eq!(names_of(&page, "d/"), expected);
    }
}
