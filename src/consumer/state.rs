//! The state machine: who has which message, and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::Options;

/// A member of a consumer, never the same number twice.
pub(crate) type MemberId = u64;

/// The result that a member reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Processed.
    Done,
    /// To be delivered again, so many milliseconds later.
    Retry { delay_ms: u64 },
    /// Never to be delivered again.
    Reject,
}

/// Why a message is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    #[error("a client has rejected it")]
    Rejected,
    #[error("it was delivered as often as it may be, and never acknowledged")]
    TooOften,
}

/// Messages that retention took before they were settled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Their offsets, ascending. A range may also cover offsets that no message ever had.
    pub(crate) ranges: Vec<RangeInclusive<u64>>,
}

impl Lost {
    /// Their number; at most, if offsets have jumped.
    pub(crate) fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.end() - range.start() + 1).sum()
    }

    /// Adds a range behind the others.
    pub(crate) fn add(&mut self, first: u64, last: u64) {
        match self.ranges.last_mut() {
            Some(range) if range.end() + 1 == first => *range = *range.start()..=last,
            _ => self.ranges.push(first..=last),
        }
    }
}

/// A durable consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(super) options: Options,
    pub(super) through: u64,
    pub(super) open: BTreeMap<u64, Open>,
    members: Vec<Member>,
    last_member: MemberId,
    /// Counts what is given, so that equals take turns.
    given: u64,
    /// Open messages that no member has, and that may be delivered at once.
    free: BTreeSet<u64>,
    /// Times at which messages that are with a member, or delayed, are free, with their offsets.
    due: BTreeSet<(u64, u64)>,
    dead: BTreeSet<u64>,
    delayed: usize,
}

/// A message that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    /// Deliveries so far.
    pub(super) tries: u32,
    /// Deliveries that count for [`Options::max_deliver`] and ended without an acknowledgement.
    pub(super) failures: u32,
    /// The member to which it was delivered last.
    last: Option<MemberId>,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Given to a member, and not sent yet.
    Given { to: MemberId },
    /// Sent to a member.
    Held { by: MemberId, until_ms: u64 },
    /// To be delivered again.
    Free,
    /// To be delivered again, but not yet.
    Delayed { until_ms: u64 },
    /// Not to be delivered again: it goes to the dead-letter topic.
    Dead(Why),
}

#[derive(Debug)]
struct Member {
    id: MemberId,
    /// Messages that are given to it, or that it holds.
    has: u32,
    /// Whether it takes messages at present.
    is_ready: bool,
    /// When it was given something last, among all members.
    given: u64,
}

impl Consumer {
    /// A consumer that begins behind an offset.
    pub(crate) fn new(options: Options, after: u64) -> Self {
        Self {
            options,
            through: after,
            open: BTreeMap::new(),
            members: Vec::new(),
            last_member: 0,
            given: 0,
            free: BTreeSet::new(),
            due: BTreeSet::new(),
            dead: BTreeSet::new(),
            delayed: 0,
        }
    }

