//! With many clients at once, not a single message is lost, duplicated or reordered.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::HashMap;
use std::sync::Arc;

use crate::common::{RawClient, RawLane, TestServer, until};
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CLIENTS: usize = 200;
const SOCKETS: usize = 10;
/// Echoes of each client, and messages to its neighbour.
const EACH: usize = 20;
/// Additional broadcasts of each of these.
const BROADCASTERS: usize = 10;

/// Sends everything at once, while the replies are read elsewhere; echoes return on this lane.
async fn speak(lane: &mut RawLane, number: usize, neighbour: &str) {
    for n in 0..EACH {
        if number < BROADCASTERS {
            lane.say(json!({"type": "broadcast", "content": n.to_string()})).await;
        }
        lane.say(json!({"type": "text", "content": "", "id": n})).await;
        lane.say(json!({"type": "direct", "to": neighbour, "content": n.to_string()})).await;
    }
    for n in 0..EACH {
        assert_eq!(lane.expect("text").await["re"], n, "client {number} gets its echoes in order");
    }
}

/// Reads the broadcasts and the other neighbour's messages: those of each sender in order.
async fn listen(control: &mut RawLane, number: usize, neighbour: &str) {
    let mut heard: HashMap<(String, String), usize> = HashMap::new();
    for _ in 0..(BROADCASTERS + 1) * EACH {
        let message = control.hear().await;
        let [kind, from] = ["type", "from"].map(|field| message[field].as_str().expect("text").to_owned());
        let next = heard.entry((kind, from)).or_default();
        assert_eq!(message["content"], next.to_string(), "client {number} expected number {next}, got {message}");
        *next += 1;
    }
    assert!(heard.values().all(|&count| count == EACH), "client {number} heard {heard:?}");
    assert!(heard.contains_key(&("direct".into(), neighbour.into())), "client {number} heard {heard:?}");
}

#[tokio::test]
async fn two_hundred_clients_lose_duplicate_and_reorder_nothing() {
    let server = TestServer::start().await;
    let endpoints: Vec<_> = (0..SOCKETS).map(|_| server.endpoint()).collect();
    let mut arriving = JoinSet::new();
    for number in 0..CLIENTS {
        let (endpoint, addr) = (endpoints[number % SOCKETS].clone(), server.addr);
        arriving.spawn(async move {
            let mut client = RawClient::connect(&endpoint, addr).await;
            client.handshake(&format!("client {number}")).await;
            client
        });
    }
    let clients = arriving.join_all().await;
    let ids: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    // An accepted client is on its worker's roster a moment later.
    until("all are counted", || server.status.stats(0).clients.total == CLIENTS as u64).await;
    let mut listed: Vec<_> = server.status.stats(CLIENTS).list.iter().map(|client| client.id.to_string()).collect();
    listed.sort();
    let mut everybody = ids.clone();
    everybody.sort();
    assert_eq!(listed, everybody, "each is in the numbers once");
    let all_heard = Arc::new(Barrier::new(CLIENTS));
    let mut at_work = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let [left, right] = [CLIENTS - 1, 1].map(|step| ids[(number + step) % CLIENTS].clone());
        let all_heard = Arc::clone(&all_heard);
        at_work.spawn(async move {
            let mut lane = client.lane().await;
            tokio::join!(speak(&mut lane, number, &right), listen(&mut client.control, number, &left));
            all_heard.wait().await;
            for lane in [&mut lane, &mut client.control] {
                lane.say(json!({"type": "ping", "id": "last"})).await;
                assert_eq!(lane.expect("pong").await["re"], "last", "client {number} gets nothing twice");
            }
        });
    }
    at_work.join_all().await;
    server.stop().await;
}
