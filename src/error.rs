//! What can go wrong with a server as a whole. Each room has its own errors; these are those that end it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use thiserror::Error;

use crate::auth::AuthError;
use crate::config::ConfigError;
use crate::tls::TlsError;

/// Why a server did not start, or ended.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The address cannot be had.
    #[error("cannot listen on UDP {addr}: {}", unlistenable(*addr, cause, "--addr"))]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The address for HTTP cannot be had.
    #[error(
        "cannot listen on TCP {addr}: {}, or do without HTTP and WebSocket (http.enabled = false)",
        unlistenable(*addr, cause, setting)
    )]
    BindTcp {
        /// The address asked for.
        addr: SocketAddr,
        /// The setting for it.
        setting: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for an admin token; set http.admin_token")]
    Random,
    /// A worker could not start, or ended before it was asked to.
    #[error("worker {worker}: {message}")]
    Worker {
        /// Its number, from 0.
        worker: usize,
        /// What happened.
        message: String,
    },
}

/// Why an address cannot be had, and what to do.
fn unlistenable(addr: SocketAddr, cause: &io::Error, setting: &str) -> String {
    let any = if addr.is_ipv6() { "[::]" } else { "0.0.0.0" };
    match cause.kind() {
        ErrorKind::AddrInUse => {
            format!("another program listens there already; end it, or choose another port with {setting}")
        }
        ErrorKind::AddrNotAvailable => format!(
            "this machine has no such address; choose one of its own with {setting}, or {any}:{} for all of them",
            addr.port()
        ),
        ErrorKind::PermissionDenied => format!(
            "this user may not; ports below 1024 take a right of their own (CAP_NET_BIND_SERVICE on Linux); grant it, or \
             choose another port with {setting}"
        ),
        _ if addr.is_ipv6() => format!("{cause}; choose an IPv4 address with {setting} if this machine has no IPv6"),
        _ => format!("{cause}; choose another with {setting}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_address_cannot_be_had_is_told_with_what_to_do() {
        let told = |kind: ErrorKind| {
            let (addr, cause) = (SocketAddr::from(([192, 0, 2, 1], 443)), kind.into());
            ServerError::BindTcp { addr, setting: "http.addr", cause }.to_string()
        };
        let taken = told(ErrorKind::AddrInUse);
        assert!(taken.contains("TCP 192.0.2.1:443: another program listens there"), "{taken}");
        let foreign = told(ErrorKind::AddrNotAvailable);
        assert!(foreign.contains("no such address") && foreign.contains("0.0.0.0:443"), "{foreign}");
        assert!(!foreign.contains("another program"), "{foreign}");
        let forbidden = told(ErrorKind::PermissionDenied);
        assert!(forbidden.contains("CAP_NET_BIND_SERVICE") && forbidden.contains("http.addr"), "{forbidden}");
    }
}
