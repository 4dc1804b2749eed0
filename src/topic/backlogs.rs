//! Topics with committed messages that wait for room at the workers. One task releases them as there is room.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use quic_websocket_store as store;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Topics;
use super::topic::Topic;

/// The topics that wait, each once, in the order in which they began to.
#[derive(Debug, Default)]
pub(super) struct Backlogs {
    topics: Mutex<VecDeque<Arc<Topic>>>,
    added: Notify,
    /// Memory of the messages that wait.
    bytes: AtomicUsize,
    most_bytes: usize,
    /// Called when messages were released.
    room: Notify,
}

impl Backlogs {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, ..Self::default() }
    }

    /// Whether as much waits as may: durable topics take no more until then.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.most_bytes
    }

    /// A message of so many bytes waits.
    pub(super) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A message of so many bytes waits no longer.
    pub(super) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Wakes the publishers that wait for room.
    pub(super) fn tell_room(&self) {
        self.room.notify_waiters();
    }

    /// Completes once messages were released after this call.
    pub(super) fn room(&self) -> Pin<Box<Notified<'_>>> {
        let mut room = Box::pin(self.room.notified());
        room.as_mut().enable();
        room
    }

    /// Adds a topic that was not there.
    pub(super) fn add(&self, topic: Arc<Topic>) {
        self.topics.lock().push_back(topic);
        self.added.notify_one();
    }

    async fn next(&self) -> Arc<Topic> {
        loop {
            if let Some(topic) = self.topics.lock().pop_front() {
                return topic;
            }
            self.added.notified().await;
        }
    }
}

/// The store's way to the topics, which are made after it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Releases(Arc<OnceLock<Weak<Topics>>>);

impl Releases {
    /// What is committed is released to these from now on.
    pub(crate) fn to(&self, topics: &Arc<Topics>) {
        // Set once: a store has one server.
        let _ = self.0.set(Arc::downgrade(topics));
    }
}

impl store::Committed for Releases {
    fn committed(&self, topic: &store::Topic, records: &[store::Record]) {
        if let Some(topics) = self.0.get().and_then(Weak::upgrade) {
            topics.committed(topic.name(), records);
        }
    }
}

impl Topics {
    /// Releases the messages that wait for room. Never ends; one caller.
    pub(crate) async fn drain_loop(&self) {
        loop {
            self.shared.backlogs.next().await.drain().await;
        }
    }
}
