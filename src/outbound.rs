//! The outbound handle of one client: what the rooms that deliver messages know of it. They hand it messages that are
//! encoded already ([`Envelope`]); how these travel is the transport's.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::frame;
use crate::message::{CloseCode, ClosedBy, ServerMessage};
use crate::transport::{LaneWriter, SendFailure};

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

    /// The frame for a receiver.
    fn frame(&self, zstd: bool) -> &Bytes {
        if zstd && self.plain.len() >= self.compress_min_bytes + frame::PREFIX_BYTES {
            self.zstd.get_or_init(|| frame::compress(&self.plain)).as_ref().unwrap_or(&self.plain)
        } else {
            &self.plain
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
    pub(crate) control: LaneWriter,
    /// Why the client has to go, once somebody has said so.
    ended: OnceLock<ClosedBy>,
    end: Notify,
}

impl Outbound {
    pub(crate) fn new(id: Uuid, zstd: bool, control: LaneWriter) -> Arc<Self> {
        Arc::new(Self { id, zstd, control, ended: OnceLock::new(), end: Notify::new() })
    }

    /// Delivers messages in order, without waiting. `frames` is scratch space; behind the call the frames in it that
    /// are not empty were not delivered. A client whose backlog is full is ended with 4413: it alone has the damage.
    pub(crate) fn deliver<'a>(&self, envelopes: impl Iterator<Item = &'a Envelope>, frames: &mut Vec<Bytes>) {
        frames.clear();
        frames.extend(envelopes.map(|envelope| envelope.frame(self.zstd).clone()));
        if self.ended.get().is_some() {
            return;
        }
        if self.control.try_send(frames) == Err(SendFailure::Full) {
            self.end_slow_consumer();
        }
    }

    /// Ends the client because it does not read what it is sent.
    pub(crate) fn end_slow_consumer(&self) {
        let reason = "the backlog is full: messages were not read fast enough".to_owned();
        let closed = ClosedBy { code: CloseCode::SLOW_CONSUMER, reason, reconnect_after_ms: None };
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
