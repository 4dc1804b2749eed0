//! Replies to one batch of requests, encoded into one buffer: many small replies become one write and few packets.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use quic_websocket_lane::Sent;

use super::pending::{Pending, Reply, put_direct};
use crate::frame;
use crate::message::{RequestId, ServerMessage, encode_binary_head, encode_echo};
use crate::registry::{Delivered, DirectBatch};

/// Largest buffer reserved in advance, in bytes.
const MAX_ESTIMATE_BYTES: usize = 64 * 1024;

/// Replies to be written, in order, and the messages to another client that leave with them. Each message is delivered
/// before a later reply is added, and at the latest when the replies are taken.
#[derive(Debug)]
pub(crate) struct Replies {
    messages: usize,
    open: BytesMut,
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
    /// Estimated size of the next buffer, from the previous ones, so that it is allocated once.
    estimated_bytes: usize,
    /// Minimum size of compressed bodies, in bytes; `None` if the client did not negotiate compression.
    compress_from: Option<usize>,
}

impl Replies {
    pub(crate) fn new(compress_from: Option<usize>) -> Self {
        Self {
            messages: 0,
            open: BytesMut::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            directs: None,
            ids: Vec::new(),
            last_directs: 0,
            accepts_pending: false,
            estimated_bytes: 0,
            compress_from,
        }
    }

    /// Accepts messages to other clients and pending replies as well.
    pub(crate) fn with_pending(mut self) -> Self {
        self.accepts_pending = true;
        self
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
        self.pending_bytes + self.open.len()
    }

    /// Adds a reply; returns its length before compression.
    pub(crate) fn put(&mut self, re: Option<&RequestId>, message: &ServerMessage) -> usize {
        self.put_with(|out| message.encode(re, out))
    }

    /// Adds the echo of a `text`.
    pub(crate) fn echo_text(&mut self, content: &str, re: Option<&RequestId>, timestamp: u64) {
        self.put_with(|out| encode_echo(content, re, timestamp, out));
    }

    /// Adds the echo of a `binary`. Copies the attachment, which may be a small part of a large receive buffer.
    pub(crate) fn echo_binary(&mut self, attachment: &[u8], re: Option<&RequestId>, timestamp: u64) {
        self.deliver();
        self.open.reserve(attachment.len());
        self.put_with(|out| {
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

    fn put_with(&mut self, encode: impl FnOnce(&mut BytesMut)) -> usize {
        self.deliver();
        if self.open.is_empty() {
            self.open.reserve(self.estimated_bytes);
        }
        self.messages += 1;
        let start = self.open.len();
        encode(&mut self.open);
        let frame = &self.open[start..];
        let length = frame.len();
        if let Some(least) = self.compress_from
            && frame.len() >= least + frame::PREFIX_BYTES
            && let Some(packed) = frame::compress(frame)
        {
            self.open.truncate(start);
            self.open.extend_from_slice(&packed);
        }
        length
    }
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
    use crate::frame::{Body, Compression, FrameDecoder};
    use uuid::Uuid;

    use crate::message::{ClientInfo, Member, Reply};
    use crate::registry::{Found, Naming, Registry};

    #[test]
    fn replies_leave_in_order_whether_compressed_or_not() {
        for compress_from in [None, Some(1024)] {
            let mut replies = Replies::new(compress_from);
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
                let body = Body::parse(body, Compression::Zstd, 1 << 20).expect("a sound body");
                order.push(Reply::parse(&body).expect("a message").re);
            }
            assert_eq!(order, [1, 2, 3, 4].map(|n| Some(RequestId::Number(n))));
        }
    }

    #[test]
    fn replies_hold_no_more_memory_than_their_length() {
        let mut replies = Replies::new(Some(1024));
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
        let (registry, _inboxes) = Registry::new(1, 2, 4);
        let info = ClientInfo::new(Member::new(to, None, None), 0, "quic");
        let _place = registry.register(info, worker, Naming::Free).expect("room");
        let mut replies = Replies::new(None).with_pending();
        replies.echo_text("before", Some(&RequestId::Number(1)), 5);
        let before = replies.ready_bytes();
        let Found::Route(route) = registry.route(0, to) else { panic!("the receiver is connected") };
        replies.begin(DirectBatch::new(to, route, 1024));
        let message = ServerMessage::Direct { from: Uuid::nil(), payload: "text".into(), timestamp: 5 };
        replies.join(&message, 4, Some(RequestId::Number(2)));
        replies.echo_text("after", Some(&RequestId::Number(3)), 5);
        let all = replies.ready_bytes();
        assert!(before > 0 && all > before, "{before} and {all} bytes");
        assert_eq!((replies.pending(), replies.len()), (1, all - before));
        let (ready, _) = replies.take_pending().expect("a pending reply");
        assert_eq!((ready.map(|(frames, _)| frames.len()), replies.ready_bytes()), (Some(before), all - before));
    }
}
