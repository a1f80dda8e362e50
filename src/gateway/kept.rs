//! What was decided about a sandbox, where the next gateway finds it: a file in memory that launch keeps.
//!
//! ```text
//! 0     counters, one number each          written with each decision, and when a connection ends
//! 1024  slot of a decision, 1024 bytes     written when it is made, or made again
//! …     one for each that is remembered
//! ```
//!
//! A page of it takes memory when something is written there first: 257 KiB for each sandbox that has decided on so
//! much, and 4 KiB for one that has decided on nothing. It is memory of the host's, beside the gateway's own.
//!
//! A slot lies within one page, so that a gateway which is killed leaves it as it was or as it is. What cannot be read is
//! left out. Bytes of connections that were open when the gateway died are lost from the sums.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use crate::limits::{EGRESS_EVENTS_MAX, EGRESS_KEPT_SLOT};
use crate::wire;
use crate::wire::gateway::{Counters, Event};

const SLOT: u64 = EGRESS_KEPT_SLOT as u64;

/// The file.
#[derive(Debug)]
pub(super) struct Kept(File);

impl Kept {
    pub(super) fn new(file: OwnedFd) -> Self {
        Self(file.into())
    }

    /// What the gateway before has written: the sums, and the decisions with their slots, the oldest first.
    pub(super) fn read(&self) -> (Counters, Vec<(usize, Event)>) {
        let mut head = [0; 8 * 8];
        let counters = match self.0.read_exact_at(&mut head, 0) {
            Ok(()) => numbers(&head),
            Err(_) => Counters::default(),
        };
        let mut events: Vec<(usize, Event)> =
            (0..EGRESS_EVENTS_MAX).filter_map(|slot| Some((slot, self.event(slot)?))).collect();
        events.sort_by_key(|(_, event)| event.seq);
        (counters, events)
    }

    fn event(&self, slot: usize) -> Option<Event> {
        let mut bytes = [0; EGRESS_KEPT_SLOT];
        self.0.read_exact_at(&mut bytes, place(slot)).ok()?;
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        wire::decode(bytes.get(2..2 + length)?).ok()
    }

    /// Writes the sums.
    pub(super) fn count(&self, counters: &Counters) {
        let all = [
            counters.allowed,
            counters.denied,
            counters.failed,
            counters.limited,
            counters.names_asked,
            counters.bytes_sent,
            counters.bytes_received,
        ];
        let bytes: Vec<u8> = all.iter().flat_map(|number| number.to_le_bytes()).collect();
        // A file in memory has no other failure than none being left, and what is not kept is only not remembered.
        let _ = self.0.write_all_at(&bytes, 0);
    }

    /// Writes a decision. One that is too long is not kept.
    pub(super) fn record(&self, slot: usize, event: &Event) {
        let Ok(bytes) = wire::encode_long(event, EGRESS_KEPT_SLOT - 2) else { return };
        let Ok(length) = u16::try_from(bytes.len()) else { return };
        let whole = [&length.to_le_bytes()[..], &bytes].concat();
        let _ = self.0.write_all_at(&whole, place(slot));
    }
}

fn place(slot: usize) -> u64 {
    SLOT * (slot as u64 + 1)
}

fn numbers(head: &[u8; 64]) -> Counters {
    let mut all = head.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
    let mut next = || all.next().unwrap_or(0);
    Counters {
        connections_open: 0,
        allowed: next(),
        denied: next(),
        failed: next(),
        limited: next(),
        names_asked: next(),
        bytes_sent: next(),
        bytes_received: next(),
    }
}
