//! Settings of a client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::dial::{SocketUrl, parse_url};
use super::token::{Failure, TokenSource};
use super::{Carrier, Client, ClientError, Events};
use crate::message::{ClientName, Invalid, Token};
use crate::tls::Trust;

/// Settings of a client to be; [`connect`](Self::connect) makes it.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    pub(super) server: String,
    pub(super) name: Option<ClientName>,
    pub(super) token: TokenSource,
    pub(super) carriers: Vec<Carrier>,
    pub(super) socket_url: Option<SocketUrl>,
    pub(super) settle: Duration,
    pub(super) retry_quic: Option<Duration>,
    pub(super) retry_first: bool,
    pub(super) trust: Trust,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) compression: bool,
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
            carriers: vec![Carrier::Quic, Carrier::WebSocket],
            socket_url: None,
            settle: Duration::from_millis(800),
            retry_quic: Some(Duration::from_secs(60)),
            retry_first: false,
            trust: Trust::System,
            identity: None,
            compression: false,
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
    /// [`Invalid`] where the name is out of them.
    pub fn name(mut self, name: &str) -> Result<Self, Invalid> {
        self.name = Some(ClientName::new(name)?);
        Ok(self)
    }

    /// Proof of who the client is, for servers that ask for it: 1 to 8192 bytes of visible ASCII; white space around it is
    /// cut off. Default: none.
    ///
    /// # Errors
    /// [`Invalid`] where the token is out of these bounds.
    pub fn token(mut self, token: &str) -> Result<Self, Invalid> {
        self.token = TokenSource::Fixed(Token::new(token.trim())?);
        Ok(self)
    }

    /// Has the program asked for a token: at each connect, and before the one that holds expires. White space around it is
    /// cut off. What fails, or takes longer than [`connect_timeout`](Self::connect_timeout), is asked for again, after a
    /// random time that grows with each failure; only where it fails for the first connection, that is the caller's
    /// ([`ClientError::Token`]), unless [`retry_first`](Self::retry_first) says otherwise.
    ///
    /// A client whose token expired all the same comes back with the next one. Once it was connected, it also comes back
    /// where the server refuses a token (4401): with another one, after a time as above.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), quic_websocket_client::ClientError> {
    /// use quic_websocket_client::Client;
    ///
    /// let file = "/run/secrets/token";
    /// let client = Client::builder("chat.example:4433").token_from(move || async move { std::fs::read_to_string(file) });
    /// let (client, _) = client.connect().await?;
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

    /// What may carry the connection. With both, QUIC has a head start, then WebSocket is tried beside it; where QUIC is not
    /// there in time ([`settle`](Self::settle)), WebSocket is taken, and QUIC tried again later
    /// ([`retry_quic`](Self::retry_quic)). Default: both.
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

    /// Where the WebSocket is, such as `wss://chat.example/ws`; without TLS (`ws://`) only on the own machine. Default:
    /// `wss://HOST:PORT/ws`, with the server's host and port.
    ///
    /// # Errors
    /// [`Invalid`] where it is no such address.
    pub fn websocket_url(mut self, url: &str) -> Result<Self, Invalid> {
        self.socket_url = Some(parse_url(url)?);
        Ok(self)
    }

    /// After how long WebSocket is taken although QUIC may still come. Default: 800 ms.
    pub fn settle(mut self, after: Duration) -> Self {
        self.settle = after;
        self
    }

    /// On a WebSocket, after how long QUIC is tried again in the background; up to 16 times as long after it failed again.
    /// The client goes over to it where it comes through ([`Event::Moved`](super::Event::Moved)). `None`: never.
    /// Default: 60 s.
    pub fn retry_quic(mut self, after: Option<Duration>) -> Self {
        self.retry_quic = after;
        self
    }

    /// Whether to keep trying until the first connection is there, with the same pauses as for later ones; what no
    /// time can heal is still an error, such as a certificate that is not trusted. Default: no.
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

    /// Which servers to believe. Default: [`Trust::System`].
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The client's own certificate and its private key, PEM files, for servers that ask for one. They are read when the
    /// client connects for the first time. Default: none.
    pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// Whether to offer zstd: less on the wire, more work on both sides. Default: no.
    pub fn compression(mut self, offer: bool) -> Self {
        self.compression = offer;
        self
    }

    /// Whether to send the handshake with the first packet when coming back to a server that allows it (0-RTT): it answers
    /// a round trip sooner. Whoever records that packet can show it to the server again, which does no harm to one that
    /// keeps to the protocol; a token in it is as well protected as in any other. Default: no.
    pub fn early_data(mut self, early_data: bool) -> Self {
        self.early_data = early_data;
        self
    }

    /// Whether to come back by itself after a connection that ended for a reason that time can heal. Default: yes.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// How long one attempt to connect may take, handshake included. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call waits for its reply, and for a connection where there is none just then. Default: 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long the connection may be silent before the client sends a small packet. By the answer a client that only
    /// listens notices that the server was killed and is back, and what stands in between keeps the way open. `None`:
    /// never; then it notices after 45 s. Default: 10 s.
    pub fn keep_alive(mut self, interval: Option<Duration>) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Largest message taken from the server, in bytes; a larger one ends the connection. Default: 4 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Messages among the [`Events`] that wait to be read; with more, the oldest are dropped, and
    /// [`Event::Missed`](super::Event::Missed) counts them. Default: 1,024; at least 1.
    pub fn event_queue(mut self, events: usize) -> Self {
        self.event_queue = events.max(1);
        self
    }

    /// Connects and shakes hands. The first attempt is the caller's, unless [`retry_first`](Self::retry_first) says
    /// otherwise: only later ones are repeated by themselves.
    ///
    /// # Errors
    /// [`ClientError`] says why it did not work out.
    pub async fn connect(self) -> Result<(Client, Events), ClientError> {
        Client::start(self).await
    }
}
