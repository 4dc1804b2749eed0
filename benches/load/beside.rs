//! Small messages on a schedule next to bulk: do they arrive in time while large ones are in flight?
//!
//! One client sends both and gets both back: from bare Quinn and WebSocket as echoes, from this project's server as
//! messages of topics that it publishes to and has subscribed to. So each crosses the path there and back. The time of
//! a small message starts at the moment it was due, which includes waiting to be sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dial::Dialer;
use super::frame::{Framing, Inbox};
use super::message::{Encoding, Mode, Shape, Stamp};
use super::peer::{Pipe, understand};
use super::template::{Ends, Template};
use super::topics::Lane;
use super::{Driver, Target};

/// The flows, by the number of their sender and topic.
pub(crate) const SMALL: usize = 0;
const BULK: usize = 1;

const SMALL_BYTES: usize = 64;
const SMALL_EVERY: Duration = Duration::from_millis(10);
const BULK_BYTES: usize = 64 << 10;
/// Bulk that may be in flight at once, in milliseconds of its rate; at this amount none is added. Otherwise the result
/// for a path slower than the bulk would depend on the duration of the measurement.
const MAX_BULK_MS: u64 = 500;
/// Messages missing this long after the last arrival are lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the two flows share a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// On one stream, one WebSocket, or the control lane.
    Together,
    /// On two streams, two WebSockets, or two request lanes and two topic lanes.
    Apart,
    /// On two WebSockets of one session: the second one has the bulk.
    Attached,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixture {
    pub(crate) arrangement: Arrangement,
    /// Bytes per second.
    pub(crate) bulk: u64,
    /// Not counted.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl Mixture {
    /// In messages.
    const fn max_bulk(&self) -> u64 {
        (self.bulk * MAX_BULK_MS / 1000).div_ceil(BULK_BYTES as u64)
    }
}

/// Result of a run.
#[derive(Debug)]
pub(crate) struct FlowOutcome {
    /// Nanoseconds from when a small message was due until it was returned.
    pub(crate) latency: Histogram<u64>,
    /// Bytes per second that were returned.
    pub(crate) bulk: f64,
    /// Small messages that were never returned.
    pub(crate) missing: u64,
}

