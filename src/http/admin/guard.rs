//! Access control of the admin API. On the addresses that clients use, the token of `http.admin_token` is required,
//! whatever the peer's address, because a proxy on this machine also connects from here. On `http.admin_addr`, a
//! request must come from this machine, by a name of this machine, and not through a proxy. Of web pages, only the
//! server's own may use the API.
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::debug;

use super::{Http, Refusal};
use crate::config::{self, Secret};
use crate::http::fields::single;
use crate::http::listener::Serves;
use crate::http::{Peer, host};
use crate::limits::{Addresses, TokenCheck};
use crate::message::Token;
use crate::origin::is_own_page;

/// Headers that proxies add, besides those that begin with [`FORWARDED`]. A request through a proxy may come from
/// elsewhere, even if the proxy is on this machine.
const PROXY_HEADERS: [&str; 6] = ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
const FORWARDED: &str = "x-forwarded-";

/// Passes an authorised request on, or refuses it.
pub(super) async fn guard(
    State((http, at)): State<(Arc<Http>, Serves)>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let context = &http.worker_context.context;
    let mut response = match check(at, &context.live.http(), &context.addresses, &peer, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            let (from, status) = (peer.address, refused.status);
            debug!(peer = %from, "Request from {from} to the admin API refused with {status}: {}", refused.why);
            refused.into_response()
        }
    };
    // Statistics are momentary and private.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn check<B>(
    at: Serves,
    config: &config::Http,
    addresses: &Addresses,
    peer: &Peer,
    request: &axum::http::Request<B>,
) -> Result<(), Refusal> {
    let (headers, host) = (request.headers(), host::host(request)?);
    match (at, &config.admin_token) {
        (Serves::Admin, _) => is_local(peer.address.ip(), &host, headers)?,
        (Serves::Everything, Some(token)) => has_token(token, addresses, peer.address.ip(), headers)?,
        (Serves::Everything, None) => {
            let why = "the admin API is off: set http.admin_token and send that token (Authorization: Bearer), \
                       or give the API its own address with http.admin_addr";
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
    }
    let origin = single(headers, &header::ORIGIN)?;
    if origin.is_some_and(|origin| !is_own_page(origin, peer.origin(&host).as_deref())) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Origin: only this server's own pages may use the admin API"));
    }
    // HTML forms cannot send this type, and scripts of other origins need a preflight for it.
    if request.method() == Method::POST && !is_json(headers) {
        return Err(Refusal::bad("Content-Type: application/json is expected"));
    }
    Ok(())
}

fn has_token(token: &Secret, addresses: &Addresses, from: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    let unauthorized = |why| Err(Refusal::new(StatusCode::UNAUTHORIZED, why));
    let expected = "Authorization: Bearer with the admin token is required (http.admin_token, or the one in the log)";
    let header = single(headers, &header::AUTHORIZATION)?;
    let Ok(Some(shown)) = Token::from_authorization(header) else { return unauthorized(expected) };
    match addresses.show_token(from, token.is(shown.as_str())) {
        TokenCheck::Right => Ok(()),
        TokenCheck::Wrong => {
            unauthorized("Authorization: this is not the admin token (http.admin_token, or the one in the log)")
        }
        TokenCheck::TooMany(wait) => {
            let why = "too many wrong tokens from this address; try again later (see Retry-After)";
            Err(Refusal { retry_after: Some(wait), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, why) })
        }
    }
}

/// Refuses a request from another machine, by a foreign name, or through a proxy.
fn is_local(from: IpAddr, host: &Authority, headers: &HeaderMap) -> Result<(), Refusal> {
    let is_from_proxy =
        |name: &HeaderName| PROXY_HEADERS.contains(&name.as_str()) || name.as_str().starts_with(FORWARDED);
    let through_proxy = headers.keys().any(is_from_proxy);
    if from.to_canonical().is_loopback() && host::is_local(host) && !through_proxy {
        return Ok(());
    }
    let why = "http.admin_addr accepts only direct requests from this machine, to localhost or 127.0.0.1; \
               from elsewhere, use the server's own address with http.admin_token";
    Err(Refusal::new(StatusCode::FORBIDDEN, why))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
