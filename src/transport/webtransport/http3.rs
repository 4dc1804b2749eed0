//! HTTP/3 below a session (RFC 9114): frames, the client's control stream, and the capsules (RFC 9297) on the CONNECT
//! stream. A violation by the client ends its connection with the code that the RFC prescribes. Knows no connection:
//! streams are anything that can be read.

use std::collections::BTreeSet;
use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;
use web_transport_quinn::proto::{Settings, VarInt};

/// Closing codes (RFC 9114 section 8.1).
pub(super) const NO_ERROR: u32 = 0x100;
pub(super) const GENERAL_PROTOCOL_ERROR: u32 = 0x101;
pub(super) const STREAM_CREATION_ERROR: u32 = 0x103;
const CLOSED_CRITICAL_STREAM: u32 = 0x104;
const FRAME_UNEXPECTED: u32 = 0x105;
const FRAME_ERROR: u32 = 0x106;
const EXCESSIVE_LOAD: u32 = 0x107;
const SETTINGS_ERROR: u32 = 0x109;
const MISSING_SETTINGS: u32 = 0x10a;
const REQUEST_INCOMPLETE: u32 = 0x10d;
const MESSAGE_ERROR: u32 = 0x10e;

/// Frame types (section 7.2).
const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const SETTINGS: u64 = 0x04;
const PUSH_PROMISE: u64 = 0x05;
/// HTTP/2 frame types, which are forbidden (section 7.2.8).
const RESERVED: [u64; 4] = [0x02, 0x06, 0x08, 0x09];
/// HTTP/2 settings, also forbidden (section 7.2.4.1).
const RESERVED_SETTINGS: std::ops::RangeInclusive<u64> = 0x02..=0x05;

/// CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3 section 6).
pub(super) const CLOSE: u64 = 0x2843;
/// Length of its code, in bytes.
pub(super) const CODE_BYTES: usize = 4;
/// Longest reason, in bytes.
const REASON_BYTES: u64 = 1024;

/// Largest field section of a request, in bytes, as announced in the server's settings.
const FIELD_SECTION_BYTES: u64 = 16 * 1024;
/// Largest settings frame of a client, in bytes.
const SETTINGS_BYTES: u64 = 16 * 1024;

/// A violation of HTTP/3 by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{why}")]
pub(super) struct Fault {
    /// Code with which the connection is closed.
    pub(super) code: u32,
    pub(super) why: &'static str,
}

impl Fault {
    pub(super) const fn new(code: u32, why: &'static str) -> Self {
        Self { code, why }
    }
}

/// Reason why a stream cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Fault(Fault),
    /// The client reset the stream.
    Reset,
    /// The connection has ended.
    Disconnected,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::new(FRAME_ERROR, "a frame is cut off").into(),
            io::ErrorKind::ConnectionReset => Self::Reset,
            _ => Self::Disconnected,
        }
    }
}

/// Reads the frames of a stream.
#[derive(Debug)]
pub(super) struct Frames<S>(S);

