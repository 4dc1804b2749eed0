//! One worker: a thread with its own runtime and QUIC endpoint, and the clients that arrived there. Workers share only
//! the registry and the topics, and a client never moves to another worker. Created by `server`; each client runs in
//! `session`.

use std::net::UdpSocket;
use std::sync::{Arc, OnceLock};

use quinn::Incoming;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::handler::{self, Context};
use crate::http::{Http, Listener, MAX_WAITS, TlsFailures};
use crate::limits::Admission;
use crate::message::CloseCode;
use crate::origin::OwnPages;
use crate::registry::Inbox;
use crate::session::{self, WorkerContext};
use crate::tls::ShortLived;
use crate::topic;
use crate::transport::native::ServerSettings;
use crate::transport::socket::MisroutedPacket;

/// Time at the end of the drain for QUIC's closing packets.
const GOODBYE: Duration = Duration::from_millis(500);

/// Everything that a worker needs to start.
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) socket: UdpSocket,
    pub(crate) strays: mpsc::Receiver<MisroutedPacket>,
    pub(crate) listeners: Vec<Listener>,
    /// Permits for connections over TCP, shared by all workers.
    pub(crate) http_places: Arc<Semaphore>,
    pub(crate) own_pages: Arc<OwnPages>,
    pub(crate) short_lived: ShortLived,
    pub(crate) inbox: Inbox,
    pub(crate) topic_inbox: topic::Inbox,
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) context: Arc<Context>,
    /// Cancelled when the server drains.
    pub(crate) draining: CancellationToken,
    /// Set once the runtime exists.
    pub(crate) runtime: Arc<OnceLock<RuntimeMetrics>>,
}

impl Worker {
    /// Runs until the server drains and the last client has left, or the drain timeout is over.
    pub(crate) fn run(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _ = self.runtime.set(runtime.metrics());
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> std::io::Result<()> {
        let quic_port = self.socket.local_addr()?.port();
        let endpoint = self.settings.endpoint(self.number, self.socket, self.strays)?;
        let (context, draining) = (self.context, self.draining);
        let roster = Arc::clone(context.registry.roster(self.number));
        let worker_context = WorkerContext {
            context,
            roster: Arc::clone(&roster),
            worker: self.number,
            own_pages: self.own_pages,
            short_lived: self.short_lived,
            draining: draining.clone(),
        };
        let clients = TaskTracker::new();
        let http = Arc::new(Http {
            worker_context: worker_context.clone(),
            tasks: clients.clone(),
            places: self.http_places,
            quic_port,
            tls_failures: TlsFailures::default(),
            waits: Semaphore::new(MAX_WAITS),
        });
        let accept = async {
            while let Some(incoming) = endpoint.accept().await {
                admit(incoming, &worker_context, &clients);
            }
        };
        // None of these is dropped before the end, except the accept loop, which then has nothing to lose.
        let topics = Arc::clone(&worker_context.context.topics);
        let counters = worker_context.context.metrics.of(self.number);
        let fan_out = async {
            tokio::select! {
                () = self.inbox.serve(&roster, counters) => {}
                () = self.topic_inbox.serve(counters) => {}
                () = handler::serve_requests(&worker_context.context, self.number) => {}
                () = topics.presence_loop(self.number) => {}
                // One worker does this for all.
                () = topics.expire_loop(), if self.number == 0 => {}
                () = topics.expire_consumers_loop(), if self.number == 0 => {}
                () = topics.drain_loop(), if self.number == 0 => {}
                () = self.settings.follow(&endpoint) => {}
            }
        };
        tokio::pin!(fan_out);
        tokio::select! {
            () = accept => {}
            never = http.serve(self.listeners) => match never {},
            () = &mut fan_out => {}
            () = draining.cancelled() => {}
        }
        clients.close();
        // Refused at once, new clients can go elsewhere without waiting.
        let refuse = async {
            while let Some(incoming) = endpoint.accept().await {
                incoming.refuse();
            }
        };
        let within = worker_context.context.config.timing.drain_timeout();
        let deadline = Instant::now() + within.saturating_sub(GOODBYE.min(within / 2));
        tokio::select! {
            () = fan_out => {}
            () = refuse => {}
            drained = timeout_at(deadline, clients.wait()) => if drained.is_err() {
                let (worker, clients) = (self.number, clients.len());
                warn!(worker, clients, "Worker {worker}: {clients} clients still connected at the end of the drain");
            }
        }
        let code = u32::from(CloseCode::GOING_AWAY.0);
        endpoint.close(code.into(), b"the server is shutting down");
        let _ = timeout_at(Instant::now() + GOODBYE, endpoint.wait_idle()).await;
        Ok(())
    }
}

/// Admits or refuses a connection before any work is spent on it.
fn admit(incoming: Incoming, worker_context: &WorkerContext, clients: &TaskTracker) {
    let Context { config, registry, addresses, .. } = &*worker_context.context;
    let under_way = registry.handshakes() as u64;
    let from = incoming.remote_address();
    if under_way >= config.limits.max_handshakes {
        debug!(peer = %from, "Connection from {from} refused: {under_way} handshakes in progress");
        incoming.refuse();
    } else if under_way >= config.limits.retry_handshakes && !incoming.remote_address_validated() {
        // Only addresses that are not yet validated get here, so a Retry is allowed.
        let _ = incoming.retry();
    } else {
        // After the Retry: under load, forged addresses do not use up the share of real ones.
        match addresses.admit(from.ip(), incoming.remote_address_validated()) {
            Admission::Granted => {
                let handshaking = registry.begin_handshake();
                clients.spawn(session::run(Box::new(incoming), worker_context.clone(), handshaking));
            }
            Admission::Unproven => drop(incoming.retry()),
            Admission::Refused(why) => {
                debug!("Connection from {from} refused: {why}");
                incoming.refuse();
            }
        }
    }
}
