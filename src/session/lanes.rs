//! A client's lanes: requests in, replies out, in order. Serves the control lane, the request lanes that the client
//! opens, and datagrams, which are answered as if each were a lane of its own. The effect of each request is
//! `handler`'s.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quic_websocket_lane::{LaneReader, LaneWriter, ReadFailure};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::end::{End, frame_error, unreadable};
use super::reply_queue::ReplyQueue;
use super::time_slice::{SliceClock, TimeSlice};
use super::{Session, early};
use crate::frame::{Body, BodyError, FrameError};
use crate::handler::{self, Deferred, Outcome, Page, Pending, Replies, Reply, Requested};
use crate::message::{ClientMessage, CloseCode, ClosedBy, ErrorCode, ErrorReply, Request, RequestId, ServerMessage};

/// Number of consecutive bodies that are not JSON at which the connection is closed.
const MAX_MALFORMED: u8 = 3;

/// Largest `pong` that the rate limit does not count, in bytes; a larger one counts like any message.
const MAX_PONG_BYTES: usize = 1024;

/// Serves the control lane until it ends; returns the end of the connection.
pub(super) async fn serve(session: &Session, reader: LaneReader, replies: &mut ReplyQueue<'_>) -> End {
    match serve_lane(session, reader, replies).await {
        LaneEnd::Connection(end) => end,
        LaneEnd::Finished => End::Left(ClosedBy::new(CloseCode::NORMAL, "the control lane ended")),
        LaneEnd::Broken => End::sent(CloseCode::PROTOCOL_ERROR, "the control lane was cut off inside a message"),
    }
}

/// The end of a lane.
enum LaneEnd {
    /// The connection ends with it.
    Connection(End),
    /// It ended after a whole message.
    Finished,
    /// It ended inside a message, or was reset.
    Broken,
}

async fn serve_lane(session: &Session, mut reader: LaneReader, replies: &mut ReplyQueue<'_>) -> LaneEnd {
    let writer = replies.writer();
    let on_control = is_control(session, writer);
    let mut reassembly = session.reassembly.reserve();
    // Whether the gate has opened; it never closes again.
    let mut is_admitted = false;
    loop {
        // Not held while anything is waited for. Requests served in a slice are also answered in it.
        let mut slice: Option<TimeSlice<'_>> = None;
        loop {
            let body = match reader.buffered() {
                Ok(Some(body)) => body,
                // Small requests that have arrived are answered in one write.
                Ok(None) if replies.is_small() && reader.fill_at_once() => {
                    session.record_activity();
                    continue;
                }
                Ok(None) => break,
                Err(e) => {
                    drop(slice);
                    reader.stop(CloseCode::PROTOCOL_ERROR.0);
                    let _ = replies.flush().await;
                    return LaneEnd::Connection(frame_error(e));
                }
            };
            reassembly.finish();
            is_admitted = is_admitted || session.gate.is_open();
            if !is_admitted && !early::is_harmless(session, &body) {
                slice = None;
                if replies.flush().await.is_err() {
                    return LaneEnd::Broken;
                }
                session.gate.opened().await;
            }
            let mut current = match slice.take() {
                Some(slice) => slice,
                None => match slice_with_room(session, writer, replies).await {
                    Ok(slice) => slice,
                    Err(()) => return LaneEnd::Broken,
                },
            };
            let taken = current.work(|clock| process(session, body, &mut replies.open, clock));
            if matches!(taken, Ok(Outcome::Done)) {
                slice = Some(current);
            } else {
                deliver_and_end(current, replies).await;
            }
            match taken {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Deferred(deferred)) => {
                    // Earlier requests are answered first, and do not wait for what this one waits for.
                    let written = if deferred.is_brief() { replies.write().await } else { replies.flush().await };
                    if written.is_err() {
                        return LaneEnd::Broken;
                    }
                    let pending = execute(session, deferred, &mut replies.open, writer, on_control).await;
                    if let Some(pending) = pending
                        && replies.push(pending).await.is_err()
                    {
                        return LaneEnd::Broken;
                    }
                    if let Err(end) = within_limits(session) {
                        let _ = replies.flush().await;
                        return LaneEnd::Connection(end);
                    }
                }
                Ok(Outcome::Leave(close)) => {
                    let _ = replies.flush().await;
                    let closed = close.into();
                    return LaneEnd::Connection(End::Left(closed));
                }
                Err(end) => {
                    let _ = replies.flush().await;
                    return LaneEnd::Connection(end);
                }
            }
            if replies.is_full() || slice.as_ref().is_some_and(TimeSlice::is_over) {
                if let Some(slice) = slice.take() {
                    deliver_and_end(slice, replies).await;
                }
                if replies.write().await.is_err() {
                    return LaneEnd::Broken;
                }
            }
        }
        if let Some(slice) = slice {
            deliver_and_end(slice, replies).await;
        }
        if let Err(end) = reassembly.hold(reader.unfinished_bytes()) {
            // The client's other lanes run until this one ends, so a client that does not read must not delay its end.
            let _ = timeout(session.context.config.timing.close_timeout(), replies.flush()).await;
            return LaneEnd::Connection(end);
        }
        if replies.write().await.is_err() {
            return LaneEnd::Broken;
        }
        let deadline = if reader.is_inside_frame() {
            Some(reassembly.deadline(Instant::now()))
        } else {
            // On a WebSocket, the bytes may have been a control frame.
            reassembly.finish();
            None
        };
        let filled = tokio::select! {
            biased;
            resolved = replies.front(), if replies.is_pending() => {
                let began = Instant::now();
                if replies.write_front(resolved).await.is_err() {
                    return LaneEnd::Broken;
                }
                reassembly.postpone(began.elapsed());
                continue;
            }
            // Cancel safe: received data is kept.
            filled = fill(&mut reader, deadline) => filled,
        };
        let Some(filled) = filled else { return LaneEnd::Connection(reassembly.late()) };
        match filled {
            Ok(true) => session.record_activity(),
            Ok(false) => {
                if replies.flush().await.is_err() || reader.is_inside_frame() {
                    return LaneEnd::Broken;
                }
                return LaneEnd::Finished;
            }
            Err(e) => {
                let _ = replies.flush().await;
                return unreadable(&session.carrier, e).map_or(LaneEnd::Broken, LaneEnd::Connection);
            }
        }
    }
}

