//! The task behind a client: serves one connection after the other until the client is closed.

use std::sync::Arc;
use std::time::Duration;

use quic_websocket_lane::LaneReader;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::dial::{Connected, Ways};
use super::events::Event;
use super::inbound::EventSink;
use super::link::Link;
use super::token::Tokens;
use super::topics::Topics;
use super::{ClientBuilder, ClientError};
use crate::Printable;
use crate::message::{ClientMessage, CloseCode, ClosedBy};

/// Once closed, how long the last packets may take to leave.
const GOODBYE: Duration = Duration::from_millis(300);
/// How often the time until QUIC is tried again doubles.
const MAX_QUIC_DOUBLINGS: u32 = 4;
/// Once there is a better connection, how long the old one is kept for replies that are under way.
const MOVE: Duration = Duration::from_secs(5);

/// What a client's handles see of its connection.
#[derive(Clone)]
pub(super) enum State {
    /// Connected.
    Up(Arc<Link>),
    /// Between two connections.
    Down,
    /// For good.
    Closed(ClosedBy),
}

/// What a client's connections have in common.
pub(super) struct Common {
    pub(super) options: ClientBuilder,
    pub(super) tokens: Arc<Tokens>,
    pub(super) ways: Ways,
    pub(super) topics: Arc<Topics>,
}

impl Common {
    /// One try to connect.
    pub(super) async fn connect(&self) -> Result<Connected, ClientError> {
        let token = self.tokens.next().await?;
        self.ways.connect(&self.options, token, &self.topics).await
    }

    /// Tries until it is connected for the first time, or time cannot heal what is wrong.
    pub(super) async fn connect_first(&self) -> Result<Connected, ClientError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.connect().await {
                Err(error) if self.options.retry_first && self.may_heal(&error) => error,
                connected => return connected,
            };
            pause(&error, &mut backoff).await;
        }
    }

    /// Whether the first connection may come about later.
    fn may_heal(&self, error: &ClientError) -> bool {
        match error {
            ClientError::Refused { .. } => !self.is_final(error),
            ClientError::NoAnswer { .. } | ClientError::Connection { .. } | ClientError::Token { .. } => true,
            _ => false,
        }
    }

    /// Whether the server has said not to come back. That its address has too many connections passes: in place of an
    /// answer to the handshake, 4429 says no more than that. So may it that a token is not taken, where the program gives
    /// another one each time.
    fn is_final(&self, error: &ClientError) -> bool {
        let ClientError::Refused { code, .. } = error else { return false };
        *code != CloseCode::RATE_LIMITED && !self.may_return(*code)
    }

    /// Whether the client may come back after this code: also after that for tokens, where the program has another one.
    fn may_return(&self, code: CloseCode) -> bool {
        code.may_reconnect() || (code == CloseCode::UNAUTHORIZED && self.tokens.are_asked_for())
    }
}

/// Waits before the next try.
async fn pause(error: &ClientError, backoff: &mut Backoff) {
    // It may repeat what the server said.
    tracing::debug!("Not connected yet: {}", Printable::excerpt(&error.to_string()));
    sleep(backoff.next_delay().max(error.retry_after().unwrap_or_default())).await;
}

/// What the task owns.
pub(super) struct Driver {
    pub(super) common: Common,
    pub(super) state: watch::Sender<State>,
    pub(super) sink: EventSink,
    /// Cancelled once the program closes the client.
    pub(super) closing: CancellationToken,
    /// Cancelled when nobody holds the client any more.
    pub(super) dropped: CancellationToken,
}

/// What became of a connection.
enum Served {
    /// It has ended.
    Closed(ClosedBy),
    /// There is a better one.
    Moved(Arc<Link>, LaneReader),
}

impl Driver {
    pub(super) async fn run(self, link: Arc<Link>, reader: LaneReader) {
        let mut backoff = Backoff::default();
        let dropped = self.dropped.clone();
        let closed = tokio::select! {
            closed = self.serve(link, reader, &mut backoff) => closed,
            () = dropped.cancelled() => ClosedBy::new(CloseCode::NORMAL, "the client was dropped"),
        };
        let last = self.state.borrow().clone();
        if let State::Up(link) = last {
            // A WebSocket, which the endpoint does not know.
            let _ = timeout(GOODBYE, link.close(closed.code, &closed.reason)).await;
        }
        self.common.ways.close(closed.code.0, &closed.reason, GOODBYE).await;
        self.common.topics.close(&closed);
        self.state.send_replace(State::Closed(closed.clone()));
        self.sink.events.tell(Event::Closed(closed));
    }

