//! Delivery on one worker: an inbox, and one task that delivers to the subscribers on this worker. Items come through
//! the inbox in the order in which they happened to the topic, subscriptions among messages: so a subscription begins
//! exactly behind its replay. A client's own tasks run on this worker's thread too: frames that they write before they
//! yield are written before anything from the inbox.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use quic_websocket_lane::{DropNotice, Gap, Overflow, Sent};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::DropGuard;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use super::client::Watch;
use super::narrowed::{HeldMessage, Narrowed, Parts};
use super::notices::PresenceNotice;
use super::routes::{Receiver, Routes, Slot, Target};
use super::topic::Topic;
use crate::config::Presence;
use crate::envelope::EncodedMessage;
use crate::log::Record;
use crate::message::{DeliveryMode, now_ms};
use crate::metrics::Counters;
use crate::outbound::{EncodedRun, Outbound, SLICE};

/// Most items taken from the inbox at once; consecutive messages of one topic share each receiver's write.
pub(super) const BATCH: usize = 32;

/// One event of a topic.
#[derive(Debug)]
pub(super) enum InboxItem {
    /// A message for the topic's subscribers, and for one client of its queue group. Under `block`, `done` is dropped
    /// once all have it.
    Message { topic: Arc<Topic>, record: Record, chosen: Option<Uuid>, done: Option<TaskTrackerToken> },
    /// Something happened to a topic's members.
    Presence(PresenceNotices),
    /// A subscription begins; other subscribers may have to be told. `start`: where it begins, if it gets all messages
    /// of one topic. `first`: what this one is told first.
    Subscribe {
        target: Target,
        receiver: Receiver,
        start: Option<Start>,
        joined: Option<PresenceNotices>,
        marker: Option<ControlMarker>,
        first: Option<Arc<EncodedMessage>>,
    },
    /// A subscriber's replay is complete, and has sent something in place of all for one with a `max_rate`.
    GoLive { topic: u64, client: Uuid, has_sent: bool },
    /// Subscriptions of a client end; other subscribers may have to be told.
    Leave {
        client: Uuid,
        targets: Vec<Target>,
        left: Option<PresenceNotices>,
        undelivered: Option<UndeliveredRange>,
        marker: Option<ControlMarker>,
    },
    /// A topic was forgotten.
    Forget { topic: u64 },
}

/// The beginning of a subscription to one topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// Messages behind this offset come by it: replayed, or live.
    pub(super) after: u64,
    /// Whether a replay is complete already, and has sent something in place of all for one with a `max_rate`.
    pub(super) has_sent: bool,
}

/// Events among a topic's members, for the topic's subscribers that asked for these.
#[derive(Debug, Clone)]
pub(super) struct PresenceNotices {
    pub(super) topic: Arc<Topic>,
    pub(super) notices: Arc<[PresenceNotice]>,
}

/// The place on the control lane at which a subscription begins or ends: items that left the inbox before it went by
/// the subscriptions as they were, and later ones go by the present ones.
#[derive(Debug)]
pub(super) struct ControlMarker {
    pub(super) client: Arc<Outbound>,
    /// The frame that tells the client, and what happens if there is no room for it.
    pub(super) frame: Option<Bytes>,
    pub(super) overflow: Overflow,
    /// Cancels a token when the marker is there, or is dropped.
    pub(super) _over: DropGuard,
}

impl ControlMarker {
    fn take(self) {
        if let Some(frame) = self.frame {
            self.client.put_as(&frame.into(), self.overflow);
        }
    }
}

/// Messages that none of a client's subscriptions brings: they were to be replayed to one that has ended.
#[derive(Debug)]
pub(super) struct UndeliveredRange {
    pub(super) topic: Arc<Topic>,
    pub(super) offsets: RangeInclusive<u64>,
}

/// Messages of a topic on their way to any number of subscribers.
pub(super) fn run(topic: &Arc<Topic>, records: Vec<Record>) -> EncodedRun {
    let source: Arc<dyn DropNotice> = Arc::<Topic>::clone(topic);
    let (envelopes, offsets) = records.into_iter().map(|record| (record.encoded, record.offset)).unzip();
    EncodedRun::of_topic(envelopes, source, offsets)
}

/// The queue of one worker's topic events.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(super) deliveries: mpsc::Receiver<InboxItem>,
    /// Most receivers in the cached lists of topics.
    pub(super) most_found: usize,
    /// Most bytes that `max_rate` holds back for one client.
    pub(super) most_held: usize,
}

