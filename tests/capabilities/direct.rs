//! `direct` and `signal` reach the one client they are for, wherever it is, and no other.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::TestServer;
use crate::common::over::{Over, Party};
use serde_json::{Value, json};

async fn two(server: &TestServer, from: Over, to: Over) -> (Party, Party) {
    (from.party(server, "sender").await, to.party(server, "receiver").await)
}

/// Checks that a client receives nothing before the answer to its own request.
async fn heard_nothing(client: &mut Party) {
    client.control.say(json!({"type": "ping", "id": "quiet?"})).await;
    assert_eq!(client.control.expect("pong").await["re"], "quiet?");
}

#[tokio::test]
async fn it_reaches_only_its_receiver_across_workers_too() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for (n, over) in (0..9).zip(Over::in_turn()) {
        clients.push(over.party(&server, &format!("client {n}")).await);
    }
    // From each carrier to each. With nine clients some are on each worker, so some of these pairs are on two. Three
    // pairs are a client with itself.
    for (sender, receiver) in (0..3).flat_map(|sender| (0..9).map(move |receiver| (sender, receiver))) {
        let (from, to) = (clients[sender].id.clone(), clients[receiver].id.clone());
        for message in [
            json!({"type": "direct", "to": to, "content": "Grüße \"🚀\"\n", "id": receiver}),
            json!({"type": "signal", "to": to.to_uppercase(), "data": {"sdp": "v=0"}, "id": receiver}),
        ] {
            let before = crate::common::now_ms();
            clients[sender].control.say(message.clone()).await;
            let heard = clients[receiver].control.hear().await;
            for field in ["type", "content", "data"] {
                assert_eq!(heard.get(field), message.get(field), "{field} of {heard}");
            }
            assert_eq!((&heard["from"], heard.get("re"), heard.get("to")), (&json!(from), None, None), "{heard}");
            let time = heard["timestamp"].as_u64().expect("a time");
            assert!((before..=crate::common::now_ms()).contains(&time), "{time} is when the server took it");
            assert_eq!(clients[sender].control.expect("ok").await, json!({"type": "ok", "re": receiver}));
        }
    }
    for client in &mut clients {
        heard_nothing(client).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_attachment_is_delivered_with_and_without_content() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut receiver) = two(&server, from, to).await;
        for (content, size) in [(json!("a picture"), 10), (Value::Null, 0), (Value::Null, 300_000)] {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
            let message = json!({"type": "direct", "id": size, "to": receiver.id, "content": content});
            sender.control.say_with(message, &bytes).await;
            let (heard, attachment) = receiver.control.hear_with().await;
            assert_eq!((&heard["type"], &heard["from"]), (&json!("direct"), &json!(sender.id)));
            assert_eq!(heard["content"], content);
            assert!(attachment == bytes, "{size} bytes came changed");
            assert_eq!(sender.control.expect("ok").await["re"], size);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_data_of_a_signal_is_delivered_byte_for_byte() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut receiver) = two(&server, from, to).await;
        let deep = format!("{}1{}", "[".repeat(63), "]".repeat(63));
        for data in [
            "null",
            "true",
            "0",
            "-0.10e+05",
            "123456789012345678901234567890.5",
            r#""""#,
            r#""\u00e4 ä \ud83d\ude80 🚀 \/ \n""#,
            "[]",
            "{}",
            r#"{"b":1,"a":2,"b":3,"type":"broadcast","":null}"#,
            r#"[ 1 , { "spaces" :	"kept" } ]"#,
            &deep,
        ] {
            let message = format!(r#"{{"type":"signal","id":1,"to":"{}","data":{data}}}"#, receiver.id);
            sender.control.body(message.as_bytes()).await;
            let heard = String::from_utf8(receiver.control.hear_body().await).expect("UTF-8");
            assert!(heard.contains(&format!(r#""data":{data}"#)), "expected the data {data} in {heard}");
            sender.control.expect("ok").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn without_an_id_there_is_no_ok() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut receiver) = two(&server, from, to).await;
        for n in 0..50 {
            sender.control.say(json!({"type": "direct", "to": receiver.id, "content": n.to_string()})).await;
        }
        for n in 0..50 {
            assert_eq!(receiver.control.expect("direct").await["content"], n.to_string());
        }
        heard_nothing(&mut sender).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn unknown_and_departed_clients_are_404_with_and_without_an_id() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut neighbour) = two(&server, from, to).await;
        let mut departed = to.party(&server, "departed").await;
        departed.control.say(json!({"type": "close"})).await;
        departed.closed().await;
        crate::common::until("the departed has left", || server.status.clients() == 2).await;
        for to in ["00000000-0000-0000-0000-000000000000", "eab95712-f81a-4916-a1a4-ee1bdbd0d292", &departed.id] {
            for id in [json!("a"), Value::Null] {
                for message in [
                    json!({"type": "direct", "id": id, "to": to, "content": "hello?"}),
                    json!({"type": "signal", "id": id, "to": to, "data": null}),
                ] {
                    sender.control.say(message.clone()).await;
                    let error = sender.control.expect("error").await;
                    assert_eq!((&error["code"], &error["re"]), (&json!(404), &id), "{message} was answered {error}");
                    let text = error["message"].as_str().expect("a reason");
                    assert!(text.starts_with("to: ") && text.contains(to), "{text}");
                }
            }
        }
        sender.control.say(json!({"type": "direct", "id": 1, "to": neighbour.id, "content": "still here"})).await;
        neighbour.control.expect("direct").await;
        sender.control.expect("ok").await;
        drop((sender, neighbour));
        crate::common::until("both to be gone", || server.status.clients() == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn direct_messages_keep_their_order_relative_to_broadcasts() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        let mut sender = over.party(&server, "sender").await;
        let mut receivers = Vec::new();
        for (n, to) in (0..6).zip(Over::in_turn()) {
            receivers.push(to.party(&server, &format!("receiver {n}")).await);
        }
        for n in 0..100 {
            sender.control.say(json!({"type": "broadcast", "content": n.to_string()})).await;
            for receiver in &receivers {
                sender.control.say(json!({"type": "direct", "to": receiver.id, "content": n.to_string()})).await;
            }
        }
        for receiver in &mut receivers {
            for n in 0..100 {
                for kind in ["broadcast", "direct"] {
                    assert_eq!(receiver.control.expect(kind).await["content"], n.to_string());
                }
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_in_a_row_keep_their_order_and_their_bytes_whatever_their_size() {
    let server = TestServer::start().await;
    let sizes = [3, 900, 1, 5000, 70_000, 2, 30_000, 30_000, 8, 1000];
    for over in Over::ALL {
        let mut sender = over.party(&server, "sender").await;
        let mut receivers = Vec::new();
        for (n, to) in (0..6).zip(Over::in_turn()) {
            receivers.push(to.party(&server, &format!("receiver {n}")).await);
        }
        // Runs to one receiver, and one message to each in turn; the sender is one of them.
        let ids: Vec<_> = receivers.iter().map(|receiver| receiver.id.clone()).chain([sender.id.clone()]).collect();
        let to = |n: usize| if n < 70 { n / 10 } else { n % 7 };
        // The sender reads its own after it has sent all.
        let size = |n: usize| if to(n) == 6 { 10 } else { sizes[n % sizes.len()] };
        let content = |n: usize| format!("{n} {}", "é\"".repeat(size(n) / 3));
        let requests: Vec<_> = (0..140)
            .map(|n| json!({"type": "direct", "id": n, "to": ids[to(n)], "content": content(n)}).to_string().into())
            .collect();
        sender.control.bodies(&requests).await;
        for (at, receiver) in receivers.iter_mut().enumerate() {
            for n in (0..140).filter(|&n| to(n) == at) {
                let heard = receiver.control.expect("direct").await;
                assert!(heard["content"] == content(n), "{n} came changed, or not in its turn");
            }
        }
        let (mut own, mut replies) = ((0..140).filter(|&n| to(n) == 6), 0..140);
        for _ in 0..160 {
            let heard = sender.control.hear().await;
            if heard["type"] == "direct" {
                assert!(heard["content"] == content(own.next().expect("no more")), "not in its turn");
            } else {
                assert_eq!(heard, json!({"type": "ok", "re": replies.next()}));
            }
        }
        heard_nothing(&mut sender).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_just_before_a_client_vanishes_are_delivered() {
    let server = TestServer::start().await;
    for (from, to) in Over::pairs() {
        let (mut sender, mut receiver) = two(&server, from, to).await;
        let message =
            |n: usize| json!({"type": "direct", "to": receiver.id, "content": n.to_string()}).to_string().into_bytes();
        // The last body ends the connection with 1007.
        let mut bodies: Vec<_> = (0..50).map(message).collect();
        bodies.extend([b"{".to_vec(), b"{".to_vec(), b"{".to_vec()]);
        sender.control.bodies(&bodies).await;
        for n in 0..50 {
            assert_eq!(receiver.control.expect("direct").await["content"], n.to_string());
        }
    }
    server.stop().await;
}
