//! The snapshot: a server's statistics at one time, as JSON by serde. Measurements of clients are given as percentiles,
//! so that a snapshot of many is no larger than one of few.

use std::net::SocketAddr;

use serde::Serialize;
use uuid::Uuid;

use super::counters::{ByCarrier, Totals};
use super::store::StoreStats;

/// A server's statistics at one time.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Time of the snapshot, in Unix milliseconds.
    pub now: u64,
    /// Time since the server started, in milliseconds.
    pub uptime_ms: u64,
    /// Name sent to clients.
    pub server_name: String,
    /// The server's version.
    pub version: &'static str,
    /// Expiry of the certificate shown to clients, in Unix milliseconds; `None` if it cannot be parsed.
    pub certificate_expires_at: Option<u64>,
    /// Connected clients.
    pub clients: Clients,
    /// Connections, including those without a finished handshake.
    pub connections: u64,
    /// Connections without a finished handshake, including those that have sent only their first packet.
    pub handshakes: u64,
    /// Sums since the start.
    pub totals: Totals,
    /// Queues to clients.
    pub queues: Queues,
    /// Topics.
    pub topics: Topics,
    /// Requests to other clients that are open.
    pub requests: OpenRequests,
    /// The store of durable topics, if there is one.
    pub store: Option<StoreStats>,
    /// Round trip times in milliseconds, as measured by QUIC.
    pub rtt_ms: Percentiles,
    /// Lost packets in percent.
    pub loss_percent: Percentiles,
    /// Some clients: those with the most queued bytes first, then by id.
    pub list: Vec<ClientStats>,
}

/// Connected clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Clients {
    /// By carrier.
    #[serde(flatten)]
    pub by_carrier: ByCarrier,
    /// All together.
    pub total: u64,
}

impl From<ByCarrier> for Clients {
    fn from(by_carrier: ByCarrier) -> Self {
        Self { by_carrier, total: by_carrier.total() }
    }
}

/// Messages queued for clients beyond what QUIC holds, on all lanes, datagrams not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Queues {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes queued for the client with the most.
    pub max_client_bytes: u64,
}

impl Queues {
    /// Adds the queue of another client.
    pub(crate) fn add(&mut self, messages: usize, bytes: usize) {
        self.messages += messages as u64;
        self.bytes += bytes as u64;
        self.max_client_bytes = self.max_client_bytes.max(bytes as u64);
    }
}

/// Requests to other clients that are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenRequests {
    /// Requests that are not yet answered.
    pub open: u64,
    /// Subscriptions that answer requests, and clients that answer those addressed to them.
    pub responders: u64,
}

impl OpenRequests {
    pub(crate) fn new(open: usize, responders: usize) -> Self {
        Self { open: open as u64, responders: responders as u64 }
    }
}

/// Topics.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Topics {
    /// Known topics: with subscribers, with history, or used recently.
    pub count: u64,
    /// Subscriptions, to topics and to patterns.
    pub subscriptions: u64,
    /// Memory of the history and idempotency keys of all topics, in bytes.
    pub memory_bytes: u64,
    /// Topics with the most recent messages, sorted by rate.
    pub top: Vec<TopicStats>,
    /// Durable consumers.
    pub consumers: Consumers,
}

/// Durable consumers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Consumers {
    /// Known consumers, with clients or without.
    pub count: u64,
    /// Messages that are delivered and not yet acknowledged, of all.
    pub in_flight: u64,
    /// Messages that are not yet acknowledged, of the consumer with the most.
    pub max_lag: u64,
    /// Consumers with the most unacknowledged messages.
    pub top: Vec<ConsumerStats>,
}

/// One durable consumer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Its topic.
    pub topic: String,
    /// Its name.
    pub durable: String,
    /// Its clients.
    pub clients: u64,
    /// Messages that are delivered and not yet acknowledged.
    pub in_flight: u64,
    /// Messages that are not yet acknowledged.
    pub lag: u64,
    /// Offset up to which all are acknowledged.
    pub acked: u64,
}

/// Some of the topics, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct TopicPage {
    pub(crate) topics: Vec<ListedTopic>,
    /// How many there are on all pages.
    pub(crate) total: u64,
    /// The last one's name, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ListedTopic {
    #[serde(flatten)]
    pub(crate) stats: TopicStats,
    /// Whether its messages are on the disk.
    pub(crate) durable: bool,
    /// Whether it keeps messages.
    pub(crate) history: bool,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopicStats {
    /// Its name.
    pub topic: String,
    /// Subscriptions that receive its messages: to its name, and to patterns that match it. A client with several is
    /// counted for each.
    pub subscribers: u64,
    /// Subscriptions to patterns among them.
    pub pattern_subscribers: u64,
    /// Messages since the topic was created, or created again after it was forgotten.
    pub published: u64,
    /// Offset of the newest message.
    pub offset: u64,
    /// Recent messages per second: a message ten seconds ago counts for a third.
    pub per_second: f64,
}

/// The distribution of a measurement over clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of the clients have at most this; 0 without clients.
    pub p50: f64,
    /// 90 % have at most this.
    pub p90: f64,
    /// 99 % have at most this.
    pub p99: f64,
    /// The largest value.
    pub max: f64,
    /// Number of clients measured: those on QUIC, or about a thousand of very many.
    pub clients: u64,
}

impl Percentiles {
    /// The percentiles of some numbers.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        // The smallest number that at least this percentage does not exceed (nearest rank).
        let percentile = |percent: usize| {
            let rank = (numbers.len() * percent).div_ceil(100);
            numbers.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let (p50, p90, p99, max) = (percentile(50), percentile(90), percentile(99), percentile(100));
        Self { p50, p90, p99, max, clients: numbers.len() as u64 }
    }

    /// Each percentile with its name.
    pub(super) fn percentiles(&self) -> [(&'static str, f64); 4] {
        [("50", self.p50), ("90", self.p90), ("99", self.p99), ("100", self.max)]
    }
}

/// One client.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClientStats {
    /// Its id.
    pub id: Uuid,
    /// The name that others see.
    pub name: Option<String>,
    /// Its authenticated user.
    pub user: Option<String>,
    /// Its carrier.
    pub transport: String,
    /// Start of the connection, in Unix milliseconds.
    pub connected_at: u64,
    /// Its present address.
    pub address: SocketAddr,
    /// Round trip time in milliseconds; `None` if its carrier is not QUIC.
    pub rtt_ms: Option<f64>,
    /// Lost packets in percent; likewise.
    pub loss_percent: Option<f64>,
    /// Messages queued for it.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Its subscriptions.
    pub subscriptions: u64,
}

/// A number rounded to three decimal places.
pub(crate) fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_numbers() {
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
        let one = Percentiles { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0, clients: 1 };
        assert_eq!(Percentiles::of(vec![7.0]), one);
        let hundred = Percentiles { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0, clients: 100 };
        assert_eq!(Percentiles::of((1..=100).rev().map(f64::from).collect()), hundred);
        let two = Percentiles { p50: 1.0, p90: 2.0, p99: 2.0, max: 2.0, clients: 2 };
        assert_eq!(Percentiles::of(vec![2.0, 1.0]), two);
    }

    #[test]
    fn queues_are_summed_and_the_largest_is_kept() {
        let mut queues = Queues::default();
        for (messages, bytes) in [(1, 10), (0, 0), (3, 25), (2, 5)] {
            queues.add(messages, bytes);
        }
        assert_eq!(queues, Queues { messages: 6, bytes: 40, max_client_bytes: 25 });
    }
}
