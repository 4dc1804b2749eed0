//! Dead messages: copied into the dead-letter topic that the rule names, and settled behind that. So none is lost; and
//! a copy that was made before a crash is recognised by its key, so none is there twice.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::warn;

use super::Dispatcher;
use crate::consumer::Why;
use crate::limits::Allowance;
use crate::log::{Draft, Record};
use crate::message::{IdempotencyKey, Reply, ServerMessage, TopicMessage};
use crate::metrics::Counters;
use crate::topic::topic::Topic;
use crate::topic::{Publication, uptime_ms};

/// After a dead-letter topic has refused a message, the next try.
const RETRY_MS: u64 = 5000;

/// One burial at a time, whether the leader, an acknowledgement or a member that leaves asks for it.
#[derive(Debug)]
pub(super) struct Burial(Semaphore);

impl Burial {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Dispatcher {
    fn next_dead(&self) -> Option<(u64, Why)> {
        self.state().consumer.next_dead()
    }

    /// Puts all dead messages where they belong. Gives the time at which to try again, if that is not possible now.
    /// Cancel safe: what is not done yet is still to be done.
    pub(in crate::topic) async fn bury_dead(&self, topic: &Arc<Topic>, counters: &Arc<Counters>) -> Option<u64> {
        self.next_dead()?;
        // It is never closed.
        let _turn = self.burial.0.acquire().await.ok()?;
        let mut later_ms = None;
        while let Some((offset, why)) = self.next_dead() {
            if !self.bury(topic, offset, why, counters).await {
                later_ms = Some(uptime_ms() + RETRY_MS);
                break;
            }
        }
        // At once, while the copies' keys are known. If it is refused, the leader does it later.
        let _ = self.save(&mut self.state());
        later_ms
    }

    /// False if the dead-letter topic takes nothing now.
    async fn bury(&self, topic: &Arc<Topic>, offset: u64, why: Why, counters: &Arc<Counters>) -> bool {
        // What dies there is only counted.
        if let Some(letters) = topic.rule.dead_letter.as_ref().filter(|&letters| *letters != topic.name) {
            let Ok(page) = topic.read_page(offset - 1, 1, 1, || {}).await else { return false };
            let record = page.records.first().filter(|record| record.offset == offset);
            let Some(draft) = record.and_then(|record| self.draft(topic, record)) else {
                let mut state = self.state();
                if state.consumer.lose(offset) {
                    state.changed();
                    counters.lost.add(1);
                }
                return true;
            };
            let Some(topics) = topic.shared.directory.upgrade() else { return false };
            let allowance = Allowance::new(&topic.shared.config.rates, true, Arc::clone(counters));
            let publication = Publication { topic: letters.clone(), draft };
            // Boxed: few messages die.
            let published = Box::pin(async { topics.publish(&publication, &allowance).await?.done().await }).await;
            if let Err(refused) = published {
                let (name, consumer, letters) = (topic.name.as_str(), self.name().as_str(), letters.as_str());
                warn!(
                    topic = name,
                    consumer,
                    "Message {offset} of {name}, dead for {consumer}, cannot go to {letters}, which is tried again: \
                     {refused}"
                );
                return false;
            }
        }
        let mut state = self.state();
        if state.consumer.bury(offset) {
            state.changed();
            counters.dead.add(1);
            let (name, consumer) = (topic.name.as_str(), self.name().as_str());
            tracing::debug!(topic = name, consumer, "Message {offset} of {name} is dead for {consumer}: {why}");
        }
        true
    }

    /// The copy of a message. Its key is that of no other one.
    fn draft(&self, topic: &Topic, record: &Record) -> Option<Draft> {
        let body = record.encoded.body().ok()?;
        let ServerMessage::Message(TopicMessage { from, payload, .. }) = Reply::parse(&body).ok()?.message else {
            return None;
        };
        let mut hasher = DefaultHasher::new();
        topic.name.hash(&mut hasher);
        let (hash, consumer, offset) = (hasher.finish(), self.name().as_str(), record.offset);
        let epoch = topic.read(|log| log.epoch().clone());
        let key = IdempotencyKey::new(&format!("dead.{hash:x}.{}.{consumer}.{offset}", epoch.as_str()));
        Some(Draft { from, payload, key: key.ok(), ttl_ms: None })
    }
}
