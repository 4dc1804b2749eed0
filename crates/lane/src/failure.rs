//! Reasons for the end of a connection, and for a lane that neither accepts nor yields anything more.

use quic_websocket_protocol::frame::FrameError;
use quinn::{ConnectionError, ReadError};
use thiserror::Error;

/// Reason why a connection no longer exists.
#[derive(Debug, Clone, Error)]
pub enum Disconnected {
    /// The peer closed it.
    #[error("closed with {code}")]
    Closed {
        /// Closing code, as the carrier reports it.
        code: u64,
        /// Reason text, lossily decoded.
        reason: String,
    },
    /// The peer broke the carrier's protocol, and the connection was closed for it.
    #[error("{0}")]
    Broken(&'static str),
    /// The connection was lost, or closed without a code.
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

/// Reason why a lane yields no further body.
#[derive(Debug, Clone, Error)]
pub enum ReadFailure {
    /// The stream breaks the framing rules.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer broke the rules of the carrier.
    #[error("{reason}")]
    Broken {
        /// Closing code for it.
        code: u16,
        /// What was wrong, for the peer.
        reason: String,
    },
    /// The stream was reset, or the connection has ended.
    #[error(transparent)]
    Stream(#[from] ReadError),
    /// The connection has ended.
    #[error(transparent)]
    Disconnected(Disconnected),
}

/// Reason why a frame was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendFailure {
    /// The backlog is full: the peer does not read fast enough.
    #[error("the backlog is full")]
    Full,
    /// The peer stopped this lane.
    #[error("the lane was stopped")]
    Stopped,
    /// The lane or the connection has ended.
    #[error("the lane is closed")]
    Closed,
}
