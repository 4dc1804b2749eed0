//! Requests to other clients on one connection: how many are open, and which of them the server has read.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::{Failure, Link, unless_error};
use crate::ClientError;
use crate::message::{ClientMessage, HandshakeReply, RequestId, ServerMessage, now_ms};
use crate::pace::ConnectionEnded;
use crate::topics::refused_for;

/// Most requests to other clients that are open at once, if the server does not say.
const MOST_OPEN: u64 = 256;
/// After this many requests without a sign that the server has read them, a ping asks for one.
const PROBE_AFTER: usize = 32;

/// The open requests to other clients.
#[derive(Debug)]
pub(super) struct Asks {
    places: Semaphore,
    most: usize,
    /// Those that the server may not have read: they count for the pace.
    unread: Mutex<BTreeSet<u64>>,
}

impl Asks {
    pub(super) fn new(greeting: &HandshakeReply) -> Self {
        let most = greeting.limits.and_then(|limits| limits.max_open_requests).unwrap_or(MOST_OPEN);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(most), most, unread: Mutex::default() }
    }

    fn unread(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.places.close();
    }
}

impl Link {
    /// Asks another client, and waits for its reply. If the call is dropped, the request is given up.
    pub(in super::super) async fn ask(
        self: &Arc<Self>,
        message: &ClientMessage,
        deadline: Instant,
    ) -> Result<ServerMessage, Failure> {
        let _place = self.asks.places.acquire().await.map_err(|_| Failure::Unsent)?;
        let mut at = None;
        loop {
            let id = self.next_id();
            let (sender, reply) = oneshot::channel();
            let awaited = self.expect_reply(id, sender).ok_or(Failure::Unsent)?;
            match at {
                None => self.pace.next(Some(id)).await,
                Some(at) => self.pace.again(at, id).await,
            }
            .map_err(|ConnectionEnded| Failure::Unsent)?;
            let mut open = OpenAsk { link: self, id, is_open: true };
            let unread = self.unread_with(id);
            self.send_now(Some(id), message).await?;
            if unread.is_multiple_of(PROBE_AFTER) {
                self.tell(&ClientMessage::Ping { timestamp: Some(now_ms()) });
            }
            let reply = reply.await.map_err(|_| ClientError::Lost)?;
            open.is_open = false;
            drop(open);
            drop(awaited);
            match refused_for(&reply).map(|wait| Instant::now() + wait) {
                Some(turn) if turn < deadline => at = Some(turn),
                _ => return Ok(unless_error(reply)?),
            }
        }
    }

    fn unread_with(&self, id: u64) -> usize {
        let mut unread = self.asks.unread();
        unread.insert(id);
        unread.len()
    }

    /// The server has read every request before this one, so their replies are up to other clients: they hold up no
    /// other request.
    pub(super) fn read_up_to(&self, id: u64) {
        let mut unread = self.asks.unread();
        while let Some(first) = unread.first().copied().filter(|first| *first < id) {
            unread.remove(&first);
            self.pace.replied(first, None);
        }
    }

    /// Waits until every request is answered: those to other clients in any case, all others only for so long.
    pub(in super::super) async fn left(&self, within: Duration) {
        let late = timeout(within, self.drained()).await.is_err();
        if late && self.asks.places.available_permits() < self.asks.most {
            self.drained().await;
        }
    }
}

/// A request that was sent and is not answered; dropping it gives it up.
struct OpenAsk<'a> {
    link: &'a Arc<Link>,
    id: u64,
    is_open: bool,
}

impl Drop for OpenAsk<'_> {
    fn drop(&mut self) {
        self.link.asks.unread().remove(&self.id);
        if self.is_open {
            self.link.tell(&ClientMessage::Cancel { re: RequestId::Number(self.id) });
        }
    }
}
