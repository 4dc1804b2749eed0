//! Turns a tree of values into settings, by serde. Errors are phrased for users, not in Rust's words, and name the
//! place of the setting. Values from the environment are parsed by the type that the setting has. Knows no bounds:
//! `load` checks them.

use std::fmt::{self, Display};

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::loaded::without_values;
use super::tree::{Node, Place, Table, Value, parse_value};
use super::{ConfigError, schema};
use crate::Printable;

/// Characters of a wrong value that an error shows.
const SHOWN: usize = 60;

/// A problem with a setting, and its place once that is known. `Display` leaves the place out: [`ConfigError`] puts it
/// in front.
#[derive(Debug)]
pub(super) struct Problem {
    cause: Cause,
    at: Option<At>,
}

#[derive(Debug)]
struct At {
    place: Place,
    setting: String,
    is_secret: bool,
}

#[derive(Debug)]
enum Cause {
    /// A value of the wrong type, with what was expected.
    Wrong(String),
    /// The message of a setting's own check.
    Refused(String),
    /// A key that the table does not have, with the keys it has.
    Unknown(String, &'static [&'static str]),
    /// A required key that is missing.
    Missing(&'static str),
}

impl Problem {
    /// Adds the place, unless a more exact one is known.
    fn at(mut self, path: &Path<'_>, place: &Place) -> Self {
        self.at.get_or_insert_with(|| At {
            place: place.clone(),
            setting: path.to_string(),
            is_secret: path.is_secret(),
        });
        self
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        let origin = problem.at.as_ref().map_or_else(|| "the settings".to_owned(), |at| at.place.to_string());
        Self::Parse { origin, message: problem.to_string() }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = self.at.as_ref().map_or("", |at| &at.setting);
        let is_secret = self.at.as_ref().is_some_and(|at| at.is_secret);
        let inside = |key: &str| if setting.is_empty() { key.to_owned() } else { format!("{setting}.{key}") };
        match &self.cause {
            Cause::Wrong(message) => write!(f, "setting {setting}{message}"),
            Cause::Refused(message) if is_secret => write!(f, "setting {setting}: {}", without_values(message)),
            Cause::Refused(message) => write!(f, "setting {setting}: {message}"),
            Cause::Missing("pattern") => write!(
                f,
                "setting {setting}: pattern is missing; it selects the rule's topics, such as pattern = \"chat.>\", or \
                 \">\" for all"
            ),
            Cause::Missing(key) => write!(f, "setting {setting}: {key} is missing"),
            Cause::Unknown(key, known) => {
                let name = inside(key);
                write!(f, "there is no setting {}", Printable::excerpt(&name))?;
                let here = schema::similar_of(known, key).map(inside);
                match here.or_else(|| schema::similar(&name)) {
                    Some(meant) => write!(f, "; did you mean {meant}?"),
                    None => write!(f, "; docs/quic-websocket.toml lists all settings"),
                }
            }
        }
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: Display>(message: T) -> Self {
        Self { cause: Cause::Refused(message.to_string()), at: None }
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::custom("expected another type of value")
    }

    fn invalid_value(_: Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::custom("expected another value")
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self { cause: Cause::Unknown(field.to_owned(), known), at: None }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { cause: Cause::Missing(field), at: None }
    }
}

/// The name of a setting with its tables.
enum Path<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => write!(f, "{}", Printable::excerpt(key)),
            Self::Key(around, key) => write!(f, "{around}.{}", Printable::excerpt(key)),
            Self::Index(list, index) => write!(f, "{list}[{index}]"),
        }
    }
}

impl Path<'_> {
    /// Whether values must not be shown: those in these tables may be secrets, and so may values next to a secret.
    fn is_secret(&self) -> bool {
        match self {
            Self::Root => false,
            Self::Key(Self::Root, table) => ["auth", "webrtc"].contains(table),
            Self::Key(around, key) => key.contains("token") || around.is_secret(),
            Self::Index(list, _) => list.is_secret(),
        }
    }
}

/// Decodes settings from the root table.
pub(super) fn decode<'de, T: de::Deserialize<'de>>(table: &Table) -> Result<T, Problem> {
    T::deserialize(Root(table))
}

struct Root<'a>(&'a Table);

impl<'de> Deserializer<'de> for Root<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_map(Entries { table: self.0.iter(), path: &Path::Root, next: None })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
}

