//! The members of one topic: who is there, what each of them shows, and what the watchers of the topic have to be told.
//! Pure: times are arguments, and nothing is sent from here. Called by `topic`, which keeps a [`MemberList`] for each
//! topic, tells the watchers of the [`Event`]s, and calls [`MemberList::tick`] when one is [due](MemberList::due).
//!
//! A member has an **entry**: each connection has its own, or all connections of a user share one, as the topic's rule
//! says. Joins and leaves are events at once. Changes of an entry are **coalesced**: the first is told at once, and
//! then at most one in each interval, with the entry as it is by then. A connection that is lost stays for a grace,
//! **away**; if its client comes back meanwhile, it takes its place again.

mod due;
mod entry;
mod users;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use self::due::{Due, Item};
use self::entry::{Connection, Entry};
use self::users::Users;
use crate::config::Presence;
use crate::message::{Json, Member};

/// The members of one topic.
#[derive(Debug)]
pub(crate) struct MemberList {
    kind: Presence,
    /// By the id of the oldest connection of each.
    entries: BTreeMap<Uuid, Entry>,
    /// Connections of all entries, those that are away included.
    clients: usize,
    /// Of the members that have authenticated; `None` while there are none.
    users: Option<Box<Users>>,
    /// How many states were set.
    sets: u64,
    /// What is to be done later; `None` while there is nothing.
    due: Option<Box<Due>>,
}

/// The time of a call, and who watches the topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Milliseconds by a clock that never goes back.
    pub(crate) now: u64,
    /// Least milliseconds between two events about one entry that are coalesced. The same in all calls.
    pub(crate) interval_ms: u64,
    /// Whether there are watchers that want to know who is there.
    pub(crate) members: bool,
    /// Whether there are watchers that want to know how many there are.
    pub(crate) counts: bool,
}

/// An entry as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its oldest connection.
    pub(crate) who: Arc<Member>,
    pub(crate) state: Option<Json>,
    /// All its connections are lost.
    pub(crate) is_away: bool,
    /// The connections of a user; `None` for an entry that cannot have several.
    pub(crate) clients: Option<u64>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Occupancy {
    /// Connections.
    pub(crate) clients: u64,
    /// Different users among them.
    pub(crate) users: u64,
}

/// Something that watchers have to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A new entry.
    Join(Seen),
    /// An entry has ended.
    Leave(Seen),
    /// A client came back within the grace, by a new connection, whose id its entry has now.
    Return { seen: Seen, was: Uuid },
    /// An entry has changed. `by`: the connection of which the newest change was.
    State { seen: Seen, by: Uuid },
    /// Their number has changed.
    Occupancy(Occupancy),
}

/// Some of the entries.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// In the order of their ids.
    pub(crate) entries: Vec<Seen>,
    /// How many entries there are; of a topic that only counts, connections.
    pub(crate) total: u64,
    pub(crate) occupancy: Occupancy,
    /// The last one's id, if there are more.
    pub(crate) next: Option<Uuid>,
}

/// The client is not a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotMember;

impl MemberList {
    /// No members yet.
    pub(crate) fn new(kind: Presence) -> Self {
        Self { kind, entries: BTreeMap::new(), clients: 0, users: None, sets: 0, due: None }
    }

