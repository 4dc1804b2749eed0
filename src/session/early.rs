//! Early data (RFC 9001 section 4.6, docs/PROTOCOL.md, "0-RTT"): what came before the TLS handshake was confirmed may be a
//! copy of what the client once sent. Until then a client is served what is harmless to repeat, and is nowhere: neither
//! in the registry nor on the roster nor among the members of topics. Once confirmed it takes all these registration, and only
//! then goes on what has waited.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, ZeroRttAccepted};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::handshake::close_code;
use super::{End, Session, WorkerContext};
use crate::frame::Body;
use crate::message::{ClientInfo, ClientMessage, CloseCode, ClosedBy, Request};
use crate::registry::{Handshaking, Naming, OnRoster, Registered};

/// What a connection began with, where that came before its handshake was done.
pub(super) struct Early {
    /// The control lane.
    pub(super) control: (SendStream, RecvStream),
    /// Resolves when the handshake is confirmed, or the connection is lost.
    pub(super) confirmed: ZeroRttAccepted,
}

/// What keeps back a client's requests until it has taken its registration. Opened once, and seen by all its lanes.
#[derive(Debug)]
pub(super) struct Gate(CancellationToken);

impl Gate {
    /// An open one, for who is confirmed, or one that is to be opened.
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

    /// Waits until it is open. Cancel safe.
    pub(super) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// A client's entry in the registry.
pub(super) enum RegistryEntry {
    Made(Registered),
    /// To be made for who was not confirmed yet.
    Wanted(ClientInfo, Naming),
}

/// A client's registration among the others, which it leaves when this is dropped.
#[derive(Default)]
pub(super) struct Registration(Option<(OnRoster, Registered)>);

impl Registration {
    pub(super) async fn take(&mut self, session: &Session, worker_context: &WorkerContext, mut registered: Registered) {
        let displaced = std::mem::take(&mut registered.displaced);
        // In the registry first, as ever: who is on the roster can be asked for.
        self.0 = Some((worker_context.roster.add(Arc::clone(&session.outbound)), registered));
        session.outbound.counters().accepted(session.carrier.name());
        for impostor in displaced {
            let closed =
                ClosedBy::new(CloseCode::FORBIDDEN, "client_name: this name is another user's; choose another one");
            session.context.registry.end(impostor, closed).await;
        }
    }
}

/// What a client still has to wait for that is not confirmed.
pub(super) struct Unconfirmed {
    pub(super) confirmed: ZeroRttAccepted,
    pub(super) info: ClientInfo,
    pub(super) naming: Naming,
    /// Until then it counts as a handshake, and has the time of one.
    pub(super) handshaking: Handshaking,
    pub(super) deadline: Instant,
}

/// Waits for the confirmation, and takes the client's registration. Ends where that does not work out, else never.
pub(super) async fn confirm(
    session: &Session,
    worker_context: &WorkerContext,
    unconfirmed: Option<Unconfirmed>,
    registration: &mut Registration,
) -> End {
    if let Some(Unconfirmed { confirmed, info, naming, handshaking, deadline }) = unconfirmed {
        if timeout_at(deadline, confirmed).await.is_err() {
            return End::sent(CloseCode::TIMEOUT, "no handshake in time");
        }
        // It has the same end where the connection is lost.
        if let Some(lost) = session.carrier.close_reason() {
            return End::Disconnected(lost);
        }
        let registered = match session.context.registry.register(info, worker_context.worker, naming) {
            Ok(registered) => registered,
            Err(why) => return End::sent(close_code(why), why.to_string()),
        };
        registration.take(session, worker_context, registered).await;
        session.context.topics.appear(&session.caller.client).await;
        session.gate.open();
        drop(handshaking);
    }
    std::future::pending().await
}

/// Whether a body may be served now; else it waits for the gate.
pub(super) fn may_serve(session: &Session, body: &Bytes) -> bool {
    session.gate.0.is_cancelled() || is_harmless(session, body)
}

/// Whether serving a body twice does no harm, and nobody else notices. What cannot be read is only told so.
fn is_harmless(session: &Session, body: &Bytes) -> bool {
    let Ok(body) = Body::parse(body.clone(), session.compression, session.max_message_bytes) else { return true };
    match Request::parse(&body).map(|request| request.message) {
        Ok(ClientMessage::Subscribe(wanted)) => !session.context.topics.blocks(&wanted.topic),
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

/// What comes first on a connection that may have early data: its handshake, or a lane.
pub(super) async fn begin(connection: &Connection, mut confirmed: ZeroRttAccepted) -> Option<Early> {
    tokio::select! {
        biased;
        _ = &mut confirmed => None,
        // Cancel safe: a stream that was not taken is there the next time.
        control = connection.accept_bi() => Some(Early { control: control.ok()?, confirmed }),
    }
}
