//! 0-RTT data (RFC 9001 section 4.6, docs/PROTOCOL.md, "0-RTT") may be a replay until the TLS handshake is confirmed.
//! Until then a client is registered nowhere: neither in the registry, nor on the roster, nor among a topic's members.
//! Requests that are unsafe to replay are held back; new messages are held back by default, and [`is_harmless`] lists
//! the exceptions.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, ZeroRttAccepted};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::handshake::close_code;
use super::{Session, WorkerContext};
use crate::frame::Body;
use crate::handler;
use crate::message::{ClientInfo, ClientMessage, CloseCode, ClosedBy, Request};
use crate::registry::{Handshaking, Naming, OnRoster, Registered};
use crate::request::Offer;

/// A connection that began with 0-RTT data.
pub(super) struct Early {
    /// Control lane.
    pub(super) control: (SendStream, RecvStream),
    /// Resolves when the handshake is confirmed, or the connection is lost.
    pub(super) confirmed: ZeroRttAccepted,
}

/// Holds back a client's requests until it is registered. Opened once, and shared by all its lanes.
#[derive(Debug)]
pub(super) struct Gate(CancellationToken);

impl Gate {
    /// Creates a gate that is open, for a confirmed client, or closed.
    pub(super) fn new(is_open: bool) -> Self {
        let gate = Self(CancellationToken::new());
        if is_open {
            gate.open();
        }
        gate
    }

    fn open(&self) {
        self.0.cancel();
    }

    /// Whether the gate is open, which takes a lock.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the gate is open. Cancel safe.
    pub(super) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// A client's entry in the registry.
pub(super) enum RegistryEntry {
    Made(Registered),
    /// To be made once the client is confirmed.
    Wanted(ClientInfo, Naming),
}

/// A client's presence in the registry and on the roster, which ends when this is dropped.
#[derive(Default)]
pub(super) struct Registration(Option<(Vec<Offer>, OnRoster, Registered)>);

impl Registration {
    pub(super) async fn enter(
        &mut self,
        session: &Session,
        worker_context: &WorkerContext,
        mut registered: Registered,
    ) {
        let displaced = std::mem::take(&mut registered.displaced);
        // The registry comes first: clients on the roster can be looked up there.
        let on_roster = worker_context.roster.add(Arc::clone(&session.outbound));
        let offers = if session.answers { handler::offer(&session.context, &session.caller) } else { Vec::new() };
        self.0 = Some((offers, on_roster, registered));
        session.outbound.counters().accepted(session.carrier.name());
        for other in displaced {
            let closed =
                ClosedBy::new(CloseCode::FORBIDDEN, "client_name: this name is another user's; choose another one");
            session.context.registry.end(other, closed).await;
        }
    }
}

/// What an unconfirmed client is waiting for.
pub(super) struct Unconfirmed {
    pub(super) confirmed: ZeroRttAccepted,
    pub(super) info: ClientInfo,
    pub(super) naming: Naming,
    /// Counts the client among the handshakes until then, with a handshake's `deadline`.
    pub(super) handshaking: Handshaking,
    pub(super) deadline: Instant,
}

/// Waits for the confirmation, and registers the client. Returns only if that fails.
pub(super) async fn confirm(
    session: &Session,
    worker_context: &WorkerContext,
    unconfirmed: Option<Box<Unconfirmed>>,
    registration: &mut Registration,
) -> End {
    // Boxed, because most clients send no 0-RTT data.
    if let Some(unconfirmed) = unconfirmed
        && let Err(end) = Box::pin(confirmed(session, worker_context, unconfirmed, registration)).await
    {
        return end;
    }
    std::future::pending().await
}

async fn confirmed(
    session: &Session,
    worker_context: &WorkerContext,
    unconfirmed: Box<Unconfirmed>,
    registration: &mut Registration,
) -> Result<(), End> {
    let Unconfirmed { confirmed, info, naming, handshaking, deadline } = *unconfirmed;
    if timeout_at(deadline, confirmed).await.is_err() {
        return Err(End::sent(CloseCode::TIMEOUT, "no handshake in time"));
    }
    // The future also resolves if the connection is lost.
    if let Some(lost) = session.carrier.close_reason() {
        return Err(End::Disconnected(lost));
    }
    let registered = match session.context.registry.register(info, worker_context.worker, naming) {
        Ok(registered) => registered,
        Err(why) => return Err(End::sent(close_code(why), why.to_string())),
    };
    registration.enter(session, worker_context, registered).await;
    session.context.topics.appear(&session.caller.client).await;
    session.gate.open();
    drop(handshaking);
    Ok(())
}

/// Whether serving a body twice does no harm and is invisible to others. Includes invalid bodies, which only cause an
/// error reply.
pub(super) fn is_harmless(session: &Session, body: &Bytes) -> bool {
    let Ok(body) = Body::parse(body.clone(), session.outbound.compression, session.max_message_bytes()) else {
        return true;
    };
    match Request::parse(&body).map(|request| request.message) {
        Ok(ClientMessage::Subscribe(wanted)) => {
            let has_effects = wanted.consumer.is_some() || wanted.requests || wanted.state.is_some();
            !has_effects && !session.context.topics.blocks(&wanted.topic)
        }
        Ok(message) => matches!(
            message,
            ClientMessage::Handshake(_)
                | ClientMessage::Ping { .. }
                | ClientMessage::Pong
                | ClientMessage::ListClients { .. }
                | ClientMessage::History { .. }
                | ClientMessage::Presence { .. }
        ),
        Err(_) => true,
    }
}

/// Waits for the first event on a connection that may have 0-RTT data: the confirmation (`None`), or a lane.
pub(super) async fn begin(connection: &Connection, mut confirmed: ZeroRttAccepted) -> Option<Early> {
    tokio::select! {
        biased;
        _ = &mut confirmed => None,
        // Cancel safe: a stream that was not accepted is still there the next time.
        control = connection.accept_bi() => Some(Early { control: control.ok()?, confirmed }),
    }
}
