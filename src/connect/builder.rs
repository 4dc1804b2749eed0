//! How a client is to connect.

use std::path::PathBuf;
use std::time::Duration;

use super::{Client, ClientError, Events};
use crate::message::{ClientName, Invalid, Token};
use crate::tls::Trust;

/// Settings of a client to be; [`connect`](Self::connect) makes it.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    pub(super) server: String,
    pub(super) name: Option<ClientName>,
    pub(super) token: Option<Token>,
    pub(super) trust: Trust,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) compression: bool,
    pub(super) early_data: bool,
    pub(super) reconnect: bool,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) max_message_bytes: usize,
    pub(super) event_queue: usize,
}

impl ClientBuilder {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            name: None,
            token: None,
            trust: Trust::System,
            identity: None,
            compression: false,
            early_data: false,
            reconnect: true,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
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

    /// Proof of who the client is, for servers that ask for it: 1 to 8192 bytes of visible ASCII. Default: none.
    ///
    /// # Errors
    /// [`Invalid`] where the token is out of these bounds.
    pub fn token(mut self, token: &str) -> Result<Self, Invalid> {
        self.token = Some(Token::new(token)?);
        Ok(self)
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

    /// Largest message taken from the server, in bytes; a larger one ends the connection. Default: 4 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Events that wait to be read; with more the client reads no further, and the server may close it as a slow
    /// consumer. Default: 1,024; at least 1.
    pub fn event_queue(mut self, events: usize) -> Self {
        self.event_queue = events.max(1);
        self
    }

    /// Connects and shakes hands. The first attempt is the caller's: only later ones are repeated by themselves.
    ///
    /// # Errors
    /// [`ClientError`] says why it did not work out.
    pub async fn connect(self) -> Result<(Client, Events), ClientError> {
        Client::start(self).await
    }
}
