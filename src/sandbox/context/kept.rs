//! Runs that go on without whoever asked for them: that they are there, and what came of each, until newer ones take
//! their place or the context is deleted. They end with the daemon, as the interpreters do.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorCode};
use crate::limits::CONTEXT_KEPT_RUNS_MAX;

/// What came of a run, as whoever collected it wrote it down.
#[derive(Debug)]
pub struct Outcome {
    /// JSON.
    pub body: Bytes,
    /// Whatever is held for as long as it is kept.
    pub held: Box<dyn Debug + Send + Sync>,
}

/// A run that goes on alone.
#[derive(Debug)]
pub struct KeptRun {
    /// Its name.
    pub id: String,
    /// When it was asked for (RFC 3339).
    pub created_at: String,
    outcome: watch::Sender<Option<Arc<Outcome>>>,
    /// Of all runs of its context.
    deleted: CancellationToken,
}

impl KeptRun {
    fn new(id: String, deleted: CancellationToken) -> Arc<Self> {
        let created_at = jiff::Timestamp::now().to_string();
        Arc::new(Self { id, created_at, outcome: watch::Sender::new(None), deleted })
    }

    /// Writes down what came of it.
    pub fn end(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(Arc::new(outcome)));
    }

    /// What came of it, if it has ended.
    pub fn outcome(&self) -> Option<Arc<Outcome>> {
        self.outcome.borrow().clone()
    }

    /// Waits until it has ended, or its context is deleted.
    pub async fn ended(&self) {
        let mut outcome = self.outcome.subscribe();
        tokio::select! {
            // The sender lives as long as we do.
            _ = outcome.wait_for(Option::is_some) => {}
            () = self.deleted.cancelled() => {}
        }
    }

    /// Whether its context is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.is_cancelled()
    }
}

/// Those of one context, the oldest first.
#[derive(Debug, Default)]
pub(super) struct KeptRuns {
    runs: Mutex<VecDeque<Arc<KeptRun>>>,
    deleted: CancellationToken,
}

impl KeptRuns {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<KeptRun>>> {
        // Every operation is one push, removal or look-up.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one. The oldest that has ended makes room.
    pub(super) fn add(&self, id: String) -> Arc<KeptRun> {
        let run = KeptRun::new(id, self.deleted.clone());
        let mut runs = self.lock();
        runs.push_back(Arc::clone(&run));
        while runs.len() > CONTEXT_KEPT_RUNS_MAX
            && let Some(oldest) = runs.iter().position(|run| run.outcome().is_some())
        {
            runs.remove(oldest);
        }
        run
    }

    /// Nothing comes of them any more: whoever waits hears of it.
    pub(super) fn delete(&self) {
        self.deleted.cancel();
    }

    /// Takes one away that never began.
    pub(super) fn forget(&self, run: &Arc<KeptRun>) {
        self.lock().retain(|kept| !Arc::ptr_eq(kept, run));
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<KeptRun>> {
        self.lock().iter().cloned().collect()
    }

    /// One.
    ///
    /// # Errors
    /// `RUN_NOT_FOUND`.
    pub(super) fn find(&self, id: &str) -> Result<Arc<KeptRun>, Error> {
        self.lock().iter().find(|run| run.id == id).cloned().ok_or_else(|| {
            Error::new(ErrorCode::RunNotFound, format!("there is no run {id} that is kept"))
                .hint("runs that were to detach are kept, the last ones of each context")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_have_ended_make_room() {
        let runs = KeptRuns::default();
        let first = runs.add("a-0".to_owned());
        for number in 1..=CONTEXT_KEPT_RUNS_MAX {
            let run = runs.add(format!("a-{number}"));
            run.end(Outcome { body: Bytes::from_static(b"{}"), held: Box::new(()) });
            run.ended().await;
        }
        runs.add("last".to_owned());
        assert_eq!(runs.all().len(), CONTEXT_KEPT_RUNS_MAX);
        assert!(runs.find("a-0").is_ok_and(|run| Arc::ptr_eq(&run, &first)), "it goes on");
        assert!(runs.find("a-1").is_err_and(|error| error.code == ErrorCode::RunNotFound));
        runs.forget(&first);
        assert!(runs.find("a-0").is_err() && runs.find("last").is_ok());
    }
}