impl Inbox {
    /// Handles items, and counts deliveries, until every sender is gone. Never waits for a receiver.
    pub(crate) async fn serve(mut self, counters: &Counters) {
        let (routes, narrowed) = (Routes::new(self.most_found), Narrowed::new(self.most_held));
        let mut hub = Hub { routes, narrowed, written: 0, counters };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let taken = match hub.narrowed.next() {
                None => self.deliveries.recv_many(&mut batch, BATCH).await,
                Some(due) => tokio::select! {
                    biased;
                    taken = self.deliveries.recv_many(&mut batch, BATCH) => taken,
                    () = sleep_until(due) => {
                        hub.release_due().await;
                        continue;
                    }
                },
            };
            if taken == 0 {
                return;
            }
            let mut queue = batch.drain(..).peekable();
            while let Some(delivery) = queue.next() {
                match delivery {
                    InboxItem::Message { topic, record, chosen, done } => {
                        let mut shared = Vec::from_iter(chosen.map(|client| (client, record.clone())));
                        let (mut records, mut tokens) = (vec![record], Vec::from_iter(done));
                        let is_same =
                            |next: &InboxItem| matches!(next, InboxItem::Message { topic: t, .. } if t.id == topic.id);
                        while let Some(InboxItem::Message { record, chosen, done, .. }) = queue.next_if(is_same) {
                            shared.extend(chosen.map(|client| (client, record.clone())));
                            records.push(record);
                            tokens.extend(done);
                        }
                        hub.deliver(&topic, records).await;
                        hub.deliver_shared(&topic, shared).await;
                        drop(tokens);
                    }
                    InboxItem::Presence(notices) => hub.tell(notices).await,
                    InboxItem::Subscribe { target, receiver, start, joined, marker, first } => {
                        if let Some(notices) = joined {
                            hub.tell(notices).await;
                        }
                        let first = first.map(|first| (receiver.clone(), first));
                        hub.add(target, receiver, start);
                        if let Some(marker) = marker {
                            marker.take();
                        }
                        if let Some((receiver, first)) = first {
                            hub.tell_one(&receiver, first);
                        }
                    }
                    InboxItem::GoLive { topic, client, has_sent } => hub.go_live(topic, client, has_sent),
                    InboxItem::Leave { client, targets, left, undelivered, marker } => {
                        for target in &targets {
                            // A client that leaves altogether has no marker.
                            hub.remove(target, client, marker.is_some()).await;
                            hub.let_others_run().await;
                        }
                        if let Some(marker) = marker {
                            marker.take();
                        }
                        if let Some(undelivered) = undelivered {
                            hub.tell_missed(client, &undelivered).await;
                        }
                        if let Some(notices) = left {
                            hub.tell(notices).await;
                        }
                    }
                    InboxItem::Forget { topic } => hub.routes.forget(topic),
                }
            }
            hub.release_due().await;
        }
    }
}

#[derive(Debug)]
struct Hub<'a> {
    routes: Routes,
    narrowed: Narrowed,
    /// Receivers written to since the connections' own tasks had a chance to run.
    written: usize,
    counters: &'a Counters,
}

