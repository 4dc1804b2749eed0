//! HTTP/3 below a session (RFC 9114): frames, the client's control stream, and the capsules (RFC 9297) on the stream of the
//! request. What a client must not send ends its connection with the code that the RFC names. Knows no connection: streams
//! are anything that can be read.

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

/// Types of frames (section 7.2).
const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const SETTINGS: u64 = 0x04;
const PUSH_PROMISE: u64 = 0x05;
/// HTTP/2's, which must not come (section 7.2.8).
const RESERVED: [u64; 4] = [0x02, 0x06, 0x08, 0x09];
/// Settings of HTTP/2's, likewise (section 7.2.4.1).
const RESERVED_SETTINGS: std::ops::RangeInclusive<u64> = 0x02..=0x05;

/// CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3 section 6).
pub(super) const CLOSE: u64 = 0x2843;
/// Bytes of its code.
pub(super) const CODE_BYTES: usize = 4;
/// Most bytes of its reason.
const REASON_BYTES: u64 = 1024;

/// Most bytes of a request's field section, as the server's settings say.
const FIELD_SECTION_BYTES: u64 = 16 * 1024;
/// Most bytes of a client's settings.
const SETTINGS_BYTES: u64 = 16 * 1024;

/// A client does not keep to HTTP/3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{why}")]
pub(super) struct Fault {
    /// With what its connection is closed.
    pub(super) code: u32,
    pub(super) why: &'static str,
}

impl Fault {
    pub(super) const fn new(code: u32, why: &'static str) -> Self {
        Self { code, why }
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Fault(Fault),
    /// The client gave it up.
    Reset,
    /// Its connection is gone.
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

/// The frames of a stream.
#[derive(Debug)]
pub(super) struct Frames<S>(S);

impl<S: AsyncRead + Unpin> Frames<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(stream)
    }

    /// An integer; `None` where the stream ends before it.
    pub(super) async fn integer(&mut self) -> Result<Option<u64>, Trouble> {
        // Two bytes are a frame, and QUIC's streams alone never give way to the worker's other clients.
        consume_budget().await;
        let mut bytes = [0; VarInt::MAX_SIZE];
        if self.0.read(&mut bytes[..1]).await? == 0 {
            return Ok(None);
        }
        let length = 1_usize << (bytes[0] >> 6);
        self.0.read_exact(&mut bytes[1..length]).await?;
        Ok(VarInt::decode(&mut &bytes[..length]).ok().map(VarInt::into_inner))
    }

    /// The type and length of the next frame, whose payload follows; `None` at the end.
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
        // Nothing is allocated for a length that is only claimed.
        let mut payload = Vec::new();
        if (&mut self.0).take(length).read_to_end(&mut payload).await? as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(payload)
    }

    /// Passes over bytes that mean nothing here.
    async fn skip(&mut self, length: u64) -> Result<(), Trouble> {
        match tokio::io::copy(&mut (&mut self.0).take(length), &mut tokio::io::sink()).await? {
            skipped if skipped == length => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Passes over all that comes, to the end of a stream that must not end.
    pub(super) async fn drain(mut self) -> Trouble {
        match self.skip(u64::MAX).await {
            Err(Trouble::Disconnected) => Trouble::Disconnected,
            // Ended or reset, it is the same.
            _ => Fault::new(CLOSED_CRITICAL_STREAM, "a stream of HTTP/3's own has ended").into(),
        }
    }
}

/// Reads a client's control stream, behind its type, and passes on that its settings have come and are good. Ends with what
/// is wrong.
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
    // Nobody waits any more where the connection is given up.
    let _ = settings.send(());
    while let Some((kind, length)) = frames.next().await? {
        match kind {
            DATA | HEADERS | SETTINGS | PUSH_PROMISE => {
                return Err(Fault::new(FRAME_UNEXPECTED, "a frame on its control stream that must not be there").into());
            }
            reserved if RESERVED.contains(&reserved) => {
                return Err(Fault::new(FRAME_UNEXPECTED, "a frame of HTTP/2's").into());
            }
            _ => frames.skip(length).await?,
        }
    }
    Ok(())
}

/// Holds a client's settings against the rules.
fn judge(settings: &[u8]) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    let mut rest = settings;
    while !rest.is_empty() {
        let (Ok(id), Ok(_)) = (VarInt::decode(&mut rest), VarInt::decode(&mut rest)) else {
            return Err(Fault::new(FRAME_ERROR, "its settings are cut off"));
        };
        let id = id.into_inner();
        if RESERVED_SETTINGS.contains(&id) || !seen.insert(id) {
            return Err(Fault::new(SETTINGS_ERROR, "a setting comes twice, or is HTTP/2's"));
        }
    }
    // As it stands on a control stream.
    let mut stream = vec![0, 0x04];
    VarInt::from_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX)).encode(&mut stream);
    stream.extend_from_slice(settings);
    match Settings::decode(&mut stream.as_slice()) {
        Ok(settings) if settings.supports_webtransport() > 0 => Ok(()),
        _ => Err(Fault::new(GENERAL_PROTOCOL_ERROR, "it has no WebTransport")),
    }
}

