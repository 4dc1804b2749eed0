//! One connection of a client: dialled, greeted, and read until it ends. A reconnect makes another one.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::Either;
use quic_websocket_lane::{
    Bounds, Disconnected, LaneReader, LaneWriter, Layer, Overflow, ReceiveHalf, SendHalf, SendScheduler,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::dial::{Dialled, LINGER, Opened};
use super::inbound::{EventSink, ReadEnd};
use super::pace::{Over, Pace};
use super::topics::{Next, Outgoing, Topics, refused_for};
use super::{ClientBuilder, ClientError, dial};
use crate::message::{
    ClientMessage, CloseCode, ClosedBy, Handshake, HandshakeReply, Reply, RequestId, ServerMessage, Token,
};
use quic_websocket_protocol::frame::{self, Body, Compression, PREFIX_BYTES};

/// What may wait for the control lane's stream so that an answer to a ping is still put behind it. Callers wait
/// themselves, each with a message of his own.
const BACKLOG_MESSAGES: usize = 1024;
const BACKLOG_BYTES: usize = 1 << 20;

/// Bodies from this size on are compressed where the server agreed to that.
const COMPRESS_MIN_BYTES: usize = 1024;

/// Once a lane has ended that should not, how long the server's close may take to follow.
pub(super) const CLOSE_FOLLOWS: Duration = Duration::from_secs(2);

/// On a WebSocket, after how long the client looks whether the server is still there: TCP tells it too late, or never.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How long nothing may come after that before the connection counts as lost.
const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// A connection on which the handshake was accepted.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) control: Arc<LaneWriter>,
    pub(super) greeting: HandshakeReply,
    pub(super) topics: Arc<Topics>,
    pub(super) pace: Pace,
    /// Wakes whoever has to show another token: the one that holds expires.
    pub(super) expiring: Notify,
    /// Cancelled once the client has gone over to another connection.
    pub(super) moved: CancellationToken,
    next_id: AtomicU64,
    /// Who waits for which reply; `None` once the link has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<ServerMessage>>>>,
    /// Wakes whoever waits for all replies.
    answered: Notify,
    /// What moves a WebSocket's messages; it ends with the link.
    _pump: Option<AbortOnDropHandle<()>>,
}

/// Why a request has no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection ended before the request was carried out: it can be sent over another one.
    Unsent,
    Error(ClientError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Error(error)
    }
}

impl Link {
    /// The first message of a connection, as a frame.
    pub(super) fn greeting(options: &ClientBuilder, token: Option<Token>) -> Bytes {
        let mut handshake = Handshake::new();
        handshake.client_name.clone_from(&options.name);
        handshake.token = token;
        handshake.zstd = options.compression;
        let mut frame = BytesMut::new();
        ClientMessage::Handshake(handshake).encode(None, &mut frame);
        frame.freeze()
    }

    /// Shakes hands over QUIC, where the greeting was sent with the first packets.
    pub(super) async fn over_quic(
        options: &ClientBuilder,
        dialled: Dialled,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let Dialled { connection, control: (send, receive) } = dialled;
        Self::shake_hands(options, Connection::Quic(connection), (send.into(), receive.into()), None, topics).await
    }

    /// Shakes hands over a WebSocket.
    pub(super) async fn over_socket(
        options: &ClientBuilder,
        Opened { socket, pump }: Opened,
        greeting: Bytes,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let (mut send, receive) = socket.lane().ok_or(ClientError::Lost)?;
        // An empty socket has room, and one that is gone shows in what is read of it.
        let _ = send.poll_write(&mut [greeting], &mut Context::from_waker(Waker::noop()));
        Self::shake_hands(options, Connection::WebSocket(socket), (send, receive), Some(pump), topics).await
    }

