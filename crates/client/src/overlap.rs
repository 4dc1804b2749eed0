//! Broadcasts while a client moves from a WebSocket to QUIC. The server knows it twice then, so what is broadcast comes
//! over both connections, and both are read. Each broadcast is handed on once, in the order of the WebSocket until that
//! has ended.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Carrier;
use crate::message::{Payload, ServerMessage};

/// Broadcasts that are remembered at most, of each connection.
const MOST: usize = 1024;
/// How long after the move a broadcast may come again.
const WITHIN: Duration = Duration::from_secs(10);

/// The broadcasts of a move.
#[derive(Debug, Default)]
pub(super) struct Overlap(Mutex<Phase>);

#[derive(Debug, Default)]
enum Phase {
    /// There is one connection.
    #[default]
    Single,
    /// QUIC is being tried. The broadcasts came over the WebSocket.
    Trying(VecDeque<Broadcast>),
    /// Both connections are read.
    Both {
        /// Came over the WebSocket, and not over QUIC yet.
        seen: VecDeque<Broadcast>,
        /// Came over QUIC, and not over the WebSocket yet: held back, so that all stay in order.
        early: VecDeque<Broadcast>,
    },
    /// QUIC alone is read. The broadcasts came over the WebSocket, and may come again until then.
    Moved(VecDeque<Broadcast>, Instant),
}

/// A broadcast; the server sends the same to all receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broadcast {
    from: Uuid,
    payload: Payload,
    timestamp: u64,
}

impl From<Broadcast> for ServerMessage {
    fn from(Broadcast { from, payload, timestamp }: Broadcast) -> Self {
        Self::Broadcast { from, payload, timestamp }
    }
}

impl Overlap {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// QUIC is being tried.
    pub(super) fn begin(&self) {
        *self.phase() = Phase::Trying(VecDeque::new());
    }

    /// Both connections are read from now on.
    pub(super) fn both(&self) {
        let mut phase = self.phase();
        if let Phase::Trying(seen) = std::mem::take(&mut *phase) {
            *phase = Phase::Both { seen, early: VecDeque::new() };
        }
    }

    /// The WebSocket has ended. Gives the broadcasts that were held back.
    pub(super) fn moved(&self) -> Vec<ServerMessage> {
        let mut phase = self.phase();
        let Phase::Both { seen, early } = std::mem::take(&mut *phase) else { return Vec::new() };
        *phase = Phase::Moved(seen, Instant::now() + WITHIN);
        early.into_iter().map(Into::into).collect()
    }

    /// The client does not move. Gives the broadcasts that were held back.
    pub(super) fn give_up(&self) -> Vec<ServerMessage> {
        match std::mem::take(&mut *self.phase()) {
            Phase::Both { early, .. } => early.into_iter().map(Into::into).collect(),
            _ => Vec::new(),
        }
    }

    /// The message to hand on now that this one came: none if it is a broadcast that came before, or is held back.
    pub(super) fn pass(&self, over: Carrier, message: ServerMessage) -> Option<ServerMessage> {
        let ServerMessage::Broadcast { from, payload, timestamp } = message else { return Some(message) };
        let broadcast = Broadcast { from, payload, timestamp };
        let mut phase = self.phase();
        match (&mut *phase, over) {
            (Phase::Single, _) => {}
            (Phase::Trying(seen), _) => remember(seen, &broadcast),
            (Phase::Both { seen, early }, Carrier::WebSocket) => {
                if !take(early, &broadcast) {
                    remember(seen, &broadcast);
                }
            }
            (Phase::Both { seen, early }, Carrier::Quic) => {
                if !take(seen, &broadcast) {
                    early.push_back(broadcast);
                }
                if early.len() <= MOST {
                    return None;
                }
                return early.pop_front().map(Into::into);
            }
            (Phase::Moved(_, until), _) if *until <= Instant::now() => *phase = Phase::Single,
            (Phase::Moved(seen, _), _) => {
                if take(seen, &broadcast) {
                    return None;
                }
            }
        }
        Some(broadcast.into())
    }
}

fn remember(seen: &mut VecDeque<Broadcast>, broadcast: &Broadcast) {
    if seen.len() >= MOST {
        seen.pop_front();
    }
    seen.push_back(broadcast.clone());
}

/// Whether the broadcast was among these. The same may be sent twice within a millisecond, so one alone is removed.
fn take(among: &mut VecDeque<Broadcast>, broadcast: &Broadcast) -> bool {
    among.iter().position(|one| one == broadcast).and_then(|at| among.remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broadcast(text: &str) -> ServerMessage {
        ServerMessage::Broadcast { from: Uuid::nil(), payload: Payload::text(text), timestamp: 1 }
    }

    fn text(message: ServerMessage) -> String {
        match message {
            ServerMessage::Broadcast { payload, .. } => payload.content.unwrap_or_default().to_string(),
            other => panic!("expected a broadcast, got {other:?}"),
        }
    }

    impl Overlap {
        fn over(&self, over: Carrier, said: &str) -> Option<String> {
            self.pass(over, broadcast(said)).map(text)
        }

        fn is_first(&self, said: &str) -> bool {
            self.over(Carrier::Quic, said).is_some()
        }
    }

    #[test]
    fn a_broadcast_of_the_old_connection_does_not_come_again_over_the_new_one() {
        let overlap = Overlap::default();
        let socket = |said| overlap.over(Carrier::WebSocket, said).is_some();
        assert!(socket("before") && socket("before"));
        overlap.begin();
        for text in ["a", "twice", "twice"] {
            assert!(socket(text));
        }
        overlap.both();
        assert!(overlap.moved().is_empty());
        for (text, is_first) in [("a", false), ("a", true), ("twice", false), ("twice", false), ("twice", true)] {
            assert_eq!(overlap.is_first(text), is_first, "{text}");
        }
        overlap.begin();
        assert!(socket("b"));
        assert!(overlap.give_up().is_empty());
        assert!(overlap.is_first("b"));
    }

    #[test]
    fn while_both_are_read_each_broadcast_comes_once_and_in_order() {
        let overlap = Overlap::default();
        let (socket, quic) = (|said| overlap.over(Carrier::WebSocket, said), |said| overlap.over(Carrier::Quic, said));
        overlap.begin();
        assert!(socket("1").is_some());
        overlap.both();
        assert!(socket("2").is_some());
        // QUIC has missed the first, and is ahead.
        for said in ["2", "3", "4", "5"] {
            assert_eq!(quic(said), None, "{said}");
        }
        assert!(socket("3").is_some());
        assert!(matches!(
            overlap.pass(Carrier::Quic, ServerMessage::Ping { timestamp: 1 }),
            Some(ServerMessage::Ping { .. })
        ));
        assert_eq!(overlap.moved().into_iter().map(text).collect::<Vec<_>>(), ["4", "5"]);
        assert_eq!((quic("6").as_deref(), quic("6").as_deref()), (Some("6"), Some("6")));
    }

    #[test]
    fn remembered_and_held_back_broadcasts_are_bounded() {
        let overlap = Overlap::default();
        overlap.begin();
        for n in 0..MOST + 5 {
            overlap.over(Carrier::WebSocket, &n.to_string());
        }
        overlap.both();
        overlap.moved();
        assert!(overlap.is_first("0") && !overlap.is_first("5"));
        overlap.begin();
        overlap.both();
        for n in 0..MOST {
            assert_eq!(overlap.over(Carrier::Quic, &n.to_string()), None);
        }
        assert_eq!(overlap.over(Carrier::Quic, "one more").as_deref(), Some("0"));
        assert_eq!(overlap.give_up().len(), MOST);
    }
}
