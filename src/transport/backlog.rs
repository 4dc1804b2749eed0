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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Topic(&'static str);

    impl Source for Topic {
        fn gap(&self, first: u64, last: u64) -> Bytes {
            format!("{} lost {first}-{last}", self.0).into()
        }
    }

    fn topic(name: &'static str) -> Arc<dyn Source> {
        Arc::new(Topic(name))
    }

    /// A lane of which four messages and 100 bytes may wait, in a client that may have ten and 1,000.
    fn backlog() -> (Backlog, Budget) {
        (Backlog::new(Bounds { messages: 4, bytes: 100 }), Budget::new(Bounds { messages: 10, bytes: 1000 }))
    }

    fn offer(lane: &mut (Backlog, Budget), topic: &Arc<dyn Source>, offset: u64, overflow: Overflow) -> bool {
        let may_drop = matches!(overflow, Overflow::DropOldest | Overflow::Latest);
        let mark = Mark::Of { source: Arc::clone(topic), offset, may_drop };
        lane.0.offer(format!("message {offset}").into(), mark, overflow, &lane.1)
    }

    fn waiting(lane: &(Backlog, Budget)) -> Vec<String> {
        lane.0.frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
    }

    #[test]
    fn without_leave_to_drop_a_message_beyond_the_bounds_is_refused() {
        let (mut lane, a) = (backlog(), topic("a"));
        for offset in 1..=4 {
            assert!(offer(&mut lane, &a, offset, Overflow::Refuse));
        }
        assert!(!offer(&mut lane, &a, 5, Overflow::Refuse), "four may wait");
        assert!(offer(&mut lane, &a, 5, Overflow::Force), "whoever has seen to room gets it");
        assert_eq!(lane.0.len(), 5);
    }

    #[test]
    fn the_oldest_make_room_and_one_gap_tells_of_all_of_them() {
        let (mut lane, a) = (backlog(), topic("a"));
        for offset in 1..=7 {
            assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
        }
        assert_eq!(waiting(&lane), ["a lost 1-3", "message 4", "message 5", "message 6", "message 7"]);
    }

    #[test]
    fn a_frame_that_is_begun_is_finished_and_its_message_not_dropped() {
        let (mut lane, a) = (backlog(), topic("a"));
        let mark = Mark::Of { source: Arc::clone(&a), offset: 1, may_drop: true };
        lane.0.put("ge 1".into(), 9, mark, &lane.1);
        for offset in 2..=6 {
            assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
        }
        assert_eq!(waiting(&lane), ["ge 1", "a lost 2-3", "message 4", "message 5", "message 6"]);
        // The gap itself may be begun; what is dropped then is told by another.
        lane.0.written(1, 4, &lane.1);
        let begun = lane.0.turn(0)[0].split_to(3).len();
        lane.0.written(0, begun, &lane.1);
        for offset in 7..=8 {
            assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
        }
        assert_eq!(waiting(&lane), ["ost 2-3", "a lost 4-4", "message 5", "message 6", "message 7", "message 8"]);
    }

    #[test]
    fn of_a_topic_with_state_only_the_newest_waits_in_the_place_of_the_older() {
        let (mut lane, a, b) = (backlog(), topic("a"), topic("b"));
        for (topic, offset) in [(&a, 1), (&b, 2), (&a, 3), (&a, 4)] {
            assert!(offer(&mut lane, topic, offset, Overflow::Latest));
        }
        assert_eq!(waiting(&lane), ["message 4", "message 2"]);
    }

    #[test]
    fn where_nothing_may_be_dropped_the_newcomer_is_and_a_gap_tells_so() {
        let (mut lane, a, b) = (backlog(), topic("a"), topic("b"));
        for offset in 1..=4 {
            assert!(offer(&mut lane, &a, offset, Overflow::Refuse));
        }
        for offset in 1..=3 {
            assert!(offer(&mut lane, &b, offset, Overflow::DropOldest));
        }
        assert_eq!(waiting(&lane)[4..], ["b lost 1-3"]);
    }

    #[test]
    fn what_other_lanes_have_waiting_counts() {
        let (mut one, mut other, a) = (backlog().0, backlog(), topic("a"));
        for offset in 1..=4 {
            let mark = Mark::Of { source: Arc::clone(&a), offset, may_drop: false };
            assert!(one.offer(Bytes::from(vec![0; 20]), mark, Overflow::Refuse, &other.1));
        }
        other.1.bounds.messages = 6;
        for offset in 1..=2 {
            assert!(offer(&mut other, &a, offset, Overflow::Refuse));
        }
        assert!(!offer(&mut other, &a, 3, Overflow::Refuse), "six may wait on both");
        one.clear(&other.1);
        assert!(offer(&mut other, &a, 3, Overflow::Refuse));
    }

    proptest! {
        /// Whatever is offered and written: the bounds hold, the accounts are right, and of each topic every offset is either
        /// sent once, or told as lost by the gap in its place.
        #[test]
        fn every_message_is_sent_or_told_as_lost_in_its_place(
            steps in prop::collection::vec((0..3_usize, 0..4_usize, 1..40_usize), 0..200),
        ) {
            let names = ["a", "b", "c"];
            let topics = names.map(topic);
            let (mut backlog, budget) = backlog();
            let mut newest = [0_u64; 3];
            let mut sent = Vec::new();
            let take = |backlog: &mut Backlog, sent: &mut Vec<u8>, bytes: usize| {
                let (mut whole, mut left, mut written) = (0, bytes, 0);
                for frame in backlog.turn(bytes) {
                    let part = frame.split_to(left.min(frame.len()));
                    sent.extend_from_slice(&part);
                    (left, written) = (left - part.len(), written + part.len());
                    if !frame.is_empty() {
                        break;
                    }
                    whole += 1;
                }
                backlog.written(whole, written, &budget);
            };
            for (of, action, size) in steps {
                if action == 3 {
                    take(&mut backlog, &mut sent, size);
                    continue;
                }
                newest[of] += 1;
                let frame = format!("[{} {} {}]", names[of], newest[of], "x".repeat(size));
                let mark = Mark::Of { source: Arc::clone(&topics[of]), offset: newest[of], may_drop: true };
                prop_assert!(backlog.offer(frame.into(), mark, Overflow::DropOldest, &budget));
                prop_assert!(backlog.messages <= 4);
                let messages = backlog.marks.iter().filter(|marked| marked.mark.counts()).count();
                let bytes = backlog.frames.iter().map(Bytes::len).sum::<usize>();
                prop_assert_eq!((messages, bytes), (backlog.messages, backlog.bytes));
                prop_assert_eq!((budget.messages.load(Ordering::Relaxed), budget.bytes.load(Ordering::Relaxed)), (messages, bytes));
            }
            while !backlog.is_empty() {
                take(&mut backlog, &mut sent, 7);
            }
            let sent = String::from_utf8(sent).unwrap();
            for (of, name) in names.iter().enumerate() {
                let mut next = 1;
                for part in sent.replace(']', "[").split('[') {
                    let words: Vec<&str> = part.split(' ').collect();
                    // Gaps stand between the brackets of messages, one behind the other.
                    for gap in words.windows(3).filter(|gap| gap[1] == "lost" && gap[0].ends_with(name)) {
                        let (first, last) = gap[2].split_once('-').unwrap();
                        let last: String = last.chars().take_while(char::is_ascii_digit).collect();
                        prop_assert_eq!(first.parse::<u64>().unwrap(), next, "{}", sent);
                        next = last.parse::<u64>().unwrap() + 1;
                    }
                    if words[0] == *name && words.get(1) != Some(&"lost") {
                        prop_assert_eq!(words[1].parse::<u64>().unwrap(), next, "{}", sent);
                        next += 1;
                    }
                }
                prop_assert_eq!(next, newest[of] + 1, "{}: {}", name, sent);
            }
        }
    }
}
