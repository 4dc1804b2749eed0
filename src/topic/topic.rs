//! One topic: its log, its members, and which workers want its messages. Everything that happens to a topic happens
//! under its lock, and goes into the workers' inboxes under it: that is what makes all subscribers see one order.

mod members;
mod stored;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quic_websocket_lane::Overflow;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::members::Watchers;
use super::blocking::Blocking;
use super::client::{CatchingUp, Client, Reserved, Source, Subscription, Watch};
use super::consumers::{Consumers, Dispatcher, Displaced, Progress};
use super::hub::{InboxItem, Start, UndeliveredRange};
use super::queue_group::QueueGroup;
use super::replay::Replay;
use super::routes::{Receiver, Target};
use super::subscribe::{Begun, SubscribeRequest, Subscribed};
use super::unsubscribe::Ended;
use super::workers::Room;
use super::{HistoryPage, Published, Publishing, Shared, TopicError, size, uptime_ms};
use crate::config::{History, OverflowPolicy, TopicRule};
use crate::durable::StoredTopic;
use crate::log::{Draft, Log, Record, Retention, Since, Submitted};
use crate::message::{ConsumerName, ConsumerRequest, DurableConsumer, IdempotencyKey, TopicName, now_ms};
use crate::metrics::{Counters, Rate};
use crate::narrow::Narrowing;
use crate::presence::MemberList;

pub(super) use self::members::may_show;
pub(crate) use self::stored::Receipt;
#[cfg(test)]
pub(crate) use self::stored::tests::Narrow;

/// One topic, from its first use to when it is forgotten.
#[derive(Debug)]
pub(super) struct Topic {
    /// Which life of the topic, among all topics of this server.
    pub(super) id: u64,
    pub(super) name: TopicName,
    pub(super) rule: Arc<TopicRule>,
    pub(super) shared: Arc<Shared>,
    pub(super) blocking: Blocking,
    state: Mutex<State>,
    /// Called when committed messages were released that had waited for that, or the topic is gone.
    released: Notify,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Of its messages.
    rate: Rate,
    /// The clients that have subscribed to the topic by its name; empty if the rule turns presence off.
    members: MemberList,
    /// When the clock comes for them.
    wound: Option<u64>,
    /// Subscriptions by worker, but those to durable consumers: these read the log by themselves.
    interest: Box<[u32]>,
    /// Those that share messages.
    group: QueueGroup,
    consumers: Consumers,
    watchers: Watchers,
    used_ms: u64,
    /// The topic was forgotten: its holder has to look it up again.
    is_gone: bool,
    /// Bytes of the log that are part of the server's total.
    accounted: usize,
    /// Committed messages that wait for room at the workers, oldest first. The store bounds them: a topic that has some
    /// takes no more.
    backlog: VecDeque<Record>,
    /// Under `block`, held by the message that is being stored until all subscribers have it.
    delivering: Option<TaskTracker>,
}

/// Some numbers of a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    pub(super) rate: Rate,
    pub(super) newest: u64,
    /// Those to the topic by its name.
    pub(super) subscriptions: u64,
}

impl Topic {
    pub(super) fn new(id: u64, name: TopicName, rule: Arc<TopicRule>, log: Log, shared: Arc<Shared>) -> Self {
        let state = State {
            log,
            rate: Rate::default(),
            members: MemberList::new(rule.presence),
            wound: None,
            interest: vec![0; shared.workers.count()].into(),
            group: QueueGroup::default(),
            consumers: Consumers::default(),
            watchers: Watchers::default(),
            used_ms: uptime_ms(),
            is_gone: false,
            accounted: 0,
            backlog: VecDeque::new(),
            delivering: None,
        };
        let (blocking, released) = (Blocking::new(), Notify::new());
        Self { id, name, rule, shared, blocking, state: Mutex::new(state), released }
    }

    pub(super) fn blocks(&self) -> bool {
        self.rule.overflow == OverflowPolicy::Block
    }

    /// Publishes a message if that needs no waiting. `None` if it does, or if the topic is gone.
    pub(super) fn publish_now(
        self: &Arc<Self>,
        draft: &Draft,
        delivered: Option<&TaskTracker>,
        counters: &Counters,
    ) -> Option<Result<Publishing, TopicError>> {
        let record = self.rule.is_durable().then(|| draft.to_store());
        let mut state = self.state.lock();
        if let (Some(stored), Some(record)) = (state.log.on_disk().cloned(), record) {
            return self.submit(&mut state, &stored, record, delivered, counters);
        }
        let room = self.shared.workers.room_now(&state.interest)?;
        self.publish_in(&mut state, draft, room, delivered, counters).map(|it| Ok(Publishing::Done(it)))
    }

