//! Writes JSON, and checks its nesting. Writing goes straight into the frame's buffer: strings without characters to
//! escape, the common case, are detected by a vectorised scan and copied whole.

use bytes::{BufMut, BytesMut};
use memchr::memchr2;
use serde::Serialize;
use uuid::Uuid;

use super::{Json, Payload, Sender};

/// An object being written into a buffer. Each field is complete when its method returns.
pub(super) struct Object<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Object<'a> {
    /// Begins a message of the given type.
    pub(super) fn message(out: &'a mut BytesMut, type_name: &str) -> Self {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(type_name.as_bytes());
        out.put_slice(b"\"");
        Self { out }
    }

    /// Continues an object with fields that the caller wrote the beginning of, or will.
    pub(super) fn rest(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Ends the object with fields that are JSON already, up to its end.
    pub(super) fn tail(self, fields: &[u8]) {
        self.out.put_u8(b',');
        self.out.put_slice(fields);
    }

    pub(super) fn end(self) {
        self.out.put_u8(b'}');
    }

    fn key(&mut self, key: &str) {
        self.out.put_slice(b",\"");
        self.out.put_slice(key.as_bytes());
        self.out.put_slice(b"\":");
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.text_with_prefix(key, "", value);
    }

    pub(super) fn optional_text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A string of a constant prefix, which must need no escapes, and a value.
    pub(super) fn text_with_prefix(&mut self, key: &str, prefix: &str, value: &str) {
        self.key(key);
        self.out.reserve(value.len() + prefix.len() + 2);
        self.out.put_u8(b'"');
        self.out.put_slice(prefix.as_bytes());
        self.escaped(value.as_bytes());
        self.out.put_u8(b'"');
    }

    /// The inside of a string, as serde_json writes it.
    fn escaped(&mut self, text: &[u8]) {
        if memchr2(b'"', b'\\', text).is_none() && !has_control(text) {
            self.out.put_slice(text);
            return;
        }
        let mut from = 0;
        for (number, block) in text.chunks(BLOCK).enumerate() {
            // No early exit, so that the compiler can vectorise it.
            if !block.iter().fold(false, |found, &byte| found | needs_escape(byte)) {
                continue;
            }
            for (offset, &byte) in block.iter().enumerate().filter(|(_, byte)| needs_escape(**byte)) {
                let at = number * BLOCK + offset;
                self.out.put_slice(&text[from..at]);
                self.escape(byte);
                from = at + 1;
            }
        }
        self.out.put_slice(&text[from..]);
    }

    fn escape(&mut self, byte: u8) {
        match byte {
            b'"' | b'\\' => self.out.put_slice(&[b'\\', byte]),
            b'\n' => self.out.put_slice(b"\\n"),
            b'\r' => self.out.put_slice(b"\\r"),
            b'\t' => self.out.put_slice(b"\\t"),
            0x08 => self.out.put_slice(b"\\b"),
            0x0c => self.out.put_slice(b"\\f"),
            _ => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                self.out.put_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]);
            }
        }
    }

    pub(super) fn integer(&mut self, key: &str, value: u64) {
        self.key(key);
        self.serialize(&value);
    }

    pub(super) fn optional_integer(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.integer(key, value);
        }
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.put_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn uuid(&mut self, key: &str, value: Uuid) {
        self.key(key);
        self.out.put_u8(b'"');
        self.out.put_slice(value.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        self.out.put_u8(b'"');
    }

    /// A value that is JSON already.
    pub(super) fn json(&mut self, key: &str, value: &Json) {
        self.key(key);
        self.out.put_slice(value.as_str().as_bytes());
    }

    pub(super) fn optional_json(&mut self, key: &str, value: Option<&Json>) {
        if let Some(value) = value {
            self.json(key, value);
        }
    }

    /// The fields of a message's content; the attachment is not one.
    pub(super) fn payload(&mut self, payload: &Payload) {
        self.optional_text("content", payload.content.as_deref());
        self.optional_json("data", payload.data.as_ref());
        self.optional_json("meta", payload.meta.as_ref());
    }

    /// The fields of a message's sender.
    pub(super) fn sender(&mut self, sender: &Sender) {
        self.uuid("from", sender.id);
        self.optional_text("user", sender.user.as_deref());
        self.optional_text("name", sender.name.as_deref());
    }

    /// Any other value, through serde.
    pub(super) fn value<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.key(key);
        self.serialize(value);
    }

    /// A value that is omitted if absent.
    pub(super) fn optional<T: Serialize>(&mut self, key: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.value(key, value);
        }
    }

    fn serialize<T: Serialize + ?Sized>(&mut self, value: &T) {
        let start = self.out.len();
        // Cannot fail: the target is memory, and no type of the protocol has a failing Serialize.
        if serde_json::to_writer(self.out.writer(), value).is_err() {
            self.out.truncate(start);
            self.out.put_slice(b"null");
        }
    }
}

/// Bytes of a string that are checked at once for any that must be escaped.
const BLOCK: usize = 64;

/// Whether a byte must be escaped inside a JSON string (RFC 8259 section 7).
fn needs_escape(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// Whether any byte is a control character. No early exit, so that the compiler can vectorise it.
pub(super) fn has_control(text: &[u8]) -> bool {
    text.iter().fold(u8::MAX, |least, &byte| least.min(byte)) < b' '
}

/// Whether arrays and objects in `json` nest deeper than `max`. Exact for well-formed JSON.
pub(super) fn nests_deeper_than(json: &[u8], max: usize) -> bool {
    // Most messages have fewer openers than that; counting them vectorises, walking the strings does not.
    let openers: usize = json
        .chunks(128)
        .map(|block| usize::from(block.iter().fold(0_u8, |n, &b| n + u8::from(b | 0x20 == b'{'))))
        .sum();
    if openers <= max {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nesting_is_counted_only_outside_strings() {
        assert!(!nests_deeper_than(format!("{}{}", "[".repeat(64), "]".repeat(64)).as_bytes(), 64));
        assert!(nests_deeper_than(format!("{}{}", "[{".repeat(33), "}]".repeat(33)).as_bytes(), 64));
        assert!(!nests_deeper_than(format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500)).as_bytes(), 64));
        assert!(!nests_deeper_than(format!("[{}1]", "[],".repeat(500)).as_bytes(), 64));
    }

    proptest! {
        #[test]
        fn every_string_is_written_as_serde_json_writes_it(
            // `any::<String>()` omits control characters, which most need escaping.
            text in prop::collection::vec(prop_oneof![any::<char>(), prop::char::range('\0', '~')], 0..200)
                .prop_map(String::from_iter),
        ) {
            let mut out = BytesMut::new();
            let mut object = Object::message(&mut out, "t");
            object.text_with_prefix("k", "Echo: ", &text);
            object.end();
            let written = std::str::from_utf8(&out).unwrap();
            let expected = serde_json::to_string(&format!("Echo: {text}")).unwrap();
            prop_assert_eq!(written, format!(r#"{{"type":"t","k":{expected}}}"#));
        }
    }
}
