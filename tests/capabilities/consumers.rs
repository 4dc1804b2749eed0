//! Durable consumers: each message is delivered until it is acknowledged and never again after that, whatever becomes
//! of the clients; and no consumer is more than its bounds allow.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::{BTreeMap, BTreeSet};

use quic_websocket::Config;
use serde_json::{Value, json};

use crate::common::over::Over;
use crate::common::topics::{Subscriber, rule};
use crate::common::{TestServer, until};

/// A client that publishes, and acknowledges what it gets.
struct Worker(Subscriber);

impl Worker {
    async fn connect(over: Over, server: &TestServer) -> Self {
        Self(Subscriber::over(over, server, "worker").await)
    }

    /// Subscribes to the consumer `w` of the topic `jobs`, with these fields, and returns the reply.
    async fn work(&mut self, fields: Value) -> Value {
        let mut all = json!({"topic": "jobs", "durable": "w"});
        all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        self.0.subscribe(all).await
    }

    /// A worker of the consumer `w`.
    async fn new(over: Over, server: &TestServer, fields: Value) -> Self {
        let mut worker = Self::connect(over, server).await;
        worker.work(fields).await;
        worker
    }

    async fn publish(&mut self, content: &str) -> u64 {
        let publish = json!({"type": "publish", "topic": "jobs", "content": content, "id": 1});
        self.0.ask(publish, "published").await["offset"].as_u64().expect("an offset")
    }

    /// The next message, and the number of its deliveries.
    async fn next(&mut self) -> (u64, u64) {
        let message = self.0.hear("jobs").await;
        assert_eq!((&message["type"], &message["durable"]), (&json!("message"), &json!("w")), "{message}");
        (message["offset"].as_u64().expect("an offset"), message["tries"].as_u64().unwrap_or(1))
    }

    /// The next messages, all with the same number of deliveries.
    async fn expect(&mut self, offsets: impl IntoIterator<Item = u64>, tries: u64) {
        for offset in offsets {
            assert_eq!(self.next().await, (offset, tries));
        }
    }

    /// Reports an outcome, and returns how many messages it concerned.
    async fn report(&mut self, offsets: &[u64], outcome: &str) -> u64 {
        let ack = json!({"type": "ack", "topic": "jobs", "durable": "w", "offsets": offsets, "outcome": outcome,
            "id": 1});
        self.0.ask(ack, "ok").await["acked"].as_u64().expect("a number")
    }

    async fn done(&mut self, offsets: &[u64]) {
        assert_eq!(self.report(offsets, "done").await, offsets.len() as u64, "{offsets:?}");
    }

    /// Sends a request that is refused, and returns the code and the message.
    async fn refused(&mut self, request: Value) -> (u64, String) {
        let error = self.0.ask(request, "error").await;
        (error["code"].as_u64().expect("a code"), error["message"].as_str().expect("a text").to_owned())
    }

    fn vanish(self) {
        self.0.client.vanish();
    }
}

/// Starts a server with the topics of these rules on a disk.
async fn start_on(dir: &std::path::Path, rules: &str, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::start_with(|config| {
        config.store.dir = Some(dir.to_owned());
        config.store.segment_bytes = 1 << 20;
        config.store.min_free_bytes = 0;
        config.topics = rules.split("---").map(rule).collect();
        change(config);
    })
    .await
}

fn with_rule(toml: &str) -> impl FnOnce(&mut Config) {
    let rule = rule(toml);
    move |config| config.topics = vec![rule]
}

