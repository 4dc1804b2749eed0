//! The members of a JSON object that is known to be valid, in place: one pass that builds nothing and skips what it is
//! not asked for. Invalid JSON ends it early; that is all that happens.

use memchr::memchr2;

/// Bytes of a string that are looked at one by one.
const SHORT: usize = 24;

/// The members of an object: name, in quotes and with its escapes, and value, as they are written.
pub(super) fn members(json: &[u8]) -> Members<'_> {
    let mut members = Members { json, at: 0 };
    members.skip_space();
    // Without its brace it is no object, and nothing is found.
    members.at = if json.get(members.at) == Some(&b'{') { members.at + 1 } else { json.len() };
    members
}

/// A string's text without its quotes and escapes; `None` if the value is no string, or not one of Unicode (an escaped
/// half of a surrogate pair).
pub(super) fn text(value: &[u8]) -> Option<String> {
    let inside = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inside.contains(&b'\\') {
        return std::str::from_utf8(inside).ok().map(str::to_owned);
    }
    serde_json::from_slice(value).ok()
}

pub(super) struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_space();
        if self.json.get(self.at) == Some(&b',') {
            self.at += 1;
            self.skip_space();
        }
        let name = self.string()?;
        self.skip_space();
        if self.json.get(self.at) != Some(&b':') {
            return None;
        }
        self.at += 1;
        self.skip_space();
        Some((name, self.value()?))
    }
}

impl<'a> Members<'a> {
    fn skip_space(&mut self) {
        while matches!(self.json.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The string here, with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        if self.json.get(begin) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        // Most names and many values are short: a search that is made for long texts takes longer to begin.
        for &byte in self.json[self.at..].iter().take(SHORT) {
            match byte {
                b'\\' => break,
                b'"' => {
                    self.at += 1;
                    return Some(&self.json[begin..self.at]);
                }
                _ => self.at += 1,
            }
        }
        loop {
            let found = memchr2(b'"', b'\\', self.json.get(self.at..)?)?;
            let is_end = self.json[self.at + found] == b'"';
            self.at += found + if is_end { 1 } else { 2 };
            if is_end {
                return Some(&self.json[begin..self.at]);
            }
        }
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        match self.json.get(begin)? {
            b'"' => return self.string(),
            b'{' => self.nested(b'{', b'}')?,
            b'[' => self.nested(b'[', b']')?,
            _ => {
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                self.at += self.json[begin..].iter().position(is_end)?;
            }
        }
        Some(&self.json[begin..self.at])
    }

    /// Skips an object or array. In valid JSON the other kind's brackets are balanced by themselves.
    fn nested(&mut self, open: u8, close: u8) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            let byte = *self.json.get(self.at)?;
            if byte == b'"' {
                self.string()?;
                continue;
            }
            self.at += 1;
            if byte == open {
                depth += 1;
            } else if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Some(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn found(json: &str) -> Vec<(String, Value)> {
        let read = |(name, value)| {
            (text(name).expect("a name"), serde_json::from_slice::<Value>(value).expect("a value is whole"))
        };
        members(json.as_bytes()).map(read).collect()
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = || "[a\"\\\\{}\\[\\],:\u{0}ä ]{0,6}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((text(), inner), 0..5).prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_members_found_are_those_that_a_parser_finds(
            names in prop::collection::btree_set("[a-c\"\\\\}]{0,4}", 0..6),
            values in prop::collection::vec(value(), 6),
            pretty in any::<bool>(),
        ) {
            let expected: Vec<(String, Value)> = names.into_iter().zip(values).collect();
            let object = Value::Object(expected.iter().cloned().collect());
            let json = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
            let mut found = found(&json.expect("JSON"));
            found.sort_by(|one, other| one.0.cmp(&other.0));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn anything_else_ends_early(json in prop::collection::vec(prop::sample::select(&b"{}[]\",:\\ 1a"[..]), 0..40)) {
            prop_assert!(members(&json).count() <= json.len());
        }
    }
}
