//! Halves of surrogate pairs, which JSON can write as escapes (RFC 8259 section 8.2) and no text can hold. The names of
//! fields that are ignored may hold them; these are told from values, and made readable. Pure.

/// The same JSON with each half of a pair in the name of a member of the outermost object replaced by U+FFFD, which no name
/// of the protocol has. `None` where there is none. Only for JSON that could not be read: the names of others are sound.
pub fn mend_names(json: &str) -> Option<String> {
    if !json.trim_start().starts_with('{') {
        return None;
    }
    let mut mended: Option<Vec<u8>> = None;
    let (mut depth, mut at, mut is_name) = (0_usize, 0, false);
    let bytes = json.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                is_name = byte == b'{';
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => is_name = depth == 1,
            b':' => is_name = false,
            b'"' => {
                let mut halves = Text { bytes, at: at + 1 };
                for half in halves.by_ref() {
                    if is_name && depth == 1 {
                        let mended = mended.get_or_insert_with(|| bytes.to_vec());
                        mended[half..half + ESCAPE].copy_from_slice(b"\\ufffd");
                    }
                }
                at = halves.at;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    // Escapes alone were replaced by others of the same length.
    mended.and_then(|mended| String::from_utf8(mended).ok())
}

/// Bytes of an escape.
const ESCAPE: usize = 6;

/// The inside of a string; gives where halves of pairs stand in it, and ends behind its closing quote.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Text<'_> {
    /// The unit that an escape at a place writes, if there is one.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.bytes.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

impl Iterator for Text<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let here = self.at;
            match byte {
                b'"' => {
                    self.at += 1;
                    return None;
                }
                b'\\' => match (self.unit(here), self.unit(here + ESCAPE)) {
                    (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => self.at += 2 * ESCAPE,
                    (Some(0xd800..=0xdfff), _) => {
                        self.at += ESCAPE;
                        return Some(here);
                    }
                    (Some(_), _) => self.at += ESCAPE,
                    (None, _) => self.at += 2,
                },
                _ => self.at += 1,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_in_outermost_names_alone_are_mended() {
        for (json, expected) in [
            (r#"{"a\ud83d":1}"#, Some(r#"{"a\ufffd":1}"#)),
            (r#"{"\udc00\ud83dx":{"\ud83d":1},"b":"\ud83d"}"#, Some(r#"{"\ufffd\ufffdx":{"\ud83d":1},"b":"\ud83d"}"#)),
            (r#"{"a":["\ud83d",{"\ud83d":"}"}],"\ud83d":2}"#, Some(r#"{"a":["\ud83d",{"\ud83d":"}"}],"\ufffd":2}"#)),
            (r#"{"\ud83d\ude00":1}"#, None),
            (r#"{"a":"\ud83d"}"#, None),
            (r#"{"\\ud83d":1}"#, None),
            (r#"["\ud83d","\ud83d"]"#, None),
            (r#"{"a":{"\ud83d":1}}"#, None),
            (r#"{"\ud83"#, None),
            ("", None),
        ] {
            assert_eq!(mend_names(json).as_deref(), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_walked_to_its_end(json in r#"[{}\[\],:"\\ud83dc0e a]{0,60}"#) {
            if let Some(mended) = mend_names(&json) {
                prop_assert_eq!(mended.len(), json.len());
            }
        }
    }
}
