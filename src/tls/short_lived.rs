//! The certificate for WebTransport clients in development. Browsers accept an uncertified one if a page names its
//! hash, its key is for P-256 and it is valid for at most 14 days (W3C WebTransport, `serverCertificateHashes`). Kept
//! only in memory and replaced in time by `server` in this room.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::info;
use web_transport_quinn::crypto;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::development::AUTHORITY;
use super::{TlsError, provider};
use crate::message::{ALPN, ALPN_WEBTRANSPORT};

/// ALPN protocols over QUIC, the first preferred.
pub(super) const PROTOCOLS: [&[u8]; 2] = [ALPN, ALPN_WEBTRANSPORT];

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Validity: a day less than browsers allow.
const HOLDS: Duration = Duration::from_secs(13 * DAY.as_secs());
/// Time of use: a day less than the validity, because clocks differ. Its successor has another hash, which pages
/// request when they connect.
const SHOWN: Duration = Duration::from_secs(12 * DAY.as_secs());
/// How far a browser's clock may be behind.
const SKEW: Duration = HOUR;

/// What web pages need to trust a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateHash {
    /// The SHA-256 of the certificate (DER), for `serverCertificateHashes`.
    pub sha256: [u8; 32],
    /// Expiry of the certificate, in Unix milliseconds.
    pub not_after: u64,
}

/// The short-lived certificate that a server shows to WebTransport clients, kept up to date. Cheap to clone; outlives
/// the server.
#[derive(Debug, Clone)]
pub struct ShortLived {
    current: watch::Receiver<Option<CertificateHash>>,
}

impl ShortLived {
    /// The certificate in use. `None` if WebTransport clients get the regular certificate, which they check like any
    /// other.
    pub fn hash(&self) -> Option<CertificateHash> {
        *self.current.borrow()
    }
}

/// Keeps [`ShortLived`] up to date.
pub(super) struct Publisher(watch::Sender<Option<CertificateHash>>);

impl Publisher {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn listener(&self) -> ShortLived {
        ShortLived { current: self.0.subscribe() }
    }

    pub(super) fn publish(&self, certificate: Option<&Certificate>) {
        let hash = certificate.map(|certificate| certificate.hash);
        if self.0.send_replace(hash) != hash
            && let Some(CertificateHash { sha256, .. }) = hash
        {
            let sha256 = BASE64.encode(sha256);
            info!(%sha256, "WebTransport development certificate, valid 12 days, SHA-256: {sha256}");
        }
    }
}

/// A short-lived certificate with its key.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    names: Vec<String>,
    hash: CertificateHash,
    /// The time in which it may be used.
    shown: Range<SystemTime>,
}

impl Certificate {
    /// Creates one for these names: DNS names or IP addresses.
    pub(super) fn make(names: Vec<String>, now: SystemTime) -> Result<Self, TlsError> {
        let from = now - SKEW;
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name.push(DnType::CommonName, "quic-websocket short-lived server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::from(from);
        params.not_after = OffsetDateTime::from(from + HOLDS);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?.der().clone();
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(crypto::sha256(&provider(), &certificate).as_ref());
        // In the certificate's precision of seconds.
        let not_after = u64::try_from(params.not_after.unix_timestamp()).unwrap_or(0).saturating_mul(1000);
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = Arc::new(CertifiedKey::from_der(vec![certificate], private.into(), &provider())?);
        Ok(Self { key, names, hash: CertificateHash { sha256, not_after }, shown: from..now + SHOWN })
    }

    /// Whether it is still usable for these names.
    pub(super) fn serves(&self, names: &[String], now: SystemTime) -> bool {
        self.names == names && self.shown.contains(&now)
    }

    /// How long it is still usable; zero if it is no longer, or not yet because the clock was set back.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        if now < self.shown.start { Duration::ZERO } else { self.shown.end.duration_since(now).unwrap_or_default() }
    }

    /// Keeps it in use for another hour.
    pub(super) fn extend(&mut self, now: SystemTime) {
        self.shown = now..now + HOUR;
    }
}

/// Selects the certificate for a client.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) regular: Arc<CertifiedKey>,
    /// Certificate for clients that negotiate HTTP/3: in development, web pages accept only this one, and other clients
    /// only the regular one.
    pub(super) short_lived: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offers = |protocol: &&[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|one| one == *protocol));
        let is_http3 = PROTOCOLS.iter().find(|protocol| offers(protocol)) == Some(&ALPN_WEBTRANSPORT);
        let shown = self.short_lived.as_ref().filter(|_| is_http3).unwrap_or(&self.regular);
        Some(Arc::clone(shown))
    }
}

