//! Topics: publish and subscribe, their logs, their members. Shared by all workers: each change to a topic happens
//! under the topic's own lock, and goes from there through the workers' inboxes to the subscribers ([`Inbox`]). Knows
//! clients by their outbound handles, never by carrier, and gives results of its own, of which `handler` makes replies.
//! Called by `handler`, and by `session` when a client leaves.
//!
//! Locks are taken in this order, and none is held across an `.await`: a part of the directory, then the store's; a
//! topic's state ([`Topic`]), then a clock's, the store's, or a client's subscriptions ([`Client`]), then a durable
//! consumer's state, the numbers of subscriptions by pattern or the client's lanes, then the list of its waiting lanes,
//! then a lane's writer. A topic's blocked subscribers come before a lane's writer.

mod acknowledge;
mod backlogs;
mod blocking;
mod client;
mod clock;
mod consumers;
mod error;
mod expiry;
mod hub;
mod long_work;
mod memory;
mod narrowed;
mod notices;
mod pattern_counts;
mod patterns;
mod publish;
mod queue_group;
mod replay;
mod route_cache;
mod routes;
mod stats;
mod subscribe;
#[expect(clippy::module_inception, reason = "a room and its main type have one name")]
mod topic;
mod unsubscribe;
mod workers;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Instant;

use parking_lot::RwLock;
use tracing::warn;
use uuid::Uuid;

use self::backlogs::Backlogs;
pub(crate) use self::backlogs::Releases;
pub(crate) use self::client::{Client, Granted};
use self::clock::{Away, Clock};
pub(crate) use self::consumers::Progress;
pub(crate) use self::error::TopicError;
pub(crate) use self::hub::Inbox;
use self::long_work::LongWork;
pub(crate) use self::long_work::Slices;
use self::memory::Memory;
pub(crate) use self::publish::{Publication, Published, Publishing};
pub(crate) use self::subscribe::{SubscribeRequest, Subscribed};
#[cfg(test)]
pub(crate) use self::topic::Narrow;
pub(crate) use self::topic::Receipt;
use self::topic::Topic;
pub(crate) use self::unsubscribe::{Farewell, Left};
use self::workers::Workers;
use crate::config::{Config, OverflowPolicy, Presence, TopicRule};
use crate::durable::{Durable, StoredTopic};
use crate::limits::{Allowance, RetryAfter};
pub(crate) use crate::log::Draft;
pub(crate) use crate::log::Since;
use crate::log::{Epoch, Log, Record};
use crate::message::{Json, Member, Position, TopicName, TopicPattern};
use crate::presence::Page;

/// Topics are spread over so many maps, so that workers seldom wait for each other's.
const SHARDS: usize = 64;

/// Some of the members of a topic.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// By id.
    pub(crate) clients: Vec<Member>,
    pub(crate) total: u64,
    /// Different users.
    pub(crate) users: u64,
    /// The last one's id, if there are more.
    pub(crate) next: Option<Uuid>,
}

/// Some messages of a topic's log.
#[derive(Debug)]
pub(crate) struct HistoryPage {
    /// The newest message's.
    pub(crate) position: Position,
    /// Whether the log still has everything behind the position that was asked for; `None` if none was, or in reverse.
    pub(crate) recovered: Option<bool>,
    pub(crate) records: Vec<Record>,
    /// Whether there are more of them.
    pub(crate) more: bool,
}

/// The directory of a server's topics.
#[derive(Debug)]
pub(crate) struct Topics {
    shared: Arc<Shared>,
    rules: Vec<Arc<TopicRule>>,
    otherwise: Arc<TopicRule>,
    shards: Vec<Shard>,
    hasher: RandomState,
    count: AtomicUsize,
    last_id: AtomicU64,
    /// By worker.
    long_work: Vec<LongWork>,
}

/// The things that all topics share.
#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    workers: Workers,
    memory: Memory,
    /// Where the topics are that are kept on a disk.
    durable: Option<Arc<Durable>>,
    backlogs: Backlogs,
    /// By worker, each for some of the topics.
    clocks: Vec<Clock>,
    /// Members whose connections are lost.
    away: Away,
    /// Durable consumers.
    consumers: AtomicUsize,
    /// For what a topic itself publishes.
    directory: Weak<Topics>,
}

impl Shared {
    /// Counts a durable consumer, if there is room for it.
    fn add_consumer(&self) -> Result<(), TopicError> {
        let most = size(self.config.limits.max_consumers);
        let more = |count: usize| (count < most).then_some(count + 1);
        let added = self.consumers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        added.map(drop).map_err(|_| TopicError::ServerFullOfConsumers(most))
    }

