//! The subscription of each message, the state of each subscription, and the requests that it needs. A state machine
//! without I/O: messages and changes of the connection go in, requests to the server come out.

mod dispatch;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::entry::{Entry, Opened, Origin, Stage};
use super::queue::{Queue, Seen};
use crate::ClientError;
use crate::link::unless_error;
use crate::message::{
    ClientMessage, ClosedBy, ErrorCode, ErrorReply, Json, MAX_HANDSHAKE_POSITIONS, Position, ServerMessage, Subscribe,
    Subscribed, TopicName, TopicPattern,
};

/// How long after an unsubscribe its messages may still arrive: lanes are not ordered among each other.
const STRAGGLER_WINDOW: Duration = Duration::from_secs(10);
/// Most subscriptions that are remembered for that.
const MAX_STRAGGLERS: usize = 1024;

/// The channel on which a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// The control lane, which nothing may hold up.
    Control,
    /// A topic lane, by its number.
    Lane(u64),
    /// A datagram.
    Datagram,
}

/// The outcome for a message.
#[derive(Debug)]
pub(super) enum Dispatch {
    /// It has been handled.
    Taken,
    /// It has ended a subscription, which is to be made again.
    Renewed,
    /// It belongs to no subscription.
    Unclaimed(ServerMessage),
    /// Its subscription is known once the server has answered an outstanding request.
    Unsettled(ServerMessage),
    /// Its subscription's queue has no room.
    Full(ServerMessage, Arc<Queue>),
}

/// A request to the server.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Its reply comes to [`Routes::settle`].
    pub(crate) message: ClientMessage,
}

/// Whether there is something to send now, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    New,
    /// A request that the server refused before, and allows at this time.
    Again(Instant),
}

/// A subscription that was added.
#[derive(Debug)]
pub(super) enum Added {
    /// The server is asked for it.
    New(u64),
    /// The server has made it already.
    Claimed(u64, Arc<Queue>, Option<Seen>),
}

/// A subscription that was dropped, and that the server has to end.
#[derive(Debug)]
struct Leaving {
    topic: TopicPattern,
    reply: Option<oneshot::Sender<ServerMessage>>,
    /// Whether its durable consumer ends as well.
    forget: bool,
    /// The time of the next attempt, if the server refused one.
    due: Option<Instant>,
}

/// A subscription that has recently ended.
#[derive(Debug)]
struct EndedSubscription {
    topic: TopicPattern,
    at: Instant,
    /// The channel of its messages, beside datagrams; `None` if the server had not answered.
    via: Option<Via>,
}

/// All subscriptions of a client.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// In the order in which they were made.
    entries: BTreeMap<u64, Entry>,
    by_text: HashMap<Box<str>, u64>,
    /// Those of `entries` that can match more than one topic, in the same order.
    patterns: Vec<u64>,
    /// The subscriptions to ask the server for, by number.
    wanted: VecDeque<u64>,
    /// The subscription of each outstanding request.
    asked: HashMap<u64, u64>,
    leaving: VecDeque<Leaving>,
    /// The outstanding `unsubscribe` requests.
    unsubscribing: HashMap<u64, Leaving>,
    recently_ended: VecDeque<EndedSubscription>,
    /// The time of the next attempt for subscriptions that the server refused, by number.
    deferred: BTreeMap<u64, Instant>,
    /// Subscriptions of the server that are to be announced on this connection.
    announced: HashSet<Box<str>>,
    /// Subscriptions of the server that the application has dropped.
    declined: HashSet<Box<str>>,
    next_entry: u64,
    is_connected: bool,
    closed: Option<ClosedBy>,
}

