//! `subscribe`: reserves a place among the client's subscriptions and room in the workers' inboxes, and then joins a
//! topic ([`Topic::join`](super::topic::Topic::join)) or adds a pattern.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quic_websocket_lane::Overflow;
use tokio::sync::mpsc::Permit;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Reserved, Source, Subscription, Watch};
use super::consumers::{Displaced, Progress};
use super::hub::InboxItem;
use super::notices::PatternNotice;
use super::routes::{Receiver, Target};
use super::topic::{Topic, may_show};
use super::{Farewell, Left, TopicError, Topics, size};
use crate::config::{OverflowPolicy, TopicRule};
use crate::limits::Allowance;
use crate::log::{Since, Unrecovered};
use crate::message::{ConsumerName, ConsumerRequest, Position, Subscribe, TopicName, TopicPattern};
use crate::narrow::{Filter, Narrowing};
use crate::outbound::{Maker, TopicLane};
use crate::request::Offer;

/// One second in microseconds.
const SECOND_US: u64 = 1_000_000;

/// A client's request to subscribe.
pub(crate) struct SubscribeRequest<'a> {
    pub(crate) who: &'a Arc<Client>,
    pub(crate) wanted: Subscribe,
    /// Asked if the topic does not exist yet.
    pub(crate) allowance: &'a Allowance,
    /// Makes the frame that announces the subscription, if that goes on the control lane: there it has to come ahead of
    /// the messages, if these go there too.
    pub(crate) announce: Option<&'a (dyn Fn(&Subscribed) -> Bytes + Send + Sync)>,
    /// Makes the frame for a client whose durable consumer this one takes over.
    pub(crate) take_over: &'a (dyn Fn(&ConsumerName) -> Bytes + Send + Sync),
    /// Whether a pattern also brings what is in the inboxes of users.
    pub(crate) sees_inboxes: bool,
    pub(crate) maker: Maker,
    /// Its offer to answer requests, which the subscription takes.
    pub(crate) offer: &'a Mutex<Option<Offer>>,
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
    /// The durable consumer that it gets its messages from, and how far that is.
    pub(crate) progress: Option<(ConsumerName, Progress)>,
}

impl Topics {
    /// Makes a subscription. Gives nothing if it was announced on the control lane.
    ///
    /// Cancel safe: dropped, it has made the subscription or not.
    pub(crate) async fn subscribe(&self, request: &SubscribeRequest<'_>) -> Result<Option<Subscribed>, TopicError> {
        let pattern = &request.wanted.topic;
        let rule = Arc::clone(self.rule(pattern));
        let narrowing = request.narrowing()?;
        let most = size(self.shared.config.limits.max_subscriptions);
        let Ok(name) = TopicName::new(pattern.as_str()) else {
            let reserved = request.who.reserve(pattern, request.maker, most)?;
            let place = self.shared.workers.room_at(request.who.worker).await;
            return Ok(self.subscribe_to_pattern(request, &rule, reserved, place, narrowing));
        };
        if request.wanted.state.is_some() {
            may_show(self.rule_of(&name), &name)?;
        }
        loop {
            let reserved = request.who.reserve(pattern, request.maker, most)?;
            let topic = self.find_or_make(&name, request.allowance)?;
            let since = self.since(&topic, &request.wanted).await?;
            if let Some(ConsumerRequest::Durable(consumer)) = &request.wanted.consumer {
                topic.prepare_consumer(consumer, since, request.wanted.recent).await?;
            }
            let room = self.shared.workers.room().await;
            match topic.join(request, reserved, room, since, narrowing.clone()).transpose()? {
                Some(Begun::Unannounced(subscribed)) => return Ok(Some(subscribed)),
                Some(Begun::Member { subscribed, displaced }) => {
                    for older in displaced {
                        let frame = (request.take_over)(older.dispatcher.name());
                        self.displace(older, pattern.clone(), frame);
                    }
                    return Ok(subscribed);
                }
                Some(Begun::Announced(marker)) => {
                    // Later requests on this lane are answered behind it.
                    marker.cancelled().await;
                    return Ok(None);
                }
                None => {}
            }
        }
    }

