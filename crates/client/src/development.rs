//! Where the development certificates are.

use std::path::PathBuf;

/// The environment variable that names their folder.
const VARIABLE: &str = "QUIC_WEBSOCKET_CERTS";

/// The folder that the environment variable `QUIC_WEBSOCKET_CERTS` names, else `certs` in the current folder. The
/// server makes its development certificates there, and clients look there for the authority that signed them.
pub fn development_folder() -> PathBuf {
    let named = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty());
    named.map_or_else(|| PathBuf::from("certs"), PathBuf::from)
}
