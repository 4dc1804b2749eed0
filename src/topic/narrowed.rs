//! The subscriptions of one worker that get less than all messages: which of the messages that travel together each of
//! them gets, and what `max_rate` holds back. Owned by the worker's own task, as are the [`Routes`](super::routes); a
//! subscription to everything has no entry here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::hub::BATCH;
use super::routes::{Receiver, Slot};
use super::topic::Topic;
use crate::envelope::EncodedMessage;
use crate::log::Record;
use crate::message::now_ms;
use crate::metrics::Counters;
use crate::narrow::{Conflation, FilterId, Filters, Message, Narrowing, Offered, Selection, Traits};
use crate::outbound::EncodedRun;

/// Parts of a run that are remembered for other receivers of the same messages. Each has a copy of them.
const REMEMBERED_PARTS: usize = 16;

const _: () = assert!(BATCH <= Selection::MOST, "a selection has a bit for each message of a batch");

/// All such subscriptions of one worker's clients.
#[derive(Debug)]
pub(super) struct Narrowed {
    /// By the number of their slot.
    subscriptions: HashMap<u64, Entry>,
    filters: Filters,
    /// What the subscriptions with a `max_rate` hold back, by client.
    held: HashMap<Uuid, Held>,
    /// When something that a client's subscriptions hold back is due. One of a client's is its own; others are out of
    /// date.
    due: BinaryHeap<Reverse<(u64, Uuid)>>,
    /// Most bytes that are held back for one client.
    most_held: usize,
    began: Instant,
}

#[derive(Debug)]
struct Entry {
    slot: Slot,
    client: Uuid,
    filter: Option<FilterId>,
    has_rate: bool,
}

#[derive(Debug)]
struct Held {
    messages: Conflation<HeldMessage>,
    /// Its time among those that are due.
    due: Option<u64>,
}

/// A message that is held back.
#[derive(Debug)]
pub(super) struct HeldMessage {
    pub(super) topic: Arc<Topic>,
    pub(super) offset: u64,
    pub(super) encoded: Arc<EncodedMessage>,
}

impl HeldMessage {
    /// Whether its publisher's `ttl_ms` is over, at a time in Unix milliseconds.
    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.encoded.expires_at().is_some_and(|expires_at| expires_at <= now_ms)
    }

    /// The message alone, to be delivered.
    pub(super) fn run(&self) -> EncodedRun {
        let (encoded, topic) = (Arc::clone(&self.encoded), Arc::clone(&self.topic));
        EncodedRun::of_topic(vec![encoded], topic, vec![self.offset])
    }
}

/// The messages of one topic that travel together, and the parts of them that some receivers get.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    topic: &'a Arc<Topic>,
    run: &'a EncodedRun,
    /// Without `meta` until the first receiver with a filter.
    traits: Vec<Traits>,
    has_meta: bool,
    parts: HashMap<Selection, EncodedRun>,
    filtered: usize,
    conflated: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(topic: &'a Arc<Topic>, run: &'a EncodedRun) -> Self {
        Self { topic, run, traits: Vec::new(), has_meta: false, parts: HashMap::new(), filtered: 0, conflated: 0 }
    }

    fn traits(&mut self, for_filters: bool) -> &[Traits] {
        if self.traits.is_empty() || (for_filters && !self.has_meta) {
            self.traits = self.run.envelopes().iter().map(|it| traits(it, for_filters)).collect();
            self.has_meta = for_filters;
        }
        &self.traits
    }

    pub(super) fn topic(&self) -> &'a Arc<Topic> {
        self.topic
    }

    /// Counts the messages that receivers did not get.
    pub(super) fn count(&self, counters: &Counters) {
        if self.filtered > 0 || self.conflated > 0 {
            counters.filtered.add(self.filtered);
            counters.conflated.add(self.conflated);
        }
    }

    /// The chosen messages; `None` if there are none.
    fn part(&mut self, chosen: Selection) -> Option<&EncodedRun> {
        if chosen.is_empty() {
            return None;
        }
        if chosen == Selection::all(self.run.len()) {
            return Some(self.run);
        }
        if self.parts.len() >= REMEMBERED_PARTS && !self.parts.contains_key(&chosen) {
            self.parts.clear();
        }
        Some(self.parts.entry(chosen).or_insert_with(|| self.run.part(|at| chosen.has(at))))
    }
}

