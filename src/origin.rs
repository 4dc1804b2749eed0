//! Which web pages may connect, by their origins: one policy for WebSocket, WebTransport and HTTP. What is written is
//! brought into the form in which browsers send it, by the parser that they use as well (WHATWG URL); what no browser
//! ever sends is an error.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Deserializer, de};

/// The origins of some web pages: one, all of the hosts below a name (`https://*.example.com`), or of those that have
/// none (`null`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Of pages that browsers give no origin: files, and those in a sandbox, in which any page can put another.
    Null,
    One(String),
    /// Of every host that ends so.
    Below {
        /// With its `://`.
        scheme: String,
        /// From its point on, with its port.
        end: String,
    },
}

impl Origin {
    /// Whether a page with this `Origin` is one of these. Browsers send it as it is kept here; capital letters, and the
    /// port that is a scheme's own, are for other programs.
    fn matches(&self, sent: &[u8]) -> bool {
        let sent = without_default_port(sent);
        match &self.0 {
            Form::Null => sent == b"null",
            Form::One(origin) => sent.eq_ignore_ascii_case(origin.as_bytes()),
            Form::Below { scheme, end } => {
                let Some((start, rest)) = sent.split_at_checked(scheme.len()) else { return false };
                let Some(at) = rest.len().checked_sub(end.len()) else { return false };
                let (below, rest) = rest.split_at(at);
                let is_host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                start.eq_ignore_ascii_case(scheme.as_bytes())
                    && rest.eq_ignore_ascii_case(end.as_bytes())
                    && !below.is_empty()
                    && below.iter().all(is_host)
            }
        }
    }

    /// Whether it names pages that any other page can make.
    fn is_null(&self) -> bool {
        self.0 == Form::Null
    }
}

/// Whether a web page of the origin `page` may connect to a server that names `known` origins, and whose own pages are
/// of the origin `own`. A client that sends no origin is no web page. Browsers show a client certificate for any page
/// that connects: if the page is not known, the certificate is not the page's, and `null` stands for no known page.
pub(crate) fn lets_in(known: &[Origin], page: Option<&[u8]>, own: Option<&str>, shows_certificate: bool) -> bool {
    let Some(page) = page else { return true };
    let is_known = |known: &Origin| known.matches(page) && !(shows_certificate && known.is_null());
    is_own_page(page, own) || (known.is_empty() && !shows_certificate) || known.iter().any(is_known)
}

/// Whether the operator has named the origin of a page.
pub(crate) fn is_named(known: &[Origin], page: &[u8]) -> bool {
    known.iter().any(|known| known.matches(page))
}

/// Whether the page from which a request comes is the server's own.
pub(crate) fn is_own_page(page: &[u8], own: Option<&str>) -> bool {
    let same = |own: &str| without_default_port(page).eq_ignore_ascii_case(without_default_port(own.as_bytes()));
    own.is_some_and(same)
}

