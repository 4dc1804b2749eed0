//! The inbound side of a lane: splits what the stream delivers into message bodies. Knows framing, not messages. Used
//! by the server's session and by the client library.

use bytes::Bytes;
use futures_util::FutureExt;
use quinn::{ReadError, RecvStream};

use super::failure::ReadFailure;
use super::layer::{Layer, Preamble};
use super::stream::ReceiveHalf;
use super::websocket::Inlet;
use quic_websocket_protocol::frame::{FrameDecoder, FrameError};

/// Chunks read from the stream per call. Each is at most one packet's payload, and each slot costs memory for the life
/// of the lane.
const MAX_CHUNKS: usize = 16;

/// Reads message bodies from one stream of the peer.
#[derive(Debug)]
pub struct LaneReader {
    source: Source,
    max_message_bytes: usize,
}

#[derive(Debug)]
enum Source {
    Quic(Box<QuicSource>),
    /// A WebSocket, which delivers whole bodies.
    Socket(Inlet),
}

/// A QUIC stream, whose chunks may begin and end anywhere in a frame.
#[derive(Debug)]
struct QuicSource {
    stream: RecvStream,
    layer: Layer,
    /// The part of the WebTransport stream header that is still expected before the first frame.
    preamble: Option<Preamble>,
    decoder: FrameDecoder,
    chunks: [Bytes; MAX_CHUNKS],
    /// Indices of the chunks that the decoder has not seen yet.
    unread: std::ops::Range<usize>,
    /// Whether the last bytes filled all chunks, so that more have probably arrived.
    may_have_more: bool,
    /// An error that is still to be reported; the stream does not repeat it.
    failure: Option<Box<ReadError>>,
}

impl LaneReader {
    /// Creates a reader that accepts bodies of up to `max_message_bytes`.
    pub fn new(half: impl Into<ReceiveHalf>, layer: Layer, max_message_bytes: usize) -> Self {
        let source = match half.into() {
            ReceiveHalf::Socket(inlet) => Source::Socket(inlet),
            ReceiveHalf::Quic(stream) => Source::Quic(Box::new(QuicSource {
                stream,
                layer,
                preamble: layer.preamble(),
                decoder: FrameDecoder::new(max_message_bytes),
                chunks: Default::default(),
                unread: 0..0,
                may_have_more: false,
                failure: None,
            })),
        };
        Self { source, max_message_bytes }
    }

    /// Largest accepted body, in bytes.
    #[inline]
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Returns the next body among the bytes already received.
    #[inline]
    pub fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        match &mut self.source {
            Source::Quic(source) => source.buffered(),
            Source::Socket(inlet) => inlet.buffered(),
        }
    }

    /// Waits for more bytes, after [`buffered`](Self::buffered) has returned `None`. False at the end of the stream.
    ///
    /// Cancel safe: received bytes are kept.
    pub async fn fill(&mut self) -> Result<bool, ReadFailure> {
        match &mut self.source {
            Source::Quic(source) => Ok(source.fill().await?),
            Source::Socket(inlet) => inlet.fill().await.map(|()| true),
        }
    }

    /// Takes more bytes if they have probably arrived, so that they are served together with those before. False if
    /// they have not, or the stream has ended; [`fill`](Self::fill) reports why.
    pub fn fill_at_once(&mut self) -> bool {
        match &mut self.source {
            Source::Quic(source) => source.fill_at_once(),
            // The pump delivers what has arrived.
            Source::Socket(_) => false,
        }
    }

    /// Waits for the next body; `None` at the end of the stream, even if the stream ends inside a body. Cancel safe.
    pub async fn next_body(&mut self) -> Result<Option<Bytes>, ReadFailure> {
        loop {
            if let Some(body) = self.buffered()? {
                return Ok(Some(body));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Whether the received bytes end inside a frame, or inside the stream header before the first one.
    pub fn is_inside_frame(&self) -> bool {
        match &self.source {
            Source::Quic(source) => source.is_inside_frame(),
            Source::Socket(inlet) => inlet.has_begun(),
        }
    }

    /// Bytes held of the unfinished body, once [`buffered`](Self::buffered) has returned `None`.
    pub fn unfinished_bytes(&self) -> usize {
        match &self.source {
            Source::Quic(source) => source.decoder.unfinished_bytes(),
            // At most one body; a client's reassembly budget always has room for the largest.
            Source::Socket(_) => 0,
        }
    }

    /// Asks the peer to stop sending (STOP_SENDING), with a closing code.
    pub fn stop(&mut self, code: u16) {
        if let Source::Quic(source) = &mut self.source {
            // An error means that the stream has already ended.
            let _ = source.stream.stop(source.layer.code(code));
        }
    }
}

impl QuicSource {
    fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(body) = self.decoder.next_body()? {
                return Ok(Some(body));
            }
            let Some(next) = self.unread.next() else { return Ok(None) };
            let mut chunk = std::mem::take(&mut self.chunks[next]);
            if let Some(preamble) = &mut self.preamble
                && preamble.take_off(&mut chunk)?
            {
                self.preamble = None;
            }
            self.decoder.push(chunk);
        }
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        if let Some(failure) = self.failure.take() {
            return Err(*failure);
        }
        self.may_have_more = false;
        let Some(count) = self.stream.read_chunks(&mut self.chunks).await? else { return Ok(false) };
        self.unread = 0..count;
        self.may_have_more = count == MAX_CHUNKS;
        Ok(true)
    }

    fn fill_at_once(&mut self) -> bool {
        if !self.may_have_more {
            return false;
        }
        match self.fill().now_or_never() {
            Some(Ok(has_more)) => has_more,
            Some(Err(e)) => {
                self.failure = Some(Box::new(e));
                false
            }
            None => false,
        }
    }

    fn is_inside_frame(&self) -> bool {
        self.preamble.as_ref().is_some_and(Preamble::has_begun) || self.decoder.is_inside_frame()
    }
}
