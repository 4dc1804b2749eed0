//! The connections of each user. Pure.

use std::collections::HashMap;

use uuid::Uuid;

/// A connection of a user, and the worker that serves it.
pub(super) type Connection = (Uuid, usize);

/// All users that are connected.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Sorted by id, so that a user with many connections costs no more than a search for each.
    by_name: HashMap<Box<str>, Vec<Connection>>,
}

impl Users {
    /// Number of a user's connections.
    pub(super) fn count(&self, user: &str) -> usize {
        self.of(user).len()
    }

    /// A user's connections, in the order of their ids.
    pub(super) fn of(&self, user: &str) -> &[Connection] {
        self.by_name.get(user).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn enter(&mut self, user: &str, id: Uuid, worker: usize) {
        let Some(connections) = self.by_name.get_mut(user) else {
            // Most users have one.
            self.by_name.insert(user.into(), vec![(id, worker)]);
            return;
        };
        if let Err(at) = connections.binary_search_by_key(&id, |&(id, _)| id) {
            connections.insert(at, (id, worker));
        }
    }

    pub(super) fn leave(&mut self, user: &str, id: Uuid) {
        let Some(connections) = self.by_name.get_mut(user) else { return };
        if let Ok(at) = connections.binary_search_by_key(&id, |&(id, _)| id) {
            connections.remove(at);
        }
        if connections.is_empty() {
            self.by_name.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_user_has_exactly_the_connections_that_entered_and_did_not_leave(
            steps in prop::collection::vec((any::<bool>(), 0..4_usize, 0..8_u128), 0..100),
        ) {
            let names = ["ada", "bob", "eve", "\u{e9}"];
            let (mut users, mut expected) = (Users::default(), BTreeMap::<&str, BTreeSet<u128>>::new());
            for (enters, user, id) in steps {
                let user = names[user];
                if enters {
                    users.enter(user, Uuid::from_u128(id), 0);
                    expected.entry(user).or_default().insert(id);
                } else {
                    users.leave(user, Uuid::from_u128(id));
                    expected.entry(user).or_default().remove(&id);
                }
            }
            for user in names {
                let ids: Vec<u128> = users.of(user).iter().map(|(id, _)| id.as_u128()).collect();
                let expected: Vec<u128> = expected.get(user).into_iter().flatten().copied().collect();
                prop_assert_eq!(users.count(user), expected.len());
                prop_assert_eq!(ids, expected);
            }
            // A user without connections takes no memory.
            prop_assert!(users.by_name.values().all(|connections| !connections.is_empty()));
        }
    }
}
