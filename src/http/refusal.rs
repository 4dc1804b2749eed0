//! An answer that says in words why there is no other.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::message::ErrorReply;

/// A status, and what happened and what to do, as `{"error": "..."}`.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
    /// When to try again.
    pub(super) retry_after: Option<Duration>,
    pub(super) with: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), retry_after: None, with: None }
    }

    /// A request that is wrong in itself.
    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    /// The same with a header.
    pub(super) fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { with: Some((name, HeaderValue::from_static(value))), ..self }
    }
}

/// Where there is something, but not for this method; the router says in `Allow` for which.
pub(super) async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "another method is expected here, see Allow")
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
        if let Some((name, value)) = self.with {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
