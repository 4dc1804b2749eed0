//! The server: binds its port, starts its workers, and drains them when it is told to.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::runtime::RuntimeMetrics;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Printable;
use crate::auth::Auth;
use crate::config::{Config, Live, Secret};
use crate::error::ServerError;
use crate::handler::Context;
use crate::http;
use crate::limits::Addresses;
use crate::metrics::Metrics;
use crate::origin::OwnPages;
use crate::registry::Registry;
use crate::reload::{FileWatch, Reload};
use crate::status::ServerStatus;
use crate::tls::{self, Made, ResetKey, ServerTls, Sides};
use crate::topic::Topics;
use crate::transport::native::ServerSettings;
use crate::transport::socket;
use crate::worker::Worker;

/// A server that has its port and its certificates and can begin.
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
    /// The admin API's token, if it was made for this start.
    made_admin_token: Option<Secret>,
    workers: Vec<Worker>,
    runtimes: Vec<Arc<OnceLock<RuntimeMetrics>>>,
    context: Arc<Context>,
    draining: CancellationToken,
    tls: ServerTls,
    /// What a new certificate reaches the workers by, and what it does over TCP.
    connections: watch::Sender<quinn::ServerConfig>,
    tcp: watch::Sender<Arc<rustls::ServerConfig>>,
    files: FileWatch,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Checks the configuration, binds the port, and reads or makes the certificates.
    ///
    /// # Errors
    /// [`ServerError`] says which of these failed and what to do.
    pub fn bind(config: Config) -> Result<Self, ServerError> {
        config.validate()?;
        let count = config.worker_count();
        // Before anything is made: another server may be running here.
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
        // Watched before they are read: a change in between is seen.
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
        let (tcp, certificates) = watch::channel(tcp);
        let mut listeners: Vec<Vec<http::Listener>> = (0..count).map(|_| Vec::new()).collect();
        let secure = secure.into_iter().map(|listener| listener.over_tls(certificates.clone()));
        listeners.iter_mut().zip(secure).for_each(|(listeners, listener)| listeners.push(listener));
        listeners.iter_mut().zip(plain).for_each(|(listeners, listener)| listeners.push(listener));
        // One worker is enough for the few who ask.
        if let Some(listeners) = listeners.first_mut() {
            listeners.extend(admin);
        }

        let (settings, connections, strays) = ServerSettings::new(&config, quic, &reset_key, count);
        let settings = Arc::new(settings);
        let (registry, inboxes) =
            Registry::new(size(config.limits.max_clients), count, size(config.limits.fanout_queue));
        let (topics, topic_inboxes) = Topics::new(Arc::clone(&config), count);
        let addresses = Addresses::new(&config.rates);
        let metrics = Metrics::new(count);
        let http_places = Arc::new(Semaphore::new(size(config.limits.max_http_connections)));
        let live = Live::new(&config, made_admin_token.clone());
        let expiry = tls.expiry();
        let context = Arc::new(Context { config, live, registry, topics, addresses, auth, metrics, expiry });
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
            draining,
            tls,
            connections,
            tcp,
            files,
        })
    }

    /// The address it listens on, with the port that the system chose where it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it serves HTTP and WebSocket over TLS, if it does.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Where it does so without TLS, if it does.
    pub fn plain_http_addr(&self) -> Option<SocketAddr> {
        self.plain_http_addr
    }

    /// Where the admin API has an address of its own, if it does (`http.admin_addr`).
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The token of the admin API: `http.admin_token`, or the one made for this start, if there is one.
    pub fn admin_token(&self) -> Option<String> {
        self.context.live.http().admin_token.as_ref().map(|token| token.expose().to_owned())
    }

    /// What it counts; stays valid while it runs and after.
    pub fn status(&self) -> ServerStatus {
        ServerStatus::new(Arc::clone(&self.context), self.runtimes.clone(), self.tls.short_lived())
    }

    /// What has it read its certificate and keys again while it runs, and take over other settings. It reads the files by
    /// itself when they change: when something happens in their folders. A file that cannot be used leaves the old one in
    /// use, and the log says so.
    pub fn reloader(&self) -> Reload {
        Reload::new(self.files.asked(), Arc::clone(&self.context.live))
    }

    /// Serves until `shutdown` is cancelled, then drains: clients are told to leave, what is queued is flushed, within
    /// `timing.drain_timeout_ms`.
    ///
    /// # Errors
    /// [`ServerError::Worker`] where a worker cannot start or fails; the others are drained then.
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
            info!(%addr, "The same without TLS, for this machine alone, on: http://{addr}");
        }
        if let Some(token) = &self.made_admin_token {
            let plain = plain_http_addr.map(|addr| format!("http://{addr}"));
            let url = plain.or_else(|| http_addr.map(|addr| format!("https://{addr}"))).unwrap_or_default();
            let token = token.expose();
            info!("Dashboard, with an admin token that lasts until the server stops: {url}/dashboard#token={token}");
        }
        if let Some(addr) = admin_addr {
            info!(%addr, "Dashboard and admin API without a token, for this machine alone, on: http://{addr}");
        }
        let _drain_if_dropped = draining.clone().drop_guard();
        let (ended, mut ends) = mpsc::channel(workers.len());
        let fail = |worker: usize, message: String| ServerError::Worker { worker, message };
        for worker in workers {
            let (number, ended) = (worker.number, ended.clone());
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    // A worker that panics drops its end of the channel without a word.
                    let mut report = Report { ended, end: Some((number, Err("it panicked".to_owned()))) };
                    report.end = Some((number, worker.run().map_err(|e| e.to_string())));
                })
                .map_err(|e| fail(number, format!("no thread for it: {e}")))?;
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
                    info!(clients, "Shutting down: {clients} clients are told to leave");
                    draining.cancel();
                }
                // Small files, and no client is served by this thread.
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
                        let message = end.err().unwrap_or_else(|| "it ended before it was asked to".to_owned());
                        result = Err(fail(number, message));
                        draining_began = true;
                        draining.cancel();
                    }
                },
            }
        }
        info!("Server stopped");
        result
    }
}

