//! What happens, in order, for whoever listens.
//!
//! Events have numbers that only grow, also over restarts: the first of a daemon is above the milliseconds of its
//! clock, and above all that it finds. A listener that comes back names the last one that it has seen. When what
//! followed is gone, because the ring is bounded or the host has crashed, it is told so and goes on from there.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::limits::{FEED_BYTES_MAX, FEED_EVENTS_MAX};

/// The two files that take turns: the older one is replaced when the newer one is full.
const FILES: [&str; 2] = ["events-0.jsonl", "events-1.jsonl"];

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Happened {
    /// Its number. Numbers grow, and need not follow each other.
    pub seq: u64,
    /// When (RFC 3339).
    pub at: String,
    /// What.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// To which sandbox; absent for what is the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Whose it is.
    pub owner_uid: u32,
    /// More about it.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// A sandbox was created.
    #[serde(rename = "sandbox.created")]
    Created,
    /// One that was stopped, or had ended, was started again: by a call that needed it, or when asked.
    #[serde(rename = "sandbox.woken")]
    Woken,
    /// It was stopped: when asked, or because it was idle for its time.
    #[serde(rename = "sandbox.stopped")]
    Stopped,
    /// It was paused.
    #[serde(rename = "sandbox.paused")]
    Paused,
    /// It goes on.
    #[serde(rename = "sandbox.resumed")]
    Resumed,
    /// Its first process has ended by itself.
    #[serde(rename = "sandbox.died")]
    Died,
    /// It was destroyed: when asked, or because its time was over.
    #[serde(rename = "sandbox.destroyed")]
    Destroyed,
    /// It was given the files of a snapshot.
    #[serde(rename = "sandbox.restored")]
    Restored,
    /// Others were made whose files began as its own.
    #[serde(rename = "sandbox.forked")]
    Forked,
    /// All of its files were sent elsewhere: as a stream, to a bucket or to a registry.
    #[serde(rename = "sandbox.exported")]
    Exported,
    /// A command was started.
    #[serde(rename = "command.started")]
    CommandStarted,
    /// It has ended.
    #[serde(rename = "command.exited")]
    CommandExited,
    /// A background process was started.
    #[serde(rename = "process.started")]
    ProcessStarted,
    /// It has ended.
    #[serde(rename = "process.exited")]
    ProcessExited,
    /// Something was killed because the sandbox's memory was used up.
    #[serde(rename = "memory.exhausted")]
    MemoryExhausted,
    /// Its limits were changed.
    #[serde(rename = "limits.changed")]
    LimitsChanged,
    /// When it rests and ends was changed.
    #[serde(rename = "lifecycle.changed")]
    LifecycleChanged,
    /// What may leave it was changed.
    #[serde(rename = "network.changed")]
    NetworkChanged,
    /// A port was exposed.
    #[serde(rename = "port.exposed")]
    PortExposed,
    /// It is not any more.
    #[serde(rename = "port.revoked")]
    PortRevoked,
    /// Something was mounted in it.
    #[serde(rename = "mount.added")]
    MountAdded,
    /// It is not any more.
    #[serde(rename = "mount.removed")]
    MountRemoved,
    /// A snapshot of it was made.
    #[serde(rename = "snapshot.created")]
    SnapshotCreated,
    /// One was deleted: when asked, or because its time was over.
    #[serde(rename = "snapshot.deleted")]
    SnapshotDeleted,
    /// An image was pulled.
    #[serde(rename = "image.pulled")]
    ImagePulled,
    /// An image was taken in from an archive.
    #[serde(rename = "image.imported")]
    ImageImported,
    /// An image was made of a sandbox.
    #[serde(rename = "image.committed")]
    ImageCommitted,
    /// An image was removed.
    #[serde(rename = "image.removed")]
    ImageRemoved,
}

impl Kind {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "sandbox.created",
            Self::Woken => "sandbox.woken",
            Self::Stopped => "sandbox.stopped",
            Self::Paused => "sandbox.paused",
            Self::Resumed => "sandbox.resumed",
            Self::Died => "sandbox.died",
            Self::Destroyed => "sandbox.destroyed",
            Self::Restored => "sandbox.restored",
            Self::Forked => "sandbox.forked",
            Self::Exported => "sandbox.exported",
            Self::CommandStarted => "command.started",
            Self::CommandExited => "command.exited",
            Self::ProcessStarted => "process.started",
            Self::ProcessExited => "process.exited",
            Self::MemoryExhausted => "memory.exhausted",
            Self::LimitsChanged => "limits.changed",
            Self::LifecycleChanged => "lifecycle.changed",
            Self::NetworkChanged => "network.changed",
            Self::PortExposed => "port.exposed",
            Self::PortRevoked => "port.revoked",
            Self::MountAdded => "mount.added",
            Self::MountRemoved => "mount.removed",
            Self::SnapshotCreated => "snapshot.created",
            Self::SnapshotDeleted => "snapshot.deleted",
            Self::ImagePulled => "image.pulled",
            Self::ImageImported => "image.imported",
            Self::ImageCommitted => "image.committed",
            Self::ImageRemoved => "image.removed",
        }
    }
}

