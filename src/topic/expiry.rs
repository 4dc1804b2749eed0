//! What time does to topics: messages and keys grow too old, and topics that nobody uses are forgotten.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::hub::InboxItem;
use super::topic::Topic;
use super::{Shard, Topics, size, uptime_ms};
use crate::log::Log;

/// Between two looks at a part of the topics; each part is looked at once in 6.4 seconds.
const PAUSE: Duration = Duration::from_millis(100);

impl Topics {
    /// Looks after the topics, a part at a time. Never ends; one caller.
    pub(crate) async fn expire_loop(&self) {
        let mut pause = tokio::time::interval(PAUSE);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for shard in &self.shards {
                pause.tick().await;
                self.tend_shard(shard, uptime_ms()).await;
            }
        }
    }

    async fn tend_shard(&self, shard: &Shard, now: u64) {
        let topics: Vec<_> = shard.read().unwrap_or_else(PoisonError::into_inner).topics.values().cloned().collect();
        let unused: Vec<_> = topics.into_iter().filter(|topic| self.tend_topic(topic, now)).collect();
        {
            // At once: whoever finds one that is gone looks again until it is not there.
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            unused.iter().for_each(|topic| drop(shard.topics.remove(&topic.name)));
            if !unused.is_empty() {
                shard.epoch = Log::another_epoch();
            }
        }
        self.count.fetch_sub(unused.len(), Ordering::Relaxed);
        for topic in unused {
            for place in self.permits().await.into_iter().flatten() {
                place.send(InboxItem::Forget { topic: topic.id });
            }
        }
    }

    /// Whether the topic is to be forgotten.
    fn tend_topic(&self, topic: &Topic, now: u64) -> bool {
        let mut state = topic.state();
        let most = size(self.config.limits.topic_memory_bytes);
        if self.memory.load(Ordering::Relaxed) > most - most / 8 {
            // Topics that are published to now cannot keep their messages while others keep old ones.
            state.log.halve();
            state.keys.halve();
        }
        self.account(topic, &mut state, now);
        let is_idle = now.saturating_sub(state.used_ms) > self.config.timing.topic_idle_ms;
        state.is_gone = is_idle && !state.has_subscribers() && state.log.is_empty() && state.keys.is_empty();
        state.is_gone
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, Rates};
    use crate::limits::Allowance;
    use crate::message::TopicName;

    #[tokio::test]
    async fn a_topic_begins_with_the_epoch_that_was_told_of_it_and_its_next_life_with_another() {
        let (topics, inboxes) = Topics::new(Arc::new(Config::default()), 1);
        let (name, all) =
            (TopicName::new("a").expect("a name"), Allowance::new(&Rates::default(), true, Arc::default()));
        let told = topics.look_up(&name).expect_err("it is not there");
        assert_eq!(topics.look_up(&name).expect_err("reading makes none"), told);
        let topic = topics.make(&name, &all).expect("room");
        assert_eq!(topic.state().log.epoch(), &*told);
        topics.tend_shard(topics.shard(&name), uptime_ms() + topics.config.timing.topic_idle_ms + 1000).await;
        assert!(topic.state().is_gone);
        let next = topics.look_up(&name).expect_err("it was forgotten");
        assert_ne!(next, told);
        let topic = topics.make(&name, &all).expect("room");
        assert_eq!(topic.state().log.epoch(), &*next);
        drop(inboxes);
    }
}
