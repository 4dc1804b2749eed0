//! `request`, `reply` and `cancel`: questions of one client that another one answers. A request and its reply travel as
//! direct messages do; [`Requests`](crate::request::Requests) knows which are open, and which clients answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quic_websocket_lane::{LaneWriter, Overflow};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Caller, Context, Replies, error, permit};
use crate::envelope::EncodedBatch;
use crate::message::{
    Answer, Call, CallId, CallTarget, Called, DEFAULT_REQUEST_TIMEOUT_MS, ErrorCode, ErrorReply, Recipient, Replied,
    RequestId, ServerMessage, TopicName, TopicPattern, UserName, now_ms,
};
use crate::outbound::OnLane;
use crate::registry::{DirectBatch, Found};
use crate::request::{Ended, NotNow, Number, Offer, Opened, Place, Requester, Responder, Unanswered};

/// An operation on requests that another client answers.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// A request, and the lane of its reply.
    Call(Box<Call>, OnLane),
    Answer(Box<Answer>),
    /// Cancels the request with this id.
    Cancel(RequestId),
    /// A cancelled request that its responder does not know of yet.
    Cancelled(Box<Ended>),
}

/// Executes an operation if that is possible at once: its message joins those to the same client that leave with the
/// replies. Otherwise returns it, because it waits for room in an inbox. `timestamp` returns the time in Unix
/// milliseconds.
pub(super) fn now(
    context: &Context,
    by: &Caller,
    exchange: Exchange,
    id: Option<RequestId>,
    replies: &mut Replies,
    timestamp: impl FnOnce() -> u64,
) -> Option<(Exchange, Option<RequestId>)> {
    match exchange {
        Exchange::Call(call, lane) => call_now(context, by, call, lane, id, replies, timestamp),
        Exchange::Answer(answer) => answer_now(context, by, answer, id, replies, timestamp),
        Exchange::Cancel(re) => cancel_now(context, by, &re, id, replies),
        Exchange::Cancelled(_) => Some((exchange, id)),
    }
}

/// Executes an operation, after a wait for room if that is necessary.
pub(super) async fn wait(
    context: &Context,
    by: &Caller,
    exchange: Exchange,
    id: Option<&RequestId>,
) -> Option<ServerMessage> {
    match exchange {
        Exchange::Call(call, mut lane) => {
            let timeout_ms = call.timeout_ms.unwrap_or(DEFAULT_REQUEST_TIMEOUT_MS);
            let due = Instant::now() + Duration::from_millis(timeout_ms);
            let Opened { number, responder, lane } = loop {
                match open(context, by, &call, lane, id) {
                    Ok(opened) => break opened,
                    Err(NotOpen::Refused(refused)) => return Some(ServerMessage::Error(refused)),
                    Err(NotOpen::Waits(own, until)) => {
                        if timeout_at(due, until.cancelled()).await.is_err() {
                            return Some(failure(context, by, Unanswered::TimedOut { timeout_ms }));
                        }
                        lane = own;
                        // The token may have been refreshed meanwhile.
                        if let Err(refused) = permit::may_call(context, &by.identity(), &call.to) {
                            return Some(ServerMessage::Error(refused));
                        }
                    }
                }
            };
            let bytes = call.payload.len();
            let mut batch = EncodedBatch::new(context.compress_min_bytes());
            batch.put(&called(by, *call, number, now_ms()), bytes);
            context.metrics.of(by.client.worker).requests.add(1);
            if let Some(room) = context.registry.room_at(responder.worker).await {
                room.send(responder.client.id, Some(lane), batch);
            }
            None
        }
        Exchange::Answer(answer) => {
            let own = by.client.id();
            let asked = number_of(&answer.request);
            let asked = asked.and_then(|number| Some((number, context.requests.asked_by(number, own)?)));
            let Some((number, (_, worker, _))) = asked else { return Some(ServerMessage::Error(not_open(by))) };
            // First, so that a request that has ended for the reply gets it.
            let room = context.registry.room_at(worker).await;
            let Some((re, exchange)) = context.requests.close(number, own) else {
                return Some(ServerMessage::Error(not_open(by)));
            };
            let Requester { client, lane, .. } = exchange.requester;
            let bytes = answer.payload.len();
            let mut batch = EncodedBatch::new(context.compress_min_bytes());
            batch.put_reply(Some(&re), &replied(by, *answer, now_ms()), bytes);
            count_reply(context, by);
            if let Some(room) = room {
                room.send(client.id, Some(lane), batch);
            }
            id.map(|_| OK)
        }
        Exchange::Cancelled(ended) => {
            let Ended { number, why, place, .. } = *ended;
            tell(context, number, why, &place).await;
            id.map(|_| OK)
        }
        // Done at once.
        Exchange::Cancel(_) => None,
    }
}