/// Whoever speaks of one sandbox.
#[derive(Clone, Debug)]
pub struct Voice {
    /// None for what nobody is told of.
    feed: Option<Feed>,
    sandbox: String,
    owner_uid: u32,
}

impl Voice {
    /// Of a sandbox that nobody but the daemon knows of.
    pub fn mute() -> Self {
        Self { feed: None, sandbox: String::new(), owner_uid: 0 }
    }

    /// Says that something has happened to it.
    pub fn say(&self, kind: Kind, data: serde_json::Value) {
        if let Some(feed) = &self.feed {
            feed.publish(kind, Some(self.sandbox.clone()), self.owner_uid, data);
        }
    }
}

/// What has happened since somebody looked last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Since {
    /// The events, the oldest first.
    pub events: Vec<Arc<Happened>>,
    /// Whether some before these are gone.
    pub lost: bool,
    /// Where to go on.
    pub next: u64,
}

/// The ring. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    /// The number of the last event.
    bell: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    last: u64,
    /// All up to this number that are not in the ring are gone.
    gone: u64,
    events: VecDeque<Arc<Happened>>,
    files: Option<Files>,
}

/// Where events outlive the daemon.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
    current: usize,
    file: File,
    written: u64,
}

impl Feed {
    /// Goes on with what is written down in a directory; without one, with nothing.
    pub fn open(directory: Option<&Path>) -> Self {
        let found = directory.map(read).unwrap_or_default();
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let before = found.last().map_or(0, |event| event.seq);
        let gone = found.first().map_or(now, |first| first.seq - 1);
        let mut events = VecDeque::from(found);
        while events.len() > FEED_EVENTS_MAX {
            events.pop_front();
        }
        let files = directory.and_then(|directory| {
            Files::go_on(directory, newest(directory).unwrap_or(0))
                .inspect_err(|error| tracing::warn!(%error, "events will not outlive this daemon"))
                .ok()
        });
        let last = now.max(before);
        let bell = watch::Sender::new(last);
        Self(Arc::new(Inner { ring: Mutex::new(Ring { last, gone, events, files }), bell }))
    }

    /// Says that something has happened.
    pub fn publish(&self, kind: Kind, sandbox: Option<String>, owner_uid: u32, data: serde_json::Value) {
        let at = jiff::Timestamp::now().to_string();
        let mut ring = self.lock();
        ring.last += 1;
        let event = Arc::new(Happened { seq: ring.last, at, kind, sandbox, owner_uid, data });
        if let Some(files) = &mut ring.files
            && let Err(error) = files.append(&event)
        {
            tracing::warn!(%error, "cannot write events down; they will not outlive this daemon");
            ring.files = None;
        }
        if ring.events.len() >= FEED_EVENTS_MAX
            && let Some(oldest) = ring.events.pop_front()
        {
            ring.gone = oldest.seq;
        }
        ring.events.push_back(event);
        let last = ring.last;
        drop(ring);
        self.0.bell.send_replace(last);
    }

