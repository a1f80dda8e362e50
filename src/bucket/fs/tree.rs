//! Names: looking them up, making, removing and moving them.
//!
//! What changes names is in the bucket when the call returns. A directory that has a name here has a marker there, an
//! object of no bytes whose key ends with a slash: it stays when its last file goes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::table::{Found, Kind, Known, Listing, ROOT, held};
use super::{Mount, names, now_ns};
use crate::bucket::fuse::{Attr, Entry, Reply, SetAttr};
use crate::bucket::s3::{Condition, Failure, Listed, Meta, Object};
use crate::limits::PATH_BYTES_MAX;
use crate::sys::Errno;

/// Objects of a directory that are copied or removed at the same time.
const AT_ONCE: usize = 16;

const RENAME_NOREPLACE: u32 = 1;

fn failed(failure: Failure) -> Errno {
    tracing::debug!(%failure, "a request failed");
    failure.errno()
}

/// That there is no such name, which may be believed for a while.
fn nothing(valid: std::time::Duration) -> Reply {
    let attr = Attr { number: 0, size: 0, mtime_ns: 0, mode: 0, uid: 0, gid: 0, links: 0 };
    Reply::Entry(Entry { node: 0, attr, valid })
}

impl Mount {
    pub(super) fn lookup_now(&self, parent: u64, name: &str) -> Option<Result<Reply, Errno>> {
        let mut state = self.state();
        match state.table.known(parent, name) {
            Known::Node(node) => Some(state.table.entry(node).map(Reply::Entry)),
            Known::Nothing => Some(Ok(nothing(std::time::Duration::ZERO))),
            Known::Listed(_) | Known::Unknown => None,
        }
    }

    pub(super) async fn lookup(self: &Arc<Self>, parent: u64, name: &str) -> Result<Reply, Errno> {
        match self.find(parent, name).await? {
            Some(node) => self.state().table.entry(node).map(Reply::Entry),
            None => Ok(nothing(std::time::Duration::ZERO)),
        }
    }

    /// The inode of a name: what is known, or what the bucket says.
    pub(super) async fn find(&self, parent: u64, name: &str) -> Result<Option<u64>, Errno> {
        let (key, known) = {
            let state = self.state();
            let key = match names::key(&state.table.directory_key(parent)?, name) {
                // No such name can be in the bucket.
                Err(Errno::INVAL) => return Ok(None),
                key => key?,
            };
            (key, state.table.known(parent, name))
        };
        let found = match known {
            Known::Node(node) => return Ok(Some(node)),
            Known::Nothing => return Ok(None),
            Known::Listed(true) => self.probe_directory(&key).await?,
            Known::Listed(false) => self.probe_file(&key).await?,
            Known::Unknown => None,
        };
        let found = match found {
            Some(found) => Some(found),
            // A listing that is out of date is as good as none.
            None => self.probe(&key).await?,
        };
        let mut state = self.state();
        match found {
            Some(found) => Ok(Some(state.table.install(parent, name, &found))),
            None => {
                if let Some(node) = state.table.child(parent, name) {
                    // What is being written here is not in the bucket yet.
                    if state.table.node(node)?.staged.is_some() {
                        return Ok(Some(node));
                    }
                    state.table.detach(node);
                }
                state.table.unlist(parent, name);
                Ok(None)
            }
        }
    }

    async fn probe(&self, key: &str) -> Result<Option<Found>, Errno> {
        let (file, directory) = tokio::join!(self.probe_file(key), self.probe_directory(key));
        match directory? {
            Some(directory) => Ok(Some(directory)),
            None => file,
        }
    }

    async fn probe_file(&self, key: &str) -> Result<Option<Found>, Errno> {
        match self.s3.head(key).await {
            Ok(object) => {
                let symlink = object.mode.is_some_and(|mode| mode & 0o170_000 == Kind::Symlink.bits());
                let kind = if symlink { Kind::Symlink } else { Kind::File };
                Ok(Some(Found { kind, object: Some(object) }))
            }
            Err(Failure::NotFound) => Ok(None),
            Err(failure) => Err(failed(failure)),
        }
    }

