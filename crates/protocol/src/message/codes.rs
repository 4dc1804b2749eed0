//! The two sets of numbers of the protocol: `error` codes (after HTTP) and closing codes (WebSocket's, on every
//! carrier).

use std::fmt;

/// The `code` of an `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Malformed, unknown, or out of bounds.
    BadRequest = 400,
    /// Token missing or invalid.
    Unauthorized = 401,
    /// Not allowed.
    Forbidden = 403,
    /// No such client or subscription, or the server keeps no such data.
    NotFound = 404,
    /// In conflict with the current state.
    Conflict = 409,
    /// Too large.
    TooLarge = 413,
    /// Too many requests; `retry_after_ms` has the time to wait.
    RateLimited = 429,
    /// Cancelled by the client that asked.
    Cancelled = 499,
    /// An error of the server.
    Internal = 500,
    /// Known to the protocol, but not supported by this server.
    NotServed = 501,
    /// The client that was to answer a request has left, or answers no more.
    ResponderLeft = 502,
    /// The server is overloaded, or its storage is unavailable.
    Unavailable = 503,
    /// A request was not answered in time.
    NoReply = 504,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        code.number()
    }
}

/// Closing code of a connection: RFC 6455 section 7.4, and the project's own from 4000 on.
///
/// A number with named constants, not an enum, because a peer can send any `u16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Normal end.
    pub const NORMAL: Self = Self(1000);
    /// The server is shutting down.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Unsupported data.
    pub const UNSUPPORTED: Self = Self(1003);
    /// The connection ended without a code. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// Three bodies in a row that could not be decoded.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// Policy violation.
    pub const POLICY: Self = Self(1008);
    /// Message too large.
    pub const TOO_BIG: Self = Self(1009);
    /// An error of the server.
    pub const INTERNAL: Self = Self(1011);
    /// The server is restarting.
    pub const RESTART: Self = Self(1012);
    /// The server is full: try again later.
    pub const TRY_LATER: Self = Self(1013);
    /// Token missing, invalid or expired.
    pub const UNAUTHORIZED: Self = Self(4401);
    /// Not allowed.
    pub const FORBIDDEN: Self = Self(4403);
    /// No handshake, no sign of life, or no end of a message in time.
    pub const TIMEOUT: Self = Self(4408);
    /// The client did not read fast enough, and its backlog filled up.
    pub const SLOW_CONSUMER: Self = Self(4413);
    /// The client ignored the rate limit.
    pub const RATE_LIMITED: Self = Self(4429);

    /// The codes with a name, in ascending order.
    pub const NAMED: [Self; 16] = [
        Self::NORMAL,
        Self::GOING_AWAY,
        Self::PROTOCOL_ERROR,
        Self::UNSUPPORTED,
        Self::ABNORMAL,
        Self::INVALID_PAYLOAD,
        Self::POLICY,
        Self::TOO_BIG,
        Self::INTERNAL,
        Self::RESTART,
        Self::TRY_LATER,
        Self::UNAUTHORIZED,
        Self::FORBIDDEN,
        Self::TIMEOUT,
        Self::SLOW_CONSUMER,
        Self::RATE_LIMITED,
    ];

    /// Whether a client may send it: 1000-1003, 1007-1014, 3000-4999 (RFC 6455 section 7.4.2).
    pub fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether a client may reconnect by itself after this code (docs/PROTOCOL.md, "Closing").
    pub fn may_reconnect(self) -> bool {
        matches!(self.0, 1001 | 1006 | 1011 | 1012 | 1013 | 4408 | 4413)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_of_temporary_conditions_allow_a_reconnect() {
        let temporary: Vec<u16> = (0..=u16::MAX).filter(|&code| CloseCode(code).may_reconnect()).collect();
        assert_eq!(temporary, [1001, 1006, 1011, 1012, 1013, 4408, 4413]);
        for reserved in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert!(!CloseCode(reserved).is_sendable(), "{reserved} must not be sent");
        }
    }
}
