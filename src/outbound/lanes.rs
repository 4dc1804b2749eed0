//! The topic lanes of one client: which are open, and which topic goes on which (docs/PROTOCOL.md, "Streams are
//! lanes").

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use quic_websocket_lane::{LaneWriter, Overflow, SendScheduler, Sent};

use crate::frame::{self, PREFIX_BYTES};
use crate::message::{LaneChoice, ServerMessage, TopicPattern};
use crate::pattern_index::{PatternIndex, Sought};
use crate::transport::Carrier;

/// Number of recently ended subscriptions that are remembered together with their lane, because their messages may
/// still be in flight. One fewer than the default number of lanes, so a client that keeps leaving and rejoining a topic
/// rotates through them.
const REMEMBERED: usize = 15;

/// Where a subscription's messages go. Given back with [`TopicLanes::release`].
#[derive(Debug, Clone)]
pub(crate) struct TopicLane {
    pub(crate) writer: Arc<LaneWriter>,
    /// `None` for the control lane.
    pub(crate) number: Option<u64>,
}

#[derive(Debug)]
struct Open {
    lane: TopicLane,
    priority: u8,
    /// Subscriptions that are bound to it.
    topics: usize,
    /// Those of them that match more than one topic.
    patterns: PatternIndex<()>,
    /// Sequence number of its last release, and the subscription that released it.
    released: u64,
    released_by: Option<TopicPattern>,
}

impl Open {
    /// A lane without subscriptions.
    fn new(lane: TopicLane, priority: u8) -> Self {
        Self { lane, priority, topics: 0, patterns: PatternIndex::default(), released: 0, released_by: None }
    }

    fn bind(&mut self, topic: &TopicPattern) {
        self.topics += 1;
        if topic.is_wildcard() {
            self.patterns.add(topic, ());
        }
    }
}

/// Whether the topic's messages may be in flight on a lane already, for another subscription. `left`: those that were
/// released last.
fn mixes(left: &VecDeque<(TopicPattern, u64)>, open: &Open, topic: &TopicPattern) -> bool {
    let brought = |pattern: &TopicPattern| pattern.matches(topic.as_str());
    // A pattern has no replay that could be taken for messages of another pattern.
    let now = !topic.is_wildcard() && open.patterns.covers(&Sought::new(topic.as_str()));
    now || left.iter().any(|(left, lane)| Some(*lane) == open.lane.number && brought(left))
}

/// The lanes that the server has opened for one client.
#[derive(Debug)]
pub(super) struct TopicLanes {
    open: Vec<Open>,
    /// The subscriptions released last, and their lanes.
    left: VecDeque<(TopicPattern, u64)>,
    last_number: u64,
    releases: u64,
    most: usize,
    /// The lane of the client's second WebSocket. On the heap, because most clients have none.
    bulk: Option<Box<Open>>,
}

