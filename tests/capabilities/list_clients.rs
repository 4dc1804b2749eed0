//! `list_clients` lists the connected clients, page by page.

#![allow(clippy::expect_used)] // A test fails by panicking.

use std::collections::BTreeMap;

use crate::common::over::{Over, Party};
use crate::common::{RawClient, TestServer, until};
use quic_websocket::message::now_ms;
use serde_json::{Value, json};

async fn list(client: &mut Party, request: Value) -> Value {
    let mut message = json!({"type": "list_clients", "id": 8});
    message.as_object_mut().expect("an object").extend(request.as_object().expect("an object").clone());
    client.control.say(message).await;
    let list = client.control.expect("client_list").await;
    assert_eq!(list["re"], 8);
    list
}

fn ids(list: &Value) -> Vec<String> {
    let clients = list["clients"].as_array().expect("a list");
    clients.iter().map(|client| client["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn every_client_is_listed_with_name_time_and_carrier() {
    let server = TestServer::start().await;
    let before = now_ms();
    let (mut here, mut expected, mut no_handshake_yet) = (Vec::new(), BTreeMap::new(), Vec::new());
    for over in Over::ALL {
        let ada = over.party(&server, "Ada").await;
        let bob = over.party(&server, "Grüße 🚀").await;
        let mut nameless = over.newcomer(&server).await;
        nameless.handshake_with(json!({"type": "handshake", "protocol_version": "1.0"})).await;
        for (client, name) in [(ada, json!("Ada")), (bob, json!("Grüße 🚀")), (nameless, Value::Null)] {
            expected.insert(client.id.clone(), (name, over.name()));
            here.push(client);
        }
        no_handshake_yet.push(over.newcomer(&server).await);
    }
    for asks in [0, 3, 6] {
        let list = list(&mut here[asks], json!({})).await;
        assert_eq!((&list["total"], list.get("next")), (&json!(9), None), "{list}");
        let clients = list["clients"].as_array().expect("a list");
        assert_eq!(clients.len(), 9, "{list}");
        for (client, (id, (name, carrier))) in clients.iter().zip(&expected) {
            assert_eq!((&client["id"], &client["name"]), (&json!(id), name), "ordered by id: {list}");
            assert_eq!((client["name"].is_null(), client.get("name").is_some()), (name.is_null(), true), "{client}");
            assert_eq!(client["transport"], *carrier, "{client}");
            assert!((before..=now_ms()).contains(&client["connected_at"].as_u64().expect("a time")), "{client}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_follow_each_other_and_list_every_client_once() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for (n, over) in (0..7).zip(Over::in_turn()) {
        clients.push(over.party(&server, &format!("client {n}")).await);
    }
    let mut expected: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    expected.sort();
    for limit in [1, 3, 6, 7, 1000] {
        let (mut seen, mut request) = (Vec::new(), json!({"limit": limit}));
        loop {
            let page = list(&mut clients[limit % 3], request).await;
            assert_eq!(page["total"], 7, "{page}");
            let ids = ids(&page);
            assert!((1..=limit).contains(&ids.len()), "{limit}: {page}");
            let last = ids.last().cloned();
            seen.extend(ids);
            let Some(next) = page.get("next") else { break };
            assert_eq!(next.as_str(), last.as_deref(), "next is the last one shown");
            request = json!({"limit": limit, "after": next});
        }
        assert_eq!(seen, expected, "pages of {limit}");
    }
    let upper_case = list(&mut clients[0], json!({"after": expected[3].to_uppercase()})).await;
    assert_eq!(ids(&upper_case), expected[4..]);
    let behind_all = list(&mut clients[0], json!({"after": "ffffffff-ffff-ffff-ffff-ffffffffffff"})).await;
    assert_eq!((&behind_all["clients"], &behind_all["total"]), (&json!([]), &json!(7)));
    server.stop().await;
}

#[tokio::test]
async fn a_departed_client_is_not_listed_but_still_marks_a_position() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for (n, over) in (0..6).zip(Over::in_turn()) {
        clients.push(over.party(&server, &format!("client {n}")).await);
    }
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    for over in Over::ALL {
        // The client that leaves is neither the first nor the requesting one.
        let leaves = clients[1..].iter().position(|client| client.over == over).expect("two of each carrier") + 1;
        let leaver = clients.remove(leaves);
        let id = leaver.id.clone();
        leaver.vanish();
        until("one more to be gone", || server.status.clients() == clients.len()).await;
        let expected: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
        let all = list(&mut clients[0], json!({})).await;
        assert_eq!((ids(&all), &all["total"]), (expected.clone(), &json!(expected.len())));
        let behind = list(&mut clients[0], json!({"after": id})).await;
        assert_eq!(ids(&behind), expected[leaves..], "the page begins behind where it was");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_has_a_hundred_clients_by_default() {
    let server = TestServer::start().await;
    let mut ada = Over::WebSocket.party(&server, "Ada").await;
    let endpoint = server.endpoint();
    let mut others = Vec::new();
    for n in 0..100 {
        let mut other = RawClient::connect(&endpoint, server.addr).await;
        other.handshake(&format!("client {n}")).await;
        others.push(other);
    }
    let first = list(&mut ada, json!({})).await;
    assert_eq!((ids(&first).len(), &first["total"]), (100, &json!(101)));
    let second = list(&mut ada, json!({"after": first["next"]})).await;
    assert_eq!((ids(&second).len(), second.get("next")), (1, None), "{second}");
    server.stop().await;
}
