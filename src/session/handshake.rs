//! The handshake: the first message on a client's control lane is `handshake`, answered with `handshake_response`.
//! Nothing else is served before it. Called by the session; asks `auth` and the registry whether the client may enter.

use std::sync::Arc;

use bytes::BytesMut;
use quic_websocket_lane::{Bounds, FrameBatch, LaneReader, LaneWriter, Overflow, ReceiveHalf, SendHalf, SendScheduler};
use tokio::time::{Instant, timeout_at};
use tracing::info;
use uuid::Uuid;

use super::WorkerContext;
use super::attach::{Attaching, Second};
use super::early::RegistryEntry;
use super::end::{End, frame_error, unreadable};
use crate::Printable;
use crate::auth::{Denied, Identity};
use crate::frame::{Body, BodyError, Compression};
use crate::handler::{self, Context};
use crate::limits::Place;
use crate::message::{
    ClientInfo, ClientMessage, ClientName, CloseCode, ErrorCode, ErrorReply, Handshake, HandshakeReply, Limits, Member,
    PROTOCOL_VERSION, Position, Request, RequestId, ServerMessage, Token, TopicName, now_ms,
};
use crate::outbound::Outbound;
use crate::registry::{Naming, NotRegistered};
use crate::tls::{self, Subject};
use crate::transport::Carrier;

/// Number of invalid first messages that are answered with an error before the connection is closed.
const ATTEMPTS: usize = 3;

/// Retry delay sent to a client over the connection limit of its address or user. An estimate: other connections have
/// to end first.
const TOO_MANY_RETRY_MS: u64 = 10_000;

/// An accepted client.
pub(super) struct Welcomed {
    pub(super) reader: LaneReader,
    pub(super) outbound: Arc<Outbound>,
    pub(super) registration: RegistryEntry,
    pub(super) member: Member,
    pub(super) identity: Identity,
    /// Where the subscriptions that the server makes are to begin.
    pub(super) since: Vec<(TopicName, Position)>,
    /// Whether it answers requests that are addressed to it.
    pub(super) answers: bool,
    /// The client's id on an earlier connection, whose session it resumes.
    pub(super) resumes: Option<Uuid>,
}

/// The result of a handshake that was accepted.
pub(super) enum Greeted {
    Client(Box<Welcomed>),
    /// The connection is offered to an open session as its second WebSocket.
    Second(Box<Second>),
}

/// A refused client: how its connection ends, and its control lane for the last messages.
pub(super) struct Refused {
    pub(super) end: End,
    pub(super) control: Option<Arc<LaneWriter>>,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        Self { end, control: None }
    }
}

/// Performs the handshake, or returns how to close the connection. `early` is the control lane, if it came in 0-RTT
/// data; `bearer` is the token that came with the connection. A client over its address's connection limit (no
/// `permit`) only receives that error, within `close_timeout`.
pub(super) async fn welcome(
    carrier: &Carrier,
    early: Option<(SendHalf, ReceiveHalf)>,
    bearer: Option<Token>,
    id: Uuid,
    deadline: Instant,
    worker_context: &WorkerContext,
    permit: Option<&Place>,
) -> Result<Greeted, Refused> {
    let context = &worker_context.context;
    let close_deadline = Instant::now() + context.config.timing.close_timeout();
    let deadline = if permit.is_some() { deadline } else { deadline.min(close_deadline) };
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
        if permit.is_none() {
            let most = context.config.rates.address_connections;
            let reason = format!("this address has the {most} connections that it may have; end one of them first");
            return Err(one_too_many(worker_context, reason, re.as_ref(), &control));
        }
        if let Some(session) = &handshake.attach {
            let attaching = Attaching { carrier, re, version: &handshake.protocol_version, control: &control };
            return attaching.offer(session, reader, context).map(Greeting::Second);
        }
        handshake.token = handshake.token.or(bearer);
        let presented = Presented {
            handshake,
            transport: carrier.name(),
            certified: carrier.certificate().and_then(|own| tls::subject(&own)),
            is_confirmed,
        };
        let admitted = admit(id, re.as_ref(), presented, &control, worker_context).await?;
        Ok(Greeting::Client(Box::new(admitted), reader))
    };
    match timeout_at(deadline, greeting).await.map_err(late).flatten() {
        Ok(Greeting::Second(second)) => Ok(Greeted::Second(Box::new(second))),
        Ok(Greeting::Client(admitted, reader)) => {
            let Admitted { registration, compression, member, identity, since, answers, resumes } = *admitted;
            completed(&member);
            let lanes = size(context.config.limits.topic_lanes);
            let counters = Arc::clone(worker_context.counters());
            let datagrams = size(context.config.quic.datagram_send_buffer);
            let outbound = Outbound::new(id, compression, control, carrier.clone(), counters, lanes, datagrams);
            let welcomed = Welcomed { reader, outbound, registration, member, identity, since, answers, resumes };
            Ok(Greeted::Client(Box::new(welcomed)))
        }
        Err(end) => Err(Refused { end, control: Some(control) }),
    }
}

/// What a valid handshake asks for.
enum Greeting {
    Client(Box<Admitted>, LaneReader),
    Second(Second),
}

/// Logs an accepted client, and its authenticated user.
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

/// Reads until there is a valid handshake.
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
                send_now(control, None, &handler::error(ErrorCode::BadRequest, e.to_string()));
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
            send_now(control, invalid.re.as_ref(), &handler::error(ErrorCode::BadRequest, invalid.message));
        }
        if !is_handshake {
            return Err(protocol_error("the first message has to be handshake".into()));
        }
    }
    Err(protocol_error(format!("{ATTEMPTS} wrong messages before a handshake")))
}

