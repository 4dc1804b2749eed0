//! The first exchange: the client's control lane opens with `handshake` and is answered with `handshake_response`.
//! Nothing else is served before.

use std::sync::Arc;

use bytes::BytesMut;
use quic_websocket_lane::{Bounds, FrameBatch, LaneReader, LaneWriter, Overflow, ReceiveHalf, SendHalf, SendScheduler};
use tokio::time::{Instant, timeout_at};
use tracing::info;
use uuid::Uuid;

use super::early::RegistryEntry;
use super::{End, WorkerContext, frame_error, unreadable};
use crate::Printable;
use crate::auth::{Denied, Identity};
use crate::frame::{Body, BodyError, Compression};
use crate::handler::{self, Context};
use crate::limits::Place;
use crate::message::{
    ClientInfo, ClientMessage, ClientName, CloseCode, ErrorCode, ErrorReply, Handshake, HandshakeReply, Limits, Member,
    PROTOCOL_VERSION, Request, RequestId, ServerMessage, Token, now_ms,
};
use crate::outbound::Outbound;
use crate::registry::{Naming, NotRegistered};
use crate::tls::{self, Subject};
use crate::transport::Carrier;

/// Wrong handshakes that are answered with an error before the connection is closed.
const ATTEMPTS: usize = 3;

/// When whoever has too many connections may try again: others of its address have to end first, and nobody knows when.
const TOO_MANY_RETRY_MS: u64 = 10_000;

/// A client that was let in.
pub(super) struct Welcomed {
    pub(super) reader: LaneReader,
    pub(super) outbound: Arc<Outbound>,
    pub(super) compression: Compression,
    pub(super) registration: RegistryEntry,
    pub(super) member: Member,
    pub(super) identity: Identity,
}

/// A client that was not let in: how its connection ends, and its control lane for the last words.
pub(super) struct Refused {
    pub(super) end: End,
    pub(super) control: Option<Arc<LaneWriter>>,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        Self { end, control: None }
    }
}

/// Takes a client in, or says how its connection has to end. `early` is its control lane, where that came before the
/// connection was confirmed; `bearer` the token that came with its connection. Without a place among its address's it is only told so, and has no more time for that than
/// last words have.
pub(super) async fn welcome(
    carrier: &Carrier,
    early: Option<(SendHalf, ReceiveHalf)>,
    bearer: Option<Token>,
    id: Uuid,
    deadline: Instant,
    worker_context: &WorkerContext,
    place: Option<&Place>,
) -> Result<Welcomed, Refused> {
    let context = &worker_context.context;
    let hurry = Instant::now() + context.config.timing.close_timeout();
    let deadline = if place.is_some() { deadline } else { deadline.min(hurry) };
    let late = |_| End::sent(CloseCode::TIMEOUT, "no handshake in time");
    let is_confirmed = early.is_none();
    let (send, receive) = match early {
        Some(control) => control,
        None => timeout_at(deadline, carrier.accept_lane()).await.map_err(late)?.map_err(End::Disconnected)?,
    };
    let control = control_lane(worker_context, carrier, send);
    let mut reader = LaneReader::new(receive, carrier.layer(), max_message_bytes(context));
    let greeting = async {
        let (re, mut handshake) = first_message(carrier, &mut reader, &control, context).await?;
        if place.is_none() {
            return Err(one_too_many(worker_context, re.as_ref(), &control));
        }
        handshake.token = handshake.token.or(bearer);
        let shown = Shown {
            handshake,
            transport: carrier.name(),
            certified: carrier.certificate().and_then(|own| tls::subject(&own)),
            is_confirmed,
        };
        admit(id, re.as_ref(), shown, &control, worker_context).await
    };
    match timeout_at(deadline, greeting).await.map_err(late).flatten() {
        Ok(Admitted { registration, zstd, member, identity }) => {
            completed(&member);
            let compression = if zstd { Compression::Zstd } else { Compression::None };
            let lanes = size(context.config.limits.topic_lanes);
            let counters = Arc::clone(worker_context.counters());
            let datagrams = size(context.config.quic.datagram_send_buffer);
            let outbound = Outbound::new(id, zstd, control, carrier.clone(), counters, lanes, datagrams);
            Ok(Welcomed { reader, outbound, compression, registration, member, identity })
        }
        Err(end) => Err(Refused { end, control: Some(control) }),
    }
}

