//! WebSocket (RFC 6455): one lane for each client, whose bodies are the socket's messages. A task, the `pump`, moves
//! them between the socket and the queues here, a little each way: what a client does not read waits in its lane's
//! backlog, and what the server does not read waits at the client.

mod lengths;
mod metered;
mod pump;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::{Disconnected, ReadFailure, SendFailure};
use quic_websocket_protocol::frame::FrameError;

pub use self::pump::{connect, echo, open};

/// Bytes of frames handed to the socket. Anything more waits in the backlog, where it can still be dropped.
const OUTGOING_BYTES: usize = 64 * 1024;
/// Bytes of received but unread bodies at which receiving pauses. A single body may exceed it.
const INCOMING_BYTES: usize = 64 * 1024;

/// A client's socket, as seen by its session.
#[derive(Debug)]
pub struct Socket {
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    outgoing: Mutex<Outgoing>,
    /// Wakes the pump: there is something to send.
    wanted: Notify,
    /// Wakes tasks that wait until everything is sent.
    sent: Notify,
    incoming: Mutex<Incoming>,
    /// Wakes the reader: bytes were received.
    received: Notify,
    /// Wakes the pump: there is room for more bodies.
    room: Notify,
    /// Signs of life: number of times that bytes arrived, or that the peer accepted bytes that had been waiting.
    activity: AtomicUsize,
    /// The lane's halves, until they are taken.
    lane: Mutex<Option<(Outlet, Inlet)>>,
    disconnected_by: OnceLock<Disconnected>,
    /// Cancelled once `disconnected_by` is set.
    is_disconnected: CancellationToken,
    /// Cancelled when the pump has ended.
    is_over: CancellationToken,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// Consecutive frames: a piece may hold several, or part of one.
    pieces: VecDeque<Bytes>,
    /// Bytes of the pieces, including the piece that the pump is sending.
    bytes: usize,
    /// Whether the pump holds bytes that the operating system does not have yet.
    under_way: bool,
    /// Wakes the lane's drain.
    writer: Option<Waker>,
    finished: bool,
    /// Whether the answer to a ping is still unsent. Until it is sent nothing more is read: otherwise answers would
    /// pile up for a peer that sends pings and reads nothing.
    pong: bool,
    /// Code and reason of the close frame to send after everything else.
    close: Option<(u16, String)>,
}

#[derive(Debug, Default)]
struct Incoming {
    bodies: VecDeque<Bytes>,
    bytes: usize,
    /// Arrival time of the first bytes that belong to no complete body.
    begun: Option<Instant>,
    /// Number of such bytes, control frames excluded.
    unfinished: usize,
    /// Reason why no more bodies follow.
    failure: Option<ReadFailure>,
    /// Whether the reader was dropped.
    abandoned: bool,
}

/// The sending half of the lane.
#[derive(Debug)]
pub struct Outlet(Arc<Socket>);

/// The receiving half of the lane.
#[derive(Debug)]
pub struct Inlet {
    socket: Arc<Socket>,
    /// Last seen value of `begun`.
    begun: Option<Instant>,
}

impl Socket {
    fn new(peer: SocketAddr, certificate: Option<CertificateDer<'static>>) -> Arc<Self> {
        let socket = Arc::new(Self {
            peer,
            certificate,
            outgoing: Mutex::default(),
            wanted: Notify::new(),
            sent: Notify::new(),
            incoming: Mutex::default(),
            received: Notify::new(),
            room: Notify::new(),
            activity: AtomicUsize::new(0),
            lane: Mutex::default(),
            disconnected_by: OnceLock::new(),
            is_disconnected: CancellationToken::new(),
            is_over: CancellationToken::new(),
        });
        *lock(&socket.lane) = Some((Outlet(Arc::clone(&socket)), Inlet { socket: Arc::clone(&socket), begun: None }));
        socket
    }

