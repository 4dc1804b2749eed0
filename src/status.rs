//! What a server tells of itself: the one room that looks into all others for it. Called by whoever watches, never on the
//! way of a message: what is locked here is locked for a moment at a time, for one client or topic.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;

use crate::handler::Context;
use crate::message::now_ms;
use crate::metrics::{ByCarrier, ClientStats, Clients, Percentiles, Queues, Stats, TopN, thousandths};
use crate::outbound::Outbound;
use crate::registry::Registry;
use crate::tls::ShortLived;
use crate::transport::Path;

/// Most clients that a snapshot names.
pub(crate) const MAX_LISTED: usize = 1000;
/// Topics that a snapshot names.
const TOP_TOPICS: usize = 20;
/// About as many clients are measured for the percentiles: of more, evenly spread ones.
const MEASURED: usize = 1000;

/// What a server counts, for whoever watches it.
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

    /// Clients whose handshake was accepted.
    pub fn clients(&self) -> usize {
        self.registry().clients()
    }

    /// Connections, those without a handshake among them.
    pub fn connections(&self) -> usize {
        self.registry().connections()
    }

    /// Connections that are still to shake hands, those whose first packet is all that has come among them.
    pub fn handshakes(&self) -> usize {
        self.registry().handshakes()
    }

    /// Topics that are known: with subscribers, with history, or used a short time ago.
    pub fn topics(&self) -> usize {
        self.context.topics.count()
    }

    /// The certificate that web pages trust by its hash, where there is one.
    pub fn short_lived(&self) -> ShortLived {
        self.short_lived.clone()
    }

    /// Tasks of all workers: a few for each, and those that their connections need.
    pub fn tasks(&self) -> usize {
        self.runtimes.iter().filter_map(|runtime| runtime.get()).map(RuntimeMetrics::num_alive_tasks).sum()
    }

    /// A snapshot of all that is counted, which names at most so many single clients, and at most 1,000: those with the
    /// most bytes waiting first. Looks at each client and topic, so have a thread do it that serves nobody; nobody else waits
    /// for it.
    pub fn stats(&self, clients: usize) -> Stats {
        stats(&self.context, clients)
    }
}

/// See [`ServerStatus::stats`].
pub(crate) fn stats(context: &Context, clients: usize) -> Stats {
    let Context { config, registry, topics, metrics, .. } = context;
    let crowd = Census::look_at(registry, clients.min(MAX_LISTED));
    Stats {
        now: now_ms(),
        uptime_ms: u64::try_from(metrics.uptime().as_millis()).unwrap_or(u64::MAX),
        server_name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        certificate_expires_at: context.expiry.at().map(|seconds| seconds.saturating_mul(1000)),
        clients: Clients::from(crowd.by_carrier),
        connections: registry.connections() as u64,
        handshakes: registry.handshakes() as u64,
        totals: metrics.totals(),
        queues: crowd.queues,
        topics: topics.stats(TOP_TOPICS),
        rtt_ms: Percentiles::of(crowd.rtts),
        loss_percent: Percentiles::of(crowd.losses),
        list: crowd.listed,
    }
}

/// What was seen of all clients.
#[derive(Default)]
struct Census {
    by_carrier: ByCarrier,
    queues: Queues,
    rtts: Vec<f64>,
    losses: Vec<f64>,
    listed: Vec<ClientStats>,
}

impl Census {
    /// Looks at every client, and names at most so many.
    fn look_at(registry: &Registry, most_listed: usize) -> Self {
        let pace = registry.clients().div_ceil(MEASURED).max(1);
        let (mut crowd, mut top, mut number) = (Self::default(), TopN::new(most_listed), 0_usize);
        registry.visit(|client| {
            let (messages, bytes) = client.waiting();
            crowd.by_carrier.count(client.transport());
            crowd.queues.add(messages, bytes);
            top.offer((bytes, Reverse(client.id)), || Arc::clone(client));
            if number.is_multiple_of(pace)
                && let Some(path) = client.path()
            {
                crowd.rtts.push(milliseconds(path.rtt));
                crowd.losses.push(loss_percent(path));
            }
            number += 1;
        });
        // Those who have left meanwhile are in no list.
        crowd.listed = top.into_sorted().filter_map(|client| named(registry, &client)).collect();
        crowd
    }
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
    // Nothing is lost of nothing.
    thousandths(path.lost as f64 * 100.0 / path.sent.max(1) as f64)
}
