//! How fast a client sends on one connection. A server that refuses a request with `error` 429 says when that request's
//! turn is (docs/PROTOCOL.md, "Time and load"); until then nothing new is sent, and after that one request at a time,
//! as far apart as the refusals showed to be right. [`Rhythm`] decides and is pure; [`Pace`] waits.
//!
//! Signs of life and the close are not held up: the server never refuses them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::sleep_until;

/// Most requests without a reply, fewer than the refusals (100 by default) for which a server closes with 4429.
const MOST_UNDER_WAY: usize = 96;
/// This many replies in a row without a refusal halve the time between two requests: the rate may have grown, or
/// a burst may be there again.
const TRUST: u32 = 8;
/// Shorter times between two requests count as none.
const SHORTEST: Duration = Duration::from_millis(1);

/// The time at which a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    /// Once a reply has come.
    AfterReply,
}

/// The server's rates, as far as its replies show them.
#[derive(Debug)]
struct Rhythm {
    /// The time at which each outstanding request was sent, by id; and whether it had been refused before.
    under_way: HashMap<u64, (Instant, bool)>,
    /// Most outstanding requests.
    window: usize,
    /// New requests wait until then.
    not_before: Option<Instant>,
    /// The time between two requests.
    gap: Duration,
    last_sent: Option<Instant>,
    /// The time at which the last request that was served was sent.
    last_served: Option<Instant>,
    /// New requests that were served since the last refusal.
    in_row: u32,
    /// Refusals that are not yet forgiven, as the server counts them: each gets a turn behind those.
    outstanding: u32,
}

/// Refusals that each served request forgives.
const MADE_GOOD: u32 = 2;

impl Rhythm {
    fn new() -> Self {
        Self {
            under_way: HashMap::new(),
            window: MOST_UNDER_WAY,
            not_before: None,
            gap: Duration::ZERO,
            last_sent: None,
            last_served: None,
            in_row: 0,
            outstanding: 0,
        }
    }

    /// The turn of a request: a new one, or one that was refused and has a time of its own.
    fn turn(&self, now: Instant, own: Option<Instant>) -> Turn {
        let spaced = self.last_sent.filter(|_| self.gap > Duration::ZERO).map(|last| last + self.gap);
        let due = own.or(self.not_before).max(spaced);
        match due {
            Some(due) if due > now => Turn::At(due),
            // A refused one has its own turn.
            _ if own.is_none() && self.under_way.len() >= self.window => Turn::AfterReply,
            _ => Turn::Now,
        }
    }

    /// A request is sent, as a new one or at its own time; without an id, no reply is expected.
    fn sent(&mut self, now: Instant, id: Option<u64>, is_again: bool) {
        self.last_sent = Some(now);
        if let Some(id) = id {
            self.under_way.insert(id, (now, is_again));
        }
    }

    /// It was served, or refused for another reason.
    fn served(&mut self, id: u64) {
        let Some((sent, is_again)) = self.under_way.remove(&id) else { return };
        self.last_served = self.last_served.max(Some(sent));
        self.outstanding = self.outstanding.saturating_sub(MADE_GOOD);
        if is_again {
            // It had its own turn, which does not show how fast new ones may come.
            return;
        }
        self.window = (self.window + 1).min(MOST_UNDER_WAY);
        self.in_row += 1;
        if self.in_row.is_multiple_of(TRUST) {
            self.gap /= 2;
            if self.gap < SHORTEST {
                self.gap = Duration::ZERO;
            }
        }
    }

    /// It was refused, as is one without an id, and may be sent again after so long.
    fn refused(&mut self, now: Instant, id: Option<u64>, retry_after: Duration) {
        if let Some(id) = id {
            self.under_way.remove(&id);
        }
        let due = now + retry_after;
        self.not_before = self.not_before.max(Some(due));
        self.window = 1;
        self.outstanding += 1;
        // Between the last served request and this one's turn there are as many turns as refusals.
        if let Some(served) = self.last_served {
            self.gap = due.saturating_duration_since(served) / self.outstanding;
        }
        self.in_row = 0;
    }

