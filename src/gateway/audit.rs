//! What was decided about one sandbox: counters, and the last decisions. Both are written down as well, for the next
//! gateway ([`kept`](super::kept)).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::kept::Kept;
use super::policy::Verdict;
use crate::limits::EGRESS_EVENTS_MAX;
use crate::wire::gateway::{Counters, Event, Subject};

/// Counters and decisions.
#[derive(Debug, Default)]
pub(super) struct Audit {
    events: Mutex<Events>,
    kept: Option<Kept>,
    pub(super) open: AtomicU64,
    allowed: AtomicU64,
    denied: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) names_asked: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

#[derive(Debug, Default)]
struct Events {
    last: u64,
    /// Each with the slot that it is written down in.
    ring: VecDeque<(usize, Event)>,
    /// The slot of the next one.
    slot: usize,
}

/// What a decision was about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) subject: Subject,
    pub(super) host: Option<&'a str>,
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) protocol: &'static str,
}

impl Audit {
    /// Goes on where the gateway before was killed.
    pub(super) fn of(kept: Option<Kept>) -> Self {
        let Some(kept) = kept else { return Self::default() };
        let (counters, ring) = kept.read();
        let last = ring.last().map_or(0, |(_, event)| event.seq);
        let slot = ring.last().map_or(0, |(slot, _)| (slot + 1) % EGRESS_EVENTS_MAX);
        Self {
            events: Mutex::new(Events { last, ring: ring.into(), slot }),
            kept: Some(kept),
            open: AtomicU64::new(0),
            allowed: counters.allowed.into(),
            denied: counters.denied.into(),
            failed: counters.failed.into(),
            limited: counters.limited.into(),
            names_asked: counters.names_asked.into(),
            sent: counters.bytes_sent.into(),
            received: counters.bytes_received.into(),
        }
    }

    /// Writes the counters down.
    pub(super) fn keep(&self) {
        if let Some(kept) = &self.kept {
            kept.count(&self.counters());
        }
    }

    /// Remembers a decision. One that repeats the one before it is counted there.
    pub(super) fn record(&self, about: About<'_>, verdict: &Verdict) {
        if about.subject != Subject::Name || !verdict.allowed {
            let counter = if verdict.allowed { &self.allowed } else { &self.denied };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.note(about, verdict);
    }

    /// Counts what was allowed and has failed, and remembers why.
    pub(super) fn fail(&self, about: About<'_>, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.note(about, &Verdict { allowed: false, rule: why, fix: None });
    }

    /// Remembers what is counted elsewhere.
    pub(super) fn note(&self, about: About<'_>, verdict: &Verdict) {
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let time_ms = u64::try_from(time_ms).unwrap_or(u64::MAX);
        self.keep();
        let mut events = self.lock();
        events.last += 1;
        let seq = events.last;
        let same = |(_, event): &&mut (usize, Event)| {
            event.subject == about.subject
                && event.allowed == verdict.allowed
                && event.host.as_deref() == about.host
                && event.address == about.address
                && event.port == about.port
                && event.protocol == about.protocol
                && event.rule == verdict.rule
        };
        if let Some((slot, event)) = events.ring.back_mut().filter(same) {
            (event.seq, event.time_ms, event.count) = (seq, time_ms, event.count + 1);
            if let Some(kept) = &self.kept {
                kept.record(*slot, event);
            }
            return;
        }
        if events.ring.len() >= EGRESS_EVENTS_MAX {
            events.ring.pop_front();
        }
        let event = Event {
            seq,
            time_ms,
            count: 1,
            subject: about.subject,
            allowed: verdict.allowed,
            host: about.host.map(str::to_owned),
            address: about.address,
            port: about.port,
            protocol: about.protocol.to_owned(),
            rule: verdict.rule.clone(),
            fix: verdict.fix.clone(),
        };
        let slot = events.slot;
        events.slot = (slot + 1) % EGRESS_EVENTS_MAX;
        if let Some(kept) = &self.kept {
            kept.record(slot, &event);
        }
        events.ring.push_back((slot, event));
    }

    /// The decisions after one, the oldest first.
    pub(super) fn events(&self, after: u64, limit: usize) -> Vec<Event> {
        let events = self.lock();
        let later = events.ring.iter().map(|(_, event)| event).filter(|event| event.seq > after);
        later.take(limit).cloned().collect()
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections_open: read(&self.open),
            allowed: read(&self.allowed),
            denied: read(&self.denied),
            failed: read(&self.failed),
            limited: read(&self.limited),
            names_asked: read(&self.names_asked),
            bytes_sent: read(&self.sent),
            bytes_received: read(&self.received),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Events> {
        // A ring is a ring after any panic.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_decisions_are_one_event_and_the_ring_is_bounded() {
        let audit = Audit::default();
        let verdict = Verdict { allowed: false, rule: "mode none".to_owned(), fix: None };
        let about = |port| About {
            subject: Subject::Connection,
            host: None,
            address: None,
            port: Some(port),
            protocol: "other",
        };
        for _ in 0..3 {
            audit.record(about(1), &verdict);
        }
        assert_eq!(audit.events(0, 10).iter().map(|event| event.count).collect::<Vec<_>>(), [3]);
        assert!(audit.events(3, 10).is_empty());
        for port in 0..2 * u16::try_from(EGRESS_EVENTS_MAX).expect("small") {
            audit.record(about(port), &verdict);
        }
        assert_eq!(audit.events(0, usize::MAX).len(), EGRESS_EVENTS_MAX);
        assert_eq!(audit.counters().denied, 3 + 2 * EGRESS_EVENTS_MAX as u64);
    }

    #[test]
    fn the_next_gateway_goes_on_where_this_one_was_killed() {
        let file = tempfile::tempfile().expect("file");
        file.set_len(crate::limits::EGRESS_KEPT_BYTES).expect("size");
        let next = || Audit::of(Some(Kept::new(file.try_clone().expect("file").into())));
        let verdict =
            |rule: &str| Verdict { allowed: false, rule: rule.to_owned(), fix: Some("x".repeat(300)) };
        let about = |port| About {
            subject: Subject::Connection,
            host: Some("ok.test"),
            address: None,
            port: Some(port),
            protocol: "other",
        };
        let first = next();
        assert!(first.events(0, 9).is_empty());
        for port in [1, 1, 2] {
            first.record(about(port), &verdict("a"));
        }
        first.sent.fetch_add(7, Ordering::Relaxed);
        first.open.fetch_add(1, Ordering::Relaxed);
        first.keep();
        let second = next();
        assert_eq!(second.events(0, 9), first.events(0, 9));
        let counters = second.counters();
        assert_eq!((counters.denied, counters.bytes_sent, counters.connections_open), (3, 7, 0));
        // One that is too long for a slot is remembered by the one gateway alone.
        second.record(about(3), &verdict(&"r".repeat(2000)));
        for port in 0..u16::try_from(EGRESS_EVENTS_MAX).expect("small") {
            second.record(about(port), &verdict("b"));
        }
        let third = next();
        let (before, after) = (second.events(0, usize::MAX), third.events(0, usize::MAX));
        assert_eq!((before.len(), after.len()), (EGRESS_EVENTS_MAX, EGRESS_EVENTS_MAX));
        assert_eq!(before, after);
        third.record(about(9), &verdict("c"));
        assert_eq!(next().events(0, usize::MAX), third.events(0, usize::MAX));
    }
}
