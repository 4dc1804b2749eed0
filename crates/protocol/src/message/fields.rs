//! Reads a JSON object whose fields may be missing, unknown or of the wrong type. Each field is read as it is
//! ([`Scalar`], or raw JSON for structured ones) and checked only by the message that uses it: so a message ignores
//! unknown fields whatever they contain, and an error names the field and keeps the request's id.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Invalid, MAX_INTEGER, MAX_NESTING, Position, json, mend_names};

/// The text of a body's JSON, sharing its memory.
pub(super) fn text(json: Bytes) -> Result<ByteString, Invalid> {
    ByteString::try_from(json).map_err(|e| Invalid::malformed(format!("body: not UTF-8: {e}")))
}

/// Reads the object in `text` into a struct of optional fields.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Invalid> {
    read_within(text, MAX_NESTING)
}

/// Like [`read`], for an object that may be nested so deep.
pub(super) fn read_within<'a, T: Deserialize<'a>>(text: &'a str, deepest: usize) -> Result<T, Invalid> {
    // Serde would accept an array as the fields in order.
    if !text.starts_with('{') {
        return Err(Invalid::malformed("body: not a JSON object: it has to begin with '{'"));
    }
    if json::nests_deeper_than(text.as_bytes(), deepest) {
        return Err(Invalid::malformed(format!("body: JSON nested deeper than {deepest}")));
    }
    serde_json::from_str(text).map_err(|e| {
        // Still well-formed: a duplicate field, or a number or escape that no value can represent.
        if e.is_data() || serde_json::from_str::<IgnoredAny>(text).is_ok() {
            Invalid::field(describe::<T>(&e, text))
        } else {
            Invalid::malformed(format!("body: not a JSON object: {e}"))
        }
    })
}

/// Describes the error in a well-formed object, with its field, which is determined only now.
fn describe<'a, T: Deserialize<'a>>(error: &serde_json::Error, text: &'a str) -> String {
    let mut json = serde_json::Deserializer::from_str(text);
    let located = serde_path_to_error::deserialize::<_, T>(&mut json).err();
    let field = located.map(|e| e.path().to_string()).filter(|path| path.starts_with(|c: char| c.is_ascii_lowercase()));
    match field {
        Some(field) if error.is_syntax() => format!("{field}: {}", describe_value(error)),
        Some(field) => format!("{field}: {error}"),
        None => format!("body: {error}"),
    }
}

/// Describes a value that JSON can express but no type can represent.
fn describe_value(error: &serde_json::Error) -> &'static str {
    if error.to_string().starts_with("number out of range") {
        "the number is out of range"
    } else {
        "half of a surrogate pair is not valid text"
    }
}

/// Value of a field that should be a string, an integer or a boolean.
#[derive(Debug, Default)]
pub(crate) enum Scalar<'a> {
    /// Missing, or `null`.
    #[default]
    Absent,
    /// A string; borrowed from the body if it has no escapes.
    Text(Cow<'a, str>),
    /// An unsigned integer.
    Integer(u64),
    /// A boolean.
    Boolean(bool),
    /// Anything else.
    Other,
}

impl<'a> Scalar<'a> {
    pub(super) fn text(self, field: &str) -> Result<Option<Cow<'a, str>>, Invalid> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            _ => Err(Invalid::field(format!("{field}: a string is expected"))),
        }
    }

    /// A string that shares the memory of the source JSON.
    pub(super) fn shared_text(self, field: &str, json: &ByteString) -> Result<Option<ByteString>, Invalid> {
        Ok(self.text(field)?.map(|text| match text {
            Cow::Borrowed(text) => json.slice_ref(text),
            Cow::Owned(text) => ByteString::from(text),
        }))
    }

    pub(super) fn integer(self, field: &str) -> Result<Option<u64>, Invalid> {
        match self {
            Self::Absent => Ok(None),
            Self::Integer(number) if number <= MAX_INTEGER => Ok(Some(number)),
            _ => Err(Invalid::field(format!("{field}: an unsigned integer of at most 53 bits is expected"))),
        }
    }

    pub(super) fn boolean(self, field: &str) -> Result<Option<bool>, Invalid> {
        match self {
            Self::Absent => Ok(None),
            Self::Boolean(value) => Ok(Some(value)),
            _ => Err(Invalid::field(format!("{field}: true or false is expected"))),
        }
    }

    pub(super) fn uuid(self, field: &str) -> Result<Option<Uuid>, Invalid> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
        match Uuid::try_parse(&text) {
            Ok(id) if hyphenated => Ok(Some(id)),
            _ => Err(Invalid::field(format!("{field}: a client's id (a UUID as text) is expected"))),
        }
    }
}

/// Returns a required field's value, or the error that names it.
pub(super) fn required<T>(value: Option<T>, field: &str) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::field(format!("{field}: required here")))
}

/// Reads a structured field.
pub(super) fn structured<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, field: &str) -> Result<Option<T>, Invalid> {
    let wrong = |e: serde_json::Error| match e.is_syntax() {
        true => Invalid::field(format!("{field}: {}", describe_value(&e))),
        false => Invalid::field(format!("{field}: {e}")),
    };
    raw.filter(|raw| raw.get() != "null").map(|raw| serde_json::from_str(raw.get()).map_err(wrong)).transpose()
}

/// Reads a field that contains a log position.
pub(super) fn position(raw: Option<&RawValue>, field: &str) -> Result<Option<Position>, Invalid> {
    // Serde would accept an array as the fields in order.
    if raw.is_some_and(|raw| !raw.get().starts_with('{') && raw.get() != "null") {
        return Err(Invalid::field(format!("{field}: an object with epoch and offset is expected")));
    }
    let read = match structured::<Position>(raw, field) {
        // Names of unknown fields may contain anything.
        Err(invalid) => match raw.and_then(|raw| mend_names(raw.get())) {
            Some(mended) => serde_json::from_str(&mended).map_err(|e| Invalid::field(format!("{field}: {e}")))?,
            None => return Err(invalid),
        },
        Ok(read) => read,
    };
    match read {
        Some(position) if position.offset > MAX_INTEGER => {
            Err(Invalid::field(format!("{field}: the offset is an unsigned integer of at most 53 bits")))
        }
        position => Ok(position),
    }
}

/// Reads a field in which `null` is an ordinary value.
pub(super) fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.into())))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Boolean(value))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Absent)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
