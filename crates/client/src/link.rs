//! One connection of a client: dialled, greeted, and read until it ends. A reconnect makes another one.

mod asking;

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::Either;
use quic_websocket_lane::{Disconnected, LaneReader, LaneWriter, Overflow};
use quic_websocket_protocol::frame::{self, Compression, PREFIX_BYTES};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::asking::Asks;
use super::connection::Connection;
use super::dial::CLOSE_TIMEOUT;
use super::inbound::{EventSink, ReadEnd};
use super::pace::{ConnectionEnded, Pace};
use super::topics::{Next, Outgoing, Topics, refused_for};
use super::{Carrier, ClientError};
use crate::message::{ClientMessage, CloseCode, ClosedBy, HandshakeReply, RequestId, ServerMessage};

/// Bodies of at least this size are compressed if the server agreed to compression.
const COMPRESS_MIN_BYTES: usize = 1024;

/// How long the server's close may take to follow after a lane has ended that should not.
pub(super) const CLOSE_FOLLOWS: Duration = Duration::from_secs(2);

/// How often the client of a WebSocket probes the server: TCP reports a dead peer late, or never.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How long the server may be silent after a probe before the connection counts as lost.
pub(super) const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// Most subscriptions of the server that are remembered while the client moves to another connection.
const MOST_EARLY: usize = 64;

/// A connection on which the handshake was accepted.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) control: Arc<LaneWriter>,
    pub(super) greeting: HandshakeReply,
    pub(super) topics: Arc<Topics>,
    pub(super) pace: Pace,
    /// Wakes the refresh of the token, which expires soon.
    pub(super) expiring: Notify,
    /// Cancelled to end this connection once the client uses another one.
    pub(super) moved: CancellationToken,
    /// Cancelled once the subscriptions are made on this connection.
    current: CancellationToken,
    /// Cancelled once nothing more is read, and the subscriptions can be made on another connection.
    pub(super) ended: CancellationToken,
    next_id: AtomicU64,
    /// The callers that wait, by request; `None` once the link has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<ServerMessage>>>>,
    /// Wakes the task that waits for all replies.
    answered: Notify,
    /// What the server said of its subscriptions before this connection was current.
    early: Mutex<Vec<ServerMessage>>,
    /// The requests to other clients.
    asks: Asks,
    /// Stops the handlers of requests of other clients, by request.
    served: Mutex<HashMap<Box<str>, CancellationToken>>,
    /// Moves a WebSocket's messages, and ends with the link.
    _pump: Option<AbortOnDropHandle<()>>,
}

