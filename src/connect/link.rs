//! One connection of a client: dialled, greeted, and read until it ends. A reconnect makes another one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, Endpoint};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::dial::Dialled;
use super::heard::Heard;
use super::inbound::ReadEnd;
use super::topics::{Order, Topics};
use super::{ClientBuilder, ClientError, dial};
use crate::frame::{self, Body, Compression, PREFIX_BYTES};
use crate::message::{
    ClientMessage, CloseCode, ClosedBy, Handshake, HandshakeReply, PROTOCOL_VERSION, Reply, RequestId, ServerMessage,
    Token,
};
use crate::transport::{Bounds, LaneReader, LaneWriter, Layer, Outflow, Overflow};

/// What may wait for the control lane's stream so that an answer to a ping is still put behind it. Callers wait
/// themselves, each with a message of his own.
const BACKLOG_MESSAGES: usize = 1024;
const BACKLOG_BYTES: usize = 1 << 20;

/// Bodies from this size on are compressed where the server agreed to that.
const COMPRESS_MIN_BYTES: usize = 1024;

/// Once a lane has ended that should not, how long the server's close may take to follow.
pub(super) const CLOSE_FOLLOWS: Duration = Duration::from_secs(2);

/// A connection on which the handshake was accepted.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) control: Arc<LaneWriter>,
    pub(super) greeting: HandshakeReply,
    pub(super) topics: Arc<Topics>,
    next_id: AtomicU64,
    /// Who waits for which reply; `None` once the link has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<ServerMessage>>>>,
}

impl Link {
    /// Connects, and shakes hands.
    pub(super) async fn dial(
        options: &ClientBuilder,
        token: Option<Token>,
        endpoint: &Endpoint,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let within = options.connect_timeout;
        let dialled = timeout(within, Self::dial_unbounded(options, token, endpoint, topics)).await;
        dialled.unwrap_or_else(|_| Err(ClientError::NoAnswer { server: options.server.clone(), within }))
    }

    async fn dial_unbounded(
        options: &ClientBuilder,
        token: Option<Token>,
        endpoint: &Endpoint,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let server = &options.server;
        let handshake = ClientMessage::Handshake(Handshake {
            protocol_version: PROTOCOL_VERSION.into(),
            client_name: options.name.clone(),
            token,
            zstd: options.compression,
        });
        let mut frame = BytesMut::new();
        handshake.encode(None, &mut frame);
        let Dialled { connection, control: (send, receive) } = dial::connect(endpoint, server, frame.freeze()).await?;
        let bounds = Bounds { messages: BACKLOG_MESSAGES, bytes: BACKLOG_BYTES };
        let control = LaneWriter::new(send, Layer::Native, 0, &Outflow::new(bounds, bounds, 0, Arc::default()));
        let mut reader = LaneReader::new(receive, Layer::Native, options.max_message_bytes);
        match read_one(&mut reader).await {
            Some(ServerMessage::HandshakeResponse(greeting)) if greeting.accepted => {
                let (topics, waiting) = (Arc::clone(topics), Mutex::new(Some(HashMap::new())));
                Ok((Self { connection, control, greeting, topics, next_id: AtomicU64::new(1), waiting }, reader))
            }
            answer => {
                let (reason, retry_after_ms) = match answer {
                    Some(ServerMessage::HandshakeResponse(response)) => (response.reason, None),
                    Some(ServerMessage::Error(error)) => (Some(error.message), error.retry_after_ms),
                    Some(ServerMessage::Close(closed)) => (Some(closed.reason), None),
                    _ => (None, None),
                };
                // The code says whether to come back, and follows at once.
                let error = connection.closed().await;
                // In TLS 1.3 the client is connected before the server has seen its certificate.
                if let error @ ClientError::Certificate { .. } = dial::connection_error(server, &error) {
                    return Err(error);
                }
                let closed = link_end(&error);
                Err(ClientError::Refused {
                    server: server.clone(),
                    code: closed.code,
                    reason: reason.unwrap_or(closed.reason),
                    retry_after: retry_after_ms.map(Duration::from_millis),
                })
            }
        }
    }

    pub(super) fn compression(&self) -> Compression {
        if self.greeting.zstd { Compression::Zstd } else { Compression::None }
    }

    /// Encodes a message for this connection.
    pub(super) fn encode(&self, id: Option<u64>, message: &ClientMessage) -> Result<Bytes, ClientError> {
        let mut out = BytesMut::new();
        message.encode(id.map(RequestId::Number).as_ref(), &mut out);
        let bytes = out.len() - PREFIX_BYTES;
        let limits = self.greeting.limits;
        let most = limits.map_or(usize::MAX, |limits| usize::try_from(limits.max_message_bytes).unwrap_or(usize::MAX));
        if bytes > most {
            return Err(ClientError::TooLarge { bytes, most });
        }
        let plain = out.freeze();
        if self.greeting.zstd && bytes >= COMPRESS_MIN_BYTES {
            return Ok(frame::compress(&plain).unwrap_or(plain));
        }
        Ok(plain)
    }

    /// Sends a message on the control lane, waiting while the lane does not take it.
    pub(super) async fn send(&self, id: Option<u64>, message: &ClientMessage) -> Result<(), ClientError> {
        let frame = self.encode(id, message)?;
        self.control.send(&mut [frame]).await.map_err(|_| ClientError::Lost)
    }

