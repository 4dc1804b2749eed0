//! What comes in on one connection: the control lane, the topic lanes that the server opens, and datagrams. Each topic lane
//! is read by a task of its own, so that one which waits for its reader holds up no other.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use quinn::RecvStream;
use tokio::task::JoinSet;

use super::Event;
use super::heard::Heard;
use super::link::Link;
use super::topics::Carrier;
use crate::frame::{Body, FrameError};
use crate::message::{CloseCode, ClosedBy, Reply, ServerMessage};
use crate::transport::{LaneReader, ReadFailure};

/// Why nothing more is read.
pub(super) enum ReadEnd {
    /// The server's last words.
    ToldToGo(ClosedBy),
    /// The control lane, or the connection, has ended.
    Ended,
    /// What came cannot be understood.
    Broken(FrameError),
}

impl Link {
    /// Reads the control lane until it ends.
    pub(super) async fn read_control(&self, mut reader: LaneReader, heard: &Heard) -> ReadEnd {
        loop {
            match reader.next_body().await {
                Ok(Some(body)) => {
                    if let Some(end) = self.hear(Carrier::Control, body, heard).await {
                        return end;
                    }
                }
                Ok(None) | Err(ReadFailure::Stream(_)) => return ReadEnd::Ended,
                Err(ReadFailure::Frame(e)) => return ReadEnd::Broken(e),
            }
        }
    }

    /// Has every lane read that the server opens. Gives the end where one of them brings it.
    pub(super) async fn accept_lanes(
        self: &Arc<Self>,
        readers: &mut JoinSet<Option<ReadEnd>>,
        heard: &Heard,
    ) -> ReadEnd {
        loop {
            tokio::select! {
                stream = self.connection.accept_uni() => match stream {
                    Ok(stream) => drop(readers.spawn(Arc::clone(self).read_lane(stream, heard.clone()))),
                    // That shows on the control lane, behind what is still to be read there.
                    Err(_) => return pending().await,
                },
                Some(ended) = readers.join_next() => if let Ok(Some(end)) = ended {
                    return end;
                },
            }
        }
    }

    async fn read_lane(self: Arc<Self>, stream: RecvStream, heard: Heard) -> Option<ReadEnd> {
        let mut reader = LaneReader::new(stream, heard.max_message_bytes);
        let mut carrier = None;
        loop {
            let body = match reader.next_body().await {
                Ok(Some(body)) => body,
                // A lane may end, and another be opened.
                Ok(None) | Err(ReadFailure::Stream(_)) => return None,
                Err(ReadFailure::Frame(e)) => return Some(ReadEnd::Broken(e)),
            };
            let Some(carrier) = carrier else {
                match self.parse(body, heard.max_message_bytes).map(|reply| reply.message) {
                    Some(ServerMessage::Lane { lane, .. }) => carrier = Some(Carrier::Lane(lane)),
                    // Some other kind of stream, of a newer server.
                    _ => {
                        tracing::debug!("A stream that does not begin with \"lane\" is not read");
                        reader.stop(CloseCode::UNSUPPORTED.0);
                        return None;
                    }
                }
                continue;
            };
            if let Some(end) = self.hear(carrier, body, &heard).await {
                return Some(end);
            }
        }
    }

    /// Reads datagrams until the connection ends.
    pub(super) async fn read_datagrams(self: Arc<Self>, heard: Heard) -> Option<ReadEnd> {
        while let Ok(body) = self.connection.read_datagram().await {
            if body.len() <= heard.max_message_bytes
                && let Some(end) = self.hear(Carrier::Datagram, body, &heard).await
            {
                return Some(end);
            }
        }
        None
    }

    /// Takes any message on any carrier.
    async fn hear(&self, carrier: Carrier, body: Bytes, heard: &Heard) -> Option<ReadEnd> {
        let Reply { re, message } = self.parse(body, heard.max_message_bytes)?;
        if let Some(re) = re {
            self.replied(&re, message);
            return None;
        }
        match message {
            ServerMessage::Ping { .. } => self.pong(),
            ServerMessage::Close(closed) => return Some(ReadEnd::ToldToGo(closed)),
            message => {
                if let Some(message) = self.topics.deliver(carrier, message).await {
                    heard.tell(Event::Message(message)).await;
                }
            }
        }
        None
    }

    /// Gives nothing for a message that this side does not know: it comes from a newer server, and is none of its business.
    fn parse(&self, body: Bytes, max_message_bytes: usize) -> Option<Reply> {
        // The limit was applied to the frame already, and holds for what it inflates to as well.
        Reply::parse(&Body::parse(body, self.compression(), max_message_bytes).ok()?).ok()
    }
}
