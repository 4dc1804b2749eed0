//! A second WebSocket of a session: one more lane, for long messages, and never a second client.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use serde_json::{Value, json};

use crate::common::forms::Form;
use crate::common::over::{Over, Party};
use crate::common::web_socket::{self, SocketLane};
use crate::common::{TestServer, until};

fn handshake(more: Value) -> Value {
    let mut message = json!({"type": "handshake", "protocol_version": "1.0"});
    message.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    message
}

/// A client on a WebSocket, and the secret of its session.
async fn first(server: &TestServer, more: Value) -> (Party, Value) {
    let mut party: Party = web_socket::open(server).await.into();
    let response = party.handshake_with(handshake(more)).await;
    (party, response["session"].clone())
}

/// Its second WebSocket, and the number of the lane.
async fn second(server: &TestServer, session: &Value) -> (SocketLane, Value) {
    let mut socket = web_socket::open(server).await;
    socket.say(handshake(json!({"id": 1, "attach": session}))).await;
    let response = socket.expect("handshake_response").await;
    assert_eq!((&response["accepted"], &response["re"]), (&json!(true), &json!(1)), "{response}");
    let lane = socket.expect("lane").await;
    (socket, lane["lane"].clone())
}

async fn subscribe(party: &mut Party, more: Value) -> Value {
    let mut message = json!({"type": "subscribe", "id": "s"});
    message.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    party.control.say(message).await;
    party.control.expect("subscribed").await
}

async fn publish(by: &mut Party, topic: &str, content: &str) {
    by.control.say(json!({"type": "publish", "id": "p", "topic": topic, "content": content})).await;
    by.control.expect("published").await;
}

#[tokio::test]
async fn it_is_a_lane_of_the_session_and_no_client() {
    let server = TestServer::start().await;
    let mut other = Over::Native.party(&server, "Bob").await;
    // Sockets are spread over the workers, so some of these are on another one than their session.
    for n in 0..6 {
        let (mut ada, session) = first(&server, json!({"client_name": "Ada"})).await;
        let mut socket = web_socket::open(&server).await;
        socket.say(handshake(json!({"id": 7, "attach": session, "client_name": "Eve", "token": "x"}))).await;
        let response = socket.expect("handshake_response").await;
        let expected = json!({
            "type": "handshake_response", "re": 7, "accepted": true, "client_id": ada.id,
            "server_name": response["server_name"], "protocol_version": "1.0", "limits": response["limits"],
        });
        assert_eq!(response, expected);
        assert_eq!(socket.expect("lane").await, json!({"type": "lane", "lane": 1, "priority": 128}));

        socket.say(json!({"type": "list_clients", "id": 1})).await;
        let clients = socket.expect("client_list").await;
        assert_eq!(clients["total"], 2, "{clients}");
        for request in 0..20 {
            socket.say(json!({"type": "text", "id": request, "content": "on the second"})).await;
            ada.control.say(json!({"type": "text", "id": request, "content": "on the first"})).await;
        }
        for request in 0..20 {
            let (one, two) = (ada.control.expect("text").await, socket.expect("text").await);
            assert_eq!((&one["re"], &one["content"]), (&json!(request), &json!("Echo: on the first")));
            assert_eq!((&two["re"], &two["content"]), (&json!(request), &json!("Echo: on the second")));
        }
        // What others get is from the one client, and what they send to it comes on the first connection.
        socket.say(json!({"type": "direct", "id": 2, "to": other.id, "content": "hi"})).await;
        assert_eq!(other.control.expect("direct").await["from"], ada.id.as_str());
        socket.expect("ok").await;
        other.control.say(json!({"type": "direct", "to": ada.id, "content": "hi"})).await;
        assert_eq!(ada.control.expect("direct").await["from"], other.id.as_str());
        socket.say(json!({"type": "broadcast", "id": 3, "content": n.to_string()})).await;
        for party in [&mut ada, &mut other] {
            assert_eq!(party.control.expect("broadcast").await["content"], n.to_string());
        }
        assert_eq!(socket.expect("ok").await["delivered"], 2);
        ada.control.say(json!({"type": "close"})).await;
        assert_eq!(ada.closed().await.0, 1000);
        assert_eq!(socket.closed().await.0, 1000);
    }
    server.stop().await;
}

