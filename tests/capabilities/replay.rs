//! A client that comes back gets what it missed, then continues live: no hole and no duplicate at the seam, or the loss
//! is reported.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::over::{Over, Party};
use crate::common::topics::{Subscriber, TopicLane, rule};
use crate::common::{RawClient, TestServer, web_socket};
use quinn::TransportConfig;
use serde_json::{Value, json};

async fn subscribe(client: &mut Party, mut fields: Value) -> Value {
    fields["type"] = json!("subscribe");
    fields["id"] = json!(1);
    client.control.say(fields).await;
    client.control.expect("subscribed").await
}

async fn publish(client: &mut Party, topic: &str, content: &str) -> Value {
    client.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": 1})).await;
    client.control.expect("published").await
}

/// Publishes numbered messages to a topic, as fast as they are answered, until told to stop.
async fn keep_publishing(mut client: Party, stop: Arc<AtomicBool>) -> u64 {
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        last = publish(&mut client, "a", "x").await["offset"].as_u64().expect("an offset");
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_returns_among_eight_publishers_miss_nothing_and_repeat_nothing() {
    const RETURNS: usize = 1000;
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = '>'\nhistory_messages = 1000000\nhistory_bytes = 1000000000")];
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = tokio::task::JoinSet::new();
    for (n, over) in (0..8).zip(Over::in_turn()) {
        let publisher = over.party(&server, &format!("publisher {n}")).await;
        publishers.spawn(keep_publishing(publisher, Arc::clone(&stop)));
    }
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Subscriber::over(Over::Native, &server, "subscriber").await;
    let first = client.subscribe(json!({"topic": "a"})).await;
    let (epoch, mut last) = (first["epoch"].clone(), first["offset"].as_u64().expect("an offset"));
    // A position stays valid across carriers.
    for (n, over) in (0..RETURNS).zip(Over::in_turn()) {
        for _ in 0..random.usize(0..40) {
            let (_, message) = client.any().await;
            last += 1;
            assert_eq!(
                (&message["type"], &message["offset"]),
                (&json!("message"), &json!(last)),
                "return {n}, seed {seed}: {message}"
            );
        }
        // Messages in flight to the old subscription are lost with it, and come again with the new one.
        client.client.vanish();
        client = Subscriber::over(over, &server, "subscriber").await;
        let position = json!({"epoch": epoch, "offset": last});
        let subscribed = client.subscribe(json!({"topic": "a", "since": position})).await;
        assert_eq!(subscribed["recovered"], true, "return {n}, seed {seed}: {subscribed}");
    }
    stop.store(true, Ordering::Relaxed);
    let published = publishers.join_all().await.into_iter().max().expect("publishers");
    while last < published {
        last += 1;
        assert_eq!(client.any().await.1["offset"], last, "seed {seed}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_long_replay_waits_for_the_client_and_continues_with_newer_messages() {
    let server = TestServer::start_with(|config| {
        config.limits.max_message_bytes = 15_000;
        config.limits.lane_backlog_bytes = 20_000;
        config.limits.client_backlog_bytes = 40_000;
        config.topics = vec![rule("pattern = '>'\nhistory_messages = 10000\nhistory_bytes = 100000000")];
    })
    .await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for n in 1..=2000 {
        publish(&mut publisher, "a", &format!("{n} {}", "x".repeat(1000))).await;
    }
    // Two megabytes to replay; the client reads a few thousand bytes at a time and forty thousand may be queued.
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(8000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("narrow").await;
    let mut published = 2000;
    for client in [client.into(), Over::WebSocket.party(&server, "another").await] {
        let mut client = Subscriber::new(client);
        assert_eq!(client.subscribe(json!({"topic": "a", "recent": 2000})).await["offset"], published);
        for offset in published - 1999..=published + 100 {
            if offset > published - 1000 && offset <= published - 900 {
                publish(&mut publisher, "a", "meanwhile").await;
            }
            assert_eq!(client.hear("a").await["offset"], offset);
        }
        published += 101;
        assert_eq!(publish(&mut publisher, "a", "live").await["offset"], published);
        assert_eq!(client.hear("a").await["content"], "live");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_replay_overtaken_by_the_log_reports_the_lost_messages() {
    let server = TestServer::start_with(|config| {
        config.limits.max_message_bytes = 15_000;
        config.limits.lane_backlog_bytes = 20_000;
        config.topics = vec![rule("pattern = '>'\nhistory_messages = 300\nhistory_bytes = 100000000")];
    })
    .await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for _ in 0..300 {
        publish(&mut publisher, "a", &"x".repeat(10_000)).await;
    }
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(8000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("narrow").await;
    client.control.say(json!({"type": "subscribe", "topic": "a", "recent": 300})).await;
    client.control.expect("subscribed").await;
    for _ in 0..300 {
        publish(&mut publisher, "a", "later").await;
    }
    let mut lane = TopicLane::accept(&client).await;
    let (mut next, mut gaps) = (1, Vec::new());
    while next <= 600 {
        let message = lane.hear().await;
        if message["type"] == "gap" {
            assert_eq!(message["first"], next, "the gap is at the position of the messages");
            next = message["last"].as_u64().expect("an offset") + 1;
            gaps.push(message);
        } else {
            assert_eq!(message["offset"], next);
            next += 1;
        }
    }
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_lost_position_is_reported_and_the_remaining_messages_follow() {
    for over in Over::ALL {
        let server =
            TestServer::start_with(|config| config.topics = vec![rule("pattern = '>'\nhistory_messages = 5")]).await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let mut epoch = Value::Null;
        for n in 1..=10 {
            epoch = publish(&mut publisher, "a", &n.to_string()).await["epoch"].clone();
        }
        for (since, recent, recovered, first) in [
            (json!({"epoch": epoch, "offset": 5}), None, true, 6),
            (json!({"epoch": epoch, "offset": 8}), Some(1), true, 9),
            (json!({"epoch": epoch, "offset": 4}), None, false, 6),
            (json!({"epoch": epoch, "offset": 4}), Some(2), false, 9),
            (json!({"epoch": epoch, "offset": 11}), None, false, 11),
            (json!({"epoch": "another", "offset": 8}), None, false, 6),
        ] {
            let mut client = Subscriber::over(over, &server, "subscriber").await;
            let mut fields = json!({"topic": "a", "since": since});
            if let Some(recent) = recent {
                fields["recent"] = json!(recent);
            }
            let subscribed = client.subscribe(fields.clone()).await;
            assert_eq!(subscribed["recovered"], recovered, "{fields}: {subscribed}");
            assert_eq!(subscribed.get("reason").is_some(), !recovered, "{fields}: {subscribed}");
            if first <= 10 {
                assert_eq!(client.hear("a").await["offset"], first, "{fields}");
            }
        }
        let mut client = over.party(&server, "subscriber").await;
        let subscribed = subscribe(&mut client, json!({"topic": "a", "recent": 2})).await;
        assert!(subscribed.get("recovered").is_none(), "nothing was to be recovered: {subscribed}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_pattern_next_to_a_long_replay_does_not_duplicate_replayed_messages() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = '>'\nhistory_messages = 10000\nhistory_bytes = 100000000")];
    })
    .await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for n in 1..=500 {
        publish(&mut publisher, "a", &format!("{n} {}", "x".repeat(1000))).await;
    }
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(8000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("narrow").await;
    for message in
        [json!({"type": "subscribe", "topic": "*"}), json!({"type": "subscribe", "topic": "a", "recent": 500})]
    {
        client.control.say(message).await;
        client.control.expect("subscribed").await;
    }
    for _ in 0..100 {
        publish(&mut publisher, "a", "meanwhile").await;
    }
    publish(&mut publisher, "b", "for the pattern").await;
    let (mut one, mut other) = (TopicLane::accept(&client).await, TopicLane::accept(&client).await);
    let (replayed, of_pattern) = if one.number == 2 { (&mut one, &mut other) } else { (&mut other, &mut one) };
    assert_eq!(of_pattern.hear().await["topic"], "b", "replayed messages arrive only on their own lane");
    for offset in 1..=600 {
        assert_eq!(replayed.hear().await["offset"], offset);
    }
    server.stop().await;
}

/// Subscribes one lane to a topic by a pattern and by its own name in turn, with busy publishers: messages after
/// `subscribed` continue after its position, and messages after `ok` belong to the pattern, or to none.
async fn turn_by_turn(over: Over, has_pattern: bool) {
    let server = TestServer::start_with(|config| {
        config.workers = 2;
        config.topics = vec![rule("pattern = '>'\nhistory_messages = 1000000\nhistory_bytes = 1000000000")];
        // A slow client is not closed here.
        (config.limits.lane_backlog_messages, config.limits.client_backlog_messages) = (1_000_000, 1_000_000);
        (config.limits.lane_backlog_bytes, config.limits.client_backlog_bytes) = (1 << 30, 1 << 30);
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = tokio::task::JoinSet::new();
    for n in 0..6 {
        let publisher = Over::Native.party(&server, &format!("publisher {n}")).await;
        publishers.spawn(keep_publishing(publisher, Arc::clone(&stop)));
    }
    let mut client = over.party(&server, "subscriber").await;
    if has_pattern {
        subscribe(&mut client, json!({"topic": "*", "lane": "control"})).await;
    }
    let (mut epoch, mut last) = (Value::Null, 0);
    for round in 0..300 {
        let mut wanted = json!({"type": "subscribe", "topic": "a", "lane": "control", "id": "in"});
        if !epoch.is_null() {
            wanted["since"] = json!({"epoch": epoch, "offset": last});
        }
        client.control.say(wanted).await;
        let mut heard = last;
        let subscribed = loop {
            let message = client.control.hear().await;
            if message["re"] == "in" {
                break message;
            }
            let offset = message["offset"].as_u64().expect("an offset");
            assert!(has_pattern, "{offset} came behind the end of the subscription, round {round}");
            assert!(round == 0 || offset == heard + 1, "round {round}: {offset} came by the pattern behind {heard}");
            heard = offset;
        };
        if epoch.is_null() {
            (epoch, last) = (subscribed["epoch"].clone(), subscribed["offset"].as_u64().expect("an offset"));
        }
        // A part of the replay, or all of it and more.
        for _ in 0..fastrand::usize(1..30) {
            let offset = client.control.expect("message").await["offset"].clone();
            assert_eq!(offset, last + 1, "round {round}: subscribed behind {last}, {subscribed}");
            last += 1;
        }
        client.control.say(json!({"type": "unsubscribe", "topic": "a", "id": "out"})).await;
        loop {
            let message = client.control.hear().await;
            if message["re"] == "out" {
                break;
            }
            assert_eq!(message["offset"], last + 1, "round {round}: not forgotten and not in order");
            last += 1;
        }
        if !has_pattern {
            continue;
        }
        // Nothing queued for the other one was forgotten; the rest of its replay is reported.
        let mut heard = 0;
        while heard < 3 {
            let message = client.control.hear().await;
            let (first, newest) = match message["type"].as_str() {
                Some("gap") => (&message["first"], &message["last"]),
                _ => (&message["offset"], &message["offset"]),
            };
            assert_eq!(*first, last + 1, "round {round}: by the pattern, {message}");
            last = newest.as_u64().expect("an offset");
            heard += usize::from(message["type"] == "message");
        }
    }
    stop.store(true, Ordering::Relaxed);
    publishers.join_all().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_on_the_control_lane_separate_the_messages_of_consecutive_subscriptions() {
    for over in Over::ALL {
        for has_pattern in [false, true] {
            turn_by_turn(over, has_pattern).await;
        }
    }
}

#[tokio::test]
async fn a_subscription_next_to_a_pattern_misses_nothing_if_there_is_nothing_to_replay() {
    for (over, history) in Over::ALL.into_iter().flat_map(|over| [(over, 1000), (over, 0)]) {
        let server = TestServer::start_with(|config| {
            config.topics = vec![rule(&format!("pattern = '>'\nhistory_messages = {history}"))];
        })
        .await;
        let mut client = over.party(&server, "subscriber").await;
        subscribe(&mut client, json!({"topic": "q.*", "lane": "control"})).await;
        for round in 0..50 {
            let requests = [
                json!({"type": "subscribe", "topic": "q.b", "lane": "control", "id": "in"}),
                json!({"type": "publish", "topic": "q.b", "content": "x"}),
                json!({"type": "unsubscribe", "topic": "q.b", "id": "out"}),
                json!({"type": "publish", "topic": "q.b", "content": "y"}),
                json!({"type": "ping", "id": "end"}),
            ];
            client.control.bodies(&requests.map(|request| request.to_string().into_bytes())).await;
            let (mut offsets, mut replies) = (Vec::new(), 0);
            while offsets.len() < 2 || replies < 3 {
                let message = client.control.hear().await;
                match message["type"].as_str() {
                    Some("message") => offsets.push(message["offset"].as_u64().expect("an offset")),
                    _ => {
                        assert!(["in", "out", "end"].iter().any(|re| message["re"] == *re), "{message}");
                        replies += 1;
                    }
                }
            }
            assert_eq!(offsets, [2 * round + 1, 2 * round + 2], "over {over:?}, {history} kept");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn messages_left_out_by_an_aborted_replay_are_reported_to_the_pattern() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = '>'\nhistory_messages = 1000\nhistory_bytes = 100000000")];
    })
    .await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for _ in 0..300 {
        publish(&mut publisher, "r.x", &"x".repeat(10_000)).await;
    }
    let mut client = Party::from(web_socket::open_narrow(&server).await);
    client.handshake("slow").await;
    subscribe(&mut client, json!({"topic": "r.*"})).await;
    client.control.say(json!({"type": "subscribe", "topic": "r.x", "recent": 300, "id": "in"})).await;
    client.control.expect("subscribed").await;
    // Behind the replayed messages, as nothing is read.
    publish(&mut publisher, "r.x", "during").await;
    client.control.say(json!({"type": "unsubscribe", "topic": "r.x", "id": "out"})).await;
    let has_ended = || server.status.stats(9).list.iter().all(|client| client.subscriptions < 2);
    crate::common::until("the end of the subscription", has_ended).await;
    publish(&mut publisher, "r.x", "after").await;
    let (mut next, mut missed) = (1, 0);
    while next <= 302 {
        let message = client.control.hear().await;
        match message["type"].as_str() {
            Some("message") => {
                assert_eq!(message["offset"], next);
                next += 1;
            }
            Some("gap") => {
                assert_eq!((&message["first"], &message["last"]), (&json!(next), &json!(301)));
                (next, missed) = (302, 1);
            }
            _ => assert_eq!(message["re"], "out", "{message}"),
        }
    }
    assert_eq!(missed, 1, "the replay was not cut off");
    server.stop().await;
}

#[tokio::test]
async fn a_restart_starts_a_new_epoch() {
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let server = TestServer::start().await;
        epochs.push(publish(&mut Over::Native.party(&server, "Ada").await, "a", "x").await["epoch"].clone());
        server.stop().await;
    }
    assert_ne!(epochs[0], epochs[1]);
}

#[tokio::test]
async fn history_of_all_topics_together_stays_within_its_memory() {
    let server = TestServer::start_with(|config| config.limits.topic_memory_bytes = 100_000).await;
    let mut client = Over::Native.party(&server, "Ada").await;
    for n in 0..50 {
        publish(&mut client, &format!("topic.{n}"), &"x".repeat(10_000)).await;
    }
    let mut kept = 0;
    for n in 0..50 {
        client.control.say(json!({"type": "history", "topic": format!("topic.{n}"), "id": 1})).await;
        let reply = client.control.hear().await;
        kept += reply["messages"].as_array().expect("a page").len();
    }
    // A message counts twice: its compressed form may be stored as well.
    assert!((1..=5).contains(&kept), "{kept} messages of 10,000 bytes are kept in 100,000");
    server.stop().await;
}

#[tokio::test]
async fn by_default_the_largest_message_is_kept_and_earlier_ones_too() {
    let server = TestServer::start().await;
    let mut client = Over::Native.party(&server, "client").await;
    publish(&mut client, "a", "small").await;
    // Its length as text, within the limit of a megabyte.
    publish(&mut client, "a", &"x".repeat((1 << 20) - 100)).await;
    client.control.say(json!({"type": "history", "topic": "a"})).await;
    let page = client.control.expect("history").await;
    assert_eq!(page["messages"][0]["content"], "small", "{}", page["more"]);
    let since = json!({"epoch": page["epoch"], "offset": 1});
    let subscribed = subscribe(&mut client, json!({"topic": "a", "since": since, "lane": "control"})).await;
    assert_eq!(subscribed["recovered"], true);
    assert_eq!(client.control.expect("message").await["offset"], 2);
    server.stop().await;
}
