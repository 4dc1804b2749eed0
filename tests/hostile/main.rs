//! Attacks over real QUIC. Each gets the response documented in docs/PROTOCOL.md, next to a neighbour that is not
//! affected, and leaves nothing behind: see `scene`. One file per kind of attack.

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
