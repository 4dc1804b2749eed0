//! Tokens that were used, until they expire: where each is good for one handshake only. Pure.

use std::collections::{BTreeSet, HashSet};

/// A token that is good only once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UsedToken {
    /// When it is refused anyway, in Unix milliseconds.
    pub(super) expires_at: u64,
    /// Its `jti`.
    pub(super) id: Box<str>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It was used before.
    Again,
    /// So many were used that no more can be remembered.
    Full,
}

/// The used tokens.
#[derive(Debug, Default)]
pub(super) struct UsedTokens {
    ids: HashSet<Box<str>>,
    by_expiry: BTreeSet<UsedToken>,
}

impl UsedTokens {
    /// Remembers a token, of at most so many.
    pub(super) fn take(&mut self, token: UsedToken, most: usize, now_ms: u64) -> Result<(), NotTaken> {
        while let Some(oldest) = self.by_expiry.first().filter(|oldest| oldest.expires_at < now_ms) {
            self.ids.remove(&oldest.id);
            self.by_expiry.pop_first();
        }
        if self.ids.contains(&token.id) {
            return Err(NotTaken::Again);
        }
        if self.ids.len() >= most {
            return Err(NotTaken::Full);
        }
        self.ids.insert(token.id.clone());
        self.by_expiry.insert(token);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, expires_at: u64) -> UsedToken {
        UsedToken { id: id.into(), expires_at }
    }

    #[test]
    fn a_token_is_taken_once_and_forgotten_when_it_has_expired() {
        let mut used = UsedTokens::default();
        assert_eq!(used.take(token("a", 100), 2, 0), Ok(()));
        assert_eq!(used.take(token("a", 200), 2, 50), Err(NotTaken::Again), "its jti counts, whatever else it says");
        assert_eq!(used.take(token("b", 300), 2, 50), Ok(()));
        assert_eq!(used.take(token("c", 300), 2, 100), Err(NotTaken::Full));
        assert_eq!(used.take(token("c", 300), 2, 101), Ok(()), "the first has expired");
        assert_eq!((used.ids.len(), used.by_expiry.len()), (2, 2));
    }
}
