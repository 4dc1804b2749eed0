//! Which subscription a topic's message belongs to, what each has seen, and what has to be asked of the server for it.
//! A state machine without I/O: it is told what came and what the connection did, and tells what to send.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::entry::{Entry, Opened, Stage};
use super::queue::Queue;
use crate::connect::ClientError;
use crate::message::{ClientMessage, ClosedBy, ServerMessage, Subscribe, TopicPattern};

/// How long after an unsubscribe its messages are still expected: they overtake nothing, but lanes have no order among
/// each other.
const STRAGGLE: Duration = Duration::from_secs(10);
/// Of how many topics this is remembered at most.
const MAX_STRAGGLERS: usize = 64;

/// On what a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connect) enum Carrier {
    /// The control lane, where nobody may wait.
    Control,
    /// A topic lane, by its number.
    Lane(u64),
    /// A datagram.
    Datagram,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Offer {
    /// It is dealt with.
    Taken,
    /// It belongs to no subscription.
    Nobodys(ServerMessage),
    /// Whose it is shows once a subscription is answered that is under way.
    Unsettled(ServerMessage),
    /// Its subscription's queue has no room.
    Full(ServerMessage, Arc<Queue>),
}

/// Something to send to the server.
#[derive(Debug)]
pub(in crate::connect) struct Order {
    pub(in crate::connect) message: ClientMessage,
    /// Who waits for the reply. Without anybody it comes to [`Routes::settle`], or is of no interest.
    pub(in crate::connect) reply: Option<oneshot::Sender<ServerMessage>>,
}

/// A subscription that was dropped, and of which the server still has to be told.
#[derive(Debug)]
struct Leaving {
    topic: TopicPattern,
    reply: Option<oneshot::Sender<ServerMessage>>,
}

/// All subscriptions of a client.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// In the order in which they were made.
    entries: BTreeMap<u64, Entry>,
    by_text: HashMap<Box<str>, u64>,
    /// Those of `entries` that can match more than one topic, in the same order.
    patterns: Vec<u64>,
    /// Those that the server has to be asked for, by number.
    wanted: VecDeque<u64>,
    /// Which request asked for which.
    asked: HashMap<u64, u64>,
    leaving: VecDeque<Leaving>,
    left: VecDeque<(TopicPattern, Instant)>,
    next_entry: u64,
    is_connected: bool,
    closed: Option<ClosedBy>,
}

impl Routes {
    /// Adds a subscription; gives its number.
    pub(super) fn add(
        &mut self,
        request: Subscribe,
        queue: Arc<Queue>,
        opened: oneshot::Sender<Opened>,
    ) -> Result<u64, ClientError> {
        if let Some(closed) = &self.closed {
            return Err(ClientError::Closed { code: closed.code, reason: closed.reason.clone() });
        }
        let topic = request.topic.clone();
        if self.by_text.contains_key(topic.as_str()) {
            return Err(ClientError::AlreadySubscribed { topic: topic.as_str().to_owned() });
        }
        let number = self.next_entry;
        self.next_entry += 1;
        self.left.retain(|(left, _)| *left != topic);
        if topic.is_wildcard() {
            self.patterns.push(number);
        }
        self.by_text.insert(topic.as_str().into(), number);
        self.entries.insert(number, Entry::new(request, queue, opened));
        self.wanted.push_back(number);
        Ok(number)
    }

    /// Takes a subscription out, and has the server told where it knows of it. `reply` is dropped where it does not.
    pub(super) fn leave(&mut self, number: u64, reply: Option<oneshot::Sender<ServerMessage>>) {
        let Some(entry) = self.remove(number) else { return };
        entry.queue.abandon();
        if self.is_connected && entry.stage != Stage::Wanted {
            self.expect_stragglers(entry.request.topic.clone());
            self.leaving.push_back(Leaving { topic: entry.request.topic, reply });
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.by_text.remove(entry.request.topic.as_str());
        self.patterns.retain(|&pattern| pattern != number);
        Some(entry)
    }

    /// What is on its way for a topic that was left is nobody's.
    fn expect_stragglers(&mut self, topic: TopicPattern) {
        self.left.retain(|(_, at)| at.elapsed() < STRAGGLE);
        self.left.truncate(MAX_STRAGGLERS - 1);
        self.left.push_front((topic, Instant::now()));
    }

    /// There is a connection; the server knows of nothing yet.
    pub(super) fn connected(&mut self) {
        self.disconnected();
        self.is_connected = true;
        self.wanted = self.entries.keys().copied().collect();
    }

    /// The connection is gone, and with it what the server knew.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.asked.clear();
        self.leaving.clear();
        self.left.clear();
        for entry in self.entries.values_mut() {
            entry.stage = Stage::Wanted;
        }
    }