    async fn probe_directory(&self, key: &str) -> Result<Option<Found>, Errno> {
        let marker = format!("{key}/");
        let page = self.s3.list(&marker, false, None, 1).await.map_err(failed)?;
        let Some(first) = page.objects.first() else { return Ok(None) };
        let object = if first.key == marker {
            match self.s3.head(&marker).await {
                Ok(object) => Some(object),
                Err(Failure::NotFound) => None,
                Err(failure) => return Err(failed(failure)),
            }
        } else {
            None
        };
        Ok(Some(Found { kind: Kind::Directory, object }))
    }

    pub(super) fn getattr_now(&self, node: u64) -> Option<Result<Reply, Errno>> {
        let state = self.state();
        let one = state.table.node(node).ok()?;
        let fresh = node == ROOT || one.removed || one.staged.is_some() || one.fresh_until > Instant::now();
        fresh.then(|| state.table.attr(node).map(|attr| Reply::Attr(attr, state.table.defaults.ttl)))
    }

    pub(super) async fn getattr(self: &Arc<Self>, node: u64) -> Result<Reply, Errno> {
        if let Some(now) = self.getattr_now(node) {
            return now;
        }
        let (parent, name) = {
            let state = self.state();
            let one = state.table.node(node)?;
            (one.parent, one.name.clone())
        };
        match self.find(parent, &name).await? {
            Some(found) if found == node => {}
            // Somebody else has removed or replaced it.
            _ => return Err(Errno::STALE),
        }
        let state = self.state();
        Ok(Reply::Attr(state.table.attr(node)?, state.table.defaults.ttl))
    }

    pub(super) async fn setattr(self: &Arc<Self>, node: u64, change: SetAttr) -> Result<Reply, Errno> {
        if let Some(size) = change.size {
            if self.state().table.node(node)?.kind != Kind::File {
                return Err(Errno::ISDIR);
            }
            self.truncate(node, size).await?;
        }
        let gate = Arc::clone(&self.state().table.node(node)?.gate);
        let held_gate = gate.lock().await;
        let (staged, opens) = {
            let mut state = self.state();
            let one = state.table.node_mut(node)?;
            if let Some(mode) = change.mode {
                one.mode = mode & 0o1777;
            }
            if let Some(time) = change.mtime {
                one.mtime_ns = Self::time(time);
            }
            (one.staged.clone().filter(|staged| staged.state().dirty), one.opens)
        };
        if let Some(staged) = staged {
            if let Some(time) = change.mtime {
                let mut state = staged.state();
                state.mtime_ns = Self::time(time);
                state.mtime_set = true;
            }
            self.note(node, &staged)?;
            if opens == 0 {
                self.upload_held(node).await?;
            }
        } else if (change.mode.is_some() || change.mtime.is_some())
            && let Err(errno) = self.write_meta(node).await
        {
            // What it is now is for the bucket to say.
            self.state().table.node_mut(node)?.fresh_until = Instant::now();
            return Err(errno);
        }
        drop(held_gate);
        self.settle(node);
        let state = self.state();
        Ok(Reply::Attr(state.table.attr(node)?, state.table.defaults.ttl))
    }

    /// Writes permissions and time of an object: it is copied onto itself.
    async fn write_meta(&self, node: u64) -> Result<(), Errno> {
        let (key, meta, kind, version) = {
            let state = self.state();
            let one = state.table.node(node)?;
            if node == ROOT || one.removed {
                return Ok(());
            }
            let meta = Meta { mode: one.kind.bits() | one.mode, mtime_ns: Some(one.mtime_ns) };
            let key = if one.kind == Kind::Directory {
                state.table.directory_key(node)?
            } else {
                state.table.key(node)?
            };
            (key, meta, one.kind, one.version.clone())
        };
        let (etag, size) = match (kind, version) {
            (Kind::Directory, _) => (self.s3.put(&key, Bytes::new(), meta, &Condition::None).await, 0),
            (_, Some(version)) => {
                let size = held(&version).size;
                (self.s3.copy(&key, &key, size, Some(meta)).await, size)
            }
            (_, None) => return Ok(()),
        };
        self.moved_on(node, etag.map_err(failed)?, size);
        Ok(())
    }