#[tokio::test]
async fn topics_with_the_bulk_lane_arrive_on_it_and_all_others_on_the_first() {
    let server = TestServer::start().await;
    for _ in 0..4 {
        let (mut ada, session) = first(&server, json!({})).await;
        let mut publisher = Over::Native.party(&server, "Bob").await;
        let before = subscribe(&mut ada, json!({"topic": "before", "lane": "bulk"})).await;
        assert_eq!(before["lane"], Value::Null, "there is no second connection yet: {before}");
        let (mut socket, lane) = second(&server, &session).await;
        for (topic, bound, on) in [
            ("bulk.one", "bulk", &lane),
            ("bulk.*", "bulk", &lane),
            ("small", "own", &Value::Null),
            ("control", "control", &Value::Null),
        ] {
            assert_eq!(subscribe(&mut ada, json!({"topic": topic, "lane": bound})).await["lane"], *on, "{topic}");
        }
        for topic in ["bulk.one", "small", "bulk.two", "control", "before"] {
            publish(&mut publisher, topic, topic).await;
        }
        for topic in ["bulk.one", "bulk.two"] {
            let message = socket.expect("message").await;
            assert_eq!((&message["topic"], &message["content"]), (&json!(topic), &json!(topic)));
        }
        for topic in ["small", "control", "before"] {
            ada.hear_of(topic).await;
        }
        // The same subscription again could not tell its replay from messages that are still on their way.
        ada.control.say(json!({"type": "unsubscribe", "id": 1, "topic": "bulk.one"})).await;
        ada.control.expect("ok").await;
        let again = subscribe(&mut ada, json!({"topic": "bulk.one", "lane": "bulk", "recent": 1})).await;
        assert_eq!(again["lane"], Value::Null, "{again}");
        ada.hear_of("bulk.one").await;
        // A replay comes on it as well.
        let replayed = subscribe(&mut ada, json!({"topic": "bulk.two", "lane": "bulk", "recent": 1})).await;
        assert_eq!(replayed["lane"], Value::Null, "a pattern of the client is on that lane: {replayed}");
        ada.hear_of("bulk.two").await;
        publish(&mut publisher, "other", "x").await;
        let replayed = subscribe(&mut ada, json!({"topic": "other", "lane": "bulk", "recent": 1})).await;
        assert_eq!(replayed["lane"], lane, "{replayed}");
        assert_eq!(socket.expect("message").await["topic"], "other");
    }
    server.stop().await;
}

#[tokio::test]
async fn bulk_that_is_not_read_holds_up_nothing_else() {
    let server = TestServer::start_with(|config| {
        config.limits.lane_backlog_bytes = 8 << 20;
        config.limits.client_backlog_bytes = 16 << 20;
    })
    .await;
    let (mut ada, session) = first(&server, json!({})).await;
    let mut socket = web_socket::open_narrow(&server).await;
    socket.say(handshake(json!({"attach": session}))).await;
    socket.expect("handshake_response").await;
    socket.expect("lane").await;
    subscribe(&mut ada, json!({"topic": "bulk", "lane": "bulk"})).await;
    subscribe(&mut ada, json!({"topic": "small"})).await;
    let mut publisher = Over::Native.party(&server, "Bob").await;
    for n in 0..4 {
        publish(&mut publisher, "bulk", &"x".repeat(900_000)).await;
        publish(&mut publisher, "small", &n.to_string()).await;
        assert_eq!(ada.hear_of("small").await["content"], n.to_string());
        ada.control.lives("a client with bulk that it does not read").await;
    }
    for _ in 0..4 {
        assert_eq!(socket.expect("message").await["content"].as_str().map(str::len), Some(900_000));
    }
    server.stop().await;
}

