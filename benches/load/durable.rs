//! Publishers that wait until their messages are stored, and a subscriber that replays them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::dial::Dialer;
use super::frame::{Framing, Inbox};
use super::message::write_decimal;
use super::peer::{Peer, Pipe, understand};
use super::topics::DIGITS;
use super::{Driver, Target, nats, redis};

/// How long the replay of one message may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's kind, and how it is reached: all but the first without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Quic,
    WebSocket,
    JetStream,
    Redis,
}

impl Kind {
    const fn framing(self) -> Framing {
        match self {
            Self::Quic => Framing::Length,
            Self::WebSocket => Framing::WebSocket,
            Self::JetStream => Framing::Nats,
            Self::Redis => Framing::Redis,
        }
    }
}

/// A load: to how many topics, how much is in flight on each connection, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    /// First level of the topics' names, which selects the rule.
    pub(crate) level: &'a str,
    pub(crate) topics: usize,
    /// All of them, one after the other, instead of one at random each time.
    pub(crate) in_turn: bool,
    pub(crate) window: usize,
    pub(crate) size: usize,
    pub(crate) limit: super::Limit,
}

/// Result of a load.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) count: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the publish until its confirmation.
    pub(crate) latency: Histogram<u64>,
}

impl Stored {
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// In microseconds.
    pub(crate) fn percentile(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1e3
    }
}

/// Connected publishers.
pub(crate) struct Publishers {
    publishers: Vec<Publisher>,
    /// The sockets of the connections over QUIC.
    _dialer: Option<Dialer>,
}

struct Publisher {
    kind: Kind,
    number: usize,
    pipe: Box<dyn Pipe>,
    inbox: Inbox,
    /// Keeps the connection open.
    _connection: Option<quinn::Connection>,
}

impl Publishers {
    /// Connects to a server. `target` is for QUIC, `plain` the address without TLS of all others.
    pub(crate) async fn connect(kind: Kind, target: &Target, plain: SocketAddr, count: usize) -> Result<Self> {
        let dialer = (kind == Kind::Quic).then(|| Dialer::new(target, count, false)).transpose()?;
        let mut publishers = Vec::new();
        for number in 0..count {
            let peer = match (&dialer, kind) {
                (Some(dialer), _) => dialer.dial(number).await?,
                (None, kind) => {
                    let stream = TcpStream::connect(plain).await?;
                    stream.set_nodelay(true)?;
                    let driver = if kind == Kind::JetStream { Driver::Nats } else { Driver::QwsWss };
                    let mut peer = Peer::new(driver, Box::new(stream), None);
                    if kind != Kind::Redis {
                        peer.greet(number).await?;
                    }
                    peer
                }
            };
            let connection = peer.connection();
            let (pipe, inbox) = peer.into_parts();
            let inbox = if kind == Kind::Redis { Inbox::new(kind.framing()) } else { inbox };
            publishers.push(Publisher { kind, number, pipe, inbox, _connection: connection });
        }
        Ok(Self { publishers, _dialer: dialer })
    }

    /// Runs a load on all of them.
    pub(crate) async fn run(&mut self, load: Load<'_>) -> Result<Stored> {
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        let count = self.publishers.len();
        for mut publisher in std::mem::take(&mut self.publishers) {
            let number = publisher.number;
            let template = Template::new(publisher.kind, load.level, load.size, number);
            let Load { topics, in_turn, window, limit, .. } = load;
            tasks.spawn(async move {
                let mut pace = Pace { started, limit, window, topics, next: in_turn.then_some((number, count)) };
                let latency = publisher.publish(template, &mut pace).await?;
                anyhow::Ok((publisher, latency))
            });
        }
        let mut latency = histogram()?;
        while let Some(joined) = tasks.join_next().await {
            let (publisher, other) = joined??;
            self.publishers.push(publisher);
            latency.add(other)?;
        }
        Ok(Stored { count: latency.len(), elapsed: started.elapsed(), latency })
    }

