//! Durable consumers of topics: each has a state ([`Consumer`]), members that are clients' subscriptions, and for each
//! member a mailbox. Each member has one task, on its own worker, which sends what is in the mailbox as its lane takes
//! it ([`deliver`]). One of these tasks at a time leads: it reads the topic's log, fills the mailboxes, and minds the
//! times ([`lead`]). So a consumer without members has no task, and a topic without consumers pays nothing.
//!
//! The lock of a consumer is taken behind the topic's and the client's, and no other behind it.

mod dead_letters;
mod deliver;
mod lead;
mod saving;

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quic_websocket_lane::{DropNotice, LaneWriter};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use self::dead_letters::Burial;
pub(super) use self::saving::is_idle;
use self::saving::{Saving, Versions};
use super::client::Client;
use super::notices;
use super::topic::Topic;
use super::{TopicError, size, uptime_ms};
use crate::consumer::{Consumer, MemberId, Options, Outcome, SaveError};
use crate::durable::StoredTopic;
use crate::log::{Log, Record};
use crate::message::{
    AckMode, ConsumerName, DEFAULT_ACK_WAIT_MS, DEFAULT_MAX_IN_FLIGHT, DurableConsumer, Offsets, TopicName,
};
use crate::outbound::TopicLane;

const DAY_MS: u64 = 86_400_000;

/// Most messages in a mailbox, and about their bytes: sent at once, and then others have their turn.
const MAIL_MESSAGES: usize = 64;
const MAIL_BYTES: usize = 64 * 1024;

/// One durable consumer of a topic.
#[derive(Debug)]
pub(super) struct Dispatcher {
    name: ConsumerName,
    topic: TopicName,
    state: Mutex<State>,
    /// One member's task leads.
    leading: Semaphore,
    /// Whether the leader waits for new messages.
    is_hungry: AtomicBool,
    /// For the leader: something has changed.
    changed: Notify,
    burial: Burial,
    /// If the topic is on a disk.
    saving: Option<Saving>,
}

#[derive(Debug)]
struct State {
    consumer: Consumer,
    versions: Versions,
    members: BTreeMap<MemberId, (Arc<Member>, Mailbox)>,
    /// When it had a member last.
    used_ms: u64,
    /// For how long none had before the server was started, by the time of day.
    idle_ms: u64,
    /// When the leader looks at the times next, if nothing wakes it before.
    looks_ms: u64,
    /// It is forgotten: nothing of it is stored any more.
    is_over: bool,
}

/// A client's subscription to a consumer.
#[derive(Debug)]
struct Member {
    client: Arc<Client>,
    lane: Arc<LaneWriter>,
    mail: Notify,
}

/// What a member is to get next.
#[derive(Debug, Default)]
struct Mailbox {
    mail: VecDeque<Mail>,
    bytes: usize,
}

#[derive(Debug)]
enum Mail {
    Message(Record),
    /// Messages that are lost, and how that is told.
    Gap(RangeInclusive<u64>, Arc<dyn DropNotice>),
}

impl Mailbox {
    fn put(&mut self, mail: Mail) {
        if let Mail::Message(record) = &mail {
            self.bytes += record.encoded.plain().len();
        }
        self.mail.push_back(mail);
    }

    fn is_full(&self) -> bool {
        self.mail.len() >= MAIL_MESSAGES || self.bytes >= MAIL_BYTES
    }
}

/// A member of a consumer, for as long as its subscription lasts.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) id: MemberId,
    task: AbortHandle,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A member in whose place another one came, or whose consumer has ended.
#[derive(Debug)]
pub(super) struct Displaced {
    pub(super) client: Arc<Client>,
    pub(super) member: MemberId,
    pub(super) dispatcher: Arc<Dispatcher>,
}

/// The durable consumers of one topic.
#[derive(Debug, Default)]
pub(super) struct Consumers(BTreeMap<ConsumerName, Arc<Dispatcher>>);

