//! The datagrams of one client: they enter QUIC as fast as it sends them; if too many wait, the oldest are dropped.
//! QUIC sends datagrams ahead of all streams, so it gets few at a time: a topic with more datagrams than the path
//! carries would otherwise stop every lane.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::transport::Carrier;

/// Datagrams that wait for one client.
#[derive(Debug)]
pub(super) struct Datagrams {
    waiting: Mutex<Waiting>,
    most_bytes: usize,
    /// Wakes the drain: something waits.
    blocked: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bodies: VecDeque<Bytes>,
    bytes: usize,
}

impl Datagrams {
    /// At most so many bytes wait; then the oldest are dropped.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), most_bytes, blocked: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Sends a body, now or in its turn; returns how many older ones were dropped for it. `None` if it is too large for
    /// a datagram on this path, or the client accepts none.
    pub(super) fn send(&self, carrier: &Carrier, body: Bytes) -> Option<usize> {
        if !carrier.takes_datagram(body.len()) {
            return None;
        }
        let mut waiting = self.waiting();
        if waiting.bodies.is_empty() && carrier.has_datagram_room(body.len()) {
            carrier.send_datagram(body);
            return Some(0);
        }
        let mut gave_way = 0;
        waiting.bytes += body.len();
        waiting.bodies.push_back(body);
        while waiting.bytes > self.most_bytes && waiting.bodies.len() > 1 {
            waiting.pop();
            gave_way += 1;
        }
        self.blocked.notify_one();
        Some(gave_way)
    }

    /// Hands waiting datagrams to QUIC as it sends. Never ends; one caller.
    pub(super) async fn drain(&self, carrier: &Carrier) {
        loop {
            self.blocked.notified().await;
            loop {
                let next = self.waiting().pop();
                let Some(body) = next else { break };
                carrier.send_datagram_in_turn(body).await;
            }
        }
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Bytes> {
        let body = self.bodies.pop_front()?;
        self.bytes -= body.len();
        Some(body)
    }
}
