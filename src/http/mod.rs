//! HTTP/1.1 on the TCP port, with the certificate of QUIC's, and where asked for without TLS on a loopback address: the way
//! to a WebSocket, and the web pages that come with the server. Stands beside `session`, to which it hands over sockets.
//! Each worker has a listener of its own on the port, and keeps the connections that land there.

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

/// What every answer says: pages load what this server has and nothing else, and stand in nobody's frame.
const EVERYWHERE: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; connect-src 'self' https: wss: ws:; img-src 'self' data: blob:; media-src 'self' blob:; \
             style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// What is there for everybody may be read by pages of any origin.
const FOR_ANY_PAGE: (HeaderName, HeaderValue) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));

/// What all connections of a worker share.
pub(crate) struct Http {
    pub(crate) worker_context: WorkerContext,
    /// Owns the tasks of connections and sockets.
    pub(crate) tasks: TaskTracker,
    /// Places for connections, of all workers.
    pub(crate) places: Arc<Semaphore>,
    /// Where WebTransport is.
    pub(crate) quic_port: u16,
    pub(crate) tls_failures: TlsFailures,
}

impl Http {
    /// Serves what comes in at the doors. Does not end; dropped, it lets nobody in any more, and who is in goes once the
    /// server drains.
    pub(crate) async fn serve(self: Arc<Self>, listeners: Vec<Listener>) -> Infallible {
        let (everything, admin) = (router(&self), admin_router(&self));
        let open = listeners.into_iter().filter_map(|listener| match listener.open(&self) {
            Ok(open) if open.serves == Serves::Admin => Some(open.admit(&self, &admin)),
            Ok(open) => Some(open.admit(&self, &everything)),
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

/// What is at the admin API's own address.
fn admin_router(http: &Arc<Http>) -> Router {
    let router = Router::new().route("/", get(async || Redirect::to("/dashboard")));
    let router = router.merge(admin::router(http, Serves::Admin)).fallback(pages::serve);
    router.method_not_allowed_fallback(refusal::wrong_method).with_state(Arc::clone(http))
}

/// A token for the admin API that cannot be guessed; `None` where the system gives no random bytes.
pub(crate) fn admin_token() -> Option<Secret> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}
