//! The replies of one lane, in the order of its requests. A reply that is pending keeps its place, and those behind it wait;
//! meanwhile the lane is read on, within bounds.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quic_websocket_lane::{LaneWriter, Sent, WaitingReplies};

use super::Session;
use crate::handler::{Pending, Replies};

/// Replies of so many bytes are written before more requests are looked at.
const BATCH_BYTES: usize = 64 * 1024;

/// The replies of one lane that are not written yet.
pub(super) struct ReplyQueue<'a> {
    session: &'a Session,
    writer: &'a LaneWriter,
    /// Behind all of the queue.
    pub(super) open: Replies,
    /// Empty, or a pending reply is in front.
    queue: VecDeque<Slot<'a>>,
    pending: usize,
    ready_bytes: usize,
    most_pending: usize,
}

enum Slot<'a> {
    Pending(Pending),
    /// Counted as waiting for the client.
    Ready {
        frames: Bytes,
        sent: Sent,
        _waiting: WaitingReplies<'a>,
    },
}

impl<'a> ReplyQueue<'a> {
    pub(super) fn new(session: &'a Session, writer: &'a LaneWriter) -> Self {
        let most = session.context.config.limits.lane_pending_replies;
        Self {
            session,
            writer,
            open: session.replies(),
            queue: VecDeque::new(),
            pending: 0,
            ready_bytes: 0,
            most_pending: usize::try_from(most).unwrap_or(usize::MAX),
        }
    }

    /// Whether so much is ready that it has to be written before more is added.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() + self.ready_bytes >= BATCH_BYTES
    }

    /// Adds a pending reply; waits until there is room for it.
    pub(super) async fn push(&mut self, reply: Pending) -> Result<(), ()> {
        while self.pending >= self.most_pending {
            self.advance().await?;
        }
        self.close_open();
        self.queue.push_back(Slot::Pending(reply));
        self.pending += 1;
        Ok(())
    }

    /// Writes what is not behind a pending reply, and if that has grown large, everything. Returns once the stream has taken
    /// it, so that a client that does not read is not read either.
    pub(super) async fn write(&mut self) -> Result<(), ()> {
        if self.queue.is_empty() || self.is_full() {
            return self.flush().await;
        }
        self.close_open();
        Ok(())
    }

    /// Writes everything, once it is known.
    pub(super) async fn flush(&mut self) -> Result<(), ()> {
        while !self.queue.is_empty() {
            self.advance().await?;
        }
        let sent = self.open.sent();
        let Some(frames) = self.open.take() else { return Ok(()) };
        self.send(&mut [frames], sent).await
    }

    /// Waits for `other`, and meanwhile writes the replies that become known. `other` is not polled while the client does not
    /// take them, so it must hold nothing that others wait for.
    pub(super) async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> Result<T, ()> {
        let mut other = pin!(other);
        while let Some(Slot::Pending(front)) = self.queue.front_mut() {
            let message = tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                // Cancel safe: it keeps its place until it is known.
                message = front.resolved(&self.session.context) => message,
            };
            self.known(message).await?;
        }
        Ok(other.await)
    }

    /// Waits for the reply in front, and writes it with those behind it that are known. The lane is not read meanwhile, and
    /// an answer to a ping may be there.
    async fn advance(&mut self) -> Result<(), ()> {
        let Some(Slot::Pending(front)) = self.queue.front_mut() else { return Ok(()) };
        self.session.waiting.fetch_add(1, Ordering::Relaxed);
        let message = front.resolved(&self.session.context).await;
        self.session.waiting.fetch_sub(1, Ordering::Relaxed);
        self.known(message).await
    }

    /// The reply in front is known: writes it, and what is ready behind it.
    async fn known(&mut self, message: Option<crate::message::ServerMessage>) -> Result<(), ()> {
        let Some(Slot::Pending(front)) = self.queue.pop_front() else { return Ok(()) };
        self.pending -= 1;
        let (mut frames, mut all) = (Vec::new(), Sent::default());
        if let Some(message) = message {
            let mut reply = self.session.replies();
            reply.put(front.id(), &message);
            all += reply.sent();
            frames.extend(reply.take());
        }
        while let Some(Slot::Ready { .. }) = self.queue.front() {
            if let Some(Slot::Ready { frames: ready, sent, .. }) = self.queue.pop_front() {
                self.ready_bytes -= ready.len();
                all += sent;
                frames.push(ready);
            }
        }
        if frames.is_empty() { Ok(()) } else { self.send(&mut frames, all).await }
    }

    /// Puts what is ready behind the queue.
    fn close_open(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let sent = self.open.sent();
        if let Some(frames) = self.open.take() {
            self.ready_bytes += frames.len();
            let waiting = self.writer.scheduler().replies(frames.len());
            self.queue.push_back(Slot::Ready { frames, sent, _waiting: waiting });
        }
    }

    async fn send(&self, frames: &mut [Bytes], sent: Sent) -> Result<(), ()> {
        self.writer.scheduler().counters().sent(sent);
        self.writer.send(frames).await.map_err(|_| ())
    }
}
