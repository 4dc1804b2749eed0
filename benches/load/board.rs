//! State shared by all clients of a load: which client may send which message, deliveries, latencies.
//!
//! Everything runs on one thread, so the lock is never contended; it is there because tasks must be `Send`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::message::{Mode, Shape, Stamp};
use super::sequence::{Arrival, Sequence};
use super::template::{Answer, Ends, Template};
use super::{Driver, Limit, Topics};

/// Most bytes that a sender appends before it writes.
const MAX_OUTBOX: usize = 256 << 10;

/// One load: senders, topics, and its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) senders: usize,
    /// Topics that messages go to in turn, in topic mode.
    pub(crate) topics: Topics,
    /// Messages of each sender in flight at once. A message is in flight until all its receivers have it and, if the
    /// server acknowledges publishing, the sender has the acknowledgement.
    pub(crate) window: u64,
    pub(crate) limit: Limit,
}

impl Plan {
    /// Number of clients that get each message.
    pub(crate) const fn copies(&self, clients: usize) -> usize {
        match self.shape.mode {
            Mode::Broadcast => clients,
            Mode::Topic => self.topics.receivers(clients),
            Mode::Echo | Mode::Direct | Mode::Request | Mode::Connect => 1,
        }
    }

    fn is_acknowledged(&self) -> bool {
        self.shape.mode == Mode::Topic && self.shape.driver.is_ours()
    }

    /// Whether messages return to their senders, and only to them.
    const fn is_returned(&self) -> bool {
        matches!(self.shape.mode, Mode::Echo | Mode::Direct | Mode::Request)
    }
}

