//! The settings of a client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::dial::{SocketUrl, parse_url};
use super::serve::{Asked, Handler, Refusal};
use super::token::{Failure, TokenSource};
use super::{Carrier, Client, ClientError, Events};
use crate::message::{ClientName, Invalid, Payload, Token};
use crate::tls::Trust;

/// The settings of a client; [`connect`](Self::connect) creates it.
#[derive(Debug, Clone)]
#[must_use = "nothing is connected until `connect` is called and awaited"]
pub struct ClientBuilder {
    pub(super) server: String,
    pub(super) name: Option<ClientName>,
    pub(super) token: TokenSource,
    pub(super) on_request: Option<Handler>,
    pub(super) carriers: Vec<Carrier>,
    pub(super) socket_url: Option<SocketUrl>,
    pub(super) settle: Duration,
    pub(super) retry_quic: Option<Duration>,
    pub(super) retry_first: bool,
    pub(super) trust: Trust,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) compression: bool,
    pub(super) bulk_socket: bool,
    pub(super) early_data: bool,
    pub(super) reconnect: bool,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) keep_alive: Option<Duration>,
    pub(super) max_message_bytes: usize,
    pub(super) event_queue: usize,
}

impl ClientBuilder {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            name: None,
            token: TokenSource::None,
            on_request: None,
            carriers: vec![Carrier::Quic, Carrier::WebSocket],
            socket_url: None,
            settle: Duration::from_millis(800),
            retry_quic: Some(Duration::from_secs(60)),
            retry_first: false,
            trust: Trust::System,
            identity: None,
            compression: false,
            bulk_socket: false,
            early_data: false,
            reconnect: true,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(10)),
            max_message_bytes: 4 << 20,
            event_queue: 1024,
        }
    }

    /// The name that others see, within the bounds of a [`ClientName`]. Default: none.
    ///
    /// # Errors
    /// [`Invalid`] if the name is not within them.
    pub fn name(mut self, name: &str) -> Result<Self, Invalid> {
        self.name = Some(ClientName::new(name)?);
        Ok(self)
    }

    /// The client's token, for servers that require authentication: 1 to 8,192 bytes of visible ASCII. Surrounding
    /// white space is removed. Default: none.
    ///
    /// # Errors
    /// [`Invalid`] if the token is not within these bounds.
    pub fn token(mut self, token: &str) -> Result<Self, Invalid> {
        self.token = TokenSource::Fixed(Token::new(token.trim())?);
        Ok(self)
    }

    /// A function that provides the client's token. It is called at each connect, and before the current token expires.
    /// Surrounding white space is removed. If it fails, or takes longer than
    /// [`connect_timeout`](Self::connect_timeout), it is called again after a random delay that grows with each
    /// failure. For the first connection the failure is returned instead ([`ClientError::Token`]), unless
    /// [`retry_first`](Self::retry_first) is set.
    ///
    /// If a token expires all the same, the client reconnects with the next one. Once it has been connected, it also
    /// reconnects if the server rejects a token (4401): with another one, after a delay as above.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::Client;
    ///
    /// let file = "/run/secrets/token";
    /// let read = move || async move { std::fs::read_to_string(file) };
    /// let (client, _) = Client::builder("chat.example:4433").token_from(read).connect().await?;
    /// println!("connected as {:?}", client.user());
    /// # Ok(()) }
    /// ```
    pub fn token_from<F, T, E>(mut self, ask: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Failure>,
    {
        let ask = move || ask().map(|given| given.map_err(Into::into)).boxed();
        self.token = TokenSource::Asked(Arc::new(ask));
        self
    }

    /// Answers requests that other clients address to this one or to its user, by
    /// [`Client::request`](super::Client::request), as a handler of [`Client::serve`](super::Client::serve) does those
    /// to a topic. Default: such requests are refused.
    pub fn on_request<F, T, P>(mut self, answer: F) -> Self
    where
        F: Fn(Asked) -> T + Send + Sync + 'static,
        T: Future<Output = Result<P, Refusal>> + Send + 'static,
        P: Into<Payload>,
    {
        self.on_request = Some(Handler::new(answer));
        self
    }

    /// The transports that the client may use. With both, QUIC gets a head start of 250 ms, then WebSocket is tried in
    /// parallel. If QUIC has not connected in time ([`settle`](Self::settle)), the client uses WebSocket, and tries
    /// QUIC again later ([`retry_quic`](Self::retry_quic)). Default: both.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::{Carrier, Client};
    ///
    /// let (client, _) = Client::builder("chat.example:4433").carriers([Carrier::WebSocket]).connect().await?;
    /// assert_eq!(client.carrier(), Some(Carrier::WebSocket));
    /// # Ok(()) }
    /// ```
    pub fn carriers(mut self, carriers: impl IntoIterator<Item = Carrier>) -> Self {
        self.carriers = carriers.into_iter().collect();
        self
    }

    /// The URL of the WebSocket, such as `wss://chat.example/ws`; without TLS (`ws://`) only on this machine. Default:
    /// `wss://HOST:PORT/ws`, with the server's host and port.
    ///
    /// # Errors
    /// [`Invalid`] if it is not such a URL.
    pub fn websocket_url(mut self, url: &str) -> Result<Self, Invalid> {
        self.socket_url = Some(parse_url(url)?);
        Ok(self)
    }

    /// How long an open WebSocket waits for QUIC before the client uses it, counted from the start of the attempt.
    /// Default: 800 ms.
    pub fn settle(mut self, after: Duration) -> Self {
        self.settle = after;
        self
    }

    /// How long a client on a WebSocket waits before it tries QUIC again in the background. The delay doubles with each
    /// failure, up to 16 times. When QUIC connects, the client moves to it ([`Event::Moved`](super::Event::Moved)).
    /// `None`: never. Default: 60 s.
    pub fn retry_quic(mut self, after: Option<Duration>) -> Self {
        self.retry_quic = after;
        self
    }

    /// Whether [`connect`](Self::connect) retries until the first connection succeeds, with the same delays as a
    /// reconnect. Failures that time does not heal, such as an untrusted certificate, are still errors. Default: no.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::Client;
    ///
    /// // Started before its server, or together with it.
    /// let (client, _) = Client::builder("127.0.0.1:4433").retry_first(true).connect().await?;
    /// # Ok(()) }
    /// ```
    pub fn retry_first(mut self, retry: bool) -> Self {
        self.retry_first = retry;
        self
    }

    /// The servers to trust. Default: [`Trust::System`].
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// PEM files with the client's certificate and its private key, for servers that request a client certificate. They
    /// are read once, by [`connect`](Self::connect). Default: none.
    pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// Whether to offer zstd compression: fewer bytes on the wire, more CPU time on both sides. Default: no.
    pub fn compression(mut self, offer: bool) -> Self {
        self.compression = offer;
        self
    }

    /// Whether a client on a WebSocket opens a second one, for the messages of subscriptions that
    /// [ask for it](crate::SubscribeBuilder::on_bulk_lane): long ones there do not hold up those on the first. If it
    /// ends, these subscriptions continue on the first one, and the client tries again. The first attempt delays the
    /// subscriptions of a new connection by at most 2 s. Default: no.
    pub fn bulk_socket(mut self, open: bool) -> Self {
        self.bulk_socket = open;
        self
    }

    /// Whether to send the handshake with the first packet when reconnecting to a server that allows it (0-RTT), which
    /// saves a round trip. An attacker who records that packet can replay it, which does no harm to a server that keeps
    /// to the protocol; a token in it has no forward secrecy. Default: no.
    pub fn early_data(mut self, early_data: bool) -> Self {
        self.early_data = early_data;
        self
    }

    /// Whether to reconnect if the connection ends for a reason that time may heal. Default: yes.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// The time limit of one attempt to connect, handshake included. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The time limit of a call, including the wait for a connection while the client reconnects. Default: 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long the connection may be idle before the client sends a keep-alive packet. It lets a client that only
    /// listens detect a server that was killed and restarted, and keeps NAT bindings open. `None`: never; such a server
    /// is then detected after 45 s. Default: 10 s.
    pub fn keep_alive(mut self, interval: Option<Duration>) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Largest message accepted from the server, in bytes; a larger one ends the connection. Default: 4 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Most messages among the [`Events`] that wait to be read. Beyond that, the oldest are dropped, and
    /// [`Event::Missed`](super::Event::Missed) counts them. Default: 1,024; at least 1.
    pub fn event_queue(mut self, events: usize) -> Self {
        self.event_queue = events.max(1);
        self
    }

    /// Connects, and completes the handshake. If the first attempt fails, that is returned as an error, unless
    /// [`retry_first`](Self::retry_first) is set; later on, the client reconnects by itself.
    ///
    /// Cancel safe: if the call is dropped, the attempt ends.
    ///
    /// # Errors
    /// Any [`ClientError`] of an attempt to connect.
    pub async fn connect(self) -> Result<(Client, Events), ClientError> {
        Client::start(self).await
    }
}
