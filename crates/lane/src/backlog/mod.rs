//! What a lane's stream did not take at once: the frames that wait, within bounds, and what happens when these are
//! reached (docs/PROTOCOL.md, "Time and load"). Pure: knows no stream and no runtime; the lane's writer moves the frames.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::counters::TrafficCounters;

/// What happens to a message for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// It is refused: its receiver has to go.
    Refuse,
    /// The oldest that may be dropped make room, and the receiver is told what it missed.
    DropOldest,
    /// Of its topic only the newest waits, in the place of the older; else as `DropOldest`.
    Latest,
    /// The oldest that may be dropped make room; where these are not enough, it is refused.
    Displace,
    /// It waits, whatever the bounds say: its sender brings little, and no more of it before there is room.
    Append,
    /// It waits all the same: its sender has seen to it that there was room. Several senders can have seen the same room, so
    /// twice the bounds hold even then.
    Exempt,
}

/// Where a droppable message comes from: says in the receiver's words which messages were dropped.
pub trait DropNotice: fmt::Debug + Send + Sync {
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
    /// A message of a topic. `group` is what it came by, where that brings more than one topic.
    Of { source: Arc<dyn DropNotice>, offset: u64, may_drop: bool, group: Option<Arc<dyn DropNotice>> },
    /// Stands for dropped messages.
    Gap(Gap),
}

/// Messages of a source that were dropped.
#[derive(Debug, Clone)]
pub struct Gap {
    /// Their source.
    pub source: Arc<dyn DropNotice>,
    /// The offset of the first.
    pub first: u64,
    /// The offset of the last.
    pub last: u64,
    /// What they came by. Once it has too many gaps, one of its own stands for them all.
    pub group: Option<Arc<dyn DropNotice>>,
}

impl Gap {
    fn frame(&self) -> Bytes {
        self.source.gap(self.first, self.last)
    }

    /// Whether no message lies between it and another one of its source.
    fn touches(&self, other: &Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }
}

impl Mark {
    /// What it belongs to; `None` for a message that belongs to nothing.
    fn source(&self) -> Option<&Arc<dyn DropNotice>> {
        match self {
            Self::Plain => None,
            Self::Of { source, .. } | Self::Gap(Gap { source, .. }) => Some(source),
        }
    }

    fn is_of(&self, other: &Arc<dyn DropNotice>) -> bool {
        matches!(self, Self::Of { source, .. } if is_same(source, other))
    }

    fn is_gap_of(&self, other: &Arc<dyn DropNotice>) -> bool {
        matches!(self, Self::Gap(gap) if is_same(&gap.source, other))
    }

    fn counts(&self) -> bool {
        !matches!(self, Self::Gap(_))
    }
}

fn is_same(one: &Arc<dyn DropNotice>, other: &Arc<dyn DropNotice>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Messages.
    pub messages: usize,
    /// Bytes of their frames.
    pub bytes: usize,
}

impl Bounds {
    fn twice(self) -> Self {
        Self { messages: self.messages.saturating_mul(2), bytes: self.bytes.saturating_mul(2) }
    }

    /// Whether one more message of so many bytes may wait beside these.
    fn hold(self, messages: usize, bytes: usize, more: usize) -> bool {
        messages < self.messages && bytes.saturating_add(more) <= self.bytes
    }
}

/// On a lane, the gaps of one group are told by one once there is one for so many messages that may wait.
const MESSAGES_FOR_A_GAP: usize = 8;

