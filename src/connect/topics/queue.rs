//! What waits for a subscription's reader: bounded, with one reader and any number of writers. Knows nothing of
//! connections; whether a writer waits for room or pushes the oldest out is the writer's choice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::event::{Missed, TopicEvent};

/// Why messages are missing that were pushed out.
const QUEUE_FULL: &str = "they were not read fast enough";

/// A place in a topic's log; cheap to copy for each message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) epoch: Arc<str>,
    pub(super) offset: u64,
}

/// An event, and the subscription's position once that was handed out, where it changes.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) event: TopicEvent,
    pub(super) position: Option<Seen>,
}

/// The queue of one subscription.
#[derive(Debug)]
pub(super) struct Queue {
    /// The text that was subscribed to.
    topic: Box<str>,
    capacity: usize,
    state: Mutex<State>,
    /// Wakes the reader.
    readable: Notify,
    /// Wakes those who wait for room.
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Nothing more will be put in.
    ended: bool,
    /// Nobody will read.
    abandoned: bool,
}

impl Queue {
    /// A queue in which `capacity` events find room, at least 1.
    pub(super) fn new(topic: &str, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            topic: topic.into(),
            capacity: capacity.max(1),
            state: Mutex::default(),
            readable: Notify::new(),
            writable: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.items.len() < self.capacity || state.abandoned
    }

    /// Waits until there is room, or nobody left to read. Cancel safe.
    pub(super) async fn room(&self) {
        loop {
            // Made before the look, so that what happens in between is not missed.
            let moved = self.writable.notified();
            if self.has_room() {
                return;
            }
            moved.await;
        }
    }

    /// Puts it in whether there is room or not: for what is rare and must not be lost. What is missing behind something
    /// that is missing becomes one with it where there is no room, or where the extent of neither is known, so that a
    /// reader who never reads costs a bounded amount.
    pub(super) fn push(&self, item: Item) {
        let mut state = self.state();
        if state.abandoned {
            return;
        }
        let is_full = state.items.len() >= self.capacity;
        match (state.items.back_mut(), item) {
            (
                Some(Item { event: TopicEvent::Missed(last), position }),
                Item { event: TopicEvent::Missed(more), position: behind },
            ) if is_full || (last.offsets.is_none() && more.offsets.is_none()) => {
                self.join(last, more);
                *position = behind.or_else(|| position.take());
            }
            (_, item) => state.items.push_back(item),
        }
        drop(state);
        self.readable.notify_one();
    }

    /// Puts it in, and pushes the oldest out where there is no room. What goes is told in its place by one
    /// [`Missed`] where `tell` says so.
    pub(super) fn push_out(&self, item: Item, tell: bool) {
        let mut state = self.state();
        while state.items.len() >= self.capacity && self.push_oldest_out(&mut state.items, tell) {}
        drop(state);
        self.push(item);
    }

    /// False where there is nothing that may go.
    fn push_oldest_out(&self, items: &mut VecDeque<Item>, tell: bool) -> bool {
        let may_go = |item: &Item| !matches!(item.event, TopicEvent::Missed(_) | TopicEvent::Ended { .. });
        let Some(at) = items.iter().position(may_go) else { return false };
        let Some(oldest) = items.remove(at) else { return false };
        if !tell {
            return true;
        }
        let gone = match &oldest.event {
            TopicEvent::Message(message) => {
                let offsets = Some(message.offset..=message.offset);
                Missed { topic: message.topic.clone(), offsets, reason: QUEUE_FULL.into() }
            }
            // Who came and left is state to be asked for anew.
            _ => Missed { topic: self.topic.as_ref().into(), offsets: None, reason: QUEUE_FULL.into() },
        };
        match at.checked_sub(1).and_then(|before| items.get_mut(before)) {
            Some(Item { event: TopicEvent::Missed(missed), position }) if missed.reason == QUEUE_FULL => {
                self.join(missed, gone);
                *position = oldest.position.or_else(|| position.take());
            }
            _ => items.insert(at, Item { event: TopicEvent::Missed(gone), position: oldest.position }),
        }
        true
    }

    fn join(&self, missed: &mut Missed, more: Missed) {
        missed.offsets = match (missed.offsets.take(), more.offsets) {
            (Some(first), Some(last)) if missed.topic == more.topic => Some(*first.start()..=*last.end()),
            _ => None,
        };
        if missed.topic != more.topic {
            missed.topic = self.topic.as_ref().into();
        }
    }

    /// Puts in the last event.
    pub(super) fn end(&self, code: u16, reason: String) {
        let mut state = self.state();
        state.items.push_back(Item { event: TopicEvent::Ended { code, reason }, position: None });
        state.ended = true;
        drop(state);
        self.readable.notify_one();
    }

