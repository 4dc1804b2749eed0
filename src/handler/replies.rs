//! The replies to one batch of requests, encoded into one buffer: many small replies become one write and few packets.

use bytes::{Bytes, BytesMut};

use crate::frame;
use crate::message::{RequestId, ServerMessage, encode_binary_head, encode_echo};
use crate::metrics::Sent;

/// Attachments from this size on are sent as they lie in memory; below, a copy is cheaper than a piece of its own.
const SHARE_BYTES: usize = 4096;

/// Most that is set aside for replies that have not come yet.
const MAX_GUESS_BYTES: usize = 64 * 1024;

/// Replies waiting to be written, in order.
#[derive(Debug)]
pub(crate) struct Replies {
    finished: Vec<Bytes>,
    finished_bytes: usize,
    messages: usize,
    open: BytesMut,
    /// About the size of the last buffers: the next one is made in one piece and not grown.
    guess_bytes: usize,
    /// Bodies from this size on are compressed, where the client agreed to that.
    compress_from: Option<usize>,
}

impl Replies {
    pub(crate) fn new(compress_from: Option<usize>) -> Self {
        let (finished, open) = (Vec::new(), BytesMut::new());
        Self { finished, finished_bytes: 0, messages: 0, open, guess_bytes: 0, compress_from }
    }

    /// What waits, as it is counted.
    pub(crate) fn sent(&self) -> Sent {
        Sent { messages: self.messages, bytes: self.len() - self.messages * frame::PREFIX_BYTES }
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.finished_bytes + self.open.len()
    }

    /// Adds a reply.
    pub(crate) fn put(&mut self, re: Option<&RequestId>, message: &ServerMessage) {
        self.put_with(|out| message.encode(re, out));
    }

    /// Adds the echo of a `text`.
    pub(crate) fn echo_text(&mut self, content: &str, re: Option<&RequestId>, timestamp: u64) {
        self.put_with(|out| encode_echo(content, re, timestamp, out));
    }

    /// Adds the echo of a `binary`.
    pub(crate) fn echo_binary(&mut self, attachment: Bytes, re: Option<&RequestId>, timestamp: u64) {
        if attachment.len() < SHARE_BYTES || self.compress_from.is_some() {
            self.put_with(|out| {
                encode_binary_head(attachment.len(), re, timestamp, out);
                out.extend_from_slice(&attachment);
            });
            return;
        }
        self.messages += 1;
        encode_binary_head(attachment.len(), re, timestamp, &mut self.open);
        self.close_buffer();
        self.finished_bytes += attachment.len();
        self.finished.push(attachment);
    }

    /// Takes all pieces, in order.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.close_buffer();
        (self.finished_bytes, self.messages) = (0, 0);
        std::mem::take(&mut self.finished)
    }

    fn put_with(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if self.open.is_empty() {
            self.open.reserve(self.guess_bytes);
        }
        self.messages += 1;
        let start = self.open.len();
        encode(&mut self.open);
        let frame = &self.open[start..];
        if let Some(least) = self.compress_from
            && frame.len() >= least + frame::PREFIX_BYTES
            && let Some(packed) = frame::compress(frame)
        {
            self.open.truncate(start);
            self.open.extend_from_slice(&packed);
        }
    }

    fn close_buffer(&mut self) {
        if !self.open.is_empty() {
            self.finished_bytes += self.open.len();
            self.guess_bytes = self.open.len().max(self.guess_bytes - self.guess_bytes / 8).min(MAX_GUESS_BYTES);
            // Not split off: an idle lane keeps no buffer.
            self.finished.push(std::mem::take(&mut self.open).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Body, Compression, FrameDecoder};
    use crate::message::Reply;

    #[test]
    fn replies_leave_in_order_whether_shared_copied_or_compressed() {
        for compress_from in [None, Some(1024)] {
            let mut replies = Replies::new(compress_from);
            replies.echo_text("one", Some(&RequestId::Number(1)), 5);
            replies.echo_binary(Bytes::from(vec![7; 10_000]), Some(&RequestId::Number(2)), 5);
            replies.echo_binary(Bytes::from(vec![8; 10]), Some(&RequestId::Number(3)), 5);
            replies.echo_text(&"x".repeat(5000), Some(&RequestId::Number(4)), 5);
            let mut decoder = FrameDecoder::new(1 << 20);
            let mut order = Vec::new();
            let expected = replies.len();
            assert_eq!(replies.sent(), Sent { messages: 4, bytes: expected - 4 * frame::PREFIX_BYTES });
            let pieces = replies.take();
            assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), expected);
            assert_eq!((replies.len(), replies.sent()), (0, Sent::default()));
            for piece in pieces {
                decoder.push(piece);
                while let Some(body) = decoder.next_body().expect("sound frames") {
                    let body = Body::parse(body, Compression::Zstd, 1 << 20).expect("a sound body");
                    order.push(Reply::parse(&body).expect("a message").re);
                }
            }
            assert_eq!(order, [1, 2, 3, 4].map(|n| Some(RequestId::Number(n))));
        }
    }
}
