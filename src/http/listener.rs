//! TCP listeners: ports, TLS, and the time limits of connections and requests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;
use tracing::{debug, warn};

use super::host::host;
use super::refusal::Refusal;
use super::{COMMON_HEADERS, Http, Peer};
use crate::Printable;
use crate::limits::Admission;

/// Accept backlog of each worker's listener, in connections.
const ACCEPT_BACKLOG: i32 = 1024;
/// Largest request head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Unsent bytes that the system may buffer for a client, so that further data waits where it can still be dropped or
/// reordered.
const UNSENT_BYTES: u32 = 64 * 1024;
/// Time limit of one request.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Lifetime of a connection that does not become a WebSocket; it then ends after its current request.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// Pause after a failed accept. Its cause lasts: usually too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Minimum time between two log lines about the same problem.
pub(super) const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// One worker's listener on a port.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: std::net::TcpListener,
    /// TLS configuration, which may change; `None` without TLS.
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    serves: Serves,
}

/// Routes behind a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    /// WebSocket, pages, and the admin API with its token.
    Everything,
    /// The admin API and the dashboard, without a token.
    Admin,
}

/// Binds the single listener of the admin API's own address. Port 0 selects a free port. Returns the actual address.
pub(crate) fn bind_admin(addr: SocketAddr) -> io::Result<(SocketAddr, Listener)> {
    let listener = listener(addr, false)?;
    Ok((listener.local_addr()?, Listener { listener, tls: None, serves: Serves::Admin }))
}

/// Binds one listener for each worker to the same address, without TLS at first. Port 0 selects one free port for all.
/// Returns the actual address.
pub(crate) fn bind(addr: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<Listener>)> {
    let shared = workers > 1;
    // As with UDP: exclusively at first, to detect another server there.
    let addr = listener(addr, false)?.local_addr()?;
    let serves = Serves::Everything;
    let listeners = (0..workers).map(|_| Ok(Listener { listener: listener(addr, shared)?, tls: None, serves }));
    Ok((addr, listeners.collect::<io::Result<_>>()?))
}

fn listener(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    {
        // Connections of a previous server may still be closing.
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
    }
    #[cfg(not(unix))]
    if shared {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "several workers need SO_REUSEPORT; set --workers 1"));
    }
    socket.bind(&addr.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listener inside its worker's runtime.
pub(super) struct OpenListener {
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    pub(super) serves: Serves,
    /// Permits for connections that are not yet a WebSocket.
    permits: Arc<Semaphore>,
}

impl Listener {
    /// Requires TLS on this listener.
    pub(crate) fn over_tls(self, tls: watch::Receiver<Arc<rustls::ServerConfig>>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Registers the listener with the worker's runtime; call it inside that runtime.
    pub(super) fn open(self, http: &Http) -> io::Result<OpenListener> {
        let most = http.worker_context.context.config.limits.max_http_connections;
        let permits = match self.serves {
            Serves::Everything => Arc::clone(&http.places),
            // Its own permits, so that other clients cannot lock the operator out.
            Serves::Admin => Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS))),
        };
        Ok(OpenListener {
            listener: TcpListener::from_std(self.listener)?,
            tls: self.tls,
            serves: self.serves,
            permits,
        })
    }
}

impl OpenListener {
    /// Accepts connections, each with a task of its own. Never returns.
    pub(super) async fn accept_all(self, http: &Arc<Http>, router: &Router) -> Infallible {
        let mut logged: Option<Instant> = None;
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Once a minute is enough for the operator to raise a limit.
                    if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                        logged = Some(Instant::now());
                        warn!("Cannot accept TCP connections, trying again: {e}");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if let Some(refused) = self.start(stream, from, http, router) {
                debug!(peer = %from, "Connection from {from} over TCP refused: {refused}");
            }
        }
    }

    fn start(&self, stream: TcpStream, from: SocketAddr, http: &Arc<Http>, router: &Router) -> Option<&'static str> {
        let addresses = &http.worker_context.context.addresses;
        // A proxy's client is known only once there is a request.
        let mut of_address = None;
        if !http.worker_context.context.live.http().is_proxy(from.ip()) {
            // TCP itself validates the address.
            if let Admission::Refused(why) = addresses.admit(from.ip(), true) {
                return Some(why);
            }
            let Some(permit) = addresses.connect_http(from.ip()) else {
                return Some("too many connections from this address");
            };
            of_address = Some(permit);
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Some("too many connections in total");
        };
        set_options(&stream);
        let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let (http, router) = (Arc::clone(http), router.clone());
        let tasks = http.tasks.clone();
        tasks.spawn(async move {
            let _held = (of_address, permit);
            let within = http.worker_context.context.config.timing.handshake_timeout();
            let draining = http.worker_context.draining.clone();
            let Some(acceptor) = tls else {
                let peer = Peer { address: from, is_tls: false, certificate: None, is_counted: true };
                return serve(stream, peer, &http, router).await;
            };
            let accepted = tokio::select! {
                accepted = timeout(within, acceptor.accept(stream)) => accepted,
                () = draining.cancelled() => return,
            };
            match accepted {
                Ok(Ok(stream)) => {
                    let own = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
                    let certificate = own.map(|own| own.into_owned());
                    let peer = Peer { address: from, is_tls: true, certificate, is_counted: true };
                    serve(stream, peer, &http, router).await;
                }
                Ok(Err(e)) => http.tls_failures.log(from, &e),
                Err(_) => debug!(peer = %from, "TLS with {from} over TCP took too long"),
            }
        });
        None
    }
}

/// Sets socket options. An error means that the connection has already ended.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// Serves the requests of one connection.
async fn serve<S>(stream: S, peer: Peer, http: &Http, router: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let context = &http.worker_context.context;
    let timing = &context.config.timing;
    let from = peer.address;
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, client) = (router.clone(), peer.behind(request.headers(), &context.live.http()));
        async move { Ok::<_, Infallible>(answer(request, client, router).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timing.handshake_timeout())
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = async {
            tokio::select! {
                () = http.worker_context.draining.cancelled() => {}
                () = sleep(CONNECTION_TIME) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            match timeout(timing.close_timeout(), connection).await {
                Ok(served) => served,
                Err(_) => return,
            }
        }
    };
    if let Err(e) = served {
        let e = e.to_string();
        debug!(peer = %from, "HTTP with {from} ended: {}", Printable::excerpt(&e));
    }
}

async fn answer(request: Request<Incoming>, client: Result<Peer, Refusal>, router: Router) -> Response {
    // Older versions need not send Host.
    let asks = if request.version() >= Version::HTTP_11 { host(&request).map(drop) } else { Ok(()) };
    let mut response = match asks.and(client) {
        Ok(client) => route(request, client, router).await,
        Err(refused) => refused.into_response(),
    };
    for (name, value) in COMMON_HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}

async fn route(request: Request<Incoming>, client: Peer, mut router: Router) -> Response {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(client);
    match timeout(REQUEST_TIME, router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
    }
}
