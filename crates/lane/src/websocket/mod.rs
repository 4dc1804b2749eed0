//! WebSocket (RFC 6455): one lane for each client, whose bodies are the socket's messages. A task, the `pump`, moves
//! them between the socket and what is here: a little each way, so that what a client does not take waits in its lane's
//! backlog, and what the server does not take waits at the client.

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

pub use self::pump::{ask, echo, open};

/// Bytes of frames that are on their way to the socket. Whatever is more waits in the backlog, where it can still be
/// dropped.
const OUTGOING_BYTES: usize = 64 * 1024;
/// Bytes of bodies that were read and not asked for yet, beyond which nothing more is read: one body can be longer.
const INCOMING_BYTES: usize = 64 * 1024;

/// A client's socket, as its session knows it.
#[derive(Debug)]
pub struct Socket {
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    outgoing: Mutex<Outgoing>,
    /// Wakes the pump: something is to be sent.
    wanted: Notify,
    /// Wakes whoever waits for what was sent to be gone.
    sent: Notify,
    incoming: Mutex<Incoming>,
    /// Wakes the reader: something was received.
    received: Notify,
    /// Wakes the pump: there is room for more.
    room: Notify,
    /// How often bytes came in, and how often the peer took some that had waited: signs of its life.
    moved: AtomicUsize,
    /// Until somebody takes it.
    lane: Mutex<Option<(Outlet, Inlet)>>,
    gone: OnceLock<Disconnected>,
    /// Cancelled when `gone` is there.
    is_gone: CancellationToken,
    /// Cancelled when the pump has ended.
    is_over: CancellationToken,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// Frames one behind the other: a piece may hold several, or a part of one.
    pieces: VecDeque<Bytes>,
    /// In pieces, those included that the pump has in hand.
    bytes: usize,
    /// Whether the pump has something in hand that is not with the system yet.
    under_way: bool,
    /// Wakes the lane's drain.
    writer: Option<Waker>,
    finished: bool,
    /// A ping was answered with what is not with the system yet. Until it is nothing more is read: whoever sends pings
    /// and takes no answers would have them pile up.
    pong: bool,
    /// The last word, once what is here was sent: a closing code and a reason.
    close: Option<(u16, String)>,
}

#[derive(Debug, Default)]
struct Incoming {
    bodies: VecDeque<Bytes>,
    bytes: usize,
    /// When the first bytes came that are part of no body yet.
    begun: Option<Instant>,
    /// How many there are since, as far as they are no control frames.
    unfinished: usize,
    /// Why no more follow.
    failure: Option<ReadFailure>,
    /// Nobody reads any more.
    abandoned: bool,
}

/// The half of the lane that is written to.
#[derive(Debug)]
pub struct Outlet(Arc<Socket>);

