//! The open requests of one worker's clients: the client that asked, the offer that answers, and the time until which
//! they wait. Pure: knows times as numbers, and carries what its user needs (`T`) without looking at it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

/// The number of a request, unique on the server.
pub(crate) type Number = u64;

/// The number of a responder's readiness to answer: one subscription, or its handshake.
pub(crate) type OfferId = u64;

/// Why a request cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another open request of the same client has this id.
    SameId,
    /// The client has as many open requests as it may have.
    TooMany,
}

/// One request, from its opening to its only end.
#[derive(Debug)]
pub(super) struct Open<C, I, T> {
    /// The client that asked.
    pub(super) requester: C,
    /// The request's id as the client chose it.
    pub(super) id: I,
    offer: OfferId,
    due_ms: u64,
    pub(super) with: T,
}

/// The open requests. `C` names clients, `I` are the ids that these choose.
#[derive(Debug)]
pub(super) struct Table<C, I, T> {
    open: HashMap<Number, Open<C, I, T>>,
    /// By time, so that the next one is found at once.
    deadlines: BTreeSet<(u64, Number)>,
    requesters: HashMap<C, Requester<I>>,
    /// The open requests of each offer that has some.
    offers: HashMap<OfferId, HashSet<Number>>,
    /// The last number given. Tables of one server give different ones: each begins at its own place, and steps over
    /// those of the others.
    last: Number,
    step: u64,
}

/// The requests of one client.
#[derive(Debug)]
struct Requester<I> {
    open: HashMap<I, Number>,
    /// Requests that have ended without a reply, and whose error has not been sent yet. They count as open, so that a
    /// client cannot make them pile up.
    ending: usize,
}

impl<I> Default for Requester<I> {
    fn default() -> Self {
        Self { open: HashMap::new(), ending: 0 }
    }
}

impl<C: Copy + Eq + Hash, I: Clone + Eq + Hash, T> Table<C, I, T> {
    /// The empty table at a place among `tables` of them.
    pub(super) fn new(place: u64, tables: u64) -> Self {
        Self {
            open: HashMap::new(),
            deadlines: BTreeSet::new(),
            requesters: HashMap::new(),
            offers: HashMap::new(),
            last: place,
            step: tables.max(1),
        }
    }

    /// Number of open requests.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a client may open a request with this id, if it may have `most` open.
    pub(super) fn admits(&self, requester: C, id: &I, most: usize) -> Result<(), Refused> {
        let Some(Requester { open, ending }) = self.requesters.get(&requester) else {
            return if most == 0 { Err(Refused::TooMany) } else { Ok(()) };
        };
        if open.contains_key(id) {
            return Err(Refused::SameId);
        }
        if open.len() + ending >= most { Err(Refused::TooMany) } else { Ok(()) }
    }

    /// Opens a request that the table [`admits`](Self::admits), to be answered through an offer until a time.
    pub(super) fn open(&mut self, requester: C, id: I, offer: OfferId, due_ms: u64, with: T) -> Number {
        self.last += self.step;
        let number = self.last;
        self.requesters.entry(requester).or_default().open.insert(id.clone(), number);
        self.offers.entry(offer).or_default().insert(number);
        self.deadlines.insert((due_ms, number));
        self.open.insert(number, Open { requester, id, offer, due_ms, with });
        number
    }

    /// An open request.
    pub(super) fn get(&self, number: Number) -> Option<&Open<C, I, T>> {
        self.open.get(&number)
    }

    /// Ends a request: it was answered, or could not be sent.
    pub(super) fn close(&mut self, number: Number) -> Option<Open<C, I, T>> {
        let open = self.remove(number)?;
        self.forget(&open, false);
        Some(open)
    }

    /// Ends a client's request by its id.
    pub(super) fn cancel(&mut self, requester: C, id: &I) -> Option<(Number, Open<C, I, T>)> {
        let number = *self.requesters.get(&requester)?.open.get(id)?;
        self.close(number).map(|open| (number, open))
    }

    /// Ends all requests of a client that leaves.
    pub(super) fn leave(&mut self, requester: C) -> Vec<(Number, Open<C, I, T>)> {
        let Some(Requester { open, .. }) = self.requesters.remove(&requester) else { return Vec::new() };
        open.into_values().filter_map(|number| self.remove(number).map(|open| (number, open))).collect()
    }

    /// Ends all requests of an offer that ends. Each counts as open until [`settle`](Self::settle).
    pub(super) fn withdraw(&mut self, offer: OfferId) -> Vec<(Number, Open<C, I, T>)> {
        let numbers = self.offers.remove(&offer).unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.end(number)).collect()
    }

    /// Ends the request that is due first, if its time is over. It counts as open until [`settle`](Self::settle).
    pub(super) fn expire(&mut self, now_ms: u64) -> Option<(Number, Open<C, I, T>)> {
        let &(due_ms, number) = self.deadlines.first()?;
        if due_ms > now_ms { None } else { self.end(number) }
    }

    /// The time at which the next request is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.deadlines.first().map(|&(due_ms, _)| due_ms)
    }

    /// The client has been told of a request that ended without a reply.
    pub(super) fn settle(&mut self, requester: C) {
        if let Entry::Occupied(mut entry) = self.requesters.entry(requester) {
            let of = entry.get_mut();
            of.ending = of.ending.saturating_sub(1);
            if of.open.is_empty() && of.ending == 0 {
                entry.remove();
            }
        }
    }

    fn end(&mut self, number: Number) -> Option<(Number, Open<C, I, T>)> {
        let open = self.remove(number)?;
        self.forget(&open, true);
        Some((number, open))
    }

    /// Removes a request from all but its client's account.
    fn remove(&mut self, number: Number) -> Option<Open<C, I, T>> {
        let open = self.open.remove(&number)?;
        self.deadlines.remove(&(open.due_ms, number));
        if let Entry::Occupied(mut of) = self.offers.entry(open.offer) {
            of.get_mut().remove(&number);
            if of.get().is_empty() {
                of.remove();
            }
        }
        Some(open)
    }

    /// Removes a request from its client's account, or leaves it there as ending.
    fn forget(&mut self, open: &Open<C, I, T>, is_ending: bool) {
        if let Entry::Occupied(mut entry) = self.requesters.entry(open.requester) {
            let of = entry.get_mut();
            of.open.remove(&open.id);
            of.ending += usize::from(is_ending);
            if of.open.is_empty() && of.ending == 0 {
                entry.remove();
            }
        }
    }

    /// Whether nothing is left of any request.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.open.is_empty() && self.deadlines.is_empty() && self.requesters.is_empty() && self.offers.is_empty()
    }
}