    fn remove_consumers(&self, count: usize) {
        self.consumers.fetch_sub(count, Ordering::Relaxed);
    }

    fn compress_min_bytes(&self) -> usize {
        size(self.config.limits.compress_min_bytes)
    }

    /// The clock of a topic.
    fn clock_of(&self, topic: u64) -> &Clock {
        let workers = self.clocks.len() as u64;
        // Below the number of workers, whatever the width of usize.
        &self.clocks[usize::try_from(topic % workers).unwrap_or(0)]
    }

    fn wake_store(&self) {
        if let Some(durable) = &self.durable {
            durable.wake();
        }
    }

    fn max_message_bytes(&self) -> usize {
        size(self.config.limits.max_message_bytes)
    }
}

type Shard = RwLock<ByName>;

/// Some of the topics.
#[derive(Debug)]
struct ByName {
    topics: HashMap<TopicName, Arc<Topic>>,
    /// The epoch of the topics that begin now, and so the position of those that do not exist yet: reading the history
    /// of one makes none. Another one once a topic is forgotten, whose next life must not have the same.
    epoch: Epoch,
}

impl Default for ByName {
    fn default() -> Self {
        Self { topics: HashMap::new(), epoch: Epoch::random() }
    }
}

impl Topics {
    /// No topics yet but those on a disk, and the inboxes of the workers.
    pub(crate) fn new(config: Arc<Config>, durable: Option<Arc<Durable>>, workers: usize) -> (Arc<Self>, Vec<Inbox>) {
        let limits = &config.limits;
        let memory = Memory::new(size(limits.topic_memory_bytes));
        let backlogs = Backlogs::new(size(config.store.pending_bytes));
        let away = Away::new(size(limits.away_members));
        let most = (size(limits.found_receivers), size(limits.conflated_bytes));
        let (ways, inboxes) = Workers::new(workers, size(limits.fanout_queue), most);
        let stored = durable.as_ref().map(|durable| durable.topics()).unwrap_or_default();
        let consumers = AtomicUsize::new(stored.iter().map(|topic| topic.consumers().len()).sum());
        let topics = Arc::new_cyclic(|directory| Self {
            rules: config.topics.iter().cloned().map(Arc::new).collect(),
            otherwise: Arc::default(),
            shared: Arc::new(Shared {
                config,
                workers: ways,
                memory,
                durable,
                backlogs,
                clocks: (0..workers).map(|_| Clock::default()).collect(),
                away,
                consumers,
                directory: directory.clone(),
            }),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
            long_work: (0..workers).map(|_| LongWork::new()).collect(),
        });
        (topics, inboxes)
    }

    /// The rule for what a subscription names.
    pub(crate) fn rule(&self, text: &TopicPattern) -> &Arc<TopicRule> {
        self.rules.iter().find(|rule| rule.pattern.covers(text)).unwrap_or(&self.otherwise)
    }

    /// The rule for a topic.
    pub(crate) fn rule_of(&self, name: &TopicName) -> &Arc<TopicRule> {
        self.rules.iter().find(|rule| rule.pattern.matches(name.as_str())).unwrap_or(&self.otherwise)
    }

    /// Whether publishers wait for those who subscribe to this.
    pub(crate) fn blocks(&self, text: &TopicPattern) -> bool {
        self.rule(text).overflow == OverflowPolicy::Block
    }

    /// The inbox of a user, if the rules have any.
    pub(crate) fn inbox(&self, user: &str) -> Option<TopicName> {
        let inbox = self.rules.iter().find_map(|rule| rule.inbox_of(user))?;
        // Unless an earlier rule is the one for it.
        self.rule_of(&inbox).inbox.then_some(inbox)
    }

    /// Whether the rules have inboxes.
    pub(crate) fn has_inboxes(&self) -> bool {
        self.rules.iter().any(|rule| rule.inbox)
    }

    fn shard(&self, name: &TopicName) -> &Shard {
        // The remainder is below the number of shards, whatever the width of usize.
        &self.shards[usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0)]
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn find(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.look_up(name).ok()
    }

    /// The topic of this name, or the epoch that it would have if it began now.
    fn look_up(&self, name: &TopicName) -> Result<Arc<Topic>, Epoch> {
        let shard = self.shard(name).read();
        shard.topics.get(name).cloned().ok_or_else(|| shard.epoch.clone())
    }

