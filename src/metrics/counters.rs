//! The counters of one worker, and their sums. A worker counts in memory that no other writes to, so counting is one
//! addition in its own cache line; a message to many is counted once for all receivers.

use std::sync::atomic::{AtomicU64, Ordering};

use quic_websocket_lane::{Sent, TrafficCounters};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::message::{CloseCode, ErrorCode};

/// The carriers by their names on the wire.
pub const CARRIERS: [&str; 3] = ["quic", "webtransport", "websocket"];

/// The codes of requests to other clients that failed.
const FAILURES: [ErrorCode; 6] = [
    ErrorCode::NotFound,
    ErrorCode::RateLimited,
    ErrorCode::Cancelled,
    ErrorCode::ResponderLeft,
    ErrorCode::Unavailable,
    ErrorCode::NoReply,
];

/// A number that only grows. Its accesses order nothing else.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker. Aligned so that neither its cache lines nor the ones prefetched with them are shared
/// with another's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    messages_in: Counter,
    bytes_in: Counter,
    messages_out: Counter,
    bytes_out: Counter,
    /// Messages accepted by their topic.
    pub(crate) published: Counter,
    /// Messages from clients to all clients.
    pub(crate) broadcasts: Counter,
    fanned_out: Counter,
    /// Messages dropped at a receiver that reads too slowly.
    pub(crate) dropped: Counter,
    /// Messages that a subscription's `filter` or `echo: false` left out.
    pub(crate) filtered: Counter,
    /// Messages that a newer one replaced, by a subscription's `max_rate`.
    pub(crate) conflated: Counter,
    /// Requests above a rate, and connections above the limit of an address.
    pub(crate) refused: Counter,
    /// Messages that durable consumers delivered again.
    pub(crate) redelivered: Counter,
    /// Messages that durable consumers gave up, or that were rejected.
    pub(crate) dead: Counter,
    /// Messages that durable consumers had not processed when the topic no longer kept them.
    pub(crate) lost: Counter,
    /// Requests to other clients that were passed on.
    pub(crate) requests: Counter,
    /// Replies to such requests that were passed on.
    pub(crate) replies: Counter,
    failures: [Counter; FAILURES.len()],
    accepted: [Counter; CARRIERS.len()],
    closed: [Counter; CloseCode::NAMED.len() + 1],
}

impl Counters {
    /// Counts a received body.
    pub(crate) fn received(&self, bytes: usize) {
        self.messages_in.add(1);
        self.bytes_in.add(bytes);
    }

    /// Counts messages sent to one client.
    pub(crate) fn sent(&self, sent: Sent) {
        self.messages_out.add(sent.messages);
        self.bytes_out.add(sent.bytes);
    }

    /// Counts messages sent to many clients, for all of them at once.
    pub(crate) fn fanned_out(&self, sent: Sent) {
        self.fanned_out.add(sent.messages);
        self.sent(sent);
    }

    /// Counts an accepted client.
    pub(crate) fn accepted(&self, carrier: &str) {
        if let Some(at) = CARRIERS.iter().position(|&name| name == carrier) {
            self.accepted[at].add(1);
        }
    }

    /// Counts a closed connection by its code.
    pub(crate) fn closed(&self, code: u64) {
        let at = CloseCode::NAMED.iter().position(|named| u64::from(named.0) == code);
        self.closed[at.unwrap_or(CloseCode::NAMED.len())].add(1);
    }

    /// Counts a request to another client that failed with this code.
    pub(crate) fn request_failed(&self, code: u16) {
        if let Some(at) = FAILURES.iter().position(|known| known.number() == code) {
            self.failures[at].add(1);
        }
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.messages_in += self.messages_in.get();
        totals.bytes_in += self.bytes_in.get();
        totals.messages_out += self.messages_out.get();
        totals.bytes_out += self.bytes_out.get();
        totals.published += self.published.get();
        totals.broadcasts += self.broadcasts.get();
        totals.fanned_out += self.fanned_out.get();
        totals.dropped += self.dropped.get();
        totals.filtered += self.filtered.get();
        totals.conflated += self.conflated.get();
        totals.refused += self.refused.get();
        totals.consumer_redelivered += self.redelivered.get();
        totals.consumer_dead += self.dead.get();
        totals.consumer_lost += self.lost.get();
        totals.requests += self.requests.get();
        totals.request_replies += self.replies.get();
        for (total, counter) in totals.request_failures.0.iter_mut().zip(&self.failures) {
            *total += counter.get();
        }
        for (total, counter) in totals.accepted.0.iter_mut().zip(&self.accepted) {
            *total += counter.get();
        }
        for (total, counter) in totals.closed.0.iter_mut().zip(&self.closed) {
            *total += counter.get();
        }
    }
}

impl TrafficCounters for Counters {
    fn received(&self, bytes: usize) {
        Self::received(self, bytes);
    }

    fn sent(&self, sent: Sent) {
        Self::sent(self, sent);
    }

    fn dropped(&self, messages: usize) {
        self.dropped.add(messages);
    }
}

