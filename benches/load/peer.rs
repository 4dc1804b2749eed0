//! One connected client: its byte stream, received and unsent bytes, and the loop between.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::board::Board;
use super::frame::{Framing, Inbox};
use super::topics::{self, Lane};
use super::{Driver, message};

/// Reads per turn; then other clients get theirs.
const TURNS: usize = 16;

/// A byte stream in both directions, over QUIC or TLS.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

pub(super) struct Peer {
    driver: Driver,
    framing: Framing,
    pipe: Box<dyn Pipe>,
    /// Keeps the connection open, and closes it with a code.
    connection: Option<quinn::Connection>,
    inbox: Inbox,
    outbox: Vec<u8>,
    written: usize,
    must_flush: bool,
}

/// A message of this project's server that is not part of the load.
#[derive(Deserialize)]
struct Control<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: Option<u64>,
    code: Option<u32>,
    #[serde(alias = "reason")]
    message: Option<String>,
    accepted: Option<bool>,
    re: Option<&'a str>,
}

/// Consequence of a message of this project's server that is not part of the load.
pub(super) enum Notice {
    Nothing,
    /// The server expects this message in return.
    Pong(Vec<u8>),
    /// The message with this number was published.
    Published(u64),
}

/// Subscriptions requested before the first response is awaited.
const SUBSCRIBING: usize = 100;

impl Peer {
    pub(super) fn new(driver: Driver, pipe: Box<dyn Pipe>, connection: Option<quinn::Connection>) -> Self {
        let framing = if driver == Driver::Wss { Framing::WebSocket } else { Framing::Length };
        let (inbox, outbox) = (Inbox::new(framing), Vec::new());
        Self { driver, framing, pipe, connection, inbox, outbox, written: 0, must_flush: false }
    }

    /// Completes the connection: this project's handshake, or one echo.
    pub(super) async fn greet(&mut self) -> Result<()> {
        match self.driver {
            Driver::Qws => {
                let handshake = br#"{"type":"handshake","protocol_version":"1.0","client_name":"benchmark"}"#;
                let reply = self.ask(handshake).await?;
                let reply: Control<'_> = serde_json::from_slice(&reply).context("the response to the handshake")?;
                ensure!(
                    reply.kind == "handshake_response" && reply.accepted == Some(true),
                    "the server refused the handshake: {} {}",
                    reply.kind,
                    reply.message.unwrap_or_default()
                );
            }
            Driver::Bare => ensure!(self.ask(b"Ehello").await? == b"Ehello", "the echo differs from the message"),
            Driver::Wss => self.upgrade().await?,
        }
        Ok(())
    }

