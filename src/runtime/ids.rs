//! Which host ids mean what.
//!
//! ```text
//! first ─ store ids: file owner 0..65535 of a layer on disk            65,536
//!       ─ slot 1: uids and gids of one sandbox                         65,536
//!       ─ …                                            up to slot 8,191
//!       ─ agents: one id per slot, in no sandbox's range                8,192
//!       ─ roles: serve, fetch, gateway, bucket
//! ```
//!
//! Nothing on the host is owned by these ids except our own state, so a process that escaped its namespaces
//! would be nobody. An agent's id is in no sandbox's map: in-sandbox root cannot name it, signal it or limit it.
//! The outer user namespace of a slot maps two extents: its own 0 is the agent, and the *store* ids are the
//! sandbox's. So the same map that gives the workload its ids also shows the layers' files with them.

//! # Daemons beside each other
//!
//! Several daemons of one host may have the same range, or ranges that overlap: the one that serves, and private
//! ones of single calls. Two sandboxes with the same ids would share what the kernel counts by id, and quotas. So
//! whoever takes a slot locks its ids, as bytes of one file for the whole host, and then looks whether anything runs
//! as its agent: a daemon that died has lost its locks, and its sandboxes run on. Both are one cheap call, so nobody
//! is refused and nothing need be configured; a slot that is in use elsewhere is passed over.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::FcntlArg;
use rustix::fs::{Mode, OFlags, Uid};

use crate::limits::{IDS_PER_SANDBOX, SANDBOXES_MAX};
use crate::sys::Errno;

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

    /// The gateway's uid and gid.
    pub fn gateway(self) -> u32 {
        self.serve() + 2
    }

    /// The uid and gid of buckets' workers.
    pub fn bucket(self) -> u32 {
        self.serve() + 3
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

/// Where all daemons of the host lock the ids that they use.
const LOCKS: &str = "/run/stockade-ids.lock";

/// Hands out slots, each as late after its last use as possible, and none that another daemon uses.
#[derive(Debug)]
pub struct Slots {
    ids: Ids,
    /// Open file description locks belong to it (fcntl(2)): they end with this process.
    locks: OwnedFd,
    used: Vec<bool>,
    next: u32,
}

impl Slots {
    /// All that nobody uses, the one of this number first.
    ///
    /// # Errors
    /// When the file with the locks cannot be opened, or the ids that all sandboxes share are another daemon's.
    pub fn open(ids: Ids, first: u32) -> io::Result<Self> {
        Self::at(Path::new(LOCKS), ids, first)
    }

    fn at(path: &Path, ids: Ids, first: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let locks = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let next = if Slot::new(first).is_some() { first } else { 1 };
        let this = Self { ids, locks, used: vec![false; SANDBOXES_MAX as usize], next };
        // Daemons of one range share these; in another's they may be a sandbox.
        let shared = this.lock(libc::F_RDLCK, ids.store(), IDS_PER_SANDBOX)
            && this.lock(libc::F_RDLCK, ids.serve(), 4);
        if !shared {
            let why =
                "the daemon's ids overlap with those of another daemon: give one of them another ids_first";
            return Err(io::Error::other(why));
        }
        Ok(this)
    }

    /// Locks or unlocks host ids. False when another daemon holds them.
    fn lock(&self, kind: libc::c_int, first: u32, count: u32) -> bool {
        let range = libc::flock {
            // 0 to 2 on every Linux.
            l_type: i16::try_from(kind).unwrap_or(0),
            l_whence: 0,
            l_start: i64::from(first),
            l_len: i64::from(count),
            l_pid: 0,
        };
        nix::fcntl::fcntl(&self.locks, FcntlArg::F_OFD_SETLK(&range)).is_ok()
    }

    fn lock_slot(&self, kind: libc::c_int, slot: Slot) -> bool {
        self.lock(kind, self.ids.sandbox(slot), IDS_PER_SANDBOX) && self.lock(kind, self.ids.agent(slot), 1)
    }

    /// Takes the ids of a slot, if no other daemon has them and nothing runs as its agent.
    fn take_ids(&self, slot: Slot) -> bool {
        let agent = Uid::from_raw(self.ids.agent(slot));
        let taken = self.lock_slot(libc::F_WRLCK, slot)
            && rustix::process::getpriority_user(agent) == Err(Errno::SRCH);
        if !taken {
            self.lock_slot(libc::F_UNLCK, slot);
        }
        taken
    }

    /// A free slot, if there is one.
    pub fn take(&mut self) -> Option<Slot> {
        for _ in 1..SANDBOXES_MAX {
            let number = self.next;
            self.next = if number + 1 == SANDBOXES_MAX { 1 } else { number + 1 };
            if let Some(slot) = Slot::new(number)
                && !self.used[slot.0 as usize]
                && self.take_ids(slot)
            {
                self.used[slot.0 as usize] = true;
                return Some(slot);
            }
        }
        None
    }

    /// Takes this very slot, for a sandbox that is adopted. False when it is taken.
    pub fn claim(&mut self, slot: Slot) -> bool {
        // Its agent kept all others away since its daemon lost the lock.
        self.lock_slot(libc::F_WRLCK, slot);
        !std::mem::replace(&mut self.used[slot.0 as usize], true)
    }

    /// Gives a slot back: nothing with its ids runs or lies on disk any more.
    pub fn release(&mut self, slot: Slot) {
        self.used[slot.0 as usize] = false;
        self.lock_slot(libc::F_UNLCK, slot);
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

    fn slots(directory: &Path, ids_first: u32) -> io::Result<Slots> {
        Slots::at(&directory.join("locks"), Ids::starting_at(ids_first).expect("range"), 1)
    }

    #[test]
    fn daemons_beside_each_other_have_different_slots() {
        let directory = tempfile::tempdir().expect("directory");
        let mut one = slots(directory.path(), 1 << 29).expect("one");
        let mut other = slots(directory.path(), 1 << 29).expect("other");
        let first = one.take().expect("slot");
        let second = other.take().expect("slot");
        assert_ne!(first, second);
        one.release(first);
        drop(one);
        // Ranges that overlap only in part do not fit at all: one's store would be another's sandboxes.
        assert!(slots(directory.path(), (1 << 29) + IDS_PER_SANDBOX * second.number()).is_err());
        assert!(slots(directory.path(), (1 << 29) + Ids::COUNT).is_ok());
    }

    #[test]
    fn a_slot_comes_back_as_late_as_possible() {
        let directory = tempfile::tempdir().expect("directory");
        // Not the range of a daemon of this host, whose sandboxes would be passed over.
        let mut slots = slots(directory.path(), 1 << 20).expect("slots");
        let first = slots.take().expect("slot");
        slots.release(first);
        assert_ne!(slots.take(), Some(first));
        let rest = std::iter::from_fn(|| slots.take()).count();
        assert_eq!(rest, SANDBOXES_MAX as usize - 2);
    }
}
