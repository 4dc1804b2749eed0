//! The inbound side of a lane: what the stream delivers, cut into bodies.

use bytes::Bytes;
use quinn::{ReadError, RecvStream};

use super::failure::ReadFailure;
use super::layer::{Layer, Preamble};
use super::stream::ReceiveHalf;
use super::websocket::Inlet;
use quic_websocket_protocol::frame::{FrameDecoder, FrameError};

/// Pieces taken from the stream at once: each is a packet's share at most, and costs a place here while a lane lives.
const PIECES: usize = 16;

/// Reads bodies from one stream that the peer writes.
#[derive(Debug)]
pub struct LaneReader {
    source: Source,
    max_message_bytes: usize,
}

#[derive(Debug)]
enum Source {
    Quic(Box<QuicSource>),
    /// Brings whole bodies.
    Socket(Inlet),
}

/// A QUIC stream, whose bytes come cut anywhere.
#[derive(Debug)]
struct QuicSource {
    stream: RecvStream,
    layer: Layer,
    /// What still has to come before the first frame.
    preamble: Option<Preamble>,
    decoder: FrameDecoder,
    pieces: [Bytes; PIECES],
    /// The pieces that the decoder has not seen yet.
    unread: std::ops::Range<usize>,
}

impl LaneReader {
    /// A lane whose bodies have at most so many bytes.
    pub fn new(half: impl Into<ReceiveHalf>, layer: Layer, max_message_bytes: usize) -> Self {
        let source = match half.into() {
            ReceiveHalf::Socket(inlet) => Source::Socket(inlet),
            ReceiveHalf::Quic(stream) => Source::Quic(Box::new(QuicSource {
                stream,
                layer,
                preamble: layer.preamble(),
                decoder: FrameDecoder::new(max_message_bytes),
                pieces: Default::default(),
                unread: 0..0,
            })),
        };
        Self { source, max_message_bytes }
    }

    /// The largest body that is accepted, in bytes.
    #[inline]
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// The next body of what has been received already.
    #[inline]
    pub fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        match &mut self.source {
            Source::Quic(source) => source.buffered(),
            Source::Socket(inlet) => inlet.buffered(),
        }
    }

    /// Waits for more, once [`buffered`](Self::buffered) has given `None`. False at the end of the stream.
    ///
    /// Cancel safe: what was received is kept.
    pub async fn fill(&mut self) -> Result<bool, ReadFailure> {
        match &mut self.source {
            Source::Quic(source) => Ok(source.fill().await?),
            Source::Socket(inlet) => inlet.fill().await.map(|()| true),
        }
    }

    /// Waits for the next body; `None` at the end of the stream, also where that cuts a body off. Cancel safe.
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

    /// Whether what was received ends inside a body, or before the first may begin.
    pub fn is_inside_frame(&self) -> bool {
        match &self.source {
            Source::Quic(source) => source.is_inside_frame(),
            Source::Socket(inlet) => inlet.has_begun(),
        }
    }

    /// Bytes of the body inside which that ends, once [`buffered`](Self::buffered) has given `None`.
    pub fn unfinished_bytes(&self) -> usize {
        match &self.source {
            Source::Quic(source) => source.decoder.unfinished_bytes(),
            // One body at most, of which the largest has room in what a client may have begun.
            Source::Socket(_) => 0,
        }
    }

    /// Tells the peer that nothing more is read, with a closing code.
    pub fn stop(&mut self, code: u16) {
        if let Source::Quic(source) = &mut self.source {
            // An error means that the stream has ended already.
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
            let mut piece = std::mem::take(&mut self.pieces[next]);
            if let Some(preamble) = &mut self.preamble
                && preamble.take_off(&mut piece)?
            {
                self.preamble = None;
            }
            self.decoder.push(piece);
        }
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        let Some(count) = self.stream.read_chunks(&mut self.pieces).await? else { return Ok(false) };
        self.unread = 0..count;
        Ok(true)
    }

    fn is_inside_frame(&self) -> bool {
        self.preamble.as_ref().is_some_and(Preamble::has_begun) || self.decoder.is_inside_frame()
    }
}
