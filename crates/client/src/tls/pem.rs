//! PEM text (RFC 7468) as people have it: with a byte-order mark, indented, or with two files glued together where the
//! first ended without a line break. A part that cannot be read is an error with its line, never left out in silence.
//! Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

/// Five dashes, which no Base64 has.
const DASHES: &[u8] = b"-----";
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

/// One part of a PEM text.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, such as `CERTIFICATE`.
    pub label: String,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The content; empty if it is encrypted.
    pub content: Vec<u8>,
    /// Whether a passphrase is needed to read it.
    pub is_encrypted: bool,
}

/// Why a PEM text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PemError {
    /// It is in UTF-16, as some editors save.
    #[error("it is UTF-16; save it as UTF-8 or ASCII")]
    Utf16,
    /// A part without its last line.
    #[error("line {line}: what begins here as {label} has no end; the file is cut off or damaged")]
    NoEnd {
        /// Where the part begins.
        line: usize,
        /// What it is.
        label: String,
    },
    /// A last line without its part.
    #[error("line {line}: a part ends here that has no beginning; the file is damaged")]
    NoBegin {
        /// Where it stands.
        line: usize,
    },
    /// What a part holds is no Base64.
    #[error("line {line}: what begins here as {label} is no Base64; the file is damaged")]
    Base64 {
        /// Where the part begins.
        line: usize,
        /// What it is.
        label: String,
    },
    /// A certificate in a form of OpenSSL's own.
    #[error("line {line}: {label} is OpenSSL's own form; write it as `openssl x509 -in FILE` does")]
    Form {
        /// Where the part begins.
        line: usize,
        /// What it is.
        label: String,
    },
}

/// All parts of a text, in their order. What stands between them is left out, as RFC 7468 section 2 has it.
pub fn parts(text: &[u8]) -> Result<Vec<Part>, PemError> {
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        return Err(PemError::Utf16);
    }
    let line = |at: usize| text[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(begin) = find(text, BEGIN, at) {
        if let Some(end) = find(&text[..begin], END, at) {
            return Err(PemError::NoBegin { line: line(end) });
        }
        let from = begin + BEGIN.len();
        let no_end = |label: &[u8]| {
            let label: String = String::from_utf8_lossy(label).chars().take(64).collect();
            PemError::NoEnd { line: line(begin), label }
        };
        let first_line = text[from..].split(|&byte| byte == b'\n' || byte == b'\r').next().unwrap_or_default();
        let Some(length) = find(first_line, DASHES, 0) else { return Err(no_end(first_line)) };
        let label = &first_line[..length];
        let body = from + length + DASHES.len();
        let last = [END, label, DASHES].concat();
        let end = find(text, &last, body).ok_or_else(|| no_end(label))?;
        if find(&text[..end], BEGIN, body).is_some() {
            return Err(no_end(label));
        }
        let name = String::from_utf8_lossy(label).into_owned();
        let is_encrypted = name.starts_with("ENCRYPTED ") || find(&text[..end], b",ENCRYPTED", body).is_some();
        let content = if is_encrypted { Some(Vec::new()) } else { decoded(&text[body..end]) };
        let Some(content) = content else { return Err(PemError::Base64 { line: line(begin), label: name }) };
        parts.push(Part { label: name, line: line(begin), content, is_encrypted });
        at = end + last.len();
    }
    match find(text, END, at) {
        Some(end) => Err(PemError::NoBegin { line: line(end) }),
        None => Ok(parts),
    }
}

/// The certificates (DER) of a text, in their order. Parts of other kinds are left to others.
pub fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    let is_one = |part: Part| match part.label.as_str() {
        // RFC 7468 section 5.1 has the other two taken for the first.
        "CERTIFICATE" | "X509 CERTIFICATE" | "X.509 CERTIFICATE" => Some(Ok(part.content)),
        "TRUSTED CERTIFICATE" => Some(Err(PemError::Form { line: part.line, label: part.label })),
        _ => None,
    };
    parts(text)?.into_iter().filter_map(is_one).collect()
}

/// What Base64 holds, whatever the breaks in it.
fn decoded(body: &[u8]) -> Option<Vec<u8>> {
    let dense: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(dense).ok()
}

/// Where `wanted` begins in `text`, from `from` on.
fn find(text: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    text.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nb25l\n-----END CERTIFICATE-----";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\r\ndH\r\ndv\r\n-----END CERTIFICATE-----";

    fn read(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
        certificates(text.as_bytes())
    }

    #[test]
    fn every_certificate_is_taken_however_the_parts_are_put_together() {
        let both = Ok(vec![b"one".to_vec(), b"two".to_vec()]);
        for text in [
            format!("{ONE}\n{TWO}\n"),
            format!("{ONE}{TWO}"),
            format!("\u{feff}{ONE}\n\u{feff}{TWO}"),
            format!("A name:\n{ONE} and\n  {TWO}"),
            format!("{ONE}\n-----BEGIN EC PARAMETERS-----\nBgg=\n-----END EC PARAMETERS-----\n{TWO}"),
            format!("{ONE}\n{}", TWO.replace("\r\n", "\r\n    ")),
            format!("{ONE}\r{}", TWO.replace("\r\n", "\r")),
            format!("{ONE}{}", TWO.replace("CERT", "X509 CERT")),
        ] {
            assert_eq!(read(&text), both, "{text:?}");
        }
        assert_eq!(read("nothing"), Ok(Vec::new()));
    }

    #[test]
    fn a_part_that_cannot_be_read_is_reported_with_its_line() {
        let label = || "CERTIFICATE".to_owned();
        for (text, error) in [
            (format!("{ONE}\n{}", &TWO[..40]), PemError::NoEnd { line: 4, label: label() }),
            (format!("{}\n{TWO}", &ONE[..33]), PemError::NoEnd { line: 1, label: label() }),
            (format!("{ONE}\n-----BEGIN CERTIFICATE\nb25l"), PemError::NoEnd { line: 4, label: label() }),
            (format!("{ONE}\n{}", &TWO[1..]), PemError::NoBegin { line: 7 }),
            (format!("{}\n{TWO}", &ONE[1..]), PemError::NoBegin { line: 3 }),
            (ONE.replace("b25l", "b25l!"), PemError::Base64 { line: 1, label: label() }),
            (
                format!("{ONE}{}", TWO.replace("CERT", "TRUSTED CERT")),
                PemError::Form { line: 3, label: "TRUSTED CERTIFICATE".into() },
            ),
            ("-----BEGIN -----".into(), PemError::NoEnd { line: 1, label: String::new() }),
        ] {
            assert_eq!(read(&text), Err(error), "{text:?}");
        }
        let utf16: Vec<u8> = std::iter::once(0xfeff).chain(ONE.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        assert_eq!(certificates(&utf16), Err(PemError::Utf16));
    }

    #[test]
    fn an_encrypted_part_is_recognised_in_both_forms() {
        let new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII\n-----END ENCRYPTED PRIVATE KEY-----";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMII\n\
                   -----END RSA PRIVATE KEY-----";
        for text in [new, old] {
            let parts = parts(format!("{ONE}\n{text}").as_bytes()).expect("both parts");
            assert_eq!(
                parts.iter().map(|part| (part.line, part.is_encrypted)).collect::<Vec<_>>(),
                [(1, false), (4, true)]
            );
        }
    }
}
