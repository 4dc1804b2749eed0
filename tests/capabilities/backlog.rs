//! A client that does not read is throttled or disconnected, within fixed memory, and no other client is affected.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::{RawClient, RawLane, TestServer, framed, soon};
use quinn::TransportConfig;
use serde_json::json;

/// A client with this receive window on each lane that reads nothing by itself.
async fn narrow(server: &TestServer, window: u32) -> RawClient {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(window.into());
    let mut client = RawClient::connect(&server.endpoint_with(transport), server.addr).await;
    client.handshake("narrow").await;
    client
}

/// Sends numbered broadcasts of this size until one receiver fewer gets them. Returns how many it took.
async fn broadcast_until_one_is_gone(sender: &mut RawClient, neighbour: &mut RawClient, bytes: usize) -> u64 {
    for n in 0..10_000 {
        let content = format!("{n} {}", "x".repeat(bytes));
        sender.control.say(json!({"type": "broadcast", "id": n, "content": content})).await;
        for client in [&mut *sender, &mut *neighbour] {
            assert_eq!(client.control.expect("broadcast").await["content"], content, "all other clients get them all");
        }
        if sender.control.expect("ok").await["delivered"] == 2 {
            return n;
        }
    }
    panic!("expected the server to give up on the client that does not read");
}

#[tokio::test]
async fn only_the_client_that_does_not_read_broadcasts_is_closed_when_its_backlog_is_full() {
    const WINDOW: u32 = 4000;
    // Backlog limits in messages and in bytes; the size of a message; which of the two limits is reached first.
    for (messages, bytes, size) in [(20, 1_000_000, 10), (1000, 20_000, 2000)] {
        let server = TestServer::start_with(|config| {
            config.limits.max_message_bytes = 10_000;
            config.limits.lane_backlog_messages = messages;
            config.limits.lane_backlog_bytes = bytes;
        })
        .await;
        let mut sender = server.client("sender").await;
        let mut neighbour = server.client("neighbour").await;
        let stuck = narrow(&server, WINDOW).await;
        let taken = broadcast_until_one_is_gone(&mut sender, &mut neighbour, size).await;
        let (code, reason) = stuck.closed().await;
        assert_eq!(code, 4413, "{reason}");
        assert!(reason.contains("backlog"), "{reason}");
        // A broadcast is the content and a little more than a hundred bytes.
        let fits = |size: u64, bytes: u64| bytes / size;
        let [large, small] = [200, 100].map(|more| u64::try_from(size).expect("small") + more);
        let least = (messages).min(fits(large, bytes)) + fits(large, u64::from(WINDOW) - 500);
        let most = (messages).min(fits(small, bytes)) + fits(small, u64::from(WINDOW)) + 2;
        assert!((least..=most).contains(&taken), "{taken} waited; {least} to {most} are allowed");
        crate::common::until("the stuck client is out of the list", || server.status.clients() == 2).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_full_backlog_of_direct_messages_closes_the_receiver_and_not_the_sender() {
    let server = TestServer::start_with(|config| config.limits.lane_backlog_messages = 20).await;
    let mut sender = server.client("sender").await;
    let stuck = narrow(&server, 2000).await;
    let mut delivered = 0;
    let error = loop {
        sender.control.say(json!({"type": "direct", "id": delivered, "to": stuck.id, "content": "x"})).await;
        let reply = sender.control.hear().await;
        if reply["type"] != "ok" {
            break reply;
        }
        delivered += 1;
    };
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(404)), "{error}");
    assert!((20..60).contains(&delivered), "{delivered} were taken, 20 of them to wait");
    assert_eq!(stuck.closed().await.0, 4413);
    server.stop().await;
}

