//! WebTransport (draft-ietf-webtrans-http3) on a QUIC connection that speaks HTTP/3: from the settings to the session,
//! whose streams are then used as on native QUIC. Called by `session`.

mod fields;
mod http3;
mod session;

use std::net::IpAddr;

use bytes::BytesMut;
use quic_websocket_lane::Disconnected;
use quinn::{Connection, SendStream, VarInt, ZeroRttAccepted};
use thiserror::Error;
use web_transport_quinn::http::{HeaderName, StatusCode, header};
use web_transport_quinn::proto::ConnectResponse;

use self::fields::{Malformed, SessionRequest};
use self::http3::{GENERAL_PROTOCOL_ERROR, NO_ERROR};
use self::session::Http3;
pub(crate) use self::session::Session;
use super::native::{streams, var_int};
use crate::message::Token;
use crate::origin::{Origin, OwnPages, lets_in};

/// Path of the session (docs/PROTOCOL.md, "Carriers and frames").
const PATH: &str = "/wt";

/// Reason why no session was opened.
#[derive(Debug, Error)]
pub(crate) enum NoSession {
    /// The client broke HTTP/3, does not support WebTransport, or has disconnected.
    #[error("no WebTransport session: {0}")]
    Failed(#[from] Disconnected),
    /// The client requested something else.
    #[error("no WebTransport session: {0}")]
    Other(String),
    /// The request was refused and answered; the connection still exists.
    #[error("WebTransport session refused with {status}: {why}")]
    Refused {
        /// HTTP status of the answer.
        status: StatusCode,
        /// Reason, for the log.
        why: &'static str,
        /// Keeps the connection open; dropping it could discard the answer.
        session: Box<Session>,
    },
}

impl NoSession {
    /// Code with which the connection is closed (RFC 9114 section 8.1).
    pub(crate) fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Failed(_) | Self::Other(_) => GENERAL_PROTOCOL_ERROR,
            Self::Refused { .. } => NO_ERROR,
        })
    }
}

/// Allows one bidirectional stream more than on native QUIC, for the CONNECT request that lives as long as the session.
pub(crate) fn grant_streams(connection: &Connection, max_request_lanes: u64) {
    connection.set_max_concurrent_bi_streams(var_int(streams(max_request_lanes + 1)));
}

/// Waits for QUIC's handshake and the client's request, and answers it. Returns the session and the request's bearer
/// token. Requests of web pages are accepted from the origins in `known` and from the server's `own` pages. Apply a
/// timeout.
///
/// # Errors
/// [`NoSession`]; the connection may still exist.
pub(crate) async fn accept(
    connection: Connection,
    confirmed: ZeroRttAccepted,
    known: &[Origin],
    own: &OwnPages,
    trusts_by_hash: bool,
) -> Result<(Session, Option<Token>), NoSession> {
    // Nothing is read before the confirmation, because 0-RTT data may be a replay (RFC 9001 section 4.6). The future
    // also resolves if the connection is lost.
    confirmed.await;
    let from = connection.remote_address().ip();
    let http3 = Http3::begin(connection).await?;
    let (mut send, frames, section) = http3.request().await?;
    let (status, why) = match fields::read(&section) {
        Ok(request) => match judge(&request, known, own, from, trusts_by_hash) {
            Ok(bearer) => {
                answer(&mut send, StatusCode::OK).await?;
                return Ok((http3.session(send, frames), bearer));
            }
            Err(refused) => refused,
        },
        Err(Malformed::Rule(why)) => (StatusCode::BAD_REQUEST, why),
        Err(Malformed::Other(e)) => return Err(NoSession::Other(e.to_string())),
    };
    answer(&mut send, status).await?;
    // The answer has no body.
    let _ = send.finish();
    Err(NoSession::Refused { status, why, session: Box::new(http3.session(send, frames)) })
}

/// Sends the answer to a request.
async fn answer(send: &mut SendStream, status: StatusCode) -> Result<(), Disconnected> {
    let mut frame = BytesMut::new();
    let lost = |what: String| Disconnected::Lost(what);
    ConnectResponse::new(status).encode(&mut frame).map_err(|e| lost(e.to_string()))?;
    send.write_all(&frame).await.map_err(|e| lost(e.to_string()))
}

/// The request's bearer token, or why it is refused.
fn judge(
    SessionRequest { request, path }: &SessionRequest,
    known: &[Origin],
    own: &OwnPages,
    from: IpAddr,
    trusts_by_hash: bool,
) -> Result<Option<Token>, (StatusCode, &'static str)> {
    if path != PATH {
        return Err((StatusCode::NOT_FOUND, "its path is not /wt"));
    }
    let single = |name: &HeaderName, twice| {
        let mut values = request.headers.get_all(name).iter();
        let value = values.next().map(|value| value.as_bytes());
        if values.next().is_some() { Err((StatusCode::BAD_REQUEST, twice)) } else { Ok(value) }
    };
    let origin = single(&header::ORIGIN, "it has more than one origin")?;
    let own = own.origin(request.url.authority(), origin, from, trusts_by_hash);
    // Browsers send no client certificates over WebTransport.
    if !lets_in(known, origin, own.as_deref(), false) {
        return Err((StatusCode::FORBIDDEN, "its origin is not among http.origins"));
    }
    let authorization = single(&header::AUTHORIZATION, "it has more than one authorization")?;
    Token::from_authorization(authorization)
        .map_err(|_| (StatusCode::BAD_REQUEST, "its authorization is not a bearer token"))
}

