//! What comes in on one connection: the control lane, the topic lanes that the server opens, and datagrams. Each topic lane
//! is read by a task of its own, so that one which waits for its reader holds up no other.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_websocket_lane::{LaneReader, Layer, ReadFailure};
use quinn::{ConnectionError, RecvStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::events::{Event, EventQueue};
use super::link::{CLOSE_FOLLOWS, Link};
use super::overlap::Overlap;
use super::topics::{Via, refused_for};
use crate::message::{CloseCode, ClosedBy, Reply, ServerMessage};
use quic_websocket_protocol::frame::{Body, Compression};

/// So many bodies of the control lane, and what else the client does has its turn.
const TURN_BODIES: usize = 32;

/// Once a server has ended a topic lane in order, how long it may need for the others before it closes the connection.
const OTHER_LANES_FOLLOW: Duration = Duration::from_secs(15);

/// Why nothing more is read.
pub(super) enum ReadEnd {
    /// The server's last words.
    ToldToGo(ClosedBy),
    /// The control lane, or the connection, has ended.
    Ended,
    /// What came cannot be understood, and why.
    Broken(String),
    /// The connection is of no more use: its subscriptions go on over another one.
    LaneLost(String),
    /// The client has gone over to another connection.
    Moved,
}

/// Where events go.
#[derive(Clone)]
pub(super) struct EventSink {
    pub(super) events: Arc<EventQueue>,
    /// Broadcasts that came, or may come, over two connections.
    pub(super) overlap: Arc<Overlap>,
    /// Largest message that is taken, in bytes.
    pub(super) max_message_bytes: usize,
}

impl EventSink {
    fn tell(&self, message: ServerMessage) {
        if self.overlap.is_first(&message) {
            self.events.tell(Event::Message(message));
        }
    }
}

impl Link {
    /// Reads the control lane until it ends.
    pub(super) async fn read_control(&self, mut reader: LaneReader, sink: &EventSink) -> ReadEnd {
        loop {
            for _ in 0..TURN_BODIES {
                match reader.next_body().await {
                    Ok(Some(body)) => {
                        if let Some(end) = self.hear(Via::Control, body, sink).await {
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

    /// Has every lane read that the server opens. Gives the end where one of them brings it.
    pub(super) async fn accept_lanes(
        self: &Arc<Self>,
        readers: &mut JoinSet<Option<ReadEnd>>,
        sink: &EventSink,
    ) -> ReadEnd {
        loop {
            tokio::select! {
                stream = self.next_stream() => match stream {
                    Ok(stream) => drop(readers.spawn(Arc::clone(self).read_lane(stream, sink.clone()))),
                    // That shows on the control lane, behind what is still to be read there.
                    Err(_) => return pending().await,
                },
                Some(ended) = readers.join_next() => match ended {
                    Ok(Some(end)) => return end,
                    Ok(None) => {}
                    Err(e) => return ReadEnd::LaneLost(format!("a lane is read no further: {e}")),
                },
            }
        }
    }

    /// The next stream that the server opens; on a WebSocket there is none.
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
                // Some other kind of stream, of a newer server.
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
                    if let Some(end) = self.hear(Via::Lane(lane), body, &sink).await {
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

    /// A lane that nobody expects anything of may end. Else the end of the subscription, or of the connection, may be on its
    /// way on the control lane; what comes of neither is lost.
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
                && let Some(end) = self.hear(Via::Datagram, body, &sink).await
            {
                return Some(end);
            }
        }
        None
    }

    /// Takes any message on any via.
    async fn hear(&self, via: Via, body: Bytes, sink: &EventSink) -> Option<ReadEnd> {
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
            message => {
                if matches!(message, ServerMessage::Expiring { .. }) {
                    self.expiring.notify_one();
                }
                if let Some(message) = self.topics.deliver(via, message).await {
                    sink.tell(message);
                }
            }
        }
        None
    }

    /// Gives nothing for a message of a type that this side does not know: it comes from a newer server, and is none of
    /// its business.
    fn parse(&self, body: Bytes, max_message_bytes: usize) -> Result<Option<Reply>, String> {
        parse(body, self.compression(), max_message_bytes)
    }
}

fn parse(body: Bytes, compression: Compression, max_message_bytes: usize) -> Result<Option<Reply>, String> {
    // The limit was applied to the frame already, and holds for what it inflates to as well.
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
    fn only_what_is_of_an_unknown_type_is_passed_over() {
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
    fn a_body_that_cannot_be_inflated_or_becomes_too_large_is_no_silence() {
        let mut frame = bytes::BytesMut::new();
        put_frame(&mut frame, None, |out| {
            out.extend_from_slice(format!(r#"{{"type":"ok","x":"{}"}}"#, "x".repeat(2000)).as_bytes());
        });
        let packed = compress(&frame).expect("it gets smaller").slice(PREFIX_BYTES..);
        assert!(matches!(parse(packed.clone(), Compression::Zstd, 4000), Ok(Some(_))));
        assert!(parse(packed.clone(), Compression::Zstd, 1000).is_err_and(|reason| reason.contains("limit of 1000")));
        assert!(parse(packed.slice(..packed.len() - 5), Compression::Zstd, 4000).is_err());
        assert!(parse(packed, Compression::None, 4000).is_err(), "it was not agreed on");
    }
}
