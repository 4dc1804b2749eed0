//! A number of connected clients, one task each, and the loads they run in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;

use super::board::{Board, Outcome, Plan};
use super::dial::Dialer;
use super::peer::{Peer, live_on_lane};
use super::{Driver, Interest, Lane, Target};

/// Connections established at the same time.
const DIALING: usize = 16;
/// After this long without an arrival, the missing messages of a load are lost.
const STALLED: Duration = Duration::from_secs(8);

/// Bytes that QUIC accepts for a subscriber that never reads, before messages queue at the server.
const STALLED_WINDOW: u32 = 16 * 1024;

pub(crate) struct Crowd {
    board: Arc<Board>,
    /// Aborts every client on drop.
    tasks: JoinSet<()>,
    dialer: Dialer,
    /// Subscribers that never read, and their dialer.
    stalled: Vec<Peer>,
    narrow: Option<Dialer>,
}

impl Crowd {
    /// Connects this many clients, which then subscribe as far as their protocol requires it.
    pub(crate) async fn connect(target: &Target, clients: usize, interest: Interest) -> Result<Self> {
        let dialer = Dialer::new(target, clients, false)?;
        let peers: Vec<_> = stream::iter(0..clients)
            .map(|client| dialer.dial(client))
            .buffer_unordered(DIALING)
            .try_collect()
            .await
            .with_context(|| format!("not all of {clients} clients could connect"))?;
        let addresses = peers.iter().map(|peer| peer.address().to_owned()).collect();
        let board = Arc::new(Board::new(target.driver, addresses)?);
        let mut tasks = JoinSet::new();
        for (me, mut peer) in peers.into_iter().enumerate() {
            peer.prepare(interest, me, clients).await.context("a client could not subscribe")?;
            if let (Interest::Topics(_), Some(connection), Driver::Qws) = (interest, peer.connection(), target.driver) {
                tasks.spawn(live_on_lanes(connection, me, Arc::clone(&board)));
            }
            let board = Arc::clone(&board);
            tasks.spawn(async move {
                if let Err(error) = std::future::poll_fn(|cx| peer.poll_live(cx, me, &board)).await {
                    board.failed(format!("client {me}: {error:#}"));
                }
            });
        }
        Ok(Self { board, tasks, dialer, stalled: Vec::new(), narrow: None })
    }

    /// Adds subscribers of the first topic that let QUIC fill their windows and never read.
    pub(crate) async fn add_stalled(&mut self, count: usize) -> Result<()> {
        // Without any, their dialer would only be another socket.
        if count == 0 {
            return Ok(());
        }
        // It must outlive its connections.
        let dialer = self.narrow.insert(self.dialer.narrow(STALLED_WINDOW)?);
        for client in 0..count {
            let mut peer = dialer.dial(client).await?;
            peer.subscribe(std::iter::once(0), Lane::Own).await.context("a stalled client could not subscribe")?;
            self.stalled.push(peer);
        }
        Ok(())
    }

    /// Number of stalled subscribers that the server has not disconnected.
    pub(crate) fn stalled(&self) -> usize {
        let connections = self.stalled.iter().filter_map(Peer::connection);
        connections.filter(|connection| connection.close_reason().is_none()).count()
    }

    /// Runs one load to its end, or until nothing arrives any longer. `watch` gets the deliveries so far.
    pub(crate) async fn carry(&self, plan: Plan, mut watch: impl FnMut(u64)) -> Outcome {
        self.board.lock().start(plan);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut progress = (0, Instant::now());
        loop {
            tokio::select! {
                () = self.board.changed.notified() => {}
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

    /// Disconnects all clients, and returns when the server has been notified.
    pub(crate) async fn disconnect(mut self) {
        self.tasks.shutdown().await;
        self.dialer.close().await;
    }
}

/// Reads every topic lane that the server opens, each in its own task, so that none is polled in vain.
async fn live_on_lanes(connection: quinn::Connection, me: usize, board: Arc<Board>) {
    let mut lanes = JoinSet::new();
    loop {
        let outcome = tokio::select! {
            lane = connection.accept_uni() => match lane {
                Ok(lane) => {
                    let board = Arc::clone(&board);
                    lanes.spawn(async move { live_on_lane(lane, me, &board).await });
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Some(Ok(Err(error))) = lanes.join_next() => format!("{error:#}"),
        };
        return board.failed(format!("client {me}, topic lanes: {outcome}"));
    }
}
