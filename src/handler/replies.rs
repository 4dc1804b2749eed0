//! Replies to one batch of requests, encoded into one buffer: many small replies become one write and few packets.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quic_websocket_lane::{LaneWriter, Sent};
use tokio_util::task::TaskTracker;

use super::pending::{Pending, Reply, put_direct};
use crate::frame::{self, Compression};
use crate::message::{RequestId, ServerMessage, encode_binary_head, encode_echo};
use crate::outbound::OnLane;
use crate::registry::{Delivered, DirectBatch};

/// Largest buffer reserved in advance, in bytes.
const MAX_ESTIMATE_BYTES: usize = 64 * 1024;

/// Replies to be written, in order, and the messages to another client that leave with them. Each message is delivered
/// before a later reply is added, and at the latest when the replies are taken.
#[derive(Debug)]
pub(crate) struct Replies {
    messages: usize,
    open: BytesMut,
    /// Replies that come before those that wait for a disk, and their number.
    ahead: BytesMut,
    ahead_messages: usize,
    /// The replies before all of these.
    before: Before,
    /// Replies before the open ones that are pending, each with the ready ones before it.
    pending: VecDeque<(Option<(Bytes, Sent)>, Pending)>,
    /// Bytes of those ready ones.
    pending_bytes: usize,
    /// Messages to one client that are not delivered yet, and the requests among them that want a reply.
    directs: Option<DirectBatch>,
    ids: Vec<(usize, RequestId)>,
    /// Bytes of the last batch of such messages.
    last_directs: usize,
    /// Whether such messages, and pending replies, are accepted.
    pub(super) accepts_pending: bool,
    /// The lane that these go on, if it is one, and the requests to other clients whose replies go on it as well.
    lane: Option<Arc<LaneWriter>>,
    open_requests: Option<TaskTracker>,
    /// Estimated size of the next buffer, from the previous ones, so that it is allocated once.
    estimated_bytes: usize,
    /// The client's compression, and the minimum size of compressed bodies in bytes.
    compression: Compression,
    compress_min_bytes: usize,
}

/// The replies of a lane before those that are being added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Written,
    /// All of them wait for a disk.
    Storing,
    Others,
}

impl Replies {
    pub(crate) fn new(compression: Compression, compress_min_bytes: usize) -> Self {
        Self {
            messages: 0,
            open: BytesMut::new(),
            ahead: BytesMut::new(),
            ahead_messages: 0,
            before: Before::Written,
            pending: VecDeque::new(),
            pending_bytes: 0,
            directs: None,
            ids: Vec::new(),
            last_directs: 0,
            accepts_pending: false,
            lane: None,
            open_requests: None,
            estimated_bytes: 0,
            compression,
            compress_min_bytes,
        }
    }

    /// Accepts messages to other clients and pending replies as well.
    pub(crate) fn with_pending(mut self) -> Self {
        self.accepts_pending = true;
        self
    }

    /// Accepts requests to other clients as well, whose replies go on this lane.
    pub(crate) fn on(mut self, lane: &Arc<LaneWriter>) -> Self {
        self.lane = Some(Arc::clone(lane));
        self
    }

    /// The lane for the reply to a request to another client, which stays open for it; `None` if these go on no lane.
    pub(super) fn lane(&mut self) -> Option<OnLane> {
        let lane = self.lane.clone()?;
        Some(OnLane::kept_open(lane, self.open_requests.get_or_insert_default()))
    }

    /// Waits until no request to another client is open whose reply goes on this lane.
    pub(crate) async fn requests_answered(&self) {
        if let Some(open) = &self.open_requests {
            open.close();
            open.wait().await;
        }
    }

    /// The batch of messages to one client that are not delivered yet.
    pub(super) fn batch(&self) -> Option<&DirectBatch> {
        self.directs.as_ref()
    }

    /// Begins a batch of messages to one client, after the one before it was delivered.
    pub(super) fn begin(&mut self, mut batch: DirectBatch) {
        batch.messages().reserve(self.last_directs);
        self.directs = Some(batch);
    }

    /// Adds a message to the batch; its reply is wanted if there is an id.
    pub(super) fn join(&mut self, message: &ServerMessage, content_bytes: usize, id: Option<RequestId>) {
        let Some(batch) = &mut self.directs else { return };
        let messages = batch.messages();
        self.ids.extend(id.map(|id| (messages.len(), id)));
        messages.put(message, content_bytes);
    }

