//! Long work of clients: it is done a millisecond at a time, for one client at a time on each worker, and takes at most
//! a quarter of the worker's time, so that others hardly notice it.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Time of one slice; then others come in between.
const SLICE: Duration = Duration::from_millis(1);
/// For each millisecond of long work the worker has so many for everything else.
const REST: u32 = 3;
/// Work of at most so many parts, each of some microseconds, does not wait for its turn.
const FEW: usize = 16;

/// The long work of one worker's clients.
#[derive(Debug)]
pub(super) struct LongWork {
    turn: Semaphore,
    /// Time worked without a rest since.
    worked: Mutex<Duration>,
}

impl LongWork {
    pub(super) fn new() -> Self {
        Self { turn: Semaphore::new(1), worked: Mutex::default() }
    }

    /// Begins, once it is this client's turn; `client` lets one of its requests in at a time. Cancel safe: it is over
    /// when the result is dropped.
    pub(super) async fn begin<'a>(&'a self, client: &'a Semaphore, parts: usize) -> Slices<'a> {
        let (mut own, mut turn) = (None, None);
        if parts > FEW {
            // Neither is ever closed.
            own = client.acquire().await.ok();
            turn = self.take_turn().await;
        }
        Slices { work: self, _client: own, turn, begun: Instant::now() }
    }

    async fn take_turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.turn.acquire().await.ok();
        let worked = *self.worked();
        if worked >= SLICE {
            // No other client does long work meanwhile.
            tokio::time::sleep(worked * REST).await;
            *self.worked() = Duration::ZERO;
        }
        turn
    }

    fn worked(&self) -> MutexGuard<'_, Duration> {
        self.worked.lock()
    }
}

/// Work that is under way.
#[derive(Debug)]
pub(crate) struct Slices<'a> {
    work: &'a LongWork,
    _client: Option<SemaphorePermit<'a>>,
    turn: Option<SemaphorePermit<'a>>,
    begun: Instant,
}

impl Slices<'_> {
    /// Whether it is time for [`rest`](Self::rest).
    pub(crate) fn is_over(&self) -> bool {
        self.turn.is_some() && self.begun.elapsed() >= SLICE
    }

    /// Lets others come in between, until it is this client's turn again.
    pub(crate) async fn rest(&mut self) {
        self.note();
        self.turn = None;
        self.turn = self.work.take_turn().await;
        self.begun = Instant::now();
    }

    fn note(&mut self) {
        *self.work.worked() += self.begun.elapsed();
        self.begun = Instant::now();
    }
}

impl Drop for Slices<'_> {
    fn drop(&mut self) {
        if self.turn.is_some() {
            self.note();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_rests_thrice_as_long_as_it_has_worked_and_clients_take_turns() {
        let (work, clients) = (LongWork::new(), [Semaphore::new(1), Semaphore::new(1)]);
        let worker = async |client: &Semaphore| {
            let (mut slices, mut worked) = (work.begin(client, 100).await, Duration::ZERO);
            for _ in 0..5 {
                let begun = Instant::now();
                while !slices.is_over() {
                    std::hint::spin_loop();
                }
                worked += begun.elapsed();
                slices.rest().await;
            }
            worked
        };
        let begun = Instant::now();
        let (one, other, third) = tokio::join!(worker(&clients[0]), worker(&clients[1]), worker(&clients[1]));
        let (took, worked) = (begun.elapsed(), one + other + third);
        assert!(took >= worked * (1 + REST), "{worked:?} of work in {took:?}");
    }
}
