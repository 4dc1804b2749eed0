//! What a message says: text, a JSON value, raw bytes, and data about them.

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;

use super::Json;

/// The content of a message for its receivers: text, a JSON value, an attachment, or several of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Payload {
    /// `content`, a JSON string.
    pub content: Option<ByteString>,
    /// `data`, any JSON value.
    pub data: Option<Json>,
    /// `meta`, an object of the sender's: an event's name, headers, trace ids.
    pub meta: Option<Json>,
    /// The raw bytes after the JSON object.
    pub attachment: Option<Bytes>,
}

impl Payload {
    /// Text only.
    pub fn text(content: impl Into<ByteString>) -> Self {
        Self { content: Some(content.into()), ..Self::default() }
    }

    /// An attachment only.
    pub fn binary(attachment: impl Into<Bytes>) -> Self {
        Self { attachment: Some(attachment.into()), ..Self::default() }
    }

    /// A JSON value only.
    pub fn json(data: impl Into<Json>) -> Self {
        Self { data: Some(data.into()), ..Self::default() }
    }

    /// The text, if there is one.
    pub fn as_text(&self) -> Option<&str> {
        self.content.as_deref()
    }

    /// Its JSON value, decoded, if there is one.
    ///
    /// # Errors
    /// If the value does not have the shape of `T`.
    pub fn data<T: DeserializeOwned>(&self) -> serde_json::Result<Option<T>> {
        self.data.as_ref().map(Json::decode).transpose()
    }

    /// Bytes of its text, values and attachment.
    pub fn len(&self) -> usize {
        let json = |value: &Option<Json>| value.as_ref().map_or(0, Json::len);
        self.content.as_ref().map_or(0, |content| content.len())
            + json(&self.data)
            + json(&self.meta)
            + self.attachment.as_ref().map_or(0, Bytes::len)
    }

    /// Whether it has no text, value or attachment, or only empty ones.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an attachment.
    #[must_use]
    pub fn with_attachment(mut self, attachment: impl Into<Bytes>) -> Self {
        self.attachment = Some(attachment.into());
        self
    }

    /// Adds a JSON value.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Json>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Adds data about the message. It has to be an object, within the server's bound (`max_meta_bytes`).
    #[must_use]
    pub fn with_meta(mut self, meta: impl Into<Json>) -> Self {
        self.meta = Some(meta.into());
        self
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<ByteString> for Payload {
    fn from(text: ByteString) -> Self {
        Self::text(text)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<Json> for Payload {
    fn from(data: Json) -> Self {
        Self::json(data)
    }
}

impl From<&serde_json::Value> for Payload {
    fn from(data: &serde_json::Value) -> Self {
        Self::json(data)
    }
}

impl From<serde_json::Value> for Payload {
    fn from(data: serde_json::Value) -> Self {
        Self::json(&data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_made_of_text_a_value_or_bytes() {
        assert_eq!((Payload::from("x"), Payload::from("x".to_owned())), (Payload::text("x"), Payload::text("x")));
        assert_eq!(Payload::from(vec![1]), Payload::from(Bytes::from_static(&[1])));
        assert_eq!((Payload::from("x").as_text(), Payload::from(vec![1]).as_text()), (Some("x"), None));
        let value = Payload::from(serde_json::json!({ "a": 1 })).with_meta(&serde_json::json!({}));
        assert_eq!((value.data.as_ref().map(Json::as_str), value.len(), value.as_text()), (Some("{\"a\":1}"), 9, None));
        let decoded: Option<std::collections::HashMap<String, u8>> = value.data().expect("an object");
        assert_eq!(decoded.and_then(|object| object.get("a").copied()), Some(1));
        assert!(value.data::<Vec<u8>>().is_err() && Payload::text("x").data::<u8>().expect("none").is_none());
    }
}
