//! `subscribe`: where a subscription begins in the log, what is replayed first, and who hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quic_websocket_lane::Overflow;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::{CatchingUp, Client, NotReserved, Reserved, Subscription};
use super::hub::{InboxItem, PresenceEvent};
use super::replay::Replay;
use super::routes::{Receiver, Target};
use super::topic::{PatternNotice, State, Topic, overflow};
use super::{InboxPermits, TopicError, Topics, size, uptime_ms};
use crate::config::{OverflowPolicy, TopicRule};
use crate::log::Unrecovered;
use crate::message::{Position, ServerMessage, Subscribe, TopicName, TopicPattern};
use crate::outbound::{EncodedMessage, TopicLane};

/// A client's request to subscribe.
pub(crate) struct SubscribeRequest<'a> {
    pub(crate) who: &'a Arc<Client>,
    pub(crate) wanted: Subscribe,
    /// Makes the frame that announces the subscription, if that goes on the control lane: there it has to come ahead of the
    /// messages, if these go there too.
    pub(crate) announce: Option<&'a (dyn Fn(&Subscribed) -> Bytes + Send + Sync)>,
}

/// A subscription that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscribed {
    /// The newest message's; `None` for a pattern.
    pub(crate) position: Option<Position>,
    /// Whether everything behind the position that was asked for follows; `None` if none was.
    pub(crate) recovered: Option<Result<(), Unrecovered>>,
    /// The topic lane of its messages; `None` for the control lane.
    pub(crate) lane: Option<u64>,
}