/// The names for a short-lived certificate, if the server needs one: if the setting says so, or by default if the
/// regular certificate is for development.
pub(super) fn wanted(setting: Option<bool>, regular: &CertificateDer<'_>) -> Option<Vec<String>> {
    if !setting.unwrap_or_else(|| is_for_development(regular)) {
        return None;
    }
    let regular = X509Certificate::from_der(regular).ok().map(|(_, regular)| regular);
    Some(regular.as_ref().map(names).unwrap_or_default())
}

/// The DNS names and IP addresses of a certificate.
pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect()
}

/// Whether a certificate is a development certificate of this program.
pub(super) fn is_for_development(certificate: &CertificateDer<'_>) -> bool {
    let certificate = X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate);
    let mut issuers = certificate.iter().flat_map(|certificate| certificate.issuer().iter_common_name());
    issuers.any(|name| name.as_str() == Ok(AUTHORITY))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match *name {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};

    use super::*;

    fn named(names: &[&str], issuer: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let params = params.as_mut().expect("parameters");
        if let Some(issuer) = issuer {
            params.distinguished_name.push(DnType::CommonName, issuer);
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn browsers_accept_it() {
        let now = SystemTime::now();
        let made = Certificate::make(vec!["localhost".into(), "::1".into()], now).expect("made");
        let der = &made.key.cert[0];
        let (_, read) = X509Certificate::from_der(der).expect("a certificate");
        let holds = read.validity();
        assert!(holds.is_valid());
        assert_eq!(holds.not_after.timestamp() - holds.not_before.timestamp(), 13 * 24 * 60 * 60, "at most 14 days");
        assert_eq!(u64::try_from(holds.not_after.timestamp()).expect("after 1970") * 1000, made.hash.not_after);
        let algorithm = &read.public_key().algorithm;
        assert_eq!(algorithm.algorithm, OID_KEY_TYPE_EC_PUBLIC_KEY);
        assert_eq!(algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok()), Some(OID_EC_P256));
        assert_eq!(wanted(Some(true), der), Some(vec!["localhost".into(), "::1".into()]), "it has the names");
        assert_eq!(read.issuer(), read.subject(), "it is self-signed");
    }

    #[test]
    fn it_is_used_for_twelve_days_unless_the_clock_is_set_back_before_its_start() {
        let now = SystemTime::now();
        let names = ["localhost".to_owned()];
        let mut made = Certificate::make(names.to_vec(), now).expect("made");
        for (at, left) in [
            (now, SHOWN),
            (now - HOUR / 2, SHOWN + HOUR / 2),
            (now + 11 * DAY, DAY),
            (now + 12 * DAY, Duration::ZERO),
            (now + 20 * DAY, Duration::ZERO),
            (now - DAY, Duration::ZERO),
        ] {
            assert_eq!(made.left(at), left);
            assert_eq!(made.serves(&names, at), !left.is_zero());
        }
        assert!(!made.serves(&["other".to_owned()], now));
        made.extend(now + 12 * DAY);
        assert_eq!(made.left(now + 12 * DAY), HOUR);
    }

    #[test]
    fn one_is_made_for_a_development_certificate_or_by_the_setting() {
        let (own, foreign) = (named(&["a.example", "192.0.2.7"], Some(AUTHORITY)), named(&["*.b.example"], Some("CA")));
        let none: Option<Vec<String>> = None;
        let both: Option<Vec<String>> = Some(vec!["a.example".into(), "192.0.2.7".into()]);
        assert_eq!(
            [None, Some(true), Some(false)].map(|setting| wanted(setting, &own)),
            [both.clone(), both, none.clone()]
        );
        let one: Option<Vec<String>> = Some(vec!["*.b.example".into()]);
        assert_eq!(
            [None, Some(true), Some(false)].map(|setting| wanted(setting, &foreign)),
            [none.clone(), one, none.clone()]
        );
        let unread = CertificateDer::from_slice(b"no certificate");
        assert_eq!([None, Some(true)].map(|setting| wanted(setting, &unread)), [none, Some(Vec::new())]);
    }
}
