//! Compression, if both sides agreed on it: either side may send it, small bodies stay plain, no other client is
//! affected.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::forms::Form;
use crate::common::over::{Over, Party};
use crate::common::{TestServer, with_attachment};
use serde_json::{Value, json};

/// Each carrier with each compression.
fn each() -> impl Iterator<Item = (Over, Form)> {
    Over::ALL.into_iter().flat_map(|over| Form::ALL.map(|form| (over, form)))
}

/// A client that negotiated a compression.
async fn compressing(over: Over, form: Form, server: &TestServer) -> Party {
    let mut client = over.newcomer(server).await;
    assert_eq!(client.handshake_with(form.handshake()).await["compression"], form.name());
    client
}

/// A zstd frame with one stored block that requires a window of two to the power of `window` (RFC 8878 section 3.1.1).
fn stored_with_window(body: &[u8], window: u8) -> Vec<u8> {
    let last_and_stored = u8::try_from(body.len() << 3 | 1).expect("a short body");
    [&[0x02, 0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3, last_and_stored, 0, 0], body].concat()
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(body)))
}

/// Compressible text.
fn long_text(length: usize) -> String {
    "Grüße ".chars().cycle().take(length).collect()
}

#[tokio::test]
async fn a_compressed_request_gets_a_compressed_reply_on_every_carrier() {
    let server = TestServer::start().await;
    for (over, form) in each() {
        let mut client = compressing(over, form, &server).await;
        let text = long_text(3000);
        let request = form.body(json!({"type": "text", "id": 1, "content": text}).to_string().as_bytes());
        for &on in over.ways() {
            let echo = parsed(&form.inflated(&client.ask_body(on, &request).await));
            assert_eq!((&echo["re"], &echo["content"]), (&json!(1), &json!(format!("Echo: {text}"))));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_plain_request_is_served_as_well_and_incompressible_bodies_stay_plain() {
    let server = TestServer::start().await;
    for (over, form) in each() {
        let mut client = compressing(over, form, &server).await;
        client.control.say(json!({"type": "text", "content": long_text(3000)})).await;
        assert_eq!(parsed(&form.inflated(&client.control.hear_body().await))["type"], "text");
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(3000).collect();
        client.control.say_with(json!({"type": "binary"}), &noise).await;
        assert!(client.control.hear_with().await.1 == noise, "noise came back changed");
    }
    server.stop().await;
}

#[tokio::test]
async fn only_bodies_from_the_minimum_size_on_are_compressed() {
    const LEAST: u64 = 500;
    let server = TestServer::start_with(|config| config.limits.compress_min_bytes = LEAST).await;
    for (over, form) in each() {
        let mut client = compressing(over, form, &server).await;
        let (mut plain, mut packed) = (0, 0);
        for length in 400..520 {
            client.control.say(json!({"type": "text", "content": "a".repeat(length)})).await;
            let body = client.control.hear_body().await;
            if body[0] == form.first_byte() {
                let length = form.inflated(&body).len();
                assert!(length as u64 >= LEAST, "{length} bytes were compressed");
                packed += 1;
            } else {
                assert!((body.len() as u64) < LEAST, "{} bytes were not compressed", body.len());
                plain += 1;
            }
        }
        assert!(plain > 0 && packed > 0, "{plain} plain and {packed} compressed: the bound lies between");
    }
    server.stop().await;
}

#[tokio::test]
async fn attachments_are_compressed_with_their_message() {
    let server = TestServer::start().await;
    for (over, form) in each() {
        let mut client = compressing(over, form, &server).await;
        let bytes = vec![7; 200_000];
        client.control.body(&form.body(&with_attachment(&json!({"type": "binary", "id": 2}), &bytes))).await;
        let body = client.control.hear_body().await;
        assert!(body.len() < 2000, "200,000 equal bytes came as {}", body.len());
        let body = form.inflated(&body);
        assert_eq!(body[0], 0x01, "an attachment");
        let json_len = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        assert_eq!(parsed(&body[5..5 + json_len])["re"], 2);
        assert!(body[5 + json_len..] == bytes, "the bytes came back changed");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_broadcast_reaches_each_client_in_the_form_that_it_negotiated() {
    for (from, to) in Over::pairs() {
        let server = TestServer::start().await;
        let mut sender = compressing(from, Form::Zstd, &server).await;
        let mut with = Vec::new();
        for form in Form::ALL {
            with.push((form, compressing(to, form, &server).await));
        }
        let mut without = [from.party(&server, "Ada").await, to.party(&server, "Bob").await];
        let text = long_text(5000);
        for (content, compressed) in [(&*text, true), ("short", false)] {
            let message = json!({"type": "broadcast", "id": 4, "content": content}).to_string();
            sender.control.body(&Form::Zstd.body(message.as_bytes())).await;
            let mut heard = Vec::new();
            for client in &mut without {
                heard.push(client.control.hear_body().await);
            }
            let receivers = with.iter_mut().map(|(form, client)| (*form, client));
            for (form, client) in receivers.chain([(Form::Zstd, &mut sender)]) {
                let body = client.control.hear_body().await;
                heard.push(if compressed { form.inflated(&body) } else { body });
            }
            for body in &heard {
                assert_eq!(
                    (&parsed(body)["content"], body),
                    (&json!(content), &heard[0]),
                    "the same bytes for every receiver"
                );
            }
            assert_eq!(sender.control.expect("ok").await["delivered"], 5);
        }
        drop((with, sender, without));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_topic_brings_each_client_the_form_that_it_negotiated_live_and_replayed() {
    let server = TestServer::start().await;
    for (over, form) in each() {
        let topic = format!("topic.{}.{}", over.name(), form.name());
        let text = long_text(3000);
        let mut publisher = compressing(over, form, &server).await;
        let mut live = Vec::new();
        for form in Form::ALL {
            let mut client = compressing(over, form, &server).await;
            client.control.say(json!({"type": "subscribe", "topic": topic, "lane": "control"})).await;
            client.control.expect("subscribed").await;
            live.push((form, client));
        }
        let publish = json!({"type": "publish", "id": 1, "topic": topic, "content": text}).to_string();
        publisher.control.body(&form.body(publish.as_bytes())).await;
        publisher.control.expect("published").await;
        for (form, client) in &mut live {
            let message = parsed(&form.inflated(&client.control.hear_body().await));
            assert_eq!((&message["type"], &message["content"]), (&json!("message"), &json!(text)));
        }
        for form in Form::ALL {
            let mut client = compressing(over, form, &server).await;
            client.control.say(json!({"type": "subscribe", "topic": topic, "recent": 1, "lane": "control"})).await;
            client.control.expect("subscribed").await;
            assert_eq!(parsed(&form.inflated(&client.control.hear_body().await))["content"], text);
            client.control.say(json!({"type": "history", "topic": topic})).await;
            let page = parsed(&form.inflated(&client.control.hear_body().await));
            assert_eq!(page["messages"][0]["content"], text);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_direct_message_is_compressed_as_its_receiver_negotiated() {
    let server = TestServer::start().await;
    for ((from, to), form) in Over::pairs().flat_map(|pair| Form::ALL.map(|form| (pair, form))) {
        let (mut with, mut without) = (compressing(from, form, &server).await, to.party(&server, "Ada").await);
        let text = long_text(5000);
        without.control.say(json!({"type": "direct", "to": with.id, "content": text})).await;
        assert_eq!(parsed(&form.inflated(&with.control.hear_body().await))["content"], text);
        with.control.say(json!({"type": "direct", "to": without.id, "content": text})).await;
        assert_eq!(without.control.expect("direct").await["content"], text);
    }
    server.stop().await;
}

#[tokio::test]
async fn of_direct_messages_in_a_row_the_long_ones_are_compressed() {
    let server = TestServer::start().await;
    for ((from, to), form) in Over::pairs().flat_map(|pair| Form::ALL.map(|form| (pair, form))) {
        let (mut sender, mut receiver) = (from.party(&server, "Ada").await, compressing(to, form, &server).await);
        let texts: Vec<_> = (0..40).map(|n| long_text([10, 2000, 20, 30, 5000][n % 5])).collect();
        let message = |text| json!({"type": "direct", "to": receiver.id, "content": text}).to_string().into_bytes();
        sender.control.bodies(&texts.iter().map(message).collect::<Vec<_>>()).await;
        for text in &texts {
            let body = receiver.control.hear_body().await;
            let plain = if text.len() > 1024 { form.inflated(&body) } else { body.to_vec() };
            assert_eq!(parsed(&plain)["content"], *text);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_other_than_one_compressed_plain_body_is_only_an_error() {
    let ping = br#"{"type":"ping"}"#;
    for (over, form) in each() {
        let server = TestServer::start().await;
        let mut neighbour = over.party(&server, "neighbour").await;
        let mut client = compressing(over, form, &server).await;
        let good = form.body(ping);
        let first = form.first_byte();
        let mut wrong = vec![
            ("a compressed body in it", form.body(&good)),
            ("the other compression in it", form.body(&form.other().body(ping))),
            ("two of them", [&good[..], &good[1..]].concat()),
            ("a byte behind it", [&good[..], b"x"].concat()),
            ("cut off", good[..good.len() - 1].to_vec()),
            ("nothing", vec![first]),
            ("noise", [&[first][..], &[0xff; 8]].concat()),
            ("nothing in it", form.body(b"")),
        ];
        match form {
            Form::Zstd => wrong.push(("a window above 8 MiB", stored_with_window(ping, 24))),
            Form::Deflate => {
                wrong.push(("a zlib header", [&[first, 0x78, 0x9c], &good[1..]].concat()));
                wrong.push((
                    "a hundred blocks for nothing",
                    [&[first][..], &[0, 0, 0, 0xff, 0xff].repeat(100)].concat(),
                ));
            }
        }
        // In a row, because these do not count towards 1007.
        for (what, body) in wrong {
            client.control.body(&body).await;
            let message = client.control.expect_error(400).await;
            assert!(message.starts_with(form.name()), "{what}: {message}");
        }
        let mut right = vec![good];
        match form {
            Form::Zstd => right.push(stored_with_window(ping, 23)),
            Form::Deflate => right.push([&[first, 1, 15, 0, 0xf0, 0xff], &ping[..]].concat()),
        }
        for body in right {
            client.control.body(&body).await;
            client.control.expect("pong").await;
        }
        neighbour.control.lives("a served client").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn the_server_chooses_zstd_if_both_are_offered_and_then_takes_nothing_else() {
    let server = TestServer::start().await;
    for over in Over::ALL {
        for (offer, choice) in [
            (json!(["deflate", "zstd"]), json!("zstd")),
            (json!(["zstd", "deflate"]), json!("zstd")),
            (json!(["br", "deflate"]), json!("deflate")),
            (json!(["br"]), Value::Null),
        ] {
            let mut client = over.newcomer(&server).await;
            let handshake = json!({"type": "handshake", "protocol_version": "1.0", "compression": offer});
            assert_eq!(client.handshake_with(handshake).await["compression"], choice, "{offer}");
            let not_agreed = Form::ALL.into_iter().find(|form| choice != form.name()).expect("one at least");
            client.control.body(&not_agreed.body(br#"{"type":"ping"}"#)).await;
            let close = client.expect_close(1002).await;
            assert!(close["reason"].as_str().is_some_and(|reason| reason.contains(not_agreed.name())), "{close}");
        }
    }
    server.stop().await;
}
