//! The queue between a subscription's lane and its reader: bounded, with one reader and any number of writers. Knows
//! nothing of connections; whether a writer waits for room or pushes the oldest out is the writer's choice.

mod eviction;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::sync::Notify;
use tokio::task::coop;

use super::event::{Ended, TopicEvent};
use crate::message::TopicMessage;

/// The reason for messages that were dropped here.
const QUEUE_FULL: &str = "they were not read fast enough";

/// A place in a topic's log; cheap to copy for each message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) epoch: Arc<str>,
    pub(super) offset: u64,
}

/// An event, and the subscription's position behind it, if that changes.
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

    /// Whether it reports messages that were dropped here.
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
    /// Wakes the writers that wait for room.
    writable: Notify,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    /// The number of queued messages of each topic, for a pattern; `None` for a single topic.
    waiting: Option<HashMap<Box<str>, usize>>,
    /// Wakes the reader.
    reader: Option<Waker>,
    /// The last event has been put in.
    ended: bool,
    /// The reader is gone.
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

    /// The index of a topic's message, of which there is at most one.
    fn find(&self, topic: &str) -> Option<usize> {
        if self.waiting.as_ref().is_some_and(|waiting| !waiting.contains_key(topic)) {
            return None;
        }
        self.items.iter().position(|item| item.topic() == Some(topic))
    }
}

impl Queue {
    /// A queue for `capacity` events, at least 1.
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

    /// Waits until there is room, or the reader is gone. Cancel safe.
    pub(super) async fn room(&self) {
        loop {
            // Created before the check, so that a change in between is not missed.
            let moved = self.writable.notified();
            if self.has_room() {
                return;
            }
            moved.await;
        }
    }

    /// Puts an item in whether there is room or not, for rare items that must not be lost. A loss behind another loss
    /// is merged with it if there is no room, or if the extent of neither is known, so an unread queue stays bounded.
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

    /// Puts an item in, and drops the oldest if there is no room. With `report`, one [`Missed`](super::Missed) reports
    /// the dropped ones in their place; messages that a newer one replaces are not reported.
    pub(super) fn push_out(&self, item: Item, report: bool) {
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
        while state.items.len() >= self.capacity && self.push_oldest_out(&mut state, item.topic(), report) {}
        drop(state);
        self.push(item);
    }

    /// Puts a message in the place of an earlier delivery of it that was not read yet; gives it back if there is none.
    pub(super) fn replace(&self, message: TopicMessage) -> Option<TopicMessage> {
        let mut state = self.state();
        let is_it = |event: &TopicEvent| matches!(event, TopicEvent::Message(other) if other.offset == message.offset);
        match state.items.iter_mut().find(|item| is_it(&item.event)) {
            Some(item) => item.event = TopicEvent::Message(message),
            None => return Some(message),
        }
        None
    }

    /// Drops all messages that were not read yet.
    pub(super) fn drop_messages(&self) {
        let mut state = self.state();
        state.items.retain(|item| !matches!(item.event, TopicEvent::Message(_)));
        drop(state);
        self.writable.notify_waiters();
    }

    /// Puts in the last event.
    pub(super) fn end(&self, ended: Ended) {
        let mut state = self.state();
        state.put(Item { event: TopicEvent::Ended(ended), position: None });
        state.ended = true;
        wake(state);
    }

    /// The reader is gone: queued events are dropped, and no writer waits for room.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        state.items = VecDeque::new();
        drop(state);
        self.writable.notify_waiters();
    }

    /// Waits for the oldest item; `None` after the last. Cancel safe. For one reader.
    pub(super) async fn next(&self) -> Option<Item> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same as a poll function.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        // A reader that never waits still yields to other tasks.
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

    /// The oldest item, if any.
    pub(super) fn try_next(&self) -> Option<Item> {
        let item = self.state().take_first();
        if item.is_some() {
            self.writable.notify_waiters();
        }
        item
    }
}

/// Wakes the reader: an item was put in.
fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}