impl Consumers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Dispatcher>> {
        self.0.values()
    }

    pub(super) fn has(&self, name: &ConsumerName) -> bool {
        self.0.contains_key(name)
    }

    /// Members of all of them.
    pub(super) fn members(&self) -> u64 {
        self.0.values().map(|dispatcher| dispatcher.members() as u64).sum()
    }

    /// The topic has a new message.
    pub(super) fn wake(&self) {
        self.0.values().for_each(|dispatcher| dispatcher.wake());
    }

    /// The consumer that a client asks for and may have. `None` if it has to be made.
    pub(super) fn find(
        &mut self,
        topic: &Topic,
        log: &Log,
        wanted: &DurableConsumer,
    ) -> Result<Option<Arc<Dispatcher>>, TopicError> {
        if !topic.rule.consumers {
            return Err(TopicError::NoConsumers(topic.name.clone()));
        }
        let Some(dispatcher) = self.load(topic, log, &wanted.name)? else { return Ok(None) };
        dispatcher.check(wanted)?;
        let most = size(topic.shared.config.limits.consumer_members);
        if wanted.share && dispatcher.members() >= most {
            let (topic, durable) = (topic.name.clone(), wanted.name.clone());
            return Err(TopicError::TooManyMembers { topic, durable, most });
        }
        Ok(Some(dispatcher))
    }

    /// The consumer of a name, from the disk if need be.
    fn load(&mut self, topic: &Topic, log: &Log, name: &ConsumerName) -> Result<Option<Arc<Dispatcher>>, TopicError> {
        if let Some(dispatcher) = self.0.get(name) {
            return Ok(Some(Arc::clone(dispatcher)));
        }
        let saving = Saving::of(topic, log.on_disk());
        let Some(loaded) = saving.as_ref().and_then(|saving| saving.load(name, log.newest())) else { return Ok(None) };
        let unreadable = |cause: SaveError| {
            let (topic, durable) = (topic.name.clone(), name.clone());
            TopicError::ConsumerUnreadable { topic, durable, cause: cause.to_string() }
        };
        let (consumer, idle_ms) = loaded.map_err(unreadable)?;
        let dispatcher = Dispatcher::with(topic, name.clone(), consumer, idle_ms, saving);
        self.0.insert(name.clone(), Arc::clone(&dispatcher));
        Ok(Some(dispatcher))
    }

    /// Makes a consumer that is not there, which begins behind an offset.
    pub(super) fn make(
        &mut self,
        topic: &Topic,
        log: &Log,
        wanted: &DurableConsumer,
        after: u64,
    ) -> Result<Arc<Dispatcher>, TopicError> {
        let saving = Saving::of(topic, log.on_disk());
        if topic.rule.history().messages == 0 {
            return Err(TopicError::NoHistory(topic.name.clone()));
        }
        let most = size(topic.shared.config.limits.topic_consumers);
        if saving.as_ref().map_or(self.0.len(), Saving::count) >= most {
            return Err(TopicError::TooManyConsumers { topic: topic.name.clone(), most });
        }
        topic.shared.add_consumer()?;
        let dispatcher = Dispatcher::new(topic, wanted, after, saving);
        self.0.insert(wanted.name.clone(), Arc::clone(&dispatcher));
        Ok(dispatcher)
    }

    /// Removes a consumer; false if another one of its name is there, or none.
    pub(super) fn remove(&mut self, dispatcher: &Arc<Dispatcher>) -> bool {
        let is_there = self.0.get(&dispatcher.name).is_some_and(|own| Arc::ptr_eq(own, dispatcher));
        is_there && self.0.remove(&dispatcher.name).is_some()
    }

    /// Removes those that no client has used for so long, for good; gives their number.
    pub(super) fn expire(&mut self, now: u64, idle_ms: u64) -> usize {
        let before = self.0.len();
        self.0.retain(|_, dispatcher| {
            let is_idle = dispatcher.is_idle(now, idle_ms);
            if is_idle {
                // If it is refused, the consumer is found again after a restart, and expires again.
                let _ = dispatcher.forget();
            }
            !is_idle
        });
        before - self.0.len()
    }

    /// Loads those of a topic's consumers that are only on the disk, so that they can expire.
    pub(super) fn load_all(&mut self, topic: &Topic, log: &Log) {
        let names = log.on_disk().map(StoredTopic::consumers).unwrap_or_default();
        for name in names.into_iter().filter_map(|(name, _)| ConsumerName::new(&name).ok()) {
            // One that cannot be read stays where it is.
            let _ = self.load(topic, log, &name);
        }
    }
}