/// The half of the lane that is read from.
#[derive(Debug)]
pub struct Inlet {
    socket: Arc<Socket>,
    /// What was last known of `begun`.
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
            moved: AtomicUsize::new(0),
            lane: Mutex::default(),
            gone: OnceLock::new(),
            is_gone: CancellationToken::new(),
            is_over: CancellationToken::new(),
        });
        *lock(&socket.lane) = Some((Outlet(Arc::clone(&socket)), Inlet { socket: Arc::clone(&socket), begun: None }));
        socket
    }

    /// The address of the other side.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The certificate that the other side has shown.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.certificate.clone()
    }

    /// The one lane. `None` the second time.
    pub fn lane(&self) -> Option<(Outlet, Inlet)> {
        lock(&self.lane).take()
    }

    /// Why the client is there no more.
    pub fn disconnected(&self) -> Option<Disconnected> {
        self.gone.get().cloned()
    }

    /// Waits until the client is there no more. Cancel safe.
    pub async fn closed(&self) -> Disconnected {
        loop {
            if let Some(gone) = self.disconnected() {
                return gone;
            }
            self.is_gone.cancelled().await;
        }
    }

    /// Has the pump say the last word, and waits until the peer has answered it, or is gone.
    pub async fn close(&self, code: u16, reason: &str) {
        lock(&self.outgoing).close = Some((code, reason.to_owned()));
        self.wanted.notify_one();
        self.is_over.cancelled().await;
    }

    /// The client is gone. The first reason counts.
    fn end(&self, gone: Disconnected) {
        if self.gone.set(gone).is_err() {
            return;
        }
        self.is_gone.cancel();
        self.received.notify_one();
        self.sent.notify_waiters();
        wake(&mut lock(&self.outgoing));
    }

    /// What is to be sent next: frames, else the last word. `flushed` says whether all before is with the system.
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

    /// The pump has handed so many bytes on.
    fn passed(&self, bytes: usize) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.bytes = outgoing.bytes.saturating_sub(bytes);
        if outgoing.bytes < OUTGOING_BYTES {
            wake(&mut outgoing);
        }
    }

    /// Waits until more may be received. Cancel safe.
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

    /// The answer to a ping lies ready.
    fn pong(&self) {
        lock(&self.outgoing).pong = true;
        self.wanted.notify_one();
    }

    /// It is with the system.
    fn ponged(&self) {
        lock(&self.outgoing).pong = false;
        self.room.notify_one();
    }

    /// Changes whenever the peer shows that it is there.
    pub fn moved(&self) -> usize {
        self.moved.load(Ordering::Relaxed)
    }

    /// So many bytes came in.
    fn moved_in(&self, bytes: usize) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        let mut incoming = lock(&self.incoming);
        incoming.unfinished += bytes;
        if incoming.begun.is_none() {
            incoming.begun = Some(Instant::now());
            self.received.notify_one();
        }
    }

    /// The peer took something that had waited for it.
    fn moved_out(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// So many of the bytes that came in were a control frame.
    fn control(&self, bytes: usize) {
        let mut incoming = lock(&self.incoming);
        incoming.unfinished = incoming.unfinished.saturating_sub(bytes);
        if incoming.unfinished == 0 && incoming.begun.take().is_some() {
            self.received.notify_one();
        }
    }

    fn receive(&self, body: Bytes) {
        let mut incoming = lock(&self.incoming);
        // What may have come behind it counts from its own next bytes.
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

/// What the pump has to send.
enum Next {
    /// What answers a ping, which lies ready.
    Pong,
    Frames(Bytes),
    Close(u16, String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a body costs in memory that waits to be read.
fn cost(body: &Bytes) -> usize {
    size_of::<Bytes>() + body.len()
}

fn wake(outgoing: &mut Outgoing) {
    if let Some(writer) = outgoing.writer.take() {
        writer.wake();
    }
}

impl Outlet {
    /// Takes pieces whole, while there is room.
    pub(crate) fn poll_write(
        &mut self,
        frames: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(usize, usize), SendFailure>> {
        let Self(socket) = self;
        let mut outgoing = lock(&socket.outgoing);
        if outgoing.finished || socket.gone.get().is_some() {
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

    /// Nothing more is written. False where that was known.
    pub(crate) fn finish(&mut self) -> bool {
        !std::mem::replace(&mut lock(&self.0.outgoing).finished, true)
    }

    /// Gives up what the pump does not have in hand.
    pub(crate) fn reset(&mut self) {
        let mut outgoing = lock(&self.0.outgoing);
        let given_up: usize = outgoing.pieces.drain(..).map(|piece| piece.len()).sum();
        outgoing.bytes = outgoing.bytes.saturating_sub(given_up);
        outgoing.finished = true;
    }

    /// Waits until all that was written is with the system and no more follows (true), or the client is gone.
    pub(crate) fn ended(&self) -> impl Future<Output = bool> + 'static {
        let socket = Arc::clone(&self.0);
        async move {
            loop {
                let sent = socket.sent.notified();
                {
                    let outgoing = lock(&socket.outgoing);
                    if socket.gone.get().is_some() {
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
    /// The next body of what has been received already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        let socket = &self.socket;
        let mut incoming = lock(&socket.incoming);
        let Some(body) = incoming.bodies.pop_front() else { return Ok(None) };
        incoming.bytes -= cost(&body);
        socket.room.notify_one();
        if body.is_empty() { Err(FrameError::Empty) } else { Ok(Some(body)) }
    }

    /// Whether a body has begun that is not whole.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Waits for a body, or for one to begin. Cancel safe.
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
            if let Some(gone) = self.socket.disconnected() {
                return Err(ReadFailure::Disconnected(gone));
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
