//! Fields of a request that stand in it once, if at all: of two, the server and whoever is before it could each see another.

use axum::http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;
use crate::message::Token;

/// What a field says; refuses a request in which it stands more than once (RFC 9110 section 5.3).
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.as_bytes());
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::bad(format!("{name}: it stands there twice"))),
    }
}

/// The token that a request brings.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<Token>, Refusal> {
    let authorization = single(headers, &header::AUTHORIZATION)?;
    Token::from_authorization(authorization).map_err(|invalid| Refusal::bad(invalid.message))
}
