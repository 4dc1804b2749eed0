//! One connected client, from its first packet to its last: handshake, its lanes, its signs of life, its end. One task
//! for the client and one for each open request lane, all owned here: when the client ends, nothing of it is left.

mod arrival;
mod early;
mod handshake;
mod lanes;
mod reassembly;
mod reply_queue;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use quic_websocket_lane::{Disconnected, LaneWriter, ReadFailure, SendHalf, Sent};
use quinn::{ReadError, ZeroRttAccepted};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

pub(crate) use self::arrival::{run, run_socket};
use self::early::{Early, Gate, Registration, RegistryEntry, Unconfirmed};
use self::handshake::{Refused, Welcomed};
use self::lanes::RequestLanes;
use self::reassembly::ReassemblyBudget;
use self::turns::Turns;
use crate::Printable;
use crate::frame::{self, Compression, FrameError, PREFIX_BYTES};
use crate::handler::{Caller, Context, Replies};
use crate::limits::Allowance;
use crate::message::{CloseCode, ClosedBy, ServerMessage, Token, now_ms};
use crate::metrics::Counters;
use crate::origin::OwnPages;
use crate::outbound::Outbound;
use crate::registry::{Handshaking, Roster};
use crate::tls::ShortLived;
use crate::topic::Client;
use crate::transport::Carrier;

/// Between the end of a lane that the peer does not read and QUIC's own close: two round trips with the time in which the
/// peer may hold its acknowledgement back, within these bounds.
const MIN_GRACE: Duration = Duration::from_millis(100);
const MAX_GRACE: Duration = Duration::from_millis(1000);

/// Among the client's lanes, that of a topic with the default priority: an answer is as urgent as a message.
const REQUEST_LANE_PRIORITY: i32 = 128;

/// What a worker lends to each of its clients.
#[derive(Debug, Clone)]
pub(crate) struct WorkerContext {
    pub(crate) context: Arc<Context>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) worker: usize,
    pub(crate) own_pages: Arc<OwnPages>,
    /// The certificate that browsers trust by its hash.
    pub(crate) short_lived: ShortLived,
    /// Cancelled when the server drains.
    pub(crate) draining: CancellationToken,
}

impl WorkerContext {
    /// Where the worker counts.
    fn counters(&self) -> &Arc<Counters> {
        self.context.metrics.of(self.worker)
    }
}

/// What a client may still have to get at its end.
struct Lanes<'a> {
    control: Option<&'a LaneWriter>,
    topics: Option<&'a Outbound>,
    requests: RequestLanes,
}

/// How a client's connection ends.
#[derive(Debug)]
enum End {
    /// The peer closed it, or it is lost.
    Disconnected(Disconnected),
    /// The client asked for it, or ended its control lane: what it is owed is sent first.
    Left(ClosedBy),
    /// The server ends it and says so.
    Sent(ClosedBy),
}

impl End {
    fn sent(code: CloseCode, reason: impl Into<String>) -> Self {
        Self::Sent(ClosedBy::new(code, reason))
    }

    /// The closing code, as far as there was one.
    fn code(&self) -> u64 {
        match self {
            Self::Disconnected(Disconnected::Closed { code, .. }) => *code,
            Self::Disconnected(Disconnected::Broken(_)) => CloseCode::PROTOCOL_ERROR.0.into(),
            Self::Disconnected(Disconnected::Lost(_)) => CloseCode::ABNORMAL.0.into(),
            Self::Left(closed) | Self::Sent(closed) => closed.code.0.into(),
        }
    }
}

/// The end of a connection whose bytes can no longer be understood.
fn frame_error(error: FrameError) -> End {
    let code = match error {
        FrameError::TooBig { .. } => CloseCode::TOO_BIG,
        FrameError::Empty | FrameError::NotAgreed | FrameError::Foreign => CloseCode::PROTOCOL_ERROR,
    };
    End::sent(code, error.to_string())
}

/// The end of a client of one of whose lanes nothing more can be read; `None` where that lane alone has ended.
fn unreadable(carrier: &Carrier, failure: ReadFailure) -> Option<End> {
    match failure {
        ReadFailure::Frame(e) => Some(frame_error(e)),
        ReadFailure::Broken { code, reason } => Some(End::sent(CloseCode(code), reason)),
        ReadFailure::Stream(ReadError::ConnectionLost(e)) => Some(End::Disconnected(carrier.disconnected(e))),
        ReadFailure::Stream(_) => None,
        ReadFailure::Disconnected(gone) => Some(End::Disconnected(gone)),
    }
}