    /// Adds a message that is the reply to that client's own request.
    pub(super) fn join_reply(&mut self, re: &RequestId, message: &ServerMessage, content_bytes: usize) {
        if let Some(batch) = &mut self.directs {
            batch.messages().put_reply(Some(re), message, content_bytes);
        }
    }

    /// Delivers the messages to another client, and adds the replies to their sender.
    pub(crate) fn deliver(&mut self) {
        let Some(mut batch) = self.directs.take() else { return };
        let (to, ids) = (batch.to(), std::mem::take(&mut self.ids));
        self.last_directs = batch.messages().bytes().min(MAX_ESTIMATE_BYTES);
        match batch.deliver(!ids.is_empty()) {
            Delivered::Now(accepted) => put_direct(to, &ids, accepted as u64, self),
            Delivered::Later(Some(accepted)) => self.put_pending(Pending::Direct { to, ids, accepted }),
            Delivered::Later(None) => {}
        }
    }

    /// Adds a reply, which may be pending.
    pub(super) fn put_reply(&mut self, reply: Reply) {
        match reply {
            Reply::Ready(re, Some(reply)) => {
                self.put(re.as_ref(), &reply);
            }
            Reply::Ready(_, None) => {}
            Reply::Pending(pending) => {
                self.deliver();
                self.put_pending(pending);
            }
        }
    }

    fn put_pending(&mut self, pending: Pending) {
        let sent = self.sent();
        let ready = self.take_open().map(|frames| (frames, sent));
        self.pending_bytes += ready.as_ref().map_or(0, |(frames, _)| frames.len());
        self.pending.push_back((ready, pending));
    }

    /// Number of replies among these that are pending, or may be once all messages are delivered.
    pub(crate) fn pending(&self) -> usize {
        self.pending.iter().map(|(_, pending)| pending.replies()).sum::<usize>() + self.ids.len()
    }

