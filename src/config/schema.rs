//! The names and kinds of all settings, derived from the types that are deserialized, so that there is no second list
//! of them. A probe is deserialized in place of settings: it records what is asked of it at one path, and ends the
//! reading there.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};

use super::Config;

/// Minimum likeness of two names of which one may be a slip of the other.
const ENOUGH: f64 = 0.75;

/// The kind of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A table with these keys.
    Table(&'static [&'static str]),
    /// Any other value.
    Value,
}

/// The kind of the setting at a path, or `None` if there is no such setting.
pub(super) fn kind(path: &[&str]) -> Option<Kind> {
    let found = Cell::new(None);
    // It always ends with an error.
    let _ = Config::deserialize(Probe { path, found: &found });
    found.get()
}

/// The names of all settings, with their tables.
pub(super) fn names() -> Vec<String> {
    fn collect(path: &mut Vec<&'static str>, names: &mut Vec<String>) {
        match kind(path) {
            Some(Kind::Table(keys)) => {
                for key in keys {
                    path.push(key);
                    collect(path, names);
                    path.pop();
                }
            }
            Some(Kind::Value) => names.push(path.join(".")),
            None => {}
        }
    }
    let mut names = Vec::new();
    collect(&mut Vec::new(), &mut names);
    names
}

/// The setting that was probably meant: one with the same last part in another table, or one spelt almost the same.
pub(super) fn similar(name: &str) -> Option<String> {
    // Longer than any name, and too long to compare.
    if name.len() > 100 {
        return None;
    }
    let end = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let close = |known: &str| if end(known) == end(name) { 0.95 } else { 0.0_f64 }.max(likeness(known, name));
    closest(names().into_iter().map(|known| (close(&known), known)))
}

/// As [`similar`], among some keys.
pub(super) fn similar_of(known: &'static [&'static str], key: &str) -> Option<&'static str> {
    closest(known.iter().filter(|_| key.len() <= 100).map(|known| (likeness(known, key), *known)))
}

/// The likeness of two names, from 0 to 1, whatever separates their words.
fn likeness(one: &str, other: &str) -> f64 {
    let plain = |name: &str| name.replace(['.', '-'], "_").to_ascii_lowercase();
    strsim::normalized_damerau_levenshtein(&plain(one), &plain(other))
}

fn closest<T>(names: impl Iterator<Item = (f64, T)>) -> Option<T> {
    let (likeness, name) = names.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= ENOUGH).then_some(name)
}

/// Ends the deserialization.
#[derive(Debug)]
struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the setting was reached")
    }
}

impl std::error::Error for Done {}

impl de::Error for Done {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    /// The rest of the path.
    path: &'a [&'a str],
    found: &'a Cell<Option<Kind>>,
}

impl Probe<'_> {
    fn reached<T>(self) -> Result<T, Done> {
        if self.path.is_empty() {
            self.found.set(Some(Kind::Value));
        }
        Err(Done)
    }
}

macro_rules! values {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Done> {
            self.reached()
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Done;

    values! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Done> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Done> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Done> {
        self.reached()
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Done> {
        self.reached()
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, _: V) -> Result<V::Value, Done> {
        self.reached()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Done> {
        self.reached()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Done> {
        match self.path {
            [] => {
                self.found.set(Some(Kind::Table(fields)));
                Err(Done)
            }
            [first, ..] if fields.contains(first) => visitor.visit_map(self),
            _ => Err(Done),
        }
    }
}

/// A table with one key: the next part of the path.
impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = Done;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Done> {
        let Some((first, rest)) = self.path.split_first() else { return Ok(None) };
        self.path = rest;
        seed.deserialize((*first).into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Done> {
        seed.deserialize(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_setting_is_known_and_nothing_else() {
        let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quic-websocket.toml");
        let text = std::fs::read_to_string(documented).expect("the file");
        let table = super::super::tree::parse(std::path::Path::new("x"), &text).expect("TOML");
        let names = names();
        for name in super::super::tree::settings(&table).keys() {
            assert!(names.contains(name), "{name} is documented");
        }
        assert!(names.iter().any(|name| name == "auth.anonymous.subscribe"), "{names:?}");
        assert!(names.len() > 100 && names.iter().all(|name| kind(&name.split('.').collect::<Vec<_>>()).is_some()));
        for unknown in ["port", "name.first", "limits.max_clients.x", "limits.", "", "auth.keys.0"] {
            assert_eq!(kind(&unknown.split('.').collect::<Vec<_>>()), None, "{unknown}");
        }
        assert_eq!(kind(&["limits", "max_clients"]), Some(Kind::Value));
        assert!(matches!(kind(&[]), Some(Kind::Table(fields)) if fields.contains(&"limits")));
    }

    #[test]
    fn a_misspelt_name_finds_the_setting_that_was_meant() {
        for (written, meant) in [
            ("limits.max_clinets", Some("limits.max_clients")),
            ("limit.max_clients", Some("limits.max_clients")),
            ("max_clients", Some("limits.max_clients")),
            ("limits_max_clients", Some("limits.max_clients")),
            ("http.origin", Some("http.origins")),
            ("nam", Some("name")),
            ("port", None),
            ("service_host", None),
            ("port_4433_udp_proto", None),
            ("foo", None),
        ] {
            assert_eq!(similar(written).as_deref(), meant, "{written}");
        }
    }
}
