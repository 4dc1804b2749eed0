//! Who sent a message, as its receivers see it.

use bytestring::ByteString;
use uuid::Uuid;

use super::Member;

/// The sender of a message. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sender {
    /// The id of its connection.
    pub id: Uuid,
    /// The user that it has authenticated as; the server has verified it.
    pub user: Option<ByteString>,
    /// Its name, as others see it in `client_list`; `None` without a user.
    pub name: Option<ByteString>,
}

impl Sender {
    /// A sender with its user and its name, if it has any.
    pub fn new(id: Uuid, user: Option<ByteString>, name: Option<ByteString>) -> Self {
        Self { id, user, name }
    }

    /// What to call it: its name, otherwise its user, if it has any.
    pub fn label(&self) -> Option<&str> {
        self.name.as_deref().or(self.user.as_deref())
    }
}

/// The name of an anonymous client is only what it says of itself, and left out.
impl From<&Member> for Sender {
    fn from(member: &Member) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(ByteString::from);
        let user = text(&member.user);
        let name = user.as_ref().and_then(|_| text(&member.name));
        Self::new(member.id, user, name)
    }
}

impl From<Uuid> for Sender {
    fn from(id: Uuid) -> Self {
        Self::new(id, None, None)
    }
}
