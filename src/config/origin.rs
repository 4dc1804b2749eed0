//! Which web pages may connect, by their origins. What is written is brought into the form in which browsers send it, by the
//! parser that they use as well (WHATWG URL); what no browser ever sends is an error.

use std::fmt::{self, Display};
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Deserializer, de};

/// The origins of some web pages: one, all of the hosts below a name (`https://*.example.com`), or of those that have none
/// (`null`).
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
    /// Whether a page with this `Origin` is one of these. Browsers send it as it is kept here; capital letters, and the port
    /// that is a scheme's own, are for other programs.
    pub(crate) fn matches(&self, sent: &[u8]) -> bool {
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
    pub(crate) fn is_null(&self) -> bool {
        self.0 == Form::Null
    }
}

/// An origin without the port that its scheme has anyway (RFC 6454 section 6.2).
pub(super) fn without_default_port(origin: &[u8]) -> &[u8] {
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
}
