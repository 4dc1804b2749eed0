//! Connections per second: clients that connect, are served once, and leave, over and over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::dial::Dialer;
use super::{Limit, Target};

/// Failures after which a client gives up: the server is not running, or full.
const MAX_FAILURES: u64 = 5;

/// Result of a load of connections.
#[derive(Debug)]
pub(crate) struct Connects {
    pub(crate) made: u64,
    /// Those with a resumed TLS session.
    pub(crate) resumed: u64,
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the first packet until the server has responded.
    pub(crate) latency: Histogram<u64>,
    /// Reason of the first failure.
    pub(crate) failure: Option<String>,
}

impl Connects {
    /// Connections per second.
    pub(crate) fn rate(&self) -> f64 {
        self.made as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Runs this many clients that each connect repeatedly, until the limit of each is reached.
pub(crate) async fn run(
    target: &Target,
    clients: usize,
    resume: bool,
    limit: Limit,
    made: &Arc<AtomicU64>,
) -> Result<Connects> {
    let dialer = Arc::new(Dialer::new(target, clients, resume)?);
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (dialer, made) = (Arc::clone(&dialer), Arc::clone(made));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let (mut failed, mut failure) = (0, None);
            loop {
                let is_over = match limit {
                    Limit::Messages(count) => latencies.len() as u64 + failed >= count,
                    Limit::Time(time) => started.elapsed() >= time,
                };
                if is_over || failed >= MAX_FAILURES {
                    return (latencies, failed, failure);
                }
                let begun = Instant::now();
                match dialer.dial(client).await {
                    Ok(peer) => {
                        latencies.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
                        made.fetch_add(1, Ordering::Relaxed);
                        peer.close();
                    }
                    Err(error) => {
                        failed += 1;
                        failure = Some(format!("{error:#}"));
                    }
                }
            }
        });
    }
    let mut all = Connects {
        made: 0,
        resumed: 0,
        failed: 0,
        elapsed: Duration::ZERO,
        latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
        failure: None,
    };
    while let Some(joined) = tasks.join_next().await {
        let (latencies, failed, failure) = joined?;
        all.made += latencies.len() as u64;
        latencies.into_iter().for_each(|latency| all.latency.saturating_record(latency));
        all.failed += failed;
        all.failure = all.failure.or(failure);
    }
    all.elapsed = started.elapsed();
    let tried = all.made + all.failed;
    all.resumed = tried.saturating_sub(dialer.full_handshakes()).min(all.made);
    if let Some(dialer) = Arc::into_inner(dialer) {
        dialer.close().await;
    }
    Ok(all)
}
