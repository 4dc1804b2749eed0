//! Topics: publish and subscribe, their logs, who is on them. Shared by all workers: what happens to a topic is settled
//! under its own lock, and goes from there through the workers' inboxes to the subscribers ([`Inbox`]). Knows clients by
//! their outbound handles, never by carrier. Called by `handler`, and by `session` when one leaves.

mod client;
mod error;
mod expiry;
mod history;
mod hub;
mod keys;
mod long_work;
mod pattern_counts;
mod patterns;
mod publish;
mod replay;
mod route_cache;
mod routes;
mod stats;
mod subscribe;
#[expect(clippy::module_inception, reason = "a room and its main type have one name")]
mod topic;
mod unsubscribe;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::mpsc;

pub(crate) use self::client::{Client, Granted};
pub(crate) use self::error::TopicError;
pub(crate) use self::history::HistoryPage;
pub(crate) use self::hub::Inbox;
use self::hub::InboxItem;
use self::long_work::LongWork;
pub(crate) use self::long_work::Slices;
use self::pattern_counts::PatternCounts;
pub(crate) use self::publish::{Publication, Published};
pub(crate) use self::subscribe::{SubscribeRequest, Subscribed};
use self::topic::Topic;
pub(crate) use self::unsubscribe::{Farewell, Left};
use crate::config::{Config, TopicRule};
use crate::limits::{Allowance, RetryAfter};
use crate::log::Log;
use crate::message::{Member, TopicName, TopicPattern};

/// Topics are spread over so many maps, so that workers seldom wait for each other's.
const SHARDS: usize = 64;

/// Most members that are named; all are counted.
const MAX_NAMED: usize = 1000;

/// The members of a topic.
#[derive(Debug)]
pub(crate) struct Members {
    /// The first of them, by id.
    pub(crate) clients: Vec<Member>,
    pub(crate) total: u64,
}

/// All topics of a server.
#[derive(Debug)]
pub(crate) struct Topics {
    config: Arc<Config>,
    rules: Vec<Arc<TopicRule>>,
    otherwise: Arc<TopicRule>,
    shards: Vec<Shard>,
    count: AtomicUsize,
    last_id: AtomicU64,
    /// Memory that logs and keys take, in bytes.
    memory: AtomicUsize,
    inboxes: Vec<mpsc::Sender<InboxItem>>,
    /// Subscriptions to patterns, by worker.
    patterns: Vec<AtomicUsize>,
    /// The same by pattern, for those who watch.
    pattern_counts: PatternCounts,
    /// Of these, those that want to hear of joins and leaves.
    pattern_watchers: AtomicUsize,
    /// By worker.
    long_work: Vec<LongWork>,
}

type Shard = RwLock<ByName>;

/// Some of the topics.
#[derive(Debug)]
struct ByName {
    topics: HashMap<TopicName, Arc<Topic>>,
    /// The epoch of the topics that begin now, and so the position of those that there are not yet: reading the history of
    /// one makes none. Another one once a topic is forgotten, whose next life must not have the same.
    epoch: Box<str>,
}

impl Default for ByName {
    fn default() -> Self {
        Self { topics: HashMap::new(), epoch: Log::another_epoch() }
    }
}

/// Room in the workers' inboxes.
type InboxPermits<'a> = Vec<Option<mpsc::Permit<'a, InboxItem>>>;

impl Topics {
    /// No topics yet, and the inboxes of the workers.
    pub(crate) fn new(config: Arc<Config>, workers: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (queue, most_found) = (size(config.limits.fanout_queue), size(config.limits.found_receivers));
        let (inboxes, ends) = (0..workers)
            .map(|_| {
                let (sender, deliveries) = mpsc::channel(queue);
                (sender, Inbox { deliveries, most_found })
            })
            .unzip();
        let topics = Self {
            rules: config.topics.iter().cloned().map(Arc::new).collect(),
            otherwise: Arc::default(),
            config,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            count: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
            memory: AtomicUsize::new(0),
            inboxes,
            patterns: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            pattern_counts: PatternCounts::default(),
            pattern_watchers: AtomicUsize::new(0),
            long_work: (0..workers).map(|_| LongWork::new()).collect(),
        };
        (Arc::new(topics), ends)
    }

