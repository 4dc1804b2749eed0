//! Names for which certificates are made: as people write them, and as certificates hold them. Pure.

use std::net::IpAddr;

use reqwest::Url;
use rustls::pki_types::DnsName;

use super::TlsError;

/// A host's name or address as a certificate holds it: in ASCII (RFC 5890) and lower case, an address without brackets. A
/// name may begin with `*.`, which stands for one level (RFC 9525 section 6.3).
///
/// # Errors
/// [`TlsError::Name`] where it is neither.
pub fn certificate_name(given: &str) -> Result<String, TlsError> {
    let refused = |why| TlsError::Name { name: given.chars().take(100).collect(), why };
    let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(given);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    if given.is_empty() {
        return Err(refused("it is empty"));
    }
    if let Some(rest) = given.strip_prefix("*.") {
        let rest = certificate_name(rest)?;
        let is_wide = !rest.contains('.') || rest.starts_with('*') || rest.parse::<IpAddr>().is_ok();
        return if is_wide {
            Err(refused("below * there has to be a domain, as in *.example.com"))
        } else {
            Ok(format!("*.{rest}"))
        };
    }
    if given.contains('*') {
        return Err(refused("* stands for one whole level, the first, as in *.example.com"));
    }
    if let Some(wrong) = given.chars().find(|c| c.is_ascii() && !(c.is_ascii_alphanumeric() || "-._".contains(*c))) {
        return Err(refused(match wrong {
            ':' | '/' => "the name alone is wanted, without https:// and port",
            _ => "letters, digits, - and dots are allowed",
        }));
    }
    // Unicode to ASCII as browsers do it (UTS 46).
    let name = Url::parse(&format!("https://{given}/")).ok().and_then(|url| url.host_str().map(str::to_owned));
    let name = name.ok_or_else(|| refused("it is no name of a host"))?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.parse::<IpAddr>().is_ok() {
        return Err(refused("an address is written with four numbers, or as IPv6"));
    }
    DnsName::try_from(name).map_err(|_| refused("it is no name of a host"))?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_certificates_hold() {
        for (given, held) in [
            ("localhost", "localhost"),
            ("Chat.Example", "chat.example"),
            ("chat.example.", "chat.example"),
            ("*.Chat.example", "*.chat.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[2001:DB8::7]", "2001:db8::7"),
            ("my_host", "my_host"),
        ] {
            assert_eq!(certificate_name(given).expect(given), held);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let long = format!("{}.example", "x".repeat(64));
        for (given, why) in [
            ("", "empty"),
            (" ", "letters"),
            ("two words", "letters"),
            ("https://chat.example", "without https://"),
            ("chat.example:4433", "port"),
            ("*", "one whole level"),
            ("*.", "empty"),
            ("*.example", "below *"),
            ("*.*.example", "below *"),
            ("*.127.0.0.1", "below *"),
            ("chat.*.example", "one whole level"),
            ("c*.example", "one whole level"),
            ("127.1", "four numbers"),
            ("1.2.3.4.5", "no name"),
            ("a..b", "no name"),
            ("-a.example", "no name"),
            (&long, "no name"),
            ("a\u{200b}\u{0}b", "letters"),
        ] {
            let error = certificate_name(given).expect_err(given).to_string();
            assert!(error.contains(why), "{given:?}: {error}");
        }
    }
}
