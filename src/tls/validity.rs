//! The validity of a certificate. Pure: callers pass the time.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Validity of a certificate, in seconds since 1970; earlier times count as 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    begins: u64,
    ends: u64,
}

/// State of a certificate at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    NotYetValid,
    Valid,
    Expired,
}

impl Validity {
    /// The validity of a certificate; `None` if it cannot be parsed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let [begins, ends] = [certificate.validity().not_before, certificate.validity().not_after]
            .map(|time| u64::try_from(time.timestamp()).unwrap_or(0));
        Some(Self { begins, ends })
    }

    pub(crate) fn phase(self, now: SystemTime) -> Phase {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        match now {
            _ if self.ends < now => Phase::Expired,
            _ if self.begins > now => Phase::NotYetValid,
            _ => Phase::Valid,
        }
    }

    /// The end, in seconds since 1970.
    pub(crate) fn ends(self) -> u64 {
        self.ends
    }

    /// Remaining validity; zero after the end.
    pub(crate) fn left(self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.ends).saturating_sub(now)
    }

    /// Total validity.
    pub(crate) fn lasts(self) -> Duration {
        Duration::from_secs(self.ends.saturating_sub(self.begins))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A validity of these seconds since 1970.
    pub(in crate::tls) fn validity(begins: u64, ends: u64) -> Validity {
        Validity { begins, ends }
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_second_to_its_last() {
        let validity = validity(100, 200);
        let at = |seconds| validity.phase(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([99, 100, 200, 201].map(at), [Phase::NotYetValid, Phase::Valid, Phase::Valid, Phase::Expired]);
    }
}