/// How a client ends its second connection.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Message,
    Frame,
    Vanishing,
}

#[tokio::test]
async fn its_end_ends_its_subscriptions_and_nothing_else() {
    let server = TestServer::start().await;
    for (n, ending) in [Ending::Message, Ending::Frame, Ending::Vanishing].into_iter().cycle().take(6).enumerate() {
        let (topic, pattern) = (format!("bulk.{n}"), format!("many.{n}.>"));
        let (mut ada, session) = first(&server, json!({})).await;
        let mut publisher = Over::Native.party(&server, "Bob").await;
        let (mut socket, lane) = second(&server, &session).await;
        let subscribed = subscribe(&mut ada, json!({"topic": topic, "lane": "bulk"})).await;
        subscribe(&mut ada, json!({"topic": pattern, "lane": "bulk"})).await;
        subscribe(&mut ada, json!({"topic": format!("kept.{n}")})).await;
        publish(&mut publisher, &topic, "1").await;
        assert_eq!(socket.expect("message").await["offset"], 1);
        match ending {
            Ending::Message => {
                socket.say(json!({"type": "text", "id": 1, "content": "last"})).await;
                socket.say(json!({"type": "close", "code": 3007, "reason": "enough"})).await;
                socket.expect("text").await;
                assert_eq!(socket.closed().await.0, 3007);
            }
            Ending::Frame => {
                socket.socket.close(None).await.expect("it closes");
                drop(socket);
            }
            Ending::Vanishing => drop(socket),
        }
        let mut ended = Vec::new();
        for _ in 0..2 {
            let notice = ada.control.expect("unsubscribed").await;
            assert_eq!(notice["code"], 503, "{notice}");
            assert!(notice["reason"].as_str().is_some_and(|reason| reason.contains("second connection")), "{notice}");
            ended.push(notice["topic"].as_str().expect("a topic").to_owned());
        }
        ended.sort();
        assert_eq!(ended, [topic.clone(), pattern.clone()], "{ending:?}");
        // Meanwhile published, and then replayed by the position.
        publish(&mut publisher, &topic, "2").await;
        publish(&mut publisher, &format!("kept.{n}"), "kept").await;
        ada.hear_of(&format!("kept.{n}")).await;
        let since = json!({"epoch": subscribed["epoch"], "offset": 1});
        let again = subscribe(&mut ada, json!({"topic": topic, "lane": "bulk", "since": since})).await;
        assert_eq!((&again["recovered"], &again["lane"]), (&json!(true), &Value::Null));
        assert_eq!(ada.hear_of(&topic).await["offset"], 2);

        // Another one takes its place, as a lane with another number.
        let (mut socket, other) = second(&server, &session).await;
        assert_ne!(lane, other);
        let own = format!("again.{n}");
        assert_eq!(subscribe(&mut ada, json!({"topic": own, "lane": "bulk"})).await["lane"], other);
        publish(&mut publisher, &own, "x").await;
        assert_eq!(socket.expect("message").await["topic"], own);
    }
    server.stop().await;
}

#[tokio::test]
async fn it_ends_with_the_session_and_the_same_code() {
    let server = TestServer::start().await;
    for code in [1000, 3500] {
        let (mut ada, session) = first(&server, json!({})).await;
        let (mut socket, _) = second(&server, &session).await;
        subscribe(&mut ada, json!({"topic": "bulk", "lane": "bulk"})).await;
        ada.control.say(json!({"type": "close", "code": code})).await;
        assert_eq!((ada.closed().await.0, socket.closed().await.0), (code, code));
    }
    // A violation on either of them is the session's.
    for on_second in [false, true] {
        let (mut ada, session) = first(&server, json!({})).await;
        let (mut socket, _) = second(&server, &session).await;
        if on_second {
            socket.body(b"\x02zstd").await;
        } else {
            ada.control.body(b"\x02zstd").await;
        }
        ada.expect_close(1002).await;
        assert_eq!(socket.closed().await.0, 1002);
    }
    let (ada, session) = first(&server, json!({})).await;
    let (mut socket, _) = second(&server, &session).await;
    ada.vanish();
    assert_eq!(socket.closed().await.0, 1001, "the first connection was lost");

    let (mut ada, session) = first(&server, json!({})).await;
    let (mut socket, _) = second(&server, &session).await;
    server.drain();
    ada.expect_close(1001).await;
    assert_eq!(socket.closed().await.0, 1001);
    server.stop().await;
}

