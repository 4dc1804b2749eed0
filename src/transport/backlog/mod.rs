//! What a lane's stream did not take at once: the frames that wait, within bounds, and what happens when these are
//! reached (docs/PROTOCOL.md, "Time and load"). Pure: knows no stream and no runtime; the lane's writer moves the frames.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::metrics::Counters;

/// What happens to a message for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It is refused: its receiver has to go.
    Refuse,
    /// The oldest that may be dropped make room, and the receiver is told what it missed.
    DropOldest,
    /// Of its topic only the newest waits, in the place of the older; else as `DropOldest`.
    Latest,
    /// It waits all the same: whoever sends has seen to it that there was room.
    Force,
}

/// Where a droppable message comes from: says in the receiver's words which messages were dropped.
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// Its name, which is nobody else's.
    fn name(&self) -> &str;

    /// The frame that stands in the place of the messages from offset `first` to `last`.
    fn gap(&self, first: u64, last: u64) -> Bytes;
}

/// What a waiting frame is.
#[derive(Debug, Clone)]
pub(crate) enum Mark {
    /// A message that is never dropped.
    Plain,
    /// A message of a topic.
    Of { source: Arc<dyn Source>, offset: u64, may_drop: bool },
    /// Stands for dropped messages.
    Gap { source: Arc<dyn Source>, first: u64 },
}

impl Mark {
    /// What it belongs to; `None` for a message that belongs to nothing.
    fn source(&self) -> Option<&Arc<dyn Source>> {
        match self {
            Self::Plain => None,
            Self::Of { source, .. } | Self::Gap { source, .. } => Some(source),
        }
    }

    fn is_of(&self, other: &Arc<dyn Source>) -> bool {
        matches!(self, Self::Of { source, .. } if is_same(source, other))
    }

    fn is_gap_of(&self, other: &Arc<dyn Source>) -> bool {
        matches!(self, Self::Gap { source, .. } if is_same(source, other))
    }

    fn counts(&self) -> bool {
        !matches!(self, Self::Gap { .. })
    }
}

fn is_same(one: &Arc<dyn Source>, other: &Arc<dyn Source>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// What waits for one client on all its lanes together, and may.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Where it is counted what is dropped.
    pub(super) counters: Arc<Counters>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds, counters: Arc<Counters>) -> Self {
        Self { bounds, messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0), counters }
    }

    /// Messages that wait, and their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.messages.load(Ordering::Relaxed) < self.bounds.messages
            && self.bytes.load(Ordering::Relaxed) + bytes <= self.bounds.bytes
    }

    fn is_empty(&self) -> bool {
        self.messages.load(Ordering::Relaxed) == 0
    }

    fn add(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Marked {
    mark: Mark,
    /// The whole frame's length.
    length: usize,
    /// Never less than that of a frame before it: what is dropped or replaced does not move what waits behind it.
    number: u64,
}

/// The frames that wait on one lane, oldest first.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The first may be the rest of a frame whose beginning has been written.
    frames: VecDeque<Bytes>,
    /// What each frame is; as many as there are frames.
    marks: VecDeque<Marked>,
    bytes: usize,
    messages: usize,
    bounds: Bounds,
    /// The highest number given.
    last: u64,
}