    /// Publishes a message in memory for which the workers have room. `None` if the topic is gone.
    pub(super) fn publish(
        self: &Arc<Self>,
        draft: &Draft,
        room: Room<'_>,
        delivered: Option<&TaskTracker>,
        counters: &Counters,
    ) -> Option<Published> {
        self.publish_in(&mut self.state.lock(), draft, room, delivered, counters)
    }

    /// The three steps of a publish: submit gives the message its offset, commit makes it as safe as the topic
    /// promises, and release shows it to readers and subscribers. Memory commits as it takes the message, so all happen
    /// under one lock. On a disk ([`submit`](Self::submit)) the last one comes later: under the lock again, in the
    /// order of offsets.
    fn publish_in(
        self: &Arc<Self>,
        state: &mut State,
        draft: &Draft,
        room: Room<'_>,
        delivered: Option<&TaskTracker>,
        counters: &Counters,
    ) -> Option<Published> {
        if state.is_gone {
            return None;
        }
        let (now, epoch) = (uptime_ms(), state.log.epoch().clone());
        let record = match state.log.submit(&self.name, draft, now, self.shared.compress_min_bytes()) {
            Submitted::Duplicate(offset) => return Some(Published { epoch, offset, duplicate: true, stored: None }),
            Submitted::Committed(record) => record,
        };
        let offset = record.offset;
        self.release(state, record, draft.key.as_ref(), now, room, delivered);
        counters.published.add(1);
        Some(Published { epoch, offset, duplicate: false, stored: None })
    }

    /// Adds a committed message to the log, and hands it to the workers that want it.
    fn release(
        self: &Arc<Self>,
        state: &mut State,
        record: Record,
        key: Option<&IdempotencyKey>,
        now: u64,
        mut room: Room<'_>,
        delivered: Option<&TaskTracker>,
    ) {
        state.log.append(record.clone(), key);
        state.used_ms = now;
        state.rate.count(now);
        self.account(state, now);
        state.consumers.wake();
        let chosen = state.group.choose();
        for worker in (0..state.interest.len()).filter(|&worker| self.wants(state, worker)) {
            let here = chosen.filter(|chosen| chosen.worker == worker).map(|chosen| chosen.client);
            if chosen.is_some() && here.is_none() && !self.wants_all(state, worker) {
                continue;
            }
            let (topic, record, done) = (Arc::clone(self), record.clone(), delivered.map(TaskTracker::token));
            room.send(worker, InboxItem::Message { topic, record, chosen: here, done });
        }
    }

    /// Whether a worker has subscribers that do not share messages.
    fn wants_all(&self, state: &State, worker: usize) -> bool {
        self.shared.workers.wants(worker, state.interest[worker].saturating_sub(state.group.on(worker)))
    }

    fn wants(&self, state: &State, worker: usize) -> bool {
        self.shared.workers.wants(worker, state.interest[worker])
    }

