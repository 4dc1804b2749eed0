//! TLS over TCP that does not come about. Most of it is noise; a peer that speaks no version which is spoken here may be the
//! operator's own proxy, and then nothing works and nobody says why.

use std::io;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, info};

use super::listener::TOLD_AGAIN;
use crate::Printable;

/// When it was last told at `info`.
#[derive(Debug, Default)]
pub(crate) struct TlsFailures(Mutex<Option<Instant>>);

impl TlsFailures {
    /// Tells of one. Of peers that are too old `info` is told once a minute: anybody can be one.
    pub(super) fn tell(&self, from: SocketAddr, error: &io::Error) {
        let text = error.to_string();
        let excerpt = Printable::excerpt(&text);
        if is_too_old(error) && self.is_due() {
            info!(
                peer = %from,
                "TLS with {from} over TCP refused, as it speaks no version that is spoken here: {excerpt}. If that is a proxy of yours, have it \
                 speak TLS 1.3, or set tls.tcp_min_version = \"1.2\"; see docs/PROXIES.md"
            );
        } else {
            debug!(peer = %from, "TLS with {from} over TCP failed: {excerpt}");
        }
    }

    fn is_due(&self) -> bool {
        let mut told = self.0.lock();
        let is_due = told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }
}

/// Whether the peer offers no version that is spoken here.
fn is_too_old(error: &io::Error) -> bool {
    use rustls::PeerIncompatible::{SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled};

    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(
        error,
        Some(rustls::Error::PeerIncompatible(
            SupportedVersionsExtensionRequired | Tls12NotOfferedOrEnabled | Tls12NotOffered
        ))
    )
}
