//! Watches, seen from serve: a worker of its own for each, and the cheap question whether anything has changed.
//!
//! What a watch reports is handed on at the pace of its reader: a worker that is not heard waits, the kernel's queue
//! inside fills, and an overflow is reported. Nothing is kept here.
//!
//! A tracker is a watch whose reports are only counted. A cursor is its name and the count; before the count is told
//! the worker says that it has reported all until now, so a change made before the question is in the answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::workers::Talk;
use super::{Files, failure};
use crate::error::{Error, ErrorCode};
use crate::limits::{CHANGES_IDLE_S, WATCH_ARM_TIMEOUT_S, WATCHES_PER_SANDBOX_MAX};
use crate::wire::agent::User;
use crate::wire::worker::{Answer, Call, Change, Watch};

/// Questions that wait for one tracker.
const QUESTIONS_MAX: usize = 64;

/// A watch that is armed. Dropping it ends it.
#[derive(Debug)]
pub struct Watching {
    talk: Talk,
}

/// What a watch reports.
#[derive(Debug)]
pub enum Seen {
    /// Something has happened.
    Changes(Vec<Change>),
    /// More has happened than was seen.
    Overflow,
    /// What was watched is gone, and the watch with it.
    Gone,
    /// See [`Call::Synchronise`].
    Synchronised,
}

impl Watching {
    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// When the watch has ended for another reason.
    pub async fn next(&mut self) -> Result<Seen, Error> {
        let (answer, _) = self.talk.next().await?;
        match answer {
            Answer::Changes(changes) => Ok(Seen::Changes(changes)),
            Answer::Overflow => Ok(Seen::Overflow),
            Answer::Synchronised => Ok(Seen::Synchronised),
            Answer::Done => Ok(Seen::Gone),
            _ => Err(failure::lost()),
        }
    }
}

/// Whether something has changed since a cursor was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing has.
    No,
    /// Something has.
    Yes,
    /// It is not known: the cursor is too old, or too much has happened.
    Unknown,
}

/// What is counted, and for whom.
type Key = (User, Vec<u8>, bool, Vec<String>, Vec<String>);

/// The trackers of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Trackers(Mutex<HashMap<Key, Tracker>>);

#[derive(Clone, Debug)]
struct Tracker {
    /// Tells this tracker's cursors from those of others.
    name: u64,
    ask: mpsc::Sender<oneshot::Sender<Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Reports until now.
    reports: u64,
    /// What `reports` was at the last overflow.
    overflow: u64,
}

impl Files {
    /// Watches a directory or file. When this returns the watch is armed.
    ///
    /// # Errors
    /// When it cannot be watched, or there are too many watches.
    pub async fn watch(&self, watch: Watch) -> Result<Watching, Error> {
        let ask = self.watchers.ask(&self.agent, &self.user, Call::Watch(watch), &[]);
        let mut talk = ask.await.map_err(|error| match error.code {
            ErrorCode::FilesUnavailable => {
                Error::new(ErrorCode::WatchLimit, "this sandbox has too many watches")
                    .hint("end some: a watch ends with its connection")
            }
            _ => error,
        })?;
        let timeout = Duration::from_secs(WATCH_ARM_TIMEOUT_S);
        match tokio::time::timeout(timeout, talk.next()).await {
            Ok(Ok((Answer::Armed, None))) => Ok(Watching { talk }),
            Ok(Ok(_)) => Err(failure::lost()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(ErrorCode::FileTimeout, "there is too much to watch")
                .hint("exclude directories, or watch fewer")),
        }
    }

