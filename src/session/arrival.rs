//! New connections: from the first packet to the carrier on which the client shakes hands, for each protocol. All of it
//! shares the time of one handshake, and ends when the server drains. Called by `worker` and `http`.

use std::net::SocketAddr;
use std::sync::Arc;

use quic_websocket_lane::websocket;
use quinn::{Connection, ConnectionError, ZeroRttAccepted};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{WorkerContext, early, handshake, welcome};
use crate::Printable;
use crate::message::{CloseCode, Token};
use crate::registry::Handshaking;
use crate::transport::webtransport::{self, NoSession};
use crate::transport::{Carrier, Protocol};

/// Serves one QUIC connection until it ends. `incoming` is in a box, because a task keeps room for its arguments.
pub(crate) async fn run(incoming: Box<quinn::Incoming>, worker_context: WorkerContext, handshaking: Handshaking) {
    let config = &worker_context.context.config;
    let deadline = Instant::now() + config.timing.handshake_timeout();
    let from = incoming.remote_address();
    let mut connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(e) => {
            let e = e.to_string();
            return debug!(peer = %from, "Connection from {from} not accepted: {}", Printable::excerpt(&e));
        }
    };
    let early_data = config.quic.early_data;
    let begun = async {
        let protocol = Protocol::of(&mut connecting).await?;
        let waits = protocol == Protocol::Native && !early_data;
        let connection = if waits { Some((&mut connecting).await?) } else { None };
        Ok::<_, ConnectionError>((protocol, connection))
    };
    let (code, reason) = match in_time(begun, deadline, &worker_context).await {
        Ok(Ok((_, Some(connection)))) => {
            return welcome(Carrier::Native(connection), None, None, deadline, worker_context, handshaking).await;
        }
        Ok(Ok((protocol, None))) => {
            // Never fails on the server's side.
            let Ok((connection, confirmed)) = connecting.into_0rtt() else { return };
            // Boxed, because most clients come the other way.
            return match protocol {
                Protocol::Native => {
                    Box::pin(run_early(connection, confirmed, deadline, worker_context, handshaking)).await
                }
                Protocol::WebTransport => {
                    Box::pin(run_session(connection, confirmed, deadline, worker_context, handshaking)).await
                }
            };
        }
        Ok(Err(e)) => return failed(from, &e),
        Err(failure) => failure,
    };
    // The client may regard the connection as established, if only its last packet is missing here; so close it
    // properly.
    if let Ok((connection, _)) = connecting.into_0rtt() {
        give_up(&connection, code, reason);
    }
}

/// Waits for a step of the handshake. If it takes too long, or the server drains, returns the code and reason for
/// closing the connection.
async fn in_time<T>(
    step: impl Future<Output = T>,
    deadline: Instant,
    worker_context: &WorkerContext,
) -> Result<T, (CloseCode, &'static str)> {
    tokio::select! {
        done = timeout_at(deadline, step) => done.map_err(|_| (CloseCode::TIMEOUT, "no handshake in time")),
        () = worker_context.draining.cancelled() => Err((CloseCode::GOING_AWAY, "the server is shutting down")),
    }
}

/// Closes a connection whose client has not completed its handshake.
fn give_up(connection: &Connection, code: CloseCode, reason: &str) {
    let from = connection.remote_address();
    debug!(peer = %from, code = code.0, reason, "Connection from {from} given up: {reason}");
    connection.close(u32::from(code.0).into(), reason.as_bytes());
}

fn failed(from: SocketAddr, error: &ConnectionError) {
    let error = error.to_string();
    debug!(peer = %from, "Connection from {from} failed: {}", Printable::excerpt(&error));
}

/// Continues [`run`] for a connection that may have 0-RTT data.
async fn run_early(
    connection: Connection,
    confirmed: ZeroRttAccepted,
    deadline: Instant,
    worker_context: WorkerContext,
    handshaking: Handshaking,
) {
    let from = connection.remote_address();
    let (code, reason) = match in_time(early::begin(&connection, confirmed), deadline, &worker_context).await {
        Ok(early) => match connection.close_reason() {
            None => {
                return welcome(Carrier::Native(connection), early, None, deadline, worker_context, handshaking).await;
            }
            Some(e) => return failed(from, &e),
        },
        Err(failure) => failure,
    };
    give_up(&connection, code, reason);
}

/// Continues [`run`] for a connection that speaks HTTP/3.
async fn run_session(
    connection: Connection,
    confirmed: ZeroRttAccepted,
    deadline: Instant,
    worker_context: WorkerContext,
    handshaking: Handshaking,
) {
    let from = connection.remote_address();
    let config = &worker_context.context.config;
    webtransport::grant_streams(&connection, config.limits.max_request_lanes);
    let pages = worker_context.context.live.http();
    let trusts_by_hash = worker_context.short_lived.hash().is_some();
    let accepted =
        webtransport::accept(connection.clone(), confirmed, &pages.origins, &worker_context.own_pages, trusts_by_hash);
    let (code, reason) = match in_time(accepted, deadline, &worker_context).await {
        Ok(Ok((session, bearer))) => {
            let carrier = Carrier::WebTransport(Arc::new(session));
            return welcome(carrier, None, bearer, deadline, worker_context, handshaking).await;
        }
        Ok(Err(no_session)) => {
            let why = no_session.to_string();
            debug!(peer = %from, "Connection from {from}: {}", Printable::excerpt(&why));
            if let NoSession::Refused { .. } = &no_session {
                // The client closes the connection once it has read the response, which closing here could discard.
                let _ = timeout(config.timing.close_timeout(), connection.closed()).await;
            }
            return connection.close(no_session.code(), b"");
        }
        Err(failure) => failure,
    };
    give_up(&connection, code, reason);
}

/// Serves one WebSocket whose opening handshake was answered, until it ends.
pub(crate) async fn run_socket(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    from: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    bearer: Option<Token>,
    worker_context: WorkerContext,
    handshaking: Handshaking,
) {
    let timing = &worker_context.context.config.timing;
    let (deadline, linger) = (Instant::now() + timing.handshake_timeout(), timing.close_timeout());
    let max_message_bytes = handshake::max_message_bytes(&worker_context.context);
    let (socket, pump) = websocket::open(stream, from, certificate, max_message_bytes, linger).await;
    let pump = AbortOnDropHandle::new(tokio::spawn(pump));
    welcome(Carrier::WebSocket(socket), None, bearer, deadline, worker_context, handshaking).await;
    // Its last messages have as long as on any carrier.
    let _ = timeout(2 * linger, pump).await;
}
