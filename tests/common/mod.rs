//! A real server on a free port, and a client written against docs/PROTOCOL.md alone: it shares no code with the
//! library, so that a mistake there cannot be hidden by being made twice.

#![allow(dead_code, unreachable_pub, missing_docs)] // Each test binary uses a different part of this.
#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

#[macro_use]
mod wire;

pub mod admin;
pub mod bare;
pub mod forms;
pub mod library;
pub mod limits;
pub mod over;
pub mod packets;
pub mod process;
pub mod relay;
pub mod requests;
pub mod stage;
pub mod tap;
pub mod tokens;
pub mod topics;
pub mod transcripts;
pub mod web_socket;
pub mod web_transport;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quic_websocket::tls::{ClientFiles, DevelopmentFiles};
use quic_websocket::{CancellationToken, Config, Server, ServerError, ServerStatus};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::task::JoinHandle;
use web_transport_quinn::Session;

/// How long anything expected may take before the test fails: generous, because machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something expected, and names it if it does not happen in time.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Polls until a condition holds for which there is no notification.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A running server with development certificates in a separate folder.
pub struct TestServer {
    pub addr: SocketAddr,
    /// Its address for HTTP and WebSocket over TLS, and the one without TLS.
    pub http: Option<SocketAddr>,
    pub plain_http: Option<SocketAddr>,
    /// The separate address of the admin API, and its token.
    pub admin: Option<SocketAddr>,
    pub admin_token: Option<String>,
    pub files: DevelopmentFiles,
    pub status: ServerStatus,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ServerError>>,
    _folder: tempfile::TempDir,
}

impl TestServer {
    /// A server with two workers and otherwise the defaults.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server with settings changed by the test.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = DevelopmentFiles::inside(folder.path());
        files.make(&["localhost".into(), "127.0.0.1".into()], false).expect("certificates");
        let mut config = Config::default();
        config.addr = "127.0.0.1:0".parse().expect("an address");
        config.workers = 2;
        config.tls.cert = files.cert.clone();
        config.tls.key = files.key.clone();
        config.timing.drain_timeout_ms = 2000;
        // Clients here trust the authority.
        config.webtransport.short_lived_certificate = Some(false);
        change(&mut config);
        let server = Server::bind(config).expect("the server binds");
        let (addr, status, shutdown) = (server.local_addr(), server.status(), CancellationToken::new());
        let (http, plain_http, admin) = (server.http_addr(), server.plain_http_addr(), server.admin_addr());
        let admin_token = server.admin_token();
        let running = tokio::spawn(server.run(shutdown.clone()));
        Self { addr, http, plain_http, admin, admin_token, files, status, shutdown, running, _folder: folder }
    }

    /// Starts the drain.
    pub fn drain(&self) {
        self.shutdown.cancel();
    }

    /// Drains the server and waits for its end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        soon("the server's end", self.running).await.expect("no panic").expect("a clean end");
    }

    /// A client endpoint on a separate socket that trusts this server.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint_with(TransportConfig::default())
    }

    /// The same with other transport settings, such as small windows.
    pub fn endpoint_with(&self, transport: TransportConfig) -> Endpoint {
        endpoint_trusting(&self.files.ca, &["qws/1"], transport)
    }

    /// The same with other protocols offered (ALPN).
    pub fn endpoint_speaking(&self, protocols: &[&str], transport: TransportConfig) -> Endpoint {
        endpoint_trusting(&self.files.ca, protocols, transport)
    }

    /// A client endpoint that trusts this server and presents a client certificate, or none.
    pub fn endpoint_showing(&self, identity: Option<&ClientFiles>) -> Endpoint {
        self.endpoint_showing_for(identity, "qws/1")
    }

    /// The same for another protocol (ALPN).
    pub fn endpoint_showing_for(&self, identity: Option<&ClientFiles>, protocol: &str) -> Endpoint {
        endpoint_over(tls_showing(&self.files.ca, identity), &[protocol], TransportConfig::default())
    }

    /// A connection without a handshake.
    pub async fn stranger(&self) -> RawClient {
        RawClient::connect(&self.endpoint(), self.addr).await
    }

    /// A client whose handshake was accepted.
    pub async fn client(&self, name: &str) -> RawClient {
        let mut client = self.stranger().await;
        client.handshake(name).await;
        client
    }
}

/// A client endpoint on a separate socket that trusts the authority in a file and offers these protocols (ALPN).
pub fn endpoint_trusting(ca: &Path, protocols: &[&str], transport: TransportConfig) -> Endpoint {
    endpoint_over(tls_trusting(ca).with_no_client_auth(), protocols, transport)
}

type TlsBuilder = rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>;

pub fn tls_trusting(ca: &Path) -> TlsBuilder {
    tls_speaking(&rustls::version::TLS13, ca)
}

/// The same for one version of TLS.
pub fn tls_speaking(version: &'static rustls::SupportedProtocolVersion, ca: &Path) -> TlsBuilder {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("the CA's file")).expect("the CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
}