    /// Address of the peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Certificate that the peer presented.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.certificate.clone()
    }

    /// Takes the only lane. `None` on later calls.
    pub fn lane(&self) -> Option<(Outlet, Inlet)> {
        lock(&self.lane).take()
    }

    /// Another sending half, in place of the first one: only one of them may send.
    pub fn outlet(self: &Arc<Self>) -> Outlet {
        Outlet(Arc::clone(self))
    }

    /// Reason for the end of the connection, once it has ended.
    pub fn disconnected(&self) -> Option<Disconnected> {
        self.disconnected_by.get().cloned()
    }

    /// Waits for the end of the connection. Cancel safe.
    pub async fn closed(&self) -> Disconnected {
        loop {
            if let Some(cause) = self.disconnected() {
                return cause;
            }
            self.is_disconnected.cancelled().await;
        }
    }

    /// Sends a close frame, and waits until the peer has answered it or has disconnected.
    pub async fn close(&self, code: u16, reason: &str) {
        lock(&self.outgoing).close = Some((code, reason.to_owned()));
        self.wanted.notify_one();
        self.is_over.cancelled().await;
    }

    /// Marks the connection as ended. The first reason wins.
    fn end(&self, cause: Disconnected) {
        if self.disconnected_by.set(cause).is_err() {
            return;
        }
        self.is_disconnected.cancel();
        self.received.notify_one();
        self.sent.notify_waiters();
        wake(&mut lock(&self.outgoing));
    }

    /// Next item to send: frames, then the close frame. `flushed`: the operating system has everything before it.
    fn next_outgoing(&self, flushed: bool) -> Option<Next> {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.pong {
            return Some(Next::Pong);
        }
        outgoing.under_way = !flushed || !outgoing.pieces.is_empty();
        if let Some(piece) = outgoing.pieces.pop_front() {
            return Some(Next::Frames(piece));
        }
        if flushed {
            self.sent.notify_waiters();
        }
        outgoing.close.take().map(|(code, reason)| Next::Close(code, reason))
    }

    /// Records that the pump passed `bytes` on.
    fn passed(&self, bytes: usize) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.bytes = outgoing.bytes.saturating_sub(bytes);
        if outgoing.bytes < OUTGOING_BYTES {
            wake(&mut outgoing);
        }
    }

    /// Waits until there is room to receive more. Cancel safe.
    async fn has_room(&self) {
        loop {
            let is_answered = !lock(&self.outgoing).pong;
            {
                let incoming = lock(&self.incoming);
                if is_answered && (incoming.abandoned || incoming.bytes < INCOMING_BYTES) {
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// Records that the answer to a ping is ready to send.
    fn pong(&self) {
        lock(&self.outgoing).pong = true;
        self.wanted.notify_one();
    }

    /// Records that the answer was sent.
    fn ponged(&self) {
        lock(&self.outgoing).pong = false;
        self.room.notify_one();
    }

    /// Counter of signs of life; changes whenever the peer shows one.
    pub fn moved(&self) -> usize {
        self.activity.load(Ordering::Relaxed)
    }

    /// Records received bytes.
    fn moved_in(&self, bytes: usize) {
        self.activity.fetch_add(1, Ordering::Relaxed);
        let mut incoming = lock(&self.incoming);
        incoming.unfinished += bytes;
        if incoming.begun.is_none() {
            incoming.begun = Some(Instant::now());
            self.received.notify_one();
        }
    }

    /// Records that the peer accepted bytes that had been waiting.
    fn moved_out(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that `bytes` of those received were a control frame.
    fn control(&self, bytes: usize) {
        let mut incoming = lock(&self.incoming);
        incoming.unfinished = incoming.unfinished.saturating_sub(bytes);
        if incoming.unfinished == 0 && incoming.begun.take().is_some() {
            self.received.notify_one();
        }
    }

    fn receive(&self, body: Bytes) {
        let mut incoming = lock(&self.incoming);
        // Bytes already received after it count from the next arrival.
        (incoming.begun, incoming.unfinished) = (None, 0);
        if !incoming.abandoned {
            incoming.bytes += cost(&body);
            incoming.bodies.push_back(body);
            self.received.notify_one();
        }
    }

    fn fail(&self, failure: ReadFailure) {
        lock(&self.incoming).failure = Some(failure);
        self.received.notify_one();
    }
}

/// An item for the pump to send.
enum Next {
    /// The answer to a ping, already queued by the library.
    Pong,
    Frames(Bytes),
    Close(u16, String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory cost of an unread body, in bytes.
fn cost(body: &Bytes) -> usize {
    size_of::<Bytes>() + body.len()
}

fn wake(outgoing: &mut Outgoing) {
    if let Some(writer) = outgoing.writer.take() {
        writer.wake();
    }
}

impl Outlet {
    /// Accepts whole pieces while there is room.
    pub(crate) fn poll_write(
        &mut self,
        frames: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(usize, usize), SendFailure>> {
        let Self(socket) = self;
        let mut outgoing = lock(&socket.outgoing);
        if outgoing.finished || socket.disconnected_by.get().is_some() {
            return Poll::Ready(Err(SendFailure::Closed));
        }
        let (mut bytes, mut taken) = (0, 0);
        for frame in frames {
            if outgoing.bytes >= OUTGOING_BYTES {
                break;
            }
            let frame = std::mem::take(frame);
            (bytes, taken) = (bytes + frame.len(), taken + 1);
            outgoing.bytes += frame.len();
            outgoing.pieces.push_back(frame);
        }
        if taken == 0 {
            outgoing.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        socket.wanted.notify_one();
        Poll::Ready(Ok((bytes, taken)))
    }

    /// Ends the stream. False if it had already ended.
    pub(crate) fn finish(&mut self) -> bool {
        !std::mem::replace(&mut lock(&self.0.outgoing).finished, true)
    }

    /// Discards everything that the pump is not already sending.
    pub(crate) fn reset(&mut self) {
        let mut outgoing = lock(&self.0.outgoing);
        let given_up: usize = outgoing.pieces.drain(..).map(|piece| piece.len()).sum();
        outgoing.bytes = outgoing.bytes.saturating_sub(given_up);
        outgoing.finished = true;
    }

    /// Waits until the operating system has everything and no more follows (true), or the connection has ended (false).
    pub(crate) fn ended(&self) -> impl Future<Output = bool> + 'static {
        let socket = Arc::clone(&self.0);
        async move {
            loop {
                let sent = socket.sent.notified();
                {
                    let outgoing = lock(&socket.outgoing);
                    if socket.disconnected_by.get().is_some() {
                        return false;
                    }
                    if outgoing.finished && outgoing.pieces.is_empty() && !outgoing.under_way {
                        return true;
                    }
                }
                sent.await;
            }
        }
    }
}

impl Inlet {
    /// Returns the next body among those already received.
    pub(crate) fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        let socket = &self.socket;
        let mut incoming = lock(&socket.incoming);
        let Some(body) = incoming.bodies.pop_front() else { return Ok(None) };
        incoming.bytes -= cost(&body);
        socket.room.notify_one();
        if body.is_empty() { Err(FrameError::Empty) } else { Ok(Some(body)) }
    }

    /// Whether a body has begun and is incomplete.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Waits for a body, or for the beginning of one. Cancel safe.
    pub(crate) async fn fill(&mut self) -> Result<(), ReadFailure> {
        loop {
            {
                let mut incoming = lock(&self.socket.incoming);
                let begun = std::mem::replace(&mut self.begun, incoming.begun);
                if !incoming.bodies.is_empty() || begun != incoming.begun {
                    return Ok(());
                }
                if let Some(failure) = incoming.failure.take() {
                    return Err(failure);
                }
            }
            if let Some(cause) = self.socket.disconnected() {
                return Err(ReadFailure::Disconnected(cause));
            }
            self.socket.received.notified().await;
        }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut incoming = lock(&self.socket.incoming);
        incoming.abandoned = true;
        incoming.bodies.clear();
        self.socket.room.notify_one();
    }
}