    /// Nobody reads any more: what waits is dropped, and nobody waits for room.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        state.items = VecDeque::new();
        drop(state);
        self.writable.notify_waiters();
    }

    /// Waits for the oldest; `None` behind the last. Cancel safe. For one reader.
    pub(super) async fn next(&self) -> Option<Item> {
        // A reader that always finds something lets others go on as well.
        tokio::task::coop::consume_budget().await;
        loop {
            // One look at both: what is put in between two would be taken for nothing.
            let (item, ended) = {
                let mut state = self.state();
                (state.items.pop_front(), state.ended)
            };
            if item.is_some() {
                self.writable.notify_waiters();
            }
            if item.is_some() || ended {
                return item;
            }
            self.readable.notified().await;
        }
    }

    /// The oldest, where there is one.
    pub(super) fn try_next(&self) -> Option<Item> {
        let item = self.state().items.pop_front();
        if item.is_some() {
            self.writable.notify_waiters();
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Payload, TopicMessage};

    fn message(topic: &str, offset: u64) -> Item {
        let payload = Payload::text("x");
        let event =
            TopicEvent::Message(TopicMessage { topic: topic.into(), offset, from: None, payload, timestamp: 0 });
        Item { event, position: Some(Seen { epoch: "e".into(), offset }) }
    }

    fn missed(offsets: Option<std::ops::RangeInclusive<u64>>, reason: &str) -> Item {
        let event = TopicEvent::Missed(Missed { topic: "t".into(), offsets, reason: reason.into() });
        Item { event, position: None }
    }

    /// What waits, in short: offsets of messages, ranges of what is missing.
    fn taken(queue: &Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.try_next())
            .map(|item| match item.event {
                TopicEvent::Message(message) => message.offset.to_string(),
                TopicEvent::Missed(missed) => format!("{} {:?}", missed.topic, missed.offsets),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_pushed_out_is_told_once_and_in_its_place() {
        let queue = Queue::new("t", 4);
        for offset in 1..=10 {
            queue.push_out(message("t", offset), true);
        }
        assert_eq!(queue.state().items[0].position.as_ref().map(|seen| seen.offset), Some(7));
        assert_eq!(taken(&queue), ["t Some(1..=7)", "8", "9", "10"]);

        for offset in 1..=10 {
            queue.push_out(message("t", offset), false);
        }
        assert_eq!(taken(&queue), ["7", "8", "9", "10"], "newest wins");
    }

    #[test]
    fn what_is_pushed_out_of_several_topics_is_told_for_the_pattern() {
        let queue = Queue::new("t.*", 2);
        for (topic, offset) in [("t.a", 5), ("t.b", 1), ("t.a", 6)] {
            queue.push_out(message(topic, offset), true);
        }
        assert_eq!(taken(&queue), ["t.* None", "6"]);
    }

    #[test]
    fn a_queue_of_one_stays_bounded() {
        let queue = Queue::new("t", 1);
        for offset in 1..=100 {
            queue.push_out(message("t", offset), true);
        }
        assert_eq!(taken(&queue), ["t Some(1..=99)", "100"]);
    }

    #[test]
    fn losses_of_unknown_extent_do_not_pile_up() {
        let queue = Queue::new("t", 1);
        for _ in 0..100 {
            queue.push(missed(None, "lost"));
        }
        queue.push(missed(Some(3..=4), "dropped"));
        assert_eq!(taken(&queue), ["t None"], "without room they become one");
        queue.push(missed(None, "lost"));
        assert_eq!(taken(&queue), ["t None"]);
    }

    #[test]
    fn without_room_losses_of_one_topic_become_one_and_keep_its_offsets() {
        let queue = Queue::new("t.*", 2);
        for first in 0..100 {
            queue.push_out(missed(Some(first..=first), "dropped"), true);
        }
        assert_eq!(taken(&queue), ["t Some(0..=0)", "t Some(1..=99)"]);

        for offset in (0..100).step_by(2) {
            queue.push_out(message("t", offset), true);
            queue.push_out(missed(Some(offset + 1..=offset + 1), "dropped"), true);
            assert!(queue.state().items.len() <= 4, "{:?}", queue.state().items);
        }
        let of_another = Missed { topic: "t.b".into(), offsets: Some(1..=2), reason: "dropped".into() };
        queue.push(Item { event: TopicEvent::Missed(of_another), position: None });
        assert_eq!(taken(&queue).last().map(String::as_str), Some("t.* None"));
    }

    #[tokio::test]
    async fn a_writer_waits_for_room_and_a_reader_for_the_end() {
        let queue = Queue::new("t", 1);
        assert!(queue.has_room());
        queue.push(message("t", 1));
        assert!(!queue.has_room());
        let (waited, item) = tokio::join!(queue.room(), queue.next());
        assert_eq!((waited, item.is_some()), ((), true));

        queue.end(403, "no more".into());
        assert!(matches!(queue.next().await, Some(Item { event: TopicEvent::Ended { code: 403, .. }, .. })));
        assert!(queue.next().await.is_none() && queue.next().await.is_none());

        queue.push(message("t", 3));
        queue.abandon();
        queue.push(message("t", 4));
        assert!(queue.try_next().is_none(), "nobody reads, and nothing is kept");
        queue.room().await;
    }
}
