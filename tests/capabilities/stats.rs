//! The server's statistics match what happened: senders and receivers count here, and the snapshot is compared.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::limits::{limited, refusal};
use crate::common::over::Over;
use crate::common::relay::{Link, Relay};
use crate::common::topics::{TopicLane, rule};
use crate::common::web_socket::{self, SocketLane};
use crate::common::{RawClient, TestServer, soon, until};
use quic_websocket::message::CloseCode;
use quic_websocket::metrics::{CARRIERS, Stats, Totals};
use quinn::TransportConfig;
use serde_json::{Value, json};

fn totals(server: &TestServer) -> Totals {
    server.status.stats(0).totals
}

/// A client that counts the messages it sends and receives, and the bytes of their bodies.
struct Counting {
    who: Who,
    lane: Option<TopicLane>,
    sent: (u64, u64),
    heard: (u64, u64),
}

enum Who {
    WithLanes(Box<RawClient>),
    Socket(Box<SocketLane>),
}

impl Counting {
    async fn connect(over: Over, server: &TestServer, name: &str) -> Self {
        let who = match over {
            Over::WebSocket => Who::Socket(Box::new(web_socket::open(server).await)),
            _ => Who::WithLanes(Box::new(over.stranger(server).await)),
        };
        let mut client = Self { who, lane: None, sent: (0, 0), heard: (0, 0) };
        client.say(json!({"type": "handshake", "protocol_version": "1.0", "client_name": name})).await;
        client.hear("handshake_response").await;
        client
    }

    async fn say(&mut self, message: Value) {
        let body = message.to_string();
        self.sent = (self.sent.0 + 1, self.sent.1 + body.len() as u64);
        match &mut self.who {
            Who::WithLanes(client) => client.control.body(body.as_bytes()).await,
            Who::Socket(socket) => socket.body(body.as_bytes()).await,
        }
    }

    fn count(&mut self, body: &[u8], kind: &str) -> Value {
        self.heard = (self.heard.0 + 1, self.heard.1 + body.len() as u64);
        let message: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    async fn hear(&mut self, kind: &str) -> Value {
        let body = match &mut self.who {
            Who::WithLanes(client) => client.control.hear_body().await,
            Who::Socket(socket) => socket.hear_body().await,
        };
        self.count(&body, kind)
    }

    /// The next message of its one topic lane, if it has such a lane.
    async fn hear_topic(&mut self) -> Value {
        let Who::WithLanes(client) = &self.who else { return self.hear("message").await };
        if self.lane.is_none() {
            let lane = TopicLane::accept(client).await;
            // As received: fields in their order, and no spaces.
            let first = format!(r#"{{"type":"lane","lane":{},"priority":{}}}"#, lane.number, lane.priority);
            self.count(first.as_bytes(), "lane");
            self.lane = Some(lane);
        }
        let lane = self.lane.as_mut().expect("it is there");
        let body = soon("a message", lane.try_hear_body()).await.expect("a message");
        self.count(&body, "message")
    }
}

#[tokio::test]
async fn counters_match_the_messages_clients_send_and_receive() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for (over, name) in
        [(Over::Native, "Ada"), (Over::WebTransport, "Bob"), (Over::WebTransport, "Eve"), (Over::WebSocket, "Max")]
    {
        clients.push(Counting::connect(over, &server, name).await);
    }
    for client in &mut clients {
        client.say(json!({"type": "subscribe", "topic": "a.b", "id": 1})).await;
        client.hear("subscribed").await;
        client.say(json!({"type": "text", "content": "echo"})).await;
        client.hear("text").await;
    }
    for n in 0..5 {
        clients[0].say(json!({"type": "publish", "topic": "a.b", "content": "x".repeat(100 * n), "id": n})).await;
        clients[0].hear("published").await;
        for client in &mut clients {
            client.hear_topic().await;
        }
    }
    // Repeating the same message changes nothing, and one without subscribers goes to no client.
    for _ in 0..2 {
        clients[1].say(json!({"type": "publish", "topic": "c", "content": "", "key": "once", "id": 2})).await;
        clients[1].hear("published").await;
    }
    clients[0].say(json!({"type": "broadcast", "content": "to all"})).await;
    for client in &mut clients {
        client.hear("broadcast").await;
    }
    clients[1].say(json!({"type": "list_clients", "id": 3})).await;
    let list = clients[1].hear("client_list").await;
    let eve = list["clients"].as_array().expect("a list").iter().find(|client| client["name"] == "Eve");
    let to = eve.expect("Eve is there")["id"].clone();
    clients[1].say(json!({"type": "direct", "to": to, "content": "to one"})).await;
    clients[2].hear("direct").await;

    let sum = |of: fn(&Counting) -> (u64, u64)| {
        clients.iter().map(of).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1))
    };
    let (sent, heard) = (sum(|client| client.sent), sum(|client| client.heard));
    // Received messages are counted a moment later.
    until("all is counted", || totals(&server).messages_out == heard.0).await;
    let totals = totals(&server);
    assert_eq!((totals.messages_in, totals.bytes_in), sent);
    assert_eq!((totals.messages_out, totals.bytes_out), heard);
    assert_eq!((totals.published, totals.fanned_out), (6, 5 * 4 + 4));
    assert_eq!((totals.dropped, totals.refused), (0, 0));
    let by_carrier = |of: fn(&Stats) -> Vec<u64>| of(&server.status.stats(0));
    assert_eq!(by_carrier(|stats| stats.clients.by_carrier.iter().map(|(_, count)| count).collect()), [1, 2, 1]);
    assert_eq!(totals.accepted.iter().map(|(_, count)| count).collect::<Vec<_>>(), [1, 2, 1]);
    server.stop().await;
}

