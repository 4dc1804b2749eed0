//! WebSocket (RFC 6455): how a client comes to one, what it must not do, and how it ends. What clients say to each other is
//! tested with that, on all carriers.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod floods;
mod frames;
mod opening;
mod unread;