/// A client that is in: what its lanes share.
#[derive(Debug)]
struct Session {
    context: Arc<Context>,
    carrier: Carrier,
    outbound: Arc<Outbound>,
    caller: Caller,
    /// Open once the client is confirmed.
    gate: Gate,
    compression: Compression,
    max_message_bytes: usize,
    reassembly: ReassemblyBudget,
    turns: Turns,
    /// Bodies in a row that were no JSON.
    malformed: AtomicU8,
    /// Requests that wait for others. Until they are done their lanes are not read, and an answer to a ping may be there.
    waiting: AtomicUsize,
    /// Nanoseconds from `begun` to the last thing heard. Anything coarser puts a fast answer before its ping.
    heard: AtomicU64,
    begun: Instant,
    /// Cancelled when the client ends: its request lanes send what they have and read no further.
    leaving: CancellationToken,
}

impl Session {
    fn id(&self) -> Uuid {
        self.outbound.id
    }

    fn replies(&self) -> Replies {
        Replies::new(self.outbound.zstd.then(|| self.context.compress_min_bytes()))
    }

    /// The outbound side of another of the client's streams, within the client's budget.
    fn new_lane(&self, send: SendHalf) -> Arc<LaneWriter> {
        LaneWriter::new(send, self.carrier.layer(), REQUEST_LANE_PRIORITY, self.outbound.control.scheduler())
    }

    /// Says something unasked, on the control lane.
    fn tell(&self, message: &ServerMessage) {
        let mut frame = BytesMut::new();
        message.encode(None, &mut frame);
        self.outbound.put(&frame::exact(frame).into());
    }

    fn hear(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard.store(elapsed, Ordering::Relaxed);
    }

    fn last_heard(&self) -> Instant {
        self.begun + Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }
}

/// Shakes hands with who has connected, or is about to and has sent something `early`; and serves who is let in. `bearer` is
/// the token that came with the connection, for who shows none in the handshake.
async fn welcome(
    carrier: Carrier,
    early: Option<Early>,
    bearer: Option<Token>,
    deadline: Instant,
    worker_context: WorkerContext,
    handshaking: Handshaking,
) {
    let context = Arc::clone(&worker_context.context);
    let from = carrier.remote_address();
    let id = Uuid::new_v4();
    let worker = worker_context.worker;
    info!(client = %id, peer = %from, worker, "New connection from {from}, assigned ID: {id}");
    let connected = context.registry.connect();
    let clients = context.registry.connections();
    info!(client = %id, clients, "Client {id} connected. Total clients: {clients}");

    let place = context.addresses.connect(from.ip());
    let (control, confirmed) =
        early.map(|Early { control: (send, receive), confirmed }| ((send.into(), receive.into()), confirmed)).unzip();
    let welcomed = tokio::select! {
        welcomed = handshake::welcome(&carrier, control, bearer, id, deadline, &worker_context, place.as_ref()) => welcomed,
        () = carrier.opened_forbidden_stream() => Err(opened_forbidden_stream().into()),
        () = worker_context.draining.cancelled() => Err(draining(&context).into()),
    };
    match welcomed {
        Ok(welcomed) => {
            let confirmation = confirmed.map(|confirmed| (confirmed, handshaking, deadline));
            serve(carrier, welcomed, confirmation, &worker_context).await;
        }
        Err(Refused { end, control }) => {
            let lanes = Lanes { control: control.as_deref(), topics: None, requests: RequestLanes::default() };
            // Counted as under way until it is gone: refusing has to have a bound, too.
            finish(&carrier, id, lanes, end, &worker_context).await;
            drop(handshaking);
        }
    }
    drop((connected, place));
    let clients = context.registry.connections();
    info!(client = %id, clients, "Client {id} disconnected. Total clients: {clients}");
}

