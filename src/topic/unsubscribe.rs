//! `unsubscribe`, and the end of all subscriptions of a client: others are told, and messages that wait only for ended
//! subscriptions are dropped.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use quic_websocket_lane::{LaneWriter, Overflow};

use super::client::{Client, Source, Subscription};
use super::hub::{InboxItem, PresenceNotices, UndeliveredRange};
use super::routes::Target;
use super::workers::Room;
use super::{TopicError, Topics};
use crate::message::{ConsumerName, TopicPattern};
use crate::outbound::SLICE;
use crate::pattern_index::{PatternIndex, Sought};

/// The frame that tells a client of a subscription's end.
#[derive(Debug)]
pub(crate) enum Farewell {
    /// The reply to its request. It may wait beyond all bounds: the client is not read further before it has gone.
    Reply(Bytes),
    /// A notice that it has not asked for, which waits within the bounds.
    Notice(Bytes),
}

/// Subscriptions that have ended, whose messages may still wait on their lanes.
#[derive(Debug, Default)]
pub(crate) struct Left {
    texts: PatternIndex<()>,
    lanes: Vec<Arc<LaneWriter>>,
}

impl Left {
    fn add(&mut self, text: &TopicPattern, lane: Arc<LaneWriter>) {
        self.texts.add(text, ());
        if !self.lanes.iter().any(|other| Arc::ptr_eq(other, &lane)) {
            self.lanes.push(lane);
        }
    }
}

impl Topics {
    /// Ends a subscription; returns once nothing more comes of it. Then `farewell` is on the control lane, behind the
    /// last of what came there. Cancel safe: dropped, it has ended the subscription or not.
    pub(crate) async fn unsubscribe(
        &self,
        who: &Arc<Client>,
        text: &TopicPattern,
        farewell: Option<Farewell>,
    ) -> Result<(), TopicError> {
        let mut left = Left::default();
        self.end_one(who, text, farewell, &mut left).await?;
        self.forget(who, left).await;
        Ok(())
    }

    /// Ends the durable consumer of a subscription for good, if it has one; the subscription itself is still to be
    /// ended. `unsubscribed` makes the frame for its other
    /// clients, whose subscriptions end with it.
    pub(crate) async fn forget_consumer(
        &self,
        who: &Client,
        text: &TopicPattern,
        unsubscribed: impl Fn(&ConsumerName) -> Bytes,
    ) -> Result<(), TopicError> {
        let Some((topic, dispatcher)) = who.consumer(text) else { return Ok(()) };
        for other in topic.end_consumer(&dispatcher) {
            if other.client.id() != who.id() {
                self.displace(other, text.clone(), unsubscribed(dispatcher.name()));
            }
        }
        dispatcher.forgotten().await
    }

    /// Ends one of several subscriptions, as [`unsubscribe`](Self::unsubscribe) does. [`forget`](Self::forget) then
    /// drops the messages that wait for them, for all of them at once.
    pub(crate) async fn end_one(
        &self,
        who: &Arc<Client>,
        text: &TopicPattern,
        farewell: Option<Farewell>,
        left: &mut Left,
    ) -> Result<(), TopicError> {
        self.end_one_if(who, text, |_| true, farewell, left).await
    }

    /// The same, if the subscription is the one that is meant.
    pub(super) async fn end_one_if(
        &self,
        who: &Arc<Client>,
        text: &TopicPattern,
        is_meant: impl FnOnce(&Subscription) -> bool,
        farewell: Option<Farewell>,
        left: &mut Left,
    ) -> Result<(), TopicError> {
        let mut room = self.shared.workers.room().await;
        let Some(held) = who.take(text, is_meant) else { return Err(TopicError::NotSubscribed(text.clone())) };
        left.add(text, Arc::clone(&held.lane.writer));
        let (frame, overflow) = match farewell {
            None => (None, Overflow::Refuse),
            Some(Farewell::Reply(frame)) => (Some(frame), Overflow::Append),
            Some(Farewell::Notice(frame)) => (Some(frame), Overflow::Displace),
        };
        let (marker, there) = who.control_marker(frame, overflow);
        self.end(who, text, &held, false, &mut room, |ended, room| {
            let Ended { target, left, undelivered } = ended;
            let (client, targets, marker) = (who.id(), vec![target], Some(marker));
            room.send(who.worker, InboxItem::Leave { client, targets, left, undelivered, marker });
        });
        drop(room);
        held.bury_dead(who).await;
        drop(held);
        there.cancelled().await;
        Ok(())
    }

