//! Messages that are started and never finished, on as many lanes as possible, at once or drop by drop; and clients
//! that do much of the same and finish it, which must be served.

use std::time::{Duration, Instant};

use quinn::{TransportConfig, VarInt};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::common::{RawClient, RawLane, framed, soon};
use super::scene::{Scene, Target};

const MEGABYTE: usize = 1 << 20;

/// The start of a body of a megabyte: its length, and this many bytes.
fn beginning(bytes: usize) -> Vec<u8> {
    let mut beginning = vec![0, 0x10, 0, 0];
    beginning.resize(4 + bytes, b'{');
    beginning
}

/// A `text` with a body of this many bytes, in its frame.
fn text_of(bytes: usize) -> Vec<u8> {
    let around = json!({"type": "text", "content": ""}).to_string().len();
    framed(json!({"type": "text", "content": "x".repeat(bytes - around)}).to_string().as_bytes())
}

/// Clients that start a megabyte on each lane, and finish none; the server closes each of them once that is too much.
pub(crate) async fn never_finished(target: &Target, clients: usize) {
    let mut attacking = JoinSet::new();
    for _ in 0..clients {
        let mut client = target.client("never done").await;
        attacking.spawn(async move {
            let mut lanes = Vec::new();
            let begins = async {
                for _ in 0..32 {
                    let mut lane = client.lane().await;
                    // The end may come first.
                    let _ = soon("room on the stream", lane.send.write_all(&beginning(MEGABYTE - 1))).await;
                    lanes.push(lane);
                }
            };
            tokio::select! {
                biased;
                _ = client.connection.closed() => {}
                () = begins => {}
            }
            let close = client.expect_close(1009).await;
            assert!(close["reason"].as_str().is_some_and(|why| why.contains("begun and not finished")), "{close}");
        });
    }
    while let Some(ended) = attacking.join_next().await {
        ended.expect("it gets the reason of the close");
    }
}

#[tokio::test]
async fn a_client_with_too_many_unfinished_bytes_is_closed() {
    let scene = Scene::start("").await;
    never_finished(&scene.target, 3).await;
    scene.end().await;
}

#[tokio::test]
async fn all_lanes_together_may_hold_the_limit_and_not_a_byte_more() {
    let scene = Scene::start("limits.client_unfinished_bytes = 1048576").await;
    let mut client = scene.target.client("Eve").await;
    let mut lanes = Vec::new();
    for _ in 0..32 {
        let mut lane = client.lane().await;
        lane.raw(&beginning(MEGABYTE / 32)).await;
        lanes.push(lane);
    }
    client.control.lives("a client within its unfinished bytes").await;
    lanes[7].raw(b"{").await;
    let close = client.expect_close(1009).await;
    assert!(close["reason"].as_str().is_some_and(|why| why.contains("1048576 bytes")), "{close}");
    scene.end().await;
}

