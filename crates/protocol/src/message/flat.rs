//! Reads the common shape of a body in one pass: a flat object of strings, unsigned integers and booleans, and of
//! values that pass through as they are. Everything else, valid or not, is left to `fields`, which reads the common
//! shape with the same result but slower. Pure.

use std::borrow::Cow;

use memchr::memchr2;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::MAX_NESTING;
use super::fields::Scalar;
use super::json::{has_control, nests_deeper_than};

/// Most digits of an integer that is read here. Any such number is below the protocol's largest.
const MAX_DIGITS: usize = 15;

/// Most members of an object that is read here.
const MAX_MEMBERS: usize = 8;

/// The members of an object of the common shape, each name once. Much smaller than a struct of all possible fields,
/// which takes longer to fill and to drop than a short message to read.
pub(super) struct Flat<'a> {
    members: [(&'a str, Value<'a>); MAX_MEMBERS],
    count: usize,
    /// Strings that were written with escapes.
    unescaped: Vec<String>,
}

/// A member's value.
#[derive(Clone, Copy)]
enum Value<'a> {
    /// A string without escapes.
    Text(&'a str),
    /// Index of a string with escapes.
    Unescaped(usize),
    Integer(u64),
    Boolean(bool),
    /// Any value, of a field that passes it through.
    Raw(&'a RawValue),
}

/// Whether the value of a field passes through as it is.
fn is_raw(name: &str) -> bool {
    matches!(name, "data" | "meta" | "state" | "filter")
}

impl<'a> Flat<'a> {
    /// Reads the object; `None` if anything is out of the ordinary.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        let mut flat = Self { members: [("", Value::Boolean(false)); MAX_MEMBERS], count: 0, unescaped: Vec::new() };
        let mut cursor = Cursor { json, at: 0 };
        cursor.skip(b'{')?;
        loop {
            cursor.skip_space();
            cursor.skip(b'"')?;
            let name = cursor.name()?;
            cursor.skip_space();
            cursor.skip(b':')?;
            cursor.skip_space();
            let value = if is_raw(name) { cursor.raw().map(Value::Raw) } else { cursor.value(&mut flat.unescaped) }?;
            flat.add(name, value)?;
            cursor.skip_space();
            match cursor.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        cursor.skip_space();
        cursor.peek().is_none().then_some(flat)
    }

    fn add(&mut self, name: &'a str, value: Value<'a>) -> Option<()> {
        if self.get(name).is_some() {
            return None;
        }
        *self.members.get_mut(self.count)? = (name, value);
        self.count += 1;
        Some(())
    }

    fn get(&self, name: &str) -> Option<Value<'a>> {
        self.members[..self.count].iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    /// Takes the value of a field.
    pub(super) fn take(&mut self, name: &str) -> Scalar<'a> {
        match self.get(name) {
            None => Scalar::Absent,
            Some(Value::Text(text)) => Scalar::Text(Cow::Borrowed(text)),
            Some(Value::Unescaped(at)) => Scalar::Text(Cow::Owned(std::mem::take(&mut self.unescaped[at]))),
            Some(Value::Integer(number)) => Scalar::Integer(number),
            Some(Value::Boolean(value)) => Scalar::Boolean(value),
            // No such field is read as a scalar.
            Some(Value::Raw(_)) => Scalar::Other,
        }
    }

    /// The value of a field that passes through.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        match self.get(name) {
            Some(Value::Raw(raw)) => Some(raw),
            _ => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// A position in the object.
struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.json.as_bytes()[self.at..]
    }

    /// The string of `length` bytes here, whose closing quote follows it.
    fn string(&mut self, length: usize) -> Option<&'a str> {
        let text = self.json.get(self.at..self.at + length)?;
        self.at += length + 1;
        Some(text)
    }

    /// A member's name, after its opening quote. Names are short, so it looks at each byte.
    fn name(&mut self) -> Option<&'a str> {
        let length = self.rest().iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
        let name = self.string(length)?;
        (self.json.as_bytes()[self.at - 1] == b'"').then_some(name)
    }

    /// Any value.
    fn raw(&mut self) -> Option<&'a RawValue> {
        let mut rest = serde_json::Deserializer::from_str(self.json.get(self.at..)?);
        let raw = <&RawValue>::deserialize(&mut rest).ok()?;
        self.at += raw.get().len();
        (!nests_deeper_than(raw.get().as_bytes(), MAX_NESTING - 1)).then_some(raw)
    }

    fn value(&mut self, unescaped: &mut Vec<String>) -> Option<Value<'a>> {
        match self.peek()? {
            b'"' => {
                let begin = self.at;
                self.at += 1;
                let text = self.rest();
                let length = memchr2(b'"', b'\\', text)?;
                if text[length] == b'\\' {
                    unescaped.push(self.escaped(begin)?);
                    return Some(Value::Unescaped(unescaped.len() - 1));
                }
                let is_whole = !has_control(&text[..length]);
                self.string(length).filter(|_| is_whole).map(Value::Text)
            }
            b'0'..=b'9' => self.integer(),
            b't' => self.word("true", Value::Boolean(true)),
            b'f' => self.word("false", Value::Boolean(false)),
            _ => None,
        }
    }

    /// A string with escapes, whose opening quote is at `begin`.
    fn escaped(&mut self, begin: usize) -> Option<String> {
        loop {
            self.at += memchr2(b'"', b'\\', self.rest())? + 1;
            if self.json.as_bytes()[self.at - 1] == b'"' {
                return serde_json::from_str(self.json.get(begin..self.at)?).ok();
            }
            // The escaped character.
            self.next()?;
        }
    }

    /// An integer without sign, fraction and exponent; the caller refuses what follows it if that is no separator.
    fn integer(&mut self) -> Option<Value<'a>> {
        let digits = self.rest();
        let length = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        if length > MAX_DIGITS || (length > 1 && digits[0] == b'0') {
            return None;
        }
        self.at += length;
        Some(Value::Integer(digits[..length].iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))))
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Option<Value<'a>> {
        self.rest().starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }
}
