//! WebSocket upgrades (RFC 6455 section 4.2): checks who may open one, and passes the socket to `session`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use quic_websocket_lane::websocket;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use super::fields::{bearer, single};
use super::host::host;
use super::refusal::Refusal;
use super::{Http, Peer};
use crate::Printable;
use crate::limits::Admission;
use crate::origin::lets_in;
use crate::session;

/// Sub-protocol that clients must offer (docs/PROTOCOL.md, "Carriers and frames").
const SUB_PROTOCOL: &str = "qws.v1";
/// Longest message that `/echo` accepts, in bytes.
const MAX_ECHO_BYTES: usize = 16 << 20;

/// `/ws`: opens a client's WebSocket.
pub(super) async fn open(
    State(http): State<Arc<Http>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let headers = request.headers();
    check_origin(&http, &peer, &request)?;
    let bearer = bearer(headers)?;
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !offered.any(|protocol| protocol.trim() == SUB_PROTOCOL) {
        let why = format!("the sub-protocol {SUB_PROTOCOL} is required: offer it in Sec-WebSocket-Protocol");
        return Err(Refusal::bad(why));
    }
    let context = &http.worker_context.context;
    if !peer.is_counted
        && let Admission::Refused(why) = context.addresses.admit(peer.address.ip(), true)
    {
        return Err(later(StatusCode::TOO_MANY_REQUESTS, why));
    }
    if context.registry.handshakes() as u64 >= context.config.limits.max_handshakes {
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, "too many handshakes in progress; try again"));
    }
    let (mut response, upgrade) = upgrade(request)?;
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL));
    let handshaking = context.registry.begin_handshake();
    let worker_context = http.worker_context.clone();
    let within = context.config.timing.handshake_timeout();
    http.tasks.spawn(async move {
        let Peer { address, certificate, .. } = peer;
        match timeout(within, upgrade).await {
            Ok(Ok(socket)) => {
                let socket = TokioIo::new(socket);
                session::run_socket(socket, address, certificate, bearer, worker_context, handshaking).await;
            }
            Ok(Err(e)) => failed(address, &e.to_string()),
            Err(_) => failed(address, "the client did not read the response in time"),
        }
    });
    Ok(response)
}

/// `/echo`: returns every message.
pub(super) async fn echo(
    State(http): State<Arc<Http>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    check_origin(&http, &peer, &request)?;
    let context = &http.worker_context.context;
    // The connection's own permits are released once it is upgraded.
    let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections; try again");
    let held = (
        context.addresses.connect_http(peer.address.ip()).ok_or_else(busy)?,
        Arc::clone(&http.places).try_acquire_owned().map_err(|_| busy())?,
    );
    let (response, upgrade) = upgrade(request)?;
    let draining = http.worker_context.draining.clone();
    let (patience, linger) = (context.config.timing.body_timeout(), context.config.timing.close_timeout());
    let within = context.config.timing.handshake_timeout();
    http.tasks.spawn(async move {
        let _held = held;
        match timeout(within, upgrade).await {
            Ok(Ok(socket)) => tokio::select! {
                () = websocket::echo(TokioIo::new(socket), MAX_ECHO_BYTES, patience, linger) => {}
                () = draining.cancelled() => {}
            },
            Ok(Err(e)) => failed(peer.address, &e.to_string()),
            Err(_) => failed(peer.address, "the client did not read the response in time"),
        }
    });
    Ok(response)
}

fn later(status: StatusCode, why: &str) -> Refusal {
    Refusal { retry_after: Some(Duration::from_secs(1)), ..Refusal::new(status, why) }
}

fn failed(from: SocketAddr, why: &str) {
    debug!(peer = %from, "WebSocket with {from} not opened: {}", Printable::excerpt(why));
}

/// Refuses pages of origins that are not allowed.
fn check_origin(http: &Http, peer: &Peer, request: &Request) -> Result<(), Refusal> {
    let own = peer.origin(&host(request)?);
    let origin = single(request.headers(), &header::ORIGIN)?;
    if lets_in(&http.worker_context.context.live.http().origins, origin, own.as_deref(), peer.certificate.is_some()) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "pages of this origin may not connect; add it to http.origins"))
}

/// Answers the opening handshake; returns the response and the future of the upgraded connection.
fn upgrade(mut request: Request) -> Result<(Response, OnUpgrade), Refusal> {
    single(request.headers(), &header::SEC_WEBSOCKET_KEY)?;
    let answered = create_response_with_body(&request, Body::empty);
    let response = answered.map_err(|e| {
        let status = match &e {
            // Sections 4.2.1 and 4.4.
            Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => StatusCode::UPGRADE_REQUIRED,
            // HEAD is routed like GET.
            Error::Protocol(ProtocolError::WrongHttpMethod) => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        };
        let refused = Refusal::new(status, format!("this is a WebSocket endpoint: {e}"));
        match status {
            StatusCode::METHOD_NOT_ALLOWED => refused.with(header::ALLOW, "GET"),
            _ => refused.with(header::SEC_WEBSOCKET_VERSION, "13"),
        }
    })?;
    Ok((response, hyper::upgrade::on(&mut request)))
}
