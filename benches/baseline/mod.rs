//! The two servers that this project measures itself against, each a process of its own.
//!
//! `bare` is Quinn without a protocol above it, as fast as we know how to write it: what it reaches is what is
//! possible. `wss` is tokio-tungstenite over TLS: what a user would otherwise deploy. Neither knows the project.

pub(crate) mod bare;
pub(crate) mod identity;
pub(crate) mod wss;

use std::io::Read as _;

/// The first byte of a payload that goes to every connected client. Any other payload is echoed.
pub(crate) const BROADCAST: u8 = b'B';

/// Ends this process when whoever started it is gone: a baseline never outlives the comparison that wants it.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        std::process::exit(0);
    });
}
