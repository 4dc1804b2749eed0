//! Text from peers, made safe for terminals and logs: nothing in it can move the cursor, stay invisible, or reverse the
//! text around it.

use std::fmt::{self, Write};

/// Displays text with every character escaped that a terminal would act on or not display.
///
/// ```
/// use quic_websocket_protocol::Printable;
/// assert_eq!(Printable::new("a\nb\u{1b}[31m 🚀").to_string(), "a\\u{a}b\\u{1b}[31m 🚀");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a> {
    text: &'a str,
    most: usize,
}

impl<'a> Printable<'a> {
    /// The whole text.
    pub fn new(text: &'a str) -> Self {
        Self { text, most: usize::MAX }
    }

    /// The first 200 characters, for a log line.
    pub fn excerpt(text: &'a str) -> Self {
        Self { text, most: 200 }
    }

    /// Whether a character is displayed unchanged.
    pub fn shows(c: char) -> bool {
        !c.is_control() && !is_invisible(c)
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.text.chars();
        for c in rest.by_ref().take(self.most) {
            if Self::shows(c) {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_unicode())?;
            }
        }
        if rest.next().is_some() { f.write_str("...") } else { Ok(()) }
    }
}

/// Line and paragraph separators, zero-width characters and bidi controls. The zero-width joiner is kept, because emoji
/// use it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Whether a character is invisible: line and paragraph separators, zero-width characters, bidi controls, and Unicode's
/// `Default_Ignorable_Code_Point`.
pub fn is_ignorable(c: char) -> bool {
    is_invisible(c)
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200d}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_cut_by_characters_and_cannot_reverse_the_line() {
        assert_eq!(Printable::excerpt("Grüße 🚀").to_string(), "Grüße 🚀");
        assert_eq!(Printable::excerpt("a\u{202e}b\u{2028}").to_string(), "a\\u{202e}b\\u{2028}");
        assert_eq!(Printable::excerpt(&"ü".repeat(300)).to_string(), format!("{}...", "ü".repeat(200)));
        assert_eq!(Printable::new(&"ü".repeat(300)).to_string(), "ü".repeat(300));
    }
}