    /// The client is closed for good.
    pub(super) fn close(&mut self, closed: &ClosedBy) {
        self.disconnected();
        self.closed = Some(closed.clone());
        for (_, entry) in std::mem::take(&mut self.entries) {
            entry.close(closed);
        }
        self.by_text.clear();
        self.patterns.clear();
        self.wanted.clear();
    }

    /// What to send next, as request `id`. Farewells first: the same text may be wanted again.
    pub(super) fn next_order(&mut self, id: u64) -> Option<Order> {
        if let Some(Leaving { topic, reply }) = self.leaving.pop_front() {
            return Some(Order { message: ClientMessage::Unsubscribe { topic }, reply });
        }
        while let Some(number) = self.wanted.pop_front() {
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.stage = Stage::Asked;
                self.asked.insert(id, number);
                return Some(Order { message: ClientMessage::Subscribe(entry.to_ask()), reply: None });
            }
        }
        None
    }

    /// The reply to request `id`, where a subscription waits for it. Else gives it back.
    pub(super) fn settle(&mut self, id: u64, reply: ServerMessage) -> Option<ServerMessage> {
        let Some(number) = self.asked.remove(&id) else { return Some(reply) };
        // Who left meanwhile has said so to the server.
        let entry = self.entries.get_mut(&number)?;
        match reply {
            ServerMessage::Subscribed(subscribed) => entry.answered(subscribed),
            other => {
                if let Some(entry) = self.remove(number) {
                    entry.refused(other);
                }
            }
        }
        None
    }

    /// Hands a message to the subscription that it belongs to.
    pub(super) fn offer(&mut self, carrier: Carrier, message: ServerMessage) -> Offer {
        let (topic, of_presence) = match &message {
            ServerMessage::Message(message) => (message.topic.as_str(), false),
            ServerMessage::Gap { topic, .. } => (topic.as_str(), false),
            ServerMessage::Join { topic, .. } | ServerMessage::Leave { topic, .. } => (topic.as_str(), true),
            ServerMessage::Unsubscribed { .. } => return self.ended(message),
            _ => return Offer::Nobodys(message),
        };
        match self.find(carrier, topic, of_presence) {
            Found::One(number) => match self.entries.get_mut(&number) {
                Some(entry) => entry.deliver(carrier, message),
                None => Offer::Nobodys(message),
            },
            Found::Unsettled => Offer::Unsettled(message),
            Found::Straggler => Offer::Taken,
            Found::None => Offer::Nobodys(message),
        }
    }

    fn ended(&mut self, message: ServerMessage) -> Offer {
        let ServerMessage::Unsubscribed { topic, code, reason } = &message else { return Offer::Nobodys(message) };
        let number = self.by_text.get(topic.as_str()).copied();
        match number.and_then(|number| self.remove(number)) {
            Some(entry) => {
                self.expect_stragglers(entry.request.topic.clone());
                entry.end(*code, reason.clone().unwrap_or_default());
                Offer::Taken
            }
            None => Offer::Nobodys(message),
        }
    }

    /// Whose a message is: the exact text's, else that of the first pattern that matches. Where a subscription is being
    /// made or ended, what comes on the lane of one still belongs to that one.
    fn find(&self, carrier: Carrier, topic: &str, of_presence: bool) -> Found {
        let exact = self.by_text.get(topic);
        let matching = || {
            let of_patterns = self.patterns.iter().filter_map(|number| Some((*number, self.entries.get(number)?)));
            let exact = exact.and_then(|number| Some((*number, self.entries.get(number)?)));
            exact.into_iter().chain(of_patterns.filter(|(_, entry)| entry.request.topic.matches(topic)))
        };
        let live = |entry: &Entry| entry.stage == Stage::Live && (entry.request.presence || !of_presence);
        let on_its_lane = matching().find(|(_, entry)| live(entry) && entry.is_on(carrier));
        if let Some((number, _)) = on_its_lane {
            return Found::One(number);
        }
        // On the control lane the answer comes first, and is not to be waited for.
        if carrier != Carrier::Control && matching().any(|(_, entry)| entry.stage == Stage::Asked) {
            return Found::Unsettled;
        }
        if let Some((number, _)) = matching().find(|(_, entry)| live(entry)) {
            return Found::One(number);
        }
        let is_straggler = self.left.iter().any(|(left, at)| left.matches(topic) && at.elapsed() < STRAGGLE);
        // A member's news that nobody asked for is nobody's business either.
        if is_straggler || (of_presence && matching().next().is_some()) { Found::Straggler } else { Found::None }
    }
}

enum Found {
    One(u64),
    Unsettled,
    Straggler,
    None,
}