    /// Makes the stream of JetStream that takes all topics.
    pub(crate) async fn make_stream(&mut self) -> Result<()> {
        let publisher = self.publishers.first_mut().context("no connection")?;
        let config = json!({
            "name": "load", "subjects": ["load.*"], "storage": "file", "num_replicas": 1, "retention": "limits",
            "discard": "old", "max_msgs": -1, "max_bytes": -1, "max_age": 0,
        });
        let subscribe = nats::subscribe(std::iter::once("_INBOX.>".to_owned()));
        let create = nats::publish("$JS.API.STREAM.CREATE.load", Some("_INBOX.0"), config.to_string().as_bytes());
        publisher.pipe.write_all(&[subscribe, create].concat()).await?;
        loop {
            let body = publisher.next().await?;
            let Some(payload) = nats::payload(&body) else { continue };
            let answer: Value = serde_json::from_slice(payload)?;
            ensure!(answer["error"].is_null(), "JetStream does not make the stream: {answer}");
            break;
        }
        Ok(())
    }

    /// Makes each connection to JetStream receive its own confirmations.
    pub(crate) async fn listen(&mut self) -> Result<()> {
        for publisher in &mut self.publishers {
            let inbox = nats::inbox(&nats::address(publisher.number));
            publisher.pipe.write_all(&nats::subscribe(std::iter::once(format!("{inbox}*")))).await?;
            while publisher.next().await? != nats::PONG {}
        }
        Ok(())
    }

    /// Replays a topic from its first message, and returns the time until this many have arrived.
    pub(crate) async fn replay(&mut self, topic: &str, count: u64) -> Result<Duration> {
        let publisher = self.publishers.first_mut().context("no connection")?;
        let history = json!({ "type": "history", "id": "h", "topic": topic, "limit": 1, "reverse": true });
        publisher.send(&history).await?;
        let page = loop {
            let body: Value = serde_json::from_slice(&publisher.next().await?)?;
            if body["type"] == "history" {
                break body;
            }
        };
        let since =
            json!({ "epoch": page["epoch"], "offset": page["offset"].as_u64().unwrap_or(0).saturating_sub(count) });
        let subscribe = json!({ "type": "subscribe", "topic": topic, "since": since, "lane": "control" });
        let started = Instant::now();
        publisher.send(&subscribe).await?;
        let mut arrived = 0;
        loop {
            while let Some(body) = publisher.inbox.next()? {
                if body.starts_with(br#"{"type":"message""#) {
                    arrived += 1;
                } else if body.starts_with(br#"{"type":"gap""#) || body.starts_with(br#"{"type":"error""#) {
                    bail!("the server sent {}", String::from_utf8_lossy(body));
                }
            }
            if arrived >= count {
                break;
            }
            tokio::time::timeout(PATIENCE, publisher.receive()).await.with_context(|| format!("{arrived} came"))??;
        }
        let elapsed = started.elapsed();
        publisher.send(&json!({ "type": "unsubscribe", "id": "u", "topic": topic })).await?;
        while !publisher.next().await?.starts_with(br#"{"type":"ok""#) {}
        Ok(elapsed)
    }
}

/// When a publisher sends, and to which topic.
struct Pace {
    started: Instant,
    limit: super::Limit,
    window: usize,
    topics: usize,
    /// If they get their messages in turn: the next one, and how many publishers there are.
    next: Option<(usize, usize)>,
}

impl Pace {
    fn is_over(&self, sent: u64, now: Instant) -> bool {
        match self.limit {
            super::Limit::Messages(count) => sent >= count,
            super::Limit::Time(time) => now - self.started >= time,
        }
    }