/// Logs that a client is in, and which user it has proved to be.
fn completed(member: &Member) {
    let (id, name) = (member.id, member.name.as_deref());
    let Some(user) = member.user.as_deref() else {
        return info!(client = %id, "Client {id} handshake completed successfully");
    };
    let named = name.map(|name| format!(", name={name:?}")).unwrap_or_default();
    info!(
        client = %id,
        user = %Printable::new(user),
        name = name.map(|name| tracing::field::display(Printable::new(name))),
        "Client {id} handshake completed successfully: user={user:?}{named}"
    );
}

/// Reads until there is a handshake whose fields are right.
async fn first_message(
    carrier: &Carrier,
    reader: &mut LaneReader,
    control: &LaneWriter,
    context: &Context,
) -> Result<(Option<RequestId>, Handshake), End> {
    let protocol_error = |reason: String| End::sent(CloseCode::PROTOCOL_ERROR, reason);
    for _ in 0..ATTEMPTS {
        let body = match reader.next_body().await {
            Ok(Some(body)) => body,
            Ok(None) => return Err(protocol_error("the control lane ended before a handshake".into())),
            Err(e) => {
                let why = e.to_string();
                return Err(
                    unreadable(carrier, e).unwrap_or_else(|| protocol_error(format!("the control lane: {why}")))
                );
            }
        };
        control.scheduler().counters().received(body.len());
        let body = match Body::parse(body, Compression::None, max_message_bytes(context)) {
            Ok(body) => body,
            Err(BodyError::Fatal(e)) => return Err(frame_error(e)),
            Err(e) => {
                say(control, None, &handler::error(ErrorCode::BadRequest, e.to_string()));
                return Err(protocol_error("the first message has to be handshake".into()));
            }
        };
        let invalid = match Request::parse(&body) {
            Ok(Request { id, message: ClientMessage::Handshake(handshake), .. }) => return Ok((id, handshake)),
            Ok(Request { message, .. }) => {
                let kind = message.type_name();
                return Err(protocol_error(format!("the first message has to be handshake, not {kind}")));
            }
            Err(invalid) => invalid,
        };
        let is_handshake = Request::is_of_type(&body, "handshake");
        if invalid.malformed || is_handshake {
            say(control, invalid.re.as_ref(), &handler::error(ErrorCode::BadRequest, invalid.message));
        }
        if !is_handshake {
            return Err(protocol_error("the first message has to be handshake".into()));
        }
    }
    Err(protocol_error(format!("{ATTEMPTS} wrong messages before a handshake")))
}

/// Answers a handshake on a connection that is one too many from its address.
fn one_too_many(worker_context: &WorkerContext, re: Option<&RequestId>, control: &LaneWriter) -> End {
    let most = worker_context.context.config.rates.address_connections;
    worker_context.counters().refused.add(1);
    let reason = format!("this address has the {most} connections that it may have; end one of them first");
    let error = ErrorReply::new(ErrorCode::RateLimited, reason.clone()).with_retry_after_ms(TOO_MANY_RETRY_MS);
    say(control, re, &ServerMessage::Error(error));
    End::sent(CloseCode::RATE_LIMITED, reason)
}

/// What a client shows of itself.
struct Shown {
    handshake: Handshake,
    /// The carrier on which it comes.
    transport: &'static str,
    /// Whom its certificate names.
    certified: Option<Subject>,
    /// Whether it is known to be there.
    is_confirmed: bool,
}

/// What is known of a client that is let in.
struct Admitted {
    registration: RegistryEntry,
    /// Whether zstd was agreed on.
    zstd: bool,
    member: Member,
    identity: Identity,
}