/// Whether the admin API has no way in yet, on a server that only this machine reaches: one that is tried out, if its
/// certificate is for development as well.
fn wants_admin_token(config: &Config) -> bool {
    let http = &config.http;
    let addresses = [Some(config.addr), http.addr, http.plain_addr];
    let is_here = addresses.into_iter().flatten().all(|addr| addr.ip().is_loopback());
    http.enabled && http.admin_token.is_none() && http.admin_addr.is_none() && is_here
}

/// The ports of a server.
struct Ports {
    /// One for each worker.
    sockets: Vec<UdpSocket>,
    local_addr: SocketAddr,
    /// For TLS over TCP, one for each worker, or none.
    secure: Vec<http::Listener>,
    http_addr: Option<SocketAddr>,
    /// The same without TLS.
    plain: Vec<http::Listener>,
    plain_http_addr: Option<SocketAddr>,
    /// For the admin API on an address of its own.
    admin: Option<http::Listener>,
    admin_addr: Option<SocketAddr>,
}

/// Tries to find a port that is free for all workers, and for UDP and TCP alike, where the system may choose it.
const PORT_TRIES: usize = 16;

impl Ports {
    fn bind(config: &Config, workers: usize) -> Result<Self, ServerError> {
        let mut tries = if config.addr.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::try_bind(config, workers) {
                Err(ServerError::Bind { cause, .. } | ServerError::BindTcp { cause, .. })
                    if tries > 0 && cause.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
    }

    fn try_bind(config: &Config, workers: usize) -> Result<Self, ServerError> {
        let bind = |cause| ServerError::Bind { addr: config.addr, cause };
        let buffers = size(config.quic.socket_buffer_bytes);
        let sockets = socket::bind_group(config.addr, workers, buffers).map_err(bind)?;
        let local_addr = sockets[0].local_addr().map_err(bind)?;
        let open = |addr: Option<SocketAddr>, setting| {
            let Some(addr) = addr.filter(|_| config.http.enabled) else { return Ok((None, Vec::new())) };
            let (addr, listeners) =
                http::bind(addr, workers).map_err(|cause| ServerError::BindTcp { addr, setting, cause })?;
            Ok::<_, ServerError>((Some(addr), listeners))
        };
        let (http_addr, secure) = open(Some(config.http.addr.unwrap_or(local_addr)), "http.addr")?;
        let (plain_http_addr, plain) = open(config.http.plain_addr, "http.plain_addr")?;
        let admin = config.http.admin_addr.map(|addr| {
            let setting = "http.admin_addr";
            http::bind_admin(addr).map_err(|cause| ServerError::BindTcp { addr, setting, cause })
        });
        let (admin_addr, admin) = admin.transpose()?.unzip();
        Ok(Self { sockets, local_addr, secure, http_addr, plain, plain_http_addr, admin, admin_addr })
    }
}

/// Tells how a worker ended, also where it panicked.
struct Report {
    ended: mpsc::Sender<(usize, Result<(), String>)>,
    end: Option<(usize, Result<(), String>)>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // There is room for one report of each worker.
            let _ = self.ended.try_send(end);
        }
    }
}

