//! A client that sends too many requests is told when to continue, and is served again from then on; one that ignores
//! this is closed with 4429; no other client is affected. `address_limits.rs` tests the limits per address.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::{Duration, Instant};

use crate::common::library;
use crate::common::limits::{limited, refusal};
use crate::common::over::{Over, Party};
use crate::common::{On, TestServer, soon};
use quic_websocket::message::{ClientMessage, Close, CloseCode, ServerMessage};
use quic_websocket::{ClientError, Event};
use serde_json::{Value, json};

/// Every way to send a request, on each carrier.
fn every_way() -> impl Iterator<Item = (Over, On)> {
    Over::ALL.into_iter().flat_map(|over| over.ways().iter().map(move |&on| (over, on)))
}

fn text(id: u64, content: &str) -> Vec<u8> {
    json!({"type": "text", "id": id, "content": content}).to_string().into_bytes()
}

/// Sends requests until one is refused; returns the number served before, and the time to wait.
async fn until_refused(client: &mut Party, on: On, content: &str) -> (u64, Duration) {
    for id in 0.. {
        let answer = client.ask(on, &text(id, content)).await;
        if answer["type"] == "error" {
            return (id, refusal(&answer, id));
        }
        assert_eq!(answer["re"], id, "{answer}");
    }
    unreachable!("it is refused before numbers end")
}