/// Answers a handshake.
async fn admit(
    id: Uuid,
    re: Option<&RequestId>,
    shown: Shown,
    control: &LaneWriter,
    worker_context: &WorkerContext,
) -> Result<Admitted, End> {
    let Shown { handshake, transport, certified, is_confirmed } = shown;
    let context = &worker_context.context;
    let name = handshake.client_name.as_ref().map(ClientName::as_str);
    let version = Printable::excerpt(&handshake.protocol_version);
    info!(
        client = %id,
        name = name.map(|name| tracing::field::display(Printable::new(name))),
        %version,
        "Handshake from client {id}: name={name:?}, version={version}"
    );
    let mut reply = HandshakeReply::new(context.config.name.as_str());
    let refuse = |mut reply: HandshakeReply, code, reason: String| {
        reply.reason = Some(reason.clone());
        say(control, re, &ServerMessage::HandshakeResponse(reply));
        Err(End::sent(code, reason))
    };
    if major(&handshake.protocol_version) != major(PROTOCOL_VERSION) {
        let reason = format!("this server speaks protocol version {PROTOCOL_VERSION}");
        return refuse(reply, CloseCode::PROTOCOL_ERROR, reason);
    }
    // Before a token is used up: whoever comes back may show it again.
    if context.registry.is_full() {
        return refuse(reply, close_code(NotRegistered::Full), NotRegistered::Full.to_string());
    }
    let identity = match context.auth.identify(handshake.token.as_ref(), certified).await {
        Ok(identity) => identity,
        Err(denied @ Denied::Unavailable) => return refuse(reply, CloseCode::TRY_LATER, denied.to_string()),
        Err(denied) => return refuse(reply, CloseCode::UNAUTHORIZED, denied.to_string()),
    };
    let text = |name: &ClientName| name.as_str().to_owned();
    let asked = handshake.client_name.as_ref().map(text);
    let (name, naming) = match &identity.name {
        Some(name) if context.config.auth.exclusive_names => (Some(text(name)), Naming::Exclusive),
        Some(name) => (Some(text(name)), Naming::Given),
        None if !context.auth.is_on() => (asked.clone(), Naming::Free),
        None if context.config.auth.own_names => (asked.clone(), Naming::Chosen),
        None => (None, Naming::Chosen),
    };
    let member = Member::new(id, name.clone(), identity.user.as_deref().map(str::to_owned));
    let info = ClientInfo::new(member.clone(), now_ms(), transport);
    let registration = if is_confirmed {
        context.registry.register(info, worker_context.worker, naming).map(RegistryEntry::Made)
    } else {
        Ok(RegistryEntry::Wanted(info, naming))
    };
    let registration = match registration {
        Ok(registration) => registration,
        Err(why) => return refuse(reply, close_code(why), why.to_string()),
    };
    reply.accepted = true;
    reply.user = member.user.clone();
    reply.client_name = name.filter(|name| asked.as_ref() != Some(name));
    reply.expires_at = identity.expires_at;
    reply.permissions = identity.rights.told();
    reply.client_id = Some(id);
    reply.limits = Some(limits(context));
    reply.zstd = handshake.zstd;
    say(control, re, &ServerMessage::HandshakeResponse(reply));
    Ok(Admitted { registration, zstd: handshake.zstd, member, identity })
}

/// The code with which the connection of a client closes that the registry does not take.
pub(super) fn close_code(why: NotRegistered) -> CloseCode {
    match why {
        NotRegistered::Full => CloseCode::TRY_LATER,
        NotRegistered::NameTaken | NotRegistered::NameOwned => CloseCode::FORBIDDEN,
    }
}

fn control_lane(worker_context: &WorkerContext, carrier: &Carrier, send: SendHalf) -> Arc<LaneWriter> {
    /// Above every topic lane, whose priorities are 0 to 255.
    const PRIORITY: i32 = 256;
    let limits = &worker_context.context.config.limits;
    let bounds = |messages, bytes| Bounds { messages: size(messages), bytes: size(bytes) };
    let scheduler = SendScheduler::new(
        bounds(limits.lane_backlog_messages, limits.lane_backlog_bytes),
        bounds(limits.client_backlog_messages, limits.client_backlog_bytes),
        size(limits.max_subscriptions),
        worker_context.counters().clone(),
    );
    LaneWriter::new(send, carrier.layer(), PRIORITY, &scheduler)
}

fn size(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}

fn limits(context: &Context) -> Limits {
    let (limits, timing) = (&context.config.limits, &context.config.timing);
    let mut told = Limits::default();
    told.max_message_bytes = limits.max_message_bytes;
    told.ping_interval_ms = timing.ping_interval_ms;
    told.ping_timeout_ms = timing.ping_timeout_ms;
    told.max_request_lanes = limits.max_request_lanes;
    told.max_unfinished_bytes = Some(limits.client_unfinished_bytes);
    told
}

/// The largest body that is accepted, in bytes.
pub(super) fn max_message_bytes(context: &Context) -> usize {
    size(context.config.limits.max_message_bytes)
}

fn say(control: &LaneWriter, re: Option<&RequestId>, message: &ServerMessage) {
    let mut frame = BytesMut::new();
    message.encode(re, &mut frame);
    let batch: FrameBatch = frame.freeze().into();
    control.scheduler().counters().sent(batch.all());
    // These few messages fit into any window; where the lane is closed already, the end follows anyway.
    let _ = control.try_send(&batch, Overflow::Refuse);
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}
