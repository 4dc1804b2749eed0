//! What is for whoever runs the server: its numbers, publishing without being a client, ending a client. All of it stands
//! behind one check, [`guard`]. Answers are JSON, refusals too.

mod act;
mod guard;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::Http;
use crate::message::ErrorReply;

/// The routes, each behind the check.
pub(super) fn router(http: &Arc<Http>) -> Router<Arc<Http>> {
    let most = http.surroundings.context.config.limits.max_message_bytes;
    Router::new()
        .route("/api/stats", get(watch::stats))
        .route("/metrics", get(watch::metrics))
        .route("/api/publish", post(act::publish))
        .route("/api/disconnect", post(act::disconnect))
        .method_not_allowed_fallback(async || {
            let why = "GET reads /api/stats and /metrics; POST does what /api/publish and /api/disconnect say";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .layer(DefaultBodyLimit::max(usize::try_from(most).unwrap_or(usize::MAX)))
        .route_layer(from_fn_with_state(Arc::clone(http), guard::guard))
}

/// Why something was not done, and what to do.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    why: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), retry_after: None }
    }

    fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl From<ErrorReply> for Refusal {
    fn from(error: ErrorReply) -> Self {
        // Codes of errors are HTTP's.
        let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { retry_after: error.retry_after_ms.map(Duration::from_millis), ..Self::new(status, error.message) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.why }))).into_response();
        if let Some(wait) = self.retry_after {
            // Whole seconds, and long enough.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