    async fn ask(&mut self, body: &[u8]) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        self.framing.encode(body, true, &mut frame);
        self.pipe.write_all(&frame).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(reply) = self.inbox.next()? {
                return Ok(reply.to_vec());
            }
            self.receive().await?;
        }
    }

    /// Subscribes to topics of this project's server, and returns when it has accepted all of them.
    pub(super) async fn subscribe(&mut self, topics: impl Iterator<Item = usize>, lane: Lane) -> Result<()> {
        let topics: Vec<_> = topics.collect();
        for topics in topics.chunks(SUBSCRIBING) {
            let mut frames = Vec::new();
            topics.iter().for_each(|topic| self.framing.encode(&topics::subscribe(*topic, lane), true, &mut frames));
            self.pipe.write_all(&frames).await?;
            let mut missing = topics.len();
            while missing > 0 {
                let reply = self.reply().await?;
                let reply: Control<'_> = serde_json::from_slice(&reply).context("the response to a subscription")?;
                match reply.kind {
                    "subscribed" => missing -= 1,
                    "error" | "close" => bail!("the server sent {}", reply.summary()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The QUIC connection, if there is one: the source of its later lanes.
    pub(super) fn connection(&self) -> Option<quinn::Connection> {
        self.connection.clone()
    }

    /// The stream, with the received bytes that are not yet processed.
    pub(super) fn into_parts(self) -> (Box<dyn Pipe>, Inbox) {
        (self.pipe, self.inbox)
    }

    async fn receive(&mut self) -> Result<()> {
        let count = self.pipe.read(self.inbox.spare()).await?;
        ensure!(count > 0, "the server ended the stream");
        self.inbox.filled(count);
        Ok(())
    }

    async fn upgrade(&mut self) -> Result<()> {
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.pipe.write_all(request.as_bytes()).await?;
        self.pipe.flush().await?;
        loop {
            let bytes = self.inbox.bytes();
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                ensure!(
                    bytes.starts_with(b"HTTP/1.1 101"),
                    "the server did not upgrade to WebSocket: {}",
                    String::from_utf8_lossy(&bytes[..end.min(80)])
                );
                self.inbox.skip(end + 4);
                return Ok(());
            }
            ensure!(bytes.len() < 16 << 10, "the response to the WebSocket upgrade is too long");
            self.receive().await?;
        }
    }

    /// Ends the connection without waiting for the server.
    pub(super) fn close(self) {
        if let Some(connection) = &self.connection {
            connection.close(1000_u32.into(), b"done");
        }
    }

    /// Sends what the board allows and reports what arrives, forever.
    pub(super) fn poll_live(&mut self, cx: &mut Context<'_>, me: usize, board: &Board) -> Poll<Result<()>> {
        for _ in 0..TURNS {
            if self.outbox.is_empty() {
                board.fill(me, &mut self.outbox, cx);
            }
            self.poll_send(cx)?;
            ready!(self.poll_receive(cx))?;
            let now = Instant::now();
            let mut round = board.lock();
            while let Some(body) = self.inbox.next()? {
                if round.take(me, body, now) || self.driver != Driver::Qws {
                    continue;
                }
                match understand(body)? {
                    Notice::Nothing => {}
                    Notice::Pong(pong) => self.framing.encode(&pong, true, &mut self.outbox),
                    Notice::Published(number) => round.acknowledged(me, number),
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.written < self.outbox.len() {
            match Pin::new(&mut self.pipe).poll_write(cx, &self.outbox[self.written..]) {
                Poll::Ready(count) => self.written += count?,
                Poll::Pending => return Ok(()),
            }
            self.must_flush = true;
        }
        self.outbox.clear();
        self.written = 0;
        if self.must_flush && Pin::new(&mut self.pipe).poll_flush(cx)?.is_ready() {
            self.must_flush = false;
        }
        Ok(())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut buffer = ReadBuf::new(self.inbox.spare());
        ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut buffer)).context("the connection broke")?;
        let count = buffer.filled().len();
        self.inbox.filled(count);
        Poll::Ready(if count > 0 { Ok(()) } else { Err(anyhow!("the server ended the stream")) })
    }
}

/// Reads a topic lane, forever.
pub(super) async fn live_on_lane(mut lane: quinn::RecvStream, me: usize, board: &Board) -> Result<()> {
    let mut inbox = Inbox::new(Framing::Length);
    loop {
        let count = lane.read(inbox.spare()).await?.context("the server ended a topic lane")?;
        inbox.filled(count);
        let now = Instant::now();
        let mut round = board.lock();
        while let Some(body) = inbox.next()? {
            if !round.take(me, body, now) {
                understand(body)?;
            }
        }
    }
}

/// Parses a message of this project's server that is not part of a load. Any message that reports a loss is an error.
pub(super) fn understand(body: &[u8]) -> Result<Notice> {
    let notice: Control<'_> = serde_json::from_slice(body).context("a message outside the protocol")?;
    Ok(match notice.kind {
        "ping" => Notice::Pong(
            format!(r#"{{"type":"pong","timestamp":{}}}"#, notice.timestamp.unwrap_or_default()).into_bytes(),
        ),
        "published" => notice.re.and_then(message::published).map_or(Notice::Nothing, Notice::Published),
        "error" | "close" | "gap" | "unsubscribed" => bail!("the server sent {}", notice.summary()),
        _ => Notice::Nothing,
    })
}

impl Control<'_> {
    fn summary(&self) -> String {
        let (code, message) = (self.code.unwrap_or_default(), self.message.as_deref().unwrap_or_default());
        format!("{} {code}: {message}", self.kind)
    }
}
