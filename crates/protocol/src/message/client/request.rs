//! Requests that another client answers: `request`, `reply` and `cancel`.

use std::ops::RangeInclusive;

use super::wire::{Source, payload};
use super::{Invalid, Payload, RequestId, TopicName};
use crate::message::fields::{Scalar, required};
use crate::message::{Recipient, UserName};

/// Bounds of the time that a request waits for its reply, in milliseconds.
pub const REQUEST_TIMEOUT_MS: RangeInclusive<u64> = 100..=300_000;
/// The time that a request waits for its reply if it does not say so, in milliseconds.
pub const DEFAULT_REQUEST_TIMEOUT_MS: u64 = 10_000;
/// Longest reason of a failed reply, in bytes.
pub const MAX_FAILURE_BYTES: usize = 1024;
/// Bounds of the code of a failed reply.
pub const FAILURE_CODES: RangeInclusive<u16> = 400..=599;

/// The number of an open request, which the server has chosen; opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallId(Box<str>);

impl CallId {
    /// Creates it from its text.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if (1..=64).contains(&text.len()) {
            return Ok(Self(text.into()));
        }
        Err(Invalid::field("request: the text of 1 to 64 bytes that came with the request is expected"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallTarget {
    /// One of those that answer requests to a topic.
    Topic(TopicName),
    /// A client, or one of a user's that answers requests.
    Recipient(Recipient),
}

/// The fields of a client's `request`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Where it goes.
    pub to: CallTarget,
    /// The content.
    pub payload: Payload,
    /// How long it waits for its reply, in milliseconds; within [`REQUEST_TIMEOUT_MS`].
    pub timeout_ms: Option<u64>,
}

impl Call {
    /// A request that waits for [`DEFAULT_REQUEST_TIMEOUT_MS`].
    pub fn new(to: CallTarget, payload: impl Into<Payload>) -> Self {
        Self { to, payload: payload.into(), timeout_ms: None }
    }

    pub(super) fn read<'a>(
        f: &mut impl Source<'a>,
        json: &bytestring::ByteString,
        has_attachment: bool,
    ) -> Result<Self, Invalid> {
        let to = match (f.has("topic"), f.has("to") || f.has("user")) {
            (true, true) => return Err(Invalid::field("topic: not together with to or user; send one of them")),
            (true, false) => CallTarget::Topic(f.topic()?),
            (false, true) => CallTarget::Recipient(recipient(f)?),
            (false, false) => return Err(Invalid::field("topic: topic, to or user is required here")),
        };
        let timeout_ms = f.integer("timeout_ms")?;
        if timeout_ms.is_some_and(|ms| !REQUEST_TIMEOUT_MS.contains(&ms)) {
            return Err(Invalid::field("timeout_ms: 100 to 300000 milliseconds are allowed"));
        }
        Ok(Self { to, payload: payload(f, json, has_attachment)?, timeout_ms })
    }
}

/// Reads the receivers of a message to single clients: `to` or `user`.
pub(super) fn recipient<'a>(f: &mut impl Source<'a>) -> Result<Recipient, Invalid> {
    match (f.uuid("to")?, f.text("user")?) {
        (Some(id), None) => Ok(Recipient::Client(id)),
        (None, Some(user)) => UserName::new(&user).map(Recipient::User),
        (Some(_), Some(_)) => Err(Invalid::field("user: not together with to; send one of them")),
        (None, None) => Err(Invalid::field("to: required here, or user")),
    }
}

/// A reason why a request could not be answered as it wished, from the client that got it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Like an HTTP status, within [`FAILURE_CODES`].
    pub code: u16,
    /// The reason, for people: 1 to [`MAX_FAILURE_BYTES`] bytes.
    pub message: String,
}

