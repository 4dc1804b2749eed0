//! The outbound handle of one client: what the rooms that deliver messages know of it. They hand it messages that are
//! encoded already ([`Envelope`]); how these travel is the transport's.

mod datagrams;
mod lanes;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::sync::Notify;
use uuid::Uuid;

use self::datagrams::Datagrams;
pub(crate) use self::lanes::TopicLane;
use self::lanes::TopicLanes;
use crate::frame;
use crate::message::{CloseCode, ClosedBy, LaneChoice, ServerMessage};
use crate::transport::{Batch, Carrier, LaneWriter, Overflow, SendFailure, Source};

/// Receivers written to before the connections' own tasks get to run. Writing to all of them first would hold back the
/// first packet; measured with `benchmark --compare`, fan-out to 1,000.
pub(crate) const SLICE: usize = 16;

/// One message for any number of receivers: each form that a receiver may want is made at most once and then shared.
#[derive(Debug)]
pub(crate) struct Envelope {
    plain: Bytes,
    /// `None` inside where compression does not pay.
    zstd: OnceLock<Option<Bytes>>,
    compress_min_bytes: usize,
}

impl Envelope {
    pub(crate) fn new(message: &ServerMessage, compress_min_bytes: usize) -> Arc<Self> {
        let mut out = BytesMut::with_capacity(512);
        message.encode(None, &mut out);
        Arc::new(Self { plain: out.freeze(), zstd: OnceLock::new(), compress_min_bytes })
    }

    /// The frame without compression.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Most bytes that it takes in memory, all its forms together.
    pub(crate) fn cost(&self) -> usize {
        let forms = if self.plain.len() >= self.compress_min_bytes + frame::PREFIX_BYTES { 2 } else { 1 };
        size_of::<Self>() + forms * self.plain.len()
    }

    /// The frame for a receiver.
    fn frame(&self, zstd: bool) -> &Bytes {
        if zstd && self.plain.len() >= self.compress_min_bytes + frame::PREFIX_BYTES {
            self.zstd.get_or_init(|| frame::compress(&self.plain)).as_ref().unwrap_or(&self.plain)
        } else {
            &self.plain
        }
    }
}

/// Messages for the same receivers, in order; what is written to each receiver is made once for all.
#[derive(Debug)]
pub(crate) struct Run {
    envelopes: Vec<Arc<Envelope>>,
    /// Where they are messages of one topic: which, and their offsets.
    topic: Option<(Arc<dyn Source>, Vec<u64>)>,
    plain: OnceLock<Batch>,
    zstd: OnceLock<Batch>,
}

impl Run {
    pub(crate) fn new(envelopes: Vec<Arc<Envelope>>) -> Self {
        Self { envelopes, topic: None, plain: OnceLock::new(), zstd: OnceLock::new() }
    }

    /// Messages of one topic with as many offsets.
    pub(crate) fn of_topic(envelopes: Vec<Arc<Envelope>>, source: Arc<dyn Source>, offsets: Vec<u64>) -> Self {
        Self { topic: Some((source, offsets)), ..Self::new(envelopes) }
    }

    fn batch(&self, zstd: bool) -> &Batch {
        let batch = if zstd { &self.zstd } else { &self.plain };
        batch.get_or_init(|| {
            let frames = self.envelopes.iter().map(|envelope| envelope.frame(zstd).clone()).collect();
            match &self.topic {
                Some((source, offsets)) => Batch::of_topic(frames, Arc::clone(source), offsets.clone()),
                None => Batch::new(frames),
            }
        })
    }

    /// One of the messages alone.
    fn single(&self, at: usize, zstd: bool) -> Batch {
        let frames = vec![self.envelopes[at].frame(zstd).clone()];
        match &self.topic {
            Some((source, offsets)) => Batch::of_topic(frames, Arc::clone(source), vec![offsets[at]]),
            None => Batch::new(frames),
        }
    }
}

/// A client as its senders know it.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) id: Uuid,
    /// Whether bodies may go compressed.
    pub(crate) zstd: bool,
    /// The control lane.
    pub(crate) control: Arc<LaneWriter>,
    carrier: Carrier,
    datagrams: Datagrams,
    lanes: Mutex<TopicLanes>,
    /// Why the client has to go, once somebody has said so.
    ended: OnceLock<ClosedBy>,
    end: Notify,
}

