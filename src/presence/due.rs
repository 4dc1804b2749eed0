//! What is to be done for a topic's members later. All spans of one kind are equally long, so each kind is a queue in
//! the order of the times.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use crate::message::Member;

/// What is to be done later.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Entries with a change that is to be told now.
    pub(super) ready: VecDeque<Uuid>,
    /// Entries of which a change was told, each with the time from which on the next one may be.
    pub(super) cooling: VecDeque<(u64, Uuid)>,
    /// Connections that are lost, each with the time until which it stays.
    pub(super) graces: VecDeque<(u64, Arc<Member>)>,
    /// Whether a number is to be told that has changed.
    pub(super) is_count_changed: bool,
    /// The time from which on the next number may be told.
    count_from: u64,
}

/// One thing that is due.
#[derive(Debug)]
pub(super) enum Item {
    /// A lost connection has had its time.
    Grace(Arc<Member>),
    /// The next change of an entry may be told.
    Cooled(Uuid),
    /// A change of an entry may be told.
    Ready(Uuid),
    /// The number may be told.
    Occupancy,
}

impl Due {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        let ready = self.ready.front().map(|_| 0);
        let cooling = self.cooling.front().map(|&(time, _)| time);
        let grace = self.graces.front().map(|&(time, _)| time);
        let count = self.is_count_changed.then_some(self.count_from);
        [ready, cooling, grace, count].into_iter().flatten().min()
    }

    /// One that is due.
    pub(super) fn take(&mut self, now: u64) -> Option<Item> {
        if let Some((_, who)) = pop_due(&mut self.graces, now) {
            return Some(Item::Grace(who));
        }
        if let Some((_, key)) = pop_due(&mut self.cooling, now) {
            return Some(Item::Cooled(key));
        }
        if let Some(key) = self.ready.pop_front() {
            return Some(Item::Ready(key));
        }
        let is_counted = self.is_count_changed && self.count_from <= now;
        is_counted.then(|| {
            self.is_count_changed = false;
            Item::Occupancy
        })
    }

    /// The number was told: the next one may be from this time on.
    pub(super) fn counted(&mut self, from: u64) {
        self.count_from = from;
    }

    /// Whether nothing is left, and nothing has to be remembered.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.next().is_none() && self.count_from <= now
    }
}

fn pop_due<T>(queue: &mut VecDeque<(u64, T)>, now: u64) -> Option<(u64, T)> {
    let is_due = queue.front().is_some_and(|(time, _)| *time <= now);
    is_due.then(|| queue.pop_front()).flatten()
}
