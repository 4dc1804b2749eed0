//! One client's connection on the server, from its first packet to its last: handshake, lanes, liveness and end. A
//! client has one task, and one more for each open request lane; all are owned here, so nothing of a client outlives
//! it. Knows no carrier but through `transport`, and no effect of a message but through `handler`. Called by `worker`
//! and, for sockets, by `http`.

mod arrival;
mod attach;
mod datagrams;
mod early;
mod end;
mod handshake;
mod lanes;
mod liveness;
mod on_wake;
mod reassembly;
mod reply_queue;
mod requests;
mod time_slice;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize};

use bytes::BytesMut;
use quic_websocket_lane::{LaneReader, LaneWriter, SendHalf};
use quinn::ZeroRttAccepted;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;
use uuid::Uuid;

pub(crate) use self::arrival::{run, run_socket};
use self::early::{Early, Gate, Registration, RegistryEntry, Unconfirmed};
use self::end::{End, Lanes, draining, finish, opened_forbidden_stream, stopped};
use self::handshake::{Greeted, Refused, Welcomed};
use self::lanes::{RequestLanes, SecondLane};
use self::liveness::{Activity, expire, keep_alive, revoked};
use self::on_wake::OnWake;
use self::reassembly::ReassemblyBudget;
use self::reply_queue::ReplyQueue;
use self::time_slice::TimeSlices;
use crate::frame;
use crate::handler::{self, Caller, Context, Replies};
use crate::limits::Allowance;
use crate::message::{CloseCode, ServerMessage, Token};
use crate::metrics::Counters;
use crate::origin::OwnPages;
use crate::outbound::{Call, Outbound};
use crate::registry::{Handshaking, Roster};
use crate::tls::ShortLived;
use crate::topic::Client;
use crate::transport::Carrier;

/// Priority of request lanes: that of a topic lane with the default priority, so replies are as urgent as messages.
const REQUEST_LANE_PRIORITY: i32 = 128;

/// What a worker shares with each of its clients.
#[derive(Debug, Clone)]
pub(crate) struct WorkerContext {
    pub(crate) context: Arc<Context>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) worker: usize,
    pub(crate) own_pages: Arc<OwnPages>,
    /// Development certificate that browsers trust by its hash.
    pub(crate) short_lived: ShortLived,
    /// Cancelled when the server drains.
    pub(crate) draining: CancellationToken,
}

impl WorkerContext {
    /// The worker's counters.
    fn counters(&self) -> &Arc<Counters> {
        self.context.metrics.of(self.worker)
    }
}

/// A client after its handshake: the state that its lanes share.
#[derive(Debug)]
struct Session {
    context: Arc<Context>,
    carrier: Carrier,
    outbound: Arc<Outbound>,
    caller: Caller,
    /// Whether it answers requests that are addressed to it.
    answers: bool,
    /// Closed until the client's 0-RTT data is confirmed.
    gate: Gate,
    reassembly: ReassemblyBudget,
    slices: TimeSlices,
    /// Number of consecutive bodies that were not JSON.
    malformed: AtomicU8,
    /// Number of requests that wait for others. Their lanes are not read meanwhile, and an unread `pong` may be on one
    /// of them.
    waiting: AtomicUsize,
    activity: Activity,
    /// Cancelled when the client ends: its request lanes send their pending replies and stop reading.
    leaving: CancellationToken,
}

impl Session {
    fn id(&self) -> Uuid {
        self.outbound.id
    }

    fn max_message_bytes(&self) -> usize {
        handshake::max_message_bytes(&self.context)
    }

    /// Whether `writer` is the control lane.
    fn is_control(&self, writer: &LaneWriter) -> bool {
        std::ptr::eq(writer, &raw const *self.outbound.control)
    }

    fn replies(&self) -> Replies {
        Replies::new(self.outbound.compression, self.context.compress_min_bytes())
    }

