//! Bounds of a client's display name, which other clients' pages and terminals show within their own text.

use std::fmt;

use serde::Serialize;

use super::{Invalid, MAX_NAME_CHARS};

/// Bounds of a name, for error texts; the server's own name has the same.
pub const NAME_BOUNDS: &str = "1 to 64 characters are allowed, not only white space, without control \
     characters, line separators and bidi controls (U+2028 to U+202E, U+2066 to U+2069)";

/// A client's display name: 1 to 64 characters, not all of them white space. Control characters are refused, and so are
/// characters that break or reverse the surrounding text: line and paragraph separators, bidi embeddings, overrides and
/// isolates (U+2028 to U+202E, U+2066 to U+2069). Joiners and marks are allowed, because some scripts need them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ClientName(Box<str>);

impl ClientName {
    /// Creates a name, if it is valid.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let fits = (1..=MAX_NAME_CHARS).contains(&name.chars().count());
        if !fits || name.chars().all(char::is_whitespace) || name.chars().any(is_refused) {
            return Err(Invalid::field(format!("client_name: {NAME_BOUNDS}")));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_refused(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_in_characters_and_cannot_break_or_reverse_a_line() {
        for good in [&"ü".repeat(64), " Ada ", "\"Ada\" \\ <b>", "👩\u{200d}🚀", "e\u{301}", "می\u{200c}خواهم", "שלום"]
        {
            assert!(ClientName::new(good).is_ok(), "{good:?} is a name");
        }
        for bad in ["", &"x".repeat(65), "a\nb", "\u{7f}", "a\u{85}"] {
            assert!(ClientName::new(bad).is_err(), "{bad:?} is not a name");
        }
        for bad in ('\u{2028}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            let refused = ClientName::new(&format!("a{bad}b")).expect_err("not a name").message;
            assert!(refused.starts_with("client_name: ") && refused.contains("U+2066"), "{refused}");
        }
    }

    #[test]
    fn white_space_alone_is_not_a_name() {
        for bad in [" ", "\u{a0}", "\u{3000}\u{2003} "] {
            assert!(ClientName::new(bad).is_err(), "{bad:?} is not a name");
        }
    }
}
