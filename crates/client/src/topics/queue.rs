//! What waits for a subscription's reader: bounded, with one reader and any number of writers. Knows nothing of
//! connections; whether a writer waits for room or pushes the oldest out is the writer's choice.
//!
//! What is pushed out is fair among topics: the oldest message of the topic that has most waiting goes. So a busy topic
//! takes no other topic's place.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::Notify;
use tokio::task::coop;

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

impl Item {
    /// The topic of a message.
    fn topic(&self) -> Option<&str> {
        match &self.event {
            TopicEvent::Message(message) => Some(&message.topic),
            _ => None,
        }
    }

    /// Whether it tells what was pushed out.
    fn is_marker(&self) -> bool {
        matches!(&self.event, TopicEvent::Missed(missed) if missed.reason == QUEUE_FULL)
    }
}

/// What a queue keeps of each topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Every message, while there is room.
    All,
    /// The newest message. It takes the place of the one before, so each topic keeps its turn.
    Newest,
}

/// The queue of one subscription.
#[derive(Debug)]
pub(super) struct Queue {
    /// The text that was subscribed to.
    topic: Box<str>,
    capacity: usize,
    keep: Keep,
    state: Mutex<State>,
    /// Wakes those who wait for room.
    writable: Notify,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    /// Messages of each topic that wait, for a pattern; `None` where there is one topic only.
    waiting: Option<HashMap<Box<str>, usize>>,
    /// Wakes the reader.
    reader: Option<Waker>,
    /// Nothing more will be put in.
    ended: bool,
    /// Nobody will read.
    abandoned: bool,
}

impl State {
    fn counted(&mut self, item: &Item) {
        if let (Some(waiting), Some(topic)) = (&mut self.waiting, item.topic()) {
            match waiting.get_mut(topic) {
                Some(count) => *count += 1,
                None => drop(waiting.insert(topic.into(), 1)),
            }
        }
    }

    fn uncounted(&mut self, item: &Item) {
        if let (Some(waiting), Some(topic)) = (&mut self.waiting, item.topic())
            && let Some(count) = waiting.get_mut(topic)
        {
            *count -= 1;
            if *count == 0 {
                waiting.remove(topic);
            }
        }
    }

    fn put(&mut self, item: Item) {
        self.counted(&item);
        self.items.push_back(item);
    }

    fn take_first(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.uncounted(&item);
        Some(item)
    }

    /// Where the message of a topic is of which there is one at most.
    fn find(&self, topic: &str) -> Option<usize> {
        if self.waiting.as_ref().is_some_and(|waiting| !waiting.contains_key(topic)) {
            return None;
        }
        self.items.iter().position(|item| item.topic() == Some(topic))
    }

    /// Takes out what goes first where there is no room for a message of the topic `coming`: the oldest message of the topic
    /// that has most, that one included; else what tells of members.
    fn take_oldest(&mut self, coming: Option<&str>) -> Option<(usize, Item)> {
        let with_coming = |topic: &str, count: usize| count + usize::from(coming == Some(topic));
        let most = self
            .waiting
            .as_ref()
            .and_then(|waiting| waiting.iter().map(|(topic, count)| with_coming(topic, *count)).max());
        let has_most = |item: &Item| match (&self.waiting, item.topic()) {
            (Some(waiting), Some(topic)) => waiting.get(topic).map(|count| with_coming(topic, *count)) == most,
            (Some(_), None) => most.is_none(),
            (None, _) => true,
        };
        let may_go = |item: &Item| !matches!(item.event, TopicEvent::Missed(_) | TopicEvent::Ended { .. });
        let at = self.items.iter().position(|item| may_go(item) && has_most(item))?;
        let item = self.items.remove(at)?;
        self.uncounted(&item);
        Some((at, item))
    }
}

impl Queue {
    /// A queue in which `capacity` events find room, at least 1.
    pub(super) fn new(topic: &str, capacity: usize, keep: Keep) -> Arc<Self> {
        let is_pattern = topic.split('.').any(|level| matches!(level, "*" | ">"));
        let waiting = is_pattern.then(HashMap::new);
        let state = State { items: VecDeque::new(), waiting, reader: None, ended: false, abandoned: false };
        Arc::new(Self {
            topic: topic.into(),
            capacity: capacity.max(1),
            keep,
            state: Mutex::new(state),
            writable: Notify::new(),
        })
    }

