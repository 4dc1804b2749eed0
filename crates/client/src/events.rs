//! The events of a client: what is neither a reply nor a subscription's, and what becomes of the connection. The queue is
//! bounded, and nothing waits for its reader: where there is no room, the oldest message goes and is counted.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_util::Stream;
use tokio::task::coop;

use crate::message::{ClosedBy, ServerMessage};

/// Losses and returns of the connection that wait to be read; of more the oldest are dropped, in pairs.
const MAX_CHANGES: usize = 16;

/// What comes to a client without being asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message from the server or, through it, from another client; a topic's only where no
    /// [`Subscription`](super::Subscription) is for it.
    Message(ServerMessage),
    /// So many messages are missing here: they were not read, and newer ones took their places
    /// ([`ClientBuilder::event_queue`](super::ClientBuilder::event_queue)).
    Missed(u64),
    /// The connection was lost or closed; the client is on its way back.
    Disconnected(ClosedBy),
    /// It is back, with a new id.
    Reconnected,
    /// The client went over from WebSocket to QUIC, with a new id. Requests and subscriptions to topics go on; a
    /// subscription to a pattern begins again, which its [`TopicEvent::Missed`](super::TopicEvent::Missed) tells.
    Moved,
    /// It is closed for good; nothing follows.
    Closed(ClosedBy),
}

/// The events of one client, in order: by [`next`](Self::next), or as a [`Stream`].
///
/// ```no_run
/// # async fn f(events: quic_websocket_client::Events) {
/// use futures_util::StreamExt;
/// use quic_websocket_client::Event;
///
/// let mut lost = events.filter(|event| std::future::ready(matches!(event, Event::Disconnected(_))));
/// while let Some(event) = StreamExt::next(&mut lost).await {
///     println!("{event:?}");
/// }
/// # }
/// ```
///
/// They need not be read: at most [`ClientBuilder::event_queue`](super::ClientBuilder::event_queue) messages wait, the
/// oldest are dropped for newer ones, and [`Event::Missed`] counts them in their place. The client itself never waits.
#[derive(Debug)]
pub struct Events {
    queue: Arc<EventQueue>,
}

impl Events {
    /// Waits for the next event; `None` behind [`Event::Closed`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.queue.poll_next(cx)).await
    }

    /// The next event, where there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.state().take_first()
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_next(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.is_abandoned = true;
        state.events = VecDeque::new();
    }
}

/// The queue behind [`Events`].
#[derive(Debug)]
pub(super) struct EventQueue {
    /// Messages that find room.
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// Messages among them.
    messages: usize,
    reader: Option<Waker>,
    /// Nothing follows.
    has_ended: bool,
    /// Nobody reads.
    is_abandoned: bool,
}

