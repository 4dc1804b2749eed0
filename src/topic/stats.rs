//! Statistics of topics: how many there are, and which are the busiest. Looks at each for a moment under its own lock,
//! and at a part of them at a time, so that no worker waits for the whole.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::topic::{Snapshot, Topic};
use super::{Progress, Topics, uptime_ms};
use crate::config::TopicRule;
use crate::message::{ConsumerName, TopicName};
use crate::metrics::{self, ConsumerStats, ListedTopic, TopN, TopicPage, TopicStats, thousandths};

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

    /// The topics whose names contain a text, with those on the disk that no client uses: at most so many, behind a
    /// name, in the order of their names.
    pub(crate) fn page(&self, contains: &str, after: &str, most: usize) -> TopicPage {
        let (now, mut names) = (uptime_ms(), Names { found: BTreeMap::new(), total: 0, contains, after, most });
        for shard in &self.shards {
            let topics: Vec<_> = shard.read().topics.values().cloned().collect();
            for topic in topics {
                names.offer(&topic.name, || {
                    let Snapshot { rate, newest: offset, subscriptions: subscribers } = topic.snapshot();
                    let (published, per_second) = (rate.total(), thousandths(rate.per_second(now)));
                    listed(&topic.name, &topic.rule, TopicNumbers { subscribers, published, offset, per_second })
                });
            }
        }
        for stored in self.shared.durable.iter().flat_map(|durable| durable.topics()) {
            let Ok(name) = TopicName::new(stored.name()) else { continue };
            if self.find(&name).is_none() {
                names.offer(&name, || {
                    let numbers = TopicNumbers { offset: stored.newest_taken(), ..TopicNumbers::default() };
                    listed(&name, self.rule_of(&name), numbers)
                });
            }
        }
        let (total, is_cut) = (names.total, names.found.len() > most);
        let (keys, mut topics): (Vec<_>, Vec<_>) = names.found.into_iter().take(most).unzip();
        // Looked up for these few alone.
        let wanted: Vec<_> = keys.iter().map(|name| (name, self.rule_of(name).subscribe)).collect();
        for (topic, by_patterns) in topics.iter_mut().zip(self.shared.workers.pattern_counts().of(&wanted)) {
            topic.stats.pattern_subscribers = by_patterns;
            topic.stats.subscribers += by_patterns;
        }
        let next = keys.last().filter(|_| is_cut).map(|name| name.as_str().to_owned());
        TopicPage { topics, total, next }
    }

    /// The numbers of the store, if there is one.
    pub(crate) fn store_stats(&self) -> Option<metrics::StoreStats> {
        self.shared.durable.as_ref().map(|durable| durable.stats())
    }
}

/// The first few of the topics that are looked for, and one more if there are more.
struct Names<'a> {
    found: BTreeMap<TopicName, ListedTopic>,
    total: u64,
    contains: &'a str,
    after: &'a str,
    most: usize,
}

impl Names<'_> {
    fn offer(&mut self, name: &TopicName, make: impl FnOnce() -> ListedTopic) {
        let text = name.as_str();
        if !text.contains(self.contains) {
            return;
        }
        self.total += 1;
        let is_full = self.found.len() > self.most;
        if text <= self.after || (is_full && self.found.last_key_value().is_some_and(|(last, _)| name >= last)) {
            return;
        }
        self.found.insert(name.clone(), make());
        if self.found.len() > self.most + 1 {
            self.found.pop_last();
        }
    }
}

/// What is counted of a topic.
#[derive(Default)]
struct TopicNumbers {
    subscribers: u64,
    published: u64,
    offset: u64,
    per_second: f64,
}

fn listed(name: &TopicName, rule: &TopicRule, numbers: TopicNumbers) -> ListedTopic {
    let TopicNumbers { subscribers, published, offset, per_second } = numbers;
    let (topic, pattern_subscribers) = (name.as_str().to_owned(), 0);
    let stats = TopicStats { topic, subscribers, pattern_subscribers, published, offset, per_second };
    ListedTopic { stats, durable: rule.is_durable(), history: rule.history().messages > 0 }
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
