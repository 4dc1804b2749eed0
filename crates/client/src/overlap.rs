//! Broadcasts while a client moves from a WebSocket to QUIC. The server knows it twice then, so what is broadcast comes
//! over both connections, and both are read. Each broadcast is handed on once, in the order of the WebSocket until that
//! has ended.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Carrier;
use crate::message::{Payload, Sender, ServerMessage};

/// Broadcasts that are remembered or held back at most.
const MOST: usize = 1024;
/// Most bytes of content that are held back; the newest broadcast may be larger.
const MOST_BYTES: usize = 4 << 20;
/// How long after the move a broadcast may come again.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// The broadcasts of a move.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    phase: Mutex<Phase>,
    /// Its keys are random, so no sender can make two broadcasts look the same.
    hasher: RandomState,
}

/// A broadcast as it is remembered: the hash of its sender, time and content, which may be large.
type Fingerprint = u64;

#[derive(Debug, Default)]
enum Phase {
    /// There is one connection.
    #[default]
    Single,
    /// QUIC is being tried. The broadcasts came over the WebSocket.
    Trying(VecDeque<Fingerprint>),
    /// Both connections are read.
    Both {
        /// Came over the WebSocket, and not over QUIC yet.
        seen: VecDeque<Fingerprint>,
        /// Came over QUIC, and not over the WebSocket yet: held back, so that all stay in order.
        early: Early,
    },
    /// QUIC alone is read. The broadcasts came over the WebSocket, and may come again until then.
    Moved(VecDeque<Fingerprint>, Instant),
}

/// Broadcasts that are held back.
#[derive(Debug, Default)]
struct Early {
    broadcasts: VecDeque<(Fingerprint, Broadcast)>,
    /// Bytes of their content.
    bytes: usize,
}

impl Early {
    fn push(&mut self, fingerprint: Fingerprint, broadcast: Broadcast) {
        self.bytes += broadcast.bytes();
        self.broadcasts.push_back((fingerprint, broadcast));
    }

    /// Takes the oldest if there are too many.
    fn pop_excess(&mut self) -> Option<Broadcast> {
        let is_full = self.broadcasts.len() > MOST || (self.bytes > MOST_BYTES && self.broadcasts.len() > 1);
        if !is_full {
            return None;
        }
        let (_, oldest) = self.broadcasts.pop_front()?;
        self.bytes -= oldest.bytes();
        Some(oldest)
    }

    /// Removes one that came over the other connection; whether there was one.
    fn take(&mut self, fingerprint: Fingerprint) -> bool {
        let at = self.broadcasts.iter().position(|(one, _)| *one == fingerprint);
        let taken = at.and_then(|at| self.broadcasts.remove(at));
        self.bytes -= taken.as_ref().map_or(0, |(_, broadcast)| broadcast.bytes());
        taken.is_some()
    }

    fn into_messages(self) -> Vec<ServerMessage> {
        self.broadcasts.into_iter().map(|(_, broadcast)| broadcast.into()).collect()
    }
}

/// A broadcast; the server sends the same to all receivers.
#[derive(Debug)]
struct Broadcast {
    from: Sender,
    payload: Payload,
    timestamp: u64,
}

impl Broadcast {
    fn fingerprint(&self, hasher: &RandomState) -> Fingerprint {
        let Payload { content, data, attachment, .. } = &self.payload;
        hasher.hash_one((self.from.id, self.timestamp, content.as_deref(), data, attachment))
    }

    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

impl From<Broadcast> for ServerMessage {
    fn from(Broadcast { from, payload, timestamp }: Broadcast) -> Self {
        Self::Broadcast { from, payload, timestamp }
    }
}

impl Overlap {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// QUIC is being tried.
    pub(super) fn begin(&self) {
        *self.phase() = Phase::Trying(VecDeque::new());
    }

    /// Both connections are read from now on.
    pub(super) fn both(&self) {
        let mut phase = self.phase();
        if let Phase::Trying(seen) = std::mem::take(&mut *phase) {
            *phase = Phase::Both { seen, early: Early::default() };
        }
    }

    /// The WebSocket has ended. Gives the broadcasts that were held back.
    pub(super) fn moved(&self) -> Vec<ServerMessage> {
        let mut phase = self.phase();
        let Phase::Both { seen, early } = std::mem::take(&mut *phase) else { return Vec::new() };
        *phase = Phase::Moved(seen, Instant::now() + WITHIN);
        early.into_messages()
    }

    /// The client does not move. Gives the broadcasts that were held back.
    pub(super) fn give_up(&self) -> Vec<ServerMessage> {
        match std::mem::take(&mut *self.phase()) {
            Phase::Both { early, .. } => early.into_messages(),
            _ => Vec::new(),
        }
    }

