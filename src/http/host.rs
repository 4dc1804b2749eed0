//! The host that a request names.

use std::net::IpAddr;

use axum::http::header;
use axum::http::uri::Authority;

use super::fields::single;
use super::refusal::Refusal;

/// The host of a request (RFC 9112 section 3.2).
pub(super) fn host<B>(request: &axum::http::Request<B>) -> Result<Authority, Refusal> {
    let host = single(request.headers(), &header::HOST)?;
    if let (Some(authority), Some(_)) = (request.uri().authority(), host) {
        return Ok(authority.clone());
    }
    let host = host.and_then(|host| std::str::from_utf8(host).ok());
    let host = host.filter(|host| !host.contains('@')).and_then(|host| host.parse().ok());
    host.ok_or_else(|| Refusal::bad("Host: exactly one name or address is required"))
}

/// Whether this is a name of this machine. A foreign page whose name points here uses that name instead.
pub(super) fn is_local(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}
