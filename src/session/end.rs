//! The end of a client's connection: its reason, and the orderly close that delivers queued messages and that reason
//! first.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use quic_websocket_lane::{Disconnected, LaneWriter, ReadFailure, Sent};
use quinn::ReadError;
use tokio::time::{sleep, timeout};
use tracing::info;
use uuid::Uuid;

use super::WorkerContext;
use super::lanes::RequestLanes;
use super::reply_queue::ReplyQueue;
use crate::Printable;
use crate::frame::{self, FrameError, PREFIX_BYTES};
use crate::handler::Context;
use crate::message::{CloseCode, ClosedBy, ServerMessage};
use crate::outbound::Outbound;
use crate::transport::Carrier;

/// Bounds of the pause between resetting an unread control lane and closing the connection: two round trips, each with
/// the peer's acknowledgement delay.
const MIN_GRACE: Duration = Duration::from_millis(100);
const MAX_GRACE: Duration = Duration::from_millis(1000);

/// The lanes to flush when a client ends.
pub(super) struct Lanes<'a> {
    pub(super) control: Option<&'a LaneWriter>,
    pub(super) topics: Option<&'a Outbound>,
    pub(super) requests: RequestLanes,
    /// Replies for the control lane.
    pub(super) replies: Option<ReplyQueue<'a>>,
}

impl Lanes<'_> {
    /// No lanes.
    pub(super) fn none() -> Self {
        Self { control: None, topics: None, requests: RequestLanes::default(), replies: None }
    }
}

/// The end of a client's connection.
#[derive(Debug)]
pub(super) enum End {
    /// The peer closed the connection, or it was lost.
    Disconnected(Disconnected),
    /// The client sent `close`, or ended its control lane; queued messages are sent first.
    Left(ClosedBy),
    /// The server closes the connection, with a `close` message.
    Sent(ClosedBy),
}

impl End {
    pub(super) fn sent(code: CloseCode, reason: impl Into<String>) -> Self {
        Self::Sent(ClosedBy::new(code, reason))
    }

    /// Whether the client may come back by itself, so that it stays a member of its topics for their grace: its
    /// connection was lost, or the server closed it with a code that asks for that.
    pub(super) fn is_lost(&self) -> bool {
        // Codes of applications are a decision to leave, as 1000 is.
        let is_decided = |code: u64| code == u64::from(CloseCode::NORMAL.0) || (3000..=4999).contains(&code);
        match self {
            Self::Disconnected(Disconnected::Closed { code, .. }) => !is_decided(*code),
            Self::Disconnected(_) => true,
            Self::Left(closed) => !is_decided(closed.code.0.into()),
            Self::Sent(closed) => closed.code.may_reconnect(),
        }
    }

    /// How the client's second WebSocket is closed: with the same code, if that is one which can be sent.
    pub(super) fn of_second(&self) -> ClosedBy {
        let code = match self {
            Self::Left(closed) | Self::Sent(closed) => return closed.clone(),
            Self::Disconnected(Disconnected::Closed { code, .. }) => u16::try_from(*code).ok(),
            Self::Disconnected(_) => None,
        };
        let code = code.filter(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999));
        ClosedBy::new(code.map_or(CloseCode::GOING_AWAY, CloseCode), "the first connection of the session has ended")
    }

    /// The closing code; 1006 if the connection was lost without one.
    fn code(&self) -> u64 {
        match self {
            Self::Disconnected(Disconnected::Closed { code, .. }) => *code,
            Self::Disconnected(Disconnected::Broken(_)) => CloseCode::PROTOCOL_ERROR.0.into(),
            Self::Disconnected(Disconnected::Lost(_)) => CloseCode::ABNORMAL.0.into(),
            Self::Left(closed) | Self::Sent(closed) => closed.code.0.into(),
        }
    }
}

/// The end of a connection that broke the framing rules.
pub(super) fn frame_error(error: FrameError) -> End {
    let code = match error {
        FrameError::TooBig { .. } => CloseCode::TOO_BIG,
        _ => CloseCode::PROTOCOL_ERROR,
    };
    End::sent(code, error.to_string())
}

/// The end that a read failure means for the client; `None` if it ends only that lane.
pub(super) fn unreadable(carrier: &Carrier, failure: ReadFailure) -> Option<End> {
    match failure {
        ReadFailure::Frame(e) => Some(frame_error(e)),
        ReadFailure::Broken { code, reason } => Some(End::sent(CloseCode(code), reason)),
        ReadFailure::Stream(ReadError::ConnectionLost(e)) => Some(End::Disconnected(carrier.disconnected(e))),
        ReadFailure::Stream(_) => None,
        ReadFailure::Disconnected(cause) => Some(End::Disconnected(cause)),
    }
}

/// The end of a connection whose control lane was stopped.
pub(super) fn stopped(carrier: &Carrier) -> End {
    let stopped = || End::sent(CloseCode::PROTOCOL_ERROR, "the control lane was stopped");
    carrier.close_reason().map_or_else(stopped, End::Disconnected)
}