impl<S: AsyncRead + Unpin> Frames<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(stream)
    }

    /// Reads an integer; `None` if the stream ends before it.
    pub(super) async fn integer(&mut self) -> Result<Option<u64>, Trouble> {
        // A frame may be only two bytes, and reading a QUIC stream never yields to the worker's other clients.
        consume_budget().await;
        let mut bytes = [0; VarInt::MAX_SIZE];
        if self.0.read(&mut bytes[..1]).await? == 0 {
            return Ok(None);
        }
        let length = 1_usize << (bytes[0] >> 6);
        self.0.read_exact(&mut bytes[1..length]).await?;
        Ok(VarInt::decode(&mut &bytes[..length]).ok().map(VarInt::into_inner))
    }

    /// Reads the type and length of the next frame, whose payload follows; `None` at the end.
    async fn next(&mut self) -> Result<Option<(u64, u64)>, Trouble> {
        let Some(kind) = self.integer().await? else { return Ok(None) };
        let length =
            self.integer().await?.ok_or_else(|| Trouble::from(io::Error::from(io::ErrorKind::UnexpectedEof)))?;
        Ok(Some((kind, length)))
    }

    async fn payload(&mut self, length: u64, most: u64) -> Result<Vec<u8>, Trouble> {
        if length > most {
            return Err(Fault::new(EXCESSIVE_LOAD, "a frame is too large").into());
        }
        // Memory grows with the received bytes, not with the claimed length.
        let mut payload = Vec::new();
        if (&mut self.0).take(length).read_to_end(&mut payload).await? as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(payload)
    }

    /// Skips bytes.
    async fn skip(&mut self, length: u64) -> Result<(), Trouble> {
        match tokio::io::copy(&mut (&mut self.0).take(length), &mut tokio::io::sink()).await? {
            skipped if skipped == length => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Skips everything on a stream that must not end, until it ends.
    pub(super) async fn drain(mut self) -> Trouble {
        match self.skip(u64::MAX).await {
            Err(Trouble::Disconnected) => Trouble::Disconnected,
            // A reset counts as an end.
            _ => Fault::new(CLOSED_CRITICAL_STREAM, "a critical HTTP/3 stream has ended").into(),
        }
    }
}

/// Reads a client's control stream, after its type, and notifies `settings` once valid settings have arrived. Returns
/// the reason why the stream ended.
pub(super) async fn control<S: AsyncRead + Unpin>(stream: S, settings: oneshot::Sender<()>) -> Trouble {
    match control_to_end(stream, settings).await {
        Ok(()) | Err(Trouble::Reset) => Fault::new(CLOSED_CRITICAL_STREAM, "its control stream has ended").into(),
        Err(trouble) => trouble,
    }
}

async fn control_to_end<S: AsyncRead + Unpin>(stream: S, settings: oneshot::Sender<()>) -> Result<(), Trouble> {
    let mut frames = Frames::new(stream);
    let Some((SETTINGS, length)) = frames.next().await? else {
        return Err(Fault::new(MISSING_SETTINGS, "its control stream does not begin with its settings").into());
    };
    judge(&frames.payload(length, SETTINGS_BYTES).await?)?;
    // The receiver is gone if the connection was given up.
    let _ = settings.send(());
    while let Some((kind, length)) = frames.next().await? {
        match kind {
            DATA | HEADERS | SETTINGS | PUSH_PROMISE => {
                return Err(Fault::new(FRAME_UNEXPECTED, "a frame that is not allowed on its control stream").into());
            }
            reserved if RESERVED.contains(&reserved) => {
                return Err(Fault::new(FRAME_UNEXPECTED, "a frame type of HTTP/2").into());
            }
            _ => frames.skip(length).await?,
        }
    }
    Ok(())
}

/// Validates a client's settings.
fn judge(settings: &[u8]) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    let mut rest = settings;
    while !rest.is_empty() {
        let (Ok(id), Ok(_)) = (VarInt::decode(&mut rest), VarInt::decode(&mut rest)) else {
            return Err(Fault::new(FRAME_ERROR, "its settings are cut off"));
        };
        let id = id.into_inner();
        if RESERVED_SETTINGS.contains(&id) || !seen.insert(id) {
            return Err(Fault::new(SETTINGS_ERROR, "a duplicate setting, or one of HTTP/2"));
        }
    }
    // The encoding on a control stream.
    let mut stream = vec![0, 0x04];
    VarInt::from_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX)).encode(&mut stream);
    stream.extend_from_slice(settings);
    match Settings::decode(&mut stream.as_slice()) {
        Ok(settings) if settings.supports_webtransport() > 0 => Ok(()),
        _ => Err(Fault::new(GENERAL_PROTOCOL_ERROR, "it does not support WebTransport")),
    }
}

/// Reads the field section of a request.
pub(super) async fn request<S: AsyncRead + Unpin>(frames: &mut Frames<S>) -> Result<Vec<u8>, Trouble> {
    while let Some((kind, length)) = frames.next().await? {
        match kind {
            HEADERS => return frames.payload(length, FIELD_SECTION_BYTES).await,
            _ => skip_frame(frames, kind, length).await?,
        }
    }
    Err(Fault::new(REQUEST_INCOMPLETE, "its request is incomplete").into())
}

