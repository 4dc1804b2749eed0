//! A client on WebTransport. The HTTP/3 handshake is a library's; lanes and datagrams lie open, as on native QUIC.

use std::net::SocketAddr;

use quinn::{Connection, Endpoint, TransportConfig};
use web_transport_quinn::proto::ConnectRequest;
use web_transport_quinn::{ClientError, Session, SessionError, WebTransportError};

use super::{RawClient, RawLane, TestServer, soon};

/// What a lane of the client's begins with: WT_STREAM, and the session.
pub const LANE: &[u8] = &[0x40, 0x41, 0x00];
/// What a lane of the server's begins with.
pub const TOPIC_LANE: [u8; 3] = [0x40, 0x54, 0x00];
/// What a datagram begins with: its session.
pub const DATAGRAM: &[u8] = &[0x00];

/// A client endpoint that speaks HTTP/3.
pub fn endpoint(server: &TestServer) -> Endpoint {
    server.endpoint_speaking(&["h3"], TransportConfig::default())
}

/// A connection for HTTP/3 on which nothing was said.
pub async fn http3(server: &TestServer) -> Connection {
    let connecting = endpoint(server).connect(server.addr, "localhost").expect("a connection begins");
    soon("a connection", connecting).await.expect("it connects")
}

/// Asks for a session.
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

/// Waits for the server's close and gives its code and reason.
pub async fn closed(session: &Session) -> (u64, String) {
    match soon("the server's close", session.closed()).await {
        SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => (code.into(), reason),
        other => panic!("expected the server to close the session with a code, got {other}"),
    }
}
