//! A server with an admin token, and its admin API over HTTP, from literal requests.

use quic_websocket::Config;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{TestServer, soon};

/// The admin token of [`server`].
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A server with an admin token that also serves HTTP without TLS.
pub async fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.http.plain_addr = "127.0.0.1:0".parse().ok();
        config.http.admin_token = Some(TOKEN.to_owned().into());
        change(config);
    })
    .await
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Checks that this is a refusal with an error text, and returns the text.
    pub fn refusal(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        let json = self.json();
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(1), "{json}");
        json["error"].as_str().expect("an error text").to_owned()
    }
}

/// Sends a literal request, with each of `headers` after a line break, and reads the response.
pub async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    // A server that has decided reads no further.
    let _ = soon("room for the request", stream.write_all(request.as_bytes())).await;
    let mut answer = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A connection for a literal request.
pub async fn plain(server: &TestServer) -> TcpStream {
    let addr = server.plain_http.expect("it serves HTTP");
    soon("a connection", TcpStream::connect(addr)).await.expect("it connects")
}

/// Sends a request as an administrator. A token among `headers` replaces the right one.
pub async fn get(server: &TestServer, path: &str, headers: &[&str]) -> Answer {
    let right = bearer(TOKEN);
    let own = headers.iter().any(|header| header.starts_with("authorization"));
    let right: &[&str] = if own { &[] } else { &[&right] };
    let headers = [&["host: localhost:8080"], headers, right].concat();
    send(plain(server).await, &format!("GET {path}"), &headers, "").await
}

/// Posts a body as an administrator.
pub async fn post(server: &TestServer, path: &str, headers: &[&str], body: &Value) -> Answer {
    let right = bearer(TOKEN);
    let headers = [&["host: 127.0.0.1", "content-type: application/json", &right], headers].concat();
    send(plain(server).await, &format!("POST {path}"), &headers, &body.to_string()).await
}

/// The header with a token.
pub fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}
