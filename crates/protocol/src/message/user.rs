//! Who a user is, as a token's `sub` or a certificate's subject tells it: its bounds. Two users that look the same would be
//! taken for each other, so nothing in one may hide.

use super::MAX_USER_BYTES;
use crate::printable::is_ignorable;

/// What a user may be, in words.
pub const USER_BOUNDS: &str =
    "1 to 128 bytes are allowed, without control characters, what does not show, and blanks at the ends";

/// Whether a text is one that a user can go by.
pub fn is_user(text: &str) -> bool {
    let hides = |c: char| c.is_control() || is_ignorable(c);
    (1..=MAX_USER_BYTES).contains(&text.len())
        && !text.contains(hides)
        && !text.starts_with(is_blank)
        && !text.ends_with(is_blank)
}

/// White space, and the blank of Braille, which counts as none.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{2800}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_hides_nothing() {
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