#[cfg(test)]
mod tests {
    use web_transport_quinn::http::HeaderValue;
    use web_transport_quinn::proto::ConnectRequest;

    use super::*;

    /// Judges a request to a server with pages on ports 4433 and 8080, with a short-lived certificate or without.
    fn judged_from(
        from: &str,
        short_lived: bool,
        url: &str,
        headers: &[(HeaderName, &'static str)],
        origins: &[&str],
    ) -> Result<bool, u16> {
        let url = url.parse::<reqwest::Url>().expect("a URL");
        let path = url.path().to_owned();
        let mut request = ConnectRequest::new(url);
        for (name, value) in headers {
            request = request.with_header(name.clone(), HeaderValue::from_static(value));
        }
        let known: Vec<_> = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
        let own = OwnPages { served: vec![("https", 4433), ("http", 8080)] };
        let from = from.parse().expect("an address");
        let judged = judge(&SessionRequest { request, path }, &known, &own, from, short_lived);
        judged.map(|token| token.is_some()).map_err(|(status, _)| status.as_u16())
    }

    fn judged(url: &str, headers: &[(HeaderName, &'static str)], origins: &[&str]) -> Result<bool, u16> {
        judged_from("198.51.100.7", false, url, headers, origins)
    }

    #[test]
    fn a_request_must_be_for_the_path_and_from_a_known_origin() {
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
        assert_eq!(judged(url, &[], known), Ok(false), "not a web page");
    }

    #[test]
    fn the_null_origin_and_subdomains_are_accepted_if_configured() {
        let url = "https://localhost:4433/wt";
        let known = &["null", "https://*.example.com"];
        for (origin, expected) in [
            ("null", Ok(false)),
            ("https://app.example.com", Ok(false)),
            ("https://a.b.example.com", Ok(false)),
            ("https://example.com", Err(403)),
            ("https://app.example.com.evil.example", Err(403)),
        ] {
            assert_eq!(judged(url, &[(header::ORIGIN, origin)], known), expected, "{origin}");
        }
    }

    #[test]
    fn if_browsers_do_not_check_the_name_a_rebound_page_is_not_the_servers_own() {
        let known = &["https://app.example"];
        for (origin, url, short_lived) in [
            ("https://evil.example:4433", "https://evil.example:4433/wt", false),
            ("https://192.0.2.7:4433", "https://192.0.2.7:4433/wt", true),
            ("https://[2001:db8::7]:4433", "https://[2001:db8::7]:4433/wt", true),
            ("https://[2001:db8::7]", "https://[2001:db8::7]/wt", true),
            ("https://localhost:4433", "https://localhost:4433/wt", true),
        ] {
            let page = &[(header::ORIGIN, origin)];
            assert_eq!(judged_from("198.51.100.7", short_lived, url, page, known), Ok(false), "{origin}");
        }
        let rebound = &[(header::ORIGIN, "https://evil.example:4433")];
        for from in ["198.51.100.7", "127.0.0.1"] {
            assert_eq!(judged_from(from, true, "https://evil.example:4433/wt", rebound, known), Err(403));
        }
    }

    #[test]
    fn on_the_servers_own_machine_all_its_pages_are_its_own() {
        let (url, known) = ("https://127.0.0.1:4433/wt", &["https://app.example"]);
        for origin in ["http://localhost:8080", "http://127.0.0.1:8080", "https://localhost:4433", "https://[::1]:4433"]
        {
            let page = &[(header::ORIGIN, origin)];
            assert_eq!(judged_from("127.0.0.1", true, url, page, known), Ok(false), "{origin}");
            assert_eq!(judged_from("::ffff:127.0.0.1", false, url, page, known), Ok(false), "{origin}");
            assert_eq!(judged_from("198.51.100.7", true, url, page, known), Err(403), "{origin} of another machine");
        }
        for origin in ["http://localhost:3000", "http://localhost:4433", "https://localhost:8080"] {
            assert_eq!(judged_from("127.0.0.1", true, url, &[(header::ORIGIN, origin)], known), Err(403), "{origin}");
        }
    }

    #[test]
    fn a_request_may_carry_a_token() {
        let judged = |value| judged("https://localhost/wt", &[(header::AUTHORIZATION, value)], &[]);
        assert_eq!(judged("Bearer abc.def.ghi"), Ok(true));
        assert_eq!(judged("Basic YTpi"), Err(400));
    }
}
