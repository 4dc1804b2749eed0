//! A connection: docs/PROTOCOL.md over QUIC or WebSocket, with a task that reads each of its streams.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::SinkExt as _;
use futures_util::stream::{SplitSink, StreamExt as _};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that were received and not yet looked at.
const INBOX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Quic,
    WebSocket,
}

impl Carrier {
    pub(crate) const fn by_turns(number: usize) -> Self {
        if number.is_multiple_of(2) { Self::Quic } else { Self::WebSocket }
    }
}

/// What it takes to connect.
pub(crate) struct Dialer {
    server: SocketAddr,
    carrier: Carrier,
    tls: Arc<rustls::ClientConfig>,
}

impl Dialer {
    pub(crate) fn new(server: SocketAddr, ca: &Path, carrier: Carrier) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())? {
            roots.add(certificate?)?;
        }
        let mut tls = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let alpn: &[u8] = if carrier == Carrier::Quic { b"qws/1" } else { b"http/1.1" };
        tls.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self { server, carrier, tls: Arc::new(tls) })
    }

    /// Connects and shakes hands.
    pub(crate) async fn connect(&self, name: &str) -> Result<Connection> {
        let connecting = async {
            let mut connection = match self.carrier {
                Carrier::Quic => self.quic().await?,
                Carrier::WebSocket => self.web_socket().await?,
            };
            let handshake = json!({ "type": "handshake", "protocol_version": "1.0", "client_name": name });
            connection.send(&handshake, None).await?;
            let response = connection.receive().await.context("no response to the handshake")?;
            ensure!(response.json["accepted"] == true, "refused: {}", response.json);
            Ok(connection)
        };
        tokio::time::timeout(PATIENCE, connecting).await?
    }

    async fn quic(&self) -> Result<Connection> {
        let mut transport = TransportConfig::default();
        // A subscriber that only listens notices soon that the server was killed.
        transport.keep_alive_interval(Some(Duration::from_millis(50)));
        transport.max_idle_timeout(Some(Duration::from_secs(3).try_into()?));
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(Arc::clone(&self.tls))?));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
        let connection = endpoint.connect_with(config, self.server, "localhost")?.await?;
        let (send, control) = connection.open_bi().await?;
        let (into, inbox) = mpsc::channel(INBOX);
        let mut tasks = JoinSet::new();
        let lane = into.clone();
        // The control lane ends with the connection: its task then drops the others, and with them the inbox's senders.
        tasks.spawn(async move {
            let mut lanes = JoinSet::new();
            lanes.spawn(read_stream(control, into));
            loop {
                tokio::select! {
                    stream = connection.accept_uni() => match stream {
                        Ok(stream) => { lanes.spawn(read_stream(stream, lane.clone())); }
                        Err(_) => return,
                    },
                    _ = lanes.join_next() => return,
                }
            }
        });
        Ok(Connection { out: Out::Quic(send), inbox, _tasks: tasks })
    }

    async fn web_socket(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        let stream =
            TlsConnector::from(Arc::clone(&self.tls)).connect(ServerName::try_from("localhost")?, stream).await?;
        let mut request = format!("wss://{}/ws", self.server).into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("qws.v1"));
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let (out, mut from) = socket.split();
        let (into, inbox) = mpsc::channel(INBOX);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(Ok(message)) = from.next().await {
                let bytes = match message {
                    Message::Text(text) => text.as_bytes().to_vec(),
                    Message::Binary(bytes) => bytes.to_vec(),
                    _ => continue,
                };
                let Ok(body) = Body::parse(&bytes) else { return };
                if into.send(body).await.is_err() {
                    return;
                }
            }
        });
        Ok(Connection { out: Out::Socket(out), inbox, _tasks: tasks })
    }
}

async fn read_stream(mut stream: RecvStream, into: mpsc::Sender<Body>) {
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).await.is_err() {
            return;
        }
        let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap_or_default()];
        if stream.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let Ok(body) = Body::parse(&bytes) else { return };
        if into.send(body).await.is_err() {
            return;
        }
    }
}

/// A message as it came.
pub(crate) struct Body {
    pub(crate) json: Value,
    pub(crate) attachment: Option<Vec<u8>>,
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        match bytes.first() {
            Some(b'{') => Ok(Self { json: serde_json::from_slice(bytes)?, attachment: None }),
            Some(1) => {
                let length = usize::try_from(u32::from_be_bytes(*bytes[1..].first_chunk().context("a short body")?))?;
                let (json, attachment) = bytes[5..].split_at_checked(length).context("a short body")?;
                Ok(Self { json: serde_json::from_slice(json)?, attachment: Some(attachment.to_vec()) })
            }
            _ => bail!("a body of an unknown form"),
        }
    }
}

enum Out {
    Quic(SendStream),
    Socket(SplitSink<WebSocketStream<TlsStream<TcpStream>>, Message>),
}

/// A connection that has shaken hands; its tasks end with it.
pub(crate) struct Connection {
    out: Out,
    inbox: mpsc::Receiver<Body>,
    _tasks: JoinSet<()>,
}

impl Connection {
    pub(crate) async fn send(&mut self, json: &Value, attachment: Option<&[u8]>) -> Result<()> {
        let text = json.to_string();
        let body = match attachment {
            None => text.clone().into_bytes(),
            Some(attachment) => {
                let length = u32::try_from(text.len())?.to_be_bytes();
                [&[1], &length[..], text.as_bytes(), attachment].concat()
            }
        };
        match &mut self.out {
            Out::Quic(stream) => {
                stream.write_all(&u32::try_from(body.len())?.to_be_bytes()).await?;
                stream.write_all(&body).await?;
            }
            Out::Socket(socket) if attachment.is_none() => socket.send(Message::text(text)).await?,
            Out::Socket(socket) => socket.send(Message::binary(body)).await?,
        }
        Ok(())
    }

    /// The next message, or nothing once the connection has ended. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Option<Body> {
        self.inbox.recv().await
    }

    /// Answers a ping of the server; returns whether it was one.
    pub(crate) async fn answer(&mut self, body: &Body) -> bool {
        if body.json["type"] != "ping" {
            return false;
        }
        // If the connection has ended, the next read says so.
        self.send(&json!({ "type": "pong", "timestamp": body.json["timestamp"] }), None).await.ok();
        true
    }

    /// Ends the connection in order.
    pub(crate) async fn close(mut self) {
        // It may have ended already.
        if self.send(&json!({ "type": "close" }), None).await.is_ok() {
            let ended = async { while self.receive().await.is_some() {} };
            tokio::time::timeout(PATIENCE, ended).await.ok();
        }
    }
}
