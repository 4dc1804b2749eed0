//! [`Client`]: its connection, its properties, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::builder::ClientBuilder;
use crate::dial::Dialer;
use crate::driver::{Common, Driver, State};
use crate::error::ClientError;
use crate::events::{EventQueue, Events};
use crate::inbound::EventSink;
use crate::lane::Lane;
use crate::link::Link;
use crate::message::{ClientMessage, ClientName, Close, CloseCode, Json, Limits, Permissions, ServerMessage};
use crate::serve::serve_client;
use crate::token::Tokens;
use crate::topics::Topics;

/// The transport of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// QUIC, with lanes and datagrams.
    Quic,
    /// A WebSocket, for networks that block QUIC: one lane for everything.
    WebSocket,
}

/// Statistics of a QUIC connection since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The current estimate of the round trip.
    pub round_trip: Duration,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// QUIC packets sent.
    pub sent_packets: u64,
    /// QUIC packets that were sent and lost.
    pub lost_packets: u64,
    /// Bytes that may be in flight, as the congestion controller allows.
    pub congestion_window: u64,
    /// Largest UDP payload that the path is known to carry, in bytes.
    pub path_mtu: u16,
}

/// A client of a quic-websocket server. It is cheap to clone: clones share one connection, which is closed when the
/// last of them and the last subscription are dropped.
///
/// While the client reconnects, calls that need a connection wait for it, for at most
/// [`ClientBuilder::request_timeout`].
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: watch::Receiver<State>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) tokens: Arc<Tokens>,
    name: Option<ClientName>,
    pub(crate) request_timeout: Duration,
    max_message_bytes: usize,
    closing: CancellationToken,
    _dropped: DropGuard,
    /// Answers requests that are addressed to the client.
    _own_service: Option<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Client {
    /// Creates a builder for a client of the server at `host:port`.
    pub fn builder(server: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server.into())
    }

    pub(crate) async fn start(mut options: ClientBuilder) -> Result<(Self, Events), ClientError> {
        let dialer = Dialer::new(&options)?;
        let topics = Arc::<Topics>::default();
        let tokens = Arc::new(Tokens::new(std::mem::take(&mut options.token), options.connect_timeout));
        let (queue, events) = EventQueue::new(options.event_queue);
        let own_service = options.on_request.clone().map(|handler| serve_client(&topics, handler));
        let common = Common { options, tokens: Arc::clone(&tokens), dialer, topics: Arc::clone(&topics) };
        let (link, reader) = common.connect_initially().await?;
        let link = Arc::new(link);
        let (state, state_receiver) = watch::channel(State::Up(Arc::clone(&link)));
        let (dropped, closing) = (CancellationToken::new(), CancellationToken::new());
        let shared = Shared {
            state: state_receiver,
            topics,
            tokens,
            name: common.options.name.clone(),
            request_timeout: common.options.request_timeout,
            max_message_bytes: common.options.max_message_bytes,
            closing: closing.clone(),
            _dropped: dropped.clone().drop_guard(),
            _own_service: own_service,
        };
        let sink =
            EventSink { events: queue, overlap: Arc::default(), max_message_bytes: common.options.max_message_bytes };
        let driver = Driver { common, state, sink, closing, dropped };
        // Ends when the client is closed or its last handle is dropped.
        tokio::spawn(driver.run(link, reader));
        Ok((Self { shared: Arc::new(shared) }, events))
    }

    /// The client's id, which is a new one after each reconnect. `None` while not connected.
    pub fn id(&self) -> Option<Uuid> {
        self.up().and_then(|link| link.greeting.client_id)
    }

    /// The server's name. `None` while not connected.
    pub fn server_name(&self) -> Option<String> {
        self.up().map(|link| link.greeting.server_name.clone())
    }

    /// The user that the client has authenticated as, by a token or a certificate. `None` if it has not, and while not
    /// connected.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// # let token = "";
    /// let (client, _) = quic_websocket_client::Client::builder("127.0.0.1:4433").token(token)?.connect().await?;
    /// println!("{:?} is known to others as {:?}", client.user(), client.client_name());
    /// # Ok(()) }
    /// ```
    pub fn user(&self) -> Option<String> {
        self.up()?.greeting.user.clone()
    }

    /// The name that others see: the one from the client's token, if any, else the one that the client asked for.
    /// `None` if it has no name.
    pub fn client_name(&self) -> Option<String> {
        let given = self.up().and_then(|link| link.greeting.client_name.clone());
        given.or_else(|| self.shared.name.as_ref().map(|name| name.as_str().to_owned()))
    }

    /// What the client may send to other clients, as of the handshake. `None` if the server restricts nothing, and
    /// while not connected.
    pub fn permissions(&self) -> Option<Permissions> {
        self.up()?.greeting.permissions
    }

    /// The time at which the token of this connection expires, in Unix milliseconds. `None` if it does not expire, and
    /// while not connected.
    pub fn expires_at(&self) -> Option<u64> {
        self.up()?.greeting.expires_at
    }

    /// The user's own topic, which keeps what is sent to the user while no client of the user is connected: subscribe
    /// to it with a [`durable`](crate::SubscribeBuilder::durable) name for this device. `None` if the server has none
    /// for this client, and while not connected.
    pub fn inbox(&self) -> Option<String> {
        self.up()?.greeting.inbox.clone()
    }

    /// What others see about the user, from the client's token. `None` if there is nothing, and while not connected.
    pub fn info(&self) -> Option<Json> {
        self.up()?.greeting.info.clone()
    }

    /// Whether the client is closed for good and does not reconnect.
    pub fn is_closed(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Closed(_))
    }

    /// The transport of the current connection. `None` while not connected.
    pub fn carrier(&self) -> Option<Carrier> {
        Some(self.up()?.carrier())
    }

    /// The server's limits. `None` if it sent none, and while not connected.
    pub fn limits(&self) -> Option<Limits> {
        self.up().and_then(|link| link.greeting.limits)
    }

    /// Statistics of the current connection. `None` over a WebSocket, which has none, and while not connected.
    pub fn stats(&self) -> Option<ConnectionStats> {
        let stats = self.up()?.connection.quic()?.stats();
        Some(ConnectionStats {
            round_trip: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            congestion_window: stats.path.cwnd,
            path_mtu: stats.path.current_mtu,
        })
    }

    /// Opens a request lane. Waits while as many are open as the server allows ([`Limits::max_request_lanes`]).
    ///
    /// The server closes a client (1009) that has more than [`Limits::max_unfinished_bytes`] of incomplete messages in
    /// flight, on all lanes together. Send large messages on fewer lanes at once than that divided by their size.
    ///
    /// # Errors
    /// [`ClientError::OneLane`] over a WebSocket; [`ClientError::Timeout`] if no lane becomes available within
    /// [`ClientBuilder::request_timeout`]; [`ClientError::Lost`]; [`ClientError::Closed`].
    pub async fn open_lane(&self) -> Result<Lane, ClientError> {
        let Shared { request_timeout, max_message_bytes, .. } = *self.shared;
        self.bounded(async { Lane::open(self.link().await?, request_timeout, max_message_bytes).await }).await
    }

    /// Closes the client for good. The server answers earlier requests, and then closes the connection. Returns once it
    /// has, or after [`ClientBuilder::request_timeout`]. A client that is reconnecting stops.
    ///
    /// Not cancel safe: if the call is dropped, the client does not reconnect any more, but the server may not have
    /// received the close.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the code or the reason may not be sent ([`Close::new`]); the client stays open.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), ClientError> {
        let close = ClientMessage::Close(Close::new(code, reason)?);
        self.shared.closing.cancel();
        let farewell = async {
            // Without a connection there is nothing to send.
            if let Ok(link) = self.link().await {
                let _ = link.send_now(None, &close).await;
            }
            let _ = self.shared.state.clone().wait_for(|state| matches!(state, State::Closed(_))).await;
        };
        if timeout(self.shared.request_timeout, farewell).await.is_err()
            && let Some(link) = self.up()
        {
            link.close(code, reason).await;
        }
        Ok(())
    }

    fn up(&self) -> Option<Arc<Link>> {
        match &*self.shared.state.borrow() {
            State::Up(link) => Some(Arc::clone(link)),
            State::Down | State::Closed(_) => None,
        }
    }

    /// The current connection; waits for one while there is none.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, ClientError> {
        let mut state = self.shared.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Down)).await;
        match state.as_deref() {
            Ok(State::Up(link)) => Ok(Arc::clone(link)),
            Ok(State::Closed(closed)) => Err(ClientError::Closed { code: closed.code, reason: closed.reason.clone() }),
            Ok(State::Down) | Err(_) => Err(ClientError::Lost),
        }
    }

    /// Waits until this connection is no longer the current one.
    pub(crate) async fn until_replaced(&self, link: &Arc<Link>) {
        let is_present = |state: &State| matches!(state, State::Up(present) if Arc::ptr_eq(present, link));
        // An error means that there will be no other.
        let _ = self.shared.state.clone().wait_for(|state| !is_present(state)).await;
    }

    pub(crate) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let within = self.shared.request_timeout;
        timeout(within, call).await.unwrap_or(Err(ClientError::Timeout(within)))
    }
}

pub(crate) fn unexpected(asked: &'static str, got: &ServerMessage) -> ClientError {
    ClientError::Unexpected { asked, got: got.type_name() }
}
