//! A filter: conditions on a message's `meta`, all of which must hold.

use thiserror::Error;

use super::meta::{Meta, Scalar};
use super::object;

/// Most conditions of a filter.
const MAX_CONDITIONS: usize = 8;

/// Conditions by the name of the member that they are about. Equal filters are equal values, whatever the order of
/// their members was and however their numbers were written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    /// In the order of their names, each once.
    conditions: Box<[(Box<str>, Condition)]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Condition {
    /// The member is this value.
    Equals(Scalar),
    /// The member is a string that begins like this.
    Prefix(Box<str>),
}

/// Why something is no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum FilterError {
    #[error("it has no condition; name a member of meta, or send no filter")]
    Empty,
    #[error("it has more than {MAX_CONDITIONS} conditions")]
    TooMany,
    #[error("a name in it is no Unicode text")]
    Name,
    #[error("{0:?} is there twice; all conditions must hold, so send one for each name")]
    Twice(String),
    #[error(
        "{0:?} must be a string, a number or a boolean, to be equal to, or {{\"prefix\": \"text\"}}, to begin with"
    )]
    Condition(String),
}

impl Filter {
    /// Reads a filter from an object that is valid JSON.
    pub(crate) fn parse(json: &str) -> Result<Self, FilterError> {
        let mut conditions: Vec<(Box<str>, Condition)> = Vec::new();
        for (name, value) in object::members(json.as_bytes()) {
            if conditions.len() == MAX_CONDITIONS {
                return Err(FilterError::TooMany);
            }
            let name = object::text(name).ok_or(FilterError::Name)?;
            if conditions.iter().any(|(other, _)| **other == *name) {
                return Err(FilterError::Twice(name));
            }
            let condition = Condition::parse(value).ok_or_else(|| FilterError::Condition(name.clone()))?;
            conditions.push((name.into(), condition));
        }
        if conditions.is_empty() {
            return Err(FilterError::Empty);
        }
        conditions.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self { conditions: conditions.into() })
    }

    pub(super) fn passes(&self, meta: &Meta) -> bool {
        self.conditions.iter().all(|(name, condition)| meta.get(name).is_some_and(|value| condition.holds(value)))
    }
}

impl Condition {
    fn parse(value: &[u8]) -> Option<Self> {
        if value.first() != Some(&b'{') {
            return Scalar::parse(value).map(Self::Equals);
        }
        let mut members = object::members(value);
        let (name, prefix) = members.next()?;
        let is_alone = members.next().is_none() && object::text(name)? == "prefix";
        is_alone.then(|| object::text(prefix).map(|prefix| Self::Prefix(prefix.into())))?
    }