    /// Adds an open message that is kept since before.
    pub(super) fn restore(&mut self, offset: u64, tries: u32, failures: u32, dead: Option<Why>) {
        let place = dead.map_or(Place::Free, Place::Dead);
        self.open.insert(offset, Open { tries, failures, last: None, place });
        match place {
            Place::Dead(_) => self.dead.insert(offset),
            _ => self.free.insert(offset),
        };
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// The largest offset up to which everything is settled.
    pub(crate) fn floor(&self) -> u64 {
        self.open.first_key_value().map_or(self.through, |(&first, _)| first - 1)
    }

    /// The largest offset that was given to a member, or lost. The log is read behind it.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// Messages that were given and are not settled.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Messages that members have.
    pub(crate) fn in_flight(&self) -> u64 {
        self.members.iter().map(|member| u64::from(member.has)).sum()
    }

    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Adds a member, which gives its number and those of the members that it displaces. It is not ready yet.
    pub(crate) fn join(&mut self) -> (MemberId, Vec<MemberId>) {
        let all = self.members.iter().map(|member| member.id);
        let displaced: Vec<_> = all.filter(|_| !self.options.share).collect();
        displaced.iter().for_each(|&member| self.leave(member));
        self.last_member += 1;
        self.members.push(Member { id: self.last_member, has: 0, is_ready: false, given: 0 });
        (self.last_member, displaced)
    }

    /// Ends a member: its messages are free at once.
    pub(crate) fn leave(&mut self, member: MemberId) {
        self.take_back(member);
        self.fail_all(|place| matches!(place, Place::Held { by, .. } if by == member), None);
        self.members.retain(|other| other.id != member);
    }

    /// A member takes messages from now on, or takes no more at present. Gives whether that is something new.
    pub(crate) fn set_ready(&mut self, member: MemberId, is_ready: bool) -> bool {
        let before = self.member(member).map(|member| std::mem::replace(&mut member.is_ready, is_ready));
        before.is_some_and(|before| before != is_ready)
    }

    /// The ready member that has the fewest messages: the next one to get one.
    pub(crate) fn next_member(&self) -> Option<MemberId> {
        let ready = self.members.iter().filter(|member| member.is_ready);
        ready.min_by_key(|member| (member.has, member.given)).map(|member| member.id)
    }

    fn member(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// What was given to a member and not sent is free again.
    pub(crate) fn take_back(&mut self, member: MemberId) {
        for offset in self.offsets(|place| place == Place::Given { to: member }) {
            self.put(offset, Some(Place::Free));
        }
    }

    fn offsets(&self, is_wanted: impl Fn(Place) -> bool) -> Vec<u64> {
        self.open.iter().filter(|(_, open)| is_wanted(open.place)).map(|(&offset, _)| offset).collect()
    }

    /// The messages to read next from the log, at most `most`: behind which offset, and how many. `None` if nobody can
    /// have any. Those that come again are first.
    pub(crate) fn wanted(&self, most: usize) -> Option<(u64, usize)> {
        if !self.has_ready() {
            return None;
        }
        let Some(&first) = self.free.first() else {
            let room = self.room().min(most);
            return (room > 0).then_some((self.through, room));
        };
        let in_a_row = self.free.iter().zip(first..).take(most).take_while(|&(&offset, expected)| offset == expected);
        Some((first - 1, in_a_row.count()))
    }

    /// The messages behind `after`, up to `last`, that are to come again.
    pub(crate) fn free_between(&self, after: u64, last: u64) -> Vec<u64> {
        if last <= after { Vec::new() } else { self.free.range(after + 1..=last).copied().collect() }
    }

    /// How many messages that were never given may be given now.
    fn room(&self) -> usize {
        // Where the order counts, those that come again are first.
        let waits = self.options.up_to && (self.delayed > 0 || !self.free.is_empty());
        if waits || !self.has_ready() {
            return 0;
        }
        let most = usize::try_from(self.options.max_in_flight).unwrap_or(usize::MAX);
        most.saturating_sub(self.open.len())
    }

    fn has_ready(&self) -> bool {
        self.members.iter().any(|member| member.is_ready)
    }

    /// Gives a message to the next member: one that is free, or a new one if there is room for it. `None` if nobody can
    /// have it.
    pub(crate) fn give(&mut self, offset: u64) -> Option<MemberId> {
        let is_new = offset > self.through;
        if is_new && self.room() == 0 || !is_new && !self.free.contains(&offset) {
            return None;
        }
        let to = self.next_member()?;
        self.given += 1;
        let given = self.given;
        self.member(to)?.given = given;
        if is_new {
            self.through = offset;
            self.restore(offset, 0, 0, None);
        }
        self.put(offset, Some(Place::Given { to }));
        Some(to)
    }

    /// A message that was given to a member goes out to it. Gives the number of its deliveries, this one included;
    /// `None` if it is not the member's any longer.
    pub(crate) fn send(&mut self, member: MemberId, offset: u64, now_ms: u64) -> Option<u32> {
        let until_ms = now_ms.saturating_add(self.options.ack_wait_ms);
        let open = self.open.get_mut(&offset).filter(|open| open.place == Place::Given { to: member })?;
        open.tries = open.tries.saturating_add(1);
        open.last = Some(member);
        let tries = open.tries;
        self.put(offset, Some(Place::Held { by: member, until_ms }));
        Some(tries)
    }

    /// A member reports the outcome of one message, or of all up to it. Gives how many messages it concerned: none if
    /// the message was settled, or was delivered to another member since.
    pub(crate) fn acknowledge(&mut self, member: MemberId, offset: u64, outcome: Outcome, now_ms: u64) -> u64 {
        if self.options.up_to && outcome == Outcome::Done {
            let of_member = |(&offset, open): (&u64, &Open)| open.is_of(member).then_some(offset);
            let done: Vec<_> = self.open.range(..=offset).filter_map(of_member).collect();
            done.iter().for_each(|&offset| self.put(offset, None));
            return done.len() as u64;
        }
        if !self.open.get(&offset).is_some_and(|open| open.is_of(member)) {
            return 0;
        }
        match outcome {
            Outcome::Done => self.put(offset, None),
            Outcome::Reject => self.put(offset, Some(Place::Dead(Why::Rejected))),
            Outcome::Retry { delay_ms } => {
                let until_ms = (delay_ms > 0).then(|| now_ms.saturating_add(delay_ms));
                self.fail(offset, until_ms);
            }
        }
        1
    }

    /// Frees the messages whose time is over. Gives whether there were any.
    pub(crate) fn expire(&mut self, now_ms: u64) -> bool {
        let mut any = false;
        while let Some(&(at_ms, offset)) = self.due.first()
            && at_ms <= now_ms
        {
            any = true;
            match self.open.get(&offset).map(|open| open.place) {
                Some(Place::Held { .. }) => self.fail(offset, None),
                _ => self.put(offset, Some(Place::Free)),
            }
        }
        any
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|&(at_ms, _)| at_ms)
    }

    /// A message that is dead, and not buried yet.
    pub(crate) fn next_dead(&self) -> Option<(u64, Why)> {
        let &offset = self.dead.first()?;
        match self.open.get(&offset)?.place {
            Place::Dead(why) => Some((offset, why)),
            _ => None,
        }
    }

    /// A dead message is where it belongs, and settled with that. Gives whether it was open.
    pub(crate) fn bury(&mut self, offset: u64) -> bool {
        let is_dead = self.dead.contains(&offset);
        if is_dead {
            self.put(offset, None);
        }
        is_dead
    }

    /// The log no longer has anything up to an offset: what is to come from there is lost. Messages that members have
    /// can still be acknowledged.
    pub(crate) fn trim(&mut self, trimmed_through: u64) -> Lost {
        let mut lost = Lost::default();
        let gone = self.open.range(..=trimmed_through);
        let gone = gone.filter(|(_, open)| matches!(open.place, Place::Free | Place::Delayed { .. } | Place::Dead(_)));
        for offset in gone.map(|(&offset, _)| offset).collect::<Vec<_>>() {
            self.put(offset, None);
            lost.add(offset, offset);
        }
        if self.through < trimmed_through {
            lost.add(self.through + 1, trimmed_through);
            self.through = trimmed_through;
        }
        lost
    }

    /// The messages of a range cannot be read, now or later. Those that were never given are lost only if they are
    /// next.
    pub(crate) fn damage(&mut self, first: u64, last: u64) -> Lost {
        let mut lost = Lost::default();
        for offset in self.free_between(first.saturating_sub(1), last) {
            self.put(offset, None);
            lost.add(offset, offset);
        }
        if first <= self.through + 1 && last > self.through {
            lost.add(self.through + 1, last);
            self.through = last;
        }
        lost
    }

    /// A message that is free or dead cannot be read, now or later. Gives whether it was open.
    pub(crate) fn lose(&mut self, offset: u64) -> bool {
        let is_there = self.free.contains(&offset) || self.dead.contains(&offset);
        if is_there {
            self.put(offset, None);
        }
        is_there
    }

    /// A delivery that is over without an acknowledgement: the message is to be delivered again, or is dead.
    fn fail(&mut self, offset: u64, until_ms: Option<u64>) {
        if self.options.up_to {
            return self.fail_all(|_| true, until_ms);
        }
        let most = self.options.max_deliver;
        let Some(open) = self.open.get_mut(&offset) else { return };
        open.failures = open.tries;
        let again = until_ms.map_or(Place::Free, |until_ms| Place::Delayed { until_ms });
        let is_dead = most > 0 && open.failures >= most;
        self.put(offset, Some(if is_dead { Place::Dead(Why::TooOften) } else { again }));
    }

    /// The same for all that are in such a place. Where the order counts, all that are behind the first come again too,
    /// and only the first has failed: the others may be good.
    fn fail_all(&mut self, is_meant: impl Fn(Place) -> bool, until_ms: Option<u64>) {
        if !self.options.up_to {
            self.offsets(is_meant).into_iter().for_each(|offset| self.fail(offset, until_ms));
            return;
        }
        let again = until_ms.map_or(Place::Free, |until_ms| Place::Delayed { until_ms });
        let (most, mut is_first) = (self.options.max_deliver, true);
        for offset in self.offsets(|place| !matches!(place, Place::Dead(_))) {
            let Some(open) = self.open.get_mut(&offset) else { continue };
            let was_held = matches!(open.place, Place::Held { .. });
            if until_ms.is_none() && matches!(open.place, Place::Delayed { .. }) {
                is_first = false;
                continue;
            }
            open.failures += u32::from(is_first && was_held);
            let is_dead = is_first && was_held && most > 0 && open.failures >= most;
            is_first = false;
            self.put(offset, Some(if is_dead { Place::Dead(Why::TooOften) } else { again }));
        }
    }

    /// Puts an open message into another place, or settles it.
    fn put(&mut self, offset: u64, place: Option<Place>) {
        let Some(open) = self.open.get_mut(&offset) else { return };
        let before = open.place;
        match place {
            Some(place) => open.place = place,
            None => drop(self.open.remove(&offset)),
        }
        match before {
            Place::Given { to } => self.count(to, false),
            Place::Held { by, until_ms } => {
                self.count(by, false);
                self.due.remove(&(until_ms, offset));
            }
            Place::Free => drop(self.free.remove(&offset)),
            Place::Delayed { until_ms } => {
                self.delayed -= 1;
                self.due.remove(&(until_ms, offset));
            }
            Place::Dead(_) => drop(self.dead.remove(&offset)),
        }
        match place {
            None => {}
            Some(Place::Given { to }) => self.count(to, true),
            Some(Place::Held { by, until_ms }) => {
                self.count(by, true);
                self.due.insert((until_ms, offset));
            }
            Some(Place::Free) => drop(self.free.insert(offset)),
            Some(Place::Delayed { until_ms }) => {
                self.delayed += 1;
                self.due.insert((until_ms, offset));
            }
            Some(Place::Dead(_)) => drop(self.dead.insert(offset)),
        }
    }

    fn count(&mut self, member: MemberId, more: bool) {
        if let Some(member) = self.member(member) {
            member.has = if more { member.has + 1 } else { member.has.saturating_sub(1) };
        }
    }
}

impl Open {
    /// Whether an acknowledgement of this member counts: it got the message last, and has not given it up for good.
    fn is_of(&self, member: MemberId) -> bool {
        self.last == Some(member) && !matches!(self.place, Place::Dead(_))
    }
}