/// Runs the mixture once, with its own client.
pub(crate) async fn run(target: &Target, mixture: Mixture) -> Result<FlowOutcome> {
    let dialer = Dialer::new(target, 2, false)?;
    let mut reading = JoinSet::new();
    let streams = open(target.driver, mixture.arrangement, &dialer).await?;
    let ledger = Arc::new(Mutex::new(Ledger::new(target.driver, mixture)?));
    let (started, mut due) = schedule(mixture, streams.out.len());
    Ledger::lock(&ledger).started = started;
    for (from, inbox) in streams.back {
        reading.spawn(read(from, inbox, Arc::clone(&ledger)));
    }
    if let Some(connection) = streams.topic_lanes {
        let ledger = Arc::clone(&ledger);
        reading.spawn(async move {
            let mut lanes = JoinSet::new();
            loop {
                tokio::select! {
                    lane = connection.accept_uni() => {
                        lanes.spawn(read(lane?, Inbox::new(Framing::Length), Arc::clone(&ledger)));
                    }
                    Some(ended) = lanes.join_next() => ended??,
                }
            }
        });
    }
    let mut sending = JoinSet::new();
    for to in streams.out {
        let due = due.remove(0);
        sending.spawn(write(target.driver, to, due, Arc::clone(&ledger)));
    }
    loop {
        tokio::select! {
            Some(sent) = sending.join_next() => sent??,
            Some(ended) = reading.join_next() => ended??,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        let ledger = Ledger::lock(&ledger);
        if sending.is_empty() && (ledger.missing() == 0 || ledger.last.elapsed() > PATIENCE) {
            break;
        }
    }
    reading.shutdown().await;
    dialer.close().await;
    let ledger = Ledger::lock(&ledger);
    let bulk = ledger.bulk_bytes as f64 / mixture.measured.as_secs_f64();
    Ok(FlowOutcome { latency: ledger.latency.clone(), bulk, missing: ledger.missing() })
}

/// The streams of a client: one for all outgoing flows or one for each, and those on which they return.
struct FlowStreams {
    out: Vec<WriteHalf<Box<dyn Pipe>>>,
    back: Vec<(ReadHalf<Box<dyn Pipe>>, Inbox)>,
    topic_lanes: Option<quinn::Connection>,
}

async fn open(driver: Driver, arrangement: Arrangement, dialer: &Dialer) -> Result<FlowStreams> {
    let is_apart = arrangement == Arrangement::Apart;
    let mut first = dialer.dial(0).await?;
    if arrangement == Arrangement::Attached {
        let second = dialer.attach(1, first.session()).await?;
        first.subscribe(std::iter::once(SMALL), Lane::Own).await?;
        first.subscribe(std::iter::once(BULK), Lane::Bulk).await?;
        let mut streams = FlowStreams { out: Vec::new(), back: Vec::new(), topic_lanes: None };
        for peer in [first, second] {
            let (pipe, inbox) = peer.into_parts();
            let (back, out) = tokio::io::split(pipe);
            streams.out.push(out);
            streams.back.push((back, inbox));
        }
        return Ok(streams);
    }
    let connection = first.connection();
    if driver.is_ours() {
        let lane = if is_apart { Lane::Own } else { Lane::Control };
        // With two WebSockets the second gets the small messages.
        let own = if is_apart && connection.is_none() { BULK..=BULK } else { SMALL..=BULK };
        first.subscribe(own, lane).await?;
    }
    let mut pipes = vec![first.into_parts()];
    if is_apart {
        match &connection {
            None => {
                let mut second = dialer.dial(1).await?;
                if driver.is_ours() {
                    second.subscribe(std::iter::once(SMALL), Lane::Control).await?;
                }
                pipes.insert(SMALL, second.into_parts());
            }
            Some(connection) => {
                let (send, recv) = connection.open_bi().await?;
                // As on the servers: small messages first.
                send.set_priority(1)?;
                let small: Box<dyn Pipe> = Box::new(tokio::io::join(recv, send));
                pipes.insert(SMALL, (small, Inbox::new(Framing::Length)));
            }
        }
    }
    let mut streams = FlowStreams { out: Vec::new(), back: Vec::new(), topic_lanes: None };
    streams.topic_lanes = connection.filter(|_| driver == Driver::Qws);
    for (pipe, inbox) in pipes {
        let (back, out) = tokio::io::split(pipe);
        streams.out.push(out);
        streams.back.push((back, inbox));
    }
    Ok(streams)
}

/// One message that is due now.
struct Due {
    flow: usize,
    number: u64,
}

/// Starts a clock that reports when each message is due, in one sequence or one per flow. It is a thread, because its
/// sleep is accurate to a tenth of a millisecond; it ends with the schedule.
fn schedule(mixture: Mixture, sequences: usize) -> (Instant, Vec<mpsc::Receiver<Due>>) {
    let every = [SMALL_EVERY, Duration::from_secs_f64(BULK_BYTES as f64 / mixture.bulk as f64)];
    let length = mixture.warm_up + mixture.measured;
    let count = every.map(|every| u64::try_from(length.as_nanos() / every.as_nanos()).unwrap_or(0));
    // Nothing here ever blocks, however long the senders are blocked.
    let room = usize::try_from(count.iter().sum::<u64>()).unwrap_or(0) + 1;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..sequences).map(|_| mpsc::channel(room)).unzip();
    let started = Instant::now();
    std::thread::spawn(move || {
        let mut next = [0, 0];
        let at = |flow: usize, number: u64| every[flow].mul_f64(number as f64);
        while next != count {
            let is_small = next[BULK] == count[BULK]
                || (next[SMALL] < count[SMALL] && at(SMALL, next[SMALL]) <= at(BULK, next[BULK]));
            let flow = if is_small { SMALL } else { BULK };
            let number = next[flow];
            next[flow] += 1;
            std::thread::sleep((started + at(flow, number)).saturating_duration_since(Instant::now()));
            if senders[flow.min(sequences - 1)].try_send(Due { flow, number }).is_err() {
                return;
            }
        }
    });
    (started, receivers)
}

