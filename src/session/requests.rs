//! One request of a client, from its body to its reply. Charges the client's rates; the effect is `handler`'s.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use quic_websocket_lane::LaneWriter;

use super::Session;
use super::end::{End, frame_error};
use super::time_slice::SliceClock;
use crate::frame::{Body, BodyError};
use crate::handler::{self, Deferred, Outcome, Page, Pending, Replies, Reply, Requested};
use crate::message::{ClientMessage, CloseCode, ErrorCode, ErrorReply, Request, RequestId, ServerMessage};

/// Number of consecutive bodies that are not JSON at which the connection is closed.
const MAX_MALFORMED: u8 = 3;

/// Largest `pong` that the rate limit does not count, in bytes; a larger one counts like any message.
const MAX_PONG_BYTES: usize = 1024;

/// Processes one body, and answers it if possible at once. An error ends the connection.
pub(super) fn process(
    session: &Session,
    body: Bytes,
    replies: &mut Replies,
    clock: &mut SliceClock,
) -> Result<Outcome, End> {
    let allowance = &session.caller.allowance;
    let received = body.len();
    session.outbound.counters().received(received);
    let body = match Body::parse(body, session.outbound.compression, session.max_message_bytes()) {
        Ok(body) => body,
        Err(BodyError::Fatal(e)) => return Err(frame_error(e)),
        Err(e) => {
            // Decompression that failed still cost the work.
            let cost = if matches!(e, BodyError::Compressed { .. }) { session.max_message_bytes() } else { received };
            answer_bad(replies, None, allowance.take(cost), e.to_string());
            let is_malformed = matches!(e, BodyError::FirstByte(_));
            return if is_malformed { malformed(session) } else { within_limits(session) }.map(|()| Outcome::Done);
        }
    };
    // Charged by its size after decompression.
    let (json_bytes, attachment_bytes) = (body.json.len(), body.attachment.as_ref().map_or(0, Bytes::len));
    let take = || allowance.take(json_bytes + attachment_bytes);
    match Request::from_body(body) {
        // Not limited: a rate-limited client may always leave.
        Ok(Request { message: ClientMessage::Close(close), .. }) => Ok(Outcome::Leave(close)),
        Ok(request) => {
            session.malformed.store(0, Ordering::Relaxed);
            let taken = match &request.message {
                ClientMessage::Pong if json_bytes <= MAX_PONG_BYTES => {
                    allowance.take_pong();
                    Ok(())
                }
                // Other clients have paid for it with their requests; one without a request counts later.
                ClientMessage::Reply(_) => allowance.take_bytes(json_bytes + attachment_bytes),
                _ => take(),
            };
            let outcome = match taken {
                Ok(()) => handler::answer(&session.context, &session.caller, request, replies, || clock.now_ms()),
                Err(refused) => {
                    replies.put(request.id.as_ref(), &ServerMessage::Error(refused));
                    Outcome::Done
                }
            };
            within_limits(session).map(|()| outcome)
        }
        Err(invalid) => {
            let taken = take();
            answer_bad(replies, invalid.re.as_ref(), taken, invalid.message);
            if invalid.malformed {
                malformed(session)?;
            } else {
                session.malformed.store(0, Ordering::Relaxed);
            }
            within_limits(session).map(|()| Outcome::Done)
        }
    }
}

/// Reports an invalid body; if it also exceeds the rate limit, reports only that.
fn answer_bad(replies: &mut Replies, re: Option<&RequestId>, taken: Result<(), ErrorReply>, message: String) {
    let error = taken.err().unwrap_or_else(|| ErrorReply::new(ErrorCode::BadRequest, message));
    replies.put(re, &ServerMessage::Error(error));
}

/// Counts a body that is not JSON. An error ends the connection.
fn malformed(session: &Session) -> Result<(), End> {
    if session.malformed.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_MALFORMED {
        return Err(End::sent(
            CloseCode::INVALID_PAYLOAD,
            format!("{MAX_MALFORMED} bodies in a row were not JSON messages"),
        ));
    }
    within_limits(session)
}

/// Ends the connection of a client that was refused too often and continued.
pub(super) fn within_limits(session: &Session) -> Result<(), End> {
    if session.caller.allowance.is_used_up() {
        return Err(End::sent(
            CloseCode::RATE_LIMITED,
            "too many requests were sent before their retry_after_ms had passed",
        ));
    }
    Ok(())
}

/// Executes a deferred request. Its reply goes into `replies`, or is returned if it is pending.
pub(super) async fn execute(
    session: &Session,
    deferred: Box<Deferred>,
    replies: &mut Replies,
    writer: &LaneWriter,
    on_control: bool,
) -> Option<Pending> {
    let work = match *deferred {
        Deferred::Work(work) => work,
        Deferred::Page(page) => {
            Box::pin(make_page(session, page, replies, writer)).await;
            return None;
        }
    };
    session.waiting.fetch_add(1, Ordering::Relaxed);
    // Boxed, as is a page: idle clients would otherwise reserve memory for it in their tasks.
    let reply = Box::pin(handler::execute(&session.context, &session.caller, work, on_control)).await;
    session.waiting.fetch_sub(1, Ordering::Relaxed);
    match reply {
        Reply::Ready(re, Some(reply)) => {
            replies.put(re.as_ref(), &reply);
            None
        }
        Reply::Ready(_, None) => None,
        Reply::Pending(pending) => Some(pending),
    }
}

/// Produces a page once the client's rate allows it.
async fn make_page(session: &Session, page: Requested<Page>, replies: &mut Replies, writer: &LaneWriter) {
    loop {
        session.waiting.fetch_add(1, Ordering::Relaxed);
        let right = session.caller.allowance.page().await;
        let read = handler::read_page(&session.context, &session.caller, &page).await;
        session.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut slice = session.slices.take().await;
        if session.is_control(writer) || writer.scheduler().takes_replies() {
            slice.work(|_| handler::make_page(&session.context, &session.caller, page, read, replies));
            drop(right);
            slice.end().await;
            return;
        }
        drop((slice, right, read));
        // The next write to an ended lane reports it.
        if writer.room_for_replies().await.is_err() {
            return;
        }
    }
}