    /// What it keeps of each topic.
    pub(super) fn keep(&self) -> Keep {
        self.keep
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
            (_, item) => state.put(item),
        }
        wake(state);
    }

    /// Puts it in, and pushes the oldest out where there is no room. What goes is told in its place by one
    /// [`Missed`] where `tell` says so; what a newer message replaces is not.
    pub(super) fn push_out(&self, item: Item, tell: bool) {
        let mut state = self.state();
        if state.abandoned {
            return;
        }
        if self.keep == Keep::Newest
            && let Some(at) = item.topic().and_then(|topic| state.find(topic))
            && let Some(older) = state.items.get_mut(at)
        {
            *older = item;
            return wake(state);
        }
        while state.items.len() >= self.capacity && self.push_oldest_out(&mut state, item.topic(), tell) {}
        drop(state);
        self.push(item);
    }

    /// False where there is nothing that may go.
    fn push_oldest_out(&self, state: &mut State, coming: Option<&str>, tell: bool) -> bool {
        let Some((at, oldest)) = state.take_oldest(coming) else { return false };
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
        if state.waiting.is_some() {
            self.mark(&mut state.items, at, gone);
            return true;
        }
        match at.checked_sub(1).and_then(|before| state.items.get_mut(before)) {
            Some(Item { event: TopicEvent::Missed(missed), position }) if missed.reason == QUEUE_FULL => {
                self.join(missed, gone);
                *position = oldest.position.or_else(|| position.take());
            }
            _ => state.items.insert(at, Item { event: TopicEvent::Missed(gone), position: oldest.position }),
        }
        true
    }

    /// Tells what was pushed out of a pattern's queue, before all that still waits of its topic. Of each topic one
    /// [`Missed`] does; where these become many, one does for all.
    fn mark(&self, items: &mut VecDeque<Item>, at: usize, gone: Missed) {
        let most = (self.capacity / 4).max(1);
        for item in items.iter_mut().take(at) {
            if let (true, TopicEvent::Missed(missed)) = (item.is_marker(), &mut item.event)
                && (missed.topic == gone.topic || *missed.topic == *self.topic)
            {
                return self.join(missed, gone);
            }
        }
        if items.iter().filter(|item| item.is_marker()).count() < most {
            return items.insert(at, Item { event: TopicEvent::Missed(gone), position: None });
        }
        let place = items.iter().position(Item::is_marker).map_or(at, |first| first.min(at));
        items.retain(|item| !item.is_marker());
        let all = Missed { topic: self.topic.as_ref().into(), offsets: None, reason: QUEUE_FULL.into() };
        items.insert(place.min(items.len()), Item { event: TopicEvent::Missed(all), position: None });
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
        state.put(Item { event: TopicEvent::Ended { code, reason }, position: None });
        state.ended = true;
        wake(state);
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
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for whoever polls.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        // A reader that always finds something lets others go on as well.
        let turn = ready!(coop::poll_proceed(cx));
        let mut state = self.state();
        let item = state.take_first();
        if item.is_none() && !state.ended {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        turn.made_progress();
        if item.is_some() {
            self.writable.notify_waiters();
        }
        Poll::Ready(item)
    }

    /// The oldest, where there is one.
    pub(super) fn try_next(&self) -> Option<Item> {
        let item = self.state().take_first();
        if item.is_some() {
            self.writable.notify_waiters();
        }
        item
    }
}

