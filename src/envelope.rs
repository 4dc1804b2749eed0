//! A message encoded once for any number of receivers: each form that one may want is made at most once and then
//! shared. Knows `message` and `frame`, and nothing of who receives it.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::frame::{self, Body, BodyError, Compression, PREFIX_BYTES, allocated};
use crate::message::{RequestId, ServerMessage, encode_with_tail};

/// Bytes reserved for a message beside its content and attachment.
const HEAD_BYTES: usize = 160;

/// An encoded message.
#[derive(Debug)]
pub(crate) struct EncodedMessage {
    plain: Bytes,
    /// Made when the first receiver wants a compressed form. On the heap, because most messages have none.
    packed: OnceLock<Box<Mutex<Packed>>>,
    compress_min_bytes: usize,
}

/// The compressed forms of a message, each `None` until a receiver wants it. If compression does not pay, it is the
/// plain form.
#[derive(Debug, Default)]
struct Packed {
    zstd: Option<Bytes>,
    deflate: Option<Bytes>,
}

impl Packed {
    /// The form and the other one.
    fn forms(&mut self, compression: Compression) -> (&mut Option<Bytes>, &Option<Bytes>) {
        match compression {
            Compression::Deflate => (&mut self.deflate, &self.zstd),
            Compression::None | Compression::Zstd => (&mut self.zstd, &self.deflate),
        }
    }
}

impl EncodedMessage {
    pub(crate) fn new(message: &ServerMessage, compress_min_bytes: usize) -> Arc<Self> {
        let mut out = BytesMut::with_capacity(512);
        message.encode(None, &mut out);
        Self::of_frame(out, compress_min_bytes)
    }

    /// A topic's message at an offset, from its tail and attachment.
    pub(crate) fn with_tail(
        place: (&str, u64),
        content: (&[u8], Option<&[u8]>),
        compress_min_bytes: usize,
    ) -> Arc<Self> {
        let bytes = place.0.len() + content.0.len() + content.1.map_or(0, <[u8]>::len);
        let mut out = BytesMut::with_capacity(bytes + HEAD_BYTES);
        encode_with_tail(place, None, content, &mut out);
        Self::of_frame(out, compress_min_bytes)
    }

    fn of_frame(frame: BytesMut, compress_min_bytes: usize) -> Arc<Self> {
        Arc::new(Self { plain: frame::exact(frame), packed: OnceLock::new(), compress_min_bytes })
    }

    /// A topic's message as a durable consumer's members get it, with the number of its deliveries. `place`: the topic
    /// and the offset that it has there.
    pub(crate) fn for_consumer(self: &Arc<Self>, place: (&str, u64), consumer: (&str, u64)) -> Arc<Self> {
        let (topic, offset) = place;
        let head = format!("{{\"type\":\"message\",\"topic\":\"{topic}\",\"offset\":{offset},");
        let body = self.body().ok();
        let tail = body.as_ref().and_then(|body| body.json.strip_prefix(head.as_bytes()));
        // Every message of a topic begins like this.
        let (Some(body), Some(tail)) = (&body, tail) else { return Arc::clone(self) };
        let mut out = BytesMut::with_capacity(self.plain.len() + HEAD_BYTES);
        encode_with_tail(place, Some(consumer), (tail, body.attachment.as_deref()), &mut out);
        let compress_min_bytes = self.compress_min_bytes;
        Arc::new(Self { plain: frame::exact(out), packed: OnceLock::new(), compress_min_bytes })
    }

    /// The frame without compression.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The frame for a receiver. A compressed form is made once and kept, unless both forms together would need more
    /// memory than the plain one, which [`cost`](Self::cost) does not count: then one of them is made for each run.
    pub(crate) fn frame(&self, compression: Compression) -> Bytes {
        if !compression.is_some() || !self.is_compressible() {
            return self.plain.clone();
        }
        // Others that want a form wait here, rather than make it as well.
        let mut packed = self.packed.get_or_init(Box::default).lock();
        let (form, other) = packed.forms(compression);
        if let Some(made) = form {
            return made.clone();
        }
        let made = frame::compress(&self.plain, compression).unwrap_or_else(|| self.plain.clone());
        let own = |form: &Bytes| if form.as_ptr() == self.plain.as_ptr() { 0 } else { allocated(form.len()) };
        if own(&made) + other.as_ref().map_or(0, own) <= allocated(self.plain.len()) {
            *form = Some(made.clone());
        }
        made
    }

