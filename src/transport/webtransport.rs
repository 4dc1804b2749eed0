//! WebTransport (draft-ietf-webtrans-http3) on a QUIC connection that speaks HTTP/3: from the settings to the session, and
//! what the end of one means. What follows on its streams is the same as on native QUIC.

use std::error::Error as _;
use std::sync::Arc;

use quinn::{Connection, ConnectionError, VarInt, ZeroRttAccepted};
use thiserror::Error;
use web_transport_quinn::http::{StatusCode, header};
use web_transport_quinn::proto::{self, ConnectRequest};
use web_transport_quinn::{Request, ServerError, Session, SessionError, WebTransportError};

use super::carrier::{Carrier, Gone};
use super::native::{streams, var_int};

/// Where the session is (docs/PROTOCOL.md, "Carriers and frames").
const PATH: &str = "/wt";
/// Unidirectional streams that a client has for HTTP/3 itself: control, QPACK encoder and decoder (RFC 9114 section 6.2).
/// Topics need none of a client's.
const HTTP3_STREAMS: u8 = 3;

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum NoSession {
    /// The client does not speak HTTP/3, has no WebTransport, or is gone.
    #[error("no WebTransport session: {0}{cause}", cause = .0.source().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Failed(#[from] ServerError),
    /// The request was refused, and the client is told so on a connection that is still there.
    #[error("WebTransport session refused with {status}: {why}")]
    Refused {
        /// HTTP's.
        status: StatusCode,
        /// What was wrong.
        why: &'static str,
        /// Dropped, it takes the answer with it.
        session: Box<Session>,
    },
}

impl NoSession {
    /// With what its connection is closed (RFC 9114 section 8.1).
    pub(crate) fn code(&self) -> VarInt {
        const NO_ERROR: u32 = 0x100;
        const GENERAL_PROTOCOL_ERROR: u32 = 0x101;
        VarInt::from_u32(match self {
            Self::Failed(_) => GENERAL_PROTOCOL_ERROR,
            Self::Refused { .. } => NO_ERROR,
        })
    }
}

/// Lets the client open what HTTP/3 needs, ahead of its own handshake: what it may have of native QUIC's is told before
/// anybody knows what it speaks.
pub(crate) fn grant_streams(connection: &Connection, max_request_lanes: u64) {
    connection.set_max_concurrent_uni_streams(HTTP3_STREAMS.into());
    // The session's request has one as long as it lives.
    connection.set_max_concurrent_bi_streams(var_int(streams(max_request_lanes + 1)));
}

/// Waits for QUIC's handshake and the client's request, and answers it. Web pages of other `origins` are refused, unless
/// there are none. Bound it by a timeout.
///
/// # Errors
/// [`NoSession`]; the connection may still be there.
pub(crate) async fn accept(
    connection: Connection,
    confirmed: ZeroRttAccepted,
    origins: &[String],
) -> Result<Carrier, NoSession> {
    // Before that nothing is read: what came may be a copy (RFC 9001 section 4.6). It has the same end where it is lost.
    confirmed.await;
    let request = Request::accept(connection).await?;
    let Err((status, why)) = judge(&request, origins) else {
        return Ok(Carrier::WebTransport(Arc::new(request.ok().await?)));
    };
    let session = Box::new(request.respond(status).await?);
    Err(NoSession::Refused { status, why, session })
}

fn judge(request: &ConnectRequest, origins: &[String]) -> Result<(), (StatusCode, &'static str)> {
    if request.url.path() != PATH {
        return Err((StatusCode::NOT_FOUND, "its path is not /wt"));
    }
    // Who sends none is no web page.
    match request.headers.get(header::ORIGIN) {
        Some(origin)
            if !origins.is_empty()
                && !origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes())) =>
        {
            Err((StatusCode::FORBIDDEN, "its origin is not among webtransport.origins"))
        }
        _ => Ok(()),
    }
}

/// What the end of the connection says about the session on it.
pub(super) fn gone(session: &Session, error: ConnectionError) -> Gone {
    match error {
        // That was done for us once the session had ended.
        ConnectionError::LocallyClosed => match session.close_reason() {
            Some(SessionError::WebTransportError(WebTransportError::Closed(code, reason))) => {
                Gone::Closed { code: code.into(), reason }
            }
            // Without a word it has ended with code 0 (section 6).
            _ => Gone::Closed { code: 0, reason: String::new() },
        },
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            Gone::Closed {
                code: proto::error_from_http3(code).map_or(code, u64::from),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            }
        }
        other => Gone::Lost(other),
    }
}

#[cfg(test)]
mod tests {
    use web_transport_quinn::http::HeaderValue;

    use super::*;

    fn judged(url: &str, origin: Option<&'static str>, origins: &[&str]) -> Option<u16> {
        let mut request = ConnectRequest::new(url.parse::<reqwest::Url>().expect("a URL"));
        if let Some(origin) = origin {
            request = request.with_header(header::ORIGIN, HeaderValue::from_static(origin));
        }
        let origins: Vec<_> = origins.iter().map(|&origin| origin.to_owned()).collect();
        judge(&request, &origins).err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_request_has_to_be_for_the_path_and_from_a_known_origin() {
        let (url, page) = ("https://localhost:4433/wt", Some("https://a.example"));
        for known in [&[][..], &["https://b.example", "https://A.example"]] {
            assert_eq!(judged(url, page, known), None);
            assert_eq!(judged("https://localhost/wt?room=1", page, known), None);
            assert_eq!(judged("https://localhost/", page, known), Some(404));
            assert_eq!(judged("https://localhost/wt/", page, known), Some(404));
        }
        let known = &["https://b.example"];
        assert_eq!(judged(url, page, known), Some(403));
        assert_eq!(judged(url, Some("null"), known), Some(403));
        assert_eq!(judged(url, None, known), None, "no web page");
    }
}
