//! Requests in great numbers. Rates limit how many a client may send; these tests check that even so many do not affect
//! other clients.

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::common::{On, soon};
use super::scene::{Scene, Target};

/// Sends this many datagrams as fast as possible, without reading the answers that arrive as datagrams.
pub(crate) async fn datagrams(target: &Target, clients: usize, each: usize) {
    let mut flooding = JoinSet::new();
    for _ in 0..clients {
        let mut client = target.client("flood").await;
        flooding.spawn(async move {
            let text = json!({"type": "text", "content": "x".repeat(900)}).to_string();
            let direct = json!({"type": "direct", "to": client.id, "content": "x"}).to_string();
            let bodies: [Bytes; 3] = [text.into(), Bytes::from_static(br#"{"type":"ping"}"#), direct.into()];
            for n in 0..each {
                let body = bodies[n % bodies.len()].clone();
                soon("room for a datagram", client.connection.send_datagram_wait(body)).await.expect("it leaves");
                if n % 100 == 99 {
                    // Other messages to it arrive here, and must be read.
                    client.control.say(json!({"type": "ping", "id": n})).await;
                    while client.control.hear().await["re"] != n {}
                }
            }
        });
    }
    while let Some(ended) = flooding.join_next().await {
        ended.expect("it is served to the end");
    }
}

#[tokio::test]
async fn a_flood_of_datagrams_is_answered_as_far_as_possible_and_affects_no_other_client() {
    let scene = Scene::start("").await;
    datagrams(&scene.target, 4, 5000).await;
    scene.end().await;
}

#[tokio::test]
async fn a_flood_of_malformed_datagrams_closes_its_client_at_the_third() {
    let scene = Scene::start("").await;
    for _ in 0..20 {
        let client = scene.target.client("flood").await;
        for _ in 0..1000 {
            if client.connection.send_datagram(Bytes::from_static(b"\xff\xff")).is_err() {
                break;
            }
        }
        assert_eq!(client.closed().await.0, 1007);
    }
    scene.end().await;
}

/// Subscribes and unsubscribes, to new topics each time and to patterns, as fast as it is answered.
pub(crate) async fn subscriptions(target: &Target, clients: usize, rounds: usize) {
    let mut flooding = JoinSet::new();
    for n in 0..clients {
        let mut client = target.client("fickle").await;
        flooding.spawn(async move {
            for round in 0..rounds {
                let topics = [format!("flood.{n}.{}", round % 200), format!("flood.*.{round}.>"), ">".to_owned()];
                for topic in &topics {
                    client.control.say(json!({"type": "subscribe", "topic": topic, "presence": true, "id": 1})).await;
                }
                for topic in &topics {
                    client.control.say(json!({"type": "unsubscribe", "topic": topic, "id": 2})).await;
                }
                for _ in 0..2 * topics.len() {
                    let reply = client.control.hear().await;
                    assert!(reply["type"] == "subscribed" || reply["type"] == "ok", "{reply}");
                }
            }
        });
    }
    while let Some(ended) = flooding.join_next().await {
        ended.expect("it is served to the end");
    }
}

#[tokio::test]
async fn a_flood_of_short_subscriptions_affects_no_other_client() {
    let scene = Scene::start("").await;
    subscriptions(&scene.target, 4, 400).await;
    scene.end().await;
}

#[tokio::test]
async fn patterns_designed_to_be_slow_delay_no_client() {
    let scene = Scene::start("topics = [{ pattern = 'a.>', history_messages = 0 }]").await;
    // As many as a client may have, each of which must be compared with a topic and differs only at its end.
    let topic = ["a"; 128].join(".");
    let mut clients = Vec::new();
    for n in 0..6 {
        let client = scene.target.client("patterns").await;
        let mut lane = client.lane().await;
        for number in 0..1000 {
            let pattern = format!("a.a.a.a.a.a.a.a.{}.x{n}-{number}", ["*"; 110].join("."));
            lane.say(json!({"type": "subscribe", "topic": pattern, "id": number})).await;
            lane.expect("subscribed").await;
        }
        clients.push(client);
    }
    let mut fickle = scene.target.client("fickle").await;
    for _ in 0..100 {
        // Each time a client joins, and the receivers must be found again.
        fickle.ask(On::Control, json!({"type": "subscribe", "topic": "a.*", "id": 1}).to_string().as_bytes()).await;
        let publish = json!({"type": "publish", "topic": topic, "content": "x", "id": 2}).to_string();
        assert_eq!(fickle.ask(On::Control, publish.as_bytes()).await["type"], "published");
        fickle.ask(On::Control, json!({"type": "unsubscribe", "topic": "a.*", "id": 3}).to_string().as_bytes()).await;
    }
    drop((clients, fickle));
    scene.end().await;
}

#[tokio::test]
async fn topics_and_subscriptions_beyond_the_limits_are_refused_and_existing_ones_continue() {
    let scene = Scene::start(
        "limits.max_topics = 50\nlimits.max_subscriptions = 60\n\
        topics = [{ pattern = 't.>', history_messages = 0 }]",
    )
    .await;
    let mut client = scene.target.client("greedy").await;
    let mut refused = 0;
    for n in 0..100 {
        for kind in ["subscribe", "publish"] {
            let request = json!({"type": kind, "topic": format!("t.{kind}.{n}"), "content": "x", "id": n}).to_string();
            let reply = client.ask(On::Control, request.as_bytes()).await;
            if reply["type"] == "error" {
                assert!(reply["code"] == 503, "{reply}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 200 - 49, "one of fifty is the neighbour's");
    drop(client);
    let mut client = scene.target.client("greedier").await;
    for n in 0..70 {
        let request = json!({"type": "subscribe", "topic": format!("t.{n}.*"), "id": n}).to_string();
        let reply = client.ask(On::Control, request.as_bytes()).await;
        let expected = if n < 60 { "subscribed" } else { "error" };
        assert_eq!(reply["type"], expected, "{n}: {reply}");
        assert!(n < 60 || reply["code"] == 403, "{reply}");
    }
    drop(client);
    scene.end().await;
}