/// The TLS configuration of a client that presents a client certificate, or none.
pub fn tls_showing(ca: &Path, identity: Option<&ClientFiles>) -> rustls::ClientConfig {
    let builder = tls_trusting(ca);
    match identity {
        Some(files) => {
            let cert = CertificateDer::from_pem_file(&files.cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("they fit")
        }
        None => builder.with_no_client_auth(),
    }
}

fn endpoint_over(mut tls: rustls::ClientConfig, protocols: &[&str], transport: TransportConfig) -> Endpoint {
    // Used only by clients that request it, on a server that allows it.
    tls.enable_early_data = true;
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC over TLS")));
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    endpoint.set_default_client_config(config);
    endpoint
}

/// One bidirectional stream: a lane.
pub struct RawLane {
    pub send: SendStream,
    pub receive: RecvStream,
}

impl RawLane {
    /// Sends raw bytes.
    pub async fn raw(&mut self, bytes: &[u8]) {
        soon("room on the stream", self.send.write_all(bytes)).await.expect("the stream takes bytes");
    }

    /// Sends one body behind its length; returns false if the peer accepts nothing more.
    pub async fn try_body(&mut self, body: &[u8]) -> bool {
        soon("room on the stream", self.send.write_all(&framed(body))).await.is_ok()
    }

    /// Sends one body behind its length.
    pub async fn body(&mut self, body: &[u8]) {
        self.raw(&framed(body)).await;
    }

    /// The next body, or how the lane ended.
    pub async fn try_hear_body(&mut self) -> Result<Vec<u8>, String> {
        let mut length = [0; 4];
        soon("a frame", self.receive.read_exact(&mut length)).await.map_err(|e| format!("{e:?}"))?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        soon("a body", self.receive.read_exact(&mut body)).await.map_err(|e| format!("{e:?}"))?;
        Ok(body)
    }
}

speaks!(RawLane);

/// Way on which a request is sent.
#[derive(Debug, Clone, Copy)]
pub enum On {
    Control,
    /// A separate request lane.
    Lane,
    Datagram,
}

impl On {
    pub const EACH: [Self; 3] = [Self::Control, Self::Lane, Self::Datagram];
}

/// A connection with its control lane.
pub struct RawClient {
    pub connection: Connection,
    pub control: RawLane,
    pub id: String,
    /// The session, on WebTransport.
    pub session: Option<Session>,
}

impl RawClient {
    /// Connects and opens the control lane, without sending anything yet.
    pub async fn connect(endpoint: &Endpoint, addr: SocketAddr) -> Self {
        let connecting = endpoint.connect(addr, "localhost").expect("a connection begins");
        let connection = soon("a connection", connecting).await.expect("it connects");
        Self::over(connection).await
    }

    /// Opens the control lane of a connection.
    pub async fn over(connection: Connection) -> Self {
        let (send, receive) = connection.open_bi().await.expect("a stream");
        Self { connection, control: RawLane { send, receive }, id: String::new(), session: None }
    }

    /// Sends one body and returns the reply, which arrives the same way.
    pub async fn ask(&mut self, on: On, body: &[u8]) -> Value {
        match on {
            On::Control => {
                self.control.body(body).await;
                self.control.hear().await
            }
            On::Lane => {
                let mut lane = self.lane().await;
                lane.body(body).await;
                lane.hear().await
            }
            On::Datagram => {
                self.send_datagram(body);
                let reply = self.read_datagram().await;
                serde_json::from_slice(&reply).expect("JSON")
            }
        }
    }

    /// Opens a request lane.
    pub async fn lane(&self) -> RawLane {
        open_lane(&self.connection, self.session.as_ref()).await
    }

    /// Sends a datagram.
    /// Sends a datagram of a connection, or of its session.
    pub fn send_datagram(&self, body: &[u8]) {
        send_datagram(&self.connection, self.session.as_ref(), body);
    }

    /// The next datagram.
    pub async fn read_datagram(&self) -> Vec<u8> {
        read_datagram(&self.connection, self.session.as_ref()).await
    }

    /// Waits for the server's close and returns its code and reason.
    pub async fn closed(&self) -> (u64, String) {
        if let Some(session) = &self.session {
            return web_transport::closed(session).await;
        }
        closed(&self.connection).await
    }
}

shakes_hands!(RawClient);

async fn open_lane(connection: &Connection, session: Option<&Session>) -> RawLane {
    let (mut send, receive) = soon("a stream", connection.open_bi()).await.expect("a stream");
    if session.is_some() {
        send.write_all(web_transport::LANE).await.expect("the stream takes bytes");
    }
    RawLane { send, receive }
}

/// Sends a datagram of a connection, or of its session.
pub fn send_datagram(connection: &Connection, session: Option<&Session>, body: &[u8]) {
    let session = session.map_or(&[][..], |_| web_transport::DATAGRAM);
    connection.send_datagram([session, body].concat().into()).expect("a datagram leaves");
}

/// The next datagram of a connection, or of its session.
pub async fn read_datagram(connection: &Connection, session: Option<&Session>) -> Vec<u8> {
    let datagram = soon("a datagram", connection.read_datagram()).await.expect("a datagram");
    let session = session.map_or(&[][..], |_| web_transport::DATAGRAM);
    datagram.strip_prefix(session).expect("a datagram of the session").to_vec()
}

/// Waits for the server's close of a connection and returns its code and reason.
pub async fn closed(connection: &Connection) -> (u64, String) {
    match soon("the server's close", connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("expected the server to close with a code, got {other}"),
    }
}

/// The time in the protocol's format.
pub fn now_ms() -> u64 {
    let elapsed = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970");
    u64::try_from(elapsed.as_millis()).expect("a time that fits")
}

/// A body behind its length.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a body below 4 GiB");
    [&length.to_be_bytes()[..], body].concat()
}

/// A body with an attachment.
pub fn with_attachment(message: &Value, attachment: &[u8]) -> Vec<u8> {
    let json = message.to_string();
    let length = u32::try_from(json.len()).expect("JSON below 4 GiB");
    [&[0x01], &length.to_be_bytes()[..], json.as_bytes(), attachment].concat()
}