/// Ends a time slice. Messages to other clients are delivered in it: they must not wait while other tasks run.
async fn deliver_and_end(mut slice: TimeSlice<'_>, replies: &mut ReplyQueue<'_>) {
    slice.work(|_| replies.open.deliver());
    slice.end().await;
}

/// Takes a time slice, once there is room for the replies. Replies waiting on all request lanes share one bound; the
/// control lane is always served, so that the client can still answer pings, or leave.
async fn slice_with_room<'a>(
    session: &'a Session,
    writer: &LaneWriter,
    replies: &mut ReplyQueue<'_>,
) -> Result<TimeSlice<'a>, ()> {
    loop {
        let slice = session.slices.take().await;
        if is_control(session, writer) || writer.scheduler().takes_replies() {
            return Ok(slice);
        }
        drop(slice);
        // This lane's own replies count as well.
        replies.flush().await?;
        writer.room_for_replies().await.map_err(|_| ())?;
    }
}

/// Processes one body, and answers it if possible at once. An error ends the connection.
fn process(session: &Session, body: Bytes, replies: &mut Replies, clock: &mut SliceClock) -> Result<Outcome, End> {
    let allowance = &session.caller.allowance;
    let received = body.len();
    session.outbound.counters().received(received);
    let body = match Body::parse(body, session.compression, session.max_message_bytes()) {
        Ok(body) => body,
        Err(BodyError::Fatal(e)) => return Err(frame_error(e)),
        Err(e) => {
            // Decompression that failed still cost the work.
            let cost = if matches!(e, BodyError::Zstd(_)) { session.max_message_bytes() } else { received };
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
fn within_limits(session: &Session) -> Result<(), End> {
    if session.caller.allowance.is_used_up() {
        return Err(End::sent(
            CloseCode::RATE_LIMITED,
            "too many requests were sent before their retry_after_ms had passed",
        ));
    }
    Ok(())
}

/// Waits for more data; `None` if the deadline passes first.
async fn fill(reader: &mut LaneReader, deadline: Option<Instant>) -> Option<Result<bool, ReadFailure>> {
    match deadline {
        Some(deadline) => timeout_at(deadline, reader.fill()).await.ok(),
        None => Some(reader.fill().await),
    }
}

/// Executes a deferred request. Its reply goes into `replies`, or is returned if it is pending.
async fn execute(
    session: &Session,
    deferred: Deferred,
    replies: &mut Replies,
    writer: &LaneWriter,
    on_control: bool,
) -> Option<Pending> {
    let work = match deferred {
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
        session.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut slice = session.slices.take().await;
        if is_control(session, writer) || writer.scheduler().takes_replies() {
            slice.work(|_| handler::make_page(&session.context, &session.caller, page, replies));
            drop(right);
            slice.end().await;
            return;
        }
        drop((slice, right));
        // The next write to an ended lane reports it.
        if writer.room_for_replies().await.is_err() {
            return;
        }
    }
}

/// Whether `writer` is the control lane.
fn is_control(session: &Session, writer: &LaneWriter) -> bool {
    std::ptr::eq(writer, &raw const *session.outbound.control)
}

/// A client's open request lanes, each with a task of its own; dropping this ends them.
#[derive(Debug, Default)]
pub(super) struct RequestLanes {
    tasks: JoinSet<Option<End>>,
}

impl RequestLanes {
    /// Serves the lanes that the client opens, until one of them ends the connection. Lanes over the limit wait.
    pub(super) async fn accept(&mut self, session: &Arc<Session>) -> End {
        let most = usize::try_from(session.context.config.limits.max_request_lanes).unwrap_or(usize::MAX);
        loop {
            tokio::select! {
                // Both are cancel safe: a stream or task that was not taken is still there the next time.
                accepted = session.carrier.accept_lane(), if self.tasks.len() < most => match accepted {
                    Ok((send, receive)) => {
                        let reader = LaneReader::new(receive, session.carrier.layer(), session.max_message_bytes());
                        self.tasks.spawn(request_lane(Arc::clone(session), reader, session.new_lane(send)));
                    }
                    Err(cause) => return End::Disconnected(cause),
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(None) => {}
                    Ok(Some(end)) => return end,
                    Err(e) => return End::sent(CloseCode::INTERNAL, format!("a request lane failed: {e}")),
                },
                cause = session.carrier.closed() => return End::Disconnected(cause),
            }
        }
    }

    /// Waits until all lanes have sent their replies, once the client is leaving.
    pub(super) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves one request lane; returns an end if it is the whole connection's.
async fn request_lane(session: Arc<Session>, reader: LaneReader, writer: Arc<LaneWriter>) -> Option<End> {
    let mut replies = ReplyQueue::new(&session, &writer);
    let end = tokio::select! {
        end = serve_lane(&session, reader, &mut replies) => end,
        () = session.leaving.cancelled() => LaneEnd::Finished,
    };
    let (end, within) = match end {
        LaneEnd::Connection(End::Disconnected(cause)) => return Some(End::Disconnected(cause)),
        LaneEnd::Connection(end) => (Some(end), session.context.config.timing.close_timeout()),
        // Bounded by the client's reading or, once it leaves, by the time for that.
        LaneEnd::Finished => (None, Duration::MAX),
        LaneEnd::Broken => return None,
    };
    // Replies may still be queued; those not accepted in time are lost.
    let finished = async {
        if replies.flush().await.is_ok() {
            writer.finish(None).await;
        }
    };
    let _ = timeout(within, finished).await;
    end
}

/// Serves requests that come as datagrams. A reply goes by datagram if it fits into one, otherwise on the control lane.
pub(super) async fn serve_datagrams(session: &Session) -> End {
    // Whether a datagram was 0-RTT data is unknown, so all wait for the gate.
    session.gate.opened().await;
    match session.carrier.read_datagram().await {
        // Boxed, because many clients send none.
        Ok(first) => Box::pin(serve_datagrams_from(session, first)).await,
        Err(cause) => End::Disconnected(cause),
    }
}

async fn serve_datagrams_from(session: &Session, first: Bytes) -> End {
    let mut replies = session.replies();
    let mut body = first;
    loop {
        session.record_activity();
        if body.len() > session.max_message_bytes() {
            return frame_error(FrameError::TooBig { max: session.max_message_bytes() });
        }
        let mut slice = session.slices.take().await;
        let taken = slice.work(|clock| process(session, body, &mut replies, clock));
        slice.end().await;
        let done = match taken {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::Deferred(deferred)) => {
                let pending = execute(session, deferred, &mut replies, &session.outbound.control, false).await;
                if let Some(mut pending) = pending {
                    session.waiting.fetch_add(1, Ordering::Relaxed);
                    let resolved = pending.resolve(&session.context).await;
                    session.waiting.fetch_sub(1, Ordering::Relaxed);
                    pending.put(resolved, &mut replies);
                }
                within_limits(session)
            }
            Ok(Outcome::Leave(close)) => Err(End::Left(close.into())),
            Err(end) => Err(end),
        };
        if let Some(frame) = replies.take() {
            session.outbound.put_datagram(frame);
        }
        if let Err(end) = done {
            return end;
        }
        body = match session.carrier.read_datagram().await {
            Ok(body) => body,
            Err(cause) => return End::Disconnected(cause),
        };
    }
}
