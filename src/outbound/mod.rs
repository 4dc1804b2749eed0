//! The outbound handle of one client: what the rooms that deliver messages know of it. They hand it messages that are
//! encoded already ([`EncodedRun`]); how these travel is the transport's.

mod datagrams;
mod lanes;
mod orders;
mod second;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use quic_websocket_lane::{DropNotice, FrameBatch, Gap, LaneWriter, Overflow, SendFailure, SendOptions, Sent};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use self::datagrams::Datagrams;
pub(crate) use self::lanes::TopicLane;
use self::lanes::TopicLanes;
use self::orders::Orders;
pub(crate) use self::orders::{Maker, Order};
use self::second::Place;
pub(crate) use self::second::SecondSocket;
use crate::envelope::{EncodedBatch, EncodedMessage};
use crate::frame::{Compression, PREFIX_BYTES, split};
use crate::message::{CloseCode, ClosedBy, LaneChoice, TopicPattern};
use crate::metrics::Counters;
use crate::transport::{Carrier, Path};

/// Receivers written to before the connections' own tasks get to run. Writing to all of them first would hold back the
/// first packet; measured with `benchmark --compare`, fan-out to 1,000.
pub(crate) const SLICE: usize = 16;

/// Messages for the same receivers, in order. The bytes that each receiver gets are joined once for all.
#[derive(Debug)]
pub(crate) struct EncodedRun {
    envelopes: Vec<Arc<EncodedMessage>>,
    /// For messages of one topic: the topic, and their offsets.
    topic: Option<(Arc<dyn DropNotice>, Vec<u64>)>,
    plain: OnceLock<FrameBatch>,
    zstd: OnceLock<FrameBatch>,
    deflate: OnceLock<FrameBatch>,
}

impl EncodedRun {
    pub(crate) fn new(envelopes: Vec<Arc<EncodedMessage>>) -> Self {
        Self { envelopes, topic: None, plain: OnceLock::new(), zstd: OnceLock::new(), deflate: OnceLock::new() }
    }

    /// Messages of one topic with as many offsets.
    pub(crate) fn of_topic(
        envelopes: Vec<Arc<EncodedMessage>>,
        source: Arc<dyn DropNotice>,
        offsets: Vec<u64>,
    ) -> Self {
        Self { topic: Some((source, offsets)), ..Self::new(envelopes) }
    }

    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.envelopes.len()
    }

    pub(crate) fn envelopes(&self) -> &[Arc<EncodedMessage>] {
        &self.envelopes
    }

    /// One of the messages of a topic, and its offset there.
    pub(crate) fn message(&self, at: usize) -> (&Arc<EncodedMessage>, u64) {
        let offset = self.topic.as_ref().map_or(0, |(_, offsets)| offsets[at]);
        (&self.envelopes[at], offset)
    }

    /// Some of the messages.
    pub(crate) fn part(&self, is_part: impl Fn(usize) -> bool) -> Self {
        let envelopes = (0..self.len()).filter(|&at| is_part(at)).map(|at| Arc::clone(&self.envelopes[at])).collect();
        let topic = self.topic.as_ref().map(|(source, offsets)| {
            let offsets = offsets.iter().enumerate().filter(|(at, _)| is_part(*at)).map(|(_, offset)| *offset);
            (Arc::clone(source), offsets.collect())
        });
        Self { topic, ..Self::new(envelopes) }
    }

    fn batch(&self, compression: Compression) -> &FrameBatch {
        let batch = match compression {
            Compression::None => &self.plain,
            Compression::Zstd => &self.zstd,
            Compression::Deflate => &self.deflate,
        };
        batch.get_or_init(|| {
            let frames = self.envelopes.iter().map(|encoded| encoded.frame(compression)).collect();
            match &self.topic {
                Some((source, offsets)) => FrameBatch::of_topic(frames, Arc::clone(source), offsets.clone()),
                None => FrameBatch::new(frames),
            }
        })
    }

    /// One of the messages alone.
    fn single(&self, at: usize, frame: Bytes) -> FrameBatch {
        let frames = vec![frame];
        match &self.topic {
            Some((source, offsets)) => FrameBatch::of_topic(frames, Arc::clone(source), vec![offsets[at]]),
            None => FrameBatch::new(frames),
        }
    }
}