/// Result of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Deliveries that `sent` should cause.
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Messages of the load that arrived altered.
    pub(crate) corrupted: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from sending to each delivery.
    pub(crate) latency: Histogram<u64>,
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    pub(crate) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.lost() + self.duplicated + self.reordered + self.corrupted == 0 && self.failures.is_empty()
    }

    /// Description of the failure, if any.
    pub(crate) fn problem(&self) -> Option<String> {
        (!self.is_clean()).then(|| {
            format!(
                "{} lost, {} duplicated, {} reordered, {} corrupted {}",
                self.lost(),
                self.duplicated,
                self.reordered,
                self.corrupted,
                self.failures.first().map_or("", String::as_str)
            )
        })
    }

    /// Deliveries per second.
    pub(crate) fn rate(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

#[derive(Debug)]
pub(super) struct Board {
    round: Mutex<Round>,
    /// Notified when a load has ended or a client is lost.
    pub(super) changed: Notify,
}

/// State of the current load, or of the last one.
#[derive(Debug)]
pub(super) struct Round {
    plan: Plan,
    phase: u16,
    clients: usize,
    /// By client, for requests.
    addresses: Vec<String>,
    answer: Answer,
    started: Instant,
    last: Instant,
    senders: Vec<Sender>,
    /// By client, sender and topic, as far as a load has several.
    sequences: Vec<Sequence>,
    payload: Vec<u8>,
    hint: usize,
    sending: usize,
    received: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    latency: Histogram<u64>,
    failures: Vec<String>,
    /// By client: a client's task never changes, so one waker is enough.
    wakers: Vec<Option<Waker>>,
}

#[derive(Debug)]
struct Sender {
    template: Template,
    next: u64,
    /// Lowest number still in flight.
    oldest: u64,
    slots: Vec<Slot>,
    is_done: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    sent: Instant,
    /// Deliveries, and the acknowledgement.
    arrivals: usize,
}

impl Board {
    pub(super) fn new(driver: Driver, addresses: Vec<String>) -> anyhow::Result<Self> {
        let clients = addresses.len();
        let shape = Shape { driver, mode: Mode::Echo, encoding: super::Encoding::Text, size: 0 };
        let now = Instant::now();
        let round = Round {
            plan: Plan { shape, senders: 0, topics: Topics::everyone_on(1), window: 0, limit: Limit::Messages(0) },
            phase: 0,
            clients,
            addresses,
            answer: Answer::new(shape),
            started: now,
            last: now,
            senders: Vec::new(),
            sequences: Vec::new(),
            payload: Vec::new(),
            hint: 0,
            sending: 0,
            received: 0,
            duplicated: 0,
            reordered: 0,
            corrupted: 0,
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            failures: Vec::new(),
            wakers: vec![None; clients],
        };
        Ok(Self { round: Mutex::new(round), changed: Notify::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(&self, reason: String) {
        self.lock().failures.push(reason);
        self.changed.notify_one();
    }

    /// Appends the messages that a client may send now.
    pub(super) fn fill(&self, me: usize, out: &mut Vec<u8>, cx: &Context<'_>) {
        let mut round = self.lock();
        let round = &mut *round;
        if round.wakers[me].is_none() {
            round.wakers[me] = Some(cx.waker().clone());
        }
        let Some(sender) = round.senders.get_mut(me).filter(|sender| !sender.is_done) else { return };
        let now = Instant::now();
        let last = match round.plan.limit {
            Limit::Messages(count) => count,
            Limit::Time(time) if now.duration_since(round.started) >= time => sender.next,
            Limit::Time(_) => u64::MAX,
        };
        let window_end = last.min(sender.oldest + round.plan.window);
        while sender.next < window_end && out.len() < MAX_OUTBOX {
            sender.template.append(sender.next, topic(sender.next, round.plan.topics), out);
            *sender.slot(sender.next) = Slot { sent: now, arrivals: 0 };
            sender.next += 1;
        }
        if sender.oldest == last {
            sender.is_done = true;
            round.sending -= 1;
            if round.sending == 0 {
                self.changed.notify_one();
            }
        }
    }
}

/// Topic of a message, if several take turns.
fn topic(number: u64, topics: Topics) -> usize {
    usize::try_from(number % topics.count as u64).unwrap_or_default()
}

impl Sender {
    fn slot(&mut self, number: u64) -> &mut Slot {
        let index = usize::try_from(number % self.slots.len() as u64).unwrap_or_default();
        &mut self.slots[index]
    }
}

impl Round {
    /// Starts a load; late messages of an earlier one are recognised by their phase.
    pub(super) fn start(&mut self, plan: Plan) {
        self.phase = self.phase.wrapping_add(1);
        self.plan = plan;
        self.started = Instant::now();
        self.last = self.started;
        let slot = Slot { sent: self.started, arrivals: 0 };
        let numbers = 0..u16::try_from(plan.senders).unwrap_or(u16::MAX);
        let address = |client: usize| self.addresses.get(client).map_or("", String::as_str);
        let ends = |number: u16| Ends {
            from: address(number.into()),
            // The responders come after all requesters.
            to: address(usize::from(number) + plan.senders),
        };
        let sender = |number| Sender {
            template: Template::new(plan.shape, number, self.phase, ends(number)),
            next: 0,
            oldest: 0,
            slots: vec![slot; usize::try_from(plan.window).unwrap_or(1)],
            is_done: false,
        };
        self.senders = numbers.map(sender).collect();
        self.answer = Answer::new(plan.shape);
        self.sending = self.senders.len();
        let sequences = match plan.shape.mode {
            Mode::Broadcast | Mode::Topic => plan.copies(self.clients) * plan.senders * plan.topics.count,
            Mode::Echo | Mode::Direct | Mode::Request | Mode::Connect => self.clients,
        };
        self.sequences.clear();
        self.sequences.resize_with(sequences, Sequence::default);
        self.payload = plan.shape.payload();
        (self.received, self.duplicated, self.reordered, self.corrupted) = (0, 0, 0, 0);
        self.latency.reset();
        self.wakers.iter().take(plan.senders).flatten().for_each(Waker::wake_by_ref);
    }

    pub(super) fn is_over(&self) -> bool {
        self.sending == 0
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Appends the answer if this is a request to this client.
    pub(super) fn answer(&mut self, me: usize, body: &[u8], out: &mut Vec<u8>) -> bool {
        let shape = self.plan.shape;
        if !shape.mode.is_asked() || me < self.plan.senders {
            return false;
        }
        let Some(payload) = shape.find(body, &mut self.hint) else { return false };
        let own = self.addresses.get(me).map_or("", String::as_str);
        let is_answered = shape.return_address(body).is_some_and(|to| self.answer.append(to, own, payload, out));
        self.corrupted += u64::from(!is_answered);
        true
    }

    /// Counts a received message; returns false if it does not belong to a load.
    pub(super) fn take(&mut self, me: usize, body: &[u8], now: Instant) -> bool {
        let Some(payload) = self.plan.shape.find(body, &mut self.hint) else { return false };
        let Some(stamp) = Stamp::read(payload) else {
            self.corrupted += 1;
            return true;
        };
        if stamp.phase == self.phase {
            self.deliver(me, payload, stamp, now);
        }
        true
    }

    fn deliver(&mut self, me: usize, payload: &[u8], stamp: Stamp, now: Instant) {
        let (plan, from) = (self.plan, usize::from(stamp.sender));
        let is_returned = plan.is_returned();
        let is_whole = payload.first() == self.payload.first()
            && payload.get(super::message::STAMP..) == self.payload.get(super::message::STAMP..);
        let Some(sender) = self
            .senders
            .get_mut(from)
            .filter(|sender| is_whole && stamp.number < sender.next && (!is_returned || from == me))
        else {
            self.corrupted += 1;
            return;
        };
        let receiver = if plan.copies(self.clients) > 1 { me } else { 0 };
        let sequence = if is_returned {
            me
        } else {
            (receiver * plan.senders + from) * plan.topics.count + topic(stamp.number, plan.topics)
        };
        match self.sequences[sequence].arrived(stamp.number / plan.topics.count as u64) {
            Arrival::InOrder => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Duplicate => {
                self.duplicated += 1;
                return;
            }
        }
        self.received += 1;
        self.last = now;
        let took = u64::try_from(now.duration_since(sender.slot(stamp.number).sent).as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(took);
        self.arrived(me, from, stamp.number);
    }

    /// Counts the server's confirmation that a message of this client was published.
    pub(super) fn acknowledged(&mut self, me: usize, number: u64) {
        // A number older than the window belongs to an earlier load.
        if self.senders.get(me).is_some_and(|sender| (sender.oldest..sender.next).contains(&number)) {
            self.arrived(me, me, number);
        }
    }

    fn arrived(&mut self, me: usize, from: usize, number: u64) {
        let needed = self.plan.copies(self.clients) + usize::from(self.plan.is_acknowledged());
        let Some(sender) = self.senders.get_mut(from) else { return };
        let slot = sender.slot(number);
        slot.arrivals += 1;
        if slot.arrivals == needed {
            while sender.oldest < sender.next && sender.slot(sender.oldest).arrivals == needed {
                sender.oldest += 1;
            }
            // After a message on a topic lane, its own client may be asleep, too.
            if (from != me || self.plan.shape.mode == Mode::Topic)
                && let Some(Some(waker)) = self.wakers.get(from)
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Result of the load so far.
    pub(super) fn outcome(&mut self) -> Outcome {
        let sent = self.senders.iter().map(|sender| sender.next).sum();
        let copies = self.plan.copies(self.clients) as u64;
        Outcome {
            sent,
            expected: sent * copies,
            received: self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
            corrupted: self.corrupted,
            elapsed: self.last.duration_since(self.started),
            latency: self.latency.clone(),
            failures: self.failures.clone(),
        }
    }
}
