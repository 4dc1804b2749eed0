//! The events of a client: messages that belong to no reply and no subscription, and changes of the connection. The
//! queue is bounded, and nothing waits for its reader: if there is no room, the oldest message is dropped and counted.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use tokio::task::coop;

use crate::message::{ClosedBy, ErrorReply, Json, Payload, Sender, ServerMessage};

/// Changes of the connection that wait to be read; of more the oldest are dropped, in pairs.
const MAX_CHANGES: usize = 16;

/// An event that a client did not ask for. Times are Unix milliseconds, by the server's clock.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A client, which may be this one, sent a message to all.
    #[non_exhaustive]
    Broadcast {
        /// The sender.
        from: Sender,
        /// The content.
        payload: Payload,
        /// The time at which the server received it.
        timestamp: u64,
    },
    /// A client sent a message to this one.
    #[non_exhaustive]
    Direct {
        /// The sender.
        from: Sender,
        /// The content.
        payload: Payload,
        /// The time at which the server received it.
        timestamp: u64,
    },
    /// A client sent WebRTC signalling to this one.
    #[non_exhaustive]
    Signal {
        /// The sender.
        from: Sender,
        /// Any JSON, as it was sent.
        data: Json,
        /// The time at which the server received it.
        timestamp: u64,
    },
    /// The client's token expires soon: the connection is closed then, unless [`refresh`](super::Client::refresh)
    /// brings another one. With [`token_from`](super::ClientBuilder::token_from) the client renews it by itself.
    #[non_exhaustive]
    Expiring {
        /// The time at which the token expires.
        expires_at: u64,
    },
    /// The server has made a subscription for this client, because its token or an operator says so. Take it by
    /// [`Client::subscribe`](super::Client::subscribe) with this topic and without options; until then its newest
    /// messages wait ([`SubscribeBuilder::queue`](super::SubscribeBuilder::queue), by default). Like others it resumes
    /// after a reconnect; dropping it declines it, on later connections as well.
    #[non_exhaustive]
    Subscribed {
        /// The topic or pattern.
        topic: String,
    },
    /// The server refused a message that was sent without a request for a reply, by [`send`](super::Client::send) or
    /// [`publish_unacknowledged`](super::Client::publish_unacknowledged).
    Error(ErrorReply),
    /// A message that belongs to no call and no [`Subscription`](super::Subscription): the reply to a request that was
    /// sent by [`send`](super::Client::send), or the message of a topic that was subscribed to by hand.
    Other(ServerMessage),
    /// So many messages are missing at this point: they were not read, and dropped in favour of newer ones
    /// ([`ClientBuilder::event_queue`](super::ClientBuilder::event_queue)).
    Missed(u64),
    /// The connection was lost or closed; the client is reconnecting.
    Disconnected(ClosedBy),
    /// The client is connected again, with a new id.
    Reconnected,
    /// The client moved from WebSocket to QUIC, with a new id. Requests and subscriptions to topics continue; a
    /// subscription to a pattern begins again, and reports it by [`TopicEvent::Missed`](super::TopicEvent::Missed).
    /// Messages that were sent before and after the move went over two connections, and may overtake each other unless
    /// their replies were awaited in between.
    Moved,
    /// The client is closed for good; nothing follows.
    Closed(ClosedBy),
}

impl Event {
    /// The event for a message that is no reply and belongs to no subscription.
    pub(super) fn of(message: ServerMessage) -> Self {
        match message {
            ServerMessage::Broadcast { from, payload, timestamp } => Self::Broadcast { from, payload, timestamp },
            ServerMessage::Direct { from, payload, timestamp } => Self::Direct { from, payload, timestamp },
            ServerMessage::Signal { from, data, timestamp } => Self::Signal { from, data, timestamp },
            ServerMessage::Expiring { expires_at } => Self::Expiring { expires_at },
            ServerMessage::Error(error) => Self::Error(error),
            ServerMessage::Subscribed(subscribed) if subscribed.by_server => {
                Self::Subscribed { topic: subscribed.topic }
            }
            other => Self::Other(other),
        }
    }

    /// Whether it is one of the messages, which are dropped if there is no room.
    fn is_message(&self) -> bool {
        match self {
            Self::Broadcast { .. }
            | Self::Direct { .. }
            | Self::Signal { .. }
            | Self::Expiring { .. }
            | Self::Subscribed { .. }
            | Self::Error(_)
            | Self::Other(_) => true,
            Self::Missed(_) | Self::Disconnected(_) | Self::Reconnected | Self::Moved | Self::Closed(_) => false,
        }
    }

    /// Whether it is a change of the connection after which others follow.
    fn is_change(&self) -> bool {
        matches!(self, Self::Disconnected(_) | Self::Reconnected | Self::Moved)
    }
}

/// The events of one client, in order: read them by [`next`](Self::next), or as a [`Stream`].
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
/// oldest are dropped in favour of newer ones, and [`Event::Missed`] counts them in their place. The client never
/// waits.
#[derive(Debug)]
pub struct Events {
    queue: Arc<EventQueue>,
}

impl Events {
    /// Waits for the next event; `None` after [`Event::Closed`].
    ///
    /// Cancel safe: if the call is dropped, no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.queue.poll_next(cx)).await
    }

    /// The next event, if one is waiting.
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
    /// Most messages that wait.
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// Messages among them.
    messages: usize,
    reader: Option<Waker>,
    /// The last event has been put in.
    has_ended: bool,
    /// The reader is gone.
    is_abandoned: bool,
}

