//! Who has sent a request: the other end of its connection, or whom a known proxy there names.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};
use rustls::pki_types::CertificateDer;

use super::host;
use super::refusal::Refusal;
use crate::config;

/// What proxies say of the client, the newest last. Not of a standard, and what all of them speak.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// With which protocol the client asked.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who has sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its port is 0 where a proxy did not tell it.
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
    /// The client's own certificate, which TLS has checked.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Whether its address was counted when the connection came in: a proxy's is not.
    pub(super) is_counted: bool,
}

impl Peer {
    /// The client behind a request of this connection, which may be a proxy's: then whom it names, and nothing that is the
    /// proxy's own. What anybody else says of addresses counts for nothing.
    pub(super) fn behind(&self, headers: &HeaderMap, config: &config::Http) -> Result<Self, Refusal> {
        if !config.is_proxy(self.address.ip()) {
            return Ok(self.clone());
        }
        let is_tls = match last(headers, &FORWARDED_PROTO) {
            Some(proto) => proto.eq_ignore_ascii_case("https"),
            None => self.is_tls,
        };
        // Of who is on the proxy's own machine, it says nothing.
        let address = forwarded_for(headers, config)?.unwrap_or(self.address);
        if address.ip().to_canonical().is_loopback() && !self.address.ip().to_canonical().is_loopback() {
            return Err(Refusal::bad("X-Forwarded-For: an address of the proxy's own machine says nothing here"));
        }
        Ok(Self { address, is_tls, certificate: None, is_counted: false })
    }

    /// The origin (RFC 6454) of this server's pages for who calls it by this name and port. `None` without TLS for any name but this
    /// machine's own: it may be that of a page elsewhere, which points here (DNS rebinding).
    pub(super) fn origin(&self, host: &Authority) -> Option<String> {
        match self.is_tls {
            true => Some(format!("https://{host}")),
            false => host::is_local(host).then(|| format!("http://{host}")),
        }
    }
}

/// The newest address that is no proxy's own: those before it are what a client says of itself. `None` where nobody is named.
fn forwarded_for(headers: &HeaderMap, config: &config::Http) -> Result<Option<SocketAddr>, Refusal> {
    let mut client = None;
    for named in newest_first(headers, &FORWARDED_FOR) {
        let address = address(named).ok_or_else(|| {
            Refusal::bad("X-Forwarded-For: an address is expected of a proxy that is among http.proxies")
        })?;
        client = Some(address);
        if !config.is_proxy(address.ip()) {
            break;
        }
    }
    Ok(client)
}

/// The items of a list that may stand in several fields (RFC 9110 section 5.3), the last first.
fn newest_first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let fields: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let items = fields.into_iter().rev().flat_map(|field| field.rsplit(|&byte| byte == b','));
    // What is no text is no address either.
    items.map(|item| std::str::from_utf8(item).unwrap_or_default().trim())
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    newest_first(headers, name).next()
}

/// An address as proxies write it, some with the port.
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

    /// The address behind a request, and whether it came with TLS.
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
    fn a_known_proxy_says_who_the_client_is_and_clients_say_nothing() {
        for (named, client) in [
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
            assert_eq!(behind(PROXY, &[(FORWARDED_FOR, named)]), Ok((client.to_owned(), true)), "{named}");
            assert_eq!(behind("192.0.2.9:1", &[(FORWARDED_FOR, named)]), Ok(("192.0.2.9:1".to_owned(), true)));
        }
        let fields = [(FORWARDED_FOR, "192.0.2.1"), (FORWARDED_FOR, "198.51.100.7")];
        assert_eq!(behind("[::ffff:10.0.0.1]:1", &fields), Ok(("198.51.100.7:0".to_owned(), true)), "an IPv4 address");
        for wrong in ["", "unknown", "198.51.100.7,", "198.51.100.7, 10.0.0"] {
            assert_eq!(behind(PROXY, &[(FORWARDED_FOR, wrong)]), Err(400), "{wrong:?}");
        }
        assert_eq!(behind(PROXY, &[]), Ok((PROXY.to_owned(), true)), "the proxy itself, or who is on its machine");
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.2", "127.0.0.1, 10.1.2.3"] {
            assert_eq!(behind(PROXY, &[(FORWARDED_FOR, loopback)]), Err(400), "who is inside says so of himself");
        }
        assert_eq!(behind("127.0.0.1:9", &[(FORWARDED_FOR, "127.0.0.1")]), Ok(("127.0.0.1:0".to_owned(), true)));
    }

    #[test]
    fn a_known_proxy_says_with_which_protocol_it_was_asked() {
        for (proto, is_tls) in [("https", true), ("HTTPS", true), ("http", false), ("https, http", false), ("", false)]
        {
            let headers = [(FORWARDED_FOR, "198.51.100.7"), (FORWARDED_PROTO, proto)];
            assert_eq!(behind(PROXY, &headers).map(|(_, is_tls)| is_tls), Ok(is_tls), "{proto}");
            assert_eq!(behind("192.0.2.9:1", &headers).map(|(_, is_tls)| is_tls), Ok(true), "{proto}");
        }
    }
}