impl Topics {
    /// Makes a subscription. Gives nothing if it was announced on the control lane.
    ///
    /// Cancel safe: dropped, it has made the subscription or not.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        wish: &SubscribeRequest<'_>,
    ) -> Result<Option<Subscribed>, TopicError> {
        let pattern = &wish.wanted.topic;
        let rule = Arc::clone(self.rule(pattern));
        let most = size(self.config.limits.max_subscriptions);
        let reserve = || {
            wish.who.reserve(pattern, most).map_err(|why| match why {
                NotReserved::Twice => TopicError::Subscribed(pattern.clone()),
                NotReserved::TooMany => TopicError::TooManySubscriptions(most),
                NotReserved::Closed => TopicError::Closing,
            })
        };
        let Ok(name) = TopicName::new(pattern.as_str()) else {
            let reserved = reserve()?;
            let place = self.inboxes[wish.who.worker].reserve().await.ok();
            return Ok(self.subscribe_to_pattern(wish, &rule, reserved, place));
        };
        loop {
            let reserved = reserve()?;
            let topic = self.find_or_make(&name, &wish.who.allowance)?;
            let permits = self.permits().await;
            match self.subscribe_to_topic(wish, &topic, reserved, permits) {
                Some(Begun::Unannounced(subscribed)) => return Ok(Some(subscribed)),
                Some(Begun::Announced(marker)) => {
                    // What is asked next on this lane is answered behind it.
                    marker.cancelled().await;
                    return Ok(None);
                }
                None => {}
            }
        }
    }

    fn subscribe_to_pattern(
        &self,
        wish: &SubscribeRequest<'_>,
        rule: &TopicRule,
        reserved: Reserved<'_>,
        place: Option<mpsc::Permit<'_, InboxItem>>,
    ) -> Option<Subscribed> {
        let SubscribeRequest { who, wanted, .. } = wish;
        let lane = who.outbound.bind_lane(&wanted.topic, rule.priority, wanted.lane);
        let receiver = wish.receiver(rule, &lane);
        let (ended, is_authenticated) = (receiver.ended.clone(), receiver.is_authenticated);
        let mut subscribed = Some(Subscribed { position: None, recovered: None, lane: lane.number });
        if let Some(frame) = subscribed.as_ref().and_then(|subscribed| wish.announcement(subscribed)) {
            who.outbound.put(&frame.into());
            subscribed = None;
        }
        reserved.make(|| {
            // Counted before it is in the inbox: whoever publishes after `subscribed` sees it.
            self.patterns[who.worker].fetch_add(1, Ordering::AcqRel);
            self.pattern_counts.add(&wanted.topic, is_authenticated);
            self.pattern_watchers.fetch_add(usize::from(wanted.presence), Ordering::AcqRel);
            if let Some(place) = place {
                let target = Target::Pattern(wanted.topic.clone());
                place.send(InboxItem::Subscribe { target, receiver, joined: None, marker: None });
            }
            Subscription { topic: None, lane, presence: wanted.presence, is_authenticated, ended, catching_up: None }
        });
        subscribed
    }

    /// `None` where the topic is gone meanwhile.
    fn subscribe_to_topic(
        self: &Arc<Self>,
        wish: &SubscribeRequest<'_>,
        topic: &Arc<Topic>,
        reserved: Reserved<'_>,
        mut permits: InboxPermits<'_>,
    ) -> Option<Begun> {
        let SubscribeRequest { who, wanted, .. } = wish;
        let mut state = topic.state();
        if state.is_gone {
            return None;
        }
        let now = uptime_ms();
        state.used_ms = now;
        self.account(topic, &mut state, now);
        let lane = who.outbound.bind_lane(&wanted.topic, topic.rule.priority, wanted.lane);
        let mut receiver = wish.receiver(&topic.rule, &lane);
        let (ended, is_authenticated) = (receiver.ended.clone(), receiver.is_authenticated);
        let start = state.log.start(wanted.since.as_ref(), wanted.recent);
        let position = Position { epoch: state.log.epoch().to_owned(), offset: state.log.newest() };
        let subscribed = Subscribed { position: Some(position), recovered: start.recovered, lane: lane.number };
        // On a lane on which a pattern may have brought the topic's messages, what is still to come by it has to come before.
        let (begun, marker) = match wish.announcement(&subscribed) {
            Some(frame) => {
                let (marker, there) = who.control_marker(Some(frame), Overflow::Refuse);
                (Begun::Announced(there), Some(marker))
            }
            None => (Begun::Unannounced(subscribed), None),
        };
        let there = begun.marker();
        reserved.make(|| {
            let mut joined = None;
            if topic.rule.presence && who.is_present() {
                let message = ServerMessage::Join { topic: topic.name.as_str().to_owned(), client: who.member() };
                joined = self.tell(topic, &state, who, &message, &mut permits);
                state.members.insert(who.id(), who.member());
            }
            state.interest[who.worker] += 1;
            state.watchers += usize::from(wanted.presence);
            let after = Arc::new(AtomicU64::new(start.after));
            let mut replay = Replay { topic: Arc::clone(topic), receiver: receiver.clone(), after: Arc::clone(&after) };
            receiver.is_live =
                replay.is_done(&state.log) || (there.is_none() && lane.writer.has_room() && replay.step(&state.log));
            let catching_up = (!receiver.is_live).then(|| {
                let task = replay.catch_up(Arc::clone(self), who.worker, there);
                CatchingUp { task: who.tasks.spawn(task).abort_handle(), after }
            });
            if let Some(place) = permits.get_mut(who.worker).and_then(Option::take) {
                place.send(InboxItem::Subscribe { target: Target::Topic(topic.id), receiver, joined, marker });
            }
            let presence = wanted.presence;
            Subscription { topic: Some(Arc::clone(topic)), lane, presence, is_authenticated, ended, catching_up }
        });
        drop(state);
        Some(begun)
    }

    /// Whether publishers wait for who subscribes to this.
    pub(crate) fn blocks(&self, text: &TopicPattern) -> bool {
        self.rule(text).overflow == OverflowPolicy::Block
    }

    /// Makes a client a member of the topics to which it has subscribed while it was not present, and tells the others.
    pub(crate) async fn appear(&self, who: &Arc<Client>) {
        for text in who.appear() {
            let mut permits = self.permits().await;
            // Meanwhile it may have unsubscribed, and subscribed anew.
            let Some(topic) = who.topic(&text).filter(|topic| topic.rule.presence) else { continue };
            let mut state = topic.state();
            if state.members.contains_key(&who.id()) {
                continue;
            }
            let message = ServerMessage::Join { topic: topic.name.as_str().to_owned(), client: who.member() };
            let joined = self.tell(&topic, &state, who, &message, &mut permits);
            state.members.insert(who.id(), who.member());
            if let (Some(joined), Some(place)) = (joined, permits.get_mut(who.worker).and_then(Option::take)) {
                place.send(InboxItem::Presence(joined));
            }
        }
    }

    /// Whether anybody might want to hear of joins and leaves.
    fn is_watched(&self, state: &State) -> bool {
        state.watchers + self.pattern_watchers.load(Ordering::Acquire) > 0
    }

    /// Tells a topic's subscribers on other workers that somebody came or left, and gives what those on the client's own
    /// worker are to be told: its place there is needed for the subscription as well.
    pub(super) fn tell(
        &self,
        topic: &Arc<Topic>,
        state: &State,
        about: &Client,
        message: &ServerMessage,
        permits: &mut InboxPermits<'_>,
    ) -> Option<PresenceEvent> {
        if !self.is_watched(state) {
            return None;
        }
        let encoded = EncodedMessage::new(message, size(self.config.limits.compress_min_bytes));
        let news = PresenceEvent { topic: Arc::clone(topic), about: about.id(), encoded };
        for (worker, place) in permits.iter_mut().enumerate() {
            if worker != about.worker
                && self.wants(state, worker)
                && let Some(place) = place.take()
            {
                place.send(InboxItem::Presence(news.clone()));
            }
        }
        Some(news)
    }
}

/// How a subscription to a topic has begun.
enum Begun {
    /// The client does not know yet.
    Unannounced(Subscribed),
    /// Once this is cancelled, the announcement is on the control lane.
    Announced(CancellationToken),
}

impl Begun {
    fn marker(&self) -> Option<CancellationToken> {
        match self {
            Self::Unannounced(_) => None,
            Self::Announced(marker) => Some(marker.clone()),
        }
    }
}

impl SubscribeRequest<'_> {
    fn receiver(&self, rule: &TopicRule, lane: &TopicLane) -> Receiver {
        Receiver {
            client: Arc::clone(&self.who.outbound),
            lane: Arc::clone(&lane.writer),
            delivery: self.wanted.delivery,
            overflow: overflow(rule.overflow),
            is_authenticated: self.who.is_authenticated(),
            presence: self.wanted.presence,
            is_live: true,
            ended: (rule.overflow == OverflowPolicy::Block).then(CancellationToken::new),
            group: PatternNotice::of(&self.wanted.topic),
        }
    }

    /// The frame that has to come ahead of the messages; `None` if they go on another lane.
    fn announcement(&self, subscribed: &Subscribed) -> Option<Bytes> {
        self.announce.filter(|_| subscribed.lane.is_none()).map(|announce| announce(subscribed))
    }
}
