//! Reads the user's name from a client certificate. Called by `session` with certificates that TLS has verified. Pure.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::message::{ClientName, MAX_INTEGER, is_user};

/// The user that a certificate names, and its expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The name.
    pub name: ClientName,
    /// The expiry, in Unix milliseconds.
    pub expires_at: u64,
}

/// The user that a certificate (X.509, DER) names: the common name of its subject or, without one, the first URI, DNS
/// name or e-mail address among its alternative names (RFC 5280 section 4.2.1.6). `None` without any of these, with
/// several common names, or if the name is out of the bounds of a [`ClientName`] (1 to 64 characters without control
/// characters) or of a user (at most 128 bytes, all visible, without blanks at the ends).
///
/// Does not check whether the certificate can be trusted: TLS has checked those of clients.
pub fn subject(certificate: &[u8]) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut common_names = certificate.subject().iter_common_name();
    let name = match (common_names.next(), common_names.next()) {
        (Some(name), None) => name.as_str().ok()?,
        (Some(_), Some(_)) => return None,
        (None, _) => certificate.subject_alternative_name().ok()??.value.general_names.iter().find_map(text)?,
    };
    if !is_user(name) {
        return None;
    }
    let expires_s = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let expires_at = expires_s.saturating_add(1).saturating_mul(1000).min(MAX_INTEGER);
    Some(Subject { name: ClientName::new(name).ok()?, expires_at })
}

fn text<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) | GeneralName::RFC822Name(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn named(common_names: &[&str], others: Vec<SanType>) -> Option<String> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "not looked at");
        for (n, name) in common_names.iter().enumerate() {
            // A second one of the same kind would replace the first.
            let kind = if n == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
            params.distinguished_name.push(kind, DnValue::Utf8String((*name).to_owned()));
        }
        params.subject_alt_names = others;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        subject(certificate.der()).map(|subject| subject.name.as_str().to_owned())
    }

    #[test]
    fn the_common_name_takes_precedence() {
        let dns = || SanType::DnsName("ada.example".try_into().expect("a name"));
        let uri = || SanType::URI("spiffe://example/ada".try_into().expect("a name"));
        let email = SanType::Rfc822Name("ada@example".try_into().expect("a name"));
        let ip = || SanType::IpAddress([127, 0, 0, 1].into());
        assert_eq!(named(&["Ada Lovelace"], vec![dns()]).as_deref(), Some("Ada Lovelace"));
        assert_eq!(named(&[], vec![ip(), uri(), dns()]).as_deref(), Some("spiffe://example/ada"));
        assert_eq!(named(&[], vec![dns(), uri()]).as_deref(), Some("ada.example"));
        assert_eq!(named(&[], vec![email]).as_deref(), Some("ada@example"));
        assert_eq!(named(&[], vec![ip()]), None);
        assert_eq!(named(&[], Vec::new()), None);
    }

    #[test]
    fn a_misleading_name_is_ignored() {
        let dns = || vec![SanType::DnsName("ada.example".try_into().expect("a name"))];
        for bad in ["", "two\nlines", "nul\0", &"x".repeat(65), "Ada ", "A\u{ad}da", &"\u{1f600}".repeat(33)] {
            assert_eq!(named(&[bad], dns()), None, "{bad:?} is not replaced by another name");
        }
        assert_eq!(named(&["Ada", "Bob"], dns()), None);
        assert_eq!(subject(b"no certificate"), None);
        assert_eq!(named(&[&"ü".repeat(64)], Vec::new()), Some("ü".repeat(64)));
    }
}
