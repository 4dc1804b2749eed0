//! One subscription as the client keeps it: what was asked for, and what has been seen. Pure; called by `routes`.

mod locate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::event::{Ended, Missed, TopicEvent};
use super::queue::{Item, Keep, Queue, Seen};
use super::routes::{Dispatch, Via};
use super::subscribe::DEFAULT_QUEUE;
use crate::ClientError;
use crate::backoff::Backoff;
use crate::message::{
    ClientMessage, ClosedBy, DeliveryMode, ErrorCode, ErrorReply, LaneChoice, Position, ServerMessage, Subscribe,
    Subscribed, TopicPattern,
};

/// Refusals that may pass: a subscription that was live is tried again.
const PASSING: [u16; 3] = [ErrorCode::RateLimited as u16, ErrorCode::Internal as u16, ErrorCode::Unavailable as u16];

/// The answer to a new subscription: its first position, or the error.
pub(super) type Opened = Result<Option<Seen>, ClientError>;

/// How far a subscription is on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The server has not been asked.
    Wanted,
    /// The server has been asked where the recent messages begin, and has not answered.
    Locating,
    /// The server has been asked, and has not answered.
    Asked,
    /// The server sends its messages.
    Live,
}

/// The messages of a subscription with `recent` that have not come yet.
#[derive(Debug, Clone, Copy)]
struct Recent {
    count: u64,
    /// The newest offset when they were asked for.
    newest: u64,
}

/// Who has made a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The application.
    Client,
    /// The server, and the application reads it.
    Server,
    /// The server, and the application does not read it yet.
    Unclaimed,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The first request.
    pub(super) request: Subscribe,
    pub(super) queue: Arc<Queue>,
    pub(super) stage: Stage,
    pub(super) origin: Origin,
    /// The caller that waits for the first answer; `None` once it has come.
    opened: Option<oneshot::Sender<Opened>>,
    /// The last position that was put into the queue, or the first one: nothing up to there is put in again. `None` for
    /// a pattern, and before the first answer.
    seen: Option<Seen>,
    /// Recent messages that were asked for, until the first of them comes. Where they begin is not known, because
    /// offsets may jump: so none of them is mistaken for an old one, and after a reconnect the client asks for it.
    recent: Option<Recent>,
    /// Messages up to this offset are known to be incomplete, or were not asked for.
    reported: u64,
    lane: Option<u64>,
    /// The server failed to resume it (error 500 or 503), and may go on failing.
    is_failing: bool,
    /// The attempts since the server last accepted it.
    backoff: Backoff,
    /// The last refusal that may pass, while the server has not accepted the subscription.
    pub(super) refusal: Option<ErrorReply>,
}

impl Entry {
    pub(super) fn new(request: Subscribe, queue: Arc<Queue>, opened: oneshot::Sender<Opened>) -> Self {
        let seen =
            request.since.as_ref().map(|since| Seen { epoch: since.epoch.as_str().into(), offset: since.offset });
        Self {
            request,
            queue,
            stage: Stage::Wanted,
            origin: Origin::Client,
            opened: Some(opened),
            seen,
            recent: None,
            reported: 0,
            lane: None,
            is_failing: false,
            backoff: Backoff::default(),
            refusal: None,
        }
    }

    /// One that the server has made, for the application to find.
    pub(super) fn of_server(topic: TopicPattern) -> Self {
        let queue = Queue::new(topic.as_str(), DEFAULT_QUEUE, Keep::All);
        let (opened, _) = oneshot::channel();
        let request = Subscribe::new(topic);
        // Until it is announced it is new, with no caller who waits.
        Self { origin: Origin::Unclaimed, stage: Stage::Asked, ..Self::new(request, queue, opened) }
    }

    /// The application reads it from now on.
    pub(super) fn claim(&mut self) -> Arc<Queue> {
        self.origin = Origin::Server;
        Arc::clone(&self.queue)
    }

    /// Whether the server makes it by itself, and has not announced it on this connection.
    pub(super) fn is_expected(&self) -> bool {
        self.origin != Origin::Client && self.stage == Stage::Asked
    }

