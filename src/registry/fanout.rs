//! Delivery from one sender to many receivers. Each worker has an inbox, and one task that delivers to the clients on
//! that worker: a message crosses to a worker once, and in one order for all of its clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use quic_websocket_lane::Sent;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::direct::Parcel;
use crate::envelope::EncodedMessage;
use crate::message::ClosedBy;
use crate::metrics::Counters;
use crate::outbound::{EncodedRun, Outbound, SLICE};

/// Most deliveries taken from the inbox at once; consecutive broadcasts of one batch share each receiver's write.
const BATCH: usize = 32;

/// One delivery on its way to a worker's clients.
#[derive(Debug)]
pub(super) enum Dispatch {
    /// To every client of the worker.
    All { encoded: Arc<EncodedMessage>, share: TallyShare },
    /// To some clients of the worker.
    Some { clients: Vec<Uuid>, encoded: Arc<EncodedMessage>, share: TallyShare },
    /// To one client.
    One(Parcel),
    /// Ends one client.
    End { client: Uuid, closed: ClosedBy },
}

/// Counts the receivers of a message to many, over all workers.
#[derive(Debug)]
pub(crate) struct Tally {
    waiting: AtomicUsize,
    delivered: AtomicU64,
    done: Notify,
}

impl Tally {
    /// A tally of as many shares as there are workers that deliver.
    pub(super) fn new(shares: usize) -> Arc<Self> {
        Arc::new(Self { waiting: AtomicUsize::new(shares), delivered: AtomicU64::new(0), done: Notify::new() })
    }

    pub(super) fn share(self: &Arc<Self>) -> TallyShare {
        TallyShare { tally: Arc::clone(self), delivered: 0 }
    }

    /// Waits until every worker has delivered. One caller.
    pub(crate) async fn delivered(&self) -> u64 {
        while self.waiting.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
        self.delivered.load(Ordering::Acquire)
    }
}

/// One worker's share of a tally: counted when it is dropped, so that a worker that ends does not leave others waiting.
#[derive(Debug)]
pub(super) struct TallyShare {
    tally: Arc<Tally>,
    delivered: u64,
}

impl Drop for TallyShare {
    fn drop(&mut self) {
        self.tally.delivered.fetch_add(self.delivered, Ordering::Release);
        if self.tally.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tally.done.notify_one();
        }
    }
}

/// The clients of one worker.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    clients: Mutex<Clients>,
    /// Whether deliveries are taken from the worker's inbox and not yet done.
    is_delivering: AtomicBool,
}

#[derive(Debug, Default)]
struct Clients {
    by_id: HashMap<Uuid, Arc<Outbound>>,
    /// All of them, made when asked for and kept until one comes or goes.
    all: Option<Arc<[Arc<Outbound>]>>,
}

impl Roster {
    /// Adds a client until the result is dropped.
    pub(crate) fn add(self: &Arc<Self>, client: Arc<Outbound>) -> OnRoster {
        let id = client.id;
        let mut clients = self.clients.lock();
        clients.by_id.insert(id, client);
        clients.all = None;
        OnRoster { roster: Arc::clone(self), id }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<Outbound>> {
        self.clients.lock().by_id.get(&id).cloned()
    }

    pub(super) fn is_delivering(&self) -> bool {
        self.is_delivering.load(Ordering::Acquire)
    }

    fn all(&self) -> Arc<[Arc<Outbound>]> {
        let mut clients = self.clients.lock();
        let Clients { by_id, all } = &mut *clients;
        Arc::clone(all.get_or_insert_with(|| by_id.values().cloned().collect()))
    }
}

/// A client's place on its worker's roster.
#[derive(Debug)]
pub(crate) struct OnRoster {
    roster: Arc<Roster>,
    id: Uuid,
}

impl Drop for OnRoster {
    fn drop(&mut self) {
        let mut clients = self.roster.clients.lock();
        clients.by_id.remove(&self.id);
        clients.all = None;
    }
}

/// One worker's inbox of deliveries.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(super) deliveries: mpsc::Receiver<Dispatch>,
}

impl Inbox {
    /// Delivers, and counts deliveries, until every sender is gone. Never waits for a receiver.
    pub(crate) async fn serve(mut self, roster: &Roster, counters: &Counters) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.deliveries.recv_many(&mut batch, BATCH).await > 0 {
            roster.is_delivering.store(true, Ordering::Release);
            let mut queue = batch.drain(..).peekable();
            while let Some(delivery) = queue.next() {
                match delivery {
                    Dispatch::One(Parcel { to, messages, lane, accepted }) => {
                        let deliver = |client: Arc<Outbound>| client.deliver_batch(messages, lane.as_ref());
                        let sent = roster.get(to).map_or_else(Sent::default, deliver);
                        counters.sent(sent);
                        // A sender that has left has dropped the other end.
                        let _ = accepted.map(|accepted| accepted.send(sent.messages));
                    }
                    Dispatch::Some { clients, encoded, share } => {
                        // Those that have left meanwhile get nothing.
                        let clients: Vec<_> = clients.into_iter().filter_map(|id| roster.get(id)).collect();
                        let run = EncodedRun::new(vec![encoded]);
                        counters.sent(deliver_to_all(&run, &mut [share], &clients).await);
                    }
                    Dispatch::End { client, closed } => {
                        if let Some(client) = roster.get(client) {
                            client.end_for_good(closed);
                        }
                    }
                    Dispatch::All { encoded, share } => {
                        let (mut envelopes, mut shares) = (vec![encoded], vec![share]);
                        while let Some(Dispatch::All { encoded, share }) =
                            queue.next_if(|next| matches!(next, Dispatch::All { .. }))
                        {
                            envelopes.push(encoded);
                            shares.push(share);
                        }
                        let sent = deliver_to_all(&EncodedRun::new(envelopes), &mut shares, &roster.all()).await;
                        counters.fanned_out(sent);
                    }
                }
            }
            roster.is_delivering.store(false, Ordering::Release);
        }
    }
}

async fn deliver_to_all(run: &EncodedRun, shares: &mut [TallyShare], clients: &[Arc<Outbound>]) -> Sent {
    let mut all = Sent::default();
    for (number, client) in clients.iter().enumerate() {
        let sent = client.deliver(run);
        all += sent;
        for share in &mut shares[..sent.messages] {
            share.delivered += 1;
        }
        if (number + 1) % SLICE == 0 {
            tokio::task::yield_now().await;
        }
    }
    all
}
