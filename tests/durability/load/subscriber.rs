//! A subscriber that resumes behind what it saw last, over any number of connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Body, Connection, Dialer};
use super::content;
use super::history::History;

/// Pause before another attempt to connect.
const AGAIN: Duration = Duration::from_millis(20);
/// After this long without a message, once nothing is published, all has arrived.
const SILENCE: Duration = Duration::from_millis(700);

/// Where a subscription stands: its log, once `subscribed` has named it, and the last offset that was seen.
#[derive(Default)]
struct Place {
    epoch: Option<Value>,
    offset: Option<u64>,
}

/// Follows the topics until nothing more comes after `quiet`.
pub(crate) async fn run(
    dialer: Dialer,
    name: String,
    topics: Vec<Arc<str>>,
    history: Arc<History>,
    quiet: CancellationToken,
) {
    let mut positions = HashMap::new();
    let mut session = 0_u64;
    loop {
        let Ok(mut connection) = dialer.connect(&name).await else {
            if quiet.is_cancelled() {
                return;
            }
            sleep(AGAIN).await;
            continue;
        };
        session += 1;
        let mut run = Session { name: &name, number: session, history: &history, places: HashMap::new() };
        let is_over = run.follow(&mut connection, &topics, &positions, &quiet).await;
        for (topic, place) in run.places {
            // Without the epoch the offsets say nothing; what was seen comes again.
            if let (Some(epoch), Some(offset)) = (place.epoch, place.offset) {
                positions.insert(topic, json!({ "epoch": epoch, "offset": offset }));
            }
        }
        history.record(json!({ "do": "left", "by": name, "session": session, "drained": is_over }));
        if is_over {
            return connection.close().await;
        }
    }
}

struct Session<'a> {
    name: &'a str,
    number: u64,
    history: &'a History,
    places: HashMap<String, Place>,
}

impl Session<'_> {
    /// Subscribes and notes what comes; returns whether all has come.
    async fn follow(
        &mut self,
        connection: &mut Connection,
        topics: &[Arc<str>],
        positions: &HashMap<String, Value>,
        quiet: &CancellationToken,
    ) -> bool {
        for topic in topics {
            let mut subscribe = json!({ "type": "subscribe", "id": topic, "topic": topic });
            // Now and then it begins without a position.
            if let Some(position) = positions.get(&**topic).filter(|_| fastrand::u8(..8) > 0) {
                subscribe["since"] = position.clone();
            }
            if fastrand::bool() {
                subscribe["lane"] = "control".into();
            }
            let event = json!({
                "do": "subscribe", "by": self.name, "session": self.number, "topic": topic,
                "since": subscribe["since"],
            });
            self.history.record(event);
            if connection.send(&subscribe, None).await.is_err() {
                return false;
            }
        }
        let mut leaves = Box::pin(sleep(Duration::from_millis(fastrand::u64(1000..10_000))));
        loop {
            let is_quiet = quiet.is_cancelled();
            let received = tokio::select! {
                received = timeout(SILENCE, connection.receive()) => received,
                () = &mut leaves, if !is_quiet => return false,
                () = quiet.cancelled(), if !is_quiet => continue,
            };
            match received {
                Ok(Some(body)) => {
                    if !connection.answer(&body).await {
                        self.take(&body);
                    }
                }
                Ok(None) => return false,
                Err(_) if is_quiet => return true,
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, body: &Body) {
        let json = &body.json;
        let topic = json["topic"].as_str().unwrap_or_default();
        let mut event = json!({ "do": json["type"], "by": self.name, "session": self.number, "topic": topic });
        let fields: &[&str] = match json["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                let place = self.places.entry(topic.to_owned()).or_default();
                place.epoch = Some(json["epoch"].clone());
                if place.offset.is_none() && json["recovered"] != false {
                    place.offset = json["offset"].as_u64().filter(|_| json["recovered"].is_null());
                }
                &["epoch", "offset", "recovered", "reason"]
            }
            "message" => {
                self.places.entry(topic.to_owned()).or_default().offset = json["offset"].as_u64();
                event["label"] = content::read(&json["content"], body.attachment.as_deref()).into();
                &["offset"]
            }
            "gap" => {
                self.places.entry(topic.to_owned()).or_default().offset = json["last"].as_u64();
                &["first", "last", "reason"]
            }
            "error" | "unsubscribed" | "close" => &["code", "message", "reason", "re"],
            _ => return,
        };
        for field in fields {
            event[*field] = json[*field].clone();
        }
        self.history.record(event);
    }
}
