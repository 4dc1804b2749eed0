//! Members of durable consumers: they acknowledge most of what they get, and send the rest back in each possible way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Body, Connection, Dialer};
use super::content;
use super::history::History;

/// The shortest that the protocol allows.
pub(crate) const ACK_WAIT: Duration = Duration::from_millis(1000);
pub(crate) const MAX_IN_FLIGHT: u64 = 20;
/// Pause before another attempt to connect.
const AGAIN: Duration = Duration::from_millis(20);
/// After this long without a message, once nothing is published, all has been acknowledged.
const SILENCE: Duration = Duration::from_millis(2500);

/// A member: of which consumer, on which topic.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) topic: Arc<str>,
    pub(crate) durable: &'static str,
    pub(crate) is_shared: bool,
    pub(crate) is_upto: bool,
}

/// For each topic one consumer with a client of its own for each kind of acknowledgement, and one that three share.
pub(crate) fn members(prefix: &str, topics: &[Arc<str>]) -> Vec<Member> {
    let kinds = [("each", false, false), ("upto", false, true), ("group", true, false), ("group", true, false)];
    let kinds = kinds.into_iter().chain([("group", true, false)]);
    let of_topic = |topic: &Arc<str>| {
        let topic = Arc::clone(topic);
        kinds.clone().map(move |kind| (Arc::clone(&topic), kind))
    };
    let all = topics.iter().flat_map(of_topic).enumerate();
    all.map(|(number, (topic, (durable, is_shared, is_upto)))| Member {
        name: format!("{prefix}c{number}"),
        topic,
        durable,
        is_shared,
        is_upto,
    })
    .collect()
}

/// Takes messages until nothing more comes after `quiet`.
pub(crate) async fn run(dialer: Dialer, member: Member, history: Arc<History>, quiet: CancellationToken) {
    let mut session = 0_u64;
    loop {
        let Ok(mut connection) = dialer.connect(&member.name).await else {
            if quiet.is_cancelled() {
                return;
            }
            sleep(AGAIN).await;
            continue;
        };
        session += 1;
        let mut run = Session { member: &member, number: session, history: &history, floor: 0, acks: 0 };
        let is_over = run.follow(&mut connection, &quiet).await;
        run.record(json!({ "do": "parted", "drained": is_over }));
        if is_over {
            return connection.close().await;
        }
    }
}

struct Session<'a> {
    member: &'a Member,
    number: u64,
    history: &'a History,
    /// The newest message that an `upto` has covered, or left open.
    floor: u64,
    acks: u64,
}

impl Session<'_> {
    fn record(&self, mut event: Value) {
        let Member { name, topic, durable, .. } = self.member;
        for (field, value) in [("by", name.as_str()), ("topic", topic), ("durable", durable)] {
            event[field] = value.into();
        }
        event["session"] = self.number.into();
        self.history.record(event);
    }

    /// Subscribes and acknowledges; returns whether all has come.
    async fn follow(&mut self, connection: &mut Connection, quiet: &CancellationToken) -> bool {
        let Member { topic, durable, is_shared, is_upto, .. } = self.member;
        let mut subscribe = json!({
            "type": "subscribe", "id": "s", "topic": topic, "durable": durable, "recent": 1_000_000,
            "ack_wait_ms": u64::try_from(ACK_WAIT.as_millis()).unwrap_or_default(), "max_in_flight": MAX_IN_FLIGHT,
        });
        if *is_shared {
            subscribe["share"] = true.into();
        }
        if *is_upto {
            subscribe["ack"] = "upto".into();
        }
        if connection.send(&subscribe, None).await.is_err() {
            return false;
        }
        let leaves = Instant::now() + Duration::from_millis(fastrand::u64(1000..10_000));
        loop {
            let is_quiet = quiet.is_cancelled();
            let received = tokio::select! {
                received = timeout(SILENCE, connection.receive()) => received,
                () = sleep_until(leaves), if !is_quiet => return false,
                () = quiet.cancelled(), if !is_quiet => continue,
            };
            match received {
                Ok(Some(body)) => {
                    if !connection.answer(&body).await && !self.take(connection, &body).await {
                        return false;
                    }
                }
                Ok(None) => return false,
                Err(_) if is_quiet => return true,
                Err(_) => {}
            }
        }
    }

    /// Notes what came and reacts to it; returns whether the connection goes on.
    async fn take(&mut self, connection: &mut Connection, body: &Body) -> bool {
        let json = &body.json;
        match json["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                let [epoch, offset, acked, pending] = ["epoch", "offset", "acked", "pending"].map(|name| &json[name]);
                let event = json!({
                    "do": "joined", "epoch": epoch, "offset": offset, "acked": acked, "pending": pending,
                    "share": self.member.is_shared,
                });
                self.record(event);
            }
            "message" => {
                let label = content::read(&json["content"], body.attachment.as_deref());
                let tries = json["tries"].as_u64().unwrap_or(1);
                let offset = json["offset"].as_u64().unwrap_or_default();
                self.record(json!({ "do": "given", "offset": offset, "tries": tries, "label": label }));
                return self.react(connection, offset).await;
            }
            "ok" => self.record(json!({ "do": "acked", "id": json["re"], "count": json["acked"] })),
            "gap" => self.record(json!({ "do": "missed", "first": json["first"], "last": json["last"] })),
            "unsubscribed" | "error" | "close" => {
                let [code, message, reason] = ["code", "message", "reason"].map(|name| &json[name]);
                self.record(json!({ "do": json["type"], "code": code, "message": message, "reason": reason }));
                return json["type"] != "unsubscribed";
            }
            _ => {}
        }
        true
    }

    /// Mostly done; now and then again, never, or no word, after which it comes again by itself.
    async fn react(&mut self, connection: &mut Connection, offset: u64) -> bool {
        let outcome = match fastrand::u8(..100) {
            0..2 => return true,
            2..4 if !self.member.is_upto => "reject",
            4..8 => "retry",
            // One word for several: the messages before are left open until then.
            8..40 if self.member.is_upto && offset > self.floor => return true,
            _ => "done",
        };
        self.floor = self.floor.max(offset);
        self.acks += 1;
        let id = self.acks;
        self.record(json!({ "do": "ack", "id": id, "offset": offset, "outcome": outcome }));
        let Member { topic, durable, .. } = self.member;
        let ack = json!({
            "type": "ack", "id": id, "topic": topic, "durable": durable, "offset": offset, "outcome": outcome,
        });
        connection.send(&ack, None).await.is_ok()
    }
}
