//! Bounds of user names, from a token's `sub` or a certificate's subject. Users that look alike could be mistaken for
//! each other, so a name may not contain anything invisible.

use super::MAX_USER_BYTES;
use crate::printable::is_ignorable;

/// Bounds of a user name, for error texts.
pub const USER_BOUNDS: &str =
    "1 to 128 bytes are allowed, without control characters, invisible characters, or blanks at the ends";

/// Whether a text is a valid user name.
pub fn is_user(text: &str) -> bool {
    let hides = |c: char| c.is_control() || is_ignorable(c);
    (1..=MAX_USER_BYTES).contains(&text.len())
        && !text.contains(hides)
        && !text.starts_with(is_blank)
        && !text.ends_with(is_blank)
}

/// White space, and the Braille blank, which Unicode does not count as white space.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{2800}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_has_nothing_invisible() {
        for good in ["ada", "Ada Lovelace", "ada@example.com", "auth0|5f7c", "\u{fc}".repeat(64).as_str(), "שלום", "👩"]
        {
            assert!(is_user(good), "{good:?}");
        }
        for hidden in [
            '\0',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180e}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{1d173}',
            '\u{e0041}',
            '\u{e0100}',
        ] {
            assert!(!is_user(&format!("a{hidden}da")), "{hidden:?}");
        }
        for blank in [" ", "\t", "\u{a0}", "\u{3000}", "\u{2003}", "\u{2800}"] {
            for bad in [blank.to_owned(), format!("{blank}ada"), format!("ada{blank}")] {
                assert!(!is_user(&bad), "{bad:?}");
            }
        }
        assert!(!is_user("") && !is_user(&"x".repeat(129)) && !is_user(&"\u{fc}".repeat(65)));
    }
}