    /// An object of ours has another entity tag now, and the same bytes.
    fn moved_on(&self, node: u64, etag: String, size: u64) {
        let mut state = self.state();
        let fresh_until = Instant::now() + state.table.defaults.ttl;
        let Ok(one) = state.table.node_mut(node) else { return };
        one.fresh_until = fresh_until;
        let version = super::table::Version { etag: etag.clone(), size };
        match &one.version {
            Some(known) => {
                if one.paged.as_ref() == Some(&held(known).etag) {
                    one.paged = Some(etag);
                }
                *held(known) = version;
            }
            None => one.version = Some(Arc::new(std::sync::Mutex::new(version))),
        }
    }

    pub(super) async fn readlink(self: &Arc<Self>, node: u64) -> Result<Reply, Errno> {
        let (key, version) = {
            let state = self.state();
            let one = state.table.node(node)?;
            let version = one.version.clone().filter(|_| one.kind == Kind::Symlink).ok_or(Errno::INVAL)?;
            (state.table.key(node)?, held(&version).clone())
        };
        let most = u64::try_from(PATH_BYTES_MAX).unwrap_or(u64::MAX);
        if version.size == 0 || version.size >= most {
            return Err(Errno::IO);
        }
        let mut body = self.s3.get(&key, &version.etag, 0, version.size).await.map_err(failed)?;
        let mut pieces = Vec::new();
        while let Some(piece) = body.next().await.map_err(failed)? {
            pieces.push(piece);
        }
        if pieces.iter().any(|piece| piece.contains(&0)) {
            return Err(Errno::IO);
        }
        Ok(Reply::Data(pieces))
    }

    pub(super) async fn symlink(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        target: String,
    ) -> Result<Reply, Errno> {
        let mtime_ns = now_ns();
        let meta = Meta { mode: Kind::Symlink.bits() | 0o777, mtime_ns: Some(mtime_ns) };
        self.place(parent, name, Kind::Symlink, Bytes::from(target), meta).await
    }

    pub(super) async fn mkdir(self: &Arc<Self>, parent: u64, name: &str, mode: u32) -> Result<Reply, Errno> {
        let meta = Meta { mode: Kind::Directory.bits() | (mode & 0o1777), mtime_ns: Some(now_ns()) };
        self.place(parent, name, Kind::Directory, Bytes::new(), meta).await
    }

    /// Makes an object that is there at once.
    async fn place(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        kind: Kind,
        body: Bytes,
        meta: Meta,
    ) -> Result<Reply, Errno> {
        if self.find(parent, name).await?.is_some() {
            return Err(Errno::EXIST);
        }
        let key = names::key(&self.state().table.directory_key(parent)?, name)?;
        let key = if kind == Kind::Directory { format!("{key}/") } else { key };
        let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let condition = if self.conditional { Condition::Absent } else { Condition::None };
        let etag = match self.s3.put(&key, body, meta, &condition).await {
            Err(Failure::Changed) => return Err(Errno::EXIST),
            etag => etag.map_err(failed)?,
        };
        let mtime_ns = meta.mtime_ns.unwrap_or_else(now_ns);
        let object = Object { etag, size, mode: Some(meta.mode), mtime_ns };
        let mut state = self.state();
        let node = state.table.install(parent, name, &Found { kind, object: Some(object) });
        state.table.list(parent, name, kind == Kind::Directory);
        if kind == Kind::Directory {
            // There was no such key a moment ago: what is in it is what is made from here on.
            let fresh_until = Instant::now() + state.table.defaults.ttl;
            state.table.node_mut(node)?.listing =
                Some(Listing { fresh_until, whole: true, names: Arc::default() });
        }
        state.table.entry(node).map(Reply::Entry)
    }

    /// Makes sure that a directory stays when its last file goes.
    async fn mark(&self, directory: u64) -> Result<(), Errno> {
        let (key, meta) = {
            let state = self.state();
            let one = state.table.node(directory)?;
            if directory == ROOT || one.version.is_some() {
                return Ok(());
            }
            let meta = Meta { mode: Kind::Directory.bits() | one.mode, mtime_ns: Some(one.mtime_ns) };
            (state.table.directory_key(directory)?, meta)
        };
        let etag = self.s3.put(&key, Bytes::new(), meta, &Condition::None).await.map_err(failed)?;
        self.moved_on(directory, etag, 0);
        Ok(())
    }

