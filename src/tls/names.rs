//! Parses the names for which certificates are created: users write them in various forms, certificates contain one.
//! Pure.

use std::net::IpAddr;

use reqwest::Url;
use rustls::pki_types::DnsName;

use super::TlsError;

/// A host name or address in the form of certificates: ASCII (RFC 5890) in lower case, an address without brackets. A
/// name may start with `*.`, which matches one level (RFC 9525 section 6.3).
///
/// # Errors
/// [`TlsError::Name`] if it is neither.
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
            Err(refused("* must be followed by a domain, as in *.example.com"))
        } else {
            Ok(format!("*.{rest}"))
        };
    }
    if given.contains('*') {
        return Err(refused("* must be the whole first level, as in *.example.com"));
    }
    if let Some(wrong) = given.chars().find(|c| c.is_ascii() && !(c.is_ascii_alphanumeric() || "-._".contains(*c))) {
        return Err(refused(match wrong {
            ':' | '/' => "give only the name, without https:// and port",
            _ => "use letters, digits, - and dots",
        }));
    }
    // Unicode to ASCII as browsers do it (UTS 46).
    let name = Url::parse(&format!("https://{given}/")).ok().and_then(|url| url.host_str().map(str::to_owned));
    let name = name.ok_or_else(|| refused("it is not a host name"))?;
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.parse::<IpAddr>().is_ok() {
        return Err(refused("write an IPv4 address with four numbers"));
    }
    DnsName::try_from(name).map_err(|_| refused("it is not a host name"))?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_converted_to_the_form_of_certificates() {
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
    fn an_invalid_name_is_refused_with_the_reason() {
        let long = format!("{}.example", "x".repeat(64));
        for (given, why) in [
            ("", "empty"),
            (" ", "letters"),
            ("two words", "letters"),
            ("https://chat.example", "without https://"),
            ("chat.example:4433", "port"),
            ("*", "whole first level"),
            ("*.", "empty"),
            ("*.example", "must be followed"),
            ("*.*.example", "must be followed"),
            ("*.127.0.0.1", "must be followed"),
            ("chat.*.example", "whole first level"),
            ("c*.example", "whole first level"),
            ("127.1", "four numbers"),
            ("1.2.3.4.5", "not a host name"),
            ("a..b", "not a host name"),
            ("-a.example", "not a host name"),
            (&long, "not a host name"),
            ("a\u{200b}\u{0}b", "letters"),
        ] {
            let error = certificate_name(given).expect_err(given).to_string();
            assert!(error.contains(why), "{given:?}: {error}");
        }
    }
}