    /// Begins a subscription, from `since` on. `None` if the topic is gone.
    pub(super) fn join(
        self: &Arc<Self>,
        request: &SubscribeRequest<'_>,
        reserved: Reserved<'_>,
        mut room: Room<'_>,
        since: Option<Since<'_>>,
        narrowing: Option<Arc<Narrowing>>,
    ) -> Option<Result<Begun, TopicError>> {
        let SubscribeRequest { who, wanted, .. } = request;
        let mut state = self.state.lock();
        if state.is_gone {
            return None;
        }
        let now = uptime_ms();
        state.used_ms = now;
        self.account(&mut state, now);
        let is_shared = match &wanted.consumer {
            None => false,
            Some(ConsumerRequest::Group) => true,
            Some(ConsumerRequest::Durable(consumer)) => {
                let State { log, consumers, .. } = &mut *state;
                let found = consumers.find(self, log, consumer).transpose()?;
                let join = |dispatcher| self.join_consumer(&mut state, &dispatcher, request, reserved, room);
                return Some(found.map(join));
            }
        };
        let lane = who.outbound.bind_lane(&wanted.topic, self.rule.priority, wanted.lane);
        let mut receiver = request.receiver(&self.rule, &lane, narrowing);
        let (ended, is_authenticated) = (receiver.ended.clone(), receiver.is_authenticated);
        let start = state.log.start(since, wanted.recent);
        let (position, recovered) = (Some(state.log.position()), start.recovered);
        let subscribed = Subscribed { position, recovered, lane: lane.number, progress: None };
        // If a pattern may have brought the topic's messages on this lane, those that are still to come by it come
        // first.
        let (begun, marker) = match request.announcement(&subscribed) {
            Some(frame) => {
                let (marker, there) = who.control_marker(Some(frame), Overflow::Refuse);
                (Begun::Announced(there), Some(marker))
            }
            None => (Begun::Unannounced(subscribed), None),
        };
        let there = begun.marker();
        reserved.make(|| {
            let joined = self.enter(&mut state, who, wanted.state.clone(), &mut room);
            state.interest[who.worker] += 1;
            let watch = Watch::of(wanted);
            state.watchers.add(watch);
            let first = self.first_count(&state, watch);
            if is_shared {
                receiver.is_whole = false;
                state.group.add(who.id(), who.worker, Arc::clone(&lane.writer));
            }
            let after = Arc::new(AtomicU64::new(start.after));
            let mut replay = Replay::new(self, &receiver, &after);
            receiver.is_live =
                replay.is_done(&state.log) || (there.is_none() && lane.writer.has_room() && replay.step(&state.log));
            let start = receiver.is_whole.then_some(Start { after: start.after, has_sent: replay.has_sent });
            let catching_up = (!receiver.is_live).then(|| {
                let task = replay.catch_up(who.worker, there);
                CatchingUp { task: who.tasks.spawn(task).abort_handle(), after }
            });
            let target = Target::Topic(self.id);
            room.send(who.worker, InboxItem::Subscribe { target, receiver, start, joined, marker, first });
            let (topic, sees_inboxes) = (Some(Arc::clone(self)), false);
            let (source, maker) = (if is_shared { Source::Group } else { Source::All }, request.maker);
            let offer = request.offer.lock().take().map(Box::new);
            Subscription {
                topic,
                lane,
                watch,
                maker,
                is_authenticated,
                sees_inboxes,
                ended,
                catching_up,
                source,
                offer,
            }
        });
        Some(Ok(begun))
    }

    /// Makes the durable consumer of a request, if it is new. Then it is as safe as the topic promises.
    pub(super) async fn prepare_consumer(
        self: &Arc<Self>,
        consumer: &DurableConsumer,
        since: Option<Since<'_>>,
        recent: Option<u64>,
    ) -> Result<(), TopicError> {
        let made = {
            let mut state = self.state.lock();
            state.used_ms = uptime_ms();
            let State { log, consumers, is_gone, .. } = &mut *state;
            if *is_gone || consumers.find(self, log, consumer)?.is_some() {
                return Ok(());
            }
            let after = log.start(since, recent).after;
            consumers.make(self, log, consumer, after)?
        };
        let Err(failure) = made.saved().await else { return Ok(()) };
        self.end_consumer(&made);
        let (topic, durable) = (self.name.clone(), consumer.name.clone());
        Err(TopicError::ConsumerNotMade { topic, durable, cause: failure.to_string() })
    }

    /// Begins a subscription to a durable consumer.
    fn join_consumer(
        self: &Arc<Self>,
        state: &mut State,
        dispatcher: &Arc<Dispatcher>,
        request: &SubscribeRequest<'_>,
        reserved: Reserved<'_>,
        mut room: Room<'_>,
    ) -> Begun {
        let SubscribeRequest { who, wanted, .. } = request;
        let log = &state.log;
        let lane = who.outbound.bind_lane(&wanted.topic, self.rule.priority, wanted.lane);
        let progress = dispatcher.progress(log.trimmed_through(), log.newest());
        let position = Some(log.position());
        let consumer = Some((dispatcher.name().clone(), progress));
        let subscribed = Subscribed { position, recovered: None, lane: lane.number, progress: consumer };
        let mut displaced = Vec::new();
        let receiver = request.receiver(&self.rule, &lane, None);
        let announcement = request.announcement(&subscribed);
        let is_announced = announcement.is_some();
        if let Some(frame) = announcement {
            who.outbound.put(&frame.into());
        }
        reserved.make(|| {
            let joined = self.enter(state, who, wanted.state.clone(), &mut room);
            // For what happens to members alone.
            let (is_authenticated, watch) = (receiver.is_authenticated, Watch::of(wanted));
            if watch != Watch::Nothing {
                state.interest[who.worker] += 1;
                state.watchers.add(watch);
                let first = self.first_count(state, watch);
                let (target, receiver) = (Target::Topic(self.id), Receiver { is_whole: false, ..receiver });
                let (start, marker) = (None, None);
                room.send(who.worker, InboxItem::Subscribe { target, receiver, start, joined, marker, first });
            } else if let Some(joined) = joined {
                room.send(who.worker, InboxItem::Presence(joined));
            }
            let (membership, others) = dispatcher.join(self, who, &lane);
            displaced = others;
            let (topic, source) = (Some(Arc::clone(self)), Source::Consumer(membership));
            let (sees_inboxes, ended, catching_up, maker) = (false, None, None, request.maker);
            let offer = None;
            Subscription {
                topic,
                lane,
                watch,
                maker,
                is_authenticated,
                sees_inboxes,
                ended,
                catching_up,
                source,
                offer,
            }
        });
        let subscribed = (!is_announced).then_some(subscribed);
        Begun::Member { subscribed, displaced }
    }