    /// Whether it resumes at a position, and its request is about to be sent: it was neither answered nor refused for
    /// another reason than the rate.
    pub(super) fn is_to_be_resumed(&self) -> bool {
        let is_next = match self.stage {
            Stage::Locating => true,
            Stage::Wanted => !self.is_failing,
            Stage::Asked | Stage::Live => false,
        };
        is_next && self.opened.is_none() && self.seen.is_some() && !self.is_datagram()
    }

    fn is_datagram(&self) -> bool {
        self.request.delivery == DeliveryMode::Datagram
    }

    /// Whether it gets what happens to the topic's members.
    pub(super) fn wants_members(&self) -> bool {
        self.request.presence || self.request.occupancy
    }

    /// The name of its durable consumer, if it has one.
    pub(super) fn durable(&self) -> Option<&str> {
        Some(self.request.consumer.as_ref()?.durable()?.name.as_str())
    }

    /// Whether the server decides which messages come, and perhaps again: those of a durable consumer or queue group.
    /// Then there is no position: nothing is left out as seen, and nothing is resumed after it.
    fn has_no_position(&self) -> bool {
        self.request.consumer.is_some()
    }

    /// The connection has ended. A consumer delivers again what was not acknowledged, perhaps to another client.
    pub(super) fn disconnected(&mut self) {
        self.stage = Stage::Wanted;
        if self.durable().is_some() {
            self.queue.drop_messages();
        }
    }

    /// Whether only the newest message of a topic matters.
    fn newest_wins(&self) -> bool {
        self.is_datagram() || self.queue.keep() == Keep::Newest
    }

    /// The next request to the server.
    pub(super) fn ask(&mut self) -> ClientMessage {
        if let Some(locate) = self.locate() {
            self.stage = Stage::Locating;
            return locate;
        }
        self.stage = Stage::Asked;
        ClientMessage::Subscribe(self.subscribe())
    }

    fn subscribe(&self) -> Subscribe {
        let mut subscribe = self.request.clone();
        if self.opened.is_some() {
            return subscribe;
        }
        if self.is_datagram() {
            // Newest wins: what was missed does not matter.
            (subscribe.since, subscribe.since_time) = (None, None);
            return subscribe;
        }
        (subscribe.since, subscribe.since_time, subscribe.recent) = (None, None, None);
        if self.has_no_position() {
            return subscribe;
        }
        subscribe.since =
            self.seen.as_ref().map(|seen| Position { epoch: seen.epoch.as_ref().to_owned(), offset: seen.offset });
        subscribe
    }

    /// The channel that carries its messages, beside datagrams. Meaningful once the server has answered.
    pub(super) fn via(&self) -> Via {
        self.lane.map_or(Via::Control, Via::Lane)
    }

    /// Whether the server has ended it with this code because the lane that it was bound to has ended, that of a second
    /// WebSocket.
    pub(super) fn lost_lane(&self, code: u16) -> bool {
        let is_bulk = self.request.lane == LaneChoice::Bulk && self.lane.is_some();
        is_bulk && self.stage == Stage::Live && code == ErrorCode::Unavailable.number()
    }

    /// Whether its messages are expected there.
    pub(super) fn is_on(&self, via: Via) -> bool {
        via == self.via() || (via == Via::Datagram && self.is_datagram())
    }

    /// The server sends from now on.
    pub(super) fn answered(&mut self, subscribed: Subscribed) {
        self.stage = Stage::Live;
        self.lane = subscribed.lane;
        self.backoff = Backoff::default();
        self.is_failing = false;
        self.refusal = None;
        let is_renewed = self.opened.is_none();
        match (subscribed.epoch, subscribed.offset) {
            (Some(epoch), Some(newest)) if self.has_no_position() => {
                self.began(epoch, newest, is_renewed, (subscribed.recovered, subscribed.reason));
            }
            (Some(epoch), Some(newest)) if !self.request.topic.is_wildcard() => {
                let had_seen = self.seen.is_some();
                let is_recovered = subscribed.recovered == Some(true);
                let is_news = self.compare(epoch, newest) || newest > self.reported;
                if !is_recovered {
                    let is_of_interest = !self.newest_wins() || !is_renewed;
                    if !is_renewed {
                        self.expect_recent(newest);
                    }
                    if had_seen && is_news && is_of_interest {
                        self.missed(subscribed.reason.unwrap_or_else(|| "the topic's log does not reach back".into()));
                    }
                    self.reported = newest;
                }
            }
            _ if is_renewed && !self.newest_wins() => {
                self.missed("the connection was lost meanwhile, and a pattern has no position".into());
            }
            _ => {}
        }
        if let Some(opened) = self.opened.take() {
            // A caller that has given up removes the subscription itself.
            let _ = opened.send(Ok(self.position()));
        }
    }

