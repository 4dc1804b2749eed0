//! The receivers of a message to single clients.

use std::fmt;

use uuid::Uuid;

use super::{Invalid, USER_BOUNDS, is_user};

/// A user, as others address it: within the bounds of a token's `sub`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName(Box<str>);

impl UserName {
    /// Creates a user's name, if it is valid.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(user: &str) -> Result<Self, Invalid> {
        if is_user(user) { Ok(Self(user.into())) } else { Err(Invalid::field(format!("user: {USER_BOUNDS}"))) }
    }

    /// The user as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The receivers of a `direct`, a `signal` or a `request`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// One client, by the id of its connection.
    Client(Uuid),
    /// A user, by name: all its connections, or for a request one of them.
    User(UserName),
}

impl From<Uuid> for Recipient {
    fn from(id: Uuid) -> Self {
        Self::Client(id)
    }
}

impl From<UserName> for Recipient {
    fn from(user: UserName) -> Self {
        Self::User(user)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(id) => id.fmt(f),
            Self::User(user) => write!(f, "user {}", user.as_str().escape_debug()),
        }
    }
}
