//! Rates of what peers may do. Every rate is per second, a burst is what may come at once before the rate applies, and
//! 0 for either is no limit. `limits` enforces them.

use std::net::IpAddr;

use serde::Deserialize;

use super::{KIB, Limits, MIB};

/// Rates of what peers may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Rates {
    /// Whether these limits apply to clients on this machine, too, those with a loopback address. Default false, so
    /// that development and benchmarks on one machine are not limited.
    pub loopback: bool,
    /// Messages from one client; more get `error` 429. Default 1,000; at most 1,000,000.
    pub client_messages: u64,
    /// Burst of `client_messages`. Default 2,000; at most 16,000,000.
    pub client_messages_burst: u64,
    /// Bytes of messages from one client, decompressed; more get `error` 429. The same rate applies, counted
    /// separately, to the pages of `history`, `client_list` and `presence` that it receives, before compression; pages
    /// beyond it wait. Default 8 MiB; at most 1 GiB.
    pub client_bytes: u64,
    /// Burst of `client_bytes`; at least 1 KiB more than `limits.max_message_bytes`. Default 16 MiB; at most 16 GiB.
    pub client_bytes_burst: u64,
    /// Topics that one client creates by subscribing or publishing; more get `error` 429, so that one client cannot use
    /// up `limits.max_topics`. Default 20; at most 1,000,000.
    pub client_topics: u64,
    /// Burst of `client_topics`. Default 1,000; at most 16,000,000.
    pub client_topics_burst: u64,
    /// Outstanding refusals of one client; more close it with 4429. A served request of the same kind forgives two, and
    /// each second one. Default 100; at most 1,000,000; 0 closes at the first.
    pub client_refusals_burst: u64,
    /// Concurrent connections from one address; more get `error` 429 and are closed with 4429. IPv6 counts by /64, an
    /// IPv4-mapped address as IPv4. Default 256; at most 10,000,000; 0 is no limit.
    pub address_connections: u64,
    /// QUIC handshakes from one address; more are refused. Default 50; at most 1,000,000.
    pub address_handshakes: u64,
    /// Burst of `address_handshakes`. Default 200; at most 1,000,000.
    pub address_handshakes_burst: u64,
    /// QUIC handshakes from all addresses; more are refused. Default 2,000; at most 10,000,000.
    pub handshakes: u64,
    /// Burst of `handshakes`. Default 4,000; at most 10,000,000.
    pub handshakes_burst: u64,
    /// Addresses tracked, about 100 bytes each. When half full, new addresses are validated by a Retry; when full, new
    /// connections are refused until some addresses are forgotten. Default 100,000; 16 to 10,000,000.
    pub max_addresses: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            loopback: false,
            client_messages: 1000,
            client_messages_burst: 2000,
            client_bytes: 8 * MIB,
            client_bytes_burst: 16 * MIB,
            client_topics: 20,
            client_topics_burst: 1000,
            client_refusals_burst: 100,
            address_connections: 256,
            address_handshakes: 50,
            address_handshakes_burst: 200,
            handshakes: 2000,
            handshakes_burst: 4000,
            max_addresses: 100_000,
        }
    }
}

impl Rates {
    /// Whether a peer with this address is exempt from all limits.
    pub(crate) fn exempt(&self, address: IpAddr) -> bool {
        !self.loopback && address.to_canonical().is_loopback()
    }

    /// Settings with their values and bounds.
    pub(super) fn bounds(&self, limits: &Limits) -> [(&'static str, u64, u64, u64); 13] {
        const MILLION: u64 = 1_000_000;
        // A message larger than the burst could never be sent.
        let unlimited = self.client_bytes == 0 || self.client_bytes_burst == 0;
        let least_burst = if unlimited { 0 } else { limits.max_message_bytes.saturating_add(KIB) };
        [
            ("rates.client_messages", self.client_messages, 0, MILLION),
            ("rates.client_messages_burst", self.client_messages_burst, 0, 16 * MILLION),
            ("rates.client_bytes", self.client_bytes, 0, 1 << 30),
            ("rates.client_bytes_burst", self.client_bytes_burst, least_burst, 16 << 30),
            ("rates.client_topics", self.client_topics, 0, MILLION),
            ("rates.client_topics_burst", self.client_topics_burst, 0, 16 * MILLION),
            ("rates.client_refusals_burst", self.client_refusals_burst, 0, MILLION),
            ("rates.address_connections", self.address_connections, 0, 10 * MILLION),
            ("rates.address_handshakes", self.address_handshakes, 0, MILLION),
            ("rates.address_handshakes_burst", self.address_handshakes_burst, 0, MILLION),
            ("rates.handshakes", self.handshakes, 0, 10 * MILLION),
            ("rates.handshakes_burst", self.handshakes_burst, 0, 10 * MILLION),
            ("rates.max_addresses", self.max_addresses, 16, 10 * MILLION),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_burst_of_bytes_has_room_for_the_largest_message() {
        let mut config = Config::default();
        config.rates.client_bytes_burst = config.limits.max_message_bytes + 1023;
        let error = config.validate().expect_err("one byte short").to_string();
        assert!(error.contains("rates.client_bytes_burst = 1049599: expected 1049600 to"), "{error}");
        config.rates.client_bytes_burst += 1;
        config.validate().expect("room enough");
        (config.rates.client_bytes_burst, config.rates.client_bytes) = (1, 0);
        config.validate().expect("without a rate there is no limit");
        (config.rates.client_bytes_burst, config.rates.client_bytes) = (0, 1);
        config.validate().expect("without a burst there is none either");
    }

    #[test]
    fn loopback_addresses_are_exempt_by_default() {
        let mut rates = Config::default().rates;
        for (address, is_local) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(rates.exempt(address.parse().expect("an address")), is_local, "{address}");
        }
        rates.loopback = true;
        assert!(!rates.exempt("127.0.0.1".parse().expect("an address")));
    }
}