impl Routes {
    /// Adds a subscription, or gives one that the server has made to its reader.
    pub(super) fn add(
        &mut self,
        request: Subscribe,
        queue: Arc<Queue>,
        opened: oneshot::Sender<Opened>,
    ) -> Result<Added, ClientError> {
        if let Some(closed) = &self.closed {
            return Err(ClientError::Closed { code: closed.code, reason: closed.reason.clone() });
        }
        let topic = request.topic.clone();
        self.declined.remove(topic.as_str());
        if let Some(&number) = self.by_text.get(topic.as_str()) {
            let is_plain = request == Subscribe::new(topic.clone());
            let entry = self.entries.get_mut(&number).filter(|entry| entry.origin == Origin::Unclaimed);
            let Some(entry) = entry else {
                return Err(ClientError::AlreadySubscribed { topic: topic.as_str().to_owned() });
            };
            if is_plain {
                return Ok(Added::Claimed(number, entry.claim(), entry.position()));
            }
            // What the application asks for takes its place.
            self.leave(number, None, false);
            self.declined.remove(topic.as_str());
        }
        if self.announced.remove(topic.as_str()) {
            self.leave_unasked(topic.clone());
        }
        let number = self.insert(Entry::new(request, queue, opened));
        self.wanted.push_back(number);
        Ok(Added::New(number))
    }

    fn insert(&mut self, entry: Entry) -> u64 {
        let number = self.next_entry;
        self.next_entry += 1;
        let topic = &entry.request.topic;
        if topic.is_wildcard() {
            self.patterns.push(number);
        }
        self.by_text.insert(topic.as_str().into(), number);
        self.entries.insert(number, entry);
        number
    }

    /// Has the server end a subscription that it has made.
    fn leave_unasked(&mut self, topic: TopicPattern) {
        self.leaving.push_back(Leaving { topic, reply: None, forget: false, due: None });
    }

    /// The server has made a subscription. True if the application does not know it yet.
    fn announced(&mut self, subscribed: &Subscribed) -> bool {
        self.announced.remove(subscribed.topic.as_str());
        let Ok(topic) = TopicPattern::new(&subscribed.topic) else { return false };
        if self.declined.contains(topic.as_str()) {
            self.leave_unasked(topic);
            return false;
        }
        if let Some(number) = self.by_text.get(topic.as_str()) {
            // The application's own has taken its place, or it was expected.
            if let Some(entry) = self.entries.get_mut(number).filter(|entry| entry.is_expected()) {
                entry.answered(subscribed.clone());
            }
            return false;
        }
        let mut entry = Entry::of_server(topic);
        entry.answered(subscribed.clone());
        self.insert(entry);
        true
    }

    /// Positions of what the server makes by itself, for the next connection.
    pub(super) fn positions(&self) -> Vec<(TopicName, Position)> {
        let known = self.entries.values().filter(|entry| entry.origin != Origin::Client).filter_map(|entry| {
            let Seen { epoch, offset } = entry.position()?;
            let topic = TopicName::new(entry.request.topic.as_str()).ok()?;
            Some((topic, Position { epoch: epoch.as_ref().to_owned(), offset }))
        });
        known.take(MAX_HANDSHAKE_POSITIONS).collect()
    }

    /// Removes a subscription, and has the server end it. `reply` is dropped if the server does not know it.
    pub(super) fn leave(&mut self, number: u64, reply: Option<oneshot::Sender<ServerMessage>>, forget: bool) {
        let Some(entry) = self.remove(number) else { return };
        entry.queue.abandon();
        if entry.origin != Origin::Client {
            self.declined.insert(entry.request.topic.as_str().into());
        }
        if self.is_connected && matches!(entry.stage, Stage::Asked | Stage::Live) {
            self.remember_ended(&entry);
            self.leaving.push_back(Leaving { topic: entry.request.topic, reply, forget, due: None });
        }
    }

