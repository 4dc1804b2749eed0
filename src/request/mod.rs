//! Open requests: those that a client sent to another one, until they are answered or end. Chooses the client that
//! answers, checks which client may reply, and reports the requests that have ended; sends nothing itself, and knows
//! clients by their outbound handles.
//! Shared by all workers: a request is in the table of its requester's worker, whose task ([`Requests::ended`]) ends
//! those that are due. Called by `handler`, and by `topic` when a subscription ends.
//!
//! Locks are taken in this order, and none is held across an `.await`: a table, then a part of the groups, then a
//! lane's writer.

mod error;
mod group;
mod responder;
mod table;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quic_websocket_lane::LaneWriter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::error::{NotOpened, Unanswered};
use self::group::{Group, NotChosen};
use self::responder::{Member, Offered};
pub(crate) use self::responder::{Offer, Place, Responder};
pub(crate) use self::table::{Number, OfferId};
use self::table::{Open, Refused, Table};
use crate::message::{CallTarget, Recipient, RequestId};
use crate::outbound::{OnLane, Outbound};

/// The groups are spread over so many maps, so that workers seldom wait for each other.
const PARTS: usize = 16;

/// Ended requests that are taken at once.
const BATCH: usize = 64;

/// Why no responder is chosen.
enum Unavailable {
    Empty,
    Full,
    /// Another try is worth it once this is cancelled.
    Later(CancellationToken),
}

/// The client that asks, and the lane that gets the reply.
#[derive(Debug)]
pub(crate) struct Requester {
    pub(crate) client: Arc<Outbound>,
    pub(crate) worker: usize,
    pub(crate) lane: OnLane,
}

/// Both sides of an open request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) requester: Requester,
    pub(crate) place: Place,
    pub(crate) timeout_ms: u64,
}

/// A request that has ended without a reply.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) number: Number,
    pub(crate) why: Unanswered,
    /// The client that asked, and the id by which it knows the request; `None` if it is not to be told.
    pub(crate) requester: Option<(Requester, RequestId)>,
    pub(crate) place: Place,
}

impl Ended {
    fn new((number, open): (Number, OpenRequest), why: impl FnOnce(&Exchange) -> Unanswered) -> Self {
        let why = why(&open.with);
        let Open { id, with: Exchange { requester, place, .. }, .. } = open;
        Self { number, why, requester: Some((requester, id)), place }
    }
}

type OpenRequest = Open<Uuid, RequestId, Exchange>;

/// The requests of one worker's clients.
#[derive(Debug)]
struct Shard {
    state: Mutex<State>,
    /// Wakes the worker's task: requests have ended, or one is due sooner than it knows.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    table: Table<Uuid, RequestId, Exchange>,
    /// Requests that have ended without a reply, as long as their clients have not been told.
    ended: VecDeque<Ended>,
    /// The time at which the worker's task wakes by itself; 0 while it is awake.
    wakes_ms: u64,
}

type Part = Mutex<HashMap<CallTarget, Group<Member>>>;

/// All open requests of the server, and the offers to answer.
#[derive(Debug)]
pub(crate) struct Requests {
    /// By worker.
    shards: Box<[Shard]>,
    groups: Box<[Part]>,
    hasher: RandomState,
    begun: Instant,
    /// Most open requests of one client, and at one responder.
    most_open: usize,
    most_held: usize,
    last_offer: AtomicU64,
}

impl Requests {
    /// No requests yet, for so many workers.
    pub(crate) fn new(workers: usize, most_open: usize, most_held: usize) -> Arc<Self> {
        let shard = |place: usize| Shard {
            state: Mutex::new(State {
                table: Table::new(place as u64, workers as u64),
                ended: VecDeque::new(),
                wakes_ms: 0,
            }),
            wake: Notify::new(),
        };
        Arc::new(Self {
            shards: (0..workers).map(shard).collect(),
            groups: (0..PARTS).map(|_| Part::default()).collect(),
            hasher: RandomState::new(),
            begun: Instant::now(),
            most_open,
            most_held,
            last_offer: AtomicU64::new(0),
        })
    }

