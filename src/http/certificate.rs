//! `/certificate-hash`: what web pages have to know of a development certificate to believe in it (W3C WebTransport,
//! `serverCertificateHashes`).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::{FOR_ANY_PAGE, Http};

/// Tells the hash and the port of WebTransport, or that there is none and the certificate is to be believed like any.
pub(super) async fn hash(
    State(http): State<Arc<Http>>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Value>), Refusal> {
    let Some(hash) = http.worker_context.short_lived.hash() else {
        let why = "no certificate is shown here that has to be believed by its hash: connect without one";
        return Err(Refusal::new(StatusCode::NOT_FOUND, why).with(FOR_ANY_PAGE.0, "*"));
    };
    let told = Json(json!({
        "algorithm": "sha-256",
        "value": BASE64.encode(hash.sha256),
        "webtransport_port": http.quic_port,
        "not_after": hash.not_after,
    }));
    Ok(([FOR_ANY_PAGE], told))
}