    /// Where a subscription to a topic is to begin.
    async fn since<'a>(&self, topic: &Topic, wanted: &'a Subscribe) -> Result<Option<Since<'a>>, TopicError> {
        match (&wanted.since, wanted.since_time) {
            (Some(since), _) => Ok(Some(Since::Position(since))),
            (None, Some(time_ms)) => self.seek(topic, Since::Time(time_ms)).await.map(Some),
            (None, None) => Ok(None),
        }
    }

    fn subscribe_to_pattern(
        &self,
        request: &SubscribeRequest<'_>,
        rule: &TopicRule,
        reserved: Reserved<'_>,
        place: Option<Permit<'_, InboxItem>>,
        narrowing: Option<Arc<Narrowing>>,
    ) -> Option<Subscribed> {
        let SubscribeRequest { who, wanted, .. } = request;
        let watch = Watch::of(wanted);
        let lane = who.outbound.bind_lane(&wanted.topic, rule.priority, wanted.lane);
        let receiver = request.receiver(rule, &lane, narrowing);
        let (ended, is_authenticated) = (receiver.ended.clone(), receiver.is_authenticated);
        let subscribed = Subscribed { position: None, recovered: None, lane: lane.number, progress: None };
        let announcement = request.announcement(&subscribed);
        let subscribed = announcement.is_none().then_some(subscribed);
        if let Some(frame) = announcement {
            who.outbound.put(&frame.into());
        }
        reserved.make(|| {
            // Counted before it is in the inbox: a client that publishes after `subscribed` sees it.
            self.shared.workers.add_pattern(who.worker, &wanted.topic, is_authenticated, watch);
            if let Some(place) = place {
                let target = Target::Pattern(wanted.topic.clone());
                let (start, joined, marker, first) = (None, None, None, None);
                place.send(InboxItem::Subscribe { target, receiver, start, joined, marker, first });
            }
            let (sees_inboxes, source) = (request.sees_inboxes, Source::All);
            let (topic, catching_up, maker) = (None, None, request.maker);
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
        subscribed
    }

    /// Makes a client a member of the topics to which it has subscribed while it was not present, and tells the others.
    pub(crate) async fn appear(&self, who: &Arc<Client>) {
        for text in who.appear() {
            let room = self.shared.workers.room().await;
            // Meanwhile it may have unsubscribed, and subscribed again.
            if let Some(topic) = who.topic(&text) {
                topic.appear(who, room);
            }
        }
    }
}

impl Topics {
    /// Ends the subscription of a member that another one has displaced, unless it has ended already. That goes on if
    /// the other one leaves meanwhile: it is a task of the member's client.
    pub(super) fn displace(&self, older: Displaced, text: TopicPattern, frame: Bytes) {
        let Some(topics) = self.shared.directory.upgrade() else { return };
        let tasks = older.client.tasks.clone();
        tasks.spawn(async move {
            let Displaced { client, member, dispatcher } = older;
            let mut left = Left::default();
            let is_meant = |held: &Subscription| held.is_member(member, &dispatcher);
            // An error means that there is nothing to end.
            let _ = topics.end_one_if(&client, &text, is_meant, Some(Farewell::Notice(frame)), &mut left).await;
            topics.forget(&client, left).await;
        });
    }
}

/// How a subscription to a topic has begun.
pub(super) enum Begun {
    /// The client does not know yet.
    Unannounced(Subscribed),
    /// Once this is cancelled, the announcement is on the control lane.
    Announced(CancellationToken),
    /// The client is the member of a durable consumer, and others are not any longer. `None`: the announcement is on
    /// the control lane.
    Member { subscribed: Option<Subscribed>, displaced: Vec<Displaced> },
}

impl Begun {
    pub(super) fn marker(&self) -> Option<CancellationToken> {
        match self {
            Self::Unannounced(_) | Self::Member { .. } => None,
            Self::Announced(marker) => Some(marker.clone()),
        }
    }
}

impl SubscribeRequest<'_> {
    pub(super) fn receiver(&self, rule: &TopicRule, lane: &TopicLane, narrowing: Option<Arc<Narrowing>>) -> Receiver {
        Receiver {
            client: Arc::clone(&self.who.outbound),
            lane: Arc::clone(&lane.writer),
            delivery: self.wanted.delivery,
            overflow: overflow(rule.overflow),
            is_authenticated: self.who.is_authenticated(),
            sees_inboxes: self.sees_inboxes,
            watch: Watch::of(&self.wanted),
            is_whole: true,
            is_live: true,
            ended: (rule.overflow == OverflowPolicy::Block).then(CancellationToken::new),
            group: PatternNotice::of(&self.wanted.topic),
            narrowing,
        }
    }

    /// What the subscription leaves out; `None` if nothing.
    fn narrowing(&self) -> Result<Option<Arc<Narrowing>>, TopicError> {
        let Subscribe { max_rate, echo, filter, .. } = &self.wanted;
        if max_rate.is_none() && *echo && filter.is_none() {
            return Ok(None);
        }
        let filter = filter.as_ref().map(|json| Filter::parse(json.as_str())).transpose()?;
        let interval_us = max_rate.map(|rate| SECOND_US / rate.max(1));
        // Its earlier messages may be replayed to a client that has come back.
        let own = if *echo { None } else { Some(self.who.id()) };
        let own = own.into_iter().chain(self.who.resumes().filter(|_| !echo)).collect();
        Ok(Some(Arc::new(Narrowing { interval_us, own, filter })))
    }

    /// The frame that has to come ahead of the messages; `None` if they go on another lane.
    pub(super) fn announcement(&self, subscribed: &Subscribed) -> Option<Bytes> {
        self.announce.filter(|_| subscribed.lane.is_none()).map(|announce| announce(subscribed))
    }
}

/// The effect of a rule's policy on a lane without a check for room before. A pattern under `block` also gets messages
/// of topics whose publishers do not wait.
fn overflow(policy: OverflowPolicy) -> Overflow {
    match policy {
        OverflowPolicy::Disconnect | OverflowPolicy::Block => Overflow::Refuse,
        OverflowPolicy::DropOldest => Overflow::DropOldest,
        OverflowPolicy::Latest => Overflow::Latest,
    }
}
