//! Responders: clients that answer requests, and their offers to answer those to one topic, client or user.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quic_websocket_lane::LaneWriter;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::table::OfferId;
use super::{Ended, Requests, Unanswered};
use crate::message::CallTarget;
use crate::outbound::{OnLane, Outbound};

/// A client that answers requests, with the number of those that it has.
#[derive(Debug)]
pub(crate) struct Responder {
    pub(crate) client: Arc<Outbound>,
    pub(crate) worker: usize,
    open: AtomicUsize,
}

impl Responder {
    pub(crate) fn new(client: Arc<Outbound>, worker: usize) -> Arc<Self> {
        Arc::new(Self { client, worker, open: AtomicUsize::new(0) })
    }
}

/// A place for one request at a responder, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    responder: Arc<Responder>,
    /// The lane of its requests, if that is not its control lane.
    lane: Option<Arc<LaneWriter>>,
}

impl Place {
    pub(crate) fn responder(&self) -> &Arc<Responder> {
        &self.responder
    }

    /// The lane of its requests, each of which has a place.
    pub(crate) fn lane(&self) -> OnLane {
        OnLane::beyond_bounds(Arc::clone(self.lane.as_ref().unwrap_or(&self.responder.client.control)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.responder.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One offer to answer: a subscription's, or a client's own.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) responder: Arc<Responder>,
    pub(super) offered: Offered,
}

#[derive(Debug)]
pub(super) enum Offered {
    /// The client does not know yet that it is subscribed. Cancelled once it does, or never will.
    Later(CancellationToken),
    /// The lane of its requests, if that is not the control lane.
    Now(Option<Arc<LaneWriter>>),
}

impl Member {
    /// A place for a request, if it has fewer than `most` and its lane has room.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let Self { responder, offered: Offered::Now(lane) } = self else { return None };
        if !lane.as_ref().unwrap_or(&responder.client.control).has_room() {
            return None;
        }
        let more = |open: usize| (open < most).then_some(open + 1);
        responder.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { responder: Arc::clone(responder), lane: lane.clone() })
    }
}

/// A client's readiness to answer requests. When it is dropped, its open requests fail.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(super) requests: Arc<Requests>,
    pub(super) id: OfferId,
    pub(super) to: CallTarget,
    pub(super) _waited_for: DropGuard,
}

impl Offer {
    pub(crate) fn id(&self) -> OfferId {
        self.id
    }

    /// From now on the client gets requests, on a lane or its control lane.
    pub(crate) fn begin(&self, lane: Option<Arc<LaneWriter>>) {
        let mut part = self.requests.part(&self.to).lock();
        let Some(member) = part.get_mut(&self.to).and_then(|group| group.get_mut(self.id)) else { return };
        let before = std::mem::replace(&mut member.offered, Offered::Now(lane));
        drop(part);
        if let Offered::Later(waited_for) = before {
            waited_for.cancel();
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let Self { requests, id, to, .. } = self;
        {
            let mut part = requests.part(to).lock();
            if let Some(group) = part.get_mut(to) {
                group.remove(*id);
                if group.len() == 0 {
                    part.remove(to);
                }
            }
        }
        for shard in &requests.shards {
            let mut state = shard.state.lock();
            let withdrawn = state.table.withdraw(*id);
            if !withdrawn.is_empty() {
                state.ended.extend(withdrawn.into_iter().map(|open| Ended::new(open, |_| Unanswered::ResponderLeft)));
                drop(state);
                shard.wake.notify_one();
            }
        }
    }
}
