//! How many connections there may be, altogether and of one peer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of each peer, by what it is known by.
#[derive(Debug)]
pub(super) struct Places<K> {
    counts: Mutex<HashMap<K, usize>>,
    most: usize,
    each: usize,
}

/// A connection's place among those of its peer; dropping gives it back.
#[derive(Debug)]
pub(super) struct Place<K: Copy + Eq + Hash> {
    places: Arc<Places<K>>,
    peer: K,
}

impl<K: Copy + Eq + Hash> Places<K> {
    /// So many altogether, and so many for each peer.
    pub(super) fn bounded(most: usize, each: usize) -> Self {
        Self { counts: Mutex::default(), most, each }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Nothing between lock and unlock can panic half-way.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(self: &Arc<Self>, peer: K) -> Option<Place<K>> {
        let mut counts = self.lock();
        if counts.values().sum::<usize>() >= self.most {
            return None;
        }
        let count = counts.entry(peer).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), peer })
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_its_connections_back_and_takes_nobody_elses() {
        let places = Arc::new(Places::bounded(100, 5));
        let mut taken: Vec<_> = (0..7).map_while(|_| places.take(1000)).collect();
        assert_eq!(taken.len(), 5);
        assert!(places.take(1000).is_none());
        assert!(places.take(1001).is_some(), "another peer is not affected");
        taken.pop();
        assert!(places.take(1000).is_some());
        taken.clear();
        assert!(places.lock().is_empty(), "peers that left are forgotten");
    }

    #[test]
    fn all_peers_together_are_bounded() {
        let places = Arc::new(Places::bounded(100, 5));
        let taken: Vec<_> = (0..1000).filter_map(|index| places.take(index / 4)).collect();
        assert_eq!(taken.len(), 100);
    }
}
