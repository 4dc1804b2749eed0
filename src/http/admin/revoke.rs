//! Revocation of tokens by the operator.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::act::parse;
use super::{Http, Refusal};
use crate::auth::{Change, MAX_JTI_BYTES, RevocationError, RevocationPage, Revoked, Terms};
use crate::message::{MAX_INTEGER, USER_BOUNDS, is_user, now_ms};

/// Number of listed revocations if the request does not set it, and at most.
const LISTED: usize = 1000;
const MAX_LISTED: usize = 10_000;

/// The tokens to revoke: one with an id, those of a user, or all; the latter two issued before a time. Times are in
/// Unix milliseconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    jti: Option<Box<str>>,
    user: Option<Box<str>>,
    before: Option<u64>,
    until: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    limit: Option<usize>,
    after: Option<String>,
}

/// `POST /api/revoke`
pub(super) async fn revoke(
    State(http): State<Arc<Http>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let expected = r#"{"jti":"..."}, {"user":"..."} or {"before":1767225600000}"#;
    let Wanted { jti, user, before, until } = parse(body, expected)?;
    if before.is_some_and(|before| before > MAX_INTEGER) {
        return Err(Refusal::bad("before: a time in Unix milliseconds is expected, at most 2^53 - 1"));
    }
    if until.is_some_and(|until| until <= now_ms() || until > MAX_INTEGER) {
        return Err(Refusal::bad("until: a time in Unix milliseconds in the future is expected"));
    }
    let change = match (what(jti, user)?, before) {
        (Some(Revoked::Jti(_)), Some(_)) => return Err(Refusal::bad("before: a single token has none; leave it out")),
        (Some(what @ Revoked::Jti(_)), None) => Change::Revoke(what, Terms { before: None, until }),
        (Some(what), before) => Change::Revoke(what, Terms { before: before.or_else(|| Some(now_ms())), until }),
        (None, Some(_)) if until.is_some() => {
            return Err(Refusal::bad("until: a time for all tokens has none; leave it out"));
        }
        (None, Some(before)) => Change::RevokeBefore(before),
        (None, None) => return Err(Refusal::bad(format!("the body: {expected} is expected"))),
    };
    make(&http, change).await
}

/// `POST /api/unrevoke`
pub(super) async fn unrevoke(
    State(http): State<Arc<Http>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let expected = r#"{"jti":"..."}, {"user":"..."} or {"before":1767225600000}"#;
    let Wanted { jti, user, before, until } = parse(body, expected)?;
    let change = match (what(jti, user)?, before, until) {
        (Some(what), None, None) => Change::Restore(what),
        (None, Some(before), None) => Change::RestoreBefore(before),
        _ => return Err(Refusal::bad(format!("the body: {expected} is expected, with one field"))),
    };
    make(&http, change).await
}

/// `GET /api/revocations?limit=N&after=CURSOR`
pub(super) async fn list(
    State(http): State<Arc<Http>>,
    listed: Result<Query<Listed>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let wrong = || {
        Refusal::bad(format!("limit: 1 to {MAX_LISTED} is allowed, as in ?limit=100; after: the next of another page"))
    };
    let Query(Listed { limit, after }) = listed.map_err(|_| wrong())?;
    let limit = limit.unwrap_or(LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(wrong());
    }
    let after = after.map(|after| of_cursor(&after).ok_or_else(wrong)).transpose()?;
    let revocations = http.worker_context.context.auth.revocations();
    let RevocationPage { entries, total, before, next } = revocations.page(after.as_ref(), limit);
    let mut page = json!({ "revocations": entries, "total": total, "kept": revocations.is_kept() });
    if let Some(before) = before {
        page["before"] = before.into();
    }
    if let Some(next) = next {
        page["next"] = cursor(&next).into();
    }
    Ok(Json(page))
}

/// The tokens that a body names by id or user.
fn what(jti: Option<Box<str>>, user: Option<Box<str>>) -> Result<Option<Revoked>, Refusal> {
    match (jti, user) {
        (Some(_), Some(_)) => Err(Refusal::bad("the body: only one of jti and user is expected")),
        (Some(id), None) if id.is_empty() || id.len() > MAX_JTI_BYTES => {
            Err(Refusal::bad(format!("jti: 1 to {MAX_JTI_BYTES} bytes are allowed")))
        }
        (None, Some(user)) if !is_user(&user) => Err(Refusal::bad(format!("user: {USER_BOUNDS}"))),
        (Some(id), None) => Ok(Some(Revoked::Jti(id))),
        (None, Some(user)) => Ok(Some(Revoked::User(user))),
        (None, None) => Ok(None),
    }
}

async fn make(http: &Http, change: Change) -> Result<Json<Value>, Refusal> {
    let context = &http.worker_context.context;
    if !context.config.auth.accepts_tokens() {
        return Err(Refusal::new(StatusCode::CONFLICT, "this server accepts no tokens; set auth.keys or auth.jwks"));
    }
    let revocations = context.auth.revocations();
    revocations.change(change).await?;
    Ok(Json(json!({ "kept": revocations.is_kept() })))
}

impl From<RevocationError> for Refusal {
    fn from(error: RevocationError) -> Self {
        let status = match error {
            RevocationError::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            RevocationError::NotRevoked => StatusCode::NOT_FOUND,
            RevocationError::NotKept { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// The place of a revocation in the list, as text.
fn cursor(what: &Revoked) -> String {
    match what {
        Revoked::Jti(id) => format!("jti:{id}"),
        Revoked::User(user) => format!("user:{user}"),
    }
}

fn of_cursor(text: &str) -> Option<Revoked> {
    let (kind, text) = text.split_once(':')?;
    match kind {
        "jti" => Some(Revoked::Jti(text.into())),
        "user" => Some(Revoked::User(text.into())),
        _ => None,
    }
}
