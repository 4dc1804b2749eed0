//! The state machine against a model that says of each message only what a user would: nobody has it, this member has
//! it, or it is over.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Consumer, MemberId, Options, Outcome, Why};

/// What a user sees of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Owed to some member.
    Owed,
    With(MemberId),
    Acknowledged,
    Dead(Why),
    Buried,
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish(u8),
    Join,
    Leave(usize),
    Stall(usize),
    Ready(usize),
    /// Gives as much as there is room for, and sends it.
    Deal,
    /// Gives one message, which is not sent.
    Give,
    Acknowledge(usize, usize, Outcome),
    Wait(u16),
    Bury,
    Trim(u8),
    /// The server is started again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Done),
        2 => prop_oneof![Just(0_u64), Just(700)].prop_map(|delay_ms| Outcome::Retry { delay_ms }),
        1 => Just(Outcome::Reject),
    ];
    prop_oneof![
        6 => (1_u8..5).prop_map(Step::Publish),
        3 => Just(Step::Join),
        1 => (0_usize..4).prop_map(Step::Leave),
        1 => (0_usize..4).prop_map(Step::Stall),
        2 => (0_usize..4).prop_map(Step::Ready),
        8 => Just(Step::Deal),
        1 => Just(Step::Give),
        12 => (0_usize..4, 0_usize..12, outcome).prop_map(|(member, at, how)| Step::Acknowledge(member, at, how)),
        3 => (1_u16..1500).prop_map(Step::Wait),
        2 => Just(Step::Bury),
        1 => (1_u8..10).prop_map(Step::Trim),
        1 => Just(Step::Restart),
    ]
}

struct Model {
    consumer: Consumer,
    options: Options,
    now_ms: u64,
    newest: u64,
    trimmed: u64,
    /// The messages of the log that were ever published, by offset.
    seen: BTreeMap<u64, Seen>,
    tries: BTreeMap<u64, u32>,
    members: Vec<MemberId>,
    ready: Vec<MemberId>,
}

impl Model {
    fn new(options: Options) -> Self {
        Self {
            consumer: Consumer::new(options, 0),
            options,
            now_ms: 0,
            newest: 0,
            trimmed: 0,
            seen: BTreeMap::new(),
            tries: BTreeMap::new(),
            members: Vec::new(),
            ready: Vec::new(),
        }
    }

    fn holders(&mut self, member: MemberId, becomes: Seen) {
        self.seen.values_mut().filter(|seen| **seen == Seen::With(member)).for_each(|seen| *seen = becomes);
    }

    fn end(&mut self, member: MemberId) {
        self.holders(member, Seen::Owed);
        self.members.retain(|&other| other != member);
        self.ready.retain(|&other| other != member);
    }

    /// Takes over which messages are dead and which are owed again: when that is so, the machine decides.
    fn look(&mut self) -> Result<(), TestCaseError> {
        for (offset, open) in &self.consumer.open {
            let seen =
                self.seen.get_mut(offset).ok_or_else(|| TestCaseError::fail(format!("{offset} is no message")))?;
            match open.place {
                super::state::Place::Held { by, .. } => prop_assert_eq!(*seen, Seen::With(by), "{}", offset),
                super::state::Place::Dead(why) => {
                    prop_assert!(matches!(*seen, Seen::Owed | Seen::With(_) | Seen::Dead(_)), "{} {:?}", offset, seen);
                    if why == Why::TooOften {
                        prop_assert!(self.options.max_deliver > 0 && open.tries >= self.options.max_deliver);
                    }
                    *seen = Seen::Dead(why);
                }
                _ => {
                    prop_assert!(matches!(*seen, Seen::Owed | Seen::With(_)), "{} {:?}", offset, seen);
                    *seen = Seen::Owed;
                }
            }
        }
        let (floor, through) = (self.consumer.floor(), self.consumer.through());
        prop_assert!(floor <= through && through <= self.newest);
        prop_assert!(self.consumer.open() <= self.options.max_in_flight as usize);
        for (offset, seen) in &self.seen {
            let is_open = self.consumer.open.contains_key(offset);
            let is_over = matches!(seen, Seen::Acknowledged | Seen::Buried | Seen::Lost);
            prop_assert_eq!(is_open, !is_over && *offset <= through, "{} is {:?}", offset, seen);
            prop_assert!(is_over || *offset > floor, "{} is {:?}, the floor {}", offset, seen, floor);
        }
        let held = self.seen.values().filter(|seen| matches!(seen, Seen::With(_))).count() as u64;
        prop_assert!(held <= self.consumer.in_flight());
        prop_assert_eq!(self.consumer.members(), self.members.len());
        Ok(())
    }