impl Hub<'_> {
    fn add(&mut self, target: Target, receiver: Receiver, start: Option<Start>) {
        let (client, narrowing) = (receiver.client.id, receiver.narrowing.clone());
        let topic = if let Target::Topic(topic) = target { start.map(|start| (topic, start)) } else { None };
        if let Some((topic, start)) = topic {
            self.hand_over(topic, client, start.after);
        }
        let slot = self.routes.add(target, receiver);
        if let Some(narrowing) = narrowing {
            self.narrowed.add(slot, client, &narrowing);
            if let Some((topic, Start { has_sent: true, .. })) = topic {
                self.begin_interval(slot, client, topic);
            }
        }
    }

    /// Delivers what a client's patterns hold back of a topic, now that a subscription by its name brings the messages
    /// behind an offset. Those are dropped: they come by that.
    fn hand_over(&mut self, topic: u64, client: Uuid, after: u64) {
        for (slot, held) in self.narrowed.take(client, topic) {
            if held.offset <= after {
                let sent = self.release(slot, &held);
                self.counters.fanned_out(sent);
            }
        }
    }

    fn go_live(&mut self, topic: u64, client: Uuid, has_sent: bool) {
        if let Some(slot) = self.routes.go_live(topic, client)
            && has_sent
        {
            self.begin_interval(slot, client, topic);
        }
    }

    /// Begins the interval of a `max_rate` behind what was replayed.
    fn begin_interval(&mut self, slot: Slot, client: Uuid, topic: u64) {
        self.narrowed.begin(slot, client, topic);
        while let Some((slot, held)) = self.narrowed.next_over(client) {
            let sent = self.release(slot, &held);
            self.counters.fanned_out(sent);
        }
    }

    /// Removes a subscription. If `passes_on`, what it held back comes by the client's next one that matches.
    async fn remove(&mut self, target: &Target, client: Uuid, passes_on: bool) {
        let Some(slot) = self.routes.remove(target, client) else { return };
        for held in self.narrowed.remove(slot) {
            if passes_on && !held.is_expired(now_ms()) {
                self.pass_on(client, &held).await;
                self.let_others_run().await;
            }
        }
    }

    /// Delivers a message to the subscription that brings a client the topic now, if there is one.
    async fn pass_on(&mut self, client: Uuid, held: &HeldMessage) {
        let (topic, run) = (&held.topic, held.run());
        let slots = self.routes.all(topic.id, &topic.name, &topic.rule).await;
        let is_own = |slot: &&Slot| self.routes.receiver(**slot).is_some_and(|receiver| receiver.client.id == client);
        if let Some(&slot) = slots.iter().find(is_own) {
            let mut parts = Parts::new(topic, &run);
            self.narrowed.next_run();
            let sent = self.bring(slot, &run, &mut parts);
            self.counters.fanned_out(sent);
            parts.count(self.counters);
        }
    }

    async fn deliver(&mut self, topic: &Arc<Topic>, records: Vec<Record>) {
        let slots = self.routes.all(topic.id, &topic.name, &topic.rule).await;
        if slots.is_empty() {
            return;
        }
        let (run, mut sent) = (run(topic, records), Sent::default());
        let mut parts = Parts::new(topic, &run);
        self.narrowed.next_run();
        for &slot in &*slots {
            let Some(receiver) = self.routes.receiver(slot).filter(|receiver| receiver.is_live) else { continue };
            match &receiver.narrowing {
                None => sent += deliver_to(receiver, topic, &run),
                Some(_) => sent += self.bring(slot, &run, &mut parts),
            }
            self.let_others_run().await;
        }
        self.counters.fanned_out(sent);
        parts.count(self.counters);
    }

    /// Delivers messages to one subscription, or those of them that it gets now.
    fn bring(&mut self, slot: Slot, run: &EncodedRun, parts: &mut Parts<'_>) -> Sent {
        let (topic, mut sent) = (parts.topic(), Sent::default());
        let Some(receiver) = self.routes.receiver(slot).filter(|receiver| receiver.is_live) else { return sent };
        let Some(narrowing) = &receiver.narrowing else { return deliver_to(receiver, topic, run) };
        if let Some(part) = self.narrowed.choose(slot, receiver, narrowing, parts) {
            sent += deliver_to(receiver, topic, part);
        }
        if narrowing.interval_us.is_some() {
            let client = receiver.client.id;
            while let Some((slot, held)) = self.narrowed.next_over(client) {
                sent += self.release(slot, &held);
            }
        }
        sent
    }

    /// Delivers the messages that were held back until now.
    async fn release_due(&mut self) {
        let mut sent = Sent::default();
        while let Some((slot, held)) = self.narrowed.next_due() {
            sent += self.release(slot, &held);
            self.let_others_run().await;
        }
        self.counters.fanned_out(sent);
    }

    /// Delivers a message that was held back, unless its publisher's `ttl_ms` is over.
    fn release(&self, slot: Slot, held: &HeldMessage) -> Sent {
        let receiver = self.routes.receiver(slot).filter(|_| !held.is_expired(now_ms()));
        receiver.map(|receiver| deliver_to(receiver, &held.topic, &held.run())).unwrap_or_default()
    }

    /// Delivers messages that each go to one member of the topic's queue group, unless it has left.
    async fn deliver_shared(&mut self, topic: &Arc<Topic>, messages: Vec<(Uuid, Record)>) {
        let mut sent = Sent::default();
        for (client, record) in messages {
            let Some(receiver) = self.routes.subscriber(topic.id, client) else { continue };
            // It was chosen because its lane had room.
            let has_room = receiver.overflow == Overflow::Refuse && receiver.lane.has_room();
            let overflow = if has_room { Overflow::Exempt } else { receiver.overflow };
            sent += receiver.client.deliver_on(&receiver.lane, &run(topic, vec![record]), overflow);
            self.let_others_run().await;
        }
        self.counters.fanned_out(sent);
    }

    /// Tells each watcher of a topic of the events that it asked for, but those about itself.
    async fn tell(&mut self, event: PresenceNotices) {
        let PresenceNotices { topic, notices } = event;
        let (members, counts, mut sent) = (Told::new(&notices, false), Told::new(&notices, true), Sent::default());
        let only_counts = topic.rule.presence == Presence::Counts;
        let watchers = self.routes.watchers(topic.id, &topic.name, &topic.rule).await;
        for slot in watchers {
            let Some(receiver) = self.routes.receiver(slot) else { continue };
            let told = if receiver.watch == Watch::Members && !only_counts { &members } else { &counts };
            sent += told.deliver(receiver);
            self.let_others_run().await;
        }
        self.counters.sent(sent);
    }

    fn tell_one(&mut self, receiver: &Receiver, encoded: Arc<EncodedMessage>) {
        let run = EncodedRun::new(vec![encoded]);
        let sent = receiver.client.deliver_on(&receiver.lane, &run, overflow_of_notices(receiver));
        self.counters.sent(sent);
    }

    /// Tells a client, by the pattern that brings the topic from now on, which messages that did not bring.
    async fn tell_missed(&mut self, client: Uuid, undelivered: &UndeliveredRange) {
        let UndeliveredRange { topic, offsets } = undelivered;
        let slots = self.routes.all(topic.id, &topic.name, &topic.rule).await;
        let receivers = slots.iter().filter_map(|&slot| self.routes.receiver(slot));
        // One with a `max_rate` gets the topic's next message, and misses nothing by it.
        let has_rate = |it: &Receiver| it.narrowing.as_ref().is_some_and(|narrowing| narrowing.interval_us.is_some());
        for receiver in receivers.filter(|it| it.is_live && it.client.id == client && !has_rate(it)) {
            let (source, group): (Arc<dyn DropNotice>, _) = (Arc::<Topic>::clone(topic), receiver.group.clone());
            let gap = Gap { source, first: *offsets.start(), last: *offsets.end(), group };
            receiver.client.deliver_gap(&receiver.lane, gap);
        }
    }

    async fn let_others_run(&mut self) {
        self.written += 1;
        if self.written.is_multiple_of(SLICE) {
            tokio::task::yield_now().await;
        }
    }
}