    /// The caller no longer waits for the reply.
    fn given_up(&mut self, id: u64) {
        self.under_way.remove(&id);
    }
}

/// The connection has ended: nothing more is sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionEnded;

/// The pace of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    rhythm: Mutex<(Rhythm, bool)>,
    /// A reply came, or the connection ended.
    changed: Notify,
    /// New requests wait here, in order; only the first watches the rhythm.
    queue: AsyncMutex<()>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { rhythm: Mutex::new((Rhythm::new(), false)), changed: Notify::new(), queue: AsyncMutex::new(()) }
    }

    fn rhythm(&self) -> MutexGuard<'_, (Rhythm, bool)> {
        self.rhythm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a new request may be sent, and counts it as sent. Cancel safe.
    pub(super) async fn next(&self, id: Option<u64>) -> Result<(), ConnectionEnded> {
        let _first = self.queue.lock().await;
        self.turn(None, id).await
    }

    /// The same for one that was refused: at its own time.
    pub(super) async fn again(&self, at: Instant, id: u64) -> Result<(), ConnectionEnded> {
        self.turn(Some(at), Some(id)).await
    }

    async fn turn(&self, own: Option<Instant>, id: Option<u64>) -> Result<(), ConnectionEnded> {
        loop {
            // Created before the check, so that a change in between is not missed.
            let changed = self.changed.notified();
            let turn = {
                let (rhythm, has_ended) = &mut *self.rhythm();
                if *has_ended {
                    return Err(ConnectionEnded);
                }
                let now = Instant::now();
                let turn = rhythm.turn(now, own);
                if turn == Turn::Now {
                    rhythm.sent(now, id, own.is_some());
                    return Ok(());
                }
                turn
            };
            match turn {
                Turn::At(due) => tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = changed => {}
                },
                Turn::Now | Turn::AfterReply => changed.await,
            }
        }
    }

    /// A request was answered; `retry_after` is set if it was refused for now.
    pub(super) fn replied(&self, id: u64, retry_after: Option<Duration>) {
        match retry_after {
            None => self.rhythm().0.served(id),
            Some(retry_after) => self.rhythm().0.refused(Instant::now(), Some(id), retry_after),
        }
        self.changed.notify_waiters();
    }

    /// A request without an id here was refused for now.
    pub(super) fn refused(&self, retry_after: Duration) {
        self.rhythm().0.refused(Instant::now(), None, retry_after);
    }

    /// The caller no longer waits for the reply.
    pub(super) fn given_up(&self, id: u64) {
        self.rhythm().0.given_up(id);
        self.changed.notify_waiters();
    }

    /// Nothing more is sent.
    pub(super) fn end(&self) {
        self.rhythm().1 = true;
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A server with a rate and a burst, which tells refusals their turns as the real one does.
    struct Server {
        interval: Duration,
        burst: u32,
        /// When the bucket would be full.
        full_at: Instant,
        outstanding: u32,
        most_outstanding: u32,
        served: u32,
        refused: u32,
    }

    impl Server {
        fn take(&mut self, now: Instant) -> Option<Duration> {
            let full_at = self.full_at.max(now) + self.interval;
            let lead = full_at - now;
            let most = self.interval * self.burst;
            if lead <= most {
                self.full_at = full_at;
                self.outstanding = self.outstanding.saturating_sub(2);
                self.served += 1;
                return None;
            }
            let wait = lead - most + self.interval * self.outstanding;
            self.outstanding += 1;
            self.refused += 1;
            self.most_outstanding = self.most_outstanding.max(self.outstanding);
            Some(wait)
        }
    }

    /// Sends so many requests, each again until it is served, over a link with this round trip; gives the server and
    /// how long that took.
    fn run(count: u64, rate: u32, burst: u32, round_trip: Duration) -> (Server, Duration) {
        let started = Instant::now();
        let mut server = Server {
            interval: Duration::from_secs(1) / rate,
            burst,
            full_at: started,
            outstanding: 0,
            most_outstanding: 0,
            served: 0,
            refused: 0,
        };
        let mut rhythm = Rhythm::new();
        let mut now = started;
        let (mut next, mut refused, mut flying) = (0, Vec::<(Instant, u64)>::new(), Vec::<(Instant, u64)>::new());
        let mut not_before = None;
        while server.served < u32::try_from(count).expect("few") {
            // Refusals' own times come first, as they come due.
            refused.sort();
            let own = refused.first().copied();
            let mut wake = None;
            match own.map(|(at, id)| (rhythm.turn(now, Some(at)), id)) {
                Some((Turn::Now, id)) => {
                    let (at, _) = refused.remove(0);
                    assert!(at <= now, "not before its turn");
                    rhythm.sent(now, Some(id), true);
                    flying.push((now + round_trip, id));
                    continue;
                }
                Some((Turn::At(at), _)) => wake = Some(at),
                _ => {}
            }
            if next < count {
                match rhythm.turn(now, None) {
                    Turn::Now => {
                        assert!(not_before.is_none_or(|at| at <= now), "nothing new before the last refusal's turn");
                        rhythm.sent(now, Some(next), false);
                        flying.push((now + round_trip, next));
                        next += 1;
                        continue;
                    }
                    Turn::At(at) => wake = Some(wake.map_or(at, |wake| wake.min(at))),
                    Turn::AfterReply => {}
                }
            }
            // Time goes on to whatever is first.
            if let Some(&(at, id)) = flying.first().filter(|(at, _)| wake.is_none_or(|wake| *at <= wake)) {
                now = at;
                flying.remove(0);
                match server.take(now) {
                    None => rhythm.served(id),
                    Some(wait) => {
                        rhythm.refused(now, Some(id), wait);
                        not_before = not_before.max(Some(now + wait));
                        refused.push((now + wait, id));
                    }
                }
            } else {
                now = now.max(wake.expect("something is to come"));
            }
        }
        (server, now - started)
    }

    #[test]
    fn a_hundred_and_twenty_requests_at_five_a_second_are_all_served_at_that_rate() {
        let (server, took) = run(120, 5, 10, ms(1));
        assert!(server.most_outstanding < 100, "{} refusals outstanding", server.most_outstanding);
        assert!(took <= ms(24_000), "{took:?} for what takes 22 s at the rate");
        assert!(server.refused <= 96 + 120, "{} refusals", server.refused);
    }

    #[test]
    fn without_a_refusal_nothing_is_delayed() {
        let (server, took) = run(10_000, 1_000_000, 20_000, ms(1));
        assert_eq!(server.refused, 0);
        assert!(took <= ms(10_000 / 96 + 2), "{took:?}");
    }

    #[test]
    fn a_steady_rate_is_found_with_few_refusals() {
        let (server, took) = run(2000, 100, 1, ms(0));
        assert!(took <= ms(22_000), "{took:?} for what takes 20 s at the rate");
        assert!(server.refused <= 96 + 2000 / 4, "{} refusals", server.refused);
    }

    proptest! {
        #[test]
        fn at_any_rate_all_requests_are_served_and_the_client_is_not_closed(
            count in 1..400_u64, rate in 1..2000_u32, burst in 1..100_u32, round_trip in 0..300_u64,
        ) {
            let (server, took) = run(count, rate, burst, ms(round_trip));
            prop_assert!(server.most_outstanding < 100, "{} refusals outstanding", server.most_outstanding);
            let least = Duration::from_secs(1) / rate * u32::try_from(count).expect("few");
            // One at a time it takes a round trip each.
            let most = (least + ms(round_trip) * u32::try_from(count).expect("few")) * 3 + ms(1000);
            prop_assert!(took <= most, "{took:?}, at the rate {least:?}");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_connection_ends_every_wait() {
        let pace = Pace::new();
        pace.next(Some(1)).await.expect("the first");
        pace.replied(1, Some(Duration::from_secs(600)));
        let (next, again, ()) =
            tokio::join!(pace.next(None), pace.again(Instant::now() + Duration::from_secs(600), 1), async {
                pace.end()
            });
        assert_eq!((next, again), (Err(ConnectionEnded), Err(ConnectionEnded)));
    }
}