/// Skips a frame on a request stream, if it is allowed there.
async fn skip_frame<S: AsyncRead + Unpin>(frames: &mut Frames<S>, kind: u64, length: u64) -> Result<(), Trouble> {
    if [DATA, HEADERS, SETTINGS, PUSH_PROMISE, 0x03, 0x07, 0x0d].contains(&kind) || RESERVED.contains(&kind) {
        return Err(Fault::new(FRAME_UNEXPECTED, "a frame that is not allowed on its request").into());
    }
    frames.skip(length).await
}

/// Reads the capsules of a session until it ends: returns the code and reason of its CLOSE, or `None` if there is none.
pub(super) async fn closing<S: AsyncRead + Unpin>(frames: Frames<S>) -> Result<Option<(u32, String)>, Trouble> {
    let malformed = |why| Trouble::Fault(Fault::new(MESSAGE_ERROR, why));
    let mut capsules = Capsules { frames, left: 0 };
    while let Some(kind) = capsules.integer().await? {
        let length = capsules.integer().await?.ok_or(malformed("a capsule is cut off"))?;
        if kind != CLOSE {
            capsules.skip(length).await?;
            continue;
        }
        let reason = length.checked_sub(CODE_BYTES as u64).filter(|&bytes| bytes <= REASON_BYTES);
        let reason = reason.ok_or(malformed("its CLOSE has an invalid length"))?;
        let mut code = [0; CODE_BYTES];
        let mut text = vec![0; usize::try_from(reason).unwrap_or(0)];
        capsules.fill(&mut code).await?;
        capsules.fill(&mut text).await?;
        let text = String::from_utf8(text).map_err(|_| malformed("the reason of its CLOSE is not UTF-8"))?;
        return Ok(Some((u32::from_be_bytes(code), text)));
    }
    Ok(None)
}

/// The bytes inside DATA frames, however they are split.
struct Capsules<S> {
    frames: Frames<S>,
    /// Bytes left in the current frame.
    left: u64,
}

impl<S: AsyncRead + Unpin> Capsules<S> {
    /// Moves to the next byte. False at the end.
    async fn advance(&mut self) -> Result<bool, Trouble> {
        while self.left == 0 {
            match self.frames.next().await? {
                None => return Ok(false),
                Some((DATA, length)) => self.left = length,
                Some((kind, length)) => skip_frame(&mut self.frames, kind, length).await?,
            }
        }
        Ok(true)
    }

    /// Skips bytes, or reads them into `into`.
    async fn take(&mut self, mut length: u64, mut into: Option<&mut [u8]>) -> Result<(), Trouble> {
        let mut at = 0;
        while length > 0 {
            if !self.advance().await? {
                return Err(Fault::new(MESSAGE_ERROR, "a capsule is cut off").into());
            }
            let part = length.min(self.left);
            match &mut into {
                Some(into) => {
                    let end = at + usize::try_from(part).unwrap_or(usize::MAX);
                    self.frames.0.read_exact(&mut into[at..end]).await?;
                    at = end;
                }
                None => self.frames.skip(part).await?,
            }
            self.left -= part;
            length -= part;
        }
        Ok(())
    }

    async fn skip(&mut self, length: u64) -> Result<(), Trouble> {
        self.take(length, None).await
    }

    async fn fill(&mut self, into: &mut [u8]) -> Result<(), Trouble> {
        self.take(into.len() as u64, Some(into)).await
    }

    /// Reads an integer; `None` at the end.
    async fn integer(&mut self) -> Result<Option<u64>, Trouble> {
        // As in `Frames::integer`.
        consume_budget().await;
        if !self.advance().await? {
            return Ok(None);
        }
        let mut bytes = [0; VarInt::MAX_SIZE];
        self.fill(&mut bytes[..1]).await?;
        let length = 1_usize << (bytes[0] >> 6);
        self.fill(&mut bytes[1..length]).await?;
        Ok(VarInt::decode(&mut &bytes[..length]).ok().map(VarInt::into_inner))
    }
}

#[cfg(test)]
mod tests;