    /// Ends a durable consumer; gives its members.
    pub(super) fn end_consumer(&self, dispatcher: &Arc<Dispatcher>) -> Vec<Displaced> {
        let mut state = self.state.lock();
        state.used_ms = uptime_ms();
        if state.consumers.remove(dispatcher) {
            self.shared.remove_consumers(1);
        }
        dispatcher.end()
    }

    /// Whether there is a durable consumer of this name.
    pub(super) fn has_consumer(&self, name: &ConsumerName) -> bool {
        let state = self.state.lock();
        let is_stored = |stored: &StoredTopic| stored.consumer(name.as_str()).is_some();
        state.consumers.has(name) || state.log.on_disk().is_some_and(is_stored)
    }

    /// Loads those of its consumers that are only on the disk, so that they can expire.
    pub(super) fn load_consumers(&self) {
        let mut state = self.state.lock();
        let State { log, consumers, .. } = &mut *state;
        consumers.load_all(self, log);
    }

    /// Ends a subscription, because its client wants that or its connection `is_lost`. `then` gets what the worker
    /// still has to do, while nothing is published to the topic.
    pub(super) fn part<'a>(
        self: &Arc<Self>,
        who: &Client,
        subscription: &Subscription,
        is_lost: bool,
        room: &mut Room<'a>,
        then: impl FnOnce(Ended, &mut Room<'a>),
    ) {
        let mut state = self.state.lock();
        state.used_ms = uptime_ms();
        match &subscription.source {
            Source::Consumer(membership) => {
                membership.dispatcher.leave(membership.id);
                state.interest[who.worker] -= u32::from(subscription.watch != Watch::Nothing);
            }
            Source::Group => {
                state.group.remove(who.id());
                state.interest[who.worker] -= 1;
            }
            Source::All => state.interest[who.worker] -= 1,
        }
        state.watchers.remove(subscription.watch);
        let left = self.leave(&mut state, who, is_lost, room);
        // Messages behind an unfinished replay went to none of the client's other subscriptions either.
        let after = subscription.catching_up.as_ref().filter(|replay| !replay.task.is_finished());
        let (after, newest) = (after.map(|replay| replay.after.load(Ordering::Relaxed)), state.log.newest());
        let undelivered = after
            .filter(|&after| after < newest)
            .map(|after| UndeliveredRange { topic: Arc::clone(self), offsets: after + 1..=newest });
        then(Ended { target: Target::Topic(self.id), left, undelivered }, room);
    }

