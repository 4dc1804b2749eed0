//! Less than all messages of a topic: what a subscription with `max_rate`, `filter` or `echo: false` leaves out. Pure:
//! times are arguments, messages are bytes, and no receiver is known here. Called by `topic`.
//!
//! A filter sees nothing of a message but its `meta`, which [`Traits`] finds in the encoded message. Only messages on
//! their way to such a subscription are looked at.

mod conflation;
mod decimal;
mod filter;
mod filters;
mod meta;
mod object;
mod selection;

use uuid::Uuid;

pub(crate) use self::conflation::{Conflation, Message, Offered};
pub(crate) use self::filter::{Filter, FilterError};
pub(crate) use self::filters::{FilterId, Filters};
use self::meta::Meta;
pub(crate) use self::selection::Selection;

/// What a subscription leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Narrowing {
    /// Least time between two messages of one topic, in microseconds. Of those in between, only the newest comes.
    pub(crate) interval_us: Option<u64>,
    /// Clients whose messages it leaves out: with `echo: false` the client itself.
    pub(crate) own: Box<[Uuid]>,
    pub(crate) filter: Option<Filter>,
}

impl Narrowing {
    /// Whether it looks at each message, and does not only count them.
    pub(crate) fn is_selective(&self) -> bool {
        !self.own.is_empty() || self.filter.is_some()
    }

    /// Whether it wants a message, whatever came before it.
    pub(crate) fn wants(&self, message: &Traits) -> bool {
        !self.is_own(message) && self.filter.as_ref().is_none_or(|filter| message.pass(filter))
    }

    pub(crate) fn is_own(&self, message: &Traits) -> bool {
        message.from.is_some_and(|from| self.own.contains(&from))
    }
}

/// The part of a message that decides which subscriptions get it.
#[derive(Debug, Default)]
pub(crate) struct Traits {
    /// The client that published it.
    from: Option<Uuid>,
    meta: Option<Meta>,
}

impl Traits {
    /// The traits of an encoded `message`, without its attachment. For filters also `meta`, which is behind the
    /// content; what comes before the content takes a few steps.
    pub(crate) fn of(message: &[u8], for_filters: bool) -> Self {
        let mut traits = Self::default();
        for (name, value) in object::members(message) {
            match name {
                br#""type""# | br#""topic""# | br#""offset""# => {}
                br#""from""# => traits.from = object::text(value).and_then(|id| Uuid::try_parse(&id).ok()),
                _ if !for_filters => break,
                br#""meta""# => {
                    traits.meta = Some(Meta::parse(value));
                    break;
                }
                _ => {}
            }
        }
        traits
    }

    fn pass(&self, filter: &Filter) -> bool {
        self.meta.as_ref().is_some_and(|meta| filter.passes(meta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: Option<u128>, meta: &str) -> Traits {
        let from = from.map(|id| format!(",\"from\":\"{}\"", Uuid::from_u128(id))).unwrap_or_default();
        let decoy = r#""data":{"meta":{"event":"no"},"from":7},"content":"\"meta\":{}""#;
        Traits::of(
            format!(r#"{{"type":"message","topic":"a","offset":1{from},{decoy}{meta},"timestamp":9}}"#).as_bytes(),
            true,
        )
    }

    fn narrowing(own: &[u128], filter: Option<&str>) -> Narrowing {
        let own = own.iter().copied().map(Uuid::from_u128).collect();
        Narrowing { interval_us: None, own, filter: filter.map(|json| Filter::parse(json).expect("a filter")) }
    }

    #[test]
    fn a_message_is_looked_at_from_outside_only() {
        let (own, others, admins) =
            (message(Some(1), ""), message(Some(2), r#","meta":{"event":"move"}"#), message(None, ""));
        let wanted = |narrowing: Narrowing| [&own, &others, &admins].map(|message| narrowing.wants(message));
        assert_eq!(wanted(narrowing(&[], None)), [true; 3]);
        assert_eq!(wanted(narrowing(&[1], None)), [false, true, true]);
        assert_eq!(wanted(narrowing(&[], Some(r#"{"event":"move"}"#))), [false, true, false]);
        assert_eq!(wanted(narrowing(&[], Some(r#"{"event":"no"}"#))), [false; 3]);
        assert!(!narrowing(&[], None).is_selective() && narrowing(&[1, 2], None).is_selective());
    }
}