/// Events among a topic's members that one kind of watcher is told.
struct Told<'a> {
    notices: Vec<&'a PresenceNotice>,
    run: EncodedRun,
}

impl<'a> Told<'a> {
    fn new(notices: &'a [PresenceNotice], counts: bool) -> Self {
        let notices: Vec<_> = notices.iter().filter(|notice| notice.is_count() == counts).collect();
        let run = EncodedRun::new(notices.iter().map(|notice| Arc::clone(&notice.encoded)).collect());
        Self { notices, run }
    }

    fn deliver(&self, receiver: &Receiver) -> Sent {
        let is_own = |notice: &&PresenceNotice| notice.except == Some(receiver.client.id);
        let overflow = overflow_of_notices(receiver);
        if !self.notices.iter().any(is_own) {
            if self.notices.is_empty() {
                return Sent::default();
            }
            return receiver.client.deliver_on(&receiver.lane, &self.run, overflow);
        }
        let others: Vec<_> = self.notices.iter().filter(|notice| !is_own(notice)).collect();
        if others.is_empty() {
            return Sent::default();
        }
        let run = EncodedRun::new(others.into_iter().map(|notice| Arc::clone(&notice.encoded)).collect());
        receiver.client.deliver_on(&receiver.lane, &run, overflow)
    }
}

/// Under `block` a full lane is nothing unusual; an event among the members is not worth closing it.
fn overflow_of_notices(receiver: &Receiver) -> Overflow {
    if receiver.ended.is_some() { Overflow::DropOldest } else { receiver.overflow }
}

fn deliver_to(receiver: &Receiver, topic: &Topic, run: &EncodedRun) -> Sent {
    match (receiver.delivery, &receiver.ended) {
        (DeliveryMode::Datagram, _) => receiver.client.deliver_datagrams(&receiver.lane, run, receiver.group.as_ref()),
        (DeliveryMode::Stream, Some(ended)) if topic.blocks() => {
            let sent = receiver.client.deliver_on(&receiver.lane, run, Overflow::Exempt);
            if !receiver.lane.has_room() {
                topic.blocking.add(Arc::clone(&receiver.lane), ended.clone());
            }
            sent
        }
        (DeliveryMode::Stream, _) => receiver.client.deliver_on(&receiver.lane, run, receiver.options()),
    }
}