/// The reply to an operation that wants one.
const OK: ServerMessage = ServerMessage::Ok { delivered: None, acked: None, topic: None };

fn call_now(
    context: &Context,
    by: &Caller,
    call: Box<Call>,
    lane: OnLane,
    id: Option<RequestId>,
    replies: &mut Replies,
    timestamp: impl FnOnce() -> u64,
) -> Option<(Exchange, Option<RequestId>)> {
    let Opened { number, responder, lane } = match open(context, by, &call, lane, id.as_ref()) {
        Ok(opened) => opened,
        Err(NotOpen::Refused(refused)) => {
            replies.put(id.as_ref(), &ServerMessage::Error(refused));
            return None;
        }
        Err(NotOpen::Waits(lane, _)) => return Some((Exchange::Call(call, lane), id)),
    };
    let (bytes, to) = (call.payload.len(), responder.client.id);
    if !takes(context, by, replies, to, (&lane.writer, lane.overflow), bytes) {
        replies.deliver();
        match context.registry.route_to(by.client.worker, &responder.client, responder.worker) {
            Found::Route(route) => {
                replies.begin(DirectBatch::new(to, route, context.compress_min_bytes()).on(Some(lane)));
            }
            Found::Full => {
                let was_open = context.requests.abandon(number);
                return was_open.then(|| Some((Exchange::Call(call, replies.lane()?), id))).flatten();
            }
            // Its worker has ended, and with it all its clients.
            Found::NotConnected => {
                if context.requests.abandon(number) {
                    replies.put(id.as_ref(), &failure(context, by, Unanswered::ResponderLeft));
                }
                return None;
            }
        }
    }
    context.metrics.of(by.client.worker).requests.add(1);
    replies.join(&called(by, *call, number, timestamp()), bytes, None);
    None
}

/// Opens a request: from here on it ends with a reply or an error.
fn open(context: &Context, by: &Caller, call: &Call, lane: OnLane, id: Option<&RequestId>) -> Result<Opened, NotOpen> {
    let from = by.client.id();
    log_message!(context, client = %from, "Request from {from} to {}", described(&call.to));
    let Some(id) = id else {
        let refused = ErrorReply::new(ErrorCode::BadRequest, "id: required here");
        return Err(NotOpen::Refused(refused));
    };
    if by.has_left.load(Ordering::Relaxed) {
        return Err(NotOpen::Refused(Unanswered::Closing.into()));
    }
    by.has_asked.store(true, Ordering::Relaxed);
    let requester = Requester { client: Arc::clone(&by.client.outbound), worker: by.client.worker, lane };
    let timeout_ms = call.timeout_ms.unwrap_or(DEFAULT_REQUEST_TIMEOUT_MS);
    match context.requests.open(requester, id, &call.to, timeout_ms) {
        Ok(opened) => Ok(opened),
        Err(NotNow::Waits(requester, until)) => Err(NotOpen::Waits(requester.lane, until)),
        Err(NotNow::Refused(refused)) => {
            let refused = ErrorReply::from(refused);
            context.metrics.of(by.client.worker).request_failed(refused.code);
            Err(NotOpen::Refused(refused))
        }
    }
}

/// Why a request was not opened.
enum NotOpen {
    Refused(ErrorReply),
    /// It is worth another try once this is cancelled.
    Waits(OnLane, CancellationToken),
}

