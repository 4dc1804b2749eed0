//! The subscription that a message belongs to, by its topic and the lane on which it comes.

use super::{Dispatch, EndedSubscription, Routes, STRAGGLER_WINDOW, Stage, Via};
use crate::message::{ErrorReply, ServerMessage, TopicMessage};
use crate::topics::entry::Entry;

/// What is to be handed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message that no durable consumer delivers.
    Message,
    Gap,
    Presence,
}

/// The subscription of a message.
enum Found {
    One(u64),
    Unsettled,
    Straggler,
    None,
}

impl Routes {
    /// Hands a message to the subscription that it belongs to.
    pub(in crate::topics) fn dispatch(&mut self, via: Via, message: ServerMessage) -> Dispatch {
        let found = match &message {
            ServerMessage::Message(TopicMessage { topic, durable: Some(name), .. }) => {
                self.find_consumer(via, topic, name)
            }
            ServerMessage::Message(message) => self.find(via, &message.topic, Kind::Message),
            ServerMessage::Gap { topic, .. } => self.find(via, topic, Kind::Gap),
            ServerMessage::Join { topic, .. }
            | ServerMessage::Leave { topic, .. }
            | ServerMessage::State { topic, .. }
            | ServerMessage::Return { topic, .. }
            | ServerMessage::Occupancy { topic, .. } => self.find(via, topic, Kind::Presence),
            ServerMessage::Unsubscribed { .. } => return self.ended(message),
            ServerMessage::Subscribed(subscribed) if subscribed.by_server => {
                return if self.announced(subscribed) { Dispatch::Unclaimed(message) } else { Dispatch::Taken };
            }
            _ => return Dispatch::Unclaimed(message),
        };
        match found {
            Found::One(number) => match self.entries.get_mut(&number) {
                Some(entry) => entry.deliver(via, message),
                None => Dispatch::Unclaimed(message),
            },
            Found::Unsettled => Dispatch::Unsettled(message),
            Found::Straggler => Dispatch::Taken,
            Found::None => Dispatch::Unclaimed(message),
        }
    }

    fn ended(&mut self, message: ServerMessage) -> Dispatch {
        let ServerMessage::Unsubscribed { topic, code, reason } = &message else { return Dispatch::Unclaimed(message) };
        let number = self.by_text.get(topic.as_str()).copied();
        if let Some(number) = number
            && let Some(entry) = self.entries.get_mut(&number)
            && entry.lost_lane(*code)
        {
            entry.disconnected();
            self.wanted.push_back(number);
            return Dispatch::Renewed;
        }
        match number.and_then(|number| self.remove(number)) {
            Some(entry) => {
                self.remember_ended(&entry);
                entry.end(ErrorReply::new(*code, reason.clone().unwrap_or_default()));
                Dispatch::Taken
            }
            None => Dispatch::Unclaimed(message),
        }
    }

    fn exact(&self, topic: &str) -> Option<(u64, &Entry)> {
        self.by_text.get(topic).and_then(|number| Some((*number, self.entries.get(number)?)))
    }

    /// The subscription of a message that a durable consumer delivers.
    fn find_consumer(&self, via: Via, topic: &str, name: &str) -> Found {
        let exact = self.exact(topic).filter(|(_, entry)| entry.durable() == Some(name));
        match exact {
            Some((number, entry)) if entry.stage == Stage::Live && entry.is_on(via) => Found::One(number),
            Some((_, entry)) if via != Via::Control && entry.stage == Stage::Asked => Found::Unsettled,
            _ => Found::Straggler,
        }
    }

    /// The subscription of a message: the one with exactly its topic, otherwise the first pattern that matches, and
    /// only if the message comes on the lane that the server named for it. Messages on other lanes were sent to a
    /// subscription that has ended.
    fn find(&self, via: Via, topic: &str, kind: Kind) -> Found {
        let of_presence = kind == Kind::Presence;
        // A durable consumer marks its messages, so this one is a pattern's.
        let exact = self.exact(topic).filter(|(_, entry)| kind != Kind::Message || entry.durable().is_none());
        let matching = || {
            let of_patterns = self.patterns.iter().filter_map(|number| Some((*number, self.entries.get(number)?)));
            exact.into_iter().chain(of_patterns.filter(|(_, entry)| entry.request.topic.matches(topic)))
        };
        let live = |entry: &Entry| entry.stage == Stage::Live && (entry.wants_members() || !of_presence);
        // On the control lane the answer comes first, so there is nothing to wait for.
        let awaited = |entry: &Entry| via != Via::Control && entry.stage == Stage::Asked;
        if let Some((number, entry)) = exact {
            if live(entry) && entry.is_on(via) {
                return Found::One(number);
            }
            // Subscribed again: a pattern that shares the old lane gets none of the old subscription's messages.
            let is_elsewhere = match entry.stage {
                Stage::Wanted | Stage::Locating => false,
                Stage::Asked => true,
                Stage::Live => !entry.is_on(via),
            };
            if is_elsewhere && self.had_messages_on(topic, via) {
                return if awaited(entry) { Found::Unsettled } else { Found::Straggler };
            }
        }
        if let Some((number, _)) = matching().find(|(_, entry)| live(entry) && entry.is_on(via)) {
            return Found::One(number);
        }
        if matching().any(|(_, entry)| awaited(entry)) {
            return Found::Unsettled;
        }
        let has_ended_recently =
            || self.recently_ended.iter().any(|left| left.topic.matches(topic) && left.at.elapsed() < STRAGGLER_WINDOW);
        // A presence event that no subscription asked for is dropped as well.
        let is_somebodys = |entry: &Entry| entry.stage == Stage::Live || of_presence;
        if matching().any(|(_, entry)| is_somebodys(entry)) || has_ended_recently() {
            Found::Straggler
        } else {
            Found::None
        }
    }

    /// Whether a subscription to exactly this text, which has ended, had its messages there.
    fn had_messages_on(&self, topic: &str, via: Via) -> bool {
        let is_it = |left: &EndedSubscription| left.topic.as_str() == topic && left.via == Some(via);
        self.recently_ended.iter().any(|left| is_it(left) && left.at.elapsed() < STRAGGLER_WINDOW)
    }
}