#[tokio::test]
async fn only_the_secret_of_an_open_session_on_websocket_without_one_is_accepted() {
    let server = TestServer::start().await;
    let elsewhere = TestServer::start().await;
    let (mut ada, session) = first(&server, json!({})).await;
    let (mut socket, _) = second(&server, &session).await;
    let (mut gone, of_gone) = first(&server, json!({})).await;
    gone.control.say(json!({"type": "close"})).await;
    gone.closed().await;
    until("the end of a session", || server.status.clients() == 1).await;
    let mut native = Over::Native.newcomer(&server).await;
    let of_native = native.handshake_with(handshake(json!({}))).await["session"].clone();
    let (_there, of_elsewhere) = first(&elsewhere, json!({})).await;
    let mut forged = session.as_str().expect("a secret").to_owned();
    let last = if forged.ends_with('A') { "Q" } else { "A" };
    forged.replace_range(forged.len() - 1.., last);
    for (what, secret) in [
        ("a session that has one", session.clone()),
        ("a session that has ended", of_gone),
        ("a session on QUIC", of_native),
        ("a session of another server", of_elsewhere),
        ("the client's id", json!(ada.id)),
        ("a forged secret", json!(forged)),
        ("anything", json!("x")),
    ] {
        let mut stranger = web_socket::open(&server).await;
        stranger.say(handshake(json!({"id": 1, "attach": secret}))).await;
        let response = stranger.expect("handshake_response").await;
        assert_eq!((&response["accepted"], &response["re"]), (&json!(false), &json!(1)), "{what}: {response}");
        assert!(response["reason"].as_str().is_some_and(|reason| reason.starts_with("attach")), "{what}: {response}");
        let close = stranger.expect("close").await;
        assert_eq!((&close["code"], stranger.closed().await.0), (&json!(4403), 4403), "{what}");
    }
    for over in Over::QUIC {
        let (_bob, of_bob) = first(&server, json!({})).await;
        let mut stranger = over.newcomer(&server).await;
        stranger.control.say(handshake(json!({"attach": of_bob}))).await;
        assert_eq!(stranger.control.expect("handshake_response").await["accepted"], false, "{over:?}");
        stranger.expect_close(4403).await;
    }
    let mut stranger = web_socket::open(&server).await;
    stranger.say(json!({"type": "handshake", "protocol_version": "2.0", "attach": session})).await;
    assert_eq!(stranger.expect("handshake_response").await["accepted"], false);
    assert_eq!(stranger.expect("close").await["code"], 1002);
    ada.control.lives("the session").await;
    socket.lives("its second connection").await;
    server.stop().await;
    elsewhere.stop().await;
}

