//! Messages to one client. Consecutive ones from one lane make a [`DirectBatch`], encoded into one buffer and delivered
//! in one write: by the sender itself if the receiver is on the same worker and nothing waits in that worker's inbox,
//! which it would overtake; otherwise through the inbox of the receiver's worker.

use std::sync::Arc;

use quic_websocket_lane::{LaneWriter, Overflow};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::Registry;
use super::fanout::Dispatch;
use crate::envelope::EncodedBatch;
use crate::outbound::{OnLane, Outbound};

/// Most bytes of a batch of several messages.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The result of looking for the way to a client.
#[derive(Debug)]
pub(crate) enum Found {
    Route(Route),
    /// The inbox of its worker is full.
    Full,
    NotConnected,
}

/// The way of messages to one client.
#[derive(Debug)]
pub(crate) struct Route(Way);

#[derive(Debug)]
enum Way {
    /// It is on the sender's worker, and nothing else is on its way there.
    Here(Arc<Outbound>),
    /// A place in the inbox of its worker.
    Inbox(mpsc::OwnedPermit<Dispatch>),
}

/// Consecutive messages to one client.
#[derive(Debug)]
pub(crate) struct DirectBatch {
    to: Uuid,
    way: Way,
    messages: EncodedBatch,
    /// The lane that they go on, if that is not the control lane.
    lane: Option<OnLane>,
}

/// The outcome of a delivery.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// The receiver accepted so many of the messages.
    Now(usize),
    /// Their number will be known once the receiver's worker has delivered them; `None` if it was not asked for.
    Later(Option<oneshot::Receiver<usize>>),
}

/// Room for messages to one client in the inbox of its worker.
#[derive(Debug)]
pub(crate) struct InboxRoom<'a>(mpsc::Permit<'a, Dispatch>);

impl InboxRoom<'_> {
    /// Sends messages to a client of the worker, on a lane or its control lane.
    pub(crate) fn send(self, to: Uuid, lane: Option<OnLane>, messages: EncodedBatch) {
        self.0.send(Dispatch::One(Parcel { to, messages, lane, accepted: None }));
    }
}

/// Messages in an inbox, for one client of its worker.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) to: Uuid,
    pub(super) messages: EncodedBatch,
    /// The lane that they go on, if that is not the control lane.
    pub(super) lane: Option<OnLane>,
    /// Gets the number of messages that the client accepted.
    pub(super) accepted: Option<oneshot::Sender<usize>>,
}

impl Registry {
    /// Looks for the way from a worker to a client.
    pub(crate) fn route(&self, from_worker: usize, to: Uuid) -> Found {
        if self.is_idle(from_worker)
            && let Some(client) = self.roster(from_worker).get(to)
        {
            return Found::Route(Route(Way::Here(client)));
        }
        let Some(inbox) = self.worker_of(to).and_then(|worker| self.inboxes.get(worker)) else {
            return Found::NotConnected;
        };
        Self::reserve(inbox)
    }

    /// Looks for the way from a worker to a client whose worker is known.
    pub(crate) fn route_to(&self, from_worker: usize, client: &Arc<Outbound>, worker: usize) -> Found {
        if from_worker == worker && self.is_idle(worker) {
            return Found::Route(Route(Way::Here(Arc::clone(client))));
        }
        self.inboxes.get(worker).map_or(Found::NotConnected, Self::reserve)
    }

    fn reserve(inbox: &mpsc::Sender<Dispatch>) -> Found {
        match inbox.clone().try_reserve_owned() {
            Ok(place) => Found::Route(Route(Way::Inbox(place))),
            Err(TrySendError::Full(_)) => Found::Full,
            Err(TrySendError::Closed(_)) => Found::NotConnected,
        }
    }

    /// Whether nothing is in the inbox of a worker, nor taken from it and not yet delivered. Exact on that worker, for
    /// deliveries that happened before the call.
    fn is_idle(&self, worker: usize) -> bool {
        let inbox = &self.inboxes[worker];
        inbox.capacity() == inbox.max_capacity() && !self.roster(worker).is_delivering()
    }

    /// Sends messages to one client, through its worker's inbox; waits only while that is full. `None` if there is no
    /// such client; else the result gets how many of them it accepted.
    pub(crate) async fn direct(&self, to: Uuid, messages: EncodedBatch) -> Option<oneshot::Receiver<usize>> {
        let inbox = self.inboxes.get(self.worker_of(to)?)?;
        let (accepted, answer) = oneshot::channel();
        inbox.send(Dispatch::One(Parcel { to, messages, lane: None, accepted: Some(accepted) })).await.ok()?;
        Some(answer)
    }

    /// Waits for room in the inbox of a worker. `None` if it has ended, and with it all its clients.
    pub(crate) async fn room_at(&self, worker: usize) -> Option<InboxRoom<'_>> {
        self.inboxes.get(worker)?.reserve().await.ok().map(InboxRoom)
    }
}

impl DirectBatch {
    pub(crate) fn new(to: Uuid, Route(way): Route, compress_min_bytes: usize) -> Self {
        Self { to, way, messages: EncodedBatch::new(compress_min_bytes), lane: None }
    }

    /// Sends the messages on another lane than the control lane.
    pub(crate) fn on(mut self, lane: Option<OnLane>) -> Self {
        self.lane = lane;
        self
    }

    pub(crate) fn to(&self) -> Uuid {
        self.to
    }

    pub(crate) fn messages(&mut self) -> &mut EncodedBatch {
        &mut self.messages
    }

    /// Whether it takes another message of about `bytes` bytes to this client, on a lane or its control lane. What has
    /// entered the inbox of the sender's worker since the batch began must not be overtaken.
    pub(crate) fn takes(
        &self,
        registry: &Registry,
        from_worker: usize,
        to: Uuid,
        lane: Option<(&Arc<LaneWriter>, Overflow)>,
        bytes: usize,
    ) -> bool {
        to == self.to
            && self.lane.as_ref().map(|own| (Arc::as_ptr(&own.writer), own.overflow))
                == lane.map(|(writer, overflow)| (Arc::as_ptr(writer), overflow))
            && self.messages.bytes() + bytes <= MAX_BATCH_BYTES
            && (matches!(self.way, Way::Inbox(_)) || registry.is_idle(from_worker))
    }

    /// Delivers the messages; `asks` whether the number of accepted ones is wanted.
    pub(crate) fn deliver(self, asks: bool) -> Delivered {
        let Self { to, way, mut messages, lane } = self;
        match way {
            Way::Here(client) => {
                let sent = client.deliver_batch(messages, lane.as_ref());
                client.counters().sent(sent);
                Delivered::Now(sent.messages)
            }
            Way::Inbox(place) => {
                messages.shrink();
                let (accepted, answer) = asks.then(oneshot::channel).unzip();
                place.send(Dispatch::One(Parcel { to, messages, lane, accepted }));
                Delivered::Later(answer)
            }
        }
    }
}
