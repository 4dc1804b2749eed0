//! WebSocket (RFC 6455): how a client opens one, what it must not do, and how it ends. The tests of messages between
//! clients cover all carriers.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod floods;
mod frames;
mod opening;
mod unread;
