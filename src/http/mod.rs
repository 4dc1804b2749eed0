//! HTTP/1.1 on the TCP port, with QUIC's certificate, and optionally without TLS on a loopback address: WebSocket
//! upgrades, the bundled web pages, and the admin API. Passes sockets to `session`, and handles no messages itself.
//! Each worker has its own listener on the port and serves the connections that arrive there.

mod admin;
mod certificate;
mod fields;
mod host;
mod ice;
mod listener;
mod pages;
mod peer;
mod refusal;
mod socket;
mod tls_failures;

use std::convert::Infallible;
use std::sync::Arc;

use aws_lc_rs::rand;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Redirect;
use axum::routing::get;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::listener::Serves;
pub(crate) use self::listener::{Listener, bind, bind_admin};
use self::peer::Peer;
pub(crate) use self::tls_failures::TlsFailures;
use crate::config::Secret;
use crate::session::WorkerContext;

/// Headers of every response: pages load only from this server, and cannot be framed.
const COMMON_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; connect-src 'self' https: wss: ws:; img-src 'self' data: blob:; \
             media-src 'self' blob:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'; \
             frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Requests that wait at once for a topic's next message, at most, for each worker.
pub(crate) const MAX_WAITS: usize = 16;

/// Header of public resources, which pages of any origin may read.
const ANY_ORIGIN: (HeaderName, HeaderValue) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));

/// State shared by all HTTP connections of a worker.
pub(crate) struct Http {
    pub(crate) worker_context: WorkerContext,
    /// Owner of the tasks of connections and sockets.
    pub(crate) tasks: TaskTracker,
    /// Connection permits, shared by all workers.
    pub(crate) places: Arc<Semaphore>,
    /// UDP port of WebTransport.
    pub(crate) quic_port: u16,
    pub(crate) tls_failures: TlsFailures,
    /// Permits for requests of the admin API that wait for a topic's next message.
    pub(crate) waits: Semaphore,
}

impl Http {
    /// Serves all listeners. Never returns; once dropped, no new connections are accepted, and open ones end when the
    /// server drains.
    pub(crate) async fn serve(self: Arc<Self>, listeners: Vec<Listener>) -> Infallible {
        let (everything, admin) = (router(&self), admin_router(&self));
        let open = listeners.into_iter().filter_map(|listener| match listener.open(&self) {
            Ok(open) if open.serves == Serves::Admin => Some(open.accept_all(&self, &admin)),
            Ok(open) => Some(open.accept_all(&self, &everything)),
            Err(e) => {
                tracing::error!("A worker cannot serve HTTP: {e}");
                None
            }
        });
        join_all(open).await;
        std::future::pending().await
    }
}

fn router(http: &Arc<Http>) -> Router {
    let router = Router::new()
        .route("/ws", get(socket::open))
        .route("/certificate-hash", get(certificate::hash))
        .route("/ice-servers", get(ice::servers).options(ice::preflight));
    let router =
        if http.worker_context.context.config.http.echo { router.route("/echo", get(socket::echo)) } else { router };
    let router = router.merge(admin::router(http, Serves::Everything)).fallback(pages::serve);
    router.method_not_allowed_fallback(refusal::wrong_method).with_state(Arc::clone(http))
}

/// Routes of the admin API's own address.
fn admin_router(http: &Arc<Http>) -> Router {
    let router = Router::new().route("/", get(async || Redirect::to("/dashboard")));
    let router = router.merge(admin::router(http, Serves::Admin)).fallback(pages::serve);
    router.method_not_allowed_fallback(refusal::wrong_method).with_state(Arc::clone(http))
}

/// Generates an unguessable admin token; `None` if the system provides no random bytes.
pub(crate) fn admin_token() -> Option<Secret> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}
