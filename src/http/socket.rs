//! From a request to a WebSocket (RFC 6455 section 4.2): who may open one, and to whom it is handed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use super::refusal::Refusal;
use super::{Http, Peer};
use crate::client;
use crate::message::Token;
use crate::printable::Printable;
use crate::transport::websocket;

/// The sub-protocol that clients have to offer (docs/PROTOCOL.md, "Carriers and frames").
const SUB_PROTOCOL: &str = "qws.v1";
/// Longest message that `/echo` takes, in bytes.
const MAX_ECHO_BYTES: usize = 16 << 20;

/// `/ws`: a client.
pub(super) async fn open(
    State(http): State<Arc<Http>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let headers = request.headers();
    judge(&http, headers)?;
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = Token::from_authorization(authorization)
        .map_err(|invalid| Refusal::new(StatusCode::BAD_REQUEST, invalid.message))?;
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !offered.any(|protocol| protocol.trim() == SUB_PROTOCOL) {
        let why =
            format!("a WebSocket here speaks the sub-protocol {SUB_PROTOCOL}: offer it in Sec-WebSocket-Protocol");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, why));
    }
    let context = &http.surroundings.context;
    if context.registry.handshakes() as u64 >= context.config.limits.max_handshakes {
        let busy = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many handshakes are under way; try again");
        return Err(busy.with(header::RETRY_AFTER, "1"));
    }
    let (mut response, upgrade) = upgrade(request)?;
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL));
    let handshaking = context.registry.begin_handshake();
    let surroundings = http.surroundings.clone();
    http.tasks.spawn(async move {
        let Peer { address, certificate } = peer;
        match upgrade.await {
            Ok(socket) => {
                let socket = TokioIo::new(socket);
                client::run_socket(socket, address, certificate, bearer, surroundings, handshaking).await;
            }
            Err(e) => failed(&address, &e),
        }
    });
    Ok(response)
}

/// `/echo`: every message comes back.
pub(super) async fn echo(
    State(http): State<Arc<Http>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    judge(&http, request.headers())?;
    let (response, upgrade) = upgrade(request)?;
    let draining = http.surroundings.draining.clone();
    let linger = http.surroundings.context.config.timing.close_timeout();
    http.tasks.spawn(async move {
        match upgrade.await {
            Ok(socket) => tokio::select! {
                () = websocket::echo(TokioIo::new(socket), MAX_ECHO_BYTES, linger) => {}
                () = draining.cancelled() => {}
            },
            Err(e) => failed(&peer.address, &e),
        }
    });
    Ok(response)
}

fn failed(from: &std::net::SocketAddr, error: &hyper::Error) {
    let error = error.to_string();
    debug!(peer = %from, "WebSocket with {from} not opened: {}", Printable::excerpt(&error));
}

/// Refuses the pages of others.
fn judge(http: &Http, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    if http.surroundings.context.config.http.lets_in(origin, host) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "pages of this origin may not connect; it is not among http.origins"))
}

/// Answers the opening handshake, and gives what becomes of the connection.
fn upgrade(mut request: Request) -> Result<(Response, OnUpgrade), Refusal> {
    let answered = create_response_with_body(&request, Body::empty);
    let response = answered.map_err(|e| {
        let status = match &e {
            // Sections 4.2.1 and 4.4.
            Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => StatusCode::UPGRADE_REQUIRED,
            // HEAD goes where GET does.
            Error::Protocol(ProtocolError::WrongHttpMethod) => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        };
        let refused = Refusal::new(status, format!("a WebSocket is served here: {e}"));
        match status {
            StatusCode::METHOD_NOT_ALLOWED => refused.with(header::ALLOW, "GET"),
            _ => refused.with(header::SEC_WEBSOCKET_VERSION, "13"),
        }
    })?;
    Ok((response, hyper::upgrade::on(&mut request)))
}
