//! A topic's message in two parts: its tail, which is known before the message has a place in a log, and what the place
//! adds. A log on a disk keeps the tail, so a message is encoded once in all its lives.

use bytes::{Buf, Bytes, BytesMut};

use super::TopicMessage;
use crate::frame::put_frame;
use crate::message::json::Object;

/// The fields of `message` that do not depend on its place, as JSON from behind the last one that does: a `{` before it
/// makes it an object. The attachment is not in it.
pub fn encode_tail(message: &TopicMessage) -> Bytes {
    let json = message.payload.len() - message.payload.attachment.as_ref().map_or(0, Bytes::len);
    let mut out = BytesMut::with_capacity(128 + json);
    let mut o = Object::rest(&mut out);
    put_tail(&mut o, message);
    o.end();
    // The comma before the first field.
    out.advance(1);
    out.freeze()
}

/// Appends the frame of a `message` at `offset` of a topic, from its tail and attachment. `consumer`: the durable
/// subscription that brings it, and which try this is, from 1.
pub fn encode_with_tail(
    (topic, offset): (&str, u64),
    consumer: Option<(&str, u64)>,
    (tail, attachment): (&[u8], Option<&[u8]>),
    out: &mut BytesMut,
) {
    put_frame(out, attachment, |out| {
        let mut o = Object::message(out, "message");
        o.text("topic", topic);
        o.integer("offset", offset);
        if let Some((name, tries)) = consumer {
            o.text("durable", name);
            o.optional_integer("tries", Some(tries).filter(|&tries| tries > 1));
        }
        o.tail(tail);
    });
}

/// The fields of a tail.
pub(super) fn put_tail(o: &mut Object<'_>, message: &TopicMessage) {
    if let Some(from) = &message.from {
        o.sender(from);
    }
    o.payload(&message.payload);
    o.integer("timestamp", message.timestamp);
    o.optional_integer("expires_at", message.expires_at);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::message::{Payload, ServerMessage};

    #[test]
    fn a_message_from_its_tail_is_the_message() {
        let text = Payload::text("with \"quotes\" and\nlines");
        let binary = Payload::binary(Bytes::from_static(&[0, 1, 255]));
        for (payload, from) in [(text.clone(), None), (text, Some(Uuid::from_u128(7))), (binary, None)] {
            let mut message = TopicMessage::new("a.b", 1_234, payload.clone(), 99);
            message.from = from.map(Into::into);
            let tail = encode_tail(&message);
            let object = format!("{{{}", std::str::from_utf8(&tail).expect("it is text"));
            serde_json::from_str::<serde_json::Value>(&object).expect("an object");
            let (mut whole, mut joined) = (BytesMut::new(), BytesMut::new());
            encode_with_tail(("a.b", 1_234), None, (&tail, payload.attachment.as_deref()), &mut joined);
            ServerMessage::Message(message).encode(None, &mut whole);
            assert_eq!(joined, whole);
        }
    }
}
