//! Statistics, as JSON and for Prometheus: snapshots made on a thread that serves no clients, one at a time however
//! many are requested.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use serde::Deserialize;

use super::{Http, Refusal};
use crate::metrics::Stats;
use crate::status::{self, MAX_LISTED};

/// Number of listed clients if the request does not set it.
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
        return Err(Refusal::bad(format!("clients: 1 to {MAX_LISTED} is allowed, as in ?clients=100")));
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
    // The semaphore is never closed. The permit is released with the work, even if the request has been dropped.
    let permit = Arc::clone(context.metrics.snapshots()).acquire_owned().await;
    let made = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        status::stats(&context, clients)
    });
    made.await.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the statistics could not be collected"))
}
