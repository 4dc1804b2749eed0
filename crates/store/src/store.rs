//! The store: topics in memory, and the calls of its users.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::codec::Entry;
use crate::commit::{self, Syncing};
use crate::disk::Folder;
use crate::engine::{Engine, Found};
use crate::error::{Health, OpenError, Refusal, StoreError};
use crate::log::{self, LogOptions};
use crate::options::{Options, boot, lock};
use crate::queue::{Queue, Queued, Work};
use crate::record::{Damage, Epoch, Level, NewRecord, Page, Record, Retention, Room};
use crate::retention::Kept;
use crate::stats::Counters;
use crate::taking::{New, Taken, take};
use crate::ticket::Ticket;
use crate::topic::{Inner, State, Topic};
use crate::upkeep;

/// Seconds between two looks for segments that are of no more use.
const GC_ROUNDS: u32 = 5;

/// What hears of records, once they count as stored and before their tickets resolve. In the order of
/// offsets for each topic; called by the store's threads, so it must not block for long.
pub trait Committed: Send + Sync + 'static {
    /// Records of one topic, in the order of their offsets.
    fn committed(&self, topic: &Topic, records: &[Record]);
}

impl Committed for () {
    fn committed(&self, _: &Topic, _: &[Record]) {}
}

/// An open store. Dropping it [closes](Self::close) it.
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the threads have ended.
    lock: Mutex<Option<File>>,
}

pub(crate) struct Shared {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) queue: Queue,
    pub(crate) syncing: Syncing,
    pub(crate) topics: RwLock<HashMap<Arc<str>, Topic>>,
    /// Topics of which the log lacks something for which no ticket waits.
    pub(crate) due: Mutex<HashMap<u64, Topic>>,
    pub(crate) committed: Box<dyn Committed>,
    pub(crate) options: Options,
    pub(crate) health: AtomicU8,
    pub(crate) failure: Mutex<Option<Arc<str>>>,
    pub(crate) stop: (Mutex<bool>, Condvar),
    /// All that was written before this segment was begun is visible.
    pub(crate) settled: AtomicU64,
    pub(crate) counters: Counters,
    /// Time that opening took.
    pub(crate) recovery: Duration,
    pub(crate) torn_bytes: u64,
    power_losses: u32,
    damages: u32,
    next_topic: AtomicU64,
    opened: Instant,
}

impl Store {
    /// Opens a directory, or makes it.
    pub fn open(options: Options, committed: impl Committed) -> Result<Self, OpenError> {
        let folder = Folder::new(&options.dir).map_err(OpenError::io(&options.dir))?;
        let lock = lock(&options.dir)?;
        let log = LogOptions {
            segment_bytes: options.segment_bytes.clamp(1 << 12, 1 << 30),
            min_free_bytes: options.min_free_bytes,
            // With less, nothing could be given back: the newest segments are needed whatever is in them.
            max_bytes: if options.max_bytes == 0 { 0 } else { options.max_bytes.max(4 * options.segment_bytes) },
            gc_live_ratio: options.gc_live_ratio.clamp(0.0, 0.9),
            gc_rounds: GC_ROUNDS,
            boot: options.boot.unwrap_or_else(boot),
        };
        let start = Instant::now();
        let (engine, recovered) = log::open(folder, log)?;
        let shared = Arc::new(Shared {
            engine: Box::new(engine),
            queue: Queue::new(options.pending_bytes),
            syncing: Syncing::default(),
            topics: RwLock::default(),
            due: Mutex::default(),
            committed: Box::new(committed),
            options,
            health: AtomicU8::new(0),
            failure: Mutex::default(),
            stop: (Mutex::new(false), Condvar::new()),
            settled: AtomicU64::new(0),
            counters: Counters::default(),
            recovery: start.elapsed(),
            torn_bytes: recovered.torn,
            power_losses: recovered.generation,
            damages: recovered.damages,
            next_topic: AtomicU64::new(recovered.next_topic.max(1)),
            opened: Instant::now(),
        });
        shared.topics.write().extend(recovered.topics.into_iter().map(|found| {
            let topic = found_topic(found, shared.power_losses, shared.damages);
            (topic.0.name.clone(), topic)
        }));
        let threads = commit::start(&shared).map_err(OpenError::io(&shared.options.dir))?;
        Ok(Self { shared, threads: Mutex::new(threads), lock: Mutex::new(Some(lock)) })
    }

