//! Unpaired surrogates, which JSON can express as escapes (RFC 8259 section 8.2) but UTF-8 cannot. Names of ignored
//! fields may contain them; this module replaces them there, not in values. Pure.

/// Replaces each unpaired surrogate in the member names of the outermost object by U+FFFD, which no name of the
/// protocol contains. `None` if there is none. Only needed for JSON that could not be parsed.
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
    // Only escapes were replaced, by others of the same length.
    mended.and_then(|mended| String::from_utf8(mended).ok())
}

/// Length of an escape, in bytes.
const ESCAPE: usize = 6;

/// Iterates over the positions of unpaired surrogates inside a string, and ends after its closing quote.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Text<'_> {
    /// The UTF-16 unit of the escape at a position, if there is one.
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
    fn unpaired_surrogates_are_replaced_only_in_outermost_names() {
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
