//! The server: binds its ports, starts its workers, reloads certificates and settings, and drains the workers on
//! shutdown. Knows clients only as numbers; the workers serve them.

mod ports;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::runtime::RuntimeMetrics;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::ports::Ports;
use crate::Printable;
use crate::auth::{Auth, Sessions};
use crate::config::{Config, Live, Secret};
use crate::durable::Durable;
use crate::error::ServerError;
use crate::handler::Context;
use crate::http;
use crate::limits::Addresses;
use crate::metrics::Metrics;
use crate::origin::OwnPages;
use crate::registry::Registry;
use crate::reload::{FileWatch, Reload};
use crate::request::Requests;
use crate::status::ServerStatus;
use crate::tls::{self, Made, ResetKey, ServerTls, Sides};
use crate::topic::{Releases, Topics};
use crate::transport::native::ServerSettings;
use crate::transport::socket;
use crate::worker::Worker;

/// A server with bound ports and loaded certificates, ready to run.
///
/// ```no_run
/// # async fn example() -> Result<(), quic_websocket::ServerError> {
/// use quic_websocket::{CancellationToken, Config, Server};
///
/// let server = Server::bind(Config::default())?;
/// println!("listening on {}", server.local_addr());
/// server.run(CancellationToken::new()).await
/// # }
/// ```
pub struct Server {
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    plain_http_addr: Option<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    /// Admin token generated for this start, if any.
    made_admin_token: Option<Secret>,
    workers: Vec<Worker>,
    runtimes: Vec<Arc<OnceLock<RuntimeMetrics>>>,
    context: Arc<Context>,
    durable: Option<Arc<Durable>>,
    draining: CancellationToken,
    tls: ServerTls,
    /// Delivers new certificates to the workers' QUIC endpoints.
    connections: watch::Sender<quinn::ServerConfig>,
    /// Delivers new certificates to the TCP listeners.
    tcp: watch::Sender<Arc<rustls::ServerConfig>>,
    files: FileWatch,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Validates the configuration, binds the ports, and loads or creates the certificates.
    ///
    /// # Errors
    /// [`ServerError`] describes what failed and what to do.
    pub fn bind(config: Config) -> Result<Self, ServerError> {
        config.validate()?;
        let count = config.worker_count();
        // Before anything is created: another server may be running here.
        let ports = Ports::bind(&config, count)?;
        let Ports { sockets, local_addr, secure, http_addr, plain, plain_http_addr, admin, admin_addr } = ports;
        socket::report_buffers(&sockets[0], size(config.quic.socket_buffer_bytes));
        if let Some(Made { files, why }) = tls::ensure_certificates(&config.tls, SystemTime::now())? {
            warn!(
                "{why}: made {} and {} for development, signed by {}; clients trust them with --ca",
                files.cert.display(),
                files.key.display(),
                files.ca.display()
            );
        }
        let reset_key = ResetKey::load(&config)?;
        // Watched before they are read, so that no change in between is missed.
        let of_tls = [&config.tls.cert, &config.tls.key].into_iter().chain(&config.tls.client_ca);
        let files = FileWatch::new(of_tls.chain(config.auth.files()));
        let sessions = config.quic.early_data.then(|| size(config.limits.tls_sessions));
        let short_lived = config.webtransport.short_lived_certificate;
        let (tls, Sides { quic, tcp }) = ServerTls::load(&config.tls, short_lived, sessions)?;
        let made_admin_token = match tls.is_for_development() && wants_admin_token(&config) {
            true => Some(http::admin_token().ok_or(ServerError::Random)?),
            false => None,
        };
        let config = Arc::new(config);
        let auth = Arc::new(Auth::new(Arc::clone(&config))?);
        let sessions = Sessions::new().ok_or(ServerError::Random)?;
        let (tcp, certificates) = watch::channel(tcp);
        let mut listeners: Vec<Vec<http::Listener>> = (0..count).map(|_| Vec::new()).collect();
        let secure = secure.into_iter().map(|listener| listener.over_tls(certificates.clone()));
        listeners.iter_mut().zip(secure).for_each(|(listeners, listener)| listeners.push(listener));
        listeners.iter_mut().zip(plain).for_each(|(listeners, listener)| listeners.push(listener));
        // One worker is enough for the operator's requests.
        if let Some(listeners) = listeners.first_mut() {
            listeners.extend(admin);
        }

        let (settings, connections, strays) = ServerSettings::new(&config, quic, &reset_key, count);
        let settings = Arc::new(settings);
        let limits = &config.limits;
        let (most, of_user) = (size(limits.max_clients), size(limits.user_connections));
        let (registry, inboxes) = Registry::new(most, of_user, count, size(limits.fanout_queue));
        let releases = Releases::default();
        let durable = Durable::open(&config, releases.clone())?.map(Arc::new);
        let (topics, topic_inboxes) = Topics::new(Arc::clone(&config), durable.clone(), count);
        releases.to(&topics);
        topics.adopt();
        let (open, held) = (size(config.limits.client_requests), size(config.limits.responder_requests));
        let requests = Requests::new(count, open, held);
        let addresses = Addresses::new(&config.rates);
        let metrics = Metrics::new(count);
        let http_places = Arc::new(Semaphore::new(size(config.limits.max_http_connections)));
        let live = Live::new(&config, made_admin_token.clone());
        let expiry = tls.expiry();
        let context =
            Arc::new(Context { config, live, registry, topics, requests, addresses, auth, sessions, metrics, expiry });
        let draining = CancellationToken::new();
        let served = [("https", http_addr), ("http", plain_http_addr)];
        let served = served.into_iter().filter_map(|(scheme, addr)| Some((scheme, addr?.port()))).collect();
        let (own_pages, short_lived) = (Arc::new(OwnPages { served }), tls.short_lived());
        let workers = sockets
            .into_iter()
            .zip(strays)
            .zip(inboxes)
            .zip(topic_inboxes)
            .zip(listeners)
            .enumerate()
            .map(|(number, ((((socket, strays), inbox), topic_inbox), listeners))| Worker {
                number,
                socket,
                listeners,
                http_places: Arc::clone(&http_places),
                own_pages: Arc::clone(&own_pages),
                short_lived: short_lived.clone(),
                strays,
                inbox,
                topic_inbox,
                settings: Arc::clone(&settings),
                context: Arc::clone(&context),
                draining: draining.clone(),
                runtime: Arc::default(),
            })
            .collect::<Vec<_>>();
        let runtimes = workers.iter().map(|worker| Arc::clone(&worker.runtime)).collect();
        Ok(Self {
            local_addr,
            http_addr,
            plain_http_addr,
            admin_addr,
            made_admin_token,
            workers,
            runtimes,
            context,
            durable,
            draining,
            tls,
            connections,
            tcp,
            files,
        })
    }

