//! A client's token: its bounds, and its secrecy. A token in a log, an error or a panic could be used by its readers,
//! so `Debug` hides it, also in everything that contains one.

use std::fmt;

use super::{Invalid, MAX_TOKEN_BYTES};

/// Proof of a client's identity, as received: 1 to 8192 bytes of visible ASCII (0x21 to 0x7E). Its `Debug` is
/// `Token(..)`; it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Creates a token, if it is within bounds.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds, and contains nothing of the token.
    pub fn new(token: &str) -> Result<Self, Invalid> {
        let fits = (1..=MAX_TOKEN_BYTES).contains(&token.len());
        if !fits || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::field(format!(
                "token: 1 to {MAX_TOKEN_BYTES} bytes of visible ASCII are allowed, no spaces"
            )));
        }
        Ok(Self(token.into()))
    }

    /// Reads the token from an `Authorization` header (RFC 6750 section 2.1), if there is one.
    ///
    /// # Errors
    /// [`Invalid`] if the scheme is not `Bearer`, or the token is out of bounds.
    pub fn from_authorization(header: Option<&[u8]>) -> Result<Option<Self>, Invalid> {
        let Some(header) = header else { return Ok(None) };
        let no_bearer = || Invalid::field("authorization: Bearer with a token is expected");
        let (scheme, token) =
            str::from_utf8(header).ok().and_then(|text| text.split_once(' ')).ok_or_else(no_bearer)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(no_bearer());
        }
        Self::new(token.trim_matches(' ')).map(Some)
    }

    /// The token as text. Secret: never log it or show it to others.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClientMessage, Handshake, Request};
    use super::*;

    #[test]
    fn a_token_is_visible_ascii_of_at_most_8192_bytes() {
        for good in ["t", "!~", "eyJhbGciOiJFUzI1NiJ9.e30.c2ln-_", &"x".repeat(MAX_TOKEN_BYTES)] {
            assert_eq!(Token::new(good).expect("a token").as_str(), good);
        }
        for bad in ["", " ", "a b", "a\n", "a\0", "a\u{7f}", "ä", "\u{202e}", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            let refused = Token::new(bad).expect_err("not a token").message;
            assert!(refused.starts_with("token: "), "{refused}");
        }
    }

    #[test]
    fn a_bearer_token_is_read_from_its_header() {
        let taken = |header: &str| Token::from_authorization(Some(header.as_bytes()));
        assert_eq!(Token::from_authorization(None), Ok(None));
        for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(taken(good), Token::new("abc").map(Some), "{good:?}");
        }
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b"] {
            assert!(taken(bad).is_err(), "{bad:?}");
        }
        assert!(Token::from_authorization(Some(b"Bearer \xff")).is_err());
    }

    #[test]
    fn a_token_never_appears_in_debug_output_or_errors() {
        let token = Token::new("s3cret").expect("a token");
        let handshake = Handshake { token: Some(token), ..Handshake::new() };
        let request = Request::from(ClientMessage::Handshake(handshake));
        let shown = format!("{request:?}");
        assert!(shown.contains("token: Some(Token(..))") && !shown.contains("s3cret"), "{shown}");
        let refused = format!("{:?}", Token::new("s3cret s3cret"));
        assert!(!refused.contains("s3cret"), "{refused}");
    }
}