/// The reason why a request has no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection ended before the request was sent: it can be sent over another one.
    Unsent,
    Error(ClientError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Error(error)
    }
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        control: Arc<LaneWriter>,
        greeting: HandshakeReply,
        topics: Arc<Topics>,
        pump: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let asks = Asks::new(&greeting);
        Self {
            connection,
            control,
            greeting,
            topics,
            pace: Pace::new(),
            expiring: Notify::new(),
            moved: CancellationToken::new(),
            current: CancellationToken::new(),
            ended: CancellationToken::new(),
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
            answered: Notify::new(),
            early: Mutex::default(),
            asks,
            served: Mutex::default(),
            _pump: pump,
        }
    }

    pub(super) fn carrier(&self) -> Carrier {
        if self.connection.quic().is_some() { Carrier::Quic } else { Carrier::WebSocket }
    }

    /// Has the subscriptions made on this connection. Call it once the connection before has [`ended`](Self::ended).
    pub(super) fn make_current(&self) {
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        self.topics.connected(&self.greeting.subscriptions, early);
        self.current.cancel();
    }

    /// Keeps what the server says of its subscriptions before the client's own are made here. Gives back what is else.
    pub(super) fn keep_early(&self, message: ServerMessage) -> Option<ServerMessage> {
        let is_announced = matches!(&message, ServerMessage::Subscribed(subscribed) if subscribed.by_server);
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ended.is_cancelled() || !is_announced || early.len() >= MOST_EARLY {
            return Some(message);
        }
        early.push(message);
        None
    }

    /// Waits until the subscriptions are on this connection, or it has ended.
    pub(super) async fn until_current(&self) {
        tokio::select! {
            () = self.current.cancelled() => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// Whether the subscriptions are on this connection.
    pub(super) fn is_current(&self) -> bool {
        self.current.is_cancelled() && !self.ended.is_cancelled()
    }

    pub(super) fn compression(&self) -> Compression {
        self.greeting.compression
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
        if self.compression().is_some() && bytes >= COMPRESS_MIN_BYTES {
            return Ok(frame::compress(&plain, self.compression()).unwrap_or(plain));
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
        self.pace.next(None).await.map_err(|ConnectionEnded| Failure::Unsent)?;
        self.control.send(&mut [frame]).await.map_err(|_| ClientError::Lost.into())
    }

    /// Sends a request on the control lane at the server's pace, and waits for its reply. If the server refuses it as
    /// too frequent, it is sent again when the server says, unless that is later than `deadline`.
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
            .map_err(|ConnectionEnded| Failure::Unsent)?;
            self.send_now(Some(id), message).await?;
            let reply = reply.await.map_err(|_| ClientError::Lost)?;
            drop(awaited);
            match refused_for(&reply).map(|wait| Instant::now() + wait) {
                Some(turn) if turn < deadline => at = Some(turn),
                _ => return Ok(unless_error(reply)?),
            }
        }
    }

    /// Whether the server answers a ping, which is sent at once.
    async fn answers(&self) -> bool {
        let id = self.next_id();
        let (sender, reply) = oneshot::channel();
        let Some(_awaited) = self.expect_reply(id, sender) else { return false };
        let ping = ClientMessage::Ping { timestamp: Some(crate::message::now_ms()) };
        self.send_now(Some(id), &ping).await.is_ok() && reply.await.is_ok()
    }

    /// Waits until every request is answered, and everything before the last answer has been read.
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

    /// Waits until the server of a WebSocket has been silent for too long. QUIC detects that by itself.
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

    /// Gives the reply to request `id` to `sender`, until the returned guard is dropped.
    fn expect_reply(&self, id: u64, sender: oneshot::Sender<ServerMessage>) -> Option<Awaited<'_>> {
        self.waiting().as_mut()?.insert(id, sender);
        Some(Awaited { link: self, id })
    }

    /// Gives a reply to the caller that waits for it.
    pub(super) fn replied(&self, re: &RequestId, message: ServerMessage) {
        // The client sends numbers alone.
        let RequestId::Number(id) = *re else { return };
        self.read_up_to(id);
        self.pace.replied(id, refused_for(&message));
        // Each connection has its own ids: a subscription's are those of the current one.
        let others = if self.is_current() { self.topics.settle(id, message) } else { Some(message) };
        let Some(message) = others else { return };
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiting) = waiting {
            // The caller may have given up.
            let _ = waiting.send(message);
        }
        self.answered.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<ServerMessage>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the connection ends, or the client uses another one: replies go to their callers, topics' messages
    /// to their subscriptions, the rest to the events. Makes the subscriptions once the connection is
    /// [current](Self::make_current).
    pub(super) async fn serve(self: Arc<Self>, reader: LaneReader, sink: EventSink) -> ClosedBy {
        // The readers of datagrams and topic lanes; they end with this.
        let mut readers = JoinSet::new();
        readers.spawn(Arc::clone(&self).read_datagrams(sink.clone()));
        let end = tokio::select! {
            // Everything before the end counts, above all the server's last words. Reading yields to the others.
            biased;
            end = self.read_control(reader, &sink) => end,
            end = self.accept_lanes(&mut readers, &sink) => end,
            () = self.until_unwritable() => ReadEnd::Ended,
            () = self.until_silent() => ReadEnd::LaneLost("the server no longer answers".into()),
            () = self.moved.cancelled() => ReadEnd::Moved,
        };
        readers.shutdown().await;
        if self.is_current() {
            self.topics.disconnected();
        }
        self.ended.cancel();
        self.control.give_up();
        self.asks.end();
        self.served().drain().for_each(|(_, stop)| stop.cancel());
        self.pace.end();
        // The end of the channels tells the callers.
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
        self.connection.close(code.0, reason, CLOSE_TIMEOUT).await;
    }

    /// Sends until the control lane takes no more, and then leaves time to read what came before that.
    async fn until_unwritable(&self) {
        tokio::select! {
            () = self.send_requests() => {}
            () = self.control.scheduler().drain() => {}
            () = self.control.stopped() => {}
        }
        sleep(CLOSE_FOLLOWS).await;
    }

    /// Sends the requests of the subscriptions, in order and at the server's pace, until the control lane takes no
    /// more.
    async fn send_requests(&self) {
        self.current.cancelled().await;
        loop {
            let id = self.next_id();
            let turn = match self.topics.next() {
                Next::Nothing => {
                    self.topics.requests_due().await;
                    continue;
                }
                Next::New => Either::Left(self.pace.next(Some(id))),
                Next::Again(at) => Either::Right(self.pace.again(at, id)),
            };
            // Another request may come due meanwhile.
            let turn = tokio::select! {
                biased;
                turn = turn => turn,
                () = self.topics.requests_due() => continue,
            };
            if turn == Err(ConnectionEnded) {
                return;
            }
            let Some(Outgoing { message }) = self.topics.next_request(id) else {
                self.pace.given_up(id);
                continue;
            };
            match self.send_now(Some(id), &message).await {
                Ok(()) => {}
                Err(ClientError::Lost) => return,
                // It is too large, which ends that subscription alone.
                Err(e) => {
                    self.pace.given_up(id);
                    self.topics.unsendable(id, e);
                }
            }
        }
    }

    /// Answers a ping without waiting: it may take the server's next message to make room.
    pub(super) fn pong(&self) {
        if let Ok(frame) = self.encode(None, &ClientMessage::Pong) {
            // If it does not fit, the messages that wait are a sign of life as well.
            let _ = self.control.try_send(&frame.into(), Overflow::Refuse);
        }
    }

    /// Sends a message whose reply does not matter, if there is room for it. Does not wait.
    pub(super) fn tell(&self, message: &ClientMessage) {
        if let Ok(frame) = self.encode(Some(self.next_id()), message) {
            let _ = self.control.try_send(&frame.into(), Overflow::Refuse);
        }
    }

    fn served(&self) -> MutexGuard<'_, HashMap<Box<str>, CancellationToken>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another client's request has come. What is returned is cancelled when it needs no answer any more.
    pub(super) fn begin_serving(&self, request: &str) -> CancellationToken {
        let stop = CancellationToken::new();
        self.served().insert(request.into(), stop.clone());
        if self.ended.is_cancelled() {
            stop.cancel();
        }
        stop
    }

    /// A request needs no answer any more, or has one.
    pub(super) fn end_serving(&self, request: &str) {
        let stop = self.served().remove(request);
        if let Some(stop) = stop {
            stop.cancel();
        }
    }
}

/// A caller that waits for a reply; dropping it stops the wait.
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

/// Turns an `error` reply into an error.
pub(super) fn unless_error(message: ServerMessage) -> Result<ServerMessage, ClientError> {
    match message {
        ServerMessage::Error(error) => Err(ClientError::Server(error)),
        message => Ok(message),
    }
}

/// The close code and the reason with which a connection ended.
pub(super) fn link_end(gone: &Disconnected) -> ClosedBy {
    match gone {
        // The close frame had none (RFC 6455 section 7.1.5).
        Disconnected::Closed { code: 1005, reason } => ClosedBy::new(CloseCode::ABNORMAL, reason.clone()),
        Disconnected::Closed { code, reason } => {
            ClosedBy::new(u16::try_from(*code).map_or(CloseCode::ABNORMAL, CloseCode), reason.clone())
        }
        Disconnected::Broken(reason) => ClosedBy::new(CloseCode::PROTOCOL_ERROR, *reason),
        Disconnected::Lost(reason) => ClosedBy::new(CloseCode::ABNORMAL, reason.clone()),
    }
}