async fn write(
    driver: Driver,
    mut to: impl AsyncWrite + Unpin,
    mut due: mpsc::Receiver<Due>,
    ledger: Arc<Mutex<Ledger>>,
) -> Result<()> {
    let template = |flow| Template::new(shape(driver, flow), u16::from(flow == BULK), 0, Ends::default());
    let mut templates = [SMALL, BULK].map(template);
    let mut frame = Vec::new();
    while let Some(Due { flow, number }) = due.recv().await {
        if !Ledger::lock(&ledger).may_send(flow) {
            continue;
        }
        frame.clear();
        templates[flow].append(number, flow, &mut frame);
        to.write_all(&frame).await?;
        to.flush().await?;
    }
    Ok(())
}

async fn read(mut from: impl AsyncRead + Unpin, mut inbox: Inbox, ledger: Arc<Mutex<Ledger>>) -> Result<()> {
    loop {
        let now = Instant::now();
        while let Some(body) = inbox.next()? {
            Ledger::lock(&ledger).take(body, now)?;
        }
        let count = from.read(inbox.spare()).await.context("the connection broke")?;
        ensure!(count > 0, "the server ended a stream");
        inbox.filled(count);
    }
}

fn shape(driver: Driver, flow: usize) -> Shape {
    let mode = if driver.is_ours() { Mode::Topic } else { Mode::Echo };
    match flow {
        SMALL => Shape { driver, mode, encoding: Encoding::Text, size: SMALL_BYTES },
        _ => Shape { driver, mode, encoding: Encoding::Binary, size: BULK_BYTES },
    }
}

/// Messages sent, and messages returned.
struct Ledger {
    driver: Driver,
    mixture: Mixture,
    started: Instant,
    last: Instant,
    hint: usize,
    sent: [u64; 2],
    back: [u64; 2],
    latency: Histogram<u64>,
    /// Within the measured time.
    bulk_bytes: u64,
}

impl Ledger {
    fn new(driver: Driver, mixture: Mixture) -> Result<Self> {
        let (now, latency) = (Instant::now(), Histogram::new_with_bounds(1, 600_000_000_000, 3)?);
        let (sent, back) = ([0; 2], [0; 2]);
        Ok(Self { driver, mixture, started: now, last: now, hint: 0, sent, back, latency, bulk_bytes: 0 })
    }

    fn lock(ledger: &Mutex<Self>) -> MutexGuard<'_, Self> {
        ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_send(&mut self, flow: usize) -> bool {
        let may = flow == SMALL || self.sent[flow] - self.back[flow] < self.mixture.max_bulk();
        self.sent[flow] += u64::from(may);
        may
    }

    const fn missing(&self) -> u64 {
        self.sent[SMALL] - self.back[SMALL]
    }

    fn take(&mut self, body: &[u8], now: Instant) -> Result<()> {
        let flow = if body.len() >= BULK_BYTES { BULK } else { SMALL };
        let Some(payload) = shape(self.driver, flow).find(body, &mut self.hint) else {
            return understand(self.driver, body).map(drop);
        };
        let Some(stamp) = Stamp::read(payload).filter(|stamp| usize::from(stamp.sender) == flow) else {
            bail!("a message that was never sent");
        };
        self.back[flow] += 1;
        self.last = now;
        let (begin, end) = (self.mixture.warm_up, self.mixture.warm_up + self.mixture.measured);
        if flow == BULK {
            self.bulk_bytes += if (begin..end).contains(&(now - self.started)) { payload.len() as u64 } else { 0 };
            return Ok(());
        }
        let due = SMALL_EVERY.mul_f64(stamp.number as f64);
        if due >= begin {
            let took = now.saturating_duration_since(self.started + due);
            self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