#[tokio::test]
async fn datagrams_and_request_lanes_are_counted_like_any_message() {
    let server = TestServer::start().await;
    for over in Over::QUIC {
        let mut client = over.client(&server, "Ada").await;
        let before = totals(&server);
        let body = json!({"type": "text", "content": "hello"}).to_string();
        let mut heard = 0;
        for on in crate::common::On::EACH {
            let answer = client.ask(on, body.as_bytes()).await;
            heard += answer.to_string().len() as u64;
        }
        // The answer is too large for a datagram, so it arrives on the control lane.
        client.send_datagram(json!({"type": "list_clients"}).to_string().as_bytes());
        heard += client.read_datagram().await.len() as u64;
        until("all is counted", || totals(&server).messages_out == before.messages_out + 4).await;
        let after = totals(&server);
        assert_eq!(after.messages_in - before.messages_in, 4);
        assert_eq!(after.bytes_in - before.bytes_in, 3 * body.len() as u64 + 23);
        assert_eq!(after.bytes_out - before.bytes_out, heard, "{over:?}");
    }
    server.stop().await;
}

/// A client with a receive window of 4,000 bytes that reads nothing by itself.
async fn stuck(server: &TestServer, topic: &str) -> RawClient {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(4000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("stuck").await;
    client.control.say(json!({"type": "subscribe", "topic": topic, "id": 1})).await;
    client.control.expect("subscribed").await;
    client
}

async fn publish(client: &mut RawClient, topic: &str, content: &str) -> u64 {
    client.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": 1})).await;
    client.control.expect("published").await["offset"].as_u64().expect("an offset")
}

#[tokio::test]
async fn a_stalled_client_is_listed_first_with_its_queue_and_its_drops_are_counted() {
    let server = TestServer::start_with(|config| {
        config.limits.lane_backlog_messages = 20;
        config.topics = vec![rule("pattern = '>'\noverflow = 'drop_oldest'")];
    })
    .await;
    let mut publisher = server.client("publisher").await;
    let _bystander = server.client("bystander").await;
    let client = stuck(&server, "a").await;
    for _ in 0..100 {
        publish(&mut publisher, "a", &"x".repeat(1000)).await;
    }
    // The worker of the stalled client has processed them once it has processed the later ones.
    until("everything is delivered", || totals(&server).fanned_out == 100).await;
    let stats = server.status.stats(100);
    let first = &stats.list[0];
    assert_eq!((first.name.as_deref(), first.id.to_string()), (Some("stuck"), client.id.clone()));
    assert_eq!((first.queued_messages, first.subscriptions), (20, 1));
    assert!((20_000..25_000).contains(&first.queued_bytes), "{first:?}");
    assert_eq!(stats.queues.max_client_bytes, first.queued_bytes);
    assert_eq!((stats.queues.messages, stats.queues.bytes), (20, first.queued_bytes), "no other client has a queue");
    assert!(stats.list[1..].iter().all(|client| client.queued_bytes == 0) && stats.list.len() == 3);

    let mut lane = TopicLane::accept(&client).await;
    let (mut next, mut lost) = (1, 0);
    while next <= 100 {
        let message = lane.hear().await;
        let last = message.get("last").unwrap_or(&message["offset"]).as_u64().expect("an offset");
        lost += if message["type"] == "gap" { last + 1 - next } else { 0 };
        next = last + 1;
    }
    assert_eq!(totals(&server).dropped, lost, "the losses reported to the client");
    until("nothing waits any more", || server.status.stats(0).queues.bytes == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn replaced_messages_and_displaced_datagrams_count_as_dropped() {
    let server = TestServer::start_with(|config| {
        config.quic.datagram_send_buffer = 4096;
        config.topics = vec![rule("pattern = 'state'\noverflow = 'latest'"), rule("pattern = 'fast'")];
    })
    .await;
    let mut publisher = server.client("publisher").await;
    let client = stuck(&server, "state").await;
    for _ in 0..50 {
        publish(&mut publisher, "state", &"x".repeat(1000)).await;
    }
    until("everything is delivered", || totals(&server).fanned_out == 50).await;
    let mut lane = TopicLane::accept(&client).await;
    let mut heard = 1;
    while lane.hear().await["offset"] != 50 {
        heard += 1;
    }
    assert_eq!(totals(&server).dropped, 50 - heard, "{heard} of 50 came");

    // All at once: more than QUIC and the buffer can hold.
    let before = totals(&server);
    let mut client = server.client("datagrams").await;
    client.control.say(json!({"type": "subscribe", "topic": "fast", "delivery": "datagram", "id": 1})).await;
    client.control.expect("subscribed").await;
    let publication = json!({"type": "publish", "topic": "fast", "content": "x".repeat(900)}).to_string();
    publisher.control.raw(&crate::common::framed(publication.as_bytes()).repeat(200)).await;
    let mut came = 0;
    loop {
        let message: Value = serde_json::from_slice(&client.read_datagram().await).expect("JSON");
        came += 1;
        if message["offset"] == 200 {
            break;
        }
    }
    // Datagrams are sent before the whole run is counted.
    until("all are counted", || totals(&server).fanned_out == before.fanned_out + 200).await;
    let after = totals(&server);
    assert_eq!(after.dropped - before.dropped, 200 - came, "{came} of 200 came");
    assert!(came < 200, "the buffer holds a few");
    server.stop().await;
}

#[tokio::test]
async fn refusals_and_closes_are_counted_by_kind() {
    let server = limited(|rates| (rates.client_messages, rates.client_messages_burst) = (1, 2)).await;
    let mut client = server.client("Ada").await;
    for n in 0..5 {
        client.control.say(json!({"type": "ping", "id": n})).await;
    }
    for n in 0..5 {
        let answer = client.control.hear().await;
        if answer["type"] != "pong" {
            refusal(&answer, n);
        }
    }
    let refused = totals(&server).refused;
    assert!((2..=3).contains(&refused), "two of five are within the rate, and a third after a second: {refused}");
    client.control.say(json!({"type": "close", "code": 1000})).await;
    client.closed().await;
    let mut mute = server.stranger().await;
    mute.control.say(json!({"type": "ping"})).await;
    mute.expect_close(1002).await;
    let gone = server.client("gone").await;
    gone.connection.close(4000_u32.into(), b"");
    let closed = |code| totals(&server).closed.with(CloseCode(code));
    until("all are gone", || server.status.connections() == 0).await;
    assert_eq!((closed(1000), closed(1002), closed(1006), closed(4000)), (1, 1, 0, 1));
    let totals = totals(&server);
    assert_eq!((totals.accepted.of("quic"), totals.accepted.total()), (Some(2), 2), "the mute one was not let in");
    server.stop().await;
}

#[tokio::test]
async fn round_trips_and_losses_are_those_of_the_path() {
    let server = TestServer::start().await;
    let link = Link { loss: 0.1, delay: Duration::from_millis(20), seed: 7 };
    let relay = Relay::start(server.addr, link).await;
    let mut far = RawClient::connect(&server.endpoint(), relay.addr).await;
    far.handshake("far").await;
    let mut near = Over::WebTransport.client(&server, "near").await;
    let socket = Over::WebSocket.party(&server, "socket").await;
    for _ in 0..10 {
        for n in 0..20 {
            far.control.say(json!({"type": "text", "content": "x".repeat(2000), "id": n})).await;
        }
        for _ in 0..20 {
            far.control.expect("text").await;
        }
    }
    // The delay of a busy machine for the first packets counts for little after these.
    for _ in 0..50 {
        near.control.lives("near").await;
    }
    let stats = server.status.stats(10);
    let of = |id: &str| stats.list.iter().find(|client| client.id.to_string() == id).expect("it is listed");
    let (far, near, socket) = (of(&far.id), of(&near.id), of(&socket.id));
    assert!((40.0..2000.0).contains(&far.rtt_ms.expect("QUIC has one")), "{far:?}");
    assert!((1.0..30.0).contains(&far.loss_percent.expect("QUIC has one")), "{far:?}");
    assert!(near.rtt_ms < far.rtt_ms && near.rtt_ms > Some(0.0), "{near:?} {far:?}");
    assert_eq!((far.transport.as_str(), near.transport.as_str()), ("quic", "webtransport"));
    assert_eq!((socket.transport.as_str(), socket.rtt_ms, socket.loss_percent), ("websocket", None, None));
    let (rtt, loss) = (stats.rtt_ms, stats.loss_percent);
    assert_eq!((rtt.clients, loss.clients, stats.clients.total), (2, 2, 3), "of those on QUIC alone");
    assert!(rtt.p50 < rtt.p90 && rtt.p90 >= 40.0 && rtt.p99 == rtt.max && rtt.p90 == rtt.max, "{rtt:?}");
    assert!(loss.p50 <= loss.p90 && loss.max >= 1.0, "{loss:?}");
    server.stop().await;
}

#[tokio::test]
async fn the_busiest_topics_come_first_and_lists_are_no_longer_than_requested() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for n in 0..5 {
        let mut client = Over::QUIC[n % 2].client(&server, &format!("client {n}")).await;
        client.control.say(json!({"type": "subscribe", "topic": "all.*", "id": 1})).await;
        client.control.expect("subscribed").await;
        clients.push(client);
    }
    clients[0].control.say(json!({"type": "subscribe", "topic": "t.7", "id": 1})).await;
    clients[0].control.expect("subscribed").await;
    let mut publisher = clients.pop().expect("a client");
    for n in 0..30 {
        for _ in 0..=n {
            publish(&mut publisher, &format!("t.{n}"), "x").await;
        }
    }
    let stats = server.status.stats(3);
    assert_eq!((stats.topics.count, stats.topics.subscriptions), (30, 6), "five of them are to a pattern");
    assert!(stats.topics.memory_bytes > 0, "what they keep takes memory");
    assert_eq!(stats.topics.top.len(), 20);
    let mut expected = (10..30).rev();
    for topic in &stats.topics.top {
        let n = expected.next().expect("one for each");
        assert_eq!((topic.topic.as_str(), topic.published), (format!("t.{n}").as_str(), n + 1), "the busiest first");
        assert_eq!((topic.offset, topic.subscribers), (n + 1, 0));
        assert!((0.001..=1.1 * (n + 1) as f64).contains(&topic.per_second), "{topic:?}");
    }
    let mut ids: Vec<_> = clients.iter().chain([&publisher]).map(|client| client.id.clone()).collect();
    ids.sort();
    let listed: Vec<_> = stats.list.iter().map(|client| client.id.to_string()).collect();
    assert_eq!(listed, ids[..3], "nothing waits for anybody: by id");
    assert_eq!(server.status.stats(usize::MAX).list.len(), 5);
    assert!(server.status.stats(0).list.is_empty());
    assert_eq!(stats.clients.total, 5, "all are counted, not only the listed");
    server.stop().await;
}

#[tokio::test]
async fn subscribers_include_patterns_and_broadcasts_are_counted_separately_from_publishes() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for (n, pattern) in ["chat.*", ">", "news.>", "chat.a"].into_iter().enumerate() {
        let mut client = Over::QUIC[n % 2].client(&server, &format!("client {n}")).await;
        client.control.say(json!({"type": "subscribe", "topic": pattern, "id": 1})).await;
        client.control.expect("subscribed").await;
        clients.push(client);
    }
    publish(&mut clients[0], "chat.a", "x").await;
    // Before any of the three leaves: messages in flight are dropped with their client.
    until("three got the message", || totals(&server).fanned_out == 3).await;
    let of = |topic: &str| {
        let found =
            server.status.stats(0).topics.top.into_iter().find(|told| told.topic == topic).expect("it is listed");
        (found.subscribers, found.pattern_subscribers)
    };
    assert_eq!(of("chat.a"), (3, 2));
    clients[0].control.say(json!({"type": "unsubscribe", "topic": "chat.*", "id": 2})).await;
    clients[0].control.expect("ok").await;
    assert_eq!(of("chat.a"), (2, 1));
    let [_, everything, ..] = &clients[..] else { panic!("four clients") };
    everything.connection.close(0_u32.into(), b"");
    until("it is gone", || of("chat.a") == (1, 0) && server.status.clients() == 3).await;
    clients[2].control.say(json!({"type": "broadcast", "content": "x"})).await;
    clients[2].control.expect("broadcast").await;
    until("three got the broadcast, too", || totals(&server).fanned_out == 3 + 3).await;
    let totals = totals(&server);
    assert_eq!((totals.published, totals.broadcasts), (1, 1));
    server.stop().await;
}

#[tokio::test]
async fn json_and_prometheus_report_the_same() {
    let server = TestServer::start().await;
    let mut client = Over::WebTransport.client(&server, "Ada").await;
    client.control.say(json!({"type": "subscribe", "topic": "a", "id": 1})).await;
    client.control.expect("subscribed").await;
    publish(&mut client, "a", "x").await;
    server.client("Bob").await.connection.close(0_u32.into(), b"");
    until("it is counted", || totals(&server).closed.iter().any(|(code, count)| code == "other" && count == 1)).await;
    let stats = server.status.stats(100);
    let json = serde_json::to_value(&stats).expect("it is JSON");
    let text = stats.prometheus();
    let told: HashMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').expect("a name and a number"))
        .map(|(name, number)| (name, number.parse().expect("a number")))
        .collect();
    let mut expected = HashMap::new();
    let mut expect = |name: String, value: &Value, times: f64| {
        expected.insert(name, value.as_f64().expect("a number") * times);
    };
    for (name, value) in json["totals"].as_object().expect("an object") {
        match value {
            Value::Object(each) => {
                let label = if name == "accepted" { "transport" } else { "code" };
                each.iter().for_each(|(of, value)| expect(format!("qws_{name}_total{{{label}=\"{of}\"}}"), value, 1.0));
            }
            value => expect(format!("qws_{name}_total"), value, 1.0),
        }
    }
    for carrier in CARRIERS {
        expect(format!("qws_clients{{transport=\"{carrier}\"}}"), &json["clients"][carrier], 1.0);
    }
    for (name, value) in [
        ("connections", &json["connections"]),
        ("handshakes", &json["handshakes"]),
        ("queued_messages", &json["queues"]["messages"]),
        ("queued_bytes", &json["queues"]["bytes"]),
        ("queued_bytes_max_client", &json["queues"]["max_client_bytes"]),
        ("topics", &json["topics"]["count"]),
        ("subscriptions", &json["topics"]["subscriptions"]),
        ("topic_memory_bytes", &json["topics"]["memory_bytes"]),
        ("open_requests", &json["requests"]["open"]),
        ("request_responders", &json["requests"]["responders"]),
        ("consumers", &json["topics"]["consumers"]["count"]),
        ("consumer_in_flight", &json["topics"]["consumers"]["in_flight"]),
        ("consumer_lag_max", &json["topics"]["consumers"]["max_lag"]),
        ("measured_clients", &json["rtt_ms"]["clients"]),
    ] {
        expect(format!("qws_{name}"), value, 1.0);
    }
    expect("qws_certificate_expiry_timestamp_seconds".into(), &json["certificate_expires_at"], 0.001);
    expect("qws_uptime_seconds".into(), &json["uptime_ms"], 0.001);
    for (percentile, of) in [("50", "p50"), ("90", "p90"), ("99", "p99"), ("100", "max")] {
        expect(format!("qws_rtt_seconds{{percentile=\"{percentile}\"}}"), &json["rtt_ms"][of], 0.001);
        expect(format!("qws_loss_ratio{{percentile=\"{percentile}\"}}"), &json["loss_percent"][of], 0.01);
    }
    expect(format!("qws_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), &json!(1), 1.0);
    assert_eq!(told.len(), expected.len(), "{text}");
    for (name, value) in expected {
        let told = told.get(name.as_str()).unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        assert!((told - value).abs() < 1e-9, "{name} is {told}, and {value} in JSON");
    }
    assert_eq!((&json["clients"]["total"], &json["server_name"]), (&json!(1), &json!("QUIC WebSocket Server")));
    server.stop().await;
}
