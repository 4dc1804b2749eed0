//! Actions of the admin API: publish a text, disconnect a client.

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
use crate::handler;
use crate::message::{Close, CloseCode, ErrorReply, Invalid, Payload, TopicName};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    topic: String,
    content: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    client: Uuid,
    code: Option<u16>,
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
    let Disconnect { client, code, reason } = parse(body, r#"{"client":"...","code":4403,"reason":"..."}"#)?;
    let reason = reason.unwrap_or_else(|| "disconnected by an administrator".into());
    let close = Close::new(code.map_or(CloseCode::FORBIDDEN, CloseCode), reason)?;
    if handler::disconnect(&http.worker_context.context, client, close).await {
        return Ok(Json(json!({})));
    }
    Err(Refusal::new(
        StatusCode::NOT_FOUND,
        format!("client: no client {client} is connected; see the list in /api/stats"),
    ))
}

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, expected: &str) -> Result<T, Refusal> {
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
