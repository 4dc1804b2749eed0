//! The second WebSocket of a session (docs/PROTOCOL.md, "A second WebSocket"): a lane for long messages beside the
//! control lane, where WebSocket alone gets through. The task that accepted the socket offers it to the session, which
//! may be on another worker, and closes it in the end; the session serves it.

use std::sync::Arc;

use bytes::BytesMut;
use quic_websocket_lane::{LaneReader, LaneWriter, Layer, Overflow, Sent};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;

use super::Session;
use super::end::End;
use super::handshake::{limits, major, send_now};
use super::lanes::{LaneEnd, serve_lane};
use super::liveness::{Activity, until_silent};
use super::reply_queue::ReplyQueue;
use crate::frame::{self, PREFIX_BYTES};
use crate::handler::{self, Context};
use crate::message::{self, CloseCode, ClosedBy, HandshakeReply, PROTOCOL_VERSION, RequestId, ServerMessage};
use crate::outbound::SecondSocket;
use crate::transport::Carrier;

/// Priority of the lane: that of request lanes and of most topics.
const PRIORITY: u8 = 128;

/// A connection whose handshake names a session.
pub(super) struct Attaching<'a> {
    pub(super) carrier: &'a Carrier,
    pub(super) re: Option<RequestId>,
    pub(super) version: &'a str,
    pub(super) control: &'a Arc<LaneWriter>,
}

/// A socket that was offered to a session, as the task that accepted it knows it.
pub(super) struct Second {
    /// What the session has done with it: it says how to close it, or has not taken it.
    released: oneshot::Receiver<ClosedBy>,
    refusal: Refusal,
}

/// What a refusal needs.
struct Refusal {
    re: Option<RequestId>,
    server_name: String,
    control: Arc<LaneWriter>,
}

impl Attaching<'_> {
    /// Offers the socket to the session. The reader goes with it.
    pub(super) fn offer(
        self,
        session: &message::Session,
        reader: LaneReader,
        context: &Context,
    ) -> Result<Second, End> {
        let Self { carrier, re, version, control } = self;
        let (id, server_name) = (re.clone(), context.config.name.clone());
        let refusal = Refusal { re, server_name, control: Arc::clone(control) };
        if major(version) != major(PROTOCOL_VERSION) {
            let reason = format!("this server speaks protocol version {PROTOCOL_VERSION}");
            return Err(refusal.send(CloseCode::PROTOCOL_ERROR, reason));
        }
        let Carrier::WebSocket(socket) = carrier else {
            return Err(refusal.send(CloseCode::FORBIDDEN, "attach: for WebSocket only; QUIC has lanes".into()));
        };
        let open = context.sessions.client(session.as_str()).and_then(|client| context.registry.outbound(client));
        let Some(outbound) = open else {
            return Err(refusal.send(CloseCode::FORBIDDEN, "attach: no such session is open here".into()));
        };
        let (close, released) = oneshot::channel();
        if !outbound.offer(SecondSocket { socket: Arc::clone(socket), reader, re: id, close: Some(close) }) {
            let reason = "attach: the session has a second connection already, or is on QUIC";
            return Err(refusal.send(CloseCode::FORBIDDEN, reason.into()));
        }
        Ok(Second { released, refusal })
    }
}

impl Refusal {
    fn send(self, code: CloseCode, reason: String) -> End {
        let mut reply = HandshakeReply::new(self.server_name);
        reply.reason = Some(reason.clone());
        send_now(&self.control, self.re.as_ref(), &ServerMessage::HandshakeResponse(Box::new(reply)));
        End::sent(code, reason)
    }
}

impl Second {
    /// Waits until the session releases the socket, or the client ends it; returns how it is to be closed.
    pub(super) async fn until_over(self: Box<Self>, carrier: &Carrier) -> End {
        let Self { released, refusal } = *self;
        tokio::select! {
            released = released => match released {
                Ok(closed) => End::Left(closed),
                // Not even answered.
                Err(_) => refusal.send(CloseCode::FORBIDDEN, "attach: the session has just ended".into()),
            },
            cause = carrier.closed() => End::Disconnected(cause),
        }
    }
}

/// Serves the socket as a lane of the session until either ends; returns an end if it is the whole session's.
pub(super) async fn serve(session: Arc<Session>, second: Box<SecondSocket>) -> Option<End> {
    let SecondSocket { socket, reader, re, .. } = *second;
    let (id, outbound) = (session.id(), &session.outbound);
    info!(client = %id, peer = %socket.peer(), "Client {id} has a second connection from {}", socket.peer());
    let writer = LaneWriter::new(socket.outlet(), Layer::Native, PRIORITY.into(), outbound.control.scheduler());
    let mut reply = HandshakeReply::new(session.context.config.name.as_str());
    (reply.accepted, reply.client_id) = (true, Some(id));
    (reply.limits, reply.compression) = (Some(limits(&session.context)), outbound.compression);
    send_first(&session, &writer, re.as_ref(), &ServerMessage::HandshakeResponse(Box::new(reply)));
    let lane = outbound.add_bulk_lane(Arc::clone(&writer), PRIORITY);
    send_first(&session, &writer, None, &ServerMessage::Lane { lane, priority: PRIORITY });

    let activity = Activity::new();
    let mut replies = ReplyQueue::new(&session, &writer);
    let ping = |ping: &ServerMessage| send_first(&session, &writer, None, ping);
    let end = tokio::select! {
        biased;
        end = serve_lane(&session, reader, &mut replies, &activity) => end,
        () = writer.stopped() => LaneEnd::Broken,
        () = until_silent(&session, &activity, || (0, socket.moved()), ping) => {
            LaneEnd::Connection(End::Left(ClosedBy::new(CloseCode::TIMEOUT, "no answer to a ping; answer with pong")))
        }
        () = session.leaving.cancelled() => LaneEnd::Finished,
    };
    // The session goes on, unless the client has violated the protocol here.
    let (end, closed) = match end {
        LaneEnd::Connection(end @ End::Sent(_)) => (Some(end), None),
        LaneEnd::Connection(End::Left(closed)) => (None, Some(closed)),
        LaneEnd::Finished if session.leaving.is_cancelled() => (None, None),
        LaneEnd::Connection(End::Disconnected(_)) | LaneEnd::Finished | LaneEnd::Broken => {
            (None, Some(ClosedBy::new(CloseCode::NORMAL, "the second connection has ended")))
        }
    };
    // Replies may still be queued; those not accepted in time are lost.
    let finished = async {
        if replies.flush().await.is_ok() {
            writer.finish(None).await;
        }
    };
    let _ = timeout(session.context.config.timing.close_timeout(), finished).await;
    drop(replies);
    if let Some(closed) = closed {
        info!(client = %id, code = closed.code.0, "The second connection of client {id} has ended");
        outbound.remove_bulk_lane();
        session.context.topics.end_lane(&session.caller.client, lane, handler::lane_ended).await;
        outbound.end_second(closed);
    }
    end
}

/// Sends a message that is for this lane alone.
fn send_first(session: &Session, writer: &LaneWriter, re: Option<&RequestId>, message: &ServerMessage) {
    let mut frame = BytesMut::new();
    message.encode(re, &mut frame);
    session.outbound.counters().sent(Sent { messages: 1, bytes: frame.len() - PREFIX_BYTES });
    // If the lane has ended already, its owner knows.
    let _ = writer.try_send(&frame::exact(frame).into(), Overflow::Append);
}
