//! How much one user may have of this host: what the operator's configuration says per uid.
//!
//! Counted is what sandboxes may use, and not what they use now: a sum of limits can be refused before anything is
//! made, and holds whatever runs later. So under a quota a sandbox must have the limit that it is about. Its place and
//! its disk count as long as it exists; memory and processors while it runs. Snapshots have no limits: they count with
//! their number, before anything is copied, and with what they take on the disk, as soon as that is known.
//!
//! Everything is taken from one ledger under one lock, before launch is asked, and given back by whoever holds it: two
//! creations at the same time never get what only one may have. After a restart what is there is counted, even where
//! it is more than is allowed by now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, ErrorCode};
use crate::wire::launch::{Quota, Quotas, Resources};

/// What a user has, and may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaView {
    /// Whose.
    pub uid: u32,
    /// Sandboxes, whatever their state.
    pub sandboxes: Share,
    /// Limits on memory of those that run, added up, in bytes.
    pub memory_bytes: Share,
    /// Limits on processors of those that run, in thousandths of one.
    pub cpu_millis: Share,
    /// Limits on disk space of all of them, in bytes.
    pub disk_bytes: Share,
    /// Snapshots, of all files and of directories.
    pub snapshots: Share,
    /// What they take on the disk, as they say it themselves, in bytes.
    pub snapshot_bytes: Share,
    /// Layers of images whose names are theirs, each layer once, compressed as they came, in bytes.
    pub image_bytes: Share,
}

/// A part of what is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// Taken now.
    pub used: u64,
    /// Allowed; absent is as much as there is.
    pub allowed: Option<u64>,
}

/// What is counted of one sandbox, or of all of a user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    sandboxes: u64,
    memory_bytes: u64,
    cpu_millis: u64,
    disk_bytes: u64,
    snapshots: u64,
    snapshot_bytes: u64,
}

impl Amounts {
    /// For as long as it exists.
    fn kept(resources: &Resources) -> Self {
        Self { sandboxes: 1, disk_bytes: resources.disk_bytes.unwrap_or(0), ..Self::default() }
    }

    /// While it runs.
    fn running(resources: &Resources) -> Self {
        Self {
            memory_bytes: resources.memory_bytes.unwrap_or(0),
            cpu_millis: resources.cpu_millis.unwrap_or(0),
            ..Self::default()
        }
    }

    /// A snapshot that takes so much on the disk.
    fn snapshot(bytes: u64) -> Self {
        Self { snapshots: 1, snapshot_bytes: bytes, ..Self::default() }
    }

    fn each(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            sandboxes: with(self.sandboxes, other.sandboxes),
            memory_bytes: with(self.memory_bytes, other.memory_bytes),
            cpu_millis: with(self.cpu_millis, other.cpu_millis),
            disk_bytes: with(self.disk_bytes, other.disk_bytes),
            snapshots: with(self.snapshots, other.snapshots),
            snapshot_bytes: with(self.snapshot_bytes, other.snapshot_bytes),
        }
    }
}

/// What all users have taken. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    quotas: Quotas,
    taken: Mutex<HashMap<u32, Amounts>>,
}

/// What one sandbox or snapshot has taken, given back when it is dropped or before.
#[derive(Debug)]
pub(super) struct Taken {
    ledger: Ledger,
    uid: u32,
    amounts: Mutex<Amounts>,
}

