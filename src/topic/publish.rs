//! `publish`: a message gets its offset, goes into the log, is encoded once, and leaves for the workers that want it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::hub::InboxItem;
use super::topic::{State, Topic};
use super::{InboxPermits, TopicError, Topics, size, uptime_ms};
use crate::limits::Allowance;
use crate::message::{IdempotencyKey, Payload, ServerMessage, TopicMessage, TopicName, now_ms};
use crate::metrics::Counters;
use crate::outbound::EncodedMessage;

/// A message to be published.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// `None` where no client did.
    pub(crate) from: Option<Uuid>,
    pub(crate) topic: TopicName,
    pub(crate) payload: Payload,
    pub(crate) key: Option<IdempotencyKey>,
}

/// Where a message is in its topic's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    /// The message came before, with the same key.
    pub(crate) duplicate: bool,
}

impl Topics {
    /// Publishes if that needs no waiting. `None`: [`publish`](Self::publish) has to wait for it.
    pub(crate) fn publish_now(
        &self,
        publication: &Publication,
        asks: &Allowance,
    ) -> Option<Result<Published, TopicError>> {
        let topic = match self.topic_for(publication, asks) {
            Ok(topic) if topic.blocks() => return None,
            Ok(topic) => topic,
            Err(refused) => return Some(Err(refused)),
        };
        let mut state = topic.state();
        let mut permits: InboxPermits<'_> = Vec::with_capacity(self.inboxes.len());
        for (worker, inbox) in self.inboxes.iter().enumerate() {
            // A worker without subscribers holds nobody up.
            let place = if self.wants(&state, worker) { inbox.try_reserve().map(Some) } else { Ok(None) };
            permits.push(match place {
                Ok(place) => place,
                Err(TrySendError::Closed(())) => None,
                Err(TrySendError::Full(())) => return None,
            });
        }
        self.commit(&topic, &mut state, publication, permits, None, asks.counters()).map(Ok)
    }

    /// Publishes. Waits for room in the workers' inboxes and, under the policy `block`, for room at
    /// every subscriber. Dropped while it waits, it has published nothing; behind that, everything.
    pub(crate) async fn publish(&self, publication: &Publication, asks: &Allowance) -> Result<Published, TopicError> {
        loop {
            let topic = self.topic_for(publication, asks)?;
            let published = if topic.blocks() {
                self.publish_in_turn(&topic, publication, asks.counters()).await?
            } else {
                let permits = self.permits().await;
                self.commit(&topic, &mut topic.state(), publication, permits, None, asks.counters())
            };
            if let Some(published) = published {
                return Ok(published);
            }
        }
    }

    fn topic_for(&self, publication: &Publication, asks: &Allowance) -> Result<Arc<Topic>, TopicError> {
        self.find_or_make(&publication.topic, asks)
    }

    /// Publishes once every subscriber has room, and returns once every subscriber has the message.
    async fn publish_in_turn(
        &self,
        topic: &Arc<Topic>,
        publication: &Publication,
        counters: &Counters,
    ) -> Result<Option<Published>, TopicError> {
        let within = self.config.timing.block_timeout();
        let deadline = Instant::now() + within;
        let too_late = || TopicError::Blocked { topic: topic.name.clone(), within };
        // It is never closed.
        let Ok(Ok(_turn)) = timeout_at(deadline, topic.turn.acquire()).await else { return Err(too_late()) };
        loop {
            topic.blocked().retain(|full| !full.ended.is_cancelled() && !full.lane.has_room());
            let Some(full) = topic.blocked().last().cloned() else { break };
            let freed = async {
                tokio::select! {
                    // A lane that is closed holds nobody up.
                    _ = full.lane.room() => {}
                    () = full.ended.cancelled() => {}
                }
            };
            if timeout_at(deadline, freed).await.is_err() {
                return Err(too_late());
            }
        }
        let Ok(permits) = timeout_at(deadline, self.permits()).await else { return Err(too_late()) };
        let delivered = TaskTracker::new();
        let published = self.commit(topic, &mut topic.state(), publication, permits, Some(&delivered), counters);
        delivered.close();
        // No worker waits for a receiver; one that ends takes what it had not delivered with it.
        let _ = timeout_at(deadline, delivered.wait()).await;
        Ok(published)
    }

    /// Publishes; `None` where the topic is gone meanwhile.
    fn commit(
        &self,
        topic: &Arc<Topic>,
        state: &mut State,
        publication: &Publication,
        permits: InboxPermits<'_>,
        delivered: Option<&TaskTracker>,
        counters: &Counters,
    ) -> Option<Published> {
        let now = uptime_ms();
        if state.is_gone {
            return None;
        }
        let (epoch, known) =
            (state.log.epoch().to_owned(), publication.key.as_ref().and_then(|key| state.keys.offset(key)));
        if let Some(offset) = known {
            return Some(Published { epoch, offset, duplicate: true });
        }
        let compress_min_bytes = size(self.config.limits.compress_min_bytes);
        let offset = state.log.next();
        let mut message = TopicMessage::new(topic.name.as_str(), offset, publication.payload.clone(), now_ms());
        message.from = publication.from;
        let encoded = EncodedMessage::new(&ServerMessage::Message(message), compress_min_bytes);
        let entry = state.log.append(offset, now, encoded);
        if let Some(key) = &publication.key {
            state.keys.add(key.clone(), offset, now);
        }
        state.used_ms = now;
        state.rate.count(now);
        counters.published.add(1);
        self.account(topic, state, now);
        for (worker, place) in permits.into_iter().enumerate() {
            if let Some(place) = place.filter(|_| self.wants(state, worker)) {
                let done = delivered.map(TaskTracker::token);
                place.send(InboxItem::Message { topic: Arc::clone(topic), entry: entry.clone(), done });
            }
        }
        Some(Published { epoch, offset, duplicate: false })
    }

    /// Whether a worker has subscribers of a topic.
    pub(super) fn wants(&self, state: &State, worker: usize) -> bool {
        state.interest[worker] > 0 || self.patterns[worker].load(Ordering::Acquire) > 0
    }

    /// Holds a topic to its bounds, and the server to what all may take together.
    pub(super) fn account(&self, topic: &Topic, state: &mut State, now: u64) {
        let (limits, timing) = (&self.config.limits, &self.config.timing);
        state.log.trim(topic.retention(), now);
        state.keys.trim(size(limits.topic_keys), timing.topic_key_ms, now);
        let most = size(limits.topic_memory_bytes);
        loop {
            let (now, before) = (state.log.bytes() + state.keys.bytes(), state.accounted);
            state.accounted = now;
            let total = if now >= before {
                self.memory.fetch_add(now - before, Ordering::Relaxed) + (now - before)
            } else {
                self.memory.fetch_sub(before - now, Ordering::Relaxed) - (before - now)
            };
            if total <= most || !(state.log.forget_oldest() || state.keys.forget_oldest()) {
                break;
            }
        }
    }
}
