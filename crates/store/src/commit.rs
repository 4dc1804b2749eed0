//! The threads of a store: one writes what waits, one syncs, one does what is due now and then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use crate::aging::Clock;
use crate::codec::Entry;
use crate::error::{EngineError, Health, Refusal, StoreError};
use crate::queue::{Queued, Work};
use crate::record::{Level, Record, Stored};
use crate::store::Shared;

/// Bytes in a group, unless a single entry has more.
const GROUP_BYTES: usize = 1 << 20;
/// Seconds between two looks for records that are too old.
const AGE_ROUNDS: u32 = 10;
/// How often a full store looks for room.
const FULL_CHECK: Duration = Duration::from_millis(500);

/// What was written and is not yet on the disk.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    inner: Mutex<Written>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    /// What waits for the disk.
    waiting: Vec<Queued>,
    /// Something was written since the last sync began.
    is_dirty: bool,
    is_closed: bool,
}

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))
    };
    Ok(vec![start("store-write", write)?, start("store-sync", sync)?, start("store-tend", tend)?])
}

/// Writes group after group until the queue is closed and empty.
fn write(shared: &Shared) {
    let mut taken = Vec::new();
    let mut completion = Completion::default();
    while shared.queue.take(FULL_CHECK, &mut taken) {
        if shared.health() == Health::Full && shared.engine.has_room() {
            shared.health.store(0, Ordering::Relaxed);
            shared.queue.refuse(None);
        }
        while !taken.is_empty() {
            let group: Vec<_> = taken.drain(..group_length(&taken)).collect();
            match write_group(shared, &group) {
                Ok(is_synced) => {
                    let (fsync, os): (Vec<_>, Vec<_>) =
                        group.into_iter().partition(|queued| queued.topic.0.level == Level::Fsync);
                    completion.complete(shared, os);
                    if is_synced { completion.complete(shared, fsync) } else { shared.syncing.add(fsync) }
                }
                Err(error) => fail(shared, &error, group.into_iter().chain(taken.drain(..)).collect()),
            }
        }
    }
    if shared.health() != Health::Failed {
        shared.engine.close(&|put| shared.snapshot(put));
    }
    let mut written = shared.syncing.inner.lock();
    written.is_closed = true;
    shared.syncing.wake.notify_one();
}

/// How many of those that wait become one group: at most [`GROUP_BYTES`], but at least one.
fn group_length(waiting: &[Queued]) -> usize {
    let mut bytes = 0;
    let fitting = waiting.iter().take_while(|queued| {
        bytes += queued.bytes();
        bytes <= GROUP_BYTES
    });
    fitting.count().max(1)
}

fn write_group(shared: &Shared, group: &[Queued]) -> Result<bool, EngineError> {
    if shared.health() == Health::Failed {
        return Err(EngineError::Failed(shared.failure.lock().as_deref().unwrap_or("the disk failed").to_owned()));
    }
    let wants_sync = group.iter().any(|queued| queued.topic.0.level == Level::Fsync);
    let mut entries = group.iter().filter_map(|queued| match &queued.work {
        Work::Entry(entry) => Some(entry),
        Work::Duplicate(_) => None,
    });
    shared.engine.write(&mut entries, wants_sync)
}

impl Syncing {
    /// Adds what was written and waits for the disk.
    fn add(&self, fsync: Vec<Queued>) {
        let mut written = self.inner.lock();
        written.is_dirty = true;
        if !fsync.is_empty() {
            if written.waiting.is_empty() {
                written.waiting = fsync
            } else {
                written.waiting.extend(fsync)
            }
            self.wake.notify_one();
        }
    }
}

/// Syncs whenever something waits for it, else once in a while, until all is synced that was written.
fn sync(shared: &Shared) {
    let mut completion = Completion::default();
    loop {
        let mut written = shared.syncing.inner.lock();
        if written.waiting.is_empty() && !written.is_closed {
            shared.syncing.wake.wait_for(&mut written, shared.options.sync_interval);
        }
        let is_last = written.is_closed;
        let waiting = std::mem::take(&mut written.waiting);
        let is_dirty = std::mem::take(&mut written.is_dirty);
        drop(written);
        if is_dirty && shared.health() != Health::Failed {
            match shared.engine.sync() {
                Ok(()) => completion.complete(shared, waiting),
                Err(error) => fail(shared, &EngineError::Failed(error.to_string()), waiting),
            }
        } else if !waiting.is_empty() {
            fail(shared, &EngineError::Failed("syncing failed before".to_owned()), waiting);
        }
        if is_last {
            return;
        }
    }
}

/// Buffers for completing tickets.
#[derive(Default)]
struct Completion {
    records: Vec<Record>,
    tickets: Vec<(crate::ticket::Sender, Stored)>,
}

