//! Statistics of a server: counters that every room increments without contention, one snapshot of them and of present
//! values ([`Stats`], as JSON by serde), and its text for Prometheus ([`Stats::prometheus`]). Knows no client and no
//! topic: `status` collects from those.

mod counters;
mod prometheus;
mod rate;
mod stats;
mod store;
mod top;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub(crate) use self::counters::Counters;
pub use self::counters::{ByCarrier, CARRIERS, Closed, Failures, Totals};
pub(crate) use self::rate::Rate;
pub use self::stats::{
    ClientStats, Clients, ConsumerStats, Consumers, OpenRequests, Percentiles, Queues, Stats, TopicStats, Topics,
};
pub(crate) use self::stats::{ListedTopic, TopicPage, thousandths};
pub use self::store::{ByLevel, Latency, Refused, StoreState, StoreStats};
pub(crate) use self::top::TopN;

/// The counters of a server, one set per worker.
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

    /// Permit for a snapshot on request: one at a time, so that many requests use at most one core.
    pub(crate) fn snapshots(&self) -> &Arc<Semaphore> {
        &self.snapshots
    }

    /// The counters of a worker.
    pub(crate) fn of(&self, worker: usize) -> &Arc<Counters> {
        &self.sets[worker]
    }

    /// The sums of all workers. Counting continues meanwhile, so the sums are of slightly different moments.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.sets.iter().for_each(|counters| counters.add_to(&mut totals));
        totals
    }

    /// Time since the counting began.
    pub(crate) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }
}
