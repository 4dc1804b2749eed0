//! Memory cost of attacks, measured on a server in a separate process: never more than configured, and the same after
//! many of them as after the first.

#![cfg(target_os = "linux")]

use std::time::Duration;

use serde_json::json;

use super::bombs::{burn, compressed, zeros};
use super::common::forms::Form;
use super::common::framed;
use super::floods::{datagrams, subscriptions};
use super::handshakes::{come_and_go, half_open};
use super::scene::{Target, Watched};
use super::sockets;
use super::streams::{storm, trickle};
use super::unfinished::never_finished;

const MIB: u64 = 1024;

/// Many connections, each with a body that inflates to gigabytes, at once.
async fn bombs(target: &Target) {
    let bomb = compressed(&zeros(2 << 30, 23));
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = target.compressing("Eve").await;
        client.control.body(&bomb).await;
        clients.push(client);
    }
    for client in &mut clients {
        client.expect_close(1009).await;
    }
}

/// Lanes that claim the largest allowed length, and send none of it.
async fn claims(target: &Target) {
    let mut clients = Vec::new();
    for _ in 0..30 {
        let client = target.client("Eve").await;
        for _ in 0..32 {
            let mut lane = client.lane().await;
            lane.raw(&[0, 0x10, 0, 0]).await;
            lane.raw(br#"{"type":"text","content":"#).await;
        }
        clients.push(client);
    }
    for client in &mut clients {
        client.control.lives("a client that claims much").await;
    }
}

/// Topics, each with the longest name and no messages.
async fn topics(target: &Target) {
    let mut client = target.client("greedy").await;
    for n in 0..2000 {
        let topic = format!("{n}.{}", "x".repeat(240));
        client.control.say(json!({"type": "subscribe", "topic": topic})).await;
        client.control.say(json!({"type": "unsubscribe", "topic": topic})).await;
        client.control.expect("subscribed").await;
        client.control.expect("ok").await;
    }
}

/// Most repetitions of an attack. Memory that it leaks would show in each of them.
const ROUNDS: usize = 6;

/// Repeats an attack. It may cost at most this many KiB; and there must be a round that costs nothing more than those
/// before, except for normal variation of memory: 4 MiB unless specified otherwise.
macro_rules! costs {
    ($watched:ident, $most:expr, $what:literal, $attack:expr) => {
        costs!($watched, $most, 4 * MIB, $what, $attack)
    };
    ($watched:ident, $most:expr, $swing:expr, $what:literal, $attack:expr) => {{
        let before = $watched.resident_kib();
        let mut peaks: Vec<u64> = Vec::new();
        $watched.peak_kib();
        loop {
            for _ in 0..2 {
                $attack.await;
            }
            let peak = $watched.peak_kib();
            assert!(peak <= before + $most, "{}: it grew from {before} KiB by {} KiB", $what, peak - before);
            let is_no_more = peaks.iter().max().is_some_and(|most| peak <= most + $swing);
            peaks.push(peak);
            if is_no_more {
                break;
            }
            assert!(peaks.len() < ROUNDS, "{}: from {before} KiB to {peaks:?} KiB, more in each round", $what);
        }
    }};
}

#[tokio::test]
async fn bodies_and_lengths_cost_no_more_memory_than_their_limits() {
    let watched = Watched::start("").await;
    let target = &watched.target;
    // Each inflates to at most a megabyte, on two workers one at a time, in a window of at most 8 MiB.
    costs!(watched, 64 * MIB, "bombs", bombs(target));
    costs!(watched, 64 * MIB, "costly requests", burn(target, Form::Zstd, 2, 5));
    // A connection has a cost; the claims of 32 lanes would be 32 MiB for each.
    costs!(watched, 48 * MIB, "claims", claims(target));
    watched.end().await;
}

#[tokio::test]
async fn unfinished_messages_cost_no_more_memory_than_the_limit_per_client() {
    let watched = Watched::start("limits.client_unfinished_bytes = 2097152").await;
    // Memory for a message grows by doubling, and QUIC holds 2 MiB more; the unfinished messages would be 33 MiB for
    // each. Large allocations come and go: a variation of 12 MiB in 48 rounds, without a trend. Twice 12 MiB would
    // remain if any remained.
    costs!(watched, 48 * MIB, 16 * MIB, "messages never finished", never_finished(&watched.target, 6));
    watched.end().await;
}

#[tokio::test]
async fn sockets_cost_no_more_memory_than_a_message_each_and_the_backlog() {
    let watched = Watched::start(sockets::UNREAD).await;
    let target = &watched.target;
    costs!(watched, 64 * MIB, 16 * MIB, "messages without an end", sockets::never_finished(target, 30));
    costs!(watched, 48 * MIB, "lengths that are claimed", sockets::claims(target, 60));
    costs!(watched, 64 * MIB, 16 * MIB, "sockets that do not read", sockets::unread(target, 20));
    costs!(watched, 16 * MIB, "pings", sockets::pings(target, 1000));
    watched.end().await;
}

/// A client that requests long pages, this many on each of some lanes, and acknowledges nothing for a while. The pages
/// are compressed small, so that QUIC accepts them all.
async fn pages(target: &Target, lanes: usize, each: usize) {
    let target = target.clone();
    let asking = move || {
        let machine = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (client, unread) = machine.block_on(async {
            let client = target.compressing("Eve").await;
            let request = framed(json!({"type": "history", "topic": PAGES, "limit": 1}).to_string().as_bytes());
            let mut unread = Vec::new();
            for _ in 0..lanes {
                let mut lane = client.lane().await;
                lane.raw(&request.repeat(each)).await;
                unread.push(lane);
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            (client, unread)
        });
        // The requests have been sent, and nothing runs here any longer.
        std::thread::sleep(Duration::from_millis(400));
        machine.block_on(async {
            for mut lane in unread {
                for _ in 0..each {
                    let body = lane.hear_body().await;
                    assert_eq!((body[0], body.len() < 300), (2, true), "a compressed page");
                }
            }
        });
        drop(client);
    };
    tokio::task::spawn_blocking(asking).await.expect("it is answered");
}

const PAGES: &str = "pages";

#[tokio::test]
async fn compressed_pages_cost_no_more_memory_than_their_compressed_size() {
    let watched = Watched::start("").await;
    let target = &watched.target;
    let mut publisher = target.client("publisher").await;
    let publish = json!({"type": "publish", "topic": PAGES, "content": "a".repeat(400_000), "id": 1});
    publisher.control.say(publish).await;
    publisher.control.expect("published").await;
    // Uncompressed, the unacknowledged ones would be 64 MB.
    costs!(watched, 24 * MIB, "pages", pages(target, 16, 10));
    drop(publisher);
    watched.end().await;
}

#[tokio::test]
async fn topics_cost_no_more_memory_than_configured_however_small_their_messages() {
    const MOST: u64 = 8 * MIB;
    let settings = "limits.topic_memory_bytes = 8388608\nlimits.max_topics = 1000\ntiming.topic_key_ms = 60000\n";
    let watched = Watched::start_with(settings).await;
    let mut publisher = watched.target.client("publisher").await;
    let before = watched.resident_kib();
    for round in 0..60 {
        let mut batch = Vec::new();
        for n in 0..500 {
            let key = format!("{round} {n}");
            let publish = json!({"type": "publish", "topic": format!("t{}", n % 100), "content": "x", "key": key});
            batch.extend(framed(publish.to_string().as_bytes()));
        }
        publisher.control.raw(&batch).await;
        publisher.control.lives("the publisher").await;
    }
    let grown = watched.resident_kib() - before;
    assert!(grown <= MOST + 6 * MIB, "it grew by {grown} KiB; {MOST} KiB are configured");
    drop(publisher);
    watched.end().await;
}

#[tokio::test]
async fn the_memory_of_streams_and_requests_does_not_grow_with_their_number() {
    let watched = Watched::start("").await;
    let target = &watched.target;
    costs!(watched, 64 * MIB, "bytes one at a time", trickle(target, 10, 32));
    costs!(watched, 64 * MIB, "storms", storm(target, 4, 500));
    costs!(watched, 64 * MIB, "datagrams", datagrams(target, 4, 1000));
    costs!(watched, 48 * MIB, "subscriptions", subscriptions(target, 4, 60));
    costs!(watched, 48 * MIB, "topics", topics(target));
    watched.end().await;
}

#[tokio::test]
async fn the_memory_of_connections_does_not_grow_with_their_number() {
    let watched = Watched::start("timing.handshake_timeout_ms = 2000").await;
    let target = &watched.target;
    costs!(watched, 64 * MIB, "half-open connections", half_open(target, 1000));
    costs!(watched, 64 * MIB, "connections that come and go", come_and_go(target, 200));
    watched.end().await;
}
