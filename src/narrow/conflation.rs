//! Conflation: of the messages of one topic that come faster than a subscription's `max_rate`, only the newest of each
//! interval goes on. The first comes at once; a later one is held back until the interval is over, and a newer one
//! takes its place.
//!
//! One client's subscriptions together, so that what they hold back has one bound: beyond it, the message that would go
//! first goes at once, however short its interval was.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};

/// Memory of a topic within its interval, beside a message that is held back.
const TOPIC_BYTES: usize = 160;

/// The subscriptions of one client that have a `max_rate`. Times are microseconds of any clock that never goes back.
#[derive(Debug)]
pub(crate) struct Conflation<M> {
    subscriptions: HashMap<u64, Subscription<M>>,
    /// Ends of intervals: time, subscription, topic. Each topic has one that is its own; others are out of date.
    ends: BinaryHeap<Reverse<(u64, u64, u64)>>,
    /// Messages that are held back.
    held: usize,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Subscription<M> {
    interval_us: u64,
    /// Those within their intervals.
    topics: HashMap<u64, Topic<M>>,
}

#[derive(Debug)]
struct Topic<M> {
    /// The end of its interval.
    end: u64,
    /// The newest message.
    held: Option<Message<M>>,
}

/// A message of a topic.
#[derive(Debug)]
pub(crate) struct Message<M> {
    pub(crate) message: M,
    /// Its cost in memory.
    pub(crate) bytes: usize,
    /// The time from which on it is of no use; `u64::MAX` if there is none.
    pub(crate) until: u64,
}

/// The fate of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offered<M> {
    /// The message, if it goes on at once.
    pub(crate) now: Option<M>,
    /// Whether one of the two never will: an older one that was held back, or this one.
    pub(crate) replaced: bool,
}

impl<M> Conflation<M> {
    /// No subscriptions yet, which together take at most so many bytes.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { subscriptions: HashMap::new(), ends: BinaryHeap::new(), held: 0, bytes: 0, most_bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Adds a subscription, whose number never comes again.
    pub(crate) fn add(&mut self, subscription: u64, interval_us: u64) {
        self.subscriptions.insert(subscription, Subscription { interval_us, topics: HashMap::new() });
    }

    /// Removes a subscription; gives what is held back for it.
    pub(crate) fn remove(&mut self, subscription: u64) -> Vec<M> {
        let Some(removed) = self.subscriptions.remove(&subscription) else { return Vec::new() };
        self.ends.retain(|Reverse((_, other, _))| *other != subscription);
        self.bytes -= TOPIC_BYTES * removed.topics.len();
        let held: Vec<_> = removed.topics.into_values().filter_map(|topic| topic.held).collect();
        self.held -= held.len();
        self.bytes -= held.iter().map(|held| held.bytes).sum::<usize>();
        held.into_iter().map(|held| held.message).collect()
    }

    /// Takes what all subscriptions hold back of a topic.
    pub(crate) fn take(&mut self, topic: u64) -> Vec<(u64, M)> {
        let mut taken = Vec::new();
        for (number, of) in &mut self.subscriptions {
            if let Some(held) = of.topics.get_mut(&topic).and_then(|topic| topic.held.take()) {
                self.held -= 1;
                self.bytes -= held.bytes;
                taken.push((*number, held.message));
            }
        }
        taken
    }

    /// Begins the interval behind a message of a topic that has gone on without being offered. Call
    /// [`next_over`](Self::next_over) behind it.
    pub(crate) fn begin(&mut self, subscription: u64, topic: u64, now: u64) {
        let Some(of) = self.subscriptions.get_mut(&subscription) else { return };
        let end = now.saturating_add(of.interval_us);
        if let Entry::Vacant(place) = of.topics.entry(topic) {
            place.insert(Topic { end, held: None });
            self.bytes += TOPIC_BYTES;
            self.ends.push(Reverse((end, subscription, topic)));
        }
    }

