//! Which tokens are revoked: by id, by user, and by time of issue. Pure; [`RevocationList`](super::RevocationList)
//! shares it and keeps it in a file.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// The claims of a token by which it can be revoked, besides its user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TokenStamp {
    /// Its `jti`, if that is a string of at most [`MAX_JTI_BYTES`](super::MAX_JTI_BYTES).
    pub(super) id: Option<Box<str>>,
    /// Its `iat`, in Unix milliseconds; `None` counts as before any time.
    pub(super) issued_at: Option<u64>,
}

/// The tokens that one revocation concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Revoked {
    /// The token with this id.
    Jti(Box<str>),
    /// Tokens of a user that were issued before the revocation's time.
    User(Box<str>),
}

/// Until when, and for which times of issue, a revocation applies. Times are in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// Tokens issued before this time are revoked. Always present for a user, never for an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    /// Time after which the revocation is forgotten, because the tokens have expired by then; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<u64>,
}

/// One revocation, as the API and the file have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    #[serde(flatten)]
    pub(crate) what: Revoked,
    #[serde(flatten)]
    pub(crate) terms: Terms,
}

/// There is no room for another revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// All revocations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revocations {
    entries: BTreeMap<Revoked, Terms>,
    /// All tokens issued before this time are revoked.
    before: Option<u64>,
}

/// One page of the revocations.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Revocation>,
    pub(crate) total: usize,
    pub(crate) before: Option<u64>,
    /// The last of this page, if there is another.
    pub(crate) next: Option<Revoked>,
}

impl Revocations {
    /// Restores revocations. Those that are over are left out; there may be more than a new one would have room for.
    pub(super) fn new(before: Option<u64>, entries: Vec<Revocation>, now_ms: u64) -> Self {
        let mut all = Self { entries: BTreeMap::new(), before };
        for Revocation { what, terms } in entries {
            all.merge(what, terms);
        }
        all.forget_past(now_ms);
        all
    }

    /// Adds a revocation, if it is known or there are fewer than `most`. It never weakens the one that is there.
    pub(super) fn add(&mut self, what: Revoked, terms: Terms, most: usize, now_ms: u64) -> Result<(), Full> {
        self.forget_past(now_ms);
        if !self.entries.contains_key(&what) && self.entries.len() >= most {
            return Err(Full);
        }
        self.merge(what, terms);
        Ok(())
    }

    fn merge(&mut self, what: Revoked, terms: Terms) {
        let known = self.entries.entry(what).or_insert(terms);
        known.before = known.before.max(terms.before);
        known.until = known.until.zip(terms.until).map(|(one, other)| one.max(other));
    }

    /// Revokes all tokens issued before a time.
    pub(super) fn add_time(&mut self, before: u64) {
        self.before = self.before.max(Some(before));
    }

    /// Removes a revocation. False if there is none.
    pub(super) fn remove(&mut self, what: &Revoked) -> bool {
        self.entries.remove(what).is_some()
    }

    /// Removes the time before which all tokens are revoked. False if it is another one.
    pub(super) fn remove_time(&mut self, before: u64) -> bool {
        self.before.take_if(|own| *own == before).is_some()
    }

    fn forget_past(&mut self, now_ms: u64) {
        self.entries.retain(|_, terms| terms.until.is_none_or(|until| until > now_ms));
    }

    /// Whether a user's token is revoked.
    pub(super) fn cover(&self, token: &TokenStamp, user: &str, now_ms: u64) -> bool {
        let is_before = |time: u64| token.issued_at.is_none_or(|issued_at| issued_at < time);
        if self.before.is_some_and(is_before) {
            return true;
        }
        if self.entries.is_empty() {
            return false;
        }
        let lasting = |what: Revoked| {
            self.entries.get(&what).filter(|terms| terms.until.is_none_or(|until| until > now_ms)).copied()
        };
        let id = token.id.clone().map(Revoked::Jti).and_then(lasting);
        id.is_some() || lasting(Revoked::User(user.into())).is_some_and(|terms| terms.before.is_some_and(is_before))
    }

