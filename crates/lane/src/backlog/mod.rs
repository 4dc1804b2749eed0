//! The backlog of a lane: frames that the stream did not accept at once, within bounds, and what happens when the
//! bounds are reached (docs/PROTOCOL.md, "Time and load"). Pure: knows no stream and no runtime; the lane's writer
//! moves the frames.

mod budget;
mod mark;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

pub use self::budget::Bounds;
pub(crate) use self::budget::Budget;
pub(crate) use self::mark::Mark;
use self::mark::is_same;
pub use self::mark::{DropNotice, Gap};

/// What happens to a message if there is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Refused; the caller then closes the receiver as too slow.
    Refuse,
    /// The oldest droppable messages are dropped, and the receiver is told which messages it missed.
    DropOldest,
    /// Only the topic's newest message waits, in the position of the older one; otherwise as `DropOldest`.
    Latest,
    /// The oldest droppable messages are dropped; if that is not enough, the new message is refused.
    Displace,
    /// Accepted beyond the bounds: its sender adds little, and nothing more until there is room.
    Append,
    /// Accepted because its sender has already checked for room. Several senders can see the same room, so twice the
    /// bounds still apply.
    Exempt,
}

/// Backlog messages for each gap that a group may have on a lane. A group with more gaps gets a single one for all.
const MESSAGES_FOR_A_GAP: usize = 8;

#[derive(Debug)]
struct Marked {
    mark: Mark,
    /// Length of the whole frame, in bytes.
    length: usize,
    /// Position in line, never less than that of the frame before: dropping or replacing a frame does not renumber
    /// those behind it.
    number: u64,
}

