//! When topics have something to do for their members: changes to be told, and lost connections that have had their
//! time. Each worker has a clock for some of the topics. A topic is in it while something is due, at most once, so a
//! clock sleeps until then, and without an end while nothing changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::topic::Topic;
use super::{Topics, uptime_ms};

/// The topics that have something to do, by time.
#[derive(Debug, Default)]
pub(super) struct Clock {
    topics: Mutex<BTreeMap<(u64, u64), Arc<Topic>>>,
    /// Called when a time comes before all others.
    is_earlier: Notify,
}

impl Clock {
    /// Moves a topic from one time to another. Called under the topic's lock.
    pub(super) fn set(&self, topic: &Arc<Topic>, from: Option<u64>, to: Option<u64>) {
        let mut topics = self.topics.lock();
        if let Some(from) = from {
            topics.remove(&(from, topic.id));
        }
        let Some(to) = to else { return };
        let is_earlier = topics.first_key_value().is_none_or(|(&(first, _), _)| to < first);
        topics.insert((to, topic.id), Arc::clone(topic));
        drop(topics);
        if is_earlier {
            self.is_earlier.notify_one();
        }
    }

    /// Takes out the next topic, once its time has come. Cancel safe.
    async fn next(&self) -> Arc<Topic> {
        loop {
            let wait = {
                let mut topics = self.topics.lock();
                match topics.first_entry() {
                    Some(first) => match first.key().0.saturating_sub(uptime_ms()) {
                        0 => return first.remove(),
                        ms => Some(Duration::from_millis(ms)),
                    },
                    None => None,
                }
            };
            let is_earlier = self.is_earlier.notified();
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, is_earlier).await),
                None => is_earlier.await,
            }
        }
    }
}

/// Lost connections that are still members, of all topics, and their bound.
#[derive(Debug)]
pub(super) struct Away {
    count: AtomicUsize,
    most: usize,
}

impl Away {
    pub(super) fn new(most: usize) -> Self {
        Self { count: AtomicUsize::new(0), most }
    }

    /// Counts one more, if there is room for it.
    pub(super) fn take(&self) -> bool {
        let more = |count: usize| (count < self.most).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, count: usize) {
        if count > 0 {
            self.count.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

impl Topics {
    /// Does what is due for the members of topics, for some of the topics. Never ends; one caller for each worker.
    pub(crate) async fn presence_loop(&self, worker: usize) {
        loop {
            let topic = self.shared.clocks[worker].next().await;
            topic.tick(self.shared.workers.room().await);
        }
    }
}