#[tokio::test]
async fn of_direct_messages_in_a_row_those_that_a_full_backlog_took_are_ok_and_the_rest_are_404() {
    let server = TestServer::start_with(|config| config.limits.lane_backlog_messages = 20).await;
    // On its worker, or on another one.
    for _ in 0..4 {
        let mut sender = server.client("sender").await;
        let stuck = narrow(&server, 2000).await;
        let message = |n| json!({"type": "direct", "id": n, "to": stuck.id, "content": "x"}).to_string();
        let frames = (0..200).flat_map(|n| framed(message(n).as_bytes()));
        sender.control.raw(&frames.collect::<Vec<_>>()).await;
        let mut taken = 0;
        for n in 0..200 {
            let reply = sender.control.hear().await;
            assert_eq!(reply["re"], n, "{reply}");
            if reply["type"] == "ok" {
                assert_eq!(n, taken, "none is accepted after one that was not");
                taken += 1;
            } else {
                assert_eq!(reply["code"], 404, "{reply}");
            }
        }
        assert!((20..60).contains(&taken), "{taken} were taken, 20 of them to wait");
        assert_eq!(stuck.closed().await.0, 4413);
    }
    server.stop().await;
}

/// Requests echoes until no more are accepted, while a neighbour is served; returns the number of complete requests,
/// and the rest of the last one.
async fn ask_until_held_back(lane: &mut RawLane, neighbour: &mut RawClient, size: usize) -> (u64, Vec<u8>) {
    // Capacity: the client's window, the server's, and a batch of replies between them.
    for n in 0..1000 {
        let message = json!({"type": "text", "id": n, "content": "x".repeat(size)});
        let frame = framed(message.to_string().as_bytes());
        let mut taken = 0;
        while taken < frame.len() {
            // Held back: the neighbour has been served a hundred times and there was still no room.
            tokio::select! {
                biased;
                more = lane.send.write(&frame[taken..]) => taken += more.expect("the stream is open"),
                () = async {
                    for _ in 0..100 {
                        neighbour.control.say(json!({"type": "text", "content": "and me?"})).await;
                        neighbour.control.expect("text").await;
                    }
                } => return (n, frame[taken..].to_vec()),
            }
        }
    }
    panic!("expected the server to stop accepting requests from a client that reads nothing");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_echoes_is_throttled_and_loses_nothing() {
    let server = TestServer::start_with(|config| {
        config.limits.lane_backlog_messages = 5;
        config.limits.max_message_bytes = 100_000;
        config.limits.lane_backlog_bytes = 110_000;
        config.quic.stream_receive_window = 50_000;
        config.quic.receive_window = 200_000;
    })
    .await;
    let mut neighbour = server.client("neighbour").await;
    let mut client = narrow(&server, 10_000).await;
    let mut lane = client.lane().await;
    let (asked, rest) = ask_until_held_back(&mut lane, &mut neighbour, 1000).await;
    client.control.say(json!({"type": "ping", "id": "other lane"})).await;
    client.control.expect("pong").await;

    let sent = async { lane.send.write_all(&rest).await.expect("it is read on") };
    let heard = async {
        let mut receive = lane.receive;
        for n in 0..=asked {
            let mut length = [0; 4];
            soon("a frame", receive.read_exact(&mut length)).await.expect("a frame");
            let mut body = vec![0; u32::from_be_bytes(length) as usize];
            soon("a body", receive.read_exact(&mut body)).await.expect("a body");
            let echo: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((&echo["type"], &echo["re"]), (&json!("text"), &json!(n)));
        }
    };
    tokio::join!(sent, heard);
    client.control.say(json!({"type": "ping"})).await;
    client.control.expect("pong").await;
    server.stop().await;
}

#[tokio::test]
async fn the_backlog_of_all_lanes_of_a_client_counts_together() {
    // Backlog limits of the client in bytes and messages; its lanes with unread replies; whether these leave room.
    for (bytes, messages, lanes, has_room) in
        [(250_000, 4096, 0, true), (250_000, 4096, 8, false), (4_000_000, 20, 0, true), (4_000_000, 20, 8, false)]
    {
        let server = TestServer::start_with(|config| {
            config.limits.max_message_bytes = 50_000;
            config.limits.lane_backlog_bytes = bytes.min(1_000_000);
            config.limits.lane_backlog_messages = messages.min(20);
            config.limits.client_backlog_bytes = bytes;
            config.limits.client_backlog_messages = messages;
        })
        .await;
        let mut sender = server.client("sender").await;
        let mut neighbour = server.client("neighbour").await;
        let client = narrow(&server, 5000).await;
        let mut unread = Vec::new();
        for _ in 0..lanes {
            let mut lane = client.lane().await;
            for _ in 0..2 {
                lane.say(json!({"type": "text", "content": "x".repeat(40_000)})).await;
            }
            unread.push(lane);
        }
        for lane in &mut unread {
            // The first bytes of the replies have arrived, so the rest is queued.
            soon("a reply", lane.receive.read_exact(&mut [0; 4])).await.expect("a reply");
        }
        let taken = broadcast_until_one_is_gone(&mut sender, &mut neighbour, 10_000).await;
        assert_eq!(client.closed().await.0, 4413);
        // On the control lane alone twenty of them may be queued.
        assert_eq!(taken >= 19, has_room, "{taken} broadcasts waited beside {lanes} unread lanes");
        server.stop().await;
    }
}

#[tokio::test]
async fn unread_replies_on_many_lanes_stay_within_the_clients_backlog() {
    const MOST: u64 = 400_000;
    const REPLY: usize = 90_000;
    let server = TestServer::start_with(|config| {
        config.limits.max_message_bytes = 100_000;
        config.limits.lane_backlog_bytes = 110_000;
        config.limits.client_backlog_bytes = MOST;
        config.quic.receive_window = 8_000_000;
        config.quic.send_window = 20_000;
    })
    .await;
    let mut client = narrow(&server, 5000).await;
    let mut unread = Vec::new();
    for n in 0..31 {
        let mut lane = client.lane().await;
        lane.say(json!({"type": "text", "id": n, "content": "x".repeat(REPLY)})).await;
        unread.push(lane);
    }
    // More requests have arrived than are answered, and the control lane is still served.
    for _ in 0..100 {
        client.control.say(json!({"type": "ping"})).await;
        client.control.expect("pong").await;
        let waiting = server.status.stats(0).queues.bytes;
        assert!(waiting <= MOST + 100_000, "{waiting} bytes wait, of {MOST} that may and one reply");
    }
    crate::common::until("as many wait as may", || server.status.stats(0).queues.bytes > MOST - 100_000).await;
    // Once read, each has its answer; those that waited for room get it only after the others are read.
    let read = unread.into_iter().enumerate().map(async |(n, mut lane)| {
        assert_eq!(lane.expect("text").await["re"], n);
    });
    futures_util::future::join_all(read).await;
    server.stop().await;
}

#[tokio::test]
async fn a_full_backlog_of_requests_is_told_to_the_client_that_asks_and_closes_none() {
    let server = TestServer::start_with(|config| config.limits.lane_backlog_messages = 20).await;
    let mut asking = server.client("asking").await;
    let mut busy = narrow(&server, 2000).await;
    busy.control.say(json!({"type": "subscribe", "topic": "rpc", "requests": true, "lane": "control"})).await;
    busy.control.expect("subscribed").await;
    // At once, so that each sees room that those before it take only later.
    let ask = |n: u64| json!({"type": "request", "id": n, "topic": "rpc", "content": "x", "timeout_ms": 60_000});
    let requests: Vec<u8> = (0..200).flat_map(|n| framed(ask(n).to_string().as_bytes())).collect();
    asking.control.raw(&requests).await;
    asking.control.say(ask(200)).await;
    asking.control.say(json!({"type": "text", "content": "the end"})).await;
    let mut refused = 0;
    loop {
        let next = asking.control.hear().await;
        if next["type"] == "text" {
            break;
        }
        assert_eq!(next["code"], 503, "{next}");
        refused += 1;
    }
    assert!(refused > 0, "the last one finds no room");
    for _ in refused..201 {
        let request = busy.control.expect("request").await;
        busy.control.say(json!({"type": "reply", "request": request["request"], "data": 1})).await;
        asking.control.expect("reply").await;
    }
    busy.control.lives("busy").await;
    server.stop().await;
}
