//! While a client goes over from one connection to another, the server knows it twice: what is broadcast meanwhile comes over
//! both. The broadcasts that came over the old connection are kept in mind, and dropped when they come again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::message::{Payload, ServerMessage};

/// Broadcasts that are kept in mind at most.
const MOST: usize = 1024;
/// How long after the move one may come again.
const WITHIN: Duration = Duration::from_secs(10);

/// Broadcasts that came over the connection before.
#[derive(Debug, Default)]
pub(super) struct Overlap(Mutex<Phase>);

#[derive(Debug, Default)]
enum Phase {
    /// There is one connection.
    #[default]
    Single,
    /// Another one is being made.
    Making(VecDeque<Broadcast>),
    /// It is in use, and what came before may come again until then.
    Made(VecDeque<Broadcast>, Instant),
}

/// What tells broadcasts apart; the server gives all receivers the same.
#[derive(Debug, PartialEq, Eq)]
struct Broadcast {
    from: Uuid,
    timestamp: u64,
    payload: Payload,
}

impl Overlap {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another connection is being made.
    pub(super) fn begin(&self) {
        *self.phase() = Phase::Making(VecDeque::new());
    }

    /// It was not, and the client stays where it is.
    pub(super) fn give_up(&self) {
        *self.phase() = Phase::Single;
    }

    /// The client reads the other connection from now on.
    pub(super) fn moved(&self) {
        let mut phase = self.phase();
        if let Phase::Making(seen) = std::mem::take(&mut *phase) {
            *phase = Phase::Made(seen, Instant::now() + WITHIN);
        }
    }

    /// False for a broadcast that came over the connection before.
    pub(super) fn is_first(&self, message: &ServerMessage) -> bool {
        let ServerMessage::Broadcast { from, payload, timestamp } = message else { return true };
        let is_it = |seen: &Broadcast| (seen.from, seen.timestamp) == (*from, *timestamp) && seen.payload == *payload;
        let mut phase = self.phase();
        match &mut *phase {
            Phase::Single => true,
            Phase::Making(seen) => {
                if seen.len() >= MOST {
                    seen.pop_front();
                }
                seen.push_back(Broadcast { from: *from, timestamp: *timestamp, payload: payload.clone() });
                true
            }
            Phase::Made(_, until) if *until <= Instant::now() => {
                *phase = Phase::Single;
                true
            }
            // The same may have been said twice within a millisecond: each drops one.
            Phase::Made(seen, _) => seen.iter().position(is_it).and_then(|at| seen.remove(at)).is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broadcast(text: &str) -> ServerMessage {
        ServerMessage::Broadcast { from: Uuid::nil(), payload: Payload::text(text), timestamp: 1 }
    }

    #[test]
    fn what_came_over_the_old_connection_does_not_come_again_over_the_new_one() {
        let overlap = Overlap::default();
        assert!(overlap.is_first(&broadcast("before")) && overlap.is_first(&broadcast("before")));
        overlap.begin();
        for text in ["a", "twice", "twice"] {
            assert!(overlap.is_first(&broadcast(text)));
        }
        overlap.moved();
        for (text, is_first) in [("a", false), ("a", true), ("twice", false), ("twice", false), ("twice", true)] {
            assert_eq!(overlap.is_first(&broadcast(text)), is_first, "{text}");
        }
        overlap.begin();
        assert!(overlap.is_first(&broadcast("b")));
        overlap.give_up();
        assert!(overlap.is_first(&broadcast("b")));
    }

    #[test]
    fn what_is_kept_in_mind_has_a_bound() {
        let overlap = Overlap::default();
        overlap.begin();
        for n in 0..MOST + 5 {
            overlap.is_first(&broadcast(&n.to_string()));
        }
        overlap.moved();
        assert!(overlap.is_first(&broadcast("0")) && !overlap.is_first(&broadcast("5")));
    }
}