    /// The rule for what a subscription names.
    pub(crate) fn rule(&self, text: &TopicPattern) -> &Arc<TopicRule> {
        self.rules.iter().find(|rule| rule.pattern.covers(text)).unwrap_or(&self.otherwise)
    }

    /// The rule for a topic.
    pub(crate) fn rule_of(&self, name: &TopicName) -> &Arc<TopicRule> {
        self.rules.iter().find(|rule| rule.pattern.matches(name.as_str())).unwrap_or(&self.otherwise)
    }

    fn shard(&self, name: &TopicName) -> &Shard {
        use std::hash::{BuildHasher, RandomState};
        use std::sync::OnceLock;
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let hash = KEY.get_or_init(RandomState::new).hash_one(name);
        // The remainder is below the number of shards, whatever the width of usize.
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn find(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.look_up(name).ok()
    }

    /// The topic of this name, or the epoch that it would have if it began now.
    fn look_up(&self, name: &TopicName) -> Result<Arc<Topic>, Box<str>> {
        let shard = self.shard(name).read().unwrap_or_else(PoisonError::into_inner);
        shard.topics.get(name).cloned().ok_or_else(|| shard.epoch.clone())
    }

    /// The topic of this name, made where there is none and who asks may make one.
    fn find_or_make(&self, name: &TopicName, asks: &Allowance) -> Result<Arc<Topic>, TopicError> {
        self.find(name).map_or_else(|| self.make(name, asks), Ok)
    }

    fn make(&self, name: &TopicName, asks: &Allowance) -> Result<Arc<Topic>, TopicError> {
        let most = size(self.config.limits.max_topics);
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = shard.topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        if self.count.load(Ordering::Relaxed) >= most {
            return Err(TopicError::TooManyTopics(most));
        }
        asks.take_topic().map_err(|RetryAfter { ms: retry_after_ms }| TopicError::TooManyNewTopics {
            topic: name.clone(),
            retry_after_ms,
        })?;
        self.count.fetch_add(1, Ordering::Relaxed);
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let rule = Arc::clone(self.rule_of(name));
        let topic = Topic::new(id, name.clone(), rule, shard.epoch.clone(), self.inboxes.len(), uptime_ms());
        let topic = Arc::new(topic);
        shard.topics.insert(name.clone(), Arc::clone(&topic));
        Ok(topic)
    }

    /// Waits for room in every worker's inbox. A worker that has ended has no clients left, and needs none.
    async fn permits(&self) -> InboxPermits<'_> {
        let mut permits = Vec::with_capacity(self.inboxes.len());
        for inbox in &self.inboxes {
            permits.push(inbox.reserve().await.ok());
        }
        permits
    }

    /// Begins work of a client's that takes long where it has many parts; a few are done at once. It is over when the
    /// result is dropped; the client must not begin another meanwhile.
    pub(crate) async fn long_work<'a>(&'a self, who: &'a Client, parts: usize) -> Slices<'a> {
        self.long_work[who.worker].begin(&who.long_work, parts).await
    }

    /// The members of a topic; none if it does not exist.
    pub(crate) fn members(&self, name: &TopicName) -> Result<Members, TopicError> {
        if !self.rule_of(name).presence {
            return Err(TopicError::NoMembers(name.clone()));
        }
        let Some(topic) = self.find(name) else { return Ok(Members { clients: Vec::new(), total: 0 }) };
        let state = topic.state();
        let clients = state.members.values().take(MAX_NAMED).cloned().collect();
        Ok(Members { clients, total: state.members.len() as u64 })
    }
}

/// Milliseconds since the first call, by a clock that nobody sets: what topics count ages by. The time of day may jump, when
/// a machine has begun with a wrong one, and would take all histories with it.
fn uptime_ms() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn size(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_not_counted_by_the_time_of_day() {
        let first = uptime_ms();
        assert!(first <= uptime_ms());
        // A process that is a year old runs no tests.
        assert!(first < 365 * 24 * 60 * 60 * 1000, "{first} looks like the time of day");
    }
}
