//! Requests that come as datagrams. They are answered as if each were a lane of its own.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Session;
use super::end::{End, frame_error};
use super::requests::{execute, process, within_limits};
use crate::frame::FrameError;
use crate::handler::Outcome;

/// Serves requests that come as datagrams. A reply goes by datagram if it fits into one, otherwise on the control lane.
pub(super) async fn serve(session: &Session) -> End {
    // Whether a datagram was 0-RTT data is unknown, so all wait for the gate.
    session.gate.opened().await;
    match session.carrier.read_datagram().await {
        // Boxed, because many clients send none.
        Ok(first) => Box::pin(serve_from(session, first)).await,
        Err(cause) => End::Disconnected(cause),
    }
}

async fn serve_from(session: &Session, first: Bytes) -> End {
    let mut replies = session.replies();
    let mut body = first;
    loop {
        session.activity.record();
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
