//! `publish`: finds the topic, and waits for room until the message can be published: in the workers' inboxes and,
//! under the policy `block`, at every subscriber. Its effects are the topic's ([`Topic::publish`]).

use std::sync::Arc;

use quic_websocket_store::Refusal;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::topic::{Receipt, Topic};
use super::{TopicError, Topics};
use crate::limits::Allowance;
use crate::log::{Draft, Epoch};
use crate::message::{Stored, TopicName};
use crate::metrics::Counters;

/// A message to be published.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    pub(crate) topic: TopicName,
    pub(crate) draft: Draft,
}

/// Where a message is in its topic's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    /// The message came before, with the same key.
    pub(crate) duplicate: bool,
    /// How safe it is, if it is on a disk.
    pub(crate) stored: Option<Stored>,
}

/// A publish that has its place in the order of all others.
#[derive(Debug)]
pub(crate) enum Publishing {
    /// It is over.
    Done(Published),
    /// The message is on its way to the disk.
    Pending(Receipt),
}

impl Publishing {
    /// Waits until it is over.
    pub(crate) async fn done(self) -> Result<Published, TopicError> {
        match self {
            Self::Done(published) => Ok(published),
            Self::Pending(mut receipt) => receipt.resolve().await,
        }
    }
}

impl Topics {
    /// Publishes if that needs no waiting for room. `None`: [`publish`](Self::publish) has to wait for it. Messages for
    /// the disk are written after [`wake_store`](Self::wake_store), so that those that come at once share a write.
    pub(crate) fn publish_now(
        &self,
        Publication { topic, draft }: &Publication,
        by: &Allowance,
    ) -> Option<Result<Publishing, TopicError>> {
        match self.find_or_make(topic, by) {
            Ok(topic) if topic.blocks() => None,
            Ok(topic) => topic.publish_now(draft, None, by.counters()),
            Err(refused) => Some(Err(refused)),
        }
    }

    /// Has the messages that were published be written to the disk.
    pub(crate) fn wake_store(&self) {
        self.shared.wake_store();
    }

    /// Publishes, and waits for room if there is none. Dropped while it waits for that, it has published nothing;
    /// behind that, everything.
    pub(crate) async fn publish(&self, publication: &Publication, by: &Allowance) -> Result<Publishing, TopicError> {
        let Publication { topic: name, draft } = publication;
        if let Some(published) = self.publish_now(publication, by) {
            self.wake_store();
            return published;
        }
        loop {
            let topic = self.find_or_make(name, by)?;
            let published = if topic.blocks() {
                topic.publish_in_turn(draft, by.counters()).await?.map(Publishing::Done)
            } else if topic.rule.is_durable() {
                let deadline = Instant::now() + self.shared.config.timing.block_timeout();
                topic.publish_once_taken(draft, None, by.counters(), deadline).await?
            } else {
                let room = self.shared.workers.room().await;
                topic.publish(draft, room, None, by.counters()).map(Publishing::Done)
            };
            if let Some(published) = published {
                return Ok(published);
            }
            // The topic was forgotten meanwhile.
        }
    }
}

impl Topic {
    /// Publishes to a durable topic once the store takes it. `None` if the topic is gone.
    async fn publish_once_taken(
        self: &Arc<Self>,
        draft: &Draft,
        delivered: Option<&TaskTracker>,
        counters: &Counters,
        deadline: Instant,
    ) -> Result<Option<Publishing>, TopicError> {
        loop {
            let room = self.shared.backlogs.room();
            if let Some(published) = self.publish_now(draft, delivered, counters) {
                self.shared.wake_store();
                return published.map(Some);
            }
            if self.is_gone() {
                return Ok(None);
            }
            timeout_at(deadline, room)
                .await
                .map_err(|_| TopicError::NotStored { topic: self.name.clone(), refusal: Refusal::Busy })?;
        }
    }

