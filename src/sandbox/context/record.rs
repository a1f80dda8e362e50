//! What of contexts outlives their daemon, and their sandbox's rest: that they are there, and how they were made. What
//! their interpreters knew is in the memory of processes that end with either, so the first run afterwards says that
//! the state was lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::actor::Home;
use super::zygote::Nursery;
use super::{Context, ContextSpec, Shared};
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::limits::CONTEXTS_MAX;
use crate::sandbox::records;

/// How a context was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: ContextSpec,
    pub(super) created_at: String,
}

impl Record {
    /// One that is made now.
    pub(super) fn new(spec: ContextSpec) -> Self {
        Self { spec, created_at: jiff::Timestamp::now().to_string() }
    }
}

/// All contexts of a sandbox, and what Python ones are forked from.
#[derive(Debug)]
pub(in crate::sandbox) struct Contexts {
    path: PathBuf,
    known: Mutex<Known>,
    pub(super) nursery: Arc<tokio::sync::Mutex<Nursery>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those with a task.
    live: BTreeMap<ItemId, Arc<Context>>,
    /// Those of a daemon before this one, until something is asked of them.
    left: BTreeMap<ItemId, Record>,
}

impl Contexts {
    /// What the file says is there.
    pub(in crate::sandbox) fn new(path: PathBuf) -> Self {
        let known = Known { live: BTreeMap::new(), left: records::read(&path) };
        Self { path, known: Mutex::new(known), nursery: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every operation is one insert, remove or look-up.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be seen of each, by name.
    pub(super) fn all(&self) -> Vec<Arc<Shared>> {
        let known = self.lock();
        let mut all: Vec<_> = known.live.values().map(|context| Arc::clone(&context.shared)).collect();
        all.extend(known.left.iter().map(|(id, record)| Arc::new(Shared::new(id.clone(), record.clone()))));
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Finds one; that of a daemon before this one begins anew in this home.
    ///
    /// # Errors
    /// When there is no home.
    pub(super) fn find(
        &self,
        id: &ItemId,
        home: impl FnOnce() -> Result<Home, Error>,
    ) -> Result<Option<Arc<Context>>, Error> {
        let mut known = self.lock();
        if let Some(found) = known.live.get(id) {
            return Ok(Some(Arc::clone(found)));
        }
        if !known.left.contains_key(id) {
            return Ok(None);
        }
        let home = home()?;
        let Some(record) = known.left.remove(id) else { return Ok(None) };
        let context = Context::new(id.clone(), record, home, true);
        known.live.insert(id.clone(), Arc::clone(&context));
        Ok(Some(context))
    }

    /// Adds a new one.
    ///
    /// # Errors
    /// `CONTEXT_EXISTS`; `CAPACITY_EXHAUSTED` when there are too many; when it cannot be recorded.
    pub(super) fn add(&self, id: &ItemId, spec: ContextSpec, home: Home) -> Result<Arc<Context>, Error> {
        let mut known = self.lock();
        if known.live.contains_key(id) || known.left.contains_key(id) {
            return Err(Error::new(ErrorCode::ContextExists, format!("there is a context {id} already"))
                .hint("use it, delete it first, or choose another id"));
        }
        if known.live.len() + known.left.len() >= CONTEXTS_MAX {
            return Err(Error::new(ErrorCode::CapacityExhausted, "the sandbox has too many contexts")
                .hint("delete some of them"));
        }
        let context = Context::new(id.clone(), Record::new(spec), home, false);
        known.live.insert(id.clone(), Arc::clone(&context));
        if let Err(error) = known.save(&self.path) {
            known.live.remove(id);
            return Err(Error::internal("cannot record the context", error));
        }
        Ok(context)
    }

    /// Takes one away. The second part is the one of a daemon before this one.
    pub(super) fn remove(&self, id: &ItemId) -> (Option<Arc<Context>>, Option<Record>) {
        let mut known = self.lock();
        let removed = (known.live.remove(id), known.left.remove(id));
        if let Err(error) = known.save(&self.path) {
            // The next daemon shows one that can be deleted again.
            tracing::warn!(%id, %error, "cannot record that a context is gone");
        }
        removed
    }

    /// Takes away this very one.
    pub(super) fn forget(&self, context: &Arc<Context>) {
        let is_it = self.lock().live.get(&context.shared.id).is_some_and(|found| Arc::ptr_eq(found, context));
        if is_it {
            drop(self.remove(&context.shared.id));
        }
    }
}

impl Known {
    fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut records = self.left.clone();
        let live = self.live.iter().map(|(id, context)| (id.clone(), context.shared.record.clone()));
        records.extend(live);
        records::write(path, &records)
    }
}
