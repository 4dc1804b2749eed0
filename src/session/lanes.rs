//! A client's lanes: bodies in, replies out, in order. The control lane, the request lanes that the client opens, and
//! datagrams, which are answered as if each were a lane of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quic_websocket_lane::{LaneReader, LaneWriter};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::reply_queue::ReplyQueue;
use super::turns::Turn;
use super::{End, Session, early, frame_error, unreadable};
use crate::frame::{Body, BodyError, FrameError};
use crate::handler::{self, Deferred, Outcome, Page, Pending, Replies, Reply, Requested};
use crate::message::{ClientMessage, CloseCode, ClosedBy, ErrorCode, ErrorReply, Request, RequestId, ServerMessage};

/// Bodies in a row that are no JSON before the connection is closed.
const MAX_MALFORMED: u8 = 3;

/// Most bytes of a `pong`; who puts more into one sends a message like any other.
const MAX_PONG_BYTES: usize = 1024;

/// Serves requests from `reader` and answers on `writer`, until the lane ends; gives the end of the whole connection.
pub(super) async fn serve(session: &Session, reader: LaneReader, writer: &LaneWriter) -> End {
    match serve_lane(session, reader, writer).await {
        LaneEnd::Connection(end) => end,
        LaneEnd::Finished => End::Left(ClosedBy::new(CloseCode::NORMAL, "the control lane ended")),
        LaneEnd::Broken => End::sent(CloseCode::PROTOCOL_ERROR, "the control lane was cut off inside a message"),
    }
}

/// How a lane ends.
enum LaneEnd {
    /// And with it the connection.
    Connection(End),
    /// Behind a whole message.
    Finished,
    /// Inside a message, or by a reset.
    Broken,
}