    /// Has a client answer requests from when the offer [begins](Offer::begin) until it is dropped. Requests wait for
    /// an offer that does not yet, if there is no other.
    pub(crate) fn offer(self: &Arc<Self>, to: CallTarget, responder: &Arc<Responder>) -> Offer {
        let (id, later) = (self.last_offer.fetch_add(1, Ordering::Relaxed) + 1, CancellationToken::new());
        let member = Member { responder: Arc::clone(responder), offered: Offered::Later(later.clone()) };
        self.part(&to).lock().entry(to.clone()).or_default().add(id, member);
        Offer { requests: Arc::clone(self), id, to, _waited_for: later.drop_guard() }
    }

    /// Opens a request, whose reply has so much time from now on.
    pub(crate) fn open(
        &self,
        requester: Requester,
        id: &RequestId,
        to: &CallTarget,
        timeout_ms: u64,
    ) -> Result<Opened, NotNow> {
        let (worker, client) = (requester.worker, requester.client.id);
        let shard = &self.shards[worker];
        let due_ms = self.now_ms() + timeout_ms;
        let mut state = shard.state.lock();
        state.table.admits(client, id, self.most_open).map_err(|refused| match refused {
            Refused::SameId => NotOpened::SameId(id.clone()),
            Refused::TooMany => NotOpened::TooMany(self.most_open),
        })?;
        // Chosen under the table's lock: an offer that ends afterwards finds the request in the table.
        let (offer, place) = match self.choose(to) {
            Ok(chosen) => chosen,
            Err(Unavailable::Later(token)) => return Err(NotNow::Waits(requester, token)),
            Err(Unavailable::Empty) => return Err(NotOpened::NoResponder(to.clone()).into()),
            Err(Unavailable::Full) => return Err(NotOpened::AllFull(to.clone()).into()),
        };
        let (responder, lane) = (Arc::clone(place.responder()), place.lane());
        let exchange = Exchange { requester, place, timeout_ms };
        let number = state.table.open(client, id.clone(), offer, due_ms, exchange);
        let is_first = due_ms < state.wakes_ms;
        drop(state);
        if is_first {
            shard.wake.notify_one();
        }
        Ok(Opened { number, responder, lane })
    }

    fn choose(&self, to: &CallTarget) -> Result<(OfferId, Place), Unavailable> {
        let mut part = self.part(to).lock();
        let Some(group) = part.get_mut(to) else { return Err(Unavailable::Empty) };
        group.choose(|member| member.take(self.most_held)).map_err(|why| match why {
            NotChosen::Empty => Unavailable::Empty,
            NotChosen::Full => {
                let later = group.members().find_map(|member| match &member.offered {
                    Offered::Later(later) => Some(later.clone()),
                    Offered::Now(_) => None,
                });
                later.map_or(Unavailable::Full, Unavailable::Later)
            }
        })
    }

    /// Takes back a request that was not sent.
    /// False if it has ended meanwhile, of which its client is told.
    pub(crate) fn abandon(&self, number: Number) -> bool {
        let open = self.shard(number).state.lock().table.close(number);
        open.is_some()
    }

    /// The client that a request is from and the lane of its reply, if it is open and this client has it.
    pub(crate) fn asked_by(&self, number: Number, by: Uuid) -> Option<(Arc<Outbound>, usize, Arc<LaneWriter>)> {
        let state = self.shard(number).state.lock();
        let Exchange { requester, place, .. } = &state.table.get(number)?.with;
        let Requester { client, worker, lane } = requester;
        (place.responder().client.id == by).then(|| (Arc::clone(client), *worker, Arc::clone(&lane.writer)))
    }

    /// Ends a request that this client answers.
    pub(crate) fn close(&self, number: Number, by: Uuid) -> Option<(RequestId, Exchange)> {
        let mut state = self.shard(number).state.lock();
        let is_meant = state.table.get(number)?.with.place.responder().client.id == by;
        let Open { id, with, .. } = if is_meant { state.table.close(number)? } else { return None };
        Some((id, with))
    }

    /// Ends a client's request that it does not want answered any more.
    pub(crate) fn cancel(&self, worker: usize, by: Uuid, id: &RequestId) -> Option<Ended> {
        let cancelled = self.shards[worker].state.lock().table.cancel(by, id)?;
        Some(Ended::new(cancelled, |_| Unanswered::Cancelled))
    }

