//! From `host:port`, or a URL, to a WebSocket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quic_websocket_lane::websocket::{self, Socket};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_util::task::AbortOnDropHandle;

use super::{HEAD_START, addresses};
use crate::message::Invalid;
use crate::tls;
use crate::{ClientBuilder, ClientError};

/// The sub-protocol that a server serves (docs/PROTOCOL.md, "Carriers and frames").
const SUB_PROTOCOL: &str = "qws.v1";
/// How long the server may take to answer the close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The URL of a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketUrl {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

/// Parses a `wss://` URL, or a `ws://` URL of this machine.
pub(crate) fn parse_url(url: &str) -> Result<SocketUrl, Invalid> {
    let wrong = |why: &str| Invalid::field(format!("websocket_url: {why}: {url}; expected wss://HOST[:PORT]/PATH"));
    let uri: Uri = url.parse().map_err(|_| wrong("not a valid URL"))?;
    let is_tls = match uri.scheme_str() {
        Some("wss") => true,
        Some("ws") => false,
        _ => return Err(wrong("its scheme is not wss")),
    };
    let host = uri.host().ok_or_else(|| wrong("the host is missing"))?.to_owned();
    let bare = tls::server_name(&host);
    let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !is_tls && !is_here {
        return Err(wrong("without TLS (ws://) only this machine is allowed"));
    }
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    Ok(SocketUrl { uri, host, port, is_tls })
}

/// An open WebSocket, before the handshake.
pub(crate) struct Opened {
    pub(crate) socket: Arc<Socket>,
    /// Moves its messages; aborted when dropped.
    pub(crate) pump: AbortOnDropHandle<()>,
}

/// Opens a WebSocket to the first address of the server that answers.
pub(super) async fn connect(options: &ClientBuilder, tls: &Arc<rustls::ClientConfig>) -> Result<Opened, ClientError> {
    let url = match &options.socket_url {
        Some(url) => url.clone(),
        None => parse_url(&format!("wss://{}/ws", options.server)).map_err(|_| ClientError::Address {
            server: options.server.clone(),
            message: "not a host and a port".into(),
        })?,
    };
    let server = format!("{}:{}", url.host, url.port);
    let failed = |message: String| ClientError::Connection { server: server.clone(), message };
    let stream = connect_to_any(addresses(&server).await?).await.map_err(|e| failed(format!("over TCP: {e}")))?;
    let peer = stream.peer_addr().map_err(|e| failed(e.to_string()))?;
    // Messages are small, and are sent at once.
    let _ = stream.set_nodelay(true);
    if !url.is_tls {
        return ask(options, &url, stream, peer).await.map_err(|e| failed(reason(&e)));
    }
    let name = ServerName::try_from(tls::server_name(&url.host).to_owned()).map_err(|e| failed(e.to_string()))?;
    let stream = match TlsConnector::from(Arc::clone(tls)).connect(name, stream).await {
        Ok(stream) => stream,
        Err(e) => {
            let cause = e.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            return Err(match cause {
                Some(rustls::Error::InvalidCertificate(_)) => ClientError::Untrusted { server, message: e.to_string() },
                _ => failed(e.to_string()),
            });
        }
    };
    ask(options, &url, stream, peer).await.map_err(|e| failed(reason(&e)))
}

async fn ask<S>(
    options: &ClientBuilder,
    url: &SocketUrl,
    stream: S,
    peer: SocketAddr,
) -> Result<Opened, tungstenite::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut request = url.uri.clone().into_client_request()?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL));
    let (socket, pump) = websocket::connect(request, stream, peer, options.max_message_bytes, CLOSE_TIMEOUT).await?;
    Ok(Opened { socket, pump: AbortOnDropHandle::new(tokio::spawn(pump)) })
}

/// The reason why a WebSocket could not be opened, with the server's own words if there are any.
fn reason(error: &tungstenite::Error) -> String {
    let answer = match error {
        tungstenite::Error::Http(answer) => answer,
        tungstenite::Error::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return "over WebSocket: the server ended the connection without an answer".into();
        }
        other => return format!("over WebSocket: {other}"),
    };
    let why = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let why = why.lines().next().unwrap_or_default();
    format!("over WebSocket: the server answered {} {why}", answer.status())
}

async fn connect_to_any(addrs: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    let mut addrs = addrs.into_iter();
    // Dropping it ends the attempts that are no longer needed.
    let mut attempts = JoinSet::new();
    let mut first_error = None;
    loop {
        match addrs.next() {
            Some(addr) => drop(attempts.spawn(TcpStream::connect(addr))),
            None if attempts.is_empty() => {
                return Err(first_error.unwrap_or_else(|| std::io::Error::other("its name has no address")));
            }
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => drop(first_error.get_or_insert(e)),
                Err(e) => drop(first_error.get_or_insert(e.into())),
            },
            () = sleep(HEAD_START), if addrs.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_safe_url_is_accepted() {
        let url = parse_url("wss://chat.example/ws").expect("an address");
        assert_eq!((url.host.as_str(), url.port, url.is_tls), ("chat.example", 443, true));
        let url = parse_url("wss://[::1]:4433/ws").expect("an address");
        assert_eq!((url.host.as_str(), url.port), ("[::1]", 4433));
        for here in ["ws://127.0.0.1:8080/ws", "ws://localhost/ws", "ws://[::1]:80/ws"] {
            assert!(parse_url(here).is_ok_and(|url| !url.is_tls), "{here}");
        }
        for wrong in ["ws://chat.example/ws", "https://chat.example", "chat.example:4433", "wss://", "", "wss:///ws"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
