//! Compressed bodies: zstd and deflate, each with bounded memory and work for what a peer sends.

use std::cell::RefCell;
use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, create_comp_flags_from_zip_params};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, inflate_flags};
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use super::{BodyError, DEFLATE, FrameError, PREFIX_BYTES, ZSTD, exact};

/// Largest zstd window that a peer may make this side allocate, as a power of two (8 MiB: RFC 8878 section 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 23;
/// Compression level: the fastest of the regular ones.
const ZSTD_LEVEL: i32 = 1;

/// Compression level: on text it saves a fifth over the fastest one, for a sixth more time.
const DEFLATE_LEVEL: i32 = 2;
/// Blocks that any deflate stream may have. Each can carry new code tables (RFC 1951 section 3.2.7), which take longer
/// to build than the 12 bytes that describe them take to arrive.
const DEFLATE_BLOCKS: usize = 64;
/// Bytes of output that allow for one block more. Usual encoders begin a block every 5,000 bytes or later.
const DEFLATE_BLOCK_BYTES: usize = 1024;

/// Largest output buffer that a thread keeps for later compression, in bytes.
const KEPT_OUTPUT_BYTES: usize = 2 << 20;

/// The compression that the handshake has agreed on: either side may send any body compressed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None: all bodies are uncompressed.
    #[default]
    None,
    /// zstd: one frame (RFC 8878).
    Zstd,
    /// Deflate: one raw stream (RFC 1951). Browsers have it built in.
    Deflate,
}

impl Compression {
    /// Its name in the handshake, or "none".
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    /// The compression with this name in the handshake; [`None`](Self::None) for any other name.
    pub fn from_name(name: &str) -> Self {
        [Self::Zstd, Self::Deflate].into_iter().find(|form| form.name() == name).unwrap_or_default()
    }

    /// Whether bodies may be compressed.
    pub fn is_some(self) -> bool {
        self != Self::None
    }

    pub(super) fn broken(self, reason: impl Into<String>) -> BodyError {
        BodyError::Compressed { form: self.name(), reason: reason.into() }
    }
}

/// The compressions that a client offers in its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressionOffer {
    /// Whether zstd is among them.
    pub zstd: bool,
    /// Whether deflate is among them.
    pub deflate: bool,
}

impl CompressionOffer {
    /// The names of the offered compressions.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let offered = [(self.zstd, Compression::Zstd), (self.deflate, Compression::Deflate)];
        offered.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, form)| form.name())
    }

    /// Adds the compression with this name, if there is one.
    pub fn add(&mut self, name: &str) {
        match Compression::from_name(name) {
            Compression::None => {}
            Compression::Zstd => self.zstd = true,
            Compression::Deflate => self.deflate = true,
        }
    }

    /// The compression that a server uses: zstd if it is offered, because it is faster and smaller.
    pub fn choose(self) -> Compression {
        match self {
            Self { zstd: true, .. } => Compression::Zstd,
            Self { deflate: true, .. } => Compression::Deflate,
            _ => Compression::None,
        }
    }
}

/// Decompresses what follows the first byte of a body, to at most `max` bytes. Memory grows with the output, so a
/// decompression bomb costs at most the limit.
pub(super) fn inflate(packed: &[u8], form: Compression, max: usize) -> Result<Bytes, BodyError> {
    match form {
        Compression::None => Ok(Bytes::copy_from_slice(packed)),
        Compression::Zstd => inflate_zstd(packed, max),
        Compression::Deflate => inflate_deflate(packed, max),
    }
}