    async fn shake_hands(
        options: &ClientBuilder,
        connection: Connection,
        (send, receive): (SendHalf, ReceiveHalf),
        pump: Option<AbortOnDropHandle<()>>,
        topics: &Arc<Topics>,
    ) -> Result<(Self, LaneReader), ClientError> {
        let server = &options.server;
        let bounds = Bounds { messages: BACKLOG_MESSAGES, bytes: BACKLOG_BYTES };
        let control = LaneWriter::new(send, Layer::Native, 0, &SendScheduler::new(bounds, bounds, 0, Arc::new(())));
        let mut reader = LaneReader::new(receive, Layer::Native, options.max_message_bytes);
        match read_one(&mut reader).await {
            Some(ServerMessage::HandshakeResponse(greeting)) if greeting.accepted => {
                let link = Self {
                    connection,
                    control,
                    greeting,
                    topics: Arc::clone(topics),
                    pace: Pace::new(),
                    expiring: Notify::new(),
                    moved: CancellationToken::new(),
                    next_id: AtomicU64::new(1),
                    waiting: Mutex::new(Some(HashMap::new())),
                    answered: Notify::new(),
                    _pump: pump,
                };
                Ok((link, reader))
            }
            answer => {
                let (reason, retry_after_ms) = match answer {
                    Some(ServerMessage::HandshakeResponse(response)) => (response.reason, None),
                    Some(ServerMessage::Error(error)) => (Some(error.message), error.retry_after_ms),
                    Some(ServerMessage::Close(closed)) => (Some(closed.reason), None),
                    _ => (None, None),
                };
                // The code says whether to come back, and follows at once.
                let closed = match connection.quic() {
                    Some(quic) => {
                        let error = quic.closed().await;
                        // In TLS 1.3 the client is connected before the server has seen its certificate.
                        if let error @ ClientError::Certificate { .. } = dial::connection_error(server, &error) {
                            return Err(error);
                        }
                        link_end(&error.into())
                    }
                    None => link_end(&connection.closed().await),
                };
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

    /// Sends a message on the control lane at once, waiting while the lane does not take it.
    pub(super) async fn send_now(&self, id: Option<u64>, message: &ClientMessage) -> Result<(), ClientError> {
        let frame = self.encode(id, message)?;
        self.control.send(&mut [frame]).await.map_err(|_| ClientError::Lost)
    }

    /// The same at the server's pace, for a message without a reply.
    pub(super) async fn send(&self, message: &ClientMessage) -> Result<(), Failure> {
        let frame = self.encode(None, message)?;
        self.pace.next(None).await.map_err(|Over| Failure::Unsent)?;
        self.control.send(&mut [frame]).await.map_err(|_| ClientError::Lost.into())
    }

    /// Sends a request on the control lane at the server's pace, and waits for its reply. Where it comes too often, it is
    /// sent again as told, unless that is later than `deadline`.
    pub(super) async fn request(&self, message: &ClientMessage, deadline: Instant) -> Result<ServerMessage, Failure> {
        let mut at = None;
        loop {
            let id = self.next_id();
            let (sender, reply) = oneshot::channel();
            let awaited = self.expect_reply(id, sender).ok_or(Failure::Unsent)?;
            match at {
                None => self.pace.next(Some(id)).await,
                Some(at) => self.pace.again(at, id).await,
            }
            .map_err(|Over| Failure::Unsent)?;
            self.send_now(Some(id), message).await?;
            let reply = reply.await.map_err(|_| ClientError::Lost)?;
            drop(awaited);
            match refused_for(&reply).map(|wait| Instant::now() + wait) {
                Some(turn) if turn < deadline => at = Some(turn),
                _ => return Ok(unless_error(reply)?),
            }
        }
    }

    /// Whether the server answers a ping; it never waits its turn.
    async fn answers(&self) -> bool {
        let id = self.next_id();
        let (sender, reply) = oneshot::channel();
        let Some(_awaited) = self.expect_reply(id, sender) else { return false };
        let ping = ClientMessage::Ping { timestamp: Some(crate::message::now_ms()) };
        self.send_now(Some(id), &ping).await.is_ok() && reply.await.is_ok()
    }

    /// Waits until all that was asked was answered, and what came before is read.
    pub(super) async fn drained(&self) {
        self.answers().await;
        loop {
            let answered = self.answered.notified();
            if self.waiting().as_ref().is_none_or(HashMap::is_empty) {
                return;
            }
            answered.await;
        }
    }

    /// Waits until the server of a WebSocket is silent for too long. QUIC finds that out by itself.
    async fn until_silent(&self) {
        if self.connection.quic().is_some() {
            return pending().await;
        }
        loop {
            sleep(PROBE_EVERY).await;
            let moved = self.connection.moved();
            if timeout(PROBE_WITHIN, self.answers()).await.is_err() && self.connection.moved() == moved {
                return;
            }
        }
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Has the reply to request `id` given to `sender`, until what is given is dropped.
    fn expect_reply(&self, id: u64, sender: oneshot::Sender<ServerMessage>) -> Option<Awaited<'_>> {
        self.waiting().as_mut()?.insert(id, sender);
        Some(Awaited { link: self, id })
    }

    /// Gives a reply to whoever waits for it.
    pub(super) fn replied(&self, re: &RequestId, message: ServerMessage) {
        // Others than numbers were not sent.
        let RequestId::Number(id) = *re else { return };
        self.pace.replied(id, refused_for(&message));
        let Some(message) = self.topics.settle(id, message) else { return };
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiting) = waiting {
            // Whoever gave up waits no more, and it is nobody else's.
            let _ = waiting.send(message);
        }
        self.answered.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<ServerMessage>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the subscriptions, and reads until the connection ends, or the client has gone over to another one: replies go to
    /// who waits for them, topics' messages to their subscriptions, the rest to the events.
    pub(super) async fn serve(self: &Arc<Self>, reader: LaneReader, sink: EventSink) -> ClosedBy {
        self.topics.connected();
        // Whoever reads a topic lane or datagrams; they end with this.
        let mut readers = JoinSet::new();
        readers.spawn(Arc::clone(self).read_datagrams(sink.clone()));
        let end = tokio::select! {
            // What came before the end counts, above all the server's last words. Reading yields to the others.
            biased;
            end = self.read_control(reader, &sink) => end,
            end = self.accept_lanes(&mut readers, &sink) => end,
            () = self.until_unwritable() => ReadEnd::Ended,
            () = self.until_silent() => ReadEnd::LaneLost("nothing comes from the server any more".into()),
            () = self.moved.cancelled() => ReadEnd::Moved,
        };
        readers.shutdown().await;
        self.topics.disconnected();
        self.control.give_up();
        self.pace.end();
        // Whoever waits is told by the end of his channel.
        self.waiting().take();
        self.answered.notify_waiters();
        match end {
            ReadEnd::ToldToGo(closed) => {
                // Going at once spares the server the wait for this side's acknowledgement.
                self.close(closed.code, "").await;
                closed
            }
            ReadEnd::Broken(reason) => {
                let code = CloseCode::PROTOCOL_ERROR;
                self.close(code, &reason).await;
                ClosedBy::new(code, reason)
            }
            ReadEnd::LaneLost(reason) => {
                self.close(CloseCode::PROTOCOL_ERROR, &reason).await;
                ClosedBy::new(CloseCode::ABNORMAL, reason)
            }
            ReadEnd::Ended => {
                // The lane's end announces the connection's, and that tells the code.
                let closed = timeout(CLOSE_FOLLOWS, self.connection.closed()).await;
                self.close(CloseCode::PROTOCOL_ERROR, "the control lane ended").await;
                closed
                    .map_or_else(|_| ClosedBy::new(CloseCode::ABNORMAL, "the connection ended"), |gone| link_end(&gone))
            }
            ReadEnd::Moved => {
                let reason = "moved to another connection";
                self.close(CloseCode::NORMAL, reason).await;
                ClosedBy::new(CloseCode::NORMAL, reason)
            }
        }
    }

    /// Closes the connection with a code; a WebSocket has a moment for that.
    pub(super) async fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.0, reason, LINGER).await;
    }

    /// Sends what there is to send, until the control lane takes no more; and leaves time to read what came before that.
    async fn until_unwritable(&self) {
        tokio::select! {
            () = self.send_orders() => {}
            () = self.control.scheduler().drain() => {}
            () = self.control.stopped() => {}
        }
        sleep(CLOSE_FOLLOWS).await;
    }

    /// Sends what the subscriptions ask of the server, in order and at its pace, until the control lane takes no more.
    async fn send_orders(&self) {
        loop {
            let id = self.next_id();
            let turn = match self.topics.next() {
                Next::Nothing => {
                    self.topics.ordered().await;
                    continue;
                }
                Next::New => Either::Left(self.pace.next(Some(id))),
                Next::Again(at) => Either::Right(self.pace.again(at, id)),
            };
            // Something else may come due meanwhile.
            let turn = tokio::select! {
                biased;
                turn = turn => turn,
                () = self.topics.ordered() => continue,
            };
            if turn == Err(Over) {
                return;
            }
            let Some(Outgoing { message }) = self.topics.next_order(id) else {
                self.pace.given_up(id);
                continue;
            };
            match self.send_now(Some(id), &message).await {
                Ok(()) => {}
                Err(ClientError::Lost) => return,
                // It does not fit, and is the only one that suffers.
                Err(e) => {
                    self.pace.given_up(id);
                    self.topics.unsendable(id, e);
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
        let waited = self.link.waiting().as_mut().and_then(|waiting| waiting.remove(&self.id)).is_some();
        if waited {
            self.link.pace.given_up(self.id);
            self.link.answered.notify_waiters();
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
pub(super) fn link_end(gone: &Disconnected) -> ClosedBy {
    match gone {
        // None was said (RFC 6455 section 7.1.5).
        Disconnected::Closed { code: 1005, reason } => ClosedBy::new(CloseCode::ABNORMAL, reason.clone()),
        Disconnected::Closed { code, reason } => {
            ClosedBy::new(u16::try_from(*code).map_or(CloseCode::ABNORMAL, CloseCode), reason.clone())
        }
        Disconnected::Broken(reason) => ClosedBy::new(CloseCode::PROTOCOL_ERROR, *reason),
        Disconnected::Lost(reason) => ClosedBy::new(CloseCode::ABNORMAL, reason.clone()),
    }
}
