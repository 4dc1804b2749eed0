//! A client on WebTransport. A library does the HTTP/3 handshake; lanes and datagrams are raw, as on native QUIC.

use std::net::SocketAddr;

use quinn::{Connection, Endpoint, TransportConfig};
use web_transport_quinn::proto::{self, ConnectRequest, ConnectResponse};
use web_transport_quinn::{ClientError, Session, SessionError, WebTransportError};

use super::{RawClient, RawLane, TestServer, soon};

/// Prefix of a client's lane: WT_STREAM, and the session.
pub const LANE: &[u8] = &[0x40, 0x41, 0x00];
/// Prefix of a server's lane.
pub const TOPIC_LANE: [u8; 3] = [0x40, 0x54, 0x00];
/// Prefix of a datagram: its session.
pub const DATAGRAM: &[u8] = &[0x00];

/// A control stream with the settings required by WebTransport: its type, and a frame.
pub const SETTINGS: &[u8] =
    &[0x00, 0x04, 0x0d, 0x08, 0x01, 0x33, 0x01, 0xc0, 0x00, 0x00, 0x00, 0xc6, 0x71, 0x70, 0x6a, 0x01];

/// The fields of a request for a session.
pub const FIELDS: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/wt"),
    (":protocol", "webtransport"),
];

/// A HEADERS frame with these fields as literals (RFC 9204 section 4.5.6).
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        // Three bits for the length of a name, seven for that of a value.
        let length = |text: &str, most: u8| match u8::try_from(text.len()).expect("short") {
            short if short < most => vec![short],
            long => vec![most, long - most],
        };
        let mut name_length = length(name, 7);
        name_length[0] |= 0x20;
        section.extend([&name_length, name.as_bytes(), &length(value, 127), value.as_bytes()].concat());
    }
    let length = u16::try_from(section.len()).expect("short") | 0x4000;
    [&[0x01][..], &length.to_be_bytes(), &section].concat()
}

/// HTTP/3 without a library: the client's control stream, and the stream of its request.
pub struct Bare {
    pub connection: Connection,
    pub control: quinn::SendStream,
    pub request: RawLane,
}

impl Bare {
    /// Sends the settings and a request.
    pub async fn ask(server: &TestServer, fields: &[(&str, &str)]) -> Self {
        let connection = http3(server).await;
        let mut control = soon("a stream", connection.open_uni()).await.expect("a stream");
        control.write_all(SETTINGS).await.expect("the stream takes bytes");
        let (send, receive) = soon("a stream", connection.open_bi()).await.expect("a stream");
        let mut request = RawLane { send, receive };
        request.raw(&headers(fields)).await;
        Self { connection, control, request }
    }

    /// The status of the response.
    pub async fn status(&mut self) -> u16 {
        // Two short integers: the frame's type and its length.
        let mut head = [0; 2];
        soon("an answer", self.request.receive.read_exact(&mut head)).await.expect("a frame");
        let mut frame = head.to_vec();
        frame.resize(2 + usize::from(head[1]), 0);
        soon("an answer", self.request.receive.read_exact(&mut frame[2..])).await.expect("its payload");
        match ConnectResponse::decode(&mut frame.as_slice()) {
            Ok(response) => response.status.as_u16(),
            Err(proto::ConnectError::WrongStatus(Some(status))) => status.as_u16(),
            Err(other) => panic!("expected an answer, got {other}"),
        }
    }

    /// Waits for the server's close and returns its code.
    pub async fn closed(&self) -> u64 {
        match soon("the server's close", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("expected the server's close, got {other}"),
        }
    }
}

/// A client endpoint that speaks HTTP/3.
pub fn endpoint(server: &TestServer) -> Endpoint {
    server.endpoint_speaking(&["h3"], TransportConfig::default())
}

/// A connection for HTTP/3 on which nothing was sent.
pub async fn http3(server: &TestServer) -> Connection {
    let connecting = endpoint(server).connect(server.addr, "localhost").expect("a connection begins");
    soon("a connection", connecting).await.expect("it connects")
}

/// Requests a session.
pub async fn session(connection: Connection, addr: SocketAddr, path: &str) -> Result<Session, ClientError> {
    ask(connection, request(addr, path)).await
}

pub fn request(addr: SocketAddr, path: &str) -> ConnectRequest {
    ConnectRequest::new(format!("https://{addr}{path}").parse::<reqwest::Url>().expect("a URL"))
}

pub async fn ask(connection: Connection, request: ConnectRequest) -> Result<Session, ClientError> {
    soon("an answer", Session::connect(connection, request)).await
}

/// Opens the control lane of a session.
pub async fn over(session: Session) -> RawClient {
    let connection: Connection = (*session).clone();
    let (mut send, receive) = soon("a stream", connection.open_bi()).await.expect("a stream");
    send.write_all(LANE).await.expect("the stream takes bytes");
    RawClient { connection, control: RawLane { send, receive }, id: String::new(), session: Some(session) }
}

/// Waits for the server's close and returns its code and reason.
pub async fn closed(session: &Session) -> (u64, String) {
    match soon("the server's close", session.closed()).await {
        SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => (code.into(), reason),
        other => panic!("expected the server to close the session with a code, got {other}"),
    }
}
