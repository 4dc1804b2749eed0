//! The one check before the admin API. At the addresses that clients use, the token of `http.admin_token` is required,
//! whatever the peer's address: a proxy on this machine connects from here as well. At `http.admin_addr` a request has to
//! come from this machine, by a name of this machine, and by no proxy. Web pages may ask only if they are the server's own.

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

/// What proxies add, besides all that begins with [`FORWARDED`]: a request that came by one is not known to be of this
/// machine, though the proxy is.
const OF_PROXIES: [&str; 6] = ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
const FORWARDED: &str = "x-forwarded-";

/// Lets a request through, or answers it.
pub(super) async fn guard(
    State((http, at)): State<(Arc<Http>, Serves)>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let context = &http.worker_context.context;
    let mut response = match judge(at, &context.live.http(), &context.addresses, &peer, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            let (from, status) = (peer.address, refused.status);
            debug!(peer = %from, "Request of {from} to the admin API refused with {status}: {}", refused.why);
            refused.into_response()
        }
    };
    // Numbers are of now, and nobody else's to keep.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn judge<B>(
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
            let why = "the admin API is off: set http.admin_token and show that token (Authorization: Bearer), \
                       or give the API an address of its own with http.admin_addr";
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
    }
    let origin = single(headers, &header::ORIGIN)?;
    if origin.is_some_and(|origin| !is_own_page(origin, peer.origin(&host).as_deref())) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Origin: this is for pages of this server alone"));
    }
    // Forms cannot send this, and scripts of other pages have to ask before they do.
    if request.method() == Method::POST && !is_json(headers) {
        return Err(Refusal::bad("Content-Type: application/json is expected"));
    }
    Ok(())
}

fn has_token(token: &Secret, addresses: &Addresses, from: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    let unauthorized = |why| Err(Refusal::new(StatusCode::UNAUTHORIZED, why));
    let expected = "Authorization: Bearer and the admin token are expected: http.admin_token, or the one in the log";
    let header = single(headers, &header::AUTHORIZATION)?;
    let Ok(Some(shown)) = Token::from_authorization(header) else { return unauthorized(expected) };
    match addresses.show_token(from, token.is(shown.as_str())) {
        TokenCheck::Right => Ok(()),
        TokenCheck::Wrong => {
            unauthorized("Authorization: this is not the admin token (http.admin_token, or the one in the log)")
        }
        TokenCheck::TooMany(wait) => {
            let why = "this address has shown too many wrong tokens; try again later, see Retry-After";
            Err(Refusal { retry_after: Some(wait), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, why) })
        }
    }
}

/// Whether somebody on this machine asks this machine.
fn is_local(from: IpAddr, host: &Authority, headers: &HeaderMap) -> Result<(), Refusal> {
    let is_of_proxy = |name: &HeaderName| OF_PROXIES.contains(&name.as_str()) || name.as_str().starts_with(FORWARDED);
    let by_proxy = headers.keys().any(is_of_proxy);
    if from.to_canonical().is_loopback() && host::is_local(host) && !by_proxy {
        return Ok(());
    }
    let why = "http.admin_addr is for this machine alone, at localhost or 127.0.0.1 and without a proxy; \
               from elsewhere use the server's own address with http.admin_token";
    Err(Refusal::new(StatusCode::FORBIDDEN, why))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