    /// Creates the outbound side of another lane, within the client's budget.
    fn new_lane(&self, send: SendHalf) -> Arc<LaneWriter> {
        LaneWriter::new(send, self.carrier.layer(), REQUEST_LANE_PRIORITY, self.outbound.control.scheduler())
    }

    /// Sends an unsolicited message on the control lane.
    fn send(&self, message: &ServerMessage) {
        let mut frame = BytesMut::new();
        message.encode(None, &mut frame);
        self.outbound.put(&frame::exact(frame).into());
    }
}

/// Performs the handshake with a new connection and serves the client until it ends. `early` is its control lane if
/// that came in 0-RTT data; `bearer` is the token that came with the connection, used if the handshake has none.
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

    let permit = context.addresses.connect(from.ip());
    let (control, confirmed) =
        early.map(|Early { control: (send, receive), confirmed }| ((send.into(), receive.into()), confirmed)).unzip();
    // Boxed, as is the end: a client's task has the size of its largest stage, for as long as the client is connected.
    let handshake = handshake::welcome(&carrier, control, bearer, id, deadline, &worker_context, permit.as_ref());
    let handshake = Box::pin(handshake);
    let welcomed = tokio::select! {
        welcomed = handshake => welcomed,
        () = carrier.opened_forbidden_stream() => Err(opened_forbidden_stream().into()),
        () = worker_context.draining.cancelled() => Err(draining(&context).into()),
    };
    match welcomed {
        Ok(Greeted::Second(second)) => {
            drop(handshaking);
            // Boxed, because few connections are one.
            let end = Box::pin(second.until_over(&carrier)).await;
            Box::pin(finish(&carrier, id, Lanes::none(), end, &worker_context)).await;
        }
        Ok(Greeted::Client(welcomed)) => {
            let confirmation = confirmed.map(|confirmed| (confirmed, handshaking, deadline));
            serve(carrier, welcomed, confirmation, &worker_context).await;
        }
        Err(Refused { end, control }) => {
            let lanes = Lanes { control: control.as_deref(), ..Lanes::none() };
            // Refused connections count as handshakes until they have ended, so refusing is bounded too.
            Box::pin(finish(&carrier, id, lanes, end, &worker_context)).await;
            drop(handshaking);
        }
    }
    drop((connected, permit));
    let clients = context.registry.connections();
    info!(client = %id, clients, "Client {id} disconnected. Total clients: {clients}");
}

/// Creates the state of an accepted client. Apart from [`serve`], whose future would keep room for all of it.
fn begin(
    carrier: Carrier,
    welcomed: Welcomed,
    worker_context: &WorkerContext,
) -> (Arc<Session>, LaneReader, RegistryEntry) {
    let Welcomed { reader, outbound, registration, member, identity, since, answers, resumes } = welcomed;
    let context = Arc::clone(&worker_context.context);
    let is_confirmed = matches!(registration, RegistryEntry::Made(_));
    let rates = &context.config.rates;
    let is_exempt = rates.exempt(carrier.remote_address().ip());
    let allowance = Allowance::new(rates, is_exempt, Arc::clone(worker_context.counters()));
    allowance.set_message_rate(identity.max_rate);
    let client = Client::new(Arc::clone(&outbound), member, resumes, worker_context.worker, is_confirmed);
    let session = Arc::new(Session {
        reassembly: ReassemblyBudget::new(&context.config),
        slices: TimeSlices::new(),
        context,
        carrier,
        outbound,
        caller: Caller::new(client, allowance, identity),
        answers,
        gate: Gate::new(is_confirmed),
        malformed: AtomicU8::new(0),
        waiting: AtomicUsize::new(0),
        activity: Activity::new(),
        leaving: CancellationToken::new(),
    });
    handler::assign_first(&session.caller, since);
    (session, reader, registration)
}

