//! Where connections come in: the port, TLS, and how long who is in may stay.

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
use super::{EVERYWHERE, Http, Peer};
use crate::Printable;
use crate::limits::Admission;

/// Connections that wait to be looked at, for each worker.
const WAITING: i32 = 1024;
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Bytes that the system may hold for a client beyond what is on its way, so that what waits does so where it can still be
/// dropped, or give way.
const UNSENT_BYTES: u32 = 64 * 1024;
/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How long a connection may last that becomes no WebSocket; then it ends after the request that it is at.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// After a failure to accept, which is the system's and lasts: too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Before the same is told again.
pub(super) const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// One worker's listener on a port.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: std::net::TcpListener,
    /// With which certificate, which may change; `None` without TLS.
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    serves: Serves,
}

/// What is behind a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    /// WebSocket, pages, and the admin API for those who have its token.
    Everything,
    /// The admin API and the dashboard, without a token.
    Admin,
}

/// Binds the one listener of the admin API's own address. Port 0 becomes a free port. Gives that address.
pub(crate) fn bind_admin(addr: SocketAddr) -> io::Result<(SocketAddr, Listener)> {
    let listener = listener(addr, false)?;
    Ok((listener.local_addr()?, Listener { listener, tls: None, serves: Serves::Admin }))
}

/// Binds one listener for each worker to the same address, without TLS for now. Port 0 becomes the same free port for all.
/// Gives that address.
pub(crate) fn bind(addr: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<Listener>)> {
    let shared = workers > 1;
    // As with UDP: alone at first, so that another server there is found.
    let addr = listener(addr, false)?.local_addr()?;
    let serves = Serves::Everything;
    let listeners = (0..workers).map(|_| Ok(Listener { listener: listener(addr, shared)?, tls: None, serves }));
    Ok((addr, listeners.collect::<io::Result<_>>()?))
}

fn listener(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    {
        // Connections of a server that has ended may still be parting.
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
    socket.listen(WAITING)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listener inside its worker's runtime.
pub(super) struct OpenListener {
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    pub(super) serves: Serves,
    /// For connections that are no WebSocket, or not yet.
    places: Arc<Semaphore>,
}

impl Listener {
    /// Lets nobody in but by TLS.
    pub(crate) fn over_tls(self, tls: watch::Receiver<Arc<rustls::ServerConfig>>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Call inside the worker's runtime.
    pub(super) fn open(self, http: &Http) -> io::Result<OpenListener> {
        let most = http.worker_context.context.config.limits.max_http_connections;
        let places = match self.serves {
            Serves::Everything => Arc::clone(&http.places),
            // Strangers who take all of the others do not keep the operator from looking.
            Serves::Admin => Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS))),
        };
        Ok(OpenListener { listener: TcpListener::from_std(self.listener)?, tls: self.tls, serves: self.serves, places })
    }
}

impl OpenListener {
    /// Lets connections in, each with a task of its own. Does not end.
    pub(super) async fn admit(self, http: &Arc<Http>, router: &Router) -> Infallible {
        let mut told: Option<Instant> = None;
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Once a minute is enough for whoever has to raise a limit.
                    if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                        told = Some(Instant::now());
                        warn!("No connection accepted over TCP, trying again: {e}");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if let Some(refused) = self.let_in(stream, from, http, router) {
                debug!(peer = %from, "Connection from {from} over TCP refused: {refused}");
            }
        }
    }

    fn let_in(&self, stream: TcpStream, from: SocketAddr, http: &Arc<Http>, router: &Router) -> Option<&'static str> {
        let addresses = &http.worker_context.context.addresses;
        // Whom a proxy brings is known once there is a request.
        let mut of_address = None;
        if !http.worker_context.context.live.http().is_proxy(from.ip()) {
            // Its address is proven by TCP itself.
            if let Admission::Refused(why) = addresses.admit(from.ip(), true) {
                return Some(why);
            }
            let Some(place) = addresses.connect_http(from.ip()) else { return Some("too many of this address") };
            of_address = Some(place);
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Some("too many in all") };
        set_options(&stream);
        let tls = self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let (http, router) = (Arc::clone(http), router.clone());
        let tasks = http.tasks.clone();
        tasks.spawn(async move {
            let _held = (of_address, place);
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
                Ok(Err(e)) => http.tls_failures.tell(from, &e),
                Err(_) => debug!(peer = %from, "TLS with {from} over TCP took too long"),
            }
        });
        None
    }
}

/// Errors mean that the connection has ended already.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// Serves one connection's requests.
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
    // Older than that they need not say whom they ask.
    let asks = if request.version() >= Version::HTTP_11 { host(&request).map(drop) } else { Ok(()) };
    let mut response = match asks.and(client) {
        Ok(client) => route(request, client, router).await,
        Err(refused) => refused.into_response(),
    };
    for (name, value) in EVERYWHERE {
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