    /// The topic of this name, made if there is none and the client may make one.
    fn find_or_make(&self, name: &TopicName, by: &Allowance) -> Result<Arc<Topic>, TopicError> {
        self.find(name).map_or_else(|| self.make(name, by), Ok)
    }

    fn make(&self, name: &TopicName, by: &Allowance) -> Result<Arc<Topic>, TopicError> {
        self.enter(name, |rule, epoch| {
            let durable = self.shared.durable.as_ref().filter(|_| rule.is_durable());
            if let Some(stored) = durable.and_then(|durable| durable.find(name.as_str(), rule)) {
                return Ok(Log::stored(stored));
            }
            // Asked here, where it is certain that the topic is new.
            by.take_topic().map_err(|RetryAfter { ms: retry_after_ms }| TopicError::TooManyNewTopics {
                topic: name.clone(),
                retry_after_ms,
            })?;
            let Some(durable) = durable else { return Ok(Log::new(epoch.clone())) };
            if !durable.takes_topics() {
                return Err(TopicError::TooManyStored(self.shared.config.limits.max_topics));
            }
            let stored = durable.topic(name.as_str(), rule, epoch.as_str());
            stored.map(Log::stored).map_err(|refusal| TopicError::NotStored { topic: name.clone(), refusal })
        })
    }

    /// Holds the topics on the disk to their rules.
    pub(crate) fn adopt(&self) {
        let Some(durable) = &self.shared.durable else { return };
        let mut without_rule = 0;
        for stored in durable.topics() {
            let Ok(name) = TopicName::new(stored.name()) else { continue };
            let rule = self.rule_of(&name);
            if !rule.is_durable() {
                without_rule += 1;
            } else if let Some(stored) = durable.find(name.as_str(), rule)
                && stored.newest_taken() == 0
            {
                // Loaded, so that it is forgotten if it is unused. Full of topics, the server has others to forget.
                let _ = self.load(&name, stored);
            }
        }
        if without_rule > 0 {
            warn!(
                topics = without_rule,
                "{without_rule} topics on disk have no rule with a durability any more: they are neither used nor \
                 forgotten; quic-websocket store ls shows them, and store forget removes one"
            );
        }
    }

    /// The topic of this name that the disk has.
    fn load(&self, name: &TopicName, stored: StoredTopic) -> Result<Arc<Topic>, TopicError> {
        self.enter(name, |_, _| Ok(Log::stored(stored)))
    }

    /// The topic of this name, if the disk has it: the one that is used or, so that a reader loads none, another view.
    fn find_stored(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.find(name).or_else(|| {
            let rule = self.rule_of(name);
            let stored = self.shared.durable.as_ref()?.find(name.as_str(), rule)?;
            let (rule, shared) = (Arc::clone(rule), Arc::clone(&self.shared));
            Some(Arc::new(Topic::new(0, name.clone(), rule, Log::stored(stored), shared)))
        })
    }

    /// The topic of this name, with the log that is made for it unless it is there.
    fn enter(
        &self,
        name: &TopicName,
        log: impl FnOnce(&TopicRule, &Epoch) -> Result<Log, TopicError>,
    ) -> Result<Arc<Topic>, TopicError> {
        let most = size(self.shared.config.limits.max_topics);
        let mut shard = self.shard(name).write();
        if let Some(topic) = shard.topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        if self.count.load(Ordering::Relaxed) >= most {
            return Err(TopicError::TooManyTopics(most));
        }
        let (rule, shared) = (Arc::clone(self.rule_of(name)), Arc::clone(&self.shared));
        let log = log(&rule, &shard.epoch)?;
        self.count.fetch_add(1, Ordering::Relaxed);
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let topic = Arc::new(Topic::new(id, name.clone(), rule, log, shared));
        shard.topics.insert(name.clone(), Arc::clone(&topic));
        Ok(topic)
    }

    /// Releases messages that the store has committed. Called by the store's threads.
    pub(crate) fn committed(&self, topic: &str, records: &[quic_websocket_store::Record]) {
        // A topic that is not loaded has no subscribers, and is loaded behind these messages.
        if let Some(topic) = TopicName::new(topic).ok().and_then(|name| self.find(&name)) {
            topic.committed(records);
        }
    }