    /// Ends all requests of a client that leaves, shows each with its reason, and has their responders told.
    pub(crate) fn leave(&self, worker: usize, who: Uuid, mut each: impl FnMut(&Requester, &RequestId, Unanswered)) {
        let shard = &self.shards[worker];
        let (left, owed) = {
            let mut state = shard.state.lock();
            let is_owed = |ended: &&mut Ended| ended.requester.as_ref().is_some_and(|(by, _)| by.client.id == who);
            // The worker's task would tell them too late.
            let owed: Vec<_> = state.ended.iter_mut().filter(is_owed).collect();
            let owed: Vec<_> =
                owed.into_iter().filter_map(|ended| Some((ended.requester.take()?, ended.why))).collect();
            (state.table.leave(who), owed)
        };
        for ((requester, id), why) in owed {
            each(&requester, &id, why);
        }
        if left.is_empty() {
            return;
        }
        let ended: Vec<_> = left
            .into_iter()
            .map(|left| {
                let mut ended = Ended::new(left, |_| Unanswered::RequesterLeft);
                if let Some((requester, id)) = ended.requester.take() {
                    each(&requester, &id, Unanswered::Closing);
                }
                ended
            })
            .collect();
        shard.state.lock().ended.extend(ended);
        shard.wake.notify_one();
    }

    /// Waits until requests of a worker's clients have ended without a reply, and takes some of them. One caller for
    /// each worker, which then calls [`settle`](Self::settle). Cancel safe.
    pub(crate) async fn ended(&self, worker: usize) -> Vec<Ended> {
        let shard = &self.shards[worker];
        loop {
            let wakes_ms = {
                let mut state = shard.state.lock();
                let now_ms = self.now_ms();
                let State { table, ended, wakes_ms } = &mut *state;
                while ended.len() < BATCH
                    && let Some(due) = table.expire(now_ms)
                {
                    let why = |exchange: &Exchange| Unanswered::TimedOut { timeout_ms: exchange.timeout_ms };
                    ended.push_back(Ended::new(due, why));
                }
                if !ended.is_empty() {
                    *wakes_ms = 0;
                    let count = ended.len().min(BATCH);
                    return ended.drain(..count).collect();
                }
                *wakes_ms = table.next_due().unwrap_or(u64::MAX);
                *wakes_ms
            };
            let due = async {
                match wakes_ms {
                    u64::MAX => std::future::pending().await,
                    due_ms => sleep_until(self.begun + Duration::from_millis(due_ms)).await,
                }
            };
            tokio::select! {
                () = shard.wake.notified() => {}
                () = due => {}
            }
        }
    }

    /// Clients have been told that requests ended: they may open others.
    pub(crate) fn settle(&self, worker: usize, clients: impl Iterator<Item = Uuid>) {
        let mut state = self.shards[worker].state.lock();
        clients.for_each(|client| state.table.settle(client));
    }

    /// The number of open requests, and of those that answer: subscriptions, and clients by themselves.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let open = self.shards.iter().map(|shard| shard.state.lock().table.len()).sum();
        let members = |part: &Part| {
            let part = part.lock();
            // A user's clients are in two groups.
            part.iter()
                .filter(|(to, _)| !matches!(to, CallTarget::Recipient(Recipient::User(_))))
                .map(|(_, group)| group.len())
                .sum::<usize>()
        };
        (open, self.groups.iter().map(members).sum())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The table of a request.
    fn shard(&self, number: Number) -> &Shard {
        // The remainder is below the number of shards, whatever the width of usize.
        &self.shards[usize::try_from(number % self.shards.len() as u64).unwrap_or(0)]
    }

    fn part(&self, to: &CallTarget) -> &Part {
        &self.groups[usize::try_from(self.hasher.hash_one(to) % PARTS as u64).unwrap_or(0)]
    }
}

/// Why a request was not opened now.
#[derive(Debug)]
pub(crate) enum NotNow {
    /// Another try is worth it once this is cancelled: then an offer has begun, or has ended.
    Waits(Requester, CancellationToken),
    Refused(NotOpened),
}

impl From<NotOpened> for NotNow {
    fn from(refused: NotOpened) -> Self {
        Self::Refused(refused)
    }
}

/// A request that was opened, and where it goes.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) number: Number,
    pub(crate) responder: Arc<Responder>,
    pub(crate) lane: OnLane,
}

#[cfg(test)]
mod proptests;