/// The end of a client that opened a stream of a kind that only the server opens.
pub(super) fn opened_forbidden_stream() -> End {
    End::sent(CloseCode::PROTOCOL_ERROR, "the client must not open unidirectional streams")
}

/// The end of a client while the server drains. Each client gets its own reconnect delay, so that they do not all come
/// back at once.
pub(super) fn draining(context: &Context) -> End {
    let window = context.config.timing.drain_timeout_ms;
    let closed = ClosedBy::new(CloseCode::GOING_AWAY, "the server is shutting down; reconnecting may take a moment");
    End::Sent(closed.with_reconnect_after_ms(fastrand::u64(0..=window)))
}

/// Ends a connection: sends what is queued, then the reason, then closes the carrier with the same code.
pub(super) async fn finish(carrier: &Carrier, id: Uuid, lanes: Lanes<'_>, end: End, worker_context: &WorkerContext) {
    let (config, counters) = (&worker_context.context.config, worker_context.counters());
    counters.closed(end.code());
    let (outbound, second) = (lanes.topics, end.of_second());
    let end_second = || {
        if let Some(outbound) = outbound {
            outbound.end_second_for_good(second);
        }
    };
    let (closed, last) = match end {
        End::Disconnected(cause) => {
            end_second();
            return log_disconnected(id, carrier.remote_address(), &cause);
        }
        End::Left(closed) => {
            let (code, reason) = (closed.code, Printable::excerpt(&closed.reason));
            info!(client = %id, code = code.0, %reason, "Client {id} closing connection: {code} - {reason}");
            (closed, None)
        }
        End::Sent(closed) => {
            let (code, reason) = (closed.code, Printable::excerpt(&closed.reason));
            info!(client = %id, code = code.0, %reason, "Closing client {id}: {code} - {reason}");
            let mut frame = BytesMut::new();
            ServerMessage::Close(closed.clone()).encode(None, &mut frame);
            counters.sent(Sent { messages: 1, bytes: frame.len() - PREFIX_BYTES });
            (closed, Some(frame::exact(frame)))
        }
    };
    let max_ack_delay = Duration::from_millis(config.quic.max_ack_delay_ms);
    let grace = (2 * (carrier.rtt() + max_ack_delay)).clamp(MIN_GRACE, MAX_GRACE);
    let drains = last.is_some() && closed.code == CloseCode::GOING_AWAY;
    let within = if drains {
        // The worker waits no longer than this either.
        let all = config.timing.drain_timeout();
        all.saturating_sub(grace).max(all / 2)
    } else {
        config.timing.close_timeout()
    };
    if let Some(control) = lanes.control {
        // A slow consumer's lane is full; a `close` message would wait behind data that it does not read.
        let is_slow = last.is_some() && closed.code == CloseCode::SLOW_CONSUMER;
        if is_slow || !flush(carrier, control, lanes, last, within).await {
            control.abandon(closed.code.0);
            // Quinn sends its closing packet only when congestion control allows, and a closed connection processes no
            // more acknowledgements: data in flight has to arrive first.
            sleep(grace).await;
        }
    }
    // Not after this connection, whose client may be slow to close it.
    end_second();
    carrier.close(closed.code.0, &closed.reason, config.timing.close_timeout()).await;
}

/// Sends what is queued on all lanes, and then `last`. False if the peer did not accept it in time.
async fn flush(
    carrier: &Carrier,
    control: &LaneWriter,
    Lanes { topics, mut requests, replies, .. }: Lanes<'_>,
    last: Option<bytes::Bytes>,
    within: Duration,
) -> bool {
    let finished = async {
        // A client may leave as soon as it gets `close`, so its topics go first; one that does not read them still gets
        // `close`.
        if let Some(topics) = topics {
            let _ = timeout(within / 2, topics.finish_topic_lanes()).await;
        }
        let control = async {
            if let Some(mut replies) = replies {
                let _ = replies.flush().await;
            }
            control.finish(last).await;
        };
        tokio::join!(control, requests.finish());
    };
    let flushed = async {
        tokio::select! {
            () = finished => {}
            () = control.scheduler().drain() => {}
            _ = carrier.closed() => {}
        }
    };
    timeout(within, flushed).await.is_ok()
}

fn log_disconnected(id: Uuid, from: SocketAddr, cause: &Disconnected) {
    match cause {
        Disconnected::Closed { code, reason } => {
            let reason = Printable::excerpt(reason);
            info!(client = %id, peer = %from, code, %reason, "Client {id} closed the connection: {code} - {reason}");
        }
        Disconnected::Broken(why) => {
            info!(client = %id, peer = %from, reason = why, "Client {id} broke the carrier's protocol, closed: {why}");
        }
        // If the peer closed without a code, its reason is part of `why`.
        Disconnected::Lost(why) => {
            let why = why.to_string();
            let reason = Printable::excerpt(&why);
            info!(client = %id, peer = %from, %reason, "Client {id} at {from} lost: {reason}");
        }
    }
}
