//! Limits of one address and of all together: handshakes begun and connections held. Peers can make the table of
//! addresses grow, so it is bounded, and addresses that are not validated get only half of it. Shared by all workers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, RateLimiter};
use parking_lot::{Mutex, MutexGuard};

use super::auth_failures::{AuthFailures, TokenCheck};
use super::bucket::quota;
use crate::config::Rates;

/// Minimum time between two sweeps of the table, which visit every address.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The table of addresses, shared by all workers.
#[derive(Debug)]
pub(crate) struct Addresses {
    rates: Rates,
    /// Handshakes of all addresses.
    all: Option<DefaultDirectRateLimiter>,
    /// Handshakes by address. An address whose burst is full again can be forgotten.
    each: Option<DefaultKeyedRateLimiter<Network>>,
    swept: Mutex<Instant>,
    /// Clients' connections.
    connections: Arc<Counted>,
    /// TCP connections that are not clients'.
    http: Arc<Counted>,
    auth_failures: AuthFailures,
}

/// Decision about a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may begin.
    Granted,
    /// It may begin after a Retry has validated the address (RFC 9000 section 8.1.2).
    Unproven,
    /// It is refused, for this reason.
    Refused(&'static str),
}

/// What counts as one address: the owner of one IPv6 address has at least its whole /64 (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Network {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6([u16; 4]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl Addresses {
    /// An empty table.
    pub(crate) fn new(rates: &Rates) -> Arc<Self> {
        let all = quota(rates.handshakes, rates.handshakes_burst).map(RateLimiter::direct);
        let each = quota(rates.address_handshakes, rates.address_handshakes_burst).map(RateLimiter::dashmap);
        let (swept, connections, http) = (Mutex::new(Instant::now()), Arc::default(), Arc::default());
        Arc::new(Self {
            rates: rates.clone(),
            all,
            each,
            swept,
            connections,
            http,
            auth_failures: AuthFailures::default(),
        })
    }

    /// Records an attempt with the admin token, of which the caller knows whether it is right. No address is exempt,
    /// because proxies on this machine forward for others.
    pub(crate) fn show_token(&self, from: IpAddr, is_right: bool) -> TokenCheck {
        self.auth_failures.show(from.into(), is_right, Instant::now())
    }

    /// Whether an address may begin a handshake; counts it if so. The address's own limit is checked first, so that an
    /// address above it uses up nothing of the common limit.
    pub(crate) fn admit(&self, from: IpAddr, is_proven: bool) -> Admission {
        if self.rates.exempt(from) {
            return Admission::Granted;
        }
        if let Some(each) = &self.each {
            let most = usize::try_from(self.rates.max_addresses).unwrap_or(usize::MAX);
            if each.len() >= most / 2 {
                self.sweep(each);
                match each.len() {
                    known if known >= most => return Admission::Refused("the table of addresses is full"),
                    known if known >= most / 2 && !is_proven => return Admission::Unproven,
                    _ => {}
                }
            }
            if each.check_key(&from.into()).is_err() {
                return Admission::Refused("too many handshakes from this address");
            }
        }
        match self.all.as_ref().map(RateLimiter::check) {
            Some(Err(_)) => Admission::Refused("too many handshakes from all addresses"),
            Some(Ok(())) | None => Admission::Granted,
        }
    }

    /// Forgets addresses whose burst is full again, unless that was done a moment ago.
    fn sweep(&self, each: &DefaultKeyedRateLimiter<Network>) {
        {
            let mut swept = self.swept.lock();
            if swept.elapsed() < SWEEP_PAUSE {
                return;
            }
            *swept = Instant::now();
        }
        each.retain_recent();
    }

    /// Counts a client's connection until the result is dropped; `None` if its address is at its limit.
    pub(crate) fn connect(&self, from: IpAddr) -> Option<Place> {
        self.count(&self.connections, from, self.rates.address_connections)
    }

    /// As [`connect`](Self::connect), for a TCP connection that is not a client's, or not yet: a quarter of the limit.
    pub(crate) fn connect_http(&self, from: IpAddr) -> Option<Place> {
        self.count(&self.http, from, self.rates.address_connections.div_ceil(4))
    }

    fn count(&self, connections: &Arc<Counted>, from: IpAddr, most: u64) -> Option<Place> {
        if most == 0 || self.rates.exempt(from) {
            return Some(Place { counted: None });
        }
        let network = from.into();
        let mut counts = connections.lock();
        let count = counts.entry(network).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { counted: Some((Arc::clone(connections), network)) })
    }
}