/// The sums of all counters since the server's start. None of them decreases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Messages from clients, including unreadable ones.
    pub messages_in: u64,
    /// Bytes of their bodies, as received.
    pub bytes_in: u64,
    /// Messages accepted for sending to clients, including those dropped later.
    pub messages_out: u64,
    /// Bytes of their bodies, as sent.
    pub bytes_out: u64,
    /// Messages accepted by their topic.
    pub published: u64,
    /// Messages from clients to all clients (`broadcast`).
    pub broadcasts: u64,
    /// Messages to all clients and to subscribers, one per receiver. Divided by the sum of `published` and
    /// `broadcasts`, the average number of receivers.
    pub fanned_out: u64,
    /// Messages, datagrams included, dropped for newer ones at a receiver that reads too slowly.
    pub dropped: u64,
    /// Messages that subscriptions left out by `filter` or `echo: false`, one per receiver.
    pub filtered: u64,
    /// Messages that newer ones replaced for subscriptions with a `max_rate`, one per receiver.
    pub conflated: u64,
    /// Requests above a rate, and connections above the limit of an address (429).
    pub refused: u64,
    /// Messages that durable consumers delivered again.
    pub consumer_redelivered: u64,
    /// Messages that durable consumers gave up after their last try, or that were rejected.
    pub consumer_dead: u64,
    /// Messages that durable consumers had not processed when the topic no longer kept them.
    pub consumer_lost: u64,
    /// Requests to other clients that were passed on.
    pub requests: u64,
    /// Replies to such requests that were passed on.
    pub request_replies: u64,
    /// Such requests that failed, by the code of their error.
    pub request_failures: Failures,
    /// Accepted clients.
    pub accepted: ByCarrier,
    /// Closed connections, including those of clients that were not accepted.
    pub closed: Closed,
}

/// A number for each carrier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByCarrier([u64; CARRIERS.len()]);

impl ByCarrier {
    /// The number of one carrier; `None` if there is no such carrier.
    pub fn of(&self, carrier: &str) -> Option<u64> {
        self.iter().find(|&(name, _)| name == carrier).map(|(_, count)| count)
    }

    /// Each carrier with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CARRIERS.into_iter().zip(self.0)
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, carrier: &str) {
        if let Some(at) = CARRIERS.iter().position(|&name| name == carrier) {
            self.0[at] += 1;
        }
    }
}

impl Serialize for ByCarrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// A number for each error code of a request to another client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures([u64; FAILURES.len()]);

impl Failures {
    /// Each code with its number.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        FAILURES.iter().map(|code| code.number().to_string()).zip(self.0)
    }
}

impl Serialize for Failures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// A number for each close code that has a name, and one for all others, which peers can choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closed([u64; CloseCode::NAMED.len() + 1]);

impl Closed {
    /// The key for close codes without a name.
    pub const OTHER: &'static str = "other";

    /// The number of one code; of all others together if it has no name.
    pub fn with(&self, code: CloseCode) -> u64 {
        let at = CloseCode::NAMED.iter().position(|&named| named == code);
        self.0[at.unwrap_or(CloseCode::NAMED.len())]
    }

    /// Each code with its number, and [`OTHER`](Self::OTHER).
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        let names = CloseCode::NAMED.iter().map(CloseCode::to_string).chain([Self::OTHER.to_owned()]);
        names.zip(self.0)
    }
}

impl Serialize for Closed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (code, count) in self.iter() {
            map.serialize_entry(&code, &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn workers_counts_are_summed_and_share_no_cache_line() {
        let metrics = Metrics::new(3);
        for (set, count) in [(metrics.of(0), 1), (metrics.of(1), 10), (metrics.of(2), 100)] {
            set.published.add(count);
            set.fanned_out(Sent { messages: 2 * count, bytes: 20 * count });
            set.sent(Sent { messages: count, bytes: count });
            set.received(count);
            assert!(std::ptr::from_ref(&**set).addr().is_multiple_of(128));
        }
        let totals = metrics.totals();
        assert_eq!((totals.published, totals.fanned_out), (111, 222));
        assert_eq!((totals.messages_out, totals.bytes_out), (333, 21 * 111));
        assert_eq!((totals.messages_in, totals.bytes_in), (3, 111));
    }

    #[test]
    fn codes_chosen_by_peers_are_counted_together() {
        let counters = Counters::default();
        for code in [1000, 4413, 4413, 0, 4999, u64::MAX] {
            counters.closed(code);
        }
        let mut totals = Totals::default();
        counters.add_to(&mut totals);
        let json = serde_json::to_value(&totals).expect("it is JSON");
        assert_eq!((&json["closed"]["1000"], &json["closed"]["4413"]), (&1.into(), &2.into()));
        assert_eq!((&json["closed"]["other"], &json["closed"]["4401"]), (&3.into(), &0.into()));
        assert_eq!((totals.closed.with(CloseCode::SLOW_CONSUMER), totals.closed.with(CloseCode(4999))), (2, 3));
    }

    #[test]
    fn every_carrier_has_its_number() {
        let (counters, mut totals, mut clients) = (Counters::default(), Totals::default(), ByCarrier::default());
        for (times, carrier) in CARRIERS.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.accepted(carrier));
            (0..=times).for_each(|_| clients.count(carrier));
        }
        counters.accepted("pigeon");
        counters.add_to(&mut totals);
        assert_eq!(totals.accepted, clients);
        assert_eq!((totals.accepted.total(), totals.accepted.of("websocket")), (6, Some(3)));
        let json = serde_json::to_string(&totals.accepted).expect("it is JSON");
        assert_eq!(json, r#"{"quic":1,"webtransport":2,"websocket":3}"#);
    }
}