impl Outbound {
    /// A client for which at most `topic_lanes` lanes are opened, and so many bytes of datagrams wait.
    pub(crate) fn new(
        id: Uuid,
        zstd: bool,
        control: Arc<LaneWriter>,
        carrier: Carrier,
        topic_lanes: usize,
        datagram_bytes: usize,
    ) -> Arc<Self> {
        let (lanes, datagrams) = (Mutex::new(TopicLanes::new(topic_lanes)), Datagrams::new(datagram_bytes));
        let (ended, end) = (OnceLock::new(), Notify::new());
        Arc::new(Self { id, zstd, control, carrier, datagrams, lanes, ended, end })
    }

    fn lanes(&self) -> MutexGuard<'_, TopicLanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds one more subscription to a lane.
    pub(crate) fn bind_lane(&self, priority: u8, choice: LaneChoice) -> TopicLane {
        self.lanes().bind(priority, choice, &self.carrier, &self.control)
    }

    /// Ends a subscription's hold on its lane.
    pub(crate) fn release_lane(&self, lane: &TopicLane) {
        self.lanes().release(lane);
    }

    /// Delivers messages in order, without waiting, and gives how many were taken. A client whose backlog is full is
    /// ended with 4413: it alone has the damage.
    pub(crate) fn deliver(&self, run: &Run) -> usize {
        self.put(run.batch(self.zstd))
    }

    /// The same for frames that are for this client alone.
    pub(crate) fn put(&self, batch: &Batch) -> usize {
        self.put_on(&self.control, batch, Overflow::Refuse)
    }

    /// Delivers a topic's messages on a lane; `overflow` says what happens where they find no room.
    pub(crate) fn deliver_on(&self, lane: &LaneWriter, run: &Run, overflow: Overflow) {
        self.put_on(lane, run.batch(self.zstd), overflow);
    }

    /// Delivers a topic's messages as datagrams, of which the newest win; those that are too large for one go on the lane.
    pub(crate) fn deliver_datagrams(&self, lane: &LaneWriter, run: &Run) {
        for (at, envelope) in run.envelopes.iter().enumerate() {
            let body = envelope.frame(self.zstd).slice(frame::PREFIX_BYTES..);
            if !self.send_datagram(body) {
                self.put_on(lane, &run.single(at, self.zstd), Overflow::DropOldest);
            }
        }
    }

    /// Sends a body as a datagram, of which the newest win. False where it fits none.
    pub(crate) fn send_datagram(&self, body: Bytes) -> bool {
        self.datagrams.send(&self.carrier, body)
    }

    /// Sends the datagrams that wait, as QUIC takes them. Never ends; one caller.
    pub(crate) async fn drain_datagrams(&self) {
        self.datagrams.drain(&self.carrier).await;
    }

    /// Tells of messages that a topic's log no longer keeps.
    pub(crate) fn deliver_gap(&self, lane: &LaneWriter, gap: Bytes) {
        self.put_on(lane, &gap.into(), Overflow::Force);
    }

    fn put_on(&self, lane: &LaneWriter, batch: &Batch, overflow: Overflow) -> usize {
        if self.ended.get().is_some() {
            return 0;
        }
        match lane.try_send(batch, overflow) {
            Ok(()) => batch.len(),
            Err((taken, failure)) => {
                self.lane_failed(failure);
                taken
            }
        }
    }

    /// Ends the client because nothing more can be sent on one of its lanes.
    pub(crate) fn lane_failed(&self, failure: SendFailure) {
        match failure {
            SendFailure::Full => {
                let reason = "the backlog is full: messages were not read fast enough";
                self.end(ClosedBy::new(CloseCode::SLOW_CONSUMER, reason));
            }
            SendFailure::Stopped => {
                let reason = "a lane was stopped: unsubscribe from what is not wanted any more";
                self.end(ClosedBy::new(CloseCode::PROTOCOL_ERROR, reason));
            }
            // The connection is gone, and its owner knows.
            SendFailure::Closed => {}
        }
    }

    /// Sends what waits on the topic lanes and ends them, once the client has it all. Needs their drain running.
    pub(crate) async fn finish_topic_lanes(&self) {
        let lanes = self.lanes().open();
        join_all(lanes.iter().map(|lane| lane.finish(None))).await;
    }

    /// Takes nothing more for this client; whoever waits for room is told.
    pub(crate) fn give_up(&self) {
        self.control.give_up();
        self.lanes().open().iter().for_each(|lane| lane.give_up());
    }

    /// Ends the client, unless it has been ended already.
    pub(crate) fn end(&self, closed: ClosedBy) {
        if self.ended.set(closed).is_ok() {
            self.end.notify_one();
        }
    }

    /// Waits until somebody ends the client. One caller.
    pub(crate) async fn ended(&self) -> ClosedBy {
        loop {
            if let Some(closed) = self.ended.get() {
                return closed.clone();
            }
            self.end.notified().await;
        }
    }
}