fn size(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use tokio::time::{sleep, timeout};
    use web_transport_quinn::{ClientBuilder, RecvStream, SendStream, Session};

    use super::*;
    use crate::tls::{DevelopmentFiles, Trust};
    use crate::{Client, Event};

    const PATIENCE: Duration = Duration::from_secs(20);
    const DAY_S: u64 = 24 * 60 * 60;

    /// A session of who trusts a certificate by its hash, with its control lane.
    struct Page {
        session: Session,
        lane: (SendStream, RecvStream),
    }

    impl Page {
        async fn open(addr: SocketAddr, sha256: [u8; 32]) -> Option<Self> {
            let builder = ClientBuilder::new();
            let client = builder.with_server_certificate_hashes(vec![sha256.to_vec()]).expect("a client");
            let url = format!("https://{addr}/wt").parse::<reqwest::Url>().expect("a URL");
            let session = timeout(PATIENCE, client.connect(url)).await.expect("in time").ok()?;
            let lane = session.open_bi().await.expect("a stream");
            let mut page = Self { session, lane };
            page.ask(br#"{"type":"handshake","protocol_version":"1.0"}"#).await;
            Some(page)
        }

        async fn ask(&mut self, body: &[u8]) {
            let (send, receive) = &mut self.lane;
            let length = u32::try_from(body.len()).expect("a length").to_be_bytes();
            send.write_all(&[&length, body].concat()).await.expect("the stream takes bytes");
            let mut length = [0; 4];
            timeout(PATIENCE, receive.read_exact(&mut length)).await.expect("in time").expect("a reply");
            receive.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).await.expect("a reply");
        }
    }

    #[tokio::test]
    async fn a_short_lived_certificate_is_replaced_and_nobody_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(folder.path());
        files.make(&["127.0.0.1".into()], false).expect("certificates");
        let mut config = Config { addr: "127.0.0.1:0".parse().expect("an address"), workers: 2, ..Config::default() };
        (config.tls.cert, config.tls.key) = (files.cert.clone(), files.key.clone());
        let mut server = Server::bind(config).expect("it binds");
        let ahead = Arc::new(AtomicU64::new(0));
        let days = Arc::clone(&ahead);
        server.tls.set_clock(move || SystemTime::now() + Duration::from_secs(days.load(Ordering::Relaxed) * DAY_S));
        let (addr, status, reloader) = (server.local_addr(), server.status(), server.reloader());
        let told = move || status.short_lived().hash().expect("there is one").sha256;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone()));

        let builder = Client::builder(addr.to_string()).trust(Trust::CaFile(files.ca.clone()));
        let (client, mut events) = builder.connect().await.expect("it connects");
        let mut hashes = vec![told()];
        let mut pages = vec![Page::open(addr, hashes[0]).await.expect("the hash is good")];
        for round in 1..3 {
            ahead.fetch_add(12, Ordering::Relaxed);
            // Has it look at the clock.
            reloader.reload();
            let replaced = async {
                while hashes.contains(&told()) {
                    sleep(Duration::from_millis(2)).await;
                }
                // Workers get it one after the other.
                loop {
                    if let Some(page) = Page::open(addr, told()).await {
                        return page;
                    }
                }
            };
            let page = timeout(PATIENCE, replaced).await.expect("in time");
            pages.push(page);
            hashes.push(told());
            for page in &mut pages {
                page.ask(br#"{"type":"ping"}"#).await;
            }
            client.echo(&format!("round {round}")).await.expect("it is served");
        }
        for old in &hashes[..2] {
            assert!(Page::open(addr, *old).await.is_none(), "an old hash is good no more");
        }
        assert!(pages.iter().all(|page| page.session.close_reason().is_none()));
        let heard = timeout(Duration::from_millis(1), events.next()).await;
        assert!(!matches!(heard, Ok(Some(Event::Reconnected | Event::Closed(_)))), "{heard:?}");
        shutdown.cancel();
        timeout(PATIENCE, running).await.expect("in time").expect("no panic").expect("a clean end");
    }
}