    /// Forgets topics that are gone, at once: a client that finds one of them looks again until it is not there.
    fn forget_topics(&self, shard: &Shard, gone: &[Arc<Topic>]) {
        if gone.is_empty() {
            return;
        }
        let mut shard = shard.write();
        gone.iter().for_each(|topic| drop(shard.topics.remove(&topic.name)));
        shard.epoch = Epoch::random();
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
    }

    /// Begins work of a client's that takes long if it has many parts; a few are done at once. It is over when the
    /// result is dropped; the client must not begin another meanwhile.
    pub(crate) async fn long_work<'a>(&'a self, who: &'a Client, parts: usize) -> Slices<'a> {
        self.long_work[who.worker].begin(&who.long_work, parts).await
    }

    /// The members of a topic behind one, at most so many; none if it does not exist.
    pub(crate) fn members(&self, name: &TopicName, after: Option<Uuid>, limit: usize) -> Result<Members, TopicError> {
        if self.rule_of(name).presence == Presence::Off {
            return Err(TopicError::NoMembers(name.clone()));
        }
        let Page { entries, total, occupancy, next } =
            self.find(name).map(|topic| topic.members(after, limit)).unwrap_or_default();
        let clients = entries.iter().map(notices::member).collect();
        Ok(Members { clients, total, users: occupancy.users, next })
    }

    /// Sets what a client shows to the other members of a topic to which it has subscribed by its name.
    pub(crate) fn set_state(&self, who: &Client, name: TopicName, state: Option<Json>) -> Result<(), TopicError> {
        let text = TopicPattern::from(name);
        let Some(topic) = who.topic(&text) else { return Err(TopicError::NotSubscribed(text)) };
        topic.set_state(who, state)
    }

    /// A page of at most `limit` messages: those behind `since`, oldest first, or in reverse those before it, newest
    /// first. A topic that has no messages, or does not exist yet, has an empty page and a position; reading does not
    /// create it. `None` for a topic on a disk: [`stored_history`](Self::stored_history) has to wait for that.
    pub(crate) fn history(
        &self,
        name: &TopicName,
        since: Option<Since<'_>>,
        limit: usize,
        reverse: bool,
    ) -> Option<HistoryPage> {
        if self.rule_of(name).is_durable() {
            return None;
        }
        Some(match self.look_up(name) {
            Ok(topic) => topic.page(since, limit, reverse).0,
            Err(epoch) => empty_page(&epoch, since, reverse),
        })
    }

    /// The same, for a topic on a disk.
    pub(crate) async fn stored_history(
        &self,
        name: &TopicName,
        since: Option<Since<'_>>,
        limit: usize,
        reverse: bool,
    ) -> Result<HistoryPage, TopicError> {
        let (Some(topic), Some(durable)) = (self.find_stored(name), &self.shared.durable) else {
            let (epoch, rule) = (self.shard(name).read().epoch.clone(), self.rule_of(name));
            let stored = self.shared.durable.as_ref().map(|durable| durable.epoch(rule, epoch.as_str()));
            return Ok(empty_page(&stored.map_or(epoch, |text| Epoch::new(&text)), since, reverse));
        };
        let since = match since {
            Some(since) => Some(self.seek(&topic, since).await?),
            None => None,
        };
        topic.stored_page(durable, since, limit, reverse).await
    }

    /// The place that a time names, if only the disk knows it.
    async fn seek<'a>(&self, topic: &Topic, since: Since<'a>) -> Result<Since<'a>, TopicError> {
        let (Since::Time(time_ms), Some(durable)) = (since, &self.shared.durable) else { return Ok(since) };
        let Some(stored) = topic.read(|log| log.on_disk().cloned()) else { return Ok(since) };
        let first = durable.seek(&stored, time_ms).await;
        let first =
            first.map_err(|cause| TopicError::NotRead { topic: topic.name.clone(), cause: cause.to_string() })?;
        Ok(Since::Behind(first - 1))
    }
}

/// The page of a topic that does not exist yet.
fn empty_page(epoch: &Epoch, since: Option<Since<'_>>, reverse: bool) -> HistoryPage {
    let recovered = since.filter(|_| !reverse).map(|since| match since {
        Since::Position(since) => since.epoch == epoch.as_str() && since.offset == 0,
        Since::Time(_) | Since::Behind(_) => true,
    });
    let position = Position { epoch: epoch.as_str().to_owned(), offset: 0 };
    HistoryPage { position, recovered, records: Vec::new(), more: false }
}

/// Milliseconds since the first call, by a monotonic clock: topics count ages by it. The time of day may jump,
/// when a machine has begun with a wrong one, and would take all histories with it.
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
