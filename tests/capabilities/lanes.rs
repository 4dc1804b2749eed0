//! Lanes are independent: each answers its own requests in order, and none delays or closes another.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::pin::pin;

use crate::common::over::Over;
use crate::common::{RawClient, RawLane, TestServer, framed, soon};
use futures_util::FutureExt;
use serde_json::{Value, json};

/// Checks that the lane ended after a whole message.
async fn has_ended(lane: &mut RawLane) {
    let end = lane.try_hear_body().await.expect_err("expected the lane's end");
    assert_eq!(end, "FinishedEarly(0)", "a lane ends between messages");
}

#[tokio::test]
async fn each_lane_answers_its_own_requests_in_order() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let mut lanes = Vec::new();
    for _ in 0..5 {
        lanes.push(client.lane().await);
    }
    for n in 0..100 {
        for (number, lane) in lanes.iter_mut().enumerate() {
            lane.say(json!({"type": "text", "content": format!("{n} on {number}"), "id": n})).await;
        }
    }
    for (number, lane) in lanes.iter_mut().enumerate() {
        for n in 0..100 {
            let echo = lane.expect("text").await;
            assert_eq!((&echo["re"], &echo["content"]), (&json!(n), &json!(format!("Echo: {n} on {number}"))));
        }
    }
    client.control.lives("the control lane without any of these").await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_lane_serves_what_the_control_lane_serves() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let mut lane = client.lane().await;
    for (request, reply, unasked) in [
        (json!({"type": "text", "content": "x"}), "text", None),
        (json!({"type": "ping"}), "pong", None),
        (json!({"type": "list_clients"}), "client_list", None),
        (json!({"type": "broadcast", "content": "x"}), "ok", Some("broadcast")),
        (json!({"type": "direct", "to": client.id, "content": "x"}), "ok", Some("direct")),
        (json!({"type": "signal", "to": client.id, "data": {}}), "ok", Some("signal")),
        (json!({"type": "handshake", "protocol_version": "1.0"}), "error", None),
        (json!({"type": "nonsense"}), "error", None),
    ] {
        let mut request = request;
        request["id"] = json!("here");
        lane.say(request.clone()).await;
        assert_eq!(lane.expect(reply).await["re"], "here", "{request} is answered on its lane");
        if let Some(kind) = unasked {
            client.control.expect(kind).await;
        }
    }
    lane.say_with(json!({"type": "binary", "id": 1}), b"bytes").await;
    assert_eq!(lane.hear_with().await.1, b"bytes");
    lane.say(json!({"type": "close", "code": 4999, "reason": "from a lane"})).await;
    assert_eq!(client.closed().await, (4999, "from a lane".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn half_sent_messages_delay_only_their_own_lanes() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    // More in total than the server's receive window of 2 MiB.
    let text = "x".repeat(1_000_000);
    let frame = framed(json!({"type": "text", "content": text}).to_string().as_bytes());
    let most = frame.len() - 10;
    let mut uploads = Vec::new();
    for cut in [2, 4, 5, most, most, most] {
        let mut upload = client.lane().await;
        upload.raw(&frame[..cut]).await;
        uploads.push((upload, cut));
        client.lane().await.lives("another lane").await;
        client.control.lives("the control lane").await;
    }
    for (mut upload, cut) in uploads {
        upload.raw(&frame[cut..]).await;
        assert_eq!(upload.expect("text").await["content"].as_str().map(str::len), Some(6 + text.len()));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_lane_cut_off_inside_a_message_ends_alone() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let mut other = client.lane().await;
    let whole = framed(br#"{"type":"text","content":"whole","id":1}"#);
    for reset in [false, true] {
        for cut in [1, 4, 10, whole.len() - 1] {
            let mut lane = client.lane().await;
            lane.raw(&whole).await;
            lane.raw(&whole[..cut]).await;
            assert_eq!(lane.expect("text").await["re"], 1, "the complete request is answered");
            if reset {
                lane.send.reset(7_u32.into()).expect("the stream is open");
            } else {
                lane.send.finish().expect("the stream is open");
            }
            has_ended(&mut lane).await;
            other.lives("the other lane").await;
            client.control.lives("the control lane").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_finished_lane_gets_all_its_answers_and_then_its_end() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let mut lane = client.lane().await;
    for n in 0..100 {
        lane.say(json!({"type": "text", "content": "x".repeat(2000), "id": n})).await;
    }
    lane.say(json!({"type": "broadcast", "content": "x", "id": "last"})).await;
    lane.send.finish().expect("the stream is open");
    for n in 0..100 {
        assert_eq!(lane.expect("text").await["re"], n);
    }
    assert_eq!(lane.expect("ok").await["re"], "last");
    has_ended(&mut lane).await;
    client.control.expect("broadcast").await;
    client.control.lives("the control lane").await;
    server.stop().await;
}

#[tokio::test]
async fn one_lane_too_many_waits_until_another_has_ended() {
    for most in [2, 32, 100] {
        let server = TestServer::start_with(|config| config.limits.max_request_lanes = most).await;
        let mut client = RawClient::connect(&server.endpoint(), server.addr).await;
        let response = client.handshake("Ada").await;
        assert_eq!(response["limits"]["max_request_lanes"], most);
        let mut lanes = Vec::new();
        for _ in 0..most {
            lanes.push(client.lane().await);
        }
        for round in 0..20 {
            for lane in &mut lanes {
                lane.lives("an allowed lane").await;
            }
            let connection = client.connection.clone();
            let mut waiting = pin!(async {
                // QUIC may have credit for it; it is not served.
                let (send, receive) = connection.open_bi().await.expect("a stream");
                let mut lane = RawLane { send, receive };
                lane.lives("one more lane").await;
                lane
            });
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("expected lane {} to wait", most + 1),
                () = client.control.lives("the control lane") => {}
            }
            let ended = &mut lanes[round % 2];
            ended.send.finish().expect("the stream is open");
            has_ended(ended).await;
            *ended = soon("a place for another lane", waiting).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_has_credit_for_three_unidirectional_streams_and_is_closed_once_it_opens_one() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        // Opening alone sends nothing to the server.
        let granted = client.connection.open_uni().now_or_never().expect("they are granted from the start");
        streams.push(granted.expect("still connected"));
    }
    tokio::select! {
        biased;
        opened = client.connection.open_uni() => panic!("expected no fourth stream, got {opened:?}"),
        () = client.control.lives("the control lane") => {}
    }
    streams[0].write_all(&[0]).await.expect("the stream takes bytes");
    let close = client.expect_close(1002).await;
    assert_eq!(close["reason"], "the client must not open unidirectional streams");
    server.stop().await;
}

#[tokio::test]
async fn a_datagram_is_answered_by_datagram_if_it_fits_else_on_the_control_lane() {
    let server = TestServer::start().await;
    let mut client = server.client("Ada").await;
    let ask = |message: &str| client.connection.send_datagram(message.to_owned().into()).expect("it fits");
    let answer = async || -> Value {
        let datagram = soon("a datagram", client.connection.read_datagram()).await.expect("a datagram");
        serde_json::from_slice(&datagram).expect("one message without a length")
    };
    ask(r#"{"type":"ping","id":1,"timestamp":5}"#);
    let pong = answer().await;
    assert_eq!((&pong["type"], &pong["re"], &pong["timestamp"]), (&json!("pong"), &json!(1), &json!(5)));
    ask(r#"{"type":"nonsense","id":2}"#);
    let error = answer().await;
    assert_eq!((&error["type"], &error["re"], &error["code"]), (&json!("error"), &json!(2), &json!(400)));
    ask(r#"{"type":"broadcast","id":3,"content":"x"}"#);
    assert_eq!(answer().await, json!({"type": "ok", "re": 3, "delivered": 1}));
    client.control.expect("broadcast").await;

    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(server.client(&"a long name".repeat(5)).await);
    }
    client.connection.send_datagram(r#"{"type":"list_clients","id":4}"#.into()).expect("it fits");
    let list = client.control.expect("client_list").await;
    assert_eq!((&list["re"], &list["total"]), (&json!(4), &json!(21)));
    server.stop().await;
}

#[tokio::test]
async fn replies_that_wait_for_others_keep_their_place_and_do_not_stop_their_lane() {
    for most in [1, 256] {
        let server = TestServer::start_with(|config| config.limits.lane_pending_replies = most).await;
        for over in Over::ALL {
            let (mut client, mut other) = (over.party(&server, "Ada").await, over.party(&server, "Bob").await);
            let nobody = "00000000-0000-4000-8000-000000000000";
            let kinds = [
                (json!({"type": "direct", "to": other.id, "content": "x"}), "ok"),
                (json!({"type": "text", "content": "x"}), "text"),
                (json!({"type": "direct", "to": nobody, "content": "x"}), "error"),
                (json!({"type": "signal", "to": other.id, "data": 1}), "ok"),
                (json!({"type": "ping"}), "pong"),
                (json!({"type": "broadcast", "content": "x"}), "ok"),
                (json!({"type": "publish", "topic": "a", "content": "x"}), "published"),
                (json!({"type": "list_clients", "limit": 1}), "client_list"),
                (json!({"type": "direct", "to": other.id, "content": "x"}), "ok"),
                (json!({"type": "subscribe", "topic": "b"}), "subscribed"),
                (json!({"type": "unsubscribe", "topic": "b"}), "ok"),
            ];
            let rounds = 50;
            let requests: Vec<_> = (0..rounds * kinds.len())
                .map(|n| {
                    let mut request = kinds[n % kinds.len()].0.clone();
                    request["id"] = json!(n);
                    request.to_string().into_bytes()
                })
                .collect();
            client.control.bodies(&requests).await;
            for n in 0..requests.len() {
                let reply = loop {
                    let message = client.control.hear().await;
                    if !message["re"].is_null() {
                        break message;
                    }
                };
                assert_eq!((&reply["re"], &reply["type"]), (&json!(n), &json!(kinds[n % kinds.len()].1)), "{reply}");
            }
            for _ in 0..rounds {
                for kind in ["direct", "signal", "broadcast", "direct"] {
                    assert_eq!(other.control.hear().await["type"], kind, "effects come in the order of the requests");
                }
            }
            client.control.say(json!({"type": "direct", "to": other.id, "content": "x", "id": "last"})).await;
            client.control.say(json!({"type": "close"})).await;
            assert_eq!(client.control.expect("ok").await["re"], "last", "a client that leaves gets its replies first");
            client.closed().await;
        }
        server.stop().await;
    }
}
