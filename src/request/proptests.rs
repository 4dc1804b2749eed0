//! The table of open requests against a model: each request has one end, at the right time, and leaves nothing behind.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::table::{Number, Refused, Table};

/// Most open requests of one client.
const MOST: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Client, id, offer, time until it is due.
    Ask(u8, u8, u64, u64),
    /// Answers the request at this place among the open ones.
    Answer(usize),
    Cancel(u8, u8),
    Leave(u8),
    Withdraw(u64),
    Wait(u64),
    /// The next client that is owed an error is told.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let (client, id, offer) = (0_u8..3, 0_u8..6, 0_u64..4);
    prop_oneof![
        10 => (client.clone(), id.clone(), offer.clone(), 1_u64..50).prop_map(|(c, i, o, d)| Step::Ask(c, i, o, d)),
        5 => (0_usize..12).prop_map(Step::Answer),
        2 => (client.clone(), id).prop_map(|(client, id)| Step::Cancel(client, id)),
        1 => client.prop_map(Step::Leave),
        1 => offer.prop_map(Step::Withdraw),
        3 => (1_u64..30).prop_map(Step::Wait),
        4 => Just(Step::Settle),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    client: u8,
    id: u8,
    offer: u64,
    due: u64,
}

#[derive(Default)]
struct Model {
    open: BTreeMap<Number, Asked>,
    /// Clients that are owed an error.
    owed: Vec<u8>,
    now: u64,
}

impl Model {
    fn admits(&self, client: u8, id: u8) -> Result<(), Refused> {
        let mut own = self.open.values().filter(|asked| asked.client == client);
        if own.clone().any(|asked| asked.id == id) {
            return Err(Refused::SameId);
        }
        let owed = self.owed.iter().filter(|&&owed| owed == client).count();
        if own.by_ref().count() + owed >= MOST { Err(Refused::TooMany) } else { Ok(()) }
    }

    /// Removes the requests that a condition holds for.
    fn take(&mut self, is_meant: impl Fn(&Asked) -> bool) -> Vec<Number> {
        let numbers: Vec<_> =
            self.open.iter().filter(|(_, asked)| is_meant(asked)).map(|(&number, _)| number).collect();
        self.open.retain(|_, asked| !is_meant(asked));
        numbers
    }
}

proptest! {
    #[test]
    fn each_request_has_one_end_and_leaves_nothing_behind(steps in proptest::collection::vec(step(), 1..150)) {
        let (mut table, mut model) = (Table::<u8, u8, Asked>::new(2, 3), Model::default());
        let mut numbers = Vec::new();
        for step in steps {
            match step {
                Step::Ask(client, id, offer, within) => {
                    let admitted = table.admits(client, &id, MOST);
                    prop_assert_eq!(admitted, model.admits(client, id));
                    if admitted.is_ok() {
                        let asked = Asked { client, id, offer, due: model.now + within };
                        let number = table.open(client, id, offer, asked.due, asked);
                        prop_assert_eq!(number % 3, 2, "the number names its table");
                        numbers.push(number);
                        model.open.insert(number, asked);
                    }
                }
                Step::Answer(at) => {
                    let number = model.open.keys().nth(at).copied();
                    let expected = number.and_then(|number| model.open.remove(&number));
                    let number = number.unwrap_or(u64::MAX);
                    prop_assert_eq!(table.get(number).map(|open| open.with), expected);
                    prop_assert_eq!(table.close(number).map(|open| open.with), expected);
                    prop_assert!(table.close(number).is_none(), "it ends once");
                }
                Step::Cancel(client, id) => {
                    let ended = model.take(|asked| asked.client == client && asked.id == id);
                    let cancelled = table.cancel(client, &id).map(|(number, _)| number);
                    prop_assert_eq!(cancelled, ended.first().copied());
                }
                Step::Leave(client) => {
                    model.owed.retain(|&owed| owed != client);
                    let mut ended: Vec<_> = table.leave(client).into_iter().map(|(number, _)| number).collect();
                    ended.sort_unstable();
                    prop_assert_eq!(ended, model.take(|asked| asked.client == client));
                }
                Step::Withdraw(offer) => {
                    let ended = table.withdraw(offer);
                    model.owed.extend(ended.iter().map(|(_, open)| open.requester));
                    let mut ended: Vec<_> = ended.into_iter().map(|(number, _)| number).collect();
                    ended.sort_unstable();
                    prop_assert_eq!(ended, model.take(|asked| asked.offer == offer));
                }
                Step::Wait(time) => {
                    model.now += time;
                    let now = model.now;
                    let mut last = 0;
                    let mut ended = Vec::new();
                    while let Some((number, open)) = table.expire(now) {
                        prop_assert!(open.with.due >= last, "in the order of their times");
                        last = open.with.due;
                        ended.push(number);
                        model.owed.push(open.requester);
                    }
                    ended.sort_unstable();
                    prop_assert_eq!(ended, model.take(|asked| asked.due <= now));
                }
                Step::Settle => {
                    if !model.owed.is_empty() {
                        table.settle(model.owed.remove(0));
                    }
                }
            }
            prop_assert_eq!(table.len(), model.open.len());
            prop_assert_eq!(table.next_due(), model.open.values().map(|asked| asked.due).min());
        }
        numbers.sort_unstable();
        prop_assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "numbers are given once");
        (0..3).for_each(|client| drop(table.leave(client)));
        model.owed.clear();
        prop_assert!(table.is_clean(), "{:?}", table);
    }
}

#[test]
fn tables_of_one_server_give_different_numbers() {
    let mut tables: Vec<_> = (0..3).map(|place| Table::<u8, u8, ()>::new(place, 3)).collect();
    let mut numbers = Vec::new();
    for id in 0..10 {
        numbers.extend(tables.iter_mut().map(|table| table.open(0, id, 0, 0, ())));
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 30);
}
