//! What a lane's stream did not take at once: the frames that wait, within bounds, and what happens when these are
//! reached (docs/PROTOCOL.md, "Time and load"). Pure: knows no stream and no runtime; the lane's writer moves the frames.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What happens to a message for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It is refused: its receiver has to go.
    Refuse,
    /// The oldest that may be dropped make room, and the receiver is told what it missed.
    DropOldest,
    /// Of its topic only the newest waits at all; else as `DropOldest`.
    Latest,
    /// It waits all the same: whoever sends has seen to it that there was room.
    Force,
}

/// Where a droppable message comes from: says in the receiver's words which messages were dropped.
pub(crate) trait Source: fmt::Debug + Send + Sync {
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
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.messages.load(Ordering::Relaxed) < self.bounds.messages
            && self.bytes.load(Ordering::Relaxed) + bytes <= self.bounds.bytes
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
}

impl Backlog {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (frames, marks) = (VecDeque::new(), VecDeque::new());
        Self { frames, marks, bytes: 0, messages: 0, bounds }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether another message of any size may wait.
    pub(super) fn has_room(&self, budget: &Budget) -> bool {
        self.messages < self.bounds.messages && self.bytes < self.bounds.bytes && budget.has_room(0)
    }

    fn takes(&self, bytes: usize, budget: &Budget) -> bool {
        self.messages < self.bounds.messages && self.bytes + bytes <= self.bounds.bytes && budget.has_room(bytes)
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
        let older = match &mark {
            Mark::Of { source, .. } if overflow == Overflow::Latest => {
                self.droppable().rev().find(|&at| self.mark(at).is_of(source))
            }
            _ => None,
        };
        if let Some(older) = older {
            // Takes the older one's place in line.
            self.remove(older, budget);
            self.insert(older, frame.clone(), frame.len(), mark, budget);
            return true;
        }
        if overflow != Overflow::Force && !self.frames.is_empty() && !self.takes(frame.len(), budget) {
            if overflow == Overflow::Refuse {
                return false;
            }
            while !self.takes(frame.len(), budget) {
                let oldest = self.droppable().next();
                let Some(oldest) = oldest else {
                    self.miss(&mark, budget);
                    return true;
                };
                self.drop_message(oldest, budget);
            }
        }
        self.put(frame.clone(), frame.len(), mark, budget);
        true
    }

    /// The places of messages that may still be dropped, oldest first.
    fn droppable(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (self.first()..self.marks.len()).filter(|&at| matches!(self.mark(at), Mark::Of { may_drop: true, .. }))
    }

    /// Drops a message and has its source's gap tell so.
    fn drop_message(&mut self, at: usize, budget: &Budget) {
        let mark = self.remove(at, budget);
        let Mark::Of { source, offset, .. } = mark else { return };
        // A source's gap stands before what is left of it: what is dropped next is what comes next.
        match (self.first()..at).rev().find(|&place| self.mark(place).is_gap_of(&source)) {
            Some(place) => self.extend_gap(place, offset, budget),
            None => self.insert_gap(at, source, offset, budget),
        }
    }

    /// Notes that a message was dropped which never waited.
    fn miss(&mut self, mark: &Mark, budget: &Budget) {
        let Mark::Of { source, offset, .. } = mark else { return };
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
        self.frames.insert(at, rest);
        self.marks.insert(at, Marked { mark, length });
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