impl TopicLanes {
    /// No lanes yet, and at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { open: Vec::new(), left: VecDeque::new(), last_number: 0, releases: 0, most, bulk: None }
    }

    /// The lane for one more subscription: a new one while there may be more; else, of the unused lanes of its
    /// priority, the one released first; else one that others of its priority use, or of the nearest priority; the
    /// control lane if there are none. Never one on which another subscription has brought the same topic's messages:
    /// those in flight could not be told from the replay behind them. On the control lane the reply parts them.
    pub(super) fn bind(
        &mut self,
        topic: &TopicPattern,
        priority: u8,
        choice: LaneChoice,
        carrier: &Carrier,
        control: &Arc<LaneWriter>,
    ) -> TopicLane {
        let on_control = TopicLane { writer: Arc::clone(control), number: None };
        if choice == LaneChoice::Control {
            return on_control;
        }
        if choice == LaneChoice::Bulk
            && let Some(bulk) = &mut self.bulk
            && !mixes(&self.left, bulk, topic)
        {
            bulk.bind(topic);
            return bulk.lane.clone();
        }
        let scheduler = control.scheduler();
        let at = (self.open.len() < self.most)
            .then(|| self.open_another(priority, carrier, scheduler))
            .flatten()
            .or_else(|| {
                self.unused(|open| self.fits(open, topic, priority) && open.released_by.as_ref() != Some(topic))
            })
            .or_else(|| self.unused(|open| self.fits(open, topic, priority)))
            .or_else(|| self.replace_unused(priority, carrier, scheduler))
            .or_else(|| self.shared(topic, priority));
        let Some(open) = at.and_then(|at| self.open.get_mut(at)) else { return on_control };
        open.bind(topic);
        open.lane.clone()
    }

    /// Adds the lane of a second WebSocket; returns its number.
    pub(super) fn add_bulk(&mut self, writer: Arc<LaneWriter>, priority: u8) -> u64 {
        self.last_number += 1;
        let lane = TopicLane { writer, number: Some(self.last_number) };
        self.bulk = Some(Box::new(Open::new(lane, priority)));
        self.last_number
    }

    /// Removes it; subscriptions may still be bound to it.
    pub(super) fn remove_bulk(&mut self) -> Option<Arc<LaneWriter>> {
        self.bulk.take().map(|bulk| bulk.lane.writer)
    }

    /// The lane of the second WebSocket.
    pub(super) fn bulk(&self) -> Option<&Arc<LaneWriter>> {
        self.bulk.as_ref().map(|bulk| &bulk.lane.writer)
    }

    /// Whether there is a lane with this number.
    pub(super) fn has(&self, number: u64) -> bool {
        self.open.iter().chain(self.bulk.as_deref()).any(|open| open.lane.number == Some(number))
    }

    fn fits(&self, open: &Open, topic: &TopicPattern, priority: u8) -> bool {
        open.priority == priority && !mixes(&self.left, open, topic)
    }

    /// Those that are open, but for that of a second WebSocket.
    pub(super) fn open(&self) -> Vec<Arc<LaneWriter>> {
        self.open.iter().map(|open| Arc::clone(&open.lane.writer)).collect()
    }

    /// The unused lane that was released first, of those that fit.
    fn unused(&self, fits: impl Fn(&Open) -> bool) -> Option<usize> {
        let unused = self.open.iter().enumerate().filter(|(_, open)| open.topics == 0 && fits(open));
        unused.min_by_key(|(_, open)| open.released).map(|(at, _)| at)
    }

    /// Opens a lane in the place of one that no subscription uses and that has nothing left to send.
    fn replace_unused(&mut self, priority: u8, carrier: &Carrier, scheduler: &Arc<SendScheduler>) -> Option<usize> {
        let unused = self.unused(|open| open.lane.writer.is_idle())?;
        self.open.swap_remove(unused).lane.writer.end();
        self.open_another(priority, carrier, scheduler)
    }

    /// Opens another lane, if the client allows it.
    fn open_another(&mut self, priority: u8, carrier: &Carrier, scheduler: &Arc<SendScheduler>) -> Option<usize> {
        let stream = carrier.open_lane()?;
        let writer = LaneWriter::new(stream, carrier.layer(), priority.into(), scheduler);
        self.last_number += 1;
        let header = carrier.layer().lane_header();
        let mut frame = BytesMut::from(header);
        ServerMessage::Lane { lane: self.last_number, priority }.encode(None, &mut frame);
        scheduler.counters().sent(Sent { messages: 1, bytes: frame.len() - header.len() - PREFIX_BYTES });
        // Bytes that do not fit into a new stream wait; a connection that is gone ends the client anyway.
        let _ = writer.try_send(&frame::exact(frame).into(), Overflow::Append);
        let lane = TopicLane { writer, number: Some(self.last_number) };
        self.open.push(Open::new(lane, priority));
        Some(self.open.len() - 1)
    }

    /// The lane with the nearest priority; of several the one with the fewest topics.
    fn shared(&self, topic: &TopicPattern, priority: u8) -> Option<usize> {
        let open = self.open.iter().enumerate().filter(|(_, open)| !mixes(&self.left, open, topic));
        open.min_by_key(|(_, open)| (open.priority.abs_diff(priority), open.topics)).map(|(at, _)| at)
    }

    /// Ends a subscription's hold on its lane. The lane stays open for the next one: streams are not for one use.
    pub(super) fn release(&mut self, topic: &TopicPattern, lane: &TopicLane) {
        let mut lanes = self.open.iter_mut().chain(self.bulk.as_deref_mut());
        let (Some(number), Some(open)) = (lane.number, lanes.find(|open| open.lane.number == lane.number)) else {
            return;
        };
        open.topics = open.topics.saturating_sub(1);
        open.patterns.remove(topic, |()| true);
        self.releases += 1;
        (open.released, open.released_by) = (self.releases, Some(topic.clone()));
        self.left.truncate(REMEMBERED - 1);
        self.left.push_front((topic.clone(), number));
    }
}