    fn deliver(&mut self, offset: u64, member: MemberId) -> Result<(), TestCaseError> {
        prop_assert!(self.ready.contains(&member), "{} is not ready", member);
        let tries = self.consumer.send(member, offset, self.now_ms);
        let before = self.tries.entry(offset).or_default();
        *before += 1;
        prop_assert_eq!(tries, Some(*before), "tries count up");
        let seen = self.seen.insert(offset, Seen::With(member));
        prop_assert_eq!(seen, Some(Seen::Owed), "{} was delivered", offset);
        Ok(())
    }

    fn deal(&mut self) -> Result<(), TestCaseError> {
        let lost = self.consumer.trim(self.trimmed);
        for offset in lost.ranges.into_iter().flatten() {
            if let Some(seen) = self.seen.get_mut(&offset) {
                prop_assert!(matches!(*seen, Seen::Owed | Seen::Dead(_)));
                *seen = Seen::Lost;
            }
        }
        let mut before = 0;
        while let Some((after, count)) = self.consumer.wanted(3) {
            prop_assert!((1..=3).contains(&count));
            let page: Vec<_> = self.seen.range(after + 1..).map(|(&offset, _)| offset).take(count).collect();
            for &offset in &page {
                if self.options.up_to {
                    prop_assert!(offset > before, "{} comes behind {}", offset, before);
                    before = offset;
                }
                let member = self.consumer.give(offset);
                self.deliver(offset, member.ok_or_else(|| TestCaseError::fail("it was wanted"))?)?;
            }
            if page.is_empty() {
                break;
            }
        }
        let is_owed = self.seen.values().any(|seen| *seen == Seen::Owed);
        let is_full = self.consumer.open() == self.options.max_in_flight as usize;
        let due = self.consumer.due_ms();
        prop_assert!(!is_owed || is_full || self.ready.is_empty() || due.is_some(), "somebody could have had more");
        Ok(())
    }

    fn acknowledge(&mut self, member: MemberId, at: usize, outcome: Outcome) {
        let held: Vec<_> = self.seen.iter().filter(|(_, seen)| **seen == Seen::With(member)).map(|(&o, _)| o).collect();
        // Sometimes one that it does not have.
        let offset = held.get(at).copied().unwrap_or(at as u64);
        let count = self.consumer.acknowledge(member, offset, outcome, self.now_ms);
        match outcome {
            Outcome::Done if count > 0 => {
                let (open, last) = (&self.consumer.open, offset.min(self.consumer.through()));
                let first = if self.options.up_to { 0 } else { offset };
                for (_, seen) in self.seen.range_mut(first..=last).filter(|(offset, _)| !open.contains_key(offset)) {
                    if matches!(*seen, Seen::With(_) | Seen::Owed) {
                        *seen = Seen::Acknowledged;
                    }
                }
            }
            Outcome::Done => assert!(!held.contains(&offset), "{offset} was with {member}"),
            Outcome::Retry { .. } if count > 0 && self.options.up_to => self.holders(member, Seen::Owed),
            Outcome::Retry { .. } | Outcome::Reject if count > 0 => {
                self.seen.insert(offset, Seen::Owed);
            }
            Outcome::Retry { .. } | Outcome::Reject => {}
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Publish(jump) => {
                self.newest += u64::from(jump);
                self.seen.insert(self.newest, Seen::Owed);
            }
            Step::Join if self.members.len() < 4 => {
                let (member, displaced) = self.consumer.join();
                let expected = if self.options.share { Vec::new() } else { self.members.clone() };
                prop_assert_eq!(&displaced, &expected);
                displaced.into_iter().for_each(|member| self.end(member));
                self.members.push(member);
                self.consumer.set_ready(member, true);
                self.ready.push(member);
            }
            Step::Join => {}
            Step::Leave(at) => {
                if let Some(&member) = self.members.get(at) {
                    self.consumer.leave(member);
                    self.end(member);
                }
            }
            Step::Stall(at) => {
                if let Some(&member) = self.members.get(at) {
                    self.consumer.set_ready(member, false);
                    self.consumer.take_back(member);
                    self.ready.retain(|&other| other != member);
                }
            }
            Step::Ready(at) => {
                if let Some(&member) = self.members.get(at)
                    && !self.ready.contains(&member)
                {
                    self.consumer.set_ready(member, true);
                    self.ready.push(member);
                }
            }
            Step::Deal => self.deal()?,
            Step::Give => {
                if let Some((after, _)) = self.consumer.wanted(1)
                    && after < self.consumer.through()
                    && after >= self.trimmed
                {
                    let member = self.consumer.give(after + 1);
                    prop_assert!(member.is_some_and(|member| self.ready.contains(&member)));
                    // It is taken back when the member has no room after all.
                    self.consumer.take_back(member.unwrap_or_default());
                }
            }
            Step::Acknowledge(member, at, outcome) => {
                if let Some(&member) = self.members.get(member) {
                    self.acknowledge(member, at, outcome);
                }
            }
            Step::Wait(ms) => {
                self.now_ms += u64::from(ms);
                let due = self.consumer.due_ms().is_some_and(|at_ms| at_ms <= self.now_ms);
                prop_assert_eq!(self.consumer.expire(self.now_ms), due);
                prop_assert!(self.consumer.due_ms().is_none_or(|at_ms| at_ms > self.now_ms));
                for (offset, open) in &self.consumer.open {
                    if !matches!(open.place, super::state::Place::Held { .. })
                        && let Some(seen @ Seen::With(_)) = self.seen.get_mut(offset)
                    {
                        *seen = Seen::Owed;
                    }
                }
            }
            Step::Bury => {
                if let Some((offset, why)) = self.consumer.next_dead() {
                    prop_assert_eq!(self.seen.get(&offset), Some(&Seen::Dead(why)));
                    self.consumer.bury(offset);
                    self.seen.insert(offset, Seen::Buried);
                }
            }
            Step::Trim(by) => self.trimmed = (self.trimmed + u64::from(by)).min(self.newest),
            Step::Restart => {
                let (saved, floor) = (self.consumer.save(5), self.consumer.floor());
                let loaded = Consumer::load(&saved, self.newest);
                let (consumer, used_ms) = loaded.map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!((used_ms, consumer.floor(), consumer.through()), (5, floor, self.consumer.through()));
                self.consumer = consumer;
                self.members.clone().into_iter().for_each(|member| self.end(member));
            }
        }
        self.look()
    }
}