impl Completion {
    /// Makes records visible, tells of them, and resolves their tickets.
    fn complete(&mut self, shared: &Shared, done: Vec<Queued>) {
        let bytes = done.iter().map(Queued::bytes).sum();
        let mut done = done.into_iter().peekable();
        while let Some(first) = done.next() {
            let topic = first.topic.clone();
            let mut next = Some(first);
            let mut is_trimmed = false;
            let mut state = topic.0.state.lock();
            while let Some(queued) = next {
                let (offset, duplicate) = match queued.work {
                    Work::Duplicate(offset) => (offset, true),
                    Work::Entry(Entry::Message { record, .. }) => {
                        let offset = record.offset;
                        state.newest = offset;
                        state.kept.add(offset, record.size(), record.at_ms);
                        self.records.push(record);
                        (offset, false)
                    }
                    Work::Entry(_) => (state.newest, false),
                };
                if let Some(ticket) = queued.ticket {
                    self.tickets.push((ticket, Stored { epoch: topic.0.epoch, offset, duplicate }));
                }
                next = done.next_if(|queued| queued.topic.0.id == topic.0.id);
            }
            if !self.records.is_empty() {
                let (newest, retention) = (state.newest, state.retention);
                is_trimmed = state.kept.expire(newest, &retention, None);
            }
            drop(state);
            if is_trimmed {
                shared.trimmed.lock().insert(topic.0.id, topic.clone());
            }
            if !self.records.is_empty() {
                shared.committed.committed(&topic, &self.records);
                self.records.clear();
            }
            for (ticket, stored) in self.tickets.drain(..) {
                // Whoever waited may be gone.
                let _ = ticket.send(Ok(stored));
            }
        }
        shared.queue.release(bytes);
    }
}

/// Refuses more, and gives back the offsets and keys of what was not stored.
fn fail(shared: &Shared, error: &EngineError, mut failed: Vec<Queued>) {
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
    // Nothing enters the queue any more, so what is in it now is all that has an offset behind those that failed.
    let mut rest = Vec::new();
    shared.queue.take_now(&mut rest);
    failed.append(&mut rest);
    shared.queue.release(failed.iter().map(Queued::bytes).sum());
    for queued in &failed {
        match &queued.work {
            Work::Entry(Entry::Message { record, .. }) => {
                let mut state = queued.topic.0.state.lock();
                state.taken = state.taken.min(record.offset - 1);
                state.keys.roll_back(record.offset);
            }
            Work::Entry(Entry::TopicMade { .. }) => queued.topic.0.state.lock().unmade = true,
            _ => {}
        }
    }
    for ticket in failed.into_iter().filter_map(|queued| queued.ticket) {
        let _ = ticket.send(Err(error.clone()));
    }
}

/// Does once a second what nobody waits for.
fn tend(shared: &Shared) {
    const SECOND: Duration = Duration::from_secs(1);
    let hold_ms = u64::try_from(shared.options.clock_hold.as_millis()).unwrap_or(u64::MAX);
    let mut clock = Clock::new(hold_ms);
    let mut rounds = 0_u32;
    let mut is_stopping = shared.stop.0.lock();
    while !*is_stopping {
        shared.stop.1.wait_for(&mut is_stopping, SECOND);
        drop(is_stopping);
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(AGE_ROUNDS) {
            drop_old(shared, &mut clock);
        }
        log_trims(shared);
        // What fails here is tried again the next time, and nothing depends on it until then.
        let _ = shared.engine.tend(&|put| shared.snapshot(put));
        is_stopping = shared.stop.0.lock();
    }
}

/// Drops records for their age.
fn drop_old(shared: &Shared, clock: &mut Clock) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    if !clock.is_trusted(wall_ms, shared.uptime_ms()) {
        return;
    }
    let topics: Vec<_> = shared.topics.read().values().cloned().collect();
    for topic in topics {
        let mut state = topic.0.state.lock();
        let (newest, retention) = (state.newest, state.retention);
        if retention.age_ms > 0 && state.kept.expire(newest, &retention, Some(wall_ms.saturating_sub(retention.age_ms)))
        {
            drop(state);
            shared.trimmed.lock().insert(topic.0.id, topic);
        }
    }
}

/// Writes down what retention dropped, so that a restart does not bring it back.
pub(crate) fn log_trims(shared: &Shared) {
    let trimmed = std::mem::take(&mut *shared.trimmed.lock());
    for (id, topic) in trimmed {
        let mut state = topic.0.state.lock();
        let through = state.kept.trimmed_through;
        if through <= state.trim_logged || state.gone {
            continue;
        }
        let work = Work::Entry(Entry::Trim { topic: id, through });
        let queued = Queued { topic: topic.clone(), work, ticket: None };
        if shared.queue.push_own(queued).is_ok() {
            state.trim_logged = through;
        } else {
            drop(state);
            shared.trimmed.lock().insert(id, topic);
        }
    }
}
