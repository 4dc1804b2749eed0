//! A client as topics know it: its identity, its outbound handle, and its subscriptions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quic_websocket_lane::Overflow;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::TopicError;
use super::consumers::{Dispatcher, Membership};
use super::hub::ControlMarker;
use super::topic::Topic;
use crate::consumer::MemberId;
use crate::message::{ConsumerName, Member, Sender, Subscribe, TopicName, TopicPattern};
use crate::outbound::{Maker, Outbound, TopicLane};
use crate::pattern_index::{PatternIndex, Sought};
use crate::request::{Offer, OfferId};

/// One client. Its owner calls [`Topics::leave`](super::Topics::leave) at its end, and awaits `tasks`.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) outbound: Arc<Outbound>,
    /// As other clients see it; shared by its topics.
    member: Arc<Member>,
    /// The same, in the messages that it sends.
    sender: Sender,
    /// The client's id on an earlier connection, of which it knew the secret.
    resumes: Option<Uuid>,
    /// The worker on which the client is.
    pub(crate) worker: usize,
    subscriptions: Mutex<Subscriptions>,
    /// Whether it is among the members of its topics.
    is_present: AtomicBool,
    /// Its long replays.
    pub(crate) tasks: TaskTracker,
    /// One of its requests at a time does long work.
    pub(super) long_work: Semaphore,
}

#[derive(Debug, Default)]
struct Subscriptions {
    /// `None` while one is being made.
    by_text: HashMap<TopicPattern, Option<Subscription>>,
    /// Those that are made and match more than one topic.
    patterns: PatternIndex<()>,
    /// Those that the server is about to make.
    assigned: Vec<TopicPattern>,
    /// The client has left: nothing more is added.
    is_closed: bool,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// `None` for a pattern.
    pub(super) topic: Option<Arc<Topic>>,
    pub(super) lane: TopicLane,
    pub(super) watch: Watch,
    pub(super) maker: Maker,
    /// Whether the client had proved its identity when the subscription was made.
    pub(super) is_authenticated: bool,
    /// Whether it brings what is in the inboxes of users, because the client's token allowed it.
    pub(super) sees_inboxes: bool,
    /// Under `block`, cancelled when it ends: publishers wait for it no longer.
    pub(super) ended: Option<CancellationToken>,
    /// Its replay, until that is complete.
    pub(super) catching_up: Option<CatchingUp>,
    /// What it gets its messages from, if that is not the topic alone.
    pub(super) source: Source,
    /// Its offer to answer requests, if it does.
    pub(super) offer: Option<Box<Offer>>,
}

/// What a subscription hears of a topic's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    Nothing,
    /// Each join, leave and change; of a topic that only counts, the number.
    Members,
    /// The number.
    Counts,
}

impl Watch {
    pub(super) fn of(wanted: &Subscribe) -> Self {
        match (wanted.presence, wanted.occupancy) {
            (true, _) => Self::Members,
            (false, true) => Self::Counts,
            (false, false) => Self::Nothing,
        }
    }
}

/// What a subscription gets its messages from.
#[derive(Debug)]
pub(super) enum Source {
    /// All messages of a topic or pattern.
    All,
    /// The topic's queue group.
    Group,
    /// A durable consumer.
    Consumer(Membership),
}

impl Subscription {
    /// Whether this is the member of a durable consumer.
    pub(super) fn is_member(&self, id: MemberId, of: &Arc<Dispatcher>) -> bool {
        matches!(&self.source, Source::Consumer(own) if own.id == id && Arc::ptr_eq(&own.dispatcher, of))
    }
}

/// A replay.
#[derive(Debug)]
pub(super) struct CatchingUp {
    pub(super) task: AbortHandle,
    /// The offset of the last message that was replayed.
    pub(super) after: Arc<AtomicU64>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(ended) = &self.ended {
            ended.cancel();
        }
        // It runs on this thread, so it is not in the middle of anything.
        if let Some(replay) = &self.catching_up {
            replay.task.abort();
        }
    }
}

/// What a client was granted with one of its subscriptions.
#[derive(Debug)]
pub(crate) struct Granted {
    /// What happens to members.
    pub(crate) presence: bool,
    /// Earlier messages, of which some are still to be replayed.
    pub(crate) replays: bool,
    /// What is in the inboxes of users.
    pub(crate) inboxes: bool,
    /// The subscription's maker.
    pub(crate) maker: Maker,
}

