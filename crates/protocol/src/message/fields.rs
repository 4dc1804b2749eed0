//! Reading a JSON object of which any field may be missing, unknown or of the wrong kind. Each field is taken as it
//! comes ([`Scalar`], or raw JSON for structured ones) and judged only by the message that uses it: so a field that a
//! message does not know is ignored whatever it holds, and an error names the field and keeps the request's id.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Invalid, MAX_INTEGER, MAX_NESTING, Position, json, mend_names};

/// The text of a body's JSON, sharing its memory.
pub(super) fn text(json: &Bytes) -> Result<ByteString, Invalid> {
    ByteString::try_from(json.clone()).map_err(|e| Invalid::malformed(format!("body: not UTF-8: {e}")))
}

/// Reads the object in `text` into a struct of optional fields.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Invalid> {
    // Serde would take an array for the fields in their order.
    if !text.starts_with('{') {
        return Err(Invalid::malformed("body: not a JSON object: it has to begin with '{'"));
    }
    if json::nests_deeper_than(text.as_bytes(), MAX_NESTING) {
        return Err(Invalid::malformed(format!("body: JSON nested deeper than {MAX_NESTING}")));
    }
    serde_json::from_str(text).map_err(|e| {
        // Well-formed all the same: with a field twice, or with a number or an escape that no value can hold.
        if e.is_data() || serde_json::from_str::<IgnoredAny>(text).is_ok() {
            Invalid::field(in_words::<T>(&e, text))
        } else {
            Invalid::malformed(format!("body: not a JSON object: {e}"))
        }
    })
}

/// What is wrong with an object that is well-formed, with the field, which is looked for only now.
fn in_words<'a, T: Deserialize<'a>>(error: &serde_json::Error, text: &'a str) -> String {
    let mut json = serde_json::Deserializer::from_str(text);
    let again = serde_path_to_error::deserialize::<_, T>(&mut json).err();
    let field = again.map(|e| e.path().to_string()).filter(|path| path.starts_with(|c: char| c.is_ascii_lowercase()));
    match field {
        Some(field) if error.is_syntax() => format!("{field}: {}", value_in_words(error)),
        Some(field) => format!("{field}: {error}"),
        None => format!("body: {error}"),
    }
}

/// What is wrong with a value that JSON can write and nothing can hold.
fn value_in_words(error: &serde_json::Error) -> &'static str {
    if error.to_string().starts_with("number out of range") {
        "a number beyond all numbers"
    } else {
        "half of a surrogate pair, as an escape, is no text"
    }
}

/// A field's value where the protocol wants a string, an integer or a boolean.
#[derive(Debug, Default)]
pub(crate) enum Scalar<'a> {
    /// Not there, or `null`.
    #[default]
    Absent,
    /// A string; borrowed from the body where it had no escapes.
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

    /// A string that shares the memory of the JSON it was read from.
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

/// Gives a required field's value, or the error that names it.
pub(super) fn required<T>(value: Option<T>, field: &str) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::field(format!("{field}: required here")))
}

/// Reads a structured field.
pub(super) fn structured<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, field: &str) -> Result<Option<T>, Invalid> {
    let wrong = |e: serde_json::Error| match e.is_syntax() {
        true => Invalid::field(format!("{field}: {}", value_in_words(&e))),
        false => Invalid::field(format!("{field}: {e}")),
    };
    raw.filter(|raw| raw.get() != "null").map(|raw| serde_json::from_str(raw.get()).map_err(wrong)).transpose()
}

/// Reads a field that holds a place in a topic's log.
pub(super) fn position(raw: Option<&RawValue>, field: &str) -> Result<Option<Position>, Invalid> {
    // Serde would take an array for the fields in their order.
    if raw.is_some_and(|raw| !raw.get().starts_with('{') && raw.get() != "null") {
        return Err(Invalid::field(format!("{field}: an object with epoch and offset is expected")));
    }
    let read = match structured::<Position>(raw, field) {
        // The name of a field that is not known may hold anything.
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

/// Takes a field whose `null` is a value like any other.
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
