//! The snapshot: everything that a server tells of itself at one time, as JSON by serde. What is measured in clients is
//! told by percentiles, so that a snapshot of many is no larger than one of few.

use std::net::SocketAddr;

use serde::Serialize;
use uuid::Uuid;

use super::counters::{ByCarrier, Totals};

/// What a server tells of itself.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// When, in Unix milliseconds.
    pub now: u64,
    /// Since when the server counts, in milliseconds.
    pub uptime_ms: u64,
    /// The name that clients are told.
    pub server_name: String,
    /// The server's version.
    pub version: &'static str,
    /// When the certificate that clients are shown expires, in Unix milliseconds; `None` where it does not say.
    pub certificate_expires_at: Option<u64>,
    /// Clients that are connected.
    pub clients: Clients,
    /// Connections, those without a handshake among them.
    pub connections: u64,
    /// Connections that are still to shake hands, those whose first packet is all that has come among them.
    pub handshakes: u64,
    /// What was counted since the start.
    pub totals: Totals,
    /// What waits for clients.
    pub queues: Queues,
    /// Topics.
    pub topics: Topics,
    /// Milliseconds of a packet to a client and back, as QUIC has measured them.
    pub rtt_ms: Percentiles,
    /// Of 100 packets to a client, those that were lost.
    pub loss_percent: Percentiles,
    /// Single clients: those with the most bytes waiting first, then by id.
    pub list: Vec<ClientStats>,
}

/// Clients that are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Clients {
    /// By their carriers.
    #[serde(flatten)]
    pub by_carrier: ByCarrier,
    /// All.
    pub total: u64,
}

impl From<ByCarrier> for Clients {
    fn from(by_carrier: ByCarrier) -> Self {
        Self { by_carrier, total: by_carrier.total() }
    }
}

/// What waits for clients beyond what QUIC has taken, on all lanes. Datagrams that wait are not among it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Queues {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that wait for the client for which the most do.
    pub max_client_bytes: u64,
}

impl Queues {
    /// Adds what waits for another client.
    pub(crate) fn add(&mut self, messages: usize, bytes: usize) {
        self.messages += messages as u64;
        self.bytes += bytes as u64;
        self.max_client_bytes = self.max_client_bytes.max(bytes as u64);
    }
}

/// Topics.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Topics {
    /// Those that are known: with subscribers, with history, or used a short time ago.
    pub count: u64,
    /// Subscriptions, to topics and to patterns.
    pub subscriptions: u64,
    /// Memory that the history and the idempotency keys of all topics take, in bytes.
    pub memory_bytes: u64,
    /// Those with the most messages of late, first.
    pub top: Vec<TopicStats>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopicStats {
    /// Its name.
    pub topic: String,
    /// Subscriptions that it reaches: those by its name, and those to patterns that match it. A client with several is
    /// counted for each.
    pub subscribers: u64,
    /// Those of them to patterns.
    pub pattern_subscribers: u64,
    /// Messages since it came to be, or came back after it was forgotten.
    pub published: u64,
    /// The newest message's offset.
    pub offset: u64,
    /// Recent messages a second: what is ten seconds old counts for a third.
    pub per_second: f64,
}

/// How something that is measured in each client is spread over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of the clients have no more than this; 0 where there is no client.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
    /// All that were looked at.
    pub max: f64,
    /// How many clients that is: those on QUIC, and of very many about a thousand.
    pub clients: u64,
}

impl Percentiles {
    /// That of some numbers.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        // The least that no fewer than so many of a hundred do not exceed (nearest rank).
        let percentile = |percent: usize| {
            let rank = (numbers.len() * percent).div_ceil(100);
            numbers.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let (p50, p90, p99, max) = (percentile(50), percentile(90), percentile(99), percentile(100));
        Self { p50, p90, p99, max, clients: numbers.len() as u64 }
    }

    /// Each percentile with its number of a hundred.
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
    /// Who it has proved to be.
    pub user: Option<String>,
    /// Its carrier.
    pub transport: String,
    /// Since when, in Unix milliseconds.
    pub connected_at: u64,
    /// Where it is now.
    pub address: SocketAddr,
    /// Milliseconds of a packet to it and back; `None` where its carrier is not QUIC.
    pub rtt_ms: Option<f64>,
    /// Of 100 packets to it, those that were lost; likewise.
    pub loss_percent: Option<f64>,
    /// Messages that wait for it.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Its subscriptions.
    pub subscriptions: u64,
}

/// A number to three places, which is all that anybody reads.
pub(crate) fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numbers_that_were_measured() {
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
        let one = Percentiles { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0, clients: 1 };
        assert_eq!(Percentiles::of(vec![7.0]), one);
        let hundred = Percentiles { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0, clients: 100 };
        assert_eq!(Percentiles::of((1..=100).rev().map(f64::from).collect()), hundred);
        let two = Percentiles { p50: 1.0, p90: 2.0, p99: 2.0, max: 2.0, clients: 2 };
        assert_eq!(Percentiles::of(vec![2.0, 1.0]), two);
    }

    #[test]
    fn queues_are_summed_and_the_fullest_is_told() {
        let mut queues = Queues::default();
        for (messages, bytes) in [(1, 10), (0, 0), (3, 25), (2, 5)] {
            queues.add(messages, bytes);
        }
        assert_eq!(queues, Queues { messages: 6, bytes: 40, max_client_bytes: 25 });
    }
}