    /// Publishes once every subscriber has room, and returns once every subscriber has the message. `None` if the topic
    /// is gone.
    async fn publish_in_turn(
        self: &Arc<Self>,
        draft: &Draft,
        counters: &Counters,
    ) -> Result<Option<Published>, TopicError> {
        let within = self.shared.config.timing.block_timeout();
        let deadline = Instant::now() + within;
        let too_late = || TopicError::Blocked { topic: self.name.clone(), within };
        let _turn = self.blocking.turn(deadline).await.ok_or_else(too_late)?;
        let delivered = TaskTracker::new();
        let published = if self.rule.is_durable() {
            match self.publish_once_taken(draft, Some(&delivered), counters, deadline).await? {
                Some(publishing) => Some(publishing.done().await?),
                None => None,
            }
        } else {
            let room = timeout_at(deadline, self.shared.workers.room()).await.map_err(|_| too_late())?;
            self.publish(draft, room, Some(&delivered), counters)
        };
        delivered.close();
        // No worker waits for a receiver; one that ends takes what it had not delivered with it.
        let _ = timeout_at(deadline, delivered.wait()).await;
        Ok(published)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;
    use crate::config::{Config, Rates};
    use crate::message::{IdempotencyKey, Payload, TopicPattern};
    use crate::topic::client::Watch;

    fn publication(content: &str, key: Option<&str>) -> Publication {
        let key = key.map(|key| IdempotencyKey::new(key).expect("a key"));
        let draft = Draft { from: None, payload: Payload::text(content), key, ttl_ms: None };
        Publication { topic: TopicName::new("a").expect("a name"), draft }
    }

    #[tokio::test]
    async fn a_publish_waits_for_room_at_a_worker_with_subscribers_and_dropped_meanwhile_publishes_nothing() {
        let mut config = Config::default();
        config.limits.fanout_queue = 1;
        let (topics, mut inboxes) = Topics::new(Arc::new(config), None, 2);
        let by = Allowance::new(&Rates::default(), true, Arc::default());
        topics.shared.workers.add_pattern(1, &TopicPattern::new(">").expect("a pattern"), false, Watch::Nothing);
        let now = |content| {
            topics.publish_now(&publication(content, None), &by).map(|published| match published {
                Ok(Publishing::Done(it)) => Ok(it.offset),
                other => Err(format!("{other:?}")),
            })
        };

        assert_eq!(now("first"), Some(Ok(1)));
        assert_eq!(now("no room"), None);
        let (dropped, waits) = (publication("dropped", None), publication("waits", None));
        {
            let mut dropped = Box::pin(topics.publish(&dropped, &by));
            assert!(poll!(&mut dropped).is_pending());
        }
        let mut waits = Box::pin(topics.publish(&waits, &by));
        assert!(poll!(&mut waits).is_pending());
        assert!(inboxes[1].deliveries.recv().await.is_some());
        let Poll::Ready(Ok(Publishing::Done(published))) = poll!(&mut waits) else { panic!("there is room") };
        assert_eq!((published.offset, published.duplicate), (2, false));
        assert!(inboxes[1].deliveries.recv().await.is_some());
        assert!(inboxes[0].deliveries.try_recv().is_err(), "the other worker has no subscribers");
    }

    #[tokio::test]
    async fn a_duplicate_has_the_place_of_the_first_and_goes_to_nobody() {
        let (topics, mut inboxes) = Topics::new(Arc::default(), None, 1);
        let by = Allowance::new(&Rates::default(), true, Arc::default());
        topics.shared.workers.add_pattern(0, &TopicPattern::new(">").expect("a pattern"), false, Watch::Nothing);
        let publish = async |content| {
            let publishing = topics.publish(&publication(content, Some("key")), &by).await.expect("published");
            publishing.done().await.expect("in memory")
        };
        let first = publish("first").await;
        assert!(inboxes[0].deliveries.try_recv().is_ok());
        let again = publish("again").await;
        assert_eq!(again, Published { duplicate: true, ..first });
        assert!(inboxes[0].deliveries.try_recv().is_err());
        assert_eq!(by.counters().published.get(), 1);
    }
}
