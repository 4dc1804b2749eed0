//! Actions of the admin API: publish a text; disconnect, subscribe or unsubscribe a client or a user.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Http, Refusal};
use crate::handler::{self, Target};
use crate::message::{
    Close, CloseCode, ErrorReply, Invalid, MAX_REASON_BYTES, Payload, TopicName, TopicPattern, USER_BOUNDS, is_user,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    topic: String,
    content: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    client: Option<Uuid>,
    user: Option<String>,
    code: Option<u16>,
    reason: Option<String>,
}

/// A subscription to make or to end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscription {
    client: Option<Uuid>,
    user: Option<String>,
    topic: String,
    reason: Option<String>,
}

/// `POST /api/publish`
pub(super) async fn publish(
    State(http): State<Arc<Http>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let Publish { topic, content } = parse(body, r#"{"topic":"...","content":"..."}"#)?;
    let topic = TopicName::new(&topic)?;
    let worker_context = &http.worker_context;
    let (context, worker) = (&worker_context.context, worker_context.worker);
    let published =
        handler::publish(context, worker, topic.clone(), Payload::text(content)).await.map_err(ErrorReply::from)?;
    let (epoch, offset) = (published.epoch.as_str(), published.offset);
    Ok(Json(json!({ "topic": topic.as_str(), "epoch": epoch, "offset": offset })))
}

/// `POST /api/disconnect`
pub(super) async fn disconnect(
    State(http): State<Arc<Http>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let expected = r#"{"client":"...","code":4403,"reason":"..."} or {"user":"..."}"#;
    let Disconnect { client, user, code, reason } = parse(body, expected)?;
    let target = target(client, user)?;
    let reason = reason.unwrap_or_else(|| "disconnected by an administrator".into());
    let close = Close::new(code.map_or(CloseCode::FORBIDDEN, CloseCode), reason)?;
    let clients = handler::disconnect(&http.worker_context.context, &target, close).await;
    reached(&target, clients)
}

/// `POST /api/subscribe`
pub(super) async fn subscribe(
    State(http): State<Arc<Http>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let Subscription { client, user, topic, reason } =
        parse(body, r#"{"client":"...","topic":"..."} or {"user":"...","topic":"..."}"#)?;
    if reason.is_some() {
        return Err(Refusal::bad("reason: a subscription that is made has none; leave it out"));
    }
    let (target, topic) = (target(client, user)?, TopicPattern::new(&topic)?);
    reached(&target, handler::subscribe(&http.worker_context.context, &target, &topic))
}

/// `POST /api/unsubscribe`
pub(super) async fn unsubscribe(
    State(http): State<Arc<Http>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let Subscription { client, user, topic, reason } =
        parse(body, r#"{"client":"...","topic":"...","reason":"..."} or {"user":"...","topic":"..."}"#)?;
    let (target, topic) = (target(client, user)?, TopicPattern::new(&topic)?);
    let reason = reason.unwrap_or_else(|| "unsubscribed by an administrator".into());
    if reason.len() > MAX_REASON_BYTES {
        return Err(Refusal::bad(format!("reason: at most {MAX_REASON_BYTES} bytes are allowed")));
    }
    reached(&target, handler::unsubscribe(&http.worker_context.context, &target, &topic, &reason))
}

/// The target that a body names with exactly one of its fields.
fn target(client: Option<Uuid>, user: Option<String>) -> Result<Target, Refusal> {
    match (client, user) {
        (Some(client), None) => Ok(Target::Client(client)),
        (None, Some(user)) if is_user(&user) => Ok(Target::User(user)),
        (None, Some(_)) => Err(Refusal::bad(format!("user: {USER_BOUNDS}"))),
        _ => Err(Refusal::bad("the body: exactly one of client and user is expected")),
    }
}

/// The response: the number of clients that an action reached, or that there is none.
fn reached(target: &Target, clients: Option<usize>) -> Result<Json<Value>, Refusal> {
    match clients {
        Some(0) => {
            let why = "too many changes of this client's subscriptions wait already; try again later";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        Some(clients) => return Ok(Json(json!({ "clients": clients }))),
        None => {}
    }
    let why = match target {
        Target::Client(client) => format!("client: no client {client} is connected; see the list in /api/stats"),
        Target::User(_) => "user: no client of this user is connected".to_owned(),
    };
    Err(Refusal::new(StatusCode::NOT_FOUND, why))
}

/// Reads a body; `expected` is its form, for error texts.
pub(super) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, expected: &str) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than limits.max_message_bytes allows")
        }
        _ => Refusal::bad("the body was cut off"),
    })?;
    // Serde would accept a list as the fields in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::bad(format!("the body: a JSON object is expected, like {expected}")));
    }
    serde_json::from_slice(&body).map_err(|e| Refusal::bad(format!("the body: {e}; {expected} is expected")))
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::bad(invalid.message)
    }
}
