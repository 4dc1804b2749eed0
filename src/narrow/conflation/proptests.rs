//! Conflation against a model that looks at everything each time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Conflation, Message, Offered};

/// Something that happens, after so many microseconds.
#[derive(Debug, Clone)]
enum Step {
    Offer { subscription: u64, topic: u64 },
    Timer,
    Replace { subscription: u64 },
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        8 => (0_u64..3, 0_u64..4).prop_map(|(subscription, topic)| Step::Offer { subscription, topic }),
        3 => Just(Step::Timer),
        1 => (0_u64..3).prop_map(|subscription| Step::Replace { subscription }),
    ];
    prop::collection::vec((prop_oneof![Just(0), 0_u64..100, 0_u64..2000], step), 0..200)
}

const INTERVALS: [u64; 3] = [1, 300, 1000];

/// A topic of a subscription: when it may go on, and what is held back.
#[derive(Debug, Default, Clone)]
struct Model(BTreeMap<(u64, u64), (u64, Option<u32>)>);

impl Model {
    fn offer(&mut self, key: (u64, u64), interval: u64, message: u32, now: u64) -> Offered<u32> {
        let (end, held) = self.0.entry(key).or_insert((0, None));
        let replaced = held.take().is_some();
        if *end <= now {
            *end = now + interval;
            return Offered { now: Some(message), replaced };
        }
        *held = Some(message);
        Offered { now: None, replaced }
    }

    /// Those that are due, with the end of their interval first.
    fn due(&mut self, intervals: impl Fn(u64) -> u64, now: u64) -> Vec<(u64, u64, u32)> {
        let mut due = Vec::new();
        for (&(subscription, topic), (end, held)) in &mut self.0 {
            if *end <= now
                && let Some(message) = held.take()
            {
                due.push((*end, subscription, topic, message));
                *end = now + intervals(subscription);
            }
        }
        due.sort_unstable();
        due.into_iter().map(|(_, subscription, topic, message)| (subscription, topic, message)).collect()
    }

    fn next(&self) -> Option<u64> {
        self.0.values().filter(|(_, held)| held.is_some()).map(|(end, _)| *end).min()
    }
}

proptest! {
    #[test]
    fn what_goes_on_is_what_the_model_says(steps in steps()) {
        let mut of = Conflation::new(usize::MAX);
        let mut model = Model::default();
        // Numbers of subscriptions never come again: the nth life of one is `n * 3` more.
        let mut numbers = [0_u64, 1, 2];
        let interval = |number: u64| INTERVALS[usize::try_from(number % 3).expect("small")];
        numbers.iter().for_each(|&number| of.add(number, interval(number)));
        let (mut now, mut count) = (1, 0);
        // The topic is part of what is kept, to see that messages are not mixed up.
        for (after, step) in steps {
            now += after;
            match step {
                Step::Offer { subscription, topic } => {
                    let number = numbers[usize::try_from(subscription).expect("small")];
                    count += 1;
                    let message = Message { message: (topic, count), bytes: 10, until: u64::MAX };
                    let offered = of.offer(number, topic, message, now);
                    let expected = model.offer((number, topic), interval(number), count, now);
                    prop_assert_eq!(offered.now.map(|(_, message)| message), expected.now);
                    prop_assert_eq!(offered.replaced, expected.replaced);
                }
                Step::Timer => {
                    let due: Vec<_> = std::iter::from_fn(|| of.next_due(now))
                        .map(|(subscription, (topic, message))| (subscription, topic, message))
                        .collect();
                    prop_assert_eq!(due, model.due(interval, now));
                }
                Step::Replace { subscription } => {
                    let number = &mut numbers[usize::try_from(subscription).expect("small")];
                    of.remove(*number);
                    model.0.retain(|&(other, _), _| other != *number);
                    *number += 3;
                    of.add(*number, interval(*number));
                }
            }
            prop_assert_eq!(of.next_over(now), None);
            // A timer for it may be early, for an interval in which nothing is held back; never late.
            prop_assert_eq!(of.next().is_some(), model.next().is_some());
            prop_assert!(of.next() <= model.next());
            prop_assert_eq!(of.held, model.0.values().filter(|(_, held)| held.is_some()).count());
        }
        // At last everything goes on, and nothing is left.
        let last = now + 10_000;
        let due = std::iter::from_fn(|| of.next_due(last));
        let due: Vec<_> = due.map(|(number, (topic, message))| (number, topic, message)).collect();
        prop_assert_eq!(due, model.due(interval, last));
        prop_assert_eq!((of.next_due(last + 10_000), of.held, of.bytes, of.ends.len()), (None, 0, 0, 0));
    }

    #[test]
    fn within_any_bound_the_last_message_of_each_topic_arrives_and_none_twice(
        steps in steps(),
        most_bytes in 0_usize..2000,
    ) {
        let mut of = Conflation::new(most_bytes);
        (0..3).for_each(|number| of.add(number, INTERVALS[usize::try_from(number).expect("small")]));
        let mut last = BTreeMap::new();
        let mut arrived: BTreeMap<(u64, u64), Vec<u32>> = BTreeMap::new();
        let (mut now, mut count) = (1, 0);
        for (after, step) in steps {
            now += after;
            if let Step::Offer { subscription, topic } = step {
                count += 1;
                last.insert((subscription, topic), count);
                let message = Message { message: (topic, count), bytes: 50, until: u64::MAX };
                if let Some((topic, message)) = of.offer(subscription, topic, message, now).now {
                    arrived.entry((subscription, topic)).or_default().push(message);
                }
            }
            while let Some((number, (topic, message))) = of.next_over(now).or_else(|| of.next_due(now)) {
                arrived.entry((number, topic)).or_default().push(message);
            }
            prop_assert!(of.bytes <= most_bytes, "{} bytes of {}", of.bytes, most_bytes);
        }
        while let Some((number, (topic, message))) = of.next_due(now + 10_000) {
            arrived.entry((number, topic)).or_default().push(message);
        }
        for (key, messages) in &arrived {
            prop_assert!(messages.is_sorted_by(|one, other| one < other), "{:?}: {:?}", key, messages);
            prop_assert_eq!(messages.last(), last.get(key));
        }
        prop_assert_eq!(arrived.len(), last.len());
    }
}
