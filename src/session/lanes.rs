//! A client's lanes: requests in, replies out, in order. Serves the control lane and the request lanes that the client
//! opens.

use std::sync::Arc;
use std::time::Duration;

use quic_websocket_lane::{LaneReader, LaneWriter, ReadFailure};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::end::{End, frame_error, unreadable};
use super::liveness::Activity;
use super::reply_queue::ReplyQueue;
use super::requests::{execute, process, within_limits};
use super::time_slice::TimeSlice;
use super::{Session, early};
use crate::handler::Outcome;
use crate::message::{CloseCode, ClosedBy};

/// Serves the control lane until it ends; returns the end of the connection.
pub(super) async fn serve(session: &Session, reader: LaneReader, replies: &mut ReplyQueue<'_>) -> End {
    match serve_lane(session, reader, replies, &session.activity).await {
        LaneEnd::Connection(end) => end,
        LaneEnd::Finished => End::Left(ClosedBy::new(CloseCode::NORMAL, "the control lane ended")),
        LaneEnd::Broken => End::sent(CloseCode::PROTOCOL_ERROR, "the control lane was cut off inside a message"),
    }
}

/// The end of a lane.
pub(super) enum LaneEnd {
    /// The connection ends with it.
    Connection(End),
    /// It ended after a whole message.
    Finished,
    /// It ended inside a message, or was reset.
    Broken,
}

/// Serves a lane until it ends. `activity`: that of its connection.
pub(super) async fn serve_lane(
    session: &Session,
    mut reader: LaneReader,
    replies: &mut ReplyQueue<'_>,
    activity: &Activity,
) -> LaneEnd {
    let writer = replies.writer();
    let on_control = session.is_control(writer);
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
                    activity.record();
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
            Ok(true) => activity.record(),
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
    slice.work(|_| replies.deliver());
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
        if session.is_control(writer) || writer.scheduler().takes_replies() {
            return Ok(slice);
        }
        drop(slice);
        // This lane's own replies count as well.
        replies.flush().await?;
        writer.room_for_replies().await.map_err(|_| ())?;
    }
}

/// Waits for more data; `None` if the deadline passes first.
async fn fill(reader: &mut LaneReader, deadline: Option<Instant>) -> Option<Result<bool, ReadFailure>> {
    match deadline {
        Some(deadline) => timeout_at(deadline, reader.fill()).await.ok(),
        None => Some(reader.fill().await),
    }
}

/// A client's open request lanes, each with a task of its own; dropping this ends them.
#[derive(Debug, Default)]
pub(super) struct RequestLanes {
    tasks: JoinSet<Option<End>>,
    /// The lane of a second WebSocket.
    pub(super) second: SecondLane,
}

/// The task of the lane of a second WebSocket, if there is one.
pub(super) type SecondLane = Option<AbortOnDropHandle<Option<End>>>;

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
        if let Some(second) = self.second.take() {
            // An end is that of the session, which ends already.
            let _ = second.await;
        }
    }
}

/// Serves one request lane; returns an end if it is the whole connection's.
async fn request_lane(session: Arc<Session>, reader: LaneReader, writer: Arc<LaneWriter>) -> Option<End> {
    let mut replies = ReplyQueue::new(&session, &writer);
    let end = tokio::select! {
        end = serve_lane(&session, reader, &mut replies, &session.activity) => end,
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
            // Those of other clients may still come. If the client leaves, its requests have ended.
            if end.is_none() {
                replies.requests_answered().await;
            }
            writer.finish(None).await;
        }
    };
    let _ = timeout(within, finished).await;
    end
}
