//! The replies of one lane, in the order of its requests. A pending reply keeps its place, and later replies wait
//! behind it; meanwhile the lane is read on, within bounds. Only replies to requests without an effect come before
//! those that wait for a disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::FutureExt;
use quic_websocket_lane::{LaneWriter, Sent, WaitingReplies};

use super::Session;
use crate::handler::{Before, Pending, Replies, Resolved};

/// Bytes of ready replies that are written before further requests are served.
const BATCH_BYTES: usize = 64 * 1024;

/// The unwritten replies of one lane.
pub(super) struct ReplyQueue<'a> {
    session: &'a Session,
    writer: &'a Arc<LaneWriter>,
    /// Replies after the whole queue, still being added to.
    pub(super) open: Replies,
    /// If not empty, a pending reply is at the front.
    queue: VecDeque<Slot<'a>>,
    pending: usize,
    /// Pending replies in the queue that wait for a disk.
    storing: usize,
    ready_bytes: usize,
    most_pending: usize,
}

enum Slot<'a> {
    Pending(Pending),
    /// Ready behind a pending reply; counted as waiting for the client.
    Ready {
        frames: Bytes,
        sent: Sent,
        _waiting: WaitingReplies<'a>,
    },
}

impl<'a> ReplyQueue<'a> {
    pub(super) fn new(session: &'a Session, writer: &'a Arc<LaneWriter>) -> Self {
        let most = session.context.config.limits.lane_pending_replies;
        Self {
            session,
            writer,
            open: session.replies().with_pending().on(writer),
            queue: VecDeque::new(),
            pending: 0,
            storing: 0,
            ready_bytes: 0,
            most_pending: usize::try_from(most).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn writer(&self) -> &'a Arc<LaneWriter> {
        self.writer
    }

    /// Whether a reply is pending, and those behind it wait.
    pub(super) fn is_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the ready replies have to be written before more are added.
    pub(super) fn is_full(&self) -> bool {
        self.is_large() || self.pending + self.open.pending() >= self.most_pending
    }

    fn is_large(&self) -> bool {
        self.open.ready_bytes() + self.ready_bytes >= BATCH_BYTES
    }

    /// Whether the ready replies are so few that more requests may be read before they are written. Otherwise each lane
    /// would have more replies waiting, and the client's other lanes would be held back sooner.
    pub(super) fn is_small(&self) -> bool {
        self.open.ready_bytes() + self.ready_bytes < BATCH_BYTES / 2
    }

    /// Adds a pending reply; waits for room.
    pub(super) async fn push(&mut self, reply: Pending) -> Result<(), ()> {
        self.close_pending().await?;
        while self.pending >= self.most_pending {
            self.advance().await?;
        }
        self.close_open();
        self.push_back(reply);
        Ok(())
    }

    fn push_back(&mut self, reply: Pending) {
        self.pending += reply.replies();
        self.storing += usize::from(reply.is_storing());
        self.queue.push_back(Slot::Pending(reply));
        self.tell_before();
    }

    /// Tells the open replies what is before them.
    fn tell_before(&mut self) {
        self.open.behind(match self.queue.len() {
            0 => Before::Written,
            all if all == self.storing => Before::Storing,
            _ => Before::Others,
        });
    }

    /// Delivers the messages to other clients, and has those for the disk written.
    pub(super) fn deliver(&mut self) {
        self.open.deliver();
        self.session.context.topics.wake_store();
    }

    /// Delivers the messages to other clients, and moves the replies up to the last pending one to the back of the
    /// queue; waits for room.
    async fn close_pending(&mut self) -> Result<(), ()> {
        self.deliver();
        while let Some(replies) = self.open.next_pending() {
            while self.pending > 0 && self.pending + replies > self.most_pending {
                self.advance().await?;
            }
            let Some((ready, pending)) = self.open.take_pending() else { break };
            let is_first = self.queue.is_empty();
            match ready {
                Some((frames, sent)) if is_first => {
                    self.push_back(pending);
                    self.send(&mut [frames], sent).await?;
                    continue;
                }
                Some((frames, sent)) => self.push_ready(frames, sent),
                None => {}
            }
            self.push_back(pending);
        }
        Ok(())
    }

    /// Writes the replies that are not behind a pending one, or everything if they have grown large. Returns once the
    /// stream has accepted them, so that the server reads no further from a client that does not read.
    pub(super) async fn write(&mut self) -> Result<(), ()> {
        self.close_pending().await?;
        self.write_ahead().await?;
        if self.queue.is_empty() || self.is_large() {
            return self.flush().await;
        }
        match self.front().now_or_never() {
            Some(resolved) => self.write_front(resolved).await,
            None => Ok(()),
        }
    }

    /// Writes the replies that come before those that wait for a disk.
    async fn write_ahead(&mut self) -> Result<(), ()> {
        match self.open.take_ahead() {
            Some((ahead, sent)) => self.send(&mut [ahead], sent).await,
            None => Ok(()),
        }
    }

    /// Waits for all pending replies, and writes everything.
    pub(super) async fn flush(&mut self) -> Result<(), ()> {
        self.close_pending().await?;
        self.write_ahead().await?;
        while !self.queue.is_empty() {
            self.close_open();
            self.advance().await?;
        }
        let sent = self.open.sent();
        let Some(frames) = self.open.take() else { return Ok(()) };
        self.send(&mut [frames], sent).await
    }

    /// Waits for the reply at the front, which [`write_front`](Self::write_front) then needs; forever if none is
    /// pending.
    ///
    /// Cancel safe: the reply keeps its place until it resolves.
    pub(super) async fn front(&mut self) -> Resolved {
        match self.queue.front_mut() {
            Some(Slot::Pending(front)) => front.resolve(&self.session.context).await,
            _ => std::future::pending().await,
        }
    }

    /// Writes the reply at the front, now resolved, and the replies behind it up to the next one that is still pending.
    pub(super) fn write_front(&mut self, resolved: Resolved) -> impl Future<Output = Result<(), ()>> {
        // Taken before the future begins, which then has no room for messages.
        let (mut frames, all) = self.take_front(resolved);
        async move { if frames.is_empty() { Ok(()) } else { self.send(&mut frames, all).await } }
    }

    fn take_front(&mut self, mut resolved: Resolved) -> (Vec<Bytes>, Sent) {
        let (mut frames, mut all) = (Vec::new(), Sent::default());
        if let Some((ahead, sent)) = self.open.take_ahead() {
            frames.push(ahead);
            all += sent;
        }
        // One buffer for the replies that resolve together.
        let mut replies = self.session.replies();
        loop {
            let Some(Slot::Pending(front)) = self.queue.pop_front() else { break };
            self.pending -= front.replies();
            self.storing -= usize::from(front.is_storing());
            front.put(resolved, &mut replies);
            while let Some(Slot::Ready { .. }) = self.queue.front()
                && let Some(Slot::Ready { frames: ready, sent, .. }) = self.queue.pop_front()
            {
                all += replies.sent();
                frames.extend(replies.take());
                self.ready_bytes -= ready.len();
                all += sent;
                frames.push(ready);
            }
            match self.front().now_or_never() {
                Some(next) => resolved = next,
                None => break,
            }
        }
        all += replies.sent();
        frames.extend(replies.take());
        self.tell_before();
        if self.queue.is_empty() && self.open.is_settled() {
            all += self.open.sent();
            frames.extend(self.open.take());
        }
        (frames, all)
    }

    /// Waits for the reply at the front, and writes it. The lane is not read meanwhile, and an unread `pong` may be on
    /// it.
    async fn advance(&mut self) -> Result<(), ()> {
        self.session.waiting.fetch_add(1, Ordering::Relaxed);
        let resolved = self.front().await;
        self.session.waiting.fetch_sub(1, Ordering::Relaxed);
        self.write_front(resolved).await
    }

    /// Waits until no request to another client is open whose reply goes on this lane.
    pub(super) async fn requests_answered(&self) {
        self.open.requests_answered().await;
    }

    /// Moves the open replies to the back of the queue.
    fn close_open(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let sent = self.open.sent();
        if let Some(frames) = self.open.take() {
            self.push_ready(frames, sent);
        }
    }

    fn push_ready(&mut self, frames: Bytes, sent: Sent) {
        self.ready_bytes += frames.len();
        let waiting = self.writer.scheduler().replies(frames.len());
        self.queue.push_back(Slot::Ready { frames, sent, _waiting: waiting });
        self.tell_before();
    }

    async fn send(&self, frames: &mut [Bytes], sent: Sent) -> Result<(), ()> {
        self.writer.scheduler().counters().sent(sent);
        self.writer.send(frames).await.map_err(|_| ())
    }
}