    /// The topic with this name, made if it is not there. One that is there gets this retention and level.
    ///
    /// A change from [`Level::Os`] to [`Level::Fsync`] begins another epoch if power was lost since the store was made,
    /// and one in the other direction then has another text. Otherwise the epoch stays. Records that wait for the disk
    /// when the level becomes `os`, and those behind them, wait until nothing does.
    pub fn topic(&self, name: &str, level: Level, retention: Retention) -> Result<Topic, Refusal> {
        self.topic_made(fastrand::u64(..), name, level, retention)
    }

    /// The same with a given random part of its epoch, if it is made now.
    pub fn topic_made(&self, made: u64, name: &str, level: Level, retention: Retention) -> Result<Topic, Refusal> {
        if name.len() > 255 {
            return Err(Refusal::TooLong);
        }
        if let Some(topic) = self.find(name) {
            self.shared.retain(&topic, retention);
            self.change_level(&topic, level);
            return Ok(topic);
        }
        let mut topics = self.shared.topics.write();
        if let Some(topic) = topics.get(name).cloned() {
            // Made by another thread just now.
            drop(topics);
            self.shared.retain(&topic, retention);
            return Ok(topic);
        }
        let epoch = self.epoch(made, level);
        let id = self.shared.next_topic.fetch_add(1, Ordering::Relaxed);
        let name: Arc<str> = name.into();
        let mut state = State { retention, ..State::new(level, epoch) };
        state.on_their_way = 1;
        let topic = Topic(Arc::new(Inner { id, name: name.clone(), state: Mutex::new(state) }));
        let queued = {
            let mut state = topic.0.state.lock();
            let made = topic.made(&state);
            Queued::new(&topic, &mut state, Work::Entry(made), None)
        };
        self.shared.queue.push([queued])?;
        topics.insert(name, topic.clone());
        Ok(topic)
    }

    /// The epoch of a topic that is made now with this random part.
    pub fn epoch(&self, made: u64, level: Level) -> Epoch {
        Epoch { made, generation: self.shared.generation(level) }
    }

    fn change_level(&self, topic: &Topic, level: Level) {
        let mut state = topic.0.state.lock();
        if !state.change_level(level, self.shared.generation(level)) {
            return;
        }
        // Ahead of every record of the new level.
        state.is_level_queued = !state.unmade && upkeep::queue_level(&self.shared, topic, &mut state);
        if !state.is_level_queued {
            drop(state);
            self.shared.log_later(topic);
        }
    }

    /// The topic with this name, if it is there.
    pub fn find(&self, name: &str) -> Option<Topic> {
        self.shared.topics.read().get(name).cloned()
    }

    /// Number of topics.
    pub fn count(&self) -> usize {
        self.shared.topics.read().len()
    }

    /// All topics, in no order.
    pub fn topics(&self) -> Vec<Topic> {
        self.shared.topics.read().values().cloned().collect()
    }

    /// Forgets a topic: its records, keys and consumers. Made again, it has another epoch. What is on its way to the
    /// topic is stored, and then gone as well.
    pub fn forget(&self, topic: &Topic) -> Result<(), Refusal> {
        let mut topics = self.shared.topics.write();
        let mut state = topic.0.state.lock();
        if state.gone {
            return Ok(());
        }
        if !state.unmade {
            let work = Work::Entry(Entry::TopicGone { topic: topic.0.id });
            self.shared.queue.push_own(Queued::new(topic, &mut state, work, None))?;
            state.on_their_way += 1;
        }
        state.gone = true;
        topics.remove(&topic.0.name);
        Ok(())
    }

    /// Takes a record, in the order of the calls. Never blocks.
    pub fn append(&self, topic: &Topic, record: NewRecord) -> Result<Ticket, Refusal> {
        let ticket = self.append_quietly(topic, record);
        self.wake();
        ticket
    }