    /// A consumer or queue group is there, on a log of this epoch. Reports what it cannot deliver.
    fn began(&mut self, epoch: String, newest: u64, is_renewed: bool, lost: (Option<bool>, Option<String>)) {
        let before = self.seen.replace(Seen { epoch: epoch.as_str().into(), offset: newest });
        let (recovered, reason) = lost;
        if !is_renewed && recovered == Some(false) {
            self.missed(reason.unwrap_or_else(|| "the topic's log does not reach back".into()));
        } else if is_renewed && self.durable().is_some() && before.is_some_and(|before| *before.epoch != *epoch) {
            self.missed("the topic's log was started again".into());
        }
    }

    /// Compares what was seen with the log as it is now. True if the log was started again, or has lost what was seen:
    /// offsets are then assigned again.
    fn compare(&mut self, epoch: String, newest: u64) -> bool {
        match &mut self.seen {
            Some(seen) if *seen.epoch == *epoch => {
                let is_ahead = newest < seen.offset;
                seen.offset = seen.offset.min(newest);
                is_ahead
            }
            Some(_) => {
                self.recent = None;
                self.seen = Some(Seen { epoch: epoch.into(), offset: 0 });
                true
            }
            None => {
                self.seen = Some(Seen { epoch: epoch.into(), offset: newest });
                false
            }
        }
    }

    /// Recent messages follow, up to this offset; the oldest may have any.
    fn expect_recent(&mut self, newest: u64) {
        let Some(count) = self.request.recent.filter(|&count| count > 0 && newest > 0) else { return };
        let Some(seen) = &mut self.seen else { return };
        if seen.offset >= newest {
            seen.offset = 0;
        }
        self.recent = Some(Recent { count, newest });
    }

    /// The position from which to resume; none while recent messages are to come, which would come after all others.
    pub(super) fn position(&self) -> Option<Seen> {
        self.seen.clone().filter(|_| self.recent.is_none() && !self.has_no_position())
    }

    fn missed(&self, reason: String) {
        let topic = self.request.topic.as_str().to_owned();
        let event = TopicEvent::Missed(Missed { topic, offsets: None, reason });
        self.queue.push(Item { event, position: self.position() });
    }

