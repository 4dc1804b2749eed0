//! Clients that receive nothing: they do not read, or their machine does not acknowledge.

use std::time::Duration;

use quinn::TransportConfig;
use serde_json::json;

use super::common::{RawClient, framed, until};
use super::scene::{Scene, Target};

/// A client with this small receive window on each lane that reads nothing by itself.
async fn deaf(target: &Target, topic: &str) -> RawClient {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(2000_u32.into());
    let mut client = RawClient::connect(&target.endpoint_with(transport), target.addr).await;
    client.handshake("deaf").await;
    client.control.say(json!({"type": "subscribe", "topic": topic, "id": 1})).await;
    client.control.expect("subscribed").await;
    client
}

/// Publishes this many messages of about a thousand bytes; returns the number of refusals.
async fn publish(target: &Target, topic: &str, count: usize) -> usize {
    let mut publisher = target.client("publisher").await;
    let mut refused = 0;
    for n in 0..count {
        let content = "x".repeat(1000);
        publisher.control.say(json!({"type": "publish", "topic": topic, "content": content, "id": n})).await;
        refused += usize::from(publisher.control.hear().await["code"] == 503);
    }
    refused
}

const POLICIES: &str = "limits.lane_backlog_messages = 50
timing.block_timeout_ms = 50
topics = [
    { pattern = 'disconnect', overflow = 'disconnect', history_messages = 0 },
    { pattern = 'drop_oldest', overflow = 'drop_oldest', history_messages = 0 },
    { pattern = 'latest', overflow = 'latest', history_messages = 0 },
    { pattern = 'block', overflow = 'block', history_messages = 0 },
]";

#[tokio::test]
async fn a_client_that_never_reads_is_handled_by_policy_and_affects_no_other() {
    let scene = Scene::start(POLICIES).await;
    for (topic, leaves, refused) in
        [("disconnect", true, 0..1), ("drop_oldest", false, 0..1), ("latest", false, 0..1), ("block", false, 10..30)]
    {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(deaf(&scene.target, topic).await);
        }
        let count = publish(&scene.target, topic, if topic == "block" { 80 } else { 300 }).await;
        assert!(refused.contains(&count), "{count} were refused under {topic}");
        for client in &mut clients {
            if leaves {
                assert_eq!(client.closed().await.0, 4413, "{topic}");
            } else {
                client.control.lives(topic).await;
            }
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn a_client_that_subscribes_and_unsubscribes_without_reading_is_throttled() {
    let scene = Scene::start("").await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(2000_u32.into());
    let mut client = RawClient::connect(&scene.target.endpoint_with(transport), scene.target.addr).await;
    client.handshake("comes and goes").await;
    let request = |kind, topic| json!({"type": kind, "topic": topic, "lane": "control"}).to_string();
    client.control.raw(&framed(request("subscribe", "m.*").as_bytes())).await;
    let pair = ["subscribe", "unsubscribe"].map(|kind| framed(request(kind, "m.x").as_bytes())).concat();
    for _ in 0..2000 {
        client.control.raw(&pair).await;
    }
    // If it were still served, thousands would be queued by then.
    let mut waiting = 0;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        waiting = waiting.max(scene.server.status.stats(0).queues.messages);
    }
    assert!(waiting < 100, "{waiting} unread replies are queued");
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn a_client_that_requests_without_reading_slows_down_only_itself() {
    let scene = Scene::start("").await;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(2000_u32.into());
    let mut client = RawClient::connect(&scene.target.endpoint_with(transport), scene.target.addr).await;
    client.handshake("asks").await;
    let request = framed(json!({"type": "text", "content": "x".repeat(10_000)}).to_string().as_bytes());
    let mut stuck = 0;
    for _ in 0..4 {
        let mut lane = client.lane().await;
        // In the end it is no longer read, and there is no room for another request.
        let asking = async {
            for _ in 0..1000 {
                lane.send.write_all(&request).await.expect("the lane lives");
            }
        };
        stuck += usize::from(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err());
    }
    assert!(stuck > 0, "forty megabytes of requests were accepted although no answer was read");
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn a_client_whose_machine_acknowledges_nothing_is_gone_after_the_idle_time() {
    let settings =
        format!("timing.ping_interval_ms = 400\ntiming.ping_timeout_ms = 400\nquic.idle_timeout_ms = 1000\n{POLICIES}");
    let scene = Scene::start(&settings).await;
    let before = scene.server.status.clients();
    // Its sockets are open and fill up; nothing reads them any longer.
    let target = scene.target.clone();
    let frozen = tokio::task::spawn_blocking(move || {
        let machine = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut clients = Vec::new();
        for topic in ["disconnect", "drop_oldest", "latest", "block"].repeat(2) {
            clients.push(machine.block_on(deaf(&target, topic)));
        }
        (machine, clients)
    });
    let (machine, clients) = frozen.await.expect("they connect");
    assert_eq!(scene.server.status.clients(), before + 8);
    for topic in ["disconnect", "drop_oldest", "latest", "block"] {
        publish(&scene.target, topic, 60).await;
    }
    until("the end of the client that acknowledges nothing", || scene.server.status.clients() == before).await;
    // Dropped only now: until here it could have come back.
    tokio::task::spawn_blocking(move || drop((clients, machine))).await.expect("it ends");
    scene.end().await;
}
