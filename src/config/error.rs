//! Why settings cannot be used, in words for whoever set them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::Place;
use crate::message::NAME_BOUNDS;

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {}", path.display(), unreadable(cause))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file, or the environment, does not hold what settings look like.
    #[error("{origin}: {message}")]
    Parse {
        /// Where it stands.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// A setting is wrong, and it is known where it was set.
    #[error("{place}: {error}")]
    At {
        /// Where.
        place: Place,
        /// What is wrong with it.
        error: Box<Self>,
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
    /// A setting of `[auth]` with which no token, or none of a key, could ever be taken.
    #[error("setting {setting}: {why}")]
    Auth {
        /// Its name, with its table.
        setting: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// No server that browsers can use for WebRTC.
    #[error("setting {setting}: {server:?}: {why}")]
    IceServer {
        /// Which of the two lists.
        setting: &'static str,
        /// What is expected.
        why: &'static str,
        /// What stands there, the first 100 characters.
        server: String,
    },
    /// An address beyond this machine for what goes without TLS.
    #[error("setting {setting} = {addr}: what goes without TLS stays on this machine; use 127.0.0.1 or ::1")]
    NotLoopback {
        /// Its name, with its table.
        setting: &'static str,
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

impl ConfigError {
    /// The setting that is wrong, with its tables, where the error is about one.
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::At { error, .. } => error.setting(),
            // Where it is about how many there are, that is said behind the name.
            Self::OutOfBounds { setting, .. } => setting.split(' ').next(),
            Self::Needs { setting, .. } | Self::Excluded { setting, .. } | Self::IceServer { setting, .. } => {
                Some(setting)
            }
            Self::Name { .. } => Some("name"),
            Self::NotLoopback { setting, .. } => Some(setting),
            // Of several keys, which and what of it is said behind the name.
            Self::Auth { setting, .. } => setting.split([',', ':']).next(),
            Self::AdminToken => Some("http.admin_token"),
            Self::Read { .. } | Self::Parse { .. } => None,
        }
    }
}

/// Why a file cannot be read, and what to do.
fn unreadable(cause: &io::Error) -> String {
    let todo = match cause.kind() {
        ErrorKind::NotFound => "there is no such file; check the path given with --config",
        ErrorKind::PermissionDenied => {
            "the user that runs this server may not read it; change its owner or mode (chown, chmod), and those of the \
             folders above it"
        }
        ErrorKind::IsADirectory => "it is a folder; name the file in it with --config",
        ErrorKind::InvalidData => "it is not UTF-8 text; save it as UTF-8",
        _ => return format!("{cause}; check the path given with --config"),
    };
    todo.to_owned()
}
