//! Remembers used tokens until they expire, if each is valid only once. Pure.

use std::collections::{BTreeSet, HashSet};

/// A token that is valid only once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UsedToken {
    /// Its expiry, in Unix milliseconds, after which it is refused anyway.
    pub(super) expires_at: u64,
    /// Its `jti`.
    pub(super) id: Box<str>,
}

/// Why a token cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseError {
    /// It was used before.
    Reused,
    /// The table is full.
    Full,
}

/// The used tokens, by id and by expiry.
#[derive(Debug, Default)]
pub(super) struct UsedTokens {
    ids: HashSet<Box<str>>,
    by_expiry: BTreeSet<UsedToken>,
}

impl UsedTokens {
    /// Remembers a token, if it is new and fewer than `most` are remembered.
    pub(super) fn use_up(&mut self, token: UsedToken, most: usize, now_ms: u64) -> Result<(), UseError> {
        while let Some(oldest) = self.by_expiry.first().filter(|oldest| oldest.expires_at < now_ms) {
            self.ids.remove(&oldest.id);
            self.by_expiry.pop_first();
        }
        if self.ids.contains(&token.id) {
            return Err(UseError::Reused);
        }
        if self.ids.len() >= most {
            return Err(UseError::Full);
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
    fn a_token_is_accepted_once_and_forgotten_after_its_expiry() {
        let mut used = UsedTokens::default();
        assert_eq!(used.use_up(token("a", 100), 2, 0), Ok(()));
        assert_eq!(used.use_up(token("a", 200), 2, 50), Err(UseError::Reused), "only its jti counts");
        assert_eq!(used.use_up(token("b", 300), 2, 50), Ok(()));
        assert_eq!(used.use_up(token("c", 300), 2, 100), Err(UseError::Full));
        assert_eq!(used.use_up(token("c", 300), 2, 101), Ok(()), "the first has expired");
        assert_eq!((used.ids.len(), used.by_expiry.len()), (2, 2));
    }
}
