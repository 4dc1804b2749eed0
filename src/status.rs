//! The server's status: the one room that looks into all others for it. Used by the admin API and through
//! [`Server::status`](crate::Server::status), never on a message's path: each lock is held briefly, for one client or
//! topic at a time.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;

use crate::handler::Context;
use crate::message::now_ms;
use crate::metrics::{ByCarrier, ClientStats, Clients, OpenRequests, Percentiles, Queues, Stats, TopN, thousandths};
use crate::outbound::Outbound;
use crate::registry::Registry;
use crate::tls::ShortLived;
use crate::transport::Path;

/// Largest number of clients listed in a snapshot.
pub(crate) const MAX_LISTED: usize = 1000;
/// Number of topics listed in a snapshot.
const TOP_TOPICS: usize = 20;
/// Approximate number of clients sampled for the percentiles; if there are more, they are sampled evenly.
const MEASURED: usize = 1000;

/// Live status of a server. Stays valid while the server runs and after it.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    context: Arc<Context>,
    runtimes: Vec<Arc<OnceLock<RuntimeMetrics>>>,
    short_lived: ShortLived,
}

impl ServerStatus {
    pub(crate) fn new(
        context: Arc<Context>,
        runtimes: Vec<Arc<OnceLock<RuntimeMetrics>>>,
        short_lived: ShortLived,
    ) -> Self {
        Self { context, runtimes, short_lived }
    }

    fn registry(&self) -> &Registry {
        &self.context.registry
    }

    /// Number of clients whose handshake was accepted.
    pub fn clients(&self) -> usize {
        self.registry().clients()
    }

    /// Number of connections, including those without a handshake.
    pub fn connections(&self) -> usize {
        self.registry().connections()
    }

    /// Number of handshakes in progress, including connections of which only the first packet has arrived.
    pub fn handshakes(&self) -> usize {
        self.registry().handshakes()
    }

    /// Number of existing topics: with subscribers, with history, or used recently.
    pub fn topics(&self) -> usize {
        self.context.topics.count()
    }

    /// Development certificate that web pages trust by its hash, if there is one.
    pub fn short_lived(&self) -> ShortLived {
        self.short_lived.clone()
    }

    /// Number of tasks on all workers: a few for each worker, and those of its connections.
    pub fn tasks(&self) -> usize {
        self.runtimes.iter().filter_map(|runtime| runtime.get()).map(RuntimeMetrics::num_alive_tasks).sum()
    }

    /// Takes a snapshot of all statistics. It lists at most `clients` clients, and never more than 1,000: those with
    /// the most waiting bytes first. It visits every client and topic, so call it from a thread that serves no clients;
    /// it blocks no other task.
    pub fn stats(&self, clients: usize) -> Stats {
        stats(&self.context, clients)
    }
}

/// See [`ServerStatus::stats`].
pub(crate) fn stats(context: &Context, clients: usize) -> Stats {
    let Context { config, registry, topics, metrics, .. } = context;
    let (open, responders) = context.requests.counts();
    let census = Census::take(registry, clients.min(MAX_LISTED));
    Stats {
        now: now_ms(),
        uptime_ms: u64::try_from(metrics.uptime().as_millis()).unwrap_or(u64::MAX),
        server_name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        certificate_expires_at: context.expiry.at().map(|seconds| seconds.saturating_mul(1000)),
        clients: Clients::from(census.by_carrier),
        connections: registry.connections() as u64,
        handshakes: registry.handshakes() as u64,
        totals: metrics.totals(),
        queues: census.queues,
        topics: topics.stats(TOP_TOPICS),
        requests: OpenRequests::new(open, responders),
        store: topics.store_stats(),
        rtt_ms: Percentiles::of(census.rtts),
        loss_percent: Percentiles::of(census.losses),
        list: census.listed,
    }
}

/// Statistics collected in one pass over all clients.
#[derive(Default)]
struct Census {
    by_carrier: ByCarrier,
    queues: Queues,
    rtts: Vec<f64>,
    losses: Vec<f64>,
    listed: Vec<ClientStats>,
}

impl Census {
    /// Visits every client, and lists at most `most_listed`.
    fn take(registry: &Registry, most_listed: usize) -> Self {
        let pace = registry.clients().div_ceil(MEASURED).max(1);
        let (mut census, mut top, mut number) = (Self::default(), TopN::new(most_listed), 0_usize);
        registry.visit(|client| {
            let (messages, bytes) = client.waiting();
            census.by_carrier.count(client.transport());
            census.queues.add(messages, bytes);
            top.offer((bytes, Reverse(client.id)), || Arc::clone(client));
            if number.is_multiple_of(pace)
                && let Some(path) = client.path()
            {
                census.rtts.push(milliseconds(path.rtt));
                census.losses.push(loss_percent(path));
            }
            number += 1;
        });
        // Clients that have left meanwhile are not listed.
        census.listed = top.into_sorted().filter_map(|client| named(registry, &client)).collect();
        census
    }
}

/// The connections of a user, at most so many, in the order of their ids; and how many there are.
pub(crate) fn clients_of(context: &Context, user: &str, most: usize) -> (Vec<ClientStats>, usize) {
    let registry = &context.registry;
    let ids = registry.clients_of(user);
    let found = ids.iter().take(most).filter_map(|&id| registry.outbound(id));
    let clients = found.filter_map(|client| named(registry, &client));
    (clients.collect(), ids.len())
}

fn named(registry: &Registry, client: &Outbound) -> Option<ClientStats> {
    let info = registry.info(client.id)?;
    let ((messages, bytes), path) = (client.waiting(), client.path());
    Some(ClientStats {
        id: info.id,
        name: info.name,
        user: info.user,
        transport: info.transport.into_owned(),
        connected_at: info.connected_at,
        address: client.address(),
        rtt_ms: path.map(|path| milliseconds(path.rtt)),
        loss_percent: path.map(loss_percent),
        queued_messages: messages as u64,
        queued_bytes: bytes as u64,
        subscriptions: client.subscriptions() as u64,
    })
}

fn milliseconds(time: Duration) -> f64 {
    thousandths(time.as_secs_f64() * 1000.0)
}

fn loss_percent(path: Path) -> f64 {
    // Avoids 0/0 before any packet was sent.
    thousandths(path.lost as f64 * 100.0 / path.sent.max(1) as f64)
}