impl Narrowed {
    /// No subscriptions yet, for which at most so many bytes are held back for each client.
    pub(super) fn new(most_held: usize) -> Self {
        Self {
            subscriptions: HashMap::new(),
            filters: Filters::default(),
            held: HashMap::new(),
            due: BinaryHeap::new(),
            most_held,
            began: Instant::now(),
        }
    }

    /// Adds a subscription.
    pub(super) fn add(&mut self, slot: Slot, client: Uuid, narrowing: &Narrowing) {
        let filter = narrowing.filter.as_ref().map(|filter| self.filters.add(filter));
        if let Some(interval_us) = narrowing.interval_us {
            let most_held = self.most_held;
            let new = || Held { messages: Conflation::new(most_held), due: None };
            self.held.entry(client).or_insert_with(new).messages.add(slot.number(), interval_us);
        }
        let has_rate = narrowing.interval_us.is_some();
        self.subscriptions.insert(slot.number(), Entry { slot, client, filter, has_rate });
    }

    /// Removes a subscription; gives what is held back for it.
    pub(super) fn remove(&mut self, slot: Slot) -> Vec<HeldMessage> {
        let (number, mut rest) = (slot.number(), Vec::new());
        let Some(Entry { client, filter, has_rate, .. }) = self.subscriptions.remove(&number) else { return rest };
        if let Some(filter) = filter {
            self.filters.remove(filter);
        }
        if has_rate && let Some(held) = self.held.get_mut(&client) {
            rest = held.messages.remove(number);
            if held.messages.is_empty() {
                self.held.remove(&client);
            }
        }
        if self.held.is_empty() {
            self.due = BinaryHeap::new();
        }
        rest
    }

    /// Takes what a client's subscriptions hold back of a topic, oldest first.
    pub(super) fn take(&mut self, client: Uuid, topic: u64) -> Vec<(Slot, HeldMessage)> {
        let Some(held) = self.held.get_mut(&client) else { return Vec::new() };
        let taken = held.messages.take(topic).into_iter();
        let mut taken: Vec<_> =
            taken.filter_map(|(number, held)| Some((self.subscriptions.get(&number)?.slot, held))).collect();
        taken.sort_unstable_by_key(|(_, held)| held.offset);
        taken
    }

    /// Begins the interval behind a message that was replayed to a subscription. Behind it, call
    /// [`next_over`](Self::next_over).
    pub(super) fn begin(&mut self, slot: Slot, client: Uuid, topic: u64) {
        let now = self.now();
        if let Some(held) = self.held.get_mut(&client) {
            held.messages.begin(slot.number(), topic, now);
            arm(held, client, &mut self.due);
        }
    }

    /// Goes on to other messages.
    pub(super) fn next_run(&mut self) {
        self.filters.next_run();
    }

