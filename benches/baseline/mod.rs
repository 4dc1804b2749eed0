//! The two servers that this project is measured against, each in its own process.
//!
//! `bare` is Quinn without a protocol on top, as fast as we know how to write it: the practical upper bound. `wss` is
//! tokio-tungstenite over TLS: the usual alternative. Neither uses code of this project.

pub(crate) mod bare;
pub(crate) mod identity;
pub(crate) mod wss;

use std::io::Read as _;

/// The first byte of a payload that goes to every connected client. Any other payload is echoed.
pub(crate) const BROADCAST: u8 = b'B';
/// The first byte of a frame in which a client names itself, and of one to the client with the name that follows.
pub(crate) const NAME: u8 = b'A';
pub(crate) const RELAY: u8 = b'R';
/// Bytes of a client's name.
pub(crate) const ADDRESS: usize = 4;

/// Ends this process when its parent ends: a baseline never outlives its comparison.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
        std::process::exit(0);
    });
}