    /// Whether something has changed below a path since a cursor was given; without one a cursor for the next time.
    ///
    /// # Errors
    /// As [`watch`](Self::watch), and when the cursor is none of ours.
    pub async fn changed(&self, watch: Watch, cursor: Option<&str>) -> Result<(Changed, String), Error> {
        let since = cursor.map(parse).transpose()?;
        let key = (
            self.user.clone(),
            watch.path.clone(),
            watch.recursive,
            watch.include.clone(),
            watch.exclude.clone(),
        );
        let known = self.trackers.get(&key);
        if let Some(tracker) = known
            && let Some(count) = tracker.count().await
        {
            let changed = match since {
                None => Changed::No,
                Some((name, reports)) if name != tracker.name || reports > count.reports => Changed::Unknown,
                Some((_, reports)) if reports < count.overflow => Changed::Unknown,
                Some((_, reports)) if reports < count.reports => Changed::Yes,
                Some(_) => Changed::No,
            };
            return Ok((changed, written(tracker.name, count.reports)));
        }
        let watching = self.watch(watch).await?;
        let tracker = self.trackers.start(key, watching)?;
        let changed = if since.is_some() { Changed::Unknown } else { Changed::No };
        Ok((changed, written(tracker.name, 0)))
    }
}

fn written(name: u64, reports: u64) -> String {
    format!("{name:016x}-{reports:x}")
}

fn parse(cursor: &str) -> Result<(u64, u64), Error> {
    let number = |text| u64::from_str_radix(text, 16).ok();
    let parts = cursor.split_once('-').and_then(|(name, reports)| Some((number(name)?, number(reports)?)));
    parts.ok_or_else(|| {
        Error::new(ErrorCode::InvalidRequest, "the cursor is not one of an answer")
            .hint("leave it out the first time")
            .context(serde_json::json!({"field": "cursor"}))
    })
}

impl Trackers {
    fn get(&self, key: &Key) -> Option<Tracker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn start(self: &Arc<Self>, key: Key, watching: Watching) -> Result<Tracker, Error> {
        let mut name = [0; 8];
        // The kernel's generator never fails once it is seeded, and it is long before we start.
        let _ = rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty());
        let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
        let tracker = Tracker { name: u64::from_ne_bytes(name), ask };
        let mut trackers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Others need a watch too.
        if trackers.len() >= WATCHES_PER_SANDBOX_MAX / 2 && !trackers.contains_key(&key) {
            return Err(Error::new(ErrorCode::WatchLimit, "changes are asked of too many directories")
                .hint("ask for a directory above them, recursively"));
        }
        trackers.insert(key.clone(), tracker.clone());
        let (all, own) = (Arc::clone(self), tracker.name);
        tokio::spawn(async move {
            track(watching, questions).await;
            let mut trackers = all.0.lock().unwrap_or_else(PoisonError::into_inner);
            if trackers.get(&key).is_some_and(|tracker| tracker.name == own) {
                trackers.remove(&key);
            }
        });
        Ok(tracker)
    }
}

impl Tracker {
    async fn count(&self) -> Option<Count> {
        let (answer, count) = oneshot::channel();
        self.ask.send(answer).await.ok()?;
        count.await.ok()
    }
}

/// Counts until the watch ends or nobody asks any more.
async fn track(mut watching: Watching, mut questions: mpsc::Receiver<oneshot::Sender<Count>>) {
    let mut count = Count::default();
    let mut waiting: Vec<oneshot::Sender<Count>> = Vec::new();
    let idle = Duration::from_secs(CHANGES_IDLE_S);
    let mut deadline = tokio::time::Instant::now() + idle;
    loop {
        tokio::select! {
            seen = watching.next() => match seen {
                Ok(Seen::Changes(_)) => count.reports += 1,
                Ok(Seen::Overflow) => {
                    count.reports += 1;
                    count.overflow = count.reports;
                }
                Ok(Seen::Synchronised) => {
                    for question in waiting.drain(..) {
                        // Whoever left needs no answer.
                        let _ = question.send(count);
                    }
                }
                Ok(Seen::Gone) | Err(_) => return,
            },
            question = questions.recv(), if waiting.is_empty() => {
                let Some(question) = question else { return };
                waiting.push(question);
                while let Ok(question) = questions.try_recv() {
                    waiting.push(question);
                }
                deadline = tokio::time::Instant::now() + idle;
                if watching.talk.add(Call::Synchronise).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(deadline) => return,
        }
    }
}
