//! Topics on a disk: what was told outlives the server, and nothing is told before it does.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::path::Path;

use quic_websocket::{Config, Server};
use serde_json::{Value, json};

use crate::common::over::{Over, Party};
use crate::common::topics::{Subscriber, rule};
use crate::common::{TestServer, until, with_attachment};

/// Settings of a server with its store in this directory.
fn settings(config: &mut Config, dir: &Path, rules: &str) {
    config.store.dir = Some(dir.to_owned());
    config.store.segment_bytes = 1 << 20;
    config.store.min_free_bytes = 0;
    config.topics = rules.split("---").map(rule).collect();
}

async fn start(dir: &Path, rules: &str) -> TestServer {
    TestServer::start_with(|config| settings(config, dir, rules)).await
}

async fn publish(client: &mut Party, fields: Value) -> Value {
    let mut request = json!({"type": "publish", "id": 1});
    request.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    client.control.say(request).await;
    client.control.hear().await
}

async fn history(client: &mut Party, mut fields: Value) -> Value {
    (fields["type"], fields["id"]) = (json!("history"), json!(2));
    client.control.say(fields).await;
    client.control.expect("history").await
}

fn offsets(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["offset"].as_u64().expect("an offset")).collect()
}

#[tokio::test]
async fn epochs_offsets_contents_and_keys_outlive_the_server() {
    for level in ["os", "fsync"] {
        let dir = tempfile::tempdir().expect("a directory");
        let rules = format!("pattern = 'd.>'\ndurability = '{level}'");
        let mut epoch = Value::Null;
        for (life, over) in (0..4_u64).zip(Over::in_turn()) {
            let server = start(dir.path(), &rules).await;
            let mut client = over.party(&server, "publisher").await;
            let mut subscriber = Subscriber::over(over, &server, "subscriber").await;
            if life > 0 {
                // A position from before the restart misses nothing, and gets nothing twice.
                let since = json!({"epoch": epoch, "offset": 3 * (life - 1) + 1});
                let subscribed = subscriber.subscribe(json!({"topic": "d.a", "since": since})).await;
                assert_eq!((&subscribed["recovered"], &subscribed["epoch"]), (&json!(true), &epoch), "{subscribed}");
                assert_eq!(subscribed["offset"], 3 * life);
                let old = subscriber.hear("d.a").await;
                assert_eq!((&old["offset"], &old["content"]), (&json!(3 * life - 1), &json!("second")), "{old}");
                assert_eq!(subscriber.hear("d.a").await["content"], "third");
                // So do attachments.
                let page = history(&mut client, json!({"topic": "d.b", "limit": 9})).await;
                assert_eq!(offsets(&page), (1..=life).collect::<Vec<_>>());
                let messages = page["messages"].as_array().expect("messages");
                assert!(messages.iter().all(|message| message["data"] == "Ynl0ZXM="), "{page}");
            } else {
                subscriber.subscribe(json!({"topic": "d.a"})).await;
            }
            let first =
                publish(&mut client, json!({"topic": "d.a", "content": "first", "key": format!("k{life}")})).await;
            assert_eq!((&first["type"], &first["stored"]), (&json!("published"), &json!(level)), "{first}");
            assert_eq!(first["offset"], 3 * life + 1);
            epoch = first["epoch"].clone();
            // Keys of all lives are known.
            for known in 0..=life {
                let again = json!({"topic": "d.a", "content": "again", "key": format!("k{known}")});
                let again = publish(&mut client, again).await;
                assert_eq!((&again["duplicate"], &again["offset"]), (&json!(true), &json!(3 * known + 1)), "{again}");
            }
            publish(&mut client, json!({"topic": "d.a", "content": "second"})).await;
            publish(&mut client, json!({"topic": "d.a", "content": "third"})).await;
            let body = with_attachment(&json!({"type": "publish", "id": 1, "topic": "d.b"}), b"bytes");
            client.control.body(&body).await;
            client.control.expect("published").await;
            for (offset, content) in [(1, "first"), (2, "second"), (3, "third")] {
                let message = subscriber.hear("d.a").await;
                assert_eq!((&message["offset"], &message["content"]), (&json!(3 * life + offset), &json!(content)));
            }
            server.stop().await;
        }
    }
}