/// Wakes the reader: something was put in.
fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Payload, TopicMessage};

    fn message(topic: &str, offset: u64) -> Item {
        let payload = Payload::text("x");
        let event = TopicEvent::Message(TopicMessage::new(topic, offset, payload, 0));
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
        let queue = Queue::new("t", 4, Keep::All);
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
        let queue = Queue::new("t.*", 2, Keep::All);
        for (topic, offset) in [("t.a", 5), ("t.b", 1), ("t.a", 6)] {
            queue.push_out(message(topic, offset), true);
        }
        assert_eq!(taken(&queue), ["t.* None", "6"]);
    }

    #[test]
    fn a_queue_of_one_stays_bounded() {
        let queue = Queue::new("t", 1, Keep::All);
        for offset in 1..=100 {
            queue.push_out(message("t", offset), true);
        }
        assert_eq!(taken(&queue), ["t Some(1..=99)", "100"]);
    }

    #[test]
    fn losses_of_unknown_extent_do_not_pile_up() {
        let queue = Queue::new("t", 1, Keep::All);
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
        let queue = Queue::new("t.*", 2, Keep::All);
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

    #[test]
    fn a_busy_topic_takes_no_other_topics_place() {
        let queue = Queue::new("t.*", 4, Keep::All);
        for offset in 1..=9 {
            queue.push_out(message("t.busy", offset), false);
            if offset % 3 == 0 {
                queue.push_out(message(&format!("t.rare{offset}"), offset), false);
            }
        }
        let topics: Vec<_> = std::iter::from_fn(|| queue.try_next())
            .map(|item| {
                format!("{} {:?}", item.topic().expect("a message"), item.position.as_ref().map(|seen| seen.offset))
            })
            .collect();
        assert_eq!(topics, ["t.rare3 Some(3)", "t.rare6 Some(6)", "t.busy Some(9)", "t.rare9 Some(9)"]);
    }

    #[test]
    fn the_newest_message_has_the_turn_of_the_one_before() {
        let queue = Queue::new("t.*", 10, Keep::Newest);
        for (topic, offset) in [("t.a", 1), ("t.b", 1), ("t.a", 2), ("t.c", 1), ("t.b", 2), ("t.a", 3)] {
            queue.push_out(message(topic, offset), false);
        }
        assert_eq!(taken(&queue), ["3", "2", "1"]);
        // One that is never behind starves no other.
        let mut read = Vec::new();
        for offset in 1..=4 {
            for topic in ["t.a", "t.b", "t.c"] {
                queue.push_out(message(topic, offset), false);
            }
            read.extend(queue.try_next().and_then(|item| item.topic().map(str::to_owned)));
        }
        assert_eq!(read, ["t.a", "t.b", "t.c", "t.a"]);

        let exact = Queue::new("t", 10, Keep::Newest);
        for offset in 1..=5 {
            exact.push_out(message("t", offset), false);
        }
        assert_eq!(taken(&exact), ["5"]);
    }

    /// What happens to a queue: something comes, of one of a few topics, or the reader takes something.
    fn happenings() -> impl Strategy<Value = Vec<Option<usize>>> {
        proptest::collection::vec(proptest::option::weighted(0.8, 0..6_usize), 0..200)
    }

    proptest! {
        #[test]
        fn whatever_comes_each_topic_keeps_its_newest_and_its_order(
            happenings in happenings(), capacity in 6..20_usize, newest_only: bool,
        ) {
            let queue = Queue::new("t.*", capacity, if newest_only { Keep::Newest } else { Keep::All });
            // Of each topic what was published, and what was read last.
            let (mut published, mut read) = ([0_u64; 6], [0_u64; 6]);
            let mut take = |published: &[u64; 6]| {
                let Some(Item { event: TopicEvent::Message(message), .. }) = queue.try_next() else { return Ok(false) };
                let at: usize = message.topic[2..].parse().expect("a number");
                prop_assert!(message.offset > read[at] && message.offset <= published[at]);
                read[at] = message.offset;
                Ok(true)
            };
            for happening in happenings {
                match happening {
                    Some(at) => {
                        published[at] += 1;
                        queue.push_out(message(&format!("t.{at}"), published[at]), false);
                    }
                    None => drop(take(&published)?),
                }
                let state = queue.state();
                prop_assert!(state.items.len() <= capacity);
                let counts = state.waiting.as_ref().expect("a pattern");
                prop_assert_eq!(counts.values().sum::<usize>(), state.items.len());
                if newest_only {
                    prop_assert!(counts.values().all(|&count| count == 1));
                }
            }
            while take(&published)? {}
            // The topics fit, so the newest of each was there.
            prop_assert_eq!(read, published);
        }

        #[test]
        fn what_is_pushed_out_is_told_before_what_follows(happenings in happenings(), capacity in 1..12_usize) {
            let queue = Queue::new("t.*", capacity, Keep::All);
            let (mut published, mut next) = ([0_u64; 6], [1_u64; 6]);
            let mut unknown = false;
            let mut take = || {
                let Some(item) = queue.try_next() else { return Ok(false) };
                match item.event {
                    TopicEvent::Message(message) => {
                        let at: usize = message.topic[2..].parse().expect("a number");
                        prop_assert!(message.offset == next[at] || (unknown && message.offset > next[at]));
                        next[at] = message.offset + 1;
                    }
                    TopicEvent::Missed(Missed { topic, offsets: Some(offsets), .. }) => {
                        let at: usize = topic[2..].parse().expect("a number");
                        prop_assert!(*offsets.start() == next[at] || (unknown && *offsets.start() > next[at]));
                        next[at] = offsets.end() + 1;
                    }
                    TopicEvent::Missed(_) => unknown = true,
                    other => prop_assert!(false, "{:?}", other),
                }
                Ok(true)
            };
            for happening in happenings {
                match happening {
                    Some(at) => {
                        published[at] += 1;
                        queue.push_out(message(&format!("t.{at}"), published[at]), true);
                    }
                    None => drop(take()?),
                }
                prop_assert!(queue.state().items.len() <= capacity + 1);
            }
        }
    }

    #[tokio::test]
    async fn a_writer_waits_for_room_and_a_reader_for_the_end() {
        let queue = Queue::new("t", 1, Keep::All);
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
