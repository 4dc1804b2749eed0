//! Errors of the client library.

use std::time::Duration;

use thiserror::Error;

use crate::message::{CloseCode, ErrorReply, Invalid};
use crate::tls::TlsError;

/// Why a call on a [`Client`](super::Client) did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server's address is no `host:port`, or its host is not known.
    #[error("cannot find server {server}: {message}; expected host:port, such as 127.0.0.1:4433")]
    Address {
        /// As it was given.
        server: String,
        /// What is wrong with it.
        message: String,
    },
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name, a topic, a key or a close is out of its bounds.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No UDP socket could be had.
    #[error("no UDP socket for the connection: {0}")]
    Socket(std::io::Error),
    /// None of the carriers that are allowed can be used.
    #[error("no way to connect: allow QUIC or WebSocket")]
    NoCarrier,
    /// The program that is asked for a token gave none that can be shown.
    #[error("no token to show: {message}")]
    Token {
        /// What went wrong.
        message: String,
    },
    /// There are no further lanes on a WebSocket.
    #[error("a WebSocket has one lane; send requests without a lane of their own, or connect over QUIC alone")]
    OneLane,
    /// Nobody answered.
    #[error("no answer from {server} within {within:?}: is the server running there, and does UDP reach it?")]
    NoAnswer {
        /// The server.
        server: String,
        /// How long was waited.
        within: Duration,
    },
    /// The server shows a certificate that is not trusted.
    #[error("the certificate of {server} is not trusted: {message}; {}", hint(.message))]
    Untrusted {
        /// The server.
        server: String,
        /// What is wrong with the certificate.
        message: String,
    },
    /// The server does not take the client's certificate, or wants one and got none.
    #[error(
        "{server} refused the client's certificate: {message}; name one that the server trusts with --cert and --key"
    )]
    Certificate {
        /// The server.
        server: String,
        /// In its words.
        message: String,
    },
    /// The connection failed.
    #[error("connection to {server} failed: {message}")]
    Connection {
        /// The server.
        server: String,
        /// What happened.
        message: String,
    },
    /// The server did not let the client in.
    #[error("{server} refused the handshake: {reason} (close code {code})")]
    Refused {
        /// The server.
        server: String,
        /// With which code it closed.
        code: CloseCode,
        /// Why.
        reason: String,
        /// When it lets another one in, where it said so.
        retry_after: Option<Duration>,
    },
    /// The connection was lost before the reply came; whether the request was carried out is not known.
    #[error("the connection was lost before the reply came")]
    Lost,
    /// The client is closed.
    #[error("the client is closed: {code} - {reason}")]
    Closed {
        /// With which code.
        code: CloseCode,
        /// Why.
        reason: String,
    },
    /// No reply, no connection or no room on the connection, in time. What was to be sent may still be sent.
    #[error("not done within {0:?}: the server is slow or out of reach")]
    Timeout(Duration),
    /// The server answered with an error.
    #[error("the server answered with error {}: {}", .0.code, .0.message)]
    Server(ErrorReply),
    /// The client has a subscription to this very text.
    #[error("this client is subscribed to {topic} already: read that subscription, or end it first")]
    AlreadySubscribed {
        /// The topic or pattern.
        topic: String,
    },
    /// The server answered with something else than the request asks for.
    #[error("the server answered {asked} with {got}")]
    Unexpected {
        /// The type of the request.
        asked: &'static str,
        /// The type of the reply.
        got: &'static str,
    },
    /// The message is larger than the server takes.
    #[error("a message of {bytes} bytes; the server takes at most {most}")]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
        /// The server's `max_message_bytes`.
        most: usize,
    },
}

impl ClientError {
    /// How long to wait before the same is asked again, where the server refused it because that was asked too often (429).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(error) => error.retry_after_ms.map(Duration::from_millis),
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What to do about a certificate that is not trusted, by what TLS says is wrong with it.
fn hint(message: &str) -> &'static str {
    let is = |what: &[&str]| what.iter().any(|what| message.contains(what));
    if is(&["expired", "Expired"]) {
        "the server needs a new one, or this machine's clock is wrong (generate_certs.sh makes new ones for development)"
    } else if is(&["not valid yet", "NotValidYet"]) {
        "this machine's clock, or that of the machine that made the certificate, is wrong"
    } else if is(&["not valid for name", "NotValidForName"]) {
        "connect by a name that is in the certificate, or have the server show one with this name"
    } else if is(&["CaUsedAsEndEntity"]) {
        "it is that of an authority (CA:TRUE), as `openssl req -x509` makes it: no server may show one, so have the server \
         show another, made with -addext basicConstraints=critical,CA:FALSE or signed by this one"
    } else if is(&["UnknownIssuer", "BadSignature"]) {
        "name the authority that signed it with --ca FILE"
    } else {
        "have the server show another one, or name the authority that signed it with --ca FILE"
    }
}
