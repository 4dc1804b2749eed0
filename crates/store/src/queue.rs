//! What waits to be written. Appending never blocks; the writer takes all that is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::codec::Entry;
use crate::error::Refusal;
use crate::record::{Epoch, Level};
use crate::stats::Refused;
use crate::ticket::Sender;
use crate::topic::{State, Topic};

/// Something that waits for the writer.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) topic: Topic,
    /// What it waits for.
    pub(crate) level: Level,
    pub(crate) epoch: Epoch,
    pub(crate) since: Instant,
    pub(crate) work: Work,
    pub(crate) ticket: Option<Sender>,
    /// The next one in the queue belongs to the same group.
    pub(crate) is_joined: bool,
    /// The disk has to follow soon, though no ticket waits for it.
    pub(crate) is_lazy: bool,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// To be written.
    Entry(Entry),
    /// Waits for the record with this offset, which is ahead in the queue or being written.
    Duplicate(u64),
    /// Says that everything ahead is visible: the log wants a checkpoint for this segment.
    Settled(u64),
}

impl Queued {
    pub(crate) fn new(topic: &Topic, state: &mut State, work: Work, ticket: Option<Sender>) -> Self {
        let (level, epoch) = (state.waits_for(), state.epoch);
        Self {
            topic: topic.clone(),
            level,
            epoch,
            since: Instant::now(),
            work,
            ticket,
            is_joined: false,
            is_lazy: false,
        }
    }

    /// An entry that is not written: when it completes, all ahead of it is on the disk and visible.
    pub(crate) fn settled(nothing: &Topic, segment: u64) -> Self {
        let queued = Self::new(nothing, &mut nothing.0.state.lock(), Work::Settled(segment), None);
        Self { level: Level::Fsync, ..queued }
    }

    pub(crate) fn bytes(&self) -> usize {
        const TICKET: usize = 200;
        TICKET + if let Work::Entry(entry) = &self.work { entry.len() } else { 0 }
    }

    /// It is refused while the disk is full; other entries go on in the reserve.
    pub(crate) fn is_publish(&self) -> bool {
        matches!(self.work, Work::Duplicate(_) | Work::Entry(Entry::Message { .. } | Entry::TopicMade { .. }))
    }
}

/// A queue with a bound in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    /// Something was added without waking the writer.
    is_quiet: AtomicBool,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Queued>,
    /// Bytes from being taken to being stored.
    bytes: usize,
    /// Why nothing is taken.
    refuses: Option<Refusal>,
    is_idle: bool,
    refused: Refused,
}

impl Queue {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), is_quiet: AtomicBool::new(false), most_bytes }
    }

    /// Adds what publishers want, unless the bound is reached or the disk is full. All of it or nothing.
    pub(crate) fn push<const N: usize>(&self, queued: [Queued; N]) -> Result<(), Refusal> {
        self.add(queued, self.most_bytes, true, |_| true)
    }

    /// The same without waking the writer, until [`wake`](Self::wake) is called.
    pub(crate) fn push_quietly(&self, queued: Queued) -> Result<(), Refusal> {
        self.add([queued], self.most_bytes, false, |_| true)?;
        self.is_quiet.store(true, Ordering::Release);
        Ok(())
    }

    /// Wakes the writer for what was added quietly.
    pub(crate) fn wake(&self) {
        if self.is_quiet.load(Ordering::Relaxed) && self.is_quiet.swap(false, Ordering::AcqRel) {
            let mut inner = self.inner.lock();
            if std::mem::take(&mut inner.is_idle) {
                self.wake.notify_one();
            }
        }
    }

    /// Adds what is no publish: also while the disk is full, and the bound is twice as far away.
    pub(crate) fn push_own(&self, queued: Queued) -> Result<(), Refusal> {
        self.add([queued], self.most_bytes.saturating_mul(2), true, |refusal| refusal != Refusal::Full)
    }

    fn add<const N: usize>(
        &self,
        queued: [Queued; N],
        most_bytes: usize,
        wakes: bool,
        counts: impl Fn(Refusal) -> bool,
    ) -> Result<(), Refusal> {
        let bytes: usize = queued.iter().map(Queued::bytes).sum();
        let mut inner = self.inner.lock();
        if let Some(refusal) = inner.refuses.filter(|refusal| counts(*refusal)) {
            inner.refused.count(refusal);
            return Err(refusal);
        }
        if inner.bytes > 0 && inner.bytes + bytes > most_bytes {
            inner.refused.count(Refusal::Busy);
            return Err(Refusal::Busy);
        }
        inner.bytes += bytes;
        inner.waiting.extend(queued);
        if wakes && std::mem::take(&mut inner.is_idle) {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes all that waits. Waits itself until there is something or the time is over; none once the queue is closed
    /// and empty.
    pub(crate) fn take(&self, most: Duration, into: &mut Vec<Queued>) -> bool {
        let mut inner = self.inner.lock();
        if inner.waiting.is_empty() && inner.refuses != Some(Refusal::Closed) {
            inner.is_idle = true;
            self.wake.wait_for(&mut inner, most);
            inner.is_idle = false;
        }
        std::mem::swap(&mut inner.waiting, into);
        !into.is_empty() || inner.refuses != Some(Refusal::Closed)
    }

    /// Takes what waits, without waiting itself.
    pub(crate) fn take_now(&self, into: &mut Vec<Queued>) {
        std::mem::swap(&mut self.inner.lock().waiting, into);
    }

    /// Gives back the room of what is stored, or failed.
    pub(crate) fn release(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
    }

    /// Refuses from now on; a reason that is final stays.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        let mut inner = self.inner.lock();
        match inner.refuses {
            Some(Refusal::Closed) => {}
            Some(Refusal::Failed) if refusal != Some(Refusal::Closed) => {}
            _ => inner.refuses = refusal,
        }
        self.wake.notify_one();
    }

    /// Bytes, and what was refused.
    pub(crate) fn figures(&self) -> (usize, Refused) {
        let inner = self.inner.lock();
        (inner.bytes, inner.refused)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}
