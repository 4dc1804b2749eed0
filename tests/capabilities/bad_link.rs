//! Over a link that loses and delays packets: nothing is lost, duplicated or reordered, and bulk does not delay small
//! messages.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::relay::{Link, Relay};
use crate::common::topics::{Subscriber, TopicLane, rule};
use crate::common::{RawClient, TestServer, framed, soon, web_transport};
use quinn::TransportConfig;
use serde_json::json;

/// A client whose packets go through the relay.
async fn through(relay: &Relay, server: &TestServer, name: &str) -> RawClient {
    let mut client = RawClient::connect(&server.endpoint(), relay.addr).await;
    client.handshake(name).await;
    client
}

/// The same over WebTransport.
async fn session_through(relay: &Relay, server: &TestServer, name: &str) -> RawClient {
    let connecting = web_transport::endpoint(server).connect(relay.addr, "localhost").expect("a connection begins");
    let connection = soon("a connection", connecting).await.expect("it connects");
    let session = web_transport::session(connection, relay.addr, "/wt").await.expect("a session");
    let mut client = web_transport::over(session).await;
    client.handshake(name).await;
    client
}

#[tokio::test]
async fn every_subscriber_gets_everything_in_order_despite_lost_packets() {
    let server = TestServer::start().await;
    let link = Link { loss: 0.05, delay: Duration::from_millis(5), seed: 11 };
    let relay = Relay::start(server.addr, link).await;
    let mut subscribers = Vec::new();
    for n in 0..4 {
        let mut subscriber = Subscriber::new(through(&relay, &server, &format!("subscriber {n}")).await);
        for topic in 0..4 {
            subscriber.subscribe(json!({"topic": format!("t.{topic}")})).await;
        }
        subscribers.push(subscriber);
    }
    let mut publisher = through(&relay, &server, "publisher").await;
    for n in 0..400 {
        let topic = format!("t.{}", n % 4);
        publisher.control.say(json!({"type": "publish", "topic": topic, "content": n.to_string(), "id": n})).await;
    }
    for n in 0..400 {
        assert_eq!(publisher.control.expect("published").await["re"], n);
    }
    for subscriber in &mut subscribers {
        for n in 0..400 {
            let message = subscriber.hear(&format!("t.{}", n % 4)).await;
            assert_eq!((&message["content"], &message["offset"]), (&json!(n.to_string()), &json!(n / 4 + 1)));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reconnects_over_a_lossy_link_misses_nothing() {
    let server = TestServer::start().await;
    let link = Link { loss: 0.1, delay: Duration::from_millis(2), seed: 12 };
    let relay = Relay::start(server.addr, link).await;
    let mut publisher = server.client("publisher").await;
    let (mut last, mut epoch) = (0_u64, serde_json::Value::Null);
    for _ in 0..10 {
        for _ in 0..20 {
            publisher.control.say(json!({"type": "publish", "topic": "a", "content": "x", "id": 1})).await;
            epoch = publisher.control.expect("published").await["epoch"].clone();
        }
        let mut client = through(&relay, &server, "subscriber").await;
        let since = json!({"epoch": epoch, "offset": last});
        client.control.say(json!({"type": "subscribe", "topic": "a", "since": since, "id": 1})).await;
        assert_eq!(client.control.expect("subscribed").await["recovered"], true);
        let mut lane = TopicLane::accept(&client).await;
        for _ in 0..15 {
            last += 1;
            assert_eq!(lane.hear().await["offset"], last);
        }
        // The client sends no close: the server notices by itself.
        drop(client);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_small_message_waits_for_at_most_a_congestion_window_of_a_large_one_on_another_lane() {
    for (priority, is_session) in [(128, false), (255, false), (255, true)] {
        let server = TestServer::start_with(|config| {
            config.topics = vec![rule(&format!("pattern = 'small'\npriority = {priority}"))];
        })
        .await;
        let link = Link { loss: 0.0, delay: Duration::from_millis(20), seed: 13 };
        let relay = Relay::start(server.addr, link).await;
        let mut client = match is_session {
            false => through(&relay, &server, "subscriber").await,
            true => session_through(&relay, &server, "subscriber").await,
        };
        for topic in ["bulk", "small"] {
            client.control.say(json!({"type": "subscribe", "topic": topic, "id": 1})).await;
            client.control.expect("subscribed").await;
        }
        let mut publisher = server.client("publisher").await;
        // In one piece, so that hardly any time passes between the two.
        let publish =
            |(topic, size)| json!({"type": "publish", "topic": topic, "content": "x".repeat(size)}).to_string();
        let both = [("bulk", 1_000_000), ("small", 64)].map(publish).map(|body| framed(body.as_bytes()));
        publisher.control.raw(&both.concat()).await;
        let (one, other) = (TopicLane::accept(&client).await, TopicLane::accept(&client).await);
        let (mut bulk, mut small) = if one.number == 1 { (one, other) } else { (other, one) };
        let mut hear = std::pin::pin!(small.hear());
        let mut ahead = 0;
        loop {
            tokio::select! {
                biased;
                message = &mut hear => break assert_eq!(message["topic"], "small"),
                chunk = bulk.receive.read_chunk(usize::MAX, true) => {
                    ahead += chunk.expect("the lane lives").expect("it goes on").bytes.len();
                }
            }
        }
        // Data already in flight: the initial congestion window, and its share of the next.
        assert!(
            ahead <= 128 * 1024,
            "{ahead} bytes of bulk came before the small message; priority {priority}, WebTransport: {is_session}"
        );
        server.stop().await;
    }
}

#[tokio::test]
async fn every_policy_reports_losses_despite_lost_packets() {
    for overflow in ["drop_oldest", "latest", "block"] {
        let server = TestServer::start_with(|config| {
            config.limits.lane_backlog_messages = 20;
            config.timing.block_timeout_ms = 20_000;
            config.topics = vec![rule(&format!("pattern = '>'\noverflow = '{overflow}'"))];
        })
        .await;
        let link = Link { loss: 0.05, delay: Duration::from_millis(5), seed: 14 };
        let relay = Relay::start(server.addr, link).await;
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(10_000_u32.into());
        let mut client = RawClient::connect(&server.endpoint_with(transport), relay.addr).await;
        client.handshake("subscriber").await;
        client.control.say(json!({"type": "subscribe", "topic": "a", "id": 1})).await;
        client.control.expect("subscribed").await;
        let mut publisher = server.client("publisher").await;
        let publish = async {
            for n in 1..=200 {
                let message = json!({"type": "publish", "topic": "a", "content": "x".repeat(1000), "id": n});
                publisher.control.say(message).await;
                assert_eq!(publisher.control.expect("published").await["offset"], n, "{overflow}");
            }
        };
        let hear = async {
            let mut lane = TopicLane::accept(&client).await;
            let (mut next, mut missed) = (1, 0);
            while next <= 200 {
                let message = lane.hear().await;
                let (first, last) = match &message["type"] {
                    kind if kind == "gap" => (message["first"].as_u64(), message["last"].as_u64()),
                    _ => (message["offset"].as_u64(), message["offset"].as_u64()),
                };
                let (first, last) = (first.expect("an offset"), last.expect("an offset"));
                // Only state may be replaced without notice.
                assert!(first == next || (overflow == "latest" && first > next), "{overflow}: {next}, then {message}");
                missed += last + 1 - next - u64::from(message["type"] == "message");
                next = last + 1;
            }
            missed
        };
        let missed = if overflow == "block" {
            tokio::join!(publish, hear).1
        } else {
            // All at once: on a slow machine the link might keep up with the publisher.
            publish.await;
            hear.await
        };
        assert_eq!(missed == 0, overflow == "block", "{overflow} missed {missed}");
        server.stop().await;
    }
}
