//! JSON that passes through unchanged: kept as the text that its sender wrote, so that a number of any size and any
//! white space inside arrive as they were sent.

use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use super::json::nests_deeper_than;

/// A JSON value (RFC 8259) as text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(ByteString);

impl Json {
    /// Encodes a value.
    ///
    /// # Errors
    /// As [`serde_json::to_string`]: if the value's `Serialize` fails, or a map has keys that are not strings.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(|text| Self(text.into()))
    }

    /// Takes a text, if it is one JSON value; white space around it is dropped.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn parse(text: impl Into<ByteString>) -> serde_json::Result<Self> {
        let text = text.into();
        let raw: &RawValue = serde_json::from_str(&text)?;
        let value = text.slice_ref(raw.get());
        Ok(Self(value))
    }

    /// The value, which shares the memory of the JSON that contains it.
    pub(super) fn shared(raw: &RawValue, json: &ByteString) -> Self {
        Self(json.slice_ref(raw.get()))
    }

    /// The same value in memory of its own: one that is kept longer than its message must not keep that in memory.
    pub fn detached(&self) -> Self {
        Self(ByteString::from(self.as_str()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// If the value does not have the shape of `T`.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }

    /// Bytes of the text.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Always false: a value has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether its arrays and objects nest at most so deep.
    pub fn nests_at_most(&self, deepest: usize) -> bool {
        !nests_deeper_than(self.0.as_bytes(), deepest)
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        *self.0 == *"null"
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self(String::from(Box::<str>::from(raw)).into())
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({})", self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer).map_err(de::Error::custom)?;
        Ok(raw.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_as_it_was_written() {
        for text in ["1e400", "9007199254740993", "{\"a\" : [1 ,2]}", "null", "\"\\u00e9\""] {
            let json = Json::parse(format!(" {text}\n")).expect("JSON");
            assert_eq!(json.as_str(), text);
            assert_eq!(serde_json::to_string(&json).expect("it is JSON"), text);
            assert_eq!(serde_json::from_str::<Json>(text).expect("JSON"), json);
        }
        assert!(Json::parse("{").is_err() && Json::parse("1 2").is_err() && Json::parse("").is_err());
        assert_eq!(Json::encode(&[1, 2]).expect("JSON").decode::<Vec<u8>>().expect("numbers"), [1, 2]);
    }
}