#[tokio::test]
async fn a_message_is_delivered_until_it_is_acknowledged_and_not_after_that() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut worker = Worker::connect(over, &server).await;
        assert_eq!(worker.publish("before").await, 1);
        let subscribed = worker.work(json!({})).await;
        assert_eq!(
            (&subscribed["durable"], &subscribed["acked"], &subscribed["pending"], &subscribed["offset"]),
            (&json!("w"), &json!(1), &json!(0), &json!(1)),
            "it begins with the next message"
        );
        for n in 2..=5 {
            worker.publish(&n.to_string()).await;
        }
        worker.expect(2..=5, 1).await;
        worker.done(&[2, 4]).await;
        assert_eq!(worker.report(&[2, 4, 9], "done").await, 0, "they are settled, or not there");
        worker.vanish();

        // A position has no effect on a consumer that is there.
        let mut next = Worker::connect(over, &server).await;
        let subscribed = next.work(json!({"recent": 1})).await;
        assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(2), &json!(2)));
        next.expect([3, 5], 2).await;
        next.done(&[3, 5]).await;
        assert_eq!(next.publish("6").await, 6);
        next.expect([6], 1).await;
        next.0.unsubscribe("jobs").await;
        let subscribed = next.work(json!({})).await;
        assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(5), &json!(1)));
        next.expect([6], 2).await;
        next.done(&[6]).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_new_consumer_begins_where_its_maker_says() {
    let server = TestServer::start().await;
    let mut worker = Worker::connect(Over::Native, &server).await;
    for n in 1..=5 {
        worker.publish(&n.to_string()).await;
    }
    let epoch = worker.work(json!({"recent": 2})).await["epoch"].clone();
    worker.expect([4, 5], 1).await;
    let mut other = Subscriber::over(Over::WebSocket, &server, "other").await;
    let since = json!({"epoch": epoch, "offset": 1});
    let subscribed = other.subscribe(json!({"topic": "jobs", "durable": "other", "since": since})).await;
    assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(1), &json!(4)));
    for offset in 2..=5 {
        assert_eq!(other.hear("jobs").await["offset"], offset, "each consumer gets all");
    }
    server.stop().await;
}

#[tokio::test]
async fn no_more_than_max_in_flight_are_under_way() {
    let server = TestServer::start().await;
    let mut worker = Worker::new(Over::Native, &server, json!({"max_in_flight": 2})).await;
    for n in 1..=5 {
        worker.publish(&n.to_string()).await;
    }
    worker.expect([1, 2], 1).await;
    worker.0.lives("nothing more").await;
    worker.0.nothing_more().await;
    worker.done(&[2]).await;
    worker.expect([3], 1).await;
    worker.done(&[1, 3]).await;
    worker.expect([4, 5], 1).await;
    // One that is to come later counts as well.
    let later = json!({"type": "ack", "topic": "jobs", "durable": "w", "offset": 4, "outcome": "retry",
        "delay_ms": 3_600_000, "id": 1});
    assert_eq!(worker.0.ask(later, "ok").await["acked"], 1);
    worker.done(&[5]).await;
    worker.publish("6").await;
    worker.publish("7").await;
    worker.expect([6], 1).await;
    worker.0.lives("nothing more").await;
    worker.0.nothing_more().await;
    server.stop().await;
}

#[tokio::test]
async fn a_retry_comes_again_and_counts() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut worker = Worker::new(over, &server, json!({})).await;
        let (one, two) = (worker.publish("one").await, worker.publish("two").await);
        worker.expect([one, two], 1).await;
        for tries in 2..5 {
            assert_eq!(worker.report(&[one], "retry").await, 1);
            worker.expect([one], tries).await;
        }
        let soon = json!({"type": "ack", "topic": "jobs", "durable": "w", "offset": one, "outcome": "retry",
            "delay_ms": 20, "id": 1});
        assert_eq!(worker.0.ask(soon, "ok").await["acked"], 1);
        worker.expect([one], 5).await;
        worker.done(&[one, two]).await;
        worker.0.unsubscribe("jobs").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_without_an_acknowledgement_comes_again_when_its_time_is_over() {
    let server = TestServer::start().await;
    let mut worker = Worker::new(Over::Native, &server, json!({"ack_wait_ms": 1000})).await;
    let begun = std::time::Instant::now();
    worker.publish("one").await;
    worker.expect([1], 1).await;
    worker.expect([1], 2).await;
    assert!(begun.elapsed().as_millis() >= 1000, "after {:?}", begun.elapsed());
    worker.done(&[1]).await;
    server.stop().await;
}

