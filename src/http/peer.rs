//! The client behind a request: the peer of its connection or, behind a trusted proxy (`http.proxies`), the client that
//! the proxy names.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};
use rustls::pki_types::CertificateDer;

use super::host;
use super::refusal::Refusal;
use crate::config;

/// Client addresses added by proxies, the newest last. Not standardised, but supported by all proxies.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Protocol that the client used.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// Address of the client; the port is 0 if a proxy did not report it.
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
    /// The client's certificate, verified by TLS.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Whether the address was counted when the connection was accepted; a proxy's is not.
    pub(super) is_counted: bool,
}

impl Peer {
    /// Resolves the client of a request on this connection. If the peer is a trusted proxy, that is the client that it
    /// names, without the proxy's own certificate. Forwarding headers of all other peers are ignored.
    pub(super) fn behind(&self, headers: &HeaderMap, config: &config::Http) -> Result<Self, Refusal> {
        if !config.is_proxy(self.address.ip()) {
            return Ok(self.clone());
        }
        let is_tls = match last(headers, &FORWARDED_PROTO) {
            Some(proto) => proto.eq_ignore_ascii_case("https"),
            None => self.is_tls,
        };
        // A proxy may not claim a client on its own machine, unless it is on this one.
        let address = forwarded_for(headers, config)?.unwrap_or(self.address);
        if address.ip().to_canonical().is_loopback() && !self.address.ip().to_canonical().is_loopback() {
            return Err(Refusal::bad(
                "X-Forwarded-For: a loopback address is not accepted from a proxy on another machine",
            ));
        }
        Ok(Self { address, is_tls, certificate: None, is_counted: false })
    }

    /// The origin (RFC 6454) of this server's pages under the host name and port of a request. `None` without TLS,
    /// except for names of this machine: any other name may belong to a foreign page that points here (DNS rebinding).
    pub(super) fn origin(&self, host: &Authority) -> Option<String> {
        match self.is_tls {
            true => Some(format!("https://{host}")),
            false => host::is_local(host).then(|| format!("http://{host}")),
        }
    }
}

/// The newest address that is not a trusted proxy; earlier ones are the client's own claims. `None` if no address is
/// given.
fn forwarded_for(headers: &HeaderMap, config: &config::Http) -> Result<Option<SocketAddr>, Refusal> {
    let mut client = None;
    for item in newest_first(headers, &FORWARDED_FOR) {
        let address = address(item)
            .ok_or_else(|| Refusal::bad("X-Forwarded-For: a proxy in http.proxies must send an IP address"))?;
        client = Some(address);
        if !config.is_proxy(address.ip()) {
            break;
        }
    }
    Ok(client)
}

/// The items of a list that may span several fields (RFC 9110 section 5.3), the last one first.
fn newest_first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let fields: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let items = fields.into_iter().rev().flat_map(|field| field.rsplit(|&byte| byte == b','));
    // Invalid text becomes an invalid address.
    items.map(|item| std::str::from_utf8(item).unwrap_or_default().trim())
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    newest_first(headers, name).next()
}

/// Parses an address as proxies write it, with or without a port.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PROXY: &str = "10.0.0.1:5000";

    fn peer(address: &str) -> Peer {
        let certificate = Some(CertificateDer::from(vec![1]));
        Peer { address: address.parse().expect("an address"), is_tls: true, certificate, is_counted: true }
    }

    /// The resolved address of a request, and whether it used TLS.
    fn behind(from: &str, headers: &[(HeaderName, &'static str)]) -> Result<(String, bool), u16> {
        let proxies = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let config = config::Http { proxies: proxies.to_vec(), ..config::Http::default() };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        let found = peer(from).behind(&map, &config).map_err(|refused| refused.status.as_u16())?;
        assert_eq!(found.certificate.is_some(), found.is_counted, "a proxy's certificate is not the client's");
        Ok((found.address.to_string(), found.is_tls))
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_clients_cannot() {
        for (item, client) in [
            ("198.51.100.7", "198.51.100.7:0"),
            ("192.0.2.1, 198.51.100.7", "198.51.100.7:0"),
            ("nonsense,198.51.100.7", "198.51.100.7:0"),
            ("198.51.100.7, 10.0.0.9", "198.51.100.7:0"),
            ("198.51.100.7:4000", "198.51.100.7:4000"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:4000", "[2001:db8::1]:4000"),
            ("10.0.0.8, 10.0.0.9", "10.0.0.8:0"),
        ] {
            assert_eq!(behind(PROXY, &[(FORWARDED_FOR, item)]), Ok((client.to_owned(), true)), "{item}");
            assert_eq!(behind("192.0.2.9:1", &[(FORWARDED_FOR, item)]), Ok(("192.0.2.9:1".to_owned(), true)));
        }
        let fields = [(FORWARDED_FOR, "192.0.2.1"), (FORWARDED_FOR, "198.51.100.7")];
        assert_eq!(behind("[::ffff:10.0.0.1]:1", &fields), Ok(("198.51.100.7:0".to_owned(), true)), "an IPv4 address");
        for wrong in ["", "unknown", "198.51.100.7,", "198.51.100.7, 10.0.0"] {
            assert_eq!(behind(PROXY, &[(FORWARDED_FOR, wrong)]), Err(400), "{wrong:?}");
        }
        assert_eq!(behind(PROXY, &[]), Ok((PROXY.to_owned(), true)), "the proxy itself, or its own machine");
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.2", "127.0.0.1, 10.1.2.3"] {
            assert_eq!(behind(PROXY, &[(FORWARDED_FOR, loopback)]), Err(400), "a loopback address from elsewhere");
        }
        assert_eq!(behind("127.0.0.1:9", &[(FORWARDED_FOR, "127.0.0.1")]), Ok(("127.0.0.1:0".to_owned(), true)));
    }

    #[test]
    fn a_trusted_proxy_reports_the_clients_protocol() {
        for (proto, is_tls) in [("https", true), ("HTTPS", true), ("http", false), ("https, http", false), ("", false)]
        {
            let headers = [(FORWARDED_FOR, "198.51.100.7"), (FORWARDED_PROTO, proto)];
            assert_eq!(behind(PROXY, &headers).map(|(_, is_tls)| is_tls), Ok(is_tls), "{proto}");
            assert_eq!(behind("192.0.2.9:1", &headers).map(|(_, is_tls)| is_tls), Ok(true), "{proto}");
        }
    }
}