    fn topic(&mut self) -> usize {
        let Some((next, step)) = &mut self.next else { return fastrand::usize(..self.topics) };
        *next += *step;
        (*next - *step) % self.topics
    }
}

impl Publisher {
    async fn publish(&mut self, mut template: Template, pace: &mut Pace) -> Result<Histogram<u64>> {
        let mut latency = histogram()?;
        let (mut waiting, mut out, mut sent) = (VecDeque::with_capacity(pace.window), Vec::new(), 0);
        loop {
            let now = Instant::now();
            while waiting.len() < pace.window && !pace.is_over(sent, now) {
                template.append(pace.topic(), &mut out);
                waiting.push_back(now);
                sent += 1;
            }
            if waiting.is_empty() {
                return Ok(latency);
            }
            if !out.is_empty() {
                self.pipe.write_all(&out).await?;
                self.pipe.flush().await?;
                out.clear();
            }
            self.receive().await?;
            let now = Instant::now();
            while let Some(body) = self.inbox.next()? {
                if is_stored(self.kind, body)? {
                    let begun = waiting.pop_front().context("a confirmation of nothing")?;
                    latency.saturating_record(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
                } else if let Some(pong) = pong(self.kind, body)? {
                    out.extend(pong);
                }
            }
        }
    }

    async fn send(&mut self, json: &Value) -> Result<()> {
        let mut frame = Vec::new();
        self.kind.framing().encode(json.to_string().as_bytes(), true, &mut frame);
        self.pipe.write_all(&frame).await?;
        Ok(self.pipe.flush().await?)
    }

    async fn receive(&mut self) -> Result<()> {
        let count = self.pipe.read(self.inbox.spare()).await?;
        ensure!(count > 0, "the server ended the connection");
        self.inbox.filled(count);
        Ok(())
    }

    async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(body) = self.inbox.next()? {
                return Ok(body.to_vec());
            }
            self.receive().await?;
        }
    }
}

/// Whether a body confirms the oldest publish in flight. Every other reply to a publish is an error.
fn is_stored(kind: Kind, body: &[u8]) -> Result<bool> {
    Ok(match kind {
        Kind::Quic | Kind::WebSocket => body.starts_with(br#"{"type":"published""#),
        Kind::JetStream => match nats::payload(body) {
            Some(payload) => {
                let is_stored = payload.starts_with(br#"{"stream""#);
                ensure!(is_stored, "JetStream answers {}", String::from_utf8_lossy(payload));
                true
            }
            None => false,
        },
        Kind::Redis => {
            ensure!(body.starts_with(b"$"), "Redis answers {}", String::from_utf8_lossy(body));
            true
        }
    })
}

/// The answer to a sign of life that a server asks for.
fn pong(kind: Kind, body: &[u8]) -> Result<Option<Vec<u8>>> {
    let driver = if kind == Kind::JetStream { Driver::Nats } else { Driver::Qws };
    let super::peer::Notice::Pong(pong) = understand(driver, body)? else { return Ok(None) };
    let mut frame = Vec::new();
    kind.framing().encode(&pong, true, &mut frame);
    Ok(Some(frame))
}

/// A publish, complete except for the number of its topic.
struct Template {
    frame: Vec<u8>,
    topic: usize,
}

impl Template {
    fn new(kind: Kind, level: &str, size: usize, publisher: usize) -> Self {
        let content = "x".repeat(size);
        let prefix = match kind {
            Kind::Quic | Kind::WebSocket => format!("{level}."),
            Kind::JetStream | Kind::Redis => "load.".to_owned(),
        };
        let name = format!("{prefix}{:0DIGITS$}", 0);
        let mut frame = Vec::new();
        match kind {
            Kind::Quic | Kind::WebSocket => {
                let body = json!({ "type": "publish", "id": "1", "topic": name, "content": content }).to_string();
                kind.framing().encode(body.as_bytes(), true, &mut frame);
            }
            Kind::JetStream => {
                let reply = nats::reply_to(&nats::address(publisher));
                frame = nats::publish(&name, Some(&reply), content.as_bytes());
            }
            Kind::Redis => frame = redis::add(&name, content.as_bytes()),
        }
        let found = frame.windows(name.len()).position(|window| window == name.as_bytes());
        Self { topic: found.unwrap_or_default() + prefix.len(), frame }
    }

    fn append(&mut self, topic: usize, out: &mut Vec<u8>) {
        write_decimal(&mut self.frame[self.topic..self.topic + DIGITS], topic);
        out.extend_from_slice(&self.frame);
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000_000, 3)?)
}
