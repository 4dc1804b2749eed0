//! [`Client`]: its connection, its properties, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::builder::ClientBuilder;
use crate::dial::Ways;
use crate::driver::{Common, Driver, State};
use crate::error::ClientError;
use crate::events::{EventQueue, Events};
use crate::inbound::EventSink;
use crate::lane::Lane;
use crate::link::Link;
use crate::message::{ClientMessage, ClientName, Close, CloseCode, Limits, Permissions, ServerMessage};
use crate::token::Tokens;
use crate::topics::Topics;

/// What carries a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// QUIC, with lanes and datagrams.
    Quic,
    /// A WebSocket, where QUIC does not come through: one lane for everything.
    WebSocket,
}

/// What a connection has seen so far.
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
    /// Bytes that may be on their way at once, by the congestion controller.
    pub congestion_window: u64,
    /// Largest UDP payload that the path carries, as far as is known, in bytes.
    pub path_mtu: u16,
}

/// A client of a quic-websocket server. Clones share one connection; when the last is dropped, it is closed.
///
/// Every call that needs the connection waits for it while the client is on its way back, for at most
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
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Client {
    /// Settings for a client of the server at `host:port`.
    pub fn builder(server: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server.into())
    }

    pub(crate) async fn start(mut options: ClientBuilder) -> Result<(Self, Events), ClientError> {
        let ways = Ways::new(&options)?;
        let topics = Arc::<Topics>::default();
        let tokens = Arc::new(Tokens::new(std::mem::take(&mut options.token), options.connect_timeout));
        let (queue, events) = EventQueue::new(options.event_queue);
        let common = Common { options, tokens: Arc::clone(&tokens), ways, topics: Arc::clone(&topics) };
        let (link, reader) = common.connect_first().await?;
        let link = Arc::new(link);
        let (state, state_seen) = watch::channel(State::Up(Arc::clone(&link)));
        let (dropped, closing) = (CancellationToken::new(), CancellationToken::new());
        let shared = Shared {
            state: state_seen,
            topics,
            tokens,
            name: common.options.name.clone(),
            request_timeout: common.options.request_timeout,
            max_message_bytes: common.options.max_message_bytes,
            closing: closing.clone(),
            _dropped: dropped.clone().drop_guard(),
        };
        let sink =
            EventSink { events: queue, overlap: Arc::default(), max_message_bytes: common.options.max_message_bytes };
        let driver = Driver { common, state, sink, closing, dropped };
        // Ends by itself when the client is closed or its last handle dropped.
        tokio::spawn(driver.run(link, reader));
        Ok((Self { shared: Arc::new(shared) }, events))
    }

    /// The id that the server knows this client by; another one after a reconnect. `None` while not connected.
    pub fn id(&self) -> Option<Uuid> {
        self.up().and_then(|link| link.greeting.client_id)
    }

    /// The server's name. `None` while not connected.
    pub fn server_name(&self) -> Option<String> {
        self.up().map(|link| link.greeting.server_name.clone())
    }

    /// Who the client has proved to be, by a token or a certificate. `None` while not connected, and where it has not.
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

    /// The name that others see: the one from the client's token where it has one, else the one that it asked for. `None`
    /// where it goes by none.
    pub fn client_name(&self) -> Option<String> {
        let given = self.up().and_then(|link| link.greeting.client_name.clone());
        given.or_else(|| self.shared.name.as_ref().map(|name| name.as_str().to_owned()))
    }

    /// What the client may send to other clients, as told when it connected. `None` if the server restricts nobody, and while
    /// not connected.
    pub fn permissions(&self) -> Option<Permissions> {
        self.up()?.greeting.permissions
    }

    /// When the token of the present connection expires, in Unix milliseconds. `None` where it does not, or while not
    /// connected.
    pub fn expires_at(&self) -> Option<u64> {
        self.up()?.greeting.expires_at
    }

    /// Whether the client is closed for good: nothing brings it back.
    pub fn is_closed(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Closed(_))
    }

    /// What carries the present connection. `None` while not connected.
    pub fn carrier(&self) -> Option<Carrier> {
        Some(self.up()?.carrier())
    }

    /// The bounds that the server told. `None` while not connected, or where it told none.
    pub fn limits(&self) -> Option<Limits> {
        self.up().and_then(|link| link.greeting.limits)
    }

    /// What the present connection has seen so far. `None` while not connected, and over a WebSocket, which does not tell.
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

    /// Opens a request lane; waits while the server allows no further one.
    ///
    /// The server closes a client (1009) with more on its way than [`Limits::max_unfinished_bytes`] in messages that are not
    /// whole, on all lanes together. So with large messages send on fewer lanes at once than that divided by their size.
    ///
    /// # Errors
    /// [`ClientError::OneLane`] over a WebSocket; [`ClientError::Lost`], [`ClientError::Closed`], [`ClientError::Timeout`]
    /// where the server allows none in time.
    pub async fn open_lane(&self) -> Result<Lane, ClientError> {
        let Shared { request_timeout, max_message_bytes, .. } = *self.shared;
        self.bounded(async { Lane::open(self.link().await?, request_timeout, max_message_bytes).await }).await
    }

    /// Closes the client for good: the server is told, answers what it was asked before, and closes the connection.
    /// Returns once that is done, or after the request timeout. While the client is on its way back, it just stops.
    ///
    /// Not cancel safe: once begun, the client comes back no more, and where the call is dropped the server may not have
    /// been told.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] where the code or the reason may not be sent ([`Close::new`]); the client is as before.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<(), ClientError> {
        let close = ClientMessage::Close(Close::new(code, reason)?);
        self.shared.closing.cancel();
        let farewell = async {
            // Where the connection is gone already there is nobody to tell.
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

    /// The connection; waits for it while there is none.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, ClientError> {
        let mut state = self.shared.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Down)).await;
        match state.as_deref() {
            Ok(State::Up(link)) => Ok(Arc::clone(link)),
            Ok(State::Closed(closed)) => Err(ClientError::Closed { code: closed.code, reason: closed.reason.clone() }),
            Ok(State::Down) | Err(_) => Err(ClientError::Lost),
        }
    }

    /// Waits until this connection is the present one no more.
    pub(crate) async fn until_gone(&self, link: &Arc<Link>) {
        let is_present = |state: &State| matches!(state, State::Up(present) if Arc::ptr_eq(present, link));
        // An error means that no other will be.
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