/// Which web pages are this server's own.
#[derive(Debug)]
pub(crate) struct OwnPages {
    /// Schemes and ports under which there are pages.
    pub(crate) served: Vec<(&'static str, u16)>,
}

impl OwnPages {
    /// The origin (RFC 6454) that is this server's own for a request to `authority`. A browser that trusts a
    /// certificate by its hash (`trusts_by_hash`) has not checked the server's name. The name may then be that of a
    /// page elsewhere, which points here (DNS rebinding), so only addresses and `localhost` count. For a client on this
    /// machine, every origin under which the server serves pages there is its own.
    pub(crate) fn origin(
        &self,
        authority: &str,
        origin: Option<&[u8]>,
        from: IpAddr,
        trusts_by_hash: bool,
    ) -> Option<String> {
        let is_ours = |own: &String| origin.is_some_and(|origin| origin.eq_ignore_ascii_case(own.as_bytes()));
        let here = self.served.iter().flat_map(|(scheme, port)| {
            ["localhost", "127.0.0.1", "[::1]"].into_iter().map(move |host| format!("{scheme}://{host}:{port}"))
        });
        if let Some(own) = here.filter(|_| from.to_canonical().is_loopback()).find(is_ours) {
            return Some(own);
        }
        let host =
            authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let is_sure = !trusts_by_hash || is_address || host.eq_ignore_ascii_case("localhost");
        is_sure.then(|| format!("https://{authority}"))
    }
}

/// An origin without the port that its scheme has anyway (RFC 6454 section 6.2).
fn without_default_port(origin: &[u8]) -> &[u8] {
    let is_of = |scheme: &[u8]| origin.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    for (scheme, port) in [(&b"https://"[..], &b":443"[..]), (b"http://", b":80")] {
        if is_of(scheme) {
            return origin.strip_suffix(port).unwrap_or(origin);
        }
    }
    origin
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "null" {
            return Ok(Self(Form::Null));
        }
        let shown: String = text.chars().take(100).collect();
        let wrong = |why: &str| format!("{shown:?} is no origin: {why}");
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match text {
                "*" => wrong("leave the list empty to let pages of all origins connect"),
                _ => wrong("the scheme is missing; write it as https://app.example.com"),
            });
        };
        match scheme.to_ascii_lowercase().as_str() {
            "ws" | "wss" => return Err(wrong("pages come by https or http; write it as https://app.example.com")),
            "file" => return Err(wrong("browsers send \"null\" for pages out of files; write that")),
            "ftp" | "blob" | "data" | "about" => return Err(wrong("no page of this scheme has an origin of its own")),
            _ => {}
        }
        let (rest, is_below) = match rest.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        if rest.contains('*') {
            return Err(wrong("a * stands alone, for all hosts below a name: https://*.example.com"));
        }
        let url = Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|e| wrong(&format!("{e}; write it as https://app.example.com")))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(wrong("the host is missing; write it as https://app.example.com"));
        };
        // Schemes of apps and extensions have hosts that are not touched.
        let host = host.to_ascii_lowercase();
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        let instead = format!("{}://{}{host}{port}", url.scheme(), if is_below { "*." } else { "" });
        let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        if has_more || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(&format!("it is a scheme, a host and a port, without anything else: {instead}")));
        }
        if !is_below {
            return Ok(Self(Form::One(instead)));
        }
        if url.host_str().is_some_and(|host| host.parse::<std::net::Ipv4Addr>().is_ok() || host.starts_with('[')) {
            return Err(wrong("there is nothing below an address; write the address itself"));
        }
        Ok(Self(Form::Below { scheme: format!("{}://", url.scheme()), end: format!(".{host}{port}") }))
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Null => f.write_str("null"),
            Form::One(origin) => f.write_str(origin),
            Form::Below { scheme, end } => write!(f, "{scheme}*{end}"),
        }
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (written, kept) in [
            ("https://app.example.com", "https://app.example.com"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("https://[::1]:4433", "https://[::1]:4433"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("https://app.example.com/", "https://app.example.com"),
            ("HTTPS://App.Example.COM", "https://app.example.com"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://*.bücher.example:443/", "https://*.xn--bcher-kva.example"),
            ("https://*.example.com:8443", "https://*.example.com:8443"),
            ("https://[2001:DB8::0:7]", "https://[2001:db8::7]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://ABCdef", "chrome-extension://abcdef"),
            ("null", "null"),
        ] {
            assert_eq!(written.parse::<Origin>().expect(written).to_string(), kept);
        }
    }

    #[test]
    fn what_no_browser_sends_is_an_error_that_says_what_to_write() {
        for (wrong, told) in [
            ("", "https://app.example.com"),
            ("app.example.com", "the scheme is missing"),
            ("localhost:8080", "the scheme is missing"),
            ("https://", "https://app.example.com"),
            ("https://app.example.com/chat", "without anything else: https://app.example.com"),
            ("https://app.example.com?x", "https://app.example.com"),
            ("https://app.example.com/#", "https://app.example.com"),
            ("https://ada@app.example.com", "https://app.example.com"),
            ("https://app.example.com:99999", "port"),
            ("https://app example.com", "https://app.example.com"),
            ("wss://app.example.com", "https"),
            ("file:///home/ada/page.html", "null"),
            ("*", "leave the list empty"),
            ("https://*", "below a name"),
            ("https://app.*.example.com", "https://*.example.com"),
            ("https://*app.example.com", "https://*.example.com"),
            ("https://*.192.0.2.7", "address"),
            ("NULL", "the scheme is missing"),
        ] {
            let error = wrong.parse::<Origin>().expect_err(wrong);
            assert!(error.contains(told) && error.contains(&format!("{wrong:?}")), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_page_matches_by_its_whole_origin_or_a_host_below() {
        let matches = |origin: &str, sent: &str| origin.parse::<Origin>().expect("an origin").matches(sent.as_bytes());
        for (origin, sent) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://app.example.com", "HTTPS://APP.example.com:443"),
            ("https://*.example.com", "https://app.example.com"),
            ("https://*.example.com", "https://a.b.example.com"),
            ("https://*.example.com", "https://app.example.com:443"),
            ("https://*.example.com:8443", "https://App.example.com:8443"),
            ("null", "null"),
        ] {
            assert!(matches(origin, sent), "{origin} {sent}");
        }
        for (origin, sent) in [
            ("https://app.example.com", "http://app.example.com"),
            ("https://app.example.com", "https://app.example.com:8443"),
            ("https://app.example.com", "https://app.example.com.evil.example"),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://.example.com"),
            ("https://*.example.com", "https://evilexample.com"),
            ("https://*.example.com", "http://app.example.com"),
            ("https://*.example.com", "https://app.example.com:8443"),
            ("https://*.example.com", "https://evil.example/.example.com"),
            ("https://*.example.com", "https://evil.example:1.example.com"),
            ("https://*.example.com", "https://evil@app.example.com"),
            ("https://*.example.com", "https:/"),
            ("https://*.example.com:8443", "https://app.example.com"),
            ("https://*.example.com", "null"),
            ("null", "NULL"),
            ("null", "https://null"),
        ] {
            assert!(!matches(origin, sent), "{origin} {sent}");
        }
    }

    fn origins(origins: &[&str]) -> Vec<Origin> {
        origins.iter().map(|origin| origin.parse().expect("an origin")).collect()
    }

    #[test]
    fn pages_of_known_origins_are_let_in_and_those_of_the_server_itself() {
        let (page, own) = (Some(&b"https://a.example"[..]), Some("https://quic.example:4433"));
        for known in [&[][..], &["https://b.example", "https://A.example"]] {
            assert!(lets_in(&origins(known), page, own, false));
        }
        let known = origins(&["https://b.example"]);
        assert!(!lets_in(&known, page, own, false));
        for foreign in [&b"null"[..], b"quic.example:4433", b"https://quic.example", b"http://quic.example:4433"] {
            assert!(!lets_in(&known, Some(foreign), own, false), "another scheme or port");
        }
        assert!(lets_in(&known, Some(b"https://QUIC.example:4433"), own, false), "its own page");
        assert!(lets_in(&known, Some(b"https://quic.example:4433"), Some("https://quic.example:4433"), false));
        assert!(
            lets_in(&known, Some(b"https://quic.example"), Some("https://quic.example:443"), false),
            "the same port"
        );
        assert!(lets_in(&known, None, own, false), "no web page");
        assert!(!lets_in(&known, page, None, false));
    }

    #[test]
    fn a_certificate_is_not_any_pages_to_use() {
        let (page, own) = (&b"https://a.example"[..], "https://quic.example");
        assert!(!lets_in(&origins(&[]), Some(page), Some(own), true));
        assert!(lets_in(&origins(&["https://a.example"]), Some(page), Some(own), true));
        assert!(lets_in(&origins(&[]), Some(own.as_bytes()), Some(own), true));
        assert!(lets_in(&origins(&[]), None, Some(own), true));
        assert!(lets_in(&origins(&["null"]), Some(b"null"), Some(own), false));
        assert!(!lets_in(&origins(&["null"]), Some(b"null"), Some(own), true), "any page can be one without origin");
        assert!(lets_in(&origins(&["https://*.example"]), Some(page), Some(own), true));
    }
}
