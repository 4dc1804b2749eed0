//! A client on WebSocket: a library does the framing, the test the messages.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use quic_websocket::tls::ClientFiles;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{TestServer, soon, tls_showing, tls_trusting};

/// A WebSocket, which is one lane.
pub struct SocketLane {
    pub socket: WebSocketStream<TlsStream<TcpStream>>,
    /// The server's close frame, once received.
    close: Option<(u64, String)>,
}

/// A TLS connection to a server's TCP port.
pub async fn tls(server: &TestServer) -> TlsStream<TcpStream> {
    let addr = server.http.expect("it serves HTTP");
    tls_over(connect(addr).await, tls_trusting(&server.files.ca).with_no_client_auth()).await.expect("TLS")
}

/// A TCP connection.
pub async fn connect(addr: SocketAddr) -> TcpStream {
    let stream = soon("a connection", TcpStream::connect(addr)).await.expect("it connects");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// The same with the smallest receive buffer of the system.
pub async fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    soon("a connection", socket.connect(addr)).await.expect("it connects")
}

/// TLS to a server with these client settings.
pub async fn tls_over(stream: TcpStream, mut tls: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    soon("TLS", TlsConnector::from(Arc::new(tls)).connect(name, stream)).await
}

/// A request for a client's WebSocket.
pub fn request(server: &TestServer, path: &str) -> Request {
    request_at(server.http.expect("it serves HTTP"), path)
}

pub fn request_at(addr: SocketAddr, path: &str) -> Request {
    let mut request = format!("wss://{addr}{path}").into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("qws.v1"));
    request
}

/// Requests a WebSocket.
pub async fn ask(server: &TestServer, request: Request) -> Result<SocketLane, Error> {
    ask_over(tls(server).await, request).await
}

/// Requests one over an existing connection.
pub async fn ask_over(stream: TlsStream<TcpStream>, request: Request) -> Result<SocketLane, Error> {
    let opening = tokio_tungstenite::client_async(request, stream);
    let (socket, _) = soon("an answer", opening).await?;
    Ok(SocketLane { socket, close: None })
}

/// Opens a client's WebSocket.
pub async fn open(server: &TestServer) -> SocketLane {
    ask(server, request(server, "/ws")).await.expect("a WebSocket")
}

/// Opens one at an address that serves UDP and TCP.
pub async fn open_at(addr: SocketAddr, ca: &Path) -> SocketLane {
    let tls = tls_over(connect(addr).await, tls_trusting(ca).with_no_client_auth()).await.expect("TLS");
    ask_over(tls, request_at(addr, "/ws")).await.expect("a WebSocket")
}

/// Opens a client's WebSocket with little data in flight while it does not read.
pub async fn open_narrow(server: &TestServer) -> SocketLane {
    let stream = narrow(server.http.expect("it serves HTTP")).await;
    let tls = tls_over(stream, tls_trusting(&server.files.ca).with_no_client_auth()).await.expect("TLS");
    ask_over(tls, request(server, "/ws")).await.expect("a WebSocket")
}

/// Opens one for a client that presents a client certificate, or none.
pub async fn open_showing(server: &TestServer, identity: Option<&ClientFiles>) -> Result<SocketLane, Error> {
    let addr = server.http.expect("it serves HTTP");
    let tls = tls_over(connect(addr).await, tls_showing(&server.files.ca, identity)).await?;
    ask_over(tls, request(server, "/ws")).await
}

impl SocketLane {
    /// Sends one body: JSON as text, anything else as binary.
    pub async fn body(&mut self, body: &[u8]) {
        self.bodies(&[body.to_vec()]).await;
    }

    /// The same; returns false if the peer accepts nothing more.
    pub async fn try_body(&mut self, body: &[u8]) -> bool {
        soon("room in the socket", self.socket.send(message(body))).await.is_ok()
    }

    /// Sends bodies at once, one after the other.
    pub async fn bodies(&mut self, bodies: &[Vec<u8>]) {
        let sending = async {
            for body in bodies {
                self.socket.feed(message(body)).await?;
            }
            self.socket.flush().await
        };
        soon("room in the socket", sending).await.expect("the socket takes messages");
    }

    /// The next body, or how the lane ended.
    pub async fn try_hear_body(&mut self) -> Result<Vec<u8>, String> {
        loop {
            match soon("a message", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    assert!(text.starts_with('{'), "only JSON comes as text");
                    return Ok(text.as_bytes().to_vec());
                }
                Some(Ok(Message::Binary(body))) => {
                    assert_ne!(body.first(), Some(&b'{'), "JSON comes as text");
                    return Ok(body.to_vec());
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.as_ref().map_or(1005, |frame| match frame.code {
                        CloseCode::Reserved(code) | CloseCode::Bad(code) => {
                            panic!("{code} is no code for a close frame")
                        }
                        code => u16::from(code),
                    });
                    let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    self.close = Some((code.into(), reason));
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.to_string()),
                None => return Err("closed".into()),
            }
        }
    }

    /// Waits for the server's close and returns its code and reason.
    pub async fn closed(&mut self) -> (u64, String) {
        while self.try_hear_body().await.is_ok() {}
        self.close.clone().unwrap_or_else(|| panic!("no close frame came before the end"))
    }
}

speaks!(SocketLane);

/// JSON as text, anything else as binary.
fn message(body: &[u8]) -> Message {
    match std::str::from_utf8(body) {
        Ok(text) if text.starts_with('{') => Message::text(text),
        _ => Message::binary(body.to_vec()),
    }
}
