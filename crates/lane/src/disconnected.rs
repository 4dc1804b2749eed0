//! Why a connection has ended.

use quinn::ConnectionError;
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
