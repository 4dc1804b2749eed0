//! What a server counts and tells of itself: the counters that every room adds to, without waiting for each other; the one
//! snapshot that is made of them and of what can be looked up ([`Stats`], as JSON by serde); and the same as text for
//! Prometheus ([`Stats::prometheus`]). Knows no client and no topic: `status` collects from those.

mod counters;
mod prometheus;
mod rate;
mod stats;
mod top;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub(crate) use self::counters::Counters;
pub use self::counters::{ByCarrier, CARRIERS, Closed, Totals};
pub(crate) use self::rate::Rate;
pub(crate) use self::stats::thousandths;
pub use self::stats::{ClientStats, Clients, Percentiles, Queues, Stats, TopicStats, Topics};
pub(crate) use self::top::TopN;

/// The counters of a server: one set for each worker, which it has to itself.
#[derive(Debug)]
pub(crate) struct Metrics {
    sets: Vec<Arc<Counters>>,
    begun: Instant,
    snapshots: Arc<Semaphore>,
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let sets = (0..workers).map(|_| Arc::default()).collect();
        Arc::new(Self { sets, begun: Instant::now(), snapshots: Arc::new(Semaphore::new(1)) })
    }

    /// Whose turn it is to make a snapshot for somebody who asked for it: one at a time, so that many who ask take no more
    /// than one core.
    pub(crate) fn snapshots(&self) -> &Arc<Semaphore> {
        &self.snapshots
    }

    /// Where a worker counts.
    pub(crate) fn of(&self, worker: usize) -> &Arc<Counters> {
        &self.sets[worker]
    }

    /// What all have counted. They go on meanwhile: sums of different moments, a moment apart.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.sets.iter().for_each(|counters| counters.add_to(&mut totals));
        totals
    }

    /// For how long they have counted.
    pub(crate) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }
}