async fn serve(
    carrier: Carrier,
    welcomed: Welcomed,
    confirmation: Option<(ZeroRttAccepted, Handshaking, Instant)>,
    worker_context: &WorkerContext,
) {
    let Welcomed { reader, outbound, compression, registration, member, identity } = welcomed;
    let context = Arc::clone(&worker_context.context);
    let is_confirmed = matches!(registration, RegistryEntry::Made(_));
    let rates = &context.config.rates;
    let is_exempt = rates.exempt(carrier.remote_address().ip());
    let allowance = Allowance::new(rates, is_exempt, Arc::clone(worker_context.counters()));
    allowance.set_message_rate(identity.max_rate);
    let client = Client::new(Arc::clone(&outbound), member, worker_context.worker, is_confirmed);
    let session = Arc::new(Session {
        max_message_bytes: handshake::max_message_bytes(&context),
        reassembly: ReassemblyBudget::new(&context.config),
        turns: Turns::new(),
        context: Arc::clone(&context),
        carrier,
        outbound: Arc::clone(&outbound),
        caller: Caller::new(Arc::clone(&client), allowance, identity),
        gate: Gate::new(is_confirmed),
        compression,
        malformed: AtomicU8::new(0),
        waiting: AtomicUsize::new(0),
        heard: AtomicU64::new(0),
        begun: Instant::now(),
        leaving: CancellationToken::new(),
    });
    let mut in_place = Registration::default();
    let unconfirmed = match registration {
        RegistryEntry::Made(registered) => {
            in_place.take(&session, worker_context, registered).await;
            None
        }
        RegistryEntry::Wanted(info, naming) => confirmation.map(|(confirmed, handshaking, deadline)| Unconfirmed {
            confirmed,
            info,
            naming,
            handshaking,
            deadline,
        }),
    };
    let mut lanes = RequestLanes::default();
    // Each of these runs until the client ends; none is dropped before that, so none needs to be cancel safe.
    let end = tokio::select! {
        biased;
        end = early::confirm(&session, worker_context, unconfirmed, &mut in_place) => end,
        end = lanes::serve(&session, reader, &outbound.control) => end,
        end = lanes.accept(&session) => end,
        () = session.carrier.opened_forbidden_stream() => opened_forbidden_stream(),
        closed = outbound.ended() => End::Sent(closed),
        () = outbound.control.scheduler().drain() => stopped(&session.carrier),
        () = outbound.drain_datagrams() => stopped(&session.carrier),
        () = outbound.control.stopped() => stopped(&session.carrier),
        end = lanes::serve_datagrams(&session) => end,
        end = keep_alive(&session) => end,
        end = expire(&session) => end,
        () = worker_context.draining.cancelled() => draining(&context),
        gone = session.carrier.closed() => End::Disconnected(gone),
    };
    drop(in_place);
    context.topics.leave(&client, !worker_context.draining.is_cancelled()).await;
    session.leaving.cancel();
    client.tasks.close();
    let lanes = Lanes { control: Some(&outbound.control), topics: Some(&outbound), requests: lanes };
    finish(&session.carrier, session.id(), lanes, end, worker_context).await;
    // Also where the connection was lost: somebody may still wait for room here.
    outbound.give_up();
    client.tasks.wait().await;
}

/// The end of a connection on whose control lane nothing can be sent any more.
fn stopped(carrier: &Carrier) -> End {
    let stopped = || End::sent(CloseCode::PROTOCOL_ERROR, "the control lane was stopped");
    carrier.close_reason().map_or_else(stopped, End::Disconnected)
}

/// The end of a connection on which the client has opened a stream of a kind that only the server opens.
fn opened_forbidden_stream() -> End {
    End::sent(CloseCode::PROTOCOL_ERROR, "the client must not open unidirectional streams")
}

/// Pings a client that is silent, and gives up on one that does not answer.
async fn keep_alive(session: &Session) -> End {
    let timing = &session.context.config.timing;
    let mut pinged: Option<Instant> = None;
    let mut progress = (0, session.carrier.moved());
    loop {
        // Whoever lets QUIC go on with what waits for it is alive, though its answer may wait behind that as well.
        let is_busy = session.waiting.load(Ordering::Relaxed) > 0;
        let made = (session.outbound.control.scheduler().progress(), session.carrier.moved());
        if is_busy || progress != made {
            progress = made;
            session.hear();
        }
        let heard = session.last_heard();
        let waits_since = pinged.filter(|&pinged| pinged > heard);
        let due = waits_since.map_or(heard + timing.ping_interval(), |pinged| pinged + timing.ping_timeout());
        let now = Instant::now();
        if now < due {
            // Who answers a ping long before its time is over is due for the next one before that, too.
            sleep_until(due.min(now + timing.ping_interval())).await;
        } else if waits_since.is_some() {
            return End::sent(CloseCode::TIMEOUT, "nothing was heard after a ping; answer with pong");
        } else {
            pinged = Some(now);
            session.tell(&ServerMessage::Ping { timestamp: now_ms() });
        }
    }
}