    /// A subscription's next message of a topic. It replaces an older one that is held back, unless that is still of
    /// use at the end of the interval and this one is not. Call [`next_over`](Self::next_over) behind it.
    pub(crate) fn offer(&mut self, subscription: u64, topic: u64, offered: Message<M>, now: u64) -> Offered<M> {
        self.forget_idle(now);
        let Some(of) = self.subscriptions.get_mut(&subscription) else {
            return Offered { now: Some(offered.message), replaced: false };
        };
        let end = now.saturating_add(of.interval_us);
        match of.topics.entry(topic) {
            Entry::Vacant(place) => {
                place.insert(Topic { end, held: None });
                self.bytes += TOPIC_BYTES;
                self.ends.push(Reverse((end, subscription, topic)));
                Offered { now: Some(offered.message), replaced: false }
            }
            Entry::Occupied(mut place) => {
                let place = place.get_mut();
                let is_better = |held: &Message<M>| offered.until < place.end && place.end <= held.until;
                if now < place.end && place.held.as_ref().is_some_and(is_better) {
                    return Offered { now: None, replaced: true };
                }
                let older = place.held.take();
                self.held -= usize::from(older.is_some());
                self.bytes -= older.as_ref().map_or(0, |held| held.bytes);
                let replaced = older.is_some();
                if place.end <= now {
                    place.end = end;
                    self.ends.push(Reverse((end, subscription, topic)));
                    return Offered { now: Some(offered.message), replaced };
                }
                self.held += 1;
                self.bytes += offered.bytes;
                place.held = Some(offered);
                Offered { now: None, replaced }
            }
        }
    }

    /// When something that is held back is to go on; `None` if nothing is. It may be a little before that.
    pub(crate) fn next(&self) -> Option<u64> {
        self.ends.peek().filter(|_| self.held > 0).map(|Reverse((end, ..))| *end)
    }

    /// The next message whose interval is over, and its subscription.
    pub(crate) fn next_due(&mut self, now: u64) -> Option<(u64, M)> {
        while self.ends.peek().is_some_and(|Reverse((end, ..))| *end <= now) {
            if let Some(due) = self.end_first(now) {
                return Some(due);
            }
        }
        None
    }

    /// The next message that has to go on before its time, because more is held back than may be.
    pub(crate) fn next_over(&mut self, now: u64) -> Option<(u64, M)> {
        while self.bytes > self.most_bytes && !self.ends.is_empty() {
            if let Some(over) = self.end_first(now) {
                return Some(over);
            }
        }
        None
    }

    /// Ends the interval that is over first. If a message was held back in it, that goes on, and the next one begins.
    fn end_first(&mut self, now: u64) -> Option<(u64, M)> {
        let Reverse((end, subscription, topic)) = self.ends.pop()?;
        let of = self.subscriptions.get_mut(&subscription)?;
        let place = of.topics.get_mut(&topic).filter(|place| place.end == end)?;
        let Some(Message { message, bytes, .. }) = place.held.take() else {
            of.topics.remove(&topic);
            self.bytes -= TOPIC_BYTES;
            return None;
        };
        self.held -= 1;
        self.bytes -= bytes;
        place.end = now.saturating_add(of.interval_us);
        self.ends.push(Reverse((place.end, subscription, topic)));
        Some((subscription, message))
    }

    /// Forgets intervals that are over and in which nothing is held back, up to the first in which something is.
    fn forget_idle(&mut self, now: u64) {
        while let Some(Reverse((end, subscription, topic))) = self.ends.peek().copied() {
            if end > now {
                return;
            }
            let place = self.subscriptions.get(&subscription).and_then(|of| of.topics.get(&topic));
            if place.is_some_and(|place| place.end == end && place.held.is_some()) {
                return;
            }
            self.end_first(now);
        }
    }
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(of: &mut Conflation<u32>, topic: u64, message: u32, now: u64) -> Offered<u32> {
        offer_until(of, topic, message, now, u64::MAX)
    }

    fn offer_until(of: &mut Conflation<u32>, topic: u64, message: u32, now: u64, until: u64) -> Offered<u32> {
        of.offer(1, topic, Message { message, bytes: 100, until }, now)
    }

    const HELD: Offered<u32> = Offered { now: None, replaced: false };
    const REPLACED: Offered<u32> = Offered { now: None, replaced: true };

    fn at_once(message: u32) -> Offered<u32> {
        Offered { now: Some(message), replaced: false }
    }

    #[test]
    fn the_first_comes_at_once_and_then_the_newest_of_each_interval() {
        let mut of = Conflation::new(10_000);
        of.add(1, 1000);
        assert_eq!(offer(&mut of, 7, 1, 0), at_once(1));
        assert_eq!((of.next(), of.next_due(1000)), (None, None), "no timer for nothing");
        assert_eq!(offer(&mut of, 7, 2, 1000), at_once(2), "its interval is over");
        assert_eq!([offer(&mut of, 7, 3, 1100), offer(&mut of, 7, 4, 1200)], [HELD, REPLACED]);
        assert_eq!(offer(&mut of, 8, 5, 1300), at_once(5), "another topic");
        assert_eq!((of.next(), of.next_due(1999)), (Some(2000), None));
        assert_eq!((of.next_due(2050), of.next_due(2050), of.next()), (Some((1, 4)), None, None));
        assert_eq!(offer(&mut of, 7, 6, 3049), HELD, "the interval begins when the message went");
        assert_eq!(offer(&mut of, 7, 7, 3050), Offered { now: Some(7), replaced: true }, "in time before the timer");
        assert_eq!((of.next(), of.next_due(9999), of.bytes), (None, None, 0));
    }

