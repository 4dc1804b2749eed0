//! The topic lanes of one client: which are open, and which topic goes on which (docs/PROTOCOL.md, "Streams are lanes").

use std::sync::Arc;

use bytes::BytesMut;

use crate::frame::PREFIX_BYTES;
use crate::message::{LaneChoice, ServerMessage};
use crate::metrics::Sent;
use crate::transport::{Carrier, LaneWriter, Outflow, Overflow};

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
    /// The how manieth to be released it was, the last time.
    released: u64,
}

/// The lanes that the server has opened for one client.
#[derive(Debug)]
pub(super) struct TopicLanes {
    open: Vec<Open>,
    last_number: u64,
    releases: u64,
    most: usize,
}

impl TopicLanes {
    /// None yet, and at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { open: Vec::new(), last_number: 0, releases: 0, most }
    }

    /// The lane for one more subscription: a new one while there may be more; else one of its priority that nobody has used
    /// for longest, so that a topic which is left and entered again does not find its old messages under way on its lane;
    /// else one that others of its priority use, or of the nearest priority; the control lane where there are none.
    pub(super) fn bind(
        &mut self,
        priority: u8,
        choice: LaneChoice,
        carrier: &Carrier,
        control: &Arc<LaneWriter>,
    ) -> TopicLane {
        let on_control = TopicLane { writer: Arc::clone(control), number: None };
        if choice == LaneChoice::Control {
            return on_control;
        }
        let outflow = control.outflow();
        let at = (self.open.len() < self.most)
            .then(|| self.open_another(priority, carrier, outflow))
            .flatten()
            .or_else(|| self.unused(|open| open.priority == priority))
            .or_else(|| self.replace_unused(priority, carrier, outflow))
            .or_else(|| self.shared(priority));
        let Some(open) = at.and_then(|at| self.open.get_mut(at)) else { return on_control };
        open.topics += 1;
        open.lane.clone()
    }

    /// Those that are open.
    pub(super) fn open(&self) -> Vec<Arc<LaneWriter>> {
        self.open.iter().map(|open| Arc::clone(&open.lane.writer)).collect()
    }

    /// The unused lane that was released first, of those that fit.
    fn unused(&self, fits: impl Fn(&Open) -> bool) -> Option<usize> {
        let unused = self.open.iter().enumerate().filter(|(_, open)| open.topics == 0 && fits(open));
        unused.min_by_key(|(_, open)| open.released).map(|(at, _)| at)
    }

    /// Opens a lane in the place of one that nobody uses and that has nothing left to send.
    fn replace_unused(&mut self, priority: u8, carrier: &Carrier, outflow: &Arc<Outflow>) -> Option<usize> {
        let unused = self.unused(|open| open.lane.writer.is_idle())?;
        self.open.swap_remove(unused).lane.writer.end();
        self.open_another(priority, carrier, outflow)
    }

    /// Opens another lane, where the client lets it.
    fn open_another(&mut self, priority: u8, carrier: &Carrier, outflow: &Arc<Outflow>) -> Option<usize> {
        let stream = carrier.open_lane()?;
        let writer = LaneWriter::new(stream, carrier.layer(), priority.into(), outflow);
        self.last_number += 1;
        let header = carrier.layer().lane_header();
        let mut frame = BytesMut::from(header);
        ServerMessage::Lane { lane: self.last_number, priority }.encode(None, &mut frame);
        outflow.counters().sent(Sent { messages: 1, bytes: frame.len() - header.len() - PREFIX_BYTES });
        // What does not fit into a new stream waits; a connection that is gone ends the client anyway.
        let _ = writer.try_send(&frame.freeze().into(), Overflow::Force);
        let lane = TopicLane { writer, number: Some(self.last_number) };
        self.open.push(Open { lane, priority, topics: 0, released: 0 });
        Some(self.open.len() - 1)
    }

    /// The lane with the nearest priority; of several the one with the fewest topics.
    fn shared(&self, priority: u8) -> Option<usize> {
        let distance = |at: &usize| (self.open[*at].priority.abs_diff(priority), self.open[*at].topics);
        (0..self.open.len()).min_by_key(distance)
    }

    /// Ends a subscription's hold on its lane. The lane stays open for the next one: streams are not for one use.
    pub(super) fn release(&mut self, lane: &TopicLane) {
        if let Some(open) = self.open.iter_mut().find(|open| open.lane.number == lane.number) {
            open.topics = open.topics.saturating_sub(1);
            self.releases += 1;
            open.released = self.releases;
        }
    }
}
