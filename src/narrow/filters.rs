//! The filters of one worker's subscriptions, equal ones once: so a filter is evaluated once for a message, however
//! many subscriptions have it.

use std::collections::HashMap;
use std::sync::Arc;

use super::filter::Filter;
use super::{Selection, Traits};

/// A filter's place, while at least one subscription has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterId(usize);

#[derive(Debug, Default)]
pub(crate) struct Filters {
    ids: HashMap<Arc<Filter>, usize>,
    places: Vec<Place>,
    unused: Vec<usize>,
    /// The number of the present messages.
    run: u64,
}

#[derive(Debug)]
struct Place {
    /// `None` if the place is unused.
    filter: Option<Arc<Filter>>,
    subscriptions: usize,
    /// Of the messages with this number, which of them pass.
    run: u64,
    passed: Selection,
}

impl Filters {
    /// Adds a subscription with a filter.
    pub(crate) fn add(&mut self, filter: &Filter) -> FilterId {
        if let Some(&at) = self.ids.get(filter) {
            self.places[at].subscriptions += 1;
            return FilterId(at);
        }
        let filter = Arc::new(filter.clone());
        let place = Place { filter: Some(Arc::clone(&filter)), subscriptions: 1, run: 0, passed: Selection::all(0) };
        let at = self.unused.pop().unwrap_or(self.places.len());
        if at == self.places.len() {
            self.places.push(place);
        } else {
            self.places[at] = place;
        }
        self.ids.insert(filter, at);
        FilterId(at)
    }

    /// Removes a subscription with a filter.
    pub(crate) fn remove(&mut self, FilterId(at): FilterId) {
        let place = &mut self.places[at];
        place.subscriptions -= 1;
        if place.subscriptions > 0 {
            return;
        }
        if let Some(filter) = place.filter.take() {
            self.ids.remove(&filter);
        }
        self.unused.push(at);
        if self.ids.is_empty() {
            *self = Self { run: self.run, ..Self::default() };
        }
    }

    /// Goes on to other messages.
    pub(crate) fn next_run(&mut self) {
        self.run += 1;
    }

    /// Which of the present messages pass a filter: always the same ones until [`next_run`](Self::next_run).
    pub(crate) fn passed(&mut self, FilterId(at): FilterId, messages: &[Traits]) -> Selection {
        let place = &mut self.places[at];
        if place.run != self.run {
            place.run = self.run;
            let filter = place.filter.as_ref();
            let passes = |at: usize| filter.is_some_and(|filter| messages[at].pass(filter));
            place.passed = Selection::of(messages.len(), passes);
        }
        place.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(event: &str) -> Filter {
        Filter::parse(&format!(r#"{{"event":"{event}"}}"#)).expect("a filter")
    }

    fn messages(events: &[&str]) -> Vec<Traits> {
        let message = |event: &&str| Traits::of(format!(r#"{{"meta":{{"event":"{event}"}}}}"#).as_bytes(), true);
        events.iter().map(message).collect()
    }

    #[test]
    fn equal_filters_share_a_place_and_are_evaluated_once_for_a_message() {
        let mut filters = Filters::default();
        let (a, b) = (filters.add(&filter("a")), filters.add(&filter("b")));
        assert_eq!((filters.add(&filter("a")), filters.ids.len(), filters.places.len()), (a, 2, 2));
        filters.next_run();
        let first = messages(&["a", "b", "a"]);
        let passed = |which: &'static [usize]| Selection::of(3, |at| which.contains(&at));
        assert_eq!((filters.passed(a, &first), filters.passed(b, &first)), (passed(&[0, 2]), passed(&[1])));
        // Not evaluated again: it would not be the same.
        assert_eq!(filters.passed(a, &messages(&["b", "b", "b"])), passed(&[0, 2]));
        filters.next_run();
        assert_eq!(filters.passed(a, &messages(&["b", "a"])), passed(&[1]));

        filters.remove(a);
        assert_eq!(filters.ids.len(), 2, "another subscription has it");
        filters.remove(a);
        let c = filters.add(&filter("c"));
        assert_eq!((c, filters.ids.len(), filters.places.len()), (a, 2, 2), "its place is used again");
        assert_eq!(filters.passed(c, &messages(&["c"])), Selection::all(1), "with nothing of the other one's");
        filters.remove(b);
        filters.remove(c);
        assert!(filters.ids.is_empty() && filters.places.is_empty() && filters.unused.is_empty());
    }
}
