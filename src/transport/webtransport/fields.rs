//! The fields of a session request (RFC 9114 section 4.3, RFC 9204), checked beyond what the library keeps: it keeps
//! one value for each name, and a normalised path. Pure.
//!
//! QPACK's static and Huffman tables exist only in the library. So this module splits a field section into its lines,
//! which needs only lengths, and has the library decode each text in a line, as a field value in a request known to be
//! valid.
use bytes::Buf;
use thiserror::Error;
use web_transport_quinn::http::{HeaderMap, HeaderName, HeaderValue, header};
use web_transport_quinn::proto::{ConnectError, ConnectRequest, Frame, VarInt};

/// Pseudo-headers in the static table (RFC 9204 appendix A); the library decodes the other names.
const PSEUDO: [(std::ops::RangeInclusive<u64>, &str); 6] = [
    (0..=0, ":authority"),
    (1..=1, ":path"),
    (15..=21, ":method"),
    (22..=23, ":scheme"),
    (24..=28, ":status"),
    (63..=71, ":status"),
];

/// Pseudo-headers of a session request, each exactly once (RFC 8441 section 4).
const OF_REQUEST: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":protocol"];

/// Connection headers of HTTP/1.1, which are forbidden (RFC 9114 section 4.2).
const OF_CONNECTIONS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request for a session, with all its fields.
#[derive(Debug)]
pub(super) struct SessionRequest {
    /// Request whose `headers` are complete, duplicates included.
    pub(super) request: ConnectRequest,
    /// Path as received, without the query.
    pub(super) path: String,
}

/// Reason why a request is invalid.
#[derive(Debug, Error)]
pub(super) enum Malformed {
    /// It cannot be decoded, or requests something else.
    #[error(transparent)]
    Other(#[from] ConnectError),
    /// It breaks a rule of HTTP/3 (RFC 9114 section 4.1.2).
    #[error("{0}")]
    Rule(&'static str),
}

/// Decodes a request from the payload of its HEADERS frame.
pub(super) fn read(section: &[u8]) -> Result<SessionRequest, Malformed> {
    let mut request = ConnectRequest::decode(&mut frame(section).as_slice())?;
    let (mut headers, mut path, mut authority, mut pseudo) = (HeaderMap::new(), None, None, Vec::new());
    for line in lines(section).ok_or(Malformed::Rule("its field section cannot be decoded"))? {
        let (name, value) = line.read()?;
        if name.starts_with(':') {
            if !headers.is_empty() {
                return Err(Malformed::Rule("a pseudo-header after a header"));
            }
            if !OF_REQUEST.contains(&name.as_str()) {
                return Err(Malformed::Rule("a pseudo-header that is not allowed in a session request"));
            }
            if pseudo.contains(&name) {
                return Err(Malformed::Rule("a duplicate pseudo-header"));
            }
            if name == ":path" {
                path = value.as_deref().and_then(|path| path.split('?').next()).map(str::to_owned);
            } else if name == ":authority" {
                authority = value;
            }
            pseudo.push(name);
            continue;
        }
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Malformed::Rule("a header name that is not in lower case"));
        }
        let is_te = name == "te" && value.as_deref() != Some("trailers");
        if is_te || OF_CONNECTIONS.contains(&name.as_str()) {
            return Err(Malformed::Rule("a header that only HTTP/1.1 allows"));
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ConnectError::InvalidHttpHeaderName)?;
        let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
        headers.append(name, value.ok_or(ConnectError::InvalidHttpHeaderValue)?);
    }
    let authority = authority.unwrap_or_default();
    if authority.contains('@') {
        return Err(Malformed::Rule("a user name in its authority"));
    }
    let is_other = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
    if headers.get_all(header::HOST).iter().any(is_other) {
        return Err(Malformed::Rule("its host differs from its authority"));
    }
    request.headers = headers;
    // The path in the static table.
    Ok(SessionRequest { request, path: path.unwrap_or_else(|| "/".to_owned()) })
}

/// A text in a line, possibly Huffman-coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    /// Has the library decode the text.
    fn read(self) -> Option<String> {
        const NAME: &[u8] = b"x";
        let mut section = good();
        integer(&mut section, 0x20, 3, NAME.len());
        section.extend_from_slice(NAME);
        integer(&mut section, if self.is_huffman { 0x80 } else { 0 }, 7, self.bytes.len());
        section.extend_from_slice(self.bytes);
        let request = ConnectRequest::decode(&mut frame(&section).as_slice()).ok()?;
        text(request.headers.get("x")?)
    }
}

/// One line of a field section.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    name: Result<Text<'a>, u64>,
    /// `None` if it is the static table's.
    value: Option<Text<'a>>,
    whole: &'a [u8],
}