    /// Puts a topic's message into the queue, unless it has been there.
    pub(super) fn deliver(&mut self, via: Via, message: ServerMessage) -> Dispatch {
        if self.newest_wins() && matches!(message, ServerMessage::Gap { .. }) {
            // It may span messages that came as datagrams, and what was missed does not matter.
            return Dispatch::Taken;
        }
        let (first, last) = match &message {
            ServerMessage::Message(message) => (Some(message.offset), Some(message.offset)),
            ServerMessage::Gap { first, last, .. } => (Some(*first.min(last)), Some(*last)),
            _ => (None, None),
        };
        let seen = self.seen.as_ref().filter(|_| !self.has_no_position());
        let mut position = None;
        if let (Some(seen), Some(last)) = (seen, last) {
            if last <= seen.offset {
                return Dispatch::Taken;
            }
            position = Some(Seen { offset: last, ..seen.clone() });
        }
        // The rest of a gap of which a part has been reported.
        let first = first.map(|first| seen.map_or(first, |seen| first.max(seen.offset + 1)));
        let Some(message) = self.waits_again(message) else { return Dispatch::Taken };
        // Nothing waits for an application that does not read it.
        let waits = matches!(via, Via::Lane(_)) && !self.newest_wins() && self.origin != Origin::Unclaimed;
        if waits && !self.queue.has_room() {
            return Dispatch::Full(message, Arc::clone(&self.queue));
        }
        let event = match message {
            ServerMessage::Message(message) => TopicEvent::Message(message),
            ServerMessage::Gap { topic, last, reason, .. } => TopicEvent::Missed(Missed {
                // A pattern's gap is about messages of many topics, and has no offsets.
                offsets: first.filter(|_| last > 0).map(|first| first..=last),
                topic,
                reason: reason.unwrap_or_else(|| "the server dropped them".into()),
            }),
            ServerMessage::Join { topic, client } => TopicEvent::Join { topic, member: client },
            ServerMessage::Leave { topic, client } => TopicEvent::Leave { topic, member: client },
            ServerMessage::State { topic, client } => TopicEvent::State { topic, member: client },
            ServerMessage::Return { topic, client, was } => TopicEvent::Return { topic, member: client, was },
            ServerMessage::Occupancy { topic, clients, users } => TopicEvent::Occupancy { topic, clients, users },
            other => return Dispatch::Unclaimed(other),
        };
        if let Some(position) = &position {
            self.seen = Some(position.clone());
            self.recent = None;
            // A loss behind it is another loss.
            self.reported = 0;
        }
        let item = Item { event, position };
        if waits {
            self.queue.push(item);
        } else {
            self.queue.push_out(item, !self.newest_wins());
        }
        Dispatch::Taken
    }

    /// A message that a durable consumer delivers again takes the place of the same message if that was not read yet.
    fn waits_again(&self, message: ServerMessage) -> Option<ServerMessage> {
        match message {
            ServerMessage::Message(message) if message.tries.is_some() => {
                self.queue.replace(message).map(ServerMessage::Message)
            }
            message => Some(message),
        }
    }

    /// The server refused it. Gives the time of the next attempt, or `None` if the subscription has ended. `is_early`
    /// if the server has not yet heard that the subscription before has ended.
    pub(super) fn refused(&mut self, error: ClientError, is_early: bool) -> Option<Instant> {
        let delay = match (self.opened.take(), error) {
            (opened, ClientError::Server(error)) if is_early || too_often(&error) => {
                self.opened = opened;
                let delay = error.retry_after_ms.map_or_else(|| self.backoff.next_delay(), Duration::from_millis);
                self.refusal = Some(error);
                delay
            }
            (Some(opened), error) => {
                let _ = opened.send(Err(error));
                return None;
            }
            (None, ClientError::Server(error)) if PASSING.contains(&error.code) => {
                let backoff = self.backoff.next_delay();
                self.is_failing = true;
                error.retry_after_ms.map_or(backoff, Duration::from_millis)
            }
            (None, ClientError::Server(error)) => {
                self.queue.end(Ended::ByServer(error));
                return None;
            }
            (None, error) => {
                self.queue.end(Ended::NotResumed { reason: error.to_string() });
                return None;
            }
        };
        self.stage = Stage::Wanted;
        Some(Instant::now() + delay)
    }

    /// The server ended it.
    pub(super) fn end(mut self, error: ErrorReply) {
        // The caller has not been reported that it began.
        if let Some(opened) = self.opened.take() {
            return drop(opened.send(Err(ClientError::Server(error))));
        }
        let is_taken_over = self.durable().is_some() && error.code == ErrorCode::Conflict.number();
        self.queue.end(match is_taken_over {
            true => Ended::TakenOver { reason: error.message },
            false => Ended::ByServer(error),
        });
    }

    /// The client is closed for good.
    pub(super) fn close(mut self, closed: &ClosedBy) {
        match self.opened.take() {
            Some(opened) => {
                let error = ClientError::Closed { code: closed.code, reason: closed.reason.clone() };
                drop(opened.send(Err(error)));
            }
            None => self.queue.end(Ended::Closed(closed.clone())),
        }
    }
}

/// Whether the server will accept it at the time that it named, also as the first request.
fn too_often(error: &ErrorReply) -> bool {
    error.code == ErrorCode::RateLimited.number() && error.retry_after_ms.is_some()
}