/// Reads the field section of a request.
pub(super) async fn request<S: AsyncRead + Unpin>(frames: &mut Frames<S>) -> Result<Vec<u8>, Trouble> {
    while let Some((kind, length)) = frames.next().await? {
        match kind {
            HEADERS => return frames.payload(length, FIELD_SECTION_BYTES).await,
            _ => pass_over(frames, kind, length).await?,
        }
    }
    Err(Fault::new(REQUEST_INCOMPLETE, "its request is not whole").into())
}

/// Passes over a frame on a request's stream, if it may be there.
async fn pass_over<S: AsyncRead + Unpin>(frames: &mut Frames<S>, kind: u64, length: u64) -> Result<(), Trouble> {
    if [DATA, HEADERS, SETTINGS, PUSH_PROMISE, 0x03, 0x07, 0x0d].contains(&kind) || RESERVED.contains(&kind) {
        return Err(Fault::new(FRAME_UNEXPECTED, "a frame on its request that must not be there").into());
    }
    frames.skip(length).await
}

/// Reads the capsules of a session to its end: the code and reason of its CLOSE, `None` where there is none.
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
        let reason = reason.ok_or(malformed("its CLOSE has not the length of one"))?;
        let mut code = [0; CODE_BYTES];
        let mut text = vec![0; usize::try_from(reason).unwrap_or(0)];
        capsules.fill(&mut code).await?;
        capsules.fill(&mut text).await?;
        let text = String::from_utf8(text).map_err(|_| malformed("the reason of its CLOSE is not UTF-8"))?;
        return Ok(Some((u32::from_be_bytes(code), text)));
    }
    Ok(None)
}

/// The bytes inside of DATA frames, however they are cut.
struct Capsules<S> {
    frames: Frames<S>,
    /// Of the frame at hand.
    left: u64,
}

impl<S: AsyncRead + Unpin> Capsules<S> {
    /// Goes to the next byte. False at the end.
    async fn advance(&mut self) -> Result<bool, Trouble> {
        while self.left == 0 {
            match self.frames.next().await? {
                None => return Ok(false),
                Some((DATA, length)) => self.left = length,
                Some((kind, length)) => pass_over(&mut self.frames, kind, length).await?,
            }
        }
        Ok(true)
    }

    /// Passes over bytes, or takes them into `into`.
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

    /// An integer; `None` at the end.
    async fn integer(&mut self) -> Result<Option<u64>, Trouble> {
        // As with frames.
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
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// ENABLE_CONNECT_PROTOCOL, H3_DATAGRAM, and sessions.
    const GOOD: &[u8] =
        &[0x08, 0x01, 0x33, 0x01, 0x80 | 0x2b, 0x60, 0x37, 0x42, 0x01, 0xc0, 0, 0, 0, 0xc6, 0x71, 0x70, 0x6a, 0x01];

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short") | 0x4000;
        [&[kind][..], &length.to_be_bytes(), payload].concat()
    }

    /// What ends a control stream, and whether its settings were taken before.
    fn controlled(stream: &[&[u8]]) -> (Trouble, bool) {
        let (taken, mut told) = oneshot::channel();
        let trouble = control(stream.concat().as_slice(), taken).now_or_never().expect("all of it is there");
        (trouble, told.try_recv().is_ok())
    }

    fn code(trouble: Trouble) -> u32 {
        match trouble {
            Trouble::Fault(fault) => fault.code,
            other => panic!("nothing is gone: {other:?}"),
        }
    }

    #[test]
    fn a_control_stream_begins_with_settings_and_has_nothing_of_a_request() {
        let settings = frame(0x04, GOOD);
        for (stream, expected) in [
            (vec![&settings[..]], (CLOSED_CRITICAL_STREAM, true)),
            // GOAWAY, and an unknown frame.
            (vec![&settings, &frame(0x07, &[0]), &frame(0x21, b"grease")], (CLOSED_CRITICAL_STREAM, true)),
            (vec![&settings, &settings], (FRAME_UNEXPECTED, true)),
            (vec![&settings, &frame(0x00, b"data")], (FRAME_UNEXPECTED, true)),
            (vec![&settings, &frame(0x01, b"headers")], (FRAME_UNEXPECTED, true)),
            (vec![&settings, &frame(0x08, b"")], (FRAME_UNEXPECTED, true)),
            (vec![&settings, &settings[..5]], (FRAME_UNEXPECTED, true)),
            (vec![&settings, &[0x21, 0x05, 1]], (FRAME_ERROR, true)),
            (vec![&settings[..9]], (FRAME_ERROR, false)),
            (vec![&frame(0x00, b"data"), &settings], (MISSING_SETTINGS, false)),
            (vec![], (MISSING_SETTINGS, false)),
            (vec![&frame(0x04, &[GOOD, GOOD].concat())], (SETTINGS_ERROR, false)),
            (vec![&frame(0x04, &[GOOD, &[0x03, 0x00]].concat())], (SETTINGS_ERROR, false)),
            (vec![&frame(0x04, &[0x08])], (FRAME_ERROR, false)),
            (vec![&frame(0x04, &[])], (GENERAL_PROTOCOL_ERROR, false)),
            (vec![&[0x04, 0x80, 0x10, 0x00, 0x00]], (EXCESSIVE_LOAD, false)),
        ] {
            let (trouble, taken) = controlled(&stream);
            assert_eq!((code(trouble), taken), expected, "{stream:?}: {trouble:?}");
        }
    }