impl Client {
    /// A client without subscriptions. One that is not present becomes so by [`Topics::appear`](super::Topics::appear).
    pub(crate) fn new(
        outbound: Arc<Outbound>,
        member: Member,
        resumes: Option<Uuid>,
        worker: usize,
        is_present: bool,
    ) -> Arc<Self> {
        let (subscriptions, tasks, long_work) = (Mutex::default(), TaskTracker::new(), Semaphore::new(1));
        let sender = Sender::from(&member);
        let (member, is_present) = (Arc::new(member), is_present.into());
        Arc::new(Self { outbound, member, sender, resumes, worker, subscriptions, is_present, tasks, long_work })
    }

    pub(crate) fn id(&self) -> Uuid {
        self.outbound.id
    }

    /// Whether it has proved its identity.
    pub(super) fn is_authenticated(&self) -> bool {
        self.member.user.is_some()
    }

    /// The sender of its messages, as their receivers see it.
    pub(crate) fn sender(&self) -> &Sender {
        &self.sender
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    pub(super) fn resumes(&self) -> Option<Uuid> {
        self.resumes
    }

    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock()
    }

    /// Takes a place for a subscription to this text, until the result is dropped or the subscription is made.
    pub(super) fn reserve(&self, text: &TopicPattern, maker: Maker, most: usize) -> Result<Reserved<'_>, TopicError> {
        let mut subscriptions = self.subscriptions();
        if maker == Maker::Token {
            subscriptions.assigned.retain(|assigned| assigned != text);
        } else if maker == Maker::Client && subscriptions.assigned.contains(text) {
            return Err(TopicError::Subscribed(text.clone()));
        }
        let held = subscriptions.by_text.len();
        if subscriptions.is_closed {
            return Err(TopicError::Closing);
        }
        match subscriptions.by_text.entry(text.clone()) {
            Entry::Occupied(_) => Err(TopicError::Subscribed(text.clone())),
            Entry::Vacant(_) if held >= most => Err(TopicError::TooManySubscriptions(most)),
            Entry::Vacant(place) => {
                place.insert(None);
                Ok(Reserved { client: self, text: text.clone(), is_made: false })
            }
        }
    }

    /// Keeps a place for a subscription that the server is about to make. False if the client has it already.
    pub(crate) fn assign(&self, text: &TopicPattern) -> bool {
        let mut subscriptions = self.subscriptions();
        let is_new = !subscriptions.by_text.contains_key(text) && !subscriptions.assigned.contains(text);
        if is_new {
            subscriptions.assigned.push(text.clone());
        }
        is_new
    }

    /// Makes a subscription that there is already the operator's, so that no new token ends it.
    pub(crate) fn assign_to_operator(&self, text: &TopicPattern) {
        if let Some(Some(held)) = self.subscriptions().by_text.get_mut(text) {
            held.maker = Maker::Operator;
        }
    }

    /// Gives up a subscription that the server was about to make.
    pub(crate) fn unassign(&self, text: &TopicPattern) {
        self.subscriptions().assigned.retain(|assigned| assigned != text);
    }

    /// The texts of its subscriptions.
    pub(crate) fn subscribed(&self) -> Vec<TopicPattern> {
        let subscriptions = self.subscriptions();
        subscriptions.by_text.iter().filter(|(_, held)| held.is_some()).map(|(text, _)| text.clone()).collect()
    }

    /// Whether it gets a topic's messages by any of its subscriptions. Costs about as much as the topic has levels.
    pub(super) fn hears(&self, topic: &str) -> bool {
        let subscriptions = self.subscriptions();
        matches!(subscriptions.by_text.get(topic), Some(Some(_))) || subscriptions.patterns.covers(&Sought::new(topic))
    }

    /// What it was granted with a subscription; `None` if there is none to this text.
    pub(crate) fn subscription(&self, text: &TopicPattern) -> Option<Granted> {
        let subscriptions = self.subscriptions();
        let Subscription { watch, maker, catching_up, source, sees_inboxes, .. } =
            subscriptions.by_text.get(text)?.as_ref()?;
        let replays = matches!(source, Source::Consumer(_))
            || catching_up.as_ref().is_some_and(|replay| !replay.task.is_finished());
        let presence = *watch != Watch::Nothing;
        Some(Granted { presence, replays, inboxes: *sees_inboxes, maker: *maker })
    }

    /// A place on the control lane for a frame, and a token that is cancelled once the frame is there, or never will
    /// be.
    pub(super) fn control_marker(
        &self,
        frame: Option<Bytes>,
        overflow: Overflow,
    ) -> (ControlMarker, CancellationToken) {
        let there = CancellationToken::new();
        (
            ControlMarker { client: Arc::clone(&self.outbound), frame, overflow, _over: there.clone().drop_guard() },
            there,
        )
    }

    pub(super) fn is_present(&self) -> bool {
        self.is_present.load(Ordering::Relaxed)
    }

    /// Makes it a member of the topics that it subscribes to from now on; gives the texts of its present subscriptions.
    /// Called on its worker's thread, on which its subscriptions are made, so none comes in between.
    pub(super) fn appear(&self) -> Vec<TopicPattern> {
        self.is_present.store(true, Ordering::Relaxed);
        self.subscriptions().by_text.keys().cloned().collect()
    }

    /// The topic of a subscription by name, while there is one.
    pub(super) fn topic(&self, text: &TopicPattern) -> Option<Arc<Topic>> {
        self.subscriptions().by_text.get(text)?.as_ref()?.topic.clone()
    }

    /// The lane of a subscription; `None` for the control lane.
    pub(super) fn lane_of(&self, text: &TopicPattern) -> Option<u64> {
        self.subscriptions().by_text.get(text)?.as_ref()?.lane.number
    }

    /// The texts of the subscriptions that are bound to a lane.
    pub(super) fn bound_to(&self, lane: u64) -> Vec<TopicPattern> {
        let is_bound = |held: &Option<Subscription>| held.as_ref().is_some_and(|held| held.lane.number == Some(lane));
        let subscriptions = self.subscriptions();
        subscriptions.by_text.iter().filter(|(_, held)| is_bound(held)).map(|(text, _)| text.clone()).collect()
    }

    /// Its part in a durable consumer, while it has one.
    pub(super) fn membership(&self, topic: &TopicName, durable: &ConsumerName) -> Option<(Arc<Dispatcher>, MemberId)> {
        let subscriptions = self.subscriptions();
        let held = subscriptions.by_text.get(topic.as_str())?.as_ref()?;
        let Source::Consumer(membership) = &held.source else { return None };
        let is_meant = membership.dispatcher.name() == durable;
        is_meant.then(|| (Arc::clone(&membership.dispatcher), membership.id))
    }

    /// The durable consumer of a subscription, and its topic.
    pub(super) fn consumer(&self, text: &TopicPattern) -> Option<(Arc<Topic>, Arc<Dispatcher>)> {
        let subscriptions = self.subscriptions();
        let held = subscriptions.by_text.get(text)?.as_ref()?;
        let Source::Consumer(membership) = &held.source else { return None };
        Some((Arc::clone(held.topic.as_ref()?), Arc::clone(&membership.dispatcher)))
    }

    /// Begins a subscription's offer to answer requests, on the lane of its messages, unless it has ended with the
    /// subscription.
    pub(crate) fn begin_offer(&self, text: &TopicPattern, id: OfferId) {
        let subscriptions = self.subscriptions();
        if let Some(Some(Subscription { lane, offer: Some(offer), .. })) = subscriptions.by_text.get(text)
            && offer.id() == id
        {
            offer.begin(lane.number.map(|_| Arc::clone(&lane.writer)));
        }
    }

    /// Ends a subscription that is made, if it is the one that is meant; `None` if there is none.
    pub(super) fn take(
        &self,
        text: &TopicPattern,
        is_meant: impl FnOnce(&Subscription) -> bool,
    ) -> Option<Subscription> {
        let mut subscriptions = self.subscriptions();
        let held = subscriptions.by_text.get_mut(text)?.take_if(|held| is_meant(held))?;
        subscriptions.by_text.remove(text);
        if held.topic.is_none() {
            subscriptions.patterns.remove(text, |()| true);
        }
        Some(held)
    }

    /// Ends all subscriptions for good.
    pub(super) fn take_all(&self) -> Vec<(TopicPattern, Subscription)> {
        let mut subscriptions = self.subscriptions();
        subscriptions.is_closed = true;
        subscriptions.patterns = PatternIndex::default();
        subscriptions.by_text.drain().filter_map(|(text, held)| Some((text, held?))).collect()
    }
}

/// A place for a subscription.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    client: &'a Client,
    text: TopicPattern,
    is_made: bool,
}

impl Reserved<'_> {
    /// The subscription is made, and `make` enters it everywhere else: unless the client has left meanwhile.
    pub(super) fn make(mut self, make: impl FnOnce() -> Subscription) {
        let mut subscriptions = self.client.subscriptions();
        if !subscriptions.is_closed {
            let held = make();
            if held.topic.is_none() {
                subscriptions.patterns.add(&self.text, ());
            }
            subscriptions.by_text.insert(self.text.clone(), Some(held));
            self.is_made = true;
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.is_made {
            // If the client has left, there is nothing to give back.
            self.client.subscriptions().by_text.remove(&self.text);
        }
    }
}
