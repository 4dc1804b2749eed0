//! The names that clients go by, so that a name which came with a token is nobody else's while its owner is there. Pure.
//! Names are compared by what they look like (Unicode Technical Standard 39), so that a Cyrillic letter makes no other
//! name of it.

use std::collections::HashMap;

use unicode_security::skeleton;
use uuid::Uuid;

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

/// A name as it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look(Box<str>);

impl Look {
    pub(super) fn of(name: &str) -> Self {
        let shown = |c: &char| !c.is_whitespace() && !is_ignorable(*c);
        let lower: String = name.chars().filter(shown).flat_map(char::to_lowercase).collect();
        // What looks alike is so in either case: `I` as `l`, and so `i` not.
        Self(skeleton(&lower).flat_map(char::to_lowercase).collect::<String>().into())
    }
}

/// Format characters that are not seen (Unicode's `Default_Ignorable_Code_Point`, the common part).
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{e0000}'..='\u{e0fff}')
}

impl Names {
    /// Enters a client under its name. Gives the clients that bore the name without owning it, where this one does; `None`
    /// where it belongs to somebody else.
    pub(super) fn enter(&mut self, look: &Look, id: Uuid, user: Option<&str>, is_owner: bool) -> Option<Vec<Uuid>> {
        let bearers = self.by_look.entry(look.0.clone()).or_default();
        let is_another = |bearer: &Bearer| user.is_none() || bearer.user.as_deref() != user;
        let mut others = Vec::new();
        if is_owner {
            let impostors = bearers.clients.iter().filter(|(_, bearer)| !bearer.is_owner && is_another(bearer));
            others.extend(impostors.map(|(id, _)| *id));
        } else if bearers.owners > 0 && bearers.clients.values().any(|bearer| bearer.is_owner && is_another(bearer)) {
            return None;
        }
        bearers.owners += usize::from(is_owner);
        bearers.clients.insert(id, Bearer { user: user.map(Into::into), is_owner });
        Some(others)
    }

    pub(super) fn leave(&mut self, look: &Look, id: Uuid) {
        let Some(bearers) = self.by_look.get_mut(&look.0) else { return };
        if let Some(bearer) = bearers.clients.remove(&id) {
            bearers.owners -= usize::from(bearer.is_owner);
        }
        if bearers.clients.is_empty() {
            self.by_look.remove(&look.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(names: &mut Names, id: u128, name: &str, user: Option<&str>, is_owner: bool) -> Option<Vec<Uuid>> {
        names.enter(&Look::of(name), Uuid::from_u128(id), user, is_owner)
    }

    #[test]
    fn a_name_from_a_token_is_nobody_elses_while_its_owner_is_there() {
        let mut names = Names::default();
        assert_eq!(enter(&mut names, 1, "Ada", Some("ada"), true), Some(vec![]));
        assert_eq!(enter(&mut names, 2, "Ada", None, false), None, "a stranger");
        assert_eq!(enter(&mut names, 3, "Ada", Some("eve"), false), None, "another user, by choice");
        assert_eq!(enter(&mut names, 4, "Ada", Some("ada"), false), Some(vec![]), "the same user, by choice");
        assert_eq!(enter(&mut names, 5, "Ada", Some("ada2"), true), Some(vec![Uuid::from_u128(4)]), "a namesake");
        for id in [1, 4, 5] {
            names.leave(&Look::of("Ada"), Uuid::from_u128(id));
        }
        assert!(names.by_look.is_empty());
        assert_eq!(enter(&mut names, 2, "Ada", None, false), Some(vec![]), "its owners have gone");
    }

    #[test]
    fn an_owner_drives_out_who_took_the_name_before() {
        let mut names = Names::default();
        enter(&mut names, 1, "Ada", None, false);
        enter(&mut names, 2, "Bob", None, false);
        assert_eq!(enter(&mut names, 3, "Ada", Some("ada"), true), Some(vec![Uuid::from_u128(1)]));
    }

    #[test]
    fn names_that_look_alike_are_the_same_name() {
        for other in ["ada", "ADA", "A d a", "\u{410}da", "Ad\u{200b}a", "Ad\u{ad}a", "\u{ff21}da"] {
            assert_eq!(Look::of(other), Look::of("Ada"), "{other:?}");
        }
        for other in ["Adam", "Aida", "Ad", "Eda"] {
            assert_ne!(Look::of(other), Look::of("Ada"), "{other:?}");
        }
    }
}
