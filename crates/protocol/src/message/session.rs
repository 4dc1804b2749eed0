//! The secret by which a client shows that it is the one of an earlier or another connection.

use std::fmt;

use super::Invalid;

/// Longest secret of a session, in bytes.
pub const MAX_SESSION_BYTES: usize = 128;

/// The secret of a session, opaque to clients: 1 to 128 bytes of visible ASCII. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session(Box<str>);

impl Session {
    /// Creates a secret, if it is within bounds. `field` is the one that it comes in.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(field: &str, secret: &str) -> Result<Self, Invalid> {
        let fits = (1..=MAX_SESSION_BYTES).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(Invalid::field(format!(
                "{field}: 1 to {MAX_SESSION_BYTES} bytes of visible ASCII are allowed"
            )));
        }
        Ok(Self(secret.into()))
    }

    /// The secret as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}
