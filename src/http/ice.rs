//! `/ice-servers`: the STUN and TURN servers for browsers' peer connections, with credentials. For clients that may
//! send `signal`.

use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::fields::{bearer, single};
use super::host::host;
use super::refusal::{self, Refusal};
use super::{Http, Peer};
use crate::auth::Denied;
use crate::config::{self, WebRtc};
use crate::handler::may_signal;
use crate::limits::TokenCheck;
use crate::message::now_ms;
use crate::origin::{is_named, lets_in};
use crate::tls;

/// Returns the servers in the form that `RTCPeerConnection` expects. Pages of the origins in `http.origins` may read
/// the response (CORS).
pub(super) async fn servers(
    State(http): State<Arc<Http>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let page = foreign_page(&http.worker_context.context.live.http(), &peer, &request)?;
    let mut response = respond(http, peer, request).await.into_response();
    if let Some(page) = page {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
    Ok(response)
}

/// Answers a browser's CORS preflight before a page elsewhere sends a token here.
pub(super) async fn preflight(
    State(http): State<Arc<Http>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    let page = foreign_page(&http.worker_context.context.live.http(), &peer, &request)?;
    let Some(page) = page else { return Err(refusal::wrong_method().await) };
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, page),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET")),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization")),
        (header::VARY, HeaderValue::from_static("origin")),
    ];
    Ok((StatusCode::NO_CONTENT, allowed).into_response())
}

/// The origin of a page elsewhere that may read the response, if the operator listed it. Refuses pages of other
/// origins.
fn foreign_page(settings: &config::Http, peer: &Peer, request: &Request) -> Result<Option<HeaderValue>, Refusal> {
    let Some(origin) = single(request.headers(), &header::ORIGIN)? else { return Ok(None) };
    let own = peer.origin(&host(request)?);
    if !lets_in(&settings.origins, Some(origin), own.as_deref(), peer.certificate.is_some()) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "pages of this origin are not allowed; add it to http.origins",
        ));
    }
    Ok(HeaderValue::from_bytes(origin).ok().filter(|_| is_named(&settings.origins, origin)))
}

async fn respond(http: Arc<Http>, peer: Peer, request: Request) -> Result<Response, Refusal> {
    let settings = http.worker_context.context.live.http();
    let host = host(&request)?;
    // A page whose name was made to point here (DNS rebinding) sends no Origin with its requests.
    let is_known = |scheme: &str| lets_in(&settings.origins, Some(format!("{scheme}://{host}").as_bytes()), None, true);
    if peer.origin(&host).is_none() && !["https", "http"].into_iter().any(is_known) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Host: without TLS only localhost and the hosts in http.origins are allowed",
        ));
    }
    let token = bearer(request.headers())?;
    let context = &http.worker_context.context;
    // Checking tokens is expensive, and guessing one has to be infeasible.
    if token.is_some()
        && let TokenCheck::TooMany(wait) = context.addresses.show_token(peer.address.ip(), true)
    {
        let why = "too many wrong tokens from this address; try again later (see Retry-After)";
        return Err(Refusal { retry_after: Some(wait), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, why) });
    }
    let certified = peer.certificate.as_ref().and_then(|own| tls::subject(own));
    let identity = context.auth.recognise(token.as_ref(), certified).await.map_err(|denied| {
        let status = match denied {
            Denied::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        };
        if token.is_some() && status == StatusCode::UNAUTHORIZED {
            context.addresses.show_token(peer.address.ip(), false);
        }
        Refusal::new(status, denied.to_string())
    })?;
    may_signal(&identity)?;
    let user = identity.user.as_deref().unwrap_or("anybody");
    let servers = ice_servers(&context.live.webrtc(), user, now_ms());
    // Credentials are private, and expire.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(json!({ "iceServers": servers }))).into_response())
}

fn ice_servers(settings: &WebRtc, user: &str, now: u64) -> Vec<Value> {
    let mut servers = Vec::new();
    if !settings.stun.is_empty() {
        servers.push(json!({ "urls": settings.stun }));
    }
    let (username, credential) = match (&settings.turn_secret, &settings.turn_username, &settings.turn_password) {
        (Some(secret), ..) => {
            // The user's name is for the relay's log; the relay checks the expiry time, in seconds.
            let username = format!("{}:{user}", (now + settings.turn_credential_ms) / 1000);
            let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
            let credential = BASE64.encode(sign(&key, username.as_bytes()));
            (username, credential)
        }
        (None, Some(username), Some(password)) => (username.clone(), password.expose().to_owned()),
        // Without credentials no relay would accept the client.
        (None, ..) => return servers,
    };
    if !settings.turn.is_empty() {
        servers.push(json!({ "urls": settings.turn, "username": username, "credential": credential }));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn credentials_match_those_that_a_relay_derives_from_the_secret() {
        let mut settings = WebRtc::default();
        assert_eq!(ice_servers(&settings, "ada", 0), Vec::<Value>::new());
        settings.stun = vec!["stun:a".into()];
        settings.turn = vec!["turn:b".into()];
        assert_eq!(ice_servers(&settings, "ada", 0), [json!({"urls": ["stun:a"]})]);
        settings.turn_secret = Some(Secret::from("north".to_owned()));
        // echo -n 1792000000:ada | openssl dgst -sha1 -hmac north -binary | base64
        let relay =
            json!({"urls": ["turn:b"], "username": "1792000000:ada", "credential": "zHBaCjpk2nV87C6hNUa8A7VVYXU="});
        assert_eq!(ice_servers(&settings, "ada", 1_791_996_400_000)[1], relay);
        settings.turn_secret = None;
        (settings.turn_username, settings.turn_password) = (Some("all".into()), Some(Secret::from("pw".to_owned())));
        let relay = json!({"urls": ["turn:b"], "username": "all", "credential": "pw"});
        assert_eq!(ice_servers(&settings, "ada", 0)[1], relay);
    }
}