#[tokio::test]
async fn publishes_in_flight_do_not_stop_their_lane_and_are_answered_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), "pattern = 'd'\ndurability = 'fsync'").await;
    for (round, over) in (0..).zip(Over::in_turn().take(4)) {
        let mut client = over.party(&server, "client").await;
        for id in 0..256 {
            client.control.say(json!({"type": "publish", "id": id, "topic": "d", "content": "x"})).await;
        }
        client.control.say(json!({"type": "ping", "id": "ping"})).await;
        client.control.say(json!({"type": "text", "id": "echo", "content": "x"})).await;
        client
            .control
            .say(json!({"type": "history", "id": "history", "topic": "d", "limit": 1, "reverse": true}))
            .await;
        let (mut published, mut others) = (Vec::new(), Vec::new());
        while others.last() != Some(&json!("history")) {
            let reply = client.control.hear().await;
            match reply["type"].as_str() {
                Some("published") => {
                    published.push((reply["re"].clone(), reply["offset"].as_u64().expect("an offset")));
                }
                Some("history") => {
                    // One lane sees its own messages.
                    assert_eq!((offsets(&reply), published.len()), (vec![256 * (round + 1)], 256));
                    others.push(reply["re"].clone());
                }
                _ => others.push(reply["re"].clone()),
            }
        }
        let expected: Vec<_> = (0..256).map(|id| (json!(id), 256 * round + id + 1)).collect();
        assert_eq!(published, expected);
        assert_eq!(others, [json!("ping"), json!("echo"), json!("history")]);
    }
    server.stop().await;
}

#[tokio::test]
async fn history_goes_both_ways_from_memory_and_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_with(|config| {
        settings(config, dir.path(), "pattern = 'd'\ndurability = 'os'\nhistory_messages = 400");
        config.store.cache_messages = 10;
    })
    .await;
    let mut client = Over::Native.party(&server, "client").await;
    for n in 1..=500 {
        client.control.say(json!({"type": "publish", "topic": "d", "content": format!("m{n}")})).await;
    }
    let epoch = publish(&mut client, json!({"topic": "d", "content": "m501"})).await["epoch"].clone();
    let since = |offset: u64| json!({"epoch": epoch, "offset": offset});
    for (fields, expected, more, recovered) in [
        (json!({"limit": 3}), vec![102, 103, 104], true, Value::Null),
        (json!({"limit": 3, "since": since(485)}), vec![486, 487, 488], true, json!(true)),
        (json!({"limit": 5, "since": since(489)}), vec![490, 491, 492, 493, 494], true, json!(true)),
        (json!({"limit": 5, "since": since(498)}), vec![499, 500, 501], false, json!(true)),
        (json!({"limit": 2, "since": since(50)}), vec![102, 103], true, json!(false)),
        (json!({"limit": 4, "reverse": true}), vec![501, 500, 499, 498], true, Value::Null),
        (json!({"limit": 4, "reverse": true, "since": since(494)}), vec![493, 492, 491, 490], true, Value::Null),
        (json!({"limit": 9, "reverse": true, "since": since(105)}), vec![104, 103, 102], false, Value::Null),
        (json!({"limit": 9, "reverse": true, "since": since(102)}), vec![], false, Value::Null),
    ] {
        let mut request = fields.clone();
        request["topic"] = json!("d");
        let page = history(&mut client, request).await;
        assert_eq!(offsets(&page), expected, "{fields}");
        assert_eq!(
            (&page["more"], &page["recovered"], &page["offset"]),
            (&json!(more), &recovered, &json!(501)),
            "{fields}"
        );
        for message in page["messages"].as_array().expect("messages") {
            assert_eq!(message["content"], format!("m{}", message["offset"]), "{message}");
        }
    }
    let all = history(&mut client, json!({"topic": "d", "limit": 1000})).await;
    assert_eq!(offsets(&all), (102..=501).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn a_time_names_a_place_in_a_log_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_with(|config| {
        settings(
            config,
            dir.path(),
            "pattern = 'd'\ndurability = 'os'---pattern = 'm'---pattern = 'short'\nhistory_messages = 2",
        );
        config.store.cache_messages = 1;
    })
    .await;
    let mut client = Over::Native.party(&server, "client").await;
    for topic in ["d", "m"] {
        // Two messages in each of several milliseconds.
        let mut times: Vec<u64> = Vec::new();
        while times.len() < 10 {
            publish(&mut client, json!({"topic": topic, "content": "x"})).await;
            let newest = history(&mut client, json!({"topic": topic, "limit": 1, "reverse": true})).await;
            times.push(newest["messages"][0]["timestamp"].as_u64().expect("a time"));
        }
        for time in [0, times[0], times[3], times[7] + 1, times[9], times[9] + 1, u64::from(u32::MAX) << 20] {
            let first = times.iter().take_while(|&&at| at < time).count() as u64 + 1;
            let forwards = history(&mut client, json!({"topic": topic, "limit": 100, "since_time": time})).await;
            assert_eq!(offsets(&forwards), (first..=10).collect::<Vec<_>>(), "{topic} since {time} of {times:?}");
            assert_eq!(forwards["recovered"], true, "{forwards}");
            let backwards = json!({"topic": topic, "limit": 100, "since_time": time, "reverse": true});
            let backwards = history(&mut client, backwards).await;
            assert_eq!(offsets(&backwards), (1..first).rev().collect::<Vec<_>>(), "{topic} before {time}");
            let mut subscriber = Subscriber::over(Over::Native, &server, "subscriber").await;
            let subscribed = subscriber.subscribe(json!({"topic": topic, "since_time": time})).await;
            assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(true), &json!(10)));
            for offset in first..=10 {
                assert_eq!(subscriber.hear(topic).await["offset"], offset);
            }
        }
    }
    for _ in 0..3 {
        publish(&mut client, json!({"topic": "short", "content": "x"})).await;
    }
    let page = history(&mut client, json!({"topic": "short", "limit": 9, "since_time": 1})).await;
    assert_eq!((offsets(&page), &page["recovered"]), (vec![2, 3], &json!(false)));
    server.stop().await;
}

