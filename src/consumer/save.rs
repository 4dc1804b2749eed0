//! The state of a consumer as bytes, for a store that checks them by itself.
//!
//! Layout: version `u8`, flags `u8`; then numbers of variable length (7 bits a byte, the lowest first, the highest bit
//! set in all but the last): `ack_wait_ms`, `max_in_flight`, `max_deliver`, the time of its last use, `through`, the
//! number of open messages, and for each of these the distance from the one before, its tries times 4 plus why it is
//! dead (0 if it is not), and its failures.

use super::state::{Place, Why};
use super::{Consumer, MAX_OPEN, Options};

const VERSION: u8 = 1;
const SHARE: u8 = 1;
const UP_TO: u8 = 2;

/// Why bytes are not the state of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaveError {
    /// A newer release has written it.
    #[error("the state of a consumer has format {0}, and this release reads up to {VERSION}; use a newer release")]
    Newer(u8),
    /// It is cut off, or out of bounds.
    #[error("the state of a consumer makes no sense")]
    Damaged,
}

impl Consumer {
    /// Its state, without its members: their messages are to be delivered again to the next ones. `used_ms` is the
    /// wall-clock time at which it had a member last.
    pub(crate) fn save(&self, used_ms: u64) -> Vec<u8> {
        let Options { share, up_to, ack_wait_ms, max_in_flight, max_deliver } = self.options;
        let mut out = Vec::with_capacity(32 + 4 * self.open.len());
        out.push(VERSION);
        out.push(if share { SHARE } else { 0 } | if up_to { UP_TO } else { 0 });
        let head = [ack_wait_ms, max_in_flight.into(), max_deliver.into(), used_ms, self.through];
        head.into_iter().chain([self.open.len() as u64]).for_each(|number| put(&mut out, number));
        let mut before = 0;
        for (&offset, open) in &self.open {
            let dead = match open.place {
                Place::Dead(Why::Rejected) => 1,
                Place::Dead(Why::TooOften) => 2,
                _ => 0,
            };
            put(&mut out, offset - before);
            put(&mut out, u64::from(open.tries) << 2 | dead);
            put(&mut out, open.failures.into());
            before = offset;
        }
        out
    }

    /// A consumer from its state, and the time of its last use. Nothing behind `newest`, the topic's newest offset, is
    /// believed: a log that lost its end may give these offsets to other messages.
    pub(crate) fn load(saved: &[u8], newest: u64) -> Result<(Self, u64), SaveError> {
        let mut rest = saved;
        let version = byte(&mut rest)?;
        if version > VERSION {
            return Err(SaveError::Newer(version));
        }
        let flags = byte(&mut rest)?;
        let (share, up_to) = (flags & SHARE > 0, flags & UP_TO > 0);
        let ack_wait_ms = number(&mut rest)?;
        let options =
            Options { share, up_to, ack_wait_ms, max_in_flight: small(&mut rest)?, max_deliver: small(&mut rest)? };
        let (used_ms, through, count) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        if version == 0 || share && up_to || options.max_in_flight > MAX_OPEN || count > MAX_OPEN.into() {
            return Err(SaveError::Damaged);
        }
        let mut consumer = Self::new(options, through.min(newest));
        let mut offset = 0_u64;
        for _ in 0..count {
            let step = number(&mut rest)?;
            offset =
                offset.checked_add(step).filter(|&offset| step > 0 && offset <= through).ok_or(SaveError::Damaged)?;
            let (tries, failures) = (number(&mut rest)?, small(&mut rest)?);
            let dead = match tries & 3 {
                0 => None,
                1 => Some(Why::Rejected),
                _ => Some(Why::TooOften),
            };
            let tries = u32::try_from(tries >> 2).map_err(|_| SaveError::Damaged)?;
            if offset <= newest {
                consumer.restore_after(offset, tries, failures, dead);
            }
        }
        if rest.is_empty() { Ok((consumer, used_ms)) } else { Err(SaveError::Damaged) }
    }