impl Failure {
    /// A failure with a reason.
    ///
    /// # Errors
    /// [`Invalid`] if the code or the reason is out of its bounds.
    pub fn new(code: u16, message: impl Into<String>) -> Result<Self, Invalid> {
        let message = message.into();
        if !FAILURE_CODES.contains(&code) {
            return Err(Invalid::field("code: 400 to 599 is allowed"));
        }
        if !(1..=MAX_FAILURE_BYTES).contains(&message.len()) {
            return Err(Invalid::field(format!("error: 1 to {MAX_FAILURE_BYTES} bytes are allowed")));
        }
        Ok(Self { code, message })
    }
}

/// The fields of a client's `reply`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The request that it answers.
    pub request: CallId,
    /// The content; empty only for a failure.
    pub payload: Payload,
    /// Why the request failed, if it did.
    pub failure: Option<Failure>,
}

impl Answer {
    /// An answer with this content.
    pub fn new(request: CallId, payload: impl Into<Payload>) -> Self {
        Self { request, payload: payload.into(), failure: None }
    }

    /// An answer that the request failed.
    pub fn failed(request: CallId, failure: Failure) -> Self {
        Self { request, payload: Payload::default(), failure: Some(failure) }
    }

    pub(super) fn read<'a>(
        f: &mut impl Source<'a>,
        json: &bytestring::ByteString,
        has_attachment: bool,
    ) -> Result<Self, Invalid> {
        let request = CallId::new(&required(f.text("request")?, "request")?)?;
        let code = f.integer("code")?;
        let failure = match f.text("error")? {
            Some(message) => {
                let code = code.map_or(Ok(500), u16::try_from).unwrap_or(0);
                Some(Failure::new(code, message)?)
            }
            None if code.is_some() => return Err(Invalid::field("code: only together with error")),
            None => None,
        };
        let has_content = has_attachment || failure.is_some();
        Ok(Self { request, payload: payload(f, json, has_content)?, failure })
    }
}

/// Reads the `re` of a `cancel`: the id of an open request.
pub(super) fn cancelled(scalar: &Scalar<'_>) -> Result<RequestId, Invalid> {
    let re = RequestId::from_scalar(scalar).map_err(|_| Invalid::field("re: the id of a request is expected"))?;
    required(re, "re")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::frame::Body;
    use crate::message::Request;

    fn refused(json: &str) -> String {
        let body = Body { json: Bytes::copy_from_slice(json.as_bytes()), attachment: None };
        Request::parse(&body).expect_err(json).message
    }

    #[test]
    fn a_wrong_request_or_reply_is_refused_by_the_field_that_has_to_change() {
        let to = "\"to\":\"eab95712-f81a-4916-a1a4-ee1bdbd0d292\"";
        for (json, field) in [
            (r#"{"type":"request","id":1,"data":1}"#.to_owned(), "topic"),
            (format!(r#"{{"type":"request","id":1,"topic":"a",{to},"data":1}}"#), "topic"),
            (format!(r#"{{"type":"request","id":1,"user":"ada",{to},"data":1}}"#), "user"),
            (r#"{"type":"request","id":1,"topic":"a"}"#.to_owned(), "content"),
            (r#"{"type":"request","topic":"a","data":1}"#.to_owned(), "id"),
            (r#"{"type":"request","id":1,"topic":"a","data":1,"timeout_ms":99}"#.to_owned(), "timeout_ms"),
            (r#"{"type":"request","id":1,"topic":"a.*","data":1}"#.to_owned(), "topic"),
            (r#"{"type":"reply","data":1}"#.to_owned(), "request"),
            (r#"{"type":"reply","request":"7"}"#.to_owned(), "content"),
            (r#"{"type":"reply","request":"7","data":1,"code":400}"#.to_owned(), "code"),
            (r#"{"type":"reply","request":"7","error":"no","code":399}"#.to_owned(), "code"),
            (r#"{"type":"reply","request":"7","error":""}"#.to_owned(), "error"),
            (r#"{"type":"cancel"}"#.to_owned(), "re"),
        ] {
            let message = refused(&json);
            assert!(message.starts_with(&format!("{field}: ")), "{json}: {message}");
        }
    }
}
