//! One subscription as the client keeps it: what was asked for, and what was seen. Pure; called by `routes`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::event::{Missed, TopicEvent};
use super::queue::{Item, Keep, Queue, Seen};
use super::routes::{Dispatch, Via};
use crate::ClientError;
use crate::backoff::Backoff;
use crate::message::{ClosedBy, DeliveryMode, ErrorCode, ErrorReply, Position, ServerMessage, Subscribe, Subscribed};

/// Refusals that time can heal: a subscription that was there is tried again.
const PASSING: [u16; 3] = [ErrorCode::RateLimited as u16, ErrorCode::Internal as u16, ErrorCode::Unavailable as u16];

/// The answer to a new subscription: its first position, or why there is none.
pub(super) type Opened = Result<Option<Seen>, ClientError>;

/// How far a subscription is on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The server has not been asked.
    Wanted,
    /// It has not answered.
    Asked,
    /// It sends.
    Live,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// What was asked for at first.
    pub(super) request: Subscribe,
    pub(super) queue: Arc<Queue>,
    pub(super) stage: Stage,
    /// Who made it and waits for the first answer; `None` once that is there.
    opened: Option<oneshot::Sender<Opened>>,
    /// What was put into the queue, or was before: nothing up to there is put in again. `None` for a pattern, and before
    /// the first answer.
    seen: Option<Seen>,
    /// Behind what to go on where recent messages were asked for and none is there yet. Where these begin is not told, and
    /// offsets may jump: so nothing is taken for an old one because of this.
    begin: Option<u64>,
    /// Up to this offset it was told already that not everything is there, or never asked for.
    told: u64,
    lane: Option<u64>,
    /// The tries since the server took it.
    backoff: Backoff,
    /// Why the server has not taken it yet, where that may heal.
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
            opened: Some(opened),
            seen,
            begin: None,
            told: 0,
            lane: None,
            backoff: Backoff::default(),
            refusal: None,
        }
    }

    fn is_datagram(&self) -> bool {
        self.request.delivery == DeliveryMode::Datagram
    }

    /// Whether the newest message of a topic is all that is of interest.
    fn newest_wins(&self) -> bool {
        self.is_datagram() || self.queue.keep() == Keep::Newest
    }

    /// What to ask the server for.
    pub(super) fn to_ask(&self) -> Subscribe {
        // Newest wins: with datagrams, what was missed is of no interest.
        let mut ask = self.request.clone();
        if self.opened.is_some() {
            return ask;
        }
        if self.is_datagram() {
            ask.since = None;
            return ask;
        }
        ask.recent = None;
        ask.since = self.seen.as_ref().map(|seen| {
            let offset = seen.offset.max(self.begin.unwrap_or(0));
            Position { epoch: seen.epoch.as_ref().to_owned(), offset }
        });
        ask
    }

    /// On what its messages come, beside datagrams. Of use once it was answered.
    pub(super) fn via(&self) -> Via {
        self.lane.map_or(Via::Control, Via::Lane)
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
        self.refusal = None;
        let is_renewed = self.opened.is_none();
        match (subscribed.epoch, subscribed.offset) {
            (Some(epoch), Some(newest)) if !self.request.topic.is_wildcard() => {
                let had_seen = self.seen.is_some();
                let is_news = self.compare(epoch, newest) || newest > self.told;
                if subscribed.recovered != Some(true) {
                    let is_of_interest = !self.newest_wins() || !is_renewed;
                    if had_seen && is_news && is_of_interest {
                        self.missed(subscribed.reason.unwrap_or_else(|| "the topic's log does not reach back".into()));
                    }
                    self.told = newest;
                }
            }
            _ if is_renewed && !self.newest_wins() => {
                self.missed("the connection was lost meanwhile, and a pattern has no position".into());
            }
            _ => {}
        }
        if let Some(opened) = self.opened.take() {
            // Whoever gave up takes it out as well.
            let _ = opened.send(Ok(self.seen.clone()));
        }
    }

    /// Sets what was seen against what the log is now. True where that is in another life than before, or has lost
    /// what was seen: offsets are given anew then.
    fn compare(&mut self, epoch: String, newest: u64) -> bool {
        match &mut self.seen {
            Some(seen) if *seen.epoch == *epoch => {
                let is_ahead = newest < seen.offset;
                seen.offset = seen.offset.min(newest);
                is_ahead
            }
            Some(_) => {
                self.begin = None;
                self.seen = Some(Seen { epoch: epoch.into(), offset: 0 });
                true
            }
            None => {
                let recent = self.request.recent.filter(|&recent| recent > 0);
                self.begin = recent.map(|recent| newest.saturating_sub(recent));
                self.seen = Some(Seen { epoch: epoch.into(), offset: if recent.is_some() { 0 } else { newest } });
                false
            }
        }
    }

    fn missed(&self, reason: String) {
        let topic = self.request.topic.as_str().to_owned();
        let event = TopicEvent::Missed(Missed { topic, offsets: None, reason });
        self.queue.push(Item { event, position: self.seen.clone() });
    }

    /// Puts a topic's message into the queue, unless it has been there.
    pub(super) fn deliver(&mut self, via: Via, message: ServerMessage) -> Dispatch {
        if self.newest_wins() && matches!(message, ServerMessage::Gap { .. }) {
            // It may span what came as datagrams, and what was missed is of no interest.
            return Dispatch::Taken;
        }
        let (first, last) = match &message {
            ServerMessage::Message(message) => (Some(message.offset), Some(message.offset)),
            ServerMessage::Gap { first, last, .. } => (Some(*first.min(last)), Some(*last)),
            _ => (None, None),
        };
        let mut position = None;
        if let (Some(seen), Some(last)) = (&self.seen, last) {
            if last <= seen.offset {
                return Dispatch::Taken;
            }
            position = Some(Seen { offset: last, ..seen.clone() });
        }
        // Of a gap that was told in part, the rest.
        let first = first.map(|first| self.seen.as_ref().map_or(first, |seen| first.max(seen.offset + 1)));
        let waits = matches!(via, Via::Lane(_)) && !self.newest_wins();
        if waits && !self.queue.has_room() {
            return Dispatch::Full(message, Arc::clone(&self.queue));
        }
        let event = match message {
            ServerMessage::Message(message) => TopicEvent::Message(message),
            ServerMessage::Gap { topic, last, reason, .. } => TopicEvent::Missed(Missed {
                // That of a pattern stands for messages of many topics, and has no offsets.
                offsets: first.filter(|_| last > 0).map(|first| first..=last),
                topic,
                reason: reason.unwrap_or_else(|| "the server dropped them".into()),
            }),
            ServerMessage::Join { topic, client } => TopicEvent::Join { topic, member: client },
            ServerMessage::Leave { topic, client } => TopicEvent::Leave { topic, member: client },
            other => return Dispatch::Nobodys(other),
        };
        if let Some(position) = &position {
            self.seen = Some(position.clone());
            self.begin = None;
            // What is lost behind it is another loss.
            self.told = 0;
        }
        let item = Item { event, position };
        if waits {
            self.queue.push(item);
        } else {
            self.queue.push_out(item, !self.newest_wins());
        }
        Dispatch::Taken
    }

    /// It cannot be made, or be made anew just now: gives when to try again. `None` where it is over. `is_early` where the
    /// server will take it in a moment.
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
                error.retry_after_ms.map_or(backoff, Duration::from_millis)
            }
            (None, ClientError::Server(error)) => {
                self.queue.end(error.code, error.message);
                return None;
            }
            (None, error) => {
                self.queue.end(ErrorCode::Internal.number(), error.to_string());
                return None;
            }
        };
        self.stage = Stage::Wanted;
        Some(Instant::now() + delay)
    }

    /// The server ended it.
    pub(super) fn end(mut self, code: u16, reason: String) {
        // Nobody has been told that it began.
        if let Some(opened) = self.opened.take() {
            return drop(opened.send(Err(ClientError::Server(ErrorReply::new(code, reason)))));
        }
        self.queue.end(code, reason);
    }

    /// The client is closed for good.
    pub(super) fn close(mut self, closed: &ClosedBy) {
        match self.opened.take() {
            Some(opened) => {
                let error = ClientError::Closed { code: closed.code, reason: closed.reason.clone() };
                drop(opened.send(Err(error)));
            }
            None => self.queue.end(closed.code.0, closed.reason.clone()),
        }
    }
}

/// Whether that is healed by waiting as told, also for who asks for the first time.
fn too_often(error: &ErrorReply) -> bool {
    error.code == ErrorCode::RateLimited.number() && error.retry_after_ms.is_some()
}