    #[test]
    fn a_subscription_that_ends_leaves_nothing() {
        let mut of = Conflation::new(10_000);
        of.add(1, 1000);
        of.add(2, 1000);
        for topic in 0..5 {
            offer(&mut of, topic, 1, 0);
            offer(&mut of, topic, 2, 1);
        }
        assert_eq!((of.held, of.bytes), (5, 5 * (TOPIC_BYTES + 100)));
        assert_eq!(of.remove(1), [2; 5], "what it held back");
        assert_eq!((of.held, of.bytes, of.ends.len(), of.next_due(u64::MAX), of.is_empty()), (0, 0, 0, None, false));
        assert_eq!(offer(&mut of, 1, 3, 2), at_once(3), "it is not there any more");
        of.remove(2);
        assert!(of.is_empty());
    }

    #[test]
    fn what_is_held_back_of_a_topic_can_be_taken() {
        let mut of = Conflation::new(10_000);
        of.add(1, 1000);
        for topic in [7, 8] {
            offer(&mut of, topic, 1, 0);
            offer(&mut of, topic, 2, 1);
        }
        assert_eq!((of.take(7), of.take(7), of.held), (vec![(1, 2)], vec![], 1));
        assert_eq!(offer(&mut of, 7, 3, 2), HELD, "its interval goes on");
        assert_eq!((of.next_due(1000), of.next_due(1000), of.next_due(1000)), (Some((1, 3)), Some((1, 2)), None));
        assert_eq!((of.next_due(2000), of.bytes), (None, 0));
    }

    #[test]
    fn a_message_that_went_on_by_itself_begins_an_interval() {
        let mut of = Conflation::new(10_000);
        of.add(1, 1000);
        of.begin(1, 7, 500);
        of.begin(2, 7, 500);
        assert_eq!([offer(&mut of, 7, 1, 600), offer(&mut of, 7, 2, 1499)], [HELD, REPLACED]);
        of.begin(1, 7, 1499);
        assert_eq!((of.next_due(1500), of.next_due(2500), of.bytes), (Some((1, 2)), None, 0));
    }

    #[test]
    fn a_message_that_does_not_last_replaces_none_that_does() {
        let mut of = Conflation::new(10_000);
        of.add(1, 1000);
        assert_eq!([offer(&mut of, 7, 1, 0), offer(&mut of, 7, 2, 100)], [at_once(1), HELD]);
        assert_eq!(offer_until(&mut of, 7, 3, 200, 999), REPLACED);
        assert_eq!((of.next_due(1000), of.held), (Some((1, 2)), 0));
        assert_eq!(offer_until(&mut of, 7, 4, 1100, 1200), HELD);
        assert_eq!(offer_until(&mut of, 7, 5, 1150, 1300), REPLACED, "of two that do not last, the newer");
        assert_eq!(offer_until(&mut of, 7, 6, 1200, 2000), REPLACED);
        assert_eq!((of.next_due(2000), of.held), (Some((1, 6)), 0));
        assert_eq!(offer_until(&mut of, 7, 7, 3000, 3001), at_once(7));
    }

    #[test]
    fn beyond_the_bound_the_first_goes_before_its_time() {
        let mut of = Conflation::new(3 * TOPIC_BYTES + 150);
        of.add(1, 1000);
        for (topic, now) in [(1, 0), (2, 10)] {
            offer(&mut of, topic, 1, now);
            offer(&mut of, topic, 2, now);
            assert_eq!(of.next_over(now), None);
        }
        assert_eq!(offer(&mut of, 3, 3, 20), at_once(3));
        assert_eq!(of.next_over(20), Some((1, 2)), "of topic 1, which would have been first");
        assert_eq!((of.next_over(20), of.held), (None, 1));
        assert_eq!(offer(&mut of, 3, 4, 30), HELD);
        assert_eq!((of.next_over(30), of.next_over(30)), (Some((1, 2)), None));
        assert_eq!((of.next_due(1020), of.next_due(1020)), (Some((1, 4)), None));
    }
}