    pub(super) async fn unlink(self: &Arc<Self>, parent: u64, name: &str) -> Result<Reply, Errno> {
        let node = self.find(parent, name).await?.ok_or(Errno::NOENT)?;
        self.remove_file(parent, node).await?;
        Ok(Reply::Empty)
    }

    async fn remove_file(self: &Arc<Self>, parent: u64, node: u64) -> Result<(), Errno> {
        let gate = Arc::clone(&self.state().table.node(node)?.gate);
        let held_gate = gate.lock().await;
        let (key, in_bucket, opens) = {
            let state = self.state();
            let one = state.table.node(node)?;
            if one.kind == Kind::Directory {
                return Err(Errno::ISDIR);
            }
            (state.table.key(node)?, one.version.is_some(), one.opens)
        };
        if in_bucket {
            if opens > 0 {
                // Whoever has it open goes on reading: the bytes are kept here for as long as that.
                self.staged(node, u64::MAX).await?;
            }
            self.mark(parent).await?;
            self.s3.delete(&key).await.map_err(failed)?;
        }
        {
            let mut state = self.state();
            let staged = state.table.node(node)?.staged.clone();
            state.table.detach(node);
            drop(state);
            if let Some(staged) = staged {
                staged.forget();
            }
        }
        drop(held_gate);
        self.settle(node);
        Ok(())
    }

    pub(super) async fn rmdir(self: &Arc<Self>, parent: u64, name: &str) -> Result<Reply, Errno> {
        let node = self.find(parent, name).await?.ok_or(Errno::NOENT)?;
        self.remove_directory(parent, node).await?;
        Ok(Reply::Empty)
    }

    async fn remove_directory(&self, parent: u64, node: u64) -> Result<(), Errno> {
        let key = {
            let state = self.state();
            if state.table.node(node)?.kind != Kind::Directory {
                return Err(Errno::NOTDIR);
            }
            if state.table.children(node).iter().any(|(_, _, _, local)| *local) {
                return Err(Errno::NOTEMPTY);
            }
            state.table.directory_key(node)?
        };
        let page = self.s3.list(&key, false, None, 2).await.map_err(failed)?;
        if page.objects.iter().any(|object| object.key != key) {
            return Err(Errno::NOTEMPTY);
        }
        self.mark(parent).await?;
        self.s3.delete(&key).await.map_err(failed)?;
        self.state().table.detach(node);
        Ok(())
    }

    pub(super) async fn rename(
        self: &Arc<Self>,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
        flags: u32,
    ) -> Result<Reply, Errno> {
        if flags & !RENAME_NOREPLACE != 0 {
            return Err(Errno::INVAL);
        }
        let node = self.find(parent, name).await?.ok_or(Errno::NOENT)?;
        let target = self.find(new_parent, new_name).await?;
        let new_key = names::key(&self.state().table.directory_key(new_parent)?, new_name)?;
        if target == Some(node) {
            return Ok(Reply::Empty);
        }
        if target.is_some() && flags & RENAME_NOREPLACE != 0 {
            return Err(Errno::EXIST);
        }
        let kind = self.state().table.node(node)?.kind;
        let target_kind =
            target.map(|target| self.state().table.node(target).map(|node| node.kind)).transpose()?;
        match (kind, target_kind) {
            (Kind::Directory, Some(Kind::Directory)) => {
                self.remove_directory(new_parent, target.unwrap_or_default()).await?;
            }
            (Kind::Directory, Some(_)) => return Err(Errno::NOTDIR),
            (_, Some(Kind::Directory)) => return Err(Errno::ISDIR),
            _ => {}
        }
        if kind == Kind::Directory {
            self.move_directory(node, new_parent, new_name, &format!("{new_key}/")).await?;
        } else {
            self.move_file(node, target, new_parent, new_name, &new_key).await?;
        }
        Ok(Reply::Empty)
    }

