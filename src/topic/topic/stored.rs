//! A topic that is kept on a disk. A publish gives the message to the store, under the topic's lock; once the store has
//! committed it, it is released to readers and subscribers, under the lock again and in the order of offsets. So nobody
//! sees a message, or an offset, that a crash takes back.

use std::sync::Arc;

use quic_websocket_store as store;
use tokio_util::task::TaskTracker;

use super::{State, Topic};
use crate::durable::{Durable, StoredTopic};
use crate::log::{Epoch, Record, Since};
use crate::message::{Stored, now_ms};
use crate::metrics::Counters;
use crate::topic::{HistoryPage, Published, Publishing, TopicError, uptime_ms};

/// Most messages that are released under the lock at once: workers that publish to the topic wait for it.
const RELEASED_AT_ONCE: usize = 64;

impl Topic {
    /// Gives a message to the store. `None` if that has to wait, or if the topic is gone.
    pub(super) fn submit(
        self: &Arc<Self>,
        state: &mut State,
        stored: &StoredTopic,
        record: store::NewRecord,
        delivered: Option<&TaskTracker>,
        counters: &Counters,
    ) -> Option<Result<Publishing, TopicError>> {
        // Subscribers hold a durable publisher up by what was committed before.
        if state.is_gone || !state.backlog.is_empty() || self.shared.backlogs.is_full() {
            return None;
        }
        let durable = self.shared.durable.as_ref()?;
        let ticket = match durable.append(stored, record) {
            Ok(ticket) => ticket,
            Err(store::Refusal::Busy) => return None,
            Err(refusal) => return Some(Err(TopicError::NotStored { topic: self.name.clone(), refusal })),
        };
        state.used_ms = uptime_ms();
        if !ticket.is_duplicate() {
            state.delivering = delivered.cloned();
            counters.published.add(1);
        }
        Some(Ok(Publishing::Pending(Receipt {
            topic: Arc::clone(self),
            epoch: state.log.epoch().clone(),
            level: stored.level(),
            ticket,
            stored: None,
        })))
    }

    /// Releases messages that the store has committed, or has them wait for room at the workers. Called by the store's
    /// threads.
    pub(in crate::topic) fn committed(self: &Arc<Self>, records: &[store::Record]) {
        let now = uptime_ms();
        for records in records.chunks(RELEASED_AT_ONCE) {
            let records: Vec<_> = records.iter().map(|record| self.of_store(record)).collect();
            let mut state = self.state.lock();
            let had_backlog = !state.backlog.is_empty();
            for record in records {
                // The topic may have been loaded behind these.
                if state.is_gone || record.offset <= state.log.newest() {
                    continue;
                }
                if state.backlog.is_empty() && self.release_now(&mut state, &record, now) {
                    continue;
                }
                self.shared.backlogs.grow(record.encoded.cost());
                state.backlog.push_back(record);
            }
            if !had_backlog && !state.backlog.is_empty() {
                self.shared.backlogs.add(Arc::clone(self));
            }
        }
        self.tell_released();
    }

    /// Wakes those that wait for messages to be released, or for room.
    fn tell_released(&self) {
        self.released.notify_waiters();
        self.shared.backlogs.tell_room();
    }

    /// Releases a message if every worker that wants it has room.
    fn release_now(self: &Arc<Self>, state: &mut State, record: &Record, now: u64) -> bool {
        let Some(room) = self.shared.workers.room_now(&state.interest) else { return false };
        let delivered = state.delivering.take();
        self.release(state, record.clone(), None, now, room, delivered.as_ref());
        true
    }

    /// Releases the messages that wait for room, as the workers get it.
    pub(in crate::topic) async fn drain(self: &Arc<Self>) {
        loop {
            let room = self.shared.workers.room().await;
            let (mut state, now) = (self.state.lock(), uptime_ms());
            if let Some(record) = self.next_waiting(&mut state) {
                let delivered = state.delivering.take();
                self.release(&mut state, record, None, now, room, delivered.as_ref());
            }
            while let Some(record) = state.backlog.front().cloned() {
                if !self.release_now(&mut state, &record, now) {
                    break;
                }
                self.next_waiting(&mut state);
            }
            let is_over = state.backlog.is_empty();
            if is_over {
                state.backlog.shrink_to(0);
            }
            drop(state);
            self.tell_released();
            if is_over {
                return;
            }
        }
    }

    fn next_waiting(&self, state: &mut State) -> Option<Record> {
        let record = state.backlog.pop_front()?;
        self.shared.backlogs.shrink(record.encoded.cost());
        Some(record)
    }