fn answer_now(
    context: &Context,
    by: &Caller,
    answer: Box<Answer>,
    id: Option<RequestId>,
    replies: &mut Replies,
    timestamp: impl FnOnce() -> u64,
) -> Option<(Exchange, Option<RequestId>)> {
    let own = by.client.id();
    let asked = number_of(&answer.request).and_then(|number| Some((number, context.requests.asked_by(number, own)?)));
    let Some((number, (client, worker, writer))) = asked else {
        replies.put(id.as_ref(), &ServerMessage::Error(not_open(by)));
        return None;
    };
    let bytes = answer.payload.len();
    let route = if takes(context, by, replies, client.id, (&writer, Overflow::Refuse), bytes) {
        None
    } else {
        replies.deliver();
        match context.registry.route_to(by.client.worker, &client, worker) {
            Found::Route(route) => Some(route),
            Found::Full => return Some((Exchange::Answer(answer), id)),
            Found::NotConnected => return None,
        }
    };
    // It may have ended meanwhile, on another worker.
    let Some((re, exchange)) = context.requests.close(number, own) else {
        replies.put(id.as_ref(), &ServerMessage::Error(not_open(by)));
        return None;
    };
    if let Some(route) = route {
        let lane = Some(exchange.requester.lane);
        replies.begin(DirectBatch::new(client.id, route, context.compress_min_bytes()).on(lane));
    }
    count_reply(context, by);
    replies.join_reply(&re, &replied(by, *answer, timestamp()), bytes);
    if id.is_some() {
        replies.put(id.as_ref(), &OK);
    }
    None
}

fn cancel_now(
    context: &Context,
    by: &Caller,
    re: &RequestId,
    id: Option<RequestId>,
    replies: &mut Replies,
) -> Option<(Exchange, Option<RequestId>)> {
    let Some(mut ended) = context.requests.cancel(by.client.worker, by.client.id(), re) else {
        let message = format!("re: this client has no open request with the id {re}");
        replies.put(id.as_ref(), &error(ErrorCode::NotFound, message));
        return None;
    };
    // Behind the messages that the client has got already.
    replies.deliver();
    if let Some((requester, _)) = ended.requester.take() {
        send_error(context, &requester, re, &failure(context, by, Unanswered::Cancelled));
    }
    let Ended { number, why, place, .. } = &ended;
    let responder = place.responder();
    let lane = Some(place.lane());
    match context.registry.route_to(by.client.worker, &responder.client, responder.worker) {
        Found::Route(route) => {
            replies.begin(DirectBatch::new(responder.client.id, route, context.compress_min_bytes()).on(lane));
            replies.join(&cancelled(*number, *why), 0, None);
        }
        Found::Full => return Some((Exchange::Cancelled(Box::new(ended)), id)),
        Found::NotConnected => {}
    }
    if id.is_some() {
        replies.put(id.as_ref(), &OK);
    }
    None
}

/// Ends the requests of one worker's clients that have had no reply in time, or no longer have a responder. Never ends;
/// one caller for each worker.
pub(crate) async fn serve_requests(context: &Context, worker: usize) {
    let counters = context.metrics.of(worker);
    loop {
        let (mut told, mut rest) = (Vec::new(), Vec::new());
        for Ended { number, why, requester, place } in context.requests.ended(worker).await {
            if let Some((requester, re)) = requester {
                let failed = ErrorReply::from(why);
                counters.request_failed(failed.code);
                send_error(context, &requester, &re, &ServerMessage::Error(failed));
                told.push(requester.client.id);
            }
            rest.push((number, why, place));
        }
        context.requests.settle(worker, told.into_iter());
        for (number, why, place) in rest {
            tell(context, number, why, &place).await;
        }
        yield_now().await;
    }
}

/// Ends the open requests of a client that leaves, and opens no more; it is told if `is_told`. Called on its worker's
/// thread, on which its requests are opened, so none comes in between.
pub(crate) fn leave(context: &Context, by: &Caller, is_told: bool) {
    by.has_left.store(true, Ordering::Relaxed);
    if !by.has_asked.load(Ordering::Relaxed) {
        return;
    }
    context.requests.leave(by.client.worker, by.client.id(), |requester, re, why| {
        let failed = failure(context, by, why);
        if is_told {
            send_error(context, requester, re, &failed);
        }
    });
}

/// Has a client answer the requests that are addressed to it or to its user, until the result is dropped.
pub(crate) fn offer(context: &Context, by: &Caller) -> Vec<Offer> {
    let (responder, client) = (by.responder(), CallTarget::Recipient(Recipient::Client(by.client.id())));
    let user = by.identity().user.as_deref().and_then(|user| UserName::new(user).ok());
    let user = user.map(|user| CallTarget::Recipient(Recipient::User(user)));
    let begun = |to| {
        let offer = context.requests.offer(to, responder);
        offer.begin(None);
        offer
    };
    [Some(client), user].into_iter().flatten().map(begun).collect()
}

