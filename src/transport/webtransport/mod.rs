//! WebTransport (draft-ietf-webtrans-http3) on a QUIC connection that speaks HTTP/3: from the settings to the session. What
//! follows on its streams is the same as on native QUIC.

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

use self::fields::{Asked, Malformed};
use self::http3::{GENERAL_PROTOCOL_ERROR, NO_ERROR};
use self::session::Http3;
pub(crate) use self::session::Session;
use super::native::{streams, var_int};
use crate::message::Token;
use crate::origin::{Origin, OwnPages, lets_in};

/// Where the session is (docs/PROTOCOL.md, "Carriers and frames").
const PATH: &str = "/wt";

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum NoSession {
    /// The client does not speak HTTP/3, has no WebTransport, or is gone.
    #[error("no WebTransport session: {0}")]
    Failed(#[from] Disconnected),
    /// The client asks for something else.
    #[error("no WebTransport session: {0}")]
    Other(String),
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
        VarInt::from_u32(match self {
            Self::Failed(_) | Self::Other(_) => GENERAL_PROTOCOL_ERROR,
            Self::Refused { .. } => NO_ERROR,
        })
    }
}

/// Lets the client open one bidirectional stream more than on native QUIC, which the session's request has as long as it
/// lives.
pub(crate) fn grant_streams(connection: &Connection, max_request_lanes: u64) {
    connection.set_max_concurrent_bi_streams(var_int(streams(max_request_lanes + 1)));
}

/// Waits for QUIC's handshake and the client's request, and answers it; gives the session and the token that came with it. Web pages that are
/// not let in are refused: `known` are the origins that are, and `own` the server's. Bound it by a timeout.
///
/// # Errors
/// [`NoSession`]; the connection may still be there.
pub(crate) async fn accept(
    connection: Connection,
    confirmed: ZeroRttAccepted,
    known: &[Origin],
    own: &OwnPages,
    trusts_by_hash: bool,
) -> Result<(Session, Option<Token>), NoSession> {
    // Before that nothing is read: what came may be a copy (RFC 9001 section 4.6). It has the same end where it is lost.
    confirmed.await;
    let from = connection.remote_address().ip();
    let http3 = Http3::begin(connection).await?;
    let (mut send, frames, section) = http3.request().await?;
    let (status, why) = match fields::read(&section) {
        Ok(asked) => match judge(&asked, known, own, from, trusts_by_hash) {
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
    // It is the whole answer.
    let _ = send.finish();
    Err(NoSession::Refused { status, why, session: Box::new(http3.session(send, frames)) })
}

/// Answers a request.
async fn answer(send: &mut SendStream, status: StatusCode) -> Result<(), Disconnected> {
    let mut frame = BytesMut::new();
    let lost = |what: String| Disconnected::Lost(what);
    ConnectResponse::new(status).encode(&mut frame).map_err(|e| lost(e.to_string()))?;
    send.write_all(&frame).await.map_err(|e| lost(e.to_string()))
}

/// The token that a request brings, or why it is refused.
fn judge(
    Asked { request, path }: &Asked,
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
    // Browsers show no client certificates here.
    if !lets_in(known, origin, own.as_deref(), false) {
        return Err((StatusCode::FORBIDDEN, "its origin is not among http.origins"));
    }
    let authorization = single(&header::AUTHORIZATION, "it has more than one authorization")?;
    Token::from_authorization(authorization)
        .map_err(|_| (StatusCode::BAD_REQUEST, "its authorization is no bearer token"))
}

#[cfg(test)]
mod tests {
    use web_transport_quinn::http::HeaderValue;
    use web_transport_quinn::proto::ConnectRequest;

    use super::*;

    /// Of a server with pages at ports 4433 and 8080, that shows a certificate for a short time or not.
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
        let judged = judge(&Asked { request, path }, &known, &own, from, short_lived);
        judged.map(|token| token.is_some()).map_err(|(status, _)| status.as_u16())
    }

    fn judged(url: &str, headers: &[(HeaderName, &'static str)], origins: &[&str]) -> Result<bool, u16> {
        judged_from("198.51.100.7", false, url, headers, origins)
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
    fn pages_without_an_origin_and_of_hosts_below_a_name_are_let_in_where_they_are_named() {
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
    fn where_browsers_do_not_look_for_the_name_a_page_that_only_points_here_is_not_the_servers_own() {
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
    fn on_its_own_machine_all_pages_of_the_server_are_its_own() {
        let (url, known) = ("https://127.0.0.1:4433/wt", &["https://app.example"]);
        for origin in ["http://localhost:8080", "http://127.0.0.1:8080", "https://localhost:4433", "https://[::1]:4433"]
        {
            let page = &[(header::ORIGIN, origin)];
            assert_eq!(judged_from("127.0.0.1", true, url, page, known), Ok(false), "{origin}");
            assert_eq!(judged_from("::ffff:127.0.0.1", false, url, page, known), Ok(false), "{origin}");
            assert_eq!(judged_from("198.51.100.7", true, url, page, known), Err(403), "another machine's {origin}");
        }
        for origin in ["http://localhost:3000", "http://localhost:4433", "https://localhost:8080"] {
            assert_eq!(judged_from("127.0.0.1", true, url, &[(header::ORIGIN, origin)], known), Err(403), "{origin}");
        }
    }

    #[test]
    fn a_request_may_bring_a_token() {
        let judged = |value| judged("https://localhost/wt", &[(header::AUTHORIZATION, value)], &[]);
        assert_eq!(judged("Bearer abc.def.ghi"), Ok(true));
        assert_eq!(judged("Basic YTpi"), Err(400));
    }
}