/// A lane of a client, for messages to it alone, if they do not go on its control lane as others do.
#[derive(Debug)]
pub(crate) struct OnLane {
    pub(crate) writer: Arc<LaneWriter>,
    /// What happens if there is no room.
    pub(crate) overflow: Overflow,
    /// Keeps the lane open until this is dropped.
    _keeps_open: Option<TaskTrackerToken>,
}

impl OnLane {
    /// A lane on which messages wait beyond its bounds: their number has another bound.
    pub(crate) fn beyond_bounds(writer: Arc<LaneWriter>) -> Self {
        Self { writer, overflow: Overflow::Append, _keeps_open: None }
    }

    /// A lane that its owner does not end before this is dropped: it waits for the tracker.
    pub(crate) fn kept_open(writer: Arc<LaneWriter>, by: &TaskTracker) -> Self {
        Self { writer, overflow: Overflow::Refuse, _keeps_open: Some(by.token()) }
    }
}

/// Why a client has to go.
#[derive(Debug)]
struct Ended {
    closed: ClosedBy,
    /// Whether others than the server decided so, whatever the code says.
    is_for_good: bool,
}

/// A client as its senders know it.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) id: Uuid,
    /// The compression in which bodies may go.
    pub(crate) compression: Compression,
    /// The control lane.
    pub(crate) control: Arc<LaneWriter>,
    carrier: Carrier,
    counters: Arc<Counters>,
    datagrams: Datagrams,
    lanes: Mutex<TopicLanes>,
    /// Those that are bound to a lane.
    subscriptions: AtomicUsize,
    /// Why the client has to go, once that is decided.
    ended: OnceLock<Ended>,
    /// What others than the client do with its subscriptions.
    orders: Orders,
    /// The place for a second WebSocket.
    second: Mutex<Place>,
    /// Wakes its owner to the end, to orders and to a second WebSocket.
    called: Notify,
}

/// What a client's owner is to do.
#[derive(Debug)]
pub(crate) enum Call {
    Order(Order),
    /// Serve a second WebSocket as a lane, and answer its handshake.
    Serve(Box<SecondSocket>),
}

impl Outbound {
    /// A client for which at most `topic_lanes` lanes are opened, and so many bytes of datagrams wait.
    pub(crate) fn new(
        id: Uuid,
        compression: Compression,
        control: Arc<LaneWriter>,
        carrier: Carrier,
        counters: Arc<Counters>,
        topic_lanes: usize,
        datagram_bytes: usize,
    ) -> Arc<Self> {
        let (lanes, datagrams) = (Mutex::new(TopicLanes::new(topic_lanes)), Datagrams::new(datagram_bytes));
        let (subscriptions, ended, orders) = (AtomicUsize::new(0), OnceLock::new(), Orders::default());
        let second = Mutex::new(if matches!(carrier, Carrier::WebSocket(_)) { Place::Free } else { Place::Closed });
        Arc::new(Self {
            id,
            compression,
            control,
            carrier,
            counters,
            datagrams,
            lanes,
            subscriptions,
            ended,
            orders,
            second,
            called: Notify::new(),
        })
    }

