//! Subscriptions that others than the client make and end for it: they wait here until the client's own task gets to
//! them. Most clients never get any.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::message::{Subscribe, TopicPattern};

/// Most orders of one client that wait.
pub(crate) const MAX_ORDERS: usize = 128;

/// The maker of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Client,
    /// The server, because the client's token says so.
    Token,
    /// The server's operator.
    Operator,
}

/// A change of a client's subscriptions that it has not asked for.
#[derive(Debug)]
pub(crate) enum Order {
    Subscribe(Box<Subscribe>, Maker),
    /// Ends a subscription, with a reason for people.
    Unsubscribe(TopicPattern, String),
}

/// The orders of one client, oldest first.
#[derive(Debug, Default)]
pub(super) struct Orders(Mutex<VecDeque<Order>>);

impl Orders {
    /// Adds an order. False if too many wait.
    pub(super) fn add(&self, order: Order) -> bool {
        let mut orders = self.0.lock();
        let has_room = orders.len() < MAX_ORDERS;
        if has_room {
            orders.push_back(order);
        }
        has_room
    }

    /// Takes the oldest one.
    pub(super) fn take(&self) -> Option<Order> {
        let mut orders = self.0.lock();
        let order = orders.pop_front();
        if orders.is_empty() {
            *orders = VecDeque::new();
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_taken_in_their_order_and_have_a_bound() {
        let orders = Orders::default();
        let text = |number| TopicPattern::new(&format!("t{number}")).expect("a topic");
        for number in 0..MAX_ORDERS {
            assert!(orders.add(Order::Unsubscribe(text(number), String::new())), "number {number}");
        }
        assert!(!orders.add(Order::Unsubscribe(text(0), String::new())));
        for number in 0..MAX_ORDERS {
            assert!(matches!(orders.take(), Some(Order::Unsubscribe(topic, _)) if topic == text(number)));
        }
        assert!(orders.take().is_none() && orders.0.lock().capacity() == 0, "no memory is kept");
    }
}