    /// Whether it is long enough to be compressed.
    fn is_compressible(&self) -> bool {
        self.plain.len() >= self.compress_min_bytes.saturating_add(PREFIX_BYTES)
    }

    /// The message as JSON and attachment. Both share the frame's memory.
    pub(crate) fn body(&self) -> Result<Body, BodyError> {
        Body::parse(self.plain.slice(PREFIX_BYTES..), Compression::None, usize::MAX)
    }

    /// The time in Unix milliseconds from which on a topic's message is not delivered any more, if it has one: always
    /// its last field, so that nothing in its content can pass for it.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        let body = self.body().ok()?;
        let fields = body.json.strip_suffix(b"}")?;
        let last = &fields[fields.iter().rposition(|&byte| byte == b',')? + 1..];
        std::str::from_utf8(last.strip_prefix(b"\"expires_at\":")?).ok()?.parse().ok()
    }

    /// Most bytes that it takes in memory, all its forms together.
    pub(crate) fn cost(&self) -> usize {
        /// The two counts of an [`Arc`].
        const COUNTS: usize = 2 * size_of::<usize>();
        /// The shared part of [`Bytes`]: address, length, and number of holders.
        const SHARED: usize = 3 * size_of::<usize>();
        let bytes = allocated(self.plain.len());
        let plain = allocated(COUNTS + size_of::<Self>()) + bytes + allocated(SHARED);
        let packed = bytes + 2 * allocated(SHARED) + allocated(size_of::<Mutex<Packed>>());
        plain + if self.is_compressible() { packed } else { 0 }
    }
}

/// Messages for one receiver, encoded into one buffer.
#[derive(Debug)]
pub(crate) struct EncodedBatch {
    frames: BytesMut,
    messages: usize,
    compress_min_bytes: usize,
    /// Whether one of them is long enough to be compressed.
    is_compressible: bool,
}

impl EncodedBatch {
    pub(crate) fn new(compress_min_bytes: usize) -> Self {
        Self { frames: BytesMut::new(), messages: 0, compress_min_bytes, is_compressible: false }
    }