/// Refuses a handshake over the connection limit of its address or user.
fn one_too_many(worker_context: &WorkerContext, reason: String, re: Option<&RequestId>, control: &LaneWriter) -> End {
    worker_context.counters().refused.add(1);
    let error = ErrorReply::new(ErrorCode::RateLimited, reason.clone()).with_retry_after_ms(TOO_MANY_RETRY_MS);
    send_now(control, re, &ServerMessage::Error(error));
    End::sent(CloseCode::RATE_LIMITED, reason)
}

/// What a client presents in its handshake.
struct Presented {
    handshake: Handshake,
    /// Name of the carrier.
    transport: &'static str,
    /// Subject of its client certificate.
    certified: Option<Subject>,
    /// False while its 0-RTT data may be a replay.
    is_confirmed: bool,
}

/// Result of an accepted handshake.
struct Admitted {
    resumes: Option<Uuid>,
    registration: RegistryEntry,
    /// The negotiated compression.
    compression: Compression,
    member: Member,
    identity: Identity,
    /// Where the subscriptions that the server makes are to begin.
    since: Vec<(TopicName, Position)>,
    /// Whether it answers requests that are addressed to it.
    answers: bool,
}

/// Authenticates and registers a client, and answers its handshake.
async fn admit(
    id: Uuid,
    re: Option<&RequestId>,
    presented: Presented,
    control: &LaneWriter,
    worker_context: &WorkerContext,
) -> Result<Admitted, End> {
    let Presented { handshake, transport, certified, is_confirmed } = presented;
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
        send_now(control, re, &ServerMessage::HandshakeResponse(Box::new(reply)));
        Err(End::sent(code, reason))
    };
    if major(&handshake.protocol_version) != major(PROTOCOL_VERSION) {
        let reason = format!("this server speaks protocol version {PROTOCOL_VERSION}");
        return refuse(reply, CloseCode::PROTOCOL_ERROR, reason);
    }
    // Checked before a single-use token is consumed, so that the client can use it again later.
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
    let mut member = Member::new(id, name.clone(), identity.user.as_deref().map(str::to_owned));
    member.info.clone_from(&identity.info);
    let info = ClientInfo::new(member.clone(), now_ms(), transport);
    let registration = if is_confirmed {
        context.registry.register(info, worker_context.worker, naming).map(RegistryEntry::Made)
    } else {
        Ok(RegistryEntry::Wanted(info, naming))
    };
    let registration = match registration {
        Ok(registration) => registration,
        Err(why) => {
            if matches!(why, NotRegistered::UserFull(_)) {
                return Err(one_too_many(worker_context, why.to_string(), re, control));
            }
            return refuse(reply, close_code(why), why.to_string());
        }
    };
    reply.accepted = true;
    reply.user = member.user.clone();
    reply.client_name = name.filter(|name| asked.as_ref() != Some(name));
    reply.info.clone_from(&member.info);
    reply.subscriptions = identity.rights.subscriptions().iter().map(|text| text.as_str().to_owned()).collect();
    reply.expires_at = identity.expires_at;
    reply.permissions = identity.rights.told();
    reply.inbox = member.user.as_deref().and_then(|user| context.topics.inbox(user)).map(|it| it.as_str().to_owned());
    reply.client_id = Some(id);
    reply.session = Some(context.sessions.secret(id));
    reply.limits = Some(limits(context));
    reply.compression = handshake.compression.choose();
    let compression = reply.compression;
    send_now(control, re, &ServerMessage::HandshakeResponse(Box::new(reply)));
    // One that is not known any more, such as that of another start of the server, resumes nothing.
    let resumes = handshake.resume.and_then(|earlier| context.sessions.client(earlier.as_str()));
    let (since, answers) = (handshake.since, handshake.requests);
    Ok(Admitted { registration, compression, member, identity, since, answers, resumes })
}

/// Closing code for a client that the registry refused.
pub(super) fn close_code(why: NotRegistered) -> CloseCode {
    match why {
        NotRegistered::Full => CloseCode::TRY_LATER,
        NotRegistered::UserFull(_) => CloseCode::RATE_LIMITED,
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

pub(super) fn limits(context: &Context) -> Limits {
    let (limits, timing) = (&context.config.limits, &context.config.timing);
    let mut announced = Limits::default();
    announced.max_message_bytes = limits.max_message_bytes;
    announced.ping_interval_ms = timing.ping_interval_ms;
    announced.ping_timeout_ms = timing.ping_timeout_ms;
    announced.max_request_lanes = limits.max_request_lanes;
    announced.max_unfinished_bytes = Some(limits.client_unfinished_bytes);
    announced.max_pending_replies = Some(limits.lane_pending_replies);
    announced.max_meta_bytes = Some(limits.meta_bytes);
    announced.max_open_requests = Some(limits.client_requests);
    announced
}

/// Largest accepted body, in bytes.
pub(super) fn max_message_bytes(context: &Context) -> usize {
    size(context.config.limits.max_message_bytes)
}

pub(super) fn send_now(control: &LaneWriter, re: Option<&RequestId>, message: &ServerMessage) {
    let mut frame = BytesMut::new();
    message.encode(re, &mut frame);
    let batch: FrameBatch = frame.freeze().into();
    control.scheduler().counters().sent(batch.all());
    // These few messages fit into any backlog; if the lane is closed already, the connection ends anyway.
    let _ = control.try_send(&batch, Overflow::Refuse);
}

/// The first part of a version.
pub(super) fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}
