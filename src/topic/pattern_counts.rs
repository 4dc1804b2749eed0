//! Counts subscriptions to patterns, for statistics: how many match a topic. Each worker knows its own, but is not
//! asked, since a snapshot waits for no worker.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

use parking_lot::{Mutex, MutexGuard};

use crate::config::Who;
use crate::message::{TopicName, TopicPattern};

/// Patterns are spread over so many maps, so that a snapshot holds up few subscriptions at a time.
const SHARDS: usize = 64;

/// The subscriptions to each pattern, of all workers.
#[derive(Debug)]
pub(super) struct PatternCounts {
    shards: Vec<Shard>,
    hasher: RandomState,
}

type Shard = Mutex<HashMap<TopicPattern, Count>>;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    all: u64,
    /// By clients that have proved their identity.
    authenticated: u64,
}

impl Count {
    /// Those that may subscribe.
    fn of(self, who: Who) -> u64 {
        match who {
            Who::Everyone => self.all,
            Who::Authenticated => self.authenticated,
            Who::Nobody => 0,
        }
    }
}

impl Default for PatternCounts {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), hasher: RandomState::new() }
    }
}

impl PatternCounts {
    /// A client has subscribed to a pattern.
    pub(super) fn add(&self, pattern: &TopicPattern, is_authenticated: bool) {
        let mut shard = self.shard(pattern);
        // Looked up before it is copied: most patterns have many subscribers.
        let count = match shard.get_mut(pattern) {
            Some(count) => count,
            None => shard.entry(pattern.clone()).or_default(),
        };
        count.all += 1;
        count.authenticated += u64::from(is_authenticated);
    }

    /// Such a subscription has ended.
    pub(super) fn remove(&self, pattern: &TopicPattern, is_authenticated: bool) {
        let mut shard = self.shard(pattern);
        let Entry::Occupied(mut count) = shard.entry(pattern.clone()) else { return };
        let left = count.get_mut();
        left.all = left.all.saturating_sub(1);
        left.authenticated = left.authenticated.saturating_sub(u64::from(is_authenticated));
        if left.all == 0 {
            count.remove();
        }
    }

    /// For each of a few topics, the subscriptions to patterns by which its messages go out: of clients that may
    /// subscribe to it. Looks at every pattern.
    pub(super) fn of(&self, topics: &[(&TopicName, Who)]) -> Vec<u64> {
        let mut found = vec![0; topics.len()];
        for shard in &self.shards {
            for (pattern, count) in &*shard.lock() {
                for (found, (topic, who)) in found.iter_mut().zip(topics) {
                    if pattern.matches(topic.as_str()) {
                        *found += count.of(*who);
                    }
                }
            }
        }
        found
    }

    fn shard(&self, pattern: &TopicPattern) -> MutexGuard<'_, HashMap<TopicPattern, Count>> {
        // The remainder is below the number of shards, whatever the width of usize.
        let at = usize::try_from(self.hasher.hash_one(pattern) % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pattern_that_matches_counts_until_its_last_subscription_ends() {
        let counts = PatternCounts::default();
        let deep = ["a"; 12].join(".");
        let patterns = [">", "a.*", "a.>", "a.b.>", "*.b", &format!("{deep}.>"), &format!("{deep}.*")]
            .map(|pattern| TopicPattern::new(pattern).expect("a pattern"));
        for (n, pattern) in patterns.iter().enumerate() {
            (0..=n).for_each(|m| counts.add(pattern, m == 0));
        }
        let topics = ["a.b", "z", &format!("{deep}.z")].map(|topic| TopicName::new(topic).expect("a topic"));
        let of = |who| counts.of(&topics.each_ref().map(|topic| (topic, who)));
        assert_eq!(of(Who::Everyone), [1 + 2 + 3 + 5, 1, 1 + 3 + 6 + 7]);
        assert_eq!(of(Who::Authenticated), [4, 1, 4]);
        assert_eq!(of(Who::Nobody), [0, 0, 0]);
        for (n, pattern) in patterns.iter().enumerate() {
            (0..=n).for_each(|m| counts.remove(pattern, m == 0));
        }
        assert_eq!(of(Who::Everyone), [0, 0, 0]);
        assert!(counts.shards.iter().all(|shard| shard.lock().is_empty()), "nothing is kept of them");
    }
}