#[tokio::test]
async fn it_counts_for_its_address_and_for_the_rate_of_its_client() {
    let server = TestServer::start_with(|config| {
        config.rates.loopback = true;
        config.rates.address_connections = 2;
        config.rates.client_messages = 1;
        config.rates.client_messages_burst = 20;
    })
    .await;
    let (mut ada, session) = first(&server, json!({})).await;
    let (mut socket, _) = second(&server, &session).await;
    let mut third = web_socket::open(&server).await;
    third.say(handshake(json!({}))).await;
    assert_eq!(third.expect("error").await["code"], 429);
    assert_eq!(third.expect("close").await["code"], 4429);
    let mut refused = 0;
    for _ in 0..15 {
        ada.control.say(json!({"type": "text", "content": "x"})).await;
        refused += usize::from(ada.control.hear().await["type"] == "error");
        socket.say(json!({"type": "text", "content": "x"})).await;
        refused += usize::from(socket.hear().await["type"] == "error");
    }
    assert!((5..=10).contains(&refused), "{refused} of 30 messages are above the one rate of both");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_second_connection_is_closed_and_the_session_goes_on() {
    let server = TestServer::start_with(|config| {
        config.timing.ping_interval_ms = 300;
        config.timing.ping_timeout_ms = 300;
    })
    .await;
    let (mut ada, session) = first(&server, json!({})).await;
    let (mut socket, _) = second(&server, &session).await;
    // The first one answers its pings; what it sends is no sign of life of the second.
    let answering = async {
        loop {
            ada.control.expect("ping").await;
            ada.control.say(json!({"type": "pong"})).await;
        }
    };
    let closed = async {
        socket.expect("ping").await;
        socket.closed().await
    };
    tokio::select! {
        () = answering => {}
        (code, _) = closed => assert_eq!(code, 4408),
    }
    ada.control.say(json!({"type": "text", "id": "x", "content": "still here"})).await;
    while ada.control.hear().await["re"] != "x" {}

    // The other way round, what the second one sends is none of the first, which ends both.
    let (mut ada, session) = first(&server, json!({})).await;
    let (mut socket, _) = second(&server, &session).await;
    let answering = async {
        loop {
            match socket.try_hear_body().await {
                Ok(_) => socket.say(json!({"type": "pong"})).await,
                Err(_) => return socket.closed().await.0,
            }
        }
    };
    ada.control.expect("ping").await;
    assert_eq!(answering.await, 4408);
    server.stop().await;
}

#[tokio::test]
async fn it_has_the_compression_of_the_session() {
    let server = TestServer::start().await;
    for form in Form::ALL {
        let (mut ada, session) = first(&server, json!({"compression": [form.name()]})).await;
        let mut socket = web_socket::open(&server).await;
        socket.say(handshake(json!({"attach": session}))).await;
        assert_eq!(socket.expect("handshake_response").await["compression"], form.name());
        socket.expect("lane").await;
        subscribe(&mut ada, json!({"topic": "bulk", "lane": "bulk"})).await;
        let text = "again ".repeat(1000);
        let message = json!({"type": "publish", "id": 1, "topic": "bulk", "content": text}).to_string();
        socket.body(&form.body(message.as_bytes())).await;
        let (mut published, mut brought) = (false, false);
        while !(published && brought) {
            let body = socket.hear_body().await;
            if body[0] == form.first_byte() {
                let message: Value = serde_json::from_slice(&form.inflated(&body)).expect("JSON");
                assert_eq!(message["content"], text);
                brought = true;
            } else {
                assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["type"], "published");
                published = true;
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_durable_consumer_on_it_gets_again_what_it_has_not_acknowledged() {
    let server = TestServer::start().await;
    let (mut ada, session) = first(&server, json!({})).await;
    let (mut socket, lane) = second(&server, &session).await;
    let wanted = json!({"topic": "jobs", "durable": "worker", "lane": "bulk"});
    assert_eq!(subscribe(&mut ada, wanted.clone()).await["lane"], lane);
    publish(&mut ada, "jobs", "one").await;
    assert_eq!(socket.expect("message").await["content"], "one");
    drop(socket);
    assert_eq!(ada.control.expect("unsubscribed").await["code"], 503);
    assert_eq!(subscribe(&mut ada, wanted).await["lane"], Value::Null);
    let again = ada.control.expect("message").await;
    assert_eq!((&again["content"], &again["tries"]), (&json!("one"), &json!(2)));
    server.stop().await;
}
