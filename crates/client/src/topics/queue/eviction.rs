//! What leaves a full queue, and how its reader is told: the oldest message of the topic that has most waiting goes, so
//! a busy topic takes no other topic's place.

use std::collections::VecDeque;

use super::{Item, QUEUE_FULL, Queue, State};
use crate::topics::event::{Missed, TopicEvent};

impl State {
    /// Removes the item that goes first if there is no room for a message of the topic `coming`: the oldest message of
    /// the topic that has most waiting, that one included; otherwise the oldest presence event.
    fn take_oldest(&mut self, coming: Option<&str>) -> Option<(usize, Item)> {
        let with_coming = |topic: &str, count: usize| count + usize::from(coming == Some(topic));
        let most = self
            .waiting
            .as_ref()
            .and_then(|waiting| waiting.iter().map(|(topic, count)| with_coming(topic, *count)).max());
        let has_most = |item: &Item| match (&self.waiting, item.topic()) {
            (Some(waiting), Some(topic)) => waiting.get(topic).map(|count| with_coming(topic, *count)) == most,
            (Some(_), None) => most.is_none(),
            (None, _) => true,
        };
        let may_go = |item: &Item| !matches!(item.event, TopicEvent::Missed(_) | TopicEvent::Ended(_));
        let at = self.items.iter().position(|item| may_go(item) && has_most(item))?;
        let item = self.items.remove(at)?;
        self.uncounted(&item);
        Some((at, item))
    }
}

impl Queue {
    /// Drops the oldest item that may go; false if there is none.
    pub(super) fn push_oldest_out(&self, state: &mut State, coming: Option<&str>, report: bool) -> bool {
        let Some((at, oldest)) = state.take_oldest(coming) else { return false };
        if !report {
            return true;
        }
        let gone = match &oldest.event {
            TopicEvent::Message(message) => {
                let offsets = Some(message.offset..=message.offset);
                Missed { topic: message.topic.clone(), offsets, reason: QUEUE_FULL.into() }
            }
            // Presence is state that the application can ask for again.
            _ => Missed { topic: self.topic.as_ref().into(), offsets: None, reason: QUEUE_FULL.into() },
        };
        if state.waiting.is_some() {
            self.mark(&mut state.items, at, gone);
            return true;
        }
        match at.checked_sub(1).and_then(|before| state.items.get_mut(before)) {
            Some(Item { event: TopicEvent::Missed(missed), position }) if missed.reason == QUEUE_FULL => {
                self.join(missed, gone);
                *position = oldest.position.or_else(|| position.take());
            }
            _ => state.items.insert(at, Item { event: TopicEvent::Missed(gone), position: oldest.position }),
        }
        true
    }

    /// Reports a message that was dropped from a pattern's queue, before all that still waits of its topic. Each topic
    /// has one [`Missed`]; if there are many, one stands for all.
    fn mark(&self, items: &mut VecDeque<Item>, at: usize, gone: Missed) {
        let most = (self.capacity / 4).max(1);
        for item in items.iter_mut().take(at) {
            if let (true, TopicEvent::Missed(missed)) = (item.is_marker(), &mut item.event)
                && (missed.topic == gone.topic || *missed.topic == *self.topic)
            {
                return self.join(missed, gone);
            }
        }
        if items.iter().filter(|item| item.is_marker()).count() < most {
            return items.insert(at, Item { event: TopicEvent::Missed(gone), position: None });
        }
        let place = items.iter().position(Item::is_marker).map_or(at, |first| first.min(at));
        items.retain(|item| !item.is_marker());
        let all = Missed { topic: self.topic.as_ref().into(), offsets: None, reason: QUEUE_FULL.into() };
        items.insert(place.min(items.len()), Item { event: TopicEvent::Missed(all), position: None });
    }

    pub(super) fn join(&self, missed: &mut Missed, more: Missed) {
        missed.offsets = match (missed.offsets.take(), more.offsets) {
            (Some(first), Some(last)) if missed.topic == more.topic => Some(*first.start()..=*last.end()),
            _ => None,
        };
        if missed.topic != more.topic {
            missed.topic = self.topic.as_ref().into();
        }
    }
}
