//! The members of one topic: who comes and goes is told to the watchers under the topic's lock, as all else; changes
//! that are told later, and the ends of graces, by the topic's [`Clock`](super::super::clock::Clock).

use std::sync::Arc;

use uuid::Uuid;

use super::{State, Topic};
use crate::config::{Presence, TopicRule};
use crate::envelope::EncodedMessage;
use crate::message::{Json, TopicName};
use crate::presence::{Event, Moment, Occupancy, Page};
use crate::topic::client::{Client, Watch};
use crate::topic::hub::{InboxItem, PresenceNotices};
use crate::topic::notices::{PresenceNotice, occupancy};
use crate::topic::workers::Room;
use crate::topic::{TopicError, uptime_ms};

/// Most steps that are done, and events that are told, under the lock at once: publishers wait for it.
const DONE_AT_ONCE: usize = 64;

/// Subscriptions by what they want to know of the members.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watchers {
    members: u32,
    counts: u32,
}

impl Watchers {
    pub(super) fn add(&mut self, watch: Watch) {
        match watch {
            Watch::Nothing => {}
            Watch::Members => self.members += 1,
            Watch::Counts => self.counts += 1,
        }
    }

    pub(super) fn remove(&mut self, watch: Watch) {
        match watch {
            Watch::Nothing => {}
            Watch::Members => self.members -= 1,
            Watch::Counts => self.counts -= 1,
        }
    }
}

/// Whether the members of a topic can show something.
pub(in crate::topic) fn may_show(rule: &TopicRule, name: &TopicName) -> Result<(), TopicError> {
    match rule.presence {
        Presence::Off => Err(TopicError::NoMembers(name.clone())),
        Presence::Counts => Err(TopicError::OnlyCounts(name.clone())),
        Presence::Clients | Presence::Users => Ok(()),
    }
}

impl Topic {
    /// Whether the topic has members at all.
    pub(in crate::topic) fn has_presence(&self) -> bool {
        self.rule.presence != Presence::Off
    }

    /// Makes a client a member that has subscribed before it was present.
    pub(in crate::topic) fn appear(self: &Arc<Self>, who: &Client, mut room: Room<'_>) {
        let mut state = self.state.lock();
        if let Some(joined) = self.enter(&mut state, who, None, &mut room) {
            room.send(who.worker, InboxItem::Presence(joined));
        }
    }

    /// Adds a member, if the client may be one, and tells the others as [`tell`](Self::tell) does.
    pub(super) fn enter(
        self: &Arc<Self>,
        state: &mut State,
        who: &Client,
        shows: Option<Json>,
        room: &mut Room<'_>,
    ) -> Option<PresenceNotices> {
        if !self.has_presence() || !who.is_present() {
            return None;
        }
        let at = self.moment(state);
        let event = state.members.join(who.member(), who.resumes(), shows, at);
        self.wind(state);
        self.tell(state, Some(who.worker), event.as_slice(), room)
    }

    /// Takes a member out, or, if its connection is lost, has it stay for the grace. Tells the others as
    /// [`tell`](Self::tell) does.
    pub(super) fn leave(
        self: &Arc<Self>,
        state: &mut State,
        who: &Client,
        is_lost: bool,
        room: &mut Room<'_>,
    ) -> Option<PresenceNotices> {
        let (at, grace_ms) = (self.moment(state), self.rule.presence_grace_ms);
        if is_lost && grace_ms > 0 && state.members.has(who.member()) && self.shared.away.take() {
            state.members.lose(who.member(), at.now + grace_ms, at);
            self.wind(state);
            return None;
        }
        let event = state.members.leave(who.member(), at);
        self.wind(state);
        self.tell(state, Some(who.worker), event.as_slice(), room)
    }

    /// Sets what a member shows to the others.
    pub(in crate::topic) fn set_state(self: &Arc<Self>, who: &Client, shown: Option<Json>) -> Result<(), TopicError> {
        may_show(&self.rule, &self.name)?;
        let mut state = self.state.lock();
        let at = self.moment(&state);
        let set = state.members.set_state(who.member(), shown, at);
        set.map_err(|_| TopicError::NotSubscribed(self.name.clone().into()))?;
        self.wind(&mut state);
        Ok(())
    }

    /// Some of its members.
    pub(in crate::topic) fn members(&self, after: Option<Uuid>, limit: usize) -> Page {
        self.state.lock().members.page(after, limit)
    }

    /// Does what is due for its members. Called by the clock, once its time has come.
    pub(in crate::topic) fn tick(self: &Arc<Self>, mut room: Room<'_>) {
        let mut state = self.state.lock();
        let (at, mut events) = (self.moment(&state), Vec::new());
        let over = state.members.tick(DONE_AT_ONCE, at, &mut events);
        self.shared.away.give_back(over);
        let due = state.members.due();
        let wound = std::mem::replace(&mut state.wound, due);
        self.shared.clock_of(self.id).set(self, wound, due);
        self.tell(&state, None, &events, &mut room);
    }

    /// What a new subscription that watches the number of members is told first.
    pub(super) fn first_count(&self, state: &State, watch: Watch) -> Option<Arc<EncodedMessage>> {
        let is_told = self.has_presence() && (watch == Watch::Counts || self.only_counts() && watch == Watch::Members);
        is_told.then(|| self.encode_count(state.members.occupancy()))
    }

    fn only_counts(&self) -> bool {
        self.rule.presence == Presence::Counts
    }

    fn encode_count(&self, count: Occupancy) -> Arc<EncodedMessage> {
        EncodedMessage::new(&occupancy(&self.name, count), self.shared.compress_min_bytes())
    }

    fn moment(&self, state: &State) -> Moment {
        let (of_patterns, Watchers { members, counts }) = (self.shared.workers.watchers(), state.watchers);
        Moment {
            now: uptime_ms(),
            interval_ms: self.rule.presence_interval_ms,
            members: members > 0 || of_patterns.members,
            counts: counts > 0 || of_patterns.counts,
        }
    }

    /// Sets the clock to what is due next.
    fn wind(self: &Arc<Self>, state: &mut State) {
        let due = state.members.due();
        if due != state.wound {
            self.shared.clock_of(self.id).set(self, state.wound, due);
            state.wound = due;
        }
    }

    /// Tells the subscribers of what has happened to its members. Gives what those on the worker `but` are to be told:
    /// its place there is needed for the subscription as well.
    fn tell(
        self: &Arc<Self>,
        state: &State,
        but: Option<usize>,
        events: &[Event],
        room: &mut Room<'_>,
    ) -> Option<PresenceNotices> {
        if events.is_empty() {
            return None;
        }
        let min_bytes = self.shared.compress_min_bytes();
        let notices = events.iter().map(|event| PresenceNotice::new(&self.name, event, min_bytes)).collect();
        let notices = PresenceNotices { topic: Arc::clone(self), notices };
        for worker in (0..state.interest.len()).filter(|&worker| Some(worker) != but && self.wants(state, worker)) {
            room.send(worker, InboxItem::Presence(notices.clone()));
        }
        Some(notices)
    }
}