/// The frames that wait on one lane, oldest first.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Oldest first. The first may be the rest of a frame whose beginning has been written.
    frames: VecDeque<Bytes>,
    /// Kind of each frame; as many as there are frames.
    marks: VecDeque<Marked>,
    bytes: usize,
    messages: usize,
    bounds: Bounds,
    /// Highest number assigned.
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

    /// Whether all frames up to a number have left the backlog.
    pub(crate) fn has_passed(&self, number: u64) -> bool {
        self.marks.front().is_none_or(|first| first.number > number)
    }

    /// Whether there is room for another message of any size.
    pub(crate) fn has_room(&self, budget: &Budget) -> bool {
        self.messages < self.bounds.messages && self.bytes < self.bounds.bytes && budget.has_room(0)
    }

    /// Whether there is room for a message of `bytes`. An empty backlog takes one message of any size.
    fn takes(&self, bytes: usize, budget: &Budget) -> bool {
        let fits = self.bounds.hold(self.messages, self.bytes, bytes);
        (self.frames.is_empty() || fits) && (budget.is_empty() || budget.has_room(bytes))
    }

    /// Appends a frame, or its unwritten rest, regardless of the bounds.
    pub(crate) fn put(&mut self, rest: Bytes, length: usize, mark: Mark, budget: &Budget) {
        self.insert(self.frames.len(), rest, length, mark, budget);
    }

    /// Index of the first frame of which nothing has been written: a partly written frame has to be finished.
    fn first(&self) -> usize {
        let is_begun =
            self.frames.front().zip(self.marks.front()).is_some_and(|(rest, whole)| rest.len() < whole.length);
        usize::from(is_begun)
    }

    fn mark(&self, at: usize) -> &Mark {
        &self.marks[at].mark
    }

    /// Appends a message; if there is no room, `overflow` decides. False if it was refused.
    pub(crate) fn offer(&mut self, frame: Bytes, mark: Mark, overflow: Overflow, budget: &Budget) -> bool {
        if overflow == Overflow::Append {
            self.put(frame.clone(), frame.len(), mark, budget);
            return true;
        }
        if let Some(older) = self.superseded(&mark, overflow) {
            // The new message takes the position of the older one.
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
                    self.record_missed(&mark, budget);
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

    /// Whether there are more gaps than messages and sources account for, which bounds the gaps. Gaps of groups do not
    /// cause this: they are merged into one.
    fn is_full_of_gaps(&self, budget: &Budget) -> bool {
        self.gaps() >= self.bounds.messages.saturating_add(budget.sources)
    }

    /// Index of the message that a newer one of a stateful topic replaces: the last of its topic, if that may be
    /// dropped.
    fn superseded(&self, mark: &Mark, overflow: Overflow) -> Option<usize> {
        let Mark::Topic { source, .. } = mark else { return None };
        if overflow != Overflow::Latest {
            return None;
        }
        let last = (self.first()..self.marks.len()).rev().find(|&at| self.mark(at).is_from(source))?;
        matches!(self.mark(last), Mark::Topic { may_drop: true, .. }).then_some(last)
    }

    /// Whether dropping every droppable message makes room for a message of `bytes`.
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

    /// The sources of the frames that are not partly written, each once.
    pub(crate) fn sources(&self) -> Vec<Arc<dyn DropNotice>> {
        let mut seen = HashSet::new();
        let sources = self.marks.iter().skip(self.first()).filter_map(|marked| marked.mark.source());
        sources.filter(|source| seen.insert(Arc::as_ptr(source).addr())).cloned().collect()
    }

    /// Removes the messages of the sources at these addresses, except a partly written one. One pass over the backlog,
    /// however many frames are removed.
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

    /// Indices of the droppable messages, oldest first.
    fn droppable(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (self.first()..self.marks.len()).filter(|&at| matches!(self.mark(at), Mark::Topic { may_drop: true, .. }))
    }

    /// Drops a message and records it in its source's gap.
    fn drop_message(&mut self, at: usize, budget: &Budget) {
        let Mark::Topic { source, offset, group, .. } = self.remove(at, budget) else { return };
        budget.counters.dropped(1);
        let gap = Gap { source, first: offset, last: offset, group };
        // A source's gap is in front of its remaining messages, so the next dropped message directly follows it.
        match (self.first()..at).rev().find(|&place| self.mark(place).is_gap_of(&gap.source)) {
            Some(place) => self.extend_gap(place, &gap, budget),
            None => self.insert_gap(at, gap, budget),
        }
    }

    /// Records the drop of a message that never entered the backlog.
    fn record_missed(&mut self, mark: &Mark, budget: &Budget) {
        let Mark::Topic { source, offset, group, .. } = mark else { return };
        budget.counters.dropped(1);
        let (source, group) = (Arc::clone(source), group.clone());
        let gap = Gap { source, first: *offset, last: *offset, group };
        match self.last_gap(&gap.source) {
            Some(place) => self.extend_gap(place, &gap, budget),
            None => self.insert_gap(self.frames.len(), gap, budget),
        }
    }

    /// Adds a gap for messages dropped elsewhere, merged into a waiting gap if possible. False if there are too many
    /// gaps.
    pub(crate) fn add_gap(&mut self, gap: Gap, budget: &Budget) -> bool {
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

    /// Index of a source's gap, if no message of that source waits behind it.
    fn last_gap(&self, source: &Arc<dyn DropNotice>) -> Option<usize> {
        (self.first()..self.marks.len())
            .rev()
            .find(|&at| self.mark(at).is_gap_of(source) || self.mark(at).is_from(source))
            .filter(|&at| self.mark(at).is_gap_of(source))
    }

    /// Inserts a gap, unless a gap of its group covers it.
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

    /// Replaces all gaps of a group by one. False if it has none.
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

    /// Extends a waiting gap by another one of its source.
    fn extend_gap(&mut self, at: usize, more: &Gap, budget: &Budget) {
        let Mark::Gap(mut gap) = self.remove(at, budget) else { return };
        (gap.first, gap.last) = (gap.first.min(more.first), gap.last.max(more.last));
        // A gap that covers messages of different groups belongs to none.
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

    /// Removes a frame. `at` must be a valid index.
    fn remove(&mut self, at: usize, budget: &Budget) -> Mark {
        let rest = self.frames.remove(at).unwrap_or_default();
        let mark = self.marks.remove(at).map_or(Mark::Plain, |marked| marked.mark);
        let messages = usize::from(mark.counts());
        self.messages -= messages;
        self.bytes -= rest.len();
        budget.remove(messages, rest.len());
        mark
    }

    /// The oldest frames, up to about `bytes`, but at least one if there is any.
    pub(crate) fn turn(&mut self, bytes: usize) -> &mut [Bytes] {
        let mut sum = 0;
        let within = self.frames.iter().take_while(|frame| {
            sum += frame.len();
            sum <= bytes
        });
        let count = within.count().max(1).min(self.frames.len());
        &mut self.frames.make_contiguous()[..count]
    }

    /// Removes the oldest `frames`, which were written in full; `bytes` were written altogether.
    pub(crate) fn written(&mut self, frames: usize, bytes: usize, budget: &Budget) {
        self.frames.drain(..frames);
        let messages = self.marks.drain(..frames).filter(|marked| marked.mark.counts()).count();
        self.messages -= messages;
        self.bytes -= bytes;
        budget.remove(messages, bytes);
    }

    /// Releases the memory of a burst, which would otherwise be kept for the life of the lane.
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
