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
use crate::config::Http;
use crate::message::Token;

/// Where the session is (docs/PROTOCOL.md, "Carriers and frames").
const PATH: &str = "/wt";
/// Unidirectional streams that a client has for HTTP/3 itself: control, QPACK encoder and decoder (RFC 9114 section 6.2).
/// Topics need none of a client's.
pub(super) const HTTP3_STREAMS: u8 = 3;

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

/// Lets the client open one bidirectional stream more than on native QUIC, which the session's request has as long as it
/// lives.
pub(crate) fn grant_streams(connection: &Connection, max_request_lanes: u64) {
    connection.set_max_concurrent_bi_streams(var_int(streams(max_request_lanes + 1)));
}

/// Waits for QUIC's handshake and the client's request, and answers it; gives the token that came with it. Web pages that are
/// not let in are refused. Bound it by a timeout.
///
/// # Errors
/// [`NoSession`]; the connection may still be there.
pub(crate) async fn accept(
    connection: Connection,
    confirmed: ZeroRttAccepted,
    pages: &Http,
) -> Result<(Carrier, Option<Token>), NoSession> {
    // Before that nothing is read: what came may be a copy (RFC 9001 section 4.6). It has the same end where it is lost.
    confirmed.await;
    let request = Request::accept(connection).await?;
    let (status, why) = match judge(&request, pages) {
        Ok(bearer) => return Ok((Carrier::WebTransport(Arc::new(request.ok().await?)), bearer)),
        Err(refused) => refused,
    };
    let session = Box::new(request.respond(status).await?);
    Err(NoSession::Refused { status, why, session })
}

/// The token that a request brings, or why it is refused.
fn judge(request: &ConnectRequest, pages: &Http) -> Result<Option<Token>, (StatusCode, &'static str)> {
    if request.url.path() != PATH {
        return Err((StatusCode::NOT_FOUND, "its path is not /wt"));
    }
    let origin = request.headers.get(header::ORIGIN).map(|origin| origin.as_bytes());
    // Browsers show no client certificates here.
    let own = format!("https://{}", request.url.authority());
    if !pages.lets_in(origin, Some(&own), false) {
        return Err((StatusCode::FORBIDDEN, "its origin is not among http.origins"));
    }
    let authorization = request.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    Token::from_authorization(authorization)
        .map_err(|_| (StatusCode::BAD_REQUEST, "its authorization is no bearer token"))
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
        other => Gone::Lost(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use web_transport_quinn::http::HeaderValue;

    use super::*;

    fn judged(url: &str, headers: &[(header::HeaderName, &'static str)], origins: &[&str]) -> Result<bool, u16> {
        let mut request = ConnectRequest::new(url.parse::<reqwest::Url>().expect("a URL"));
        for (name, value) in headers {
            request = request.with_header(name.clone(), HeaderValue::from_static(value));
        }
        let origins = origins.iter().map(|&origin| origin.to_owned()).collect();
        let pages = Http { origins, ..Http::default() };
        judge(&request, &pages).map(|token| token.is_some()).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_request_has_to_be_for_the_path_and_from_a_known_origin() {
        let (url, page) = ("https://localhost:4433/wt", &[(header::ORIGIN, "https://a.example")][..]);
        for known in [&[][..], &["https://b.example", "https://A.example"]] {
            assert_eq!(judged(url, page, known), Ok(false));
            assert_eq!(judged("https://localhost/wt?room=1", page, known), Ok(false));
            assert_eq!(judged("https://localhost/", page, known), Err(404));
            assert_eq!(judged("https://localhost/wt/", page, known), Err(404));
        }
        let known = &["https://b.example"];
        assert_eq!(judged(url, page, known), Err(403));
        assert_eq!(judged(url, &[(header::ORIGIN, "null")], known), Err(403));
        assert_eq!(judged(url, &[(header::ORIGIN, "https://localhost:4433")], known), Ok(false), "its own page");
        assert_eq!(judged(url, &[], known), Ok(false), "no web page");
    }

    #[test]
    fn a_request_may_bring_a_token() {
        let judged = |value| judged("https://localhost/wt", &[(header::AUTHORIZATION, value)], &[]);
        assert_eq!(judged("Bearer abc.def.ghi"), Ok(true));
        assert_eq!(judged("Basic YTpi"), Err(400));
    }
}
