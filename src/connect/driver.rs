//! The task behind a client: serves one connection after the other until the client is closed.

use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::{ClientBuilder, ClientError, Event, backoff};
use crate::message::{CloseCode, ClosedBy};
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
    pub(super) endpoint: Endpoint,
    pub(super) state: watch::Sender<State>,
    pub(super) events: mpsc::Sender<Event>,
    /// Cancelled when nobody holds the client any more.
    pub(super) dropped: CancellationToken,
    /// Cancelled when the client is asked to close.
    pub(super) closing: CancellationToken,
}

impl Driver {
    pub(super) async fn run(self, link: Arc<Link>, reader: LaneReader) {
        let dropped = self.dropped.clone();
        let closed = tokio::select! {
            closed = self.serve(link, reader) => closed,
            () = dropped.cancelled() => {
                ClosedBy { code: CloseCode::NORMAL, reason: "the client was dropped".into(), reconnect_after_ms: None }
            }
        };
        self.endpoint.close(u32::from(closed.code.0).into(), closed.reason.as_bytes());
        let _ = timeout(GOODBYE, self.endpoint.wait_idle()).await;
        self.state.send_replace(State::Closed(closed.clone()));
        // Nobody has to listen, and whoever does not read must not keep this task.
        let _ = self.events.try_send(Event::Closed(closed));
    }

    /// Serves until the client is closed for good.
    async fn serve(&self, mut link: Arc<Link>, mut reader: LaneReader) -> ClosedBy {
        loop {
            let closed = link.serve(reader, &self.events).await;
            if self.closing.is_cancelled() || !self.options.reconnect || !closed.code.may_reconnect() {
                return closed;
            }
            self.state.send_replace(State::Down);
            let _ = self.events.send(Event::Disconnected(closed.clone())).await;
            (link, reader) = tokio::select! {
                next = self.reconnect(closed.reconnect_after_ms) => match next {
                    Ok((link, reader)) => (Arc::new(link), reader),
                    Err(closed) => return closed,
                },
                () = self.closing.cancelled() => return closed,
            };
            self.state.send_replace(State::Up(Arc::clone(&link)));
            let _ = self.events.send(Event::Reconnected).await;
        }
    }

    /// Tries until it is connected again, or has been told not to come back.
    async fn reconnect(&self, after_ms: Option<u64>) -> Result<(Link, LaneReader), ClosedBy> {
        if let Some(after_ms) = after_ms {
            sleep(Duration::from_millis(after_ms)).await;
        }
        for attempt in 0.. {
            sleep(backoff::delay(attempt)).await;
            match Link::dial(&self.options, &self.endpoint).await {
                Ok(connected) => return Ok(connected),
                Err(ClientError::Refused { code, reason, .. }) if !code.may_reconnect() => {
                    return Err(ClosedBy { code, reason, reconnect_after_ms: None });
                }
                Err(e) => tracing::debug!("Not connected again yet: {e}"),
            }
        }
        Err(ClosedBy { code: CloseCode::ABNORMAL, reason: "out of attempts".into(), reconnect_after_ms: None })
    }
}
