//! The users among a topic's members.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use crate::message::Member;

/// The users, each of which has at least one connection.
#[derive(Debug)]
pub(super) enum Users {
    /// Each with the number of its connections.
    Counted(HashMap<User, u32>),
    /// Each with the key of its entry.
    Entries(HashMap<User, Uuid>),
}

/// A user, by one of its connections: so its name takes no memory of its own.
#[derive(Debug)]
pub(super) struct User(Arc<Member>);

impl User {
    fn name(&self) -> &str {
        self.0.user.as_deref().unwrap_or_default()
    }
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for User {}

impl Hash for User {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Borrow<str> for User {
    fn borrow(&self) -> &str {
        self.name()
    }
}

impl Users {
    pub(super) fn new(is_counted: bool) -> Self {
        if is_counted { Self::Counted(HashMap::new()) } else { Self::Entries(HashMap::new()) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Counted(users) => users.len(),
            Self::Entries(users) => users.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a user's entry.
    pub(super) fn entry(&self, user: &str) -> Option<Uuid> {
        match self {
            Self::Counted(_) => None,
            Self::Entries(users) => users.get(user).copied(),
        }
    }

    /// A user's new entry comes, or one more of its connections.
    pub(super) fn add(&mut self, who: &Arc<Member>) {
        let user = User(Arc::clone(who));
        match self {
            Self::Counted(users) => *users.entry(user).or_default() += 1,
            Self::Entries(users) => drop(users.insert(user, who.id)),
        }
    }

    /// The user's entry has another key.
    pub(super) fn moved(&mut self, who: &Member, key: Uuid) {
        if let (Self::Entries(users), Some(user)) = (self, &who.user)
            && let Some(entry) = users.get_mut(user.as_str())
        {
            *entry = key;
        }
    }

    /// Its entry ends, or one of its connections.
    pub(super) fn remove(&mut self, who: &Member) {
        let Some(user) = &who.user else { return };
        match self {
            Self::Counted(users) => {
                if let Some(count) = users.get_mut(user.as_str()) {
                    *count -= 1;
                    if *count == 0 {
                        users.remove(user.as_str());
                    }
                }
            }
            Self::Entries(users) => drop(users.remove(user.as_str())),
        }
    }
}
