//! A publisher: several publishes in flight, half of them with keys, which are repeated until their fate is known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Dialer};
use super::content;
use super::history::History;

/// How long the replies to the last publishes may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a publish that was refused is repeated, and before another attempt to connect.
const AGAIN: Duration = Duration::from_millis(20);

pub(crate) struct Shape {
    pub(crate) window: usize,
    pub(crate) pause_ms: u64,
    pub(crate) largest: usize,
}

/// A publish whose fate is not known.
#[derive(Clone)]
struct Sent {
    label: String,
    topic: Arc<str>,
    has_key: bool,
    size: usize,
    is_attached: bool,
}

impl Sent {
    fn new(name: &str, number: u64, topics: &[Arc<str>], shape: &Shape) -> Self {
        let topic = Arc::clone(&topics[fastrand::usize(..topics.len())]);
        let size = fastrand::usize(..=[30, 100, 300, shape.largest][fastrand::usize(..4)]);
        Self {
            label: format!("{name}.{number}"),
            topic,
            has_key: fastrand::bool(),
            size,
            is_attached: number.is_multiple_of(7),
        }
    }

    async fn send(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let (content, attachment) = content::make(&self.label, self.size, self.is_attached);
        let mut publish = json!({ "type": "publish", "id": self.label, "topic": self.topic, "content": content });
        if self.has_key {
            publish["key"] = self.label.as_str().into();
        }
        connection.send(&publish, attachment.as_deref()).await
    }
}

/// Publishes until it is stopped.
pub(crate) async fn run(
    dialer: Dialer,
    name: String,
    topics: Vec<Arc<str>>,
    shape: Shape,
    history: Arc<History>,
    stop: CancellationToken,
) {
    let (waiting, again) = (VecDeque::new(), VecDeque::new());
    let mut publisher = Publisher { name, topics, shape, history, number: 0, session: 0, waiting, again };
    while !stop.is_cancelled() {
        let Ok(mut connection) = dialer.connect(&publisher.name).await else {
            sleep(AGAIN).await;
            continue;
        };
        publisher.session += 1;
        let is_stopped = publisher.session(&mut connection, &stop).await;
        if is_stopped {
            // What is in flight gets its reply, unless the server has gone.
            timeout(PATIENCE, publisher.settle(&mut connection)).await.ok();
        }
        publisher.lost();
        if is_stopped {
            connection.close().await;
        }
    }
}

struct Publisher {
    name: String,
    topics: Vec<Arc<str>>,
    shape: Shape,
    history: Arc<History>,
    number: u64,
    session: u64,
    waiting: VecDeque<Sent>,
    /// Publishes with keys to repeat.
    again: VecDeque<Sent>,
}

impl Publisher {
    /// Publishes and takes replies until the connection ends, or until it is to stop, which it returns.
    async fn session(&mut self, connection: &mut Connection, stop: &CancellationToken) -> bool {
        let window = fastrand::usize(1..=self.shape.window);
        let mut next = Instant::now();
        loop {
            // Receiving is cancel safe; sending is outside.
            let reply = tokio::select! {
                biased;
                reply = connection.receive() => Some(reply),
                () = stop.cancelled() => return true,
                () = sleep_until(next), if self.waiting.len() < window => None,
            };
            match reply {
                Some(None) => return false,
                Some(Some(reply)) => {
                    if !connection.answer(&reply).await && self.take(&reply.json) {
                        next = Instant::now() + AGAIN;
                    }
                }
                None => {
                    let sent = self.again.pop_front().unwrap_or_else(|| {
                        self.number += 1;
                        Sent::new(&self.name, self.number, &self.topics, &self.shape)
                    });
                    self.history.record(json!({
                        "do": "publish", "by": self.name, "session": self.session, "topic": sent.topic,
                        "label": sent.label, "key": sent.has_key,
                    }));
                    let outcome = sent.send(connection).await;
                    self.waiting.push_back(sent);
                    if outcome.is_err() {
                        return false;
                    }
                    if fastrand::u8(..4) == 0 {
                        next = Instant::now() + Duration::from_millis(fastrand::u64(..=self.shape.pause_ms));
                    }
                }
            }
        }
    }

    async fn settle(&mut self, connection: &mut Connection) {
        while !self.waiting.is_empty() {
            let Some(reply) = connection.receive().await else { return };
            if !connection.answer(&reply).await {
                self.take(&reply.json);
            }
        }
    }

    /// Notes a reply; returns whether the server refused a publish for now.
    fn take(&mut self, reply: &Value) -> bool {
        let Some(place) = self.waiting.iter().position(|sent| reply["re"] == *sent.label) else { return false };
        let Some(sent) = self.waiting.remove(place) else { return false };
        let mut event = json!({ "by": self.name, "session": self.session, "topic": sent.topic, "label": sent.label });
        let is_refused = reply["type"] != "published";
        if is_refused {
            event["do"] = "refused".into();
            event["code"] = reply["code"].clone();
            event["message"] = reply["message"].clone();
            if sent.has_key && reply["code"] == 503 {
                self.again.push_back(sent);
            }
        } else {
            event["do"] = "ok".into();
            for field in ["epoch", "offset", "stored", "duplicate"] {
                event[field] = reply[field].clone();
            }
        }
        self.history.record(event);
        is_refused
    }

    /// The connection ended: what became of these is unknown.
    fn lost(&mut self) {
        for sent in self.waiting.drain(..) {
            self.history.record(json!({
                "do": "unknown", "by": self.name, "session": self.session, "topic": sent.topic, "label": sent.label,
            }));
            if sent.has_key {
                self.again.push_back(sent);
            }
        }
    }
}
