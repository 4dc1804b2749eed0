//! What attacks cost in memory, measured on a server that is a process of its own: never more than is configured, and the
//! same after many of them as after the first.

#![cfg(target_os = "linux")]

use serde_json::json;

use super::bombs::{burn, compressed, zeros};
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

/// Lanes that claim as much as may be claimed, and bring nothing of it.
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
        client.control.lives("who claims much").await;
    }
}

/// Topics, each with the longest name and nothing in it.
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

/// How often an attack is carried out twice at most. What it leaves behind would show in each of these.
const ROUNDS: usize = 6;

/// Carries out an attack again and again. It may cost so many KiB at most; and there has to be a round that costs nothing more
/// than those before, but for what memory goes up and down by itself: 4 MiB where nothing else is said.
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
    costs!(watched, 64 * MIB, "costly requests", burn(target, 2, 5));
    // A connection costs some; what 32 lanes claim would be 32 MiB for each.
    costs!(watched, 48 * MIB, "claims", claims(target));
    watched.end().await;
}

#[tokio::test]
async fn messages_that_are_never_finished_cost_no_more_memory_than_a_client_may_have_of_them() {
    let watched = Watched::start("limits.client_unfinished_bytes = 2097152").await;
    // Memory for a message grows by doubling, and QUIC holds 2 MiB more; what is begun would be 33 MiB for each.
    // Large pieces come and go: up and down by 12 MiB in 48 rounds, without a trend. Twice 12 MiB would stay if any stayed.
    costs!(watched, 48 * MIB, 16 * MIB, "messages never finished", never_finished(&watched.target, 6));
    watched.end().await;
}

#[tokio::test]
async fn sockets_cost_no_more_memory_than_a_message_each_and_what_may_wait() {
    let watched = Watched::start(sockets::UNREAD).await;
    let target = &watched.target;
    costs!(watched, 64 * MIB, 16 * MIB, "messages without an end", sockets::never_finished(target, 30));
    costs!(watched, 48 * MIB, "lengths that are claimed", sockets::claims(target, 60));
    costs!(watched, 64 * MIB, 16 * MIB, "sockets that do not read", sockets::unread(target, 20));
    costs!(watched, 16 * MIB, "pings", sockets::pings(target, 1000));
    watched.end().await;
}

#[tokio::test]
async fn streams_and_requests_cost_no_more_memory_the_more_there_are() {
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
async fn connections_cost_no_more_memory_the_more_there_were() {
    let watched = Watched::start("timing.handshake_timeout_ms = 2000").await;
    let target = &watched.target;
    costs!(watched, 64 * MIB, "half-open connections", half_open(target, 1000));
    costs!(watched, 64 * MIB, "connections that come and go", come_and_go(target, 200));
    watched.end().await;
}
