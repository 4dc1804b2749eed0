//! Time limits of a connected client: pings for silence, and the expiry of its token or client certificate, or the
//! revocation of its token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Session;
use super::end::End;
use crate::message::{CloseCode, ServerMessage, now_ms};

/// The time of the last data that was received on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    /// In nanoseconds since `begun`. With a coarser unit a fast `pong` could seem to precede its ping.
    last: AtomicU64,
    begun: Instant,
}

impl Activity {
    /// Of a connection on which data has just been received.
    pub(super) fn new() -> Self {
        Self { last: AtomicU64::new(0), begun: Instant::now() }
    }

    pub(super) fn record(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

/// Pings a silent client, and closes one that does not answer.
pub(super) async fn keep_alive(session: &Session) -> End {
    let moved = || {
        // With a second WebSocket, what leaves may leave there.
        let is_alone = !session.outbound.has_second();
        (if is_alone { session.outbound.control.scheduler().progress() } else { 0 }, session.carrier.moved())
    };
    let ping = |ping: &ServerMessage| session.send(ping);
    until_silent(session, &session.activity, moved, ping).await;
    End::sent(CloseCode::TIMEOUT, "no answer to a ping; answer with pong")
}

/// Pings one connection of a client when it is silent; returns when a ping is not answered. `moved` changes with other
/// signs of life than received data.
pub(super) async fn until_silent(
    session: &Session,
    activity: &Activity,
    moved: impl Fn() -> (usize, usize),
    ping: impl Fn(&ServerMessage),
) {
    let timing = &session.context.config.timing;
    let mut pinged: Option<Instant> = None;
    let mut progress = (0, moved().1);
    loop {
        // A peer that is still draining its backlog is alive, even if its pong is queued behind that data.
        let is_busy = session.waiting.load(Ordering::Relaxed) > 0;
        let made = moved();
        if is_busy || progress != made {
            progress = made;
            activity.record();
        }
        let last_activity = activity.last();
        let unanswered_since = pinged.filter(|&pinged| pinged > last_activity);
        let due =
            unanswered_since.map_or(last_activity + timing.ping_interval(), |pinged| pinged + timing.ping_timeout());
        let now = Instant::now();
        if now < due {
            // A client that answers a ping quickly is due for the next one before this ping's timeout.
            sleep_until(due.min(now + timing.ping_interval())).await;
        } else if unanswered_since.is_some() {
            return;
        } else {
            pinged = Some(now);
            ping(&ServerMessage::Ping { timestamp: now_ms() });
        }
    }
}

/// Warns a client before its token or certificate expires, and closes it then. A `refresh` extends both times.
pub(super) async fn expire(session: &Session) -> End {
    let mut identities = session.caller.identities();
    let warn_ms = session.context.config.auth.warn_ms;
    let mut warned = None;
    loop {
        let Some(expires_at) = identities.borrow_and_update().expires_at else {
            // The sender is in the session, so this cannot fail.
            let _ = identities.changed().await;
            continue;
        };
        let now = now_ms();
        if now >= expires_at {
            let reason = "the token or client certificate has expired; connect with another one";
            return End::sent(CloseCode::UNAUTHORIZED, reason);
        }
        let warn_at = expires_at.saturating_sub(warn_ms);
        if now >= warn_at && warned != Some(expires_at) {
            warned = Some(expires_at);
            session.send(&ServerMessage::Expiring { expires_at });
        }
        let due = if now < warn_at { warn_at } else { expires_at };
        // Checked at least every minute, because the clock may be set meanwhile.
        let within = Duration::from_millis(due - now).min(Duration::from_secs(60));
        let _ = timeout(within, identities.changed()).await;
    }
}

/// Closes a client as soon as its token is revoked.
pub(super) async fn revoked(session: &Session) -> End {
    if session.context.config.auth.accepts_tokens() {
        // Boxed: clients of a server that accepts no tokens would otherwise reserve memory for it.
        return Box::pin(until_revoked(session)).await;
    }
    std::future::pending().await
}

async fn until_revoked(session: &Session) -> End {
    let revocations = session.context.auth.revocations();
    let (mut identities, mut changes) = (session.caller.identities(), revocations.changes());
    loop {
        // Revoked after the check of the token and before this, it is found here.
        changes.mark_unchanged();
        let identity = Arc::clone(&identities.borrow_and_update());
        if revocations.cover(&identity) {
            return End::sent(CloseCode::UNAUTHORIZED, "the token was revoked; connect with another one");
        }
        // Neither sender is dropped before the session.
        tokio::select! {
            _ = identities.changed() => {}
            _ = changes.changed(), if identity.token.is_some() => {}
        }
    }
}