impl EventQueue {
    /// A queue for at most so many messages, at least 1; and its reader.
    pub(super) fn new(capacity: usize) -> (Arc<Self>, Events) {
        let queue = Arc::new(Self { capacity: capacity.max(1), state: Mutex::default() });
        (Arc::clone(&queue), Events { queue })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in. After [`Event::Closed`] nothing follows.
    pub(super) fn push_event(&self, event: Event) {
        let mut state = self.state();
        if state.is_abandoned || state.has_ended {
            return;
        }
        if event.is_message() {
            if state.messages >= self.capacity {
                state.drop_oldest();
            }
            state.messages += 1;
        } else if event.is_change() {
            state.forget_changes();
        }
        state.has_ended = matches!(event, Event::Closed(_));
        state.events.push_back(event);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        // A reader that never waits still yields to other tasks.
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
        if event.is_message() {
            self.messages -= 1;
        }
        Some(event)
    }

    /// Drops the oldest message, and counts it in its place.
    fn drop_oldest(&mut self) {
        let Some(at) = self.events.iter().position(Event::is_message) else { return };
        self.messages -= 1;
        self.events[at] = Event::Missed(1);
        self.join_missed();
    }

    /// Merges adjacent losses.
    fn join_missed(&mut self) {
        let mut joined: VecDeque<Event> = VecDeque::new();
        // Only the part before the first message can have changed.
        while let Some(event) = self.events.pop_front() {
            match (joined.back_mut(), event) {
                (Some(Event::Missed(before)), Event::Missed(more)) => *before += more,
                (_, event) if event.is_message() => {
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

    /// Makes room for another change of the connection: if very many were not read, the oldest do not matter.
    fn forget_changes(&mut self) {
        while self.events.iter().filter(|event| event.is_change()).count() >= MAX_CHANGES {
            for _ in 0..2 {
                if let Some(at) = self.events.iter().position(Event::is_change) {
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
        Event::Expiring { expires_at: n }
    }

    fn short(event: Event) -> String {
        match event {
            Event::Disconnected(closed) => format!("lost {}", closed.reason),
            Event::Reconnected => "back".to_owned(),
            Event::Missed(count) => format!("missed {count}"),
            Event::Expiring { expires_at } => expires_at.to_string(),
            Event::Closed(_) => "closed".to_owned(),
            other => format!("{other:?}"),
        }
    }

    fn read(events: &mut Events) -> Vec<String> {
        std::iter::from_fn(|| events.try_next()).map(short).collect()
    }

    #[test]
    fn the_oldest_messages_are_dropped_and_counted_in_their_place() {
        let (queue, mut events) = EventQueue::new(3);
        (1..=2).for_each(|n| queue.push_event(message(n)));
        queue.push_event(lost("first"));
        queue.push_event(Event::Reconnected);
        (3..=9).for_each(|n| queue.push_event(message(n)));
        assert_eq!(read(&mut events), ["missed 2", "lost first", "back", "missed 4", "7", "8", "9"]);
        queue.push_event(message(10));
        queue.push_event(Event::Closed(ClosedBy::new(CloseCode::NORMAL, "done")));
        queue.push_event(message(11));
        assert_eq!(read(&mut events), ["10", "closed"]);
    }

    #[test]
    fn changes_of_the_connection_wait_in_bounded_number() {
        let (queue, mut events) = EventQueue::new(2);
        for n in 0..100 {
            queue.push_event(lost(&n.to_string()));
            queue.push_event(Event::Reconnected);
        }
        queue.push_event(lost("last"));
        let told = read(&mut events);
        assert!(told.len() <= MAX_CHANGES && told.ends_with(&["lost 99".into(), "back".into(), "lost last".into()]));
        for n in 0..100 {
            queue.push_event(lost(&n.to_string()));
            queue.push_event(message(n));
            queue.push_event(Event::Reconnected);
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
                Some(Event::Expiring { expires_at }) => {
                    seen += 1;
                    assert_eq!(expires_at, seen, "in order, and what is missing is counted before");
                    true
                }
                Some(Event::Missed(count)) => { seen += count; true }
                other => other.is_some(),
            };
            for op in ops {
                match op {
                    0 => drop(take(&mut events)),
                    1 => queue.push_event(lost("x")),
                    2 => queue.push_event(Event::Reconnected),
                    _ => { told += 1; queue.push_event(message(told)); }
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
    async fn a_dropped_wait_takes_nothing() {
        let (queue, mut events) = EventQueue::new(2);
        tokio::select! {
            biased;
            event = events.next() => panic!("nothing is there: {event:?}"),
            () = std::future::ready(()) => {}
        }
        queue.push_event(message(1));
        assert_eq!(read(&mut events), ["1"]);
    }

    #[tokio::test]
    async fn a_reader_waits_for_events_and_for_the_end() {
        let (queue, mut events) = EventQueue::new(2);
        let (event, ()) = tokio::join!(events.next(), async { queue.push_event(message(1)) });
        assert_eq!(event.map(short), Some("1".to_owned()));
        queue.push_event(Event::Closed(ClosedBy::new(CloseCode::NORMAL, "done")));
        assert!(matches!(events.next().await, Some(Event::Closed(_))));
        assert!(events.next().await.is_none() && events.next().await.is_none());
    }
}
