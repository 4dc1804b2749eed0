//! Statistics of topics: how many there are, and which are the busiest. Looks at each for a moment under its own lock,
//! and at a part of them at a time, so that no worker waits for the whole.

use std::cmp::Reverse;
use std::sync::Arc;

use super::topic::{Snapshot, Topic};
use super::{Progress, Topics, uptime_ms};
use crate::message::ConsumerName;
use crate::metrics::{self, ConsumerStats, TopN, TopicStats, thousandths};

impl Topics {
    /// The numbers, and at most so many topics: those with the most recent messages.
    pub(crate) fn stats(&self, most: usize) -> metrics::Topics {
        let now = uptime_ms();
        let (mut top, mut consumers) = (TopN::new(most), ConsumerCensus::new(most));
        let mut subscriptions = self.shared.workers.pattern_subscriptions();
        for shard in &self.shards {
            let topics: Vec<_> = shard.read().topics.values().cloned().collect();
            for topic in topics {
                let Snapshot { rate, newest: offset, subscriptions: subscribers } = topic.snapshot();
                subscriptions += subscribers;
                topic.visit_consumers(|name, progress| consumers.add(&topic, name, progress));
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
        let consumers = consumers.into_stats();
        metrics::Topics { count: self.count() as u64, subscriptions, memory_bytes, top, consumers }
    }

    /// The numbers of the store, if there is one.
    pub(crate) fn store_stats(&self) -> Option<metrics::StoreStats> {
        self.shared.durable.as_ref().map(|durable| durable.stats())
    }
}

/// Statistics of durable consumers.
struct ConsumerCensus {
    stats: metrics::Consumers,
    top: TopN<(u64, Reverse<u64>), ConsumerStats>,
}

impl ConsumerCensus {
    fn new(most: usize) -> Self {
        Self { stats: metrics::Consumers::default(), top: TopN::new(most) }
    }

    fn add(&mut self, topic: &Topic, name: &ConsumerName, progress: Progress) {
        let Progress { acked, pending: lag, in_flight, members } = progress;
        self.stats.count += 1;
        self.stats.in_flight += in_flight;
        self.stats.max_lag = self.stats.max_lag.max(lag);
        self.top.offer((lag, Reverse(topic.id)), || {
            let (topic, durable) = (topic.name.as_str().to_owned(), name.as_str().to_owned());
            ConsumerStats { topic, durable, clients: members as u64, in_flight, lag, acked }
        });
    }

    fn into_stats(self) -> metrics::Consumers {
        metrics::Consumers { top: self.top.into_sorted().collect(), ..self.stats }
    }
}
