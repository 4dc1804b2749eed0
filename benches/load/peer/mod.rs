//! One connected client: its byte stream, received and unsent bytes, and the loop between.

mod greet;
mod notice;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::Driver;
use super::board::Board;
use super::frame::{Framing, Inbox};
pub(super) use notice::{Notice, understand};

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
    /// The address to which others send: a client id, or a part of NATS subjects.
    address: String,
    /// The secret of the session, for a second WebSocket.
    session: String,
    inbox: Inbox,
    outbox: Vec<u8>,
    written: usize,
    must_flush: bool,
}

impl Peer {
    pub(super) fn new(driver: Driver, pipe: Box<dyn Pipe>, connection: Option<quinn::Connection>) -> Self {
        let framing = Framing::from(driver);
        let (inbox, outbox, address, session) = (Inbox::new(framing), Vec::new(), String::new(), String::new());
        Self { driver, framing, pipe, connection, address, session, inbox, outbox, written: 0, must_flush: false }
    }

    /// The QUIC connection, if there is one: the source of its later lanes.
    pub(super) fn connection(&self) -> Option<quinn::Connection> {
        self.connection.clone()
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(super) fn address(&self) -> &str {
        &self.address
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
                if round.answer(me, body, &mut self.outbox) || round.take(me, body, now) {
                    continue;
                }
                match understand(self.driver, body)? {
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
                understand(Driver::Qws, body)?;
            }
        }
    }
}
