//! A client's display name, which other clients' pages and terminals show among their own text: its bounds.

use std::fmt;

use serde::Serialize;

use super::{Invalid, MAX_NAME_CHARS};

/// What a name may be, in words; the server's own is held to the same.
pub const NAME_BOUNDS: &str = "1 to 64 characters are allowed, not white space alone, without control \
     characters, line separators and bidi controls (U+2028 to U+202E, U+2066 to U+2069)";

/// A client's display name: 1 to 64 characters, not all of them white space. None may be a control character, or what
/// breaks or turns the text around it: line and paragraph separators, bidi embeddings, overrides and isolates (U+2028 to
/// U+202E, U+2066 to U+2069). Joiners and marks are part of how names are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ClientName(Box<str>);

impl ClientName {
    /// Checks and takes a name.
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
    fn names_are_counted_in_characters_and_carry_nothing_that_breaks_or_turns_a_line() {
        for good in [&"ü".repeat(64), " Ada ", "\"Ada\" \\ <b>", "👩\u{200d}🚀", "e\u{301}", "می\u{200c}خواهم", "שלום"]
        {
            assert!(ClientName::new(good).is_ok(), "{good:?} is a name");
        }
        for bad in ["", &"x".repeat(65), "a\nb", "\u{7f}", "a\u{85}"] {
            assert!(ClientName::new(bad).is_err(), "{bad:?} is no name");
        }
        for bad in ('\u{2028}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            let refused = ClientName::new(&format!("a{bad}b")).expect_err("no name").message;
            assert!(refused.starts_with("client_name: ") && refused.contains("U+2066"), "{refused}");
        }
    }

    #[test]
    fn white_space_alone_is_no_name() {
        for bad in [" ", "\u{a0}", "\u{3000}\u{2003} "] {
            assert!(ClientName::new(bad).is_err(), "{bad:?} is no name");
        }
    }
}