    /// Sets the state with which a subscription is made again.
    pub(super) fn keep_state(&mut self, number: u64, state: Option<Json>) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.request.state = state;
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.by_text.remove(entry.request.topic.as_str());
        self.deferred.remove(&number);
        self.patterns.retain(|&pattern| pattern != number);
        Some(entry)
    }

    /// Messages in flight for a subscription that has ended are dropped.
    fn remember_ended(&mut self, entry: &Entry) {
        self.recently_ended.retain(|left| left.at.elapsed() < STRAGGLER_WINDOW);
        self.recently_ended.truncate(MAX_STRAGGLERS - 1);
        self.recently_ended.push_front(EndedSubscription {
            topic: entry.request.topic.clone(),
            at: Instant::now(),
            via: (entry.stage == Stage::Live).then(|| entry.via()),
        });
    }

    /// A connection begins, on which the server knows no subscription, but makes these.
    pub(super) fn connected(&mut self, announced: &[String]) {
        self.disconnected();
        self.is_connected = true;
        self.announced = announced.iter().map(|text| text.as_str().into()).collect();
        self.expect_announced();
        // Topics first: a message that came by a pattern in between would come again when its topic is resumed.
        let topics = self.entries.iter().filter(|(_, entry)| !entry.request.topic.is_wildcard());
        let all = topics.map(|(number, _)| *number).chain(self.patterns.iter().copied());
        let is_wanted = |number: &u64| self.entries.get(number).is_some_and(|entry| !entry.is_expected());
        self.wanted = all.filter(is_wanted).collect();
    }

    /// What the server makes by itself is not asked for; what it no longer makes has ended.
    fn expect_announced(&mut self) {
        let mut gone = Vec::new();
        let mut replaced = Vec::new();
        for (number, entry) in &mut self.entries {
            let text = entry.request.topic.as_str();
            match (entry.origin, self.announced.contains(text)) {
                (Origin::Client, true) => replaced.push(entry.request.topic.clone()),
                (Origin::Client, false) => {}
                (_, true) => entry.stage = Stage::Asked,
                (_, false) => gone.push(*number),
            }
        }
        for topic in replaced {
            self.announced.remove(topic.as_str());
            self.leave_unasked(topic);
        }
        for entry in gone.into_iter().filter_map(|number| self.remove(number)) {
            let reason = "the server does not make this subscription any more";
            entry.end(ErrorReply::new(ErrorCode::Forbidden.number(), reason));
        }
    }

    /// The connection has ended, and with it the server's subscriptions.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.asked.clear();
        self.announced.clear();
        self.leaving.clear();
        self.unsubscribing.clear();
        self.recently_ended.clear();
        self.deferred.clear();
        for entry in self.entries.values_mut() {
            entry.disconnected();
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

    /// Whether [`next_request`](Self::next_request) has a message.
    pub(super) fn next(&self) -> Next {
        let now = Instant::now();
        if let Some(leaving) = self.leaving.iter().find(|leaving| leaving.due.is_none_or(|due| due <= now)) {
            return leaving.due.map_or(Next::New, Next::Again);
        }
        match (self.first_due(now), self.wanted.iter().any(|number| !self.has_to_wait(*number))) {
            (Some((_, due)), _) => Next::Again(due),
            (None, true) => Next::New,
            (None, false) => Next::Nothing,
        }
    }

    /// The next message to send, as request `id`. `unsubscribe` goes first: the same text may be subscribed to again.
    pub(super) fn next_request(&mut self, id: u64) -> Option<Outgoing> {
        let now = Instant::now();
        let farewell = self.leaving.iter().position(|leaving| leaving.due.is_none_or(|due| due <= now));
        if let Some(leaving) = farewell.and_then(|at| self.leaving.remove(at)) {
            let (topic, forget) = (leaving.topic.clone(), leaving.forget);
            self.unsubscribing.insert(id, leaving);
            return Some(Outgoing { message: ClientMessage::Unsubscribe { topic, forget } });
        }
        while let Some(number) = self.next_due(now).or_else(|| self.next_wanted()) {
            if let Some(entry) = self.entries.get_mut(&number) {
                self.asked.insert(id, number);
                return Some(Outgoing { message: entry.ask() });
            }
        }
        None
    }

    /// Whether the server still has to end an earlier subscription to the same text.
    fn is_still_leaving(&self, number: u64) -> bool {
        let text = self.entries.get(&number).map(|entry| entry.request.topic.as_str());
        text.is_some_and(|text| self.leaving.iter().any(|leaving| leaving.topic.as_str() == text))
    }

    /// Whether another request has to go first: the `unsubscribe` of an earlier subscription to the same text, or, for
    /// a pattern, the `subscribe` of a topic that is resumed and that it matches.
    fn has_to_wait(&self, number: u64) -> bool {
        let Some(entry) = self.entries.get(&number) else { return false };
        let pattern = &entry.request.topic;
        let precedes = |entry: &Entry| entry.is_to_be_resumed() && pattern.matches(entry.request.topic.as_str());
        self.is_still_leaving(number) || (pattern.is_wildcard() && self.entries.values().any(precedes))
    }

    fn next_wanted(&mut self) -> Option<u64> {
        let at = self.wanted.iter().position(|number| !self.has_to_wait(*number))?;
        self.wanted.remove(at)
    }

    fn first_due(&self, now: Instant) -> Option<(u64, Instant)> {
        let due = self.deferred.iter().filter(|(number, at)| **at <= now && !self.has_to_wait(**number));
        due.map(|(number, at)| (*number, *at)).min_by_key(|(_, at)| *at)
    }

    /// A deferred subscription that is due.
    fn next_due(&mut self, now: Instant) -> Option<u64> {
        let (number, _) = self.first_due(now)?;
        self.deferred.remove(&number);
        Some(number)
    }

    /// The next time at which [`next_request`](Self::next_request) has a message that is not due yet.
    pub(super) fn next_due_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let due = self.deferred.values().copied().chain(self.leaving.iter().filter_map(|leaving| leaving.due));
        due.filter(|due| *due > now).min()
    }

    /// Whether messages are expected on a topic lane.
    pub(super) fn is_bound(&self, lane: u64) -> bool {
        self.is_connected
            && self.entries.values().any(|entry| entry.stage == Stage::Live && entry.is_on(Via::Lane(lane)))
    }

    /// Handles the reply to request `id` if a subscription waits for it; otherwise gives it back.
    pub(super) fn settle(&mut self, id: u64, reply: ServerMessage) -> Option<ServerMessage> {
        if let Some(leaving) = self.unsubscribing.remove(&id) {
            self.unsubscribe_answered(leaving, reply);
            return None;
        }
        let Some(number) = self.asked.remove(&id) else { return Some(reply) };
        // A subscription that has ended in the meantime has its own request.
        let entry = self.entries.get_mut(&number)?;
        match reply {
            reply if entry.stage == Stage::Locating => match entry.located(reply) {
                Ok(()) => self.wanted.push_back(number),
                Err(error) => self.refused(number, error),
            },
            ServerMessage::Subscribed(subscribed) => entry.answered(subscribed),
            other => {
                let got = other.type_name();
                let error = unless_error(other).err().unwrap_or(ClientError::Unexpected { asked: "subscribe", got });
                self.refused(number, error);
            }
        }
        None
    }

    /// The reply to an `unsubscribe`. If it was refused for now, it is sent again, else the server would go on sending.
    fn unsubscribe_answered(&mut self, leaving: Leaving, reply: ServerMessage) {
        if let Some(retry_after) = refused_for(&reply) {
            self.leaving.push_back(Leaving { due: Some(Instant::now() + retry_after), ..leaving });
        } else if let Some(waiting) = leaving.reply {
            // The caller may have given up.
            let _ = waiting.send(reply);
        }
    }

    /// The last refusal of a subscription that the server has not accepted yet.
    pub(super) fn refusal(&self, number: u64) -> Option<ErrorReply> {
        self.entries.get(&number)?.refusal.clone()
    }

    /// Request `id` could not be sent.
    pub(super) fn unsendable(&mut self, id: u64, error: ClientError) {
        self.unsubscribing.remove(&id);
        if let Some(number) = self.asked.remove(&id) {
            self.refused(number, error);
        }
    }

    fn refused(&mut self, number: u64, error: ClientError) {
        // The `unsubscribe` of the one before was refused and is still to come, so this passes.
        let is_early = matches!(&error, ClientError::Server(error) if error.code == ErrorCode::Conflict.number())
            && self.is_still_leaving(number);
        match self.entries.get_mut(&number).and_then(|entry| entry.refused(error, is_early)) {
            Some(again) => drop(self.deferred.insert(number, again)),
            None => drop(self.remove(number)),
        }
    }
}

/// How long to wait before a request that exceeded the rate is sent again.
pub(crate) fn refused_for(reply: &ServerMessage) -> Option<Duration> {
    match reply {
        ServerMessage::Error(error) if error.code == ErrorCode::RateLimited.number() => {
            error.retry_after_ms.map(Duration::from_millis)
        }
        _ => None,
    }
}