    /// At most `limit` revocations behind `after`.
    pub(super) fn page(&self, after: Option<&Revoked>, limit: usize, now_ms: u64) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let lasts = |terms: &Terms| terms.until.is_none_or(|until| until > now_ms);
        let rest = self.entries.range((from, Bound::Unbounded)).filter(|(_, terms)| lasts(terms));
        let mut entries: Vec<_> =
            rest.take(limit.saturating_add(1)).map(|(what, &terms)| Revocation { what: what.clone(), terms }).collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|last| last.what.clone());
        let total = self.entries.values().filter(|terms| lasts(terms)).count();
        Page { entries, total, before: self.before, next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jti(id: &str) -> Revoked {
        Revoked::Jti(id.into())
    }

    fn user(name: &str) -> Revoked {
        Revoked::User(name.into())
    }

    fn terms(before: impl Into<Option<u64>>, until: impl Into<Option<u64>>) -> Terms {
        Terms { before: before.into(), until: until.into() }
    }

    fn stamp(id: &str, issued_at: impl Into<Option<u64>>) -> TokenStamp {
        TokenStamp { id: Some(id.into()), issued_at: issued_at.into() }
    }

    #[test]
    fn a_token_is_revoked_by_its_id_alone() {
        let mut all = Revocations::default();
        all.add(jti("a"), terms(None, 100), 9, 0).expect("room");
        assert!(all.cover(&stamp("a", 50), "ada", 99) && !all.cover(&stamp("b", 50), "ada", 99));
        assert!(!all.cover(&TokenStamp::default(), "a", 99), "neither a user of that name, nor a token without an id");
        assert!(!all.cover(&stamp("a", 50), "ada", 100), "it is over");
        assert!(all.remove(&jti("a")) && !all.remove(&jti("a")) && !all.cover(&stamp("a", 50), "ada", 50));
    }

    #[test]
    fn a_users_older_tokens_are_revoked_and_newer_ones_are_good() {
        let mut all = Revocations::default();
        all.add(user("ada"), terms(100, None), 9, 0).expect("room");
        for (issued_at, is_revoked) in [(Some(99), true), (Some(100), false), (None, true)] {
            assert_eq!(all.cover(&stamp("a", issued_at), "ada", 500), is_revoked, "{issued_at:?}");
            assert!(!all.cover(&stamp("a", issued_at), "bob", 500));
        }
        all.add_time(50);
        assert!(all.cover(&stamp("a", 49), "bob", 500) && !all.cover(&stamp("a", 50), "bob", 500));
        assert!(all.cover(&stamp("a", None), "bob", 500));
        all.add_time(40);
        assert!(!all.remove_time(40) && all.remove_time(50) && !all.cover(&stamp("a", 1), "bob", 500));
    }

    #[test]
    fn a_revocation_is_never_weakened_by_another() {
        let mut all = Revocations::default();
        all.add(user("ada"), terms(100, 1000), 1, 0).expect("room");
        all.add(user("ada"), terms(50, 2000), 1, 0).expect("it is known");
        assert_eq!(all.entries[&user("ada")], terms(100, 2000));
        all.add(user("ada"), terms(200, None), 1, 0).expect("it is known");
        assert_eq!(all.entries[&user("ada")], terms(200, None));
        all.add(user("ada"), terms(1, 1), 1, 0).expect("it is known");
        assert_eq!(all.entries[&user("ada")], terms(200, None));
        assert_eq!(all.add(jti("a"), terms(None, None), 1, 0), Err(Full));
    }

    #[test]
    fn room_is_made_by_those_that_are_over() {
        let mut all = Revocations::default();
        all.add(jti("a"), terms(None, 10), 1, 0).expect("room");
        assert_eq!(all.add(jti("b"), terms(None, 20), 1, 9), Err(Full));
        all.add(jti("b"), terms(None, 20), 1, 10).expect("the first is over");
        assert_eq!(all.entries.len(), 1);
    }

    proptest! {
        #[test]
        fn pages_have_every_revocation_once_and_restore_them(
            ids in prop::collection::btree_set("[a-c]{0,3}", 0..20),
            names in prop::collection::btree_set("[a-c]{1,3}", 0..20),
            limit in 1..9_usize,
            before in any::<Option<u64>>(),
        ) {
            let mut all = Revocations { before, ..Revocations::default() };
            for id in &ids {
                all.add(jti(id), terms(None, 7), 99, 0).expect("room");
            }
            for name in &names {
                all.add(user(name), terms(5, None), 99, 0).expect("room");
            }
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = all.page(after.as_ref(), limit, 0);
                prop_assert_eq!(page.total, ids.len() + names.len());
                seen.extend(page.entries);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(seen.len(), ids.len() + names.len());
            let json = serde_json::to_string(&seen).expect("JSON");
            let read: Vec<Revocation> = serde_json::from_str(&json).expect("what was written");
            prop_assert_eq!(Revocations::new(before, read, 0), all);
        }
    }
}
