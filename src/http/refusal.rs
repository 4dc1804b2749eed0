//! An answer that says in words why there is no other.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A status, and what happened and what to do, as `{"error": "..."}`.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    why: String,
    with: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), with: None }
    }

    /// The same with a header.
    pub(super) fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { with: Some((name, HeaderValue::from_static(value))), ..self }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.why }))).into_response();
        if let Some((name, value)) = self.with {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