    #[test]
    fn a_request_is_the_first_frame_that_is_known() {
        let read = |stream: &[u8]| request(&mut Frames::new(stream)).now_or_never().expect("all of it is there");
        assert_eq!(read(&[frame(0x21, b"grease"), frame(0x01, b"fields")].concat()), Ok(b"fields".to_vec()));
        for (stream, expected) in [
            (frame(0x00, b"data"), FRAME_UNEXPECTED),
            (frame(0x04, b""), FRAME_UNEXPECTED),
            (frame(0x21, b""), REQUEST_INCOMPLETE),
            (frame(0x01, b"fields")[..6].to_vec(), FRAME_ERROR),
            (vec![0x01, 0x80, 0x01, 0x00, 0x00], EXCESSIVE_LOAD),
        ] {
            assert_eq!(code(read(&stream).expect_err("no request")), expected, "{stream:?}");
        }
    }

    fn capsule(kind: &[u8], payload: &[u8]) -> Vec<u8> {
        [kind, &[u8::try_from(payload.len()).expect("short")], payload].concat()
    }

    const CLOSING: &[u8] = &[0x68, 0x43];

    fn closed(stream: &[u8]) -> Result<Option<(u32, String)>, Trouble> {
        closing(Frames::new(stream)).now_or_never().expect("all of it is there")
    }

    #[test]
    fn a_close_is_found_however_it_is_cut() {
        let close = capsule(CLOSING, b"\0\0\x03\xe8done");
        let expected = Ok(Some((1000, "done".to_owned())));
        assert_eq!(closed(&frame(0, &close)), expected);
        let by_bytes: Vec<u8> = close.iter().flat_map(|byte| frame(0, &[*byte])).collect();
        assert_eq!(closed(&by_bytes), expected);
        let behind = [capsule(&[0x17], b"grease"), capsule(&[0x00], b"a datagram"), close.clone()].concat();
        assert_eq!(closed(&[frame(0x21, b"grease"), frame(0, b""), frame(0, &behind)].concat()), expected);
        assert_eq!(closed(&frame(0, &capsule(CLOSING, &[0; 4]))), Ok(Some((0, String::new()))));
        assert_eq!(closed(&[]), Ok(None));
        assert_eq!(closed(&frame(0, &capsule(&[0x17], b"grease"))), Ok(None));
    }

    /// How often another task had its turn while a stream was read to its end.
    fn turns_beside(reads: impl Future + Send + 'static) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let reading = tokio::spawn(async { drop(reads.await) });
            let mut turns = 0;
            while !reading.is_finished() {
                turns += 1;
                tokio::task::yield_now().await;
            }
            turns
        })
    }

    #[test]
    fn a_flood_of_small_frames_or_capsules_leaves_others_their_turns() {
        let frames = [0x21, 0x00].repeat(20_000);
        let on_control = [frame(0x04, GOOD), frames.clone()].concat();
        let (taken, _told) = oneshot::channel();
        let capsules = frame(0, &[0x17, 0x00].repeat(5000));
        for (what, turns) in [
            ("frames on the control stream", turns_beside(async move { control(on_control.as_slice(), taken).await })),
            ("frames on the request", {
                turns_beside(async move { request(&mut Frames::new(frames.as_slice())).await })
            }),
            ("empty DATA", turns_beside(async { closing(Frames::new([0x00, 0x00].repeat(20_000).as_slice())).await })),
            ("capsules", turns_beside(async move { closing(Frames::new(capsules.as_slice())).await })),
        ] {
            assert!(turns > 20, "{what}: {turns} turns");
        }
    }

    #[test]
    fn what_is_no_capsule_is_told_at_once() {
        let long = [CLOSING, &[0x44, 0x05], &[0; 4], &[b'x'; 1025]].concat();
        for (stream, expected) in [
            (frame(0, &capsule(CLOSING, &[0; 2])), MESSAGE_ERROR),
            (frame(0, &long), MESSAGE_ERROR),
            (frame(0, &capsule(CLOSING, b"\0\0\0\0\xff")), MESSAGE_ERROR),
            (frame(0, &capsule(CLOSING, b"\0\0\x03\xe8done")[..5]), MESSAGE_ERROR),
            (frame(0, CLOSING), MESSAGE_ERROR),
            (frame(0x01, b"trailers"), FRAME_UNEXPECTED),
            (frame(0x04, b""), FRAME_UNEXPECTED),
            (frame(0, b"xyz")[..4].to_vec(), FRAME_ERROR),
        ] {
            assert_eq!(code(closed(&stream).expect_err("no capsule")), expected, "{stream:?}");
        }
    }
}
