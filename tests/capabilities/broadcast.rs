//! `broadcast` reaches every client, including its sender, unchanged and in one order.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::over::{Over, Party};
use serde_json::{Value, json};

/// Enough clients that some are on each worker, and on each carrier.
async fn crowd(server: &TestServer, size: usize) -> Vec<Party> {
    let mut clients = Vec::new();
    for (n, over) in (0..size).zip(Over::in_turn()) {
        clients.push(over.party(server, &format!("client {n}")).await);
    }
    clients
}

#[tokio::test]
async fn every_client_gets_it_with_sender_and_time_and_only_the_sender_an_ok() {
    let server = TestServer::start().await;
    let mut clients = crowd(&server, 8).await;
    for speaks in 0..3 {
        let (sender, before) = (clients[speaks].id.clone(), crate::common::now_ms());
        clients[speaks].control.say(json!({"type": "broadcast", "id": "b-1", "content": "Grüße \"🚀\"\n"})).await;
        let mut bodies = Vec::new();
        for client in &mut clients {
            bodies.push(client.control.hear_body().await);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "the same bytes for every receiver");
        let heard: Value = serde_json::from_slice(&bodies[0]).expect("JSON");
        assert_eq!((&heard["type"], &heard["content"]), (&json!("broadcast"), &json!("Grüße \"🚀\"\n")));
        assert_eq!(heard["from"], sender);
        assert_eq!(heard.get("re"), None, "it is not a reply: {heard}");
        let time = heard["timestamp"].as_u64().expect("a time");
        assert!((before..=crate::common::now_ms()).contains(&time), "{time} is when the server took it");

        assert_eq!(clients[speaks].control.expect("ok").await, json!({"type": "ok", "re": "b-1", "delivered": 8}));
    }
    for client in &mut clients {
        client.control.lives("a client that received nothing else").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn without_an_id_there_is_no_ok() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut sender = over.party(&server, "sender").await;
        for n in 0..5 {
            sender.control.say(json!({"type": "broadcast", "content": n.to_string()})).await;
            sender.control.say(json!({"type": "text", "content": "next", "id": n})).await;
            // A broadcast's own copy may arrive after the reply to a later request.
            let types = [sender.control.hear().await, sender.control.hear().await].map(|heard| heard["type"].clone());
            assert!(types.contains(&json!("broadcast")) && types.contains(&json!("text")), "{types:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_attachment_is_delivered_with_and_without_content() {
    let server = TestServer::start().await;
    let mut clients = crowd(&server, 4).await;
    for (speaks, (content, size)) in
        [(json!("a picture"), 10), (Value::Null, 0), (Value::Null, 300_000)].into_iter().enumerate()
    {
        let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
        clients[speaks].control.say_with(json!({"type": "broadcast", "id": 1, "content": content}), &bytes).await;
        let sender = clients[speaks].id.clone();
        for client in &mut clients {
            let (heard, attachment) = client.control.hear_with().await;
            assert_eq!((&heard["type"], &heard["from"]), (&json!("broadcast"), &json!(sender)));
            assert_eq!(heard["content"], content);
            assert!(attachment == bytes, "{size} bytes came changed");
        }
        assert_eq!(clients[speaks].control.expect("ok").await["delivered"], 4);
    }
    server.stop().await;
}

#[tokio::test]
async fn it_goes_to_connected_clients_and_delivered_counts_them() {
    let server = TestServer::start().await;
    let mut clients = crowd(&server, 6).await;
    let mut greet_nobody = Vec::new();
    for over in Over::ALL {
        greet_nobody.push(over.newcomer(&server).await);
    }
    for left in [6, 4, 1] {
        for mut leaving in clients.split_off(left) {
            leaving.control.say(json!({"type": "close"})).await;
            leaving.closed().await;
        }
        crate::common::until("the leaving have left", || server.status.clients() == left).await;
        clients[0].control.say(json!({"type": "broadcast", "id": 1, "content": "who is there?"})).await;
        for client in &mut clients {
            client.control.expect("broadcast").await;
        }
        assert_eq!(clients[0].control.expect("ok").await["delivered"], left);
    }
    drop(greet_nobody);
    server.stop().await;
}

#[tokio::test]
async fn all_receivers_see_the_broadcasts_of_all_senders_in_one_order() {
    const EACH: usize = 150;
    let server = TestServer::start().await;
    let clients = crowd(&server, 8).await;
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        tasks.spawn(async move {
            // Moves the whole client, including its connection.
            let mut client = client;
            let mut heard = Vec::new();
            for n in 0..EACH {
                client.control.say(json!({"type": "broadcast", "content": n.to_string()})).await;
            }
            for _ in 0..8 * EACH {
                let message = client.control.expect("broadcast").await;
                heard.push((message["from"].clone(), message["content"].clone()));
            }
            (client.id, heard)
        });
    }
    let heard = tasks.join_all().await;
    for (sender, _) in &heard {
        let own = heard[0].1.iter().filter(|(from, _)| from == sender);
        let numbers: Vec<usize> = own.filter_map(|(_, content)| content.as_str()?.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(0..EACH), "those of {sender}: {numbers:?}");
    }
    for (id, order) in &heard {
        let differs = order.iter().zip(&heard[0].1).position(|(one, other)| one != other);
        assert_eq!(differs, None, "{id} saw another order than {}", heard[0].0);
    }
    server.stop().await;
}