    /// The same for one of several records that come at once: they are written together if the caller then calls
    /// [`wake`](Self::wake). Without that, half a second may pass.
    pub fn append_quietly(&self, topic: &Topic, record: NewRecord) -> Result<Ticket, Refusal> {
        if !record.fits() {
            return Err(Refusal::TooLong);
        }
        let now_ms = self.shared.uptime_ms();
        let mut state = topic.0.state.lock();
        if state.gone {
            return Err(Refusal::Closed);
        }
        match take(&mut state, record, now_ms) {
            Taken::Stored(stored) => Ok(Ticket::ready(stored)),
            Taken::Waiting(offset) => {
                let (sender, ticket) = Ticket::waiting(true);
                let work = Work::Duplicate(offset);
                self.shared.queue.push_quietly(Queued::new(topic, &mut state, work, Some(sender)))?;
                state.on_their_way += 1;
                Ok(ticket)
            }
            Taken::New(record) => {
                self.shared.make_again(topic, &mut state)?;
                let (sender, ticket) = Ticket::waiting(false);
                let new = New::of(&record);
                let work = Work::Entry(Entry::Message { topic: topic.0.id, record });
                self.shared.queue.push_quietly(Queued::new(topic, &mut state, work, Some(sender)))?;
                state.on_their_way += 1;
                state.advance(new, now_ms);
                Ok(ticket)
            }
        }
    }

    /// Reads a page: forwards the records from offset `from` on, or backwards those up to it. Blocks for the disk.
    pub fn read(&self, topic: &Topic, from: u64, reverse: bool, room: Room) -> Result<Page, StoreError> {
        read_page(&*self.shared.engine, topic, from, reverse, room)
    }

    /// Offset of the first record that is not older than `at_ms`, or the one behind the newest. Blocks for the disk.
    pub fn seek(&self, topic: &Topic, at_ms: u64) -> Result<u64, StoreError> {
        let head = topic.head();
        let (mut low, mut high) = (head.trimmed_through + 1, head.newest + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let page = self.read(topic, middle, false, Room { records: 1, bytes: 1 })?;
            match page.records.first() {
                Some(record) if record.at_ms < at_ms => low = record.offset + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Drops all up to an offset.
    pub fn trim(&self, topic: &Topic, through: u64) {
        let mut state = topic.0.state.lock();
        let through = through.min(state.newest);
        state.kept.trim(through);
        drop(state);
        self.shared.log_later(topic);
    }

    /// Changes how much of a topic is kept.
    pub fn retain(&self, topic: &Topic, retention: Retention) {
        self.shared.retain(topic, retention);
    }

    /// Has what was appended quietly be written now.
    pub fn wake(&self) {
        self.shared.queue.wake();
    }

    /// Whether records are taken.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Why the store has failed.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.failure.lock().clone()
    }

    /// What of the store cannot be read, as far as it is known.
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.engine.damage()
    }

    /// Stores what waits, and ends the store's threads. Blocks for the disk; reads go on. A second call does nothing.
    pub fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        upkeep::log_due(&self.shared);
        self.shared.queue.refuse(Some(Refusal::Closed));
        *self.shared.stop.0.lock() = true;
        self.shared.stop.1.notify_all();
        for thread in threads {
            // A thread that panicked has nothing more to store.
            let _ = thread.join();
        }
        *self.lock.lock() = None;
    }

