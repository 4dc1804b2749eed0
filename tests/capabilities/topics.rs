//! Publish and subscribe: which clients get a topic's messages, in which order, on which lane, and which requests are
//! refused.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::{Over, Party};
use crate::common::topics::{Subscriber, TopicLane, rule};
use crate::common::{RawClient, RawLane, TestServer, soon};
use quinn::TransportConfig;
use serde_json::{Value, json};

/// Publishes and returns the offset.
async fn publish(client: &mut Party, topic: &str, content: &str) -> u64 {
    client.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": content})).await;
    let published = client.control.expect("published").await;
    assert_eq!((&published["re"], &published["topic"]), (&json!(content), &json!(topic)));
    published["offset"].as_u64().expect("an offset")
}

#[tokio::test]
async fn every_subscriber_gets_every_message_once_and_in_the_order_of_the_offsets() {
    let server = TestServer::start().await;
    let mut subscribers = Vec::new();
    for (n, over) in (0..9).zip(Over::in_turn()) {
        let mut subscriber = Subscriber::over(over, &server, &format!("subscriber {n}")).await;
        let subscribed = subscriber.subscribe(json!({"topic": "a.b"})).await;
        assert_eq!((&subscribed["topic"], &subscribed["offset"]), (&json!("a.b"), &json!(0)));
        subscribers.push(subscriber);
    }
    let mut publishers = tokio::task::JoinSet::new();
    for (n, over) in (0..4).zip(Over::in_turn()) {
        let mut publisher = over.party(&server, &format!("publisher {n}")).await;
        publishers.spawn(async move {
            for m in 0..100 {
                publish(&mut publisher, "a.b", &format!("{n}/{m}")).await;
            }
        });
    }
    publishers.join_all().await;
    let mut first: Option<Vec<Value>> = None;
    for subscriber in &mut subscribers {
        let mut heard = Vec::new();
        for offset in 1..=400 {
            let message = subscriber.hear("a.b").await;
            assert_eq!(message["offset"], offset, "offsets are without gaps here");
            heard.push(message);
        }
        let expected = first.get_or_insert_with(|| heard.clone());
        assert_eq!(*expected, heard, "all subscribers hear the same");
        for n in 0..4 {
            let of_one: Vec<_> =
                heard.iter().filter_map(|m| m["content"].as_str()?.strip_prefix(&format!("{n}/"))).collect();
            assert_eq!(of_one, (0..100).map(|m| m.to_string()).collect::<Vec<_>>(), "a publisher's order is kept");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn patterns_match_and_overlapping_subscriptions_deliver_once() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let mut subscriber = Subscriber::over(over, &server, "subscriber").await;
        for topic in [">", "a.*", "a.b", "a.>"] {
            let subscribed = subscriber.subscribe(json!({"topic": topic})).await;
            assert_eq!(subscribed.get("offset").is_some(), topic == "a.b", "a pattern has no position: {subscribed}");
        }
        for topic in ["a.b", "a.c", "x", "a.b.c", "a.b"] {
            publish(&mut publisher, topic, "content").await;
        }
        // Exact, else the earliest pattern.
        let lane = |number: usize| match over {
            Over::WebSocket => 0,
            _ => subscriber.subscribed[number]["lane"].as_u64().expect("a lane"),
        };
        let lane_of_next = lane(1);
        let lanes = [lane(2), lane(0), lane(0), lane(0), lane(2)];
        let mut heard = Vec::new();
        for _ in 0..5 {
            let (lane, message) = subscriber.any().await;
            heard.push((lane, message["topic"].as_str().expect("a topic").to_owned()));
        }
        let mut expected: Vec<_> =
            lanes.into_iter().zip(["a.b", "a.c", "x", "a.b.c", "a.b"].map(str::to_owned)).collect();
        heard.sort();
        expected.sort();
        assert_eq!(heard, expected);
        subscriber.unsubscribe("a.b").await;
        subscriber.unsubscribe(">").await;
        publish(&mut publisher, "a.b", "again").await;
        let (lane_of_star, message) = subscriber.any().await;
        assert_eq!((lane_of_star, &message["topic"]), (lane_of_next, &json!("a.b")));
        publish(&mut publisher, "x", "unheard").await;
        subscriber.lives("the subscriber").await;
        subscriber.nothing_more().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_topic_requested_on_the_control_lane_arrives_there_after_its_reply() {
    let server = TestServer::start().await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    publish(&mut publisher, "a", "before").await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(0_u8.into());
    let mut without_credit = Party::from(RawClient::connect(&server.endpoint_with(transport), server.addr).await);
    without_credit.handshake("no credit").await;
    let mut clients = vec![without_credit];
    for over in Over::ALL {
        clients.push(over.party(&server, "asks").await);
    }
    for client in &mut clients {
        client.control.say(json!({"type": "subscribe", "topic": "a", "recent": 9, "lane": "control", "id": 1})).await;
        let subscribed = client.control.expect("subscribed").await;
        assert!(subscribed.get("lane").is_none(), "{subscribed}");
        assert_eq!(client.control.expect("message").await["content"], "before");
    }
    // It need not be requested if there is no other lane.
    let mut socket = clients.pop().expect("the last");
    for client in [&mut clients[0], &mut socket] {
        client.control.say(json!({"type": "subscribe", "topic": "b", "id": 1})).await;
        assert!(client.control.expect("subscribed").await.get("lane").is_none());
    }
    publish(&mut publisher, "b", "no other lane").await;
    for client in [&mut clients[0], &mut socket] {
        assert_eq!(client.control.expect("message").await["content"], "no other lane");
    }
    server.stop().await;
}

#[tokio::test]
async fn sixteen_topics_have_separate_lanes_and_later_ones_share_by_priority() {
    let server = TestServer::start_with(|config| {
        config.topics = vec![rule("pattern = 'urgent.>'\npriority = 250"), rule("pattern = 'bulk.>'\npriority = 1")];
    })
    .await;
    let mut subscriber = Subscriber::connect(&server, "subscriber").await;
    let mut lanes = Vec::new();
    for n in 0..16 {
        let topic = match n {
            0..4 => format!("urgent.{n}"),
            4..8 => format!("bulk.{n}"),
            _ => format!("plain.{n}"),
        };
        lanes.push(subscriber.subscribe(json!({"topic": topic})).await["lane"].as_u64().expect("a lane"));
    }
    let mut distinct = lanes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 16, "each has a lane of its own");
    for (topic, own) in [("urgent.x", &lanes[0..4]), ("bulk.x", &lanes[4..8]), ("plain.x", &lanes[8..16])] {
        let shared = subscriber.subscribe(json!({"topic": topic})).await["lane"].as_u64().expect("a lane");
        assert!(own.contains(&shared), "{topic} shares lane {shared}, one of its priority is {own:?}");
    }
    let priorities = subscriber.lanes_seen(16).await;
    for (number, priority) in [(lanes[0], 250), (lanes[5], 1), (lanes[10], 128)] {
        assert_eq!(priorities[&number], priority);
    }
    // The bulk topics free their lane; no topic of that priority follows, so the next urgent topic gets a lane in its
    // place.
    for topic in ["bulk.4", "bulk.x"] {
        subscriber.unsubscribe(topic).await;
    }
    let fresh = subscriber.subscribe(json!({"topic": "urgent.y"})).await["lane"].as_u64().expect("a lane");
    assert!(!lanes.contains(&fresh), "{fresh} is a new lane");
    server.stop().await;
}

#[tokio::test]
async fn a_topic_left_and_rejoined_arrives_on_another_lane() {
    let server = TestServer::start().await;
    let mut subscriber = Subscriber::connect(&server, "subscriber").await;
    let mut lanes = Vec::new();
    for _ in 0..40 {
        lanes.push(subscriber.subscribe(json!({"topic": "a"})).await["lane"].as_u64().expect("a lane"));
        subscriber.unsubscribe("a").await;
    }
    assert!(
        lanes.windows(2).all(|pair| pair[0] != pair[1]),
        "messages in flight on the old lane are distinguished: {lanes:?}"
    );
    assert_eq!(lanes.iter().max(), Some(&16), "lanes are used again: {lanes:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_topic_does_not_reuse_a_lane_that_delivered_its_messages_before() {
    let server = TestServer::start().await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(2_u8.into());
    let mut client = Party::from(RawClient::connect(&server.endpoint_with(transport), server.addr).await);
    client.handshake("two lanes").await;
    let mut lane_of = async |topic: &str| {
        client.control.say(json!({"type": "subscribe", "topic": topic, "recent": 9, "id": topic})).await;
        client.control.expect("subscribed").await.get("lane").and_then(Value::as_u64)
    };
    assert_eq!((lane_of("a.*").await, lane_of("other.1").await), (Some(1), Some(2)));
    // The next topic would get the first lane with the fewest topics, but not the lane on which the pattern delivered
    // it.
    assert_eq!((lane_of("a.b").await, lane_of("other.2").await), (Some(2), Some(1)));
    // A pattern has no starting position, so none of its messages is duplicated or left out on any lane.
    assert_eq!((lane_of("a.>").await, lane_of("*.c").await), (Some(1), Some(2)));
    assert_eq!(lane_of("a.c").await, None, "each lane has a pattern that matches it");
    for topic in ["*.c", "a.b"] {
        client.control.say(json!({"type": "unsubscribe", "topic": topic, "id": 1})).await;
        client.control.expect("ok").await;
    }
    publish(&mut publisher, "a.b", "before").await;
    let mut lane_of = async |topic: &str| {
        client.control.say(json!({"type": "subscribe", "topic": topic, "recent": 9, "id": topic})).await;
        client.control.expect("subscribed").await.get("lane").and_then(Value::as_u64)
    };
    assert_eq!(
        lane_of("d.c").await,
        Some(1),
        "what a pattern that was left has brought may be on its way on the other"
    );
    assert_eq!(
        lane_of("a.b").await,
        None,
        "its own old messages may be on their way on one, the pattern's on the other"
    );
    assert_eq!(client.control.expect("message").await["content"], "before");
    server.stop().await;
}

#[tokio::test]
async fn forbidden_and_unknown_topics_are_refused_by_name() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| {
            config.limits.max_subscriptions = 3;
            config.limits.max_topics = 4;
            config.topics = vec![
                rule("pattern = 'read-only'\npublish = 'nobody'"),
                rule("pattern = 'secret.>'\nsubscribe = 'nobody'"),
                rule("pattern = 'anonymous'\npresence = false"),
            ];
        })
        .await;
        let mut client = over.party(&server, "Ada").await;
        let topics = ["a", "b", "*"];
        for topic in topics {
            client.control.say(json!({"type": "subscribe", "topic": topic, "id": topic})).await;
            client.control.expect("subscribed").await;
        }
        for (request, code, names) in [
            (json!({"type": "subscribe", "topic": "a"}), 409, "a"),
            (json!({"type": "subscribe", "topic": "c"}), 403, "3 subscriptions"),
            (json!({"type": "unsubscribe", "topic": "c"}), 404, "c"),
            (json!({"type": "publish", "topic": "read-only", "content": "x"}), 403, "read-only"),
            (json!({"type": "publish", "topic": "a.*", "content": "x"}), 400, "topic"),
            (json!({"type": "publish", "topic": "a"}), 400, "content"),
            (json!({"type": "subscribe", "topic": "secret.a"}), 403, "secret.a"),
            (json!({"type": "subscribe", "topic": "secret.>"}), 403, "secret.>"),
            (json!({"type": "history", "topic": "secret.a"}), 403, "secret.a"),
            (json!({"type": "presence", "topic": "secret.a"}), 403, "secret.a"),
            (json!({"type": "presence", "topic": "anonymous"}), 404, "anonymous"),
            (json!({"type": "subscribe", "topic": "*", "since": {"epoch": "x", "offset": 1}}), 400, "since"),
        ] {
            let mut request = request;
            request["id"] = json!(7);
            client.control.say(request.clone()).await;
            let error = client.control.expect("error").await;
            assert_eq!((&error["code"], &error["re"]), (&json!(code), &json!(7)), "{request}: {error}");
            assert!(error["message"].as_str().is_some_and(|m| m.contains(names)), "{request}: {error}");
        }
        for n in 0..2 {
            client.control.say(json!({"type": "publish", "topic": format!("new.{n}"), "content": "x", "id": 1})).await;
            client.control.expect("published").await;
        }
        client.control.say(json!({"type": "publish", "topic": "new.2", "content": "x", "id": 1})).await;
        assert!(client.control.expect_error(503).await.contains("4 topics"));
        // A refused publish is reported without an id as well.
        client.control.say(json!({"type": "publish", "topic": "read-only", "content": "x"})).await;
        client.control.expect_error(403).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn the_first_matching_rule_applies_and_patterns_get_only_permitted_topics() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| {
            config.topics = vec![
                rule("pattern = 'secret.door'\npriority = 7"),
                rule("pattern = 'secret.>'\nsubscribe = 'nobody'"),
                rule("pattern = '*.door'\npublish = 'nobody'"),
            ];
        })
        .await;
        let mut subscriber = Subscriber::over(over, &server, "subscriber").await;
        for topic in [">", "*.a", "secret.*"] {
            subscriber
                .client
                .control
                .say(json!({"type": "subscribe", "topic": topic, "presence": true, "id": 1}))
                .await;
            let reply = subscriber.client.control.hear().await;
            let expected = if topic == "secret.*" { "error" } else { "subscribed" };
            assert_eq!(reply["type"], expected, "{topic}: {reply}");
        }
        let mut publisher = Over::Native.party(&server, "publisher").await;
        publish(&mut publisher, "secret.a", "for nobody").await;
        publish(&mut publisher, "secret.door", "allowed by the first rule").await;
        publisher.control.say(json!({"type": "publish", "topic": "back.door", "content": "x", "id": 1})).await;
        publisher.control.expect_error(403).await;
        assert_eq!(subscriber.any().await.1["content"], "allowed by the first rule");
        subscriber.lives("the subscriber").await;
        subscriber.nothing_more().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn messages_queued_on_topic_lanes_arrive_before_a_drain_ends_the_connection() {
    let server = TestServer::start().await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(5000_u32.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("narrow").await;
    client.control.say(json!({"type": "subscribe", "topic": "a"})).await;
    client.control.expect("subscribed").await;
    let mut publisher = server.client("publisher").await;
    for n in 0..100 {
        let message = json!({"type": "publish", "topic": "a", "content": "x".repeat(1000), "id": n});
        publisher.control.say(message).await;
        publisher.control.expect("published").await;
    }
    server.drain();
    let mut lane = TopicLane::accept(&client).await;
    for offset in 1..=100 {
        assert_eq!(lane.hear().await["offset"], offset);
    }
    assert_eq!(client.expect_close(1001).await["code"], 1001);
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_key_is_answered_and_not_published_again() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| config.limits.topic_keys = 2).await;
        let mut client = over.party(&server, "Ada").await;
        let mut offsets = Vec::new();
        for key in ["one", "two", "one", "three", "one"] {
            client.control.say(json!({"type": "publish", "topic": "a", "content": key, "key": key, "id": 1})).await;
            let published = client.control.expect("published").await;
            offsets.push((published["offset"].as_u64().expect("an offset"), published["duplicate"] == true));
        }
        // The window holds two keys: the last "one" is forgotten by then.
        assert_eq!(offsets, [(1, false), (2, false), (1, true), (3, false), (4, false)]);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_message_carries_its_attachment_and_history_returns_it_as_base64() {
    for over in Over::ALL {
        let server = TestServer::start().await;
        let mut client = Subscriber::over(over, &server, "Ada").await;
        client.subscribe(json!({"topic": "a"})).await;
        let publish = json!({"type": "publish", "topic": "a", "id": 1});
        let mut publisher = Over::Native.party(&server, "Bob").await;
        publisher.control.say_with(publish, &[0, 1, 2, 255]).await;
        publisher.control.expect("published").await;
        let (message, attachment) = client.hear_with().await;
        assert_eq!((&message["type"], &message["from"]), (&json!("message"), &json!(publisher.id)));
        assert_eq!(attachment, [0, 1, 2, 255]);
        client.client.control.say(json!({"type": "history", "topic": "a", "id": 2})).await;
        let history = client.client.control.expect("history").await;
        let mut expected = message;
        expected["data"] = json!("AAEC/w==");
        assert_eq!((&history["messages"], &history["more"]), (&json!([expected]), &json!(false)));
        server.stop().await;
    }
}

#[tokio::test]
async fn history_comes_in_pages_from_either_end() {
    for over in Over::ALL {
        let server =
            TestServer::start_with(|config| config.topics = vec![rule("pattern = 'a'\nhistory_messages = 25")]).await;
        let mut client = over.party(&server, "Ada").await;
        for n in 1..=30 {
            publish(&mut client, "a", &n.to_string()).await;
        }
        for (reverse, expected) in [(false, (6..=30).collect::<Vec<u64>>()), (true, (6..=30).rev().collect())] {
            let (mut seen, mut since, mut pages) = (Vec::new(), Value::Null, 0);
            loop {
                let ask =
                    json!({"type": "history", "topic": "a", "limit": 10, "reverse": reverse, "since": since, "id": 1});
                client.control.say(ask).await;
                let history = client.control.expect("history").await;
                let page = history["messages"].as_array().expect("a page");
                seen.extend(page.iter().map(|message| message["offset"].as_u64().expect("an offset")));
                pages += 1;
                if history["more"] == false {
                    break;
                }
                since = json!({"epoch": history["epoch"], "offset": seen.last()});
            }
            assert_eq!((seen, pages), (expected, 3), "reverse: {reverse}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_stops_a_topic_lane_violates_the_protocol() {
    let server = TestServer::start().await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    let mut subscriber = Subscriber::connect(&server, "subscriber").await;
    subscriber.subscribe(json!({"topic": "a"})).await;
    publish(&mut publisher, "a", "first").await;
    assert_eq!(subscriber.lane().await.hear().await["content"], "first");
    subscriber.lane().await.receive.stop(0_u32.into()).expect("the lane is open");
    subscriber.client.control.lives("the subscriber").await;
    for n in 0.. {
        publish(&mut publisher, "a", &n.to_string()).await;
        if subscriber.client.quic().0.close_reason().is_some() {
            break;
        }
    }
    let (code, reason) = subscriber.client.closed().await;
    assert_eq!(code, 1002, "{reason}");
    assert!(reason.contains("unsubscribe"), "{reason}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_may_have_a_thousand_topics_and_leaves_nothing_behind() {
    for over in Over::ALL {
        let server = TestServer::start_with(|config| {
            config.timing.topic_idle_ms = 1;
            config.topics = vec![rule("pattern = '>'\nhistory_messages = 0")];
        })
        .await;
        let mut publisher = Over::Native.party(&server, "publisher").await;
        let mut subscriber = Subscriber::over(over, &server, "subscriber").await;
        for n in 0..1000 {
            subscriber.subscribe(json!({"topic": format!("t.{n}")})).await;
        }
        assert_eq!(server.status.topics(), 1000);
        for n in 0..1000 {
            assert_eq!(publish(&mut publisher, &format!("t.{n}"), "x").await, 1);
        }
        for n in 0..1000 {
            subscriber.hear(&format!("t.{n}")).await;
        }
        if over != Over::WebSocket {
            assert_eq!(subscriber.lanes_seen(16).await.len(), 16, "so many topics share sixteen lanes");
        }
        drop(subscriber);
        crate::common::until("the topics to be forgotten", || server.status.topics() == 0).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn requests_on_a_request_lane_are_answered_there() {
    let server = TestServer::start().await;
    let mut subscriber = Subscriber::connect(&server, "Ada").await;
    let mut lane: RawLane = subscriber.client.lane().await;
    for (request, reply) in [
        (json!({"type": "subscribe", "topic": "a", "lane": "control"}), "subscribed"),
        (json!({"type": "publish", "topic": "a", "content": "x"}), "published"),
        (json!({"type": "history", "topic": "a"}), "history"),
        (json!({"type": "presence", "topic": "a"}), "presence"),
        (json!({"type": "unsubscribe", "topic": "a"}), "ok"),
    ] {
        let mut request = request;
        request["id"] = json!("here");
        lane.say(request.clone()).await;
        assert_eq!(lane.expect(reply).await["re"], "here", "{request} is answered on its lane");
    }
    assert_eq!(subscriber.client.control.expect("message").await["content"], "x");
    let published = soon("a datagram", async {
        let publish = json!({"type": "publish", "topic": "a", "content": "y", "id": 5});
        subscriber.client.quic().0.send_datagram(publish.to_string().into()).expect("it leaves");
        subscriber.client.quic().0.read_datagram().await.expect("a reply")
    })
    .await;
    let published: Value = serde_json::from_slice(&published).expect("JSON");
    assert_eq!((&published["type"], &published["offset"]), (&json!("published"), &json!(2)));
    server.stop().await;
}

#[tokio::test]
async fn the_history_of_a_topic_without_messages_is_empty_and_has_its_position() {
    for over in Over::ALL {
        let none = rule("pattern = 'none.>'\nhistory_messages = 0");
        let server = TestServer::start_with(|config| config.topics = vec![none]).await;
        let mut client = over.party(&server, "Ada").await;
        let mut history = async |topic: &str| {
            client.control.say(json!({"type": "history", "topic": topic, "id": 1})).await;
            let page = client.control.expect("history").await;
            assert_eq!((&page["messages"], &page["more"], &page["re"]), (&json!([]), &json!(false), &json!(1)));
            (page["epoch"].clone(), page["offset"].clone())
        };
        let (epoch, offset) = history("new").await;
        assert!(epoch.as_str().is_some_and(|epoch| !epoch.is_empty()) && offset == 0, "{epoch} {offset}");
        assert_eq!(history("new").await, (epoch.clone(), offset));
        assert_eq!(server.status.stats(0).topics.count, 0, "reading makes no topic");

        for topic in ["new", "none.a", "none.a"] {
            client.control.say(json!({"type": "publish", "topic": topic, "content": "first", "id": 2})).await;
            client.control.expect("published").await;
        }
        client.control.say(json!({"type": "history", "topic": "none.a"})).await;
        let page = client.control.expect("history").await;
        assert_eq!((&page["messages"], &page["offset"]), (&json!([]), &json!(2)), "nothing of it is kept: {page}");
        assert_eq!(page.get("recovered"), None, "no position was given: {page}");
        for (topic, offset, recovered) in
            [("none.a", 2, true), ("none.a", 1, false), ("new", 0, true), ("new", 9, false)]
        {
            let epoch = if topic == "new" { &epoch } else { &page["epoch"] };
            let since = json!({"epoch": epoch, "offset": offset});
            client.control.say(json!({"type": "history", "topic": topic, "since": since})).await;
            let page = client.control.expect("history").await;
            assert_eq!(page["recovered"], recovered, "{topic} since {offset}: {page}");
        }
        // From that position on nothing is missed.
        let since = json!({"epoch": epoch, "offset": 0});
        client.control.say(json!({"type": "subscribe", "topic": "new", "since": since, "lane": "control"})).await;
        assert_eq!(client.control.expect("subscribed").await["recovered"], true);
        assert_eq!(client.control.expect("message").await["content"], "first");
        server.stop().await;
    }
}
