//! WebTransport on the port of native QUIC: the same messages on the same kinds of lanes, and clients of both meet.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::topics::TopicLane;

use crate::common::web_transport::{self, Bare, FIELDS, SETTINGS};
use crate::common::{On, RawClient, TestServer, framed, soon, until};
use quinn::{ConnectionError, VarInt};
use serde_json::{Value, json};
use web_transport_quinn::http::{HeaderValue, header};
use web_transport_quinn::proto::{self, error_from_http3};
use web_transport_quinn::{ClientError, ConnectError};

const BOTH_WAYS: [[Over; 2]; 2] = [[Over::Native, Over::WebTransport], [Over::WebTransport, Over::Native]];

#[tokio::test]
async fn every_lane_and_a_datagram_answer_as_on_native_quic() {
    let server = TestServer::start().await;
    for over in Over::QUIC {
        let mut client = over.client(&server, "Ada").await;
        for on in On::EACH {
            let reply = client.ask(on, json!({"type": "text", "id": 1, "content": "hi"}).to_string().as_bytes()).await;
            assert_eq!(
                (&reply["type"], &reply["re"], &reply["content"]),
                (&json!("text"), &json!(1), &json!("Echo: hi"))
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_lane_may_be_cut_anywhere_also_before_its_first_frame() {
    let server = TestServer::start().await;
    let client = Over::WebTransport.client(&server, "Ada").await;
    let (mut send, mut receive) = client.connection.open_bi().await.expect("a stream");
    let body = json!({"type": "ping", "id": 1}).to_string();
    for byte in [web_transport::LANE, &framed(body.as_bytes())].concat() {
        send.write_all(&[byte]).await.expect("the stream takes bytes");
        tokio::task::yield_now().await;
    }
    let mut length = [0; 4];
    soon("a reply", receive.read_exact(&mut length)).await.expect("a reply");
    server.stop().await;
}

#[tokio::test]
async fn as_many_request_lanes_are_served_at_once_as_on_native_quic() {
    let server = TestServer::start_with(|config| config.limits.max_request_lanes = 5).await;
    for over in Over::QUIC {
        let client = over.client(&server, "Ada").await;
        let mut lanes = Vec::new();
        for round in 0..5 {
            let mut lane = client.lane().await;
            lane.lives(&format!("lane {round} on {over:?}")).await;
            lanes.push(lane);
        }
        // A client that ends one can open another, any number of times.
        for round in 0..20 {
            let mut ended = lanes.remove(0);
            ended.send.finish().expect("it was open");
            assert!(ended.try_hear_body().await.is_err(), "it ends");
            let mut lane = client.lane().await;
            lane.lives(&format!("lane {round} after another on {over:?}")).await;
            lanes.push(lane);
        }
    }
    server.stop().await;
}

async fn leave(mut client: RawClient) {
    client.control.say(json!({"type": "close"})).await;
    assert_eq!(client.closed().await.0, 1000);
}

#[tokio::test]
async fn a_topic_arrives_on_a_separate_lane_with_missed_messages_first() {
    let server = TestServer::start().await;
    for [from, to] in BOTH_WAYS {
        let topic = format!("from.{from:?}");
        let mut publisher = from.client(&server, "Ada").await;
        let publish = async |client: &mut RawClient, n: u64| {
            client.control.say(json!({"type": "publish", "topic": topic, "content": n.to_string(), "id": n})).await;
            assert_eq!(client.control.expect("published").await["offset"], n);
        };
        for n in 1..=3 {
            publish(&mut publisher, n).await;
        }
        let mut subscriber = to.client(&server, "Bob").await;
        subscriber.control.say(json!({"type": "subscribe", "topic": topic, "recent": 2, "id": 1})).await;
        let subscribed = subscriber.control.expect("subscribed").await;
        publish(&mut publisher, 4).await;
        let mut lane = TopicLane::accept(&subscriber).await;
        assert_eq!(subscribed["lane"], lane.number);
        for offset in 2..=4 {
            let message = lane.hear().await;
            assert_eq!((&message["offset"], &message["content"]), (&json!(offset), &json!(offset.to_string())));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_topic_arrives_by_datagram_if_requested() {
    let server = TestServer::start().await;
    let mut publisher = Over::Native.client(&server, "Ada").await;
    let mut subscriber = Over::WebTransport.client(&server, "Bob").await;
    subscriber.control.say(json!({"type": "subscribe", "topic": "t", "delivery": "datagram", "id": 1})).await;
    subscriber.control.expect("subscribed").await;
    publisher.control.say(json!({"type": "publish", "topic": "t", "content": "x", "id": 1})).await;
    publisher.control.expect("published").await;
    let message: Value = serde_json::from_slice(&subscriber.read_datagram().await).expect("JSON");
    assert_eq!((&message["topic"], &message["content"]), (&json!("t"), &json!("x")));
    server.stop().await;
}

#[tokio::test]
async fn a_datagram_without_a_session_is_dropped() {
    let server = TestServer::start().await;
    let client = Over::WebTransport.client(&server, "Ada").await;
    for foreign in [&b"\x01{\"type\":\"ping\",\"id\":1}"[..], b"\x40", b""] {
        client.connection.send_datagram(foreign.to_vec().into()).expect("it leaves");
    }
    client.send_datagram(br#"{"type":"ping","id":2}"#);
    let pong: Value = serde_json::from_slice(&client.read_datagram().await).expect("JSON");
    assert_eq!(pong["re"], 2);
    server.stop().await;
}

#[tokio::test]
async fn the_session_closes_with_the_code_and_reason_that_native_quic_would() {
    let server = TestServer::start_with(|config| config.timing.handshake_timeout_ms = 300).await;
    for over in Over::QUIC {
        let mut client = over.client(&server, "Ada").await;
        client.control.say(json!({"type": "close", "code": 4999, "reason": "Grüße 🚀"})).await;
        assert_eq!(client.closed().await, (4999, "Grüße 🚀".to_owned()));

        let mut client = over.client(&server, "Ada").await;
        client.control.raw(&[0; 4]).await;
        client.expect_close(1002).await;

        let mut silent = over.stranger(&server).await;
        silent.control.raw(&[0]).await;
        silent.expect_close(4408).await;
    }
    until("all to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_session_or_its_connection_is_gone_at_once() {
    let server = TestServer::start().await;
    for close in [
        |client: &mut RawClient| client.session.as_ref().expect("a session").close(1000, b"done"),
        |client: &mut RawClient| client.connection.close(VarInt::from_u32(0x100), b""),
    ] {
        let mut client = Over::WebTransport.client(&server, "Ada").await;
        close(&mut client);
        until("it to be gone", || server.status.connections() == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_outside_the_session_ends_it() {
    let server = TestServer::start().await;
    // An HTTP request, a lane of another session, a lane marked as unidirectional.
    for foreign in [&[0x01, 0x00][..], &[0x40, 0x41, 0x04], &[0x40, 0x54, 0x00]] {
        let mut client = Over::WebTransport.client(&server, "Ada").await;
        let (mut send, _receive) = client.connection.open_bi().await.expect("a stream");
        send.write_all(foreign).await.expect("the stream takes bytes");
        client.expect_close(1002).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reset_lane_ends_alone_with_a_code_of_the_session() {
    let server = TestServer::start().await;
    let mut client = Over::WebTransport.client(&server, "Ada").await;
    let mut lane = client.lane().await;
    lane.raw(&[0; 4]).await;
    let stopped = soon("the end of reading", lane.send.stopped()).await.expect("still connected");
    assert_eq!(stopped.and_then(|code| error_from_http3(code.into_inner())), Some(1002));
    client.expect_close(1002).await;
    server.stop().await;
}

#[tokio::test]
async fn another_path_is_not_found_and_another_origin_forbidden() {
    let server = TestServer::start_with(|config| {
        config.http.origins = vec!["https://app.example".parse().expect("an origin")];
    })
    .await;
    let ask = async |path: &str, origin: Option<&'static str>| {
        let mut request = web_transport::request(server.addr, path);
        if let Some(origin) = origin {
            request = request.with_header(header::ORIGIN, HeaderValue::from_static(origin));
        }
        match web_transport::ask(web_transport::http3(&server).await, request).await {
            Ok(session) => {
                web_transport::over(session).await.handshake("Ada").await;
                200
            }
            Err(ClientError::HttpError(ConnectError::ProtoError(proto::ConnectError::WrongStatus(Some(status))))) => {
                status.as_u16()
            }
            Err(other) => panic!("expected an answer, got {other}"),
        }
    };
    assert_eq!(ask("/wt", None).await, 200);
    assert_eq!(ask("/wt?room=1", Some("https://app.example")).await, 200);
    assert_eq!(ask("/wt", Some("https://evil.example")).await, 403);
    assert_eq!(ask("/ws", Some("https://app.example")).await, 404);
    until("all to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn an_http3_client_that_requests_no_session_in_time_is_closed() {
    let server = TestServer::start_with(|config| config.timing.handshake_timeout_ms = 300).await;
    let silent = web_transport::http3(&server).await;
    let mut half = web_transport::http3(&server).await.open_uni().await.expect("HTTP/3's own stream");
    half.write_all(&[0x00, 0x04]).await.expect("the stream takes bytes");
    match soon("the server's close", silent.closed()).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), 4408),
        other => panic!("expected 4408, got {other}"),
    }
    soon("the server's close", half.stopped()).await.expect_err("the connection is closed");
    // A stream type reserved for servers.
    let other = web_transport::http3(&server).await;
    let mut stream = other.open_uni().await.expect("a stream");
    stream.write_all(&[0x01; 100]).await.expect("the stream takes bytes");
    match soon("the server's close", other.closed()).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code.into_inner(), 0x103),
        other => panic!("expected H3_STREAM_CREATION_ERROR, got {other}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn no_more_unidirectional_streams_are_granted_than_http3_needs() {
    let server = TestServer::start().await;
    let connection = web_transport::http3(&server).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(soon("a stream", connection.open_uni()).await.expect("a stream"));
    }
    let more = tokio::time::timeout(std::time::Duration::from_millis(100), connection.open_uni()).await;
    assert!(more.is_err(), "a fourth stream was granted");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_opens_a_unidirectional_stream_in_its_session_is_closed() {
    let server = TestServer::start().await;
    let mut client = Over::WebTransport.client(&server, "Eve").await;
    let mut neighbour = Over::WebTransport.client(&server, "Ada").await;
    // Instead of an HTTP/3 stream that this client does not need.
    let mut stream = soon("a stream", client.connection.open_uni()).await.expect("a stream");
    stream.write_all(&[&web_transport::TOPIC_LANE[..], b"x"].concat()).await.expect("the stream takes bytes");
    let close = client.expect_close(1002).await;
    assert_eq!(close["reason"], "the client must not open unidirectional streams");
    // A stream of HTTP/3 itself does not belong to the session.
    let mut encoder = soon("a stream", neighbour.connection.open_uni()).await.expect("a stream");
    encoder.write_all(&[0x02, 0x00]).await.expect("the stream takes bytes");
    for _ in 0..3 {
        neighbour.control.lives("an HTTP/3 client").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_its_neighbour_is_not() {
    let server = TestServer::start_with(|config| {
        config.limits.lane_backlog_messages = 50;
        config.quic.send_window = 16 * 1024;
    })
    .await;
    let slow = Over::WebTransport.client(&server, "Eve").await;
    let mut neighbour = Over::WebTransport.client(&server, "Ada").await;
    for n in 0..400 {
        let message = json!({"type": "broadcast", "id": n, "content": "x".repeat(10_000)});
        neighbour.control.say(message).await;
        neighbour.control.expect("broadcast").await;
        neighbour.control.expect("ok").await;
    }
    assert_eq!(slow.closed().await.0, 4413);
    neighbour.control.lives("a reader").await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_with_early_data_serves_both_carriers() {
    let server = TestServer::start_with(|config| config.quic.early_data = true).await;
    let endpoint = web_transport::endpoint(&server);
    // The second one resumes a TLS session of the first.
    for _ in 0..2 {
        let connecting = endpoint.connect(server.addr, "localhost").expect("a connection begins");
        let connection = match connecting.into_0rtt() {
            Ok((connection, _)) => connection,
            Err(connecting) => soon("a connection", connecting).await.expect("it connects"),
        };
        let session = web_transport::session(connection, server.addr, "/wt").await.expect("a session");
        let mut client = web_transport::over(session).await;
        client.handshake("Ada").await;
        client.control.lives("the client").await;
        leave(client).await;
    }
    Over::Native.client(&server, "Bob").await.control.lives("the other").await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_is_checked_by_the_rules_of_http3_and_of_the_websocket_side() {
    let server =
        TestServer::start_with(|config| config.http.origins = vec!["https://app.example".parse().expect("an origin")])
            .await;
    let with_path = |path| {
        let mut fields = FIELDS;
        fields[3].1 = path;
        fields.to_vec()
    };
    let with = |more: &[(&'static str, &'static str)]| [&FIELDS[..], more].concat();
    let (one, two) = (("authorization", "Bearer a.b.c"), ("authorization", "Bearer d.e.f"));
    for (fields, status) in [
        (with(&[("origin", "https://app.example")]), 200),
        (with(&[one]), 200),
        (with_path("/wt?room=1"), 200),
        (with(&[one, two]), 400),
        (with(&[("origin", "https://app.example"), ("origin", "https://app.example")]), 400),
        (with(&[("origin", "https://evil.example")]), 403),
        (with(&[(":path", "/wt")]), 400),
        (with(&[(":method", "CONNECT")]), 400),
        (with(&[("origin", "https://app.example"), (":scheme", "https")]), 400),
        (with(&[(":status", "200")]), 400),
        (with_path("/wt/../wt"), 404),
        (with_path("/./wt"), 404),
        (with_path("/wt/"), 404),
    ] {
        let mut client = Bare::ask(&server, &fields).await;
        assert_eq!(client.status().await, status, "{fields:?}");
        client.connection.close(0x100_u32.into(), b"");
    }
    until("all to be gone", || server.status.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_breaks_http3_below_a_session_is_closed_with_the_matching_code() {
    let server = TestServer::start().await;
    let mut neighbour = Over::WebTransport.client(&server, "Ada").await;
    let capsule = |bytes: &[u8]| [&[0x00, u8::try_from(bytes.len()).expect("short")][..], bytes].concat();
    for (what, code) in [
        ("a second control stream", 0x103),
        ("settings again", 0x105),
        ("data on the control stream", 0x105),
        ("the end of the control stream", 0x104),
        ("a push stream", 0x103),
        ("a CLOSE of 2 bytes", 0x10e),
        ("a CLOSE that is cut off", 0x10e),
        ("headers in the session", 0x105),
    ] {
        let mut client = Bare::ask(&server, &FIELDS).await;
        assert_eq!(client.status().await, 200, "{what}");
        let mut kept = Vec::new();
        match what {
            "a second control stream" | "a push stream" => {
                let mut stream = soon("a stream", client.connection.open_uni()).await.expect("a stream");
                let bytes = if what == "a push stream" { &[0x01, 0x00][..] } else { SETTINGS };
                stream.write_all(bytes).await.expect("the stream takes bytes");
                kept.push(stream);
            }
            "settings again" => client.control.write_all(&SETTINGS[1..]).await.expect("the stream takes bytes"),
            "data on the control stream" => client.control.write_all(b"\0\x01x").await.expect("the stream takes bytes"),
            "the end of the control stream" => client.control.finish().expect("it was open"),
            "a CLOSE of 2 bytes" => client.request.raw(&capsule(&[0x68, 0x43, 0x02, 0, 0])).await,
            "a CLOSE that is cut off" => {
                client.request.raw(&capsule(&[0x68, 0x43, 0x08, 0, 0])).await;
                client.request.send.finish().expect("it was open");
            }
            _ => client.request.raw(&web_transport::headers(&[("x", "y")])).await,
        }
        assert_eq!(client.closed().await, code, "{what}");
        neighbour.control.lives("a neighbour").await;
    }
    // Clients without a handshake are counted nowhere; one with a handshake was counted as a client.
    server.stop().await;
}

#[tokio::test]
async fn a_closed_page_counts_as_leaving_and_its_connection_ends_in_order() {
    let server = TestServer::start().await;
    let closing = |code: u8, reason: &str| {
        let capsule =
            [&[0x68, 0x43, u8::try_from(4 + reason.len()).expect("short"), 0, 0, 0x0f, code], reason.as_bytes()];
        let capsule = capsule.concat();
        [&[0x00, u8::try_from(capsule.len()).expect("short")][..], &capsule].concat()
    };
    let empty = [0x00, 0x07, 0x68, 0x43, 0x04, 0, 0, 0, 0];
    for (what, bytes, counted) in [
        ("a capsule with a code", closing(0xa0, "done"), "4000"),
        ("a capsule without", empty.to_vec(), "1001"),
        ("the end of the stream", Vec::new(), "1001"),
    ] {
        let mut client = Bare::ask(&server, &FIELDS).await;
        assert_eq!(client.status().await, 200);
        let (mut send, receive) = client.connection.open_bi().await.expect("a stream");
        send.write_all(web_transport::LANE).await.expect("the stream takes bytes");
        let mut lane = crate::common::RawLane { send, receive };
        lane.say(json!({"type": "handshake", "protocol_version": "1.0"})).await;
        assert_eq!(lane.expect("handshake_response").await["accepted"], true);
        let counts = || serde_json::to_value(server.status.stats(0)).expect("JSON")["totals"]["closed"].clone();
        let label = if counted == "4000" { "other" } else { counted };
        let before = counts()[label].as_u64().expect("a number");
        client.request.raw(&bytes).await;
        client.request.send.finish().expect("it was open");
        assert_eq!(client.closed().await, 0x100, "{what}: H3_NO_ERROR");
        until("it to be counted", || counts()[label].as_u64() == Some(before + 1)).await;
    }
    // A browser that gives up the whole connection.
    let client = Over::WebTransport.client(&server, "Ada").await;
    let left = || serde_json::to_value(server.status.stats(0)).expect("JSON")["totals"]["closed"]["1001"].clone();
    let before = left().as_u64().expect("a number");
    client.connection.close(0x100_u32.into(), b"");
    until("it to be counted", || left().as_u64() == Some(before + 1)).await;
    server.stop().await;
}
