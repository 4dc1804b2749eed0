//! Reading of one connection: the control lane, the topic lanes that the server opens, and datagrams. Each topic lane
//! is read by a task of its own, so that one that waits for its reader holds up no other.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_websocket_lane::{LaneReader, Layer, ReadFailure};
use quinn::{ConnectionError, RecvStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Carrier;
use super::events::{Event, EventQueue};
use super::link::{CLOSE_FOLLOWS, Link};
use super::overlap::Overlap;
use super::topics::{Via, refused_for};
use crate::message::{CloseCode, ClosedBy, Reply, ServerMessage};
use quic_websocket_protocol::frame::{Body, Compression};

/// Bodies of the control lane that are read before other tasks of the client get their turn.
const TURN_BODIES: usize = 32;

/// How long a server that has finished a topic lane may take to finish the others and to close the connection.
const OTHER_LANES_FOLLOW: Duration = Duration::from_secs(15);

/// The reason why reading stopped.
pub(super) enum ReadEnd {
    /// The server sent `close`.
    ToldToGo(ClosedBy),
    /// The control lane, or the connection, has ended.
    Ended,
    /// A message cannot be understood, for this reason.
    Broken(String),
    /// The connection is no longer usable, for this reason: its subscriptions resume over another one.
    LaneLost(String),
    /// The client uses another connection.
    Moved,
}

/// The destination of events.
#[derive(Clone)]
pub(super) struct EventSink {
    pub(super) events: Arc<EventQueue>,
    /// Broadcasts that come over two connections.
    pub(super) overlap: Arc<Overlap>,
    /// Largest message that is accepted, in bytes.
    pub(super) max_message_bytes: usize,
}

impl EventSink {
    fn push_event(&self, over: Carrier, message: ServerMessage) {
        self.overlap.pass(over, message, |message| self.events.push_event(Event::of(message)));
    }

    /// The connection before has ended: what was held back until then follows.
    pub(super) fn moved(&self) {
        self.overlap.moved().into_iter().for_each(|message| self.events.push_event(Event::of(message)));
    }

    /// There is one connection again, or none.
    pub(super) fn give_up_move(&self) {
        self.overlap.give_up().into_iter().for_each(|message| self.events.push_event(Event::of(message)));
    }
}

impl Link {
    /// Reads the control lane until it ends.
    pub(super) async fn read_control(self: &Arc<Self>, mut reader: LaneReader, sink: &EventSink) -> ReadEnd {
        loop {
            for _ in 0..TURN_BODIES {
                match reader.next_body().await {
                    Ok(Some(body)) => {
                        if let Some(end) = self.handle(Via::Control, body, sink).await {
                            return end;
                        }
                    }
                    Err(e @ (ReadFailure::Frame(_) | ReadFailure::Broken { .. })) => {
                        return ReadEnd::Broken(e.to_string());
                    }
                    Ok(None) | Err(_) => return ReadEnd::Ended,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads every lane that the server opens. Returns when one of them ends the connection.
    pub(super) async fn accept_lanes(
        self: &Arc<Self>,
        readers: &mut JoinSet<Option<ReadEnd>>,
        sink: &EventSink,
    ) -> ReadEnd {
        loop {
            tokio::select! {
                stream = self.next_stream() => match stream {
                    Ok(stream) => drop(readers.spawn(Arc::clone(self).read_lane(stream, sink.clone()))),
                    // The control lane reports it, behind the messages that are still to be read there.
                    Err(_) => return pending().await,
                },
                Some(ended) = readers.join_next() => match ended {
                    Ok(Some(end)) => return end,
                    Ok(None) => {}
                    Err(e) => return ReadEnd::LaneLost(format!("the reader of a topic lane failed: {e}")),
                },
            }
        }
    }

    /// The next stream that the server opens. Never ready on a WebSocket.
    async fn next_stream(&self) -> Result<RecvStream, ConnectionError> {
        match self.connection.quic() {
            Some(connection) => connection.accept_uni().await,
            None => pending().await,
        }
    }

    async fn read_lane(self: Arc<Self>, stream: RecvStream, sink: EventSink) -> Option<ReadEnd> {
        let mut reader = LaneReader::new(stream, Layer::Native, sink.max_message_bytes);
        let lane = match reader.next_body().await {
            Ok(Some(body)) => match self.parse(body, sink.max_message_bytes) {
                Ok(Some(Reply { message: ServerMessage::Lane { lane, .. }, .. })) => lane,
                // Another kind of stream, from a newer server.
                Ok(_) => {
                    tracing::debug!("A stream that does not begin with \"lane\" is not read");
                    reader.stop(CloseCode::UNSUPPORTED.0);
                    return None;
                }
                Err(reason) => return Some(ReadEnd::Broken(reason)),
            },
            Err(ReadFailure::Frame(e)) => return Some(ReadEnd::Broken(e.to_string())),
            // The stream ended before its first frame, so it never belonged to a topic.
            Ok(None) | Err(_) => return None,
        };
        loop {
            match reader.next_body().await {
                Ok(Some(body)) => {
                    if let Some(end) = self.handle(Via::Lane(lane), body, &sink).await {
                        return Some(end);
                    }
                }
                Ok(None) if reader.is_inside_frame() => return self.lane_ended(lane, CLOSE_FOLLOWS, "a cut").await,
                Ok(None) => return self.lane_ended(lane, OTHER_LANES_FOLLOW, "nothing more comes").await,
                Err(ReadFailure::Frame(e)) => return Some(ReadEnd::Broken(e.to_string())),
                Err(e) => return self.lane_ended(lane, CLOSE_FOLLOWS, &e.to_string()).await,
            }
        }
    }

    /// A lane without a subscription may end. Otherwise the end of the subscription, or of the connection, may be on
    /// its way on the control lane; if neither comes, messages are lost.
    async fn lane_ended(&self, lane: u64, close_follows: Duration, how: &str) -> Option<ReadEnd> {
        if !self.topics.is_bound(lane) || timeout(close_follows, self.connection.closed()).await.is_ok() {
            return None;
        }
        self.topics.is_bound(lane).then(|| ReadEnd::LaneLost(format!("topic lane {lane} ended: {how}")))
    }

    /// Reads datagrams until the connection ends.
    pub(super) async fn read_datagrams(self: Arc<Self>, sink: EventSink) -> Option<ReadEnd> {
        while let Ok(body) = self.connection.read_datagram().await {
            if body.len() <= sink.max_message_bytes
                && let Some(end) = self.handle(Via::Datagram, body, &sink).await
            {
                return Some(end);
            }
        }
        None
    }

    /// Handles a message, which may be any on any channel.
    async fn handle(self: &Arc<Self>, via: Via, body: Bytes, sink: &EventSink) -> Option<ReadEnd> {
        let Reply { re, message, .. } = match self.parse(body, sink.max_message_bytes) {
            Ok(Some(reply)) => reply,
            Ok(None) => return None,
            Err(reason) => return Some(ReadEnd::Broken(reason)),
        };
        if let Some(re) = re {
            self.replied(&re, message);
            return None;
        }
        if let Some(retry_after) = refused_for(&message) {
            self.pace.refused(retry_after);
        }
        match message {
            ServerMessage::Ping { .. } => self.pong(),
            ServerMessage::Close(closed) => return Some(ReadEnd::ToldToGo(closed)),
            message => self.pass(via, message, sink).await,
        }
        None
    }

    /// Passes an unsolicited message to its handler or subscription, or to the events.
    pub(super) async fn pass(self: &Arc<Self>, via: Via, message: ServerMessage, sink: &EventSink) {
        let message = match message {
            ServerMessage::Request(called) => return self.topics.handlers.asked(self, *called),
            ServerMessage::Cancel { request, .. } => return self.end_serving(&request),
            message => message,
        };
        if matches!(message, ServerMessage::Expiring { .. }) {
            self.expiring.notify_one();
        }
        if matches!(via, Via::Lane(_)) && !self.is_current() {
            self.until_current().await;
        }
        let unclaimed = match self.is_current() {
            true => self.topics.deliver(via, message).await,
            false => self.keep_early(message),
        };
        if let Some(message) = unclaimed {
            sink.push_event(self.carrier(), message);
        }
    }

    /// `None` for a message of an unknown type, which comes from a newer server and is ignored.
    pub(super) fn parse(&self, body: Bytes, max_message_bytes: usize) -> Result<Option<Reply>, String> {
        parse(body, self.compression(), max_message_bytes)
    }
}

fn parse(body: Bytes, compression: Compression, max_message_bytes: usize) -> Result<Option<Reply>, String> {
    // The limit has been applied to the frame, and holds for the inflated body as well.
    let body = Body::parse(body, compression, max_message_bytes).map_err(|e| e.to_string())?;
    match Reply::parse(&body) {
        Ok(reply) => Ok(Some(reply)),
        Err(e) if e.unknown_type => Ok(None),
        Err(e) => Err(e.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quic_websocket_protocol::frame::{PREFIX_BYTES, compress, put_frame};

    fn parse_plain(json: &str) -> Result<Option<Reply>, String> {
        parse(Bytes::copy_from_slice(json.as_bytes()), Compression::None, 1000)
    }

    #[test]
    fn only_messages_of_an_unknown_type_are_ignored() {
        for unknown in [r#"{"type":"new","offset":"x"}"#, r#"{"type":"","re":1}"#] {
            assert!(matches!(parse_plain(unknown), Ok(None)), "{unknown}");
        }
        assert!(matches!(parse_plain(r#"{"type":"ok","new":1}"#), Ok(Some(_))));
        for broken in [
            r#"{"type":"message","topic":"t","offset":"1","timestamp":1}"#,
            r#"{"type":"gap","topic":"t","first":1}"#,
            r#"{"type":7}"#,
            "{}",
            "{",
            "x",
        ] {
            assert!(parse_plain(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_inflated_or_becomes_too_large_is_an_error() {
        let mut frame = bytes::BytesMut::new();
        put_frame(&mut frame, None, |out| {
            out.extend_from_slice(format!(r#"{{"type":"ok","x":"{}"}}"#, "x".repeat(2000)).as_bytes());
        });
        let packed = compress(&frame, Compression::Zstd).expect("it gets smaller").slice(PREFIX_BYTES..);
        assert!(matches!(parse(packed.clone(), Compression::Zstd, 4000), Ok(Some(_))));
        assert!(parse(packed.clone(), Compression::Zstd, 1000).is_err_and(|reason| reason.contains("limit of 1000")));
        assert!(parse(packed.slice(..packed.len() - 5), Compression::Zstd, 4000).is_err());
        assert!(parse(packed, Compression::None, 4000).is_err(), "it was not agreed on");
    }
}