/// Tells a responder that a request needs no reply any more.
async fn tell(context: &Context, number: Number, why: Unanswered, place: &Place) {
    let responder = place.responder();
    let mut batch = EncodedBatch::new(context.compress_min_bytes());
    batch.put(&cancelled(number, why), 0);
    if let Some(room) = context.registry.room_at(responder.worker).await {
        room.send(responder.client.id, Some(place.lane()), batch);
    }
}

/// Sends an error to a client that asked, on its own worker; also to one whose end is decided.
fn send_error(context: &Context, requester: &Requester, re: &RequestId, failed: &ServerMessage) {
    let mut batch = EncodedBatch::new(context.compress_min_bytes());
    batch.put_reply(Some(re), failed, 0);
    let Requester { client, lane, .. } = requester;
    client.counters().sent(client.deliver_last(batch, Some(lane)));
}

/// Counts a failure, and makes its error.
fn failure(context: &Context, by: &Caller, why: Unanswered) -> ServerMessage {
    let failed = ErrorReply::from(why);
    context.metrics.of(by.client.worker).request_failed(failed.code);
    ServerMessage::Error(failed)
}

fn count_reply(context: &Context, by: &Caller) {
    context.metrics.of(by.client.worker).replies.add(1);
}

fn takes(
    context: &Context,
    by: &Caller,
    replies: &Replies,
    to: Uuid,
    lane: (&Arc<LaneWriter>, Overflow),
    bytes: usize,
) -> bool {
    replies.batch().is_some_and(|batch| batch.takes(&context.registry, by.client.worker, to, Some(lane), bytes))
}

/// The request as its responder gets it.
fn called(by: &Caller, call: Call, number: Number, timestamp: u64) -> ServerMessage {
    let timeout_ms = call.timeout_ms.unwrap_or(DEFAULT_REQUEST_TIMEOUT_MS);
    let mut called = Called::new(number.to_string(), call.payload, timestamp, timeout_ms);
    if let CallTarget::Topic(topic) = call.to {
        called.topic = Some(topic.as_str().to_owned());
    }
    called.from = Some(by.client.sender().clone());
    ServerMessage::Request(Box::new(called))
}

/// The reply as the client that asked gets it.
fn replied(by: &Caller, answer: Answer, timestamp: u64) -> ServerMessage {
    let mut replied = Replied::new(Some(by.client.sender().clone()), answer.payload, timestamp);
    replied.failure = answer.failure;
    ServerMessage::Reply(Box::new(replied))
}

fn cancelled(number: Number, why: Unanswered) -> ServerMessage {
    ServerMessage::Cancel { request: number.to_string(), reason: Some(why.to_string()) }
}

/// The number of a request; `None` if no request of this server can have it.
fn number_of(id: &CallId) -> Option<Number> {
    id.as_str().parse().ok()
}

/// The error for a reply to a request that is not open. Such a reply counts as a message: no request allowed it.
fn not_open(by: &Caller) -> ErrorReply {
    let late = "request: it is not open, or not with this client; it may have been cancelled, or its time was over";
    by.allowance.take(0).err().unwrap_or_else(|| ErrorReply::new(ErrorCode::NotFound, late))
}

fn described(to: &CallTarget) -> String {
    match to {
        CallTarget::Topic(topic) => topic.as_str().to_owned(),
        CallTarget::Recipient(recipient) => recipient.to_string(),
    }
}

impl Caller {
    /// The client as one that answers requests.
    fn responder(&self) -> &Arc<Responder> {
        self.responder.get_or_init(|| Responder::new(Arc::clone(&self.client.outbound), self.client.worker))
    }

    /// The client's offer to answer the requests to a topic, which begins once the client knows that it is subscribed.
    pub(super) fn offer(&self, context: &Context, topic: &TopicPattern) -> Option<Offer> {
        let name = TopicName::new(topic.as_str()).ok()?;
        Some(context.requests.offer(CallTarget::Topic(name), self.responder()))
    }
}