    /// Forgets the broadcasts of a move that is over.
    pub(super) fn forget(&self) {
        let mut phase = self.phase();
        if matches!(&*phase, Phase::Moved(..)) {
            *phase = Phase::Single;
        }
    }

    /// The messages to hand on now that this one came: none if it is a broadcast that came before, or is held back;
    /// others if there is no room to hold them back any longer.
    pub(super) fn pass(&self, over: Carrier, message: ServerMessage, mut hand_on: impl FnMut(ServerMessage)) {
        let ServerMessage::Broadcast { from, payload, timestamp } = message else { return hand_on(message) };
        let broadcast = Broadcast { from, payload, timestamp };
        let mut phase = self.phase();
        if matches!(&*phase, Phase::Moved(_, until) if *until <= Instant::now()) {
            *phase = Phase::Single;
        }
        match (&mut *phase, over) {
            (Phase::Single, _) => {}
            (Phase::Trying(seen), _) => remember(seen, broadcast.fingerprint(&self.hasher)),
            (Phase::Both { seen, early }, Carrier::WebSocket) => {
                let fingerprint = broadcast.fingerprint(&self.hasher);
                if !early.take(fingerprint) {
                    remember(seen, fingerprint);
                }
            }
            (Phase::Both { seen, early }, Carrier::Quic) => {
                let fingerprint = broadcast.fingerprint(&self.hasher);
                if !take(seen, fingerprint) {
                    early.push(fingerprint, broadcast);
                }
                std::iter::from_fn(|| early.pop_excess()).map(Into::into).for_each(hand_on);
                return;
            }
            (Phase::Moved(seen, _), _) => {
                if take(seen, broadcast.fingerprint(&self.hasher)) {
                    return;
                }
            }
        }
        hand_on(broadcast.into());
    }
}

fn remember(seen: &mut VecDeque<Fingerprint>, broadcast: Fingerprint) {
    if seen.len() >= MOST {
        seen.pop_front();
    }
    seen.push_back(broadcast);
}

/// Whether the broadcast was among these. The same may be sent twice within a millisecond, so one alone is removed.
fn take(among: &mut VecDeque<Fingerprint>, broadcast: Fingerprint) -> bool {
    among.iter().position(|one| *one == broadcast).and_then(|at| among.remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broadcast(text: &str) -> ServerMessage {
        ServerMessage::Broadcast { from: uuid::Uuid::nil().into(), payload: Payload::text(text), timestamp: 1 }
    }

    fn text(message: ServerMessage) -> String {
        match message {
            ServerMessage::Broadcast { payload, .. } => payload.content.unwrap_or_default().to_string(),
            other => panic!("expected a broadcast, got {other:?}"),
        }
    }

    impl Overlap {
        fn over(&self, over: Carrier, said: &str) -> Option<String> {
            self.passed(over, broadcast(said)).pop().map(text)
        }

        fn passed(&self, over: Carrier, message: ServerMessage) -> Vec<ServerMessage> {
            let mut passed = Vec::new();
            self.pass(over, message, |message| passed.push(message));
            passed
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
            overlap.passed(Carrier::Quic, ServerMessage::Ping { timestamp: 1 })[..],
            [ServerMessage::Ping { .. }]
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

    #[test]
    fn large_broadcasts_are_not_held_back_in_any_number() {
        let overlap = Overlap::default();
        overlap.begin();
        overlap.both();
        for n in 0..3 {
            assert_eq!(overlap.over(Carrier::Quic, &n.to_string()), None);
        }
        let large = "x".repeat(MOST_BYTES);
        let passed = overlap.passed(Carrier::Quic, broadcast(&large)).into_iter().map(text);
        assert_eq!(passed.collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_eq!(overlap.passed(Carrier::Quic, broadcast(&large)).len(), 1);
        assert_eq!(overlap.over(Carrier::WebSocket, &large).map(|text| text.len()), Some(MOST_BYTES));
        assert!(overlap.give_up().is_empty());
    }

    #[test]
    fn after_a_move_broadcasts_are_forgotten() {
        let overlap = Overlap::default();
        overlap.begin();
        overlap.over(Carrier::WebSocket, "a");
        overlap.forget();
        overlap.both();
        overlap.forget();
        overlap.moved();
        assert!(!overlap.is_first("a"), "it is remembered until the move is over");
        overlap.forget();
        assert!(overlap.is_first("a") && matches!(*overlap.phase(), Phase::Single));
    }
}
