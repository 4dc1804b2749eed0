//! A message's `meta`, read once for all filters: the values that a filter can compare.

use super::decimal::Decimal;
use super::object;

/// A value that a filter compares with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scalar {
    Text(Box<str>),
    Number(Decimal),
    Boolean(bool),
}

impl Scalar {
    /// A value as JSON writes it; `None` for `null`, arrays, objects, and what cannot be compared.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        match value.first()? {
            b'"' => object::text(value).map(|text| Self::Text(text.into())),
            b't' | b'f' => Some(Self::Boolean(value == b"true")),
            b'-' | b'0'..=b'9' => Decimal::parse(value).map(Self::Number),
            _ => None,
        }
    }
}

/// The scalars of an object, by name.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// In the order of their names, each once.
    members: Vec<(String, Option<Scalar>)>,
}

impl Meta {
    /// Reads an object that is valid JSON. Of members with the same name the last one counts, as for JSON parsers.
    pub(super) fn parse(json: &[u8]) -> Self {
        let read = |(name, value)| Some((object::text(name)?, Scalar::parse(value)));
        let mut members: Vec<_> = object::members(json).filter_map(read).collect();
        members.reverse();
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.dedup_by(|(one, _), (other, _)| one == other);
        Self { members }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Scalar> {
        let at = self.members.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        self.members[at].1.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_the_last_one_counts() {
        let meta = Meta::parse(
            br#" { "b":1, "a" : "x\u0041\n", "c":[true], "b":2.50, "t":true, "f":false, "z":null,
            "\u0064":"escaped", "half":"\ud800", "o":{"a":1} } "#,
        );
        let number = |text: &str| Decimal::parse(text.as_bytes()).map(Scalar::Number);
        assert_eq!(meta.get("a"), Some(&Scalar::Text("xA\n".into())));
        assert_eq!(meta.get("b").cloned(), number("2.5"));
        assert_eq!(meta.get("d"), Some(&Scalar::Text("escaped".into())));
        assert_eq!((meta.get("t"), meta.get("f")), (Some(&Scalar::Boolean(true)), Some(&Scalar::Boolean(false))));
        for none in ["c", "z", "o", "half", "", "x", "A"] {
            assert_eq!(meta.get(none), None, "{none}");
        }
        assert_eq!(Meta::parse(b"{}").members.len(), 0);
    }
}