fn inflate_zstd(frame: &[u8], max: usize) -> Result<Bytes, BodyError> {
    let broken = |e: std::io::Error| Compression::Zstd.broken(format!("cannot be inflated: {e}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(broken)?.single_frame();
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
    let mut out = Vec::with_capacity(max.min(frame.len().saturating_mul(4)));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(limit).read_to_end(&mut out).map_err(broken)?;
    if out.len() > max {
        return Err(FrameError::TooBig { max }.into());
    }
    if !decoder.finish().is_empty() {
        return Err(Compression::Zstd.broken("bytes after the end of the zstd frame"));
    }
    Ok(out.into())
}

thread_local! {
    /// A thread's decoder for deflate: 10 KiB of tables.
    static INFLATER: RefCell<Option<Box<DecompressorOxide>>> = const { RefCell::new(None) };
}

fn inflate_deflate(stream: &[u8], max: usize) -> Result<Bytes, BodyError> {
    // Not reentrant, and no thread decompresses while it is shut down.
    let inflated = INFLATER.try_with(|inflater| {
        let mut inflater = inflater.try_borrow_mut().ok()?;
        let inflater = inflater.get_or_insert_with(Box::default);
        inflater.init();
        Some(inflate_with(inflater, stream, max))
    });
    inflated.ok().flatten().unwrap_or_else(|| Err(Compression::Deflate.broken("its decoder is in use")))
}

fn inflate_with(inflater: &mut DecompressorOxide, stream: &[u8], max: usize) -> Result<Bytes, BodyError> {
    const FLAGS: u32 =
        inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | inflate_flags::TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
    let broken = |reason: &str| Compression::Deflate.broken(reason);
    // One byte more than allowed shows that there are more.
    let most = max.saturating_add(1);
    let (mut out, mut written, mut blocks) = (vec![0; most.min(stream.len().saturating_mul(4))], 0, 0);
    let mut rest = stream;
    loop {
        let (status, read, more) = miniz_oxide::inflate::core::decompress(inflater, rest, &mut out, written, FLAGS);
        rest = rest.get(read..).unwrap_or_default();
        written += more;
        if written > max {
            return Err(FrameError::TooBig { max }.into());
        }
        match status {
            TINFLStatus::Done if rest.is_empty() => break,
            TINFLStatus::Done => return Err(broken("bytes after the end of the deflate stream")),
            TINFLStatus::HasMoreOutput if out.len() < most => {
                out.resize(most.min(out.len().saturating_mul(2).max(RESERVE)), 0);
            }
            TINFLStatus::HasMoreOutput => return Err(FrameError::TooBig { max }.into()),
            TINFLStatus::BlockBoundary => {
                blocks += 1;
                if blocks > DEFLATE_BLOCKS + written / DEFLATE_BLOCK_BYTES {
                    return Err(broken("more blocks than one for each KiB that it inflates to, and 64"));
                }
            }
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                return Err(broken("cannot be inflated: the deflate stream is cut off"));
            }
            _ => return Err(broken("cannot be inflated: no deflate stream (RFC 1951, without a header)")),
        }
    }
    out.truncate(written);
    Ok(out.into())
}

/// Smallest growth of the output, in bytes.
const RESERVE: usize = 4096;

/// A thread's compressors, each made when it is first used. Their tables take about a megabyte for zstd and a third of
/// it for deflate, and creating them costs more than compressing most bodies.
#[derive(Default)]
struct Packer {
    zstd: Option<Compressor<'static>>,
    deflate: Option<Box<CompressorOxide>>,
    output: Vec<u8>,
}

thread_local! {
    static PACKER: RefCell<Packer> = RefCell::new(Packer::default());
}

/// Compresses a frame made by [`put_frame`](super::put_frame), into an allocation of exactly its length. `None` if it
/// would not become smaller.
pub fn compress(frame: &[u8], form: Compression) -> Option<Bytes> {
    let body = frame.get(PREFIX_BYTES..)?;
    // Not reentrant, and no thread compresses while it is shut down.
    PACKER.try_with(|packer| packer.try_borrow_mut().ok().and_then(|mut packer| packer.pack(body, form))).ok()?
}

impl Packer {
    fn pack(&mut self, body: &[u8], form: Compression) -> Option<Bytes> {
        let (first, packed) = match form {
            Compression::None => return None,
            Compression::Zstd => (ZSTD, self.zstd(body)),
            Compression::Deflate => (DEFLATE, self.deflate(body)),
        };
        let framed = packed.filter(|packed| packed + 1 < body.len()).and_then(|packed| {
            let mut out = BytesMut::with_capacity(PREFIX_BYTES + 1 + packed);
            out.put_u32(u32::try_from(packed + 1).ok()?);
            out.put_u8(first);
            out.put_slice(self.output.get(..packed)?);
            Some(exact(out))
        });
        if self.output.capacity() > KEPT_OUTPUT_BYTES {
            self.output = Vec::new();
        }
        framed
    }

    /// Compresses into the output; returns how many bytes of it that took.
    fn zstd(&mut self, body: &[u8]) -> Option<usize> {
        let compressor = match &mut self.zstd {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(ZSTD_LEVEL).ok()?),
        };
        self.output.clear();
        self.output.reserve(compress_bound(body.len()));
        compressor.compress_to_buffer(body, &mut self.output).ok()
    }

    fn deflate(&mut self, body: &[u8]) -> Option<usize> {
        /// No zlib header, and the window of the format, 32 KiB.
        const RAW: i32 = -15;
        const FLAGS: u32 = create_comp_flags_from_zip_params(DEFLATE_LEVEL, RAW, 0);
        let compressor = self.deflate.get_or_insert_with(|| Box::new(CompressorOxide::new(FLAGS)));
        compressor.reset();
        // Room for what is worth sending: if it does not suffice, the body does not become smaller.
        if self.output.len() < body.len() {
            self.output.resize(body.len(), 0);
        }
        let room = self.output.get_mut(..body.len())?;
        let (status, _, packed) = miniz_oxide::deflate::core::compress(compressor, body, room, TDEFLFlush::Finish);
        (status == TDEFLStatus::Done).then_some(packed)
    }
}