async fn serve_lane(session: &Session, mut reader: LaneReader, writer: &LaneWriter) -> LaneEnd {
    let mut replies = ReplyQueue::new(session, writer);
    let on_control = is_control(session, writer);
    let mut reassembly = session.reassembly.share();
    loop {
        // The client's turn, not held while anything is waited for. What is asked in it is answered in it.
        let mut turn: Option<Turn<'_>> = None;
        loop {
            let body = match reader.buffered() {
                Ok(Some(body)) => body,
                Ok(None) => break,
                Err(e) => {
                    drop(turn);
                    reader.stop(CloseCode::PROTOCOL_ERROR.0);
                    let _ = replies.flush().await;
                    return LaneEnd::Connection(frame_error(e));
                }
            };
            reassembly.finish();
            if !early::may_serve(session, &body) {
                turn = None;
                if replies.flush().await.is_err() {
                    return LaneEnd::Broken;
                }
                session.gate.opened().await;
            }
            let mine = match turn.take() {
                Some(turn) => turn,
                None => match turn_with_room(session, writer, &mut replies).await {
                    Ok(turn) => turn,
                    Err(()) => return LaneEnd::Broken,
                },
            };
            let taken = mine.work(|| take_in(session, body, &mut replies.open));
            if matches!(taken, Ok(Outcome::Done)) {
                turn = Some(mine);
            } else {
                mine.end().await;
            }
            match taken {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Deferred(deferred)) => {
                    // What was asked before is answered before, and does not wait for what this waits for.
                    let written = if deferred.is_brief() { replies.write().await } else { replies.flush().await };
                    if written.is_err() {
                        return LaneEnd::Broken;
                    }
                    match execute(session, deferred, &mut replies.open, writer, on_control).await {
                        Ok(None) => {}
                        Ok(Some(pending)) => {
                            if replies.push(pending).await.is_err() {
                                return LaneEnd::Broken;
                            }
                        }
                        Err(end) => {
                            let _ = replies.flush().await;
                            return LaneEnd::Connection(end);
                        }
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
            if replies.is_full() || turn.as_ref().is_some_and(Turn::is_over) {
                if let Some(turn) = turn.take() {
                    turn.end().await;
                }
                if replies.write().await.is_err() {
                    return LaneEnd::Broken;
                }
            }
        }
        if let Some(turn) = turn {
            turn.end().await;
        }
        if let Err(end) = reassembly.hold(reader.unfinished_bytes()) {
            // Its other lanes go on until this one ends: not reading must not put that off.
            let _ = timeout(session.context.config.timing.close_timeout(), replies.flush()).await;
            return LaneEnd::Connection(end);
        }
        if replies.write().await.is_err() {
            return LaneEnd::Broken;
        }
        let filled = if reader.is_inside_frame() {
            replies.meanwhile(timeout_at(reassembly.deadline(Instant::now()), reader.fill())).await
        } else {
            // On some carriers what began may turn out to be no body.
            reassembly.finish();
            replies.meanwhile(async { Ok(reader.fill().await) }).await
        };
        let Ok(filled) = filled else { return LaneEnd::Broken };
        let Ok(filled) = filled else { return LaneEnd::Connection(reassembly.late()) };
        match filled {
            Ok(true) => session.hear(),
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

/// The client's turn, once there is room for what is asked in it. Replies that wait on request lanes have a bound for all of
/// them together; the control lane is served all the same, so that a client can still say that it lives, or leaves.
async fn turn_with_room<'a>(
    session: &'a Session,
    writer: &LaneWriter,
    replies: &mut ReplyQueue<'_>,
) -> Result<Turn<'a>, ()> {
    loop {
        let turn = session.turns.take().await;
        if is_control(session, writer) || writer.scheduler().takes_replies() {
            return Ok(turn);
        }
        drop(turn);
        // Those of this lane count as well.
        replies.flush().await?;
        writer.room_for_replies().await.map_err(|_| ())?;
    }
}

/// Judges one body and answers what can be answered at once. An error ends the connection.
fn take_in(session: &Session, body: Bytes, replies: &mut Replies) -> Result<Outcome, End> {
    let allowance = &session.caller.allowance;
    let received = body.len();
    session.outbound.counters().received(received);
    let body = match Body::parse(body, session.compression, session.max_message_bytes) {
        Ok(body) => body,
        Err(BodyError::Fatal(e)) => return Err(frame_error(e)),
        Err(e) => {
            // What was inflated in vain was work all the same.
            let cost = if matches!(e, BodyError::Zstd(_)) { session.max_message_bytes } else { received };
            answer_bad(replies, None, allowance.take(cost), e.to_string());
            let is_malformed = matches!(e, BodyError::FirstByte(_));
            return if is_malformed { malformed(session) } else { within_limits(session) }.map(|()| Outcome::Done);
        }
    };
    // What it takes inside, not on the way: small bodies may inflate to large ones.
    let take = || allowance.take(body.json.len() + body.attachment.as_ref().map_or(0, Bytes::len));
    match Request::parse(&body) {
        // A client that has to wait may leave, and shows that it lives.
        Ok(Request { message: ClientMessage::Close(close), .. }) => Ok(Outcome::Leave(close)),
        Ok(request) => {
            session.malformed.store(0, Ordering::Relaxed);
            let taken = match &request.message {
                ClientMessage::Pong if body.json.len() <= MAX_PONG_BYTES => {
                    allowance.take_pong();
                    Ok(())
                }
                _ => take(),
            };
            let outcome = match taken {
                Ok(()) => handler::answer(&session.context, &session.caller, request, replies),
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

/// Says what is wrong with a body; that it was one too many is said first.
fn answer_bad(replies: &mut Replies, re: Option<&RequestId>, taken: Result<(), ErrorReply>, message: String) {
    let error = taken.err().unwrap_or_else(|| ErrorReply::new(ErrorCode::BadRequest, message));
    replies.put(re, &ServerMessage::Error(error));
}

/// Counts a body that is no JSON. An error ends the connection.
fn malformed(session: &Session) -> Result<(), End> {
    if session.malformed.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_MALFORMED {
        return Err(End::sent(
            CloseCode::INVALID_PAYLOAD,
            format!("{MAX_MALFORMED} bodies in a row that are no JSON messages"),
        ));
    }
    within_limits(session)
}

/// Ends the connection of a client that was refused too often and went on.
fn within_limits(session: &Session) -> Result<(), End> {
    if session.caller.allowance.is_used_up() {
        return Err(End::sent(
            CloseCode::RATE_LIMITED,
            "too many requests were sent before their retry_after_ms was over",
        ));
    }
    Ok(())
}

/// Carries out what was put off. Its reply goes into `replies`, or is given if it is pending. An error ends the connection.
async fn execute(
    session: &Session,
    deferred: Deferred,
    replies: &mut Replies,
    writer: &LaneWriter,
    on_control: bool,
) -> Result<Option<Pending>, End> {
    let work = match deferred {
        Deferred::Work(work) => work,
        Deferred::Page(page) => return make_page(session, page, replies, writer).await.map(|()| None),
    };
    session.waiting.fetch_add(1, Ordering::Relaxed);
    let reply = handler::execute(&session.context, &session.caller, work, on_control).await;
    session.waiting.fetch_sub(1, Ordering::Relaxed);
    let pending = match reply {
        Reply::Ready(re, Some(reply)) => {
            replies.put(re.as_ref(), &reply);
            None
        }
        Reply::Ready(_, None) => None,
        Reply::Pending(pending) => Some(pending),
    };
    within_limits(session).map(|()| pending)
}

/// Makes a page that has to wait for the client's rate.
async fn make_page(
    session: &Session,
    page: Requested<Page>,
    replies: &mut Replies,
    writer: &LaneWriter,
) -> Result<(), End> {
    loop {
        session.waiting.fetch_add(1, Ordering::Relaxed);
        let right = session.caller.allowance.page().await;
        session.waiting.fetch_sub(1, Ordering::Relaxed);
        let turn = session.turns.take().await;
        if is_control(session, writer) || writer.scheduler().takes_replies() {
            turn.work(|| handler::make_page(&session.context, &session.caller, page, replies));
            drop(right);
            turn.end().await;
            return within_limits(session);
        }
        drop((turn, right));
        // A lane that has ended is found out by who writes to it.
        if writer.room_for_replies().await.is_err() {
            return Ok(());
        }
    }
}

/// Whether what is written there goes on the control lane.
fn is_control(session: &Session, writer: &LaneWriter) -> bool {
    std::ptr::eq(writer, &raw const *session.outbound.control)
}

/// The request lanes that a client has open, each with a task of its own; dropping this ends them.
#[derive(Debug, Default)]
pub(super) struct RequestLanes {
    tasks: JoinSet<Option<End>>,
}

impl RequestLanes {
    /// Serves the lanes that the client opens, until one of them is the connection's end. A lane too many waits.
    pub(super) async fn accept(&mut self, session: &Arc<Session>) -> End {
        let most = usize::try_from(session.context.config.limits.max_request_lanes).unwrap_or(usize::MAX);
        loop {
            tokio::select! {
                // Both are cancel safe: a stream, or an ended task, that was not taken is there the next time.
                accepted = session.carrier.accept_lane(), if self.tasks.len() < most => match accepted {
                    Ok((send, receive)) => {
                        let reader = LaneReader::new(receive, session.carrier.layer(), session.max_message_bytes);
                        self.tasks.spawn(request_lane(Arc::clone(session), reader, session.new_lane(send)));
                    }
                    Err(gone) => return End::Disconnected(gone),
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(None) => {}
                    Ok(Some(end)) => return end,
                    Err(e) => return End::sent(CloseCode::INTERNAL, format!("a request lane failed: {e}")),
                },
                gone = session.carrier.closed() => return End::Disconnected(gone),
            }
        }
    }

    /// Waits until all have sent what they had, once the client is leaving.
    pub(super) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves one request lane; gives an end where that is the whole connection's.
async fn request_lane(session: Arc<Session>, reader: LaneReader, writer: Arc<LaneWriter>) -> Option<End> {
    let end = tokio::select! {
        end = serve_lane(&session, reader, &writer) => end,
        () = session.leaving.cancelled() => LaneEnd::Finished,
    };
    let (end, within) = match end {
        LaneEnd::Connection(End::Disconnected(gone)) => return Some(End::Disconnected(gone)),
        LaneEnd::Connection(end) => (Some(end), session.context.config.timing.close_timeout()),
        // Bounded by the client's reading, or, once the client leaves, by the time for that.
        LaneEnd::Finished => (None, Duration::MAX),
        LaneEnd::Broken => return None,
    };
    // Replies may still be on their way; whoever does not take them in time does without.
    let _ = timeout(within, writer.finish(None)).await;
    end
}

/// Serves requests that come as datagrams: answered by datagram where the answer fits into one, else on the control
/// lane.
pub(super) async fn serve_datagrams(session: &Session) -> End {
    let mut replies = session.replies();
    // Nobody can tell which of them were early.
    session.gate.opened().await;
    loop {
        let body = match session.carrier.read_datagram().await {
            Ok(body) => body,
            Err(gone) => return End::Disconnected(gone),
        };
        session.hear();
        if body.len() > session.max_message_bytes {
            return frame_error(FrameError::TooBig { max: session.max_message_bytes });
        }
        let turn = session.turns.take().await;
        let taken = turn.work(|| take_in(session, body, &mut replies));
        turn.end().await;
        let done = match taken {
            Ok(Outcome::Done) => Ok(()),
            Ok(Outcome::Deferred(deferred)) => {
                let pending = execute(session, deferred, &mut replies, &session.outbound.control, false).await;
                if let Ok(Some(mut pending)) = pending {
                    if let Some(reply) = pending.resolved(&session.context).await {
                        replies.put(pending.id(), &reply);
                    }
                    Ok(())
                } else {
                    pending.map(|_| ())
                }
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
    }
}
