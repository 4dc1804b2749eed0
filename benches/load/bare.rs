//! Bare Quinn's frames to single clients: `R`, the addresses of the receiver and the sender, the payload.

pub(super) const RELAY: u8 = b'R';
/// First byte of the frame in which a client names itself.
pub(super) const NAME: u8 = b'A';
/// Digits of a client's address, which is its number.
pub(super) const ADDRESS: usize = 4;

pub(super) fn address(client: usize) -> String {
    format!("{client:0ADDRESS$x}")
}

pub(super) fn relay(to: &str, from: &str, payload: &[u8]) -> Vec<u8> {
    [&[RELAY], to.as_bytes(), from.as_bytes(), payload].concat()
}

pub(super) fn name(address: &str) -> Vec<u8> {
    [&[NAME], address.as_bytes()].concat()
}
