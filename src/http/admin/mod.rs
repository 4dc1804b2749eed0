//! The admin API: statistics, topics with their messages and members, publishing, actions on clients and users, and
//! revoking tokens. All routes are behind one check, [`guard`]. Responses are JSON, including errors.

mod act;
mod browse;
mod guard;
mod revoke;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::Http;
use super::listener::Serves;
use super::refusal::Refusal;

/// The routes, each behind the check that applies to the listener.
pub(super) fn router(http: &Arc<Http>, at: Serves) -> Router<Arc<Http>> {
    let most = http.worker_context.context.config.limits.max_message_bytes;
    Router::new()
        .route("/api/stats", get(watch::stats))
        .route("/metrics", get(watch::metrics))
        .route("/api/topics", get(browse::topics))
        .route("/api/history", get(browse::history))
        .route("/api/members", get(browse::members))
        .route("/api/clients", get(browse::clients))
        .route("/api/publish", post(act::publish))
        .route("/api/disconnect", post(act::disconnect))
        .route("/api/subscribe", post(act::subscribe))
        .route("/api/unsubscribe", post(act::unsubscribe))
        .route("/api/revoke", post(revoke::revoke))
        .route("/api/unrevoke", post(revoke::unrevoke))
        .route("/api/revocations", get(revoke::list))
        .method_not_allowed_fallback(async || {
            let why =
                "use POST for actions, GET for the other routes; the list is in docs/OPERATIONS.md, Admin requests";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .layer(DefaultBodyLimit::max(usize::try_from(most).unwrap_or(usize::MAX)))
        .route_layer(from_fn_with_state((Arc::clone(http), at), guard::guard))
}