    /// Reserves memory in advance.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.frames.reserve(bytes);
    }

    /// Adds a message with so many bytes of content.
    pub(crate) fn put(&mut self, message: &ServerMessage, content_bytes: usize) {
        self.put_reply(None, message, content_bytes);
    }

    /// Adds a message that replies to a request.
    pub(crate) fn put_reply(&mut self, re: Option<&RequestId>, message: &ServerMessage, content_bytes: usize) {
        self.frames.reserve(content_bytes + HEAD_BYTES);
        let start = self.frames.len();
        message.encode(re, &mut self.frames);
        self.messages += 1;
        self.is_compressible |= self.frames.len() - start >= self.compress_min_bytes.saturating_add(PREFIX_BYTES);
    }

    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    /// Bytes of all frames.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// Releases spare memory, for messages that wait.
    pub(crate) fn shrink(&mut self) {
        if self.frames.capacity() > self.frames.len() {
            self.frames = BytesMut::from(&self.frames[..]);
        }
    }

    /// The frames as their receiver gets them, in one buffer, and their number.
    pub(crate) fn into_frames(self, compression: Compression) -> (Bytes, usize) {
        if !compression.is_some() || !self.is_compressible {
            return (frame::exact(self.frames), self.messages);
        }
        let mut out = BytesMut::with_capacity(self.frames.len());
        for plain in frame::split(&self.frames) {
            let is_long = plain.len() >= self.compress_min_bytes.saturating_add(PREFIX_BYTES);
            let packed = if is_long { frame::compress(plain, compression) } else { None };
            out.extend_from_slice(packed.as_deref().unwrap_or(plain));
        }
        (frame::exact(out), self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Payload, TopicMessage};

    #[test]
    fn a_consumer_gets_the_same_message_with_its_name_and_the_try() {
        for payload in [Payload::text("with \"quotes\""), Payload::binary(&b"\x00\xff"[..])] {
            let mut message = TopicMessage::new("a.b", 77, payload, 9);
            message.from = Some(uuid::Uuid::from_u128(5).into());
            let encoded = EncodedMessage::new(&ServerMessage::Message(message.clone()), 1024);
            for (number, tries) in [(1, None), (2, Some(2))] {
                (message.durable, message.tries) = (Some("billing".into()), tries);
                let expected = EncodedMessage::new(&ServerMessage::Message(message.clone()), 1024);
                assert_eq!(encoded.for_consumer(("a.b", 77), ("billing", number)).plain(), expected.plain());
            }
        }
    }

    fn broadcast(content: &str) -> Arc<EncodedMessage> {
        let (from, payload) = (uuid::Uuid::nil(), Payload::from(content));
        EncodedMessage::new(&ServerMessage::Broadcast { from: from.into(), payload, timestamp: 1 }, 1024)
    }

    #[test]
    fn each_form_is_made_once_for_all_its_receivers() {
        let message = broadcast(&"again and again ".repeat(200));
        let forms = [Compression::None, Compression::Zstd, Compression::Deflate];
        let frames = forms.map(|form| message.frame(form));
        for (form, frame) in forms.into_iter().zip(&frames) {
            assert_eq!(message.frame(form).as_ptr(), frame.as_ptr(), "{form:?}");
            let body = Body::parse(frame.slice(PREFIX_BYTES..), form, 1 << 20).expect("a sound body");
            assert_eq!(body, message.body().expect("a sound body"));
        }
        assert!(frames[1].len() < 200 && frames[2].len() < 200, "{frames:?}");
        let short = broadcast("short");
        assert!(forms.iter().all(|form| short.frame(*form).as_ptr() == short.plain().as_ptr()));
        assert!(short.packed.get().is_none(), "it has no compressed forms");
    }

    #[test]
    fn the_forms_that_are_kept_need_no_more_than_the_cost() {
        // The more of it is noise, the longer are the forms: the second one fits beside the first, or does not.
        for (repeated, second_is_kept) in [(6000, true), (1000, false), (0, false)] {
            let mut rng = fastrand::Rng::with_seed(7);
            let noise: String = std::iter::repeat_with(|| rng.alphanumeric()).take(3000).collect();
            let message = broadcast(&format!("{noise}{}", "a".repeat(repeated)));
            let (zstd, deflate) = (message.frame(Compression::Zstd), message.frame(Compression::Deflate));
            let again = message.frame(Compression::Deflate);
            assert_eq!(deflate, again);
            let is_kept = deflate.as_ptr() == again.as_ptr();
            assert_eq!(is_kept, second_is_kept, "{} and {} of {}", zstd.len(), deflate.len(), message.plain().len());
            let kept: usize = zstd.len() + if is_kept { deflate.len() } else { 0 };
            assert!(message.plain().len() + kept <= message.cost());
        }
    }

    #[test]
    fn only_a_publishers_ttl_is_the_end_of_a_message() {
        for payload in
            [Payload::text("a"), Payload::text(",\"expires_at\":5}"), Payload::binary(&b",\"expires_at\":5}"[..])]
        {
            for expires_at in [None, Some(0), Some(9_007_199_254_740_991)] {
                let mut message = TopicMessage::new("a", 7, payload.clone(), 9);
                message.expires_at = expires_at;
                let encoded = EncodedMessage::new(&ServerMessage::Message(message), 1024);
                assert_eq!(encoded.expires_at(), expires_at);
                assert_eq!(encoded.for_consumer(("a", 7), ("w", 1)).expires_at(), expires_at);
            }
        }
    }

    #[test]
    fn messages_that_wait_hold_no_spare_memory() {
        let mut batch = EncodedBatch::new(1024);
        batch.reserve(100_000);
        let from = uuid::Uuid::nil();
        for text in ["short", "longer"] {
            let message = ServerMessage::Direct { from: from.into(), payload: Payload::from(text), timestamp: 1 };
            batch.put(&message, text.len());
        }
        let bytes = batch.bytes();
        batch.shrink();
        assert_eq!((batch.frames.capacity(), batch.bytes(), batch.len()), (bytes, bytes, 2));
        let (frames, messages) = batch.into_frames(Compression::None);
        assert_eq!((frame::split(&frames).count(), messages), (2, 2));
    }
}