impl Backlog {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (frames, marks) = (VecDeque::new(), VecDeque::new());
        Self { frames, marks, bytes: 0, messages: 0, bounds, last: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of the last frame.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether everything up to a number has gone.
    pub(super) fn has_passed(&self, number: u64) -> bool {
        self.marks.front().is_none_or(|first| first.number > number)
    }

    /// Whether another message of any size may wait.
    pub(super) fn has_room(&self, budget: &Budget) -> bool {
        self.messages < self.bounds.messages && self.bytes < self.bounds.bytes && budget.has_room(0)
    }

    /// Whether so many bytes may wait as well. Where nothing waits one message always may, whatever its size.
    fn takes(&self, bytes: usize, budget: &Budget) -> bool {
        let fits = self.messages < self.bounds.messages && self.bytes + bytes <= self.bounds.bytes;
        (self.frames.is_empty() || fits) && (budget.is_empty() || budget.has_room(bytes))
    }

    /// Has a frame wait, or what the stream has not taken of it, whatever the bounds say.
    pub(super) fn put(&mut self, rest: Bytes, length: usize, mark: Mark, budget: &Budget) {
        self.insert(self.frames.len(), rest, length, mark, budget);
    }

    /// The first place that nothing has been written of: what is begun has to be finished, whatever becomes of it.
    fn first(&self) -> usize {
        let is_begun =
            self.frames.front().zip(self.marks.front()).is_some_and(|(rest, whole)| rest.len() < whole.length);
        usize::from(is_begun)
    }

    fn mark(&self, at: usize) -> &Mark {
        &self.marks[at].mark
    }

    /// Has a message wait, as `overflow` says where there is no room. False where it was refused.
    pub(super) fn offer(&mut self, frame: Bytes, mark: Mark, overflow: Overflow, budget: &Budget) -> bool {
        if let Some(older) = self.outdated(&mark, overflow) {
            // Takes the older one's place in line.
            self.remove(older, budget);
            budget.counters.dropped.add(1);
            self.insert(older, frame.clone(), frame.len(), mark, budget);
            return true;
        }
        if overflow != Overflow::Force && !self.takes(frame.len(), budget) {
            // Each source has a gap of its own: these are bounded as well.
            let is_full_of_gaps = self.frames.len() - self.messages >= self.bounds.messages;
            if overflow == Overflow::Refuse || is_full_of_gaps {
                return false;
            }
            if !self.can_make_room(frame.len(), budget) {
                self.miss(&mark, budget);
                return true;
            }
            while !self.takes(frame.len(), budget) {
                let oldest = self.droppable().next();
                let Some(oldest) = oldest else { break };
                self.drop_message(oldest, budget);
            }
        }
        self.put(frame.clone(), frame.len(), mark, budget);
        true
    }

    /// The message that a newer one of a topic with state replaces: the last of its topic here, where that may be dropped.
    fn outdated(&self, mark: &Mark, overflow: Overflow) -> Option<usize> {
        let Mark::Of { source, .. } = mark else { return None };
        if overflow != Overflow::Latest {
            return None;
        }
        let last = (self.first()..self.marks.len()).rev().find(|&at| self.mark(at).is_of(source))?;
        matches!(self.mark(last), Mark::Of { may_drop: true, .. }).then_some(last)
    }

    /// Whether dropping what may be dropped makes room for so many bytes.
    fn can_make_room(&self, bytes: usize, budget: &Budget) -> bool {
        let (mut messages, mut freed) = (0, 0);
        for at in self.droppable() {
            (messages, freed) = (messages + 1, freed + self.frames[at].len());
        }
        messages > 0
            && self.bytes - freed + bytes <= self.bounds.bytes
            && budget.messages.load(Ordering::Relaxed) - messages < budget.bounds.messages
            && budget.bytes.load(Ordering::Relaxed) - freed + bytes <= budget.bounds.bytes
    }

    /// The sources of what waits and is not begun, each once.
    pub(super) fn sources(&self) -> Vec<Arc<dyn Source>> {
        let mut seen = HashSet::new();
        let sources = self.marks.iter().skip(self.first()).filter_map(|marked| marked.mark.source());
        sources.filter(|source| seen.insert(Arc::as_ptr(source).addr())).cloned().collect()
    }

    /// Forgets what waits of the sources at these addresses, but for what is begun. Costs as much as there waits, and not
    /// as much again for each frame that goes.
    pub(super) fn forget(&mut self, unwanted: &HashSet<usize>, budget: &Budget) {
        let first = self.first();
        let (frames, marks) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.marks));
        for (at, (rest, marked)) in frames.into_iter().zip(marks).enumerate() {
            let address = marked.mark.source().map(|source| Arc::as_ptr(source).addr());
            if at < first || !address.is_some_and(|address| unwanted.contains(&address)) {
                self.frames.push_back(rest);
                self.marks.push_back(marked);
                continue;
            }
            let messages = usize::from(marked.mark.counts());
            self.messages -= messages;
            self.bytes -= rest.len();
            budget.remove(messages, rest.len());
        }
    }

    /// The places of messages that may still be dropped, oldest first.
    fn droppable(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (self.first()..self.marks.len()).filter(|&at| matches!(self.mark(at), Mark::Of { may_drop: true, .. }))
    }

    /// Drops a message and has its source's gap tell so.
    fn drop_message(&mut self, at: usize, budget: &Budget) {
        let mark = self.remove(at, budget);
        let Mark::Of { source, offset, .. } = mark else { return };
        budget.counters.dropped.add(1);
        // A source's gap stands before what is left of it: what is dropped next is what comes next.
        match (self.first()..at).rev().find(|&place| self.mark(place).is_gap_of(&source)) {
            Some(place) => self.extend_gap(place, offset, budget),
            None => self.insert_gap(at, source, offset, budget),
        }
    }

    /// Notes that a message was dropped which never waited.
    fn miss(&mut self, mark: &Mark, budget: &Budget) {
        let Mark::Of { source, offset, .. } = mark else { return };
        budget.counters.dropped.add(1);
        let last = (self.first()..self.marks.len())
            .rev()
            .find(|&at| self.mark(at).is_gap_of(source) || self.mark(at).is_of(source))
            .filter(|&at| self.mark(at).is_gap_of(source));
        match last {
            Some(place) => self.extend_gap(place, *offset, budget),
            None => self.insert_gap(self.frames.len(), Arc::clone(source), *offset, budget),
        }
    }

    fn insert_gap(&mut self, at: usize, source: Arc<dyn Source>, offset: u64, budget: &Budget) {
        let frame = source.gap(offset, offset);
        self.insert(at, frame.clone(), frame.len(), Mark::Gap { source, first: offset }, budget);
    }

    fn extend_gap(&mut self, at: usize, last: u64, budget: &Budget) {
        let Mark::Gap { source, first } = self.remove(at, budget) else { return };
        let frame = source.gap(first, last);
        self.insert(at, frame.clone(), frame.len(), Mark::Gap { source, first }, budget);
    }

    fn insert(&mut self, at: usize, rest: Bytes, length: usize, mark: Mark, budget: &Budget) {
        let messages = usize::from(mark.counts());
        self.messages += messages;
        self.bytes += rest.len();
        budget.add(messages, rest.len());
        let number = self.marks.get(at).map_or(self.last + 1, |next| next.number);
        self.last = self.last.max(number);
        self.frames.insert(at, rest);
        self.marks.insert(at, Marked { mark, length, number });
    }

    /// Callers give places that are there.
    fn remove(&mut self, at: usize, budget: &Budget) -> Mark {
        let rest = self.frames.remove(at).unwrap_or_default();
        let mark = self.marks.remove(at).map_or(Mark::Plain, |marked| marked.mark);
        let messages = usize::from(mark.counts());
        self.messages -= messages;
        self.bytes -= rest.len();
        budget.remove(messages, rest.len());
        mark
    }

    /// The oldest frames: at least one where there is any, and no more than about `bytes`.
    pub(super) fn turn(&mut self, bytes: usize) -> &mut [Bytes] {
        let mut sum = 0;
        let within = self.frames.iter().take_while(|frame| {
            sum += frame.len();
            sum <= bytes
        });
        let count = within.count().max(1).min(self.frames.len());
        &mut self.frames.make_contiguous()[..count]
    }

    /// Takes note that the oldest `frames` were written whole, and `bytes` of all.
    pub(super) fn written(&mut self, frames: usize, bytes: usize, budget: &Budget) {
        self.frames.drain(..frames);
        let messages = self.marks.drain(..frames).filter(|marked| marked.mark.counts()).count();
        self.messages -= messages;
        self.bytes -= bytes;
        budget.remove(messages, bytes);
    }

    /// Memory of a burst is not kept for the life of the lane.
    pub(super) fn shrink(&mut self) {
        self.frames.shrink_to(16);
        self.marks.shrink_to(16);
    }

    pub(super) fn clear(&mut self, budget: &Budget) {
        budget.remove(self.messages, self.bytes);
        self.frames.clear();
        self.marks.clear();
        (self.messages, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests;