    /// Ends the subscriptions that are bound to a lane, which has ended. `farewell` makes the notice of each.
    pub(crate) async fn end_lane(&self, who: &Arc<Client>, lane: u64, farewell: impl Fn(&TopicPattern) -> Bytes) {
        let mut left = Left::default();
        for text in who.bound_to(lane) {
            let notice = Farewell::Notice(farewell(&text));
            let is_bound = |held: &Subscription| held.lane.number == Some(lane);
            // An error means that it has already ended.
            let _ = self.end_one_if(who, &text, is_bound, Some(notice), &mut left).await;
        }
        self.forget(who, left).await;
    }

    /// Ends a subscription whose lane has ended while it was made.
    pub(crate) async fn end_if_lane_lost(
        &self,
        who: &Arc<Client>,
        text: &TopicPattern,
        farewell: impl Fn(&TopicPattern) -> Bytes,
    ) {
        if let Some(lane) = who.lane_of(text).filter(|lane| who.outbound.has_lost(*lane)) {
            self.end_lane(who, lane, farewell).await;
        }
    }

    /// Drops the messages that wait for subscriptions that have ended. Messages on their way arrive all the same. Those
    /// that another subscription would have brought stay: they come once, for both.
    pub(crate) async fn forget(&self, who: &Arc<Client>, left: Left) {
        for lane in left.lanes {
            let sources = lane.waiting_sources();
            let mut slices = self.long_work(who, sources.len()).await;
            // Dropped before others come in between: a subscription that is made then may bring more of the same topic.
            let mut unwanted = HashSet::new();
            for source in &sources {
                let topic = source.name();
                if left.texts.covers(&Sought::new(topic)) && !who.hears(topic) {
                    unwanted.insert(Arc::as_ptr(source).addr());
                }
                if slices.is_over() {
                    lane.forget(&unwanted);
                    unwanted.clear();
                    slices.rest().await;
                }
            }
            lane.forget(&unwanted);
        }
    }

    /// Ends all subscriptions of a client that leaves, and takes no more. If its connection is lost, it may come back,
    /// and stays a member for the topic's grace. The caller decides whether others are told: if all clients leave, none
    /// is left to hear it.
    pub(crate) async fn leave(&self, who: &Arc<Client>, is_lost: bool, tell: bool) {
        let mut targets = Vec::new();
        for (number, (text, held)) in who.take_all().into_iter().enumerate() {
            if number > 0 && number.is_multiple_of(SLICE) {
                tokio::task::yield_now().await;
            }
            let is_told = tell && held.topic.as_ref().is_some_and(|topic| topic.has_presence());
            let mut room = if is_told { self.shared.workers.room().await } else { Room::default() };
            self.end(who, &text, &held, is_lost && tell, &mut room, |Ended { target, left, .. }, room| {
                targets.push(target);
                if let Some(left) = left {
                    room.send(who.worker, InboxItem::Presence(left));
                }
            });
            drop(room);
            held.bury_dead(who).await;
        }
        if !targets.is_empty()
            && let Some(place) = self.shared.workers.room_at(who.worker).await
        {
            place.send(InboxItem::Leave { client: who.id(), targets, left: None, undelivered: None, marker: None });
        }
    }

    /// Removes a subscription from the bookkeeping of its topic or pattern. `then` gets what the worker still has to
    /// do; for a topic, while nothing is published to it.
    fn end<'a>(
        &self,
        who: &Client,
        text: &TopicPattern,
        held: &Subscription,
        is_lost: bool,
        room: &mut Room<'a>,
        then: impl FnOnce(Ended, &mut Room<'a>),
    ) {
        who.outbound.release_lane(text, &held.lane);
        if let Some(topic) = &held.topic {
            return topic.part(who, held, is_lost, room, then);
        }
        self.shared.workers.remove_pattern(who.worker, text, held.is_authenticated, held.watch);
        then(Ended { target: Target::Pattern(text.clone()), left: None, undelivered: None }, room);
    }
}

impl Subscription {
    /// Takes care of messages that died when the subscription ended.
    async fn bury_dead(&self, who: &Client) {
        if let (Source::Consumer(membership), Some(topic)) = (&self.source, &self.topic) {
            // If that is not possible now, the next member's task does it.
            let _ = Box::pin(membership.dispatcher.bury_dead(topic, who.outbound.counters())).await;
        }
    }
}

/// The rest of a subscription's end, to be done at the worker.
pub(super) struct Ended {
    pub(super) target: Target,
    pub(super) left: Option<PresenceNotices>,
    pub(super) undelivered: Option<UndeliveredRange>,
}
