//! Durable topics: the store that keeps them on a disk, as the server uses it. Translates rules into the store's terms,
//! and reads on threads that may block, a bounded number at a time. Knows neither topics nor clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quic_websocket_store::{
    self as store, Committed, Damage, Health, Level, NewRecord, OpenError, Options, Page, Refusal, Retention, Room,
    Store, StoreError, Ticket,
};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::config::{Config, Durability, History, TopicRule};
use crate::metrics::{self, ByLevel, Latency, StoreState, StoreStats};

/// A topic in the store.
pub(crate) type StoredTopic = quic_websocket_store::Topic;

/// The server's store.
pub(crate) struct Durable {
    store: Store,
    /// The state that the log has told.
    told: Mutex<Health>,
    /// Reads at the same time.
    readers: Arc<Semaphore>,
    keys: u64,
    key_ms: u64,
    most_topics: u64,
}

impl std::fmt::Debug for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durable").field("health", &self.store.health()).finish_non_exhaustive()
    }
}

impl Durable {
    /// Opens the store that the settings name; `None` if they name none. Blocks for the disk. `committed` hears of
    /// every record once it is stored.
    pub(crate) fn open(config: &Config, committed: impl Committed) -> Result<Option<Self>, OpenError> {
        let Some(dir) = &config.store.dir else { return Ok(None) };
        let settings = &config.store;
        let mut options = Options::new(dir);
        options.pending_bytes = usize::try_from(settings.pending_bytes).unwrap_or(usize::MAX);
        options.sync_interval = Duration::from_millis(settings.sync_interval_ms);
        options.segment_bytes = settings.segment_bytes;
        options.min_free_bytes = settings.min_free_bytes;
        options.max_bytes = settings.max_bytes;
        options.gc_live_ratio = settings.compact_below_percent as f64 / 100.0;
        options.clock_hold = Duration::from_millis(settings.clock_hold_ms);
        let began = Instant::now();
        let store = Store::open(options, committed)?;
        let (topics, took) = (store.count(), began.elapsed().as_millis());
        info!(topics, "Durable topics in {}: {topics}, read in {took} ms", dir.display());
        for Damage { file, from, to } in store.damage() {
            warn!(
                file,
                from,
                to,
                "The store is damaged: bytes {from} to {to} of {file} cannot be read; see quic-websocket store verify"
            );
        }
        Ok(Some(Self {
            store,
            told: Mutex::new(Health::Ok),
            readers: Arc::new(Semaphore::new(usize::try_from(settings.readers).unwrap_or(1))),
            keys: config.limits.topic_keys,
            key_ms: config.timing.topic_key_ms,
            most_topics: config.limits.max_topics,
        }))
    }

    /// A topic that is there; it is held to its rule from now on.
    pub(crate) fn find(&self, name: &str, rule: &TopicRule) -> Option<StoredTopic> {
        let topic = self.store.find(name)?;
        // One that is there is not refused.
        Some(self.store.topic(name, level(rule), self.retention(rule)).unwrap_or(topic))
    }

    /// All topics, in no order.
    pub(crate) fn topics(&self) -> Vec<StoredTopic> {
        self.store.topics()
    }

    /// Forgets a topic that has had no message and has no consumer.
    pub(crate) fn forget_unused(&self, topic: &StoredTopic) {
        if topic.newest_taken() == 0 && topic.consumers().is_empty() {
            // If the store takes nothing at present, it stays until the next time that it is used.
            let _ = self.store.forget(topic);
        }
    }

    /// Whether there is room for another topic.
    pub(crate) fn takes_topics(&self) -> bool {
        (self.store.count() as u64) < self.most_topics
    }

    /// The topic with this name, made if it is not there, with the [epoch](Self::epoch) of this one.
    pub(crate) fn topic(&self, name: &str, rule: &TopicRule, epoch: &str) -> Result<StoredTopic, Refusal> {
        self.store.topic_made(random_part(epoch), name, level(rule), self.retention(rule))
    }

    /// The epoch of a topic that begins now, where one in memory would have this epoch.
    pub(crate) fn epoch(&self, rule: &TopicRule, epoch: &str) -> String {
        self.store.epoch(random_part(epoch), level(rule)).to_string()
    }

    fn retention(&self, rule: &TopicRule) -> Retention {
        let History { messages, bytes, age_ms } = rule.history();
        Retention {
            count: messages,
            bytes,
            age_ms,
            keys: usize::try_from(self.keys).unwrap_or(usize::MAX),
            key_ms: self.key_ms,
        }
    }