    fn holds(&self, value: &Scalar) -> bool {
        match (self, value) {
            (Self::Equals(wanted), value) => wanted == value,
            (Self::Prefix(prefix), Scalar::Text(text)) => text.starts_with(&**prefix),
            (Self::Prefix(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn filter(json: &str) -> Filter {
        Filter::parse(json).unwrap_or_else(|e| panic!("{json}: {e}"))
    }

    #[test]
    fn a_filter_has_a_few_conditions_that_can_be_compared() {
        let nine = Value::Object((0..9).map(|n| (n.to_string(), json!(n))).collect()).to_string();
        let eight = Value::Object((0..8).map(|n| (n.to_string(), json!(n))).collect()).to_string();
        assert!(Filter::parse(&eight).is_ok());
        let name = "a".to_owned();
        for (json, refused) in [
            ("{}", FilterError::Empty),
            (&nine, FilterError::TooMany),
            (r#"{"\ud800":1}"#, FilterError::Name),
            (r#"{"a":1,"\u0061":2}"#, FilterError::Twice(name.clone())),
            (r#"{"a":null}"#, FilterError::Condition(name.clone())),
            (r#"{"a":[1]}"#, FilterError::Condition(name.clone())),
            (r#"{"a":{}}"#, FilterError::Condition(name.clone())),
            (r#"{"a":{"prefix":1}}"#, FilterError::Condition(name.clone())),
            (r#"{"a":{"prefix":"x","suffix":"y"}}"#, FilterError::Condition(name.clone())),
            (r#"{"a":{"suffix":"x"}}"#, FilterError::Condition(name.clone())),
            (r#"{"a":"\udc00"}"#, FilterError::Condition(name.clone())),
            (r#"{"a":1e99999999999999999999}"#, FilterError::Condition(name.clone())),
        ] {
            assert_eq!(Filter::parse(json), Err(refused), "{json}");
        }
    }

    #[test]
    fn equal_filters_are_equal_however_they_are_written() {
        let one = filter(r#"{"a":1.0,"b":{"prefix":"x"},"c":"A"}"#);
        assert_eq!(one, filter(r#" { "c" : "\u0041", "b":{ "\u0070refix" :"x"}, "a":10e-1 } "#));
        assert_ne!(one, filter(r#"{"a":1.0,"b":"x","c":"A"}"#));
    }

    #[test]
    fn all_conditions_must_hold() {
        let passes = |filter_json: &str, meta: &str| filter(filter_json).passes(&Meta::parse(meta.as_bytes()));
        let both = r#"{"event":"move","path":{"prefix":"a/"}}"#;
        assert!(passes(both, r#"{"path":"a/b","more":null,"event":"move"}"#));
        for meta in
            [r#"{"event":"move"}"#, r#"{"event":"move","path":"b/a/"}"#, r#"{"event":"Move","path":"a/"}"#, "{}"]
        {
            assert!(!passes(both, meta), "{meta}");
        }
        assert!(passes(r#"{"n":9007199254740993}"#, r#"{"n":9007199254740993}"#));
        assert!(!passes(r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#), "floats would be equal");
        assert!(!passes(r#"{"n":1}"#, r#"{"n":"1"}"#) && !passes(r#"{"n":true}"#, r#"{"n":1}"#));
        assert!(passes(r#"{"p":{"prefix":""}}"#, r#"{"p":""}"#) && !passes(r#"{"p":{"prefix":""}}"#, r#"{"p":1}"#));
    }

    /// The same by a parser, on values.
    fn naive(filter: &Map<String, Value>, meta: &Map<String, Value>) -> bool {
        filter.iter().all(|(name, wanted)| match (wanted.get("prefix"), meta.get(name)) {
            (_, None) => false,
            (Some(prefix), Some(value)) => value
                .as_str()
                .zip(prefix.as_str())
                .is_some_and(|(text, prefix)| text.as_bytes().get(..prefix.len()) == Some(prefix.as_bytes())),
            (None, Some(value)) => wanted == value,
        })
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            4 => "[ab\"ä]{0,3}".prop_map(Value::from),
            2 => (-2_i64..3).prop_map(Value::from),
            1 => any::<bool>().prop_map(Value::from),
        ]
    }

    fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::vec(("[a-c]", value), 1..5).prop_map(|members| members.into_iter().collect())
    }

    fn condition() -> impl Strategy<Value = Value> {
        prop_oneof![scalar(), "[ab\"ä]{0,2}".prop_map(|prefix| json!({ "prefix": prefix }))]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![4 => scalar(), 1 => Just(Value::Null), 1 => scalar().prop_map(|inner| json!([inner]))]
    }

    proptest! {
        #[test]
        fn a_filter_passes_what_a_parser_would(
            wanted in object(condition()),
            metas in prop::collection::vec(object(any_value()), 1..20),
        ) {
            let filter = filter(&Value::Object(wanted.clone()).to_string());
            for meta in metas {
                let json = Value::Object(meta.clone()).to_string();
                prop_assert_eq!(filter.passes(&Meta::parse(json.as_bytes())), naive(&wanted, &meta), "{}", json);
            }
        }
    }
}
