//! `/certificate-hash`: the hash by which web pages trust a development certificate (W3C WebTransport,
//! `serverCertificateHashes`).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::{ANY_ORIGIN, Http};

/// Returns the hash and the port of WebTransport, or 404 if the certificate needs no hash.
pub(super) async fn hash(
    State(http): State<Arc<Http>>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Value>), Refusal> {
    let Some(hash) = http.worker_context.short_lived.hash() else {
        let why = "this server's certificate needs no hash: connect without one";
        return Err(Refusal::new(StatusCode::NOT_FOUND, why).with(ANY_ORIGIN.0, "*"));
    };
    let body = Json(json!({
        "algorithm": "sha-256",
        "value": BASE64.encode(hash.sha256),
        "webtransport_port": http.quic_port,
        "not_after": hash.not_after,
    }));
    Ok(([ANY_ORIGIN], body))
}
