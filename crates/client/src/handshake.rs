//! The handshake on a new connection: from a carrier to a [`Link`], or to the reason why the server refused.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quic_websocket_lane::{Bounds, LaneReader, LaneWriter, Layer, ReceiveHalf, SendHalf, SendScheduler};
use quic_websocket_protocol::frame::{Body, Compression};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::dial::{Dialled, Opened};
use super::link::{Link, link_end};
use super::topics::Topics;
use super::{ClientBuilder, ClientError, dial};
use crate::message::{ClientMessage, CloseCode, ClosedBy, Handshake, Reply, ServerMessage, Token};

/// Bounds of the control lane's backlog within which an answer to a ping is still appended. Callers wait themselves,
/// each with a message of its own.
const BACKLOG_MESSAGES: usize = 1024;
const BACKLOG_BYTES: usize = 1 << 20;
/// How long after a refusal its close code may come.
const CLOSE_FOLLOWS: Duration = Duration::from_secs(2);

impl Link {
    /// The first message of a connection, as a frame.
    pub(super) fn greeting(options: &ClientBuilder, token: Option<Token>, topics: &Topics) -> Bytes {
        let mut handshake = Handshake::new();
        handshake.client_name.clone_from(&options.name);
        handshake.token = token;
        handshake.compression.zstd = options.compression;
        handshake.requests = options.on_request.is_some();
        (handshake.resume, handshake.since) = topics.continued();
        let mut frame = BytesMut::new();
        ClientMessage::Handshake(handshake).encode(None, &mut frame);
        frame.freeze()
    }

    /// Completes the handshake over QUIC, where the greeting has been sent with the first packets.
    pub(super) async fn over_quic(
        options: &ClientBuilder,
        dialled: Dialled,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let Dialled { connection, control: (send, receive) } = dialled;
        let lane = (send.into(), receive.into());
        Self::complete_handshake(options, Connection::Quic(connection), lane, None, topics).await
    }

    /// Performs the handshake over a WebSocket.
    pub(super) async fn over_socket(
        options: &ClientBuilder,
        Opened { socket, pump }: Opened,
        greeting: Bytes,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let (outlet, inlet) = socket.lane().ok_or(ClientError::Lost)?;
        let (mut send, receive) = (SendHalf::from(outlet), inlet.into());
        // An empty socket has room, and the read below fails if it is closed.
        let _ = send.poll_write(&mut [greeting], &mut Context::from_waker(Waker::noop()));
        let connection = Connection::WebSocket(socket);
        Self::complete_handshake(options, connection, (send, receive), Some(pump), topics).await
    }

    async fn complete_handshake(
        options: &ClientBuilder,
        connection: Connection,
        (send, receive): (SendHalf, ReceiveHalf),
        pump: Option<AbortOnDropHandle<()>>,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let server = &options.server;
        let control = LaneWriter::new(send, Layer::Native, 0, &SendScheduler::new(bounds(), bounds(), 0, Arc::new(())));
        let mut reader = LaneReader::new(receive, Layer::Native, options.max_message_bytes);
        match read_one(&mut reader).await {
            Some(ServerMessage::HandshakeResponse(greeting)) if greeting.accepted => {
                Ok((Self::new(connection, control, *greeting, Arc::clone(topics), pump), reader))
            }
            answer => {
                let (reason, retry_after_ms) = match answer {
                    Some(ServerMessage::HandshakeResponse(response)) => (response.reason, None),
                    Some(ServerMessage::Error(error)) => (Some(error.message), error.retry_after_ms),
                    Some(ServerMessage::Close(closed)) => (Some(closed.reason), None),
                    _ => (None, None),
                };
                // The close code tells whether to reconnect, and follows at once.
                let closed = async {
                    let Some(quic) = connection.quic() else { return Ok(link_end(&connection.closed().await)) };
                    let error = quic.closed().await;
                    // In TLS 1.3 the client is connected before the server has seen its certificate.
                    match dial::connection_error(server, &error) {
                        error @ ClientError::Certificate { .. } => Err(error),
                        _ => Ok(link_end(&error.into())),
                    }
                };
                let closed = timeout(CLOSE_FOLLOWS, closed).await;
                let closed =
                    closed.unwrap_or_else(|_| Ok(ClosedBy::new(CloseCode::ABNORMAL, "no close code followed")))?;
                Err(ClientError::Refused {
                    server: server.clone(),
                    code: closed.code,
                    reason: reason.unwrap_or(closed.reason),
                    retry_after: retry_after_ms.map(Duration::from_millis),
                })
            }
        }
    }
}

/// The bounds of a lane's backlog.
pub(super) fn bounds() -> Bounds {
    Bounds { messages: BACKLOG_MESSAGES, bytes: BACKLOG_BYTES }
}

async fn read_one(reader: &mut LaneReader) -> Option<ServerMessage> {
    let body = reader.next_body().await.ok()??;
    let body = Body::parse(body, Compression::None, reader.max_message_bytes()).ok()?;
    Some(Reply::parse(&body).ok()?.message)
}
