//! Request headers that may occur only once: of two, the server and a proxy in front of it could use different ones.

use axum::http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;
use crate::message::Token;

/// The value of a header; refuses a request that has it more than once (RFC 9110 section 5.3).
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.as_bytes());
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::bad(format!("{name}: this header may occur only once"))),
    }
}

/// The bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<Token>, Refusal> {
    let authorization = single(headers, &header::AUTHORIZATION)?;
    Token::from_authorization(authorization).map_err(|invalid| Refusal::bad(invalid.message))
}
