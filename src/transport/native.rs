//! Native QUIC (RFC 9000) with Quinn: the settings of endpoints and connections. Used by `server` and `worker`.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::crypto::HmacKey;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, Runtime, TokioRuntime, TransportConfig, VarInt,
};
use tokio::sync::{mpsc, watch};

use super::cid::{CidScheme, WorkerCids};
use super::socket::{MisroutedPacket, WorkerSocket};
use crate::config::{Config, Congestion, Quic};
use crate::tls::ResetKey;

/// Bytes of datagrams that QUIC buffers: one or two packets, so that stream data gets the packets after them.
const DATAGRAMS_IN_QUIC: usize = 4096;
/// Unidirectional streams that a client opens for HTTP/3 itself: control, QPACK encoder and decoder (RFC 9114 section
/// 6.2). Topics need none of the client's.
const HTTP3_STREAMS: u8 = 3;

/// Endpoint settings that all workers of a server share.
pub(crate) struct ServerSettings {
    /// Settings of new connections, which may change while the server runs.
    connections: watch::Receiver<quinn::ServerConfig>,
    cids: CidScheme,
    strays: Vec<mpsc::Sender<MisroutedPacket>>,
    reset_key: Arc<dyn HmacKey>,
    /// Minimum time between two stateless resets of one worker.
    reset_interval: Duration,
}

impl ServerSettings {
    /// Creates the settings, the sender that changes those of new connections, and for each worker the receiver of its
    /// misrouted packets.
    pub(crate) fn new(
        config: &Config,
        crypto: Arc<QuicServerConfig>,
        reset_key: &ResetKey,
        workers: usize,
    ) -> (Self, watch::Sender<quinn::ServerConfig>, Vec<mpsc::Receiver<MisroutedPacket>>) {
        let mut connections = quinn::ServerConfig::with_crypto(crypto);
        let mut transport = transport(&config.quic);
        transport
            // More datagrams wait in `outbound`.
            .datagram_send_buffer_size(DATAGRAMS_IN_QUIC)
            .max_concurrent_bidi_streams(var_int(streams(config.limits.max_request_lanes)))
            // Sent before the client's protocol is known. HTTP/3 clients need it here: some hang up if it comes later
            // (RFC 9114 section 6.2). On native QUIC, a client that opens one is closed.
            .max_concurrent_uni_streams(HTTP3_STREAMS.into());
        connections.transport_config(Arc::new(transport));
        // Connections that are not yet accepted: as many as handshakes may be in progress, with as many bytes as the
        // socket may hold.
        connections
            .max_incoming(usize::try_from(config.limits.max_handshakes).unwrap_or(usize::MAX))
            .incoming_buffer_size(config.quic.receive_window)
            .incoming_buffer_size_total(config.quic.socket_buffer_bytes);
        let (change, connections) = watch::channel(connections);
        let queue = usize::try_from(config.quic.handover_queue).unwrap_or(1);
        let (strays, ends) = (0..workers).map(|_| mpsc::channel(queue)).unzip();
        let settings = Self {
            connections,
            cids: CidScheme::hashed(workers),
            strays,
            reset_key: reset_key.hmac(),
            reset_interval: Duration::from_secs(1)
                / u32::try_from(config.quic.resets_per_second.max(1)).unwrap_or(u32::MAX),
        };
        (settings, change, ends)
    }

    /// Creates the endpoint of one worker. Call it inside that worker's runtime.
    pub(crate) fn endpoint(
        &self,
        worker: usize,
        socket: UdpSocket,
        strays: mpsc::Receiver<MisroutedPacket>,
    ) -> io::Result<Endpoint> {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        // Any worker can send the stateless reset for a connection from before a restart, whichever worker its id
        // belongs to now.
        let mut config = EndpointConfig::new(Arc::clone(&self.reset_key));
        config.min_reset_interval(self.reset_interval);
        let cids = WorkerCids { scheme: self.cids.clone(), worker };
        config.cid_generator(move || Box::new(cids.clone()));
        let mut socket = runtime.wrap_udp_socket(socket)?;
        if self.cids.workers() > 1 {
            let (cids, outgoing) = (self.cids.clone(), self.strays.clone());
            socket = Arc::new(WorkerSocket::new(socket, worker, cids, outgoing, strays));
        }
        let connections = self.connections.borrow().clone();
        Endpoint::new_with_abstract_socket(config, Some(connections), socket, runtime)
    }

    /// Applies changed settings for new connections to an endpoint. Never returns.
    pub(crate) async fn follow(&self, endpoint: &Endpoint) {
        // A clone of the original receiver, which has seen nothing: changes since the endpoint was created are not
        // missed.
        let mut connections = self.connections.clone();
        while connections.changed().await.is_ok() {
            let changed = connections.borrow_and_update().clone();
            endpoint.set_server_config(Some(changed));
        }
        std::future::pending().await
    }
}

fn transport(quic: &Quic) -> TransportConfig {
    let congestion: Arc<dyn ControllerFactory + Send + Sync> = match quic.congestion {
        Congestion::Bbr => Arc::new(BbrConfig::default()),
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::NewReno => Arc::new(NewRenoConfig::default()),
    };
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(var_int(quic.ack_eliciting_threshold))
        .max_ack_delay(Some(Duration::from_millis(quic.max_ack_delay_ms)));
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(congestion)
        .ack_frequency_config(Some(acknowledgements))
        .send_window(quic.send_window)
        .stream_receive_window(var_int(quic.stream_receive_window))
        .receive_window(var_int(quic.receive_window))
        .max_idle_timeout(Some(IdleTimeout::from(var_int(quic.idle_timeout_ms))))
        .datagram_receive_buffer_size(Some(size(quic.datagram_receive_buffer)))
        .datagram_send_buffer_size(size(quic.datagram_send_buffer));
    transport
}

/// Number of streams to allow so that a client can always have `request_lanes` and its control lane: Quinn returns
/// credit only once more than an eighth of the streams have ended. Streams over the setting wait until others end.
pub(super) fn streams(request_lanes: u64) -> u64 {
    let lanes = request_lanes + 1;
    lanes + lanes.div_ceil(7)
}

/// A setting as a QUIC integer; every bound in the configuration is far below the maximum (RFC 9000 section 16).
pub(super) fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
