//! Logs failed TLS handshakes over TCP. Most of them are noise, but a peer with only old TLS versions may be the
//! operator's own proxy, which then fails without any other sign.

use std::io;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, info};

use super::listener::LOG_INTERVAL;
use crate::Printable;

/// Time of the last line at `info`.
#[derive(Debug, Default)]
pub(crate) struct TlsFailures(Mutex<Option<Instant>>);

impl TlsFailures {
    /// Logs a failure. Peers with only old versions are logged at `info` at most once a minute, because anybody can be
    /// one.
    pub(super) fn log(&self, from: SocketAddr, error: &io::Error) {
        let text = error.to_string();
        let excerpt = Printable::excerpt(&text);
        if is_too_old(error) && self.is_due() {
            info!(
                peer = %from,
                "TLS with {from} over TCP refused: it supports no TLS version that is allowed here: {excerpt}. If it \
                 is your proxy, let it use TLS 1.3, or set tls.tcp_min_version = \"1.2\"; see docs/PROXIES.md"
            );
        } else {
            debug!(peer = %from, "TLS with {from} over TCP failed: {excerpt}");
        }
    }

    fn is_due(&self) -> bool {
        let mut logged = self.0.lock();
        let is_due = logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if is_due {
            *logged = Some(Instant::now());
        }
        is_due
    }
}

/// Whether the peer offers no allowed TLS version.
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
