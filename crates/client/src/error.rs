//! Errors of the client library.

use std::time::Duration;

use thiserror::Error;

use crate::message::{CloseCode, ErrorReply, Failure, Invalid, Payload, Sender};
use crate::tls::TlsError;

/// The error of a call on a [`Client`](super::Client).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server's address is not `host:port`.
    #[error("cannot find server {server}: {message}; expected host:port, such as 127.0.0.1:4433")]
    #[non_exhaustive]
    Address {
        /// The address as it was given.
        server: String,
        /// The problem.
        message: String,
    },
    /// The certificates to trust, or the client's own, cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name, a topic, a key, a close or a reply is not within its bounds.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A UDP socket cannot be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(std::io::Error),
    /// None of the allowed transports can be used.
    #[error("no transport to connect with: allow QUIC or WebSocket")]
    NoCarrier,
    /// The function of [`token_from`](super::ClientBuilder::token_from) returned no usable token.
    #[error("no token: {message}")]
    #[non_exhaustive]
    Token {
        /// The reason.
        message: String,
    },
    /// A WebSocket has no request lanes.
    #[error("a WebSocket has one lane; send requests without a lane of their own, or connect over QUIC only")]
    OneLane,
    /// The server did not answer in time.
    #[error("no answer from {server} within {within:?}: is the server running there, and can it be reached?")]
    #[non_exhaustive]
    NoAnswer {
        /// The server.
        server: String,
        /// The time limit.
        within: Duration,
    },
    /// The server's certificate is not trusted: [`Trust`](crate::Trust) chooses the authorities that are.
    #[error("the certificate of {server} is not trusted: {}; {}", in_words(.message), hint(.message))]
    #[non_exhaustive]
    Untrusted {
        /// The server.
        server: String,
        /// The problem with the certificate.
        message: String,
    },
    /// The server rejected the client's certificate, or requires one and got none:
    /// [`ClientBuilder::certificate`](crate::ClientBuilder::certificate) sets it.
    #[error("{server} refused the client's certificate: {message}; use one that the server trusts")]
    #[non_exhaustive]
    Certificate {
        /// The server.
        server: String,
        /// The server's reason.
        message: String,
    },
    /// The connection failed, or the server's host name cannot be resolved.
    #[error("connection to {server} failed: {message}")]
    #[non_exhaustive]
    Connection {
        /// The server.
        server: String,
        /// The reason.
        message: String,
    },
    /// The server refused the handshake.
    #[error("{server} refused the handshake: {reason} (close code {code})")]
    #[non_exhaustive]
    Refused {
        /// The server.
        server: String,
        /// The close code.
        code: CloseCode,
        /// The reason.
        reason: String,
        /// When to try again, if the server named a time.
        retry_after: Option<Duration>,
    },
    /// The connection was lost before the reply came. The request may have been carried out, or not.
    #[error("the connection was lost before the reply came")]
    Lost,
    /// The client is closed.
    #[error("the client is closed: {code} - {reason}")]
    #[non_exhaustive]
    Closed {
        /// The close code.
        code: CloseCode,
        /// The reason.
        reason: String,
    },
    /// No reply, no connection or no room on the connection in time. The message may still be sent.
    #[error("not done within {0:?}: the server is slow or out of reach")]
    Timeout(Duration),
    /// The server answered with an error.
    #[error("the server answered with error {}: {}", .0.code, .0.message)]
    Server(ErrorReply),
    /// The client that had a request has answered that it failed: [`Client::request`](super::Client::request).
    #[error("the request failed: {} ({})", .0.failure.message, .0.failure.code)]
    Failed(Box<FailedRequest>),
    /// The client already has a subscription to this topic or pattern.
    #[error("this client is already subscribed to {topic}: read that subscription, or end it first")]
    #[non_exhaustive]
    AlreadySubscribed {
        /// The topic or pattern.
        topic: String,
    },
    /// The server answered with a reply of another type than the request asks for.
    #[error("the server answered {asked} with {got}")]
    #[non_exhaustive]
    Unexpected {
        /// The type of the request.
        asked: &'static str,
        /// The type of the reply.
        got: &'static str,
    },
    /// The message is larger than the server accepts.
    #[error("the message has {bytes} bytes; the server accepts at most {most}")]
    #[non_exhaustive]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
        /// The server's `max_message_bytes`.
        most: usize,
    },
}

/// A request that another client has answered with a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedRequest {
    /// Its code and reason.
    pub failure: Failure,
    /// The client that answered.
    pub from: Option<Sender>,
    /// What it said besides; empty in most cases.
    pub payload: Payload,
}

impl ClientError {
    /// How long to wait before the next attempt, if the server named a time: for error 429, or a refused handshake.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(error) => error.retry_after_ms.map(Duration::from_millis),
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Why a certificate is not trusted: the message of the TLS library, with its code words in plain ones.
fn in_words(message: &str) -> &str {
    if message.contains("UnknownIssuer") {
        return "it is signed by an unknown authority";
    }
    if message.contains("BadSignature") {
        return "its signature is not by the authority that it names";
    }
    if message.contains("CaUsedAsEndEntity") {
        return "it is not one for a server";
    }
    message.strip_prefix("invalid peer certificate: ").unwrap_or(message)
}

/// The remedy for a certificate that is not trusted, by the message of the TLS library.
fn hint(message: &str) -> &'static str {
    let is = |what: &[&str]| what.iter().any(|what| message.contains(what));
    if is(&["expired", "Expired"]) {
        "the server needs a new one, or this machine's clock is wrong"
    } else if is(&["not valid yet", "NotValidYet"]) {
        "this machine's clock, or that of the machine that made the certificate, is wrong"
    } else if is(&["not valid for name", "NotValidForName"]) {
        "connect by a name that is in the certificate, or give the server one with this name"
    } else if is(&["CaUsedAsEndEntity"]) {
        "it is that of an authority (CA:TRUE), as `openssl req -x509` makes it, which no server may use: give the \
         server another, made with -addext basicConstraints=critical,CA:FALSE or signed by this one"
    } else if is(&["UnknownIssuer", "BadSignature"]) {
        "trust the authority that signed it"
    } else {
        "give the server another one, or trust the authority that signed it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untrusted_certificate_is_explained_in_plain_words() {
        let said = |message: &str| {
            let (server, message) = ("chat.example:4433".into(), format!("invalid peer certificate: {message}"));
            ClientError::Untrusted { server, message }.to_string()
        };
        for (message, words) in [
            ("UnknownIssuer", "signed by an unknown authority; trust the authority that signed it"),
            ("BadSignature", "not by the authority that it names; trust the authority"),
            ("CaUsedAsEndEntity", "not one for a server; it is that of an authority"),
            ("certificate expired: verification time 2 (UNIX)", "not trusted: certificate expired"),
        ] {
            let said = said(message);
            assert!(said.contains(words) && !said.contains("invalid peer certificate"), "{said}");
        }
    }
}
