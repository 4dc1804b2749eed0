//! A number of connected clients, each a task, and the loads that they carry one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;

use super::Target;
use super::board::{Board, Outcome, Plan};
use super::dial::Dialer;

/// Connections that are set up at the same time.
const DIALING: usize = 16;
/// A load in which nothing arrives for so long has lost what is missing.
const STALLED: Duration = Duration::from_secs(8);

pub(crate) struct Crowd {
    board: Arc<Board>,
    /// Ends every client when it is dropped.
    tasks: JoinSet<()>,
    dialer: Dialer,
}

impl Crowd {
    pub(crate) async fn gather(target: &Target, clients: usize) -> Result<Self> {
        let dialer = Dialer::new(target, clients, false)?;
        let board = Arc::new(Board::new(target.driver, clients)?);
        let peers: Vec<_> = stream::iter(0..clients)
            .map(|client| dialer.dial(client))
            .buffer_unordered(DIALING)
            .try_collect()
            .await
            .with_context(|| format!("not all of {clients} clients could connect"))?;
        let mut tasks = JoinSet::new();
        for (me, mut peer) in peers.into_iter().enumerate() {
            let board = Arc::clone(&board);
            tasks.spawn(async move {
                if let Err(error) = std::future::poll_fn(|cx| peer.poll_live(cx, me, &board)).await {
                    board.failed(format!("client {me}: {error:#}"));
                }
            });
        }
        Ok(Self { board, tasks, dialer })
    }

    /// Carries one load to its end, or until nothing arrives any more. `watch` is told the deliveries so far.
    pub(crate) async fn carry(&self, plan: Plan, mut watch: impl FnMut(u64)) -> Outcome {
        self.board.lock().start(plan);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut progress = (0, Instant::now());
        loop {
            tokio::select! {
                () = self.board.news.notified() => {}
                _ = tick.tick() => {}
            }
            let mut round = self.board.lock();
            if round.received() != progress.0 {
                progress = (round.received(), Instant::now());
            }
            if round.is_over() || round.has_failed() || progress.1.elapsed() > STALLED {
                return round.outcome();
            }
            watch(round.received());
        }
    }

    /// Disconnects all, and returns when the server has been told.
    pub(crate) async fn disperse(mut self) {
        self.tasks.shutdown().await;
        self.dialer.close().await;
    }
}
