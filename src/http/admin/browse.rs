//! What the operator looks at: topics, their messages and members, and the connections of a user.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::{Http, Refusal};
use crate::handler::{self, Page};
use crate::message::{DEFAULT_PAGE, ErrorReply, MAX_INTEGER, MAX_PAGE, Position, TopicName, USER_BOUNDS, is_user};
use crate::metrics::TopicPage;
use crate::status::{self, MAX_LISTED};

/// Number of listed topics if the request does not set it, and at most: each is matched with every pattern.
const LISTED: usize = 100;
const MAX_TOPICS: usize = 200;
/// Longest wait for a topic's next message.
const MAX_WAIT_MS: u64 = 30_000;

/// A body of the protocol, which is JSON.
type Body = ([(HeaderName, &'static str); 1], Bytes);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topics {
    limit: Option<usize>,
    #[serde(default)]
    after: String,
    #[serde(default)]
    contains: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    topic: String,
    limit: Option<u64>,
    #[serde(default)]
    reverse: bool,
    epoch: Option<String>,
    offset: Option<u64>,
    wait_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members {
    topic: String,
    limit: Option<u64>,
    after: Option<Uuid>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clients {
    user: String,
}

/// `GET /api/topics?contains=TEXT&limit=N&after=TOPIC`
pub(super) async fn topics(
    State(http): State<Arc<Http>>,
    wanted: Result<Query<Topics>, QueryRejection>,
) -> Result<Json<TopicPage>, Refusal> {
    let Topics { limit, after, contains } = query(wanted, "?contains=chat&limit=100&after=chat.lobby")?;
    let limit = limit.unwrap_or(LISTED);
    if !(1..=MAX_TOPICS).contains(&limit) {
        return Err(Refusal::bad(format!("limit: 1 to {MAX_TOPICS} is allowed")));
    }
    let context = Arc::clone(&http.worker_context.context);
    // As for statistics: on a thread that serves no clients, one at a time.
    let permit = Arc::clone(context.metrics.snapshots()).acquire_owned().await;
    let listed = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        context.topics.page(&contains, &after, limit)
    });
    let listed = listed.await;
    listed.map(Json).map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the topics could not be listed"))
}

/// `GET /api/history?topic=TOPIC&limit=N&reverse=true&epoch=EPOCH&offset=OFFSET&wait_ms=MS`
pub(super) async fn history(
    State(http): State<Arc<Http>>,
    wanted: Result<Query<History>, QueryRejection>,
) -> Result<Body, Refusal> {
    let History { topic, limit, reverse, epoch, offset, wait_ms } = query(
        wanted,
        "?topic=chat.lobby&limit=50&reverse=true, or ?topic=chat.lobby&epoch=k3v9&offset=41&wait_ms=10000",
    )?;
    let since = match (epoch, offset) {
        (Some(epoch), Some(offset)) if offset <= MAX_INTEGER => Some(Position { epoch, offset }),
        (None, None) => None,
        (Some(_), Some(_)) => return Err(Refusal::bad("offset: at most 2^53 - 1")),
        _ => return Err(Refusal::bad("epoch and offset: both or neither, as a position in the log")),
    };
    let page = Page::History { topic: TopicName::new(&topic)?, since, since_time: None, limit: size(limit)?, reverse };
    let context = &http.worker_context.context;
    let Some(wait_ms) = wait_ms else { return answer(handler::page(context, &page).await) };
    if wait_ms > MAX_WAIT_MS {
        return Err(Refusal::bad(format!("wait_ms: at most {MAX_WAIT_MS}")));
    }
    if reverse || matches!(page, Page::History { since: None, .. }) {
        return Err(Refusal::bad("wait_ms: only with epoch and offset, and without reverse"));
    }
    let Ok(_permit) = http.waits.try_acquire() else {
        let why = "too many requests wait for the next message of a topic; try again later";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
    };
    let until = Instant::now() + Duration::from_millis(wait_ms);
    tokio::select! {
        made = handler::next_page(context, &page, until) => answer(made),
        () = http.worker_context.draining.cancelled() => answer(handler::page(context, &page).await),
    }
}

/// `GET /api/members?topic=TOPIC&limit=N&after=ID`
pub(super) async fn members(
    State(http): State<Arc<Http>>,
    wanted: Result<Query<Members>, QueryRejection>,
) -> Result<Body, Refusal> {
    let Members { topic, limit, after } =
        query(wanted, "?topic=chat.lobby&limit=100, and after: the next of another page")?;
    let page = Page::Members { topic: TopicName::new(&topic)?, limit: size(limit)?, after };
    answer(handler::page(&http.worker_context.context, &page).await)
}

/// `GET /api/clients?user=USER`
pub(super) async fn clients(
    State(http): State<Arc<Http>>,
    wanted: Result<Query<Clients>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Clients { user } = query(wanted, "?user=ada")?;
    if !is_user(&user) {
        return Err(Refusal::bad(format!("user: {USER_BOUNDS}")));
    }
    let (clients, total) = status::clients_of(&http.worker_context.context, &user, MAX_LISTED);
    Ok(Json(json!({ "clients": clients, "total": total })))
}

/// Reads a query; `expected` is its form, for error texts.
fn query<T>(wanted: Result<Query<T>, QueryRejection>, expected: &str) -> Result<T, Refusal> {
    let wrong = |e: QueryRejection| Refusal::bad(format!("the query: {}; {expected} is expected", e.body_text()));
    wanted.map(|Query(wanted)| wanted).map_err(wrong)
}

fn size(limit: Option<u64>) -> Result<u64, Refusal> {
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(Refusal::bad(format!("limit: 1 to {MAX_PAGE} is allowed")))
}

fn answer(made: Result<Bytes, ErrorReply>) -> Result<Body, Refusal> {
    Ok(([(header::CONTENT_TYPE, "application/json")], made?))
}
