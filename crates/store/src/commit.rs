//! The threads of a store: one writes what waits, one syncs, one does what is due now and then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::completion::{Completion, fail, superseded};
use crate::error::{EngineError, Health};
use crate::queue::{Queued, Work};
use crate::record::Level;
use crate::store::Shared;
use crate::upkeep;

/// Bytes in a group, unless a single entry has more.
const GROUP_BYTES: usize = 1 << 20;
/// The same while the disk is full: a group has to fit into the reserve.
const RESERVE_GROUP_BYTES: usize = 64 << 10;
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
    /// What was written has to be on the disk soon, though nothing waits for it.
    is_urgent: bool,
    is_closed: bool,
}

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))
    };
    Ok(vec![start("store-write", write)?, start("store-sync", sync)?, start("store-tend", upkeep::run)?])
}

/// Writes group after group until the queue is closed and empty.
fn write(shared: &Shared) {
    let mut taken = Vec::new();
    let mut completion = Completion::default();
    let mut next_check = Instant::now();
    while shared.queue.take(FULL_CHECK, &mut taken) {
        if shared.health() == Health::Full && Instant::now() >= next_check {
            if shared.engine.has_room() {
                shared.health.store(0, Ordering::Relaxed);
                shared.queue.refuse(None);
            }
            next_check = Instant::now() + FULL_CHECK;
        }
        while !taken.is_empty() {
            let most = if shared.health() == Health::Full { RESERVE_GROUP_BYTES } else { GROUP_BYTES };
            let group: Vec<_> = taken.drain(..group_length(&taken, most)).collect();
            match write_group(shared, &group) {
                Ok(()) => {
                    shared.counters.group_records.add(group.len() as u64);
                    let is_urgent = group.iter().any(|queued| queued.is_lazy);
                    let (fsync, os): (Vec<_>, Vec<_>) =
                        group.into_iter().partition(|queued| queued.level == Level::Fsync);
                    completion.complete(shared, os);
                    shared.syncing.add(fsync, is_urgent);
                }
                Err(error) => {
                    let failed = group.into_iter().chain(taken.drain(..)).collect();
                    taken = fail(shared, &error, failed);
                }
            }
        }
    }
    if shared.health() != Health::Failed {
        shared.engine.close();
    }
    let mut written = shared.syncing.inner.lock();
    written.is_closed = true;
    shared.syncing.wake.notify_one();
}

/// How many of those that wait become one group: at most so many bytes, but at least one, and what belongs together.
fn group_length(waiting: &[Queued], most: usize) -> usize {
    let mut bytes = 0;
    let fitting = waiting.iter().take_while(|queued| {
        bytes += queued.bytes();
        bytes <= most
    });
    let fitting = fitting.count().max(1);
    let joined = waiting[fitting - 1..].iter().take_while(|queued| queued.is_joined);
    fitting + joined.count()
}

fn write_group(shared: &Shared, group: &[Queued]) -> Result<(), EngineError> {
    if shared.health() == Health::Failed {
        return Err(EngineError::Failed(shared.failure.lock().as_deref().unwrap_or("the disk failed").to_owned()));
    }
    let may_use_reserve = !group.iter().any(Queued::is_publish);
    let superseded = superseded(group);
    let mut entries = group.iter().enumerate().filter_map(|(place, queued)| match &queued.work {
        Work::Entry(entry) if !superseded.contains(&place) => Some(entry),
        _ => None,
    });
    shared.engine.write(&mut entries, may_use_reserve)
}

impl Syncing {
    /// Adds what was written and waits for the disk.
    fn add(&self, fsync: Vec<Queued>, is_urgent: bool) {
        let mut written = self.inner.lock();
        written.is_dirty = true;
        if is_urgent && !std::mem::replace(&mut written.is_urgent, true) {
            self.wake.notify_one();
        }
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
    let mut next_flush = Instant::now() + shared.options.sync_interval;
    loop {
        let mut written = shared.syncing.inner.lock();
        if written.waiting.is_empty() && !written.is_closed && !written.is_urgent {
            shared.syncing.wake.wait_for(&mut written, shared.options.sync_interval);
        }
        let is_last = written.is_closed;
        if !is_last && Instant::now() >= next_flush {
            // What was taken lazily is written, and then this thread is woken to sync it.
            next_flush = Instant::now() + shared.options.sync_interval;
            drop(written);
            upkeep::log_due(shared);
            written = shared.syncing.inner.lock();
        }
        let waiting = std::mem::take(&mut written.waiting);
        let is_dirty = std::mem::take(&mut written.is_dirty);
        written.is_urgent = false;
        drop(written);
        if is_dirty && shared.health() != Health::Failed {
            let start = Instant::now();
            let synced = shared.engine.sync();
            shared.counters.sync_micros.add_time(start.elapsed());
            match synced {
                Ok(()) => completion.complete(shared, waiting),
                Err(error) => drop(fail(shared, &EngineError::Failed(error.to_string()), waiting)),
            }
        } else if !waiting.is_empty() {
            drop(fail(shared, &EngineError::Failed("syncing failed before".to_owned()), waiting));
        }
        if is_last {
            return;
        }
    }
}