    /// Takes a record. Never blocks. It is written once [`wake`](Self::wake) is called.
    pub(crate) fn append(&self, topic: &StoredTopic, record: NewRecord) -> Result<Ticket, Refusal> {
        self.store.append_quietly(topic, record)
    }

    /// Has the records that were taken be written: all of them together.
    pub(crate) fn wake(&self) {
        self.store.wake();
    }

    /// Logs the store's state if that has changed. Called now and then.
    pub(crate) fn report(&self) {
        let health = self.store.health();
        if std::mem::replace(&mut *self.told.lock(), health) == health {
            return;
        }
        match health {
            Health::Ok => info!("The store takes messages again"),
            Health::Full => warn!(
                "The store is full: durable publishes get 503 until there is room (store.max_bytes, \
                 store.min_free_bytes)"
            ),
            Health::Failed => {
                let cause = self.store.failure().unwrap_or_default();
                error!("The store has failed: {cause}; durable publishes get 503 until the server is started again");
            }
        }
    }

    /// Figures for metrics. Looks at every topic for a moment.
    pub(crate) fn stats(&self) -> StoreStats {
        let stats = self.store.stats();
        let micros = |of: &store::Distribution| Latency {
            p50: of.quantile(0.5),
            p90: of.quantile(0.9),
            p99: of.quantile(0.99),
            max: of.quantile(1.0),
            count: of.count,
        };
        let ([os, fsync], [os_micros, fsync_micros]) = (stats.appended, &stats.commit_micros);
        let store::Refused { full, busy, failed } = stats.refused;
        StoreStats {
            state: match stats.health {
                Health::Ok => StoreState::Ok,
                Health::Full => StoreState::Full,
                Health::Failed => StoreState::Failed,
            },
            topics: stats.topics as u64,
            bytes: stats.bytes,
            live_bytes: stats.live_bytes,
            free_bytes: stats.free_bytes,
            segments: stats.segments as u64,
            written_bytes: stats.written_bytes,
            copied_bytes: stats.copied_bytes,
            pending_bytes: stats.pending_bytes as u64,
            stored: ByLevel { os, fsync },
            groups: stats.group_records.count,
            group_records_p50: stats.group_records.quantile(0.5),
            sync_us: micros(&stats.sync_micros),
            os_us: micros(os_micros),
            fsync_us: micros(fsync_micros),
            refused: metrics::Refused { full, busy, failed },
            damaged_ranges: stats.damaged_ranges as u64,
            recovery_ms: u64::try_from(stats.recovery.as_millis()).unwrap_or(u64::MAX),
            torn_bytes: stats.torn_bytes,
            clock_holds: stats.clock_holds,
        }
    }

    /// Stores the state of a consumer, or that it ended. Never blocks.
    pub(crate) fn consumer(&self, topic: &StoredTopic, name: &str, state: Option<Bytes>) -> Result<Ticket, Refusal> {
        self.store.consumer(topic, name, state)
    }

    /// The same, some time later, without a ticket.
    pub(crate) fn consumer_lazily(&self, topic: &StoredTopic, name: &str, state: Bytes) -> Result<(), Refusal> {
        self.store.consumer_lazily(topic, name, Some(state))
    }

    /// Reads a page, forwards from `from` on, or in reverse up to it.
    pub(crate) async fn read(
        self: &Arc<Self>,
        topic: &StoredTopic,
        from: u64,
        reverse: bool,
        room: Room,
    ) -> Result<Page, StoreError> {
        let topic = topic.clone();
        self.blocking(move |store| store.read(&topic, from, reverse, room)).await
    }

    /// Offset of the first record that is not older than `at_ms`, or the one behind the newest.
    pub(crate) async fn seek(self: &Arc<Self>, topic: &StoredTopic, at_ms: u64) -> Result<u64, StoreError> {
        let topic = topic.clone();
        self.blocking(move |store| store.seek(&topic, at_ms)).await
    }

    /// Reads on a thread that may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // It is never closed.
        let turn = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let durable = Arc::clone(self);
        let read = move || {
            let result = read(&durable.store);
            drop(turn);
            result
        };
        // If the caller goes, the read is completed all the same, and holds its turn until then.
        spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Stores what waits. Blocks for the disk. Publishes are refused from now on.
    pub(crate) fn close(&self) {
        self.store.close();
    }
}

fn level(rule: &TopicRule) -> Level {
    if rule.durability == Durability::Fsync { Level::Fsync } else { Level::Os }
}

/// The number that an epoch in memory is the text of.
fn random_part(epoch: &str) -> u64 {
    u64::from_str_radix(epoch, 16).unwrap_or_else(|_| fastrand::u64(..))
}