/// Connections by address; no entry is zero.
#[derive(Debug, Default)]
struct Counted(Mutex<HashMap<Network, u64>>);

impl Counted {
    fn lock(&self) -> MutexGuard<'_, HashMap<Network, u64>> {
        self.0.lock()
    }
}

/// A counted connection.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None` if the connection is not counted.
    counted: Option<(Arc<Counted>, Network)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((connections, network)) = self.counted.take() else { return };
        if let Entry::Occupied(mut count) = connections.lock().entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn addresses(change: impl FnOnce(&mut Rates)) -> Arc<Addresses> {
        let mut rates = Config::default().rates;
        change(&mut rates);
        Addresses::new(&rates)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn stranger(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    #[test]
    fn ipv6_counts_by_64_and_ipv4_by_address_however_it_is_written() {
        for (one, other, is_same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("192.0.2.1", "192.0.2.2", false),
            // Not a mapped address, but one in the same /64.
            ("::192.0.2.1", "::192.0.2.2", true),
        ] {
            assert_eq!(Network::from(ip(one)) == Network::from(ip(other)), is_same, "{one} and {other}");
        }
    }

    #[test]
    fn an_address_uses_its_own_burst_of_handshakes_only() {
        let addresses = addresses(|rates| {
            (rates.address_handshakes, rates.address_handshakes_burst) = (1, 3);
            (rates.handshakes, rates.handshakes_burst) = (1, 5);
        });
        let granted = |from| (0..10).filter(|_| addresses.admit(from, false) == Admission::Granted).count();
        assert_eq!(granted(stranger(1)), 3);
        assert_eq!(granted(stranger(2)), 2, "of five for all, the first took three, and its refusals none");
        assert_eq!(granted(ip("127.0.0.1")), 10, "this machine is exempt");
    }

    #[test]
    fn a_half_full_table_requires_validated_addresses_and_a_full_one_refuses_all() {
        let addresses = addresses(|rates| {
            rates.max_addresses = 16;
            (rates.address_handshakes, rates.address_handshakes_burst) = (1, 2);
        });
        for n in 0..8 {
            assert_eq!(addresses.admit(stranger(n), false), Admission::Granted, "address {n}");
        }
        for n in 8..16 {
            assert_eq!(addresses.admit(stranger(n), false), Admission::Unproven, "address {n}");
            assert_eq!(addresses.admit(stranger(n), true), Admission::Granted, "address {n}");
        }
        assert!(matches!(addresses.admit(stranger(16), true), Admission::Refused(_)));
        assert_eq!(addresses.each.as_ref().map(RateLimiter::len), Some(16));
    }

    #[test]
    fn a_full_table_forgets_addresses_with_a_full_burst() {
        let addresses = addresses(|rates| {
            rates.max_addresses = 16;
            // A burst is full again after a microsecond.
            (rates.address_handshakes, rates.address_handshakes_burst) = (1_000_000, 1_000_000);
        });
        for n in 0..16 {
            assert_eq!(addresses.admit(stranger(n), true), Admission::Granted);
        }
        assert!(matches!(addresses.admit(stranger(16), true), Admission::Refused(_)), "swept a moment ago");
        std::thread::sleep(Duration::from_millis(1));
        *addresses.swept.lock() -= SWEEP_PAUSE;
        assert_eq!(addresses.admit(stranger(16), false), Admission::Granted);
        assert_eq!(addresses.each.as_ref().map(RateLimiter::len), Some(1));
    }

    #[test]
    fn a_closed_connection_frees_its_place() {
        let addresses = addresses(|rates| rates.address_connections = 2);
        let places = [addresses.connect(stranger(1)), addresses.connect(stranger(1))];
        assert!(places.iter().all(Option::is_some) && addresses.connect(stranger(1)).is_none());
        let other = addresses.connect(stranger(2));
        assert!(other.is_some());
        drop(places);
        assert!(addresses.connect(stranger(1)).is_some(), "the places are free again");
        drop(other);
        assert!(addresses.connections.lock().is_empty());
        assert!((0..5).map(|_| addresses.connect(ip("::1"))).all(|place| place.is_some()), "this machine is exempt");
    }
}