impl Ledger {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self(Arc::new(Inner { quotas, taken: Mutex::default() }))
    }

    /// What this user may have. Root, unless it is named, as much as there is.
    fn quota(&self, uid: u32) -> Quota {
        self.0.quotas.of(uid)
    }

    /// Takes a place for a sandbox that is to exist.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`.
    pub(super) fn keep(&self, uid: u32, resources: &Resources) -> Result<Taken, Error> {
        if self.quota(uid).disk_bytes.is_some() && resources.disk_bytes.is_none() {
            return Err(without("disk_bytes"));
        }
        self.take(uid, Amounts::kept(resources))
    }

    /// Takes what one that is to run may use.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`.
    pub(super) fn run(&self, uid: u32, resources: &Resources) -> Result<Taken, Error> {
        self.must_be_limited(uid, resources)?;
        self.take(uid, Amounts::running(resources))
    }

    /// The same for one that is there already, whatever is allowed.
    pub(super) fn found(&self, uid: u32, resources: &Resources, runs: bool) -> (Taken, Option<Taken>) {
        let share = runs.then(|| self.found_amounts(uid, Amounts::running(resources)));
        (self.found_amounts(uid, Amounts::kept(resources)), share)
    }

    /// The same for a snapshot that is there already.
    pub(super) fn found_snapshot(&self, uid: u32, bytes: u64) -> Taken {
        self.found_amounts(uid, Amounts::snapshot(bytes))
    }

    fn found_amounts(&self, uid: u32, amounts: Amounts) -> Taken {
        let mut taken = self.lock();
        let sum = taken.entry(uid).or_default();
        *sum = sum.each(amounts, u64::saturating_add);
        Taken { ledger: self.clone(), uid, amounts: Mutex::new(amounts) }
    }

    /// Takes a place for a snapshot that is to be made. What it takes on the disk is only known when it is:
    /// [`Taken::weigh`]. Until then a byte stands for it, so that nothing is copied for somebody who has none left.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`.
    pub(super) fn snapshot(&self, uid: u32) -> Result<Taken, Error> {
        self.take(uid, Amounts::snapshot(1))
    }

    fn must_be_limited(&self, uid: u32, resources: &Resources) -> Result<(), Error> {
        let quota = self.quota(uid);
        if quota.memory_bytes.is_some() && resources.memory_bytes.is_none() {
            return Err(without("memory_bytes"));
        }
        if quota.cpu_millis.is_some() && resources.cpu_millis.is_none() {
            return Err(without("cpus"));
        }
        Ok(())
    }

    fn take(&self, uid: u32, amounts: Amounts) -> Result<Taken, Error> {
        self.exchange(uid, Amounts::default(), amounts)?;
        Ok(Taken { ledger: self.clone(), uid, amounts: Mutex::new(amounts) })
    }

    /// Gives something back and takes something else, or neither.
    fn exchange(&self, uid: u32, back: Amounts, more: Amounts) -> Result<(), Error> {
        let quota = self.quota(uid);
        let mut taken = self.lock();
        let sum = taken.entry(uid).or_default();
        let rest = sum.each(back, u64::saturating_sub);
        for (field, rest, back, asked, allowed) in [
            ("sandboxes", rest.sandboxes, back.sandboxes, more.sandboxes, quota.sandboxes),
            ("memory_bytes", rest.memory_bytes, back.memory_bytes, more.memory_bytes, quota.memory_bytes),
            ("cpu_millis", rest.cpu_millis, back.cpu_millis, more.cpu_millis, quota.cpu_millis),
            ("disk_bytes", rest.disk_bytes, back.disk_bytes, more.disk_bytes, quota.disk_bytes),
            ("snapshots", rest.snapshots, back.snapshots, more.snapshots, quota.snapshots),
            (
                "snapshot_bytes",
                rest.snapshot_bytes,
                back.snapshot_bytes,
                more.snapshot_bytes,
                quota.snapshot_bytes,
            ),
        ] {
            // Less than before is never too much.
            let exceeds = allowed.is_some_and(|allowed| rest.saturating_add(asked) > allowed);
            if asked > back && exceeds {
                return Err(exceeded(field, rest, asked, allowed.unwrap_or(0)));
            }
        }
        *sum = rest.each(more, u64::saturating_add);
        if *sum == Amounts::default() {
            taken.remove(&uid);
        }
        Ok(())
    }

    /// What a user has, and may have. Images are the catalog's to count.
    pub(super) fn view(&self, uid: u32, image_bytes: u64) -> QuotaView {
        let (quota, taken) = (self.quota(uid), self.lock().get(&uid).copied().unwrap_or_default());
        let share = |used, allowed| Share { used, allowed };
        QuotaView {
            uid,
            sandboxes: share(taken.sandboxes, quota.sandboxes),
            memory_bytes: share(taken.memory_bytes, quota.memory_bytes),
            cpu_millis: share(taken.cpu_millis, quota.cpu_millis),
            disk_bytes: share(taken.disk_bytes, quota.disk_bytes),
            snapshots: share(taken.snapshots, quota.snapshots),
            snapshot_bytes: share(taken.snapshot_bytes, quota.snapshot_bytes),
            image_bytes: share(image_bytes, quota.image_bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Amounts>> {
        // Sums are changed whole.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes something else for it, while it runs.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`: then it has what it had.
    pub(super) fn change(&self, resources: &Resources) -> Result<(), Error> {
        self.ledger.must_be_limited(self.uid, resources)?;
        let mut amounts = self.amounts.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = Amounts::running(resources);
        self.ledger.exchange(self.uid, *amounts, wanted)?;
        *amounts = wanted;
        Ok(())
    }

    /// Takes what a snapshot turned out to take on the disk.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`: then it has what it had.
    pub(super) fn weigh(&self, bytes: u64) -> Result<(), Error> {
        let mut amounts = self.amounts.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = Amounts::snapshot(bytes);
        self.ledger.exchange(self.uid, *amounts, wanted)?;
        *amounts = wanted;
        Ok(())
    }

    /// Gives it back now. Whoever still holds what it is of holds nothing of it any more.
    pub(super) fn give_back(&self) {
        let mut amounts = self.amounts.lock().unwrap_or_else(PoisonError::into_inner);
        let back = std::mem::take(&mut *amounts);
        // Nothing is asked for, so nothing is refused.
        let _ = self.ledger.exchange(self.uid, back, Amounts::default());
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn without(field: &'static str) -> Error {
    Error::new(
        ErrorCode::QuotaExceeded,
        format!("you have a quota on {field}: a sandbox needs resources.{field}"),
    )
    .hint("give the limit; GET /v1/quota says how much is left")
    .context(serde_json::json!({ "field": format!("resources.{field}") }))
}

pub(super) fn exceeded(field: &str, used: u64, asked: u64, allowed: u64) -> Error {
    let hint = if field.starts_with("snapshot") {
        "delete snapshots, or ask the operator for more"
    } else if field.starts_with("image") {
        "remove images that are yours, or ask the operator for more"
    } else if matches!(field, "sandboxes" | "disk_bytes") {
        // Stopped ones count.
        "destroy sandboxes, or ask the operator for more"
    } else {
        "destroy or stop sandboxes, give this one less, or ask the operator for more"
    };
    Error::new(
        ErrorCode::QuotaExceeded,
        format!("your quota of {field} is {allowed}: {used} are taken, and {asked} were asked for"),
    )
    .hint(hint)
    .context(serde_json::json!({ "field": field, "used": used, "asked": asked, "allowed": allowed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let everybody =
            Quota { sandboxes: Some(2), memory_bytes: Some(100), snapshots: Some(2), ..Quota::default() };
        let everybody = Quota { snapshot_bytes: Some(100), ..everybody };
        Ledger::new(Quotas { everybody, users: [(9, Quota::default())].into() })
    }

    fn memory(bytes: u64) -> Resources {
        Resources { memory_bytes: Some(bytes), ..Resources::default() }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_once() {
        let ledger = ledger();
        let first = ledger.run(7, &memory(60)).expect("room");
        let refused = ledger.run(7, &memory(60)).expect_err("no room");
        assert_eq!(refused.code, ErrorCode::QuotaExceeded);
        assert_eq!(refused.context.as_ref().map(|context| context["used"].clone()), Some(60.into()));
        assert!(ledger.run(8, &memory(60)).is_ok(), "somebody else's");
        first.give_back();
        first.give_back();
        let second = ledger.run(7, &memory(60)).expect("room again");
        drop(first);
        assert_eq!(ledger.view(7, 0).memory_bytes.used, 60);
        drop(second);
        assert_eq!(ledger.view(7, 0).memory_bytes.used, 0);
    }

    #[test]
    fn a_change_is_whole_and_less_is_always_possible() {
        let ledger = ledger();
        let (_, running) = ledger.found(7, &memory(500), true);
        let running = running.expect("runs");
        assert!(running.change(&memory(600)).is_err());
        assert_eq!(ledger.view(7, 0).memory_bytes.used, 500);
        running.change(&memory(400)).expect("less");
        running.change(&memory(90)).expect("less");
        assert!(running.change(&memory(101)).is_err());
        running.change(&memory(100)).expect("all of it");
        assert!(running.change(&Resources::default()).is_err(), "no limit at all");
    }

    #[test]
    fn a_snapshot_has_its_place_first_and_its_bytes_when_they_are_known() {
        let ledger = ledger();
        let first = ledger.snapshot(7).expect("a place");
        first.weigh(60).expect("bytes");
        let second = ledger.snapshot(7).expect("a place");
        let refused = second.weigh(41).expect_err("too many bytes");
        assert_eq!(refused.context.map(|context| context["field"].clone()), Some("snapshot_bytes".into()));
        assert_eq!(ledger.view(7, 0).snapshot_bytes.used, 61);
        let refused = ledger.snapshot(7).expect_err("no third place");
        assert_eq!(refused.context.map(|context| context["field"].clone()), Some("snapshots".into()));
        second.weigh(40).expect("all of them");
        first.give_back();
        let held = ledger.found_snapshot(7, 1000);
        assert_eq!(ledger.view(7, 0).snapshots, Share { used: 2, allowed: Some(2) });
        drop(second);
        assert!(ledger.snapshot(7).is_err(), "a place, and no byte");
        drop(held);
        assert_eq!(ledger.view(7, 0).snapshot_bytes.used, 0);
    }

    #[test]
    fn root_and_who_is_named_have_what_they_are_given() {
        let ledger = ledger();
        let hold: Vec<_> = (0..5).map(|_| ledger.keep(0, &Resources::default()).expect("root")).collect();
        let more: Vec<_> = (0..5).map(|_| ledger.keep(9, &Resources::default()).expect("named")).collect();
        assert_eq!(ledger.view(9, 0).sandboxes, Share { used: 5, allowed: None });
        drop((hold, more));
        let two = [ledger.keep(7, &Resources::default()), ledger.keep(7, &Resources::default())];
        assert!(two.iter().all(Result::is_ok) && ledger.keep(7, &Resources::default()).is_err());
    }

    #[test]
    fn many_at_once_never_get_more_than_there_is() {
        let ledger = ledger();
        let taken: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16).map(|_| scope.spawn(|| ledger.run(7, &memory(30)))).collect();
            tries.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(taken.iter().filter(|one| one.is_ok()).count(), 3);
    }
}