    /// Serves until the client is closed for good.
    async fn serve(&self, mut link: Arc<Link>, mut reader: LaneReader, backoff: &mut Backoff) -> ClosedBy {
        loop {
            let since = Instant::now();
            let closed = match self.serve_one(&link, reader).await {
                Served::Closed(closed) => closed,
                Served::Moved(better, its_reader) => {
                    (link, reader) = (better, its_reader);
                    self.sink.overlap.moved();
                    self.sink.events.tell(Event::Moved);
                    continue;
                }
            };
            backoff.connected_for(since.elapsed());
            if self.closing.is_cancelled() || !self.common.options.reconnect || !self.common.may_return(closed.code) {
                return closed;
            }
            self.state.send_replace(State::Down);
            self.sink.events.tell(Event::Disconnected(closed.clone()));
            (link, reader) = tokio::select! {
                biased;
                () = self.closing.cancelled() => {
                    return ClosedBy::new(CloseCode::NORMAL, "closed while there was no connection");
                }
                connected = self.reconnect(closed.reconnect_after_ms, backoff) => match connected {
                    Ok((link, reader)) => (Arc::new(link), reader),
                    Err(closed) => return closed,
                },
            };
            self.state.send_replace(State::Up(Arc::clone(&link)));
            self.sink.events.tell(Event::Reconnected);
        }
    }

    /// Serves one connection to its end, or until there is a better one and all replies are there.
    async fn serve_one(&self, link: &Arc<Link>, reader: LaneReader) -> Served {
        let serving = link.serve(reader, self.sink.clone());
        tokio::pin!(serving);
        let better = tokio::select! {
            closed = &mut serving => {
                self.sink.overlap.give_up();
                return Served::Closed(closed);
            }
            () = self.refresh(link) => return Served::Closed(serving.await),
            better = self.until_quic(link) => better,
        };
        let (better, its_reader) = (Arc::new(better.0), better.1);
        // Requests go over it from now on.
        self.state.send_replace(State::Up(Arc::clone(&better)));
        let drained = timeout(MOVE, link.drained());
        tokio::select! {
            biased;
            _ = &mut serving => {}
            _ = drained => {
                link.moved.cancel();
                serving.await;
            }
        }
        Served::Moved(better, its_reader)
    }

    /// Shows the server another token whenever the one that holds expires; does not end.
    async fn refresh(&self, link: &Link) {
        loop {
            link.expiring.notified().await;
            let mut backoff = Backoff::default();
            while self.common.tokens.are_asked_for() {
                let error = match self.common.tokens.next().await {
                    Ok(Some(token)) => {
                        let deadline = std::time::Instant::now() + self.common.options.request_timeout;
                        let refresh = ClientMessage::Refresh { token };
                        let asked = link.request(&refresh, deadline);
                        match timeout(self.common.options.request_timeout, asked).await {
                            Ok(Ok(_)) => break,
                            other => format!("{:?}", other.map(|refused| refused.err())),
                        }
                    }
                    Ok(None) => break,
                    Err(error) => error.to_string(),
                };
                tracing::debug!("No other token taken yet: {}", Printable::excerpt(&error));
                sleep(backoff.next_delay()).await;
            }
        }
    }

    /// On a WebSocket, tries QUIC now and then until it comes through.
    async fn until_quic(&self, link: &Link) -> Connected {
        let options = &self.common.options;
        let after = options.retry_quic.filter(|_| link.connection.quic().is_none() && self.common.ways.can_go_back());
        let Some(after) = after else { return std::future::pending().await };
        let mut tries = 0;
        loop {
            sleep(after.saturating_mul(1 << tries.min(MAX_QUIC_DOUBLINGS))).await;
            tries += 1;
            self.sink.overlap.begin();
            let tried = async {
                let token = self.common.tokens.next().await?;
                self.common.ways.connect_quic(options, token, &self.common.topics).await
            };
            match tried.await {
                Ok(connected) => return connected,
                Err(error) => {
                    self.sink.overlap.give_up();
                    tracing::debug!("QUIC does not come through yet: {}", Printable::excerpt(&error.to_string()));
                    if self.common.is_final(&error) {
                        // It was the server that said so: WebSocket is good enough.
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    /// Tries until it is connected again, or has been told not to come back.
    async fn reconnect(&self, after_ms: Option<u64>, backoff: &mut Backoff) -> Result<Connected, ClosedBy> {
        if let Some(after_ms) = after_ms {
            sleep(Duration::from_millis(after_ms)).await;
        }
        sleep(backoff.next_delay()).await;
        loop {
            match self.common.connect().await {
                Ok(connected) => return Ok(connected),
                Err(ref error @ ClientError::Refused { code, ref reason, .. }) if self.common.is_final(error) => {
                    return Err(ClosedBy::new(code, reason.clone()));
                }
                Err(error) => pause(&error, backoff).await,
            }
        }
    }
}