#[tokio::test]
async fn a_request_above_the_rate_is_refused_until_the_given_time_on_every_way() {
    for (over, on) in every_way() {
        let server = limited(|rates| (rates.client_messages, rates.client_messages_burst) = (2, 10)).await;
        let mut neighbour = over.party(&server, "neighbour").await;
        let mut client = over.party(&server, "Ada").await;
        let (served, wait) = until_refused(&mut client, on, "x").await;
        assert!(served >= 10, "the burst was cut off after {served}, {on:?} of {over:?}");
        assert!(wait <= Duration::from_millis(500), "{wait:?} for one of two a second");
        neighbour.control.lives("the neighbour").await;
        tokio::time::sleep(wait).await;
        let answer = client.ask(on, &text(100, "x")).await;
        assert_eq!((&answer["type"], &answer["re"]), (&json!("text"), &json!(100)), "after {wait:?}: {answer}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_refused_request_has_no_effect() {
    for over in Over::ALL {
        let server = limited(|rates| (rates.client_messages, rates.client_messages_burst) = (1, 2)).await;
        let (mut ada, mut bob) = (over.party(&server, "Ada").await, over.party(&server, "Bob").await);
        let mut wait = Duration::ZERO;
        for id in 0..3 {
            ada.control.say(json!({"type": "direct", "id": id, "to": bob.id, "content": id.to_string()})).await;
            let answer = ada.control.hear().await;
            if id == 2 {
                wait = refusal(&answer, id);
            }
        }
        tokio::time::sleep(wait).await;
        ada.control.say(json!({"type": "direct", "id": 3, "to": bob.id, "content": "3"})).await;
        ada.control.expect("ok").await;
        for content in ["0", "1", "3"] {
            assert_eq!(bob.control.expect("direct").await["content"], content);
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn bytes_are_limited_by_the_inflated_size_of_messages() {
    let server = TestServer::start_with(|config| {
        config.limits.max_message_bytes = 10_000;
        config.rates.loopback = true;
        (config.rates.client_bytes, config.rates.client_bytes_burst) = (40_000, 100_000);
    })
    .await;
    for over in Over::ALL {
        let content = "x".repeat(9_900);
        let mut plain = over.party(&server, "plain").await;
        let (served, wait) = until_refused(&mut plain, On::Control, &content).await;
        assert!((10..20).contains(&served), "{served} messages of 10,000 bytes fitted into 100,000");
        tokio::time::sleep(wait).await;
        assert_eq!(plain.ask(On::Control, &text(100, &content)).await["type"], "text");

        let mut packed = over.newcomer(&server).await;
        packed.handshake_with(json!({"type": "handshake", "protocol_version": "1.0", "compression": ["zstd"]})).await;
        let inside = text(7, &content);
        let body = [&[0x02], &*zstd::bulk::compress(&inside, 3).expect("it compresses")].concat();
        assert!(body.len() < 200);
        let mut answers = Vec::new();
        for _ in 0..20 {
            packed.control.body(&body).await;
            let answer = packed.control.hear_body().await;
            answers.push(answer[0] == b'{' && serde_json::from_slice::<Value>(&answer).expect("JSON")["code"] == 429);
        }
        assert!(!answers[..10].contains(&true), "the burst is for all: {answers:?}");
        assert!(answers.contains(&true), "compressed but large when inflated: {answers:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_as_told_is_never_closed() {
    let server = limited(|rates| {
        (rates.client_messages, rates.client_messages_burst, rates.client_refusals_burst) = (200, 5, 50);
    })
    .await;
    let client = server.client("Ada").await;
    // Each lane waits independently, and knows nothing of the others.
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut lane = client.lane().await;
        lanes.spawn(async move {
            let mut refusals = 0;
            for id in 0..40 {
                loop {
                    lane.body(&text(id, "x")).await;
                    let answer = lane.hear().await;
                    if answer["type"] == "text" {
                        break;
                    }
                    refusals += 1;
                    tokio::time::sleep(refusal(&answer, id)).await;
                }
            }
            refusals
        });
    }
    let refusals: u64 = soon("all lanes", lanes.join_all()).await.iter().sum();
    assert!(refusals > 60, "only {refusals} refusals: this shows nothing");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_ignores_refusals_is_closed_and_no_other_is_affected() {
    for (over, on) in every_way() {
        let server = limited(|rates| {
            (rates.client_messages, rates.client_messages_burst, rates.client_refusals_burst) = (1, 5, 3);
        })
        .await;
        let mut neighbour = over.party(&server, "neighbour").await;
        let mut client = over.party(&server, "Ada").await;
        let all: Vec<_> = (0..50).map(|id| text(id, "x")).collect();
        client.tell(on, &all).await;
        if matches!(on, On::Control) {
            for id in 0..9 {
                let answer = client.control.hear().await;
                if id < 5 {
                    assert_eq!((&answer["type"], &answer["re"]), (&json!("text"), &json!(id)));
                } else {
                    refusal(&answer, id);
                }
            }
        }
        let close = client.expect_close(4429).await;
        assert!(close["reason"].as_str().is_some_and(|reason| reason.contains("retry_after_ms")), "{close}");
        neighbour.control.lives("the neighbour").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn bad_bodies_are_counted_as_well() {
    let server = limited(|rates| {
        (rates.client_messages, rates.client_messages_burst, rates.client_refusals_burst) = (1, 4, 3);
    })
    .await;
    for over in Over::ALL {
        for bad in [&br#"{"type":"nonsense","id":1}"#[..], &[0x01, 0, 0, 1, 0]] {
            let mut client = over.party(&server, "Ada").await;
            for n in 0..8 {
                client.control.body(bad).await;
                let expected = if n < 4 { 400 } else { 429 };
                let answer = client.control.expect("error").await;
                assert_eq!(answer["code"], expected, "body {n}: {answer}");
            }
            client.expect_close(4429).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refused_client_may_still_answer_pings_and_close() {
    for over in Over::ALL {
        let server = limited(|rates| (rates.client_messages, rates.client_messages_burst) = (1, 2)).await;
        let mut client = over.party(&server, "Ada").await;
        until_refused(&mut client, On::Control, "x").await;
        client.control.say(json!({"type": "pong"})).await;
        client.control.say(json!({"type": "close", "code": 4000, "reason": "enough"})).await;
        assert_eq!(client.closed().await, (4000, "enough".to_owned()));
        server.stop().await;
    }
}

#[tokio::test]
async fn pongs_are_not_requests_and_only_a_flood_of_them_closes_the_client() {
    for over in Over::ALL {
        let server = limited(|rates| {
            (rates.client_messages, rates.client_messages_burst, rates.client_refusals_burst) = (1, 6, 4);
        })
        .await;
        let mut client = over.party(&server, "Ada").await;
        let (first, _) = until_refused(&mut client, On::Control, "x").await;
        for id in first + 1..first + 4 {
            refusal(&client.ask(On::Control, &text(id, "x")).await, id);
        }
        // One more refusal would exceed the limit.
        for _ in 0..6 {
            client.control.say(json!({"type": "pong"})).await;
        }
        client.control.say(json!({"type": "close", "code": 4000})).await;
        assert_eq!(client.closed().await.0, 4000);
        let mut flood = over.party(&server, "Eve").await;
        let flooding = async { while flood.control.try_body(br#"{"type":"pong"}"#).await {} };
        soon("the end of a flood", flooding).await;
        assert_eq!(flood.closed().await.0, 4429);
        server.stop().await;
    }
}

#[tokio::test]
async fn new_topics_are_limited_and_existing_ones_are_not() {
    for over in Over::ALL {
        let server = limited(|rates| (rates.client_topics, rates.client_topics_burst) = (2, 3)).await;
        let (mut client, mut neighbour) = (over.party(&server, "Ada").await, over.party(&server, "neighbour").await);
        let publish = |id: u64, topic: String| json!({"type": "publish", "id": id, "topic": topic, "content": "x"});
        let (mut made, mut wait) = (0, None);
        while wait.is_none() {
            let answer = client.ask(On::Control, publish(made, format!("made.{made}")).to_string().as_bytes()).await;
            if answer["type"] == "error" {
                assert!(answer["message"].as_str().is_some_and(|m| m.contains(&format!("made.{made}"))), "{answer}");
                wait = Some(refusal(&answer, made));
            } else {
                made += 1;
            }
        }
        assert!(made >= 3, "{made} topics of a burst of three");
        assert_eq!(server.status.topics() as u64, made);
        let subscribe = json!({"type": "subscribe", "id": 7, "topic": "another"});
        let answer = client.ask(On::Control, subscribe.to_string().as_bytes()).await;
        let last = refusal(&answer, 7);
        assert!(last > wait.expect("a time"), "a later refusal has a later time");
        let answer = client.ask(On::Control, publish(8, "made.0".into()).to_string().as_bytes()).await;
        assert_eq!(answer["type"], "published", "an existing topic is not a new one: {answer}");
        let answer = neighbour.ask(On::Control, publish(9, "a.neighbours".into()).to_string().as_bytes()).await;
        assert_eq!(answer["type"], "published", "the limit is each client's own: {answer}");
        tokio::time::sleep(last).await;
        assert_eq!(client.ask(On::Control, subscribe.to_string().as_bytes()).await["type"], "subscribed");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_keeps_creating_topics_is_closed() {
    let server = limited(|rates| {
        (rates.client_topics, rates.client_topics_burst, rates.client_refusals_burst) = (1, 1, 2);
    })
    .await;
    for over in Over::ALL {
        for kind in ["publish", "subscribe"] {
            let mut client = over.party(&server, kind).await;
            for n in 0..4 {
                client
                    .control
                    .say(json!({"type": kind, "id": n, "topic": format!("{}.{kind}.{n}", over.name()), "content": "x"}))
                    .await;
                let answer = client.control.hear().await;
                if n > 0 {
                    refusal(&answer, n);
                }
            }
            client.expect_close(4429).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn pages_above_the_byte_rate_wait_and_delay_no_other_lane() {
    const PAGE: usize = 500_000;
    const PAGES: u64 = 3;
    const RATE: u64 = 1 << 20;
    // The smallest allowed burst.
    const BURST: u64 = (1 << 20) + 1024;
    let server = limited(|rates| (rates.client_bytes, rates.client_bytes_burst) = (RATE, BURST)).await;
    let mut client = server.client("Ada").await;
    let mut neighbour = server.client("neighbour").await;
    let publish = json!({"type": "publish", "topic": "a", "content": "x".repeat(PAGE), "id": 1});
    neighbour.control.say(publish).await;
    neighbour.control.expect("published").await;
    let asked = Instant::now();
    let mut lanes = [client.lane().await, client.lane().await];
    for lane in &mut lanes {
        for n in 0..PAGES {
            lane.say(json!({"type": "history", "topic": "a", "id": n})).await;
        }
    }
    for _ in 0..10 {
        client.control.lives("a client waiting on other lanes").await;
    }
    neighbour.control.say(json!({"type": "history", "topic": "a"})).await;
    neighbour.control.expect("history").await;
    let answered = lanes.map(async |mut lane| {
        for n in 0..PAGES {
            let page = lane.expect("history").await;
            assert_eq!((&page["re"], &page["messages"][0]["offset"]), (&json!(n), &json!(1)), "in order, none refused");
        }
    });
    futures_util::future::join_all(answered).await;
    // The last one waits until those before it are within the burst again.
    let least = Duration::from_secs_f64(((2 * PAGES - 1) * PAGE as u64 - BURST) as f64 / RATE as f64);
    assert!(asked.elapsed() >= least, "{:?} for pages that take {least:?}", asked.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn clients_on_the_servers_own_machine_have_no_limits_unless_configured() {
    let server = TestServer::start_with(|config| {
        (config.rates.client_messages, config.rates.client_messages_burst) = (1, 1);
        config.rates.client_refusals_burst = 0;
    })
    .await;
    for over in Over::ALL {
        let mut client = over.party(&server, "Ada").await;
        for _ in 0..50 {
            client.control.lives("a client on the same machine").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_waits_as_told_and_reports_it_if_that_takes_too_long() {
    let server = limited(|rates| (rates.client_messages, rates.client_messages_burst) = (5, 5)).await;
    let client = library::client(&server, "Ada").await;
    for n in 0..8 {
        assert_eq!(client.echo(&n.to_string()).await.expect("it is served"), format!("Echo: {n}"));
    }
    assert!(server.status.stats(0).totals.refused > 0, "it was told to wait");

    let hasty = library::builder(&server).request_timeout(Duration::from_millis(20)).connect().await;
    let (hasty, _) = hasty.expect("it connects");
    let refused = async {
        loop {
            match hasty.echo("x").await {
                // A slow machine may need longer than that for the reply itself.
                Ok(_) | Err(ClientError::Timeout(_)) => {}
                Err(error) => break error,
            }
        }
    };
    let error = soon("a refusal", refused).await;
    assert!(matches!(&error, ClientError::Server(reply) if reply.code == 429), "{error}");
    assert!(error.retry_after().is_some_and(|wait| wait > Duration::from_millis(20)), "{error:?}");
    server.stop().await;
}

/// Subscribes to this many topics at once, reconnects with them, and leaves them: at its rate, and without being closed
/// for it.
async fn goes_on_with_many_topics(connecting: quic_websocket::ClientBuilder, count: usize) {
    let builder = connecting.request_timeout(Duration::from_secs(60));
    let (client, mut events) = builder.connect().await.expect("it connects");
    let mut subscribing = tokio::task::JoinSet::new();
    for n in 0..count {
        let client = client.clone();
        subscribing.spawn(async move { client.subscribe(format!("many.{n}")).await });
    }
    let all = subscribing.join_all().await;
    let mut subscriptions: Vec<_> = all.into_iter().map(|one| one.expect("subscribed")).collect();
    let restart = Close::new(CloseCode::RESTART, "again").expect("a close");
    client.send(&ClientMessage::Close(restart)).await.expect("sent");
    assert!(matches!(soon("the loss", events.next()).await, Some(Event::Disconnected(_))));
    assert!(matches!(soon("the way back", events.next()).await, Some(Event::Reconnected)));
    // All subscriptions are active again, otherwise messages published to them would not arrive.
    let last = subscriptions.last_mut().expect("one");
    let topic = last.topic().to_owned();
    client.presence(&topic).await.expect("the presence");
    client.publish(&topic, quic_websocket::message::Payload::text("x")).await.expect("published");
    library::expect(last, "x").await;
    for subscription in subscriptions {
        subscription.unsubscribe().await.expect("left");
    }
    assert!(events.try_next().is_none_or(|event| !matches!(event, Event::Closed(_))), "it was closed");
    client.ping().await.expect("it is still there");
}

#[tokio::test]
async fn the_client_library_keeps_to_its_rate_with_many_topics() {
    let server = limited(|rates| {
        (rates.client_messages, rates.client_messages_burst) = (200, 50);
        rates.client_refusals_burst = 100;
    })
    .await;
    goes_on_with_many_topics(library::builder(&server), 200).await;
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_keeps_to_the_rate_of_its_token_with_many_topics() {
    let auth = crate::common::tokens::asking("");
    let server = TestServer::start_with(|config| config.auth = auth).await;
    let token =
        crate::common::tokens::token(json!({"max_rate": 60, "subscribe": ">", "publish": ">", "presence": ">"}));
    goes_on_with_many_topics(library::builder(&server).token(&token).expect("a token"), 240).await;
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_repeats_a_refused_unsubscribe() {
    let server = limited(|rates| (rates.client_messages, rates.client_messages_burst) = (20, 4)).await;
    let client = library::client(&server, "Ada").await;
    let subscription = client.subscribe("t").await.expect("subscribed");
    for _ in 0..6 {
        client.send(&ClientMessage::Text { content: "x".into() }).await.expect("sent");
    }
    subscription.unsubscribe().await.expect("left");
    assert!(client.presence("t").await.expect("the presence").clients.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn the_client_library_does_not_reconnect_after_4429() {
    let server = limited(|rates| {
        (rates.client_messages, rates.client_messages_burst, rates.client_refusals_burst) = (1, 3, 2);
    })
    .await;
    let (client, mut events) = library::connect(&server, "Ada").await;
    for _ in 0..20 {
        // Once it is closed, nothing more is sent.
        let _ = client.send(&ClientMessage::Text { content: "x".into() }).await;
    }
    let closed = loop {
        match soon("the end", events.next()).await.expect("an event") {
            Event::Closed(closed) => break closed,
            Event::Other(ServerMessage::Text { .. }) | Event::Error(_) => {}
            other => panic!("expected its end, got {other:?}"),
        }
    };
    assert_eq!(closed.code, CloseCode::RATE_LIMITED);
    server.stop().await;
}
