//! Errors that end a whole server. Each room has its own errors; these are the ones that `Server` returns.

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
    /// The store of durable topics cannot be used.
    #[error("store.dir: {0}")]
    Store(#[from] quic_websocket_store::OpenError),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The server cannot listen on its UDP address.
    #[error("cannot listen on UDP {addr}: {}", cannot_listen(*addr, cause, "--addr"))]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The server cannot listen on an address for HTTP.
    #[error(
        "cannot listen on TCP {addr}: {}, or turn HTTP and WebSocket off (http.enabled = false)",
        cannot_listen(*addr, cause, setting)
    )]
    BindTcp {
        /// The address.
        addr: SocketAddr,
        /// The setting that contains it.
        setting: &'static str,
        /// The system's error.
        cause: io::Error,
    },
    /// The system provides no random bytes.
    #[error("the system provides no random bytes for an admin token; set http.admin_token")]
    Random,
    /// A worker could not start, or ended before the server did.
    #[error("worker {worker}: {message}")]
    Worker {
        /// The worker's number, from 0.
        worker: usize,
        /// The problem.
        message: String,
    },
}

/// Why the server cannot listen on an address, and what to do.
fn cannot_listen(addr: SocketAddr, cause: &io::Error, setting: &str) -> String {
    let any = if addr.is_ipv6() { "[::]" } else { "0.0.0.0" };
    match cause.kind() {
        ErrorKind::AddrInUse => {
            format!("another program already listens there; stop it, or choose another port with {setting}")
        }
        ErrorKind::AddrNotAvailable => format!(
            "this machine does not have that address; choose one of its own with {setting}, or {any}:{} for all",
            addr.port()
        ),
        ErrorKind::PermissionDenied => format!(
            "permission denied; ports below 1024 require a privilege (CAP_NET_BIND_SERVICE on Linux); grant it, or \
             choose another port with {setting}"
        ),
        _ if addr.is_ipv6() => format!("{cause}; choose an IPv4 address with {setting} if this machine has no IPv6"),
        _ => format!("{cause}; choose another address with {setting}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_about_an_address_name_the_remedy() {
        let told = |kind: ErrorKind| {
            let (addr, cause) = (SocketAddr::from(([192, 0, 2, 1], 443)), kind.into());
            ServerError::BindTcp { addr, setting: "http.addr", cause }.to_string()
        };
        let taken = told(ErrorKind::AddrInUse);
        assert!(taken.contains("TCP 192.0.2.1:443: another program already listens there"), "{taken}");
        let foreign = told(ErrorKind::AddrNotAvailable);
        assert!(foreign.contains("does not have that address") && foreign.contains("0.0.0.0:443"), "{foreign}");
        assert!(!foreign.contains("another program"), "{foreign}");
        let forbidden = told(ErrorKind::PermissionDenied);
        assert!(forbidden.contains("CAP_NET_BIND_SERVICE") && forbidden.contains("http.addr"), "{forbidden}");
    }
}