    /// Bytes that were taken and are not yet stored.
    pub fn pending_bytes(&self) -> usize {
        self.shared.queue.bytes()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads a page of a topic.
pub(crate) fn read_page(
    engine: &dyn Engine,
    topic: &Topic,
    from: u64,
    reverse: bool,
    room: Room,
) -> Result<Page, StoreError> {
    let (oldest, newest) = {
        let state = topic.0.state.lock();
        (state.kept.trimmed_through + 1, state.newest)
    };
    let range = if reverse { (oldest, from.min(newest)) } else { (from.max(oldest), newest) };
    let mut page = Page::default();
    if range.0 > range.1 {
        return Ok(page);
    }
    engine
        .read(topic.0.id, range, reverse, room, &mut |record| page.records.push(record))
        .map_err(|error| StoreError::Read(error.to_string().into()))?;
    fill(&mut page, range, reverse, room);
    // What retention dropped meanwhile is not damaged.
    let trimmed_through = topic.0.state.lock().kept.trimmed_through;
    page.damaged.retain_mut(|(first, last)| {
        *first = (*first).max(trimmed_through + 1);
        first <= last
    });
    Ok(page)
}

/// Adds what the page lacks: damaged ranges, and where the next one begins. Offsets have no holes but damaged ones.
fn fill(page: &mut Page, range: (u64, u64), reverse: bool, room: Room) {
    let bytes: usize = page.records.iter().map(|record| usize::try_from(record.size()).unwrap_or(usize::MAX)).sum();
    let is_full = page.records.len() >= room.records || bytes >= room.bytes;
    let mut expected = if reverse { range.1 } else { range.0 };
    for record in &page.records {
        if record.offset != expected {
            let hole = if reverse { (record.offset + 1, expected) } else { (expected, record.offset - 1) };
            page.damaged.push(hole);
        }
        expected = if reverse { record.offset.saturating_sub(1) } else { record.offset + 1 };
    }
    let is_done = if reverse { expected < range.0 } else { expected > range.1 };
    match (is_done, is_full) {
        (true, _) => {}
        (false, true) => page.next = Some(expected),
        (false, false) if reverse => page.damaged.push((range.0, expected)),
        (false, false) => page.damaged.push((expected, range.1)),
    }
}

/// Power that was lost may have taken records of the level `os`, damage those of any level.
fn generation(level: Level, power_losses: u32, damages: u32) -> u32 {
    damages.saturating_add(if level == Level::Os { power_losses } else { 0 })
}

pub(crate) fn found_topic(found: Found, power_losses: u32, damages: u32) -> Topic {
    let Found { id, name, level, epoch, trimmed_through, newest, at_ms, chunks, keys, consumers } = found;
    let epoch = Epoch { made: epoch, generation: generation(level, power_losses, damages) };
    let mut state = State {
        taken: newest,
        newest,
        at_ms,
        kept: Kept::new(trimmed_through, chunks),
        trim_logged: trimmed_through,
        ..State::new(level, epoch)
    };
    for (key, offset) in keys {
        state.keys.add(key, offset, 0);
    }
    for (name, consumer) in consumers {
        state.consumers.found(name, consumer);
    }
    Topic(Arc::new(Inner { id, name, state: Mutex::new(state) }))
}

impl Shared {
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Ok,
            1 => Health::Full,
            _ => Health::Failed,
        }
    }

    /// Passes on the topics with all that is visible of them, as entries of a checkpoint.
    pub(crate) fn snapshot(&self, put: &mut dyn FnMut(Entry)) {
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        for topic in topics {
            let state = topic.0.state.lock();
            if state.gone {
                continue;
            }
            put(topic.made(&state));
            let topic = topic.0.id;
            if state.newest > 0 {
                put(Entry::Newest { topic, offset: state.newest, at_ms: state.at_ms });
            }
            if state.kept.trimmed_through > 0 {
                put(Entry::Trim { topic, through: state.kept.trimmed_through });
            }
            for (key, offset) in state.keys.all().filter(|(_, offset)| *offset <= state.newest) {
                put(Entry::Key { topic, key: key.clone(), offset });
            }
            for (name, state) in state.consumers.all_stored() {
                put(Entry::Consumer { topic, name: name.clone(), state: Some(state.clone()) });
            }
        }
    }

    fn retain(&self, topic: &Topic, retention: Retention) {
        let mut state = topic.0.state.lock();
        state.retention = retention;
        let newest = state.newest;
        if state.kept.expire(newest, &retention, None) {
            drop(state);
            self.log_later(topic);
        }
    }

    /// Generation of an epoch of this level.
    pub(crate) fn generation(&self, level: Level) -> u32 {
        generation(level, self.power_losses, self.damages)
    }

    /// Notes that the log lacks something of a topic for which no ticket waits.
    pub(crate) fn log_later(&self, topic: &Topic) {
        self.due.lock().insert(topic.0.id, topic.clone());
    }

    /// Writes that the topic was made, if that has failed before.
    pub(crate) fn make_again(&self, topic: &Topic, state: &mut State) -> Result<(), Refusal> {
        if state.unmade {
            let made = topic.made(state);
            self.queue.push([Queued::new(topic, state, Work::Entry(made), None)])?;
            state.on_their_way += 1;
            state.unmade = false;
        }
        Ok(())
    }
}