/// What waits for one client on all its lanes together, and may.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    /// Sources that messages can be dropped of and that are in no group; each has a gap of its own on each lane.
    sources: usize,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Where it is counted what is dropped.
    pub(crate) counters: Arc<dyn TrafficCounters>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds, sources: usize, counters: Arc<dyn TrafficCounters>) -> Self {
        Self { bounds, sources, messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0), counters }
    }

    /// Messages that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.is_within(self.bounds, bytes)
    }

    fn is_within(&self, bounds: Bounds, bytes: usize) -> bool {
        bounds.hold(self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed), bytes)
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
pub(crate) struct Backlog {
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
    pub(crate) fn new(bounds: Bounds) -> Self {
        let (frames, marks) = (VecDeque::new(), VecDeque::new());
        Self { frames, marks, bytes: 0, messages: 0, bounds, last: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of the last frame.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether everything up to a number has gone.
    pub(crate) fn has_passed(&self, number: u64) -> bool {
        self.marks.front().is_none_or(|first| first.number > number)
    }

    /// Whether another message of any size may wait.
    pub(crate) fn has_room(&self, budget: &Budget) -> bool {
        self.messages < self.bounds.messages && self.bytes < self.bounds.bytes && budget.has_room(0)
    }

    /// Whether so many bytes may wait as well. Where nothing waits one message always may, whatever its size.
    fn takes(&self, bytes: usize, budget: &Budget) -> bool {
        let fits = self.bounds.hold(self.messages, self.bytes, bytes);
        (self.frames.is_empty() || fits) && (budget.is_empty() || budget.has_room(bytes))
    }

    /// Has a frame wait, or what the stream has not taken of it, whatever the bounds say.
    pub(crate) fn put(&mut self, rest: Bytes, length: usize, mark: Mark, budget: &Budget) {
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
    pub(crate) fn offer(&mut self, frame: Bytes, mark: Mark, overflow: Overflow, budget: &Budget) -> bool {
        if overflow == Overflow::Append {
            self.put(frame.clone(), frame.len(), mark, budget);
            return true;
        }
        if let Some(older) = self.outdated(&mark, overflow) {
            // Takes the older one's place in line.
            self.remove(older, budget);
            budget.counters.dropped(1);
            self.insert(older, frame.clone(), frame.len(), mark, budget);
            return true;
        }
        if overflow == Overflow::Exempt {
            let is_within = self.bounds.twice().hold(self.messages, self.bytes, frame.len())
                && budget.is_within(budget.bounds.twice(), frame.len());
            if !is_within && !self.takes(frame.len(), budget) {
                return false;
            }
        } else if !self.takes(frame.len(), budget) {
            if overflow == Overflow::Refuse || self.is_full_of_gaps(budget) {
                return false;
            }
            if !self.can_make_room(frame.len(), budget) {
                if overflow != Overflow::Displace {
                    self.miss(&mark, budget);
                }
                return overflow != Overflow::Displace;
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

    fn gaps(&self) -> usize {
        self.frames.len() - self.messages
    }

    /// Whether there are more gaps than messages and sources account for: these are bounded as well. Those of groups are not
    /// what it comes from; they become one.
    fn is_full_of_gaps(&self, budget: &Budget) -> bool {
        self.gaps() >= self.bounds.messages.saturating_add(budget.sources)
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
    pub(crate) fn sources(&self) -> Vec<Arc<dyn DropNotice>> {
        let mut seen = HashSet::new();
        let sources = self.marks.iter().skip(self.first()).filter_map(|marked| marked.mark.source());
        sources.filter(|source| seen.insert(Arc::as_ptr(source).addr())).cloned().collect()
    }

    /// Forgets what waits of the sources at these addresses, but for what is begun. Costs as much as there waits, and not
    /// as much again for each frame that goes.
    pub(crate) fn forget(&mut self, unwanted: &HashSet<usize>, budget: &Budget) {
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
        let Mark::Of { source, offset, group, .. } = self.remove(at, budget) else { return };
        budget.counters.dropped(1);
        let gap = Gap { source, first: offset, last: offset, group };
        // A source's gap stands before what is left of it: what is dropped next is what comes next.
        match (self.first()..at).rev().find(|&place| self.mark(place).is_gap_of(&gap.source)) {
            Some(place) => self.extend_gap(place, &gap, budget),
            None => self.insert_gap(at, gap, budget),
        }
    }

    /// Notes that a message was dropped which never waited.
    fn miss(&mut self, mark: &Mark, budget: &Budget) {
        let Mark::Of { source, offset, group, .. } = mark else { return };
        budget.counters.dropped(1);
        let (source, group) = (Arc::clone(source), group.clone());
        let gap = Gap { source, first: *offset, last: *offset, group };
        match self.last_gap(&gap.source) {
            Some(place) => self.extend_gap(place, &gap, budget),
            None => self.insert_gap(self.frames.len(), gap, budget),
        }
    }

    /// Tells of messages that were dropped elsewhere: by a gap that waits, where it can be made to tell of these as well.
    /// False where there are too many.
    pub(crate) fn tell(&mut self, gap: Gap, budget: &Budget) -> bool {
        if let Some(place) = self.last_gap(&gap.source)
            && matches!(self.mark(place), Mark::Gap(waiting) if waiting.touches(&gap))
        {
            self.extend_gap(place, &gap, budget);
            return true;
        }
        if self.is_full_of_gaps(budget) {
            return false;
        }
        self.insert_gap(self.frames.len(), gap, budget);
        true
    }

    /// A source's gap, where that is the last that waits of it.
    fn last_gap(&self, source: &Arc<dyn DropNotice>) -> Option<usize> {
        (self.first()..self.marks.len())
            .rev()
            .find(|&at| self.mark(at).is_gap_of(source) || self.mark(at).is_of(source))
            .filter(|&at| self.mark(at).is_gap_of(source))
    }

    /// Adds a gap, or has that of its group tell so.
    fn insert_gap(&mut self, at: usize, gap: Gap, budget: &Budget) {
        if let Some(group) = &gap.group {
            if (self.first()..self.marks.len()).any(|at| self.mark(at).is_gap_of(group)) {
                return;
            }
            if self.gaps() >= (self.bounds.messages / MESSAGES_FOR_A_GAP).max(1) && self.join_gaps(group, at, budget) {
                return;
            }
        }
        let frame = gap.frame();
        self.insert(at, frame.clone(), frame.len(), Mark::Gap(gap), budget);
    }

    /// Puts one gap in the place of all that a group has; where it has none there is nothing to gain.
    fn join_gaps(&mut self, group: &Arc<dyn DropNotice>, mut at: usize, budget: &Budget) -> bool {
        let is_of_group =
            |mark: &Mark| matches!(mark, Mark::Gap(Gap { group: Some(other), .. }) if is_same(other, group));
        let places: Vec<usize> = (self.first()..self.marks.len()).filter(|&at| is_of_group(self.mark(at))).collect();
        for &place in places.iter().rev() {
            self.remove(place, budget);
        }
        let Some(&first) = places.first() else { return false };
        at = at.min(first);
        let gap = Gap { source: Arc::clone(group), first: 0, last: 0, group: None };
        let frame = gap.frame();
        self.insert(at, frame.clone(), frame.len(), Mark::Gap(gap), budget);
        true
    }

    /// Has a gap that waits tell of others of its source as well.
    fn extend_gap(&mut self, at: usize, more: &Gap, budget: &Budget) {
        let Mark::Gap(mut gap) = self.remove(at, budget) else { return };
        (gap.first, gap.last) = (gap.first.min(more.first), gap.last.max(more.last));
        // Of what came by different ways it tells for itself.
        gap.group = gap.group.filter(|group| more.group.as_ref().is_some_and(|other| is_same(group, other)));
        let frame = gap.frame();
        self.insert(at, frame.clone(), frame.len(), Mark::Gap(gap), budget);
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
    pub(crate) fn turn(&mut self, bytes: usize) -> &mut [Bytes] {
        let mut sum = 0;
        let within = self.frames.iter().take_while(|frame| {
            sum += frame.len();
            sum <= bytes
        });
        let count = within.count().max(1).min(self.frames.len());
        &mut self.frames.make_contiguous()[..count]
    }

    /// Takes note that the oldest `frames` were written whole, and `bytes` of all.
    pub(crate) fn written(&mut self, frames: usize, bytes: usize, budget: &Budget) {
        self.frames.drain(..frames);
        let messages = self.marks.drain(..frames).filter(|marked| marked.mark.counts()).count();
        self.messages -= messages;
        self.bytes -= bytes;
        budget.remove(messages, bytes);
    }

    /// Memory of a burst is not kept for the life of the lane.
    pub(crate) fn shrink(&mut self) {
        self.frames.shrink_to(16);
        self.marks.shrink_to(16);
    }

    pub(crate) fn clear(&mut self, budget: &Budget) {
        budget.remove(self.messages, self.bytes);
        self.frames.clear();
        self.marks.clear();
        (self.messages, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests;