    /// Whether none is pending, nor may be once all messages are delivered.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.directs.is_none()
    }

    /// Number of replies that [`take_pending`](Self::take_pending) takes together.
    pub(crate) fn next_pending(&self) -> Option<usize> {
        self.pending.front().map(|(_, pending)| pending.replies())
    }

    /// Takes the first pending replies and the ready ones before them.
    pub(crate) fn take_pending(&mut self) -> Option<(Option<(Bytes, Sent)>, Pending)> {
        let (ready, pending) = self.pending.pop_front()?;
        self.pending_bytes -= ready.as_ref().map_or(0, |(frames, _)| frames.len());
        Some((ready, pending))
    }

    /// The replies after the last pending one, as traffic counters count them.
    pub(crate) fn sent(&self) -> Sent {
        Sent { messages: self.messages, bytes: self.len() - self.messages * frame::PREFIX_BYTES }
    }

    /// Bytes of these replies, with their length prefixes.
    fn len(&self) -> usize {
        self.open.len()
    }

    /// Bytes of all ready replies, with their length prefixes.
    pub(crate) fn ready_bytes(&self) -> usize {
        self.pending_bytes + self.open.len() + self.ahead.len()
    }

    /// Sets which replies come before all of these.
    pub(crate) fn behind(&mut self, before: Before) {
        self.before = before;
    }

    /// Takes the replies that come before those that wait for a disk.
    pub(crate) fn take_ahead(&mut self) -> Option<(Bytes, Sent)> {
        if self.ahead.is_empty() {
            return None;
        }
        let messages = std::mem::take(&mut self.ahead_messages);
        let frames = frame::exact(std::mem::take(&mut self.ahead));
        let sent = Sent { messages, bytes: frames.len() - messages * frame::PREFIX_BYTES };
        Some((frames, sent))
    }

    /// Whether all replies before the next one wait for a disk. The reply to a request without an effect may then come
    /// before them, so that a disk that hangs does not look like a dead connection.
    fn overtakes(&self) -> bool {
        let is_storing = match self.before {
            Before::Written => !self.pending.is_empty(),
            Before::Storing => true,
            Before::Others => false,
        };
        is_storing
            && self.open.is_empty()
            && self.pending.iter().all(|(ready, pending)| ready.is_none() && pending.is_storing())
    }

    /// Adds a reply; returns its length before compression.
    pub(crate) fn put(&mut self, re: Option<&RequestId>, message: &ServerMessage) -> usize {
        self.put_with(|out| message.encode(re, out))
    }

    /// Adds the echo of a `text`.
    pub(crate) fn echo_text(&mut self, content: &str, re: Option<&RequestId>, timestamp: u64) {
        self.put_ahead_with(|out| encode_echo(content, re, timestamp, out));
    }

    /// Adds the echo of a `binary`. Copies the attachment, which may be a small part of a large receive buffer.
    pub(crate) fn echo_binary(&mut self, attachment: &[u8], re: Option<&RequestId>, timestamp: u64) {
        self.put_ahead_with(|out| {
            out.reserve(attachment.len());
            encode_binary_head(attachment.len(), re, timestamp, out);
            out.extend_from_slice(attachment);
        });
    }

    /// Takes the replies after the last pending one, in one buffer without spare capacity; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.deliver();
        self.take_open()
    }

    fn take_open(&mut self) -> Option<Bytes> {
        self.messages = 0;
        if self.open.is_empty() {
            return None;
        }
        self.estimated_bytes =
            self.open.len().max(self.estimated_bytes - self.estimated_bytes / 8).min(MAX_ESTIMATE_BYTES);
        // Takes the whole buffer, so that an idle lane keeps none.
        Some(frame::exact(std::mem::take(&mut self.open)))
    }

    /// Adds the answer to a `ping`.
    pub(super) fn pong(&mut self, re: Option<&RequestId>, pong: &ServerMessage) {
        self.put_ahead_with(|out| pong.encode(re, out));
    }

    fn put_with(&mut self, encode: impl FnOnce(&mut BytesMut)) -> usize {
        self.deliver();
        if self.open.is_empty() {
            self.open.reserve(self.estimated_bytes);
        }
        self.messages += 1;
        append(&mut self.open, (self.compression, self.compress_min_bytes), encode)
    }

    /// Adds a reply that may come before those that wait for a disk.
    fn put_ahead_with(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        self.deliver();
        if self.overtakes() {
            self.ahead_messages += 1;
            append(&mut self.ahead, (self.compression, self.compress_min_bytes), encode);
        } else {
            self.put_with(encode);
        }
    }
}

/// Appends a frame, compressed if that pays; returns its length before.
fn append(out: &mut BytesMut, (compression, least): (Compression, usize), encode: impl FnOnce(&mut BytesMut)) -> usize {
    let start = out.len();
    encode(out);
    let frame = &out[start..];
    let length = frame.len();
    if compression.is_some()
        && frame.len() >= least.saturating_add(frame::PREFIX_BYTES)
        && let Some(packed) = frame::compress(frame, compression)
    {
        out.truncate(start);
        out.extend_from_slice(&packed);
    }
    length
}

