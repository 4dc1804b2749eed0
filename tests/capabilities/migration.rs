//! A client whose address changes keeps its session: nothing is lost and everything stays in order, whichever worker's
//! socket the kernel now delivers its packets to.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::net::UdpSocket;

use crate::common::{RawClient, TestServer};
use serde_json::json;

/// With two workers each change reaches the wrong one in half of all cases; that none does is practically impossible.
const MOVES: u64 = 16;
/// Echoes and broadcasts around each change, half of them before it.
const BURST: u64 = 20;

async fn moves_and_loses_nothing(workers: u64) {
    let server = TestServer::start_with(|config| config.workers = workers).await;
    let endpoint = server.endpoint();
    let mut mover = RawClient::connect(&endpoint, server.addr).await;
    mover.handshake("mover").await;
    let mut neighbour = server.client("neighbour").await;
    for turn in 0..MOVES {
        let burst = turn * BURST..(turn + 1) * BURST;
        for n in burst.clone() {
            if n == burst.start + BURST / 2 {
                endpoint.rebind(UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("the client moves");
            }
            mover.control.say(json!({"type": "text", "content": n.to_string(), "id": n})).await;
            neighbour.control.say(json!({"type": "broadcast", "content": n.to_string()})).await;
        }
        let (mut echoes, mut broadcasts) = (burst.clone(), burst.clone());
        for _ in 0..2 * BURST {
            let heard = mover.control.hear().await;
            match heard["type"].as_str() {
                Some("text") => assert_eq!(heard["re"], json!(echoes.next()), "echo after {turn} moves: {heard}"),
                Some("broadcast") => {
                    let next = broadcasts.next().map(|n| n.to_string());
                    assert_eq!(heard["content"], json!(next), "broadcast after {turn} moves: {heard}");
                }
                _ => panic!("expected an echo or a broadcast, got {heard}"),
            }
        }
        for n in burst {
            let heard = neighbour.control.expect("broadcast").await;
            assert_eq!(heard["content"], n.to_string(), "the neighbour's own copy: {heard}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_moves_often_loses_nothing_on_two_workers() {
    moves_and_loses_nothing(2).await;
}

#[tokio::test]
async fn a_client_that_moves_often_loses_nothing_on_four_workers() {
    moves_and_loses_nothing(4).await;
}
