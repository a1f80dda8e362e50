//! Which host ids mean what.
//!
//! ```text
//! first ─ store ids: file owner 0..65535 of a layer on disk            65,536
//!       ─ slot 1: uids and gids of one sandbox                         65,536
//!       ─ …                                            up to slot 8,191
//!       ─ agents: one id per slot, in no sandbox's range                8,192
//!       ─ roles: serve, fetch
//! ```
//!
//! Nothing on the host is owned by these ids except our own state, so a process that escaped its namespaces
//! would be nobody. An agent's id is in no sandbox's map: in-sandbox root cannot name it, signal it or limit it.
//! The outer user namespace of a slot maps two extents: its own 0 is the agent, and the *store* ids are the
//! sandbox's. So the same map that gives the workload its ids also shows the layers' files with them.

use crate::limits::{IDS_PER_SANDBOX, SANDBOXES_MAX};

/// The host's ids that this daemon uses.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    first: u32,
}

/// One sandbox's place in the range: 1 to [`SANDBOXES_MAX`] − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Ids {
    /// How many ids the whole range takes.
    pub const COUNT: u32 = IDS_PER_SANDBOX * SANDBOXES_MAX + SANDBOXES_MAX + 16;

    /// The range that starts at `first`; `None` when it would not fit below 2^31, where some programs and
    /// file systems stop, or would touch ids that a host uses for people and services.
    pub fn starting_at(first: u32) -> Option<Self> {
        let end = first.checked_add(Self::COUNT)?;
        (first >= IDS_PER_SANDBOX && end <= 1 << 31).then_some(Self { first })
    }

    /// First of the ids under which layers are stored.
    pub fn store(self) -> u32 {
        self.first
    }

    /// First host id of a sandbox.
    pub fn sandbox(self, slot: Slot) -> u32 {
        self.first + IDS_PER_SANDBOX * slot.0
    }

    /// The agent's host id.
    pub fn agent(self, slot: Slot) -> u32 {
        self.first + IDS_PER_SANDBOX * SANDBOXES_MAX + slot.0
    }

    /// serve's uid and gid.
    pub fn serve(self) -> u32 {
        self.first + IDS_PER_SANDBOX * SANDBOXES_MAX + SANDBOXES_MAX
    }

    /// fetch's uid and gid.
    pub fn fetch(self) -> u32 {
        self.serve() + 1
    }

    /// Whether a host id belongs to a sandbox or a role, and so to no caller of ours.
    pub fn contains(self, id: u32) -> bool {
        (self.first..self.first + Self::COUNT).contains(&id)
    }

    /// Text for the uid_map and gid_map of a slot's outer namespace (user_namespaces(7)).
    pub fn outer_map(self, slot: Slot) -> String {
        format!("0 {} 1\n{} {} {IDS_PER_SANDBOX}\n", self.agent(slot), self.store(), self.sandbox(slot))
    }

    /// Text for the maps of the inner namespace, in which commands run: its 0 is the first store id outside.
    pub fn inner_map(self) -> String {
        format!("0 {} {IDS_PER_SANDBOX}\n", self.store())
    }

    /// Text for the maps of an unpack process: its files land on the store ids.
    pub fn unpack_map(self) -> String {
        self.inner_map()
    }
}

impl Slot {
    /// The slot of this number.
    pub fn new(number: u32) -> Option<Self> {
        (1..SANDBOXES_MAX).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Hands out slots, each as late after its last use as possible.
#[derive(Debug)]
pub struct Slots {
    used: Vec<bool>,
    next: u32,
}

impl Slots {
    /// All free, the one of this number to be used first.
    pub fn starting_at(first: u32) -> Self {
        let next = if Slot::new(first).is_some() { first } else { 1 };
        Self { used: vec![false; SANDBOXES_MAX as usize], next }
    }

    /// A free slot, if there is one.
    pub fn take(&mut self) -> Option<Slot> {
        for _ in 1..SANDBOXES_MAX {
            let number = self.next;
            self.next = if number + 1 == SANDBOXES_MAX { 1 } else { number + 1 };
            if let Some(slot) = Slot::new(number)
                && self.claim(slot)
            {
                return Some(slot);
            }
        }
        None
    }

    /// Takes this very slot, for a sandbox that is adopted. False when it is taken.
    pub fn claim(&mut self, slot: Slot) -> bool {
        !std::mem::replace(&mut self.used[slot.0 as usize], true)
    }

    /// Gives a slot back: nothing with its ids runs or lies on disk any more.
    pub fn release(&mut self, slot: Slot) {
        self.used[slot.0 as usize] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_slots_agents_and_store_do_not_touch() {
        let ids = Ids::starting_at(1 << 29).expect("range");
        let last = Slot::new(SANDBOXES_MAX - 1).expect("slot");
        let first = Slot::new(1).expect("slot");
        assert_eq!(ids.sandbox(first), ids.store() + IDS_PER_SANDBOX);
        assert!(ids.sandbox(last) + IDS_PER_SANDBOX <= ids.agent(Slot(0)));
        assert!(ids.agent(last) < ids.serve());
        assert!(ids.contains(ids.fetch()) && !ids.contains(0) && !ids.contains(1000));
    }

    #[test]
    fn a_range_over_people_or_past_the_end_is_refused() {
        assert!(Ids::starting_at(0).is_none());
        assert!(Ids::starting_at(1000).is_none());
        assert!(Ids::starting_at(u32::MAX - 5).is_none());
        assert!(Ids::starting_at((1 << 31) - 5).is_none());
    }

    #[test]
    fn a_slot_comes_back_as_late_as_possible() {
        let mut slots = Slots::starting_at(1);
        let first = slots.take().expect("slot");
        slots.release(first);
        assert_ne!(slots.take(), Some(first));
        let rest = std::iter::from_fn(|| slots.take()).count();
        assert_eq!(rest, SANDBOXES_MAX as usize - 2);
    }
}