    /// At most `limit` messages behind `since`, oldest first, or in reverse before it, newest first, as far as they are
    /// in memory. Beside them, for a topic on a disk, the offset from which on the rest is there.
    pub(super) fn page(&self, since: Option<Since<'_>>, limit: usize, reverse: bool) -> (HistoryPage, Option<u64>) {
        let mut state = self.state.lock();
        self.account(&mut state, uptime_ms());
        let log = &state.log;
        let start = log.start(since, None);
        let recovered = start.recovered.filter(|_| !reverse).map(|recovered| recovered.is_ok());
        let since = match since {
            // A position in another life of the log is before, or in reverse behind, all of this one.
            Some(Since::Position(since)) => Some(since.offset).filter(|_| since.epoch == log.epoch().as_str()),
            Some(Since::Time(_) | Since::Behind(_)) => Some(if reverse { start.after + 1 } else { start.after }),
            None => None,
        };
        let (mut records, mut more): (Vec<_>, _);
        let now = now_ms();
        let rest;
        if reverse {
            let before = since.unwrap_or(u64::MAX).min(log.newest() + 1);
            let mut newest_first = log.before(before).rev();
            records = newest_first.by_ref().filter(|record| !record.is_expired(now)).take(limit).cloned().collect();
            more = newest_first.len() > 0;
            let next = records.last().map_or(before, |last| last.offset);
            // All before this one are on the disk alone.
            let is_cold = !more && log.on_disk().is_some() && next > log.trimmed_through() + 1;
            rest = (is_cold && records.len() < limit).then(|| next - 1);
            more |= is_cold;
        } else {
            let after = since.unwrap_or(0);
            rest = log.cold(after).map(|cold| *cold.start());
            let mut oldest_first = log.after(after);
            records = oldest_first.by_ref().filter(|record| !record.is_expired(now)).take(limit).cloned().collect();
            more = oldest_first.len() > 0;
            if rest.is_some() {
                records.clear();
            }
        }
        (HistoryPage { position: log.position(), recovered, records, more }, rest)
    }

    /// Reads the log while nothing is published to the topic.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.state.lock().log)
    }

    /// Whether it was forgotten: its holder has to look it up again.
    pub(super) fn is_gone(&self) -> bool {
        self.state.lock().is_gone
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let subscriptions = state.interest.iter().copied().map(u64::from).sum::<u64>();
        let subscriptions = subscriptions + state.consumers.members();
        Snapshot { rate: state.rate, newest: state.log.newest(), subscriptions }
    }

    /// Shows each of its durable consumers.
    pub(super) fn visit_consumers(&self, mut visit: impl FnMut(&ConsumerName, Progress)) {
        let state = self.state.lock();
        let (trimmed_through, newest) = (state.log.trimmed_through(), state.log.newest());
        state.consumers.iter().for_each(|one| visit(one.name(), one.progress(trimmed_through, newest)));
    }

    /// Forgets what is too old, and half of the rest if the server's memory for topics is nearly full. True if the
    /// topic is gone with that: no client uses it, and it keeps nothing.
    pub(super) fn expire(&self, now: u64) -> bool {
        let mut state = self.state.lock();
        if self.shared.memory.is_nearly_full() {
            // Topics that are published to now cannot keep their messages while others keep old ones.
            state.log.halve();
        }
        self.account(&mut state, now);
        let is_idle = now.saturating_sub(state.used_ms) > self.shared.config.timing.topic_idle_ms;
        let has_subscribers = state.interest.iter().any(|&subscriptions| subscriptions > 0);
        let idle = state.consumers.expire(now, self.shared.config.timing.consumer_idle_ms);
        self.shared.remove_consumers(idle);
        // The store keeps the consumers of its topics.
        let is_kept = state.consumers.is_empty() || state.log.on_disk().is_some();
        let is_used = has_subscribers || state.consumers.members() > 0 || !is_kept || !state.members.is_empty();
        state.is_gone = is_idle && !is_used && state.log.is_disposable() && state.backlog.is_empty();
        if state.is_gone {
            if let (Some(stored), Some(durable)) = (state.log.on_disk(), &self.shared.durable) {
                durable.forget_unused(stored);
            }
            state.log.clear();
            self.account(&mut state, now);
            self.released.notify_waiters();
        }
        state.is_gone
    }

    /// Holds the topic to its bounds, and the server to what all topics may take together.
    fn account(&self, state: &mut State, now: u64) {
        state.log.trim(self.retention(), now);
        loop {
            let bytes = state.log.bytes();
            let before = std::mem::replace(&mut state.accounted, bytes);
            if self.shared.memory.change(before, bytes) || !state.log.forget_oldest() {
                break;
            }
        }
    }

    /// How much of the topic is kept in memory.
    fn retention(&self) -> Retention {
        let (limits, timing) = (&self.shared.config.limits, &self.shared.config.timing);
        let History { mut messages, mut bytes, age_ms } = self.rule.history();
        if self.rule.is_durable() {
            let store = &self.shared.config.store;
            (messages, bytes) = (messages.min(store.cache_messages), bytes.min(store.cache_bytes));
        }
        let (messages, bytes, keys) = (size(messages), size(bytes), size(limits.topic_keys));
        Retention { messages, bytes, age_ms, keys, key_age_ms: timing.topic_key_ms }
    }
}
