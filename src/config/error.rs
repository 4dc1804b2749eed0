//! Why settings cannot be used, in words for whoever set them.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::message::NAME_BOUNDS;

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {cause}; check the path given with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file, or the environment, does not hold what settings look like.
    #[error("{origin}: {message}")]
    Parse {
        /// Where it stands.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// The server's name is none.
    #[error("setting name = {name:?}: {NAME_BOUNDS}")]
    Name {
        /// What it was set to, the first 100 characters.
        name: String,
    },
    /// A setting that means nothing without another.
    #[error("setting {setting} needs {other}: set that too, or leave both out")]
    Needs {
        /// Its name, with its table.
        setting: &'static str,
        /// The one that is missing.
        other: &'static str,
    },
    /// Two settings that exclude each other.
    #[error("setting {setting} cannot be used with {other}: {why}")]
    Excluded {
        /// One, with its table.
        setting: &'static str,
        /// The other.
        other: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// No origin of a web page.
    #[error("setting http.origins: {origin:?} is no origin; write it as https://app.example.com")]
    Origin {
        /// What stands there, the first 100 characters.
        origin: String,
    },
    /// No server that browsers can use for WebRTC.
    #[error(
        "settings webrtc.stun and webrtc.turn: {server:?} is none; write it as stun:stun.example.com:3478, or turn:turn.example.com"
    )]
    IceServer {
        /// What stands there, the first 100 characters.
        server: String,
    },
    /// An address beyond this machine for what goes without TLS.
    #[error("setting http.plain_addr = {addr}: what goes without TLS stays on this machine; use 127.0.0.1 or ::1")]
    NotLoopback {
        /// What it was set to.
        addr: SocketAddr,
    },
    /// The operator's token is none.
    #[error("setting http.admin_token: 16 to 512 visible ASCII characters are allowed; openssl rand -hex 32 makes one")]
    AdminToken,
    /// A value outside of its bounds.
    #[error("setting {setting} = {value}: {allowed} is allowed")]
    OutOfBounds {
        /// Its name, with its table.
        setting: String,
        /// What it was set to.
        value: u64,
        /// Its bounds.
        allowed: String,
    },
}
