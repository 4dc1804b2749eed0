//! The QUIC settings of a client's connections.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{AckFrequencyConfig, ClientConfig, IdleTimeout, TransportConfig, VarInt};

/// Topic lanes that a client lets the server open (docs/PROTOCOL.md, "Lanes").
const TOPIC_LANES: u32 = 16;
/// Bytes that may wait on one lane for a client that does not read it; with more in flight at once a lane would need a
/// larger one to fill its path.
const CLIENT_LANE_WINDOW: u32 = 512 << 10;
/// Lanes of which none may hold up another when it is not read, so that the connection's window has room for all of
/// them: the topic lanes, the control lane, and as many request lanes as servers allow by default, with one to spare.
const CLIENT_LANES: u32 = TOPIC_LANES + 1 + 32 + 1;
/// Bytes that QUIC holds, sent and not acknowledged or waiting to be sent, before lanes begin to queue.
const SEND_WINDOW: u64 = 1 << 20;
/// Bytes of datagrams that wait to be sent; the oldest are dropped beyond, so that what arrives is new.
const DATAGRAM_SEND_BUFFER: usize = 32 << 10;
/// Bytes of datagrams that wait to be read; the oldest are dropped beyond.
const DATAGRAM_RECEIVE_BUFFER: usize = 256 << 10;
/// A connection without any packet for so many milliseconds is lost.
const IDLE_TIMEOUT_MS: u32 = 45_000;
/// Packets that a server may receive before it must acknowledge (QUIC Acknowledgement Frequency), and the longest it
/// may wait.
const ACK_ELICITING_THRESHOLD: u32 = 10;
const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// The settings of a client's connections. Congestion control is BBR, for what it does under loss.
pub(super) fn client_config(keep_alive: Option<Duration>, crypto: Arc<QuicClientConfig>) -> ClientConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(ACK_ELICITING_THRESHOLD.into()).max_ack_delay(Some(MAX_ACK_DELAY));
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .ack_frequency_config(Some(acknowledgements))
        .send_window(SEND_WINDOW)
        .stream_receive_window(CLIENT_LANE_WINDOW.into())
        .receive_window((CLIENT_LANES * CLIENT_LANE_WINDOW).into())
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .max_concurrent_bidi_streams(0_u8.into())
        .max_concurrent_uni_streams(TOPIC_LANES.into())
        .keep_alive_interval(keep_alive);
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    config
}