impl Line<'_> {
    /// Decodes the name, and the value unless it is a pseudo-header's from the static table.
    fn read(&self) -> Result<(String, Option<String>), Malformed> {
        let unread = Malformed::Rule("a header cannot be decoded");
        let value = self.value.map(|value| value.read().ok_or(Malformed::Rule("a header value cannot be decoded")));
        let value = value.transpose()?;
        let index = match self.name {
            Ok(name) => return Ok((name.read().ok_or(unread)?, value)),
            Err(index) => index,
        };
        if let Some((_, name)) = PSEUDO.iter().find(|(range, _)| range.contains(&index)) {
            return Ok(((*name).to_owned(), value));
        }
        let request = ConnectRequest::decode(&mut frame(&[&good(), self.whole].concat()).as_slice())?;
        let (name, value) = request.headers.iter().next().ok_or(unread)?;
        Ok((name.as_str().to_owned(), text(value)))
    }
}

/// A value as text. It may contain more than ASCII, as some user agents do.
fn text(value: &HeaderValue) -> Option<String> {
    String::from_utf8(value.as_bytes().to_vec()).ok()
}

/// Splits a field section into its lines (RFC 9204 section 4.5). `None` if it ends inside a line, or needs a dynamic
/// table, which was not negotiated.
fn lines(mut section: &[u8]) -> Option<Vec<Line<'_>>> {
    let (required, base) = (take_integer(&mut section, 8)?, take_integer(&mut section, 7)?);
    if (required, base) != (0, 0) {
        return None;
    }
    let mut lines = Vec::new();
    while let Some(&first) = section.first() {
        let begins = section;
        let is_static = |bit: u8| (first & bit != 0).then_some(());
        let (name, value) = if first & 0x80 != 0 {
            is_static(0x40)?;
            (Err(take_integer(&mut section, 6)?), None)
        } else if first & 0x40 != 0 {
            is_static(0x10)?;
            let name = Err(take_integer(&mut section, 4)?);
            (name, Some(take_text(&mut section, 7)?))
        } else {
            is_static(0x20)?;
            let name = Ok(take_text(&mut section, 3)?);
            (name, Some(take_text(&mut section, 7)?))
        };
        lines.push(Line { name, value, whole: &begins[..begins.len() - section.len()] });
    }
    Some(lines)
}

/// Consumes a text: its length has a prefix of `prefix` bits, and the bit before it marks Huffman coding.
fn take_text<'a>(from: &mut &'a [u8], prefix: u8) -> Option<Text<'a>> {
    let is_huffman = *from.first()? & (1 << prefix) != 0;
    let length = usize::try_from(take_integer(from, prefix)?).ok()?;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(Text { is_huffman, bytes })
}

