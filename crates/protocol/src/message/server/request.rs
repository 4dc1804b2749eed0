//! `request` and `reply`, as the server passes them on.

use crate::message::{Failure, Payload, Sender};

/// The fields of the server's `request`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Called {
    /// The request's own number, opaque; a reply repeats it.
    pub request: String,
    /// The topic that it was sent to; absent if it was addressed to this client or its user.
    pub topic: Option<String>,
    /// The client that asks; absent if it is the server's operator.
    pub from: Option<Sender>,
    /// The content.
    pub payload: Payload,
    /// The server's time, in Unix milliseconds.
    pub timestamp: u64,
    /// How long the reply may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Called {
    /// A request without a sender, addressed to the client itself.
    pub fn new(request: impl Into<String>, payload: Payload, timestamp: u64, timeout_ms: u64) -> Self {
        Self { request: request.into(), topic: None, from: None, payload, timestamp, timeout_ms }
    }
}

/// The fields of the server's `reply`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replied {
    /// The client that answered; absent if the server's operator did.
    pub from: Option<Sender>,
    /// The content; it may be empty for a failure.
    pub payload: Payload,
    /// Why the request failed, if the client that answered says so.
    pub failure: Option<Failure>,
    /// The server's time, in Unix milliseconds.
    pub timestamp: u64,
}

impl Replied {
    /// An answer with a content.
    pub fn new(from: Option<Sender>, payload: Payload, timestamp: u64) -> Self {
        Self { from, payload, failure: None, timestamp }
    }
}
