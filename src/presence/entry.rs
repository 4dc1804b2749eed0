//! One entry of a topic's members: a connection, or all connections of a user. Most entries are one connection that
//! shows nothing, so all else is in memory of its own.

use std::sync::Arc;

use uuid::Uuid;

use super::Seen;
use crate::message::{Json, Member};

/// A member.
#[derive(Debug)]
pub(super) struct Entry {
    oldest: Connection,
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// The other connections of a user, in the order in which they came.
    others: Vec<Connection>,
    /// The connection of which the newest change was that is still to be told.
    changed: Option<Uuid>,
    /// A change was told less than an interval ago: it is in the queue of those.
    is_cooling: bool,
}

/// One connection of a member.
#[derive(Debug)]
pub(super) struct Connection {
    who: Arc<Member>,
    more: Option<Box<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    state: Option<Json>,
    /// Which of all states that were set is the connection's; 0 if it has set none.
    set: u64,
    /// The connection is lost, and may come back.
    is_away: bool,
}

impl Connection {
    pub(super) fn new(who: Arc<Member>) -> Self {
        Self { who, more: None }
    }

    pub(super) fn id(&self) -> Uuid {
        self.who.id
    }

    pub(super) fn set(&mut self, state: Option<Json>, set: u64) {
        let shown = self.more.get_or_insert_default();
        (shown.state, shown.set) = (state, set);
    }

    pub(super) fn lose(&mut self) {
        self.more.get_or_insert_default().is_away = true;
    }

    /// Shows what an earlier connection of the client has shown, unless it has set a state of its own.
    pub(super) fn inherit(&mut self, earlier: Self) {
        if self.more.is_none()
            && let Some(mut shown) = earlier.more
        {
            shown.is_away = false;
            self.more = (shown.set > 0).then_some(shown);
        }
    }

    fn is_away(&self) -> bool {
        self.more.as_ref().is_some_and(|shown| shown.is_away)
    }
}

impl Entry {
    pub(super) fn new(connection: Connection) -> Self {
        Self { oldest: connection, more: None }
    }

    pub(super) fn oldest(&self) -> &Arc<Member> {
        &self.oldest.who
    }

    pub(super) fn into_oldest(self) -> Connection {
        self.oldest
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.oldest).chain(self.more.iter().flat_map(|more| &more.others))
    }

    pub(super) fn len(&self) -> usize {
        1 + self.more.as_ref().map_or(0, |more| more.others.len())
    }

    /// The place of a connection.
    pub(super) fn find(&self, id: Uuid) -> Option<usize> {
        self.connections().position(|connection| connection.who.id == id)
    }

    /// The connection at a place that was found.
    pub(super) fn connection_mut(&mut self, place: usize) -> &mut Connection {
        let other = place.checked_sub(1).and_then(|at| self.more.as_mut()?.others.get_mut(at));
        other.unwrap_or(&mut self.oldest)
    }

    /// The place that a new connection takes: that of an earlier one, or of the first that is away.
    pub(super) fn place(&self, was: Option<Uuid>) -> Option<usize> {
        let earlier = was.and_then(|was| self.find(was));
        earlier.or_else(|| self.connections().position(Connection::is_away))
    }

    pub(super) fn take_over(&mut self, place: usize, connection: Connection) {
        let there = self.connection_mut(place);
        let earlier = std::mem::replace(there, connection);
        there.inherit(earlier);
    }

    pub(super) fn add(&mut self, connection: Connection) {
        self.more.get_or_insert_default().others.push(connection);
    }

    /// Removes a connection; false if it is the only one.
    pub(super) fn remove(&mut self, place: usize) -> bool {
        let Some(more) = self.more.as_mut().filter(|more| !more.others.is_empty()) else { return false };
        match place.checked_sub(1) {
            Some(at) => drop(more.others.remove(at)),
            None => self.oldest = more.others.remove(0),
        }
        true
    }

    /// The newest of the states of its connections.
    pub(super) fn state(&self) -> Option<Json> {
        let shown = self.connections().filter_map(|connection| connection.more.as_ref());
        shown.max_by_key(|shown| shown.set)?.state.clone()
    }

    pub(super) fn is_away(&self) -> bool {
        self.connections().all(Connection::is_away)
    }

    /// As others see it once it has ended.
    pub(super) fn gone(self) -> Seen {
        Seen { who: self.oldest.who, state: None, is_away: false, clients: None }
    }

    /// Notes a change that is to be told. False if there is one already, which is told with it.
    pub(super) fn change(&mut self, by: Uuid) -> bool {
        self.more.get_or_insert_default().changed.replace(by).is_none()
    }

    /// Takes the change that was to be told.
    pub(super) fn told(&mut self) -> Option<Uuid> {
        self.more.as_mut()?.changed.take()
    }

    pub(super) fn is_cooling(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.is_cooling)
    }

    /// Puts it among those of which a change was told.
    pub(super) fn heat(&mut self) {
        self.more.get_or_insert_default().is_cooling = true;
    }

    /// The interval is over; true if there is a change to be told.
    pub(super) fn cool(&mut self) -> bool {
        let Some(more) = &mut self.more else { return false };
        let is_changed = more.is_cooling && more.changed.is_some();
        more.is_cooling = false;
        self.more.take_if(|more| more.changed.is_none() && more.others.is_empty());
        is_changed
    }

    /// It is in no queue any longer; true if there is a change to be told.
    pub(super) fn reset(&mut self) -> bool {
        let Some(more) = &mut self.more else { return false };
        more.is_cooling = false;
        more.changed.is_some()
    }
}
