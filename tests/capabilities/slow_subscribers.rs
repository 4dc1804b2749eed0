//! A subscriber that does not read affects only itself, as its topic's policy determines, within the configured bounds.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::{Over, Party};
use crate::common::relay::{Link, Relay};
use crate::common::topics::{Subscriber, TopicLane, rule};
use crate::common::{RawClient, TestServer, soon, until, web_socket};
use quic_websocket::Config;
use quinn::TransportConfig;
use serde_json::{Value, json};

const WINDOW: u32 = 4000;

/// Twenty messages may be queued on a lane.
fn twenty(overflow: &str) -> impl FnOnce(&mut Config) + use<> {
    let rule = rule(&format!("pattern = '>'\noverflow = '{overflow}'\nhistory_bytes = 10000000"));
    move |config| {
        config.limits.lane_backlog_messages = 20;
        config.timing.block_timeout_ms = 300;
        // A client that reads again after a while is still told why it is closed.
        config.timing.close_timeout_ms = 15_000;
        config.topics = vec![rule];
    }
}

/// A client with this receive window on each lane that reads nothing by itself.
async fn stuck(server: &TestServer, fields: Value) -> (RawClient, Value) {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(WINDOW.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("stuck").await;
    let mut fields = fields;
    fields["type"] = json!("subscribe");
    fields["id"] = json!(1);
    client.control.say(fields).await;
    let subscribed = client.control.expect("subscribed").await;
    (client, subscribed)
}

/// Subscribers that do not read, with the number and size of the messages that can be in flight to each: in QUIC's
/// window, or in the buffers of the server and both systems for a socket.
async fn all_stuck(server: &TestServer, topic: &str) -> [(Subscriber, Value, u64, usize); 2] {
    let (client, subscribed) = stuck(server, json!({"topic": topic})).await;
    let socket = web_socket::open_narrow(server).await;
    let mut socket = Party::from(socket);
    socket.handshake("stuck").await;
    let mut socket = Subscriber::new(socket);
    let subscribed_too = socket.subscribe(json!({"topic": topic})).await;
    [(Subscriber::new(client), subscribed, 4, 1000), (socket, subscribed_too, 60, 10_000)]
}

async fn publish(client: &mut Party, topic: &str, content: &str) -> Value {
    client.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": 1})).await;
    client.control.hear().await
}

/// Publishes this many messages of this size; healthy neighbours receive each of them.
async fn publish_beside_neighbours(server: &TestServer, topic: &str, count: u64, size: usize) {
    let mut publisher = Over::Native.party(server, "publisher").await;
    let mut neighbours = Vec::new();
    for over in Over::ALL {
        let mut neighbour = Subscriber::over(over, server, "neighbour").await;
        neighbour.subscribe(json!({"topic": topic})).await;
        neighbours.push(neighbour);
    }
    for offset in 1..=count {
        let published = publish(&mut publisher, topic, &"x".repeat(size)).await;
        assert_eq!(published["offset"], offset, "{published}");
        for neighbour in &mut neighbours {
            assert_eq!(neighbour.hear(topic).await["offset"], offset, "the neighbours hear everything");
        }
    }
}

#[tokio::test]
async fn disconnect_closes_the_subscriber_which_resumes_without_loss() {
    let server = TestServer::start_with(twenty("disconnect")).await;
    let clients = all_stuck(&server, "a").await;
    publish_beside_neighbours(&server, "a", 100, 10_000).await;
    for (mut subscriber, subscribed, ..) in clients {
        assert_eq!(subscriber.client.closed().await.0, 4413);
        // On any carrier it reconnects with.
        for over in Over::ALL {
            let mut back = Subscriber::over(over, &server, "back").await;
            let since = json!({"epoch": subscribed["epoch"], "offset": 0});
            assert_eq!(back.subscribe(json!({"topic": "a", "since": since})).await["recovered"], true);
            for offset in 1..=100 {
                assert_eq!(back.hear("a").await["offset"], offset);
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_reports_the_others_in_one_gap() {
    let server = TestServer::start_with(twenty("drop_oldest")).await;
    for (number, topic) in ["a", "b"].into_iter().enumerate() {
        let stuck = all_stuck(&server, topic).await;
        let (mut subscriber, _, _, size) = stuck.into_iter().nth(number).expect("two of them");
        publish_beside_neighbours(&server, topic, 100, size).await;
        let (mut next, mut gaps) = (1, Vec::new());
        while next <= 100 {
            let message = subscriber.hear(topic).await;
            if message["type"] == "gap" {
                assert_eq!((&message["topic"], &message["first"]), (&json!(topic), &json!(next)));
                next = message["last"].as_u64().expect("an offset") + 1;
                gaps.push(next);
            } else {
                assert_eq!(message["offset"], next, "messages not reported as lost are delivered");
                next += 1;
            }
        }
        assert_eq!(gaps.len(), 1, "one gap for all: {gaps:?}");
        assert!((78..=82).contains(&gaps[0]), "twenty waited, the gap reaches to {gaps:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn latest_delivers_the_newest_of_each_topic_after_messages_in_flight() {
    let server = TestServer::start_with(twenty("latest")).await;
    let (mut client, _) = stuck(&server, json!({"topic": "state.1"})).await;
    client.control.say(json!({"type": "subscribe", "topic": "state.2", "id": 2})).await;
    client.control.expect("subscribed").await;
    let mut socket = Party::from(web_socket::open_narrow(&server).await);
    socket.handshake("stuck").await;
    let mut socket = Subscriber::new(socket);
    for topic in ["state.1", "state.2"] {
        socket.subscribe(json!({"topic": topic})).await;
    }
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for _ in 0..100 {
        for topic in ["state.1", "state.2"] {
            publish(&mut publisher, topic, &"x".repeat(10_000)).await;
        }
    }
    for topic in ["state.1", "state.2"] {
        let mut offsets = Vec::new();
        while offsets.last() != Some(&100) {
            let message = socket.hear(topic).await;
            assert_eq!(message["type"], "message", "outdated messages are not reported: {message}");
            offsets.push(message["offset"].as_u64().expect("an offset"));
        }
        assert!(offsets.len() < 60, "messages in flight, and the newest: {offsets:?}");
    }
    for _ in 0..2 {
        let mut lane = TopicLane::accept(&client).await;
        let mut offsets = Vec::new();
        while offsets.last() != Some(&100) {
            let message = lane.hear().await;
            assert_eq!(message["type"], "message", "outdated messages are not reported: {message}");
            offsets.push(message["offset"].as_u64().expect("an offset"));
        }
        assert!(offsets.len() <= 6, "what fits into {WINDOW} bytes, and the newest: {offsets:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn losses_on_many_topics_of_a_pattern_are_reported_in_one_gap_and_it_continues() {
    for overflow in ["drop_oldest", "latest"] {
        let server = TestServer::start_with(twenty(overflow)).await;
        let (client, _) = stuck(&server, json!({"topic": "many.*"})).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let before = server.status.stats(0).totals.fanned_out;
        for topic in 0..100 {
            publish(&mut publisher, &format!("many.{topic}"), &"x".repeat(1000)).await;
        }
        // A message that is delivered while the first are read would find room again.
        let fanned_out = || server.status.stats(0).totals.fanned_out;
        until("all are delivered", || fanned_out() == before + 100).await;
        let mut lane = TopicLane::accept(&client).await;
        let (mut told, mut next) = (0, 0);
        while next < 100 {
            let message = lane.hear().await;
            if message["type"] == "gap" {
                let offsets = (&message["first"], &message["last"]);
                if message["topic"] == "many.*" {
                    assert_eq!(offsets, (&json!(0), &json!(0)), "offsets of many topics: {message}");
                    told += 1;
                } else {
                    assert_eq!(offsets, (&json!(1), &json!(1)), "{message}");
                }
                continue;
            }
            assert_eq!(message["type"], "message");
            let topic: u64 = message["topic"].as_str().expect("a topic")[5..].parse().expect("its number");
            assert!(topic == next || told == 1 && next < 20, "{topic} instead of {next}, and nothing was reported");
            next = topic + 1;
        }
        assert_eq!(told, 1, "{overflow}: one gap for many topics");
        server.stop().await;
    }
}

#[tokio::test]
async fn block_holds_the_publisher_until_there_is_room_and_loses_nothing() {
    let server = TestServer::start_with(twenty("block")).await;
    for (number, topic) in ["a", "b"].into_iter().enumerate() {
        let stuck = all_stuck(&server, topic).await;
        let (mut subscriber, _, on_its_way, size) = stuck.into_iter().nth(number).expect("two of them");
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let (mut offset, mut refused) = (0, None);
        for _ in 0..100 {
            let reply = publish(&mut publisher, topic, &"x".repeat(size)).await;
            if reply["type"] == "error" {
                refused = Some(reply);
                break;
            }
            offset += 1;
            assert_eq!(reply["offset"], offset);
        }
        let refused = refused.expect("a blocked publisher gets an error in the end");
        assert_eq!(refused["code"], 503, "{refused}");
        assert!((20..=26 + on_its_way).contains(&offset), "{offset} were taken");
        // It does not delay another topic.
        assert_eq!(publish(&mut publisher, "another", "x").await["type"], "published");
        let hear = async {
            for expected in 1..=offset + 50 {
                assert_eq!(subscriber.hear(topic).await["offset"], expected, "a refused publish has no offset");
            }
        };
        let send = async {
            for expected in offset + 1..=offset + 50 {
                let reply = publish(&mut publisher, topic, &"x".repeat(size)).await;
                assert_eq!(reply["offset"], expected, "{reply}");
            }
        };
        tokio::join!(hear, send);
    }
    server.stop().await;
}

#[tokio::test]
async fn many_topics_whose_publishers_saw_room_fill_at_most_twice_the_backlog() {
    let server = TestServer::start_with(twenty("block")).await;
    let (client, _) = stuck(&server, json!({"topic": "many.*"})).await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for topic in 0..100 {
        let published = publish(&mut publisher, &format!("many.{topic}"), &"x".repeat(1000)).await;
        assert_eq!(published["type"], "published", "no publisher waits for another's topic");
        let waiting = server.status.stats(0).queues.messages;
        assert!(waiting <= 40, "{waiting} messages wait, of twenty that may");
    }
    assert_eq!(client.closed().await.0, 4413);
    server.stop().await;
}

#[tokio::test]
async fn gaps_of_replays_stay_within_the_bounds_of_the_lane() {
    let server = TestServer::start().await;
    let mut publisher = server.client("publisher").await;
    for _ in 0..100 {
        publisher.control.say(json!({"type": "publish", "topic": "m.x", "content": "x".repeat(100), "id": 1})).await;
        publisher.control.expect("published").await;
    }
    let (client, _) = stuck(&server, json!({"topic": "m.*", "lane": "control"})).await;
    let mut lane = client.lane().await;
    let since = json!({"epoch": "another", "offset": 0});
    let subscribe = json!({"type": "subscribe", "topic": "m.x", "lane": "control", "since": since}).to_string();
    let unsubscribe = json!({"type": "unsubscribe", "topic": "m.x"}).to_string();
    for n in 0..2000 {
        lane.body(subscribe.as_bytes()).await;
        lane.body(unsubscribe.as_bytes()).await;
        for kind in ["subscribed", "ok"] {
            assert_eq!(lane.hear().await["type"], kind, "its request lane is read and served, time {n}");
        }
    }
    let queues = server.status.stats(0).queues;
    assert!(queues.messages <= 1024 + 64, "{} messages wait", queues.messages);
    assert!(queues.bytes <= 512 << 10, "{} bytes wait", queues.bytes);
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_blocked_publisher_continues_when_the_subscriber_leaves_or_unsubscribes() {
    let server = TestServer::start_with(|config| {
        twenty("block")(config);
        config.timing.block_timeout_ms = 60_000;
    })
    .await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    let mut offset = 0;
    for pattern in ["a", "*"] {
        for leaves in [false, true] {
            let (mut client, _) = stuck(&server, json!({"topic": pattern})).await;
            // One more than there is room for: it is not answered, a request on another lane is.
            let mut refused = 0;
            while refused == 0 {
                publisher
                    .control
                    .say(json!({"type": "publish", "topic": "a", "content": "x".repeat(1000), "id": 1}))
                    .await;
                offset += 1;
                let answered = publisher.control.expect("published");
                match tokio::time::timeout(std::time::Duration::from_millis(200), answered).await {
                    Ok(published) => assert_eq!(published["offset"], offset),
                    Err(_) => refused = offset,
                }
            }
            if leaves {
                client.connection.close(1000_u32.into(), b"");
            } else {
                client.control.say(json!({"type": "unsubscribe", "topic": pattern})).await;
                client.control.expect("ok").await;
            }
            let published = publisher.control.expect("published").await;
            assert_eq!(published["offset"], refused, "{pattern}, leaves: {leaves}");
            drop(client);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unread_topic_does_not_delay_another() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = 'bulk'\npriority = 1\noverflow = 'drop_oldest'")];
    })
    .await;
    let (mut client, _) = stuck(&server, json!({"topic": "bulk"})).await;
    client.control.say(json!({"type": "subscribe", "topic": "small", "id": 2})).await;
    client.control.expect("subscribed").await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    publish(&mut publisher, "bulk", "first").await;
    publish(&mut publisher, "small", "first").await;
    let (mut one, mut other) = (TopicLane::accept(&client).await, TopicLane::accept(&client).await);
    let first = one.hear().await;
    let (_bulk, small) = if first["topic"] == "bulk" { (&mut one, &mut other) } else { (&mut other, &mut one) };
    if first["topic"] == "bulk" {
        small.hear().await;
    }
    for n in 0..100 {
        publish(&mut publisher, "bulk", &"x".repeat(100_000)).await;
        publish(&mut publisher, "small", &n.to_string()).await;
        assert_eq!(small.hear().await["content"], n.to_string());
    }
    client.control.lives("the subscriber").await;
    server.stop().await;
}

#[tokio::test]
async fn datagrams_carry_messages_that_fit_and_the_lane_the_rest() {
    let server = TestServer::start().await;
    let mut subscriber = Subscriber::connect(&server, "subscriber").await;
    let subscribed = subscriber.subscribe(json!({"topic": "a", "delivery": "datagram"})).await;
    assert!(subscribed["lane"].is_u64(), "{subscribed}");
    let mut publisher = Over::Native.party(&server, "publisher").await;
    publish(&mut publisher, "a", "small").await;
    let datagram = soon("a datagram", subscriber.client.quic().0.read_datagram()).await.expect("a datagram");
    let message: Value = serde_json::from_slice(&datagram).expect("one message without a length");
    assert_eq!((&message["content"], &message["offset"]), (&json!("small"), &json!(1)));
    publish(&mut publisher, "a", &"x".repeat(5000)).await;
    assert_eq!(subscriber.hear("a").await["offset"], 2);
    // Without datagrams, everything arrives on the one lane.
    let mut socket = Subscriber::over(Over::WebSocket, &server, "socket").await;
    let subscribed = socket.subscribe(json!({"topic": "a", "delivery": "datagram"})).await;
    assert_eq!(subscribed.get("lane"), None, "{subscribed}");
    for (offset, size) in [(3, 5), (4, 5000)] {
        publish(&mut publisher, "a", &"x".repeat(size)).await;
        assert_eq!(socket.hear("a").await["offset"], offset);
    }
    server.stop().await;
}

#[tokio::test]
async fn on_a_saturated_link_the_newest_datagrams_arrive_and_lanes_continue() {
    let server = TestServer::start().await;
    // Three times as many as the path carries at first, while waiting for the lane's answer.
    let link = Link { loss: 0.0, delay: std::time::Duration::from_millis(20), seed: 21 };
    let relay = Relay::start(server.addr, link).await;
    let mut client = RawClient::connect(&server.endpoint(), relay.addr).await;
    client.handshake("subscriber").await;
    client.control.say(json!({"type": "subscribe", "topic": "a", "delivery": "datagram", "id": 1})).await;
    client.control.expect("subscribed").await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    let burst = async {
        for _ in 0..3000 {
            let message = json!({"type": "publish", "topic": "a", "content": "x".repeat(900)});
            publisher.control.say(message).await;
        }
        publish(&mut publisher, "a", "last").await
    };
    let connection = client.connection.clone();
    let hear = async {
        let mut newest = 0;
        while newest < 3001 {
            let datagram = soon("a datagram", connection.read_datagram()).await.expect("a datagram");
            let message: Value = serde_json::from_slice(&datagram).expect("JSON");
            newest = newest.max(message["offset"].as_u64().expect("an offset"));
        }
    };
    let lane = async {
        for n in 0..5 {
            client.control.lives(&format!("the control lane, time {n}")).await;
        }
    };
    let (published, (), ()) = tokio::join!(burst, hear, lane);
    assert_eq!(published["offset"], 3001);
    server.stop().await;
}

#[tokio::test]
async fn if_the_client_lacks_datagrams_everything_arrives_by_stream() {
    let server = TestServer::start().await;
    let mut transport = TransportConfig::default();
    transport.datagram_receive_buffer_size(None);
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("none").await;
    let mut subscriber = Subscriber::new(client);
    subscriber.subscribe(json!({"topic": "a", "delivery": "datagram"})).await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    publish(&mut publisher, "a", "small").await;
    assert_eq!(subscriber.hear("a").await["content"], "small");
    server.stop().await;
}

#[tokio::test]
async fn queued_messages_of_an_ended_subscription_arrive_if_another_one_matches() {
    let server = TestServer::start().await;
    for (patterns, still_come) in [(&["q.>"][..], true), (&["q.*.x", "r.>"], false)] {
        let mut subscriber = Party::from(web_socket::open_narrow(&server).await);
        subscriber.handshake("stuck").await;
        for topic in patterns.iter().chain(&["q.b"]) {
            subscriber.control.say(json!({"type": "subscribe", "topic": topic})).await;
            subscriber.control.expect("subscribed").await;
        }
        let mut publisher = Over::Native.party(&server, "publisher").await;
        for _ in 0..150 {
            publish(&mut publisher, "q.b", &"x".repeat(10_000)).await;
        }
        subscriber.control.say(json!({"type": "unsubscribe", "topic": "q.b", "id": "over"})).await;
        let has_ended = || server.status.stats(1).list[0].subscriptions == patterns.len() as u64;
        until("the end of the subscription", has_ended).await;
        subscriber.control.say(json!({"type": "ping", "id": "end"})).await;
        let mut heard = Vec::new();
        loop {
            let message = subscriber.control.hear().await;
            match message["type"].as_str() {
                Some("message") => heard.push(message["offset"].as_u64().expect("an offset")),
                _ if message["re"] == "end" => break,
                _ => assert_eq!((&message["type"], &message["re"]), (&json!("ok"), &json!("over"))),
            }
        }
        assert!(heard.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order and without a hole: {heard:?}");
        assert_eq!(heard.len() == 150, still_come, "{} of 150 came", heard.len());
        subscriber.control.say(json!({"type": "close"})).await;
        subscriber.closed().await;
    }
    server.stop().await;
}