    /// The messages that a subscription gets of some that travel together; `None` if it gets none of them now. Behind
    /// it, for one with a `max_rate`, call [`next_over`](Self::next_over).
    pub(super) fn choose<'p>(
        &mut self,
        slot: Slot,
        receiver: &Receiver,
        narrowing: &Narrowing,
        parts: &'p mut Parts<'_>,
    ) -> Option<&'p EncodedRun> {
        let (client, count) = (receiver.client.id, parts.run.len());
        let mut chosen = Selection::all(count);
        if narrowing.is_selective() {
            let traits = parts.traits(narrowing.filter.is_some());
            if !narrowing.own.is_empty() {
                chosen = chosen.and(Selection::of(count, |at| !narrowing.is_own(&traits[at])));
            }
            if let Some(filter) = self.subscriptions.get(&slot.number()).and_then(|entry| entry.filter) {
                chosen = chosen.and(self.filters.passed(filter, traits));
            }
            parts.filtered += count - chosen.len();
        }
        if narrowing.interval_us.is_none() {
            return parts.part(chosen);
        }
        // Of messages that come at once, only the newest matters.
        let last = chosen.last()?;
        let offered = self.offer(slot.number(), client, parts, last);
        parts.conflated += chosen.len() - 1 + usize::from(offered.replaced);
        offered.now.and_then(|()| parts.part(Selection::of(count, |at| at == last)))
    }

    fn offer(&mut self, number: u64, client: Uuid, parts: &Parts<'_>, at: usize) -> Offered<()> {
        let now = self.now();
        let Some(held) = self.held.get_mut(&client) else { return Offered { now: Some(()), replaced: false } };
        let (encoded, offset) = parts.run.message(at);
        let message = HeldMessage { topic: Arc::clone(parts.topic), offset, encoded: Arc::clone(encoded) };
        let lasts_us = |expires_at: u64| expires_at.saturating_sub(now_ms()).saturating_mul(1000);
        let until = encoded.expires_at().map_or(u64::MAX, |expires_at| now.saturating_add(lasts_us(expires_at)));
        let message = Message { message, bytes: encoded.cost(), until };
        let offered = held.messages.offer(number, parts.topic.id, message, now);
        arm(held, client, &mut self.due);
        Offered { now: offered.now.map(drop), replaced: offered.replaced }
    }

    /// The time at which something that is held back goes on.
    pub(super) fn next(&self) -> Option<Instant> {
        let Reverse((due, _)) = self.due.peek()?;
        Some(self.began + Duration::from_micros(*due))
    }

    /// The next message of those that are due now, and its subscription.
    pub(super) fn next_due(&mut self) -> Option<(Slot, HeldMessage)> {
        if self.due.is_empty() {
            return None;
        }
        let now = self.now();
        loop {
            let client = self.due.peek().filter(|Reverse((due, _))| *due <= now).map(|Reverse((_, client))| *client)?;
            let Some(held) = self.held.get_mut(&client).filter(|held| held.due.is_some_and(|due| due <= now)) else {
                self.due.pop();
                continue;
            };
            if let Some((number, message)) = held.messages.next_due(now) {
                return Some((self.subscriptions.get(&number)?.slot, message));
            }
            self.due.pop();
            held.due = None;
            arm(held, client, &mut self.due);
        }
    }

    /// The next message of those that cannot be held back any longer, because so many are for this client, and its
    /// subscription.
    pub(super) fn next_over(&mut self, client: Uuid) -> Option<(Slot, HeldMessage)> {
        let now = self.now();
        let (number, message) = self.held.get_mut(&client)?.messages.next_over(now)?;
        Some((self.subscriptions.get(&number)?.slot, message))
    }

    /// Microseconds, by a clock that never goes back.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Puts a client among those for which something is due, unless it is there for an earlier time.
fn arm(held: &mut Held, client: Uuid, due: &mut BinaryHeap<Reverse<(u64, Uuid)>>) {
    if let Some(next) = held.messages.next()
        && held.due.is_none_or(|at| next < at)
    {
        held.due = Some(next);
        due.push(Reverse((next, client)));
    }
}

/// The part of a message that decides which subscriptions get it.
fn traits(encoded: &EncodedMessage, for_filters: bool) -> Traits {
    encoded.body().map(|body| Traits::of(&body.json, for_filters)).unwrap_or_default()
}

/// Whether such a subscription gets a message that is replayed.
pub(super) fn is_wanted(narrowing: &Narrowing, record: &Record) -> bool {
    !narrowing.is_selective() || narrowing.wants(&traits(&record.encoded, narrowing.filter.is_some()))
}