    /// Whether there are no members, and nothing is to be done later.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.due().is_none()
    }

    /// Whether this connection is that of a member.
    pub(crate) fn has(&self, who: &Member) -> bool {
        let entry = self.key(who).and_then(|key| self.entries.get(&key));
        entry.is_some_and(|entry| entry.find(who.id).is_some())
    }

    /// A connection comes. `was`: the id of an earlier connection of the same client, whose place it takes if that is
    /// still there; without `state`, it keeps what that one showed.
    pub(crate) fn join(
        &mut self,
        who: &Arc<Member>,
        was: Option<Uuid>,
        state: Option<Json>,
        at: Moment,
    ) -> Option<Event> {
        if self.has(who) {
            return None;
        }
        let mut connection = Connection::new(Arc::clone(who));
        if state.is_some() {
            connection.set(state, self.next_set());
        }
        if self.is_shared(who) {
            if let Some(key) = self.key(who) {
                self.join_user(key, was, connection, at);
                return None;
            }
        } else if let Some((was, entry)) = was.and_then(|was| Some((was, self.take_of_same_user(was, who)?))) {
            connection.inherit(entry.into_oldest());
            let seen = self.put(Entry::new(connection));
            return self.tells_members(at).then_some(Event::Return { seen, was });
        }
        self.clients += 1;
        let is_counted = self.kind != Presence::Users;
        if who.user.is_some() {
            self.users.get_or_insert_with(|| Box::new(Users::new(is_counted))).add(who);
        }
        let seen = self.put(Entry::new(connection));
        self.count_changed(at);
        self.tells_members(at).then_some(Event::Join(seen))
    }

    /// One more connection of a user that has an entry.
    fn join_user(&mut self, key: Uuid, was: Option<Uuid>, connection: Connection, at: Moment) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let by = connection.id();
        match entry.place(was) {
            Some(place) => entry.take_over(place, connection),
            None => {
                entry.add(connection);
                self.clients += 1;
                self.count_changed(at);
            }
        }
        self.changed(key, by, at, false);
    }

    /// A connection leaves.
    pub(crate) fn leave(&mut self, who: &Member, at: Moment) -> Option<Event> {
        let key = self.key(who)?;
        let entry = self.entries.get_mut(&key)?;
        let place = entry.find(who.id)?;
        self.clients -= 1;
        if entry.remove(place) {
            self.count_changed(at);
            self.changed(key, who.id, at, false);
            return None;
        }
        let entry = self.entries.remove(&key)?;
        if let Some(users) = self.users.as_mut().filter(|_| who.user.is_some()) {
            users.remove(who);
            self.users.take_if(|users| users.is_empty());
        }
        self.count_changed(at);
        self.tells_members(at).then(|| Event::Leave(entry.gone()))
    }

    /// A connection is lost: it stays until that time, which is the same span ahead in all calls. False if it was not
    /// there: then its time does not count among those that [`tick`](Self::tick) gives back.
    pub(crate) fn lose(&mut self, who: &Arc<Member>, until: u64, at: Moment) -> bool {
        let Some(key) = self.key(who) else { return false };
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        let Some(place) = entry.find(who.id) else { return false };
        entry.connection_mut(place).lose();
        let is_away = entry.is_away();
        self.due_mut().graces.push_back((until, Arc::clone(who)));
        if is_away {
            // It may be back by then, and no watcher has to know.
            self.changed(key, who.id, at, true);
        }
        true
    }

    /// A connection shows something, or nothing any more.
    pub(crate) fn set_state(&mut self, who: &Member, state: Option<Json>, at: Moment) -> Result<(), NotMember> {
        let (set, key) = (self.next_set(), self.key(who).ok_or(NotMember)?);
        let entry = self.entries.get_mut(&key).ok_or(NotMember)?;
        let place = entry.find(who.id).ok_or(NotMember)?;
        entry.connection_mut(place).set(state, set);
        self.changed(key, who.id, at, false);
        Ok(())
    }

    /// When [`tick`](Self::tick) has something to do; `None` while nothing changes.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due.as_ref()?.next()
    }

    /// Does what is due, at most so many steps of it; the rest remains [due](Self::due). Gives how many of the lost
    /// connections have had their time, whether they came back or not.
    pub(crate) fn tick(&mut self, most: usize, at: Moment, events: &mut Vec<Event>) -> usize {
        let mut over = 0;
        for _ in 0..most {
            let Some(item) = self.due.as_mut().and_then(|due| due.take(at.now)) else { break };
            match item {
                Item::Grace(who) => {
                    over += 1;
                    // If another connection has taken its place, it is not there any more.
                    events.extend(self.leave(&who, at));
                }
                Item::Cooled(key) => {
                    if let Some(entry) = self.entries.get_mut(&key)
                        && entry.cool()
                    {
                        events.extend(self.tell(key, at));
                    }
                }
                Item::Ready(key) => {
                    if self.entries.get(&key).is_some_and(|entry| !entry.is_cooling()) {
                        events.extend(self.tell(key, at));
                    }
                }
                Item::Occupancy => {
                    if self.tells_counts(at) {
                        self.due_mut().counted(at.now + at.interval_ms);
                        events.push(Event::Occupancy(self.occupancy()));
                    }
                }
            }
        }
        self.due.take_if(|due| due.is_over(at.now));
        over
    }

    /// The entries behind one, at most so many.
    pub(crate) fn page(&self, after: Option<Uuid>, limit: usize) -> Page {
        let occupancy = self.occupancy();
        if self.kind == Presence::Counts {
            return Page { total: occupancy.clients, occupancy, ..Page::default() };
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.entries.range((from, Bound::Unbounded));
        let entries: Vec<_> = rest.by_ref().take(limit).map(|(_, entry)| self.seen(entry)).collect();
        let next = entries.last().map(|last| last.who.id).filter(|_| rest.next().is_some());
        Page { entries, total: self.entries.len() as u64, occupancy, next }
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let users = self.users.as_ref().map_or(0, |users| users.len());
        Occupancy { clients: self.clients as u64, users: users as u64 }
    }

    /// Whether all connections of the client's user share an entry.
    fn is_shared(&self, who: &Member) -> bool {
        self.kind == Presence::Users && who.user.is_some()
    }

    /// The key of the entry that a connection of this client would be in.
    fn key(&self, who: &Member) -> Option<Uuid> {
        match &who.user {
            Some(user) if self.kind == Presence::Users => self.users.as_ref()?.entry(user),
            _ => Some(who.id),
        }
    }

    /// Takes out the entry of an earlier connection, if it was the same user's.
    fn take_of_same_user(&mut self, was: Uuid, who: &Member) -> Option<Entry> {
        self.entries.get(&was).filter(|entry| entry.oldest().user == who.user)?;
        self.entries.remove(&was)
    }

    fn put(&mut self, entry: Entry) -> Seen {
        let seen = self.seen(&entry);
        self.entries.insert(entry.oldest().id, entry);
        seen
    }

    fn seen(&self, entry: &Entry) -> Seen {
        let clients = self.is_shared(entry.oldest()).then_some(entry.len() as u64);
        Seen { who: Arc::clone(entry.oldest()), state: entry.state(), is_away: entry.is_away(), clients }
    }

    fn next_set(&mut self) -> u64 {
        self.sets += 1;
        self.sets
    }

    fn tells_members(&self, at: Moment) -> bool {
        at.members && self.kind != Presence::Counts
    }

    /// Watchers of a topic that only counts hear of nothing else.
    fn tells_counts(&self, at: Moment) -> bool {
        at.counts || at.members && self.kind == Presence::Counts
    }

    fn due_mut(&mut self) -> &mut Due {
        self.due.get_or_insert_default()
    }

    /// An entry has changed by one of its connections, perhaps in its oldest one. If it is told `later`, then an
    /// interval from now; otherwise as soon as the interval allows it.
    fn changed(&mut self, key: Uuid, by: Uuid, at: Moment, later: bool) {
        let Some(key) = self.rekey(key) else { return };
        if !self.tells_members(at) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let due = self.due.get_or_insert_default();
        if !entry.change(by) || entry.is_cooling() {
            return;
        }
        if later {
            entry.heat();
            due.cooling.push_back((at.now + at.interval_ms, key));
        } else {
            due.ready.push_back(key);
        }
    }

    /// Moves an entry to the id of its oldest connection. Gives its key.
    fn rekey(&mut self, key: Uuid) -> Option<Uuid> {
        let new = self.entries.get(&key)?.oldest().id;
        if new == key {
            return Some(key);
        }
        let mut entry = self.entries.remove(&key)?;
        if let Some(users) = &mut self.users {
            users.moved(entry.oldest(), new);
        }
        // What is queued under the old key finds nothing there.
        if entry.reset() {
            self.due.get_or_insert_default().ready.push_back(new);
        }
        self.entries.insert(new, entry);
        Some(new)
    }

    /// The event of an entry's change, if that was not told in another way meanwhile.
    fn tell(&mut self, key: Uuid, at: Moment) -> Option<Event> {
        let tells = self.tells_members(at);
        let entry = self.entries.get_mut(&key)?;
        let by = entry.told()?;
        if !tells {
            return None;
        }
        entry.heat();
        let seen = self.seen(self.entries.get(&key)?);
        self.due_mut().cooling.push_back((at.now + at.interval_ms, key));
        Some(Event::State { seen, by })
    }

    fn count_changed(&mut self, at: Moment) {
        if self.tells_counts(at) {
            self.due_mut().is_count_changed = true;
        }
    }
}

#[cfg(test)]
mod proptests;