impl Reader<'_> {
    fn wrong(self, expected: impl Display) -> Problem {
        // Shows the value of a variable quoted, and that of a file as it is written there.
        let shown = match &self.node.value {
            _ if self.path.is_secret() => String::new(),
            Value::Raw(text) | Value::Text(text) => format!(" = {:?}", text.chars().take(SHOWN).collect::<String>()),
            Value::Number(digits, _) => format!(" = {}", digits.chars().take(SHOWN).collect::<String>()),
            Value::Bool(is_true) => format!(" = {is_true}"),
            Value::Other(text) => format!(" = {}", text.chars().take(SHOWN).collect::<String>()),
            Value::List(_) | Value::Table(_) => String::new(),
        };
        Problem { cause: Cause::Wrong(format!("{shown}: expected {expected}")), at: None }
            .at(self.path, &self.node.place)
    }

    fn placed<T>(self, result: Result<T, Problem>) -> Result<T, Problem> {
        result.map_err(|problem| problem.at(self.path, &self.node.place))
    }

    fn number(self, most: u64) -> Result<u64, Problem> {
        let (digits, radix) = match &self.node.value {
            Value::Number(digits, radix) => (digits.clone(), *radix),
            Value::Raw(text) => (text.trim().replace('_', ""), 10),
            _ => (String::new(), 10),
        };
        let number = u64::from_str_radix(&digits, radix).ok().filter(|&number| number <= most);
        number.ok_or_else(|| match most {
            u64::MAX => self.wrong("a whole number, such as 100"),
            most => self.wrong(format_args!("a whole number from 0 to {most}")),
        })
    }

    fn text(self) -> Result<String, Problem> {
        match &self.node.value {
            Value::Text(text) | Value::Raw(text) => Ok(text.clone()),
            _ => Err(self.wrong("text in quotes, such as \"text\"")),
        }
    }

    /// Parses the list in a variable: TOML, or items separated by commas.
    fn list(self, text: &str) -> Result<Vec<Node>, Problem> {
        let place = &self.node.place;
        if text.trim_start().starts_with('[') {
            return match parse_value(text.trim(), place) {
                Some(Value::List(items)) => Ok(items),
                _ => Err(self.wrong("a list, such as a,b or [\"a\", \"b\"]")),
            };
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(items.map(|item| Node { value: Value::Raw(item.to_owned()), place: place.clone() }).collect())
    }

    fn visit_list<'de, V: Visitor<'de>>(self, items: &[Node], visitor: V) -> Result<V::Value, Problem> {
        self.placed(visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path }))
    }

    fn visit_table<'de, V: Visitor<'de>>(self, table: &Table, visitor: V) -> Result<V::Value, Problem> {
        self.placed(visitor.visit_map(Entries { table: table.iter(), path: self.path, next: None }))
    }
}

macro_rules! numbers {
    ($($method:ident $most:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            let number = self.number($most)?;
            self.placed(visitor.visit_u64(number))
        })*
    };
}

macro_rules! texts {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            let text = self.text()?;
            self.placed(visitor.visit_string(text))
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Problem;

    /// For settings that accept several types.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Raw(text) if text.trim_start().starts_with('[') || text.contains(',') => {
                let items = self.list(text)?;
                self.visit_list(&items, visitor)
            }
            Value::Raw(text) | Value::Text(text) | Value::Other(text) => self.placed(visitor.visit_str(text)),
            Value::Number(..) => self.deserialize_u64(visitor),
            Value::Bool(is_true) => self.placed(visitor.visit_bool(*is_true)),
            Value::List(items) => self.visit_list(items, visitor),
            Value::Table(table) => self.visit_table(table, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let is_true = match &self.node.value {
            Value::Bool(is_true) => Some(*is_true),
            Value::Raw(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        let is_true = is_true.ok_or_else(|| self.wrong("true or false"))?;
        self.placed(visitor.visit_bool(is_true))
    }

    numbers! {
        deserialize_u8 u64::from(u8::MAX);
        deserialize_u16 u64::from(u16::MAX);
        deserialize_u32 u64::from(u32::MAX);
        deserialize_u64 u64::MAX;
        deserialize_i8 127;
        deserialize_i16 32_767;
        deserialize_i32 2_147_483_647;
        deserialize_i64 u64::MAX >> 1;
    }

    texts! { deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::List(items) => self.visit_list(items, visitor),
            Value::Raw(text) => {
                let items = self.list(text)?;
                self.visit_list(&items, visitor)
            }
            _ => Err(self.wrong("a list, such as [\"a\", \"b\"]")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Table(table) => self.visit_table(table, visitor),
            Value::Raw(text) => match parse_value(text.trim(), &self.node.place) {
                Some(Value::Table(table)) => self.visit_table(&table, visitor),
                _ => Err(self.wrong("a table of settings, such as { a = 1, b = 2 }")),
            },
            _ => Err(self.wrong("a table of settings")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Text(text) | Value::Raw(text) if variants.contains(&text.as_str()) => {
                let text: de::value::StrDeserializer<'_, Problem> = text.as_str().into_deserializer();
                self.placed(visitor.visit_enum(text))
            }
            Value::Text(_) | Value::Raw(_) => Err(self.wrong(format_args!("one of {}", variants.join(", ")))),
            _ => Err(self.wrong(format_args!("one of \"{}\", in quotes", variants.join("\", \"")))),
        }
    }

    serde::forward_to_deserialize_any! { f32 f64 unit unit_struct tuple tuple_struct identifier ignored_any }
}

struct Entries<'a> {
    table: std::collections::btree_map::Iter<'a, String, Node>,
    path: &'a Path<'a>,
    next: Option<(&'a str, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some((key, node)) = self.table.next() else { return Ok(None) };
        self.next = Some((key, node));
        let name: de::value::StrDeserializer<'_, Problem> = key.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|problem| problem.at(self.path, &node.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let Some((key, node)) = self.next.take() else { return Err(de::Error::custom("a key comes first")) };
        let path = Path::Key(self.path, key);
        seed.deserialize(Reader { node, path: &path }).map_err(|problem| problem.at(&path, &node.place))
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: &'a Path<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = Path::Index(self.path, index);
        seed.deserialize(Reader { node, path: &path }).map(Some).map_err(|problem| problem.at(&path, &node.place))
    }
}
