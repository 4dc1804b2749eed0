//! Statistics of topics: how many there are, and which are the busiest. Looks at each for a moment under its own lock,
//! and at a part of them at a time, so that no worker waits for the whole.

use std::cmp::Reverse;
use std::sync::Arc;

use super::topic::Snapshot;
use super::{Topics, uptime_ms};
use crate::metrics::{self, TopN, TopicStats, thousandths};

impl Topics {
    /// The numbers, and at most so many topics: those with the most recent messages.
    pub(crate) fn stats(&self, most: usize) -> metrics::Topics {
        let now = uptime_ms();
        let mut top = TopN::new(most);
        let mut subscriptions = self.shared.workers.pattern_subscriptions();
        for shard in &self.shards {
            let topics: Vec<_> = shard.read().topics.values().cloned().collect();
            for topic in topics {
                let Snapshot { rate, newest: offset, subscriptions: subscribers } = topic.snapshot();
                subscriptions += subscribers;
                let per_second = thousandths(rate.per_second(now));
                // Never below 0, so the bits have the order of the numbers (IEEE 754 section 5.10); of equals the older
                // topic comes first.
                let key = (per_second.to_bits(), Reverse(topic.id));
                top.offer(key, || {
                    let told = TopicStats {
                        topic: topic.name.as_str().to_owned(),
                        subscribers,
                        pattern_subscribers: 0,
                        published: rate.total(),
                        offset,
                        per_second,
                    };
                    (Arc::clone(&topic), told)
                });
            }
        }
        // Looked up for these few alone.
        let (topics, mut top): (Vec<_>, Vec<_>) = top.into_sorted().unzip();
        let wanted: Vec<_> = topics.iter().map(|topic| (&topic.name, topic.rule.subscribe)).collect();
        for (told, by_patterns) in top.iter_mut().zip(self.shared.workers.pattern_counts().of(&wanted)) {
            told.pattern_subscribers = by_patterns;
            told.subscribers += by_patterns;
        }
        let memory_bytes = self.shared.memory.bytes() as u64;
        metrics::Topics { count: self.count() as u64, subscriptions, memory_bytes, top }
    }
}