/// Warns a client before its token expires, and ends it then. A `refresh` puts that off.
async fn expire(session: &Session) -> End {
    let mut identities = session.caller.identities();
    let warn_ms = session.context.config.auth.warn_ms;
    let mut warned = None;
    loop {
        let Some(expires_at) = identities.borrow_and_update().expires_at else {
            // Its other end is in the session.
            let _ = identities.changed().await;
            continue;
        };
        let now = now_ms();
        if now >= expires_at {
            return End::sent(CloseCode::UNAUTHORIZED, "the token has expired; connect with another one");
        }
        let warn_at = expires_at.saturating_sub(warn_ms);
        if now >= warn_at && warned != Some(expires_at) {
            warned = Some(expires_at);
            session.tell(&ServerMessage::Expiring { expires_at });
        }
        let due = if now < warn_at { warn_at } else { expires_at };
        // The clock may be set meanwhile: it is looked at anew now and then.
        let within = Duration::from_millis(due - now).min(Duration::from_secs(60));
        let _ = timeout(within, identities.changed()).await;
    }
}

/// Sends clients away while the server drains, each at a time of its own so that they do not come back all at once.
fn draining(context: &Context) -> End {
    let window = context.config.timing.drain_timeout_ms;
    let closed = ClosedBy::new(CloseCode::GOING_AWAY, "the server is shutting down; reconnect elsewhere");
    End::Sent(closed.with_reconnect_after_ms(fastrand::u64(0..=window)))
}

/// Ends a connection: what is queued goes out first, the reason behind it, then QUIC's own close with the same code.
async fn finish(carrier: &Carrier, id: Uuid, lanes: Lanes<'_>, end: End, worker_context: &WorkerContext) {
    let (config, counters) = (&worker_context.context.config, worker_context.counters());
    counters.closed(end.code());
    let (closed, last) = match end {
        End::Disconnected(gone) => return log_gone(id, carrier.remote_address(), &gone),
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
        // The worker does not wait any longer than that either.
        let all = config.timing.drain_timeout();
        all.saturating_sub(grace).max(all / 2)
    } else {
        config.timing.close_timeout()
    };
    if let Some(control) = lanes.control {
        // A slow consumer's lane is full; one more message would wait behind what it does not read.
        let is_slow = last.is_some() && closed.code == CloseCode::SLOW_CONSUMER;
        if is_slow || !flush(carrier, control, lanes, last, within).await {
            control.abandon(closed.code.0);
            // Quinn holds its closing packet back while congestion control holds back data, and a closed connection
            // hears of no acknowledgement: what is on its way has to arrive first.
            sleep(grace).await;
        }
    }
    carrier.close(closed.code.0, &closed.reason, config.timing.close_timeout()).await;
}

/// Sends what waits on all lanes, and `last` behind it. False where the peer did not take it in time.
async fn flush(
    carrier: &Carrier,
    control: &LaneWriter,
    Lanes { topics, mut requests, .. }: Lanes<'_>,
    last: Option<bytes::Bytes>,
    within: Duration,
) -> bool {
    let say = async {
        // Whoever hears that it is to go may go at once. A client that does not read its topics is told all the same.
        if let Some(topics) = topics {
            let _ = timeout(within / 2, topics.finish_topic_lanes()).await;
        }
        tokio::join!(control.finish(last), requests.finish());
    };
    let flushed = async {
        tokio::select! {
            () = say => {}
            () = control.scheduler().drain() => {}
            _ = carrier.closed() => {}
        }
    };
    timeout(within, flushed).await.is_ok()
}

fn log_gone(id: Uuid, from: SocketAddr, gone: &Disconnected) {
    match gone {
        Disconnected::Closed { code, reason } => {
            let reason = Printable::excerpt(reason);
            info!(client = %id, peer = %from, code, %reason, "Client {id} closed the connection: {code} - {reason}");
        }
        Disconnected::Broken(why) => {
            info!(client = %id, peer = %from, reason = why, "Client {id} does not keep to its protocol, closed: {why}");
        }
        // A peer that closes without a code may have written a reason, which is in here.
        Disconnected::Lost(why) => {
            let why = why.to_string();
            let reason = Printable::excerpt(&why);
            info!(client = %id, peer = %from, %reason, "Client {id} at {from} is gone: {reason}");
        }
    }
}