/// A sender that is cut off has sent its messages all the same.
impl Drop for Replies {
    fn drop(&mut self) {
        if let Some(batch) = self.directs.take() {
            batch.deliver(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Body, FrameDecoder};
    use uuid::Uuid;

    use crate::message::{ClientInfo, Member, Reply, TopicName};
    use crate::registry::{Found, Naming, Registry};
    use crate::topic::Narrow;

    #[test]
    fn replies_leave_in_order_whether_compressed_or_not() {
        for compression in [Compression::None, Compression::Zstd, Compression::Deflate] {
            let mut replies = Replies::new(compression, 1024);
            replies.echo_text("one", Some(&RequestId::Number(1)), 5);
            replies.echo_binary(&[7; 10_000], Some(&RequestId::Number(2)), 5);
            replies.echo_binary(&[8; 10], Some(&RequestId::Number(3)), 5);
            replies.echo_text(&"x".repeat(5000), Some(&RequestId::Number(4)), 5);
            let mut decoder = FrameDecoder::new(1 << 20);
            let mut order = Vec::new();
            let expected = replies.len();
            assert_eq!(replies.sent(), Sent { messages: 4, bytes: expected - 4 * frame::PREFIX_BYTES });
            let piece = replies.take().expect("replies");
            assert_eq!(piece.len(), expected);
            assert_eq!((replies.len(), replies.sent(), replies.take()), (0, Sent::default(), None));
            decoder.push(piece);
            while let Some(body) = decoder.next_body().expect("sound frames") {
                let body = Body::parse(body, compression, 1 << 20).expect("a sound body");
                order.push(Reply::parse(&body).expect("a message").re);
            }
            assert_eq!(order, [1, 2, 3, 4].map(|n| Some(RequestId::Number(n))));
        }
    }

    #[test]
    fn replies_hold_no_more_memory_than_their_length() {
        let mut replies = Replies::new(Compression::Zstd, 1024);
        // A large batch raises the estimate for those after it.
        for sizes in [&[1_000_000][..], &[5], &[60_000; 2], &[5], &[2000, 5, 1_000_000], &[5]] {
            for &size in sizes {
                replies.echo_text(&"x".repeat(size), None, 5);
            }
            let piece = replies.take().expect("replies");
            let length = piece.len();
            let capacity = piece.try_into_mut().expect("a unique buffer").capacity();
            assert_eq!(capacity, length, "replies to {sizes:?} bytes");
        }
    }

    #[test]
    fn ready_replies_count_until_they_are_taken_even_before_a_pending_one() {
        let (to, worker) = (Uuid::from_u128(1), 1);
        // The inboxes are kept, so that the message waits in one.
        let (registry, _inboxes) = Registry::new(1, 0, 2, 4);
        let info = ClientInfo::new(Member::new(to, None, None), 0, "quic");
        let _place = registry.register(info, worker, Naming::Free).expect("room");
        let mut replies = Replies::new(Compression::None, 1024).with_pending();
        replies.echo_text("before", Some(&RequestId::Number(1)), 5);
        let before = replies.ready_bytes();
        let Found::Route(route) = registry.route(0, to) else { panic!("the receiver is connected") };
        replies.begin(DirectBatch::new(to, route, 1024));
        let message = ServerMessage::Direct { from: Uuid::nil().into(), payload: "text".into(), timestamp: 5 };
        replies.join(&message, 4, Some(RequestId::Number(2)));
        replies.echo_text("after", Some(&RequestId::Number(3)), 5);
        let all = replies.ready_bytes();
        assert!(before > 0 && all > before, "{before} and {all} bytes");
        assert_eq!((replies.pending(), replies.len()), (1, all - before));
        let (ready, _) = replies.take_pending().expect("a pending reply");
        assert_eq!((ready.map(|(frames, _)| frames.len()), replies.ready_bytes()), (Some(before), all - before));
    }

    #[tokio::test]
    async fn only_replies_without_an_effect_come_before_those_that_wait_for_a_disk() {
        let narrow = Narrow::new();
        let mut replies = Replies::new(Compression::None, 1024).with_pending();
        let mut ids = (1..).map(RequestId::Number);
        let mut id = || ids.next().expect("a number");
        let publish = |replies: &mut Replies, id| {
            let (topic, receipt) = (TopicName::new("a").expect("a name"), narrow.publish("x"));
            replies.put_reply(crate::handler::Reply::Pending(Pending::Publish { id: Some(id), topic, receipt }));
        };
        replies.echo_text("written", Some(&id()), 5);
        assert!(replies.take_ahead().is_none() && replies.take().is_some());
        publish(&mut replies, id());
        replies.echo_text("ahead", Some(&id()), 5);
        replies.pong(Some(&id()), &ServerMessage::Pong { timestamp: None, server_time: 5 });
        assert_eq!(replies.take_ahead().map(|(_, sent)| sent.messages), Some(2));
        // Behind a reply that keeps its place, all keep theirs.
        replies.put(Some(&id()), &ServerMessage::Ok { delivered: None, acked: None, topic: None });
        replies.echo_text("behind", Some(&id()), 5);
        assert!(replies.take_ahead().is_none());
        assert_eq!((replies.pending(), replies.sent().messages), (1, 2));
        let mut replies = Replies::new(Compression::None, 1024).with_pending();
        for (before, is_ahead) in [(Before::Storing, true), (Before::Others, false), (Before::Written, false)] {
            replies.behind(before);
            replies.echo_text("x", Some(&id()), 5);
            assert_eq!((replies.take_ahead().is_some(), replies.take().is_some()), (is_ahead, !is_ahead), "{before:?}");
        }
    }
}
