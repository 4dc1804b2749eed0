//! Connections: UDP sockets, of one client each or shared, or TCP with TLS, until the server responds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TransportConfig};
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::peer::Peer;
use super::{Target, tls};

const SOCKET_BUFFER: usize = 2 << 20;
/// Open files that are not clients' sockets.
const OTHER_FILES: usize = 128;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Dialer {
    target: Target,
    carrier: Carrier,
    verified: Arc<AtomicU64>,
}

enum Carrier {
    Quic { endpoints: Vec<Endpoint>, configs: Vec<ClientConfig> },
    Tls { connectors: Vec<TlsConnector>, name: ServerName<'static> },
}

impl Dialer {
    /// Prepares to connect this many clients. With `resume` each keeps its own session tickets; without it every
    /// handshake is a full one.
    pub(super) fn new(target: &Target, clients: usize, resume: bool) -> Result<Self> {
        let alpn: &[&[u8]] = if target.driver.is_quic() { &[b"qws/1"] } else { &[] };
        let verified = Arc::new(AtomicU64::new(0));
        let count = if resume { clients } else { 1 };
        let tls = tls::client_configs(&target.trust, alpn, resume, count, &verified)?.into_iter();
        let carrier = if !target.driver.is_quic() {
            let name = ServerName::try_from(target.name.clone()).context("the server's name")?;
            Carrier::Tls { connectors: tls.map(TlsConnector::from).collect(), name }
        } else {
            let wanted = if target.sockets == 0 { clients } else { clients.min(target.sockets) };
            let sockets = wanted.min(most_sockets());
            let endpoints = (0..sockets).map(|_| open(target.address)).collect::<Result<_>>()?;
            let mut transport = TransportConfig::default();
            if let Some(congestion) = target.congestion {
                transport.congestion_controller_factory(congestion.factory());
            }
            if let Some(window) = target.stream_window {
                transport.stream_receive_window(window.into());
            }
            let transport = Arc::new(transport);
            let config = |tls| {
                let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
                config.transport_config(Arc::clone(&transport));
                Ok(config)
            };
            Carrier::Quic { endpoints, configs: tls.map(config).collect::<Result<_>>()? }
        };
        Ok(Self { target: target.clone(), carrier, verified })
    }

    /// The same server, for clients with this receive window on each stream.
    pub(super) fn narrow(&self, stream_window: u32) -> Result<Self> {
        Self::new(&Target { stream_window: Some(stream_window), ..self.target.clone() }, 1, false)
    }

    /// Connects one client. Its number selects its socket.
    pub(super) async fn dial(&self, client: usize) -> Result<Peer> {
        let served = async {
            let mut peer = self.connect(client).await?;
            peer.greet(client).await?;
            Ok(peer)
        };
        let outcome = tokio::time::timeout(PATIENCE, served).await;
        outcome.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", PATIENCE.as_secs()))).with_context(|| {
            let carrier = if self.target.driver.is_quic() { "UDP" } else { "TCP" };
            format!("cannot connect to {} over {carrier}", self.target.address)
        })
    }

    /// Adds a second WebSocket to the session of a client.
    pub(super) async fn attach(&self, client: usize, session: &str) -> Result<Peer> {
        let mut peer = self.connect(client).await?;
        peer.attach(session).await?;
        Ok(peer)
    }

    async fn connect(&self, client: usize) -> Result<Peer> {
        match &self.carrier {
            Carrier::Quic { endpoints, configs } => {
                let config = configs[client % configs.len()].clone();
                let endpoint = &endpoints[client % endpoints.len()];
                let connecting = endpoint.connect_with(config, self.target.address, &self.target.name)?;
                let connection = connecting.await?;
                let (send, recv) = connection.open_bi().await?;
                Ok(Peer::new(self.target.driver, Box::new(tokio::io::join(recv, send)), Some(connection)))
            }
            Carrier::Tls { connectors, name } => {
                let stream = TcpStream::connect(self.target.address).await?;
                stream.set_nodelay(true)?;
                // Thousands of closed connections in TIME_WAIT would use up the ports.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                let stream = connectors[client % connectors.len()].connect(name.clone(), stream).await?;
                Ok(Peer::new(self.target.driver, Box::new(stream), None))
            }
        }
    }

    /// Handshakes so far in which the server had to present its certificate.
    pub(super) fn full_handshakes(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    /// Closes every socket and waits briefly until the server has been notified.
    pub(super) async fn close(self) {
        if let Carrier::Quic { endpoints, .. } = self.carrier {
            for endpoint in &endpoints {
                endpoint.close(1000_u32.into(), b"done");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Number of sockets that this process can open next to its other files. Clients beyond it share sockets.
fn most_sockets() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).max(1)
}

fn open(server: SocketAddr) -> Result<Endpoint> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = Socket::new(Domain::for_address(any), Type::DGRAM, Some(Protocol::UDP))?;
    // A larger buffer is better but not required, so a refusal by the system is not an error.
    socket.set_recv_buffer_size(SOCKET_BUFFER).ok();
    socket.set_send_buffer_size(SOCKET_BUFFER).ok();
    socket.bind(&any.into()).context("cannot open a UDP socket")?;
    let runtime = quinn::default_runtime().context("no async runtime")?;
    Ok(Endpoint::new(EndpointConfig::default(), None, socket.into(), runtime)?)
}