/// Consumes an integer that begins in the last `prefix` bits of the first byte (RFC 7541 section 5.1).
fn take_integer(from: &mut &[u8], prefix: u8) -> Option<u64> {
    let most = (1_u64 << prefix) - 1;
    let first = u64::from(from.try_get_u8().ok()?) & most;
    if first < most {
        return Some(first);
    }
    let mut value = most;
    for shift in (0..=28).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends an integer after the bits of `before`.
fn integer(to: &mut Vec<u8>, before: u8, prefix: u8, value: usize) {
    let most = (1_usize << prefix) - 1;
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    if value < most {
        return to.push(before | byte(value));
    }
    to.push(before | byte(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        to.push(byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    to.push(byte(rest));
}

/// Wraps a field section in a HEADERS frame.
fn frame(section: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(section.len() + 2 * VarInt::MAX_SIZE);
    Frame::HEADERS.encode(&mut frame);
    VarInt::from_u32(u32::try_from(section.len()).unwrap_or(u32::MAX)).encode(&mut frame);
    frame.extend_from_slice(section);
    frame
}

/// A valid session request's field section, made of plain literals.
fn good() -> Vec<u8> {
    let mut section = vec![0, 0];
    let fields = [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
        (":protocol", "webtransport"),
    ];
    for (name, value) in fields {
        literal(&mut section, name, value);
    }
    section
}

fn literal(section: &mut Vec<u8>, name: &str, value: &str) {
    integer(section, 0x20, 3, name.len());
    section.extend_from_slice(name.as_bytes());
    integer(section, 0, 7, value.len());
    section.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: [(&str, &str); 5] = [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "localhost:4433"),
        (":path", "/wt"),
        (":protocol", "webtransport"),
    ];

    fn section(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut section = vec![0, 0];
        fields.iter().for_each(|(name, value)| literal(&mut section, name, value));
        section
    }

    fn asked(more: &[(&str, &str)]) -> Result<SessionRequest, String> {
        read(&section(&[&USUAL[..], more].concat())).map_err(|e| e.to_string())
    }

    #[test]
    fn duplicate_headers_are_kept_and_the_path_is_as_received() {
        let asked = asked(&[("authorization", "Bearer a"), ("origin", "https://a"), ("authorization", "Bearer b")]);
        let asked = asked.expect("a request");
        assert_eq!(asked.path, "/wt");
        let all: Vec<_> = asked.request.headers.get_all(header::AUTHORIZATION).iter().collect();
        assert_eq!(all, ["Bearer a", "Bearer b"]);
        assert_eq!(asked.request.headers.len(), 3);
        let more = [("host", "LOCALHOST:4433"), ("te", "trailers"), ("user-agent", "a b\u{fc}cher")];
        let asked = self::asked(&more).expect("a request");
        assert_eq!(asked.request.headers[header::USER_AGENT].as_bytes(), "a b\u{fc}cher".as_bytes());
        // The same name from the static table, 95 there.
        let line = [&[0x50 | 15, 95 - 15, 2][..], "\u{fc}".as_bytes()].concat();
        let asked = read(&[section(&USUAL), line].concat()).expect("a request");
        assert_eq!(asked.request.headers[header::USER_AGENT].as_bytes(), "\u{fc}".as_bytes());
        let mut fields = USUAL;
        fields[3].1 = "/wt/../wt?room=1";
        let asked = read(&section(&fields)).expect("a request");
        assert_eq!((asked.path.as_str(), asked.request.url.path()), ("/wt/../wt", "/wt"));
    }

    #[test]
    fn requests_of_the_library_and_of_browsers_are_decoded() {
        let url = "https://localhost:4433/wt?room=1".parse::<reqwest::Url>().expect("a URL");
        let request = ConnectRequest::new(url)
            .with_header(header::ORIGIN, HeaderValue::from_static("https://app.example"))
            .with_header(header::USER_AGENT, HeaderValue::from_static("a browser"))
            .with_header(HeaderName::from_static("sec-webtransport-http3-draft02"), HeaderValue::from_static("1"))
            .with_protocol("qws");
        let mut frame = Vec::new();
        request.encode(&mut frame).expect("it can be written");
        let mut payload = frame.as_slice();
        let (kind, length) = (VarInt::decode(&mut payload), VarInt::decode(&mut payload));
        assert_eq!(
            (kind.expect("a frame").into_inner(), length.expect("a length").into_inner()),
            (1, payload.len() as u64)
        );
        let asked = read(payload).expect("a request");
        assert_eq!((asked.path.as_str(), asked.request.protocols.len()), ("/wt", 1));
        assert_eq!(asked.request.headers[header::ORIGIN], "https://app.example");
        assert_eq!(asked.request.headers["sec-webtransport-http3-draft02"], "1");
        // A whole field of the static table: 29 is "accept: */*".
        let asked = read(&[section(&USUAL), vec![0x80 | 0x40 | 29]].concat()).expect("a request");
        assert_eq!(asked.request.headers[header::ACCEPT], "*/*");
        // And Huffman-coded (RFC 7541 appendix C.4.1): www.example.com.
        let huffman = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let asked = read(&[&section(&USUAL)[..], &[0x50 | 5, 0x8c], &huffman].concat()).expect("a request");
        assert_eq!(asked.request.headers[header::COOKIE], "www.example.com");
    }

    #[test]
    fn a_request_that_breaks_http3_is_refused() {
        for (more, why) in [
            (&[(":path", "/wt")][..], "duplicate"),
            (&[(":method", "CONNECT")], "duplicate"),
            (&[(":status", "200")], "not allowed in a session request"),
            (&[(":x", "y")], "not allowed in a session request"),
            (&[("origin", "https://a"), (":path", "/wt")], "after a header"),
            (&[("Origin", "https://a")], "lower case"),
            (&[("transfer-encoding", "chunked")], "only HTTP/1.1"),
            (&[("connection", "x")], "only HTTP/1.1"),
            (&[("te", "gzip")], "only HTTP/1.1"),
            (&[("host", "other.example")], "differs from its authority"),
            (&[("host", "localhost:4433"), ("host", "other.example")], "differs from its authority"),
        ] {
            let error = asked(more).expect_err("malformed");
            assert!(error.contains(why), "{more:?}: {error}");
        }
        // Also if the second one is from the static table.
        let error = read(&[section(&USUAL), vec![0x80 | 0x40 | 23]].concat()).expect_err("malformed").to_string();
        assert!(error.contains("duplicate"), "{error}");
        let mut fields = USUAL;
        fields[2].1 = "user@localhost:4433";
        let error = read(&section(&fields)).expect_err("malformed").to_string();
        assert!(error.contains("a user"), "{error}");
        for cut in 1..section(&USUAL).len() {
            assert!(read(&section(&USUAL)[..cut]).is_err(), "the first {cut} bytes");
        }
    }

    #[test]
    fn integers_are_decoded_as_they_are_encoded() {
        for value in [0, 5, 6, 7, 8, 126, 127, 128, 254, 255, 1337, 16_384, 1 << 20] {
            for prefix in 3..=7 {
                let mut bytes = Vec::new();
                integer(&mut bytes, 0, prefix, value);
                let mut rest = bytes.as_slice();
                assert_eq!(take_integer(&mut rest, prefix), Some(value as u64));
                assert!(rest.is_empty());
            }
        }
        assert_eq!(take_integer(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 7), None, "no end");
    }
}
