//! Expiry: forgets messages and keys that are too old, and topics that are no longer used.

use std::time::Duration;

use super::consumers;
use super::hub::InboxItem;
use super::{Shard, Topics, uptime_ms};
use crate::message::TopicName;

/// Between two looks at a part of the topics; each part is looked at once in 6.4 seconds.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at the consumers on the disk.
const CONSUMER_PAUSE: Duration = Duration::from_secs(3600);

impl Topics {
    /// Expires topics, a part of them at a time. Never ends; one caller.
    pub(crate) async fn expire_loop(&self) {
        let mut pause = tokio::time::interval(PAUSE);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for shard in &self.shards {
                pause.tick().await;
                if let Some(durable) = &self.shared.durable {
                    durable.report();
                }
                self.expire_shard(shard, uptime_ms()).await;
            }
        }
    }

    /// Has the consumers expire that are only on the disk. Never ends; one caller.
    pub(crate) async fn expire_consumers_loop(&self) {
        let Some(durable) = &self.shared.durable else { return std::future::pending().await };
        let idle = Duration::from_millis(self.shared.config.timing.consumer_idle_ms);
        loop {
            tokio::time::sleep(idle.clamp(PAUSE, CONSUMER_PAUSE)).await;
            for stored in durable.topics() {
                // Loaded, it expires with the others.
                if stored.consumers().iter().any(|(_, saved)| consumers::is_idle(saved, idle))
                    && let Ok(name) = TopicName::new(stored.name())
                    && let Ok(topic) = self.load(&name, stored)
                {
                    topic.load_consumers();
                }
                tokio::task::yield_now().await;
            }
        }
    }

    async fn expire_shard(&self, shard: &Shard, now: u64) {
        let topics: Vec<_> = shard.read().topics.values().cloned().collect();
        let gone: Vec<_> = topics.into_iter().filter(|topic| topic.expire(now)).collect();
        self.forget_topics(shard, &gone);
        for topic in gone {
            let mut room = self.shared.workers.room().await;
            for worker in 0..self.shared.workers.count() {
                room.send(worker, InboxItem::Forget { topic: topic.id });
            }
        }
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
        let (topics, inboxes) = Topics::new(Arc::new(Config::default()), None, 1);
        let (name, all) =
            (TopicName::new("a").expect("a name"), Allowance::new(&Rates::default(), true, Arc::default()));
        let told = topics.look_up(&name).expect_err("it is not there");
        assert_eq!(topics.look_up(&name).expect_err("reading makes none"), told);
        let topic = topics.make(&name, &all).expect("room");
        assert_eq!(topic.read(|log| log.epoch().clone()), told);
        topics.expire_shard(topics.shard(&name), uptime_ms() + topics.shared.config.timing.topic_idle_ms + 1000).await;
        let next = topics.look_up(&name).expect_err("it was forgotten");
        assert_ne!(next, told);
        let topic = topics.make(&name, &all).expect("room");
        assert_eq!(topic.read(|log| log.epoch().clone()), next);
        drop(inboxes);
    }
}
