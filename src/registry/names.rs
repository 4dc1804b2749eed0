//! The names that clients go by: a name that came with a token cannot be chosen by others while its bearer is there,
//! and is one user's alone if the server is set so. Pure. Names are compared by what they look like (Unicode Technical
//! Standard 39), so that a Cyrillic letter makes no other name of it.

use std::collections::HashMap;

use unicode_security::skeleton;
use uuid::Uuid;

use super::Naming;
use quic_websocket_protocol::is_ignorable;

/// All names that are in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_look: HashMap<Box<str>, Bearers>,
}

#[derive(Debug, Default)]
struct Bearers {
    clients: HashMap<Uuid, Bearer>,
    /// How many of them have it from their tokens.
    owners: usize,
}

#[derive(Debug)]
struct Bearer {
    user: Option<Box<str>>,
    is_owner: bool,
}

/// A name as it looks, as it is written and in small letters: what looks alike may do so in one case only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameSkeleton([Box<str>; 2]);

impl NameSkeleton {
    pub(super) fn of(name: &str) -> Self {
        let shown = |c: &char| !c.is_whitespace() && !is_ignorable(*c);
        let look = |name: &str| -> Box<str> {
            let name: String = name.chars().filter(shown).collect();
            let look = skeleton(&name).filter(shown).flat_map(char::to_lowercase);
            look.collect::<String>().into()
        };
        Self([look(name), look(&name.to_lowercase())])
    }

    /// One of each.
    fn texts(&self) -> &[Box<str>] {
        if self.0[0] == self.0[1] { &self.0[..1] } else { &self.0 }
    }
}

impl Names {
    /// Enters a client under its name. Gives the clients that had chosen the name, if this one has it from its token;
    /// `None` if the name is another user's.
    pub(super) fn enter(
        &mut self,
        look: &NameSkeleton,
        id: Uuid,
        user: Option<&str>,
        naming: Naming,
    ) -> Option<Vec<Uuid>> {
        let (is_owner, may_share) = match naming {
            Naming::Free => (false, true),
            Naming::Chosen => (false, false),
            Naming::Given => (true, true),
            Naming::Exclusive => (true, false),
        };
        let is_another = |bearer: &Bearer| user.is_none() || bearer.user.as_deref() != user;
        let mut others = Vec::new();
        for bearers in look.texts().iter().filter_map(|text| self.by_look.get(text)) {
            let is_owned = |bearer: &Bearer| bearer.is_owner && is_another(bearer);
            if !may_share && bearers.owners > 0 && bearers.clients.values().any(is_owned) {
                return None;
            }
            if is_owner {
                let chosen = bearers.clients.iter().filter(|(_, bearer)| !bearer.is_owner && is_another(bearer));
                others.extend(chosen.map(|(id, _)| *id));
            }
        }
        for text in look.texts() {
            let bearers = self.by_look.entry(text.clone()).or_default();
            bearers.owners += usize::from(is_owner);
            bearers.clients.insert(id, Bearer { user: user.map(Into::into), is_owner });
        }
        Some(others)
    }

    pub(super) fn leave(&mut self, look: &NameSkeleton, id: Uuid) {
        for text in look.texts() {
            let Some(bearers) = self.by_look.get_mut(text) else { continue };
            if let Some(bearer) = bearers.clients.remove(&id) {
                bearers.owners -= usize::from(bearer.is_owner);
            }
            if bearers.clients.is_empty() {
                self.by_look.remove(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Naming::{Chosen, Exclusive, Given};
    use super::*;

    fn enter(names: &mut Names, id: u128, name: &str, user: Option<&str>, naming: Naming) -> Option<Vec<Uuid>> {
        names.enter(&NameSkeleton::of(name), Uuid::from_u128(id), user, naming)
    }

    #[test]
    fn an_exclusive_name_is_nobody_elses_while_its_owner_is_there() {
        let mut names = Names::default();
        assert_eq!(enter(&mut names, 1, "Ada", Some("ada"), Exclusive), Some(vec![]));
        assert_eq!(enter(&mut names, 2, "Ada", None, Chosen), None, "a stranger");
        assert_eq!(enter(&mut names, 3, "Ada", Some("eve"), Chosen), None, "another user, by choice");
        assert_eq!(enter(&mut names, 4, "Ada", Some("ada"), Chosen), Some(vec![]), "the same user, by choice");
        assert_eq!(enter(&mut names, 5, "Ada", Some("ada2"), Exclusive), None, "a namesake");
        assert_eq!(enter(&mut names, 6, "Ada", Some("ada"), Exclusive), Some(vec![]), "the same user again");
        for id in [1, 4, 6] {
            names.leave(&NameSkeleton::of("Ada"), Uuid::from_u128(id));
        }
        assert!(names.by_look.is_empty());
        assert_eq!(enter(&mut names, 2, "Ada", None, Chosen), Some(vec![]), "its owners have gone");
    }

    #[test]
    fn an_owner_drives_out_who_took_the_name_before() {
        let mut names = Names::default();
        enter(&mut names, 1, "Ada", None, Chosen);
        enter(&mut names, 2, "Bob", None, Chosen);
        assert_eq!(enter(&mut names, 3, "Ada", Some("ada"), Exclusive), Some(vec![Uuid::from_u128(1)]));
    }

    #[test]
    fn namesakes_by_their_tokens_are_both_there_and_nobody_else_may_choose_the_name() {
        let mut names = Names::default();
        assert_eq!(enter(&mut names, 1, "Ada", None, Chosen), Some(vec![]));
        assert_eq!(enter(&mut names, 2, "Ada", Some("ada"), Given), Some(vec![Uuid::from_u128(1)]));
        names.leave(&NameSkeleton::of("Ada"), Uuid::from_u128(1));
        assert_eq!(enter(&mut names, 3, "Ada", Some("eve"), Given), Some(vec![]), "a namesake drives nobody out");
        assert_eq!(enter(&mut names, 4, "Ada", None, Chosen), None, "a stranger");
        assert_eq!(enter(&mut names, 4, "Ada", Some("eve"), Chosen), None, "it is ada's as well");
        names.leave(&NameSkeleton::of("Ada"), Uuid::from_u128(2));
        assert_eq!(enter(&mut names, 4, "Ada", None, Chosen), None, "eve is still there");
        names.leave(&NameSkeleton::of("Ada"), Uuid::from_u128(3));
        assert_eq!(enter(&mut names, 4, "Ada", None, Chosen), Some(vec![]));
    }

    /// Whether no client can go by one of the names while the other belongs to a user.
    fn are_one(one: &str, other: &str) -> bool {
        let mut names = Names::default();
        enter(&mut names, 1, one, Some("ada"), Exclusive);
        enter(&mut names, 2, other, None, Chosen).is_none()
    }

    #[test]
    fn names_that_look_alike_are_the_same_name() {
        for other in
            ["ada", "ADA", "A d a", "\u{410}da", "Ad\u{200b}a", "Ad\u{ad}a", "\u{ff21}da", "Ada\u{2800}", "A\u{3164}da"]
        {
            assert!(are_one(other, "Ada"), "{other:?}");
        }
        for (one, other) in [("\u{412}ob", "Bob"), ("\u{422}om", "Tom"), ("\u{39d}ina", "Nina"), ("PauI", "Paul")] {
            assert!(are_one(one, other), "{one:?} {other:?}");
        }
        for other in ["Adam", "Aida", "Ad", "Eda"] {
            assert!(!are_one(other, "Ada"), "{other:?}");
        }
    }
}