/// How far a consumer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything up to this offset is settled.
    pub(crate) acked: u64,
    /// Messages that are not settled.
    pub(crate) pending: u64,
    /// Messages that members have.
    pub(crate) in_flight: u64,
    pub(crate) members: usize,
}

impl Dispatcher {
    /// A consumer without members, which begins behind an offset.
    fn new(topic: &Topic, wanted: &DurableConsumer, after: u64, saving: Option<Saving>) -> Arc<Self> {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let options = Options {
            share: wanted.share,
            up_to: wanted.ack == Some(AckMode::UpTo),
            ack_wait_ms: wanted.ack_wait_ms.unwrap_or(DEFAULT_ACK_WAIT_MS),
            max_in_flight: small(wanted.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT)),
            max_deliver: small(wanted.max_deliver.unwrap_or(topic.rule.max_deliver)),
        };
        let dispatcher = Self::with(topic, wanted.name.clone(), Consumer::new(options, after), 0, saving);
        dispatcher.state().changed();
        dispatcher
    }

    /// A consumer without members that no client has used for so long.
    fn with(topic: &Topic, name: ConsumerName, consumer: Consumer, idle_ms: u64, saving: Option<Saving>) -> Arc<Self> {
        let (versions, members) = (Versions::default(), BTreeMap::new());
        // As far as that was in this life of the server, it is certain.
        let now = uptime_ms();
        let (used_ms, idle_ms) = (now.saturating_sub(idle_ms), idle_ms.saturating_sub(now));
        let state = State { consumer, versions, members, used_ms, idle_ms, looks_ms: u64::MAX, is_over: false };
        Arc::new(Self {
            name,
            topic: topic.name.clone(),
            state: Mutex::new(state),
            leading: Semaphore::new(1),
            is_hungry: AtomicBool::new(false),
            changed: Notify::new(),
            burial: Burial::new(),
            saving,
        })
    }

    pub(super) fn name(&self) -> &ConsumerName {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether a request for it goes with the settings with which it was made; else names one that does not.
    pub(super) fn check(&self, wanted: &DurableConsumer) -> Result<(), TopicError> {
        let has = *self.state().consumer.options();
        let is = |wanted: Option<u64>, has: u64| wanted.is_none_or(|wanted| wanted == has);
        let ack = if has.up_to { AckMode::UpTo } else { AckMode::Each };
        let (field, value) = if wanted.share != has.share {
            ("share", has.share.to_string())
        } else if wanted.ack.is_some_and(|wanted| wanted != ack) {
            ("ack", ack.as_str().to_owned())
        } else if !is(wanted.ack_wait_ms, has.ack_wait_ms) {
            ("ack_wait_ms", has.ack_wait_ms.to_string())
        } else if !is(wanted.max_in_flight, has.max_in_flight.into()) {
            ("max_in_flight", has.max_in_flight.to_string())
        } else if !is(wanted.max_deliver, has.max_deliver.into()) {
            ("max_deliver", has.max_deliver.to_string())
        } else {
            return Ok(());
        };
        let (topic, durable) = (self.topic.clone(), self.name.clone());
        Err(TopicError::OtherConsumer { topic, durable, field, value })
    }

    pub(super) fn members(&self) -> usize {
        self.state().consumer.members()
    }

    /// Adds a member, whose task begins at once, and gives those that it displaces.
    pub(super) fn join(
        self: &Arc<Self>,
        topic: &Arc<Topic>,
        client: &Arc<Client>,
        lane: &TopicLane,
    ) -> (Membership, Vec<Displaced>) {
        let member =
            Arc::new(Member { client: Arc::clone(client), lane: Arc::clone(&lane.writer), mail: Notify::new() });
        let mut state = self.state();
        let (id, displaced) = state.consumer.join();
        let displaced = displaced.into_iter().filter_map(|member| {
            let (older, _) = state.members.remove(&member)?;
            Some(Displaced { client: Arc::clone(&older.client), member, dispatcher: Arc::clone(self) })
        });
        let displaced = displaced.collect();
        state.members.insert(id, (Arc::clone(&member), Mailbox::default()));
        state.changed();
        drop(state);
        let (dispatcher, topic) = (Arc::clone(self), Arc::clone(topic));
        let task = client.tasks.spawn(async move { dispatcher.serve(&topic, id, &member).await }).abort_handle();
        (Membership { dispatcher: Arc::clone(self), id, task }, displaced)
    }

    /// A member's part: it leads if no other one does, and sends what it gets. Ends with the subscription.
    async fn serve(self: &Arc<Self>, topic: &Arc<Topic>, id: MemberId, member: &Member) {
        tokio::select! {
            () = self.lead(topic, member.client.outbound.counters()) => {}
            () = self.deliver(id, member) => {}
        }
    }

    /// Ends a member: its messages are free for others at once.
    pub(super) fn leave(&self, id: MemberId) {
        let mut state = self.state();
        if state.members.remove(&id).is_none() {
            return;
        }
        state.consumer.leave(id);
        (state.used_ms, state.idle_ms) = (uptime_ms(), 0);
        state.changed();
        if state.members.is_empty() {
            // It is not done later.
            self.save_lazily(&mut state);
        }
        self.changed.notify_one();
    }

    /// Ends all members, for good.
    pub(super) fn end(self: &Arc<Self>) -> Vec<Displaced> {
        let mut state = self.state();
        state.is_over = true;
        let members = std::mem::take(&mut state.members);
        members.keys().for_each(|&member| state.consumer.leave(member));
        let displaced = |(member, (of, _)): (MemberId, (Arc<Member>, Mailbox))| Displaced {
            client: Arc::clone(&of.client),
            member,
            dispatcher: Arc::clone(self),
        };
        members.into_iter().map(displaced).collect()
    }

    /// A member reports what became of messages. Gives how many it concerned.
    pub(super) fn acknowledge(&self, member: MemberId, offsets: &Offsets, outcome: Outcome) -> u64 {
        let now = uptime_ms();
        let mut state = self.state();
        let last;
        // Where one covers those before it, the largest counts.
        let offsets = if state.consumer.options().up_to {
            last = offsets.as_slice().iter().copied().max();
            last.as_slice()
        } else {
            offsets.as_slice()
        };
        let count = offsets.iter().map(|&offset| state.consumer.acknowledge(member, offset, outcome, now)).sum();
        let is_first = count > 0 && state.changed() && self.is_saved();
        drop(state);
        if is_first || outcome != Outcome::Done || !self.is_hungry.load(Ordering::Acquire) {
            self.changed.notify_one();
        }
        count
    }

    /// The topic has a new message. Called under the topic's lock.
    pub(super) fn wake(&self) {
        if self.is_hungry.swap(false, Ordering::AcqRel) {
            self.changed.notify_one();
        }
    }

    /// How far it is in a log that keeps the messages between two offsets.
    pub(super) fn progress(&self, trimmed_through: u64, newest: u64) -> Progress {
        let state = self.state();
        let consumer = &state.consumer;
        Progress {
            acked: consumer.floor(),
            pending: consumer.open() as u64 + newest.saturating_sub(consumer.through().max(trimmed_through)),
            in_flight: consumer.in_flight(),
            members: consumer.members(),
        }
    }

    /// Whether no client has used it for so long.
    pub(super) fn is_idle(&self, now: u64, for_ms: u64) -> bool {
        let state = self.state();
        let unused_ms = now.saturating_sub(state.used_ms);
        // The clock may be wrong: what is from before the start counts a day after it at the earliest.
        let idle_ms = if unused_ms > DAY_MS.min(for_ms) { unused_ms + state.idle_ms } else { unused_ms };
        state.members.is_empty() && idle_ms > for_ms
    }
}

impl DropNotice for Dispatcher {
    fn name(&self) -> &str {
        self.topic.as_str()
    }

    /// Never called: its messages are not dropped.
    fn gap(&self, first: u64, last: u64) -> Bytes {
        notices::gap(self.topic.as_str(), first, last, "no longer kept")
    }
}
