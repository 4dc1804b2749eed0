//! The task behind a client: serves one connection after the other until the client is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quic_websocket_lane::LaneReader;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::dial::{Attached, Connected, Dialer};
use super::events::Event;
use super::inbound::EventSink;
use super::link::Link;
use super::overlap;
use super::token::Tokens;
use super::topics::Topics;
use super::{Carrier, ClientBuilder, ClientError};
use crate::Printable;
use crate::message::{ClientMessage, CloseCode, ClosedBy};

/// How long the subscriptions of a new connection wait for its second WebSocket.
const SECOND_WITHIN: Duration = Duration::from_secs(2);
/// How long the last packets may take to leave when the client closes.
const CLOSE_GRACE: Duration = Duration::from_millis(300);
/// How often the time until QUIC is tried again doubles.
const MAX_QUIC_DOUBLINGS: u32 = 4;
/// How long the old connection is kept for outstanding replies once there is a better one.
const MOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection as a client's handles see it.
#[derive(Clone)]
pub(super) enum State {
    /// Connected.
    Up(Arc<Link>),
    /// Between two connections.
    Down,
    /// For good.
    Closed(ClosedBy),
}

/// The parts that all connections of a client share.
pub(super) struct Common {
    pub(super) options: ClientBuilder,
    pub(super) tokens: Arc<Tokens>,
    pub(super) dialer: Dialer,
    pub(super) topics: Arc<Topics>,
}

impl Common {
    /// One attempt to connect.
    pub(super) async fn connect(&self) -> Result<Connected, ClientError> {
        let token = self.tokens.next().await?;
        self.dialer.connect(&self.options, token, &self.topics).await
    }

    /// Tries until the client is connected for the first time, or fails in a way that time does not heal.
    pub(super) async fn connect_initially(&self) -> Result<Connected, ClientError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.connect().await {
                Err(error) if self.options.retry_first && self.may_recover(&error) => error,
                connected => return connected,
            };
            pause(&error, &mut backoff).await;
        }
    }

    /// Whether a later attempt may succeed.
    fn may_recover(&self, error: &ClientError) -> bool {
        match error {
            ClientError::Refused { .. } => !self.is_final(error),
            ClientError::NoAnswer { .. } | ClientError::Connection { .. } | ClientError::Token { .. } => true,
            _ => false,
        }
    }

    /// Whether the server has refused the client for good. An address with too many connections is a passing state:
    /// before the handshake is answered, 4429 means nothing else. So is a rejected token if the program provides a new
    /// one each time.
    fn is_final(&self, error: &ClientError) -> bool {
        let ClientError::Refused { code, .. } = error else { return false };
        *code != CloseCode::RATE_LIMITED && !self.may_return(*code)
    }

    /// Whether the client may reconnect after this code; after the one for tokens if the program provides another.
    fn may_return(&self, code: CloseCode) -> bool {
        code.may_reconnect() || (code == CloseCode::UNAUTHORIZED && self.tokens.are_renewable())
    }
}

/// Waits before the next attempt.
async fn pause(error: &ClientError, backoff: &mut Backoff) {
    // The error may contain text from the server.
    tracing::debug!("Not connected yet: {}", Printable::excerpt(&error.to_string()));
    sleep(backoff.next_delay().max(error.retry_after().unwrap_or_default())).await;
}

/// The state of the task.
pub(super) struct Driver {
    pub(super) common: Common,
    pub(super) state: watch::Sender<State>,
    pub(super) sink: EventSink,
    /// Cancelled once the program closes the client.
    pub(super) closing: CancellationToken,
    /// Cancelled when the last handle is dropped.
    pub(super) dropped: CancellationToken,
}

/// The reading of a connection; gives its end.
type Serving = Pin<Box<dyn Future<Output = ClosedBy> + Send>>;