#[tokio::test]
async fn an_endless_message_closes_its_client_in_time_however_it_arrives() {
    const WITHIN: Duration = Duration::from_millis(500);
    let scene = Scene::start("timing.body_timeout_ms = 500").await;
    let mut attacking = JoinSet::new();
    // A byte now and then on a lane and on the control lane, nothing after the first ones, and half of a length.
    for (start, on_control, drips) in [
        (beginning(0), false, true),
        (beginning(1), true, true),
        (beginning(1000), false, false),
        (vec![0, 0x10], false, false),
    ] {
        let mut client = scene.target.client("drop by drop").await;
        attacking.spawn(async move {
            let begun = Instant::now();
            let mut lane = client.lane().await;
            let drop_by_drop = async {
                let send = if on_control { &mut client.control.send } else { &mut lane.send };
                send.write_all(&start).await.expect("the stream takes bytes");
                let mut pause = interval(Duration::from_millis(20));
                // Until the server has closed it.
                while drips && send.write_all(b"{").await.is_ok() {
                    pause.tick().await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = soon("the server's close", client.connection.closed()) => {}
                () = drop_by_drop => {}
            }
            let close = client.expect_close(4408).await;
            assert!(close["reason"].as_str().is_some_and(|why| why.contains("not finished within 500 ms")), "{close}");
            assert!(begun.elapsed() >= WITHIN, "ended after {:?}", begun.elapsed());
        });
    }
    while let Some(ended) = attacking.join_next().await {
        ended.expect("it is ended in time");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_client_that_finishes_its_messages_is_served_whatever_their_total() {
    let settings = "limits.client_unfinished_bytes = 1048576\ntiming.body_timeout_ms = 1000";
    let scene = Scene::start(settings).await;
    let mut client = scene.target.client("steady").await;
    let mut lane = client.lane().await;
    let (begun, mut pause) = (Instant::now(), interval(Duration::from_millis(250)));
    // Two bytes less than a body in one piece, six times: the timeout applies to each of them.
    for _ in 0..6 {
        let text = text_of(600_000);
        lane.raw(&text[..text.len() - 2]).await;
        client.control.lives("a client in the middle of a message").await;
        pause.tick().await;
        lane.raw(&text[text.len() - 2..]).await;
        lane.expect("text").await;
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "longer than one message may take");
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn lanes_that_end_inside_a_message_release_their_bytes() {
    let settings = "limits.client_unfinished_bytes = 1048576\nlimits.max_request_lanes = 1";
    let scene = Scene::start(settings).await;
    let mut client = scene.target.client("clumsy").await;
    for round in 0..8 {
        // Served only after the one before has ended.
        let mut lane = client.lane().await;
        lane.lives("a lane that replaced another").await;
        lane.raw(&beginning(700_000)).await;
        if round % 2 == 0 {
            lane.send.finish().expect("it is open");
        } else {
            client.control.lives("a client about to cut its lane off").await;
            lane.send.reset(VarInt::from_u32(7)).expect("it is open");
        }
    }
    client.control.lives("a client that cut many lanes off").await;
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn seven_concurrent_messages_of_a_megabyte_on_as_many_lanes_are_accepted() {
    let scene = Scene::start("").await;
    let client = scene.target.client("busy").await;
    let text = text_of(MEGABYTE);
    assert_eq!(text.len(), 4 + MEGABYTE);
    let mut lanes: Vec<RawLane> = Vec::new();
    for _ in 0..7 {
        lanes.push(client.lane().await);
    }
    // In turn, so that all of them are unfinished until the last piece.
    for piece in text.chunks(50_000) {
        for lane in &mut lanes {
            lane.raw(piece).await;
        }
    }
    for lane in &mut lanes {
        let echo = lane.expect("text").await;
        assert!(echo["content"].as_str().is_some_and(|content| content.len() > MEGABYTE - 100), "all of it");
    }
    drop(client);
    scene.end().await;
}

#[tokio::test]
async fn a_message_behind_an_unread_reply_does_not_time_out() {
    let scene = Scene::start("timing.body_timeout_ms = 700").await;
    let mut small = TransportConfig::default();
    small.stream_receive_window(VarInt::from_u32(16_384));
    let mut client = RawClient::connect(&scene.target.endpoint_with(small), scene.target.addr).await;
    client.handshake("slow reader").await;
    // A reply that is written by itself, and one that the server may batch with others.
    let mut lanes = Vec::new();
    for text in [text_of(200_000), text_of(40_000)] {
        let mut lane = client.lane().await;
        // A complete one and half of one: the lane is not read further until the reply has been read.
        lane.raw(&[&text[..], &text[..text.len() / 2]].concat()).await;
        lanes.push((lane, text));
    }
    let (begun, mut pause) = (Instant::now(), interval(Duration::from_millis(50)));
    while begun.elapsed() < Duration::from_millis(1100) {
        pause.tick().await;
        client.control.lives("a client with queued replies").await;
    }
    for (mut lane, text) in lanes {
        lane.expect("text").await;
        lane.raw(&text[text.len() / 2..]).await;
        lane.expect("text").await;
    }
    drop(client);
    scene.end().await;
}