fn options() -> impl Strategy<Value = Options> {
    let mode = prop_oneof![Just((false, false)), Just((true, false)), Just((false, true))];
    (mode, 1_u32..8, 0_u32..4).prop_map(|((share, up_to), max_in_flight, max_deliver)| Options {
        share,
        up_to,
        ack_wait_ms: 1000,
        max_in_flight,
        max_deliver,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_delivered_until_it_is_over_and_never_after(
        options in options(),
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut model = Model::new(options);
        for step in steps {
            model.step(step)?;
        }
        // In the end, a member that takes everything gets all that is owed, and nothing else.
        let mut rounds = 0;
        while model.seen.values().any(|seen| !matches!(seen, Seen::Acknowledged | Seen::Buried | Seen::Lost)) {
            model.step(Step::Wait(1000))?;
            model.step(Step::Join)?;
            (0..4).try_for_each(|at| model.step(Step::Ready(at)))?;
            model.step(Step::Deal)?;
            for at in (0..4).rev() {
                for _ in 0..8 {
                    model.step(Step::Acknowledge(at, 0, Outcome::Done))?;
                }
            }
            (0..8).try_for_each(|_| model.step(Step::Bury))?;
            rounds += 1;
            prop_assert!(rounds < 1000, "it does not end: {:?}", model.consumer);
        }
        prop_assert_eq!((model.consumer.floor(), model.consumer.open()), (model.consumer.through(), 0));
    }

    #[test]
    fn a_group_shares_evenly_among_members_that_take_messages(members in 1_usize..6, messages in 1_u64..40) {
        let options = Options { share: true, up_to: false, ack_wait_ms: 1000, max_in_flight: 50, max_deliver: 0 };
        let mut consumer = Consumer::new(options, 0);
        let ids: Vec<_> = (0..members).map(|_| consumer.join().0).collect();
        prop_assert!(ids.iter().all(|&member| consumer.set_ready(member, true)));
        let mut has: BTreeMap<MemberId, u64> = BTreeMap::new();
        for offset in 1..=messages {
            let member = consumer.give(offset).ok_or_else(|| TestCaseError::fail("somebody takes it"))?;
            *has.entry(member).or_default() += 1;
            let (most, least) = (has.values().max(), ids.iter().map(|id| has.get(id).copied().unwrap_or(0)).min());
            prop_assert!(most.copied().unwrap_or(0) - least.unwrap_or(0) <= 1, "{:?}", has);
        }
    }
}