/// The outcome of serving a connection.
enum Served {
    /// The connection has ended.
    Closed(ClosedBy),
    /// The client has moved to this one, which is being read.
    Moved(Arc<Link>, Serving),
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
            // A WebSocket does not belong to the endpoint.
            let _ = timeout(CLOSE_GRACE, link.close(closed.code, &closed.reason)).await;
        }
        self.common.dialer.close(closed.code.0, &closed.reason, CLOSE_GRACE).await;
        self.common.topics.close(&closed);
        self.state.send_replace(State::Closed(closed.clone()));
        self.sink.events.push_event(Event::Closed(closed));
    }

    /// Reads a connection.
    fn begin(&self, link: &Arc<Link>, reader: LaneReader) -> Serving {
        Box::pin(Arc::clone(link).serve(reader, self.sink.clone()))
    }

    /// Serves until the client is closed for good.
    async fn serve(&self, mut link: Arc<Link>, reader: LaneReader, backoff: &mut Backoff) -> ClosedBy {
        let mut serving = self.begin(&link, reader);
        let mut second = self.attach_first(&link).await;
        link.make_current();
        loop {
            let since = Instant::now();
            let closed = match self.serve_one(&link, &mut serving, second.take()).await {
                Served::Closed(closed) => closed,
                Served::Moved(better, its_serving) => {
                    (link, serving) = (better, its_serving);
                    continue;
                }
            };
            backoff.connected_for(since.elapsed());
            if self.closing.is_cancelled() || !self.common.options.reconnect || !self.common.may_return(closed.code) {
                return closed;
            }
            self.state.send_replace(State::Down);
            self.common.topics.resume(link.greeting.session.as_deref());
            self.sink.events.push_event(Event::Disconnected(closed.clone()));
            let (next, reader) = tokio::select! {
                biased;
                () = self.closing.cancelled() => {
                    return ClosedBy::new(CloseCode::NORMAL, "closed while there was no connection");
                }
                connected = self.reconnect(closed.reconnect_after_ms, backoff) => match connected {
                    Ok(connected) => connected,
                    Err(closed) => return closed,
                },
            };
            link = Arc::new(next);
            self.common.topics.resume(None);
            serving = self.begin(&link, reader);
            second = self.attach_first(&link).await;
            link.make_current();
            self.state.send_replace(State::Up(Arc::clone(&link)));
            self.sink.events.push_event(Event::Reconnected);
        }
    }

    /// Serves one connection to its end, or until the client has moved to a better one. Both are read meanwhile:
    /// requests go over the new one at once, subscriptions once the old one has brought all replies.
    async fn serve_one(&self, link: &Arc<Link>, serving: &mut Serving, second: Option<Attached>) -> Served {
        let (better, reader) = tokio::select! {
            closed = &mut *serving => {
                self.sink.give_up_move();
                return Served::Closed(closed);
            }
            ((), (), ()) = async {
                tokio::join!(self.refresh(link), self.forget_move(), self.second(link, second))
            } => {
                return Served::Closed(serving.await);
            }
            better = self.until_quic(link) => better,
        };
        let better = Arc::new(better);
        self.sink.overlap.both();
        let mut its_serving = self.begin(&better, reader);
        self.state.send_replace(State::Up(Arc::clone(&better)));
        let leaving = async {
            tokio::select! {
                biased;
                _ = &mut *serving => return,
                () = link.left(MOVE_TIMEOUT) => link.moved.cancel(),
            }
            (&mut *serving).await;
        };
        let hand_over = async {
            link.ended.cancelled().await;
            better.make_current();
            self.sink.moved();
            self.sink.events.push_event(Event::Moved);
        };
        tokio::select! {
            closed = &mut its_serving => {
                // Lost before the move was over: the client comes back as after any loss.
                link.moved.cancel();
                if !link.ended.is_cancelled() {
                    serving.await;
                }
                self.sink.give_up_move();
                Served::Closed(closed)
            }
            _ = async { tokio::join!(leaving, hand_over) } => Served::Moved(better, its_serving),
        }
    }

    /// Renews the token whenever it is about to expire; never returns.
    async fn refresh(&self, link: &Link) {
        loop {
            link.expiring.notified().await;
            let mut backoff = Backoff::default();
            while self.common.tokens.are_renewable() {
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
                tracing::debug!("No new token accepted yet: {}", Printable::excerpt(&error));
                sleep(backoff.next_delay()).await;
            }
        }
    }

    /// Opens a second WebSocket before subscriptions are made, because each is bound to a lane for its life.
    async fn attach_first(&self, link: &Link) -> Option<Attached> {
        if !self.wants_second(link) {
            return None;
        }
        let attached = timeout(SECOND_WITHIN, self.common.dialer.attach(&self.common.options, link)).await;
        if !matches!(attached, Ok(Ok(_))) {
            tracing::debug!("No second WebSocket yet");
        }
        attached.ok()?.ok()
    }

    fn wants_second(&self, link: &Link) -> bool {
        self.common.options.bulk_socket && link.carrier() == Carrier::WebSocket && link.greeting.session.is_some()
    }

    /// Keeps a second WebSocket, if there is to be one; never returns.
    async fn second(&self, link: &Arc<Link>, second: Option<Attached>) {
        if self.wants_second(link) {
            // Boxed, because few clients have one.
            Box::pin(self.keep_second(link, second)).await;
        }
        std::future::pending().await
    }

    /// Reads the second WebSocket, and opens another one when it has ended; never returns.
    async fn keep_second(&self, link: &Arc<Link>, mut second: Option<Attached>) {
        let mut backoff = Backoff::default();
        loop {
            if let Some((second, reader)) = second.take() {
                let since = Instant::now();
                let why = link.serve_second(second, reader, &self.sink).await;
                tracing::debug!("The second WebSocket has ended: {}", Printable::excerpt(&why));
                backoff.connected_for(since.elapsed());
            }
            sleep(backoff.next_delay()).await;
            match self.common.dialer.attach(&self.common.options, link).await {
                Ok(attached) => second = Some(attached),
                Err(error) => {
                    tracing::debug!("No second WebSocket yet: {}", Printable::excerpt(&error.to_string()));
                }
            }
        }
    }

    /// Frees the memory of a move once no broadcast of it can come again.
    async fn forget_move(&self) {
        sleep(overlap::WITHIN).await;
        self.sink.overlap.forget();
    }

    /// On a WebSocket, tries QUIC from time to time until it connects.
    async fn until_quic(&self, link: &Link) -> Connected {
        let options = &self.common.options;
        let after = options.retry_quic.filter(|_| link.connection.quic().is_none() && self.common.dialer.has_quic());
        let Some(after) = after else { return std::future::pending().await };
        let mut tries = 0;
        loop {
            sleep(after.saturating_mul(1 << tries.min(MAX_QUIC_DOUBLINGS))).await;
            tries += 1;
            self.sink.overlap.begin();
            let tried = async {
                let token = self.common.tokens.next().await?;
                self.common.dialer.connect_quic(options, token, &self.common.topics).await
            };
            match tried.await {
                Ok(connected) => return connected,
                Err(error) => {
                    self.sink.give_up_move();
                    tracing::debug!("QUIC does not connect yet: {}", Printable::excerpt(&error.to_string()));
                    if self.common.is_final(&error) {
                        // The server itself refuses QUIC: the client stays on the WebSocket.
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    /// Tries until the client is connected again, or the server refuses it for good.
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