    /// A delivery that was under way is over now.
    fn restore_after(&mut self, offset: u64, tries: u32, failures: u32, dead: Option<Why>) {
        let failures = if self.options.up_to { failures } else { tries };
        let is_dead = self.options.max_deliver > 0 && failures >= self.options.max_deliver;
        self.restore(offset, tries, failures, dead.or_else(|| is_dead.then_some(Why::TooOften)));
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn byte(rest: &mut &[u8]) -> Result<u8, SaveError> {
    let (&first, others) = rest.split_first().ok_or(SaveError::Damaged)?;
    *rest = others;
    Ok(first)
}

fn number(rest: &mut &[u8]) -> Result<u64, SaveError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let next = byte(rest)?;
        let bits = u64::from(next & 0x7F);
        if bits << shift >> shift != bits {
            return Err(SaveError::Damaged);
        }
        number |= bits << shift;
        if next & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(SaveError::Damaged)
}

fn small(rest: &mut &[u8]) -> Result<u32, SaveError> {
    u32::try_from(number(rest)?).map_err(|_| SaveError::Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Outcome;
    use super::*;

    const OPTIONS: Options =
        Options { share: true, up_to: false, ack_wait_ms: 30_000, max_in_flight: 10, max_deliver: 3 };

    /// A consumer to which 1 to 5 were delivered, of which 2 is acknowledged, 3 rejected, and 5 delivered again.
    fn consumer() -> Consumer {
        let mut consumer = Consumer::new(OPTIONS, 0);
        let (member, _) = consumer.join();
        consumer.set_ready(member, true);
        for offset in 1..=5 {
            assert_eq!((consumer.give(offset), consumer.send(member, offset, 0)), (Some(member), Some(1)));
        }
        for (offset, outcome) in [(2, Outcome::Done), (3, Outcome::Reject), (5, Outcome::Retry { delay_ms: 0 })] {
            assert_eq!(consumer.acknowledge(member, offset, outcome, 0), 1);
        }
        assert_eq!((consumer.give(5), consumer.send(member, 5, 0)), (Some(member), Some(2)));
        consumer
    }

    #[test]
    fn a_saved_consumer_goes_on_where_it_was() {
        let saved = consumer().save(77);
        assert!(saved.len() < 40, "{} bytes", saved.len());
        let (mut loaded, used_ms) = Consumer::load(&saved, 9).expect("its own state");
        assert_eq!((used_ms, *loaded.options(), loaded.floor(), loaded.through()), (77, OPTIONS, 0, 5));
        assert_eq!((loaded.next_dead(), loaded.open()), (Some((3, Why::Rejected)), 4));
        let (member, _) = loaded.join();
        loaded.set_ready(member, true);
        assert_eq!(loaded.wanted(9), Some((0, 1)));
        for (offset, tries) in [(1, 2), (4, 2), (5, 3)] {
            assert_eq!(loaded.wanted(9).map(|(after, _)| after), Some(offset - 1));
            assert_eq!((loaded.give(offset), loaded.send(member, offset, 0)), (Some(member), Some(tries)));
        }
    }

    #[test]
    fn what_the_log_has_lost_is_forgotten_and_deliveries_that_were_cut_off_count() {
        let saved = consumer().save(0);
        let (loaded, _) = Consumer::load(&saved, 4).expect("its own state");
        assert_eq!((loaded.through(), loaded.open(), loaded.floor()), (4, 3, 0));
        let mut once = consumer();
        once.options.max_deliver = 1;
        let (loaded, _) = Consumer::load(&once.save(0), 9).expect("its own state");
        assert_eq!(loaded.next_dead(), Some((1, Why::TooOften)));
    }

    #[test]
    fn bytes_of_another_format_are_refused() {
        let mut saved = consumer().save(0);
        assert!(matches!(Consumer::load(&[2, 0], 9), Err(SaveError::Newer(2))));
        saved.push(0);
        assert_eq!(Consumer::load(&saved, 9).err(), Some(SaveError::Damaged));
        assert_eq!(Consumer::load(&[], 9).err(), Some(SaveError::Damaged));
    }

    proptest! {
        #[test]
        fn no_bytes_do_any_harm(
            mut saved in proptest::collection::vec(any::<u8>(), 0..60),
            is_version in any::<bool>(),
        ) {
            if let Some(first) = saved.first_mut() && is_version {
                *first = VERSION;
            }
            if let Ok((consumer, _)) = Consumer::load(&saved, 1000) {
                prop_assert!(consumer.open() <= MAX_OPEN as usize && consumer.through() <= 1000);
                prop_assert!(consumer.floor() <= consumer.through());
            }
        }

        #[test]
        fn numbers_are_read_as_they_were_written(numbers in proptest::collection::vec(any::<u64>(), 0..8)) {
            let mut out = Vec::new();
            numbers.iter().for_each(|&one| put(&mut out, one));
            let mut rest = &out[..];
            for one in numbers {
                prop_assert_eq!(number(&mut rest), Ok(one));
            }
            prop_assert!(rest.is_empty());
        }
    }
}
