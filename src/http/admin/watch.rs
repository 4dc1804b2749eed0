//! The numbers, as JSON and for Prometheus: one snapshot, made on a thread that serves no client, and one at a time whoever
//! asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use serde::Deserialize;

use super::{Http, Refusal};
use crate::metrics::Stats;
use crate::status::{self, MAX_LISTED};

/// Clients that are named where the request does not say.
const LISTED: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    clients: Option<usize>,
}

/// `GET /api/stats?clients=N`
pub(super) async fn stats(
    State(http): State<Arc<Http>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Stats>, Refusal> {
    let clients = wanted.map_or(None, |Query(wanted)| Some(wanted.clients.unwrap_or(LISTED)));
    let Some(clients) = clients.filter(|clients| (1..=MAX_LISTED).contains(clients)) else {
        return Err(Refusal::bad(format!("clients: 1 to {MAX_LISTED} may be named, as in ?clients=100")));
    };
    snapshot(&http, clients).await.map(Json)
}

/// `GET /metrics`
pub(super) async fn metrics(
    State(http): State<Arc<Http>>,
) -> Result<([(HeaderName, &'static str); 1], String), Refusal> {
    let stats = snapshot(&http, 0).await?;
    Ok(([(header::CONTENT_TYPE, Stats::PROMETHEUS_TYPE)], stats.prometheus()))
}

async fn snapshot(http: &Http, clients: usize) -> Result<Stats, Refusal> {
    let context = Arc::clone(&http.worker_context.context);
    // It is never closed. The turn ends with the work, also where nobody waits for that any more.
    let turn = Arc::clone(context.metrics.snapshots()).acquire_owned().await;
    let made = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        status::stats(&context, clients)
    });
    made.await.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the numbers could not be collected"))
}