    /// Waits until the message at an offset, which the store has committed, is released, or the topic is gone.
    pub(in crate::topic) async fn is_released(&self, offset: u64) {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            {
                let state = self.state.lock();
                if state.is_gone || state.log.newest() >= offset {
                    return;
                }
            }
            released.await;
        }
    }

    /// A page as [`page`](Topic::page) gives it, with the messages that are on the disk alone.
    pub(in crate::topic) async fn stored_page(
        &self,
        durable: &Arc<Durable>,
        since: Option<Since<'_>>,
        limit: usize,
        reverse: bool,
    ) -> Result<HistoryPage, TopicError> {
        let (mut page, rest) = self.page(since, limit, reverse);
        let Some(mut from) = rest else { return Ok(page) };
        let newest = page.position.offset;
        let Some(stored) = self.read(|log| log.on_disk().cloned()) else { return Ok(page) };
        loop {
            let records = limit.saturating_sub(page.records.len());
            let room = store::Room { records, bytes: self.shared.max_message_bytes() };
            let read = durable
                .read(&stored, from, reverse, room)
                .await
                .map_err(|cause| TopicError::NotRead { topic: self.name.clone(), cause: cause.to_string() })?;
            // What is not released yet is not there yet.
            let records = read.records.iter().filter(|record| record.offset <= newest);
            let now = now_ms();
            let records = records.map(|record| self.of_store(record)).filter(|record| !record.is_expired(now));
            page.records.extend(records);
            let next = read.next.filter(|&next| reverse || next <= newest);
            page.more = next.is_some();
            // The bounds of the history may have passed some of them meanwhile.
            if !reverse && (!read.damaged.is_empty() || self.read(|log| log.trimmed_through()) >= from) {
                page.recovered = page.recovered.map(|_| false);
            }
            match next {
                // A page without messages would be the last one to its reader, and these have all expired.
                Some(next) if page.records.is_empty() => from = next,
                _ => return Ok(page),
            }
        }
    }

    /// A message as subscribers get it.
    pub(in crate::topic) fn of_store(&self, record: &store::Record) -> Record {
        Record::stored(&self.name, record, uptime_ms(), self.shared.compress_min_bytes())
    }
}

/// The receipt for a message that the store has taken.
#[derive(Debug)]
pub(crate) struct Receipt {
    topic: Arc<Topic>,
    epoch: Epoch,
    level: store::Level,
    ticket: store::Ticket,
    /// The ticket's result, from when it has resolved.
    stored: Option<Result<store::Stored, store::StoreError>>,
}

impl Receipt {
    /// Waits until the message is as safe as its topic promises, and has its place among those that subscribers get.
    /// Cancel safe.
    pub(crate) async fn resolve(&mut self) -> Result<Published, TopicError> {
        let stored = match &self.stored {
            Some(stored) => stored.clone(),
            None => self.stored.insert((&mut self.ticket).await).clone(),
        };
        let stored =
            stored.map_err(|cause| TopicError::Unsure { topic: self.topic.name.clone(), cause: cause.to_string() })?;
        self.topic.is_released(stored.offset).await;
        Ok(Published {
            epoch: self.epoch.clone(),
            offset: stored.offset,
            duplicate: stored.duplicate,
            stored: Some(match self.level {
                store::Level::Os => Stored::Os,
                store::Level::Fsync => Stored::Fsync,
            }),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;
    use crate::config::{Config, Durability, Rates, TopicRule};
    use crate::limits::Allowance;
    use crate::log::Draft;
    use crate::message::{Payload, TopicName, TopicPattern};
    use crate::topic::client::Watch;
    use crate::topic::{Inbox, Publication, Releases, Topics};

    /// A server's durable topics, for one worker with room for one message and a subscriber to everything.
    pub(crate) struct Narrow {
        pub(crate) topics: Arc<Topics>,
        inboxes: Vec<Inbox>,
        by: Allowance,
        _dir: tempfile::TempDir,
    }

    impl Narrow {
        pub(crate) fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let mut config = Config::default();
            config.limits.fanout_queue = 1;
            config.store.dir = Some(dir.path().to_owned());
            config.store.segment_bytes = 1 << 20;
            config.store.min_free_bytes = 0;
            config.topics = vec![TopicRule { durability: Durability::Os, ..TopicRule::default() }];
            let releases = Releases::default();
            let durable = Durable::open(&config, releases.clone()).expect("a store").map(Arc::new);
            let (topics, inboxes) = Topics::new(Arc::new(config), durable, 1);
            releases.to(&topics);
            topics.shared.workers.add_pattern(0, &TopicPattern::new(">").expect("a pattern"), false, Watch::Nothing);
            Self { topics, inboxes, by: Allowance::new(&Rates::default(), true, Arc::default()), _dir: dir }
        }

        /// The receipt of a message that the store has taken.
        pub(crate) fn publish(&self, content: &str) -> Receipt {
            let draft = Draft { from: None, payload: Payload::text(content), key: None, ttl_ms: None };
            let publication = Publication { topic: TopicName::new("a").expect("a name"), draft };
            match self.topics.publish_now(&publication, &self.by) {
                Some(Ok(Publishing::Pending(receipt))) => receipt,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn committed_messages_wait_for_room_and_are_released_in_order() {
        let mut narrow = Narrow::new();
        let mut receipts = ["first", "second", "third"].map(|content| narrow.publish(content));
        assert_eq!(receipts[0].resolve().await.map(|published| published.offset), Ok(1));
        // It stays in the inbox.
        assert!(poll!(std::pin::pin!(receipts[1].resolve())).is_pending());
        let topics = Arc::clone(&narrow.topics);
        let mut draining = std::pin::pin!(topics.drain_loop());
        let mut taken = 0;
        for (receipt, offset) in receipts.iter_mut().skip(1).zip(2..) {
            let mut resolved = std::pin::pin!(receipt.resolve());
            loop {
                tokio::select! {
                    () = &mut draining => {}
                    published = &mut resolved => {
                        assert_eq!(published.map(|published| published.offset), Ok(offset));
                        break;
                    }
                    Some(_) = narrow.inboxes[0].deliveries.recv() => taken += 1,
                }
            }
        }
        while let Poll::Ready(Some(_)) = poll!(std::pin::pin!(narrow.inboxes[0].deliveries.recv())) {
            taken += 1;
        }
        assert_eq!(taken, 3);
    }
}