    /// Sends a request on the control lane, and waits for its reply.
    pub(super) async fn request(&self, message: &ClientMessage) -> Result<ServerMessage, ClientError> {
        let (sender, reply) = oneshot::channel();
        let id = self.next_id();
        let awaited = self.expect_reply(id, sender)?;
        self.send(Some(id), message).await?;
        let reply = reply.await.map_err(|_| ClientError::Lost);
        drop(awaited);
        reply.and_then(unless_error)
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Has the reply to request `id` given to `sender`, until what is given is dropped.
    fn expect_reply(&self, id: u64, sender: oneshot::Sender<ServerMessage>) -> Result<Awaited<'_>, ClientError> {
        self.waiting().as_mut().ok_or(ClientError::Lost)?.insert(id, sender);
        Ok(Awaited { link: self, id })
    }

    /// Gives a reply to whoever waits for it.
    pub(super) fn replied(&self, re: &RequestId, message: ServerMessage) {
        // Others than numbers were not sent.
        let RequestId::Number(id) = *re else { return };
        let Some(message) = self.topics.settle(id, message) else { return };
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiting) = waiting {
            // Whoever gave up waits no more, and it is nobody else's.
            let _ = waiting.send(message);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<ServerMessage>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the subscriptions, and reads until the connection ends: replies go to who waits for them, topics' messages to
    /// their subscriptions, the rest to the events.
    pub(super) async fn serve(self: &Arc<Self>, reader: LaneReader, heard: Heard) -> ClosedBy {
        self.topics.connected();
        // Whoever reads a topic lane or datagrams; they end with this.
        let mut readers = JoinSet::new();
        readers.spawn(Arc::clone(self).read_datagrams(heard.clone()));
        let end = tokio::select! {
            // What came before the end counts, above all the server's last words. Reading yields to the others.
            biased;
            end = self.read_control(reader, &heard) => end,
            end = self.accept_lanes(&mut readers, &heard) => end,
            () = self.until_unwritable() => ReadEnd::Ended,
        };
        readers.shutdown().await;
        self.topics.disconnected();
        self.control.give_up();
        // Whoever waits is told by the end of his channel.
        self.waiting().take();
        match end {
            ReadEnd::ToldToGo(closed) => {
                // Going at once spares the server the wait for this side's acknowledgement.
                self.connection.close(u32::from(closed.code.0).into(), b"");
                closed
            }
            ReadEnd::Broken(reason) => {
                let code = CloseCode::PROTOCOL_ERROR;
                self.connection.close(u32::from(code.0).into(), reason.as_bytes());
                ClosedBy::new(code, reason)
            }
            ReadEnd::LaneLost(reason) => {
                self.connection.close(u32::from(CloseCode::PROTOCOL_ERROR.0).into(), reason.as_bytes());
                ClosedBy::new(CloseCode::ABNORMAL, reason)
            }
            ReadEnd::Ended => {
                // The lane's end announces the connection's, and that tells the code.
                let closed = timeout(CLOSE_FOLLOWS, self.connection.closed()).await;
                self.connection.close(u32::from(CloseCode::PROTOCOL_ERROR.0).into(), b"the control lane ended");
                link_end(&closed.unwrap_or(ConnectionError::LocallyClosed))
            }
        }
    }

    /// Sends what there is to send, until the control lane takes no more; and leaves time to read what came before that.
    async fn until_unwritable(&self) {
        tokio::select! {
            () = self.send_orders() => {}
            () = self.control.outflow().drain() => {}
            () = self.control.stopped() => {}
        }
        sleep(CLOSE_FOLLOWS).await;
    }

    /// Sends what the subscriptions ask of the server, in order, until the control lane takes no more.
    async fn send_orders(&self) {
        loop {
            let id = self.next_id();
            let Some(Order { message, reply }) = self.topics.next_order(id) else {
                self.topics.ordered().await;
                continue;
            };
            if let (Some(reply), Some(waiting)) = (reply, self.waiting().as_mut()) {
                waiting.insert(id, reply);
            }
            match self.send(Some(id), &message).await {
                Ok(()) => {}
                Err(ClientError::Lost) => return,
                // It does not fit, and is the only one that suffers.
                Err(e) => {
                    self.topics.unsendable(id, e);
                    self.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
                }
            }
        }
    }

    /// Answers a ping without waiting: the server's next message may be what makes room.
    pub(super) fn pong(&self) {
        if let Ok(frame) = self.encode(None, &ClientMessage::Pong) {
            // Where so much waits already, that is a sign of life as well.
            let _ = self.control.try_send(&frame.into(), Overflow::Refuse);
        }
    }
}

/// A reply that is waited for.
struct Awaited<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.link.waiting().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// Makes an `error` reply the error that it is.
pub(super) fn unless_error(message: ServerMessage) -> Result<ServerMessage, ClientError> {
    match message {
        ServerMessage::Error(error) => Err(ClientError::Server(error)),
        message => Ok(message),
    }
}

async fn read_one(reader: &mut LaneReader) -> Option<ServerMessage> {
    let body = reader.next_body().await.ok()??;
    let body = Body::parse(body, Compression::None, reader.max_message_bytes()).ok()?;
    Some(Reply::parse(&body).ok()?.message)
}

/// With which code a connection ended, and why.
pub(super) fn link_end(error: &ConnectionError) -> ClosedBy {
    let (code, reason) = match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u16::try_from(close.error_code.into_inner()).map_or(CloseCode::ABNORMAL, CloseCode);
            (code, String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => (CloseCode::ABNORMAL, other.to_string()),
    };
    ClosedBy::new(code, reason)
}
