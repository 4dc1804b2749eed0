//! A second WebSocket of a connection, for the messages of topics with the bulk lane (docs/PROTOCOL.md, "A second
//! WebSocket").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use bytes::BytesMut;
use quic_websocket_lane::{LaneReader, LaneWriter, Layer, Overflow, SendHalf, SendScheduler};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::dial::{CLOSE_TIMEOUT, Opened};
use super::handshake::bounds;
use super::inbound::EventSink;
use super::link::{Link, PROBE_EVERY, PROBE_WITHIN};
use super::topics::Via;
use super::{ClientBuilder, ClientError};
use crate::message::{ClientMessage, CloseCode, Handshake, Reply, ServerMessage, Session, now_ms};

/// The lane of a second WebSocket.
pub(super) struct Second {
    connection: Connection,
    writer: Arc<LaneWriter>,
    lane: u64,
    /// Whether a message waits for its subscription: meanwhile nothing is read, and the server may seem silent.
    is_waiting: AtomicBool,
    _pump: AbortOnDropHandle<()>,
}

impl Second {
    /// Joins the session of a link by another socket.
    pub(super) async fn join(
        options: &ClientBuilder,
        Opened { socket, pump }: Opened,
        link: &Link,
    ) -> Result<(Self, LaneReader), ClientError> {
        let session = link.greeting.session.as_deref().ok_or(ClientError::OneLane)?;
        let mut handshake = Handshake::new();
        handshake.attach = Some(Session::new("attach", session)?);
        let mut greeting = BytesMut::new();
        ClientMessage::Handshake(handshake).encode(None, &mut greeting);
        let (outlet, inlet) = socket.lane().ok_or(ClientError::Lost)?;
        let mut send = SendHalf::from(outlet);
        // An empty socket has room, and the read below fails if it is closed.
        let _ = send.poll_write(&mut [greeting.freeze()], &mut Context::from_waker(Waker::noop()));
        let scheduler = SendScheduler::new(bounds(), bounds(), 0, Arc::new(()));
        let writer = LaneWriter::new(send, Layer::Native, 0, &scheduler);
        let mut reader = LaneReader::new(inlet, Layer::Native, options.max_message_bytes);
        let max_message_bytes = options.max_message_bytes;
        let mut first = async || {
            let body = reader.next_body().await.map_err(|_| ClientError::Lost)?.ok_or(ClientError::Lost)?;
            let reply = link.parse(body, max_message_bytes).map_err(|_| ClientError::Lost)?;
            reply.map(|reply| reply.message).ok_or(ClientError::Lost)
        };
        match first().await? {
            ServerMessage::HandshakeResponse(response) if response.accepted => {}
            ServerMessage::HandshakeResponse(response) => {
                return Err(ClientError::Refused {
                    server: options.server.clone(),
                    code: CloseCode::FORBIDDEN,
                    reason: response.reason.unwrap_or_default(),
                    retry_after: None,
                });
            }
            _ => return Err(ClientError::Lost),
        }
        let ServerMessage::Lane { lane, .. } = first().await? else { return Err(ClientError::Lost) };
        Ok((
            Self {
                connection: Connection::WebSocket(socket),
                writer,
                lane,
                is_waiting: AtomicBool::new(false),
                _pump: pump,
            },
            reader,
        ))
    }

    /// Sends a message without waiting: what does not fit is not needed.
    fn tell(&self, message: &ClientMessage) {
        let mut frame = BytesMut::new();
        message.encode(None, &mut frame);
        let _ = self.writer.try_send(&frame.freeze().into(), Overflow::Refuse);
    }

    /// Waits until the server has been silent for too long. Only what arrives here is a sign of life.
    async fn until_silent(&self) {
        loop {
            sleep(PROBE_EVERY).await;
            let moved = self.connection.moved();
            self.tell(&ClientMessage::Ping { timestamp: Some(now_ms()) });
            sleep(PROBE_WITHIN).await;
            if self.connection.moved() == moved && !self.is_waiting.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

impl Link {
    /// Reads a second socket until it ends: its messages go to their subscriptions. Returns the reason, for the log.
    pub(super) async fn serve_second(
        self: &Arc<Self>,
        second: Second,
        mut reader: LaneReader,
        sink: &EventSink,
    ) -> String {
        let lane = Via::Lane(second.lane);
        let read = async {
            loop {
                let body = match reader.next_body().await {
                    Ok(Some(body)) => body,
                    Ok(None) => return "it was closed".to_owned(),
                    Err(e) => return e.to_string(),
                };
                match self.parse(body, sink.max_message_bytes) {
                    Ok(Some(Reply { message: ServerMessage::Ping { .. }, .. })) => second.tell(&ClientMessage::Pong),
                    Ok(Some(Reply { message: ServerMessage::Close(closed), .. })) => return closed.reason,
                    Ok(Some(Reply { re: None, message, .. })) => {
                        second.is_waiting.store(true, Ordering::Relaxed);
                        self.pass(lane, message, sink).await;
                        second.is_waiting.store(false, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(reason) => return reason,
                }
            }
        };
        let why = tokio::select! {
            biased;
            why = read => why,
            () = second.writer.scheduler().drain() => "nothing can be sent".to_owned(),
            () = second.until_silent() => "the server no longer answers".to_owned(),
        };
        second.connection.close(CloseCode::NORMAL.0, "", CLOSE_TIMEOUT).await;
        why
    }
}
