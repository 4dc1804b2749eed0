//! Settings for browsers and for HTTP: WebSocket and web pages over TCP, the pages that may connect, the admin API, and
//! the certificate of WebTransport.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::address::address_or_none;
use super::{ConfigError, Origin, Secret};

/// Maximum number of origins.
const MAX_ORIGINS: u64 = 1000;
/// Maximum number of proxy networks.
const MAX_PROXIES: u64 = 100;

/// HTTP and WebSocket over TCP.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Http {
    /// Whether the server listens on TCP at all. Default true.
    pub enabled: bool,
    /// TCP address for HTTP and WebSocket over TLS. Default (in the file: an empty string): the address and port of
    /// `addr`.
    #[serde(deserialize_with = "address_or_none")]
    pub addr: Option<SocketAddr>,
    /// Loopback address where the same is served without TLS, for development. Default: none.
    #[serde(deserialize_with = "address_or_none")]
    pub plain_addr: Option<SocketAddr>,
    /// Origins of the web pages that may connect, over WebTransport and WebSocket alike, and read `/ice-servers`:
    /// `https://app.example.com`, `http://localhost:8080`, `https://*.example.com` for all hosts below that name,
    /// `null` for pages without an origin (files, sandboxes). Other pages get status 403. Accepted in any case are
    /// clients other than browsers, which send no origin, and the server's own pages; if browsers trust its certificate
    /// by a hash, only those on an IP address or `localhost`. At most 1,000. Default: none, which accepts pages of any
    /// origin.
    pub origins: Vec<Origin>,
    /// Networks (`10.0.0.0/8`) and addresses of the reverse proxies and load balancers on TCP. Limits by address, logs
    /// and metrics use the client that these name in `X-Forwarded-For` and `X-Forwarded-Proto`; from others the headers
    /// are ignored. At most 100. Default: none.
    #[serde(deserialize_with = "networks")]
    pub proxies: Vec<IpNet>,
    /// Whether `/echo` sends every WebSocket message back unchanged, to test WebSocket connections. Default false.
    pub echo: bool,
    /// Token of the admin API (`/api/...` and `/metrics`), sent as `Authorization: Bearer`: 16 to 512 visible ASCII
    /// characters. Default (in the file: an empty string): none, and the admin API is off on these addresses; only a
    /// server with a development certificate that listens on loopback addresses alone creates a token at each start and
    /// logs it.
    #[serde(deserialize_with = "secret_or_none")]
    pub admin_token: Option<Secret>,
    /// Loopback address for only the admin API and the dashboard, without TLS and token: every program on this machine
    /// can use it, so no proxy should lead to it. Independent of `enabled`. Default: none.
    #[serde(deserialize_with = "address_or_none")]
    pub admin_addr: Option<SocketAddr>,
}

/// WebTransport on the QUIC port.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WebTransport {
    /// Whether WebTransport clients get a self-signed certificate, valid for 13 days, made in memory for the names of
    /// the regular one: browsers trust it by its hash. Default: only if the regular one is for development.
    pub short_lived_certificate: Option<bool>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            enabled: true,
            addr: None,
            plain_addr: None,
            origins: Vec::new(),
            proxies: Vec::new(),
            echo: false,
            admin_token: None,
            admin_addr: None,
        }
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(|network| plain(network.trunc()))
    };
    let expected = |text: &String| {
        let text: String = text.chars().take(100).collect();
        serde::de::Error::custom(format!(
            "{text:?} is not a network; write it as 10.0.0.0/8, or as one address such as 10.0.0.1"
        ))
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).ok_or_else(|| expected(text))).collect()
}

/// Converts a network of IPv4-mapped IPv6 addresses to IPv4, the form in which addresses are looked up.
fn plain(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let inner = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    inner.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

pub(super) fn secret_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Some(String::deserialize(deserializer)?).filter(|text| !text.is_empty()).map(Secret::from))
}

impl Http {
    /// Settings with their values and bounds.
    pub(super) fn bounds(&self) -> [(&'static str, u64, u64, u64); 2] {
        [
            ("http.origins (how many)", self.origins.len() as u64, 0, MAX_ORIGINS),
            ("http.proxies (how many)", self.proxies.len() as u64, 0, MAX_PROXIES),
        ]
    }

    /// Whether an address is that of a trusted proxy.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// Checks that the admin token cannot be guessed, and that listeners without TLS are on loopback addresses.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let is_token = |token: &Secret| {
            let text = token.expose();
            (16..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if self.admin_token.as_ref().is_some_and(|token| !is_token(token)) {
            return Err(ConfigError::AdminToken);
        }
        for (setting, addr) in [("http.plain_addr", self.plain_addr), ("http.admin_addr", self.admin_addr)] {
            if let Some(addr) = addr.filter(|addr| !addr.ip().is_loopback()) {
                return Err(ConfigError::NotLoopback { setting, addr });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_networks_or_single_addresses() {
        let http = |proxies: &str| toml::from_str::<Http>(&format!("proxies = [{proxies}]"));
        let known = http("'10.0.0.0/8', '192.0.2.7', 'fd00::/8', '::ffff:172.16.0.5/108'").expect("networks");
        for (address, is_proxy) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("192.0.2.7", true),
            ("fd00::1", true),
            ("172.31.0.1", true),
            ("::ffff:172.16.0.1", true),
            ("172.32.0.1", false),
            ("11.0.0.1", false),
            ("192.0.2.8", false),
            ("::1", false),
        ] {
            assert_eq!(known.is_proxy(address.parse().expect("an address")), is_proxy, "{address}");
        }
        assert!(!Http::default().is_proxy(IpAddr::from([127, 0, 0, 1])));
        for wrong in ["", "proxy.example", "10.0.0.0/33", "10.0.0.0:80", "10.0.0.0/"] {
            let error = http(&format!("'{wrong}'")).expect_err("no network").to_string();
            assert!(error.contains(&format!("{wrong:?} is not a network")), "{error}");
        }
    }

    #[test]
    fn listeners_without_tls_must_be_on_loopback() {
        let plain = |addr: &str| Http { plain_addr: addr.parse().ok(), ..Http::default() }.validate();
        let admin = |addr: &str| Http { admin_addr: addr.parse().ok(), ..Http::default() }.validate();
        for good in ["127.0.0.1:8080", "[::1]:0"] {
            plain(good).and(admin(good)).expect("a loopback address");
        }
        for wrong in ["0.0.0.0:8080", "192.0.2.1:80", "[::]:8080"] {
            for (setting, refused) in [("http.plain_addr", plain(wrong)), ("http.admin_addr", admin(wrong))] {
                let error = refused.expect_err("others reach it").to_string();
                assert!(error.contains(&format!("{setting} = {wrong}")), "{error}");
            }
        }
    }

    #[test]
    fn a_weak_admin_token_is_refused_and_no_token_is_shown() {
        let with = |token: &str| Http { admin_token: Some(token.to_owned().into()), ..Http::default() };
        for good in ["0123456789abcdef", &"~".repeat(512)] {
            with(good).validate().expect("a token");
        }
        for wrong in ["", "0123456789abcde", &"x".repeat(513), "0123456789 abcdef", "0123456789abcdé"] {
            let error = with(wrong).validate().expect_err("no token").to_string();
            assert!(error.contains("http.admin_token") && (wrong.is_empty() || !error.contains(wrong)), "{error}");
        }
        assert!(!format!("{:?}", with("0123456789abcdef")).contains("0123456789"));
    }
}
