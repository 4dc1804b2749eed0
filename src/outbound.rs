//! The outbound handle of one client: what the rooms that deliver messages know of it. They hand it messages that are
//! encoded already ([`Envelope`]); how these travel is the transport's.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::frame;
use crate::message::{CloseCode, ClosedBy, ServerMessage};
use crate::transport::{Batch, LaneWriter, SendFailure};

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

/// Messages for the same receivers, in order; what is written to each receiver is made once for all.
#[derive(Debug)]
pub(crate) struct Run {
    envelopes: Vec<Arc<Envelope>>,
    plain: OnceLock<Batch>,
    zstd: OnceLock<Batch>,
}

impl Run {
    pub(crate) fn new(envelopes: Vec<Arc<Envelope>>) -> Self {
        Self { envelopes, plain: OnceLock::new(), zstd: OnceLock::new() }
    }

    fn batch(&self, zstd: bool) -> &Batch {
        let batch = if zstd { &self.zstd } else { &self.plain };
        batch.get_or_init(|| Batch::new(self.envelopes.iter().map(|envelope| envelope.frame(zstd).clone()).collect()))
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

    /// Delivers messages in order, without waiting, and gives how many were taken. A client whose backlog is full is
    /// ended with 4413: it alone has the damage.
    pub(crate) fn deliver(&self, run: &Run) -> usize {
        self.put(run.batch(self.zstd))
    }

    /// The same for frames that are for this client alone.
    pub(crate) fn put(&self, batch: &Batch) -> usize {
        if self.ended.get().is_some() {
            return 0;
        }
        match self.control.try_send(batch) {
            Ok(()) => batch.len(),
            Err((taken, failure)) => {
                if failure == SendFailure::Full {
                    self.end_slow_consumer();
                }
                taken
            }
        }
    }

    /// Ends the client because it does not read what it is sent.
    fn end_slow_consumer(&self) {
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
