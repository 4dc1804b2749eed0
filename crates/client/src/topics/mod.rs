//! Topics on the client's side: subscriptions that outlive connections, publishing, history, presence. [`Topics`] is
//! what the client's handles and its connection share; the decisions are in `routes` and `entry`, which do no I/O.

mod consumer;
mod entry;
mod event;
mod history;
mod members;
mod publish;
mod queue;
mod routes;
#[cfg(test)]
mod routes_tests;
mod subscribe;
mod subscription;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

pub use self::consumer::Consumer;
use self::entry::Opened;
pub use self::event::{Ended, Missed, TopicEvent};
pub use self::history::{History, HistoryBuilder, Occupancy, Presence};
pub use self::members::Members;
pub use self::publish::{PublishBuilder, Published};
use self::queue::Queue;
use self::routes::{Added, Dispatch, Routes};
pub(super) use self::routes::{Next, Outgoing, Via, refused_for};
pub use self::subscribe::SubscribeBuilder;
pub use self::subscription::Subscription;
use super::ClientError;
use crate::message::{ClosedBy, ErrorReply, Json, Position, ServerMessage, Session, Subscribe, TopicName};
use crate::serve::Handlers;

/// The subscriptions of a client.
#[derive(Debug, Default)]
pub(super) struct Topics {
    routes: Mutex<Routes>,
    /// That of the connection before, while there is none.
    session: Mutex<Option<Session>>,
    /// The handlers of requests of other clients.
    pub(super) handlers: Handlers,
    /// Wakes the sender: there is something to ask the server for.
    requests: Notify,
    /// Wakes the lanes that wait: the subscription of their messages may be known now.
    settled: Notify,
}

impl Topics {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription, or takes one that the server has made.
    fn add(
        &self,
        request: Subscribe,
        queue: Arc<Queue>,
        opened: oneshot::Sender<Opened>,
    ) -> Result<Added, ClientError> {
        let added = self.routes().add(request, queue, opened)?;
        self.requests.notify_one();
        Ok(added)
    }

    /// Removes a subscription. `reply` is dropped if the server need not be told, or cannot. `forget`: its durable
    /// consumer as well.
    fn leave(&self, number: u64, reply: Option<oneshot::Sender<ServerMessage>>, forget: bool) {
        self.routes().leave(number, reply, forget);
        self.requests.notify_one();
        self.settled.notify_waiters();
    }

    /// Sets the state with which a subscription is made again.
    fn keep_state(&self, number: u64, state: Option<Json>) {
        self.routes().keep_state(number, state);
    }

    /// A connection begins; every subscription has to be made on it, but those that the server makes: `announced`, of
    /// which it has said `early` that they are there.
    pub(super) fn connected(&self, announced: &[String], early: Vec<ServerMessage>) {
        let mut routes = self.routes();
        routes.connected(announced);
        for message in early {
            let _ = routes.dispatch(Via::Control, message);
        }
        drop(routes);
        self.requests.notify_one();
        self.settled.notify_waiters();
    }

    /// The next connection continues this session, if any.
    pub(super) fn resume(&self, session: Option<&str>) {
        let session = session.and_then(|secret| Session::new("session", secret).ok());
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// What the next connection continues: a session, and positions of the subscriptions that the server makes.
    pub(super) fn continued(&self) -> (Option<Session>, Vec<(TopicName, Position)>) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (session, self.routes().positions())
    }

    /// The connection has ended. Call it after the last [`deliver`](Self::deliver) of that connection.
    pub(super) fn disconnected(&self) {
        self.routes().disconnected();
    }

    /// There will be no further connection.
    pub(super) fn close(&self, closed: &ClosedBy) {
        self.routes().close(closed);
        self.settled.notify_waiters();
    }

    /// Waits until there may be something to send. Cancel safe; for one caller.
    pub(super) async fn requests_due(&self) {
        let due_at = self.routes().next_due_at();
        tokio::select! {
            () = self.requests.notified() => {}
            () = until(due_at) => {}
        }
    }

    /// Whether there is something to send.
    pub(super) fn next(&self) -> Next {
        self.routes().next()
    }

    /// The last refusal of a subscription that the server has not accepted yet.
    fn refusal(&self, number: u64) -> Option<ErrorReply> {
        self.routes().refusal(number)
    }

    /// The next message to send, as request `id`.
    pub(super) fn next_request(&self, id: u64) -> Option<Outgoing> {
        self.routes().next_request(id)
    }

    /// Request `id` could not be sent, which ends its subscription and no other.
    pub(super) fn unsendable(&self, id: u64, error: ClientError) {
        self.routes().unsendable(id, error);
        self.settled.notify_waiters();
    }

    /// Whether the end of a topic lane is a loss: a subscription's messages are expected there.
    pub(super) fn is_bound(&self, lane: u64) -> bool {
        self.routes().is_bound(lane)
    }

    /// Handles the reply to request `id` if a subscription waits for it; otherwise gives it back. Call it in the order
    /// in which replies come.
    pub(super) fn settle(&self, id: u64, reply: ServerMessage) -> Option<ServerMessage> {
        let others = self.routes().settle(id, reply);
        if others.is_none() {
            self.settled.notify_waiters();
            // It may have been deferred.
            self.requests.notify_one();
        }
        others
    }

    /// Hands a message to its subscription, or gives it back if there is none. Waits while the subscription has no
    /// room, on topic lanes only. Cancel safe: a message that was not handed on was not seen, and comes again after a
    /// reconnect.
    pub(super) async fn deliver(&self, via: Via, mut message: ServerMessage) -> Option<ServerMessage> {
        loop {
            // Created before the check, so that a change in between is not missed.
            let settled = self.settled.notified();
            let is_news = matches!(message, ServerMessage::Subscribed(_));
            let dispatch = self.routes().dispatch(via, message);
            if is_news {
                self.settled.notify_waiters();
                self.requests.notify_one();
            }
            match dispatch {
                Dispatch::Taken => return None,
                Dispatch::Renewed => {
                    self.requests.notify_one();
                    return None;
                }
                Dispatch::Unclaimed(message) => return Some(message),
                Dispatch::Unsettled(unsettled) => {
                    message = unsettled;
                    settled.await;
                }
                Dispatch::Full(full, queue) => {
                    message = full;
                    queue.room().await;
                }
            }
        }
    }
}

/// Waits until then; without a time, forever.
async fn until(due_at: Option<Instant>) {
    match due_at {
        Some(due_at) => tokio::time::sleep_until(due_at.into()).await,
        None => std::future::pending().await,
    }
}