    /// For what happens to one sandbox.
    pub fn voice(&self, sandbox: &str, owner_uid: u32) -> Voice {
        Voice { feed: Some(self.clone()), sandbox: sandbox.to_owned(), owner_uid }
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// At most so many events after one of them that somebody wants.
    pub fn after(&self, seq: u64, most: usize, wanted: impl Fn(&Happened) -> bool) -> Since {
        let ring = self.lock();
        // A number that was never given is one of a time that is forgotten.
        let lost = seq < ring.gone || seq > ring.last;
        let from = if seq > ring.last { 0 } else { seq };
        let start = ring.events.partition_point(|event| event.seq <= from);
        let mut since = Since { events: Vec::new(), lost, next: ring.last };
        for event in ring.events.range(start..).filter(|event| wanted(event)) {
            if since.events.len() == most {
                since.next = since.events.last().map_or(seq, |last| last.seq);
                break;
            }
            since.events.push(Arc::clone(event));
        }
        since
    }

    /// Waits until there is an event after this one.
    pub async fn wait(&self, seq: u64) {
        let mut bell = self.0.bell.subscribe();
        // The sender lives as long as this.
        let _ = bell.wait_for(|last| *last > seq).await;
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // A ring is a ring after any panic.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// Goes on with a file. A line that is not whole stays, and is no event.
    fn go_on(directory: &Path, current: usize) -> io::Result<Self> {
        let path = directory.join(FILES[current]);
        let mut file = File::options().append(true).create(true).open(&path)?;
        let written = file.metadata()?.len();
        if written > 0 {
            file.write_all(b"\n")?;
        }
        Ok(Self { directory: directory.to_owned(), current, file, written: written + 1 })
    }

    fn begin(directory: &Path, current: usize) -> io::Result<Self> {
        let file = File::create(directory.join(FILES[current]))?;
        Ok(Self { directory: directory.to_owned(), current, file, written: 0 })
    }

    fn append(&mut self, event: &Happened) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if self.written + line.len() as u64 > FEED_BYTES_MAX {
            *self = Self::begin(&self.directory, 1 - self.current)?;
        }
        self.file.write_all(&line)?;
        self.written += line.len() as u64;
        Ok(())
    }
}

/// The file that was written last.
fn newest(directory: &Path) -> Option<usize> {
    let first = |index: usize| read_file(&directory.join(FILES[index])).last().map(|event| event.seq);
    (0..FILES.len()).filter_map(|index| Some((first(index)?, index))).max().map(|(_, index)| index)
}

/// All events on disk, in order.
fn read(directory: &Path) -> Vec<Arc<Happened>> {
    let mut all: Vec<_> = FILES.iter().flat_map(|name| read_file(&directory.join(name))).collect();
    all.sort_by_key(|event| event.seq);
    all.dedup_by_key(|event| event.seq);
    all
}

fn read_file(path: &Path) -> Vec<Arc<Happened>> {
    let text = std::fs::read(path).unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok().map(Arc::new))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(feed: &Feed, name: &str) {
        feed.publish(Kind::Created, Some(name.to_owned()), 7, serde_json::json!({"a": 1}));
    }

    #[test]
    fn a_listener_goes_on_where_it_was_and_is_told_what_it_has_missed() {
        let feed = Feed::open(None);
        let start = feed.last();
        assert_eq!(feed.after(start, 10, |_| true), Since { events: Vec::new(), lost: false, next: start });
        for name in ["a", "b", "c"] {
            publish(&feed, name);
        }
        let two = feed.after(start, 2, |_| true);
        assert_eq!((two.events.len(), two.lost), (2, false));
        let third = feed.after(two.next, 2, |_| true);
        assert_eq!(third.events[0].sandbox.as_deref(), Some("c"));
        let filtered = feed.after(start, 9, |event| event.sandbox.as_deref() == Some("b"));
        assert_eq!((filtered.events.len(), filtered.next), (1, feed.last()));
        for _ in 0..=FEED_EVENTS_MAX {
            publish(&feed, "more");
        }
        let late = feed.after(start, usize::MAX, |_| true);
        assert!(late.lost && late.events.len() == FEED_EVENTS_MAX);
        assert!(feed.after(feed.last() + 1, 9, |_| true).lost, "of another daemon's future");
    }

    #[test]
    fn names_are_what_is_written() {
        for kind in [Kind::Created, Kind::MemoryExhausted, Kind::ImageRemoved] {
            assert_eq!(serde_json::to_value(kind).expect("json"), kind.name());
        }
    }

    #[test]
    fn events_outlive_the_daemon_and_a_line_that_is_not_whole_is_none() {
        let place = tempfile::tempdir().expect("place");
        let feed = Feed::open(Some(place.path()));
        let start = feed.last();
        publish(&feed, "a");
        publish(&feed, "b");
        drop(feed);
        let path = place.path().join(FILES[newest(place.path()).expect("a file")]);
        let mut file = File::options().append(true).open(path).expect("open");
        file.write_all(b"{\"seq\": 99999999999999, \"at\"").expect("write");
        let next = Feed::open(Some(place.path()));
        let kept = next.after(start, 9, |_| true);
        assert_eq!((kept.events.len(), kept.lost), (2, false));
        publish(&next, "c");
        drop(next);
        let third = Feed::open(Some(place.path()));
        let all = third.after(start, 9, |_| true);
        assert_eq!(all.events.iter().filter_map(|event| event.sandbox.as_deref()).collect::<String>(), "abc");
        assert!(third.last() >= all.events[2].seq);
    }
}
