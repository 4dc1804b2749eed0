//! Errors of the settings, phrased for users: what is wrong, where it was set, and what to do.

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
        /// The system's error.
        cause: io::Error,
    },
    /// The file or a variable of the environment is malformed.
    #[error("{origin}: {message}")]
    Parse {
        /// The file and line, or the variable.
        origin: String,
        /// The problem.
        message: String,
    },
    /// A setting is wrong, and its place is known.
    #[error("{place}: {error}")]
    At {
        /// Where it was set.
        place: Place,
        /// The problem.
        error: Box<Self>,
    },
    /// The server's name is invalid.
    #[error("setting name = {name:?}: {NAME_BOUNDS}")]
    Name {
        /// The value, cut after 100 characters.
        name: String,
    },
    /// A setting has no meaning without another.
    #[error("setting {setting} needs {other}: set that too, or leave both out")]
    Needs {
        /// The setting with its table.
        setting: &'static str,
        /// The missing setting.
        other: &'static str,
    },
    /// A rule for topics wants a disk, and there is no store.
    #[error("setting {setting} needs store.dir: name a directory there, or set memory")]
    NeedsStore {
        /// The setting with its rule.
        setting: String,
    },
    /// Two settings that exclude each other.
    #[error("setting {setting} cannot be used with {other}: {why}")]
    Excluded {
        /// The setting with its table.
        setting: &'static str,
        /// The other setting.
        other: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// A setting of `[auth]` that no token, or no token of one key, could satisfy.
    #[error("setting {setting}: {why}")]
    Auth {
        /// The setting with its table.
        setting: String,
        /// The problem and the remedy.
        why: String,
    },
    /// A rule for topics that makes no sense.
    #[error("setting {setting}: {why}")]
    Rule {
        /// The rule's number, from 0, and the setting.
        setting: String,
        /// The problem and the remedy.
        why: &'static str,
    },
    /// An address that browsers cannot use as a STUN or TURN server.
    #[error("setting {setting}: {server:?}: {why}")]
    IceServer {
        /// The list that contains it.
        setting: &'static str,
        /// The expected form.
        why: &'static str,
        /// The value, cut after 100 characters.
        server: String,
    },
    /// An address that other machines can reach, for a listener without TLS.
    #[error("setting {setting} = {addr}: without TLS only loopback addresses are allowed; use 127.0.0.1 or ::1")]
    NotLoopback {
        /// The setting with its table.
        setting: &'static str,
        /// The value.
        addr: SocketAddr,
    },
    /// The admin token is too short, too long or contains other characters.
    #[error("setting http.admin_token: expected 16 to 512 visible ASCII characters; openssl rand -hex 32 creates one")]
    AdminToken,
    /// A value is out of bounds.
    #[error("setting {setting} = {value}: expected {allowed}")]
    OutOfBounds {
        /// The setting with its table.
        setting: String,
        /// The value.
        value: u64,
        /// The allowed range.
        allowed: String,
    },
}

impl ConfigError {
    /// The wrong setting with its tables, if the error is about one.
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::At { error, .. } => error.setting(),
            // After the name there may be "(how many)".
            Self::Rule { setting, .. } => Some(setting),
            Self::OutOfBounds { setting, .. } => setting.split(' ').next(),
            Self::NeedsStore { setting } => Some(setting),
            Self::Needs { setting, .. } | Self::Excluded { setting, .. } | Self::IceServer { setting, .. } => {
                Some(setting)
            }
            Self::Name { .. } => Some("name"),
            Self::NotLoopback { setting, .. } => Some(setting),
            // After `auth.keys` there may be the number and the field of a key.
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
            "permission denied; let the user that runs this server read it and the folders above it (chown, chmod)"
        }
        ErrorKind::IsADirectory => "it is a folder; name the file in it with --config",
        ErrorKind::InvalidData => "it is not UTF-8 text; save it as UTF-8",
        _ => return format!("{cause}; check the path given with --config"),
    };
    todo.to_owned()
}
