//! What follows a write or a sync: records become visible and tickets resolve, or all that was taken is given back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::codec::Entry;
use crate::error::{EngineError, Refusal, StoreError};
use crate::queue::{Queued, Work};
use crate::record::{Record, Stored};
use crate::stats;
use crate::store::Shared;
use crate::ticket::Sender;

/// Buffers for completing tickets.
#[derive(Default)]
pub(crate) struct Completion {
    records: Vec<Record>,
    tickets: Vec<(Sender, Stored)>,
}

impl Completion {
    /// Makes records visible, tells of them, and resolves their tickets.
    pub(crate) fn complete(&mut self, shared: &Shared, done: Vec<Queued>) {
        // Before anybody hears of them, who may then have more to store.
        shared.queue.release(done.iter().map(Queued::bytes).sum());
        let now = Instant::now();
        let mut done = done.into_iter().peekable();
        while let Some(first) = done.next() {
            let topic = first.topic.clone();
            let mut next = Some(first);
            let mut is_trimmed = false;
            let mut state = topic.0.state.lock();
            while let Some(queued) = next {
                state.on_their_way = state.on_their_way.saturating_sub(1);
                let (offset, duplicate) = match queued.work {
                    Work::Duplicate(offset) => (offset, true),
                    Work::Settled(segment) => {
                        shared.settled.fetch_max(segment, Ordering::AcqRel);
                        (state.newest, false)
                    }
                    Work::Entry(Entry::Message { record, .. }) => {
                        let place = stats::place(queued.level);
                        shared.counters.appended[place].fetch_add(1, Ordering::Relaxed);
                        shared.counters.commit_micros[place].add_time(now.saturating_duration_since(queued.since));
                        let offset = record.offset;
                        state.newest = offset;
                        state.kept.add(offset, record.size(), record.at_ms);
                        self.records.push(record);
                        (offset, false)
                    }
                    Work::Entry(entry) => {
                        match entry {
                            Entry::Consumer { name, state: consumer, .. } => state.consumers.stored(&name, consumer),
                            Entry::TopicLevel { level, epoch, .. } => state.level_stored(level, epoch),
                            _ => {}
                        }
                        (state.newest, false)
                    }
                };
                if let Some(ticket) = queued.ticket {
                    self.tickets.push((ticket, Stored { epoch: queued.epoch, offset, duplicate }));
                }
                next = done.next_if(|queued| queued.topic.0.id == topic.0.id);
            }
            if !self.records.is_empty() {
                let (newest, retention) = (state.newest, state.retention);
                is_trimmed = state.kept.expire(newest, &retention, None);
            }
            drop(state);
            if is_trimmed {
                shared.log_later(&topic);
            }
            if !self.records.is_empty() {
                shared.committed.committed(&topic, &self.records);
                self.records.clear();
            }
        }
        // A task that waits for its tickets in order waits for the oldest: when that resolves, all of the group have.
        for (ticket, stored) in self.tickets.drain(..).rev() {
            // The caller may have dropped its ticket.
            let _ = ticket.send(Ok(stored));
        }
    }
}

/// Refuses more, and gives back the offsets and keys of what was not stored. `failed` is what could not be written, in
/// order, and nothing behind it was. Returns what of it may be written though the disk is full.
pub(crate) fn fail(shared: &Shared, error: &EngineError, mut failed: Vec<Queued>) -> Vec<Queued> {
    let error = match error {
        EngineError::Full => {
            shared.queue.refuse(Some(Refusal::Full));
            shared.health.store(1, Ordering::Relaxed);
            StoreError::Full
        }
        EngineError::Failed(why) => {
            shared.queue.refuse(Some(Refusal::Failed));
            shared.health.store(2, Ordering::Relaxed);
            StoreError::Failed(shared.failure.lock().get_or_insert_with(|| why.as_str().into()).clone())
        }
    };
    // With publishes among it, the rest may fit into the reserve. Without, the reserve is used up.
    let has_reserve = matches!(error, StoreError::Full) && failed.iter().any(Queued::is_publish);
    // No publish enters the queue any more, so what is in it now is all that has an offset behind those that failed.
    let mut rest = Vec::new();
    shared.queue.take_now(&mut rest);
    failed.append(&mut rest);
    let (mut kept, mut tickets, mut bytes) = (Vec::new(), Vec::new(), 0);
    // What belongs to something that failed, fails as well.
    let mut is_second = false;
    for queued in failed {
        if has_reserve && !queued.is_publish() && !is_second && !queued.topic.0.state.lock().unmade {
            kept.push(queued);
            continue;
        }
        is_second = queued.is_joined;
        bytes += queued.bytes();
        give_back(shared, &queued);
        tickets.extend(queued.ticket);
    }
    shared.queue.release(bytes);
    for ticket in tickets {
        let _ = ticket.send(Err(error.clone()));
    }
    kept
}

/// Undoes what taking an entry has done.
fn give_back(shared: &Shared, queued: &Queued) {
    let mut state = queued.topic.0.state.lock();
    state.on_their_way = state.on_their_way.saturating_sub(1);
    let is_due = match &queued.work {
        Work::Entry(Entry::Message { record, .. }) => {
            state.taken = state.taken.min(record.offset - 1);
            state.keys.roll_back(record.offset);
            false
        }
        Work::Entry(Entry::TopicMade { .. }) => {
            state.unmade = true;
            false
        }
        Work::Entry(Entry::TopicGone { .. }) => {
            state.gone_failed = true;
            true
        }
        Work::Entry(Entry::Trim { .. }) => {
            state.trim_logged = 0;
            true
        }
        Work::Entry(Entry::TopicLevel { .. }) => {
            state.is_level_queued = false;
            true
        }
        Work::Entry(Entry::Consumer { name, .. }) => state.consumers.failed(name),
        _ => false,
    };
    drop(state);
    if is_due {
        shared.log_later(&queued.topic);
    }
}

/// The states of consumers that are followed by a newer one of the same consumer in the same group, by place. They need
/// not be written: all of a group is there after a crash, or nothing.
pub(crate) fn superseded(group: &[Queued]) -> HashSet<usize> {
    let states = group.iter().enumerate().rev().filter_map(|(place, queued)| match &queued.work {
        Work::Entry(Entry::Consumer { topic, name, .. }) => Some((place, *topic, name)),
        _ => None,
    });
    let mut newest: HashSet<(u64, &Arc<str>)> = HashSet::new();
    states.filter(|(_, topic, name)| !newest.insert((*topic, *name))).map(|(place, ..)| place).collect()
}
