//! Attacks over real QUIC. Each gets the answer that docs/PROTOCOL.md gives it, beside a neighbour who notices nothing, and
//! leaves nothing behind: see `scene`. One file for each kind of attack.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bearers;
mod bombs;
mod floods;
mod forgery;
mod handshakes;
mod memory;
mod neighbour;
mod patterns;
mod rates;
mod scene;
mod sockets;
mod streams;
mod unfinished;
mod unread;
