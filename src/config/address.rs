//! Addresses to listen on, as users write them. An error says what is wrong and shows an address that would be
//! accepted. Called for settings and flags. Never looks up a name.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

/// Parses an IP address with its port, for settings and flags alike. Names are not looked up: a server must listen on
/// the address it was given, whatever a name resolves to today.
///
/// # Errors
/// The problem and an example of an accepted address.
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
            Ok(port) => instead("is only a port", &format!("127.0.0.1:{port}, or 0.0.0.0:{port} for all interfaces")),
            Err(_) => instead("is not an address with a port", "127.0.0.1:4433"),
        };
    };
    let Ok(port) = port.parse::<u16>() else {
        return instead("has a port that is not a number from 0 to 65535", "127.0.0.1:4433");
    };
    if host.is_empty() || host == "*" {
        return instead("has no address", &format!("0.0.0.0:{port} or [::]:{port} for all interfaces"));
    }
    if host.eq_ignore_ascii_case("localhost") {
        return instead("is a name", &format!("127.0.0.1:{port} or [::1]:{port}"));
    }
    if host.contains(':') {
        return instead("is not an IPv6 address in brackets", &format!("[::1]:{port}"));
    }
    instead(
        "is not an IP address (names are not looked up)",
        &format!("192.0.2.1:{port}, or 0.0.0.0:{port} for all interfaces"),
    )
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// As [`address`]; an empty string means no address.
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
    fn an_invalid_address_is_refused_with_an_example() {
        for good in ["127.0.0.1:0", "[::1]:4433", "0.0.0.0:1"] {
            parse_address(good).expect("an address");
        }
        for (wrong, why, example) in [
            ("localhost:1", "is a name", "127.0.0.1:1 or [::1]:1"),
            ("chat.example:443", "names are not looked up", "0.0.0.0:443"),
            ("127.0.0.1", "has no port", "127.0.0.1:4433"),
            ("::1", "has no port", "[::1]:4433"),
            ("[::1]", "has no port", "[::1]:4433"),
            ("2001:db8::7:x", "not a number from 0", "127.0.0.1:4433"),
            ("fe80::1%eth0:1", "brackets", "[::1]:1"),
            (":4433", "has no address", "0.0.0.0:4433"),
            ("*:4433", "has no address", "[::]:4433"),
            ("4433", "is only a port", "127.0.0.1:4433"),
            ("127.0.0.1:65536", "not a number from 0 to 65535", "127.0.0.1:4433"),
            ("nonsense", "is not an address", "127.0.0.1:4433"),
            ("", "is not an address", "127.0.0.1:4433"),
        ] {
            let error = parse_address(wrong).expect_err(wrong);
            assert!(error.contains(why) && error.contains(example), "{wrong}: {error}");
        }
    }
}
