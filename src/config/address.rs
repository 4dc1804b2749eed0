//! An address to listen on, as people write it: what is expected where it is none.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

/// Reads an address with its port, for settings and flags alike. Names are not looked up: a server listens where it is
/// told to, whatever a name means today.
///
/// # Errors
/// What is wrong, and what is expected instead, with an example.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown: String = text.chars().take(60).collect();
    let instead =
        |why: &str, example: &str| Err(format!("{shown:?} {why}; write an address and a port, such as {example}"));
    if text.parse::<IpAddr>().is_ok() || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some() {
        let example = if text.contains(':') { "[::1]:4433" } else { "127.0.0.1:4433" };
        return instead("has no port", example);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match text.parse::<u16>() {
            Ok(port) => {
                instead("is a port alone", &format!("127.0.0.1:{port}, or 0.0.0.0:{port} for all of this machine"))
            }
            Err(_) => instead("is no address with a port", "127.0.0.1:4433"),
        };
    };
    let Ok(port) = port.parse::<u16>() else {
        return instead("has no port from 0 to 65535", "127.0.0.1:4433");
    };
    if host.is_empty() || host == "*" {
        return instead("has no address", &format!("0.0.0.0:{port} or [::]:{port} for all of this machine"));
    }
    if host.eq_ignore_ascii_case("localhost") {
        return instead("is a name", &format!("127.0.0.1:{port} or [::1]:{port}"));
    }
    if host.contains(':') {
        return instead("is no IPv6 address in brackets", &format!("[::1]:{port}"));
    }
    instead("is no IP address (names are not looked up)", &format!("192.0.2.1:{port}, or 0.0.0.0:{port} for all"))
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// An empty text is none.
pub(super) fn address_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse_address(&text).map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_told_with_one_that_is() {
        for good in ["127.0.0.1:0", "[::1]:4433", "0.0.0.0:1"] {
            parse_address(good).expect("an address");
        }
        for (wrong, why, example) in [
            ("localhost:1", "is a name", "127.0.0.1:1 or [::1]:1"),
            ("chat.example:443", "names are not looked up", "0.0.0.0:443"),
            ("127.0.0.1", "has no port", "127.0.0.1:4433"),
            ("::1", "has no port", "[::1]:4433"),
            ("[::1]", "has no port", "[::1]:4433"),
            ("2001:db8::7:x", "has no port from 0", "127.0.0.1:4433"),
            ("fe80::1%eth0:1", "brackets", "[::1]:1"),
            (":4433", "has no address", "0.0.0.0:4433"),
            ("*:4433", "has no address", "[::]:4433"),
            ("4433", "is a port alone", "127.0.0.1:4433"),
            ("127.0.0.1:65536", "has no port from 0 to 65535", "127.0.0.1:4433"),
            ("nonsense", "is no address", "127.0.0.1:4433"),
            ("", "is no address", "127.0.0.1:4433"),
        ] {
            let error = parse_address(wrong).expect_err(wrong);
            assert!(error.contains(why) && error.contains(example), "{wrong}: {error}");
        }
    }
}