#[tokio::test]
async fn a_topic_begins_with_the_epoch_that_was_told_of_it() {
    for level in ["os", "fsync"] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = start(dir.path(), &format!("pattern = 'd'\ndurability = '{level}'")).await;
        let mut client = Over::Native.party(&server, "client").await;
        let told = history(&mut client, json!({"topic": "d", "limit": 1})).await;
        assert_eq!(told["offset"], 0);
        let published = publish(&mut client, json!({"topic": "d", "content": "x"})).await;
        assert_eq!(published["epoch"], told["epoch"]);
        let since = json!({"epoch": told["epoch"], "offset": 0});
        let page = history(&mut client, json!({"topic": "d", "limit": 1, "since": since})).await;
        assert_eq!((&page["recovered"], offsets(&page)), (&json!(true), vec![1]));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_replay_from_the_disk_continues_live_without_a_hole_or_a_duplicate() {
    const BEFORE: u64 = 3000;
    let dir = tempfile::tempdir().expect("a directory");
    let with_small_cache = |config: &mut Config| {
        settings(config, dir.path(), "pattern = 'd'\ndurability = 'os'");
        config.store.cache_messages = 50;
    };
    let server = TestServer::start_with(with_small_cache).await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    for n in 1..BEFORE {
        publisher.control.say(json!({"type": "publish", "topic": "d", "content": n.to_string()})).await;
    }
    publish(&mut publisher, json!({"topic": "d", "content": BEFORE.to_string()})).await;
    server.stop().await;
    // Nothing is in memory after the restart, and then only the newest.
    let server = TestServer::start_with(with_small_cache).await;
    let mut publisher = Over::Native.party(&server, "publisher").await;
    let mut last = BEFORE;
    for over in Over::in_turn().take(4) {
        let mut subscriber = Subscriber::over(over, &server, "subscriber").await;
        let subscribed = subscriber.subscribe(json!({"topic": "d", "recent": 1_000_000})).await;
        assert_eq!(subscribed["offset"], last);
        for offset in 1..=last + 200 {
            if offset % 10 == 0 && last < BEFORE + 2000 && offset <= 2000 {
                last += 1;
                publisher.control.say(json!({"type": "publish", "topic": "d", "content": last.to_string()})).await;
            }
            if offset > last {
                break;
            }
            let message = subscriber.hear("d").await;
            assert_eq!((&message["offset"], &message["content"]), (&json!(offset), &json!(offset.to_string())));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_retention_took_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = "pattern = 'd'\ndurability = 'os'\nhistory_messages = 20";
    let mut epoch = Value::Null;
    for life in 0..2_u64 {
        let server = start(dir.path(), rules).await;
        let mut client = Over::Native.party(&server, "client").await;
        for _ in 0..50 {
            epoch = publish(&mut client, json!({"topic": "d", "content": "x"})).await["epoch"].clone();
        }
        let newest = 50 * (life + 1);
        for (offset, recovered) in [(newest - 20, true), (newest - 21, false), (newest, true), (newest + 1, false)] {
            let mut subscriber = Subscriber::over(Over::Native, &server, "subscriber").await;
            let since = json!({"epoch": epoch, "offset": offset});
            let subscribed = subscriber.subscribe(json!({"topic": "d", "since": since})).await;
            assert_eq!(subscribed["recovered"], recovered, "{subscribed}");
            if offset < newest {
                assert_eq!(subscriber.hear("d").await["offset"], newest - 19);
            }
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_durable_publishes_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_with(|config| {
        settings(config, dir.path(), "pattern = 'd'\ndurability = 'fsync'---pattern = 'm'");
        config.store.max_bytes = 4 << 20;
    })
    .await;
    let mut client = Over::Native.party(&server, "client").await;
    let content = "x".repeat(100_000);
    let mut stored = 0;
    let refused = loop {
        let reply = publish(&mut client, json!({"topic": "d", "content": content})).await;
        if reply["type"] == "error" {
            break reply;
        }
        stored += 1;
        assert!(stored < 100, "the bound holds");
    };
    assert_eq!(refused["code"], 503, "{refused}");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("full")), "{refused}");
    let in_memory = publish(&mut client, json!({"topic": "m", "content": "x"})).await;
    assert_eq!((&in_memory["type"], &in_memory["stored"]), (&json!("published"), &Value::Null));
    let page = history(&mut client, json!({"topic": "d", "limit": 1, "reverse": true})).await;
    assert_eq!(offsets(&page), [stored]);
    server.stop().await;
}

#[tokio::test]
async fn a_full_store_takes_messages_again_once_topics_have_let_go_of_old_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = TestServer::start_with(|config| {
        settings(config, dir.path(), "pattern = 'd'\ndurability = 'os'\nhistory_messages = 5");
        config.store.max_bytes = 4 << 20;
    })
    .await;
    let mut client = Over::Native.party(&server, "client").await;
    let content = "x".repeat(200_000);
    let (mut refused, mut newest) = (false, 0);
    // Faster than files are given back, so it is refused now and then; but never for good.
    while !refused || newest < 100 {
        let reply = publish(&mut client, json!({"topic": "d", "content": content})).await;
        if reply["type"] == "error" {
            assert_eq!(reply["code"], 503, "{reply}");
            refused = true;
        } else {
            newest += 1;
            assert_eq!(reply["offset"], newest, "a refused message takes no offset");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn bounds_of_topics_that_nobody_uses_hold_after_a_restart_and_unused_topics_are_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), "pattern = '>'\ndurability = 'os'").await;
    let mut client = Over::Native.party(&server, "client").await;
    for _ in 0..20 {
        publish(&mut client, json!({"topic": "d", "content": "x"})).await;
    }
    client.control.say(json!({"type": "subscribe", "topic": "unused", "id": 1})).await;
    client.control.expect("subscribed").await;
    server.stop().await;
    let server = TestServer::start_with(|config| {
        settings(config, dir.path(), "pattern = '>'\ndurability = 'os'\nhistory_messages = 3");
        config.timing.topic_idle_ms = 1;
    })
    .await;
    assert_eq!(server.status.topics(), 1, "the one without messages, which is forgotten soon");
    until("one topic on disk", || server.status.stats(0).store.is_some_and(|store| store.topics == 1)).await;
    let mut client = Over::Native.party(&server, "client").await;
    // Publishes and reads load the topic, and it is forgotten in between.
    for offset in 21..30 {
        assert_eq!(publish(&mut client, json!({"topic": "d", "content": "x"})).await["offset"], offset);
        let page = history(&mut client, json!({"topic": "d", "limit": 9})).await;
        assert_eq!(offsets(&page), (offset - 2..=offset).collect::<Vec<_>>());
        if offset % 4 == 0 {
            until("no topic in memory", || server.status.topics() == 0).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_store_has_one_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), "pattern = 'd'\ndurability = 'os'").await;
    let mut config = Config::default();
    config.addr = ([127, 0, 0, 1], 0).into();
    (config.tls.cert, config.tls.key) = (server.files.cert.clone(), server.files.key.clone());
    settings(&mut config, dir.path(), "pattern = 'd'\ndurability = 'os'");
    let error = Server::bind(config).expect_err("the directory is in use").to_string();
    assert!(error.contains("store.dir") && error.contains("in use by another"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_blocking_topic_on_a_disk_waits_for_its_subscribers() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(dir.path(), "pattern = 'd'\ndurability = 'os'\noverflow = 'block'").await;
    let mut client = Over::Native.party(&server, "client").await;
    let mut subscriber = Subscriber::over(Over::WebSocket, &server, "subscriber").await;
    subscriber.subscribe(json!({"topic": "d"})).await;
    for offset in 1..=50 {
        assert_eq!(publish(&mut client, json!({"topic": "d", "content": "x"})).await["offset"], offset);
    }
    for offset in 1..=50 {
        assert_eq!(subscriber.hear("d").await["offset"], offset);
    }
    server.stop().await;
}