#[tokio::test]
async fn with_upto_one_acknowledgement_covers_all_before_it_and_a_retry_goes_back() {
    let server = TestServer::start().await;
    let mut worker = Worker::new(Over::Native, &server, json!({"ack": "upto", "max_in_flight": 4})).await;
    for n in 1..=8 {
        worker.publish(&n.to_string()).await;
    }
    worker.expect(1..=4, 1).await;
    assert_eq!(worker.report(&[1, 3], "done").await, 3, "the largest counts");
    worker.expect(5..=7, 1).await;
    assert_eq!(worker.report(&[5], "retry").await, 1);
    worker.expect(4..=7, 2).await;
    assert_eq!(worker.report(&[7], "done").await, 4);
    worker.expect([8], 1).await;
    worker.vanish();
    let mut next = Worker::new(Over::WebSocket, &server, json!({})).await;
    next.expect([8], 2).await;
    assert_eq!(next.report(&[8], "done").await, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_newer_client_takes_over_and_the_older_one_is_told() {
    let server = TestServer::start().await;
    for (one, other) in Over::pairs() {
        let mut older = Worker::new(one, &server, json!({})).await;
        let offset = older.publish("one").await;
        older.expect([offset], 1).await;
        let mut newer = Worker::new(other, &server, json!({})).await;
        newer.expect([offset], 2).await;
        let told = older.0.client.control.expect("unsubscribed").await;
        assert_eq!((&told["topic"], &told["code"]), (&json!("jobs"), &json!(409)), "{told}");
        let reason = told["reason"].as_str().expect("a reason");
        assert_eq!(reason, "durable: another client has taken over the consumer w of jobs");
        assert_eq!(older.report(&[offset], "done").await, 0, "another client has it");
        newer.done(&[offset]).await;
        // The older one may take it back.
        older.work(json!({})).await;
        newer.0.client.control.expect("unsubscribed").await;
        older.0.unsubscribe("jobs").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn the_clients_of_a_shared_consumer_divide_its_messages() {
    let server = TestServer::start().await;
    let mut publisher = Worker::connect(Over::Native, &server).await;
    let mut workers = Vec::new();
    for over in Over::ALL {
        workers.push(Worker::new(over, &server, json!({"share": true, "max_in_flight": 30})).await);
    }
    for n in 1..=30 {
        publisher.publish(&n.to_string()).await;
    }
    // No client acknowledges, so all have the same share.
    let mut seen = BTreeSet::new();
    for worker in &mut workers {
        for _ in 0..10 {
            let (offset, tries) = worker.next().await;
            assert_eq!((tries, seen.insert(offset)), (1, true), "{offset} goes to one of them");
        }
    }
    assert_eq!(seen.len(), 30);
    // What a client had that is gone is divided among the others.
    workers.remove(0).vanish();
    for worker in &mut workers {
        for _ in 0..5 {
            assert_eq!(worker.next().await.1, 2);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn rejected_messages_and_those_that_were_tried_too_often_go_to_the_dead_letter_topic() {
    let server =
        TestServer::start_with(with_rule("pattern = 'jobs'\ndead_letter = 'dead.jobs'\nmax_deliver = 2")).await;
    let mut dead = Subscriber::over(Over::Native, &server, "dead").await;
    dead.subscribe(json!({"topic": "dead.jobs"})).await;
    let mut worker = Worker::new(Over::Native, &server, json!({})).await;
    let from = worker.0.client.id.clone();
    for n in 1..=4 {
        worker.publish(&format!("job {n}")).await;
    }
    worker.expect(1..=4, 1).await;
    assert_eq!(worker.report(&[2], "reject").await, 1);
    let letter = dead.hear("dead.jobs").await;
    assert_eq!((&letter["content"], &letter["from"]), (&json!("job 2"), &json!(from)), "the message as it was");
    assert_eq!(letter["durable"], Value::Null);
    assert_eq!(worker.report(&[2], "done").await, 0, "it is over");
    worker.done(&[1]).await;
    assert_eq!(worker.report(&[3], "retry").await, 1);
    worker.expect([3], 2).await;
    assert_eq!(worker.report(&[3], "retry").await, 1);
    assert_eq!(dead.hear("dead.jobs").await["content"], "job 3", "after two tries");
    // The last client leaves: its second try of the last message is over.
    assert_eq!(worker.report(&[4], "retry").await, 1);
    worker.expect([4], 2).await;
    worker.vanish();
    assert_eq!(dead.hear("dead.jobs").await["content"], "job 4");
    let mut next = Worker::connect(Over::Native, &server).await;
    let subscribed = next.work(json!({})).await;
    assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(4), &json!(0)));
    let totals = server.status.stats(0).totals;
    assert_eq!((totals.consumer_dead, totals.consumer_redelivered, totals.consumer_lost), (3, 2, 0));
    server.stop().await;
}

#[tokio::test]
async fn without_a_dead_letter_topic_they_are_dropped_and_counted() {
    let server = TestServer::start().await;
    let mut worker = Worker::new(Over::Native, &server, json!({"max_deliver": 1})).await;
    worker.publish("one").await;
    worker.publish("two").await;
    worker.expect([1, 2], 1).await;
    assert_eq!(worker.report(&[1], "reject").await, 1);
    assert_eq!(worker.report(&[2], "retry").await, 1);
    until("both are counted", || server.status.stats(0).totals.consumer_dead == 2).await;
    worker.0.nothing_more().await;
    server.stop().await;
}

#[tokio::test]
async fn what_the_topic_no_longer_keeps_is_lost_and_told() {
    let server = TestServer::start_with(with_rule("pattern = 'jobs'\nhistory_messages = 3")).await;
    let mut worker = Worker::new(Over::Native, &server, json!({})).await;
    worker.publish("one").await;
    worker.expect([1], 1).await;
    worker.0.unsubscribe("jobs").await;
    for n in 2..=10 {
        worker.publish(&n.to_string()).await;
    }
    let subscribed = worker.work(json!({})).await;
    assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(0), &json!(4)));
    let gap = worker.0.hear("jobs").await;
    assert_eq!((&gap["type"], &gap["first"], &gap["last"]), (&json!("gap"), &json!(1), &json!(7)), "{gap}");
    assert_eq!(gap["reason"], "no longer kept");
    worker.expect(8..=10, 1).await;
    worker.done(&[8, 9, 10]).await;
    assert_eq!(server.status.stats(0).totals.consumer_lost, 7);
    server.stop().await;
}

#[tokio::test]
async fn the_settings_of_a_consumer_are_those_it_was_made_with() {
    let server = TestServer::start().await;
    let made = json!({"ack": "upto", "ack_wait_ms": 2000, "max_in_flight": 7, "max_deliver": 3});
    Worker::new(Over::Native, &server, made.clone()).await;
    let mut worker = Worker::connect(Over::Native, &server).await;
    for (field, value, is) in [
        ("share", json!(true), "share false"),
        ("ack", json!("each"), "ack upto"),
        ("ack_wait_ms", json!(1000), "ack_wait_ms 2000"),
        ("max_in_flight", json!(8), "max_in_flight 7"),
        ("max_deliver", json!(0), "max_deliver 3"),
    ] {
        let mut request = json!({"type": "subscribe", "topic": "jobs", "durable": "w", "id": 1});
        request[field] = value;
        let (code, message) = worker.refused(request).await;
        assert!(code == 409 && message.starts_with("durable: the consumer w of jobs"), "{message}");
        assert!(message.contains(is), "{message}");
    }
    worker.work(json!({})).await;
    worker.0.unsubscribe("jobs").await;
    worker.work(made).await;
    server.stop().await;
}

#[tokio::test]
async fn a_forgotten_consumer_begins_again_and_its_other_clients_are_told() {
    let server = TestServer::start().await;
    let mut one = Worker::new(Over::Native, &server, json!({"share": true})).await;
    let mut other = Worker::new(Over::WebSocket, &server, json!({"share": true})).await;
    assert_eq!(one.publish("one").await, 1);
    let forget = json!({"type": "unsubscribe", "topic": "jobs", "forget": true, "id": 1});
    assert_eq!(one.0.ask(forget, "ok").await["topic"], "jobs");
    loop {
        let told = other.0.client.control.hear().await;
        if told["type"] != "message" {
            assert_eq!((&told["type"], &told["code"]), (&json!("unsubscribed"), &json!(404)), "{told}");
            break;
        }
    }
    let ack = json!({"type": "ack", "topic": "jobs", "durable": "w", "offset": 1});
    let (code, message) = one.refused(ack).await;
    assert!(code == 404 && message.contains("jobs has no consumer w"), "{message}");
    // With other settings, as it is another one.
    let subscribed = other.work(json!({"max_in_flight": 3})).await;
    assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(1), &json!(0)));
    server.stop().await;
}

#[tokio::test]
async fn consumers_have_bounds() {
    let server = TestServer::start_with(|config| {
        config.limits.topic_consumers = 2;
        config.limits.max_consumers = 3;
        config.limits.consumer_members = 2;
        config.topics = vec![
            rule("pattern = 'none'\nconsumers = false"),
            rule("pattern = 'empty'\nhistory_messages = 0"),
            rule("pattern = '>'"),
        ];
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Subscriber::over(Over::Native, &server, "client").await);
    }
    let subscribe = |topic: &str, durable: &str| {
        let (kind, id) = ("subscribe", 1);
        json!({"type": kind, "topic": topic, "durable": durable, "share": true, "id": id})
    };
    for (client, topic, durable, expected) in [
        (0, "none", "w", "409 durable: none has no durable consumers"),
        (0, "empty", "w", "409 durable: empty keeps no messages, so it has no durable consumers"),
        (0, "a", "one", ""),
        (1, "a", "one", ""),
        (2, "a", "one", "503 durable: the consumer one of a has 2 clients and takes no more"),
        (2, "a", "two", ""),
        (0, "a", "one", "409 topic: already subscribed to a; unsubscribe first"),
        (0, "b", "one", ""),
        (0, "c", "one", "503 durable: this server has 3 durable consumers and takes no more"),
    ] {
        let kind = if expected.is_empty() { "subscribed" } else { "error" };
        let reply = clients[client].ask(subscribe(topic, durable), kind).await;
        if !expected.is_empty() {
            let text = format!("{} {}", reply["code"], reply["message"].as_str().expect("a text"));
            assert_eq!(text, expected, "{topic} {durable}");
        }
    }
    let refused = clients[1].ask(subscribe("a", "three"), "error").await;
    assert_eq!(refused["message"], "topic: already subscribed to a; unsubscribe first");
    clients[1].unsubscribe("a").await;
    let refused = clients[1].ask(subscribe("a", "three"), "error").await;
    assert_eq!(refused["message"], "durable: a has 2 durable consumers and takes no more; forget one first");
    // Forgetting one makes room for another.
    let forget = json!({"type": "unsubscribe", "topic": "b", "forget": true, "id": 1});
    clients[0].ask(forget, "ok").await;
    clients[0].ask(subscribe("c", "one"), "subscribed").await;
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_that_no_client_uses_for_long_is_forgotten_with_its_topic() {
    let server = TestServer::start_with(|config| {
        config.timing.consumer_idle_ms = 1;
        config.timing.topic_idle_ms = 1;
        config.topics = vec![rule("pattern = 'jobs'\nhistory_age_ms = 1")];
    })
    .await;
    let worker = Worker::new(Over::Native, &server, json!({})).await;
    assert_eq!(server.status.topics(), 1);
    worker.vanish();
    until("both are forgotten", || server.status.topics() == 0).await;
    let stats = server.status.stats(0).topics;
    assert_eq!(stats.consumers.count, 0);
    server.stop().await;
}

#[tokio::test]
async fn a_pattern_brings_the_same_messages_by_itself() {
    let server = TestServer::start().await;
    let mut worker = Worker::new(Over::WebSocket, &server, json!({"presence": true})).await;
    worker.0.subscribe(json!({"topic": "*"})).await;
    let mut other = Worker::connect(Over::Native, &server).await;
    other.publish("one").await;
    let mut durables = BTreeMap::new();
    for _ in 0..2 {
        let message = worker.0.client.control.expect("message").await;
        *durables.entry(message["durable"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(durables, BTreeMap::from([("\"w\"".into(), 1), ("null".into(), 1)]));
    // It hears of members like any subscriber.
    other.0.subscribe(json!({"topic": "jobs"})).await;
    let joined = worker.0.client.control.expect("join").await;
    assert_eq!((&joined["topic"], &joined["client"]["id"]), (&json!("jobs"), &json!(other.0.client.id)));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_its_messages_later_and_is_not_closed() {
    let server = TestServer::start_with(|config| {
        config.limits.max_message_bytes = 30_000;
        config.limits.lane_backlog_bytes = 40_000;
        config.limits.client_backlog_bytes = 80_000;
        config.quic.send_window = 16 * 1024;
        config.topics = vec![rule("pattern = '>'\nhistory_bytes = 100000000")];
    })
    .await;
    let mut slow = Worker::new(Over::Native, &server, json!({"max_in_flight": 300})).await;
    let mut publisher = Worker::connect(Over::Native, &server).await;
    for n in 1..=300 {
        publisher.publish(&format!("{n} {}", "x".repeat(20_000))).await;
    }
    // Six megabytes for a client that has read nothing yet: what is queued for it is bounded.
    let queued = server.status.stats(0).queues.bytes;
    assert!(queued < 200_000, "{queued} bytes");
    slow.expect(1..=300, 1).await;
    slow.done(&(1..=300).collect::<Vec<_>>()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_workers_come_and_go_every_message_is_done_and_none_again_after_its_ok() {
    const MESSAGES: u64 = 400;
    let server = TestServer::start().await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut publisher = Worker::connect(Over::Native, &server).await;
    // The consumer begins with the first message.
    Worker::new(Over::Native, &server, json!({"share": true, "max_in_flight": 20})).await.vanish();
    for n in 1..=MESSAGES {
        publisher.publish(&n.to_string()).await;
    }
    let (mut done, mut tries) = (BTreeSet::new(), BTreeMap::<u64, u64>::new());
    let mut overs = Over::in_turn();
    while (done.len() as u64) < MESSAGES {
        let over = overs.next().expect("one");
        let mut worker = Worker::connect(over, &server).await;
        let subscribed = worker.work(json!({"share": true})).await;
        let floor = subscribed["acked"].as_u64().expect("an offset");
        assert!((1..=floor).all(|offset| done.contains(&offset)), "seed {seed}: {floor} is not the floor");
        let left = MESSAGES - done.len() as u64;
        assert_eq!(subscribed["pending"].as_u64(), Some(left), "seed {seed}");
        for _ in 0..random.u64(1..=left.min(60)) {
            let (offset, number) = worker.next().await;
            assert!(!done.contains(&offset), "seed {seed}: {offset} came again after its ok");
            let before = tries.insert(offset, number).unwrap_or(0);
            assert!(number > before, "seed {seed}: tries of {offset} were {before} and are {number}");
            match random.u8(0..10) {
                0 => assert_eq!(worker.report(&[offset], "retry").await, 1),
                1 => break,
                _ => {
                    worker.done(&[offset]).await;
                    done.insert(offset);
                }
            }
            if done.len() as u64 == MESSAGES {
                break;
            }
        }
        worker.vanish();
        until("it has left", || server.status.clients() == 1).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_of_a_durable_topic_outlives_the_server() {
    for level in ["os", "fsync"] {
        let dir = tempfile::tempdir().expect("a directory");
        let rules = format!(
            "pattern = 'jobs'\ndurability = '{level}'\ndead_letter = 'dead'---pattern = 'dead'\ndurability = '{level}'"
        );
        let server = start_on(dir.path(), &rules, |_| {}).await;
        let mut worker = Worker::new(Over::Native, &server, json!({"max_in_flight": 4})).await;
        for n in 1..=10 {
            worker.publish(&n.to_string()).await;
        }
        worker.expect(1..=4, 1).await;
        worker.done(&[1, 3]).await;
        assert_eq!(worker.report(&[2], "reject").await, 1);
        worker.expect([5, 6, 7], 1).await;
        server.stop().await;

        let server = start_on(dir.path(), &rules, |_| {}).await;
        let mut worker = Worker::connect(Over::WebSocket, &server).await;
        let (code, message) = worker
            .refused(json!({"type": "subscribe", "topic": "jobs", "durable": "w", "max_in_flight": 5, "id": 1}))
            .await;
        assert!(code == 409 && message.contains("max_in_flight 4"), "{message}");
        let subscribed = worker.work(json!({})).await;
        assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(3), &json!(7)));
        worker.expect(4..=7, 2).await;
        worker.done(&[4, 5, 6, 7]).await;
        worker.expect(8..=10, 1).await;
        let mut dead = Subscriber::over(Over::Native, &server, "dead").await;
        dead.subscribe(json!({"topic": "dead", "recent": 10})).await;
        assert_eq!(dead.hear("dead").await["content"], "2");
        // An acknowledgement without an id is stored soon, and at the latest when its client leaves.
        let ack = json!({"type": "ack", "topic": "jobs", "durable": "w", "offsets": [8, 9]});
        worker.0.client.control.say(ack).await;
        worker.0.lives("it was read").await;
        worker.0.unsubscribe("jobs").await;
        server.stop().await;

        let server = start_on(dir.path(), &rules, |_| {}).await;
        let mut worker = Worker::connect(Over::Native, &server).await;
        let subscribed = worker.work(json!({})).await;
        assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(9), &json!(1)));
        worker.expect([10], 2).await;
        worker.done(&[10]).await;
        let forget = json!({"type": "unsubscribe", "topic": "jobs", "forget": true, "id": 1});
        worker.0.ask(forget, "ok").await;
        server.stop().await;

        let server = start_on(dir.path(), &rules, |_| {}).await;
        let mut worker = Worker::connect(Over::Native, &server).await;
        let ack = json!({"type": "ack", "topic": "jobs", "durable": "w", "offset": 10});
        assert_eq!(worker.refused(ack).await.0, 404, "it is forgotten");
        let subscribed = worker.work(json!({"recent": 2})).await;
        assert_eq!((&subscribed["acked"], &subscribed["pending"]), (&json!(8), &json!(2)), "as a new one");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_consumer_reads_what_only_the_disk_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = "pattern = 'jobs'\ndurability = 'os'";
    let server = start_on(dir.path(), rules, |config| config.store.cache_messages = 10).await;
    let mut worker = Worker::connect(Over::Native, &server).await;
    for n in 1..=300 {
        worker.publish(&n.to_string()).await;
    }
    worker.work(json!({"recent": 300, "max_in_flight": 100})).await;
    worker.expect(1..=100, 1).await;
    assert_eq!(worker.report(&[7, 8, 50], "retry").await, 3);
    worker.expect([7, 8, 50], 2).await;
    let mut next = 101;
    for offset in 1..=300 {
        worker.done(&[offset]).await;
        if next <= 300 {
            worker.expect([next], 1).await;
            next += 1;
        }
    }
    assert_eq!(worker.publish("live").await, 301);
    worker.expect([301], 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_that_is_only_on_the_disk_expires_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = "pattern = 'jobs'\ndurability = 'os'";
    let server = start_on(dir.path(), rules, |_| {}).await;
    let mut worker = Worker::new(Over::Native, &server, json!({})).await;
    worker.publish("one").await;
    worker.expect([1], 1).await;
    server.stop().await;

    let server = start_on(dir.path(), rules, |config| {
        config.timing.consumer_idle_ms = 1;
        config.limits.max_consumers = 1;
    })
    .await;
    let mut worker = Worker::connect(Over::Native, &server).await;
    let other = json!({"type": "subscribe", "topic": "jobs", "durable": "other", "id": 1});
    // The one on the disk counts until it has expired.
    loop {
        worker.0.client.control.say(other.clone()).await;
        let reply = worker.0.client.control.hear().await;
        if reply["type"] == "subscribed" {
            break;
        }
        assert_eq!(reply["message"], "durable: this server has 1 durable consumers and takes no more");
    }
    let ack = json!({"type": "ack", "topic": "jobs", "durable": "w", "offset": 1});
    assert_eq!(worker.refused(ack).await.0, 404);
    server.stop().await;
}
