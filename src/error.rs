//! What can go wrong with a server as a whole. Each room has its own errors; these are those that end it.

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
    #[error("cannot listen on UDP {addr}: {cause}; is another server running there? Choose another with --addr")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The address for HTTP cannot be had.
    #[error(
        "cannot listen on TCP {addr}: {cause}; choose another with {setting}, or do without HTTP and WebSocket (http.enabled = false)"
    )]
    BindTcp {
        /// The address asked for.
        addr: SocketAddr,
        /// The setting for it.
        setting: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A worker could not start, or ended before it was asked to.
    #[error("worker {worker}: {message}")]
    Worker {
        /// Its number, from 0.
        worker: usize,
        /// What happened.
        message: String,
    },
}