impl EventQueue {
    /// A queue in which so many messages find room, at least 1; and its reader.
    pub(super) fn new(capacity: usize) -> (Arc<Self>, Events) {
        let queue = Arc::new(Self { capacity: capacity.max(1), state: Mutex::default() });
        (Arc::clone(&queue), Events { queue })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in. Behind [`Event::Closed`] nothing comes any more.
    pub(super) fn tell(&self, event: Event) {
        let mut state = self.state();
        if state.is_abandoned || state.has_ended {
            return;
        }
        match &event {
            Event::Message(_) => {
                if state.messages >= self.capacity {
                    state.drop_oldest();
                }
                state.messages += 1;
            }
            Event::Disconnected(_) | Event::Reconnected | Event::Moved => state.forget_changes(),
            Event::Closed(_) => state.has_ended = true,
            Event::Missed(_) => {}
        }
        state.events.push_back(event);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        // A reader that always finds something lets others go on as well.
        let turn = ready!(coop::poll_proceed(cx));
        let mut state = self.state();
        let event = state.take_first();
        if event.is_none() && !state.has_ended {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        turn.made_progress();
        Poll::Ready(event)
    }
}

impl State {
    fn take_first(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if matches!(event, Event::Message(_)) {
            self.messages -= 1;
        }
        Some(event)
    }

    /// Drops the oldest message, and counts it in its place.
    fn drop_oldest(&mut self) {
        let is_message = |event: &Event| matches!(event, Event::Message(_));
        let Some(at) = self.events.iter().position(is_message) else { return };
        self.messages -= 1;
        self.events[at] = Event::Missed(1);
        self.join_missed();
    }

    /// Makes one of losses that stand side by side.
    fn join_missed(&mut self) {
        let mut joined: VecDeque<Event> = VecDeque::with_capacity(self.events.len());
        // Only what stands before the first message can have changed.
        while let Some(event) = self.events.pop_front() {
            match (joined.back_mut(), event) {
                (Some(Event::Missed(before)), Event::Missed(more)) => *before += more,
                (_, event @ Event::Message(_)) => {
                    self.events.push_front(event);
                    break;
                }
                (_, event) => joined.push_back(event),
            }
        }
        while let Some(event) = joined.pop_back() {
            self.events.push_front(event);
        }
    }

    /// Makes room for another loss or return of the connection: of very many that were not read, the oldest are of no interest.
    fn forget_changes(&mut self) {
        let is_change = |event: &Event| matches!(event, Event::Disconnected(_) | Event::Reconnected | Event::Moved);
        while self.events.iter().filter(|event| is_change(event)).count() >= MAX_CHANGES {
            for _ in 0..2 {
                if let Some(at) = self.events.iter().position(is_change) {
                    self.events.remove(at);
                }
            }
            self.join_missed();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::CloseCode;

    fn lost(reason: &str) -> Event {
        Event::Disconnected(ClosedBy::new(CloseCode::ABNORMAL, reason))
    }

    fn message(n: u64) -> Event {
        Event::Message(ServerMessage::Ping { timestamp: n })
    }

    fn short(event: Event) -> String {
        match event {
            Event::Disconnected(closed) => format!("lost {}", closed.reason),
            Event::Reconnected => "back".to_owned(),
            Event::Missed(count) => format!("missed {count}"),
            Event::Message(ServerMessage::Ping { timestamp }) => timestamp.to_string(),
            Event::Closed(_) => "closed".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn read(events: &mut Events) -> Vec<String> {
        std::iter::from_fn(|| events.try_next()).map(short).collect()
    }

    #[test]
    fn the_oldest_messages_go_and_are_counted_in_their_place() {
        let (queue, mut events) = EventQueue::new(3);
        (1..=2).for_each(|n| queue.tell(message(n)));
        queue.tell(lost("first"));
        queue.tell(Event::Reconnected);
        (3..=9).for_each(|n| queue.tell(message(n)));
        assert_eq!(read(&mut events), ["missed 2", "lost first", "back", "missed 4", "7", "8", "9"]);
        queue.tell(message(10));
        queue.tell(Event::Closed(ClosedBy::new(CloseCode::NORMAL, "done")));
        queue.tell(message(11));
        assert_eq!(read(&mut events), ["10", "closed"]);
    }

    #[test]
    fn what_becomes_of_the_connection_waits_in_bounded_number() {
        let (queue, mut events) = EventQueue::new(2);
        for n in 0..100 {
            queue.tell(lost(&n.to_string()));
            queue.tell(Event::Reconnected);
        }
        queue.tell(lost("last"));
        let told = read(&mut events);
        assert!(told.len() <= MAX_CHANGES && told.ends_with(&["lost 99".into(), "back".into(), "lost last".into()]));
        for n in 0..100 {
            queue.tell(lost(&n.to_string()));
            queue.tell(message(n));
            queue.tell(Event::Reconnected);
        }
        let told = read(&mut events);
        assert!(told.len() <= MAX_CHANGES + 2 * 2 + 1 + MAX_CHANGES, "{told:?}");
        assert_eq!(told.last().map(String::as_str), Some("back"));
    }

    proptest! {
        #[test]
        fn each_message_is_read_or_counted(ops in proptest::collection::vec(0..6_u8, 0..200), capacity in 1..6_usize) {
            let (queue, mut events) = EventQueue::new(capacity);
            let (mut told, mut seen) = (0, 0);
            let mut take = |events: &mut Events| match events.try_next() {
                Some(Event::Message(ServerMessage::Ping { timestamp })) => {
                    seen += 1;
                    assert_eq!(timestamp, seen, "in order, and what is missing is counted before");
                    true
                }
                Some(Event::Missed(count)) => { seen += count; true }
                other => other.is_some(),
            };
            for op in ops {
                match op {
                    0 => drop(take(&mut events)),
                    1 => queue.tell(lost("x")),
                    2 => queue.tell(Event::Reconnected),
                    _ => { told += 1; queue.tell(message(told)); }
                }
                let state = queue.state();
                prop_assert!(state.messages <= capacity);
                prop_assert!(state.events.len() <= capacity + 2 * MAX_CHANGES + 2);
            }
            while take(&mut events) {}
            prop_assert_eq!(seen, told);
        }
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_comes_and_for_the_end() {
        let (queue, mut events) = EventQueue::new(2);
        let (event, ()) = tokio::join!(events.next(), async { queue.tell(message(1)) });
        assert_eq!(event.map(short), Some("1".to_owned()));
        queue.tell(Event::Closed(ClosedBy::new(CloseCode::NORMAL, "done")));
        assert!(matches!(events.next().await, Some(Event::Closed(_))));
        assert!(events.next().await.is_none() && events.next().await.is_none());
    }
}