    /// Address on which the server listens, with the actual port if port 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Address of HTTP and WebSocket over TLS, if enabled.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Address of HTTP and WebSocket without TLS, if enabled.
    pub fn plain_http_addr(&self) -> Option<SocketAddr> {
        self.plain_http_addr
    }

    /// Separate address of the admin API, if configured (`http.admin_addr`).
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Token of the admin API: `http.admin_token`, or the one generated for this start, if any.
    pub fn admin_token(&self) -> Option<String> {
        self.context.live.http().admin_token.as_ref().map(|token| token.expose().to_owned())
    }

    /// Live status of the server; stays valid while it runs and after.
    pub fn status(&self) -> ServerStatus {
        ServerStatus::new(Arc::clone(&self.context), self.runtimes.clone(), self.tls.short_lived())
    }

    /// A handle that makes the running server reload its certificate and keys, or apply changed settings. Files are
    /// also reloaded automatically when something changes in their folders. If a file cannot be used, the previous one
    /// stays in use and the log reports it.
    pub fn reloader(&self) -> Reload {
        Reload::new(self.files.asked(), Arc::clone(&self.context.live))
    }

    /// Serves until `shutdown` is cancelled, then drains: clients are asked to leave and queues are flushed, within
    /// `timing.drain_timeout_ms`.
    ///
    /// # Errors
    /// [`ServerError::Worker`] if a worker cannot start or fails; the others are then drained.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self { local_addr, http_addr, plain_http_addr, admin_addr, workers, context, draining, .. } = self;
        let (mut tls, connections, tcp, mut files) = (self.tls, self.connections, self.tcp, self.files);
        let name = Printable::new(&context.config.name);
        info!(%name, "Starting QUIC WebSocket server: {name}");
        info!(addr = %local_addr, "Listening on: {local_addr}");
        if let Some(addr) = http_addr {
            info!(%addr, "WebSocket and web pages on: https://{addr}");
        }
        if let Some(addr) = plain_http_addr {
            info!(%addr, "WebSocket and web pages without TLS, on this machine only: http://{addr}");
        }
        if let Some(token) = &self.made_admin_token {
            let plain = plain_http_addr.map(|addr| format!("http://{addr}"));
            let url = plain.or_else(|| http_addr.map(|addr| format!("https://{addr}"))).unwrap_or_default();
            let token = token.expose();
            info!("Dashboard, with an admin token that lasts until the server stops: {url}/dashboard#token={token}");
        }
        if let Some(addr) = admin_addr {
            info!(%addr, "Dashboard and admin API without a token, on this machine only: http://{addr}");
        }
        let _drain_if_dropped = draining.clone().drop_guard();
        let (ended, mut ends) = mpsc::channel(workers.len());
        let fail = |worker: usize, message: String| ServerError::Worker { worker, message };
        for worker in workers {
            let (number, ended) = (worker.number, ended.clone());
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    // If the worker panics, the report is sent as it is here.
                    let mut report = Report { ended, end: Some((number, Err("it panicked".to_owned()))) };
                    report.end = Some((number, worker.run().map_err(|e| e.to_string())));
                })
                .map_err(|e| fail(number, format!("its thread cannot be started: {e}")))?;
        }
        drop(ended);
        let certify = |sides: Sides| {
            connections.send_modify(|connections| connections.crypto = sides.quic);
            tcp.send_replace(sides.tcp);
        };
        let mut result = Ok(());
        let mut draining_began = false;
        let fetching = context.auth.keep_fetching();
        tokio::pin!(fetching);
        loop {
            tokio::select! {
                never = &mut fetching => match never {},
                () = shutdown.cancelled(), if !draining_began => {
                    draining_began = true;
                    let clients = context.registry.clients();
                    info!(clients, "Shutting down: asking {clients} clients to leave");
                    draining.cancel();
                }
                // Blocking is fine: the files are small, and this thread serves no clients.
                cause = files.next(), if !draining_began => {
                    context.auth.reload(cause);
                    if let Some(sides) = tls.reload(cause) {
                        certify(sides);
                    }
                }
                () = tls.outlived(), if !draining_began => {
                    if let Some(sides) = tls.renew() {
                        certify(sides);
                    }
                }
                () = tls.expiring(), if !draining_began => tls.warn_of_expiry(),
                end = ends.recv() => match end {
                    None => break,
                    Some((_, Ok(()))) if draining_began => {}
                    Some((number, end)) => {
                        let message = end.err().unwrap_or_else(|| "it ended unexpectedly".to_owned());
                        result = Err(fail(number, message));
                        draining_began = true;
                        draining.cancel();
                    }
                },
            }
        }
        if let Some(durable) = self.durable {
            // A thread that cannot be joined has panicked; what it had to store is not stored.
            let _ = tokio::task::spawn_blocking(move || durable.close()).await;
        }
        info!("Server stopped");
        result
    }
}

/// Whether to generate an admin token: no other access to the admin API is configured, and the server is reachable only
/// from this machine. The caller also requires a development certificate.
fn wants_admin_token(config: &Config) -> bool {
    let http = &config.http;
    let addresses = [Some(config.addr), http.addr, http.plain_addr];
    let is_here = addresses.into_iter().flatten().all(|addr| addr.ip().is_loopback());
    http.enabled && http.admin_token.is_none() && http.admin_addr.is_none() && is_here
}

/// Reports how a worker ended, even if it panicked.
struct Report {
    ended: mpsc::Sender<(usize, Result<(), String>)>,
    end: Option<(usize, Result<(), String>)>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // The channel has room for one report of each worker.
            let _ = self.ended.try_send(end);
        }
    }
}

fn size(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