    async fn move_file(
        self: &Arc<Self>,
        node: u64,
        target: Option<u64>,
        new_parent: u64,
        new_name: &str,
        new_key: &str,
    ) -> Result<(), Errno> {
        let gate = Arc::clone(&self.state().table.node(node)?.gate);
        let held_gate = gate.lock().await;
        // What is not in the bucket yet is written there first: whoever is told that it moved finds it.
        self.upload_held(node).await?;
        if let Some(target) = target {
            self.keep_for_readers(target).await?;
        }
        let (old_parent, key, version) = {
            let state = self.state();
            let one = state.table.node(node)?;
            (one.parent, state.table.key(node)?, one.version.clone().map(|version| held(&version).clone()))
        };
        if let Some(version) = version {
            let etag = self.s3.copy(&key, new_key, version.size, None).await.map_err(failed)?;
            self.mark(old_parent).await?;
            self.s3.delete(&key).await.map_err(failed)?;
            self.moved_on(node, etag, version.size);
        }
        let mut state = self.state();
        if let Some(target) = target {
            let staged = state.table.node(target)?.staged.clone();
            state.table.detach(target);
            if let Some(staged) = staged {
                staged.forget();
            }
        }
        state.table.rename(node, new_parent, new_name);
        drop(state);
        drop(held_gate);
        if let Some(target) = target {
            self.settle(target);
        }
        self.settle(node);
        Ok(())
    }

    /// Keeps the bytes of a file that is about to be replaced, for those who have it open.
    async fn keep_for_readers(self: &Arc<Self>, node: u64) -> Result<(), Errno> {
        let gate = Arc::clone(&self.state().table.node(node)?.gate);
        let _gate = gate.lock().await;
        let open = {
            let state = self.state();
            let one = state.table.node(node)?;
            one.opens > 0 && one.version.is_some()
        };
        if open {
            self.staged(node, u64::MAX).await?;
        }
        Ok(())
    }

    /// Copies everything below a directory, then removes it there. Not at once: a failure in between leaves both.
    async fn move_directory(
        self: &Arc<Self>,
        node: u64,
        new_parent: u64,
        new_name: &str,
        new_key: &str,
    ) -> Result<(), Errno> {
        let (old_parent, old_key, below) = {
            let state = self.state();
            (state.table.node(node)?.parent, state.table.directory_key(node)?, state.table.below(node))
        };
        for node in below {
            self.upload(node).await?;
        }
        let objects = self.all(&old_key).await?;
        if objects.iter().any(|object| new_key.len() + object.key.len() - old_key.len() > 1024) {
            return Err(Errno::NAMETOOLONG);
        }
        let copies = objects.clone().into_iter().map(|object| {
            let (client, to) = (Arc::clone(&self.s3), format!("{new_key}{}", &object.key[old_key.len()..]));
            async move { client.copy(&object.key, &to, object.size, None).await.map(|_| ()) }
        });
        let copied: Result<Vec<()>, Failure> =
            stream::iter(copies).buffer_unordered(AT_ONCE).try_collect().await;
        copied.map_err(failed)?;
        self.mark(old_parent).await?;
        let removals = objects.into_iter().map(|object| {
            let client = Arc::clone(&self.s3);
            async move { client.delete(&object.key).await }
        });
        let removed: Result<Vec<()>, Failure> =
            stream::iter(removals).buffer_unordered(AT_ONCE).try_collect().await;
        removed.map_err(failed)?;
        let mut state = self.state();
        state.table.rename(node, new_parent, new_name);
        // The copies have other entity tags: they are asked for again.
        let now = Instant::now();
        for node in state.table.below(node).into_iter().chain([node]) {
            if let Ok(node) = state.table.node_mut(node) {
                node.fresh_until = now;
                node.listing = None;
            }
        }
        Ok(())
    }

    /// Everything below a key.
    async fn all(&self, prefix: &str) -> Result<Vec<Listed>, Errno> {
        let mut objects = Vec::new();
        let mut next = None;
        loop {
            let page =
                self.s3.list(prefix, false, next.as_deref(), super::directory::PAGE).await.map_err(failed)?;
            objects.extend(page.objects);
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(objects),
            }
        }
    }
}