/// Changes the client's subscriptions as others than the client order, and serves its second WebSocket, until it is
/// ended.
async fn called(session: &Arc<Session>, second: &mut SecondLane) -> End {
    let outbound = &session.outbound;
    loop {
        let call = tokio::select! {
            call = outbound.called() => call,
            ended = ended(second) => match ended {
                Some(end) => return end,
                None => continue,
            },
        };
        let order = match call {
            Ok(Call::Order(order)) => order,
            Ok(Call::Serve(socket)) => {
                let lane = attach::serve(Arc::clone(session), socket);
                *second = Some(AbortOnDropHandle::new(tokio::spawn(lane)));
                continue;
            }
            Err(closed) => return End::Sent(closed),
        };
        // Boxed: clients without orders would otherwise reserve memory for it.
        let execution = Box::pin(async {
            session.gate.opened().await;
            handler::execute_order(&session.context, &session.caller, order).await;
        });
        tokio::select! {
            () = execution => {}
            closed = outbound.ended() => return End::Sent(closed),
        }
    }
}

/// Waits for the end of the lane of a second WebSocket; returns an end if it is the whole session's. Cancel safe.
async fn ended(second: &mut SecondLane) -> Option<End> {
    let Some(task) = second else { return std::future::pending().await };
    let ended = task.await;
    *second = None;
    ended.unwrap_or_else(|e| Some(End::sent(CloseCode::INTERNAL, format!("the second connection failed: {e}"))))
}

async fn serve(
    carrier: Carrier,
    welcomed: Box<Welcomed>,
    confirmation: Option<(ZeroRttAccepted, Handshaking, Instant)>,
    worker_context: &WorkerContext,
) {
    let (session, reader, registration) = begin(carrier, *welcomed, worker_context);
    let (context, outbound, client) = (&session.context, &session.outbound, &session.caller.client);
    let mut registered = Registration::default();
    let unconfirmed = match registration {
        RegistryEntry::Made(entry) => {
            Box::pin(registered.enter(&session, worker_context, entry)).await;
            None
        }
        RegistryEntry::Wanted(info, naming) => confirmation.map(|(confirmed, handshaking, deadline)| {
            Box::new(Unconfirmed { confirmed, info, naming, handshaking, deadline })
        }),
    };
    let (mut lanes, mut second) = (RequestLanes::default(), SecondLane::None);
    let mut replies = ReplyQueue::new(&session, &outbound.control);
    // Each branch runs until the client ends and is dropped only then, so none needs to be cancel safe.
    let end = {
        let others = pin!(async {
            tokio::select! {
                biased;
                end = early::confirm(&session, worker_context, unconfirmed, &mut registered) => end,
                end = lanes.accept(&session) => end,
                () = session.carrier.opened_forbidden_stream() => opened_forbidden_stream(),
                end = called(&session, &mut second) => end,
                () = outbound.control.scheduler().drain() => stopped(&session.carrier),
                () = outbound.drain_datagrams() => stopped(&session.carrier),
                () = outbound.control.stopped() => stopped(&session.carrier),
                end = datagrams::serve(&session) => end,
                end = keep_alive(&session) => end,
                end = expire(&session) => end,
                end = revoked(&session) => end,
                () = worker_context.draining.cancelled() => draining(context),
                cause = session.carrier.closed() => End::Disconnected(cause),
            }
        });
        tokio::select! {
            biased;
            end = lanes::serve(&session, reader, &mut replies) => end,
            end = OnWake::new(others) => end,
        }
    };
    drop(registered);
    handler::leave(context, &session.caller, matches!(end, End::Sent(_)));
    let tell = !worker_context.draining.is_cancelled();
    let is_lost = end.is_lost() && !outbound.is_ended_for_good();
    Box::pin(context.topics.leave(client, is_lost, tell)).await;
    session.leaving.cancel();
    client.tasks.close();
    lanes.second = second;
    let replies = Some(replies);
    let lanes = Lanes { control: Some(&outbound.control), topics: Some(outbound), requests: lanes, replies };
    Box::pin(finish(&session.carrier, session.id(), lanes, end, worker_context)).await;
    // Even if the connection was lost: tasks may still wait for room in its backlogs.
    outbound.give_up();
    client.tasks.wait().await;
}
