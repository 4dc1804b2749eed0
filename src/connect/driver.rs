//! The task behind a client: serves one connection after the other until the client is closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::heard::Heard;
use super::link::Link;
use super::topics::Topics;
use super::{ClientBuilder, ClientError, Event};
use crate::message::{CloseCode, ClosedBy, Token};
use crate::printable::Printable;
use crate::transport::LaneReader;

/// Once closed, how long the last packets may take to leave.
const GOODBYE: Duration = Duration::from_millis(300);

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

/// What the task owns.
pub(super) struct Driver {
    pub(super) options: ClientBuilder,
    /// What is shown at the next connection.
    pub(super) token: Arc<Mutex<Option<Token>>>,
    pub(super) endpoint: Endpoint,
    pub(super) state: watch::Sender<State>,
    pub(super) topics: Arc<Topics>,
    pub(super) heard: Heard,
    /// Room for the last event, whoever reads or not.
    pub(super) last_event: mpsc::OwnedPermit<Event>,
    /// Cancelled when nobody holds the client any more.
    pub(super) dropped: CancellationToken,
}

impl Driver {
    pub(super) async fn run(self, link: Arc<Link>, reader: LaneReader) {
        let mut backoff = Backoff::default();
        let dropped = self.dropped.clone();
        let closed = tokio::select! {
            closed = self.serve(link, reader, &mut backoff) => closed,
            () = dropped.cancelled() => ClosedBy::new(CloseCode::NORMAL, "the client was dropped"),
        };
        self.endpoint.close(u32::from(closed.code.0).into(), closed.reason.as_bytes());
        let _ = timeout(GOODBYE, self.endpoint.wait_idle()).await;
        self.topics.close(&closed);
        self.state.send_replace(State::Closed(closed.clone()));
        self.heard.pass_last_news();
        self.last_event.send(Event::Closed(closed));
    }

    /// Serves until the client is closed for good.
    async fn serve(&self, mut link: Arc<Link>, mut reader: LaneReader, backoff: &mut Backoff) -> ClosedBy {
        loop {
            let since = Instant::now();
            let closed = tokio::select! {
                closed = link.serve(reader, self.heard.clone()) => closed,
                never = self.heard.pass_news() => match never {},
            };
            backoff.connected_for(since.elapsed());
            if self.heard.closing.is_cancelled() || !self.options.reconnect || !closed.code.may_reconnect() {
                return closed;
            }
            self.state.send_replace(State::Down);
            self.heard.news(Event::Disconnected(closed.clone()));
            (link, reader) = tokio::select! {
                biased;
                () = self.heard.closing.cancelled() => {
                    return ClosedBy::new(CloseCode::NORMAL, "closed while there was no connection");
                }
                connected = self.reconnect(closed.reconnect_after_ms, backoff) => match connected {
                    Ok((link, reader)) => (Arc::new(link), reader),
                    Err(closed) => return closed,
                },
                never = self.heard.pass_news() => match never {},
            };
            self.state.send_replace(State::Up(Arc::clone(&link)));
            self.heard.news(Event::Reconnected);
        }
    }

    /// Tries until it is connected again, or has been told not to come back.
    async fn reconnect(&self, after_ms: Option<u64>, backoff: &mut Backoff) -> Result<(Link, LaneReader), ClosedBy> {
        if let Some(after_ms) = after_ms {
            sleep(Duration::from_millis(after_ms)).await;
        }
        loop {
            sleep(backoff.next_delay()).await;
            let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match Link::dial(&self.options, token, &self.endpoint, &self.topics).await {
                Ok(connected) => return Ok(connected),
                Err(ClientError::Refused { code, reason, .. }) if !code.may_reconnect() => {
                    return Err(ClosedBy::new(code, reason));
                }
                Err(e) => {
                    // It may repeat what the server said.
                    let e = e.to_string();
                    tracing::debug!("Not connected again yet: {}", Printable::excerpt(&e));
                }
            }
        }
    }
}
