//! HTTP/1.1 and WebSocket frames as bytes (RFC 6455 section 5.2), well-formed or not, without a library.

use quic_websocket::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{TestServer, soon, web_socket};

/// First bytes of frames: the final fragment, and the opcodes.
pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = FIN | 8;
pub const PING: u8 = FIN | 9;
pub const PONG: u8 = FIN | 10;

/// The handshake that every client sends first.
pub const HELLO: &[u8] = br#"{"type":"handshake","protocol_version":"1.0","client_name":"Ada"}"#;

/// Makes a server listen without TLS as well.
pub fn plain(config: &mut Config) {
    config.http.plain_addr = Some("127.0.0.1:0".parse().expect("an address"));
}

/// A byte stream over TCP, with or without TLS.
pub trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// A connection over TCP.
pub struct Bare {
    pub stream: Box<dyn Bytes>,
}

/// A response: status, head and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// The opening handshake for a path, with additional lines (including their line ends); a line with the name of a
/// default field replaces it.
pub fn opening(path: &str, lines: &[&str]) -> String {
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    let named = |line: &str| line.split_once(':').map(|(name, _)| name.to_ascii_lowercase());
    for line in [
        "Host: localhost",
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: qws.v1",
    ] {
        if !lines.iter().any(|other| named(other) == named(line)) {
            head.push_str(line);
            head.push_str("\r\n");
        }
    }
    // A field without a value is left out.
    for line in lines.iter().filter(|line| !line.ends_with(':')) {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head + "\r\n"
}

/// One frame of a client.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = head(first, 0x80, payload.len() as u64);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The start of a frame, up to its mask.
pub fn head(first: u8, masked: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => bytes.push(masked | short),
        (_, Ok(length)) => {
            bytes.push(masked | 126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// A client's close frame.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

impl Bare {
    /// Without TLS, on a server that listens that way.
    pub async fn plain(server: &TestServer) -> Self {
        let addr = server.plain_http.expect("it listens without TLS");
        let stream = soon("a connection", TcpStream::connect(addr)).await.expect("it connects");
        stream.set_nodelay(true).expect("an option");
        Self { stream: Box::new(stream) }
    }

    /// The same with the smallest receive buffer of the system.
    pub async fn narrow(server: &TestServer) -> Self {
        Self { stream: Box::new(web_socket::narrow(server.plain_http.expect("it listens without TLS")).await) }
    }

    /// With TLS.
    pub async fn tls(server: &TestServer) -> Self {
        Self { stream: Box::new(web_socket::tls(server).await) }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon("room on the connection", self.try_send(bytes)).await.expect("the connection takes bytes");
    }

    /// The same if the server may have closed the connection already.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Sends a request and returns the response, with its body unless it has none.
    pub async fn ask(&mut self, request: &str) -> Answer {
        self.send(request.as_bytes()).await;
        self.answer(!request.starts_with("HEAD")).await
    }

    /// The next response.
    pub async fn answer(&mut self, with_body: bool) -> Answer {
        let head = self.rest_of_head().await;
        let head = String::from_utf8(head).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        if with_body && let Some(length) = answer.field("content-length") {
            answer.body = vec![0; length.parse().expect("a length")];
            soon("a body", self.stream.read_exact(&mut answer.body)).await.expect("a whole body");
        }
        answer
    }

    /// The bytes up to the end of a response's head.
    pub async fn rest_of_head(&mut self) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("a response", self.stream.read_u8()).await.expect("a whole head"));
        }
        head
    }

    /// Opens a WebSocket.
    pub async fn upgrade(&mut self, path: &str) {
        let answer = self.ask(&opening(path, &[])).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        // Example of RFC 6455 section 1.3.
        assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    /// A client whose handshake was accepted.
    pub async fn client(server: &TestServer) -> Self {
        let mut client = Self::plain(server).await;
        client.upgrade("/ws").await;
        client.send(&frame(FIN | TEXT, HELLO)).await;
        assert_eq!(client.hear().await["accepted"], true);
        client
    }

    /// A WebSocket that echoes everything.
    pub async fn echo(server: &TestServer) -> Self {
        let mut socket = Self::plain(server).await;
        socket.upgrade("/echo").await;
        socket
    }

    /// The server's next frame: its first byte and its payload; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = soon("a frame", self.stream.read_u8()).await.ok()?;
        let rest = async {
            let length = match self.stream.read_u8().await? {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                short => short.into(),
            };
            assert!(length < 1 << 32, "a server masks nothing");
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut payload).await?;
            std::io::Result::Ok(payload)
        };
        Some((first, soon("the rest of a frame", rest).await.expect("a whole frame")))
    }

    /// The server's next message or control frame, in any number of frames; `None` at the end.
    pub async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, mut payload) = self.frame().await?;
        let mut last = first;
        while last & FIN == 0 {
            let rest;
            (last, rest) = self.frame().await.expect("the rest of a message");
            assert_eq!(last & !FIN, CONTINUATION, "a started message is finished first");
            payload.extend(rest);
        }
        Some((FIN | first, payload))
    }

    /// The server's next message, which must be JSON as text.
    pub async fn hear(&mut self) -> Value {
        let (first, payload) = self.message().await.expect("a message");
        assert_eq!(first, FIN | TEXT, "{:?}", String::from_utf8_lossy(&payload));
        serde_json::from_slice(&payload).expect("JSON")
    }

    /// Checks that the server still answers.
    pub async fn lives(&mut self, client: &str) {
        self.send(&frame(FIN | TEXT, json!({"type": "ping", "id": client}).to_string().as_bytes())).await;
        let pong = self.hear().await;
        assert_eq!((&pong["type"], &pong["re"]), (&json!("pong"), &json!(client)));
    }

    /// Skips messages until the server's close frame and answers it, so that the connection ends with nothing more to
    /// read; returns its code, if any, and its reason.
    pub async fn closed(&mut self) -> (Option<u16>, String) {
        loop {
            let (first, payload) = self.frame().await.expect("a close frame comes before the end");
            if first == CLOSE {
                // The server may have closed the connection with it.
                let _ = self.try_send(&frame(CLOSE, &payload)).await;
                assert!(self.frame().await.is_none(), "nothing comes behind a close frame");
                let Some((code, reason)) = payload.split_first_chunk() else { return (None, String::new()) };
                return (Some(u16::from_be_bytes(*code)), String::from_utf8(reason.to_vec()).expect("UTF-8"));
            }
        }
    }
}
