//! What the operator looks at through the admin API: topics, their messages and members, and a user's connections.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use crate::common::TestServer;
use crate::common::admin::{self, get, post};
use crate::common::over::Over;
use crate::common::tokens::{asking, bearer};
use crate::common::topics::{Subscriber, rule};
use serde_json::{Value, json};

async fn server() -> TestServer {
    admin::server(|config| {
        config.topics =
            vec![rule("pattern = 'quiet.>'\nhistory_messages = 0"), rule("pattern = 'shy'\npresence = false")];
    })
    .await
}

async fn publish(server: &TestServer, topic: &str, content: &str) -> Value {
    let answer = post(server, "/api/publish", &[], &json!({"topic": topic, "content": content})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn ask(server: &TestServer, path: &str) -> Value {
    let answer = get(server, path, &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}: {answer:?}");
    answer.json()
}

/// A field of each of a list's entries.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a Value> {
    list.as_array().expect("a list").iter().map(|entry| &entry[field]).collect()
}

#[tokio::test]
async fn topics_are_listed_by_name_page_by_page_with_their_numbers() {
    let server = server().await;
    for topic in ["a.b", "a.c", "b.a", "quiet.one"] {
        publish(&server, topic, "x").await;
    }
    publish(&server, "a.c", "y").await;
    let mut subscriber = Subscriber::connect(&server, "Ada").await;
    subscriber.subscribe(json!({"topic": "a.c"})).await;
    subscriber.subscribe(json!({"topic": "a.*"})).await;
    let all = ask(&server, "/api/topics").await;
    assert_eq!(
        (each(&all["topics"], "topic"), &all["total"]),
        (["a.b", "a.c", "b.a", "quiet.one"].map(|it| json!(it)).iter().collect(), &json!(4))
    );
    assert!(all.get("next").is_none(), "{all}");
    let c = &all["topics"][1];
    let numbers = ["subscribers", "pattern_subscribers", "published", "offset"].map(|name| c[name].as_u64());
    assert_eq!(numbers, [Some(2), Some(1), Some(2), Some(2)], "{c}");
    assert!(c["per_second"].is_number(), "{c}");
    assert_eq!(
        (&c["durable"], &c["history"], &all["topics"][3]["history"]),
        (&json!(false), &json!(true), &json!(false))
    );

    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = ask(&server, &format!("/api/topics?contains=a&limit=1&after={after}")).await;
        assert_eq!(page["total"], 3, "{page}");
        names.extend(each(&page["topics"], "topic").into_iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(names, ["a.b", "a.c", "b.a"]);
    for wrong in ["limit=0", "limit=201", "limit=x", "match=a"] {
        get(&server, &format!("/api/topics?{wrong}"), &[]).await.refusal(400);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_topics_messages_are_read_page_by_page_with_values_and_attachments() {
    for over in Over::ALL {
        let server = server().await;
        let mut client = over.party(&server, "Ada").await;
        client
            .control
            .say(json!({"type": "publish", "topic": "a", "data": {"n": 9007199254740993_u64}, "id": 1}))
            .await;
        client.control.expect("published").await;
        for n in 2..=5 {
            publish(&server, "a", &n.to_string()).await;
        }
        let newest = ask(&server, "/api/history?topic=a&limit=2&reverse=true").await;
        assert_eq!((each(&newest["messages"], "offset"), &newest["more"]), (vec![&json!(5), &json!(4)], &json!(true)));
        assert_eq!(newest["offset"], 5);
        let epoch = newest["epoch"].as_str().expect("an epoch");
        let older = ask(&server, &format!("/api/history?topic=a&reverse=true&epoch={epoch}&offset=4")).await;
        assert_eq!(
            (each(&older["messages"], "offset"), &older["more"]),
            (vec![&json!(3), &json!(2), &json!(1)], &json!(false))
        );
        let value = &older["messages"][2];
        assert_eq!(
            (&value["data"], &value["encoding"]),
            (&json!({"n": 9007199254740993_u64}), &json!("json")),
            "{value}"
        );
        assert_eq!(value["from"], json!(client.id));
        let none = ask(&server, "/api/history?topic=nothing.here").await;
        assert_eq!((&none["messages"], &none["offset"]), (&json!([]), &json!(0)));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_tap_waits_for_the_next_message_of_a_topic() {
    let server = server().await;
    for topic in ["a", "quiet.one"] {
        let place = publish(&server, topic, "first").await;
        let tap = format!(
            "/api/history?topic={topic}&epoch={}&offset=1&wait_ms=30000",
            place["epoch"].as_str().expect("an epoch")
        );
        let (heard, _) = tokio::join!(ask(&server, &tap), publish(&server, topic, "second"));
        assert_eq!((&heard["epoch"], &heard["offset"]), (&place["epoch"], &json!(2)), "{heard}");
        let kept: &[&str] = if topic == "a" { &["second"] } else { &[] };
        assert_eq!(each(&heard["messages"], "content"), kept.iter().collect::<Vec<_>>(), "what is not kept is counted");
        // What is there already needs no wait, nor does another log.
        assert_eq!(ask(&server, &tap).await["offset"], 2);
        let restarted = ask(&server, &format!("/api/history?topic={topic}&epoch=other&offset=9&wait_ms=30000")).await;
        assert_eq!((&restarted["offset"], &restarted["recovered"]), (&json!(2), &json!(false)));
        let over = tap.replace("offset=1&wait_ms=30000", "offset=2&wait_ms=0");
        assert_eq!(ask(&server, &over).await["messages"], json!([]));
    }
    for wrong in [
        "wait_ms=1000",
        "epoch=a&wait_ms=1000",
        "offset=1",
        "epoch=a&offset=1&wait_ms=30001",
        "epoch=a&offset=1&wait_ms=1000&reverse=true",
        "limit=1001",
        "since=1",
    ] {
        get(&server, &format!("/api/history?topic=a&{wrong}"), &[]).await.refusal(400);
    }
    get(&server, "/api/history?topic=a.*", &[]).await.refusal(400);
    server.stop().await;
}

#[tokio::test]
async fn a_tap_ends_when_the_server_stops() {
    let server = server().await;
    let place = publish(&server, "a", "first").await;
    let tap =
        format!("/api/history?topic=a&epoch={}&offset=1&wait_ms=30000", place["epoch"].as_str().expect("an epoch"));
    let stream = admin::plain(&server).await;
    let right = admin::bearer(admin::TOKEN);
    let waiting =
        tokio::spawn(async move { admin::send(stream, &format!("GET {tap}"), &["host: localhost", &right], "").await });
    // However far the request is.
    let stopped = tokio::time::timeout(Duration::from_secs(10), server.stop());
    stopped.await.expect("the server stops while a tap waits");
    waiting.abort();
}

#[tokio::test]
async fn a_topics_members_are_listed_page_by_page() {
    let server = server().await;
    let mut subscribers = Vec::new();
    for name in ["Ada", "Bob", "Eve"] {
        let mut subscriber = Subscriber::connect(&server, name).await;
        subscriber.subscribe(json!({"topic": "a", "state": {"of": name}})).await;
        subscribers.push(subscriber);
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = ask(&server, &format!("/api/members?topic=a&limit=2{after}")).await;
        assert_eq!((&page["total"], &page["users"]), (&json!(3), &json!(0)), "{page}");
        for member in page["clients"].as_array().expect("members") {
            assert_eq!(member["state"]["of"], member["name"]);
            names.push(member["name"].clone());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["Ada", "Bob", "Eve"]);
    get(&server, "/api/members?topic=shy", &[]).await.refusal(404);
    for wrong in ["topic=a&limit=0", "topic=a&after=1", "topic=a..b", ""] {
        get(&server, &format!("/api/members?{wrong}"), &[]).await.refusal(400);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_connections_of_a_user_are_listed() {
    let server = admin::server(|config| config.auth = asking("")).await;
    let mut devices = Vec::new();
    for over in Over::ALL {
        devices.push(bearer(over, &server, json!({"sub": "ada", "name": "Ada"})).await);
    }
    let _other = bearer(Over::WebSocket, &server, json!({"sub": "bob"})).await;
    let listed = ask(&server, "/api/clients?user=ada").await;
    assert_eq!(listed["total"], 3);
    let mut ids: Vec<_> = devices.iter().map(|device| json!(device.id)).collect();
    ids.sort_by_key(ToString::to_string);
    assert_eq!(each(&listed["clients"], "id"), ids.iter().collect::<Vec<_>>());
    for client in listed["clients"].as_array().expect("clients") {
        assert_eq!((&client["user"], &client["name"]), (&json!("ada"), &json!("Ada")), "{client}");
        assert!(client["address"].is_string() && client["transport"].is_string(), "{client}");
    }
    assert_eq!(ask(&server, "/api/clients?user=nobody").await, json!({"clients": [], "total": 0}));
    for wrong in ["", "user=", "name=ada"] {
        get(&server, &format!("/api/clients?{wrong}"), &[]).await.refusal(400);
    }
    server.stop().await;
}

#[tokio::test]
async fn durable_topics_are_listed_read_and_tapped_also_while_no_client_uses_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = || {
        admin::server(|config| {
            config.store.dir = Some(dir.path().to_owned());
            config.store.min_free_bytes = 0;
            config.topics = vec![rule("pattern = 'd'\ndurability = 'os'")];
        })
    };
    let server = start().await;
    publish(&server, "d", "first").await;
    server.stop().await;
    let server = start().await;
    let listed = ask(&server, "/api/topics").await;
    let [topic] = listed["topics"].as_array().expect("a list").as_slice() else { panic!("{listed}") };
    assert_eq!((&topic["topic"], &topic["offset"], &topic["durable"]), (&json!("d"), &json!(1), &json!(true)));
    let page = ask(&server, "/api/history?topic=d").await;
    assert_eq!(each(&page["messages"], "content"), ["first"]);
    let tap =
        format!("/api/history?topic=d&epoch={}&offset=1&wait_ms=30000", page["epoch"].as_str().expect("an epoch"));
    let (heard, _) = tokio::join!(ask(&server, &tap), publish(&server, "d", "second"));
    assert_eq!(each(&heard["messages"], "content"), ["second"]);
    server.stop().await;
}
