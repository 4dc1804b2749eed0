//! Why a connection has ended, and why a lane takes or brings nothing more.

use quic_websocket_protocol::frame::FrameError;
use quinn::{ConnectionError, ReadError};
use thiserror::Error;

/// Why a connection is there no more.
#[derive(Debug, Clone, Error)]
pub enum Disconnected {
    /// The peer closed it.
    #[error("closed with {code}")]
    Closed {
        /// What it said, as the carrier tells it.
        code: u64,
        /// As far as it is UTF-8.
        reason: String,
    },
    /// The peer did not keep to what carries it, and was closed for that.
    #[error("{0}")]
    Broken(&'static str),
    /// Nobody did, or without a code.
    #[error("{0}")]
    Lost(String),
}

impl From<ConnectionError> for Disconnected {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Lost(other.to_string()),
        }
    }
}

/// Why no further body comes from a lane.
#[derive(Debug, Clone, Error)]
pub enum ReadFailure {
    /// The stream breaks the framing rules.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It breaks those of its carrier.
    #[error("{reason}")]
    Broken {
        /// The closing code for that.
        code: u16,
        /// What was wrong.
        reason: String,
    },
    /// The stream was reset, or the connection is gone.
    #[error(transparent)]
    Stream(#[from] ReadError),
    /// The connection is gone.
    #[error(transparent)]
    Disconnected(Disconnected),
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendFailure {
    /// The backlog is full: the peer does not read fast enough.
    #[error("the backlog is full")]
    Full,
    /// The peer wants no more of this lane.
    #[error("the lane was stopped")]
    Stopped,
    /// The lane has ended, or the connection is gone.
    #[error("the lane is closed")]
    Closed,
}
