//! The beginning of a connection: handshakes, the WebSocket upgrade, subscriptions.

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;

use super::super::topics::{self, Lane};
use super::super::{Driver, Interest, bare, nats};
use super::Peer;
use super::notice::Control;

/// Of this project's protocol.
const SUBPROTOCOL: &str = "qws.v1";
/// Subscriptions requested before the first response is awaited.
const SUBSCRIBING: usize = 100;

impl Peer {
    /// Completes the connection: this project's handshake, or one echo.
    pub(in super::super) async fn greet(&mut self, client: usize) -> Result<()> {
        match self.driver {
            Driver::Qws => self.handshake().await?,
            Driver::QwsWss => {
                self.upgrade(Some(SUBPROTOCOL)).await?;
                self.handshake().await?;
            }
            Driver::Nats => {
                self.address = nats::address(client);
                ensure!(self.reply().await?.starts_with(b"INFO "), "this is no NATS server");
                self.send(nats::CONNECT).await?;
                self.nats_is_ready().await?;
            }
            Driver::Bare => {
                self.address = bare::address(client);
                let name = bare::name(&self.address);
                ensure!(self.ask(&name).await? == name, "the echo differs from the message");
            }
            Driver::Wss => self.upgrade(None).await?,
        }
        Ok(())
    }

    async fn handshake(&mut self) -> Result<()> {
        self.shake(br#"{"type":"handshake","protocol_version":"1.0","client_name":"benchmark"}"#).await
    }

    /// Completes a connection that is the second WebSocket of a session.
    pub(in super::super) async fn attach(&mut self, session: &str) -> Result<()> {
        self.upgrade(Some(SUBPROTOCOL)).await?;
        let handshake = format!(r#"{{"type":"handshake","protocol_version":"1.0","attach":"{session}"}}"#);
        self.shake(handshake.as_bytes()).await
    }

    async fn shake(&mut self, handshake: &[u8]) -> Result<()> {
        let reply = self.ask(handshake).await?;
        let reply: Control<'_> = serde_json::from_slice(&reply).context("the response to the handshake")?;
        ensure!(
            reply.kind == "handshake_response" && reply.accepted == Some(true),
            "the server refused the handshake: {} {}",
            reply.kind,
            reply.message.unwrap_or_default()
        );
        self.address = reply.client_id.unwrap_or_default().to_owned();
        self.session = reply.session.unwrap_or_default().to_owned();
        Ok(())
    }

    /// Waits until a NATS server has processed everything before a `PING`.
    async fn nats_is_ready(&mut self) -> Result<()> {
        loop {
            let line = self.reply().await?;
            ensure!(!line.starts_with(b"-ERR"), "the server sent {}", String::from_utf8_lossy(&line));
            if line == nats::PONG {
                return Ok(());
            }
        }
    }

    async fn ask(&mut self, body: &[u8]) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        self.framing.encode(body, true, &mut frame);
        self.send(&frame).await?;
        self.reply().await
    }

    async fn send(&mut self, frames: &[u8]) -> Result<()> {
        self.pipe.write_all(frames).await?;
        self.pipe.flush().await?;
        Ok(())
    }

    async fn reply(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(reply) = self.inbox.next()? {
                return Ok(reply.to_vec());
            }
            self.receive().await?;
        }
    }

    /// Subscribes to whatever a load will send to this client, of this many, unless it arrives without that.
    pub(in super::super) async fn prepare(&mut self, interest: Interest, me: usize, clients: usize) -> Result<()> {
        match (self.driver, interest) {
            (Driver::Qws | Driver::QwsWss, Interest::Topics(topics)) => {
                self.subscribe(topics.of(me, clients), Lane::Own).await
            }
            (Driver::Qws | Driver::QwsWss, Interest::Calls) => {
                let reply = self.ask(&topics::answer(&self.address)).await?;
                let reply: Control<'_> = serde_json::from_slice(&reply).context("the response to a subscription")?;
                ensure!(reply.kind == "subscribed", "the server sent {}", reply.summary());
                Ok(())
            }
            (Driver::Nats, Interest::Topics(topics)) => {
                self.subscribe_nats(topics.of(me, clients).map(topics::name)).await
            }
            (Driver::Nats, Interest::Broadcasts) => {
                self.subscribe_nats(std::iter::once(nats::EVERYONE.to_owned())).await
            }
            (Driver::Nats, Interest::Requests | Interest::Calls) => {
                let subjects = [nats::direct(&self.address), format!("{}*", nats::inbox(&self.address))];
                self.subscribe_nats(subjects.into_iter()).await
            }
            _ => Ok(()),
        }
    }

    async fn subscribe_nats(&mut self, subjects: impl Iterator<Item = String>) -> Result<()> {
        self.send(&nats::subscribe(subjects)).await?;
        self.nats_is_ready().await
    }

    /// Subscribes to topics of this project's server, and returns when it has accepted all of them.
    pub(in super::super) async fn subscribe(&mut self, topics: impl Iterator<Item = usize>, lane: Lane) -> Result<()> {
        let topics: Vec<_> = topics.collect();
        for topics in topics.chunks(SUBSCRIBING) {
            let mut frames = Vec::new();
            topics.iter().for_each(|topic| self.framing.encode(&topics::subscribe(*topic, lane), true, &mut frames));
            self.send(&frames).await?;
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

    async fn upgrade(&mut self, subprotocol: Option<&str>) -> Result<()> {
        let subprotocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{subprotocol}\r\n"
        );
        self.send(request.as_bytes()).await?;
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
}