    /// The counters of what the client gets, and of what is dropped for it.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Messages that wait on its lanes, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        self.control.scheduler().waiting()
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Its carrier's name.
    pub(crate) fn transport(&self) -> &'static str {
        self.carrier.name()
    }

    /// Its present address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.carrier.remote_address()
    }

    /// Measurements of the path to it.
    pub(crate) fn path(&self) -> Option<Path> {
        self.carrier.path()
    }

    fn lanes(&self) -> MutexGuard<'_, TopicLanes> {
        self.lanes.lock()
    }

    /// Binds one more subscription to a lane.
    pub(crate) fn bind_lane(&self, topic: &TopicPattern, priority: u8, choice: LaneChoice) -> TopicLane {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.lanes().bind(topic, priority, choice, &self.carrier, &self.control)
    }

    /// Ends a subscription's hold on its lane.
    pub(crate) fn release_lane(&self, topic: &TopicPattern, lane: &TopicLane) {
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        self.lanes().release(topic, lane);
    }

    /// Delivers messages in order, without waiting. Gives what was accepted, for the caller to count. A client whose
    /// backlog is full is ended with 4413; no other client is harmed.
    pub(crate) fn deliver(&self, run: &EncodedRun) -> Sent {
        self.put_on(&self.control, run.batch(self.compression), Overflow::Refuse.into())
    }

    /// The same for messages to this client alone, on a lane of its own or the control lane.
    pub(crate) fn deliver_batch(&self, batch: EncodedBatch, lane: Option<&OnLane>) -> Sent {
        if self.ended.get().is_some() {
            return Sent::default();
        }
        self.deliver_last(batch, lane)
    }

    /// The same, also to a client whose end is decided: the last messages before its `close`.
    pub(crate) fn deliver_last(&self, batch: EncodedBatch, lane: Option<&OnLane>) -> Sent {
        let (joined, messages) = batch.into_frames(self.compression);
        let (writer, overflow) = lane.map_or((&self.control, Overflow::Refuse), |lane| (&lane.writer, lane.overflow));
        let taken = match writer.try_send_joined(&joined, overflow) {
            Ok(()) => return Sent { messages, bytes: joined.len() - messages * PREFIX_BYTES },
            // The client does not want what comes on this lane; the others go on.
            Err((taken, SendFailure::Stopped)) if lane.is_some() => taken,
            Err((taken, failure)) => {
                self.lane_failed(failure);
                taken
            }
        };
        let bytes = split(&joined).take(taken).map(|frame| frame.len() - PREFIX_BYTES).sum();
        Sent { messages: taken, bytes }
    }

    /// The same for frames that are for this client alone, which are counted here.
    pub(crate) fn put(&self, batch: &FrameBatch) {
        self.put_as(batch, Overflow::Refuse);
    }

    /// The same, with another policy if there is no room.
    pub(crate) fn put_as(&self, batch: &FrameBatch, overflow: Overflow) {
        self.counters().sent(self.put_on(&self.control, batch, overflow.into()));
    }

    /// Waits until everything that is on the control lane now has gone on into its stream.
    ///
    /// # Errors
    /// It never will.
    pub(crate) async fn passed(&self) -> Result<(), SendFailure> {
        self.control.passed().await
    }

    /// Delivers a topic's messages on a lane; `options` decides what happens if there is no room. Gives what was
    /// accepted, for the caller to count.
    pub(crate) fn deliver_on<'a>(
        &self,
        lane: &LaneWriter,
        run: &EncodedRun,
        options: impl Into<SendOptions<'a>>,
    ) -> Sent {
        self.put_on(lane, run.batch(self.compression), options.into())
    }

    /// Delivers a topic's messages as datagrams, of which the newest stay; those that are too large for one go on the
    /// lane. Gives what was accepted, for the caller to count.
    pub(crate) fn deliver_datagrams(
        &self,
        lane: &LaneWriter,
        run: &EncodedRun,
        group: Option<&Arc<dyn DropNotice>>,
    ) -> Sent {
        let options = SendOptions { overflow: Overflow::DropOldest, group };
        let mut sent = Sent::default();
        for (at, frame) in run.batch(self.compression).frames().iter().enumerate() {
            let given = self.give_datagram(frame.slice(PREFIX_BYTES..));
            sent += given.unwrap_or_else(|| self.put_on(lane, &run.single(at, frame.clone()), options));
        }
        sent
    }

    /// Sends a message for this client alone as a datagram, or on the control lane if it fits none.
    pub(crate) fn put_datagram(&self, frame: Bytes) {
        match self.give_datagram(frame.slice(PREFIX_BYTES..)) {
            Some(sent) => self.counters().sent(sent),
            None => self.put(&frame.into()),
        }
    }

    /// Sends the datagrams that wait, as QUIC takes them. Never ends; one caller.
    pub(crate) async fn drain_datagrams(&self) {
        self.datagrams.drain(&self.carrier).await;
    }

    /// Tells the client of messages that it will not get.
    pub(crate) fn deliver_gap(&self, lane: &LaneWriter, gap: Gap) {
        if self.ended.get().is_some() {
            return;
        }
        match lane.send_gap(gap) {
            Ok(sent) => self.counters().sent(sent),
            Err(failure) => self.lane_failed(failure),
        }
    }

    fn put_on(&self, lane: &LaneWriter, batch: &FrameBatch, options: SendOptions<'_>) -> Sent {
        if self.ended.get().is_some() {
            return Sent::default();
        }
        match lane.try_send(batch, options) {
            Ok(()) => batch.all(),
            Err((taken, failure)) => {
                self.lane_failed(failure);
                batch.sent(taken)
            }
        }
    }

    /// Sends a body as a datagram, of which the newest stay; `None` if it fits none.
    fn give_datagram(&self, body: Bytes) -> Option<Sent> {
        let bytes = body.len();
        let gave_way = self.datagrams.send(&self.carrier, body)?;
        if gave_way > 0 {
            self.counters().dropped.add(gave_way);
        }
        Some(Sent { messages: 1, bytes })
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

    /// Sends everything that waits on the topic lanes, and ends them once the client has it all. Needs their drain
    /// running.
    pub(crate) async fn finish_topic_lanes(&self) {
        let lanes = self.lanes().open();
        join_all(lanes.iter().map(|lane| lane.finish(None))).await;
    }

    /// Takes nothing more for this client; tasks that wait for room are told.
    pub(crate) fn give_up(&self) {
        self.control.give_up();
        let lanes = self.lanes();
        lanes.open().iter().for_each(|lane| lane.give_up());
        if let Some(bulk) = lanes.bulk() {
            bulk.give_up();
        }
    }

    /// Offers a second WebSocket. False if the client has one already, or can have none.
    pub(crate) fn offer(&self, socket: SecondSocket) -> bool {
        let is_offered = self.second.lock().offer(socket);
        if is_offered {
            self.called.notify_one();
        }
        is_offered
    }

    /// Has subscriptions with `"lane":"bulk"` bound to this lane from now on; returns its number.
    pub(crate) fn add_bulk_lane(&self, writer: Arc<LaneWriter>, priority: u8) -> u64 {
        self.lanes().add_bulk(writer, priority)
    }

    /// Binds nothing more to the lane of the second WebSocket, and sends nothing more on it.
    pub(crate) fn remove_bulk_lane(&self) {
        if let Some(writer) = self.lanes().remove_bulk() {
            writer.give_up();
        }
    }

    /// Whether a lane that a subscription was bound to has ended since.
    pub(crate) fn has_lost(&self, lane: u64) -> bool {
        !self.lanes().has(lane)
    }

    /// Whether a second WebSocket is a lane of this client.
    pub(crate) fn has_second(&self) -> bool {
        self.second.lock().is_taken()
    }

    /// Has the second WebSocket closed, which makes place for another one.
    pub(crate) fn end_second(&self, closed: ClosedBy) {
        self.second.lock().end(closed);
    }

    /// The same, and takes no other one.
    pub(crate) fn end_second_for_good(&self, closed: ClosedBy) {
        let mut place = self.second.lock();
        place.end(closed);
        *place = Place::Closed;
    }

    /// Ends the client, unless it has been ended already.
    pub(crate) fn end(&self, closed: ClosedBy) {
        self.end_as(Ended { closed, is_for_good: false });
    }

    /// The same for a client that is not to stay a member of its topics, whatever the code is.
    pub(crate) fn end_for_good(&self, closed: ClosedBy) {
        self.end_as(Ended { closed, is_for_good: true });
    }

    fn end_as(&self, ended: Ended) {
        if self.ended.set(ended).is_ok() {
            self.called.notify_one();
        }
    }

    /// Whether the client was ended for good.
    pub(crate) fn is_ended_for_good(&self) -> bool {
        self.ended.get().is_some_and(|ended| ended.is_for_good)
    }

    /// Waits until the client is ended. One caller, which is not in [`called`](Self::called) as well.
    pub(crate) async fn ended(&self) -> ClosedBy {
        loop {
            if let Some(ended) = self.ended.get() {
                return ended.closed.clone();
            }
            self.called.notified().await;
        }
    }

    /// Leaves an order for the client's owner. False if too many wait.
    pub(crate) fn order(&self, order: Order) -> bool {
        let has_room = self.orders.add(order);
        self.called.notify_one();
        has_room
    }

    /// Waits for the next call, or until the client is ended. One caller. Cancel safe.
    pub(crate) async fn called(&self) -> Result<Call, ClosedBy> {
        loop {
            if let Some(ended) = self.ended.get() {
                return Err(ended.closed.clone());
            }
            if let Some(order) = self.orders.take() {
                return Ok(Call::Order(order));
            }
            if let Some(socket) = self.second.lock().take() {
                return Ok(Call::Serve(socket));
            }
            self.called.notified().await;
        }
    }
}
